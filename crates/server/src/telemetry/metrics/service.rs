//! The names that the requirements give, by the service that they tell of: this server, or an upstream of its gateway.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use semel_core::RecordId;

use super::traced::{TraceId, TracedDurations, TracedFamily};
use super::{Exemplified, follow};

/// What is counted of one service: the handle to find once and keep.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    hits: Counter,
    misses: Counter,
    mismatches: Exemplified,
    collisions: Counter,
    lock_acquisition: TracedDurations,
}

/// The same of all services. They are configured, so there are few.
#[derive(Debug)]
pub(super) struct Services {
    hits: Family<ServiceLabels, Counter>,
    misses: Family<ServiceLabels, Counter>,
    mismatches: Family<ServiceLabels, Exemplified>,
    collisions: Family<ServiceLabels, Counter>,
    storage_errors: Family<ServiceLabels, Counter>,
    locks: Arc<TracedFamily>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: Arc<str>,
}

impl Services {
    pub(super) fn new() -> Self {
        Self {
            hits: Family::default(),
            misses: Family::default(),
            mismatches: Family::default(),
            collisions: Family::default(),
            storage_errors: Family::default(),
            locks: Arc::new(TracedFamily::new(
                "idempotency_lock_acquisition_duration_seconds",
                "From asking for a claim to its answer, the store's sync included",
            )),
        }
    }

    /// The handle of a service, whose series begin at 0.
    pub(super) fn of(&self, service: &str) -> ServiceMetrics {
        let labels = ServiceLabels { service: service.into() };
        ServiceMetrics {
            hits: self.hits.get_or_create_owned(&labels),
            misses: self.misses.get_or_create_owned(&labels),
            mismatches: self.mismatches.get_or_create_owned(&labels),
            collisions: self.collisions.get_or_create_owned(&labels),
            lock_acquisition: self.locks.get_or_create(&[("service", service)]),
        }
    }

    /// The failed calls of a service's store. All upstreams share one, which is the server's.
    pub(super) fn storage_errors(&self, service: &str) -> Counter {
        self.storage_errors.get_or_create_owned(&ServiceLabels { service: service.into() })
    }

    /// The histograms, which are written below the registry.
    pub(super) fn locks(&self) -> &Arc<TracedFamily> {
        &self.locks
    }

    /// Registers all but the histograms, where no other label `service` is added.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("idempotency_hits", "Requests answered with a stored outcome", self.hits.clone());
        registry.register("idempotency_misses", "Requests whose operation was run", self.misses.clone());
        registry.register(
            "idempotency_parameter_mismatches",
            "Requests that used a key again with other parameters",
            self.mismatches.clone(),
        );
        registry.register(
            "idempotency_concurrent_collisions",
            "Requests whose key was being worked on",
            self.collisions.clone(),
        );
        registry.register(
            "idempotency_storage_errors",
            "Calls of the store that failed",
            self.storage_errors.clone(),
        );
    }
}

impl ServiceMetrics {
    /// A claim was asked for, and answered so long after, whatever the answer, as a part of this trace.
    pub fn lock_acquired(&self, took: Duration, trace: Option<TraceId>) {
        self.lock_acquisition.observe(took, trace);
    }

    /// A request was answered with a stored outcome.
    pub fn hit(&self) {
        self.hits.inc();
    }

    /// A request's operation was run, or taken in.
    pub fn miss(&self) {
        self.misses.inc();
    }

    /// A request's key was being worked on.
    pub fn collision(&self) {
        self.collisions.inc();
    }

    /// A request used a key again with other parameters.
    pub fn mismatch(&self, record: RecordId) {
        self.mismatches.inc_by(1, Some(follow(record)), None);
    }
}

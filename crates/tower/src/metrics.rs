//! The metrics of the contract, for a registry of prometheus-client.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use semel_core::ledger::LedgerError;

use crate::observe::{Event, Observer, What};

/// Counts what the layer does, under the names of the contract: `idempotency_hits_total`, `idempotency_misses_total`,
/// `idempotency_parameter_mismatches_total`, `idempotency_concurrent_collisions_total`,
/// `idempotency_storage_errors_total`, `idempotency_lock_acquisition_duration_seconds`; and, for report mode,
/// `semel_report_total` by route and by what would have happened. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    hits: Counter,
    misses: Counter,
    mismatches: Counter,
    collisions: Counter,
    storage_errors: Counter,
    heartbeat_errors: Counter,
    unknown: Counter,
    fenced: Counter,
    lock_acquisition: Histogram,
    reports: Family<ReportLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    route: String,
    would: &'static str,
}

/// From 100 µs to 10 s.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics in this registry, with the label `service`.
    pub fn new(registry: &mut Registry, service: &str) -> Self {
        let service = ("service".into(), service.to_owned().into());
        let registry = registry.sub_registry_with_label(service);
        let inner = Inner {
            hits: Counter::default(),
            misses: Counter::default(),
            mismatches: Counter::default(),
            collisions: Counter::default(),
            storage_errors: Counter::default(),
            heartbeat_errors: Counter::default(),
            unknown: Counter::default(),
            fenced: Counter::default(),
            lock_acquisition: Histogram::new(SECONDS),
            reports: Family::default(),
        };
        inner.register(registry);
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("idempotency_hits", "Requests answered with a stored outcome", &self.hits),
            ("idempotency_misses", "Requests whose operation was run", &self.misses),
            (
                "idempotency_parameter_mismatches",
                "Requests that used a key again with other parameters",
                &self.mismatches,
            ),
            ("idempotency_concurrent_collisions", "Requests whose key was being worked on", &self.collisions),
            ("idempotency_storage_errors", "Calls of the store that failed", &self.storage_errors),
            ("semel_heartbeat_errors", "Heartbeats that could not be sent", &self.heartbeat_errors),
            ("semel_unknown", "Attempts of which nobody knows what they did", &self.unknown),
            ("semel_fenced", "Attempts that came too late: their claim was another's", &self.fenced),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "idempotency_lock_acquisition_duration_seconds",
            "From asking for a claim to its answer",
            self.lock_acquisition.clone(),
        );
        registry.register(
            "semel_report",
            "What would have happened to requests in report mode",
            self.reports.clone(),
        );
    }
}

/// What report mode says would have happened; nothing, where that is said by another event.
const fn would(what: What) -> Option<&'static str> {
    match what {
        What::Claimed { .. } => Some("run"),
        What::Replayed | What::Gone | What::Discarded => Some("replay"),
        What::Busy => Some("in_progress"),
        What::Mismatch => Some("mismatch"),
        What::RefusedUnknown => Some("unknown"),
        What::RefusedDead => Some("dead"),
        What::KeyMissing => Some("key_missing"),
        What::KeyInvalid => Some("key_invalid"),
        What::Refused => Some("refused"),
        What::Found { .. } | What::Completed | What::Released | What::Unknown | What::Fenced => None,
    }
}

impl Observer for Metrics {
    fn happened(&self, event: &Event<'_>) {
        let inner = &*self.0;
        if !event.enforced {
            if let Some(would) = would(event.what) {
                let labels = ReportLabels { route: event.route.to_owned(), would };
                inner.reports.get_or_create(&labels).inc();
            }
            return;
        }
        match event.what {
            What::Claimed { after, .. } => {
                inner.misses.inc();
                inner.lock_acquisition.observe(after.as_secs_f64());
            }
            What::Found { after } => inner.lock_acquisition.observe(after.as_secs_f64()),
            What::Replayed | What::Gone | What::Discarded => {
                inner.hits.inc();
            }
            What::Busy => {
                inner.collisions.inc();
            }
            What::Mismatch => {
                inner.mismatches.inc();
            }
            What::Unknown => {
                inner.unknown.inc();
            }
            What::Fenced => {
                inner.fenced.inc();
            }
            // Refusals are the service's to count, by their status; the ends of attempts are no requests.
            What::RefusedUnknown
            | What::RefusedDead
            | What::KeyMissing
            | What::KeyInvalid
            | What::Refused
            | What::Completed
            | What::Released => {}
        }
    }

    fn storage_failed(&self, _: &LedgerError) {
        self.0.storage_errors.inc();
    }

    fn heartbeat_failed(&self, _: &LedgerError) {
        self.0.heartbeat_errors.inc();
    }
}

//! The metrics of the contract, for a registry of prometheus-client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use semel_core::Record;
use semel_core::ledger::LedgerError;
use semel_core::record::{State, Why};

use crate::observe::{Event, Observer, What};

/// Counts what the layer does, under the names of the contract: `idempotency_hits_total`, `idempotency_misses_total`,
/// `idempotency_parameter_mismatches_total`, `idempotency_concurrent_collisions_total`,
/// `idempotency_storage_errors_total`, `idempotency_lock_acquisition_duration_seconds`. And under the names that the
/// server has for the same: `semel_keys_total` by route, for adoption; `semel_reports_total` by route, for report
/// mode; `semel_duplicates_total` by what they were told; `semel_outcomes_unknown_total`, `semel_fenced_writes_total`
/// and `semel_heartbeats_failed_total`.
///
/// All of them carry `service`: the name of the layer's [`Config`](crate::Config). Clones are the same metrics, and
/// the layers of several services may share them.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
    /// For whoever tells them without a layer.
    unnamed: Arc<OnceLock<OfService>>,
}

/// One family for all services.
struct Families {
    hits: Family<ServiceLabels, Counter>,
    misses: Family<ServiceLabels, Counter>,
    mismatches: Family<ServiceLabels, Counter>,
    collisions: Family<ServiceLabels, Counter>,
    storage_errors: Family<ServiceLabels, Counter>,
    heartbeats_failed: Family<ServiceLabels, Counter>,
    fenced: Family<ServiceLabels, Counter>,
    lock_acquisition: Family<ServiceLabels, Histogram>,
    unknown: Family<WhyLabels, Counter>,
    duplicates: Family<DuplicateLabels, Counter>,
    keys: Family<KeyLabels, Counter>,
    reports: Family<ReportLabels, Counter>,
}

/// What one service's layer counts, found once.
struct OfService {
    service: Arc<str>,
    families: Arc<Families>,
    hits: Counter,
    misses: Counter,
    mismatches: Counter,
    collisions: Counter,
    storage_errors: Counter,
    heartbeats_failed: Counter,
    fenced: Counter,
    lock_acquisition: Histogram,
    /// The counters of routes' keys, by a name that need not be owned to be looked for.
    routes: RwLock<BTreeMap<Box<str>, RouteKeys>>,
}

#[derive(Clone)]
struct RouteKeys {
    present: Counter,
    missing: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    service: Arc<str>,
    route: String,
    key: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    service: Arc<str>,
    route: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DuplicateLabels {
    service: Arc<str>,
    door: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabels {
    service: Arc<str>,
    why: &'static str,
}

/// From 100 µs to 10 s.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics in this registry.
    pub fn new(registry: &mut Registry) -> Self {
        let families = Families::new();
        families.register(registry);
        Self { families: Arc::new(families), unnamed: Arc::default() }
    }

    fn of(&self, service: &str) -> OfService {
        let families = &self.families;
        let service: Arc<str> = service.into();
        let labels = ServiceLabels { service: Arc::clone(&service) };
        let counter = |family: &Family<ServiceLabels, Counter>| family.get_or_create_owned(&labels);
        // What alerts watch stands at 0 from the start: a series that begins with its first event shows no increase.
        for why in Why::ALL {
            let labels = WhyLabels { service: Arc::clone(&service), why: why.as_str() };
            families.unknown.get_or_create_owned(&labels);
        }
        OfService {
            hits: counter(&families.hits),
            misses: counter(&families.misses),
            mismatches: counter(&families.mismatches),
            collisions: counter(&families.collisions),
            storage_errors: counter(&families.storage_errors),
            heartbeats_failed: counter(&families.heartbeats_failed),
            fenced: counter(&families.fenced),
            lock_acquisition: families.lock_acquisition.get_or_create_owned(&labels),
            routes: RwLock::default(),
            families: Arc::clone(families),
            service,
        }
    }

    /// What is counted for nobody in particular has the name that the server has without one.
    fn unnamed(&self) -> &OfService {
        self.unnamed.get_or_init(|| self.of("semel"))
    }
}

impl Families {
    fn new() -> Self {
        Self {
            hits: Family::default(),
            misses: Family::default(),
            mismatches: Family::default(),
            collisions: Family::default(),
            storage_errors: Family::default(),
            heartbeats_failed: Family::default(),
            fenced: Family::default(),
            lock_acquisition: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            unknown: Family::default(),
            duplicates: Family::default(),
            keys: Family::default(),
            reports: Family::default(),
        }
    }

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
            (
                "semel_heartbeats_failed",
                "Heartbeats of this process's own leases that the store did not answer, or not in time",
                &self.heartbeats_failed,
            ),
            (
                "semel_fenced_writes",
                "Commands refused since their token is wrong, stale or spent",
                &self.fenced,
            ),
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
            "semel_outcomes_unknown",
            "Outcomes that became unknown, and why",
            self.unknown.clone(),
        );
        registry.register(
            "semel_duplicates",
            "Requests for a key that was asked for before, by door and what they were told",
            self.duplicates.clone(),
        );
        registry.register(
            "semel_keys",
            "Requests that a contract holds for, by route and whether they have a key",
            self.keys.clone(),
        );
        registry.register(
            "semel_reports",
            "What would have happened to requests on routes in report mode",
            self.reports.clone(),
        );
    }
}

impl OfService {
    /// A request came under the rule of a route.
    fn asked(&self, route: &str, keyed: bool) {
        let count = |keys: &RouteKeys| if keyed { keys.present.inc() } else { keys.missing.inc() };
        if let Some(keys) = self.routes.read().get(route) {
            count(keys);
            return;
        }
        let counter = |key| {
            let labels = KeyLabels { service: Arc::clone(&self.service), route: route.to_owned(), key };
            self.families.keys.get_or_create_owned(&labels)
        };
        let keys = RouteKeys { present: counter("present"), missing: counter("missing") };
        count(self.routes.write().entry(route.into()).or_insert(keys));
    }

    fn met(&self, reason: &'static str) {
        let labels = DuplicateLabels { service: Arc::clone(&self.service), door: "middleware", reason };
        self.families.duplicates.get_or_create(&labels).inc();
    }

    fn became_unknown(&self, record: Option<&Arc<Record>>) {
        let why = match record.map(|record| record.state()) {
            Some(State::Unknown { why, .. }) => *why,
            _ => Why::WorkAbandoned,
        };
        let labels = WhyLabels { service: Arc::clone(&self.service), why: why.as_str() };
        self.families.unknown.get_or_create(&labels).inc();
    }
}

/// What report mode says would have happened; nothing, where that is said by another event.
const fn would(what: What) -> Option<&'static str> {
    match what {
        What::Claimed { .. } => Some("run"),
        What::Replayed | What::Gone | What::Discarded => Some("replayed"),
        What::Busy => Some("in_progress"),
        What::Mismatch => Some("mismatch"),
        What::RefusedUnknown | What::RefusedDead => Some("unknown"),
        What::KeyMissing => Some("key_missing"),
        What::KeyInvalid => Some("key_invalid"),
        What::Refused => Some("refused"),
        What::Asked { .. }
        | What::Found { .. }
        | What::Completed
        | What::Released
        | What::Unknown
        | What::Fenced => None,
    }
}

/// What a request was told whose key had been asked for before.
const fn told(what: What) -> Option<&'static str> {
    match what {
        What::Replayed => Some("replayed"),
        What::Gone => Some("gone"),
        What::Discarded => Some("discarded"),
        What::Busy => Some("in_progress"),
        What::Mismatch => Some("mismatch"),
        What::RefusedUnknown => Some("unknown"),
        What::RefusedDead => Some("dead"),
        _ => None,
    }
}

impl Observer for OfService {
    fn happened(&self, event: &Event<'_>) {
        if let What::Asked { keyed } = event.what {
            return self.asked(event.route, keyed);
        }
        if !event.enforced {
            if let Some(result) = would(event.what) {
                let service = Arc::clone(&self.service);
                let labels = ReportLabels { service, route: event.route.to_owned(), result };
                self.families.reports.get_or_create(&labels).inc();
            }
            return;
        }
        if let Some(reason) = told(event.what) {
            self.met(reason);
        }
        match event.what {
            What::Claimed { after, .. } => {
                self.misses.inc();
                self.lock_acquisition.observe(after.as_secs_f64());
            }
            What::Found { after } => self.lock_acquisition.observe(after.as_secs_f64()),
            What::Replayed | What::Gone | What::Discarded => {
                self.hits.inc();
            }
            What::Busy => {
                self.collisions.inc();
            }
            What::Mismatch => {
                self.mismatches.inc();
            }
            What::Unknown => self.became_unknown(event.record),
            What::Fenced => {
                self.fenced.inc();
            }
            // Refusals are the service's to count, by their status; the ends of attempts are no requests.
            What::Asked { .. }
            | What::RefusedUnknown
            | What::RefusedDead
            | What::KeyMissing
            | What::KeyInvalid
            | What::Refused
            | What::Completed
            | What::Released => {}
        }
    }

    fn storage_failed(&self, _: &LedgerError) {
        self.storage_errors.inc();
    }

    fn heartbeat_failed(&self, _: &LedgerError) {
        self.heartbeats_failed.inc();
    }
}

impl Observer for Metrics {
    fn of_service(&self, service: &str) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(self.of(service)))
    }

    fn happened(&self, event: &Event<'_>) {
        self.unnamed().happened(event);
    }

    fn storage_failed(&self, error: &LedgerError) {
        self.unnamed().storage_failed(error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        self.unnamed().heartbeat_failed(error);
    }
}

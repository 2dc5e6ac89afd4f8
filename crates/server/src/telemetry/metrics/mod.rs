//! What is counted and measured, and how a scrape reads it.
//!
//! The names without a prefix are those that the requirements and the design give; all others begin with `semel_`.
//! Labels are bounded: an operation's name stands in a label only if it is configured, and neither keys nor ids ever
//! do. What somebody will want to follow up (a mismatch, an unknown outcome, a dead letter, a fenced write) carries
//! the record's id as an exemplar; the buckets of requests' and claims' durations carry a trace's.
//!
//! Counting is cheap: a handle is found once, when a configuration is loaded, and from then on each count is one or
//! two additions without a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use semel_core::query::Count;
use semel_core::record::{StateName, Why};
use semel_core::{Operation, RecordId, Store};

mod deliveries;
mod families;
mod gateway;
mod histogram;
mod jobs;
mod labels;
mod process;
mod registry;
mod service;
mod traced;
mod webhooks;

pub use deliveries::DeliveryMetrics;
pub use families::OperationMetrics;
pub use gateway::{GatewayMetrics, RouteKeys};
pub use histogram::{Durations, Sizes};
pub use labels::{Door, Reason, ReportResult, StatusClass, StoreCall};
pub use service::ServiceMetrics;
pub use traced::TraceId;
pub use webhooks::{SourceMetrics, SourceVerdict};

use families::Families;
use labels::{DuplicateLabels, ErrorLabels, RecordLabels, StateLabels, StoreLabels, WhyLabels};
use service::Services;
use webhooks::WebhookMetrics;

/// The media type of a scrape.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label `service` where nobody has named the service.
const UNNAMED: &str = "semel";

/// What an operation is called in labels when it is not configured.
const OTHER: &str = "other";

type Exemplified = CounterWithExemplar<Vec<(&'static str, String)>>;

/// Every metric. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    service: Box<str>,
    registry: Registry,
    families: Families,
    jobs: jobs::JobFamily,
    operations: RwLock<HashMap<Box<str>, Arc<OperationMetrics>>>,
    other: Arc<OperationMetrics>,
    services: Services,
    own: Arc<ServiceMetrics>,
    storage_errors: Counter,
    duplicates: [[OnceLock<Counter>; Reason::ALL.len()]; Door::ALL.len()],
    lapsed: Exemplified,
    fenced: Exemplified,
    heartbeats_failed: Counter,
    unknown: [OnceLock<Exemplified>; Why::ALL.len()],
    dead: Exemplified,
    states: [Counter; StateName::ALL.len()],
    store_calls: [OnceLock<Durations>; StoreCall::ALL.len()],
    store_batches: Sizes,
    gateway: GatewayMetrics,
    webhooks: WebhookMetrics,
    #[cfg(feature = "kafka")]
    consumers: std::sync::OnceLock<semel_kafka::Metrics>,
    deliveries: DeliveryMetrics,
    audit_dropped: Counter,
    audit_written: Counter,
    log_dropped: Counter,
    records: Family<RecordLabels, Gauge>,
    oldest_pending: Gauge<f64, AtomicU64>,
    /// One scrape at a time: what is gathered for one must not be read half by another.
    scrape: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics of the service of this name, with a handle for each configured operation.
    pub fn new<'a>(service: &str, operations: impl IntoIterator<Item = &'a Operation>) -> Self {
        Self::with_log_drops(service, operations, Counter::default())
    }

    /// As [`new`](Self::new), with the count of lines that the log's writer has dropped.
    pub fn with_log_drops<'a>(
        service: &str,
        operations: impl IntoIterator<Item = &'a Operation>,
        log_dropped: Counter,
    ) -> Self {
        let families = Families::new();
        families.begin_at_zero();
        let services = Services::new();
        let other = Arc::new(OperationMetrics::new(OTHER, &families));
        let states = StateName::ALL
            .map(|state| families.states.get_or_create_owned(&StateLabels { state: state.as_str() }));
        let mut inner = Inner {
            service: service.into(),
            registry: Registry::default(),
            own: Arc::new(services.of(service)),
            storage_errors: services.storage_errors(service),
            services,
            families,
            jobs: jobs::JobFamily::default(),
            operations: RwLock::default(),
            other,
            duplicates: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            lapsed: Exemplified::default(),
            fenced: Exemplified::default(),
            heartbeats_failed: Counter::default(),
            unknown: std::array::from_fn(|_| OnceLock::new()),
            dead: Exemplified::default(),
            states,
            store_calls: std::array::from_fn(|_| OnceLock::new()),
            store_batches: Sizes::default(),
            gateway: GatewayMetrics::default(),
            webhooks: WebhookMetrics::default(),
            #[cfg(feature = "kafka")]
            consumers: std::sync::OnceLock::new(),
            deliveries: DeliveryMetrics::default(),
            audit_dropped: Counter::default(),
            audit_written: Counter::default(),
            log_dropped,
            records: Family::default(),
            oldest_pending: Gauge::default(),
            scrape: tokio::sync::Mutex::default(),
        };
        inner.register(service);
        let metrics = Self(Arc::new(inner));
        metrics.configured(operations);
        metrics
    }

    /// These operations are configured, from the start or since a reload: their names may stand in labels.
    pub fn configured<'a>(&self, operations: impl IntoIterator<Item = &'a Operation>) {
        self.configured_names(operations.into_iter().map(Operation::as_str));
    }

    /// These names, of routes or operations, may stand in labels.
    pub fn configured_names<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut known = self.0.operations.write();
        for name in names {
            if !known.contains_key(name) {
                known.insert(name.into(), Arc::new(OperationMetrics::new(name, &self.0.families)));
            }
        }
    }

    /// The handle of an operation; that of `other` if it is not configured.
    pub fn operation(&self, name: &str) -> Arc<OperationMetrics> {
        Arc::clone(self.0.operations.read().get(name).unwrap_or(&self.0.other))
    }

    /// What is counted of the server itself.
    pub fn own(&self) -> Arc<ServiceMetrics> {
        Arc::clone(&self.0.own)
    }

    /// What is counted of an upstream: by the server's name if it was given one, else by its own.
    pub fn upstream(&self, name: Option<&str>) -> Arc<ServiceMetrics> {
        match name {
            Some(name) if &*self.0.service == UNNAMED => Arc::new(self.0.services.of(name)),
            Some(_) | None => self.own(),
        }
    }

    /// What is counted of a source.
    pub fn webhooks(&self, source: &str) -> SourceMetrics {
        self.0.webhooks.source(source)
    }

    /// What is counted of consumers of Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) fn consumers(&self) -> Option<&semel_kafka::Metrics> {
        self.0.consumers.get()
    }

    /// A request for a key that was asked for before.
    pub fn duplicate(&self, door: Door, reason: Reason) {
        let cell = &self.0.duplicates[door as usize][reason as usize];
        let labels = || DuplicateLabels { door: door.as_str(), reason: reason.as_str() };
        cell.get_or_init(|| self.0.families.duplicates.get_or_create_owned(&labels())).inc();
    }

    /// A lease lapsed, and somebody saw it: the record became unknown, was parked, or was taken over.
    pub fn lapsed(&self, record: RecordId) {
        self.0.lapsed.inc_by(1, Some(follow(record)), None);
    }

    /// A lease that this process keeps was not renewed: the store had no answer, or none in time.
    pub fn heartbeat_failed(&self) {
        self.0.heartbeats_failed.inc();
    }

    /// A command was refused, since its token is wrong, stale or spent.
    pub fn fenced(&self, record: RecordId) {
        self.0.fenced.inc_by(1, Some(follow(record)), None);
    }

    /// An outcome is unknown.
    pub fn unknown(&self, why: Why, record: RecordId) {
        let family = &self.0.families.unknown;
        let place = match why {
            Why::LeaseLapsed => 0,
            Why::AnswerLost => 1,
            Why::WorkAbandoned => 2,
            Why::AnswerInconclusive => 3,
        };
        self.0.unknown[place]
            .get_or_init(|| family.get_or_create_owned(&WhyLabels { why: why.as_str() }))
            .inc_by(1, Some(follow(record)), None);
    }

    /// A record died.
    pub fn dead(&self, record: RecordId) {
        self.0.dead.inc_by(1, Some(follow(record)), None);
    }

    /// A record was written in this state.
    pub fn written(&self, state: StateName) {
        let place = StateName::ALL.iter().position(|name| *name == state).unwrap_or(0);
        self.0.states[place].inc();
    }

    /// A call of the store was answered.
    pub fn store_call(&self, call: StoreCall, took: Duration) {
        self.0.store_calls[call as usize]
            .get_or_init(|| {
                let labels = StoreLabels { call: call.as_str() };
                self.0.families.store_calls.get_or_create_owned(&labels)
            })
            .observe(took);
    }

    /// A call of the store failed.
    pub fn store_error(&self, call: StoreCall, kind: &'static str) {
        self.0.storage_errors.inc();
        self.0.families.store_errors.get_or_create(&ErrorLabels { call: call.as_str(), kind }).inc();
    }

    /// Where a store puts the sizes of its commits.
    pub fn store_batches(&self) -> Sizes {
        self.0.store_batches.clone()
    }

    /// What the gateway counts.
    pub fn gateway(&self) -> &GatewayMetrics {
        &self.0.gateway
    }

    /// What is counted of deliveries.
    pub fn deliveries(&self) -> &DeliveryMetrics {
        &self.0.deliveries
    }

    /// Audit entries of traffic that found no room.
    pub fn audit_dropped(&self, entries: u64) {
        self.0.audit_dropped.inc_by(entries);
    }

    /// Audit entries of traffic that were written.
    pub fn audit_written(&self, entries: u64) {
        self.0.audit_written.inc_by(entries);
    }

    /// Everything, as OpenMetrics text. What the store counts is asked of it now; if it does not answer, that part
    /// is left out and the rest is told, since a scrape matters most when something is wrong.
    pub async fn scrape(&self, store: &dyn Store) -> String {
        let inner = &*self.0;
        let _one_at_a_time = inner.scrape.lock().await;
        inner.records.clear();
        if let Ok(counts) = store.counts().await {
            for (labels, records) in self.records(&counts) {
                inner.records.get_or_create(&labels).set(records);
            }
        }
        let oldest = store.oldest_pending().await.ok();
        let age = oldest.and_then(|seen| Some(seen.as_of.since(seen.value?)));
        inner.oldest_pending.set(age.unwrap_or_default().as_secs_f64());
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a text cannot fail; a metric that cannot be written would leave out what follows it.
        if inner.write(&mut text).is_err() {
            tracing::error!("a metric could not be written");
        }
        text
    }

    /// Counts by labels: operations that are not configured are one.
    fn records(&self, counts: &[Count]) -> HashMap<RecordLabels, i64> {
        let mut records: HashMap<RecordLabels, i64> = HashMap::new();
        for count in counts {
            let labels = RecordLabels {
                namespace: count.namespace.as_str(),
                operation: Arc::clone(&self.operation(count.operation.as_str()).name),
                state: count.state.as_str(),
            };
            let sum = records.entry(labels).or_default();
            *sum = sum.saturating_add(i64::try_from(count.records).unwrap_or(i64::MAX));
        }
        records
    }
}

/// The exemplar of an event about this record.
fn follow(record: RecordId) -> Vec<(&'static str, String)> {
    vec![("record_id", record.to_string())]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use semel_core::command::Claimed;
    use semel_core::id::{Key, Namespace, Scope, Tenant};
    use semel_core::ledger::Entropy;
    use semel_core::request::Fingerprint;
    use semel_core::{Ledger, Operation, Policy, Request, Token};
    use semel_stores::memory::MemoryStore;

    use super::super::audit::AuditLog;
    use super::super::metered::Metered;
    use super::super::observer::Observer;
    use super::*;
    use crate::engine::Link;

    struct Fixed;

    impl Entropy for Fixed {
        fn token(&self) -> Token {
            Token::from_bytes([1; 16])
        }
    }

    fn request(operation: &str, key: &str, digest: u8) -> Arc<Request> {
        Arc::new(Request::new(
            Scope {
                namespace: Namespace::Execute,
                tenant: Tenant::try_new("default").unwrap(),
                subject: None,
            },
            Key::try_new(key).unwrap(),
            Operation::try_new(operation).unwrap(),
            Fingerprint { version: 1, digest: [digest; 32] },
            Policy::default(),
        ))
    }

    /// The value of a series, by the beginning of its line.
    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.split_ascii_whitespace().next()?.parse().ok())
    }

    #[tokio::test]
    async fn the_names_of_the_requirements_count_what_they_say() {
        let echo = Operation::try_new("echo").unwrap();
        let metrics = Metrics::new("orders", [&echo]);
        let store: Arc<dyn Store> = Arc::new(Metered::new(Arc::new(MemoryStore::new()), metrics.clone()));
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(Fixed));
        let audit = AuditLog::start(Arc::clone(&store), metrics.clone(), false);
        let observer = Observer::new(metrics.clone(), audit);
        let claim = async |operation: &str, key: &str, digest| {
            let claimed = ledger.claim_applied(request(operation, key, digest), None).await.unwrap();
            observer.claim(&claimed, Duration::from_millis(2), &Link::default());
            claimed.answer
        };
        let Claimed::Granted(first) = claim("echo", "a", 1).await else { panic!("it is free") };
        claim("echo", "a", 2).await;
        claim("mystery", "b", 1).await;
        let outcome = semel_core::Outcome::try_new(
            semel_core::outcome::Class::Success,
            200,
            semel_core::outcome::Headers::default(),
            bytes::Bytes::new(),
        );
        ledger.complete(first, outcome.unwrap()).await.unwrap();
        claim("echo", "a", 1).await;
        metrics.operation("echo").request(Door::Execute, 200, Duration::from_millis(3), None);
        metrics.operation("mystery").request(Door::Execute, 429, Duration::from_millis(3), None);
        let text = metrics.scrape(&*store).await;
        let check = |series: &str, expected: f64| {
            assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
        };
        check("idempotency_hits_total{service=\"orders\"}", 1.0);
        check("idempotency_misses_total{service=\"orders\"}", 2.0);
        check("idempotency_parameter_mismatches_total{service=\"orders\"}", 1.0);
        check("idempotency_concurrent_collisions_total{service=\"orders\"}", 0.0);
        check("idempotency_storage_errors_total{service=\"orders\"}", 0.0);
        check("idempotency_lock_acquisition_duration_seconds_count{service=\"orders\"}", 4.0);
        check("oldest_pending_seconds{service=\"orders\"}", 0.0);
        check(
            "semel_requests_total{service=\"orders\",door=\"execute\",operation=\"echo\",status=\"2xx\"}",
            1.0,
        );
        check(
            "semel_requests_total{service=\"orders\",door=\"execute\",operation=\"other\",status=\"429\"}",
            1.0,
        );
        check(
            "semel_records{service=\"orders\",namespace=\"execute\",operation=\"echo\",state=\"completed\"}",
            1.0,
        );
        check(
            "semel_records{service=\"orders\",namespace=\"execute\",operation=\"other\",state=\"running\"}",
            1.0,
        );
        check("semel_duplicates_total{service=\"orders\",door=\"claims\",reason=\"mismatch\"}", 1.0);
        check("semel_store_call_duration_seconds_count{service=\"orders\",call=\"insert\"}", 4.0);
        let id = request("echo", "a", 1).id();
        assert!(
            text.contains(&format!("# {{record_id=\"{id}\"}} 1")),
            "a mismatch can be followed up\n{text}"
        );
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("mystery"), "what is not configured is no label");
    }

    #[tokio::test]
    async fn an_upstream_is_a_service_by_its_name_unless_the_server_was_named() {
        let text = async |service: &str| {
            let metrics = Metrics::new(service, []);
            metrics.own().hit();
            let stock = metrics.upstream(Some("stock"));
            stock.hit();
            stock.lock_acquired(Duration::from_millis(1), None);
            metrics.upstream(None).miss();
            metrics.scrape(&MemoryStore::new()).await
        };
        let unnamed = text("semel").await;
        for (series, expected) in [
            ("idempotency_hits_total{service=\"semel\"}", 1.0),
            ("idempotency_hits_total{service=\"stock\"}", 1.0),
            ("idempotency_misses_total{service=\"semel\"}", 1.0),
            ("idempotency_misses_total{service=\"stock\"}", 0.0),
            ("idempotency_lock_acquisition_duration_seconds_count{service=\"stock\"}", 1.0),
            ("idempotency_lock_acquisition_duration_seconds_count{service=\"semel\"}", 0.0),
        ] {
            assert_eq!(value(&unnamed, series), Some(expected), "{series}\n{unnamed}");
        }
        let named = text("orders").await;
        assert_eq!(value(&named, "idempotency_hits_total{service=\"orders\"}"), Some(2.0), "{named}");
        assert!(!named.contains("stock"), "{named}");
    }

    #[tokio::test]
    async fn what_alerts_watch_stands_at_0_before_its_first_event() {
        let metrics = Metrics::new("semel", []);
        let text = metrics.scrape(&MemoryStore::new()).await;
        for series in [
            "semel_outcomes_unknown_total{service=\"semel\",why=\"lease_lapsed\"}",
            "semel_outcomes_unknown_total{service=\"semel\",why=\"answer_lost\"}",
            "semel_outcomes_unknown_total{service=\"semel\",why=\"answer_inconclusive\"}",
            "semel_outcomes_unknown_total{service=\"semel\",why=\"work_abandoned\"}",
            "semel_store_errors_total{service=\"semel\",call=\"replace\",kind=\"in_doubt\"}",
            "semel_store_errors_total{service=\"semel\",call=\"load\",kind=\"corrupt\"}",
            "semel_dead_letters_total{service=\"semel\"}",
        ] {
            assert_eq!(value(&text, series), Some(0.0), "{series}\n{text}");
        }
    }

    #[tokio::test]
    async fn a_call_of_the_store_that_fails_is_counted_by_what_it_means() {
        let metrics = Metrics::new("semel", []);
        let store = Metered::new(Arc::new(MemoryStore::new()), metrics.clone());
        store.close().await.unwrap();
        store.ready().await.unwrap_err();
        let text = metrics.scrape(&store).await;
        assert_eq!(value(&text, "idempotency_storage_errors_total{service=\"semel\"}"), Some(1.0), "{text}");
        let series = "semel_store_errors_total{service=\"semel\",call=\"ready\",kind=\"not_applied\"}";
        assert_eq!(value(&text, series), Some(1.0));
        assert!(text.contains("process_resident_memory_bytes") || !cfg!(target_os = "linux"));
    }

    #[tokio::test]
    async fn a_lapse_is_counted_once_however_often_it_is_met() {
        let clock = semel_stores::clock::SteppedClock::at(semel_core::Timestamp::from_millis(1_000_000));
        let memory = MemoryStore::with_clock(Arc::new(clock.clone()));
        let metrics = Metrics::new("orders", []);
        let store: Arc<dyn Store> = Arc::new(Metered::new(Arc::new(memory), metrics.clone()));
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(semel_runtime::OsEntropy));
        let audit = AuditLog::start(Arc::clone(&store), metrics.clone(), true);
        let observer = Observer::new(metrics.clone(), audit.clone());
        let usual = Policy::default();
        let (lease, on_lapse) = (usual.lease(), semel_core::policy::OnLapse::Resume);
        let resume =
            Policy::try_new(lease, usual.retention(), on_lapse, usual.keep(), usual.retry()).unwrap();
        let plain = request("echo", "a", 1);
        let (scope, key) = (plain.scope().clone(), plain.key().clone());
        let operation = plain.operation().clone();
        let request = Arc::new(Request::new(scope, key, operation, *plain.fingerprint(), resume));
        let claim = async || {
            let claimed = ledger.claim_applied(Arc::clone(&request), None).await.unwrap();
            observer.claim(&claimed, Duration::ZERO, &Link::default());
            let Claimed::Granted(claim) = claimed.answer else { panic!("it is free") };
            claim
        };
        let lapsed =
            async || value(&metrics.scrape(&*store).await, "semel_claims_lapsed_total{service=\"orders\"}");

        claim().await;
        clock.advance(resume.lease());
        ledger.lapse(request.id()).await.unwrap();
        assert_eq!(lapsed().await, Some(1.0), "the reaper has seen it");
        let second = claim().await;
        assert_eq!(lapsed().await, Some(1.0), "who takes over then meets the same lapse");
        ledger.release(second, "nothing was done".into()).await.unwrap();
        let third = claim().await;
        assert!(third.is_tainted());
        assert_eq!(lapsed().await, Some(1.0), "after a release nothing has lapsed");
        clock.advance(resume.lease());
        claim().await;
        assert_eq!(lapsed().await, Some(2.0), "nobody else was there to see the second");

        audit.flush().await;
        let log = store.audit(semel_core::query::AuditQuery::default(), None, 10).await.unwrap();
        let told: Vec<_> = log.items.iter().rev().map(|entry| entry.action.as_str()).collect();
        assert_eq!(told, ["claimed", "taken_over", "claimed", "taken_over"]);
    }
}

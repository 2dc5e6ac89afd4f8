//! Audit entries of traffic: written in the background, in order.
//!
//! What operators do is durable before it takes effect, and goes with the write itself (see core). Traffic must not
//! wait for its entries, so these stand in a queue with an end: what finds no room is counted, and never waited for.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit::{Action, Entry};
use semel_core::id::AttemptId;
use semel_core::record::{Record, State, StateName, Text};
use semel_core::store::Store;
use semel_core::{RecordId, Request, Timestamp};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::engine::Tried;
use crate::limits::{
    AUDIT_BATCH_MAX, AUDIT_FORGET_AGAIN, AUDIT_FORGET_BATCH, AUDIT_FORGET_EVERY, AUDIT_GATHER,
    AUDIT_QUEUE_MAX, AUDIT_RETENTION_DEFAULT,
};

/// Who asked, and what links it to their request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// A tenant with its caller, an operator, or `semel` itself.
    pub actor: Arc<str>,
    /// What links what they do.
    pub correlation_id: Option<Arc<str>>,
    /// The client's name for the attempt.
    pub attempt_id: Option<AttemptId>,
}

impl Caller {
    /// The server itself: reaper, probes, dispatcher.
    pub fn semel() -> Self {
        Self { actor: "semel".into(), correlation_id: None, attempt_id: None }
    }
}

/// Where entries are put. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whose time it is.
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
    filled: Notify,
    /// How many entries have left the queue for good: written, or given up.
    done: watch::Sender<u64>,
    metrics: Metrics,
    traffic: bool,
    /// How long entries are kept; a configuration that is read again may say another time.
    retention: watch::Sender<Duration>,
    closing: CancellationToken,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    put: u64,
    closed: bool,
}

/// An entry before it is put into words: the words cost, and the request need not wait for them.
struct Event {
    /// When, in the store's time.
    at: Timestamp,
    action: Action,
    request: Option<Arc<Request>>,
    from: Option<StateName>,
    to: Option<StateName>,
    caller: Caller,
    reason: Option<Text>,
    metadata: Metadata,
}

enum Metadata {
    None,
    /// Of the attempt with this fence.
    Attempt {
        fence: u64,
        is_retry: bool,
    },
    /// Of a request that met what the attempt with this fence had begun.
    Retry {
        fence: u64,
    },
    /// Of a try of a delivery.
    Try {
        fence: u64,
        tried: Arc<Tried>,
    },
    Details(Vec<(Cow<'static, str>, Text)>),
}

impl Metadata {
    fn of_attempt(record: &Record) -> Self {
        Self::Attempt { fence: record.fence().0, is_retry: record.attempt() > 1 }
    }
}

impl AuditLog {
    /// Starts the writer, in the background of the current runtime. Without `traffic` only what is not traffic
    /// (a loaded configuration) is written.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics, traffic: bool) -> Self {
        let shared = Arc::new(Shared {
            store,
            queue: Mutex::default(),
            filled: Notify::new(),
            done: watch::channel(0).0,
            metrics,
            traffic,
            retention: watch::channel(AUDIT_RETENTION_DEFAULT).0,
            closing: CancellationToken::new(),
        });
        tokio::spawn(write(Arc::clone(&shared)));
        Self { shared }
    }

    /// Forgets what is older than `retention`, in the background, until the log is closed.
    pub fn forget_after(&self, store: Arc<dyn Store>, retention: Duration) {
        self.keep_for(retention);
        tokio::spawn(forget(Arc::clone(&self.shared), store));
    }

    /// From now on entries are kept for this long.
    pub fn keep_for(&self, retention: Duration) {
        self.shared.retention.send_replace(retention);
    }

    /// Whether entries of traffic are written at all.
    pub fn takes_traffic(&self) -> bool {
        self.shared.traffic
    }

    /// An attempt began: claimed, or taken over.
    pub fn attempt(&self, action: Action, from: Option<StateName>, record: &Record, caller: &Caller) {
        if self.shared.traffic {
            let metadata = Metadata::of_attempt(record);
            self.put(Event { from, metadata, ..Event::about(action, record, caller) });
        }
    }

    /// A request met a record and left it as it is: replayed, or a mismatch. A busy answer is no entry: it is the same
    /// request again, and again.
    pub fn met(&self, action: Action, record: &Record, caller: &Caller) {
        if self.shared.traffic {
            self.put(Event::met(action, record, caller));
        }
    }

    /// A record went from one state to another: accepted, completed, released, unknown, dead.
    pub fn changed(&self, from: Option<StateName>, record: &Record, caller: &Caller) {
        if self.shared.traffic {
            self.put(Event::changed(from, record, caller));
        }
    }

    /// A try of a delivery has ended, and its record stands there since. Written whether or not traffic is: without its
    /// tries a dead letter says nothing.
    pub fn tried(&self, from: Option<StateName>, record: &Record, caller: &Caller, tried: &Arc<Tried>) {
        let metadata = Metadata::Try { fence: record.fence().0, tried: Arc::clone(tried) };
        self.put(Event { metadata, ..Event::changed(from, record, caller) });
    }

    /// An event came that a record already stands for: with what shows it.
    pub fn event_met(
        &self,
        action: Action,
        request: &Arc<Request>,
        state: Option<StateName>,
        caller: &Caller,
        details: Vec<(Cow<'static, str>, Text)>,
    ) {
        if self.shared.traffic {
            self.put(Event {
                at: Timestamp::ZERO,
                action,
                request: Some(Arc::clone(request)),
                from: state,
                to: state,
                caller: caller.clone(),
                reason: None,
                metadata: Metadata::Details(details),
            });
        }
    }

    /// A late outcome contradicts what somebody else has done since.
    pub fn contradicted(&self, record: &Record, caller: &Caller, reason: Text, tried: Option<&Arc<Tried>>) {
        let mut event = Event::met(Action::Contradicted, record, caller);
        if let Some(tried) = tried {
            event.metadata = Metadata::Try { fence: record.fence().0, tried: Arc::clone(tried) };
        }
        self.put(Event { reason: Some(reason), ..event });
    }

    /// A configuration was loaded, at the start or by a reload. Written whether or not traffic is.
    pub fn configuration_loaded(&self, reason: &str, details: Vec<(Cow<'static, str>, Text)>) {
        self.put(Event {
            at: Timestamp::ZERO,
            action: Action::ConfigurationLoaded,
            request: None,
            from: None,
            to: None,
            caller: Caller::semel(),
            reason: Some(Text::new(reason)),
            metadata: Metadata::Details(details),
        });
    }

    /// Waits until everything that was put before is written, or given up.
    pub async fn flush(&self) {
        let put = self.shared.queue.lock().put;
        // The sender lives in `shared`, so waiting cannot fail.
        let _ = self.shared.done.subscribe().wait_for(|done| *done >= put).await;
    }

    /// Writes what is left, and ends the writer. What is put after it is dropped and counted.
    pub async fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.closing.cancel();
        self.shared.filled.notify_one();
        self.flush().await;
    }

    /// Puts it behind what happened before it.
    fn put(&self, mut event: Event) {
        let put = {
            let mut queue = self.shared.queue.lock();
            let full = queue.closed || queue.events.len() >= AUDIT_QUEUE_MAX;
            let first = queue.events.is_empty();
            if !full {
                event.at = self.shared.store.time();
                queue.events.push_back(event);
                queue.put += 1;
            }
            if full {
                Put::Full
            } else if first {
                Put::First
            } else {
                Put::More
            }
        };
        match put {
            Put::Full => self.shared.metrics.audit_dropped(1),
            Put::First => self.shared.filled.notify_one(),
            Put::More => {}
        }
    }
}

impl Event {
    fn about(action: Action, record: &Record, caller: &Caller) -> Self {
        Self {
            at: Timestamp::ZERO,
            action,
            request: Some(Arc::clone(record.request())),
            from: None,
            to: Some(record.state().name()),
            caller: caller.clone(),
            reason: None,
            metadata: Metadata::None,
        }
    }

    /// A request that met a record and left it as it is.
    fn met(action: Action, record: &Record, caller: &Caller) -> Self {
        Self {
            from: Some(record.state().name()),
            metadata: Metadata::Retry { fence: record.fence().0 },
            ..Self::about(action, record, caller)
        }
    }

    /// A record went from one state to another.
    fn changed(from: Option<StateName>, record: &Record, caller: &Caller) -> Self {
        let action = match record.state() {
            State::Pending { .. } if from.is_none_or(|from| from == StateName::Released) => Action::Accepted,
            // A try has ended, and the next one has its time.
            State::Pending { .. } | State::Released { .. } => Action::Released,
            State::Running { .. } => Action::Claimed,
            State::Completed { .. } => Action::Completed,
            State::Unknown { .. } => Action::Unknown,
            State::Dead { .. } => Action::Dead,
        };
        let metadata = Metadata::of_attempt(record);
        let reason = match record.state() {
            State::Unknown { detail, .. } => Some(detail.clone()),
            State::Released { last_error } | State::Dead { last_error } => Some(last_error.clone()),
            State::Pending { last_error } => last_error.clone(),
            State::Running { .. } | State::Completed { .. } => None,
        };
        Self { from, reason, metadata, ..Self::about(action, record, caller) }
    }

    fn into_entry(self) -> Entry {
        let mut entry = Entry::new(self.action, Text::from(self.caller.actor)).at(self.at);
        if let Some(request) = &self.request {
            entry = entry.about(request);
        }
        entry.from = self.from;
        entry.to = self.to;
        entry.reason = self.reason;
        entry.correlation_id = self.caller.correlation_id.map(Text::from);
        // An attempt is named by record and fence, so that a retry can be followed to the attempt it met.
        let attempt = |fence| entry.record.map_or_else(Text::default, |id| attempt_id(id, fence));
        let mut metadata: Vec<(Cow<'static, str>, Text)> = match self.metadata {
            Metadata::None => Vec::new(),
            Metadata::Attempt { fence, is_retry } => {
                vec![("isRetry".into(), said(is_retry)), ("attemptId".into(), attempt(fence))]
            }
            Metadata::Retry { fence } => {
                vec![("isRetry".into(), said(true)), ("originalAttemptId".into(), attempt(fence))]
            }
            Metadata::Try { fence, tried } => of_try(&tried, attempt(fence)),
            Metadata::Details(details) => details,
        };
        if let Some(client) = self.caller.attempt_id {
            metadata.push(("clientAttemptId".into(), Text::new(client.as_str())));
        }
        entry.metadata = metadata;
        entry
    }
}

/// What is said of a try.
fn of_try(tried: &Tried, attempt_id: Text) -> Vec<(Cow<'static, str>, Text)> {
    let mut details: Vec<(Cow<'static, str>, Text)> = vec![
        ("isRetry".into(), said(tried.attempt > 1)),
        ("attemptId".into(), attempt_id),
        ("attempt".into(), Text::new(&tried.attempt.to_string())),
        ("result".into(), tried.result.as_str().into()),
        ("latency_ms".into(), Text::new(&tried.latency.as_millis().to_string())),
    ];
    details.extend(tried.status.map(|status| ("status".into(), Text::new(&status.to_string()))));
    details.extend(tried.response.clone().map(|response| ("response".into(), response)));
    details
}

/// The texts of nearly every entry, made once.
fn said(is_so: bool) -> Text {
    static TEXTS: LazyLock<[Text; 2]> = LazyLock::new(|| ["false".into(), "true".into()]);
    TEXTS[usize::from(is_so)].clone()
}

/// As `<record>:<fence>`.
fn attempt_id(id: RecordId, fence: u64) -> Text {
    let (id, mut fence_digits) = (id.hex(), itoa::Buffer::new());
    [id.as_str(), ":", fence_digits.format(fence)].concat().as_str().into()
}

/// What became of an event.
enum Put {
    /// There was no room.
    Full,
    /// The writer may be asleep.
    First,
    /// The writer knows that there is something.
    More,
}

async fn write(shared: Arc<Shared>) {
    loop {
        let filled = shared.filled.notified();
        let (batch, closed) = {
            let mut queue = shared.queue.lock();
            let length = queue.events.len().min(AUDIT_BATCH_MAX);
            (queue.events.drain(..length).collect::<Vec<_>>(), queue.closed)
        };
        if batch.is_empty() {
            if closed {
                return;
            }
            filled.await;
            // Waking the writer for each entry would cost more than the entry.
            tokio::time::sleep(AUDIT_GATHER).await;
            continue;
        }
        let entries: Vec<Entry> = batch.into_iter().map(Event::into_entry).collect();
        let count = entries.len() as u64;
        match shared.store.append_audit(entries).await {
            Ok(()) => shared.metrics.audit_written(count),
            Err(error) => {
                // Not tried again: a batch whose write is in doubt would stand there twice.
                shared.metrics.audit_dropped(count);
                tracing::warn!(entries = count, %error, "audit entries were lost");
            }
        }
        shared.done.send_modify(|done| *done += count);
    }
}

/// Forgets old entries in small steps, the next of which lets writers in between.
async fn forget(shared: Arc<Shared>, store: Arc<dyn Store>) {
    let mut retentions = shared.retention.subscribe();
    loop {
        let retention = *retentions.borrow_and_update();
        let every = AUDIT_FORGET_EVERY.min(retention / 4);
        let now = store.time().as_millis();
        let kept = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let before = Timestamp::from_millis(now.saturating_sub(kept));
        let pause = match store.forget_audit(before, AUDIT_FORGET_BATCH).await {
            Ok(0) => every,
            Ok(_) => AUDIT_FORGET_AGAIN,
            Err(error) => {
                tracing::warn!(%error, "old audit entries could not be forgotten");
                every
            }
        };
        tokio::select! {
            () = shared.closing.cancelled() => return,
            // The sender lives in `shared`, so this is a new one, and no end.
            _ = retentions.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use semel_core::command::Claimed;
    use semel_core::id::{Key, Namespace, Operation, Scope, Tenant};
    use semel_core::ledger::Entropy;
    use semel_core::query::AuditQuery;
    use semel_core::request::Fingerprint;
    use semel_core::{Ledger, Outcome, Policy, Request, Token};
    use semel_stores::memory::MemoryStore;

    use super::*;

    struct Fixed;

    impl Entropy for Fixed {
        fn token(&self) -> Token {
            Token::from_bytes([1; 16])
        }
    }

    fn request() -> Arc<Request> {
        let tenant = Tenant::try_new("default").unwrap();
        Arc::new(Request::new(
            Scope { namespace: Namespace::Execute, tenant, subject: None },
            Key::try_new("order-1").unwrap(),
            Operation::try_new("echo").unwrap(),
            Fingerprint { version: 1, digest: [1; 32] },
            Policy::default(),
        ))
    }

    fn caller(correlation: &str) -> Caller {
        Caller { actor: "default".into(), correlation_id: Some(correlation.into()), attempt_id: None }
    }

    fn said(entry: &Entry) -> String {
        let state = |state: Option<StateName>| state.map_or("-", StateName::as_str);
        let metadata: Vec<String> =
            entry.metadata.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect();
        let correlation = entry.correlation_id.as_ref().map_or("-", Text::as_str);
        format!(
            "{} {} {} {correlation} {}",
            entry.action.as_str(),
            state(entry.from),
            state(entry.to),
            metadata.join(" ")
        )
    }

    #[tokio::test]
    async fn a_retry_names_the_attempt_that_it_met() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let log = AuditLog::start(Arc::clone(&store), Metrics::new("semel", []), true);
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(Fixed));
        let first = ledger.claim(request(), None).await.unwrap();
        let Claimed::Granted(claim) = first else { panic!("it is free") };
        log.attempt(Action::Claimed, None, claim.record(), &caller("c-1"));
        let id = claim.record().id();
        let outcome = Outcome::try_new(
            semel_core::outcome::Class::Success,
            200,
            semel_core::outcome::Headers::default(),
            bytes::Bytes::new(),
        );
        ledger.complete(claim, outcome.unwrap()).await.unwrap();
        let done = ledger.load(id).await.unwrap().unwrap();
        log.changed(Some(StateName::Running), &done, &caller("c-1"));
        log.met(Action::Replayed, &done, &caller("c-2"));
        log.met(Action::Mismatch, &done, &caller("c-3"));
        log.close().await;
        let page = store.audit(AuditQuery::default(), None, 10).await.unwrap();
        let told: Vec<String> = page.items.iter().rev().map(said).collect();
        assert_eq!(
            told,
            [
                format!("claimed - running c-1 isRetry=false attemptId={id}:1"),
                format!("completed running completed c-1 isRetry=false attemptId={id}:1"),
                format!("replayed completed completed c-2 isRetry=true originalAttemptId={id}:1"),
                format!("mismatch completed completed c-3 isRetry=true originalAttemptId={id}:1"),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_has_the_time_of_its_event_and_not_of_its_writing() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let log = AuditLog::start(Arc::clone(&store), Metrics::new("semel", []), true);
        // The writer waits for something to write.
        tokio::task::yield_now().await;
        let happened = store.time();
        log.configuration_loaded("semel", Vec::new());
        log.flush().await;
        let written = store.time();
        assert!(written >= happened.plus(AUDIT_GATHER), "it has waited");
        let page = store.audit(AuditQuery::default(), None, 1).await.unwrap();
        assert_eq!(page.items[0].at, happened);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retention_that_is_read_again_holds_at_once() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let log = AuditLog::start(Arc::clone(&store), Metrics::new("semel", []), true);
        log.forget_after(Arc::clone(&store), Duration::from_hours(24));
        log.configuration_loaded("semel", Vec::new());
        log.flush().await;
        let kept = async || store.audit(AuditQuery::default(), None, 10).await.unwrap().items.len();
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!(kept().await, 1);
        log.keep_for(Duration::from_hours(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(kept().await, 0);
    }

    #[tokio::test]
    async fn the_queue_has_an_end_and_what_finds_no_room_is_counted() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let metrics = Metrics::new("semel", []);
        let log = AuditLog::start(Arc::clone(&store), metrics.clone(), true);
        // The writer cannot run before this test waits: the runtime has one thread.
        for _ in 0..AUDIT_QUEUE_MAX + 3 {
            log.configuration_loaded("semel", Vec::new());
        }
        log.close().await;
        log.configuration_loaded("semel", Vec::new());
        let text = metrics.scrape(&*store).await;
        assert!(text.contains("semel_audit_entries_dropped_total{service=\"semel\"} 4\n"), "{text}");
        assert!(text.contains(&format!(
            "semel_audit_entries_written_total{{service=\"semel\"}} {AUDIT_QUEUE_MAX}\n"
        )));
    }

    #[tokio::test]
    async fn each_try_of_a_delivery_is_written_whether_or_not_traffic_is() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let log = AuditLog::start(Arc::clone(&store), Metrics::new("semel", []), false);
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(Fixed));
        let Claimed::Granted(claim) = ledger.claim(request(), None).await.unwrap() else {
            panic!("it is free")
        };
        let target = crate::config::DeliveryTarget {
            source: "billing".into(),
            name: "default".into(),
            url: "http://127.0.0.1:1/".parse().unwrap(),
            signer: None,
            statuses: semel_webhook::Statuses::default(),
            ordered: false,
        };
        let tried = |attempt, result, status, response: Option<&str>| {
            let (target, latency) = (Arc::new(target.clone()), Duration::from_millis(1_234));
            Arc::new(Tried { target, attempt, result, status, latency, response: response.map(Text::from) })
        };
        let id = claim.record().id();
        let running = Some(StateName::Running);
        let refused = tried(1, crate::engine::TryResult::Refused, Some(503), Some("busy"));
        log.tried(running, claim.record(), &Caller::semel(), &refused);
        let silent = tried(2, crate::engine::TryResult::TimedOut, None, None);
        log.contradicted(claim.record(), &Caller::semel(), "late".into(), Some(&silent));
        log.close().await;
        let page = store.audit(AuditQuery::default(), None, 10).await.unwrap();
        let told: Vec<String> = page.items.iter().rev().map(said).collect();
        assert_eq!(
            told,
            [
                format!(
                    "claimed running running - isRetry=false attemptId={id}:1 attempt=1 result=refused latency_ms=1234 \
                     status=503 response=busy"
                ),
                format!(
                    "contradicted running running - isRetry=true attemptId={id}:1 attempt=2 result=timed_out \
                     latency_ms=1234"
                ),
            ]
        );
    }

    #[tokio::test]
    async fn without_traffic_only_what_operators_do_is_written() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let log = AuditLog::start(Arc::clone(&store), Metrics::new("semel", []), false);
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(Fixed));
        let Claimed::Granted(claim) = ledger.claim(request(), None).await.unwrap() else {
            panic!("it is free")
        };
        log.attempt(Action::Claimed, None, claim.record(), &caller("c-1"));
        log.configuration_loaded("semel", vec![("operations".into(), "4".into())]);
        log.close().await;
        let page = store.audit(AuditQuery::default(), None, 10).await.unwrap();
        let told: Vec<String> = page.items.iter().map(said).collect();
        assert_eq!(told, ["configuration_loaded - - - operations=4"]);
    }
}

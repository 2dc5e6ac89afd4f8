//! A handler that runs once per event: claim, then handle, then complete. Whoever consumes commits after that.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use semel_core::command::{Claim, Claimed as Found, Held};
use semel_core::error::Invalid;
use semel_core::id::{Scope, Tag, TagName, TagValue};
use semel_core::lease::Lease;
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::outcome::{Body, Class, Headers, Outcome};
use semel_core::policy::{OnLapse, Policy, Schedule};
use semel_core::record::{Record, State, Text, Why};
use semel_core::request::Fingerprint;
use semel_core::{Ledger, Operation, Request};
use semel_fingerprint::FingerprintBuilder;
use semel_runtime::{Ended, Keeper, Late, Runtime, Unstored, jitter};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cloud_event::{CloudEvent, Malformed};
use crate::config::{Config, ConfigError, Conflicts};
use crate::dead_letter::{DeadLetter, Reason};
use crate::deliver::{Deliver, Delivered, Delivering, Turn};
use crate::handler::{Claimed, Handled, Handler, HandlerError, HandlerErrorKind};
use crate::identity::{self, Identity};
use crate::limits;
use crate::message::Message;
use crate::observe::{Observer, Unobserved, Watching, What};
use crate::pause::Pause;

/// A handler that runs once per event within retention, over all consumers of its group. A clone is the same one.
///
/// ```
/// use std::sync::Arc;
///
/// use semel_core::Ledger;
/// use semel_kafka::{CloudEvent, Config, Deduplicated, Delivered};
/// use semel_runtime::OsEntropy;
/// use semel_stores::memory::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
/// let config = Config::new("order-service", "orders.received", "order-processor");
/// let handler = Deduplicated::try_new(ledger, config, |event, claim| async move {
///     // Runs once. What is called from here takes `claim.downstream_key()`, the same on every try.
///     println!("{} {}", event.event_type(), claim.downstream_key());
///     Ok(())
/// })?;
///
/// let event = CloudEvent::new("8e03978e", "/order-service", "com.wms.OrderReceived")?;
/// assert_eq!(handler.handle(&event).await, Delivered::Handled);
/// assert_eq!(handler.handle(&event).await, Delivered::Duplicate);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Deduplicated(Arc<Inner>);

impl fmt::Debug for Deduplicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicated").field("config", &self.0.config).finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    /// One for each topic of the configuration, in its order.
    scopes: Vec<(Scope, Operation)>,
    policy: Policy,
    schedule: Schedule,
    runtime: Runtime,
    observer: Arc<dyn Observer>,
    handler: Handler,
}

/// A message on its way to the handler.
#[derive(Clone)]
struct Asked {
    request: Arc<Request>,
    message: Arc<Message>,
    event: Option<Arc<CloudEvent>>,
}

/// What one try came to.
enum Attempt {
    /// The message is done, or its turn is over.
    Ended(Delivered),
    /// Somebody else is at it.
    Busy(Arc<Record>),
    /// It has failed, and may be tried again.
    Failed { attempt: u32 },
    /// The store had no answer, or the claim was lost: nobody knows more than before.
    Unsettled,
}

impl Deduplicated {
    /// Around a handler of CloudEvents.
    ///
    /// # Errors
    /// The configuration is not within the limits, or identifies messages that need be no CloudEvents.
    pub fn try_new<F, R>(ledger: Ledger, config: Config, handler: F) -> Result<Self, ConfigError>
    where
        F: Fn(Arc<CloudEvent>, Claimed) -> R + Send + Sync + 'static,
        R: Future<Output = Handled> + Send + 'static,
    {
        if !matches!(config.identity, Identity::SourceAndId | Identity::Id) {
            return Err(ConfigError::new("messages that need be no CloudEvents want `of_messages`"));
        }
        Self::build(
            ledger,
            config,
            Box::new(move |_, event, claimed| match event {
                Some(event) => handler(event, claimed).boxed(),
                // An identity that is read from an event has one.
                None => async { Err(HandlerError::permanent("it is no CloudEvent")) }.boxed(),
            }),
        )
    }

    /// Around a handler of messages, whatever they hold.
    ///
    /// # Errors
    /// The configuration is not within the limits.
    pub fn of_messages<F, R>(ledger: Ledger, config: Config, handler: F) -> Result<Self, ConfigError>
    where
        F: Fn(Arc<Message>, Claimed) -> R + Send + Sync + 'static,
        R: Future<Output = Handled> + Send + 'static,
    {
        Self::build(ledger, config, Box::new(move |message, _, claimed| handler(message, claimed).boxed()))
    }

    fn build(ledger: Ledger, config: Config, handler: Handler) -> Result<Self, ConfigError> {
        config.check()?;
        let scope = |topic: &String| {
            let scope = identity::scope(&config.tenant, topic, &config.consumer_group)?;
            Ok::<_, Invalid>((scope, Operation::try_new(&format!("kafka:{topic}"))?))
        };
        let scopes = config.topics.iter().map(scope).collect::<Result<_, _>>()?;
        let (policy, schedule) = (config.policy()?, config.schedule()?);
        let (tasks, giving_up) = (TaskTracker::new(), CancellationToken::new());
        let runtime = Runtime::new(ledger, tasks, giving_up, Arc::new(semel_runtime::Unwatched));
        let observer = Arc::new(Unobserved);
        Ok(Self(Arc::new(Inner { config, scopes, policy, schedule, runtime, observer, handler })))
    }

    /// Tells `observer` what happens. Before the first message, and before it is cloned.
    ///
    /// # Errors
    /// It has been cloned.
    pub fn observed(mut self, observer: Arc<dyn Observer>) -> Result<Self, ConfigError> {
        let inner = Arc::get_mut(&mut self.0)
            .ok_or_else(|| ConfigError::new("a handler that is shared is observed already"))?;
        let (ledger, tasks) = (inner.runtime.ledger().clone(), inner.runtime.tasks().clone());
        let watch = Arc::new(Watching(Arc::clone(&observer)));
        inner.runtime = Runtime::new(ledger, tasks, inner.runtime.giving_up().clone(), watch);
        inner.observer = observer;
        Ok(self)
    }

    /// Sees an event of the first topic to its end, for a consumer of one's own: whatever comes back but
    /// [`Delivered::GivenUp`], it may be committed; a [`Delivered::DeadLetter`] once it is in the dead letter topic.
    ///
    /// # Cancellation
    /// A try that has begun goes on by itself.
    pub async fn handle(&self, event: &CloudEvent) -> Delivered {
        let topic = self.0.config.topics.first().map_or("", String::as_str);
        self.handle_message(&Arc::new(event.to_message(topic))).await
    }

    /// The same of a message as it came.
    ///
    /// # Cancellation
    /// As [`handle`](Self::handle).
    pub async fn handle_message(&self, message: &Arc<Message>) -> Delivered {
        self.deliver(message, &Turn::unbounded()).await
    }

    /// What the ledger is asked for a message: its record, for whoever has the work join a transaction of their own.
    ///
    /// # Errors
    /// It cannot be read, has no identity, or is of no topic of the configuration.
    pub fn request(&self, message: &Message) -> Result<Request, Malformed> {
        self.0.read(message).map(|(request, _)| request)
    }

    /// Waits until everything that was stored in the background is, for `within` at most.
    pub async fn drain(&self, within: Duration) {
        self.0.runtime.tasks().close();
        if tokio::time::timeout(within, self.0.runtime.tasks().wait()).await.is_err() {
            self.0.runtime.giving_up().cancel();
        }
    }
}

impl Deliver for Deduplicated {
    fn topics(&self) -> &[String] {
        &self.0.config.topics
    }

    fn group(&self) -> &str {
        &self.0.config.consumer_group
    }

    fn deliver<'a>(&'a self, message: &'a Arc<Message>, turn: &'a Turn) -> Delivering<'a> {
        Box::pin(async move {
            let asked = match self.0.read(message) {
                Ok((request, event)) => {
                    let event = event.map(Arc::new);
                    Asked { request: Arc::new(request), message: Arc::clone(message), event }
                }
                Err(malformed) => {
                    let letter = DeadLetter::new(Reason::Malformed, malformed.to_string());
                    return Delivered::DeadLetter(letter);
                }
            };
            Arc::clone(&self.0).see(&asked, turn).await
        })
    }
}

impl Inner {
    fn read(&self, message: &Message) -> Result<(Request, Option<CloudEvent>), Malformed> {
        let place = self.config.topics.iter().position(|topic| **topic == *message.topic);
        let (scope, operation) = place
            .and_then(|place| self.scopes.get(place))
            .ok_or_else(|| Malformed::new("it is of no topic of this handler"))?;
        let identified = self.config.identity.of(message, &self.config.consumer_group)?;
        let fingerprint = fingerprint(self.config.conflicts, message, identified.event.as_ref());
        let request =
            Request::new(scope.clone(), identified.key, operation.clone(), fingerprint, self.policy);
        let request = request.try_with_tags(self.tags(message, identified.event.as_ref()));
        Ok((request?, identified.event))
    }

    /// Names to find it by. What is too long for one is left out.
    fn tags(&self, message: &Message, event: Option<&CloudEvent>) -> Vec<Tag> {
        let id = event.map(|event| ("event_id", event.id()));
        let names = [
            ("topic", &*message.topic),
            ("consumer_group", &*self.config.consumer_group),
            ("service", &*self.config.service_name),
        ];
        let tag = |(name, value)| {
            Some(Tag { name: TagName::try_new(name).ok()?, value: TagValue::try_new(value).ok()? })
        };
        names.into_iter().chain(id).filter_map(tag).collect()
    }

    fn tell(&self, topic: &str, what: What) {
        self.observer.happened(topic, &self.config.consumer_group, what);
    }

    /// Tries until the message is done or its turn over.
    async fn see(self: Arc<Self>, asked: &Asked, turn: &Turn) -> Delivered {
        let topic = &*asked.message.topic;
        let mut outage = Pause::new(limits::OUTAGE_PAUSE_FIRST, limits::OUTAGE_PAUSE_MAX);
        let (mut waits, mut runs) = (false, false);
        loop {
            if turn.is_over() {
                return Delivered::GivenUp;
            }
            let attempt = self.attempt(asked, &mut runs).await;
            let waited = match attempt {
                Attempt::Ended(delivered) => return delivered,
                Attempt::Busy(record) => {
                    if !std::mem::replace(&mut waits, true) {
                        self.tell(topic, What::Busy);
                    }
                    turn.wait(self.end_of(&record)).await
                }
                Attempt::Failed { attempt } => {
                    self.tell(topic, What::Retried);
                    turn.wait(sleep(self.schedule.pause(attempt, jitter()))).await
                }
                Attempt::Unsettled => turn.wait(sleep(outage.next())).await,
            };
            if waited.is_none() {
                return Delivered::GivenUp;
            }
        }
    }

    /// Waits for a moment for the end of what somebody else does.
    async fn end_of(&self, record: &Record) {
        let began = Instant::now();
        let ended = self.runtime.ledger().wait(record.id(), record.version(), limits::BUSY_PATIENCE).await;
        if let Err(error) = ended {
            self.observer.storage_failed(&error);
            sleep(limits::BUSY_PATIENCE.saturating_sub(began.elapsed())).await;
        }
    }

    /// One try, in one piece: whoever waits for it may go away, and it goes on (L11).
    async fn attempt(self: &Arc<Self>, asked: &Asked, runs: &mut bool) -> Attempt {
        let (inner, asked, first) = (Arc::clone(self), asked.clone(), !*runs);
        let tried = self.runtime.detached(async move { inner.claim(&asked, first).await }).await;
        match tried {
            Ok((attempt, ran)) => {
                *runs |= ran;
                attempt
            }
            Err(panicked) => {
                tracing::error!(panic = panicked.text(), "a try has panicked outside of its handler");
                Attempt::Unsettled
            }
        }
    }

    /// Claims, and runs the handler if that is granted; and whether it was.
    async fn claim(&self, asked: &Asked, first: bool) -> (Attempt, bool) {
        let sent = Instant::now();
        let attempt = match self.runtime.ledger().claim(Arc::clone(&asked.request), None).await {
            Ok(Found::Granted(claim)) => {
                if first {
                    self.tell(&asked.message.topic, What::Claimed);
                }
                return (self.run(asked, claim, sent).await, true);
            }
            Ok(Found::Replay(record) | Found::Unknown(record) | Found::Dead(record)) => stands(&record),
            Ok(Found::Busy { record, .. }) => Attempt::Busy(record),
            Ok(Found::Mismatch(record)) => self.mismatch(&record),
            Err(error) => {
                self.runtime.claim_failed(&error, self.policy.lease());
                self.no_claim(&error)
            }
        };
        (attempt, false)
    }

    fn no_claim(&self, error: &LedgerError) -> Attempt {
        self.observer.storage_failed(error);
        let letter =
            |reason| Attempt::Ended(Delivered::DeadLetter(DeadLetter::new(reason, error.to_string())));
        match error.kind() {
            LedgerErrorKind::TooLarge => letter(Reason::TooLarge),
            // What is stored cannot be read, and waiting does not mend it.
            LedgerErrorKind::Corrupt => letter(Reason::Unknown),
            LedgerErrorKind::Unavailable | LedgerErrorKind::InDoubt | LedgerErrorKind::Contended => {
                Attempt::Unsettled
            }
        }
    }

    fn mismatch(&self, record: &Arc<Record>) -> Attempt {
        match self.config.conflicts {
            // It was taken in when conflicts were told apart: its identity is what counts now.
            Conflicts::Duplicate => stands(record),
            Conflicts::DeadLetter => {
                let error = "its identity was used before, for an event with another type or other data";
                let letter = DeadLetter::new(Reason::Conflict, error);
                Attempt::Ended(Delivered::DeadLetter(DeadLetter { record: Some(record.id()), ..letter }))
            }
        }
    }

    /// Runs the handler under the claim, and ends that by what the handler says.
    async fn run(&self, asked: &Asked, claim: Claim, sent: Instant) -> Attempt {
        // Claims whose answers the store lost are given back and count as attempts, though nothing has run under them: they
        // put no event aside.
        if claim.is_tainted() && claim.attempt() > self.config.attempts {
            // Its last try had no end: it may well be what its processes died of.
            return self
                .reject(claim, Reason::Failed, "its tries are spent, and the last one had no end")
                .await;
        }
        let Some(sent) = self.still_held(&claim, sent).await else { return Attempt::Unsettled };
        let (began, lost) = (Instant::now(), CancellationToken::new());
        let claimed = Claimed::new(&claim, Arc::clone(&asked.message), lost.clone());
        let work = async { (self.handler)(Arc::clone(&asked.message), asked.event.clone(), claimed).await };
        let work = AssertUnwindSafe(work).catch_unwind();
        let keeper = Keeper::new(&self.runtime, claim.holder(), claim.lease(), sent);
        let ended = keeper.during(work, self.config.handler_time, || lost.cancel()).await;
        self.observer.handled(&asked.message.topic, &self.config.consumer_group, began.elapsed());
        match ended {
            Ended::Done(Ok(Ok(()))) => self.complete(claim).await,
            Ended::Done(Ok(Err(error))) => self.failed(claim, &error).await,
            Ended::Done(Err(_)) => {
                self.failed(claim, &HandlerError::failed("the handler has panicked")).await
            }
            Ended::TimedOut => {
                self.failed(claim, &HandlerError::failed("the handler had no end within its time")).await
            }
            // The claim lapses, and whoever is there then goes on from there.
            Ended::GivenUp => Attempt::Ended(Delivered::GivenUp),
        }
    }

    /// A process that was paused between its claim and its work asks before it begins: another may have taken over.
    async fn still_held(&self, claim: &Claim, sent: Instant) -> Option<Instant> {
        if Lease::new(claim.lease(), Duration::ZERO).is_safe(sent.elapsed()) {
            return Some(sent);
        }
        let sent = Instant::now();
        match self.runtime.ledger().extend(claim.holder()).await {
            Ok(Held::Done(_)) => Some(sent),
            Ok(Held::Fenced(_) | Held::Illegal(..)) => None,
            Err(error) => {
                self.observer.storage_failed(&error);
                None
            }
        }
    }

    async fn complete(&self, claim: Claim) -> Attempt {
        let Ok(outcome) = outcome(Class::Success, 200, "") else { return Attempt::Unsettled };
        match ended(self.runtime.complete(claim, outcome, late).await) {
            Some(_) => Attempt::Ended(Delivered::Handled),
            None => Attempt::Unsettled,
        }
    }

    async fn failed(&self, claim: Claim, error: &HandlerError) -> Attempt {
        let (attempt, text) = (claim.attempt(), Text::new(&error.to_string()));
        let may_have_run = error.kind() != HandlerErrorKind::NotExecuted;
        match error.kind() {
            HandlerErrorKind::Permanent => self.reject(claim, Reason::Rejected, text.as_str()).await,
            _ if may_have_run && self.policy.on_lapse() == OnLapse::AtMostOnce => {
                let unknown = self.runtime.mark_unknown(claim, Why::WorkAbandoned, text, late).await;
                ended(unknown).map_or(Attempt::Unsettled, |record| stands(&record))
            }
            _ if attempt >= self.config.attempts => self.reject(claim, Reason::Failed, text.as_str()).await,
            HandlerErrorKind::Failed | HandlerErrorKind::NotExecuted => {
                match ended(self.runtime.release(claim, text, late).await) {
                    Some(_) => Attempt::Failed { attempt },
                    None => Attempt::Unsettled,
                }
            }
        }
    }

    /// Puts the event aside: durably, so that nobody tries again, before it is sent to the dead letter topic. Whoever
    /// meets it after a crash in between sends it.
    async fn reject(&self, claim: Claim, reason: Reason, error: &str) -> Attempt {
        let (attempts, record) = (claim.attempt().min(self.config.attempts), Some(claim.record().id()));
        let Ok(outcome) = outcome(Class::Rejection, 500, error) else { return Attempt::Unsettled };
        match ended(self.runtime.complete(claim, outcome, late).await) {
            Some(_) => {
                let letter = DeadLetter { reason, error: error.to_owned(), attempts, record };
                Attempt::Ended(Delivered::DeadLetter(letter))
            }
            None => Attempt::Unsettled,
        }
    }
}

/// What a record means for a message that asks for the same.
fn stands(record: &Arc<Record>) -> Attempt {
    let letter = |reason, error: &str| {
        let (error, attempts) = (error.to_owned(), record.attempt());
        let record = Some(record.id());
        Attempt::Ended(Delivered::DeadLetter(DeadLetter { reason, error, attempts, record }))
    };
    match record.state() {
        State::Completed { outcome } => match (outcome.class, &outcome.body) {
            // What an operator has put aside is done, too.
            (Class::Success | Class::Discarded, _) => Attempt::Ended(Delivered::Duplicate),
            (Class::Rejection, Body::Kept(why)) => letter(Reason::Rejected, &String::from_utf8_lossy(why)),
            (Class::Rejection, Body::Gone) => letter(Reason::Rejected, "it was put aside before"),
        },
        State::Unknown { detail, .. } => letter(Reason::Unknown, detail.as_str()),
        State::Dead { last_error } => letter(Reason::Dead, last_error.as_str()),
        State::Pending { .. } | State::Running { .. } | State::Released { .. } => {
            Attempt::Busy(Arc::clone(record))
        }
    }
}

/// The record, if the end of a try is stored and was this try's to say.
fn ended(held: Result<Held, Unstored>) -> Option<Arc<Record>> {
    match held {
        Ok(Held::Done(record)) => Some(record),
        Ok(Held::Fenced(record)) => {
            let id = record.map(|record| record.id());
            tracing::warn!(record_id = ?id, "a try came too late: its claim is another's");
            None
        }
        Ok(Held::Illegal(record, why)) => {
            tracing::error!(record_id = %record.id(), why, "a try could not be ended");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the end of a try is not stored");
            None
        }
    }
}

fn late() -> Late {
    Box::new(|_| {})
}

fn outcome(class: Class, status: u16, why: &str) -> Result<Outcome, Invalid> {
    Outcome::try_new(class, status, Headers::default(), Bytes::copy_from_slice(why.as_bytes()))
}

/// What a message means beside its identity: an event's type and data, or, where conflicts are duplicates, nothing.
pub fn fingerprint(conflicts: Conflicts, message: &Message, event: Option<&CloudEvent>) -> Fingerprint {
    let digest = match (conflicts, event) {
        (Conflicts::Duplicate, _) => FingerprintBuilder::new().operation("message").finish(),
        (Conflicts::DeadLetter, Some(event)) => {
            digest(event.event_type(), event.data_content_type(), event.data())
        }
        (Conflicts::DeadLetter, None) => {
            let content_type = message.header("content-type").map(|value| std::str::from_utf8(value));
            digest("message", content_type.and_then(Result::ok), message.payload.as_ref())
        }
    };
    Fingerprint { version: digest.version(), digest: *digest.digest() }
}

fn digest(kind: &str, content_type: Option<&str>, data: Option<&Bytes>) -> semel_fingerprint::Fingerprint {
    let builder = FingerprintBuilder::new().operation(kind);
    match (data, content_type) {
        (None, _) => builder.finish(),
        (Some(data), Some(content_type)) => builder.body(Some(content_type), data).finish(),
        // Without a word on its type, an event's data is JSON.
        (Some(data), None) => builder.json(data).finish(),
    }
}

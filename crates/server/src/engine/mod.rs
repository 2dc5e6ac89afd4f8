//! Between the doors and the ledger: runs operations, at most once each, whatever becomes of who asked.
//!
//! A door gives an [`Ask`] and gets an [`Execution`]. What happens in between (claim, work, settle) is one task that
//! no connection owns, so that a client which goes away cancels nothing (L11). No work starts before its claim is
//! durable (L4), and nobody is told of an outcome before that is.
//!
//! Rooms: [`ask`] what a door gives and gets · [`work`] a piece of work · [`operation`] what can be run · [`run`] one
//! claim to its end · [`target`] and [`builtin`] do the work · [`delivery`] of webhooks · [`reply`] what an attempt came to · [`progress`] how far
//! it is · [`payload`] tags · [`dispatcher`] accepted work · [`schedule`] jobs by the clock · [`reaper`] lapses and what has expired · [`probe`] finds
//! out what nobody knows · [`events`] what metrics, logs and audit are told. Heartbeats, and what must be stored after
//! all, are `semel-runtime`'s.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use semel_core::command::{Accept, Accepted, Claimed};
use semel_core::id::{AttemptId, Tag, Version};
use semel_core::ledger::{Applied, LedgerError};
use semel_core::record::{State, StateName};
use semel_core::{Ledger, Policy, Record, RecordId, Request};
use semel_runtime::Runtime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alerts::Alerts;
use crate::config::OperationConfig;
use crate::limits;

mod ask;
mod builtin;
pub mod delivery;
mod dispatcher;
pub mod events;
mod operation;
mod payload;
mod probe;
mod progress;
mod reaper;
mod reply;
mod run;
pub(crate) mod schedule;
pub(crate) mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod work;

pub use ask::{Ask, EngineError, EngineErrorKind, Execution};
pub use delivery::{CircuitState, Tried, TryResult};
pub use events::{Event, Events, Silent, What};
pub(crate) use payload::pointed_at;
pub use target::{TargetError, Targets};
pub use work::{Link, fingerprint};

use operation::{Operation, Operations};
use work::Work;

/// When asking again may give another answer, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs operations. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    /// The ledger with what work under a claim needs.
    runtime: Runtime,
    operations: ArcSwap<Operations>,
    targets: Targets,
    counts: builtin::Counts,
    events: Arc<dyn Events>,
    /// What runs apart from any connection; a shutdown waits for it.
    tasks: TaskTracker,
    /// No new work from here on.
    stopping: CancellationToken,
    /// What still runs is given up: its outcome is no longer waited for.
    giving_up: CancellationToken,
    /// Records that have become unknown: the probe has something to ask.
    unknown: probe::Mailbox,
    /// Work was taken in here: the dispatcher need not wait for the store to say so.
    accepted: tokio::sync::Notify,
    /// Targets of deliveries that are left alone for a while.
    circuits: delivery::Circuits,
    /// Deliveries that wait for their turn.
    lines: delivery::Lines,
    /// Where there is something to tell somebody.
    alerts: Alerts,
}

impl Engine {
    /// An engine over this ledger. Nothing is dispatched before [`start`](Self::start).
    pub fn new(
        ledger: Ledger,
        operations: &[OperationConfig],
        targets: Targets,
        events: Arc<dyn Events>,
        alerts: Alerts,
    ) -> Self {
        let (tasks, giving_up) = (TaskTracker::new(), CancellationToken::new());
        let watch = Arc::new(events::Watching(Arc::clone(&events)));
        let runtime = Runtime::new(ledger.clone(), tasks.clone(), giving_up.clone(), watch);
        Self(Arc::new(Inner {
            ledger,
            runtime,
            operations: ArcSwap::from_pointee(Operations::new(operations)),
            targets,
            counts: builtin::Counts::default(),
            events,
            tasks,
            stopping: CancellationToken::new(),
            giving_up,
            unknown: probe::Mailbox::default(),
            accepted: tokio::sync::Notify::new(),
            circuits: delivery::Circuits::default(),
            lines: delivery::Lines::default(),
            alerts,
        }))
    }

    /// Starts what works without being asked: dispatcher (with so many tries at once), reaper, probe, alerts.
    pub fn start(&self, concurrency: usize) {
        self.0.tasks.spawn(self.clone().dispatch(concurrency));
        self.0.tasks.spawn(self.clone().reap());
        self.0.tasks.spawn(self.clone().probe());
        self.0.tasks.spawn(self.0.alerts.clone().run(self.clone()));
    }

    /// Takes no new work, and waits for `grace` at most until what runs has ended. What has not is given up, and
    /// written down as unknown or as due again, as its policy says. Whether everything had ended by itself.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.0.stopping.cancel();
        self.0.tasks.close();
        let ended = tokio::time::timeout(grace, self.0.tasks.wait()).await.is_ok();
        if !ended {
            self.0.giving_up.cancel();
            tokio::time::timeout(limits::GIVE_UP_WITHIN, self.0.tasks.wait()).await.ok();
        }
        self.tell_what_is_left().await;
        ended
    }

    /// Takes in the alerts of all that was told; a store that does not answer is not waited for. It is said again when
    /// others than the engine have had something to tell since it stopped.
    pub(crate) async fn tell_what_is_left(&self) {
        tokio::time::timeout(limits::GIVE_UP_WITHIN, self.0.alerts.close(self)).await.ok();
    }

    /// What other doors run their own work over, so that a shutdown waits for it.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Waits until no new work is taken any more.
    pub(crate) async fn stopped(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Where doors have something to tell.
    pub fn alerts(&self) -> &Alerts {
        &self.0.alerts
    }

    /// The ledger below.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// The operation of that name.
    fn operation(&self, name: &str) -> Option<Arc<Operation>> {
        self.0.operations.load().get(name)
    }

    /// The operation of that name that a client may ask for: what delivers events and alerts is no client's.
    fn asked_for(&self, name: &str) -> Option<Arc<Operation>> {
        self.operation(name).filter(|operation| !operation.config().is_semels_own())
    }

    /// Takes work in that a door has made a request of: an event, or one that is only filed. A worker does it.
    ///
    /// # Cancellation
    /// It may be in or not; taking it in again tells.
    ///
    /// # Errors
    /// The store has no answer, or the server is going down: nothing may be acknowledged.
    pub(crate) async fn take_event(&self, accept: &Accept) -> Result<Accepted, EngineError> {
        if self.0.stopping.is_cancelled() {
            return Err(EngineError::new(EngineErrorKind::Stopping));
        }
        self.file(accept).await
    }

    /// Puts other operations in the place of those that are there. Records keep the policy they began with.
    pub fn reload(&self, operations: &[OperationConfig]) {
        self.0.operations.store(Arc::new(Operations::new(operations)));
        self.0.unknown.look();
        for target in self.0.circuits.reset() {
            self.0.events.circuit(&target, CircuitState::Closed);
        }
        self.0.accepted.notify_one();
    }

    /// Runs what is asked for, at most once, and says what it gave; or says why it does not run.
    ///
    /// # Cancellation
    /// Cancels nothing but the wait: the work runs to its end (L11).
    ///
    /// # Errors
    /// See [`EngineErrorKind`].
    pub async fn execute(&self, ask: Ask) -> Result<Execution, EngineError> {
        self.detached(ask, |engine, work, ask| async move { engine.claim_and_run(work, ask).await }).await
    }

    /// Takes what is asked for in, durably; a worker does it.
    ///
    /// # Cancellation
    /// Cancels nothing but the wait.
    ///
    /// # Errors
    /// See [`EngineErrorKind`].
    pub async fn submit(&self, ask: Ask) -> Result<Execution, EngineError> {
        self.detached(ask, |engine, work, ask| async move { engine.take_in(work, ask).await }).await
    }

    /// What is configured for claims of an operation: its policy, and the tags that this payload gives a record.
    /// `None` where no operation of that name is configured.
    pub(crate) fn configured(&self, operation: &str, payload: Option<&[u8]>) -> Option<(Policy, Vec<Tag>)> {
        let operation = self.asked_for(operation)?;
        let tags = payload.map(|payload| operation.tags_of(payload)).unwrap_or_default();
        Some((*operation.policy(), tags))
    }

    /// Asks for a claim on behalf of a client that does the work itself.
    ///
    /// # Cancellation
    /// As [`Ledger::claim`].
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn claim(
        &self,
        request: Arc<Request>,
        attempt_id: Option<AttemptId>,
    ) -> Result<Applied<Claimed>, EngineError> {
        if self.0.stopping.is_cancelled() {
            return Err(EngineError::new(EngineErrorKind::Stopping));
        }
        let lease = request.policy().lease();
        let claimed = self.0.ledger.claim_applied(request, attempt_id).await;
        claimed.map_err(|error| self.claim_failed(error, lease))
    }

    /// Waits for `patience` at most until a record that was seen at `seen` has ended, and gives what is there then.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn wait(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Result<Option<Arc<Record>>, EngineError> {
        self.0.ledger.wait(id, seen, patience).await.map_err(|error| self.failed(error))
    }

    async fn detached<F, R>(&self, ask: Ask, run: F) -> Result<Execution, EngineError>
    where
        F: FnOnce(Self, Work, Ask) -> R,
        R: Future<Output = Result<Execution, EngineError>> + Send + 'static,
    {
        if self.0.stopping.is_cancelled() {
            return Err(EngineError::new(EngineErrorKind::Stopping));
        }
        let operation = self.asked_for(&ask.operation);
        let operation = operation.ok_or(EngineError::new(EngineErrorKind::UnknownOperation))?;
        let work = Work::asked(operation, &ask);
        let done = self.0.runtime.detached(run(self.clone(), work, ask)).await;
        done.unwrap_or_else(|panicked| Err(panicked.into()))
    }

    /// Runs `work` to its end whatever becomes of whoever waits for it (L11), in place as long as somebody does.
    ///
    /// # Errors
    /// It has panicked.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, EngineError> {
        Ok(self.0.runtime.detached(work).await?)
    }

    async fn claim_and_run(self, work: Work, ask: Ask) -> Result<Execution, EngineError> {
        let request = work.request(&ask, false)?;
        let (sent, lease) = (Instant::now(), request.policy().lease());
        // Not under the client's name for the attempt: who asks again under it is a duplicate of what runs here, and not
        // the holder of the claim.
        let claimed = self.0.ledger.claim_applied(request, None).await;
        let Applied { answer, change } = claimed.map_err(|error| self.claim_failed(error, lease))?;
        Ok(match answer {
            Claimed::Granted(claim) => {
                let from = change.and_then(|change| change.from).map(|from| from.state().name());
                let what = What::Claimed { after: sent.elapsed(), from };
                self.tell(what, claim.record(), &work.link);
                return self.run_claim(claim, sent, &work).await;
            }
            Claimed::Busy { record, retry_after } => {
                self.tell(What::Busy, &record, &work.link);
                Execution::Processing { record, retry_after, fresh: false }
            }
            Claimed::Mismatch(record) => self.mismatch(record, &work.link),
            Claimed::Replay(record) | Claimed::Unknown(record) | Claimed::Dead(record) => {
                self.duplicate(record, &work.link)
            }
        })
    }

    async fn take_in(self, work: Work, ask: Ask) -> Result<Execution, EngineError> {
        let accept = Accept::try_new(work.request(&ask, true)?)?;
        let accepted = self.0.ledger.accept_applied(&accept).await;
        let Applied { answer, change } = accepted.map_err(|error| self.failed(error))?;
        Ok(match answer {
            Accepted::Accepted(record) => {
                self.tell(What::Accepted, &record, &work.link);
                self.0.accepted.notify_one();
                // If it was running already, what comes of it is another request's. If not, it is this one's, although a
                // worker may have been quicker than an answer that was lost and asked for again.
                let from = change.and_then(|change| change.from);
                let ran = from.is_some_and(|from| from.state().name() == StateName::Running);
                if ran { stands(record) } else { taken_in(record) }
            }
            Accepted::Duplicate(record) => self.duplicate(record, &work.link),
            Accepted::Mismatch(record) => self.mismatch(record, &work.link),
        })
    }

    fn mismatch(&self, record: Arc<Record>, link: &Link) -> Execution {
        self.tell(What::Mismatch, &record, link);
        Execution::Mismatch { record }
    }

    /// A duplicate's answer, told to whoever counts them.
    fn duplicate(&self, record: Arc<Record>, link: &Link) -> Execution {
        let what = match record.state() {
            State::Completed { .. } => What::Replayed,
            State::Unknown { .. } => What::RefusedUnknown,
            State::Dead { .. } => What::RefusedDead,
            State::Pending { .. } | State::Running { .. } | State::Released { .. } => What::Busy,
        };
        self.tell(what, &record, link);
        stands(record)
    }

    /// Counts a failure of the store.
    fn failed(&self, error: LedgerError) -> EngineError {
        self.0.events.storage_failed(&error);
        error.into()
    }

    /// Counts a failure of the store, and sees to a claim that may be held by nobody.
    fn claim_failed(&self, error: LedgerError, lease: Duration) -> EngineError {
        self.0.runtime.claim_failed(&error, lease);
        self.failed(error)
    }

    fn tell(&self, what: What, record: &Record, link: &Link) {
        self.0.events.happened(&Event { what, record, link });
        if matches!(what, What::Unknown | What::RefusedUnknown) {
            let operation = self.operation(record.request().operation().as_str());
            if let Some(operation) = operation.filter(|operation| operation.config().probe.is_some()) {
                self.0.unknown.put(record.id(), operation);
            }
        }
    }
}

/// Where a record stands, for whoever took it in.
fn taken_in(record: Arc<Record>) -> Execution {
    match stands(record) {
        Execution::Completed { record, said, .. } => Execution::Completed { record, replayed: false, said },
        Execution::Processing { record, retry_after, .. } => {
            Execution::Processing { record, retry_after, fresh: true }
        }
        other => other,
    }
}

/// Where a record stands, for whoever did not make it so.
fn stands(record: Arc<Record>) -> Execution {
    match record.state() {
        State::Completed { .. } => Execution::Completed { record, replayed: true, said: None },
        State::Pending { .. } | State::Running { .. } => {
            Execution::Processing { record, retry_after: RETRY_AFTER, fresh: false }
        }
        State::Released { .. } => Execution::NotExecuted { record, retry_after: RETRY_AFTER },
        State::Unknown { .. } => Execution::Unknown { record, fresh: None },
        State::Dead { .. } => Execution::Dead { record },
    }
}

//! Writes that must not be given up at the first failure: the end of an attempt whose work has run (L12), and the
//! return of a claim that was given to nobody.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{Claim, Command, Complete, Held, MarkUnknown, Release};
use semel_core::id::Holder;
use semel_core::ledger::{Abandoned, LedgerError, LedgerErrorKind};
use semel_core::outcome::{Body, Headers, Outcome};
use semel_core::record::{Record, Text, Why};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::{Runtime, limits};

/// What is called with the record if the end of an attempt is stored when nobody waits for it any more.
pub type Late = Box<dyn FnOnce(&Arc<Record>) + Send>;

/// The end of an attempt that is not stored, as far as anybody knows. Its record stays running and lapses; it is never
/// released (L12).
#[derive(Debug)]
pub enum Unstored {
    /// It could not be stored for as long as the lease lasted.
    Failed(LedgerError),
    /// It is still being tried, in the background.
    Trying,
}

impl fmt::Display for Unstored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(_) => "the end of an attempt could not be stored",
            Self::Trying => "the end of an attempt is not stored yet",
        })
    }
}

impl Error for Unstored {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Trying => None,
        }
    }
}

impl Runtime {
    /// Stores what the work gave. If it is larger than the store can hold, that it was done.
    ///
    /// # Errors
    /// See [`persist`](Self::persist).
    pub async fn complete(
        &self,
        claim: Claim,
        outcome: Outcome,
        late: impl FnOnce() -> Late,
    ) -> Result<Held, Unstored> {
        let (holder, lease) = (claim.holder(), claim.lease());
        // Kept for the case that the first write fails.
        let mut complete = Complete { holder, outcome: outcome.clone() };
        let first = self.ledger.complete(claim, outcome).await;
        if first.as_ref().is_err_and(|error| error.kind() == LedgerErrorKind::TooLarge) {
            // It was done: better known without its result than not at all.
            complete.outcome.body = Body::Gone;
            complete.outcome.headers = Headers::default();
        }
        self.unless_stored(complete, lease, first, late).await
    }

    /// Gives a claim back whose attempt is known to be without effect.
    ///
    /// # Errors
    /// See [`persist`](Self::persist).
    pub async fn release(
        &self,
        claim: Claim,
        error: Text,
        late: impl FnOnce() -> Late,
    ) -> Result<Held, Unstored> {
        let lease = claim.lease();
        let release = Release { holder: claim.holder(), error: error.clone() };
        let first = self.ledger.release(claim, error).await;
        self.unless_stored(release, lease, first, late).await
    }

    /// Ends an attempt of which nobody knows what it did.
    ///
    /// # Errors
    /// See [`persist`](Self::persist).
    pub async fn mark_unknown(
        &self,
        claim: Claim,
        why: Why,
        detail: Text,
        late: impl FnOnce() -> Late,
    ) -> Result<Held, Unstored> {
        let lease = claim.lease();
        let unknown = MarkUnknown { holder: claim.holder(), why, detail: detail.clone() };
        let first = self.ledger.mark_unknown(claim, why, detail).await;
        self.unless_stored(unknown, lease, first, late).await
    }

    /// As [`persist`](Self::persist), which is no part of a future that mostly does without it.
    async fn unless_stored<C>(
        &self,
        command: C,
        lease: Duration,
        first: Result<Held, LedgerError>,
        late: impl FnOnce() -> Late,
    ) -> Result<Held, Unstored>
    where
        C: Command<Answer = Held> + 'static,
    {
        match first {
            Ok(held) => Ok(held),
            Err(_) => Box::pin(self.persist(command, lease, first, late)).await,
        }
    }

    /// Has a command that ends an attempt, and came to `first`, stored after all. It may be repeated: its answer is
    /// the same. Whoever waits is answered soon ([`limits::PERSIST_ANSWER_WITHIN`]); the rest goes on in the background
    /// for as long as the lease, since nobody else can claim meanwhile, and `late` (made only if it is needed) is told
    /// of what was stored then. After that the record stays running and lapses; it is never released.
    ///
    /// # Errors
    /// Nobody knows that it is stored.
    pub async fn persist<C>(
        &self,
        command: C,
        lease: Duration,
        first: Result<Held, LedgerError>,
        late: impl FnOnce() -> Late,
    ) -> Result<Held, Unstored>
    where
        C: Command<Answer = Held> + 'static,
    {
        match first {
            Ok(held) => Ok(held),
            // On the heap: hardly ever needed, and too large to be carried by every attempt.
            Err(error) => Box::pin(self.after_all(command, lease, error, late())).await,
        }
    }

    async fn after_all<C>(
        &self,
        command: C,
        lease: Duration,
        error: LedgerError,
        late: Late,
    ) -> Result<Held, Unstored>
    where
        C: Command<Answer = Held> + 'static,
    {
        let until = Instant::now() + lease;
        let (answer, answered) = oneshot::channel();
        let runtime = self.clone();
        self.tasks.spawn(async move {
            let ended = runtime.repeat(&command, until, error).await;
            // Nobody waits any more: then it is told here.
            if let Err(Ok(Held::Done(record))) = answer.send(ended) {
                late(&record);
            }
        });
        match tokio::time::timeout(limits::PERSIST_ANSWER_WITHIN, answered).await {
            Ok(Ok(ended)) => ended.map_err(Unstored::Failed),
            Ok(Err(_)) | Err(_) => Err(Unstored::Trying),
        }
    }

    async fn repeat<C>(&self, command: &C, until: Instant, first: LedgerError) -> Result<Held, LedgerError>
    where
        C: Command<Answer = Held>,
    {
        let (mut last, mut pause) = (first, limits::PERSIST_PAUSE_FIRST);
        loop {
            self.watch.storage_failed(&last);
            if last.kind() == LedgerErrorKind::Corrupt || self.is_in_vain(until, pause) {
                tracing::error!(
                    record_id = %command.id(), error = %last,
                    "the end of an attempt could not be stored: its record stays running, and lapses"
                );
                return Err(last);
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits::PERSIST_PAUSE_MAX);
            match self.ledger.apply(command).await {
                Ok(held) => return Ok(held),
                Err(error) => last = error,
            }
        }
    }

    /// Sees to a claim that failed and may be held by nobody, in the background: it is given back as soon as that is
    /// possible. `lease` is what was asked for.
    pub fn claim_failed(&self, error: &LedgerError, lease: Duration) {
        if let Some(orphan) = error.orphan() {
            self.give_back(orphan, lease);
        }
    }

    /// Gives a claim back under which nothing has run, in the background, as soon as that is possible. Nobody may hold
    /// it any more.
    pub(crate) fn give_back(&self, orphan: Holder, lease: Duration) {
        let runtime = self.clone();
        self.tasks.spawn(async move { runtime.abandon(orphan, lease).await });
    }

    /// Gives a claim back that was found after its caller had been refused, until that holds or its lease is over.
    async fn abandon(&self, orphan: Holder, lease: Duration) {
        // A write in doubt may still happen until its deadline, and the lease would begin then.
        let until = Instant::now() + lease + semel_core::limits::WRITE_WITHIN;
        let mut pause = limits::PERSIST_PAUSE_FIRST;
        loop {
            match self.ledger.abandon(orphan).await {
                Ok(Abandoned::GivenBack) => return,
                // It may still be on its way.
                Ok(Abandoned::NotFound) if self.is_in_vain(until - lease, pause) => return,
                Ok(Abandoned::NotFound) => {}
                Err(error) => {
                    self.watch.storage_failed(&error);
                    if self.is_in_vain(until, pause) {
                        tracing::warn!(record_id = %orphan.id, %error, "a claim that nobody holds is left to its lapse");
                        return;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits::PERSIST_PAUSE_MAX);
        }
    }

    fn is_in_vain(&self, until: Instant, pause: Duration) -> bool {
        Instant::now() + pause >= until || self.giving_up.is_cancelled()
    }
}

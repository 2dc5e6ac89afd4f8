//! The decision loop: load, decide, swap, and again when somebody was quicker.
//!
//! Every door goes through here. The ledger holds no state of its own, so any number of them over one store are one
//! ledger.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::command::{
    Accept, Accepted, AddCheckpoint, Claim, ClaimKey, Claimed, Command, Complete, DropPayload, Dropped,
    Extend, Held, Lapse, Lapsed, MarkUnknown, Release, Retry, Take, Taken, Verdict,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::id::{AttemptId, Holder, RecordId, Token, Version};
use crate::invariant::judge_step;
use crate::limits;
use crate::outcome::Outcome;
use crate::record::{Checkpoint, Record, StateName, Text, Why};
use crate::request::Request;
use crate::store::{AsOf, Inserted, Replaced, Store};
use crate::time::Timestamp;
use crate::write::Write;

/// Where random bits come from.
pub trait Entropy: Send + Sync + 'static {
    /// 128 bits that nobody can guess.
    fn token(&self) -> Token;
}

/// What makes an operation happen once, over any store.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("store", &self.store.name()).finish_non_exhaustive()
    }
}

/// What became of giving back a claim that nobody may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abandoned {
    /// It was there, and is free again.
    GivenBack,
    /// There is no such claim: it never happened, is over, or is still on its way, which it can be until its
    /// write's deadline has passed.
    NotFound,
}

/// What a command answers, and whether it has changed anything: repeating a command repeats its answer, and whoever
/// counts or tells what happens must not do that twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<A> {
    /// The answer.
    pub answer: A,
    /// What this command wrote; `None` if it left everything as it was.
    pub change: Option<Change>,
}

/// What a command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version that gave way; `None` if nothing was there, or only what had expired.
    pub from: Option<Arc<Record>>,
}

/// A command that has no answer. Nothing runs on the strength of it (L12).
#[derive(Debug)]
pub struct LedgerError {
    kind: LedgerErrorKind,
    holder: Option<Holder>,
    source: Option<StoreError>,
}

/// What it means for whoever gave the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerErrorKind {
    /// The store did not answer; nothing happened.
    Unavailable,
    /// The store did not answer, and nobody knows whether it happened. A claim may be held by nobody:
    /// [`Ledger::abandon`] gives it back.
    InDoubt,
    /// What is stored cannot be read (L13).
    Corrupt,
    /// More than the store can hold in one record.
    TooLarge,
    /// Others were quicker for too long.
    Contended,
}

impl LedgerError {
    fn of(source: StoreError, holder: Option<Holder>, doubted: bool) -> Self {
        let kind = match source.kind() {
            StoreErrorKind::Corrupt => LedgerErrorKind::Corrupt,
            StoreErrorKind::TooLarge => LedgerErrorKind::TooLarge,
            StoreErrorKind::InDoubt => LedgerErrorKind::InDoubt,
            // A later refusal does not settle an earlier doubt.
            StoreErrorKind::NotApplied { .. } if doubted => LedgerErrorKind::InDoubt,
            StoreErrorKind::NotApplied { .. } => LedgerErrorKind::Unavailable,
        };
        Self { kind, holder, source: Some(source) }
    }

    /// What it means.
    pub const fn kind(&self) -> LedgerErrorKind {
        self.kind
    }

    /// The claim that may have been given to nobody. None for a named attempt, which its client asks for again.
    pub fn orphan(&self) -> Option<Holder> {
        self.holder.filter(|_| self.kind == LedgerErrorKind::InDoubt)
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LedgerErrorKind::Unavailable => "the store did not answer, and nothing happened",
            LedgerErrorKind::InDoubt => "the store did not answer, and the command may have happened",
            LedgerErrorKind::Corrupt => "what is stored for this key cannot be read",
            LedgerErrorKind::TooLarge => "the record is larger than the store can hold",
            LedgerErrorKind::Contended => "other commands on this key were quicker every time",
        })
    }
}

impl Error for LedgerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl Ledger {
    /// A ledger over this store.
    pub fn new(store: Arc<dyn Store>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, entropy }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Asks for the right to run one attempt. When it is granted, the claim is durable (L4).
    ///
    /// # Cancellation
    /// Leaves the claim in doubt: it may be held by nobody until its lease lapses. Run it to its end in a task.
    ///
    /// # Errors
    /// The store has no answer, so nothing may run. See [`LedgerError::orphan`].
    pub async fn claim(
        &self,
        request: Arc<Request>,
        attempt_id: Option<AttemptId>,
    ) -> Result<Claimed, LedgerError> {
        Ok(self.claim_applied(request, attempt_id).await?.answer)
    }

    /// As [`claim`](Self::claim), and says whether the claim is a new one: a named attempt that asks again is given the
    /// claim that it has.
    ///
    /// # Cancellation
    /// As [`claim`](Self::claim).
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn claim_applied(
        &self,
        request: Arc<Request>,
        attempt_id: Option<AttemptId>,
    ) -> Result<Applied<Claimed>, LedgerError> {
        let token = self.entropy.token();
        let holder = Holder { id: request.id(), token };
        // Who named the attempt may ask for it again and run it: nobody else may give it back in the meantime.
        let orphan = attempt_id.is_none().then_some(holder);
        self.apply_first(&ClaimKey { request, token, attempt_id }, orphan).await
    }

    /// Takes work in, durably. Whoever is told that it is in has taken it in, also where the store's answer was lost and a
    /// worker has ended it meanwhile.
    ///
    /// # Errors
    /// The store has no answer: the work may be in, and taking it in again tells.
    pub async fn accept(&self, accept: &Accept) -> Result<Accepted, LedgerError> {
        Ok(self.accept_applied(accept).await?.answer)
    }

    /// As [`accept`](Self::accept), and says what was there before.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn accept_applied(&self, accept: &Accept) -> Result<Applied<Accepted>, LedgerError> {
        self.apply_first(&accept.clone().asked_by(self.entropy.token()), None).await
    }

    /// Claims a due record for a worker.
    ///
    /// # Errors
    /// The store has no answer, so nothing may run. See [`LedgerError::orphan`].
    pub async fn take(&self, due: &Arc<Record>) -> Result<Taken, LedgerError> {
        let take = Take { id: due.id(), token: self.entropy.token() };
        let holder = Holder { id: take.id, token: take.token };
        let seen = AsOf { as_of: self.store.time(), value: Some(Arc::clone(due)) };
        Ok(self.drive(&take, Some(holder), Some(seen)).await?.answer)
    }

    /// Applies a lapse that nobody asks about.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn lapse(&self, id: RecordId) -> Result<Lapsed, LedgerError> {
        self.apply(&Lapse { id }).await
    }

    /// Drops the input of a completed record whose time has come.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn drop_payload(&self, due: &Arc<Record>) -> Result<Dropped, LedgerError> {
        let seen = AsOf { as_of: self.store.time(), value: Some(Arc::clone(due)) };
        Ok(self.drive(&DropPayload { id: due.id() }, None, Some(seen)).await?.answer)
    }

    /// A heartbeat.
    ///
    /// # Errors
    /// The store has no answer: the lease may or may not have been renewed, so it was not.
    pub async fn extend(&self, holder: Holder) -> Result<Held, LedgerError> {
        self.apply(&Extend { holder }).await
    }

    /// A step is done.
    ///
    /// # Errors
    /// The store has no answer; saying it again is safe.
    pub async fn checkpoint(&self, holder: Holder, checkpoint: Checkpoint) -> Result<Held, LedgerError> {
        self.apply(&AddCheckpoint { holder, checkpoint }).await
    }

    /// Settles a claim that this process holds with what it gave.
    ///
    /// # Errors
    /// The store has no answer: the record stays running and lapses (L12); it is not released.
    pub async fn complete(&self, claim: Claim, outcome: Outcome) -> Result<Held, LedgerError> {
        let complete = Complete { holder: claim.holder(), outcome };
        // The holder of a fresh claim is nearly always the only writer, so its version is tried before asking.
        let seen = AsOf { as_of: self.store.time(), value: Some(Arc::clone(claim.record())) };
        Ok(self.drive(&complete, None, Some(seen)).await?.answer)
    }

    /// Gives a claim back whose attempt is known to be without effect.
    ///
    /// # Errors
    /// The store has no answer; the claim lapses.
    pub async fn release(&self, claim: Claim, error: Text) -> Result<Held, LedgerError> {
        self.apply(&Release { holder: claim.holder(), error }).await
    }

    /// Ends a failed attempt of accepted work.
    ///
    /// # Errors
    /// The store has no answer; the claim lapses.
    pub async fn retry(&self, retry: &Retry) -> Result<Held, LedgerError> {
        self.apply(retry).await
    }

    /// Ends an attempt of which nobody knows what it did.
    ///
    /// # Errors
    /// The store has no answer; the claim lapses, which comes to the same.
    pub async fn mark_unknown(&self, claim: Claim, why: Why, detail: Text) -> Result<Held, LedgerError> {
        self.apply(&MarkUnknown { holder: claim.holder(), why, detail }).await
    }

    /// Gives back a claim that was found after its caller had been refused: nothing ever ran under it. A claim that is
    /// not found may be on its way: ask again until [`limits::WRITE_WITHIN`] after it was asked for.
    ///
    /// # Errors
    /// The store still has no answer: call again, until the lease would have lapsed.
    pub async fn abandon(&self, orphan: Holder) -> Result<Abandoned, LedgerError> {
        let error = "the claim's answer was lost before anything ran".into();
        Ok(match self.apply(&Release { holder: orphan, error }).await? {
            Held::Done(_) => Abandoned::GivenBack,
            Held::Fenced(_) | Held::Illegal(..) => Abandoned::NotFound,
        })
    }

    /// The newest durable version of a record, unless it is as good as absent.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn load(&self, id: RecordId) -> Result<Option<Arc<Record>>, LedgerError> {
        let seen = self.store.load(id).await.map_err(|error| LedgerError::of(error, None, false))?;
        Ok(seen.value.filter(|record| !record.is_expired(seen.as_of)))
    }

    /// Waits for `patience` at most until the record, seen at `seen`, comes to an end that a waiter can be told:
    /// anything but pending and running. Waiters never claim.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn wait(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Result<Option<Arc<Record>>, LedgerError> {
        let deadline = self.store.time().plus(patience);
        let mut seen = seen;
        loop {
            let left = deadline.since(self.store.time());
            let changed = self.store.changed(id, seen, left).await;
            let changed = changed.map_err(|error| LedgerError::of(error, None, false))?;
            let record = changed.value.filter(|record| !record.is_expired(changed.as_of));
            let busy = record
                .as_ref()
                .filter(|record| matches!(record.state().name(), StateName::Pending | StateName::Running));
            match busy {
                Some(busy) if !deadline.since(self.store.time()).is_zero() => seen = seen.max(busy.version()),
                Some(_) | None => return Ok(record),
            }
        }
    }

    /// Decides any command and writes what it says.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn apply<C: Command>(&self, command: &C) -> Result<C::Answer, LedgerError> {
        Ok(self.apply_told(command).await?.answer)
    }

    /// As [`apply`](Self::apply), and says whether anything was written: a command that was said before is answered
    /// as before.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn apply_told<C: Command>(&self, command: &C) -> Result<Applied<C::Answer>, LedgerError> {
        self.drive(command, None, None).await
    }

    /// As [`apply`](Self::apply), for commands that mostly meet an absent record: asks by inserting.
    async fn apply_first<C: Command>(
        &self,
        command: &C,
        holder: Option<Holder>,
    ) -> Result<Applied<C::Answer>, LedgerError> {
        let seen = AsOf { as_of: self.store.time(), value: None };
        self.drive(command, holder, Some(seen)).await
    }

    /// `seen` is what the caller believes is stored. Whatever is decided on it is only a proposal: the store
    /// compares, and says what there really is.
    async fn drive<C: Command>(
        &self,
        command: &C,
        holder: Option<Holder>,
        seen: Option<AsOf<Option<Arc<Record>>>>,
    ) -> Result<Applied<C::Answer>, LedgerError> {
        let mut believed = seen.is_some();
        let (mut doubts, mut outlived) = (0, false);
        // What the first write in doubt was decided on.
        let mut doubted: Option<Change> = None;
        let mut next = seen;
        for _ in 0..limits::DECISIONS_MAX {
            let seen = match next.take() {
                Some(seen) => seen,
                None => match self.store.load(command.id()).await {
                    Ok(seen) => seen,
                    Err(error) => return Err(LedgerError::of(error, holder, doubts > 0)),
                },
            };
            let write = match command.decide(seen.value.as_ref(), seen.as_of) {
                // If there was a doubt, this is what its write has come to.
                Verdict::Stay(answer) if !believed => return Ok(Applied { answer, change: doubted }),
                // Decided on a belief, and nothing was written that would have tested it: look.
                Verdict::Stay(_) => {
                    believed = false;
                    continue;
                }
                Verdict::Write(write) => {
                    write.decided_on(seen.value.as_deref(), seen.as_of, limits::WRITE_WITHIN)
                }
            };
            believed = false;
            let change =
                || Change { from: seen.value.clone().filter(|record| !record.is_expired(seen.as_of)) };
            let deadline = write.deadline();
            match self.swap(write, seen.value.as_deref()).await {
                Ok(Swapped::Written(record)) => {
                    return Ok(Applied { answer: command.answer(record), change: Some(change()) });
                }
                Ok(Swapped::Conflict(found)) => next = Some(found),
                // Another write on the same version settles the doubt: if this one wins, the lost one never can; if
                // it conflicts, what is found tells whose it is.
                Err(error) if error.is_in_doubt() && doubts < limits::DOUBTS_MAX => {
                    doubts += 1;
                    doubted.get_or_insert_with(change);
                }
                // The record's life ended between decision and write: the store refused what was decided on it, and
                // the next life is another decision. Once, so that a store that refuses for reasons of its own says so.
                Err(error)
                    if !error.is_in_doubt() && !outlived && ends_at(seen.value.as_deref(), deadline) =>
                {
                    outlived = true;
                }
                Err(error) => return Err(LedgerError::of(error, holder, doubts > 0)),
            }
        }
        let kind = if doubts > 0 { LedgerErrorKind::InDoubt } else { LedgerErrorKind::Contended };
        Err(LedgerError { kind, holder, source: None })
    }

    async fn swap(&self, write: Write, judged: Option<&Record>) -> Result<Swapped, StoreError> {
        match judged {
            None => {
                let AsOf { as_of, value } = self.store.insert(write).await?;
                Ok(match value {
                    Inserted::Inserted(record) => Swapped::Written(record),
                    Inserted::Occupied(found) => Swapped::Conflict(AsOf { as_of, value: Some(found) }),
                })
            }
            Some(judged) => {
                let AsOf { as_of, value } = self.store.replace(write, judged.version()).await?;
                Ok(match value {
                    Replaced::Replaced(record) => {
                        let expired = judged.is_expired(as_of);
                        debug_assert_eq!(judge_step(Some(judged), expired, &record), Ok(()));
                        Swapped::Written(record)
                    }
                    Replaced::Conflict(found) => Swapped::Conflict(AsOf { as_of, value: found }),
                })
            }
        }
    }
}

/// Whether `deadline` is the last moment of the record's life.
fn ends_at(judged: Option<&Record>, deadline: Timestamp) -> bool {
    let expires = judged.and_then(|record| record.times().expires);
    expires.is_some_and(|expires| deadline.plus(Duration::from_millis(1)) == expires)
}

/// What became of a write.
enum Swapped {
    Written(Arc<Record>),
    Conflict(AsOf<Option<Arc<Record>>>),
}

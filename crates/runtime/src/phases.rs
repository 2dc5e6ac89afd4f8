//! Work in several steps over a claim: each done once, resumed where it stopped.
//!
//! A step that is done is a checkpoint of the claim's record, with what it gave; the next attempt is given that in its
//! place. Checkpoints have an order, and so have steps: an attempt goes by the steps of the one before, name by name,
//! and then on. A name that stands elsewhere, or stood for something else, is an error: to skip it, or to run it again,
//! would be a guess.
//!
//! What a step gives is bytes here; whoever knows a format puts it around them.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use semel_core::command::{Claim, Held, MarkUnknown};
use semel_core::error::Invalid;
use semel_core::id::{Holder, Phase};
use semel_core::ledger::LedgerError;
use semel_core::record::{Checkpoint, Record, StateName, Why};
use semel_core::{Ledger, RecordId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// What the checkpoint is called that a step marked *once* writes before its effect: its name, and this.
pub const STARTED: &str = ":started";

/// What becomes of a step that was begun and not finished, when another attempt comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It is run again, under the same downstream key.
    Again,
    /// It is not run again: the record becomes unknown, and somebody has to look.
    Once,
}

/// The steps of one attempt. A clone is another handle.
#[derive(Clone)]
pub struct Steps(Arc<Inner>);

struct Inner {
    /// `None` where the work has no claim: then steps are only counted.
    claim: Option<OverClaim>,
    lost: CancellationToken,
    place: tokio::sync::Mutex<Place>,
}

struct OverClaim {
    ledger: Ledger,
    holder: Holder,
    record: Mutex<Arc<Record>>,
    unknown: std::sync::atomic::AtomicBool,
}

/// How far this attempt has come.
#[derive(Debug, Default)]
struct Place {
    /// How many checkpoints it has gone by or written.
    passed: usize,
    /// The steps that it has gone by or run.
    names: Vec<Phase>,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.claim.as_ref().map(|claim| claim.holder.id);
        f.debug_struct("Steps").field("record_id", &id).finish_non_exhaustive()
    }
}

/// A checkpoint that was not kept.
#[derive(Debug)]
pub enum Unkept {
    /// The claim is lost: another attempt has taken its place.
    Fenced,
    /// The phase is checkpointed with other data, or there are too many.
    Illegal(&'static str),
    /// The store does not answer; it may or may not be kept, and saying it again is safe.
    Storage(LedgerError),
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced => f.write_str("the claim is lost to another attempt"),
            Self::Illegal(why) => f.write_str(why),
            Self::Storage(_) => f.write_str("the store does not answer"),
        }
    }
}

impl Error for Unkept {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Fenced | Self::Illegal(_) => None,
        }
    }
}

/// A step that came to nothing. The work had better stop.
#[derive(Debug)]
pub enum StepError<E> {
    /// The work of the step said so. It is not checkpointed.
    Work(E),
    /// The step's name, or what it gave, is not within the limits. What it gave was too large only after it had run.
    Invalid(Invalid),
    /// The name ends as those of the ledger's own checkpoints do.
    Reserved,
    /// This attempt has had a step of this name.
    Repeated,
    /// Another step of this attempt has not ended.
    Overlapping,
    /// An earlier attempt did something else here: the steps, or their order, have changed.
    Changed {
        /// What that did here; `None` if it had ended before.
        expected: Option<Phase>,
        /// What this one is about to do; `None` if it ends here.
        found: Option<Phase>,
    },
    /// An earlier attempt had a step of this name that was, or was not, marked *once*.
    OtherMark,
    /// A step marked *once* was begun by an earlier attempt and not finished: nobody knows whether it took effect. The
    /// record is unknown now.
    Unknown,
    /// The lease is not safe any more: nothing was begun.
    Lost,
    /// The step ran, or was about to, and its checkpoint was not kept.
    Unkept(Unkept),
}

impl<E: fmt::Display> fmt::Display for StepError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(error) => error.fmt(f),
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Reserved => write!(f, "the name of a phase must not end in `{STARTED}`"),
            Self::Repeated => f.write_str("this attempt has had a phase of this name"),
            Self::Overlapping => f.write_str("another phase of this attempt has not ended"),
            Self::Changed { expected, found } => {
                let name = |phase: &Option<Phase>| {
                    phase.as_ref().map_or("the end".to_owned(), |phase| format!("phase `{phase}`"))
                };
                write!(f, "an earlier attempt had {} where this one has {}", name(expected), name(found))
            }
            Self::OtherMark => f.write_str("an earlier attempt had this phase with another mark"),
            Self::Unknown => {
                f.write_str("the phase was begun by an earlier attempt, and may have had its effect")
            }
            Self::Lost => f.write_str("the claim is not safe any more, and the phase was not begun"),
            Self::Unkept(unkept) => unkept.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for StepError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Work(error) => error.source(),
            Self::Unkept(unkept) => unkept.source(),
            Self::Invalid(_)
            | Self::Reserved
            | Self::Repeated
            | Self::Overlapping
            | Self::Changed { .. }
            | Self::OtherMark
            | Self::Unknown
            | Self::Lost => None,
        }
    }
}

/// What is known of a step that an attempt comes to.
enum Known {
    /// Nothing: it is new.
    New,
    /// It is done, and gave this; so many checkpoints are its own.
    Done(Bytes, usize),
    /// It was begun under *once*, and not finished.
    Begun,
}

impl Steps {
    /// The steps of this attempt. `lost` is cancelled when its lease is not safe any more.
    pub fn over(ledger: &Ledger, claim: &Claim, lost: CancellationToken) -> Self {
        let claim = OverClaim {
            ledger: ledger.clone(),
            holder: claim.holder(),
            record: Mutex::new(Arc::clone(claim.record())),
            unknown: std::sync::atomic::AtomicBool::new(false),
        };
        Self(Arc::new(Inner { claim: Some(claim), lost, place: tokio::sync::Mutex::default() }))
    }

    /// Steps of work that has no claim: each runs, and nothing is kept.
    pub fn unprotected() -> Self {
        Self(Arc::new(Inner {
            claim: None,
            lost: CancellationToken::new(),
            place: tokio::sync::Mutex::default(),
        }))
    }

    /// The record, as far as this attempt knows it; `None` where there is no claim.
    pub fn record(&self) -> Option<Arc<Record>> {
        self.0.claim.as_ref().map(|claim| Arc::clone(&claim.record()))
    }

    /// Its id.
    pub fn record_id(&self) -> Option<RecordId> {
        self.0.claim.as_ref().map(|claim| claim.holder.id)
    }

    /// Cancelled when the claim is not safe any more.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// Whether a step has found that nobody knows what an earlier attempt did. The attempt is over then, whatever its
    /// work says.
    pub fn is_unknown(&self) -> bool {
        let unknown = |claim: &OverClaim| claim.unknown.load(std::sync::atomic::Ordering::Acquire);
        self.0.claim.as_ref().is_some_and(unknown)
    }

    /// Keeps a checkpoint as it is, without a look at the order of steps. Where there is no claim it is not kept.
    ///
    /// # Errors
    /// See [`Unkept`].
    ///
    /// # Cancellation
    /// Leaves open whether it is kept; saying it again is safe.
    pub async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<(), Unkept> {
        let Some(claim) = &self.0.claim else { return Ok(()) };
        match claim.ledger.checkpoint(claim.holder, checkpoint).await {
            Ok(Held::Done(record)) => {
                *claim.record() = record;
                Ok(())
            }
            Ok(Held::Fenced(_)) => Err(Unkept::Fenced),
            Ok(Held::Illegal(_, why)) => Err(Unkept::Illegal(why)),
            Err(error) => Err(Unkept::Storage(error)),
        }
    }

    /// Runs a step, unless an earlier attempt has done it: then this gives what it gave.
    ///
    /// # Errors
    /// See [`StepError`].
    ///
    /// # Cancellation
    /// Ends the step's work where it is. The step counts as begun and not finished.
    pub async fn step<E, F>(
        &self,
        name: &str,
        mark: Mark,
        work: impl FnOnce() -> F,
    ) -> Result<Bytes, StepError<E>>
    where
        F: Future<Output = Result<Bytes, E>>,
    {
        let phase = Phase::try_new(name).map_err(StepError::Invalid)?;
        if name.ends_with(STARTED) {
            return Err(StepError::Reserved);
        }
        let mut place = self.0.place.try_lock().map_err(|_| StepError::Overlapping)?;
        if place.names.contains(&phase) {
            return Err(StepError::Repeated);
        }
        match self.known(&phase, mark, place.passed)? {
            Known::Done(data, own) => {
                place.passed += own;
                place.names.push(phase);
                return Ok(data);
            }
            Known::Begun => return Err(self.unknown(&phase).await),
            Known::New => {}
        }
        if self.0.lost.is_cancelled() {
            return Err(StepError::Lost);
        }
        if mark == Mark::Once {
            self.keep(&format!("{name}{STARTED}"), Bytes::new()).await?;
        }
        let given = work().await.map_err(StepError::Work)?;
        self.keep(name, given.clone()).await?;
        place.passed += if mark == Mark::Once { 2 } else { 1 };
        place.names.push(phase);
        Ok(given)
    }

    /// The work ends here: an earlier attempt must not have gone further.
    ///
    /// # Errors
    /// It has: the list of steps has changed.
    pub fn finish<E>(&self) -> Result<(), StepError<E>> {
        let place = self.0.place.try_lock().map_err(|_| StepError::Overlapping)?;
        let record = self.record();
        let left = record.as_ref().and_then(|record| record.checkpoints().get(place.passed));
        match left {
            None => Ok(()),
            Some(left) => Err(StepError::Changed { expected: Some(left.phase().clone()), found: None }),
        }
    }

    fn known<E>(&self, phase: &Phase, mark: Mark, passed: usize) -> Result<Known, StepError<E>> {
        let Some(record) = self.record() else { return Ok(Known::New) };
        let Some((here, after)) = record.checkpoints().get(passed..).and_then(<[Checkpoint]>::split_first)
        else {
            return Ok(Known::New);
        };
        let changed = |expected: &Checkpoint| StepError::Changed {
            expected: Some(expected.phase().clone()),
            found: Some(phase.clone()),
        };
        if here.phase() == phase {
            return match mark {
                Mark::Again => Ok(Known::Done(here.data().clone(), 1)),
                Mark::Once => Err(StepError::OtherMark),
            };
        }
        if here.phase().as_str().strip_suffix(STARTED) != Some(phase.as_str()) {
            return Err(changed(here));
        }
        match (mark, after.first()) {
            (Mark::Again, _) => Err(StepError::OtherMark),
            (Mark::Once, Some(done)) if done.phase() == phase => Ok(Known::Done(done.data().clone(), 2)),
            (Mark::Once, Some(other)) => Err(changed(other)),
            (Mark::Once, None) => Ok(Known::Begun),
        }
    }

    /// Keeps a step's checkpoint, and says it again for a while if the store has no answer: what the step did is done.
    async fn keep<E>(&self, name: &str, data: Bytes) -> Result<(), StepError<E>> {
        let phase = Phase::try_new(name).map_err(StepError::Invalid)?;
        let checkpoint = Checkpoint::try_new(phase, data).map_err(StepError::Invalid)?;
        let until = Instant::now() + limits::PERSIST_ANSWER_WITHIN;
        let mut pause = limits::PERSIST_PAUSE_FIRST;
        loop {
            match self.checkpoint(checkpoint.clone()).await {
                Ok(()) => return Ok(()),
                Err(Unkept::Storage(error))
                    if Instant::now() + pause < until && !self.0.lost.is_cancelled() =>
                {
                    tracing::warn!(phase = name, %error, "a checkpoint has no answer, and is said again");
                }
                Err(unkept) => return Err(StepError::Unkept(unkept)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits::PERSIST_PAUSE_MAX);
        }
    }

    /// Nobody knows what an earlier attempt did: the record says so from now on.
    async fn unknown<E>(&self, phase: &Phase) -> StepError<E> {
        let Some(claim) = &self.0.claim else { return StepError::Unknown };
        // Before the record says so: whatever becomes of the command, this attempt must not be settled otherwise.
        claim.unknown.store(true, std::sync::atomic::Ordering::Release);
        let detail =
            format!("the phase `{phase}` was begun by an earlier attempt, and may have had its effect");
        let (holder, why) = (claim.holder, Why::WorkAbandoned);
        let command = MarkUnknown { holder, why, detail: detail.as_str().into() };
        match claim.ledger.apply(&command).await {
            Ok(Held::Done(record)) => {
                *claim.record() = record;
                StepError::Unknown
            }
            Ok(Held::Fenced(Some(record))) if record.state().name() == StateName::Unknown => {
                StepError::Unknown
            }
            Ok(Held::Fenced(_) | Held::Illegal(..)) => StepError::Unkept(Unkept::Fenced),
            Err(error) => StepError::Unkept(Unkept::Storage(error)),
        }
    }
}

impl OverClaim {
    fn record(&self) -> MutexGuard<'_, Arc<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

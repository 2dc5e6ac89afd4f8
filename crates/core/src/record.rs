//! What the ledger remembers about one key: the record, its state, its times.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Invalid, Problem};
use crate::id::{AttemptId, Fence, Holder, Lane, Phase, RecordId, Token, Version};
use crate::limits;
use crate::outcome::Outcome;
use crate::policy::OnLapse;
use crate::request::Request;
use crate::time::Timestamp;

/// A text that is kept for people: cut to [`limits::TEXT_BYTES_MAX`] at a character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Text(Arc<str>);

impl Text {
    /// Keeps as much of the text as fits.
    pub fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(limits::TEXT_BYTES_MAX);
        Self(text[..end].into())
    }

    /// What was kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shares the memory of what fits.
impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        if text.len() <= limits::TEXT_BYTES_MAX { Self(text) } else { Self::new(&text) }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// A step of an operation that is done, with what it gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    phase: Phase,
    data: Bytes,
}

impl Checkpoint {
    /// A checkpoint within the limits.
    ///
    /// # Errors
    /// The data has more than [`limits::CHECKPOINT_BYTES_MAX`] bytes.
    pub fn try_new(phase: Phase, data: Bytes) -> Result<Self, Invalid> {
        if data.len() > limits::CHECKPOINT_BYTES_MAX {
            return Err(Invalid::new("data", Problem::TooLarge { max: limits::CHECKPOINT_BYTES_MAX }));
        }
        Ok(Self { phase, data })
    }

    /// The step.
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What it gave.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The lease lapsed while the operation may have been running.
    LeaseLapsed,
    /// No answer came in time or whole after the request had been sent.
    AnswerLost,
    /// An answer came whole, and proves nothing, such as a 500.
    AnswerInconclusive,
    /// The work left without saying what it did (a panic, a shutdown).
    WorkAbandoned,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::LeaseLapsed, Self::AnswerLost, Self::WorkAbandoned, Self::AnswerInconclusive];

    /// The name in APIs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseLapsed => "lease_lapsed",
            Self::AnswerLost => "answer_lost",
            Self::AnswerInconclusive => "answer_inconclusive",
            Self::WorkAbandoned => "work_abandoned",
        }
    }
}

/// Where a record stands. The token, the attempt and the checkpoints outlive a state, so they belong to the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted and durable, waiting for a worker until its `wake` time.
    Pending {
        /// What the last try said.
        last_error: Option<Text>,
    },
    /// Somebody holds the claim, until its `wake` time unless it is extended.
    Running {
        /// The client's name for the attempt.
        attempt_id: Option<AttemptId>,
    },
    /// An attempt ended, known to be without effect; the next claim may run.
    Released {
        /// What the attempt, or whoever resolved it, said.
        last_error: Text,
    },
    /// Final; replayed.
    Completed {
        /// What is replayed.
        outcome: Outcome,
    },
    /// It may have happened, and nobody knows.
    Unknown {
        /// Why nobody knows.
        why: Why,
        /// The circumstances.
        detail: Text,
    },
    /// Retries spent, or a permanent failure: the dead letter queue.
    Dead {
        /// What the last try said.
        last_error: Text,
    },
}

/// The name of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the `State` of that name")]
pub enum StateName {
    Pending,
    Running,
    Released,
    Completed,
    Unknown,
    Dead,
}

impl StateName {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Released, Self::Completed, Self::Unknown, Self::Dead];

    /// The name in stored bytes, metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Released => "released",
            Self::Completed => "completed",
            Self::Unknown => "unknown",
            Self::Dead => "dead",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl State {
    /// Its name.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Pending { .. } => StateName::Pending,
            Self::Running { .. } => StateName::Running,
            Self::Released { .. } => StateName::Released,
            Self::Completed { .. } => StateName::Completed,
            Self::Unknown { .. } => StateName::Unknown,
            Self::Dead { .. } => StateName::Dead,
        }
    }
}

/// When things happened and will: all in the store's time, stamped by the store inside the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Times {
    /// When this life of the record began. With the id, the place in every listing; it does not change.
    pub created: Timestamp,
    /// When this version was written.
    pub written: Timestamp,
    /// Pending: when it is due. Running: when the lease lapses; `None` once the lapse was seen and nobody could
    /// take over but the client. Completed: when its input is to be dropped, if it is before the record.
    pub wake: Option<Timestamp>,
    /// When the record came to rest (completed or released).
    pub settled: Option<Timestamp>,
    /// From when on the record is as good as absent (L8).
    pub expires: Option<Timestamp>,
}

/// What the last command was, so that repeating it repeats its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CommandDigest(pub [u8; 16]);

/// The parts of a record, for stores that take it apart and put it together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What the first command fixed.
    pub request: Arc<Request>,
    /// Which version this is.
    pub version: Version,
    /// When.
    pub times: Times,
    /// Which attempt the last claim was, from 1; 0 before the first. It only rises, whatever door the claims came by.
    pub attempt: u32,
    /// Attempts that the schedule does not count, since they were over before it began: of a client, before the work was
    /// taken in; and all that came before an operator revived it, or said that nothing had happened.
    pub uncounted: u32,
    /// How often it was revived.
    pub generation: u32,
    /// Whether it was taken in for asynchronous work (202 or 200 was said), so that it must end. Sticky.
    pub accepted: bool,
    /// By which asking it was taken in, if that said so: whoever lost the answer and asks again is told the same, whatever
    /// has become of the work since. Sticky.
    pub taken_in_by: Option<Token>,
    /// Whether an earlier attempt may have had an effect, so that a rejection now does not prove that nothing
    /// happened. Sticky, but for a resolution that says otherwise.
    pub tainted: bool,
    /// The token that may still say what its attempt did: of the last claim, until its holder has given it back
    /// (`release`, `retry`) or somebody has gone on without it (`revive`, a forced release). At most one (L1).
    pub token: Option<Token>,
    /// The last command that has no other trace in the record.
    pub last: CommandDigest,
    /// Steps that are done.
    pub checkpoints: Arc<[Checkpoint]>,
    /// Where it stands.
    pub state: State,
}

impl Parts {
    /// The lane of the `due` order. What is done waits in no target's: no circuit that is open, and no target that hangs,
    /// holds its upkeep up.
    pub fn due_lane(&self) -> Option<&Lane> {
        match self.state {
            State::Completed { .. } => None,
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => self.request.lane(),
        }
    }
}

/// One key's memory. Immutable: every change is a new version, made by a command and stamped by a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Parts);

impl Record {
    /// Puts a stored record together again.
    ///
    /// # Errors
    /// The parts contradict each other: no command makes such a record, so the bytes are corrupt (L13).
    pub fn from_parts(parts: Parts) -> Result<Self, &'static str> {
        let times = &parts.times;
        let rest = times.expires.is_some() && times.settled.is_some();
        let coherent = match &parts.state {
            State::Pending { .. } => times.wake.is_some() && times.expires.is_none() && parts.accepted,
            State::Running { .. } => parts.token.is_some() && times.expires.is_none(),
            State::Released { .. } => rest && times.wake.is_none() && !parts.accepted,
            State::Completed { .. } => rest,
            State::Unknown { .. } | State::Dead { .. } => times.wake.is_none() && times.expires.is_none(),
        };
        if !coherent {
            return Err("the parts of the record contradict its state");
        }
        if parts.version.fence == Fence(0) {
            return Err("the record has no fence");
        }
        if parts.uncounted > parts.attempt {
            return Err("the record does not count more attempts than there were");
        }
        if parts.checkpoints.len() > limits::CHECKPOINTS_MAX {
            return Err("the record has too many checkpoints");
        }
        Ok(Self(parts))
    }

    /// For [`crate::write`], which makes the next version.
    pub(crate) const fn assemble(parts: Parts) -> Self {
        Self(parts)
    }

    /// All of it.
    pub const fn parts(&self) -> &Parts {
        &self.0
    }

    /// Its id.
    pub fn id(&self) -> RecordId {
        self.0.request.id()
    }

    /// What its first command fixed.
    pub const fn request(&self) -> &Arc<Request> {
        &self.0.request
    }

    /// Which version this is.
    pub const fn version(&self) -> Version {
        self.0.version
    }

    /// The fence of its last claim.
    pub const fn fence(&self) -> Fence {
        self.0.version.fence
    }

    /// When things happened and will.
    pub const fn times(&self) -> &Times {
        &self.0.times
    }

    /// Attempts so far: the number of the last one.
    pub const fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Attempts that the schedule counts: since the work was taken in, was revived, or was said to have had no effect.
    pub const fn tries(&self) -> u32 {
        self.0.attempt.saturating_sub(self.0.uncounted)
    }

    /// How often it was revived.
    pub const fn generation(&self) -> u32 {
        self.0.generation
    }

    /// Whether it was taken in for asynchronous work.
    pub const fn accepted(&self) -> bool {
        self.0.accepted
    }

    /// Whether an earlier attempt may have had an effect.
    pub const fn tainted(&self) -> bool {
        self.0.tainted
    }

    /// The token that may still say what its attempt did.
    pub const fn token(&self) -> Option<Token> {
        self.0.token
    }

    /// Steps that are done, in order.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.0.checkpoints
    }

    /// Where it stands.
    pub const fn state(&self) -> &State {
        &self.0.state
    }

    /// What it came to, once it is completed.
    pub const fn outcome(&self) -> Option<&Outcome> {
        match &self.0.state {
            State::Completed { outcome } => Some(outcome),
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => None,
        }
    }

    /// What the last try said, or the circumstances of an unknown outcome.
    pub const fn error(&self) -> Option<&Text> {
        match &self.0.state {
            State::Pending { last_error } => last_error.as_ref(),
            State::Released { last_error } | State::Dead { last_error } => Some(last_error),
            State::Unknown { detail, .. } => Some(detail),
            State::Running { .. } | State::Completed { .. } => None,
        }
    }

    /// Whether it is as good as absent (L8).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.0.times.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether it is running and nobody's lease covers `now`. A remaining time of zero is a lapsed lease, and no
    /// `wake` means that the lapse was seen already.
    pub fn is_lapsed(&self, now: Timestamp) -> bool {
        matches!(self.0.state, State::Running { .. }) && self.0.times.wake.is_none_or(|wake| now >= wake)
    }

    /// Whether a worker can drive it without the client.
    pub fn is_drivable(&self) -> bool {
        self.0.request.input().is_some()
    }

    /// Whether its input was dropped with time: it was taken in, which needs one, and is there no more.
    pub fn payload_is_gone(&self) -> bool {
        self.0.accepted && self.0.request.input().is_none()
    }

    /// Whether a store's `due` order holds it: pending, running under a lease that somebody must watch, or completed with
    /// an input that is to be dropped before the record is.
    pub fn due(&self) -> Option<Timestamp> {
        match self.0.state {
            State::Pending { .. } | State::Running { .. } | State::Completed { .. } => self.0.times.wake,
            State::Released { .. } | State::Unknown { .. } | State::Dead { .. } => None,
        }
    }

    /// The lane of the `due` order that holds it, if one does.
    pub fn due_lane(&self) -> Option<&Lane> {
        self.0.due_lane()
    }

    /// Whether a lapse under its policy means that nobody knows.
    pub(crate) fn lapse_is_unknown(&self) -> bool {
        self.0.request.policy().on_lapse() == OnLapse::AtMostOnce
    }

    /// Whether `holder` is the one who may still say what its attempt did (L6).
    pub(crate) fn answers_to(&self, holder: &Holder) -> bool {
        self.id() == holder.id && self.0.token == Some(holder.token)
    }
}

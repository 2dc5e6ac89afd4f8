//! Commands as plain data: what an actor of the model can say, and what it is told.
//!
//! An [`Order`] can be compared, hashed and sent late, which a command of core need not be. [`Laws`] turns it into
//! core's own command and lets core decide it; nothing here knows what the answer ought to be. The one thing that
//! `Laws` can do beside that is to take a [`Guard`](crate::guards::Guard) away, for the test that every guard is missed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::command::{
    Accept, Accepted, AddCheckpoint, ClaimKey, Claimed, Command, Complete, Discard, DropPayload, Dropped,
    Effect, Extend, ForceRelease, Held, Judged, Lapse, Lapsed, MarkUnknown, Postpone, Release, Resolution,
    Resolve, Retry, Revive, Take, Taken, Verdict,
};
use semel_core::id::{AttemptId, Fence, Holder, Key, Namespace, Operation, Phase, Scope, Tenant, Version};
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::record::{Checkpoint, Why};
use semel_core::request::{Fingerprint, Input, Request};
use semel_core::write::Write;
use semel_core::{Record, Timestamp, Token};

use crate::guards::Guard;

/// The model's unit of time.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How long a claim holds.
pub(crate) const LEASE: Duration = Duration::from_millis(200);
/// How long a claim holds whose claimant asks for longer.
pub(crate) const LONG: Duration = Duration::from_millis(300);
/// How long a settled record is kept.
pub(crate) const RETENTION: Duration = Duration::from_millis(300);
/// How long the payload of a completed record is kept, where it is not for as long as the record.
pub(crate) const PAYLOAD: Duration = TICK;
/// How long a write may be on its way.
pub(crate) const WITHIN: Duration = TICK;
/// How long pending work is put off, and work that is taken in for later waits.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

const OTHER: &str = "refund";

/// One command, as data. Tokens, bodies and phases are small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// `long` asks for the longer lease.
    Claim {
        token: u8,
        other: bool,
        input: bool,
        attempt: Option<u8>,
        long: bool,
    },
    /// `later` takes it in to be due after [`PAUSE`].
    Accept {
        other: bool,
        dead: bool,
        later: bool,
    },
    Take {
        token: u8,
    },
    Lapse,
    Extend {
        token: u8,
    },
    Checkpoint {
        token: u8,
        phase: u8,
        data: u8,
    },
    Complete {
        token: u8,
        body: u8,
    },
    Release {
        token: u8,
    },
    Retry {
        token: u8,
        effect: bool,
        permanent: bool,
    },
    MarkUnknown {
        token: u8,
    },
    Resolve {
        version: Version,
        executed: Option<u8>,
    },
    Revive {
        version: Version,
    },
    Discard {
        version: Version,
    },
    ForceRelease {
        version: Version,
    },
    Postpone {
        version: Version,
    },
    DropPayload,
}

impl Order {
    /// The token that the order proves itself with.
    pub(crate) fn holder(&self) -> Option<u8> {
        match *self {
            Self::Extend { token }
            | Self::Checkpoint { token, .. }
            | Self::Complete { token, .. }
            | Self::Release { token }
            | Self::Retry { token, .. }
            | Self::MarkUnknown { token } => Some(token),
            Self::Claim { .. }
            | Self::Accept { .. }
            | Self::Take { .. }
            | Self::Lapse
            | Self::Resolve { .. }
            | Self::Revive { .. }
            | Self::Discard { .. }
            | Self::ForceRelease { .. }
            | Self::Postpone { .. }
            | Self::DropPayload => None,
        }
    }

    /// The token that the order asks a claim for.
    pub(crate) fn claimant(&self) -> Option<u8> {
        match *self {
            Self::Claim { token, .. } | Self::Take { token } => Some(token),
            _ => None,
        }
    }

    /// The lease that a claim asks for.
    pub(crate) fn lease(&self) -> Duration {
        match *self {
            Self::Claim { long: true, .. } => LONG,
            _ => LEASE,
        }
    }

    /// The version that the order judges.
    pub(crate) fn judges(&self) -> Option<Version> {
        match *self {
            Self::Resolve { version, .. }
            | Self::Revive { version }
            | Self::Discard { version }
            | Self::ForceRelease { version }
            | Self::Postpone { version } => Some(version),
            _ => None,
        }
    }

    /// Whether the order asks for something else than the record stands for.
    pub(crate) fn mismatches(&self, record: &Record) -> bool {
        match *self {
            Self::Claim { other, .. } | Self::Accept { other, .. } => other != is_other(record),
            _ => false,
        }
    }
}

/// Whether the record stands for the other of the two things that can be asked for under the key.
pub(crate) fn is_other(record: &Record) -> bool {
    record.request().operation().as_str() == OTHER
}

/// What an order was told, whichever command it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Granted { record: Arc<Record>, token: Token },
    Replay(Arc<Record>),
    Busy(Arc<Record>),
    Mismatch(Arc<Record>),
    Unknown(Arc<Record>),
    Dead(Arc<Record>),
    Accepted(Arc<Record>),
    Duplicate(Arc<Record>),
    Ended(Arc<Record>),
    NotDue(Option<Arc<Record>>),
    Parked(Arc<Record>),
    Gone(Arc<Record>),
    Nothing,
    Done(Arc<Record>),
    Fenced(Option<Arc<Record>>),
    Illegal(Arc<Record>),
    Conflict(Arc<Record>),
    NotFound,
}

impl Reply {
    /// The record that was shown with it.
    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        match self {
            Self::Granted { record, .. }
            | Self::Replay(record)
            | Self::Busy(record)
            | Self::Mismatch(record)
            | Self::Unknown(record)
            | Self::Dead(record)
            | Self::Accepted(record)
            | Self::Duplicate(record)
            | Self::Ended(record)
            | Self::Parked(record)
            | Self::Gone(record)
            | Self::Done(record)
            | Self::Illegal(record)
            | Self::Conflict(record)
            | Self::NotDue(Some(record))
            | Self::Fenced(Some(record)) => Some(record),
            Self::NotDue(None) | Self::Fenced(None) | Self::Nothing | Self::NotFound => None,
        }
    }

    /// Its name, for tables and messages.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Granted { .. } => "granted",
            Self::Replay(_) => "replay",
            Self::Busy(_) => "busy",
            Self::Mismatch(_) => "mismatch",
            Self::Unknown(_) => "unknown",
            Self::Dead(_) => "dead",
            Self::Accepted(_) => "accepted",
            Self::Duplicate(_) => "duplicate",
            Self::Ended(_) => "ended",
            Self::NotDue(_) => "not due",
            Self::Parked(_) => "parked",
            Self::Gone(_) => "gone",
            Self::Nothing => "nothing",
            Self::Done(_) => "done",
            Self::Fenced(_) => "fenced",
            Self::Illegal(_) => "illegal",
            Self::Conflict(_) => "conflict",
            Self::NotFound => "not found",
        }
    }
}

impl From<Claimed> for Reply {
    fn from(claimed: Claimed) -> Self {
        match claimed {
            Claimed::Granted(claim) => {
                Self::Granted { record: Arc::clone(claim.record()), token: claim.holder().token }
            }
            Claimed::Replay(record) => Self::Replay(record),
            Claimed::Busy { record, .. } => Self::Busy(record),
            Claimed::Mismatch(record) => Self::Mismatch(record),
            Claimed::Unknown(record) => Self::Unknown(record),
            Claimed::Dead(record) => Self::Dead(record),
        }
    }
}

impl From<Accepted> for Reply {
    fn from(accepted: Accepted) -> Self {
        match accepted {
            Accepted::Accepted(record) => Self::Accepted(record),
            Accepted::Duplicate(record) => Self::Duplicate(record),
            Accepted::Mismatch(record) => Self::Mismatch(record),
        }
    }
}

impl From<Taken> for Reply {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Granted(claim) => {
                Self::Granted { record: Arc::clone(claim.record()), token: claim.holder().token }
            }
            Taken::Ended(record) => Self::Ended(record),
            Taken::NotDue(record) => Self::NotDue(record),
        }
    }
}

impl From<Lapsed> for Reply {
    fn from(lapsed: Lapsed) -> Self {
        match lapsed {
            Lapsed::Unknown(record) => Self::Unknown(record),
            Lapsed::Parked(record) => Self::Parked(record),
            Lapsed::Nothing => Self::Nothing,
        }
    }
}

impl From<Dropped> for Reply {
    fn from(dropped: Dropped) -> Self {
        match dropped {
            Dropped::Gone(record) => Self::Gone(record),
            Dropped::Nothing => Self::Nothing,
        }
    }
}

impl From<Held> for Reply {
    fn from(held: Held) -> Self {
        match held {
            Held::Done(record) => Self::Done(record),
            Held::Fenced(record) => Self::Fenced(record),
            Held::Illegal(record, _) => Self::Illegal(record),
        }
    }
}

impl From<Judged> for Reply {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Done(record) => Self::Done(record),
            Judged::VersionConflict(record) => Self::Conflict(record),
            Judged::Illegal(record, _) => Self::Illegal(record),
            Judged::NotFound => Self::NotFound,
        }
    }
}

/// What an order comes to.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// Nothing is written.
    Stay(Reply),
    /// This is to be written.
    Write(Box<Draft>),
}

/// A write on its way, and what it was decided on.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    write: Write,
    /// What was stored when it was decided.
    pub(crate) judged: Option<Arc<Record>>,
    /// What core was told was stored: the same, unless a guard is missing.
    told: Option<Arc<Record>>,
}

impl Draft {
    /// On its way, with a deadline as the decision loop gives it one; or without minding that what it was decided on
    /// expires.
    pub(crate) fn send(&mut self, now: Timestamp, minds_expiry: bool) {
        let judged = self.judged.as_deref().filter(|_| minds_expiry);
        self.write = self.write.clone().decided_on(judged, now, WITHIN);
    }

    /// The moment after which it must not take effect.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.write.deadline()
    }

    /// The version it replaces; `None` for an insert.
    pub(crate) fn expected(&self) -> Option<Version> {
        self.judged.as_ref().map(|record| record.version())
    }
}

/// What is asked for under the key.
#[derive(Clone, Debug)]
struct Asked {
    plain: Arc<Request>,
    drivable: Arc<Request>,
    other: Arc<Request>,
}

impl Asked {
    fn of(policy: Policy, namespace: Namespace) -> Self {
        let request = |operation: &str| {
            let scope = Scope { namespace, tenant: Tenant::try_new("default").unwrap(), subject: None };
            let digest = *blake3::hash(operation.as_bytes()).as_bytes();
            let (key, operation) = (Key::try_new("key-1").unwrap(), Operation::try_new(operation).unwrap());
            Request::new(scope, key, operation, Fingerprint { version: 1, digest }, policy)
        };
        let input = || Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
        Self {
            plain: Arc::new(request("charge")),
            drivable: Arc::new(request("charge").with_input(input())),
            other: Arc::new(request(OTHER).with_input(input())),
        }
    }
}

/// The same policy with this lease.
pub(crate) fn leased(policy: &Policy, lease: Duration) -> Policy {
    let leased =
        Policy::try_new(lease, policy.retention(), policy.on_lapse(), policy.keep(), policy.retry()).unwrap();
    leased.try_with_payload_retention(policy.payload_retention()).unwrap()
}

/// What is agreed for a run: the record's promises, and what is missing from core.
#[derive(Clone, Debug)]
pub(crate) struct Laws {
    usual: Asked,
    /// The same under the longer lease.
    long: Asked,
    /// The guard that is taken away.
    pub(crate) missing: Option<Guard>,
}

impl Laws {
    /// The laws for one key under this policy, with nothing missing.
    pub(crate) fn new(on_lapse: OnLapse, attempts: u32, namespace: Namespace) -> Self {
        let schedule = Schedule::try_new(attempts, TICK, TICK, None).unwrap();
        let policy = Policy::try_new(LEASE, RETENTION, on_lapse, Keep::Deterministic, schedule).unwrap();
        Self::of(policy, namespace)
    }

    /// The same, with payloads that go before their records.
    pub(crate) fn dropping_payloads(self) -> Self {
        let policy = self.policy().try_with_payload_retention(Some(PAYLOAD)).unwrap();
        Self { missing: self.missing, ..Self::of(policy, self.usual.plain.scope().namespace) }
    }

    fn of(policy: Policy, namespace: Namespace) -> Self {
        let (usual, long) = (Asked::of(policy, namespace), Asked::of(leased(&policy, LONG), namespace));
        Self { usual, long, missing: None }
    }

    /// The same without this guard.
    pub(crate) fn without(mut self, guard: Guard) -> Self {
        self.missing = Some(guard);
        self
    }

    /// What lapsed leases mean here.
    pub(crate) fn policy(&self) -> &Policy {
        self.usual.plain.policy()
    }

    /// Lets core decide.
    pub(crate) fn decide(&self, order: &Order, judged: Option<&Arc<Record>>, now: Timestamp) -> Decision {
        let Some(guard) = self.missing else { return self.ask(order, judged, judged, now) };
        let order = guard.doctor_order(order, judged.map(Arc::as_ref));
        let told = judged.map(|record| guard.doctor_record(&order, record, now));
        self.ask(&order, judged, told.as_ref(), now)
    }

    /// What an order is told once its write is durable.
    pub(crate) fn answer(&self, order: &Order, written: Arc<Record>) -> Reply {
        self.with_command(order, Answering(written))
    }

    /// Stamps a write, as a store does inside the write.
    pub(crate) fn seal(&self, order: &Order, draft: &Draft, now: Timestamp, floor: Fence) -> Arc<Record> {
        let floor = if self.missing == Some(Guard::StoreKeepsTheFloor) { Fence(0) } else { floor };
        let (record, _) = draft.write.clone().seal(now, floor);
        Arc::new(match self.missing {
            None => record,
            Some(guard) => {
                guard.doctor_written(order, draft.judged.as_deref(), draft.told.as_deref(), record)
            }
        })
    }

    fn ask(
        &self,
        order: &Order,
        judged: Option<&Arc<Record>>,
        told: Option<&Arc<Record>>,
        now: Timestamp,
    ) -> Decision {
        self.with_command(order, Deciding { judged, told, now })
    }

    fn with_command<U: Use>(&self, order: &Order, using: U) -> U::Result {
        let id = self.usual.plain.id();
        let holder = |token: u8| Holder { id, token: token_of(token) };
        match *order {
            Order::Claim { token, other, input, attempt, long } => {
                let asked = if long { &self.long } else { &self.usual };
                let request = Arc::clone(match (other, input) {
                    (true, _) => &asked.other,
                    (false, true) => &asked.drivable,
                    (false, false) => &asked.plain,
                });
                let attempt_id = attempt.map(|n| AttemptId::try_new(&n.to_string()).unwrap());
                using.with(&ClaimKey { request, token: token_of(token), attempt_id })
            }
            Order::Accept { other, dead, later } => {
                let request = Arc::clone(if other { &self.usual.other } else { &self.usual.drivable });
                let accept =
                    if dead { Accept::try_dead(request, "filed".into()) } else { Accept::try_new(request) };
                let pause = if later { PAUSE } else { Duration::ZERO };
                using.with(&accept.unwrap().due_after(pause))
            }
            Order::Take { token } => using.with(&Take { id, token: token_of(token) }),
            Order::Lapse => using.with(&Lapse { id }),
            Order::Extend { token } => using.with(&Extend { holder: holder(token) }),
            Order::Checkpoint { token, phase, data } => {
                let phase = Phase::try_new(&phase.to_string()).unwrap();
                let checkpoint = Checkpoint::try_new(phase, Bytes::copy_from_slice(&[data])).unwrap();
                using.with(&AddCheckpoint { holder: holder(token), checkpoint })
            }
            Order::Complete { token, body } => {
                using.with(&Complete { holder: holder(token), outcome: outcome(body) })
            }
            Order::Release { token } => {
                using.with(&Release { holder: holder(token), error: "refused".into() })
            }
            Order::Retry { token, effect, permanent } => using.with(&Retry {
                holder: holder(token),
                error: "failed".into(),
                pause: Duration::ZERO,
                effect: if effect { Effect::Possible } else { Effect::None },
                permanent,
            }),
            Order::MarkUnknown { token } => using.with(&MarkUnknown {
                holder: holder(token),
                why: Why::AnswerLost,
                detail: "cut off".into(),
            }),
            Order::Resolve { version, executed } => {
                let resolution =
                    executed.map_or(Resolution::NotExecuted, |body| Resolution::Completed(outcome(body)));
                let (actor, reason) = ("probe".into(), "asked the target".into());
                using.with(&Resolve { id, version, resolution, actor, reason, correlation_id: None })
            }
            Order::Revive { version } => {
                let (actor, reason) = ("op".into(), "fixed".into());
                using.with(&Revive { id, version, actor, reason, correlation_id: None })
            }
            Order::Discard { version } => {
                let (actor, reason) = ("op".into(), "not wanted".into());
                using.with(&Discard { id, version, actor, reason, correlation_id: None })
            }
            Order::ForceRelease { version } => {
                let (actor, reason) = ("op".into(), "stuck".into());
                using.with(&ForceRelease { id, version, actor, reason, correlation_id: None })
            }
            Order::Postpone { version } => using.with(&Postpone { id, version, pause: PAUSE }),
            Order::DropPayload => using.with(&DropPayload { id }),
        }
    }
}

/// Something to do with a command, whichever it is.
trait Use {
    type Result;
    fn with<C: Command<Answer: Into<Reply>>>(self, command: &C) -> Self::Result;
}

struct Deciding<'a> {
    judged: Option<&'a Arc<Record>>,
    told: Option<&'a Arc<Record>>,
    now: Timestamp,
}

impl Use for Deciding<'_> {
    type Result = Decision;

    fn with<C: Command<Answer: Into<Reply>>>(self, command: &C) -> Decision {
        match command.decide(self.told, self.now) {
            Verdict::Stay(answer) => Decision::Stay(answer.into()),
            Verdict::Write(write) => Decision::Write(Box::new(Draft {
                write: *write,
                judged: self.judged.cloned(),
                told: self.told.cloned(),
            })),
        }
    }
}

struct Answering(Arc<Record>);

impl Use for Answering {
    type Result = Reply;

    fn with<C: Command<Answer: Into<Reply>>>(self, command: &C) -> Reply {
        command.answer(self.0).into()
    }
}

/// The token with this number.
pub(crate) fn token_of(n: u8) -> Token {
    Token::from_bytes([n; 16])
}

/// The outcome with this body.
pub(crate) fn outcome(body: u8) -> Outcome {
    Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::copy_from_slice(&[body])).unwrap()
}

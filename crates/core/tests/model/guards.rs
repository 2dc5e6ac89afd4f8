//! Every guard of core, and what it looks like when it is missing.
//!
//! A guard is taken away without touching core: core is told a record (or an order) for which the guard is already
//! satisfied, or what it has written is stripped of what the guard put there. Everything else stays core's own code.

use std::sync::Arc;
use std::time::Duration;

use semel_core::Invariant::{self, L1, L2, L3, L4, L5, L6, L7, L8, L9};
use semel_core::id::{Namespace, Scope};
use semel_core::outcome::Headers;
use semel_core::policy::{OnLapse, Policy};
use semel_core::record::{Parts, State, StateName, Why};
use semel_core::request::{Input, Request};
use semel_core::{Record, Timestamp};

use crate::orders::{LEASE, Order, PAUSE, is_other, outcome, token_of};

/// Which command a guard belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Any,
    Claim,
    Accept,
    Take,
    Lapse,
    Extend,
    Checkpoint,
    Complete,
    Release,
    Retry,
    MarkUnknown,
    Resolve,
    Revive,
    Discard,
    ForceRelease,
    Postpone,
    DropPayload,
    /// Not a command: the stamp, the store, the holder, the probe.
    Around,
}

impl Of {
    fn is(self, order: &Order) -> bool {
        let of = match order {
            Order::Claim { .. } => Self::Claim,
            Order::Accept { .. } => Self::Accept,
            Order::Take { .. } => Self::Take,
            Order::Lapse => Self::Lapse,
            Order::Extend { .. } => Self::Extend,
            Order::Checkpoint { .. } => Self::Checkpoint,
            Order::Complete { .. } => Self::Complete,
            Order::Release { .. } => Self::Release,
            Order::Retry { .. } => Self::Retry,
            Order::MarkUnknown { .. } => Self::MarkUnknown,
            Order::Resolve { .. } => Self::Resolve,
            Order::Revive { .. } => Self::Revive,
            Order::Discard { .. } => Self::Discard,
            Order::ForceRelease { .. } => Self::ForceRelease,
            Order::Postpone { .. } => Self::Postpone,
            Order::DropPayload => Self::DropPayload,
        };
        self == Self::Any || self == of
    }
}

/// How a guard is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A record in the first state is shown in the second.
    State(StateName, StateName),
    /// An expired record is shown as one that is kept for ever.
    NeverExpired,
    /// A settled record is shown as expired.
    Expired,
    /// Nothing is to wait for its time.
    AtOnce,
    /// Whatever is asked for is the same.
    SameRequest,
    /// Whoever asks has the right token.
    RightToken,
    /// Whatever was judged is the newest version.
    RightVersion,
    /// No lease lasts.
    Lapsed,
    /// Pending work is due.
    Due,
    /// The policy is the other one.
    OtherPolicy,
    /// No try was made yet.
    NoTries,
    /// There is an input.
    HasInput,
    /// It is a job's guard.
    IsJob,
    /// It was accepted.
    Accepted,
    /// It was not accepted.
    NotAccepted,
    /// There are no checkpoints.
    NoCheckpoints,
    /// The attempt had no effect.
    NoEffect,
    /// The version written is under the fence of the one before.
    KeepsFence,
    /// The version written has the number of the one before.
    KeepsVersion,
    /// The token written is the one before.
    KeepsToken,
    /// The taint written is the one before.
    KeepsTaint,
    /// The tries written are those before.
    KeepsTries,
    /// The mark of accepted work written is the one before.
    KeepsAccepted,
    /// The request written is the one before.
    KeepsRequest,
    /// No lease or due time is written.
    NoWake,
    /// The due time of work that is asked for later is written, whatever was there.
    PutsOff,
    /// A retention that begins with this write is written.
    RestsAnew,
    /// Something outside of core does it; see where the name of the guard is asked for.
    Elsewhere,
}

/// A guard: what it says, whose it is, how it is taken away, and which invariant is then broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) says: &'static str,
    pub(crate) of: Of,
    pub(crate) lie: Lie,
    pub(crate) breaks: Invariant,
}

const fn guard(of: Of, says: &'static str, lie: Lie, breaks: Invariant) -> Guard {
    Guard { says, of, lie, breaks }
}

/// Names of the guards that are not a command's.
impl Guard {
    #![expect(non_upper_case_globals, reason = "they read as the variants they nearly are")]
    pub(crate) const StoreKeepsTheFloor: Self =
        guard(Of::Around, "the fence rises above the floor of what was removed", Lie::Elsewhere, L2);
    pub(crate) const StoreCompares: Self =
        guard(Of::Around, "a store replaces the expected version only", Lie::Elsewhere, L6);
    pub(crate) const StoreRemovesWhatItJudged: Self =
        guard(Of::Around, "a store removes the expected version only", Lie::Elsewhere, L9);
    pub(crate) const StoreMindsDeadlines: Self =
        guard(Of::Around, "a store refuses a write after its deadline", Lie::Elsewhere, L4);
    pub(crate) const StoreShowsWhatIsDurable: Self =
        guard(Of::Around, "a store shows a version when it is durable", Lie::Elsewhere, L4);
    pub(crate) const DecisionEndsWithItsRecord: Self = guard(
        Of::Around,
        "what was decided on a record is not written once it has expired",
        Lie::Elsewhere,
        L2,
    );
    pub(crate) const HolderMindsItsLease: Self =
        guard(Of::Around, "a holder past its lease starts nothing", Lie::Elsewhere, L7);
    pub(crate) const HolderCountsFromBefore: Self =
        guard(Of::Around, "a holder counts its lease from before it sent the claim", Lie::Elsewhere, L1);
    pub(crate) const HolderLeavesAMargin: Self =
        guard(Of::Around, "a holder's clock may run slow within the margin only", Lie::Elsewhere, L1);
    pub(crate) const ProbeCancels: Self =
        guard(Of::Around, "a probe says 'not executed' after the target has cancelled", Lie::Elsewhere, L7);
}

use Lie::{
    Accepted, AtOnce, Due, Expired, HasInput, IsJob, KeepsAccepted, KeepsFence, KeepsRequest, KeepsTaint,
    KeepsToken, KeepsTries, KeepsVersion, Lapsed, NeverExpired, NoCheckpoints, NoEffect, NoTries, NoWake,
    NotAccepted, OtherPolicy, PutsOff, RestsAnew, RightToken, RightVersion, SameRequest,
};
use StateName::{Completed, Dead, Pending, Released, Running, Unknown};

/// All of them, by command.
#[rustfmt::skip]
pub(crate) const GUARDS: &[Guard] = &[
    // Before any state is looked at.
    guard(Of::Claim, "an expired record is as good as absent", NeverExpired, L8),
    guard(Of::Accept, "an expired record is as good as absent", NeverExpired, L8),
    guard(Of::Any, "a record that has not expired is not absent", Expired, L3),
    guard(Of::Claim, "another fingerprint is a mismatch", SameRequest, L5),
    guard(Of::Accept, "another fingerprint is a mismatch", SameRequest, L5),
    // Claim.
    guard(Of::Claim, "a live lease is waited for", Lapsed, L1),
    guard(Of::Claim, "only the same attempt is the same claim", RightToken, L1),
    guard(Of::Claim, "at most once, a lapse is unknown", OtherPolicy, L7),
    guard(Of::Claim, "pending work is a worker's", Lie::State(Pending, Released), L5),
    guard(Of::Claim, "completed work is replayed", Lie::State(Completed, Released), L3),
    guard(Of::Claim, "unknown work does not run", Lie::State(Unknown, Released), L7),
    guard(Of::Claim, "dead work does not run", Lie::State(Dead, Released), L5),
    guard(Of::Claim, "a claim raises the fence", KeepsFence, L2),
    guard(Of::Claim, "a claim changes the token", KeepsToken, L1),
    guard(Of::Claim, "a claim has a lease", NoWake, L1),
    guard(Of::Claim, "a run of a job has the lease that it asks for", KeepsRequest, L1),
    guard(Of::Claim, "elsewhere the lease is the record's", IsJob, L1),
    guard(Of::Claim, "a takeover taints", KeepsTaint, L7),
    guard(Of::Claim, "a claim counts", KeepsTries, L9),
    // Accept.
    guard(Of::Accept, "what is accepted is marked so", KeepsAccepted, L9),
    guard(Of::Accept, "what is accepted can be driven", KeepsRequest, L9),
    guard(Of::Accept, "what is accepted is watched", NoWake, L9),
    guard(Of::Accept, "work taken in for later waits", AtOnce, L9),
    guard(Of::Accept, "what is there is not put off", PutsOff, L9),
    guard(Of::Accept, "work that is taken in has all its tries", KeepsTries, L9),
    guard(Of::Accept, "completed work is not taken in again", Lie::State(Completed, Released), L3),
    guard(Of::Accept, "unknown work is not taken in again", Lie::State(Unknown, Released), L7),
    guard(Of::Accept, "dead work is not taken in again", Lie::State(Dead, Released), L5),
    // Take.
    guard(Of::Take, "work that is not due waits", Due, L5),
    guard(Of::Take, "a live lease is waited for", Lapsed, L1),
    guard(Of::Take, "only the own claim is the same claim", RightToken, L1),
    guard(Of::Take, "at most once, a lapse is unknown", OtherPolicy, L7),
    guard(Of::Take, "tries are spent some time", NoTries, L9),
    guard(Of::Take, "work without input is the client's", HasInput, L5),
    guard(Of::Take, "completed work does not run", Lie::State(Completed, Pending), L3),
    guard(Of::Take, "unknown work does not run", Lie::State(Unknown, Pending), L7),
    guard(Of::Take, "released work waits for its client", Lie::State(Released, Pending), L5),
    guard(Of::Take, "dead work does not run", Lie::State(Dead, Pending), L5),
    guard(Of::Take, "a claim raises the fence", KeepsFence, L2),
    guard(Of::Take, "a claim changes the token", KeepsToken, L1),
    guard(Of::Take, "a claim has a lease", NoWake, L9),
    guard(Of::Take, "a takeover taints", KeepsTaint, L7),
    guard(Of::Take, "a claim counts", KeepsTries, L9),
    // Lapse.
    guard(Of::Lapse, "a live lease is waited for", Lapsed, L1),
    guard(Of::Lapse, "at most once, a lapse is unknown", OtherPolicy, L7),
    guard(Of::Lapse, "completed work has no lease", Lie::State(Completed, Running), L3),
    guard(Of::Lapse, "pending work has no lease", Lie::State(Pending, Running), L5),
    // Extend.
    guard(Of::Extend, "a stale token is fenced", RightToken, L6),
    guard(Of::Extend, "a completed record has no lease", Lie::State(Completed, Running), L3),
    guard(Of::Extend, "a dead record has no lease", Lie::State(Dead, Running), L6),
    guard(Of::Extend, "a released record has no lease", Lie::State(Released, Running), L6),
    guard(Of::Extend, "a pending record has no lease", Lie::State(Pending, Running), L6),
    guard(Of::Extend, "an extended claim has a lease", NoWake, L1),
    // Checkpoint.
    guard(Of::Checkpoint, "a stale token is fenced", RightToken, L6),
    guard(Of::Checkpoint, "a completed record has no steps", Lie::State(Completed, Running), L3),
    guard(Of::Checkpoint, "an unknown record has no steps", Lie::State(Unknown, Running), L6),
    guard(Of::Checkpoint, "a dead record has no steps", Lie::State(Dead, Running), L6),
    guard(Of::Checkpoint, "a step is done once", NoCheckpoints, L5),
    // Complete.
    guard(Of::Complete, "a stale token is fenced", RightToken, L6),
    guard(Of::Complete, "an outcome is final", Lie::State(Completed, Running), L3),
    guard(Of::Complete, "what is done gives its payload up some time", NoWake, L3),
    // Release.
    guard(Of::Release, "a stale token is fenced", RightToken, L6),
    guard(Of::Release, "a completed record is not given back", Lie::State(Completed, Running), L3),
    guard(Of::Release, "a dead record is not given back", Lie::State(Dead, Running), L6),
    guard(Of::Release, "a resolved record is not given back", Lie::State(Released, Running), L6),
    guard(Of::Release, "accepted work goes back into the queue", NotAccepted, L9),
    guard(Of::Release, "a spent token answers for nothing", KeepsToken, L6),
    // Retry.
    guard(Of::Retry, "a stale token is fenced", RightToken, L6),
    guard(Of::Retry, "a completed record is not retried", Lie::State(Completed, Running), L3),
    guard(Of::Retry, "an unknown record is not retried", Lie::State(Unknown, Running), L6),
    guard(Of::Retry, "a dead record is not retried", Lie::State(Dead, Running), L6),
    guard(Of::Retry, "only accepted work is queued", Accepted, L9),
    guard(Of::Retry, "at most once, a possible effect is not retried", NoEffect, L7),
    guard(Of::Retry, "tries are spent some time", NoTries, L9),
    guard(Of::Retry, "a possible effect taints", KeepsTaint, L7),
    guard(Of::Retry, "a spent token answers for nothing", KeepsToken, L6),
    // Mark unknown.
    guard(Of::MarkUnknown, "a stale token is fenced", RightToken, L6),
    guard(Of::MarkUnknown, "a completed record is known", Lie::State(Completed, Running), L3),
    guard(Of::MarkUnknown, "a dead record is known", Lie::State(Dead, Running), L6),
    guard(Of::MarkUnknown, "a resolved record is known", Lie::State(Released, Running), L6),
    // Resolve.
    guard(Of::Resolve, "a stale version changes nothing", RightVersion, L6),
    guard(Of::Resolve, "a running claim is not resolved", Lie::State(Running, Unknown), L1),
    guard(Of::Resolve, "a completed record is not resolved", Lie::State(Completed, Unknown), L3),
    guard(Of::Resolve, "a pending record is not resolved", Lie::State(Pending, Unknown), L5),
    guard(Of::Resolve, "accepted work goes back into the queue", NotAccepted, L9),
    guard(Of::Resolve, "work that was not done has all its tries", KeepsTries, L9),
    // Revive.
    guard(Of::Revive, "a stale version changes nothing", RightVersion, L6),
    guard(Of::Revive, "an unknown record is resolved first", Lie::State(Unknown, Dead), L7),
    guard(Of::Revive, "a running claim is not revived", Lie::State(Running, Dead), L1),
    guard(Of::Revive, "a completed record is not revived", Lie::State(Completed, Dead), L3),
    guard(Of::Revive, "a released record is not revived", Lie::State(Released, Dead), L5),
    guard(Of::Revive, "a spent token answers for nothing", KeepsToken, L6),
    guard(Of::Revive, "revived work has all its tries", KeepsTries, L9),
    guard(Of::Revive, "revived work is due", NoWake, L9),
    // Discard.
    guard(Of::Discard, "a stale version changes nothing", RightVersion, L6),
    guard(Of::Discard, "a running claim is not discarded", Lie::State(Running, Unknown), L1),
    guard(Of::Discard, "a completed record is not discarded", Lie::State(Completed, Unknown), L3),
    guard(Of::Discard, "a released record is not discarded", Lie::State(Released, Unknown), L5),
    guard(Of::Discard, "a spent token answers for nothing", KeepsToken, L6),
    // Force release.
    guard(Of::ForceRelease, "a stale version changes nothing", RightVersion, L6),
    guard(Of::ForceRelease, "only a job's guard is released by force", IsJob, L7),
    guard(Of::ForceRelease, "accepted work is not released by force", NotAccepted, L9),
    guard(Of::ForceRelease, "a completed record is not released", Lie::State(Completed, Running), L3),
    guard(Of::ForceRelease, "an unknown record is not released", Lie::State(Unknown, Running), L7),
    guard(Of::ForceRelease, "a spent token answers for nothing", KeepsToken, L6),
    // Postpone.
    guard(Of::Postpone, "a stale version changes nothing", RightVersion, L6),
    guard(Of::Postpone, "a running claim is not put off", Lie::State(Running, Pending), L1),
    guard(Of::Postpone, "a completed record is not put off", Lie::State(Completed, Pending), L3),
    guard(Of::Postpone, "work that is put off is due some time", NoWake, L9),
    // Drop payload.
    guard(Of::DropPayload, "an expired record is as good as absent", NeverExpired, L8),
    guard(Of::DropPayload, "a payload is kept for its time", Due, L3),
    guard(Of::DropPayload, "a record is kept for as long as it would have been", RestsAnew, L3),
    guard(Of::DropPayload, "pending work keeps its payload", Lie::State(Pending, Completed), L9),
    guard(Of::DropPayload, "running work keeps its payload", Lie::State(Running, Completed), L9),
    guard(Of::DropPayload, "unknown work keeps its payload", Lie::State(Unknown, Completed), L9),
    guard(Of::DropPayload, "dead work keeps its payload", Lie::State(Dead, Completed), L9),
    // The stamp, the store, the holder, the probe.
    guard(Of::Any, "every version has a number of its own", KeepsVersion, L2),
    Guard::StoreKeepsTheFloor,
    Guard::StoreCompares,
    Guard::StoreRemovesWhatItJudged,
    Guard::StoreMindsDeadlines,
    Guard::StoreShowsWhatIsDurable,
    Guard::DecisionEndsWithItsRecord,
    Guard::HolderMindsItsLease,
    Guard::HolderCountsFromBefore,
    Guard::HolderLeavesAMargin,
    Guard::ProbeCancels,
];

impl Guard {
    /// The order that core is given.
    pub(crate) fn doctor_order(self, order: &Order, record: Option<&Record>) -> Order {
        let mut order = order.clone();
        if !self.of.is(&order) {
            return order;
        }
        match (self.lie, &mut order) {
            (SameRequest, Order::Claim { other, .. } | Order::Accept { other, .. }) => {
                *other = record.is_some_and(is_other);
            }
            (AtOnce, Order::Accept { later, .. }) => *later = false,
            (NoEffect, Order::Retry { effect, .. }) => *effect = false,
            (
                RightVersion,
                Order::Resolve { version, .. }
                | Order::Revive { version }
                | Order::Discard { version }
                | Order::ForceRelease { version }
                | Order::Postpone { version },
            ) => *version = record.map_or(*version, Record::version),
            _ => {}
        }
        order
    }

    /// The record that core is shown.
    pub(crate) fn doctor_record(self, order: &Order, record: &Arc<Record>, now: Timestamp) -> Arc<Record> {
        if !self.of.is(order) {
            return Arc::clone(record);
        }
        let mut parts = record.parts().clone();
        let running = matches!(parts.state, State::Running { .. });
        match self.lie {
            Lie::State(from, to) if parts.state.name() == from => {
                pretend(&mut parts, to, now);
                if matches!(order, Order::Lapse | Order::DropPayload) {
                    parts.times.wake = Some(Timestamp::ZERO);
                }
            }
            NeverExpired if parts.times.expires.is_some() => parts.times.expires = Some(Timestamp::MAX),
            Expired if parts.times.expires.is_some() => parts.times.expires = Some(Timestamp::ZERO),
            RightToken => parts.token = order.holder().or(order.claimant()).map(token_of),
            Lapsed if running => parts.times.wake = Some(Timestamp::ZERO),
            Due if !running && parts.times.wake.is_some() => parts.times.wake = Some(Timestamp::ZERO),
            OtherPolicy => parts.request = Arc::new(with_other_policy(&parts.request)),
            NoTries => parts.uncounted = parts.attempt,
            HasInput if parts.request.input().is_none() => {
                let input = Input::try_new("POST", "/", Headers::default(), bytes::Bytes::new()).unwrap();
                parts.request = Arc::new(Request::clone(&parts.request).with_input(input));
            }
            IsJob => parts.request = Arc::new(in_namespace(&parts.request, Namespace::Job)),
            Accepted => parts.accepted = true,
            NotAccepted if !matches!(parts.state, State::Pending { .. }) => parts.accepted = false,
            NoCheckpoints => parts.checkpoints = Arc::default(),
            _ => return Arc::clone(record),
        }
        // A lie that makes no record is not told.
        Record::from_parts(parts).map_or_else(|_| Arc::clone(record), Arc::new)
    }

    /// What is written, without what the guard had put there, and without the lies that core was told.
    pub(crate) fn doctor_written(
        self,
        order: &Order,
        before: Option<&Record>,
        told: Option<&Record>,
        after: Record,
    ) -> Record {
        let (Some(before), Some(told)) = (before, told) else { return after };
        if !self.of.is(order) {
            return after;
        }
        let mut parts = after.parts().clone();
        let (truth, lie) = (before.parts(), told.parts());
        restore(&mut parts.token, &truth.token, &lie.token);
        restore(&mut parts.tainted, &truth.tainted, &lie.tainted);
        restore(&mut parts.uncounted, &truth.uncounted, &lie.uncounted);
        restore(&mut parts.request, &truth.request, &lie.request);
        if self.lie == IsJob && parts.request.scope() == lie.request.scope() {
            // Only what was decided because of the lie stays, not the lie.
            parts.request = Arc::new(in_namespace(&parts.request, truth.request.scope().namespace));
        }
        restore(&mut parts.checkpoints, &truth.checkpoints, &lie.checkpoints);
        match self.lie {
            KeepsFence if parts.version.fence > truth.version.fence => parts.version = truth.version.next(),
            KeepsVersion => parts.version = truth.version,
            KeepsToken => parts.token = truth.token,
            KeepsTaint => parts.tainted = truth.tainted,
            KeepsTries => {
                parts.attempt = truth.attempt;
                parts.uncounted = truth.uncounted;
            }
            KeepsAccepted if !matches!(parts.state, State::Pending { .. }) => parts.accepted = truth.accepted,
            KeepsRequest => parts.request = Arc::clone(&truth.request),
            PutsOff if matches!(order, Order::Accept { later: true, .. }) => {
                parts.times.wake = Some(parts.times.written.plus(PAUSE));
            }
            RestsAnew => {
                let (written, retention) = (parts.times.written, parts.request.policy().retention());
                (parts.times.settled, parts.times.expires) = (Some(written), Some(written.plus(retention)));
            }
            NoWake if matches!(parts.state, State::Running { .. }) => parts.times.wake = None,
            NoWake if parts.times.wake.is_some() => parts.times.wake = Some(Timestamp::MAX),
            _ => {}
        }
        let mut honest = parts.clone();
        restore(&mut honest.accepted, &truth.accepted, &lie.accepted);
        Record::from_parts(honest).or_else(|_| Record::from_parts(parts)).unwrap_or(after)
    }
}

/// Puts the truth back where a lie went through.
fn restore<T: Clone + PartialEq>(written: &mut T, truth: &T, lie: &T) {
    if written == lie && truth != lie {
        written.clone_from(truth);
    }
}

/// Shows a record in another state, with whatever such a record has.
fn pretend(parts: &mut Parts, to: StateName, now: Timestamp) {
    parts.times.wake = None;
    parts.times.settled = None;
    parts.times.expires = None;
    parts.state = match to {
        StateName::Pending => {
            parts.times.wake = Some(Timestamp::ZERO);
            parts.accepted = true;
            State::Pending { last_error: None }
        }
        StateName::Running => {
            parts.times.wake = Some(now.plus(LEASE));
            parts.token = parts.token.or(Some(token_of(0)));
            State::Running { attempt_id: None }
        }
        StateName::Released => {
            parts.times.settled = Some(now);
            parts.times.expires = Some(now.plus(Duration::from_secs(1)));
            parts.accepted = false;
            State::Released { last_error: "so it is said".into() }
        }
        StateName::Completed => {
            parts.times.settled = Some(now);
            parts.times.expires = Some(now.plus(Duration::from_secs(1)));
            State::Completed { outcome: outcome(0) }
        }
        StateName::Unknown => State::Unknown { why: Why::AnswerLost, detail: "so it is said".into() },
        StateName::Dead => State::Dead { last_error: "so it is said".into() },
    };
}

fn with_other_policy(request: &Request) -> Request {
    let policy = request.policy();
    let on_lapse = match policy.on_lapse() {
        OnLapse::AtMostOnce => OnLapse::Resume,
        OnLapse::Resume => OnLapse::AtMostOnce,
    };
    let other = Policy::try_new(policy.lease(), policy.retention(), on_lapse, policy.keep(), policy.retry());
    let other = other.unwrap().try_with_payload_retention(policy.payload_retention());
    rebuilt(request, request.scope().clone(), other.unwrap())
}

fn in_namespace(request: &Request, namespace: Namespace) -> Request {
    rebuilt(request, Scope { namespace, ..request.scope().clone() }, *request.policy())
}

fn rebuilt(request: &Request, scope: Scope, policy: Policy) -> Request {
    let (key, operation) = (request.key().clone(), request.operation().clone());
    let rebuilt = Request::new(scope, key, operation, *request.fingerprint(), policy);
    match request.input() {
        Some(input) => rebuilt.with_input(input.clone()),
        None => rebuilt,
    }
}

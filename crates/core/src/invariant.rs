//! The registry of invariants. Model, conformance suite, crash tests, debug assertions and metrics name these ids.

use std::fmt;

use crate::id::Namespace;
use crate::record::{Record, State};

/// What must hold whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is documented by `statement`, so that the text exists once")]
pub enum Invariant {
    L1,
    L2,
    L3,
    L4,
    L5,
    L6,
    L7,
    L8,
    L9,
    L10,
    L11,
    L12,
    L13,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L6,
        Self::L7,
        Self::L8,
        Self::L9,
        Self::L10,
        Self::L11,
        Self::L12,
        Self::L13,
    ];

    /// What it says.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::L1 => "at most one token is valid for a record at any time",
            Self::L2 => "fences of a record id only rise, over its whole life and every reuse",
            Self::L3 => {
                "a completed record does not change until it expires, but its body may be dropped earlier"
            }
            Self::L4 => "a claim is durable before the work starts, an outcome before anyone is told of it",
            Self::L5 => "a mismatch, a busy answer or a replay changes no state",
            Self::L6 => "a stale token or version can change nothing",
            Self::L7 => "under at-most-once an operation starts at most once per key within retention",
            Self::L8 => "an expired record is as good as absent; an unfinished one does not expire",
            Self::L9 => "what was accepted is never lost",
            Self::L10 => "a replay equals the stored outcome byte for byte",
            Self::L11 => "work that has started is not cancelled because its client went away",
            Self::L12 => "a storage failure is never read as absent: without an answer nothing runs",
            Self::L13 => "stored bytes that cannot be decoded are an error, never absent and never a panic",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.statement())
    }
}

/// Says which invariant the step from one version of a record to the next breaks, if any. `before` is the version
/// that was replaced, `expired` whether it had expired by then.
pub fn judge_step(before: Option<&Record>, expired: bool, after: &Record) -> Result<(), Invariant> {
    let unfinished = matches!(
        after.state(),
        State::Pending { .. } | State::Running { .. } | State::Unknown { .. } | State::Dead { .. }
    );
    if unfinished && after.times().expires.is_some() {
        return Err(Invariant::L8);
    }
    let Some(before) = before else { return Ok(()) };
    if after.version() <= before.version() {
        return Err(Invariant::L2);
    }
    if expired {
        return if after.version().fence > before.version().fence { Ok(()) } else { Err(Invariant::L2) };
    }
    if let State::Completed { outcome } = before.state() {
        let same = matches!(after.state(), State::Completed { outcome: kept } if kept.same_but_for_a_dropped_body(outcome));
        return if same && rests_as_it_was(before, after) { Ok(()) } else { Err(Invariant::L3) };
    }
    if before.is_drivable() && !after.is_drivable() {
        return Err(Invariant::L9);
    }
    if before.accepted() && !after.accepted() {
        return Err(Invariant::L9);
    }
    let new_token = after.token().is_some() && after.token() != before.token();
    if new_token && after.version().fence == before.version().fence {
        return Err(Invariant::L1);
    }
    // How long a token is valid is settled when it is given.
    if before.request().policy().lease() != after.request().policy().lease() {
        let is_new_run = after.request().scope().namespace == Namespace::Job
            && matches!(after.state(), State::Running { .. })
            && after.version().fence > before.version().fence;
        return if is_new_run { Ok(()) } else { Err(Invariant::L1) };
    }
    Ok(())
}

/// Whether a completed record is what it was, but for its input: that may have been dropped, and nothing else.
fn rests_as_it_was(before: &Record, after: &Record) -> bool {
    let (was, is) = (before.parts(), after.parts());
    let request = is.request == was.request || *is.request == was.request.without_input();
    let times = is.times.created == was.times.created
        && is.times.settled == was.times.settled
        && is.times.expires == was.times.expires;
    let rest = is.accepted == was.accepted
        && is.taken_in_by == was.taken_in_by
        && is.token == was.token
        && is.last == was.last;
    request && times && rest
}

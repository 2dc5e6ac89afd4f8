//! What one try of a delivery came to, for metrics, the log, the audit log, and the circuit of its target.

use std::sync::Arc;
use std::time::Duration;

use semel_core::record::Text;

use crate::config::DeliveryTarget;
use crate::engine::reply::{Lost, Reply};

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TryResult {
    /// The target took the event.
    Delivered,
    /// The target answered, did not take it, and is asked again.
    Refused,
    /// No other try can help.
    Permanent,
    /// There was no answer in time.
    TimedOut,
    /// Nothing could be sent.
    Unreachable,
    /// The connection was cut before there was an answer.
    Cut,
    /// There is no signature, and nothing is sent without.
    Unsigned,
    /// This process left the try: it goes down.
    Abandoned,
}

impl TryResult {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Refused,
        Self::Permanent,
        Self::TimedOut,
        Self::Unreachable,
        Self::Cut,
        Self::Unsigned,
        Self::Abandoned,
    ];

    /// The name in metrics, in the log and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Permanent => "permanent",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Cut => "cut",
            Self::Unsigned => "unsigned",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What was heard of a target, before it is known whether it can be stored.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Heard {
    pub(super) result: TryResult,
    pub(super) status: Option<u16>,
    pub(super) response: Option<Text>,
}

impl Heard {
    /// There was no answer, for this reason.
    pub(super) const fn nothing(result: TryResult) -> Self {
        Self { result, status: None, response: None }
    }
}

/// One try of a delivery.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Where to.
    pub target: Arc<DeliveryTarget>,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub result: TryResult,
    /// The target's status, if it answered.
    pub status: Option<u16>,
    /// From its beginning to its end.
    pub latency: Duration,
    /// The beginning of what the target said, if it said anything.
    pub response: Option<Text>,
}

impl Tried {
    /// The try that gave `reply`, if nothing else was heard.
    pub(super) fn of(
        target: &Arc<DeliveryTarget>,
        attempt: u32,
        latency: Duration,
        reply: &Reply,
        heard: Option<Heard>,
    ) -> Self {
        let heard = heard.unwrap_or_else(|| Heard::nothing(unheard(reply)));
        let Heard { result, status, response } = heard;
        Self { target: Arc::clone(target), attempt, result, status, latency, response }
    }

    /// Whether the target as such failed (`Some(false)`) or works (`Some(true)`): a target that refuses one event works.
    pub(super) fn result_of_target(&self) -> Option<bool> {
        match self.result {
            TryResult::Delivered | TryResult::Permanent => Some(true),
            TryResult::Refused => Some(!self.status.is_some_and(|status| status == 429 || status >= 500)),
            TryResult::TimedOut | TryResult::Unreachable | TryResult::Cut => Some(false),
            TryResult::Unsigned | TryResult::Abandoned => None,
        }
    }
}

/// What a try came to of which nothing was heard: its time was up, or it was left.
fn unheard(reply: &Reply) -> TryResult {
    match reply {
        Reply::Answered { .. } => TryResult::Delivered,
        Reply::NotExecuted { permanent: true, .. } => TryResult::Permanent,
        Reply::NotExecuted { permanent: false, .. } => TryResult::Unreachable,
        Reply::Lost { how: Lost::TimedOut, .. } => TryResult::TimedOut,
        Reply::Lost { how: Lost::Answer, .. } => TryResult::Cut,
        Reply::Lost { how: Lost::Inconclusive, .. } => TryResult::Refused,
        Reply::Lost { how: Lost::Abandoned, .. } => TryResult::Abandoned,
    }
}

//! What an attempt came to, before the ledger is told.

use std::time::Duration;

use bytes::Bytes;
use semel_core::outcome::{Class, Headers};

/// How an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The connection was cut, or the answer proves nothing.
    Answer,
    /// None came in time.
    TimedOut,
    /// The work left by another way.
    Abandoned,
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The target answered for good.
    Answered {
        /// Whether it was done or refused.
        class: Class,
        /// The target's status.
        status: u16,
        /// The headers that are kept.
        headers: Headers,
        /// The body; `None` when it is larger than what is kept.
        body: Option<Bytes>,
    },
    /// It is known that nothing happened.
    NotExecuted {
        /// Why, for operators.
        detail: String,
        /// When the target would be asked again.
        retry_after: Option<Duration>,
    },
    /// It may have happened.
    Lost {
        /// How.
        how: Lost,
        /// The circumstances, for operators.
        detail: String,
        /// When the target would be asked again.
        retry_after: Option<Duration>,
    },
}

impl Reply {
    /// After an attempt that may have had an effect, a refusal does not prove that nothing happened.
    #[must_use]
    pub(super) fn judged_after(self, tainted: bool) -> Self {
        match self {
            Self::Answered { class: Class::Rejection, status, .. } if tainted => Self::Lost {
                how: Lost::Answer,
                detail: format!(
                    "the target answered {status}, but an earlier attempt may have had an effect"
                ),
                retry_after: None,
            },
            // Nor does it help that this attempt did nothing: what the earlier one did is still open.
            other => other,
        }
    }
}

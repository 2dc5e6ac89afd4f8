//! What an attempt came to, before the ledger is told; and what a target's status means, by the table of
//! `docs/guide/execute.md`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use semel_core::outcome::{Class, Headers};

/// How it came that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The connection was cut before the answer was there.
    Answer,
    /// The answer proves nothing.
    Inconclusive,
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
        /// The body.
        body: Said,
    },
    /// It is known that nothing happened.
    NotExecuted {
        /// Why, for operators.
        detail: String,
        /// When the target would be asked again.
        retry_after: Option<Duration>,
        /// Whether no other try can help until somebody changes something.
        permanent: bool,
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

/// The body of an answer for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Small enough to be kept.
    Kept(Bytes),
    /// Too large to be kept: it is for whoever asked, and for nobody after.
    Passed(Bytes),
    /// Too large even for that.
    Gone,
}

/// What a status means, before any body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An answer for good: its body counts.
    Final(Class),
    /// Nothing was done.
    NotExecuted,
    /// It proves nothing.
    Open,
}

impl Meaning {
    /// What `status` means; `not_executed` are those by which this target says that nothing was done.
    pub(super) fn of(status: StatusCode, not_executed: &[StatusCode]) -> Self {
        if not_executed.contains(&status) {
            return Self::NotExecuted;
        }
        match status.as_u16() {
            200..=299 => Self::Final(Class::Success),
            401 | 407 | 425 | 429 => Self::NotExecuted,
            408 | 409 | 423 => Self::Open,
            400..=499 => Self::Final(Class::Rejection),
            // Redirects that nobody follows, and failures that prove nothing.
            _ => Self::Open,
        }
    }
}

impl Reply {
    /// What an answer with this status and no part of its body comes to, unless it is one for good.
    pub(super) fn of_status(
        status: StatusCode,
        not_executed: &[StatusCode],
        retry_after: Option<Duration>,
    ) -> Result<Class, Self> {
        let detail = || format!("the target answered {}", status.as_u16());
        match Meaning::of(status, not_executed) {
            Meaning::Final(class) => Ok(class),
            Meaning::NotExecuted => {
                Err(Self::NotExecuted { detail: detail(), retry_after, permanent: false })
            }
            Meaning::Open => Err(Self::Lost { how: Lost::Inconclusive, detail: detail(), retry_after }),
        }
    }

    /// No byte of the request has reached the transport.
    pub(super) fn not_sent(detail: impl Into<String>) -> Self {
        Self::NotExecuted { detail: detail.into(), retry_after: None, permanent: false }
    }

    /// It may have happened, and there is no answer.
    pub(super) fn lost(how: Lost, detail: impl Into<String>) -> Self {
        Self::Lost { how, detail: detail.into(), retry_after: None }
    }

    /// After an attempt that may have had an effect, a refusal does not prove that nothing happened.
    #[must_use]
    pub(super) fn judged_after(self, tainted: bool) -> Self {
        match self {
            Self::Answered { class: Class::Rejection, status, .. } if tainted => Self::lost(
                Lost::Inconclusive,
                format!("the target answered {status}, but an earlier attempt may have had an effect"),
            ),
            // Nor does it help that this attempt did nothing: what the earlier one did is still open.
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, not_executed: &[u16], tainted: bool) -> &'static str {
        let code = |status| StatusCode::from_u16(status).unwrap();
        let listed: Vec<_> = not_executed.iter().copied().map(code).collect();
        let reply = match Reply::of_status(code(status), &listed, None) {
            Ok(class) => Reply::Answered { class, status, headers: Headers::default(), body: Said::Gone },
            Err(reply) => reply,
        };
        match reply.judged_after(tainted) {
            Reply::Answered { class: Class::Success, .. } => "success",
            Reply::Answered { .. } => "rejection",
            Reply::NotExecuted { .. } => "not executed",
            Reply::Lost { .. } => "open",
        }
    }

    #[test]
    fn every_status_is_read_as_the_contract_says_on_first_and_later_attempts() {
        for status in 100..=599 {
            let first = match status {
                200..=299 => "success",
                401 | 407 | 425 | 429 => "not executed",
                408 | 409 | 423 => "open",
                400..=499 => "rejection",
                _ => "open",
            };
            assert_eq!(said(status, &[], false), first, "{status} on a first attempt");
            let later = if first == "rejection" { "open" } else { first };
            assert_eq!(said(status, &[], true), later, "{status} after one that may have had an effect");
        }
    }

    #[test]
    fn a_503_proves_nothing_unless_the_operation_says_so() {
        assert_eq!(said(503, &[], false), "open");
        assert_eq!(said(503, &[503], false), "not executed");
        assert_eq!(said(503, &[503], true), "not executed");
        assert_eq!(said(502, &[503], false), "open");
        assert_eq!(said(404, &[404], false), "not executed", "the operation's word goes before the table");
    }
}

//! The labels of metrics: closed sets, so that no input can make a new series.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The value of the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

closed_set! {
    /// Through which door a request came.
    Door {
        /// `POST /v1/idempotency/execute`.
        Execute "execute",
        /// `GET /v1/idempotency/executions/{key}`.
        Executions "executions",
        /// The Claims API.
        Claims "claims",
        /// `POST /v1/webhooks/{source}`.
        Webhooks "webhooks",
        /// Jobs.
        Jobs "jobs",
        /// The gateway.
        Gateway "gateway",
        /// Records, audit, metrics and documents.
        Admin "admin",
        /// Workers of accepted and lapsed records: no request, but they claim as well.
        Dispatcher "dispatcher",
        /// Anything else: health, and addresses that do not exist.
        Other "other",
    }
}

closed_set! {
    /// What a request was told whose key had been asked for before.
    Reason {
        /// The stored outcome.
        Replayed "replayed",
        /// Somebody is at it.
        InProgress "in_progress",
        /// The key stands for something else.
        Mismatch "mismatch",
        /// Nobody knows what it did.
        Unknown "unknown",
        /// Its tries are spent.
        Dead "dead",
        /// It was done, and the result is not kept.
        Gone "gone",
        /// An operator put it aside.
        Discarded "discarded",
        /// What it was told before: a named attempt asked again for the claim that it has.
        Repeated "repeated",
    }
}

closed_set! {
    /// What would have happened to a request, had its route's contract been enforced.
    ReportResult {
        /// It would have run, as it did.
        Run "run",
        /// It would have been given the first answer, and ran once more.
        Replayed "replayed",
        /// It would have been refused: another one with its key was running.
        InProgress "in_progress",
        /// It would have been refused: its key stands for something else.
        Mismatch "mismatch",
        /// It would have been refused: nobody would know what the first one did.
        Unknown "unknown",
        /// It would have been refused: it has no key.
        KeyMissing "key_missing",
        /// It would have been refused: its key is malformed.
        KeyInvalid "key_invalid",
        /// It would have been refused for another reason, such as its size.
        Refused "refused",
    }
}

closed_set! {
    /// Calls of a store whose time says something about the store. (Waiting for a change does not.)
    StoreCall {
        /// Puts a record where none is.
        Insert "insert",
        /// Puts a record in the place of a version.
        Replace "replace",
        /// Removes a version.
        Remove "remove",
        /// Reads a record.
        Load "load",
        /// Lists what is due.
        TakeDue "take_due",
        /// Lists lanes with something due, or when that will be.
        NextDue "next_due",
        /// Waits for a change.
        Changed "changed",
        /// Removes expired records.
        Sweep "sweep",
        /// Counts by state.
        Counts "counts",
        /// Finds records.
        Search "search",
        /// Writes audit entries.
        AppendAudit "append_audit",
        /// Reads audit entries.
        Audit "audit",
        /// Drops old audit entries.
        ForgetAudit "forget_audit",
        /// Whether it can serve.
        Ready "ready",
        /// Lets go of what it holds.
        Close "close",
    }
}

closed_set! {
    /// The class of a status; 429 by itself, since it says something else than the rest of its class.
    StatusClass {
        /// It went as asked.
        Success "2xx",
        /// Look elsewhere.
        Redirection "3xx",
        /// The client has to change something.
        ClientError "4xx",
        /// The client is too quick.
        RateLimited "429",
        /// The server or a target failed.
        ServerError "5xx",
    }
}

impl StatusClass {
    pub(super) const fn of(status: u16) -> Self {
        match status {
            429 => Self::RateLimited,
            0..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) door: &'static str,
    pub(super) operation: Arc<str>,
    pub(super) status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DuplicateLabels {
    pub(super) door: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WhyLabels {
    pub(super) why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StoreLabels {
    pub(super) call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ErrorLabels {
    pub(super) call: &'static str,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct JobLabels {
    pub(super) job_type: Arc<str>,
    pub(super) status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecordLabels {
    pub(super) namespace: &'static str,
    pub(super) operation: Arc<str>,
    pub(super) state: &'static str,
}

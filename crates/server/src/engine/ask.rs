//! What a door asks of the engine, and what it is told.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use semel_core::error::Invalid;
use semel_core::id::{AttemptId, Key, Subject, Tenant};
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::record::Record;
use semel_runtime::{Panicked, Unstored};

/// One request to execute an operation.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose key it is.
    pub tenant: Tenant,
    /// Who within the tenant, where the door has verified somebody.
    pub subject: Option<Subject>,
    /// The client's key.
    pub key: Key,
    /// The name of the operation.
    pub operation: String,
    /// The payload: JSON, as the text that came.
    pub payload: Bytes,
    /// The client's name for the attempt.
    pub attempt_id: Option<AttemptId>,
    /// For the audit log and the target.
    pub correlation_id: Arc<str>,
    /// For the log.
    pub request_id: Arc<str>,
    /// The client's trace context (`traceparent`), passed on to the target.
    pub traceparent: Option<http::HeaderValue>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Execution {
    /// It has ended: what is in the record's outcome is the answer.
    Completed {
        /// The record, with its outcome.
        record: Arc<Record>,
        /// Whether it had ended before this request came.
        replayed: bool,
        /// What the operation has just given, where the record does not keep it: too large. For this request only.
        said: Option<Bytes>,
    },
    /// Somebody is at it, or it waits for a worker.
    Processing {
        /// The record, as it was seen: what to wait from.
        record: Arc<Record>,
        /// When asking again may give another answer.
        retry_after: Duration,
        /// Whether it was this very request that was taken in, so that what comes of it is no replay.
        fresh: bool,
    },
    /// It may have happened, and nobody knows.
    Unknown {
        /// The record.
        record: Arc<Record>,
        /// 502 or 504 when it was this very request that lost the answer; `None` when it was an earlier one.
        fresh: Option<StatusCode>,
    },
    /// This request's try may have had an effect, and may be made again with the same downstream key (*resume*).
    Retryable {
        /// The record.
        record: Arc<Record>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// This request's try is known to have had no effect.
    NotExecuted {
        /// The record.
        record: Arc<Record>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The key stands for something else.
    Mismatch {
        /// What it stands for.
        record: Arc<Record>,
    },
    /// Its retries are spent.
    Dead {
        /// The record.
        record: Arc<Record>,
    },
}

impl Execution {
    /// The record, whatever became of it.
    pub const fn record(&self) -> &Arc<Record> {
        match self {
            Self::Completed { record, .. }
            | Self::Processing { record, .. }
            | Self::Unknown { record, .. }
            | Self::Retryable { record, .. }
            | Self::NotExecuted { record, .. }
            | Self::Mismatch { record }
            | Self::Dead { record } => record,
        }
    }

    /// Whether the key had been asked for before.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Completed { replayed, .. } => *replayed,
            Self::Processing { fresh, .. } => !fresh,
            Self::Unknown { fresh, .. } => fresh.is_none(),
            Self::Retryable { record, .. } | Self::NotExecuted { record, .. } => record.attempt() > 1,
            Self::Mismatch { .. } | Self::Dead { .. } => true,
        }
    }
}

/// Why there is no answer. Nothing of it but its kind reaches a client.
#[derive(Debug)]
pub struct EngineError {
    kind: EngineErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What it means for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// No operation of that name is configured.
    UnknownOperation,
    /// What was asked is not within the limits.
    Invalid(Invalid),
    /// The store does not answer, and nothing ran.
    Storage,
    /// The store does not answer, and something may have run: what became of it is not stored (L12).
    Unstored,
    /// It is larger than the store can hold.
    TooLarge,
    /// The server is going down.
    Stopping,
    /// Something unexpected.
    Internal,
}

impl EngineError {
    /// An error of this kind.
    pub const fn new(kind: EngineErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// With what lies behind it, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What it means.
    pub const fn kind(&self) -> &EngineErrorKind {
        &self.kind
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EngineErrorKind::UnknownOperation => f.write_str("no operation of that name is configured"),
            EngineErrorKind::Invalid(invalid) => invalid.fmt(f),
            EngineErrorKind::Storage => f.write_str("the store does not answer"),
            EngineErrorKind::Unstored => f.write_str("the store does not take what became of an attempt"),
            EngineErrorKind::TooLarge => f.write_str("larger than the store can hold"),
            EngineErrorKind::Stopping => f.write_str("the server is going down"),
            EngineErrorKind::Internal => f.write_str("something unexpected"),
        }
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Invalid> for EngineError {
    fn from(invalid: Invalid) -> Self {
        Self::new(EngineErrorKind::Invalid(invalid))
    }
}

impl From<Panicked> for EngineError {
    fn from(panicked: Panicked) -> Self {
        Self::new(EngineErrorKind::Internal).with_source(panicked)
    }
}

impl From<Unstored> for EngineError {
    fn from(unstored: Unstored) -> Self {
        Self::new(EngineErrorKind::Unstored).with_source(unstored)
    }
}

impl From<LedgerError> for EngineError {
    fn from(error: LedgerError) -> Self {
        let kind = match error.kind() {
            LedgerErrorKind::Unavailable | LedgerErrorKind::InDoubt | LedgerErrorKind::Contended => {
                EngineErrorKind::Storage
            }
            LedgerErrorKind::TooLarge => EngineErrorKind::TooLarge,
            // The record cannot be read, and waiting does not mend it.
            LedgerErrorKind::Corrupt => EngineErrorKind::Internal,
        };
        Self::new(kind).with_source(error)
    }
}

//! A handler of events, what it knows of its claim, and what it says when it fails.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use semel_core::command::Claim;
use semel_core::{Fence, Key, RecordId};
use tokio_util::sync::CancellationToken;

use crate::cloud_event::CloudEvent;
use crate::message::Message;

/// What a handler gives.
pub type Handled = Result<(), HandlerError>;

pub(crate) type Running = Pin<Box<dyn Future<Output = Handled> + Send>>;

/// A handler as it is kept: of a message and, where it has to be one, its event.
pub(crate) type Handler =
    Box<dyn Fn(Arc<Message>, Option<Arc<CloudEvent>>, Claimed) -> Running + Send + Sync>;

/// A handler has failed. Any error can be one (`?`): then it is tried again, as often as is configured, and after that
/// put aside.
///
/// It is no [`std::error::Error`] itself, so that every error can become one.
#[derive(Debug)]
pub struct HandlerError {
    kind: HandlerErrorKind,
    text: String,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandlerErrorKind {
    /// It is tried again. It may have done something; under *at most once* that is the end.
    Failed,
    /// It is tried again: nothing was done.
    NotExecuted,
    /// No other try can help: it is put aside at once.
    Permanent,
}

impl HandlerError {
    /// Nothing was done, for this reason: also under *at most once* it is tried again.
    pub fn not_executed(why: impl fmt::Display) -> Self {
        Self { kind: HandlerErrorKind::NotExecuted, text: why.to_string() }
    }

    /// No other try can help, for this reason: the event is put aside at once.
    pub fn permanent(why: impl fmt::Display) -> Self {
        Self { kind: HandlerErrorKind::Permanent, text: why.to_string() }
    }

    pub(crate) fn failed(why: impl fmt::Display) -> Self {
        Self { kind: HandlerErrorKind::Failed, text: why.to_string() }
    }

    /// What follows from it.
    pub const fn kind(&self) -> HandlerErrorKind {
        self.kind
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Self { kind: HandlerErrorKind::Failed, text }
    }
}

/// What a handler knows of the claim that it runs under. A clone is the same claim; it cannot settle it: the handler's
/// result does that.
#[derive(Clone)]
pub struct Claimed(Arc<Inner>);

struct Inner {
    id: RecordId,
    key: Key,
    fence: Fence,
    attempt: u32,
    tainted: bool,
    lost: CancellationToken,
    message: Arc<Message>,
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed")
            .field("record_id", &self.0.id)
            .field("fence", &self.0.fence)
            .field("attempt", &self.0.attempt)
            .finish_non_exhaustive()
    }
}

impl Claimed {
    pub(crate) fn new(claim: &Claim, message: Arc<Message>, lost: CancellationToken) -> Self {
        let record = claim.record();
        Self(Arc::new(Inner {
            id: record.id(),
            key: record.request().key().clone(),
            fence: claim.fence(),
            attempt: claim.attempt(),
            tainted: claim.is_tainted(),
            lost,
            message,
        }))
    }

    /// The record's id: for logs.
    pub fn record_id(&self) -> RecordId {
        self.0.id
    }

    /// The event's key in the ledger.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Rises with every claim of the event: a resource that keeps the highest it has seen can refuse a stale handler.
    pub fn fence(&self) -> Fence {
        self.0.fence
    }

    /// Which try this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Whether an earlier try died, or was paused for longer than its lease, and may have done something: then, and after
    /// a failure of the handler's own, look before doing it again.
    pub fn is_taken_over(&self) -> bool {
        self.0.tainted
    }

    /// A key for what is called from here, the same on every try: 32 hexadecimal digits. Whoever takes an idempotency
    /// key closes with it the one window that a crash leaves, between an effect and its record.
    pub fn downstream_key(&self) -> String {
        self.0.id.downstream_key(None)
    }

    /// Cancelled when the claim is lost, because the store could not be reached for as long as the lease: begin nothing
    /// further, since another handler may have taken over.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// The message that the event came in.
    pub fn message(&self) -> &Arc<Message> {
        &self.0.message
    }
}

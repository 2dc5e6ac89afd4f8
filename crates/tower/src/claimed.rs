//! What a handler can know of the claim that it runs under.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use semel_core::command::Claim;
use semel_core::error::Invalid;
use semel_core::id::Phase;
use semel_core::ledger::LedgerError;
use semel_core::record::Checkpoint;
use semel_core::{Fence, Key, Ledger, Record, RecordId};
use semel_runtime::phases::{Steps, Unkept};
use tokio_util::sync::CancellationToken;

/// The claim of a protected request: a request extension, and with the feature `axum` an argument of handlers.
/// (`Option<Claimed>` where a key is optional, and as long as the layer only reports: then no request has a claim.)
///
/// It says under which key, fence and attempt the handler runs, and keeps checkpoints. It cannot settle the claim:
/// the layer does that, by the reply. The claim's token is not shown.
#[derive(Clone)]
pub struct Claimed(Arc<Inner>);

struct Inner {
    id: RecordId,
    /// As it was granted.
    granted: Arc<Record>,
    steps: Steps,
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed")
            .field("record_id", &self.record_id())
            .field("fence", &self.fence())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// A checkpoint that was not kept. The handler had better stop: what it would do next, another attempt does as well.
#[derive(Debug)]
pub struct CheckpointError {
    kind: CheckpointErrorKind,
    source: Option<LedgerError>,
}

/// Why it was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointErrorKind {
    /// The claim is lost: another attempt has taken its place.
    Fenced,
    /// The phase is checkpointed with other data, or there are too many.
    Illegal(&'static str),
    /// The name or the data is not within the limits.
    Invalid(Invalid),
    /// The store does not answer; it may or may not be kept, and saying it again is safe.
    Storage,
}

impl CheckpointError {
    fn new(kind: CheckpointErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Why.
    pub const fn kind(&self) -> &CheckpointErrorKind {
        &self.kind
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            CheckpointErrorKind::Fenced => f.write_str("the claim is lost to another attempt"),
            CheckpointErrorKind::Illegal(why) => f.write_str(why),
            CheckpointErrorKind::Invalid(invalid) => invalid.fmt(f),
            CheckpointErrorKind::Storage => f.write_str("the store does not answer"),
        }
    }
}

impl Error for CheckpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<Invalid> for CheckpointError {
    fn from(invalid: Invalid) -> Self {
        Self::new(CheckpointErrorKind::Invalid(invalid))
    }
}

impl Claimed {
    pub(crate) fn new(ledger: &Ledger, claim: &Claim, lost: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            id: claim.holder().id,
            granted: Arc::clone(claim.record()),
            steps: Steps::over(ledger, claim, lost),
        }))
    }

    /// The steps of its attempt.
    pub(crate) fn steps(&self) -> &Steps {
        &self.0.steps
    }

    /// The record, as far as this attempt knows it.
    fn record(&self) -> Arc<Record> {
        self.0.steps.record().unwrap_or_else(|| Arc::clone(&self.0.granted))
    }

    /// The record's id: for logs.
    pub fn record_id(&self) -> RecordId {
        self.0.id
    }

    /// The client's key.
    pub fn key(&self) -> Key {
        self.0.granted.request().key().clone()
    }

    /// Rises with every claim of the key: a resource that remembers the highest one it has seen can refuse an attempt
    /// that was overtaken.
    pub fn fence(&self) -> Fence {
        self.0.granted.fence()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.granted.attempt()
    }

    /// What to hand to others as their idempotency key: the same over all attempts, and nobody else's.
    pub fn downstream_key(&self) -> String {
        self.0.id.downstream_key(None)
    }

    /// The same for one step of several.
    ///
    /// # Errors
    /// The name of the step is not within core's limits.
    pub fn downstream_key_of(&self, phase: &str) -> Result<String, Invalid> {
        Ok(self.0.id.downstream_key(Some(&Phase::try_new(phase)?)))
    }

    /// Steps that are done, of earlier attempts and of this one, in order.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.record().checkpoints().to_vec()
    }

    /// What a step gave, if it is done.
    pub fn checkpoint_of(&self, phase: &str) -> Option<Bytes> {
        let record = self.record();
        let found = record.checkpoints().iter().find(|done| done.phase().as_str() == phase);
        found.map(|done| done.data().clone())
    }

    /// A step is done, and gave this: durable when it returns, and handed to whoever takes over. The same step with
    /// the same data again is a success.
    ///
    /// # Errors
    /// See [`CheckpointErrorKind`].
    ///
    /// # Cancellation
    /// Leaves open whether it is kept; saying it again is safe.
    pub async fn checkpoint(&self, phase: &str, data: impl Into<Bytes>) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint::try_new(Phase::try_new(phase)?, data.into())?;
        self.0.steps.checkpoint(checkpoint).await.map_err(|unkept| match unkept {
            Unkept::Fenced => CheckpointError::new(CheckpointErrorKind::Fenced),
            Unkept::Illegal(why) => CheckpointError::new(CheckpointErrorKind::Illegal(why)),
            Unkept::Storage(source) => {
                CheckpointError { kind: CheckpointErrorKind::Storage, source: Some(source) }
            }
        })
    }

    /// Cancelled when the claim is not safe any more (heartbeats have failed for too long, or another attempt has
    /// taken over): start no further side effect.
    pub fn lost(&self) -> &CancellationToken {
        self.0.steps.lost()
    }
}

#[cfg(feature = "axum")]
mod extract {
    use std::convert::Infallible;

    use axum::extract::{FromRequestParts, OptionalFromRequestParts};
    use axum::response::{IntoResponse, Response};
    use http::request::Parts;
    use http::{HeaderValue, StatusCode, header};
    use semel_api::{ApiError, ErrorCode, Form};

    use super::Claimed;
    use crate::layer::Unclaimed;

    /// The request is not protected: it came without a key or with a method that needs none, the layer only reports, or
    /// none is there. It is refused in the form that the layer's profile and the client's `Accept` have for errors.
    #[derive(Debug)]
    pub struct Unprotected(Option<Response>);

    impl IntoResponse for Unprotected {
        fn into_response(self) -> Response {
            if let Some(refused) = self.0 {
                return refused;
            }
            let rendered = ApiError::new(ErrorCode::IdempotencyKeyRequired).render(Form::Envelope, "", None);
            let kind = HeaderValue::from_static(rendered.content_type);
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, kind)], rendered.body).into_response()
        }
    }

    impl<S: Sync> FromRequestParts<S> for Claimed {
        type Rejection = Unprotected;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Unprotected> {
            let claimed = parts.extensions.get::<Self>().cloned();
            claimed.ok_or_else(|| {
                let unclaimed = parts.extensions.get::<Unclaimed>();
                Unprotected(unclaimed.map(|layer| layer.refuse(&parts.headers).map(axum::body::Body::new)))
            })
        }
    }

    impl<S: Sync> OptionalFromRequestParts<S> for Claimed {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}

#[cfg(feature = "axum")]
pub use extract::Unprotected;

//! A handler in several steps, each done once over all attempts of its request.
//!
//! ```
//! use semel_tower::{PhaseError, Phases};
//!
//! # async fn validate() -> Result<(), String> { Ok(()) }
//! # async fn reserve(_key: Option<String>) -> Result<String, String> { Ok("R-1".into()) }
//! async fn create_order(phases: &Phases) -> Result<String, PhaseError<String>> {
//!     phases.phase("validated", || async { validate().await }).await?;
//!     let key = phases.downstream_key("inventory_reserved").map_err(PhaseError::Invalid)?;
//!     let reservation: String = phases.phase("inventory_reserved", || reserve(key)).await?;
//!     phases.finish()?;
//!     Ok(reservation)
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() { assert_eq!(create_order(&Phases::unprotected()).await.unwrap(), "R-1"); }
//! ```
//!
//! With the feature `axum`, [`Phases`] is an argument of handlers: without a key the same code runs unprotected.

use std::fmt;

use bytes::Bytes;
use semel_core::Ledger;
use semel_core::command::Claim;
use semel_core::error::Invalid;
use semel_core::id::Phase;
use semel_runtime::phases::{Mark, StepError, Steps};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use semel_runtime::phases::Unkept;

use crate::claimed::Claimed;

/// The phases of one attempt. A clone is another handle.
///
/// Phases run one after the other, each under a name of its own, and a retry goes by the names of the attempt before, in
/// their order. (Checkpoints that are made by hand, with [`Claimed::checkpoint`], stand in the same order: do not mix
/// the two.)
#[derive(Clone, Debug)]
pub struct Phases(Steps);

/// A phase that came to nothing. The handler had better stop: with `?`, and with this as its error.
#[derive(Debug)]
pub enum PhaseError<E> {
    /// The work of the phase said so. It is not checkpointed.
    Work(E),
    /// The phase's name, or what it gave, is not within the limits.
    Invalid(Invalid),
    /// The names, their order or their marks are not those of an earlier attempt, or contradict each other: why. Nothing
    /// was run.
    Order(Box<str>),
    /// What the phase gave, now or in an earlier attempt, is not what is expected of it: why.
    Result(Box<str>),
    /// A phase marked *once* was begun by an earlier attempt and not finished: nobody knows whether it took effect. The
    /// request's outcome is unknown from now on, and nothing runs again by itself.
    Unknown,
    /// The claim is not safe any more, or lost to another attempt.
    Lost,
    /// The store does not answer: the phase may have run, and its checkpoint may not be kept.
    Storage(Unkept),
}

impl<E: fmt::Display> fmt::Display for PhaseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(error) => error.fmt(f),
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Order(why) | Self::Result(why) => f.write_str(why),
            Self::Unknown => {
                f.write_str("a phase was begun by an earlier attempt, and may have had its effect")
            }
            Self::Lost => f.write_str("the claim is lost to another attempt"),
            Self::Storage(unkept) => unkept.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for PhaseError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Work(error) => error.source(),
            Self::Storage(unkept) => unkept.source(),
            Self::Invalid(_) | Self::Order(_) | Self::Result(_) | Self::Unknown | Self::Lost => None,
        }
    }
}

impl<E> From<StepError<E>> for PhaseError<E> {
    fn from(error: StepError<E>) -> Self {
        // What is said of the others does not depend on what a phase's work can say.
        let order = |error: StepError<std::convert::Infallible>| Self::Order(error.to_string().into());
        match error {
            StepError::Work(error) => Self::Work(error),
            StepError::Invalid(invalid) => Self::Invalid(invalid),
            StepError::Unknown => Self::Unknown,
            StepError::Lost | StepError::Unkept(Unkept::Fenced) => Self::Lost,
            StepError::Unkept(Unkept::Illegal(why)) => Self::Order(why.into()),
            StepError::Unkept(unkept @ Unkept::Storage(_)) => Self::Storage(unkept),
            StepError::Reserved => order(StepError::Reserved),
            StepError::Repeated => order(StepError::Repeated),
            StepError::Overlapping => order(StepError::Overlapping),
            StepError::Changed { expected, found } => order(StepError::Changed { expected, found }),
            StepError::OtherMark => order(StepError::OtherMark),
        }
    }
}

/// What a phase's work said, or that what it gave cannot be kept.
enum Given<E> {
    Work(E),
    Unwritable(serde_json::Error),
}

impl Phases {
    /// The phases of a claim, without a layer. `lost` is cancelled when its lease is not safe any more.
    pub fn over(ledger: &Ledger, claim: &Claim, lost: CancellationToken) -> Self {
        Self(Steps::over(ledger, claim, lost))
    }

    /// Phases of work that has no claim: each runs, and nothing is kept.
    pub fn unprotected() -> Self {
        Self(Steps::unprotected())
    }

    /// Whether what is done here is done once: the request has a key.
    pub fn is_protected(&self) -> bool {
        self.0.record_id().is_some()
    }

    /// Runs the phase, unless an earlier attempt has done it: then this gives what it gave. What it gives is kept as JSON,
    /// of 64 KiB at most. If it is cut by a crash it runs again, under the same [downstream key](Self::downstream_key).
    ///
    /// # Errors
    /// See [`PhaseError`].
    ///
    /// # Cancellation
    /// As a crash would.
    pub async fn phase<T, E, F>(&self, name: &str, work: impl FnOnce() -> F) -> Result<T, PhaseError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        self.run(name, Mark::Again, work).await
    }

    /// As [`phase`](Self::phase), for an effect that must not happen twice, on something that knows neither keys nor
    /// fences: that it begins is kept before it does. If it is then cut, or fails, no attempt runs it again; the next one
    /// makes the request's outcome unknown, for an operator or a probe to settle.
    ///
    /// # Errors
    /// See [`PhaseError`].
    ///
    /// # Cancellation
    /// As a crash would.
    pub async fn once<T, E, F>(&self, name: &str, work: impl FnOnce() -> F) -> Result<T, PhaseError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        self.run(name, Mark::Once, work).await
    }

    async fn run<T, E, F>(&self, name: &str, mark: Mark, work: impl FnOnce() -> F) -> Result<T, PhaseError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        let mut fresh = None;
        let kept = &mut fresh;
        let work = || async move {
            let given = work().await.map_err(Given::Work)?;
            let bytes = serde_json::to_vec(&given).map_err(Given::Unwritable)?;
            *kept = Some(given);
            Ok(Bytes::from(bytes))
        };
        let bytes = match self.0.step(name, mark, work).await {
            Ok(bytes) => bytes,
            Err(StepError::Work(Given::Work(error))) => return Err(PhaseError::Work(error)),
            Err(StepError::Work(Given::Unwritable(error))) => {
                let why = format!("what phase `{name}` gave cannot be written as JSON: {error}");
                return Err(PhaseError::Result(why.into()));
            }
            Err(error) => return Err(without_work(error)),
        };
        if let Some(fresh) = fresh {
            return Ok(fresh);
        }
        // A checkpoint without data is one of `PhaseManager`, or of a client that has given none.
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|error| {
            // Where that shows, and nothing of what it is.
            let (line, column) = (error.line(), error.column());
            let why = format!(
                "what phase `{name}` gave in an earlier attempt is something else (line {line}, column {column})"
            );
            PhaseError::Result(why.into())
        })
    }

    /// The handler has no other phase: an earlier attempt must not have had one either.
    ///
    /// # Errors
    /// It has: the list of phases has changed.
    pub fn finish<E>(&self) -> Result<(), PhaseError<E>> {
        Ok(self.0.finish()?)
    }

    /// What a phase hands to others as its idempotency key: the same over all attempts, another for each phase, and nobody
    /// else's; 32 hexadecimal digits. `None` without protection.
    ///
    /// # Errors
    /// The name of the phase is not within core's limits.
    pub fn downstream_key(&self, name: &str) -> Result<Option<String>, Invalid> {
        let phase = Phase::try_new(name)?;
        Ok(self.0.record_id().map(|id| id.downstream_key(Some(&phase))))
    }

    /// Cancelled when the claim is not safe any more: begin nothing further.
    pub fn lost(&self) -> &CancellationToken {
        self.0.lost()
    }
}

impl From<&Claimed> for Phases {
    /// The phases of this request: all handles of one attempt are the same phases.
    fn from(claimed: &Claimed) -> Self {
        Self(claimed.steps().clone())
    }
}

/// An error that no work has said.
fn without_work<E>(error: StepError<Given<E>>) -> PhaseError<E> {
    match PhaseError::from(error) {
        PhaseError::Work(Given::Work(error)) => PhaseError::Work(error),
        PhaseError::Work(Given::Unwritable(error)) => PhaseError::Result(error.to_string().into()),
        PhaseError::Invalid(invalid) => PhaseError::Invalid(invalid),
        PhaseError::Order(why) => PhaseError::Order(why),
        PhaseError::Result(why) => PhaseError::Result(why),
        PhaseError::Unknown => PhaseError::Unknown,
        PhaseError::Lost => PhaseError::Lost,
        PhaseError::Storage(unkept) => PhaseError::Storage(unkept),
    }
}

#[cfg(feature = "axum")]
mod extract {
    use std::convert::Infallible;

    use axum::extract::FromRequestParts;
    use axum::response::{IntoResponse, Response};
    use http::request::Parts;
    use http::{HeaderValue, StatusCode, header};
    use semel_api::{ApiError, ErrorCode, Form};

    use super::{PhaseError, Phases};
    use crate::claimed::Claimed;

    impl<S: Sync> FromRequestParts<S> for Phases {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
            Ok(parts.extensions.get::<Claimed>().map_or_else(Self::unprotected, Self::from))
        }
    }

    /// What the phase's work says as it says it; the rest as the contract does.
    impl<E: IntoResponse> IntoResponse for PhaseError<E> {
        fn into_response(self) -> Response {
            let code = match self {
                Self::Work(error) => return error.into_response(),
                Self::Unknown => ErrorCode::IdempotencyOutcomeUnknown,
                Self::Lost => ErrorCode::IdempotencyFenced,
                Self::Storage(_) => ErrorCode::IdempotencyStorageUnavailable,
                Self::Invalid(invalid) => {
                    tracing::error!(%invalid, "a phase is not within the limits");
                    ErrorCode::Internal
                }
                Self::Order(why) | Self::Result(why) => {
                    tracing::error!(%why, "the phases of a handler are not those of an earlier attempt");
                    ErrorCode::Internal
                }
            };
            let rendered = ApiError::new(code).render(Form::Envelope, "", None);
            let kind = HeaderValue::from_static(rendered.content_type);
            let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, kind)], rendered.body).into_response()
        }
    }
}

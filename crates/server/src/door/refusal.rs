//! A refusal on its way out: handlers say what is wrong, the gate writes it in the form that the client reads.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use semel_api::{ApiError, Detail, ErrorCode, Form};
use semel_core::error::Invalid;

use crate::engine::{EngineError, EngineErrorKind};
use crate::limits;

/// What is wrong, and what is said beside it.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    error: ApiError,
    headers: HeaderMap,
    /// Whether this is an outcome, the same bytes for everybody who asks (L10), so that no request's id belongs in it.
    is_outcome: bool,
}

impl Refusal {
    /// An outcome that is a refusal.
    pub(crate) fn outcome(error: ApiError, headers: HeaderMap) -> Self {
        Self(Box::new(Parts { error, headers, is_outcome: true }))
    }

    /// With a header beside it.
    pub(crate) fn with_header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(Box::new(Parts { error: error.into(), headers: HeaderMap::new(), is_outcome: false }))
    }
}

impl IntoResponse for Refusal {
    /// Not written yet: [`write()`] does that, where the client's form is known.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(&self.0.error);
        response.extensions_mut().insert(*self.0);
        response
    }
}

/// Writes a refusal, if the response is one that is not written yet. Gives its code.
pub(crate) fn write(
    response: &mut Response,
    form: Form,
    docs_base: &str,
    request_id: &str,
) -> Option<ErrorCode> {
    let Parts { error, headers, is_outcome } = response.extensions_mut().remove::<Parts>()?;
    let rendered = error.render(form, docs_base, (!is_outcome).then_some(request_id));
    let told = response.headers_mut();
    told.extend(headers);
    told.insert(header::CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if let Some(seconds) = error.retry_after_seconds() {
        told.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code() == ErrorCode::Unauthenticated {
        told.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // The routes have set it for the empty body that stood here so far.
    told.insert(header::CONTENT_LENGTH, HeaderValue::from(rendered.body.len()));
    *response.body_mut() = Body::from(rendered.body);
    Some(error.code())
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What core does not take, as its sender is told.
pub(crate) fn invalid(invalid: &Invalid) -> ApiError {
    if invalid.is_too_large() {
        let detail = Detail::new(invalid.what(), "too_large", invalid.to_string());
        return ApiError::new(ErrorCode::PayloadTooLarge).with_detail(detail);
    }
    Detail::new(invalid.what(), "value", invalid.to_string()).into()
}

/// The code's usual message says that nothing was executed, which nobody can say here.
const UNSTORED: &str = "The idempotency store does not take the outcome; the operation may have been executed, and the \
                        same key tells once the store answers";

/// What the engine cannot answer, as the client is told: the kind. What lies behind it goes into the log.
pub(crate) fn engine(error: &EngineError) -> ApiError {
    let inside = [EngineErrorKind::Storage, EngineErrorKind::Unstored, EngineErrorKind::Internal];
    if inside.contains(error.kind()) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(%error, source, "a request has no answer");
    }
    match error.kind() {
        EngineErrorKind::UnknownOperation => {
            let detail = Detail::new("operation", "unknown", "is not configured");
            ApiError::new(ErrorCode::UnknownOperation).with_detail(detail)
        }
        EngineErrorKind::Invalid(problem) => invalid(problem),
        EngineErrorKind::Storage => ApiError::new(ErrorCode::IdempotencyStorageUnavailable)
            .with_retry_after(limits::RETRY_AFTER_STORAGE),
        EngineErrorKind::Unstored => ApiError::new(ErrorCode::IdempotencyStorageUnavailable)
            .with_message(UNSTORED)
            .with_retry_after(limits::RETRY_AFTER_STORAGE),
        EngineErrorKind::TooLarge => ErrorCode::PayloadTooLarge.into(),
        EngineErrorKind::Stopping => {
            ApiError::new(ErrorCode::Overloaded).with_retry_after(limits::RETRY_AFTER_OVERLOAD)
        }
        EngineErrorKind::Internal => ErrorCode::Internal.into(),
    }
}

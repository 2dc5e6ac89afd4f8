//! Refusals, written in the form that the client reads.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use semel_api::error::ErrorBody;
use semel_api::{ApiError, Detail, ErrorCode, Form};
use semel_core::error::Invalid;
use serde_json::json;

use crate::body::Body;
use crate::profile::Codes;
use crate::{grpc, limits};

/// What a client is told, and how.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    usual: Form,
    codes: Codes,
    accept: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Voice {
    /// The voice for a request with these headers. Nothing is read of them before something is said.
    pub(crate) fn of(headers: &HeaderMap, usual: Form, codes: Codes) -> Self {
        let accept = headers.get(header::ACCEPT).cloned();
        let content_type = headers.get(header::CONTENT_TYPE).cloned();
        Self { usual, codes, accept, content_type, request_id: headers.get("x-request-id").cloned() }
    }

    /// The form that the client reads.
    pub(crate) fn form(&self) -> Form {
        let accept = self.accept.as_ref().and_then(|accept| accept.to_str().ok());
        Form::of_accept(accept, self.usual)
    }

    /// An id of the client's, or of an outer layer's, if it can stand in a body as it is.
    fn request_id(&self) -> Option<&str> {
        let text = self.request_id.as_ref()?.to_str().ok()?;
        let fits = (1..=limits::REQUEST_ID_CHARS_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
    }

    /// The error as a response.
    pub(crate) fn say(&self, error: &ApiError, errors_base: &str) -> Response<Body> {
        if grpc::is_grpc(self.content_type.as_ref()) {
            return grpc::refusal(error);
        }
        let (form, request_id) = (self.form(), self.request_id());
        let (content_type, body) = if self.codes == Codes::Acp && form == Form::Envelope {
            ("application/json", acp(error, request_id))
        } else {
            let rendered = error.render(form, errors_base, request_id);
            (rendered.content_type, rendered.body)
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // For forms without a link in them (draft-ietf-httpapi-idempotency-key-header-07, section 2.7).
        let page = error.code().page(errors_base);
        let page = format!("<{page}>; rel=\"describedby\"; type=\"text/html\"");
        if let Ok(page) = HeaderValue::try_from(page) {
            headers.insert(header::LINK, page);
        }
        if let Some(seconds) = error.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The name that the Agentic Commerce Protocol has for a code; else the catalogue's, since codes are the server's to
/// define there.
fn acp_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::IdempotencyKeyRequired => "idempotency_key_required",
        ErrorCode::IdempotencyKeyInvalid => "invalid_idempotency_key",
        ErrorCode::IdempotencyParameterMismatch => "idempotency_conflict",
        ErrorCode::IdempotencyConcurrentRequest => "idempotency_in_flight",
        ErrorCode::IdempotencyStorageUnavailable | ErrorCode::Overloaded => "service_unavailable",
        code => code.as_str(),
    }
}

/// The protocol's error object, and in it the envelope for whoever reads that.
fn acp(error: &ApiError, request_id: Option<&str>) -> Vec<u8> {
    let code = acp_code(error.code());
    let kind = match error.status() {
        503 => "service_unavailable",
        500.. => "processing_error",
        _ => "invalid_request",
    };
    let body = ErrorBody {
        code: code.to_owned(),
        message: error.message().to_owned(),
        details: error.details().to_vec(),
        retry_after: error.retry_after_seconds(),
        request_id: request_id.map(str::to_owned),
    };
    // Texts and numbers can always be written; the type of `to_vec` does not know that.
    serde_json::to_vec(&json!({ "type": kind, "code": code, "message": error.message(), "error": body }))
        .unwrap_or_else(|_| br#"{"error":{"code":"INTERNAL"}}"#.to_vec())
}

/// What core does not take, as its sender is told.
pub(crate) fn invalid(invalid: &Invalid) -> ApiError {
    Detail::new(invalid.what(), "value", invalid.to_string()).into()
}

/// The request does not say who asks.
pub(crate) fn unidentified(headers: &[String]) -> ApiError {
    let error =
        ApiError::new(ErrorCode::Unauthenticated).with_message("This request does not say whose key it is");
    headers.iter().fold(error, |error, header| {
        let message = "must be there, once, and say who asks; an Idempotency-Key belongs to its caller";
        error.with_detail(Detail::new(header.as_str(), "identity", message))
    })
}

/// The store does not answer, and nothing ran.
pub(crate) fn storage() -> ApiError {
    ApiError::new(ErrorCode::IdempotencyStorageUnavailable).with_retry_after(limits::RETRY_AFTER_STORAGE)
}

/// The store does not answer after the handler ran.
pub(crate) fn unstored() -> ApiError {
    storage()
        .with_message("The idempotency store does not answer; the outcome of the request is not stored yet")
}

/// An attempt came to nothing that counts, for a reason that lies behind us.
pub(crate) fn lost(status: u16, message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown).with_status(status).with_message(message)
}

/// The body is larger than is taken here.
pub(crate) fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("must have at most {bytes_max} bytes");
    ApiError::new(ErrorCode::PayloadTooLarge).with_detail(Detail::new("body", "too_large", message))
}

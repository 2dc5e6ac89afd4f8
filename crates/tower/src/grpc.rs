//! gRPC over HTTP/2: what its statuses mean for a key, and how a gRPC client is refused.
//!
//! A gRPC reply is HTTP 200 whatever came of it; what did stands in `grpc-status`, behind the messages in trailers, or in
//! the head where there is no message at all.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use semel_api::{ApiError, ErrorCode};

use crate::body::Body;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// When to come back, as gRPC's own retries read it.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The code of an error, for programs that tell more apart than gRPC's statuses do.
const CODE: &str = "semel-error-code";

/// Whether such a `Content-Type` is that of gRPC. (gRPC-Web has its trailers in the body, and is a stream like others.)
pub(crate) fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let Some(kind) = content_type.and_then(|kind| kind.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let Some((start, rest)) = essence.split_at_checked("application/grpc".len()) else { return false };
    start.eq_ignore_ascii_case("application/grpc") && (rest.is_empty() || rest.starts_with('+'))
}

/// The status of HTTP that a reply stands for, which was received whole.
pub(crate) fn status_of(status: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>) -> StatusCode {
    if status != StatusCode::OK {
        return status;
    }
    let said = trailers.and_then(|trailers| trailers.get(STATUS)).or_else(|| headers.get(STATUS));
    let number = said.and_then(|said| said.to_str().ok()).and_then(|said| said.parse().ok());
    equivalent(number.unwrap_or(UNKNOWN))
}

/// The same by its head alone, where nothing else is known yet.
pub(crate) fn status_of_head(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    if headers.contains_key(STATUS) { status_of(status, headers, None) } else { status }
}

const UNKNOWN: u8 = 2;

/// The status of HTTP that means what a gRPC status does, as `google.rpc.Code` has them; but for CANCELLED, which is
/// 499 there, a status of nobody's: it says "not now", as 408 does.
fn equivalent(number: u8) -> StatusCode {
    match number {
        0 => StatusCode::OK,
        1 => StatusCode::REQUEST_TIMEOUT,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC status of a refusal.
fn number(error: &ApiError) -> u8 {
    const INVALID_ARGUMENT: u8 = 3;
    const NOT_FOUND: u8 = 5;
    const ALREADY_EXISTS: u8 = 6;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const FAILED_PRECONDITION: u8 = 9;
    const ABORTED: u8 = 10;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match (error.code(), error.status()) {
        (ErrorCode::IdempotencyConcurrentRequest | ErrorCode::IdempotencyFenced, _) => ABORTED,
        // It was done; nothing is gained by asking again.
        (ErrorCode::IdempotencyResultGone, _) => ALREADY_EXISTS,
        (ErrorCode::IdempotencyParameterMismatch, _) => INVALID_ARGUMENT,
        (ErrorCode::Internal, _) => INTERNAL,
        (_, 503) => UNAVAILABLE,
        (ErrorCode::OutcomeUnknown, _) => UNKNOWN,
        (_, 400) => INVALID_ARGUMENT,
        (_, 401) => UNAUTHENTICATED,
        (_, 403) => PERMISSION_DENIED,
        (_, 404) => NOT_FOUND,
        (_, 413 | 429 | 431) => RESOURCE_EXHAUSTED,
        (_, 409 | 410 | 412) => FAILED_PRECONDITION,
        _ => UNKNOWN,
    }
}

/// The error as a reply without a message, whose head is its end.
pub(crate) fn refusal(error: &ApiError) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(u16::from(number(error))));
    let mut message = String::from(error.message());
    for detail in error.details() {
        // Writing to a text cannot fail.
        write!(message, "; {} {}", detail.field, detail.message).unwrap_or_default();
    }
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&message)) {
        headers.insert(MESSAGE, message);
    }
    if let Ok(code) = HeaderValue::try_from(error.code().as_str()) {
        headers.insert(CODE, code);
    }
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        headers.insert(PUSHBACK, HeaderValue::from(seconds.saturating_mul(1000)));
    }
    response
}

/// As gRPC has it for messages: printable ASCII as it is, but for the sign itself.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => write!(encoded, "%{byte:02X}").unwrap_or_default(),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_media_type_and_grpc_web_is_another() {
        let is = |kind: &'static str| is_grpc(Some(&HeaderValue::from_static(kind)));
        for kind in ["application/grpc", "Application/gRPC+proto", "application/grpc; x=y"] {
            assert!(is(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", "a"] {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_grpc(None));
    }

    #[test]
    fn the_status_stands_behind_the_messages_or_in_the_head_and_none_is_unknown() {
        let with = |number: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(STATUS, HeaderValue::from_static(number));
            headers
        };
        let none = HeaderMap::new();
        assert_eq!(status_of(StatusCode::OK, &none, Some(&with("0"))), 200);
        assert_eq!(status_of(StatusCode::OK, &with("5"), None), 404);
        for said in [none.clone(), with("x"), with("999")] {
            assert_eq!(status_of(StatusCode::OK, &none, Some(&said)), 500, "{said:?}");
        }
        assert_eq!(status_of(StatusCode::BAD_GATEWAY, &none, Some(&with("0"))), 502, "not gRPC's own");
        assert_eq!(status_of_head(StatusCode::OK, &none), 200, "it comes later");
    }

    #[test]
    fn a_refusal_is_a_status_with_a_message_that_any_client_can_read() {
        let error = ApiError::new(ErrorCode::IdempotencyConcurrentRequest)
            .with_message("läuft 100 %")
            .with_retry_after(std::time::Duration::from_secs(2));
        let refusal = refusal(&error);
        let said = |name: &str| refusal.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((refusal.status().as_u16(), said("grpc-status").as_str()), (200, "10"));
        assert_eq!(said("grpc-message"), "l%C3%A4uft 100 %25");
        assert_eq!((said("retry-after").as_str(), said("grpc-retry-pushback-ms").as_str()), ("2", "2000"));
        assert_eq!(said("semel-error-code"), "IDEMPOTENCY_CONCURRENT_REQUEST");
    }
}

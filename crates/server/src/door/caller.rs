//! Who asks, under which ids, and how it wants to be refused.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};
use semel_api::{ApiError, Detail, ErrorCode, Form};
use semel_core::id::Tenant;

use crate::limits;

/// The request's id, taken over from the client or made here, and always answered.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client's trace context, passed on to targets.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// What the gate found out about a request; handlers take it from the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The request's id.
    pub(crate) request_id: Arc<str>,
    /// What ties several requests together; the request's id, if the client says nothing.
    pub(crate) correlation_id: Arc<str>,
    /// Whose request it is.
    pub(crate) tenant: Tenant,
    /// The trace that it is a part of.
    pub(crate) traceparent: Option<HeaderValue>,
}

/// Bytes of an id that is made here.
const ID_BYTES_MAX: usize = 33;

/// Makes request ids: 64 random bits of this process, and a number.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that begin with these bits.
    pub(crate) const fn new(process: u64) -> Self {
        Self { process, next: AtomicU64::new(1) }
    }

    fn next(&self) -> Arc<str> {
        let mut text = [0; ID_BYTES_MAX];
        let mut rest = &mut text[..];
        let id = write!(rest, "{:016x}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed));
        let length = ID_BYTES_MAX - rest.len();
        // Two numbers of sixteen digits and a dash have room, and are text.
        id.ok().and_then(|()| std::str::from_utf8(&text[..length]).ok()).unwrap_or_default().into()
    }

    /// The request's id and what it belongs to.
    pub(crate) fn of(&self, headers: &HeaderMap) -> (Arc<str>, Arc<str>) {
        let request_id = taken_over(headers, &REQUEST_ID).unwrap_or_else(|| self.next());
        let correlation_id = taken_over(headers, &CORRELATION_ID).unwrap_or_else(|| Arc::clone(&request_id));
        (request_id, correlation_id)
    }
}

/// An id of the client's, if it can stand in a log and a header as it is.
fn taken_over(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let text = headers.get(name)?.to_str().ok()?;
    let fits = (1..=limits::REQUEST_ID_CHARS_MAX).contains(&text.len());
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into())
}

/// Refuses a head that is above its limit, or that leaves open which host it means.
pub(crate) fn check_head<B>(request: &Request<B>) -> Result<(), ApiError> {
    check_size(request)?;
    // RFC 9112, section 3.2: two hosts, or none in HTTP/1.1, are read differently by whoever stands before us.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let wrong = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Detail::new("Host", "duplicate", "is given twice"),
        (None, _) if request.version() == Version::HTTP_11 => Detail::new("Host", "missing", "is missing"),
        (Some(_) | None, _) => return Ok(()),
    };
    Err(wrong.into())
}

/// Refuses a head that is above its limit.
pub(crate) fn check_size<B>(request: &Request<B>) -> Result<(), ApiError> {
    // As HTTP/2 counts a field (RFC 9113, section 6.5.2), but for what is only kept in memory: the four bytes that
    // stand around it on the wire of HTTP/1.1.
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let uri = request.uri();
    let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let length = line + request.headers().iter().map(field).sum::<usize>();
    if length <= limits::HEADER_BYTES_MAX {
        return Ok(());
    }
    let message = format!("must have at most {} bytes in all", limits::HEADER_BYTES_MAX);
    Err(ApiError::new(ErrorCode::HeadersTooLarge).with_detail(Detail::new("headers", "too_large", message)))
}

/// The trace that the client's request is a part of.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(TRACEPARENT)
}

/// The form that the client accepts.
pub(crate) fn form(headers: &HeaderMap, usual: Form) -> Form {
    Form::of_accept(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()), usual)
}

/// The id as a header. (It was checked, or made here, so it can be one.)
pub(crate) fn id_header(id: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_client_is_taken_over_only_if_it_is_harmless() {
        let ids = RequestIds::new(7);
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            ids.of(&headers).0.to_string()
        };
        assert_eq!(of("req-1"), "req-1");
        for odd in ["", "a b", "é", &"x".repeat(129)] {
            assert!(of(odd).starts_with("0000000000000007-"), "{odd}");
        }
    }

    #[test]
    fn ids_differ_and_a_request_without_a_correlation_id_is_its_own() {
        let ids = RequestIds::new(7);
        let (first, correlation) = ids.of(&HeaderMap::new());
        assert_eq!(first, correlation);
        assert_ne!(ids.of(&HeaderMap::new()).0, first);
    }
}

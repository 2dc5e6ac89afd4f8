//! Replies: what is kept of one, and how it is given again.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use semel_core::Timestamp;
use semel_core::outcome::{Class, Header, Headers, Outcome};
use semel_core::record::Record;

use crate::body::{self, Body};
use crate::config::Rules;
use crate::profile::ReplayStatus;

/// Says that an answer is a replay.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Says when the key is forgotten.
pub const EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");

/// Headers that belong to one answer, one connection or one caller, and are never given again; nor are those that
/// `Connection` names.
const NEVER_REPLAYED: [HeaderName; 18] = [
    header::SET_COOKIE,
    header::DATE,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // The length of a replay is that of its body.
    header::CONTENT_LENGTH,
    header::AGE,
    // Each exchange has an id of its own.
    HeaderName::from_static("x-request-id"),
    REPLAYED,
    EXPIRES,
];

/// Before the name of a header that is kept for behind the body, where it came.
const TRAILER: &str = "semel-trailer-";

/// Whether a header is one that is never given again.
pub fn is_never_replayed(name: &HeaderName) -> bool {
    NEVER_REPLAYED.contains(name)
}

/// What of a reply's headers is kept, in order; a multi-value header stays several.
pub(crate) fn kept_headers(headers: &HeaderMap, allowed: Option<&[HeaderName]>) -> Vec<Header> {
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let is_kept = |name: &HeaderName| {
        !is_never_replayed(name)
            && !name.as_str().starts_with(TRAILER)
            && !named.iter().any(|hop| hop.eq_ignore_ascii_case(name.as_str()))
            // Without its media type a body is another one.
            && allowed.is_none_or(|allowed| allowed.contains(name) || *name == header::CONTENT_TYPE)
    };
    let kept = headers.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| Header {
        name: name.as_str().into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    })
    .collect()
}

/// What is kept of a reply's trailers: they come after the headers, under names of their own.
fn kept_trailers(trailers: &HeaderMap) -> impl Iterator<Item = Header> {
    trailers.iter().filter(|(name, _)| !is_never_replayed(name)).map(|(name, value)| Header {
        name: format!("{TRAILER}{name}").into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    })
}

/// What is kept of a reply: all of it, or that it was done.
pub(crate) fn outcome(
    status: StatusCode,
    headers: &HeaderMap,
    whole: Option<(&Bytes, Option<&HeaderMap>)>,
    rules: &Rules,
) -> Outcome {
    let class =
        if status.is_client_error() || status.is_server_error() { Class::Rejection } else { Class::Success };
    let gone = || Outcome {
        class,
        status: status.as_u16(),
        headers: Headers::default(),
        body: semel_core::outcome::Body::Gone,
    };
    let Some((body, trailers)) = whole else { return gone() };
    let mut kept = kept_headers(headers, rules.replay_headers.as_deref());
    kept.extend(trailers.into_iter().flat_map(kept_trailers));
    let headers = Headers::try_new(kept);
    let outcome =
        headers.and_then(|headers| Outcome::try_new(class, status.as_u16(), headers, body::kept(body)));
    outcome.unwrap_or_else(|invalid| {
        // It was done: better known without its result than not at all.
        tracing::warn!(%invalid, "a reply cannot be kept; it is recorded as done");
        gone()
    })
}

/// The stored outcome as an answer: the same status, headers and body for everybody who asks (L10).
pub(crate) fn replay(record: &Record, outcome: &Outcome, body: &Bytes, rules: &Rules) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let mut trailers = HeaderMap::new();
    let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::OK);
    *response.status_mut() = match rules.replay_status {
        ReplayStatus::Ok if status.is_success() => StatusCode::OK,
        ReplayStatus::Ok | ReplayStatus::Original => status,
    };
    let headers = response.headers_mut();
    headers.reserve(outcome.headers.len() + 2);
    for kept in &outcome.headers {
        let trailer = kept.name.strip_prefix(TRAILER);
        let name = HeaderName::from_bytes(trailer.unwrap_or(&kept.name).as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(kept.value.clone())) {
            if trailer.is_some() { &mut trailers } else { &mut *headers }.append(name, value);
        }
    }
    mark(headers, record, true);
    *response.body_mut() = Body::whole(body.clone(), (!trailers.is_empty()).then_some(trailers));
    response
}

/// Says that the key is settled, until when, and whether the answer is a replay.
pub(crate) fn mark(headers: &mut HeaderMap, record: &Record, replayed: bool) {
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(expires) = record.times().expires.and_then(http_date) {
        headers.insert(EXPIRES, expires);
    }
}

/// A point in the store's time as IMF-fixdate (RFC 9110, section 5.6.7).
pub fn http_date(time: Timestamp) -> Option<HeaderValue> {
    // Past the year 9999 there is no such date.
    let last = Duration::from_secs(253_402_300_799);
    let time = Duration::from_millis(time.as_millis()).min(last);
    HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + time)).ok()
}

/// Whether a reply streams by its nature.
pub(crate) fn is_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return true;
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let is =
        |prefix: &str| essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is("text/event-stream") || is("application/grpc") || is("multipart/x-mixed-replace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_cookie_date_request_ids_and_hop_by_hop_headers_are_not_replayed_and_multi_value_headers_not_joined()
     {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("date", "Sat, 21 Nov 2026 07:00:00 GMT"),
            ("www-authenticate", "Bearer"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("x-request-id", "first"),
            ("location", "/orders/7"),
            ("etag", "\"v1\""),
            ("link", "</a>; rel=next"),
            ("link", "</b>; rel=prev"),
            ("content-type", "application/json"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |allowed: Option<&[HeaderName]>| {
            kept_headers(&headers, allowed).iter().map(|kept| kept.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["location", "etag", "link", "link", "content-type"]);
        let allowed = [header::ETAG, header::SET_COOKIE];
        assert_eq!(
            names(Some(&allowed)),
            ["etag", "content-type"],
            "an allow list cannot allow what never is"
        );
    }

    #[test]
    fn streams_are_known_by_their_media_type() {
        let is = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is_stream(StatusCode::OK, &headers)
        };
        assert!(
            is("text/event-stream") && is("Text/Event-Stream; charset=utf-8") && is("application/grpc+proto")
        );
        assert!(!is("application/json") && !is("text/plain") && !is("text"));
        assert!(is_stream(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new()));
    }
}

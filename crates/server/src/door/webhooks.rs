//! `POST /v1/webhooks/{source}`: takes a partner's events in.
//!
//! The order never changes: how large, which bytes, whose signature, which event, and only then the ledger. Whoever cannot
//! sign learns nothing, and fills nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body as Answer;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use hyper::body::Body;
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::Key;
use semel_webhook::{Delivery, Rejection};

use super::caller::Caller;
use super::refusal::{self, Refusal};
use super::{Doors, Seen, body};
use crate::config::SourceConfig;
use crate::engine::Link;
use crate::forwarded;
use crate::wall;
use crate::webhook::{Arrival, Inbound, Judged, Verdict};

/// What the log calls this door.
pub(super) const ROUTE: &str = "/v1/webhooks/{source}";
const PREFIX: &str = "/v1/webhooks/";

/// The source that a path is for, if it is for one.
pub(super) fn source_of(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// A partner's request.
pub(super) struct Delivered<B> {
    pub(super) source: Arc<Inbound>,
    /// The other end of the connection.
    pub(super) address: IpAddr,
    pub(super) headers: HeaderMap,
    pub(super) body: B,
}

/// Takes a delivery in, durably, and answers as its provider wants it.
pub(super) async fn take<B>(
    doors: &Doors,
    caller: &Caller,
    delivered: Delivered<B>,
    told: &mut HeaderMap,
    seen: &mut Seen,
) -> Result<Response, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Delivered { source: inbound, address, headers, body } = delivered;
    seen.operation = Some(inbound.label().into());
    if let Some(limit) = inbound.limit() {
        limit.admit(told)?;
    }
    let config = inbound.config();
    let body = body::raw(&headers, body, config.body_bytes_max, &doors.stopping).await?;
    let arrival = Arrival {
        link: Link {
            request_id: Some(caller.request_id.clone()),
            correlation_id: Some(caller.correlation_id.clone()),
            traceparent: caller.traceparent.clone(),
            ..Link::default()
        },
        content_type: headers.get(header::CONTENT_TYPE).map(|value| Bytes::copy_from_slice(value.as_bytes())),
        address: forwarded::client(address, &headers, &doors.trusted_proxies),
    };
    let fields: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let delivery = Delivery::new(&fields, &body).from(arrival.address);
    let verified = match config.source.verify(&delivery, wall::now()) {
        Ok(verified) => verified,
        Err(rejection) => {
            inbound.tell_rejected(&rejection, &arrival);
            return Err(rejected(&rejection).into());
        }
    };
    drop(fields);
    // They are slices of the connection's read buffer, which is free for what comes next only without them.
    drop(headers);
    inbound.tell_verified(verified.secret());
    let (engine, observer) = (doors.engine.clone(), doors.observer.clone());
    let work = async move {
        let judged = inbound.take(&engine, verified.events(), &arrival).await?;
        for judged in &judged {
            inbound.tell(&observer, judged, &arrival);
        }
        if judged.iter().any(|judged| inbound.alert_of(judged.verdict).is_some()) {
            engine.alerts().kept(&engine, inbound.config().source.name()).await;
        }
        Ok((inbound, judged))
    };
    let taken = doors.engine.to_its_end(work).await.and_then(|taken| taken);
    let (inbound, judged) = taken.map_err(|error| refusal::engine(&error))?;
    note(seen, &judged);
    answer(inbound.config(), &judged)
}

/// What anybody is told who names a source that is not there.
pub(crate) fn unknown() -> ApiError {
    ApiError::new(ErrorCode::NotFound).with_message("There is no webhook source of that name")
}

/// What a partner is told that is not believed, or that is and says not which event it means. The first learns nothing.
fn rejected(rejection: &Rejection) -> ApiError {
    if !rejection.reason().is_verified() {
        return ErrorCode::SignatureInvalid.into();
    }
    Detail::new(
        rejection.place().unwrap_or("body"),
        rejection.reason().as_str(),
        rejection.reason().to_string(),
    )
    .into()
}

/// What the log line of the request says: of a batch, what it says of the first event.
fn note(seen: &mut Seen, judged: &[Judged]) {
    let Some(first) = judged.first() else { return };
    seen.key = Some(Key::clone(first.request.key()));
    seen.record.clone_from(&first.record);
    seen.is_retry = Some(judged.iter().all(|judged| judged.verdict != Verdict::Accepted));
}

/// What the partner is answered. A duplicate is as good as the first: the event is here.
fn answer(config: &SourceConfig, judged: &[Judged]) -> Result<Response, Refusal> {
    let conflicts = judged.iter().any(|judged| judged.verdict == Verdict::Conflict);
    if conflicts && config.conflict_status != StatusCode::OK {
        let error = ApiError::new(ErrorCode::IdempotencyParameterMismatch)
            .with_message("This event has come before with another body; it is kept for somebody to look at");
        return Err(error.with_status(config.conflict_status.as_u16()).into());
    }
    let wanted = &config.response;
    let mut response = Response::new(Answer::from(wanted.body.clone()));
    *response.status_mut() = wanted.status;
    if let Some(content_type) = &wanted.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_for_one_source_or_for_none() {
        assert_eq!(source_of("/v1/webhooks/xendit"), Some("xendit"));
        for path in ["/v1/webhooks/", "/v1/webhooks", "/v1/webhooks/a/b", "/v1/webhooks/a/", "/v1/claims"] {
            assert_eq!(source_of(path), None, "{path}");
        }
    }
}

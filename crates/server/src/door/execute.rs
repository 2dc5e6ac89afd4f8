//! `POST /v1/idempotency/execute`: run a named operation at most once.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use semel_api::execute::ExecuteRequest;
use semel_api::{Detail, ErrorCode};
use semel_core::Key;
use semel_core::id::AttemptId;
use semel_tower::key;
use semel_tower::prefer::{self, Prefer};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::refusal::{self, Refusal};
use super::{Doors, Seen, body, is_in_progress, reply};
use crate::engine::{Ask, Execution};

/// What is left as it is in a path: RFC 3986's unreserved characters.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The path of this door.
pub(super) const PATH: &str = "/v1/idempotency/execute";

/// Executes what is asked for, and notes what the log says of it.
pub(super) async fn execute<B>(
    doors: &Doors,
    caller: &Caller,
    headers: HeaderMap,
    body: B,
    seen: &mut Seen,
) -> Result<Response, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let prefer = Prefer::of_headers(&headers, doors.wait_max);
    let header_key = key::of_headers(&headers, doors.key_alphabet)?;
    let body = body::json(&headers, body, doors.body_bytes_max, &doors.stopping).await?;
    // They are slices of the connection's read buffer, which is free for what comes next only without them.
    drop(headers);
    let asked: ExecuteRequest<'_> = semel_api::decode(&body)?;
    let field = asked.idempotency_key.as_deref();
    let keyed = |name| {
        let field = field.map(|text| key::of_text(name, text, doors.key_alphabet)).transpose()?;
        key::agreed(header_key.clone(), field.map(|key| (name, key)))
    };
    // Which of its two names it has is looked for only where it is to be named.
    let key = keyed("idempotency_key").or_else(|_| keyed(key_field(&body)))?;
    let attempt_id = asked.attempt_id.as_deref().map(AttemptId::try_new).transpose();
    let ask = Ask {
        tenant: caller.tenant.clone(),
        subject: None,
        key: key.clone(),
        operation: operation_name(&asked.operation)?.to_owned(),
        payload: body.slice_ref(asked.payload.get().as_bytes()),
        attempt_id: attempt_id.map_err(|problem| refusal::invalid(&problem))?,
        correlation_id: caller.correlation_id.clone(),
        request_id: caller.request_id.clone(),
        traceparent: caller.traceparent.clone(),
    };
    seen.operation = Some(asked.operation.as_ref().into());
    seen.key = Some(key.clone());
    run(doors, ask, prefer, &key, seen).await
}

/// Under which of its two names the key stands in this body.
fn key_field(body: &[u8]) -> &'static str {
    #[derive(serde::Deserialize)]
    struct Camel<'a> {
        #[serde(borrow, rename = "idempotencyKey")]
        _key: &'a RawValue,
    }
    serde_json::from_slice::<Camel<'_>>(body).map_or("idempotency_key", |_| "idempotencyKey")
}

/// What any method but POST is told.
pub(super) fn other_method() -> Refusal {
    Refusal::from(ErrorCode::MethodNotAllowed).with_header(header::ALLOW, HeaderValue::from_static("POST"))
}

/// An operation's name is looked up, never stored or shown, before it is known to be one.
fn operation_name(name: &str) -> Result<&str, Refusal> {
    if name.is_empty() {
        return Err(Detail::new("operation", "value", "must not be empty").into());
    }
    Ok(name)
}

async fn run(
    doors: &Doors,
    ask: Ask,
    prefer: Prefer,
    key: &Key,
    seen: &mut Seen,
) -> Result<Response, Refusal> {
    let answered =
        if prefer.respond_async { doors.engine.submit(ask).await } else { doors.engine.execute(ask).await };
    let execution = answered.map_err(|error| refusal::engine(&error))?;
    seen.is(execution.record());
    seen.is_retry = Some(execution.is_duplicate());
    let Execution::Processing { record, retry_after, fresh } = &execution else {
        return reply::execution(&execution);
    };
    let waits = prefer.wait.filter(|wait| !wait.is_zero());
    let settled = match waits {
        // If it is gone (released and forgotten, or expired), asking again tells.
        Some(wait) => doors.wait(record, wait).await?.filter(|record| !is_in_progress(record)),
        None => None,
    };
    let Some(settled) = settled else { return Ok(accepted(*retry_after, prefer, key)) };
    seen.is(&settled);
    reply::with_applied(reply::record(&settled, !fresh), prefer::applied(false, waits))
}

/// 202, where to look, and which preferences led here.
fn accepted(retry_after: Duration, prefer: Prefer, key: &Key) -> Response {
    let mut response = reply::processing(retry_after);
    let headers = response.headers_mut();
    let location = format!("{}{}", super::executions::PREFIX, utf8_percent_encode(key.as_str(), IN_PATH));
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(applied) = prefer::applied(prefer.respond_async, prefer.wait) {
        headers.insert(prefer::APPLIED, applied);
    }
    response
}

//! Answers: what became of an execution, as a client reads it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use semel_api::{ApiError, Content, Detail, ErrorCode, Json};
use semel_core::outcome::{Class, Outcome};
use semel_core::record::{Record, State};
use semel_tower::prefer;
pub(crate) use semel_tower::reply::{EXPIRES, REPLAYED, http_date};

use super::refusal::Refusal;
use crate::engine::Execution;

/// When to ask again for something that is being done, if nobody knows better.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What became of an execution.
pub(crate) fn execution(execution: &Execution) -> Result<Response, Refusal> {
    match execution {
        Execution::Completed { record, said: Some(said), .. } => match record.outcome() {
            Some(outcome) => completed(record, outcome, Some(said), false),
            None => Err(ErrorCode::Internal.into()),
        },
        Execution::Completed { record, replayed, said: None } => self::record(record, *replayed),
        Execution::Processing { retry_after, .. } => Ok(processing(*retry_after)),
        Execution::Unknown { fresh: Some(status), .. } => {
            Err(ApiError::new(ErrorCode::OutcomeUnknown).with_status(status.as_u16()).into())
        }
        Execution::Unknown { fresh: None, .. } => Err(ErrorCode::IdempotencyOutcomeUnknown.into()),
        Execution::Retryable { retry_after, .. } => Err(ApiError::new(ErrorCode::OutcomeUnknown)
            .with_status(503)
            .with_message(
                "The target gave no answer that can be relied on; a retry goes on with the same key there",
            )
            .with_retry_after(*retry_after)
            .into()),
        Execution::NotExecuted { retry_after, .. } => Err(not_executed(*retry_after).into()),
        Execution::Mismatch { .. } => Err(ErrorCode::IdempotencyParameterMismatch.into()),
        Execution::Dead { .. } => Err(ErrorCode::OperationDead.into()),
    }
}

/// Where a record stands, for somebody who has waited for it or asks for it.
pub(crate) fn record(record: &Record, replayed: bool) -> Result<Response, Refusal> {
    match record.state() {
        State::Completed { outcome } => completed(record, outcome, None, replayed),
        State::Pending { .. } | State::Running { .. } => Ok(processing(ASK_AGAIN)),
        State::Released { .. } => Err(not_executed(ASK_AGAIN).into()),
        State::Unknown { .. } => Err(ErrorCode::IdempotencyOutcomeUnknown.into()),
        State::Dead { .. } => Err(ErrorCode::OperationDead.into()),
    }
}

/// Says which preferences were honoured, beside any answer.
pub(crate) fn with_applied(
    answer: Result<Response, Refusal>,
    applied: Option<HeaderValue>,
) -> Result<Response, Refusal> {
    let Some(applied) = applied else { return answer };
    match answer {
        Ok(mut response) => {
            response.headers_mut().insert(prefer::APPLIED, applied);
            Ok(response)
        }
        Err(refusal) => Err(refusal.with_header(prefer::APPLIED, applied)),
    }
}

fn not_executed(retry_after: Duration) -> ApiError {
    ApiError::new(ErrorCode::TargetUnavailable).with_retry_after(retry_after)
}

/// 202: somebody is at it.
pub(crate) fn processing(retry_after: Duration) -> Response {
    let mut response = json(StatusCode::ACCEPTED, Bytes::from_static(br#"{"status":"processing"}"#));
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The same bytes for the first who asks and for everybody after (L10): all of it follows from the stored outcome. Only
/// what is too large to be kept is for the first alone, as it was `said`.
fn completed(
    record: &Record,
    outcome: &Outcome,
    said: Option<&Bytes>,
    replayed: bool,
) -> Result<Response, Refusal> {
    let mut headers = kept(record, outcome);
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    let refuse = |error: ApiError, headers| Err(Refusal::outcome(error, headers));
    let content_type = outcome.headers.get("content-type").and_then(|value| std::str::from_utf8(value).ok());
    let body = match (&outcome.body, said, outcome.class) {
        (_, _, Class::Discarded) => return refuse(ErrorCode::OperationDiscarded.into(), headers),
        (semel_core::outcome::Body::Gone, None, Class::Success | Class::Rejection) => {
            return refuse(ErrorCode::IdempotencyResultGone.into(), headers);
        }
        (semel_core::outcome::Body::Kept(body), _, Class::Success | Class::Rejection) => body,
        (semel_core::outcome::Body::Gone, Some(said), Class::Success | Class::Rejection) => said,
    };
    if outcome.class == Class::Rejection {
        let detail = Detail::rejected(outcome.status, result(content_type, body));
        let error = ApiError::new(ErrorCode::OperationRejected).with_status(outcome.status);
        return refuse(error.with_detail(detail), headers);
    }
    let wrapped;
    let result = if let Some(json) = Content::as_json(content_type, body) {
        json
    } else {
        wrapped = result(content_type, body);
        wrapped.as_ref().map_or("null", Json::as_str)
    };
    let mut text = BytesMut::with_capacity(result.len() + 40);
    text.put_slice(br#"{"status":"completed","result":"#);
    text.put_slice(result.as_bytes());
    text.put_u8(b'}');
    let text = match said {
        Some(said) => Bytes::from_owner(Passed { text: text.freeze(), _room: said.clone() }),
        None => text.freeze(),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = Response::new(Body::from(text));
    *response.headers_mut() = headers;
    Ok(response)
}

/// An answer that is only passed on: what was said takes up its room until the client has it.
struct Passed {
    text: Bytes,
    _room: Bytes,
}

impl AsRef<[u8]> for Passed {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// What the target said, where JSON stands: `null` for nothing at all.
fn result(content_type: Option<&str>, body: &Bytes) -> Option<Json> {
    if body.is_empty() { None } else { Content::json_or_base64(content_type, body) }
}

/// The outcome's headers but its content type, which is that of a part of our body; and when the key is forgotten.
fn kept(record: &Record, outcome: &Outcome) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(outcome.headers.len() + 4);
    for kept in outcome.headers.iter().filter(|header| &*header.name != "content-type") {
        let name = HeaderName::from_bytes(kept.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(kept.value.clone())) {
            headers.append(name, value);
        }
    }
    if let Some(expires) = record.times().expires.and_then(http_date) {
        headers.insert(EXPIRES, expires);
    }
    headers
}

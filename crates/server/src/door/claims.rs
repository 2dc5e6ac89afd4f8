//! The Claims API: claim a key, do the work yourself, complete it. What holds the claim is its token; whoever has it
//! may say what became of the attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use semel_api::claims::{
    CheckpointRequest, CheckpointView, ClaimGranted, ClaimReplayed, ClaimRequest, ClaimStatus, ClaimView,
    CompleteRequest, ExtendRequest, HeldReply, OutcomeBody, OutcomeClass, ReleaseRequest, Semantics,
};
use semel_api::{ApiError, Detail, ErrorCode, Json, Time};
use semel_core::command::{AddCheckpoint, Claim, Claimed, Complete, Extend, Held, Release};
use semel_core::id::{AttemptId, Holder, Namespace, Phase, Scope, Tag, TagName, TagValue};
use semel_core::limits::TAGS_MAX;
use semel_core::outcome::{Body, Class, Header, Headers, Outcome};
use semel_core::policy::{OnLapse, Policy};
use semel_core::record::{Checkpoint, Record, Text};
use semel_core::request::Fingerprint;
use semel_core::{Operation, RecordId, Request as Asked, Token};
use semel_tower::key;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::Caller;
use super::refusal::{self, Refusal};
use super::{Doors, Seen, body, reply};
use crate::engine::{self, Link};

/// The version of fingerprints that clients bring: never that of an algorithm of ours, so that the two are never
/// taken for each other.
const CLIENTS_FINGERPRINT: u8 = 255;

pub(super) async fn claim(State(doors): State<Doors>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().ok_or(ErrorCode::Internal)?;
    let header_key = key::of_headers(&parts.headers, doors.key_alphabet)?;
    let body = body::json(&parts.headers, body, doors.body_bytes_max, &doors.stopping).await?;
    let wanted: ClaimRequest = semel_api::decode(&body)?;
    let field =
        wanted.key.as_deref().map(|text| key::of_text("key", text, doors.key_alphabet)).transpose()?;
    let key = key::agreed(header_key, field.map(|key| ("key", key))).map_err(|error| match error.code() {
        ErrorCode::IdempotencyKeyRequired => {
            error.with_message("This request needs a `key`, or an Idempotency-Key header")
        }
        _ => error,
    })?;
    let scope = Scope { namespace: Namespace::Execute, tenant: caller.tenant.clone(), subject: None };
    let operation = Operation::try_new(&wanted.operation).map_err(|problem| refusal::invalid(&problem))?;
    let fingerprint = fingerprint(&wanted)?;
    // What is configured for the operation holds for whoever runs it, unless the request says otherwise.
    let payload = wanted.payload.as_ref().map(|payload| payload.as_str().as_bytes());
    let configured = doors.engine.configured(&wanted.operation, payload);
    let (usual, configured_tags) = configured.unwrap_or_else(|| (doors.claims, Vec::new()));
    let policy = policy(&wanted, usual)?;
    if policy.on_lapse() == OnLapse::AtMostOnce && !doors.at_most_once {
        let message = "this server's store may lose claims in a failover, so it does not promise at_most_once; use resume";
        return Err(Detail::new("policy.semantics", "value", message).into());
    }
    let tags = tags(&wanted.tags, configured_tags)?;
    let asked = Asked::new(scope, key.clone(), operation, fingerprint, policy);
    let asked = asked.try_with_tags(tags).map_err(|problem| refusal::invalid(&problem))?;
    let attempt_id = wanted.attempt_id.as_deref().map(AttemptId::try_new).transpose();
    let attempt_id = attempt_id.map_err(|problem| refusal::invalid(&problem))?;
    let operation = Some(wanted.operation.as_str().into());
    let mut seen = Seen { operation, key: Some(key), ..Seen::default() };
    let (engine, observer, link) = (doors.engine.clone(), doors.observer.clone(), link(caller));
    let claimed = doors.engine.to_its_end(async move {
        let sent = Instant::now();
        let claimed = engine.claim(Arc::new(asked), attempt_id).await;
        if let Ok(claimed) = &claimed {
            observer.claim(claimed, sent.elapsed(), &link);
        }
        claimed
    });
    let claimed = claimed.await.map_err(|error| refusal::engine(&error))?;
    let answer = claimed
        .map_err(|error| refusal::engine(&error).into())
        .and_then(|claimed| answer(&claimed.answer, &mut seen));
    Ok(seen.beside(answer))
}

fn answer(claimed: &Claimed, seen: &mut Seen) -> Result<Response, Refusal> {
    seen.is_retry = Some(!matches!(claimed, Claimed::Granted(claim) if claim.attempt() == 1));
    seen.is(match claimed {
        Claimed::Granted(claim) => claim.record(),
        Claimed::Replay(record)
        | Claimed::Busy { record, .. }
        | Claimed::Mismatch(record)
        | Claimed::Unknown(record)
        | Claimed::Dead(record) => record,
    });
    match claimed {
        Claimed::Granted(claim) => {
            let granted = ClaimGranted { status: ClaimStatus::Claimed, claim: view(claim) };
            written(StatusCode::CREATED, &granted)
        }
        Claimed::Replay(record) => replay(record),
        Claimed::Busy { retry_after, .. } => {
            Err(ApiError::new(ErrorCode::IdempotencyConcurrentRequest).with_retry_after(*retry_after).into())
        }
        Claimed::Mismatch(_) => Err(ErrorCode::IdempotencyParameterMismatch.into()),
        Claimed::Unknown(_) => Err(ErrorCode::IdempotencyOutcomeUnknown.into()),
        Claimed::Dead(_) => Err(ErrorCode::OperationDead.into()),
    }
}

fn view(claim: &Claim) -> ClaimView {
    let record = claim.record();
    ClaimView {
        id: record.id().to_string(),
        key: record.request().key().to_string(),
        operation: record.request().operation().to_string(),
        token: claim.holder().token.reveal(),
        fence: claim.fence().0,
        attempt: claim.attempt(),
        resumed: claim.is_tainted(),
        lease_ms: u64::try_from(claim.lease().as_millis()).unwrap_or(u64::MAX),
        lease_until: lease_until(record),
        downstream_key: record.id().downstream_key(None),
        checkpoints: claim.checkpoints().iter().filter_map(checkpoint_view).collect(),
    }
}

fn checkpoint_view(checkpoint: &Checkpoint) -> Option<CheckpointView> {
    let data = semel_api::Content::json_or_base64(None, checkpoint.data())?;
    Some(CheckpointView { phase: checkpoint.phase().to_string(), data })
}

fn replay(record: &Record) -> Result<Response, Refusal> {
    let outcome = record.outcome().ok_or(ErrorCode::Internal)?;
    let mut headers = HeaderMap::new();
    headers.insert(reply::REPLAYED, HeaderValue::from_static("true"));
    if let Some(expires) = record.times().expires.and_then(reply::http_date) {
        headers.insert(reply::EXPIRES, expires);
    }
    let body = match (&outcome.body, outcome.class) {
        (_, Class::Discarded) => {
            return Err(Refusal::outcome(ErrorCode::OperationDiscarded.into(), headers));
        }
        (Body::Gone, Class::Success | Class::Rejection) => {
            return Err(Refusal::outcome(ErrorCode::IdempotencyResultGone.into(), headers));
        }
        (Body::Kept(body), Class::Success | Class::Rejection) => body,
    };
    let class = match outcome.class {
        Class::Success => OutcomeClass::Success,
        Class::Rejection => OutcomeClass::Rejection,
        Class::Discarded => OutcomeClass::Discarded,
    };
    let content_type = outcome.headers.get("content-type").and_then(|value| std::str::from_utf8(value).ok());
    let plain = OutcomeBody { class, status: outcome.status, ..OutcomeBody::default() };
    let outcome = if body.is_empty() { plain } else { plain.with_body(content_type, body) };
    let replayed = ClaimReplayed { status: ClaimStatus::Completed, id: record.id().to_string(), outcome };
    let mut response = written(StatusCode::OK, &replayed)?;
    response.headers_mut().extend(headers);
    Ok(response)
}

fn fingerprint(wanted: &ClaimRequest) -> Result<Fingerprint, Refusal> {
    match (&wanted.payload, &wanted.fingerprint) {
        (Some(payload), None) => Ok(engine::fingerprint(&wanted.operation, payload.as_str().as_bytes())),
        (None, Some(text)) => {
            let digest = hex_32(text).ok_or_else(|| {
                Detail::new("fingerprint", "value", "must be 64 hexadecimal digits (a 256-bit digest)")
            })?;
            Ok(Fingerprint { version: CLIENTS_FINGERPRINT, digest })
        }
        (Some(_), Some(_)) => {
            Err(Detail::new("fingerprint", "conflict", "must not be given together with payload").into())
        }
        (None, None) => {
            Err(Detail::new("payload", "missing", "is missing; give it or its fingerprint").into())
        }
    }
}

fn hex_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn policy(wanted: &ClaimRequest, usual: Policy) -> Result<Policy, Refusal> {
    let given = wanted.policy.clone().unwrap_or_default();
    let lease = wanted.lease_ms.map_or(usual.lease(), Duration::from_millis);
    let retention = given.retention_ms.map_or(usual.retention(), Duration::from_millis);
    let on_lapse = match given.semantics {
        Some(Semantics::AtMostOnce) => OnLapse::AtMostOnce,
        Some(Semantics::Resume) => OnLapse::Resume,
        None => usual.on_lapse(),
    };
    Policy::try_new(lease, retention, on_lapse, usual.keep(), usual.retry()).map_err(|problem| {
        let field = if problem.what() == "lease" { "lease_ms" } else { "policy.retention_ms" };
        Detail::new(field, "value", problem.to_string()).into()
    })
}

/// The request's own tags, and of the configured ones those that it does not name itself, as far as there is room: they
/// are for finding, and no reason to refuse.
fn tags(given: &BTreeMap<String, String>, configured: Vec<Tag>) -> Result<Vec<Tag>, Refusal> {
    let tag = |(name, value): (&String, &String)| {
        let tag =
            TagName::try_new(name).and_then(|name| TagValue::try_new(value).map(|value| Tag { name, value }));
        tag.map_err(|problem| {
            Refusal::from(Detail::new(format!("tags.{name}"), "value", problem.to_string()))
        })
    };
    let mut tags = given.iter().map(tag).collect::<Result<Vec<_>, _>>()?;
    let room = TAGS_MAX.saturating_sub(tags.len());
    let others = configured.into_iter().filter(|tag| !given.contains_key(tag.name.as_str()));
    tags.extend(others.take(room));
    Ok(tags)
}

/// What links what a request causes to it.
fn link(caller: &Caller) -> Link {
    Link {
        request_id: Some(Arc::clone(&caller.request_id)),
        correlation_id: Some(Arc::clone(&caller.correlation_id)),
        traceparent: caller.traceparent.clone(),
        ..Link::default()
    }
}

/// A command of a holder: its id from the path, its token and the rest from the body.
struct HeldCommand<T> {
    link: Link,
    id: RecordId,
    body: T,
}

async fn read<T: DeserializeOwned>(
    doors: &Doors,
    id: &str,
    request: Request,
) -> Result<HeldCommand<T>, Refusal> {
    let id = RecordId::parse(id).ok_or(ErrorCode::NotFound)?;
    let (parts, body) = request.into_parts();
    let link = link(parts.extensions.get::<Caller>().ok_or(ErrorCode::Internal)?);
    let body = body::json(&parts.headers, body, doors.body_bytes_max, &doors.stopping).await?;
    Ok(HeldCommand { link, id, body: semel_api::decode(&body)? })
}

/// The holder that a token names. One that is no token at all is a typing error, not a lost claim.
fn holder(id: RecordId, token: &str) -> Result<Holder, Refusal> {
    let token = Token::parse(token)
        .ok_or_else(|| Detail::new("token", "value", "must be the 32 hexadecimal digits of a claim"))?;
    Ok(Holder { id, token })
}

/// Runs a holder's command to its end and says what became of it.
async fn settle<C>(doors: &Doors, link: Link, command: C) -> Result<Response, Refusal>
where
    C: semel_core::command::Command<Answer = Held> + 'static,
{
    let mut seen = Seen::default();
    let engine = doors.engine.clone();
    let observer = doors.observer.clone();
    let held = doors.engine.to_its_end(async move {
        let held = engine.ledger().apply_told(&command).await;
        if let Ok(held) = &held {
            observer.held(command.id(), held, &link);
        }
        held
    });
    let held = held.await.map_err(|error| refusal::engine(&error))?;
    let answer = match held.map(|held| held.answer) {
        Ok(Held::Done(record)) => {
            seen.is(&record);
            written(StatusCode::OK, &held_reply(&record))
        }
        Ok(Held::Fenced(_)) => Err(ErrorCode::IdempotencyFenced.into()),
        Ok(Held::Illegal(_, why)) => {
            let why = Detail::new("state", "illegal", why);
            Err(ApiError::new(ErrorCode::IllegalTransition).with_detail(why).into())
        }
        Err(error) => Err(refusal::engine(&error.into()).into()),
    };
    Ok(seen.beside(answer))
}

pub(super) async fn extend(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let HeldCommand { link, id, body } = read::<ExtendRequest>(&doors, &id, request).await?;
    settle(&doors, link, Extend { holder: holder(id, &body.token)? }).await
}

pub(super) async fn checkpoint(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let HeldCommand { link, id, body } = read::<CheckpointRequest>(&doors, &id, request).await?;
    let phase = Phase::try_new(&body.phase).map_err(|problem| refusal::invalid(&problem))?;
    let data = body.data.as_ref().map_or("null", Json::as_str);
    let data = Bytes::copy_from_slice(data.as_bytes());
    let checkpoint = Checkpoint::try_new(phase, data).map_err(|problem| refusal::invalid(&problem))?;
    settle(&doors, link, AddCheckpoint { holder: holder(id, &body.token)?, checkpoint }).await
}

pub(super) async fn complete(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let HeldCommand { link, id, body } = read::<CompleteRequest>(&doors, &id, request).await?;
    let outcome = outcome(&body.outcome)?;
    settle(&doors, link, Complete { holder: holder(id, &body.token)?, outcome }).await
}

pub(super) async fn release(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let HeldCommand { link, id, body } = read::<ReleaseRequest>(&doors, &id, request).await?;
    let error = Text::new(body.error.as_deref().unwrap_or("released by its holder"));
    settle(&doors, link, Release { holder: holder(id, &body.token)?, error }).await
}

/// What somebody says that an operation gave.
pub(crate) fn outcome(given: &OutcomeBody) -> Result<Outcome, ApiError> {
    let class = match given.class {
        OutcomeClass::Success => Class::Success,
        OutcomeClass::Rejection => Class::Rejection,
        OutcomeClass::Discarded => {
            return Err(Detail::new("outcome.class", "value", "must be success or rejection").into());
        }
    };
    let conflict = |message| Err(Detail::new("outcome", "conflict", message).into());
    let (content_type, body) = match (&given.result, &given.body_base64) {
        (Some(_), Some(_)) => return conflict("must have result or body_base64, not both"),
        (Some(result), None) => {
            (Some("application/json"), Bytes::copy_from_slice(result.as_str().as_bytes()))
        }
        (None, Some(body)) => {
            let content_type = given.content_type.as_deref();
            (Some(content_type.unwrap_or("application/octet-stream")), Bytes::copy_from_slice(body))
        }
        (None, None) => (None, Bytes::new()),
    };
    if given.gone && content_type.is_some() {
        return conflict("cannot be gone and have a body");
    }
    if given.content_type.is_some() && given.body_base64.is_none() {
        return conflict("has a content_type without body_base64");
    }
    let headers = content_type.map(|value| {
        HeaderValue::from_str(value)
            .map(|value| Header {
                name: header::CONTENT_TYPE.as_str().into(),
                value: Bytes::copy_from_slice(value.as_bytes()),
            })
            .map_err(|_| Detail::new("outcome.content_type", "value", "must be a media type"))
    });
    let headers = headers.transpose()?.into_iter().collect();
    let invalid = |problem: semel_core::Invalid| refusal::invalid(&problem).below("outcome");
    let headers = Headers::try_new(headers).map_err(invalid)?;
    let outcome = if given.gone {
        Outcome::try_without_body(class, given.status, headers)
    } else {
        Outcome::try_new(class, given.status, headers, body)
    };
    outcome.map_err(invalid)
}

fn held_reply(record: &Record) -> HeldReply {
    HeldReply {
        id: record.id().to_string(),
        state: record.state().name().as_str().to_owned(),
        version: record.version().to_string(),
        lease_until: lease_until(record),
    }
}

fn lease_until(record: &Record) -> Option<Time> {
    record.times().wake.map(|until| Time::from_millis(until.as_millis()))
}

fn written(status: StatusCode, body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(body).map_err(|_| ErrorCode::Internal)?;
    Ok(reply::json(status, body.into()))
}

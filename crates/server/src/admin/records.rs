//! `/v1/records`: list, show, and an operator's commands on one record.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::{Extension, extract::Request};
use http::StatusCode;
use semel_api::limits::REASON_BYTES_MAX;
use semel_api::records::{JudgeReply, JudgeRequest, RecordPage, Resolution as Said, ResolveRequest};
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::command::{Command, Discard, Judged, Resolution, Resolve, Revive};
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::query::Summary;
use semel_core::record::Text;
use semel_core::{Record, RecordId, StoreError, Version};

use super::access::Operator;
use super::filter::{self, Parameters};
use super::{Admin, Ids, body_of, cursor, json, view};
use crate::door::{self, Refusal};
use crate::limits::RETRY_AFTER_STORAGE;
use crate::telemetry::logs;

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &filter::RECORDS)?;
    let page = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    let query = filter::records(&mut parameters)?;
    let page = admin.store.search(query, from, page).await.map_err(|error| storage(&error))?;
    let records = page.items.iter().map(view::summary).collect();
    json(StatusCode::OK, &RecordPage { records, next: page.next.as_ref().map(cursor::write) })
}

pub(super) async fn show(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let record = admin.ledger.load(record_id(&id)?).await.map_err(|error| ledger(&error))?;
    let record = record.ok_or(ErrorCode::NotFound)?;
    json(StatusCode::OK, &view::detail(&record, operator.role))
}

pub(super) async fn resolve(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Extension(ids): Extension<Ids>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    operator.may_operate()?;
    let id = record_id(&id)?;
    let body = body_of(&admin, request).await?;
    let wanted: ResolveRequest = semel_api::decode(&body)?;
    let resolve = Resolve {
        id,
        version: version(&wanted.version)?,
        resolution: resolution(wanted.resolution, wanted.outcome.as_ref())?,
        actor: Text::new(&operator.actor),
        reason: reason(&wanted.reason)?,
        correlation_id: Some(Text::new(&ids.correlation_id)),
    };
    one(&admin, &ids, resolve).await
}

pub(super) async fn revive(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Extension(ids): Extension<Ids>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    operator.may_operate()?;
    let id = record_id(&id)?;
    let (version, reason) = judgement(&body_of(&admin, request).await?)?;
    let actor = Text::new(&operator.actor);
    let correlation_id = Some(Text::new(&ids.correlation_id));
    one(&admin, &ids, Revive { id, version, actor, reason, correlation_id }).await
}

pub(super) async fn discard(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Extension(ids): Extension<Ids>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    operator.may_operate()?;
    let id = record_id(&id)?;
    let (version, reason) = judgement(&body_of(&admin, request).await?)?;
    let actor = Text::new(&operator.actor);
    let correlation_id = Some(Text::new(&ids.correlation_id));
    one(&admin, &ids, Discard { id, version, actor, reason, correlation_id }).await
}

/// One command on one record, run to its end whatever becomes of the connection.
async fn one(
    admin: &Admin,
    ids: &Ids,
    command: impl Command<Answer = Judged> + 'static,
) -> Result<Response, Refusal> {
    let (admin, ids) = (admin.clone(), ids.clone());
    let judged = door::detached(async move { judge(&admin, &ids, &command).await }).await??;
    json(StatusCode::OK, &JudgeReply { record: view::summary(&Summary::of(&judged)) })
}

/// Applies an operator's command.
///
/// # Errors
/// The record is gone, has changed, or is in no state for it; or the store does not answer.
pub(super) async fn judge(
    admin: &Admin,
    ids: &Ids,
    command: &impl Command<Answer = Judged>,
) -> Result<Arc<Record>, ApiError> {
    match admin.ledger.apply(command).await {
        Ok(Judged::Done(record)) => {
            logs::state_change(None, &record, Some(&ids.request_id), Some(&ids.correlation_id));
            Ok(record)
        }
        Ok(Judged::NotFound) => Err(ErrorCode::NotFound.into()),
        Ok(Judged::VersionConflict(record)) => {
            let now = format!("is {} now", record.version());
            Err(ApiError::new(ErrorCode::VersionConflict)
                .with_detail(Detail::new("version", "conflict", now)))
        }
        Ok(Judged::Illegal(record, why)) => {
            let now = format!("is {}: {why}", record.state().name().as_str());
            Err(ApiError::new(ErrorCode::IllegalTransition).with_detail(Detail::new("state", "illegal", now)))
        }
        Err(error) => Err(ledger(&error)),
    }
}

fn judgement(body: &[u8]) -> Result<(Version, Text), ApiError> {
    let wanted: JudgeRequest = semel_api::decode(body)?;
    Ok((version(&wanted.version)?, reason(&wanted.reason)?))
}

pub(super) fn resolution(
    said: Said,
    outcome: Option<&semel_api::claims::OutcomeBody>,
) -> Result<Resolution, ApiError> {
    match (said, outcome) {
        (Said::Completed, Some(outcome)) => door::given_outcome(outcome).map(Resolution::Completed),
        (Said::Completed, None) => {
            door::given_outcome(&semel_api::claims::OutcomeBody::default()).map(Resolution::Completed)
        }
        (Said::NotExecuted, None) => Ok(Resolution::NotExecuted),
        (Said::NotExecuted, Some(_)) => {
            Err(Detail::new("outcome", "value", "goes with the resolution completed").into())
        }
    }
}

fn version(text: &str) -> Result<Version, ApiError> {
    let wrong = || Detail::new("version", "value", "must be fence.sequence, as the record has it").into();
    Version::parse(text).ok_or_else(wrong)
}

/// A reason that says something. It is cut nowhere, so that the audit log has what was said.
pub(super) fn reason(text: &str) -> Result<Text, ApiError> {
    if text.trim().is_empty() {
        return Err(Detail::new("reason", "missing", "must say why").into());
    }
    if text.len() > REASON_BYTES_MAX {
        let message = format!("must have at most {REASON_BYTES_MAX} bytes");
        return Err(Detail::new("reason", "value", message).into());
    }
    Ok(Text::new(text))
}

/// A text that is no id is the id of nothing.
fn record_id(text: &str) -> Result<RecordId, ApiError> {
    RecordId::parse(text).ok_or_else(|| ErrorCode::NotFound.into())
}

/// What a store that does not answer means for an operator; what lies behind it goes into the log.
pub(super) fn storage(error: &StoreError) -> ApiError {
    tracing::error!(%error, source = source(error), "the store has no answer for an operator");
    ApiError::new(ErrorCode::IdempotencyStorageUnavailable).with_retry_after(RETRY_AFTER_STORAGE)
}

fn ledger(error: &LedgerError) -> ApiError {
    tracing::error!(%error, source = source(error), "a command of an operator has no answer");
    match error.kind() {
        LedgerErrorKind::Unavailable | LedgerErrorKind::InDoubt | LedgerErrorKind::Contended => {
            ApiError::new(ErrorCode::IdempotencyStorageUnavailable).with_retry_after(RETRY_AFTER_STORAGE)
        }
        LedgerErrorKind::TooLarge => ErrorCode::PayloadTooLarge.into(),
        // The record cannot be read, and waiting does not mend it.
        LedgerErrorKind::Corrupt => ErrorCode::Internal.into(),
    }
}

fn source(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(ToString::to_string)
}

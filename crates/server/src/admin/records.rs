//! `/v1/records`: list, show, and an operator's commands on one record.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use semel_api::records::{JudgeReply, JudgeRequest, RecordPage, Resolution as Said, ResolveRequest};
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::command::Resolution;
use semel_core::error::StoreErrorKind;
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::query::Summary;
use semel_core::{RecordId, StoreError, Version};

use super::access::Operator;
use super::filter::{self, Parameters};
use super::judge::{self, Judge, What};
use super::{Admin, cursor, json, lapsed, view};
use crate::door::{self, Refusal};
use crate::limits::RETRY_AFTER_STORAGE;

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &filter::RECORDS)?;
    let page = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    let undriven = parameters.lapsed()?;
    let query = filter::records(&mut parameters)?;
    let page = if undriven {
        lapsed::page(&*admin.store, query, from, page).await
    } else {
        admin.store.search(query, from, page).await
    };
    let page = page.map_err(|error| storage(&error))?;
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

pub(super) async fn resolve(Path(id): Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: ResolveRequest = judge.read()?;
    let what = What::Resolve(resolution(wanted.resolution, wanted.outcome.as_ref())?);
    one(judge, &id, what, &wanted.version, &wanted.reason).await
}

pub(super) async fn revive(Path(id): Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: JudgeRequest = judge.read()?;
    one(judge, &id, What::Revive { force: false }, &wanted.version, &wanted.reason).await
}

pub(super) async fn discard(Path(id): Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: JudgeRequest = judge.read()?;
    one(judge, &id, What::Discard, &wanted.version, &wanted.reason).await
}

/// One command on one record, run to its end whatever becomes of the connection.
async fn one(judge: Judge, id: &str, what: What, version: &str, reason: &str) -> Result<Response, Refusal> {
    let (id, version, reason) = (record_id(id)?, self::version(version)?, judge::reason(reason)?);
    let judged = door::detached(async move { judge.apply(&what, id, version, reason).await }).await??;
    json(StatusCode::OK, &JudgeReply { record: view::summary(&Summary::of(&judged)) })
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

pub(super) fn version(text: &str) -> Result<Version, ApiError> {
    let wrong = || Detail::new("version", "value", "must be fence.sequence, as the record has it").into();
    Version::parse(text).ok_or_else(wrong)
}

/// A text that is no id is the id of nothing.
pub(super) fn record_id(text: &str) -> Result<RecordId, ApiError> {
    RecordId::parse(text).ok_or_else(|| ErrorCode::NotFound.into())
}

/// What a store that does not answer means for an operator; what lies behind it goes into the log.
pub(crate) fn storage(error: &StoreError) -> ApiError {
    tracing::error!(%error, source = source(error), "the store has no answer for an operator");
    // What cannot be read is not mended by waiting.
    if error.kind() == StoreErrorKind::Corrupt {
        return ErrorCode::Internal.into();
    }
    ApiError::new(ErrorCode::IdempotencyStorageUnavailable).with_retry_after(RETRY_AFTER_STORAGE)
}

pub(super) fn ledger(error: &LedgerError) -> ApiError {
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

//! The bulk forms: one command on all records that match, a part at a time.
//!
//! A request works on as many records as its limit says and answers where to go on, so that whoever sends it can show
//! how far it is, and stop. The place is a cursor: records that the command has changed do not move it.

use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use semel_api::limits::{BULK_DEFAULT, BULK_FAILURES_MAX, BULK_MAX, PAGE_MAX, PREVIEW_MAX};
use semel_api::records::{BulkFailure, BulkFilter, BulkReply, BulkRequest, BulkResolveRequest};
use semel_api::{ApiError, Detail};
use semel_core::query::Query;
use semel_core::record::Text;
use semel_core::{RecordId, Version};

use super::judge::{self, Judge, What};
use super::{Admin, cursor, filter, json, records};
use crate::door::Refusal;
use crate::limits::BULK_AT_ONCE;

pub(super) async fn revive(judge: Judge) -> Result<Response, Refusal> {
    let asked = judge.read()?;
    run(judge, asked, What::Revive { force: false }).await
}

pub(super) async fn discard(judge: Judge) -> Result<Response, Refusal> {
    let asked = judge.read()?;
    run(judge, asked, What::Discard).await
}

pub(super) async fn resolve(judge: Judge) -> Result<Response, Refusal> {
    let wanted: BulkResolveRequest = judge.read()?;
    let BulkResolveRequest { filter, dry_run, limit, cursor, resolution, outcome, reason } = wanted;
    let resolution = records::resolution(resolution, outcome.as_ref())?;
    let asked = BulkRequest { filter, dry_run, limit, cursor, reason };
    run(judge, asked, What::Resolve(resolution)).await
}

async fn run(judge: Judge, asked: BulkRequest, what: What) -> Result<Response, Refusal> {
    let query = query(&asked.filter, &what)?;
    let limit = match asked.limit {
        None => BULK_DEFAULT,
        Some(limit) if (1..=BULK_MAX).contains(&limit) => limit,
        Some(_) => {
            return Err(Detail::new("limit", "value", format!("must be from 1 to {BULK_MAX}")).into());
        }
    };
    let from = asked.cursor.as_deref().map(cursor::read).transpose()?;
    let reply = if asked.dry_run {
        preview(&judge.admin, query, from).await?
    } else {
        let job = Job { reason: judge::reason(&asked.reason)?, judge, what };
        crate::door::detached(async move { job.change(query, from, limit as usize).await }).await??
    };
    json(StatusCode::OK, &reply)
}

/// The filter, held to the states that the command can change.
fn query(filter: &BulkFilter, what: &What) -> Result<Query, ApiError> {
    if filter::says_nothing(filter) {
        return Err(Detail::new("filter", "missing", "must have at least one condition").into());
    }
    let mut query = filter::query(filter).map_err(|error| error.below("filter"))?;
    let possible = what.states();
    if query.states.is_empty() {
        query.states = possible.to_vec();
    } else {
        query.states.retain(|state| possible.contains(state));
        if query.states.is_empty() {
            let known: Vec<&str> = possible.iter().map(|state| state.as_str()).collect();
            let message = format!("must have one of {}", known.join(", "));
            let field = if filter.state.is_empty() { "filter.states" } else { "filter.state" };
            return Err(Detail::new(field, "value", message).into());
        }
    }
    Ok(query)
}

async fn preview(
    admin: &Admin,
    query: Query,
    mut from: Option<semel_core::query::Cursor>,
) -> Result<BulkReply, ApiError> {
    let mut reply = BulkReply { dry_run: true, ..BulkReply::default() };
    loop {
        let left = u64::from(PREVIEW_MAX).saturating_sub(reply.matched);
        let page = usize::try_from(left).unwrap_or(usize::MAX).min(PAGE_MAX as usize);
        if page == 0 {
            reply.more = true;
            return Ok(reply);
        }
        let found = admin.store.search(query.clone(), from, page).await;
        let found = found.map_err(|error| records::storage(&error))?;
        reply.matched += found.items.len() as u64;
        from = found.next;
        if from.is_none() {
            return Ok(reply);
        }
    }
}

struct Job {
    judge: Judge,
    reason: Text,
    what: What,
}

impl Job {
    async fn change(
        &self,
        query: Query,
        mut from: Option<semel_core::query::Cursor>,
        limit: usize,
    ) -> Result<BulkReply, ApiError> {
        let mut reply = BulkReply::default();
        let mut left = limit;
        while left > 0 {
            let page = left.min(PAGE_MAX as usize);
            let found = self.judge.admin.store.search(query.clone(), from, page).await;
            let found = found.map_err(|error| records::storage(&error))?;
            left -= found.items.len().min(left);
            // Many at once, so that they share the store's syncs; each is a command of its own.
            let seen: Vec<_> = found.items.iter().map(|seen| (seen.id, seen.version)).collect();
            let changes = seen.into_iter().map(|(id, version)| self.one(id, version));
            let mut changes = stream::iter(changes).buffered(BULK_AT_ONCE);
            while let Some((id, changed)) = changes.next().await {
                reply.matched += 1;
                match changed {
                    Ok(()) => reply.changed += 1,
                    Err(error) => {
                        reply.failed += 1;
                        if reply.failures.len() < BULK_FAILURES_MAX {
                            reply.failures.push(failure(id, &error));
                        }
                    }
                }
            }
            from = found.next;
            if from.is_none() || self.judge.admin.is_stopping() {
                break;
            }
        }
        reply.more = from.is_some();
        reply.next = from.as_ref().map(cursor::write);
        Ok(reply)
    }

    async fn one(&self, id: RecordId, version: Version) -> (RecordId, Result<(), ApiError>) {
        let done = self.judge.apply(&self.what, id, version, self.reason.clone()).await;
        (id, done.map(|_| ()))
    }
}

pub(super) fn failure(id: RecordId, error: &ApiError) -> BulkFailure {
    let detail = error.details().first().map(|detail| format!(" ({} {})", detail.field, detail.message));
    BulkFailure {
        id: id.to_string(),
        code: error.code().as_str().to_owned(),
        message: format!("{}{}", error.message(), detail.unwrap_or_default()),
    }
}

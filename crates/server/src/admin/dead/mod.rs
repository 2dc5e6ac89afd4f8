//! `/v1/dead`: dead letters. What died, of what, and what becomes of it.
//!
//! Rooms: `select` which ones, from the wire · `groups` by what they died of · `tries` what was tried · `one` commands on
//! one, a repetition of what is completed included · `many` commands on all that match, at a pace.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use semel_api::ErrorCode;
use semel_api::dead::{DeadDetail, DeadLetter, DeadPage};
use semel_api::limits::{DEAD_GROUPS_DEFAULT, DEAD_GROUPS_MAX};
use semel_core::query::Summary;
use semel_core::record::StateName;

use super::access::Operator;
use super::filter::Parameters;
use super::{Admin, cursor, json, records, view};
use crate::door::Refusal;

mod groups;
mod many;
mod one;
mod select;
mod tries;

pub(super) use many::{discard as discard_many, revive as revive_many};
pub(super) use one::{discard, revive};
pub(super) use select::{Kind, tag_of};
pub(super) use tries::RESPONSE;

use select::Selection;

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &select::PARAMETERS)?;
    let page = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    let selection = Selection::of_parameters(&mut parameters)?;
    let page = selection.page(&*admin.store, from, page).await.map_err(|error| records::storage(&error))?;
    let dead = page.items.iter().map(letter).collect();
    json(StatusCode::OK, &DeadPage { dead, next: page.next.as_ref().map(cursor::write) })
}

pub(super) async fn group(
    State(admin): State<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &select::PARAMETERS)?;
    let shown = parameters.number("limit", DEAD_GROUPS_DEFAULT, DEAD_GROUPS_MAX)?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    let selection = Selection::of_parameters(&mut parameters)?;
    let groups = groups::count(&*admin.store, &selection, from, shown).await;
    json(StatusCode::OK, &groups.map_err(|error| records::storage(&error))?)
}

pub(super) async fn show(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = records::record_id(&id)?;
    let record = admin.ledger.load(id).await.map_err(|error| records::ledger(&error))?;
    let record = record.ok_or(ErrorCode::NotFound)?;
    let (attempts, attempts_more) = tries::of(&admin, id, operator.role).await?;
    let repeated_by = match record.state().name() {
        StateName::Completed => one::repetition(&admin, &record).await?,
        StateName::Pending
        | StateName::Running
        | StateName::Released
        | StateName::Unknown
        | StateName::Dead => None,
    };
    let tags = record.request().tags();
    let detail = DeadDetail {
        source: tag_of(tags, select::SOURCE).map(str::to_owned),
        target: tag_of(tags, select::TARGET).map(str::to_owned),
        kind: Kind::of(tags).as_str().to_owned(),
        repeated_by: repeated_by.map(|record| record.id().to_string()),
        attempts,
        attempts_more,
        record: view::detail(&record, operator.role),
    };
    json(StatusCode::OK, &detail)
}

/// A dead letter as a listing shows it.
fn letter(summary: &Summary) -> DeadLetter {
    let tag = |name| tag_of(&summary.tags, name).map(str::to_owned);
    DeadLetter {
        record: view::summary(summary),
        source: tag(select::SOURCE),
        target: tag(select::TARGET),
        kind: Kind::of(&summary.tags).as_str().to_owned(),
        error: error_of(summary).to_owned(),
        died_at: view::time(summary.times.written),
    }
}

/// What it died of.
fn error_of(summary: &Summary) -> &str {
    summary.error.as_ref().map_or("", |error| error.as_str())
}

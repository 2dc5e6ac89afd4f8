//! `GET /v1/audit`: who did what to which record.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use semel_api::audit::AuditPage;

use super::access::Operator;
use super::filter::{self, Parameters};
use super::{Admin, cursor, json, records, view};
use crate::door::Refusal;

pub(super) async fn list(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &filter::AUDIT)?;
    let page = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read_audit).transpose()?;
    let query = filter::audit(&mut parameters)?;
    let page = admin.store.audit(query, from, page).await.map_err(|error| records::storage(&error))?;
    let entries = page.items.iter().map(|entry| view::audit_entry(entry, operator.role)).collect();
    json(StatusCode::OK, &AuditPage { entries, next: page.next.map(cursor::write_audit) })
}

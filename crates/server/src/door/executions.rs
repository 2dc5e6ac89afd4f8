//! `GET /v1/idempotency/executions/{key}`: state or result of an execution. Asks and waits; never claims or runs.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use semel_api::{Detail, ErrorCode};
use semel_core::id::{Namespace, RecordId, Scope};
use semel_core::record::StateName;
use semel_tower::key;
use semel_tower::prefer::{self, Prefer};

use super::caller::Caller;
use super::refusal::{self, Refusal};
use super::{Doors, Seen, is_in_progress, reply};

/// What comes before the key in the path.
pub(super) const PREFIX: &str = "/v1/idempotency/executions/";

pub(super) async fn show(State(doors): State<Doors>, request: Request) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().ok_or(ErrorCode::Internal)?;
    let prefer = Prefer::of_headers(&parts.headers, doors.wait_max);
    let raw = parts.uri.path().strip_prefix(PREFIX).ok_or(ErrorCode::NotFound)?;
    let text = percent_decode_str(raw).decode_utf8();
    let text = text.map_err(|_| Detail::new("key", "encoding", "must be UTF-8, percent-encoded"))?;
    let key = key::of_text("key", &text, doors.key_alphabet)?;
    let scope = Scope { namespace: Namespace::Execute, tenant: caller.tenant.clone(), subject: None };
    let id = RecordId::of(&scope, &key);
    let mut seen = Seen { key: Some(key), ..Seen::default() };
    let answer = look(&doors, id, prefer, &mut seen).await;
    Ok(seen.beside(answer))
}

async fn look(doors: &Doors, id: RecordId, prefer: Prefer, seen: &mut Seen) -> Result<Response, Refusal> {
    let found = doors.engine.ledger().load(id).await.map_err(|error| refusal::engine(&error.into()))?;
    let mut record = found.ok_or(ErrorCode::NotFound)?;
    let mut waited = None;
    if let Some(wait) = prefer.wait
        && is_in_progress(&record)
        && !wait.is_zero()
    {
        waited = Some(wait);
        record = doors.wait(&record, wait).await?.ok_or(ErrorCode::NotFound)?;
    }
    seen.is(&record);
    let answer = if record.state().name() == StateName::Released {
        Ok(reply::json(StatusCode::OK, Bytes::from_static(br#"{"status":"released"}"#)))
    } else {
        reply::record(&record, false)
    };
    reply::with_applied(answer, prefer::applied(false, waited))
}

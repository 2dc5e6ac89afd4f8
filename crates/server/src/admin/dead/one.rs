//! Commands on one dead letter; and the repetition of what is completed.
//!
//! What is completed is never run again under its own key. Forced, it is repeated: as a new record with a downstream key of its
//! own, which names the old one as its origin. A record has one repetition, whose key follows from its id, so that a command whose
//! answer was lost makes no second one; to repeat again, the repetition is repeated.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use semel_api::dead::{ReviveReply, ReviveRequest};
use semel_api::records::JudgeRequest;
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::audit::{Action, Entry};
use semel_core::command::{Accept, Accepted};
use semel_core::id::Namespace;
use semel_core::outcome::{Header, Headers};
use semel_core::query::Summary;
use semel_core::record::{StateName, Text};
use semel_core::request::Input;
use semel_core::{Key, Record, RecordId, Request, Version};

use crate::admin::judge::{self, Judge, What};
use crate::admin::{Admin, json, records, view};
use crate::door::{self, Refusal};
use crate::telemetry::logs;

/// What the key of a repetition begins with. No identity of an event does, and no key of the default alphabet.
const AGAIN: &str = "#again:";
/// The header of an input that keeps which event it is, where the key is another.
const EVENT_ID: &str = "semel-event-id";

pub(in crate::admin) async fn revive(Path(id): Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: ReviveRequest = judge.read()?;
    let (id, version) = (records::record_id(&id)?, records::version(&wanted.version)?);
    let reason = judge::reason(&wanted.reason)?;
    let force = wanted.force;
    let revived = door::detached(async move { revived(&judge, id, version, reason, force).await }).await??;
    let repeats = revived.request().origin().filter(|origin| *origin == id).map(|origin| origin.to_string());
    json(StatusCode::OK, &ReviveReply { record: view::summary(&Summary::of(&revived)), repeats })
}

pub(in crate::admin) async fn discard(path: Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: JudgeRequest = judge.read()?;
    let (id, version) = (records::record_id(&path)?, records::version(&wanted.version)?);
    let reason = judge::reason(&wanted.reason)?;
    let discarded = door::detached(async move { discarded(&judge, id, version, reason).await }).await??;
    json(StatusCode::OK, &semel_api::records::JudgeReply { record: view::summary(&Summary::of(&discarded)) })
}

/// Puts a dead letter aside. (What is not dead is `/v1/records`' to discard: it is no dead letter.)
///
/// # Errors
/// As those of [`Judge::apply`].
pub(super) async fn discarded(
    judge: &Judge,
    id: RecordId,
    version: Version,
    reason: Text,
) -> Result<Arc<Record>, ApiError> {
    let record = load(&judge.admin, id).await?;
    match record.state().name() {
        // Completed: it may have been this very command, whose answer was lost. The ledger knows.
        StateName::Dead | StateName::Completed => judge.apply(&What::Discard, id, version, reason).await,
        StateName::Pending | StateName::Running | StateName::Released | StateName::Unknown => {
            Err(illegal(&record, "only dead letters are discarded here"))
        }
    }
}

/// Revives a dead letter, or repeats what is completed, if that is forced.
///
/// # Errors
/// As those of [`Judge::apply`]; or it was done already, and is not forced.
pub(super) async fn revived(
    judge: &Judge,
    id: RecordId,
    version: Version,
    reason: Text,
    force: bool,
) -> Result<Arc<Record>, ApiError> {
    if force {
        let record = load(&judge.admin, id).await?;
        if record.state().name() == StateName::Completed {
            return repeated(judge, &record, version, reason).await;
        }
    }
    judge.apply(&What::Revive { force }, id, version, reason).await
}

async fn load(admin: &Admin, id: RecordId) -> Result<Arc<Record>, ApiError> {
    let record = admin.ledger.load(id).await.map_err(|error| records::ledger(&error))?;
    record.ok_or_else(|| ErrorCode::NotFound.into())
}

fn illegal(record: &Record, why: &str) -> ApiError {
    let now = format!("is {}: {why}", record.state().name().as_str());
    ApiError::new(ErrorCode::IllegalTransition).with_detail(Detail::new("state", "illegal", now))
}

/// Takes the work of a completed record in once more.
async fn repeated(
    judge: &Judge,
    origin: &Record,
    version: Version,
    reason: Text,
) -> Result<Arc<Record>, ApiError> {
    if origin.version() != version {
        let now = Detail::new("version", "conflict", format!("is {} now", origin.version()));
        return Err(ApiError::new(ErrorCode::VersionConflict).with_detail(now));
    }
    let request = Arc::new(request(origin)?);
    if let Some(there) = repetition(&judge.admin, origin).await? {
        return Ok(there);
    }
    // What an operator does is durable before it takes effect. If this is as far as it comes, the log says that it was asked for.
    let mut entry = Entry::new(Action::Revived, judge.actor()).about(origin.request());
    let state = Some(origin.state().name());
    (entry.from, entry.to, entry.reason) = (state, state, Some(reason));
    entry.correlation_id = Some(judge.correlation_id());
    let repetition = Text::new(&request.id().to_string());
    entry.metadata = vec![("forced".into(), Text::new("true")), ("repeatedBy".into(), repetition)];
    let written = judge.admin.store.append_audit(vec![entry]).await;
    written.map_err(|error| records::storage(&error))?;
    let accept = Accept::try_new(request).map_err(|_| illegal(origin, NOTHING_KEPT))?;
    match judge.admin.ledger.accept(&accept).await.map_err(|error| records::ledger(&error))? {
        Accepted::Accepted(record) | Accepted::Duplicate(record) => {
            let ids = judge.ids();
            logs::state_change(None, &record, Some(&ids.request_id), Some(&ids.correlation_id));
            Ok(record)
        }
        Accepted::Mismatch(_) => Err(illegal(origin, "another record has the place of its repetition")),
    }
}

const NOTHING_KEPT: &str = "nothing is kept to do it with again";
/// Sent once more by its partner, the same event would be a duplicate: its identity outlives its payload.
const PAYLOAD_GONE: &str = "its payload was dropped after `payload_retention`, so it cannot be sent again from here; have its \
     sender send it as a new event or request";

/// The record that repeats this one, if there is one.
///
/// # Errors
/// The store does not answer.
pub(super) async fn repetition(admin: &Admin, origin: &Record) -> Result<Option<Arc<Record>>, ApiError> {
    let Some(key) = key_of_repetition(origin) else { return Ok(None) };
    let id = RecordId::of(origin.request().scope(), &key);
    let there = admin.ledger.load(id).await.map_err(|error| records::ledger(&error))?;
    Ok(there.filter(|there| there.request().origin() == Some(origin.id())))
}

fn key_of_repetition(origin: &Record) -> Option<Key> {
    Key::try_new(&format!("{AGAIN}{}", origin.id())).ok()
}

fn request(origin: &Record) -> Result<Request, ApiError> {
    let old = origin.request();
    if origin.payload_is_gone() {
        return Err(illegal(origin, PAYLOAD_GONE));
    }
    let kept = || old.input().zip(old.lane()).zip(key_of_repetition(origin));
    let ((input, lane), key) = kept().ok_or_else(|| illegal(origin, NOTHING_KEPT))?;
    let input = with_event_id(old, input).ok_or_else(|| illegal(origin, NOTHING_KEPT))?;
    let request =
        Request::new(old.scope().clone(), key, old.operation().clone(), *old.fingerprint(), *old.policy());
    let request = request.in_lane(lane.clone()).with_input(input).repeating(origin.id());
    request.try_with_tags(old.tags().to_vec()).map_err(|_| ErrorCode::Internal.into())
}

/// The input, which for a webhook says which event it is: the key of a repetition no longer does.
fn with_event_id(old: &Request, input: &Input) -> Option<Input> {
    if old.scope().namespace != Namespace::Webhook || input.headers().get(EVENT_ID).is_some() {
        return Some(input.clone());
    }
    let id = bytes::Bytes::copy_from_slice(old.key().as_str().as_bytes());
    let mut headers: Vec<Header> = input.headers().iter().cloned().collect();
    headers.push(Header { name: EVENT_ID.into(), value: id });
    let headers = Headers::try_new(headers).ok()?;
    Input::try_new(input.method(), input.path(), headers, input.body().clone()).ok()
}

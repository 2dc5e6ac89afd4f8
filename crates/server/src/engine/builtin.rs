//! Operations of our own, to try Semel out without a target. Only in development mode.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use semel_core::outcome::{Class, Header, Headers};
use serde_json::{Map, Value, json};

use super::progress::Progress;
use super::reply::{Reply, Said};
use crate::config::Builtin;
use crate::limits;

/// How often `count` has run, by name.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<String, u64>>);

impl Counts {
    fn next(&self, name: &str) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if counts.len() >= limits::BUILTIN_COUNTERS_MAX && !counts.contains_key(name) {
            return None;
        }
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        Some(*count)
    }
}

/// Runs a built-in operation.
pub(super) async fn run(builtin: Builtin, payload: &Bytes, counts: &Counts, progress: &Progress) -> Reply {
    if progress.begin().is_err() {
        return Reply::not_sent("the lease was lost before anything had begun");
    }
    let reply = match builtin {
        Builtin::Echo => Ok(done(payload.clone())),
        Builtin::Sleep => sleep(payload).await,
        Builtin::Fail => fail(payload),
        Builtin::Count => count(payload, counts),
    };
    reply.unwrap_or_else(|wrong| answered(Class::Rejection, 400, &json!({ "message": wrong })))
}

/// What is wrong with a payload. It is refused before anything is done, as a careful target would.
type Wrong = &'static str;

fn object(payload: &Bytes) -> Result<Map<String, Value>, Wrong> {
    serde_json::from_slice(payload).map_err(|_| "the payload must be an object")
}

async fn sleep(payload: &Bytes) -> Result<Reply, Wrong> {
    let asked = object(payload)?.get("ms").map_or(Some(1_000), Value::as_u64);
    let asked = asked.ok_or("`ms` must be a whole number of milliseconds")?;
    let slept = asked.min(limits::BUILTIN_SLEEP_MS_MAX);
    tokio::time::sleep(Duration::from_millis(slept)).await;
    Ok(done(json!({ "slept_ms": slept }).to_string().into()))
}

fn count(payload: &Bytes, counts: &Counts) -> Result<Reply, Wrong> {
    let payload = object(payload)?;
    let name = payload.get("name").map_or(Some("default"), Value::as_str).ok_or("`name` must be a text")?;
    Ok(match counts.next(name) {
        Some(count) => done(json!({ "name": name, "count": count }).to_string().into()),
        None => answered(Class::Rejection, 422, &json!({ "message": "there are too many counters" })),
    })
}

/// Answers as it is told, and is read as any target would be.
fn fail(payload: &Bytes) -> Result<Reply, Wrong> {
    let told = object(payload)?.get("status").and_then(Value::as_u64);
    let told = told.and_then(|status| u16::try_from(status).ok());
    let status = told.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or("`status` must be a whole number from 100 to 999")?;
    let message = format!("told to answer {}", status.as_u16());
    Ok(match Reply::of_status(status, &[], None) {
        Ok(class) => answered(class, status.as_u16(), &json!({ "message": message })),
        Err(reply) => reply,
    })
}

fn done(body: Bytes) -> Reply {
    Reply::Answered { class: Class::Success, status: 200, headers: json_headers(), body: Said::Kept(body) }
}

fn answered(class: Class, status: u16, body: &Value) -> Reply {
    Reply::Answered {
        class,
        status,
        headers: json_headers(),
        body: Said::Kept(Bytes::from(body.to_string())),
    }
}

fn json_headers() -> Headers {
    let header = Header { name: "content-type".into(), value: Bytes::from_static(b"application/json") };
    Headers::try_new(vec![header]).unwrap_or_default()
}

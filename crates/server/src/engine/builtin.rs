//! Operations of our own, to try Semel out without a target. Only in development mode.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use semel_core::outcome::{Class, Header, Headers};
use serde_json::{Value, json};

use super::reply::{Lost, Reply};
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
pub(super) async fn run(builtin: Builtin, payload: &Bytes, counts: &Counts) -> Reply {
    match builtin {
        Builtin::Echo => done(payload.clone()),
        Builtin::Sleep => {
            let asked = parse(payload)["ms"].as_u64().unwrap_or(1_000);
            let slept = asked.min(limits::BUILTIN_SLEEP_MS_MAX);
            tokio::time::sleep(Duration::from_millis(slept)).await;
            done(json!({ "slept_ms": slept }).to_string().into())
        }
        Builtin::Fail => fail(&parse(payload)),
        Builtin::Count => {
            let payload = parse(payload);
            let name = payload["name"].as_str().unwrap_or("default");
            match counts.next(name) {
                Some(count) => done(json!({ "name": name, "count": count }).to_string().into()),
                None => rejected(422, &json!({ "message": "there are too many counters" })),
            }
        }
    }
}

/// Fails as it is told: a 4xx is a rejection, 503 was not executed, anything else may have happened.
fn fail(payload: &Value) -> Reply {
    let status = payload["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(500);
    let detail = format!("the built-in operation was told to fail with {status}");
    match status {
        400..=499 => rejected(status, &json!({ "message": detail })),
        503 => Reply::NotExecuted { detail, retry_after: None },
        504 => Reply::Lost { how: Lost::TimedOut, detail, retry_after: None },
        _ => Reply::Lost { how: Lost::Answer, detail, retry_after: None },
    }
}

fn parse(payload: &Bytes) -> Value {
    serde_json::from_slice(payload).unwrap_or(Value::Null)
}

fn done(body: Bytes) -> Reply {
    Reply::Answered { class: Class::Success, status: 200, headers: json_headers(), body: Some(body) }
}

fn rejected(status: u16, body: &Value) -> Reply {
    let body = Some(Bytes::from(body.to_string()));
    Reply::Answered { class: Class::Rejection, status, headers: json_headers(), body }
}

fn json_headers() -> Headers {
    let header = Header { name: "content-type".into(), value: Bytes::from_static(b"application/json") };
    Headers::try_new(vec![header]).unwrap_or_default()
}

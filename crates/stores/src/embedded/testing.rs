//! Commands for tests: what the ledger would write, without a ledger.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::command::{ClaimKey, Command, Complete, Release, Verdict};
use semel_core::id::{Holder, Key, Lane, Namespace, Operation, Scope, Tag, TagName, TagValue, Tenant, Token};
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::request::{Fingerprint, Request};
use semel_core::store::{AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};

/// The retention of the records below.
pub(crate) const RETENTION: Duration = Duration::from_secs(60);
/// The lease of the records below.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

pub(crate) fn request(key: &str) -> Arc<Request> {
    let retry = Schedule::ONCE;
    let policy = Policy::try_new(LEASE, RETENTION, OnLapse::AtMostOnce, Keep::Deterministic, retry).unwrap();
    let tenant = Tenant::try_new("default").unwrap();
    let scope = Scope { namespace: Namespace::Execute, tenant, subject: None };
    let fingerprint = Fingerprint { version: 1, digest: [7; 32] };
    let operation = Operation::try_new("payment.charge").unwrap();
    let tag = Tag { name: TagName::try_new("order_id").unwrap(), value: TagValue::try_new(key).unwrap() };
    let request = Request::new(scope, Key::try_new(key).unwrap(), operation, fingerprint, policy);
    let request = request.in_lane(Lane::try_new("bank").unwrap());
    Arc::new(request.try_with_tags(vec![tag]).unwrap())
}

/// The write that a claim makes of what is there.
pub(crate) fn claim(request: &Arc<Request>, token: u8, seen: Option<&Arc<Record>>, now: Timestamp) -> Write {
    let token = Token::from_bytes([token; 16]);
    let command = ClaimKey { request: Arc::clone(request), token, attempt_id: None };
    match command.decide(seen, now) {
        Verdict::Write(write) => *write,
        Verdict::Stay(stay) => panic!("no claim: {stay:?}"),
    }
}

/// The write that a completion makes of a running record.
pub(crate) fn complete(running: &Arc<Record>, body: &[u8]) -> Write {
    let headers = Headers::default();
    let outcome = Outcome::try_new(Class::Success, 200, headers, Bytes::copy_from_slice(body)).unwrap();
    let holder = Holder { id: running.id(), token: running.token().unwrap() };
    match (Complete { holder, outcome }).decide(Some(running), running.times().written) {
        Verdict::Write(write) => *write,
        Verdict::Stay(stay) => panic!("no completion: {stay:?}"),
    }
}

/// The write that releases a running record.
pub(crate) fn release(running: &Arc<Record>) -> Write {
    let holder = Holder { id: running.id(), token: running.token().unwrap() };
    match (Release { holder, error: "nothing happened".into() })
        .decide(Some(running), running.times().written)
    {
        Verdict::Write(write) => *write,
        Verdict::Stay(stay) => panic!("no release: {stay:?}"),
    }
}

/// Claims a key that is free.
pub(crate) async fn claimed(store: &dyn Store, key: &str, token: u8) -> Arc<Record> {
    let write = claim(&request(key), token, None, store.time());
    match store.insert(write).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("occupied by {record:?}"),
    }
}

/// Claims and completes a key that is free.
pub(crate) async fn completed(store: &dyn Store, key: &str, body: &[u8]) -> Arc<Record> {
    let running = claimed(store, key, 1).await;
    replaced(store.replace(complete(&running, body), running.version()).await)
}

/// The record that took the place.
pub(crate) fn replaced(answer: Result<AsOf<Replaced>, StoreError>) -> Arc<Record> {
    match answer.unwrap().value {
        Replaced::Replaced(record) => record,
        Replaced::Conflict(record) => panic!("conflict with {record:?}"),
    }
}

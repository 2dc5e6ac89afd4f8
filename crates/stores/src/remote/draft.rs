//! What stores over a network make of writes and audit entries: hashes to look things up by, numbers for states, the record
//! without its input.

use std::time::Duration;

use semel_core::audit::Entry;
use semel_core::id::{Key, Lane, Namespace, Operation, RecordId, Tag};
use semel_core::query::AuditQuery;
use semel_core::record::StateName;
use semel_core::{Request, Timestamp};

use crate::codec::encode_audit;

/// A hash of parts, each framed by its length, to look things up by. It is stored, so it never changes (FNV-1a, with its
/// bits mixed at the end). What collides is told apart by the bytes.
pub(crate) fn hash(parts: &[&[u8]]) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        (part.len() as u64).to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash ^ (hash >> 32)).cast_signed()
}

pub(crate) fn tag_hash(tag: &Tag) -> i64 {
    hash(&[b"tag", tag.name.as_str().as_bytes(), tag.value.as_str().as_bytes()])
}

pub(crate) fn key_hash(key: &Key) -> i64 {
    hash(&[b"key", key.as_str().as_bytes()])
}

pub(crate) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A length of time; so long at most that no time it is added to overflows.
pub(crate) fn length(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// The numbers are stored; they are those of the codec.
pub(crate) fn state_number(state: StateName) -> i16 {
    match state {
        StateName::Pending => 0,
        StateName::Running => 1,
        StateName::Released => 2,
        StateName::Completed => 3,
        StateName::Unknown => 4,
        StateName::Dead => 5,
    }
}

pub(crate) fn state_of(number: i16) -> Option<StateName> {
    StateName::ALL.into_iter().find(|state| state_number(*state) == number)
}

pub(crate) fn namespace_number(namespace: Namespace) -> i16 {
    match namespace {
        Namespace::Execute => 0,
        Namespace::Http => 1,
        Namespace::Webhook => 2,
        Namespace::Topic => 3,
        Namespace::Job => 4,
    }
}

pub(crate) fn namespace_of(number: i16) -> Option<Namespace> {
    Namespace::ALL.into_iter().find(|namespace| namespace_number(*namespace) == number)
}

/// An audit entry as what its statement is given.
pub(crate) struct AuditDraft {
    pub(crate) cell: i64,
    pub(crate) operation: Option<i64>,
    pub(crate) actor: i64,
    pub(crate) action: &'static str,
    pub(crate) terms: Vec<i64>,
    pub(crate) entry: Vec<u8>,
}

impl AuditDraft {
    pub(crate) fn of(entry: &Entry) -> Self {
        let operation = entry.operation.as_ref().map(operation_hash);
        let actor = actor_hash(entry.actor.as_str());
        let action = entry.action.as_str();
        let cell = hash(&[
            &operation.map_or([0; 8], i64::to_le_bytes),
            &[u8::from(operation.is_some())],
            &actor.to_le_bytes(),
            action.as_bytes(),
        ]);
        let mut terms = vec![EVERYTHING];
        terms.extend(entry.record.map(record_hash));
        terms.extend(entry.correlation_id.as_ref().map(|id| correlation_hash(id.as_str())));
        terms.extend(entry.key.as_ref().map(key_hash));
        terms.extend(entry.tags.iter().map(tag_hash));
        terms.sort_unstable();
        terms.dedup();
        let mut bytes = Vec::new();
        encode_audit(0, entry, &mut bytes);
        Self { cell, operation, actor, action, terms, entry: bytes }
    }
}

/// What every audit entry is looked up by.
pub(crate) const EVERYTHING: i64 = 0;

/// The narrowest thing that a query of the audit log says, as one of its terms.
pub(crate) fn narrowest(query: &AuditQuery) -> i64 {
    let record = query.record.map(record_hash);
    let correlation = || query.correlation_id.as_deref().map(correlation_hash);
    let key = || query.key.as_ref().map(key_hash);
    let tag = || query.tag.as_ref().map(tag_hash);
    record.or_else(correlation).or_else(key).or_else(tag).unwrap_or(EVERYTHING)
}

pub(crate) fn record_hash(id: RecordId) -> i64 {
    hash(&[b"record", id.as_bytes()])
}

pub(crate) fn correlation_hash(id: &str) -> i64 {
    hash(&[b"correlation", id.as_bytes()])
}

pub(crate) fn operation_hash(operation: &Operation) -> i64 {
    hash(&[b"operation", operation.as_str().as_bytes()])
}

pub(crate) fn actor_hash(actor: &str) -> i64 {
    hash(&[b"actor", actor.as_bytes()])
}

/// The request without what is kept apart, so that a heartbeat does not write it again.
pub(crate) fn without_input(request: &Request) -> Result<Request, &'static str> {
    let (scope, key) = (request.scope().clone(), request.key().clone());
    let (operation, policy) = (request.operation().clone(), *request.policy());
    let mut bare = Request::new(scope, key, operation, *request.fingerprint(), policy);
    bare = bare.try_with_tags(request.tags().to_vec()).map_err(|_| "the tags are not those of a request")?;
    if let Some(lane) = request.lane() {
        bare = bare.in_lane(lane.clone());
    }
    if let Some(origin) = request.origin() {
        bare = bare.repeating(origin);
    }
    Ok(bare)
}

pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(crate) fn lane_name(lane: Option<&Lane>) -> &str {
    lane.map_or("", Lane::as_str)
}

//! Records as rows: the stamps in columns, the rest in bytes, the input apart.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use semel_core::audit::Entry;
use semel_core::id::{Fence, Key, Lane, Namespace, Operation, RecordId, Tag, Version};
use semel_core::record::{Parts, StateName, Times};
use semel_core::write::{Wake, Write};
use semel_core::{Record, Request, StoreError, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::codec::{Corrupt, decode_input, decode_record, encode_audit, encode_input, encode_record};

/// An id as the database's `uuid`: sixteen bytes in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(pub(super) RecordId);

type Trouble = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Trouble> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Trouble> {
        Ok(Self(RecordId::from_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// A hash of parts, each framed by its length, to look things up by. It is stored, so it never changes (FNV-1a, with its
/// bits mixed at the end). What collides is told apart by the bytes.
pub(super) fn hash(parts: &[&[u8]]) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        (part.len() as u64).to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash ^ (hash >> 32)).cast_signed()
}

pub(super) fn tag_hash(tag: &Tag) -> i64 {
    hash(&[b"tag", tag.name.as_str().as_bytes(), tag.value.as_str().as_bytes()])
}

pub(super) fn key_hash(key: &Key) -> i64 {
    hash(&[b"key", key.as_str().as_bytes()])
}

pub(super) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A length of time; so long at most that no time it is added to overflows.
pub(super) fn length(length: std::time::Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// The numbers are stored; they are those of the codec.
pub(super) fn state_number(state: StateName) -> i16 {
    match state {
        StateName::Pending => 0,
        StateName::Running => 1,
        StateName::Released => 2,
        StateName::Completed => 3,
        StateName::Unknown => 4,
        StateName::Dead => 5,
    }
}

pub(super) fn state_of(number: i16) -> Option<StateName> {
    StateName::ALL.into_iter().find(|state| state_number(*state) == number)
}

pub(super) fn namespace_number(namespace: Namespace) -> i16 {
    match namespace {
        Namespace::Execute => 0,
        Namespace::Http => 1,
        Namespace::Webhook => 2,
        Namespace::Topic => 3,
        Namespace::Job => 4,
    }
}

pub(super) fn namespace_of(number: i16) -> Option<Namespace> {
    Namespace::ALL.into_iter().find(|namespace| namespace_number(*namespace) == number)
}

/// A write as what its statement is given.
pub(super) struct Draft {
    parts: Parts,
    pub(super) id: Id,
    pub(super) after: i64,
    pub(super) namespace: i16,
    pub(super) operation: Operation,
    pub(super) key: i64,
    pub(super) lane: String,
    pub(super) state: i16,
    pub(super) raise: bool,
    pub(super) begins: bool,
    pub(super) keep_wake: bool,
    pub(super) wake: Option<i64>,
    pub(super) rests: Option<i64>,
    pub(super) names: Vec<i64>,
    pub(super) head: Vec<u8>,
    pub(super) input: Option<Vec<u8>>,
    pub(super) deadline: Timestamp,
    pub(super) audit: Option<AuditDraft>,
}

/// An audit entry as what its statement is given.
pub(super) struct AuditDraft {
    pub(super) cell: i64,
    pub(super) operation: Option<i64>,
    pub(super) actor: i64,
    pub(super) action: &'static str,
    pub(super) terms: Vec<i64>,
    pub(super) entry: Vec<u8>,
}

impl Draft {
    /// Sealed with stamps that the row's columns will replace.
    pub(super) fn of(write: Write) -> Result<Self, &'static str> {
        let (stamp, after, deadline) = (*write.stamp(), write.after(), write.deadline());
        let (record, entry) = write.seal(Timestamp::ZERO, Fence::default());
        let parts = record.parts().clone();
        let request = &parts.request;
        let mut input = None;
        let mut head = Vec::new();
        match request.input() {
            None => encode_record(&record, &mut head),
            Some(apart) => {
                encode_input(apart, input.insert(Vec::new()));
                let request = Arc::new(without_input(request)?);
                encode_record(&Record::from_parts(Parts { request, ..parts.clone() })?, &mut head);
            }
        }
        let mut names: Vec<_> = request.tags().iter().map(tag_hash).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Self {
            id: Id(request.id()),
            after: fence(after.fence),
            namespace: namespace_number(request.scope().namespace),
            operation: request.operation().clone(),
            key: key_hash(request.key()),
            lane: request.lane().map_or_else(String::new, |lane| lane.as_str().to_owned()),
            state: state_number(parts.state.name()),
            raise: stamp.raise_fence,
            begins: stamp.begins,
            keep_wake: stamp.wake == Wake::Keep,
            wake: if let Wake::After(after) = stamp.wake { Some(length(after)) } else { None },
            rests: stamp.rests.map(length),
            names,
            head,
            input,
            deadline,
            audit: entry.as_ref().map(AuditDraft::of),
            parts,
        })
    }

    /// The record as it was stamped.
    pub(super) fn stamped(&self, stamps: Stamps) -> Result<Arc<Record>, StoreError> {
        let parts = Parts { version: stamps.version, times: stamps.times, ..self.parts.clone() };
        // Written it is; what the database has made of it cannot be told.
        Record::from_parts(parts).map(Arc::new).map_err(|why| StoreError::in_doubt("stamp", why))
    }
}

impl AuditDraft {
    pub(super) fn of(entry: &Entry) -> Self {
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
pub(super) const EVERYTHING: i64 = 0;

pub(super) fn record_hash(id: RecordId) -> i64 {
    hash(&[b"record", id.as_bytes()])
}

pub(super) fn correlation_hash(id: &str) -> i64 {
    hash(&[b"correlation", id.as_bytes()])
}

pub(super) fn operation_hash(operation: &Operation) -> i64 {
    hash(&[b"operation", operation.as_str().as_bytes()])
}

pub(super) fn actor_hash(actor: &str) -> i64 {
    hash(&[b"actor", actor.as_bytes()])
}

fn fence(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

/// A version as the numbers of its columns.
pub(super) fn version_numbers(version: Version) -> (i64, i64) {
    (fence(version.fence), i64::from(version.sequence))
}

fn without_input(request: &Request) -> Result<Request, &'static str> {
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

/// What the database stamped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    pub(super) version: Version,
    pub(super) times: Times,
}

/// A row that is not what its statement asks for.
pub(super) fn unreadable(error: tokio_postgres::Error) -> StoreError {
    StoreError::corrupt("read a row", "a column is not what it should be").with_source(error)
}

pub(super) fn corrupt(error: Corrupt) -> StoreError {
    StoreError::corrupt("read a row", "stored bytes cannot be read").with_source(error)
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Reads seven columns from `at` on; `None` if there is no row in this place of the join.
pub(super) fn stamps(row: &Row, at: usize) -> Result<Option<Stamps>, StoreError> {
    let get = |column| row.try_get::<_, Option<i64>>(at + column).map_err(unreadable);
    let (Some(fence), Some(sequence)) = (get(0)?, get(1)?) else { return Ok(None) };
    let missing = || StoreError::corrupt("read a row", "a record without its times");
    let fence = Fence(u64::try_from(fence).unwrap_or(0));
    let version = Version { fence, sequence: u32::try_from(sequence).unwrap_or(u32::MAX) };
    let times = Times {
        created: time(get(2)?.ok_or_else(missing)?),
        written: time(get(3)?.ok_or_else(missing)?),
        wake: get(4)?.map(time),
        settled: get(5)?.map(time),
        expires: get(6)?.map(time),
    };
    Ok(Some(Stamps { version, times }))
}

/// Reads the ten columns of [`RECORD`](super::sql::RECORD) from `at` on.
pub(super) fn record(row: &Row, at: usize) -> Result<Option<Arc<Record>>, StoreError> {
    let Some(stamps) = stamps(row, at)? else { return Ok(None) };
    if !row.try_get::<_, bool>(at + 8).map_err(unreadable)? {
        return Err(corrupt(Corrupt("a checksum that does not fit")));
    }
    let head: &[u8] = row.try_get(at + 7).map_err(unreadable)?;
    let input: Option<&[u8]> = row.try_get(at + 9).map_err(unreadable)?;
    let (bare, rest) = decode_record(Bytes::copy_from_slice(head)).map_err(corrupt)?;
    if !rest.is_empty() {
        return Err(corrupt(Corrupt("bytes after the end")));
    }
    let mut parts = Parts { version: stamps.version, times: stamps.times, ..bare.parts().clone() };
    if let Some(input) = input {
        let input = decode_input(Bytes::copy_from_slice(input)).map_err(corrupt)?;
        parts.request = Arc::new((*parts.request).clone().with_input(input));
    }
    Record::from_parts(parts).map(|record| Some(Arc::new(record))).map_err(|why| corrupt(Corrupt(why)))
}

pub(super) fn lane_name(lane: Option<&Lane>) -> &str {
    lane.map_or("", Lane::as_str)
}

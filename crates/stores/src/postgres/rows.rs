//! Records as rows: the stamps in columns, the rest in bytes, the input apart.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use semel_core::id::{Fence, Operation, RecordId, Version};
use semel_core::record::{Parts, Times};
use semel_core::write::{Rest, Wake, Write};
use semel_core::{Record, StoreError, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::codec::Corrupt;
use crate::limits;
pub(super) use crate::remote::draft::hash;
pub(super) use crate::remote::draft::{
    AuditDraft, EVERYTHING, actor_hash, key_hash, lane_name, length, millis, namespace_number, namespace_of,
    operation_hash, state_number, state_of, tag_hash, time,
};
use crate::remote::kept::{self, Sealed};
pub(super) use crate::remote::kept::{Stamps, corrupt};

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

/// In the place of a retention: the record is at rest already and stays so as it was, and its input goes.
const AS_IT_WAS: i64 = -1;

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
    /// What it was judged on: its version and its times, or the default ones.
    pub(super) judged: Version,
    was: Times,
}

impl Draft {
    /// Sealed with stamps that the row's columns will replace.
    pub(super) fn of(write: Write) -> Result<Self, &'static str> {
        let was = write.parts().times;
        let Sealed { parts, stamp, after, deadline, head, input, audit } = Sealed::of(write)?;
        let request = &parts.request;
        let mut names: Vec<_> = request.tags().iter().map(tag_hash).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Self {
            id: Id(request.id()),
            after: fence(after.fence),
            namespace: namespace_number(request.scope().namespace),
            operation: request.operation().clone(),
            key: key_hash(request.key()),
            lane: lane_name(parts.due_lane()).to_owned(),
            state: state_number(parts.state.name()),
            raise: stamp.raise_fence,
            begins: stamp.begins,
            keep_wake: stamp.wake == Wake::Keep,
            wake: if let Wake::After(after) = stamp.wake { Some(length(after)) } else { None },
            rests: match stamp.rest {
                Rest::None => None,
                Rest::For(retention) => Some(length(retention)),
                Rest::Keep => Some(AS_IT_WAS),
            },
            names,
            head,
            input,
            deadline,
            audit,
            judged: after,
            was,
            parts,
        })
    }

    /// What it weighs in a batch.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.input.as_ref().map_or(0, Vec::len)
    }

    /// Whether it may go with others: nothing large, and nothing of which others would have to bring a share along.
    pub(super) fn fits_a_batch(&self) -> bool {
        self.audit.is_none()
            && self.rests != Some(AS_IT_WAS)
            && self.bytes() <= limits::POSTGRES_BATCH_BYTES / 4
    }

    /// What the statement of a batch stamps it with that inserts it, at this time and over this floor.
    pub(super) fn inserted(&self, now: Timestamp, floor: i64) -> Stamps {
        let version = Version { fence: self.judged.fence.above(fence_of(floor)), sequence: 0 };
        Stamps { version, times: self.times(now, Times::default()) }
    }

    /// The same for one that replaces what it was judged on, and begins no new life.
    pub(super) fn replaced(&self, now: Timestamp, floor: i64) -> Stamps {
        let raised = Version { fence: self.judged.fence.above(fence_of(floor)), sequence: 0 };
        let version = if self.raise { raised } else { self.judged.next() };
        Stamps { version, times: Times { created: self.was.created, ..self.times(now, self.was) } }
    }

    fn times(&self, now: Timestamp, was: Times) -> Times {
        let written = now.max(was.written);
        let after = |length: i64| Timestamp::from_millis(written.as_millis() + length.unsigned_abs());
        Times {
            created: written,
            written,
            wake: if self.keep_wake { was.wake } else { self.wake.map(after) },
            settled: self.rests.map(|_| written),
            expires: self.rests.map(after),
        }
    }

    /// The record as it was stamped.
    pub(super) fn stamped(&self, stamps: Stamps) -> Result<Arc<Record>, StoreError> {
        kept::stamped(&self.parts, stamps)
    }
}

fn fence(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

fn fence_of(column: i64) -> Fence {
    Fence(column.unsigned_abs())
}

/// A version as the numbers of its columns.
pub(super) fn version_numbers(version: Version) -> (i64, i64) {
    (fence(version.fence), i64::from(version.sequence))
}

/// A row that is not what its statement asks for.
pub(super) fn unreadable(error: tokio_postgres::Error) -> StoreError {
    StoreError::corrupt("read a row", "a column is not what it should be").with_source(error)
}

/// A row, whichever driver it comes from.
pub(super) trait Columns {
    /// One of its columns.
    fn get<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, StoreError>;
}

impl Columns for Row {
    fn get<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, StoreError> {
        self.try_get(at).map_err(unreadable)
    }
}

/// Reads seven columns from `at` on; `None` if there is no row in this place of the join.
pub(super) fn stamps(row: &impl Columns, at: usize) -> Result<Option<Stamps>, StoreError> {
    let get = |column| row.get::<Option<i64>>(at + column);
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
pub(super) fn record(row: &impl Columns, at: usize) -> Result<Option<Arc<Record>>, StoreError> {
    let Some(stamps) = stamps(row, at)? else { return Ok(None) };
    if !row.get::<bool>(at + 8)? {
        return Err(corrupt(Corrupt("a checksum that does not fit")));
    }
    let head: &[u8] = row.get(at + 7)?;
    let input: Option<&[u8]> = row.get(at + 9)?;
    kept::record(stamps, head, input).map(Some)
}

/// An array as text.
pub(super) fn literal(numbers: &[i64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

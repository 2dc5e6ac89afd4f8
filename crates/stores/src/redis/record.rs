//! Records as what the scripts are given and give back: the stamps in bytes that the server packs, the rest in the codec's.

use std::sync::Arc;

use redis::Value;
use semel_core::id::{Fence, Operation, RecordId, Version};
use semel_core::record::{Parts, Times};
use semel_core::write::{Rest, Wake, Write};
use semel_core::{Record, StoreError, Timestamp};

use super::database::{bytes, items, text};
use crate::codec::Corrupt;
use crate::remote::draft::{
    AuditDraft, EVERYTHING, hash, key_hash, lane_name, length, namespace_number, state_number, tag_hash,
};
pub(super) use crate::remote::kept::corrupt;
use crate::remote::kept::{self, Sealed, Stamps};

/// Bytes of a checksum.
const SUM: usize = 16;
/// Bytes of the stamps: fence, sequence, and five times.
const STAMPS: usize = 52;

/// A write as what its script is given.
pub(super) struct Draft {
    parts: Parts,
    pub(super) id: RecordId,
    pub(super) after: u64,
    pub(super) raise: bool,
    pub(super) begins: bool,
    pub(super) wake: String,
    pub(super) rests: String,
    pub(super) lane: String,
    pub(super) kind: Vec<u8>,
    pub(super) terms: Vec<u8>,
    pub(super) head: Vec<u8>,
    pub(super) input: Vec<u8>,
    pub(super) deadline: Timestamp,
    pub(super) audit: Option<[Vec<u8>; 4]>,
}

impl Draft {
    /// Sealed with stamps that the server's will replace.
    pub(super) fn of(write: Write) -> Result<Self, &'static str> {
        let Sealed { parts, stamp, after, deadline, head, input, audit } = Sealed::of(write)?;
        let request = &parts.request;
        let summed = |input: Vec<u8>| [sum(&[&input]).as_bytes(), &input].concat();
        let mut terms = vec![EVERYTHING, key_hash(request.key())];
        terms.extend(request.tags().iter().map(tag_hash));
        terms.sort_unstable();
        terms.dedup();
        let millis = |of| length(of).min(1 << 52).to_string();
        Ok(Self {
            id: request.id(),
            after: after.fence.0,
            raise: stamp.raise_fence,
            begins: stamp.begins,
            wake: match stamp.wake {
                Wake::Keep => "keep".to_owned(),
                Wake::Clear => String::new(),
                Wake::After(after) => millis(after),
            },
            rests: match stamp.rest {
                Rest::None => String::new(),
                Rest::For(retention) => millis(retention),
                Rest::Keep => "keep".to_owned(),
            },
            lane: lane_name(parts.due_lane()).to_owned(),
            kind: kind(request.scope().namespace, parts.state.name(), request.operation()),
            terms: terms.into_iter().flat_map(i64::to_be_bytes).collect(),
            head,
            input: input.map(summed).unwrap_or_default(),
            deadline,
            audit: audit.as_ref().map(audit_arguments),
            parts,
        })
    }

    /// The record as it was stamped.
    pub(super) fn stamped(&self, stamps: Stamps) -> Result<Arc<Record>, StoreError> {
        kept::stamped(&self.parts, stamps)
    }
}

/// A kind of records: the term that it is found by, and what that stands for.
fn kind(
    namespace: semel_core::id::Namespace,
    state: semel_core::record::StateName,
    operation: &Operation,
) -> Vec<u8> {
    let small = |number: i16| u8::try_from(number).unwrap_or(u8::MAX);
    let what = [small(namespace_number(namespace)), small(state_number(state))];
    let term = hash(&[b"kind", &what, operation.as_str().as_bytes()]);
    [&term.to_be_bytes()[..], &what, operation.as_str().as_bytes()].concat()
}

/// An operation, as who did what is told by it: whether there is one, and its hash.
pub(super) fn operation_of_cell(operation: Option<i64>) -> Vec<u8> {
    let mut bytes = vec![u8::from(operation.is_some())];
    bytes.extend(operation.unwrap_or(0).to_be_bytes());
    bytes
}

/// An audit entry as what a script is given: cell, who did what, terms, and the entry.
pub(super) fn audit_arguments(draft: &AuditDraft) -> [Vec<u8>; 4] {
    let mut about = operation_of_cell(draft.operation);
    about.extend(draft.actor.to_be_bytes());
    about.extend(draft.action.as_bytes());
    let terms = draft.terms.iter().flat_map(|term| term.to_be_bytes()).collect();
    [draft.cell.to_be_bytes().to_vec(), about, terms, draft.entry.clone()]
}

/// A checksum as the scripts make it.
fn sum(parts: &[&[u8]]) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    for part in parts {
        sha1.update(part);
    }
    let mut digits = sha1.digest().to_string();
    digits.truncate(SUM);
    digits
}

/// A version as the scripts compare it.
pub(super) fn version_bytes(version: Version) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&version.fence.0.to_be_bytes());
    bytes[8..].copy_from_slice(&version.sequence.to_be_bytes());
    bytes
}

/// Reads what the server packed.
fn stamps(packed: &[u8]) -> Option<Stamps> {
    let packed = packed.first_chunk::<STAMPS>()?;
    let number = |at: usize| {
        let bytes: [u8; 8] = packed[at..at + 8].try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let time = |at: usize| number(at).map(Timestamp::from_millis);
    let perhaps = |at: usize| number(at).map(|ms| (ms > 0).then(|| Timestamp::from_millis(ms)));
    let sequence = u32::from_be_bytes(packed[8..12].try_into().ok()?);
    Some(Stamps {
        version: Version { fence: Fence(number(0)?), sequence },
        times: Times {
            created: time(12)?,
            written: time(20)?,
            wake: perhaps(28)?,
            settled: perhaps(36)?,
            expires: perhaps(44)?,
        },
    })
}

/// What a write's script answers.
pub(super) enum Swapped {
    Done(Stamps),
    Late,
    Conflict(Option<Arc<Record>>),
}

/// An answer that is none of this store's.
pub(super) fn unreadable(during: &'static str) -> StoreError {
    StoreError::corrupt(during, "an answer is not what it should be")
}

pub(super) fn time(value: Option<&Value>) -> Result<Timestamp, StoreError> {
    match value {
        Some(Value::Int(ms)) => Ok(Timestamp::from_millis(u64::try_from(*ms).unwrap_or(0))),
        _ => Err(unreadable("read the time")),
    }
}

/// Reads the answer of a script that writes: how it ended, the time, and what it shows.
pub(super) fn swapped(answer: &Value) -> Result<(Timestamp, Swapped), StoreError> {
    let [ended, rest @ ..] = items(answer) else { return Err(unreadable("read an answer")) };
    let now = time(rest.first())?;
    let swapped = match text(ended).as_deref() {
        Some("done") => {
            let stamps = rest.get(1).and_then(bytes).and_then(stamps);
            // A removal stamps nothing.
            Swapped::Done(stamps.unwrap_or(Stamps { version: Version::default(), times: Times::default() }))
        }
        Some("late") => Swapped::Late,
        Some("conflict") => Swapped::Conflict(record(&rest[1..])?),
        Some("corrupt") => return Err(corrupt(Corrupt("a checksum that does not fit"))),
        Some("spent") => {
            return Err(StoreError::too_large("write", "a fence or version that the server cannot count"));
        }
        _ => return Err(unreadable("read an answer")),
    };
    Ok((now, swapped))
}

/// Reads a record's fields: stamps, what it is found by, head, input.
pub(super) fn record(fields: &[Value]) -> Result<Option<Arc<Record>>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let field = |at: usize| fields.get(at).and_then(bytes);
    let (Some(packed), Some(meta), Some(head)) = (field(0), field(1), field(2)) else {
        return Err(corrupt(Corrupt("a record without a part")));
    };
    let (packed, there) =
        packed.split_at_checked(STAMPS).ok_or(corrupt(Corrupt("stamps that are cut off")))?;
    if sum(&[packed, meta, head]).as_bytes() != there {
        return Err(corrupt(Corrupt("a checksum that does not fit")));
    }
    let stamps = stamps(packed).ok_or_else(|| corrupt(Corrupt("stamps that are cut off")))?;
    let input = match field(3) {
        None => None,
        Some(input) => {
            let (there, input) =
                input.split_at_checked(SUM).ok_or(corrupt(Corrupt("an input that is cut off")))?;
            if sum(&[input]).as_bytes() != there {
                return Err(corrupt(Corrupt("a checksum that does not fit")));
            }
            Some(input)
        }
    };
    kept::record(stamps, head, input).map(Some)
}

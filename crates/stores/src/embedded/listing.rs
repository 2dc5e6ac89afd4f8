//! What a segment holds, in two sorted lists: entries by id, for opening, sweeping and merging; rows by what they
//! are searched for, for pages.
//!
//! For the segment that is written to, and until its sidecar is there, the lists are in memory and are made by reading the segment
//! when somebody asks; a search that never comes costs nothing.

use std::fmt;
use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use semel_core::id::{Namespace, Operation};
use semel_core::record::StateName;
use semel_core::{Fence, Record, RecordId, Timestamp};

use crate::codec::{self, Corrupt, RecordGlance};
use crate::embedded::audit_list::{AuditLine, AuditList};
use crate::embedded::disk::File;
use crate::embedded::frame::{self, Frame, Kind, Seat};
use crate::embedded::groups::GroupNumbers;
use crate::embedded::index::Place;
use crate::embedded::segment::{Segment, long};
use crate::embedded::writer::END_BYTES;
use crate::limits::{FRAME_ALIGN, SCAN_BYTES, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES};

/// The newest thing that a segment says about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: RecordId,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) created: Timestamp,
    /// From when on it is as good as absent; `None` for what is not settled.
    pub(crate) expires: Option<Timestamp>,
    /// When what is settled is due once more. A sidecar says it of all its entries at once.
    pub(crate) wake: Option<Timestamp>,
    /// Group and state, or [`REMOVED`].
    pub(crate) cell: u32,
}

/// The cell of a removal.
pub(crate) const REMOVED: u32 = 7;

impl Entry {
    pub(crate) fn place(&self, segment: u32) -> Place {
        Place::new(segment, self.offset, self.len as usize)
    }

    /// The group, in the list of its segment, and the state; `None` for a removal.
    pub(crate) fn group_and_state(&self) -> Option<(usize, StateName)> {
        let state = StateName::ALL.get((self.cell & 7) as usize)?;
        Some(((self.cell >> 3) as usize, *state))
    }
}

/// Something that records are searched for (0: nothing, all of them), in 32 bits. Two may share them: what is found is
/// looked at before it is shown.
pub(crate) type Term = u32;

/// All records.
pub(crate) const ALL: Term = 0;

/// The term of a key.
pub(crate) fn key_term(key: &str) -> Term {
    static KEY: LazyLock<TermKind> = LazyLock::new(|| TermKind::new(b"key"));
    KEY.of("", key)
}

/// The term of a tag.
pub(crate) fn tag_term(name: &str, value: &str) -> Term {
    static TAG: LazyLock<TermKind> = LazyLock::new(|| TermKind::new(b"tag"));
    TAG.of(name, value)
}

/// What the terms of a kind have in common: the sum of its name, and that of a name of nothing behind it.
pub(crate) struct TermKind {
    kind: u32,
    nameless: u32,
}

impl TermKind {
    pub(crate) fn new(kind: &[u8]) -> Self {
        let kind = crc32c::crc32c(kind);
        Self { kind, nameless: crc32c::crc32c_append(kind, &0_u64.to_le_bytes()) }
    }

    pub(crate) fn of(&self, name: &str, value: &str) -> Term {
        let named = if name.is_empty() {
            self.nameless
        } else {
            let sum = crc32c::crc32c_append(self.kind, &(name.len() as u64).to_le_bytes());
            crc32c::crc32c_append(sum, name.as_bytes())
        };
        crc32c::crc32c_append(named, value.as_bytes()).max(1)
    }
}

/// What a record is found by.
pub(crate) fn terms_of(record: &Record) -> impl Iterator<Item = Term> + '_ {
    let request = record.request();
    let tags = request.tags().iter().map(|tag| (tag.name.as_str(), tag.value.as_str()));
    terms(request.key().as_str(), tags)
}

fn terms<'a>(key: &str, tags: impl Iterator<Item = (&'a str, &'a str)>) -> impl Iterator<Item = Term> {
    [ALL, key_term(key)].into_iter().chain(tags.map(|(name, value)| tag_term(name, value)))
}

/// A group and a state, in one number that sorts.
pub(crate) fn cell_of(group: usize, state: StateName) -> u32 {
    (group as u32) << 3 | state as u32
}

/// Whether it is a cell of this state.
pub(crate) const fn is_in(cell: u32, state: StateName) -> bool {
    cell & 7 == state as u32
}

/// A line of the list that is searched: within a term and a cell by (created, id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) term: Term,
    pub(crate) cell: u32,
    /// Which entry.
    pub(crate) entry: u32,
}

/// The lists of a segment, in memory.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) groups: Vec<(Namespace, Operation)>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) rows: Vec<Row>,
    /// Audit entries, and what they are found by.
    pub(crate) audits: AuditList,
    pub(crate) summary: Summary,
    /// Where the frames end that were read.
    pub(crate) end: SegmentEnd,
    group_numbers: GroupNumbers,
    last_group: Option<usize>,
    sorted_rows: usize,
    is_thorough: bool,
}

/// What a segment says about the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The latest time in it.
    pub(crate) time: Timestamp,
    /// The highest floor in it.
    pub(crate) floor: Fence,
    /// The highest fence in it.
    pub(crate) fence: Fence,
    /// The number after the highest of an audit entry in it.
    pub(crate) next_audit: u64,
    /// The lowest number of an audit entry that is not forgotten.
    pub(crate) audit_floor: u64,
}

/// Where the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    /// The offset behind the last frame, or of the end frame.
    pub(crate) offset: usize,
    /// Whether there is an end frame.
    pub(crate) ended: bool,
    /// Where the last batch begins.
    pub(crate) last_batch: usize,
}

impl SegmentEnd {
    /// The offset behind all frames, the end frame as well.
    pub(crate) const fn behind(&self) -> usize {
        self.offset + if self.ended { END_BYTES } else { 0 }
    }
}

impl Default for SegmentEnd {
    fn default() -> Self {
        let start = SEGMENT_HEADER_BYTES as usize;
        Self { offset: start, ended: false, last_batch: start }
    }
}

impl Built {
    /// Lists of which every record and audit entry is read whole, and not only glanced at: what could not be read back
    /// later is told at once.
    pub(crate) fn thorough() -> Self {
        Self { is_thorough: true, ..Self::default() }
    }

    /// Reads on from where the last call stopped, to the end of what is written.
    pub(crate) fn read_on(&mut self, segment: &Segment) -> Result<(), ReadError> {
        let mut from = self.end.offset;
        let mut window = SCAN_BYTES;
        let mut bytes = Vec::new();
        while !self.end.ended {
            let left = segment.bytes.saturating_sub(from as u64) as usize;
            bytes.resize(window.min(left), 0);
            let read = segment.file.read_once(from as u64, &mut bytes).map_err(ReadError::Io)?;
            bytes.truncate(read);
            self.read_bytes(&bytes, segment.number, segment.store)?;
            if self.end.offset > from {
                from = self.end.offset;
                window = SCAN_BYTES;
            } else if read == window && read < left {
                // A frame longer than the window, or the end of what is written.
                let claimed = frame::header(&bytes).map_or(0, |(_, payload)| frame::frame_len(payload));
                if claimed <= window {
                    break;
                }
                window = claimed.min(SEGMENT_BYTES_MAX as usize);
                if window == read {
                    break;
                }
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Reads frames that lie at the end of what was read before.
    pub(crate) fn read_bytes(&mut self, bytes: &[u8], number: u32, store: u64) -> Result<(), ReadError> {
        let base = self.end.offset;
        while let Some(rest) = bytes.get(self.end.offset - base..) {
            let offset = self.end.offset as u32;
            let Some(frame) = frame::parse(rest, Seat { store, segment: number, offset }) else { break };
            self.end.last_batch = frame.batch as usize;
            if frame.kind == Kind::End {
                self.end.ended = true;
                break;
            }
            self.frame(&frame, offset).map_err(|error| ReadError::Corrupt(offset, error))?;
            self.end.offset += frame.len();
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, offset: u32) -> Result<(), Corrupt> {
        let payload = frame.payload;
        let (offset, len) = (offset, frame.len() as u32);
        match frame.kind {
            Kind::Mark => {
                if payload.len() >= 16 {
                    self.saw_time(Timestamp::from_millis(long(payload, 0)));
                    self.summary.floor = self.summary.floor.max(Fence(long(payload, 8)));
                }
                if payload.len() >= 24 {
                    self.summary.audit_floor = self.summary.audit_floor.max(long(payload, 16));
                }
            }
            Kind::Record => {
                if self.is_thorough {
                    codec::decode_record(Bytes::copy_from_slice(payload))?;
                }
                let (record, rest) = codec::glance_record(payload)?;
                if !rest.is_empty() {
                    self.audit(rest, offset, len)?;
                }
                self.record(&record, offset, len)?;
            }
            Kind::Removal => {
                let (id, fence) = removal(payload).ok_or(Corrupt("a removal too short"))?;
                self.summary.floor = self.summary.floor.max(fence);
                let created = Timestamp::ZERO;
                self.entries.push(Entry {
                    id,
                    offset,
                    len,
                    created,
                    expires: None,
                    wake: None,
                    cell: REMOVED,
                });
            }
            Kind::Audit => self.audit(payload, offset, len)?,
            Kind::End => {}
        }
        Ok(())
    }

    fn saw_time(&mut self, time: Timestamp) {
        self.summary.time = self.summary.time.max(time);
    }

    fn audit(&mut self, payload: &[u8], offset: u32, len: u32) -> Result<(), Corrupt> {
        if self.is_thorough {
            codec::decode_audit(Bytes::copy_from_slice(payload))?;
        }
        let entry = codec::glance_audit(payload)?;
        self.audits.add(AuditLine { sequence: entry.sequence, at: entry.at, offset, len }, &entry)?;
        self.saw_time(entry.at);
        self.summary.next_audit = self.summary.next_audit.max(entry.sequence + 1);
        Ok(())
    }

    fn record(&mut self, record: &RecordGlance<'_>, offset: u32, len: u32) -> Result<(), Corrupt> {
        let times = record.times;
        let cell = cell_of(self.group(record)?, record.state);
        self.saw_time(times.written);
        self.summary.fence = self.summary.fence.max(record.fence);
        if record.is_settled() {
            let entry = self.entries.len() as u32;
            self.rows.extend(terms(record.key, record.tags.iter()).map(|term| Row { term, cell, entry }));
        }
        let (created, expires) = (times.created, times.expires);
        let wake = expires.and(record.due());
        self.entries.push(Entry { id: record.id(), offset, len, created, expires, wake, cell });
        Ok(())
    }

    fn group(&mut self, record: &RecordGlance<'_>) -> Result<usize, Corrupt> {
        let (namespace, operation) = (record.namespace, record.operation);
        // Neighbours are often of one group.
        if let Some(last) = self.last_group
            && self.groups[last].0 == namespace
            && self.groups[last].1.as_str() == operation
        {
            return Ok(last);
        }
        let groups = &mut self.groups;
        let group = self.group_numbers.of(namespace as u8, [operation, ""], || {
            let operation = Operation::try_new(operation).map_err(|_| Corrupt("no name of an operation"))?;
            groups.push((namespace, operation));
            Ok(groups.len() - 1)
        })?;
        self.last_group = Some(group);
        Ok(group)
    }

    /// Sorts the rows that have come since the last time; those before are one run already.
    pub(crate) fn sort_rows(&mut self) {
        if self.sorted_rows < self.rows.len() {
            let entries = &self.entries;
            self.rows.sort_by_key(|row| {
                let entry = &entries[row.entry as usize];
                (row.term, row.cell, entry.created, entry.id)
            });
            self.sorted_rows = self.rows.len();
        }
    }

    /// Keeps of each id only the newest, in the order of ids, and puts rows into the order of a sidecar. What is sorted by is
    /// laid side by side first: looking it up at each comparison costs more than all else that is done here.
    pub(crate) fn finish(&mut self) {
        let order = newest(&self.entries);
        // Where each entry comes to stand in the order of (created, id), if it stays.
        let mut stands = vec![u32::MAX; self.entries.len()];
        let mut by_created: Vec<_> =
            (0_u32..).zip(&order).map(|(to, from)| (self.entries[*from as usize].created, to)).collect();
        by_created.sort_unstable();
        for (stand, (_, to)) in (0_u32..).zip(&by_created) {
            stands[order[*to as usize] as usize] = stand;
        }
        self.entries = order.iter().map(|at| self.entries[*at as usize]).collect();
        self.rows.retain_mut(|row| {
            row.entry = stands[row.entry as usize];
            row.entry != u32::MAX
        });
        self.rows.sort_unstable_by_key(|row| rank(row.term, row.cell, row.entry));
        self.rows.iter_mut().for_each(|row| row.entry = by_created[row.entry as usize].1);
        self.sorted_rows = self.rows.len();
        self.audits.finish();
    }
}

/// Three words as one number that sorts as they do: it is compared at once, without a branch for each.
pub(crate) fn rank(first: u32, second: u32, third: u32) -> u128 {
    u128::from(first) << 64 | u128::from(second) << 32 | u128::from(third)
}

/// Bits that tell all entries of a segment from each other: there is one for a frame at most.
const ENTRY_BITS: u32 = 24;
const _: () = assert!(SEGMENT_BYTES_MAX / FRAME_ALIGN as u64 <= 1 << ENTRY_BITS, "a number of an entry fits");

/// Which entries are the newest of their ids, in the order of ids.
fn newest(entries: &[Entry]) -> Vec<u32> {
    const MASK: u64 = (1 << ENTRY_BITS) - 1;
    // As much of an id as fits, and behind it the number from the end, so that what is newer comes first.
    let key = |(at, entry): (u64, &Entry)| long(entry.id.as_bytes(), 0).swap_bytes() & !MASK | (MASK - at);
    let mut keys: Vec<_> = (0..).zip(entries).map(key).collect();
    keys.sort_unstable();
    let at = |key: &u64| (MASK - (key & MASK)) as usize;
    let mut order: Vec<u32> = Vec::with_capacity(keys.len());
    for alike in keys.chunk_by_mut(|one, other| one & !MASK == other & !MASK) {
        if alike.len() > 1 {
            // Mostly they are versions of one record, but not always.
            alike.sort_unstable_by_key(|key| (entries[at(key)].id, *key));
        }
        let heads = alike.chunk_by(|one, other| entries[at(one)].id == entries[at(other)].id);
        order.extend(heads.filter_map(<[u64]>::first).map(|key| at(key) as u32));
    }
    order
}

/// The id and fence of a removal's payload.
fn removal(payload: &[u8]) -> Option<(RecordId, Fence)> {
    let id = payload.first_chunk::<16>()?;
    let fence = payload.get(16..24)?;
    Some((RecordId::from_bytes(*id), Fence(long(fence, 0))))
}

/// Why a segment could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    /// At this offset lies a whole frame whose payload cannot be read.
    Corrupt(u32, Corrupt),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Corrupt(_, error) => error.fmt(f),
        }
    }
}

impl ReadError {
    /// As an error of the operating system, for those who do no more than pass it on.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Corrupt(offset, error) => {
                io::Error::new(io::ErrorKind::InvalidData, format!("at byte {offset}: {error}"))
            }
        }
    }
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests;

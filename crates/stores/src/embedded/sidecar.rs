//! The lists of a finished segment, as a file beside it.
//!
//! ```text
//! head     magic, versions, which segment, counts, summary, for each shard its number of entries and their checksum,
//!          checksums of the sections, names of groups and of the audit log's, checksum of the head
//! entries  by id, so that a shard's are together
//! rows     by term, cell, created, id
//! audits   lines of the audit log, by number
//! finders  what they are found by: by term, cell, number
//! waits    which settled entries are due once more, and when; there is no such section where none is
//! ```
//! A sidecar says nothing that its segment does not: one that is missing, damaged, or of another segment is made anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use semel_core::id::{Namespace, Operation};
use semel_core::record::Text;
use semel_core::{Fence, RecordId, Timestamp};

use crate::embedded::audit_list::{AuditGroup, AuditLine, AuditLists};
use crate::embedded::disk::{File, Folder};
use crate::embedded::frame::{self, Kind, Seat};
use crate::embedded::index::shard_of;
use crate::embedded::listing::{Built, Entry, Row, SegmentEnd, Summary, Term};
use crate::embedded::segment::{long, word};
use crate::embedded::writer::END_BYTES;
use crate::limits::{BESIDE_BYTES, SHARDS};

const MAGIC: &[u8; 8] = b"SEMELIDX";
const FORMAT: u32 = 2;
const FIXED_BYTES: usize = 128;
const SHARD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 44;
const ROW_BYTES: usize = 12;
const AUDIT_BYTES: usize = 24;
const WAIT_BYTES: usize = 12;
const _: () = assert!(SHARDS == 256, "in the order of ids, the entries of a shard lie together");

/// The name of the sidecar of a segment.
pub(crate) fn name_of(number: u32) -> String {
    format!("{number:08x}.index")
}

/// The segment that a sidecar's name stands for.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".index")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Writes the sidecar of a segment whose lists are finished.
pub(crate) fn write(folder: &dyn Folder, number: u32, store: u64, built: &Built) -> io::Result<()> {
    let bytes = encode(number, store, built);
    let (unfinished, name) = (format!("{number:08x}.index.new"), name_of(number));
    let file = folder.create(&unfinished)?;
    let mut offset = 0;
    for piece in bytes.chunks(BESIDE_BYTES) {
        file.write_at(offset, piece)?;
        file.sync()?;
        offset += piece.len() as u64;
    }
    folder.rename(&unfinished, &name)?;
    folder.sync()
}

/// The file in one buffer, into which each section is written once; the head, which has their checksums, last.
fn encode(number: u32, store: u64, built: &Built) -> Vec<u8> {
    let names = names_of(built);
    let head_bytes = FIXED_BYTES + SHARDS * SHARD_BYTES + names.groups.len() + names.audit_groups.len() + 4;
    let waits = built.entries.iter().filter(|entry| entry.wake.is_some()).count();
    let Built { entries, rows, audits, .. } = built;
    let rows_bytes = (rows.len() + audits.rows.len()) * ROW_BYTES;
    let lines_bytes = entries.len() * ENTRY_BYTES + audits.lines.len() * AUDIT_BYTES + waits * WAIT_BYTES;
    let mut out = Vec::with_capacity(head_bytes + rows_bytes + lines_bytes);
    out.resize(head_bytes, 0);
    let shards = put_entries(&mut out, entries);
    let rows = put_all(&mut out, rows.iter().map(|row| row_of([row.term, row.cell, row.entry])));
    let lines = put_all(&mut out, audits.lines.iter().map(line_of));
    let finders = put_all(&mut out, audits.rows.iter().map(|row| row_of([row.term, row.cell, row.line])));
    let waiting = (0_u32..).zip(entries).filter_map(|(at, entry)| Some(wait_of(at, entry.wake?)));
    let waits = (waits as u32, put_all(&mut out, waiting));
    let sums = Sums { shards, rows, lines, finders, waits };
    let head = head_of(number, store, built, &names, &sums);
    out[..head_bytes].copy_from_slice(&head);
    out
}

/// Checksums of the sections, and what was counted on the way.
struct Sums {
    /// For each shard the number of its entries and their checksum.
    shards: Vec<(u32, u32)>,
    rows: u32,
    lines: u32,
    finders: u32,
    /// How many waits there are, and their checksum.
    waits: (u32, u32),
}

/// The names of groups, as the head holds them.
struct Names {
    groups: Vec<u8>,
    audit_groups: Vec<u8>,
}

fn names_of(built: &Built) -> Names {
    let mut audit_groups = Vec::new();
    for (operation, actor) in &built.audits.groups {
        // An operation has a name of one character at least, so none has none.
        for text in [operation.as_ref().map_or("", Operation::as_str), actor.as_str()] {
            put_text(&mut audit_groups, text);
        }
    }
    let mut groups = Vec::new();
    for (namespace, operation) in &built.groups {
        groups.push(*namespace as u8);
        put_text(&mut groups, operation.as_str());
    }
    Names { groups, audit_groups }
}

fn head_of(number: u32, store: u64, built: &Built, names: &Names, sums: &Sums) -> Vec<u8> {
    let mut head = Vec::from(MAGIC);
    let mut words = |list: &[u32]| list.iter().for_each(|word| head.extend_from_slice(&word.to_le_bytes()));
    words(&[FORMAT, number, store as u32, (store >> 32) as u32]);
    words(&[built.end.offset as u32, built.end.last_batch as u32]);
    words(&[
        built.entries.len() as u32,
        built.rows.len() as u32,
        built.audits.lines.len() as u32,
        names.groups.len() as u32,
    ]);
    words(&[sums.rows, sums.lines]);
    let Summary { time, floor, fence, next_audit, audit_floor } = built.summary;
    for long in [time.as_millis(), floor.0, fence.0, next_audit, audit_floor] {
        words(&[long as u32, (long >> 32) as u32]);
    }
    let audit_bytes: u32 = built.audits.lines.iter().map(|line| line.len).sum();
    words(&[built.audits.rows.len() as u32, sums.finders, names.audit_groups.len() as u32, audit_bytes]);
    words(&[sums.waits.0, sums.waits.1]);
    head.resize(FIXED_BYTES, 0);
    for (count, sum) in &sums.shards {
        head.extend_from_slice(&count.to_le_bytes());
        head.extend_from_slice(&sum.to_le_bytes());
    }
    head.extend_from_slice(&names.groups);
    head.extend_from_slice(&names.audit_groups);
    let sum = crc32c::crc32c(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// Appends a section, and gives its checksum.
fn put_all<const N: usize>(out: &mut Vec<u8>, lines: impl Iterator<Item = [u8; N]>) -> u32 {
    let from = out.len();
    lines.for_each(|line| out.extend_from_slice(&line));
    crc32c::crc32c(&out[from..])
}

/// Appends entries in the order of ids, and gives for each shard how many it has, and their checksum.
fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) -> Vec<(u32, u32)> {
    let mut shards = vec![(0, 0); SHARDS];
    for of_shard in entries.chunk_by(|one, other| shard_of(one.id) == shard_of(other.id)) {
        let sum = put_all(out, of_shard.iter().map(entry_of));
        shards[shard_of(of_shard[0].id)] = (of_shard.len() as u32, sum);
    }
    shards
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn row_of([term, cell, line]: [u32; 3]) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    bytes[..4].copy_from_slice(&term.to_le_bytes());
    bytes[4..8].copy_from_slice(&cell.to_le_bytes());
    bytes[8..].copy_from_slice(&line.to_le_bytes());
    bytes
}

fn line_of(line: &AuditLine) -> [u8; AUDIT_BYTES] {
    let mut bytes = [0; AUDIT_BYTES];
    bytes[..8].copy_from_slice(&line.sequence.to_le_bytes());
    bytes[8..16].copy_from_slice(&line.at.as_millis().to_le_bytes());
    bytes[16..20].copy_from_slice(&line.offset.to_le_bytes());
    bytes[20..].copy_from_slice(&line.len.to_le_bytes());
    bytes
}

fn wait_of(at: u32, wake: Timestamp) -> [u8; WAIT_BYTES] {
    let mut bytes = [0; WAIT_BYTES];
    bytes[..4].copy_from_slice(&at.to_le_bytes());
    bytes[4..].copy_from_slice(&wake.as_millis().to_le_bytes());
    bytes
}

fn entry_of(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..16].copy_from_slice(entry.id.as_bytes());
    bytes[16..20].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[20..24].copy_from_slice(&entry.len.to_le_bytes());
    bytes[24..32].copy_from_slice(&entry.created.as_millis().to_le_bytes());
    bytes[32..40].copy_from_slice(&entry.expires.map_or(u64::MAX, Timestamp::as_millis).to_le_bytes());
    bytes[40..].copy_from_slice(&entry.cell.to_le_bytes());
    bytes
}

fn get_entry(bytes: &[u8]) -> Entry {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[..16]);
    let expires = long(bytes, 32);
    Entry {
        id: RecordId::from_bytes(id),
        offset: word(bytes, 16),
        len: word(bytes, 20),
        created: Timestamp::from_millis(long(bytes, 24)),
        expires: (expires != u64::MAX).then(|| Timestamp::from_millis(expires)),
        wake: None,
        cell: word(bytes, 40),
    }
}

/// An open sidecar.
pub(crate) struct Sidecar {
    file: Arc<dyn File>,
    pub(crate) groups: Vec<(Namespace, Operation)>,
    pub(crate) summary: Summary,
    pub(crate) end: SegmentEnd,
    /// For each shard where its entries begin, how many there are, and their checksum.
    shards: Vec<(u32, u32, u32)>,
    entries_at: u64,
    rows_at: u64,
    audits_at: u64,
    rows: u32,
    audits: u32,
    rows_sum: u32,
    audits_sum: u32,
    rows_are_checked: AtomicBool,
    finders_at: u64,
    finders: u32,
    finders_sum: u32,
    waits_at: u64,
    waits: u32,
    waits_sum: u32,
    audits_are_checked: AtomicBool,
    audit_groups: Vec<AuditGroup>,
    /// From where to where its audit entries reach, if there are any.
    pub(crate) audit_span: Option<AuditSpan>,
    /// Bytes of the frames that hold them.
    pub(crate) audit_bytes: u32,
}

/// The part of the audit log that a segment holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuditSpan {
    pub(crate) first: AuditLine,
    pub(crate) last: AuditLine,
}

impl Sidecar {
    /// Opens the sidecar of a segment; `None` if there is none that can be used.
    pub(crate) fn open(folder: &dyn Folder, number: u32, store: u64, log: &dyn File) -> Option<Self> {
        let file = folder.open(&name_of(number)).ok()?;
        let mut fixed = [0; FIXED_BYTES];
        if file.read_at(0, &mut fixed).ok()? < FIXED_BYTES
            || &fixed[..8] != MAGIC
            || word(&fixed, 8) != FORMAT
        {
            return None;
        }
        let groups_bytes = word(&fixed, 44) as usize + word(&fixed, 104) as usize;
        let head_bytes = FIXED_BYTES + SHARDS * SHARD_BYTES + groups_bytes;
        if head_bytes as u64 > file.len().ok()? {
            return None;
        }
        let mut head = vec![0; head_bytes + 4];
        if file.read_at(0, &mut head).ok()? < head.len()
            || crc32c::crc32c(&head[..head_bytes]) != word(&head, head_bytes)
        {
            return None;
        }
        if word(&head, 12) != number || long(&head, 16) != store {
            return None;
        }
        let end = SegmentEnd {
            offset: word(&head, 24) as usize,
            ended: true,
            last_batch: word(&head, 28) as usize,
        };
        let mut sidecar = Self::of(file, &head, head_bytes, end)?;
        if let Some(last) = sidecar.audits.checked_sub(1) {
            let (first, last) = (sidecar.line(0).ok()?, sidecar.line(last).ok()?);
            sidecar.audit_span = Some(AuditSpan { first, last });
        }
        ends_there(log, number, store, end.offset).then_some(sidecar)
    }

    fn of(file: Arc<dyn File>, head: &[u8], head_bytes: usize, end: SegmentEnd) -> Option<Self> {
        let mut shards = Vec::with_capacity(SHARDS);
        let mut first = 0;
        for shard in 0..SHARDS {
            let at = FIXED_BYTES + shard * SHARD_BYTES;
            let count = word(head, at);
            shards.push((first, count, word(head, at + 4)));
            first += count;
        }
        let (entries, rows, audits) = (word(head, 32), word(head, 36), word(head, 40));
        if first != entries {
            return None;
        }
        let entries_at = head_bytes as u64 + 4;
        let rows_at = entries_at + u64::from(entries) * ENTRY_BYTES as u64;
        let audits_at = rows_at + u64::from(rows) * ROW_BYTES as u64;
        let finders_at = audits_at + u64::from(audits) * AUDIT_BYTES as u64;
        let finders = word(head, 96);
        let summary = Summary {
            time: Timestamp::from_millis(long(head, 56)),
            floor: Fence(long(head, 64)),
            fence: Fence(long(head, 72)),
            next_audit: long(head, 80),
            audit_floor: long(head, 88),
        };
        let names = &head[FIXED_BYTES + SHARDS * SHARD_BYTES..head_bytes];
        let (names, audit_names) = names.split_at_checked(word(head, 44) as usize)?;
        Some(Self {
            file,
            groups: groups(names)?,
            summary,
            end,
            shards,
            entries_at,
            rows_at,
            audits_at,
            rows,
            audits,
            rows_sum: word(head, 48),
            audits_sum: word(head, 52),
            rows_are_checked: AtomicBool::new(false),
            finders_at,
            finders,
            waits_at: finders_at + u64::from(finders) * ROW_BYTES as u64,
            waits: word(head, 112),
            waits_sum: word(head, 116),
            finders_sum: word(head, 100),
            audits_are_checked: AtomicBool::new(false),
            audit_groups: audit_groups(audit_names)?,
            audit_span: None,
            audit_bytes: word(head, 108),
        })
    }

    /// The entries of a shard, by id.
    pub(crate) fn entries_of(&self, shard: usize) -> io::Result<Vec<Entry>> {
        let (first, count, sum) = self.shards[shard];
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; count as usize * ENTRY_BYTES];
        let at = self.entries_at + u64::from(first) * ENTRY_BYTES as u64;
        if self.file.read_at(at, &mut bytes)? < bytes.len() || crc32c::crc32c(&bytes) != sum {
            return Err(damaged());
        }
        Ok(bytes.chunks_exact(ENTRY_BYTES).map(get_entry).collect())
    }

    /// The number of a shard's first entry among all of them.
    pub(crate) fn first_of(&self, shard: usize) -> u32 {
        self.shards[shard].0
    }

    /// Which settled entries are due once more, by their numbers, and when.
    pub(crate) fn waits(&self) -> io::Result<Vec<(u32, Timestamp)>> {
        let mut bytes = vec![0; self.waits as usize * WAIT_BYTES];
        if self.file.read_at(self.waits_at, &mut bytes)? < bytes.len()
            || crc32c::crc32c(&bytes) != self.waits_sum
        {
            return Err(damaged());
        }
        let waits = bytes.chunks_exact(WAIT_BYTES);
        Ok(waits.map(|wait| (word(wait, 0), Timestamp::from_millis(long(wait, 4)))).collect())
    }

    /// One entry.
    pub(crate) fn entry(&self, at: u32) -> io::Result<Entry> {
        let mut bytes = [0; ENTRY_BYTES];
        self.file.read_at(self.entries_at + u64::from(at) * ENTRY_BYTES as u64, &mut bytes)?;
        Ok(get_entry(&bytes))
    }

    /// How many rows there are.
    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    /// One row.
    pub(crate) fn row(&self, at: u32) -> io::Result<Row> {
        let mut bytes = [0; ROW_BYTES];
        self.file.read_at(self.rows_at + u64::from(at) * ROW_BYTES as u64, &mut bytes)?;
        Ok(Row { term: word(&bytes, 0), cell: word(&bytes, 4), entry: word(&bytes, 8) })
    }

    /// Looks once at all rows, before the first search trusts them.
    pub(crate) fn check_rows(&self) -> io::Result<()> {
        if self.rows_are_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut bytes = vec![0; self.rows as usize * ROW_BYTES];
        if self.file.read_at(self.rows_at, &mut bytes)? < bytes.len()
            || crc32c::crc32c(&bytes) != self.rows_sum
        {
            return Err(damaged());
        }
        self.rows_are_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looks once at all that is said about audit entries, before the first search trusts it.
    pub(crate) fn check_audits(&self) -> io::Result<()> {
        if self.audits_are_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.audits()?;
        let mut bytes = vec![0; self.finders as usize * ROW_BYTES];
        if self.file.read_at(self.finders_at, &mut bytes)? < bytes.len()
            || crc32c::crc32c(&bytes) != self.finders_sum
        {
            return Err(damaged());
        }
        self.audits_are_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Audit entries, by number.
    pub(crate) fn audits(&self) -> io::Result<Vec<AuditLine>> {
        let mut bytes = vec![0; self.audits as usize * AUDIT_BYTES];
        if self.file.read_at(self.audits_at, &mut bytes)? < bytes.len()
            || crc32c::crc32c(&bytes) != self.audits_sum
        {
            return Err(damaged());
        }
        Ok(bytes.chunks_exact(AUDIT_BYTES).map(get_line).collect())
    }
}

fn get_line(bytes: &[u8]) -> AuditLine {
    AuditLine {
        sequence: long(bytes, 0),
        at: Timestamp::from_millis(long(bytes, 8)),
        offset: word(bytes, 16),
        len: word(bytes, 20),
    }
}

impl AuditLists for Sidecar {
    fn lines(&self) -> u32 {
        self.audits
    }

    fn line(&self, at: u32) -> io::Result<AuditLine> {
        let mut bytes = [0; AUDIT_BYTES];
        self.file.read_at(self.audits_at + u64::from(at) * AUDIT_BYTES as u64, &mut bytes)?;
        Ok(get_line(&bytes))
    }

    fn finders(&self) -> u32 {
        self.finders
    }

    fn finder(&self, at: u32) -> io::Result<(Term, u32)> {
        let mut bytes = [0; ROW_BYTES];
        self.file.read_at(self.finders_at + u64::from(at) * ROW_BYTES as u64, &mut bytes)?;
        Ok((word(&bytes, 0), word(&bytes, 4)))
    }

    fn line_of_row(&self, at: u32) -> io::Result<AuditLine> {
        let mut bytes = [0; ROW_BYTES];
        self.file.read_at(self.finders_at + u64::from(at) * ROW_BYTES as u64, &mut bytes)?;
        self.line(word(&bytes, 8))
    }

    fn groups(&self) -> &[AuditGroup] {
        &self.audit_groups
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the sidecar is damaged")
}

/// Whether the segment ends where the sidecar says: then it is this segment's, and whole.
fn ends_there(log: &dyn File, number: u32, store: u64, offset: usize) -> bool {
    let mut end = [0; END_BYTES];
    let Ok(read) = log.read_at(offset as u64, &mut end) else { return false };
    let seat = Seat { store, segment: number, offset: offset as u32 };
    frame::parse(&end[..read], seat).is_some_and(|frame| frame.kind == Kind::End)
}

fn groups(mut bytes: &[u8]) -> Option<Vec<(Namespace, Operation)>> {
    let mut groups = Vec::new();
    while let Some((namespace, rest)) = bytes.split_first() {
        let namespace = *Namespace::ALL.get(usize::from(*namespace))?;
        let len = word(rest.get(..4)?, 0) as usize;
        let text = str::from_utf8(rest.get(4..4 + len)?).ok()?;
        groups.push((namespace, Operation::try_new(text).ok()?));
        bytes = &rest[4 + len..];
    }
    Some(groups)
}

fn audit_groups(mut bytes: &[u8]) -> Option<Vec<AuditGroup>> {
    let mut groups = Vec::new();
    let text = |bytes: &mut &[u8]| {
        let len = word(bytes.get(..4)?, 0) as usize;
        let text = str::from_utf8(bytes.get(4..4 + len)?).ok()?.to_owned();
        *bytes = &bytes[4 + len..];
        Some(text)
    };
    while !bytes.is_empty() {
        let (operation, actor) = (text(&mut bytes)?, text(&mut bytes)?);
        let operation = if operation.is_empty() { None } else { Some(Operation::try_new(&operation).ok()?) };
        groups.push((operation, Text::new(&actor)));
    }
    Some(groups)
}

#[cfg(test)]
mod tests;

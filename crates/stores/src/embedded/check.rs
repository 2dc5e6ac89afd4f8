//! Looking at every byte of a store without opening it: before a copy is trusted, and to say in which formats it is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use semel_core::RecordId;

use crate::codec;
use crate::embedded::disk::Folder;
use crate::embedded::disk::real::RealFolder;
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::frame::{self, Kind};
use crate::embedded::layout::Layout;
use crate::embedded::listing::{Built, Entry, read_all};
use crate::embedded::manifest;
use crate::embedded::segment::{Header, LOG_FORMAT, Segment, name_of};
use crate::embedded::sidecar::Sidecar;
use crate::limits::{DAMAGE_NAMED_MAX, FRAME_ALIGN, FRAME_HEADER_BYTES, SHARDS};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments of the log.
    pub segments: u64,
    /// How many segments are in which format of the log.
    pub log_formats: BTreeMap<u32, u64>,
    /// How many versions of records are in which format of records, superseded ones included.
    pub record_formats: BTreeMap<u8, u64>,
    /// Versions, removals and audit entries that were read and whose checksums hold, superseded ones included.
    pub entries: u64,
    /// Bytes of the log that hold them.
    pub bytes: u64,
    /// Sidecars that are missing or cannot be used: they are made anew when the store is open.
    pub sidecars_missing: u64,
    /// What a crash left at the end of the log; opening cuts it off, nobody was told of it.
    pub has_torn_tail: bool,
    /// Damage: what had been acknowledged and cannot be read. Restore from a copy.
    pub damage: Vec<Damage>,
}

/// A part of the log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// From which byte on; `None` if it is all of the file.
    pub offset: Option<u64>,
    /// What is wrong.
    pub why: String,
    /// The records whose newest version in this file stood there, as far as the lists beside it tell.
    pub records: Vec<RecordId>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.why)?;
        let (named, more) = self.records.split_at(self.records.len().min(DAMAGE_NAMED_MAX));
        for (at, id) in named.iter().enumerate() {
            write!(f, "{}{id}", if at == 0 { "; there stood " } else { ", " })?;
        }
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    }
}

impl Report {
    /// Whether everything that was acknowledged can be read.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether everything is in the formats that this version writes.
    pub fn is_current(&self) -> bool {
        self.log_formats.keys().all(|format| *format == LOG_FORMAT)
            && self.record_formats.keys().all(|format| *format == codec::FORMAT)
    }
}

/// Reads and verifies a whole store, and changes nothing.
///
/// # Errors
/// There is no store, the folder is in use or cannot be read, or was written by a later version. Damage is no error: it
/// is in the report.
pub fn check(folder: &Path) -> Result<Report, OpenError> {
    check_told(folder, |_, _| {})
}

/// As [`check`], and says how far it is: segments read, and segments in all.
///
/// # Errors
/// As [`check`].
pub fn check_told(folder: &Path, told: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    check_in(&RealFolder::look(folder)?, told)
}

pub(crate) fn check_in(folder: &dyn Folder, mut told: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    let names = folder.list().map_err(|error| OpenError::io("cannot list the store's folder", error))?;
    let mut report = Report::default();
    let known = match manifest::read(folder, &names) {
        Ok(known) => known,
        Err(error) if error.kind() == OpenErrorKind::Corrupt => {
            report.damage.push(Damage::of(manifest::NAME.to_owned(), "cannot be read"));
            None
        }
        Err(error) => return Err(error),
    };
    let Layout { segments: numbers, missing, .. } = Layout::of(&names, known);
    let missing = missing.into_iter().map(|(file, why)| Damage::of(file, format!("is missing: {why}")));
    report.damage.extend(missing);
    let mut store = known.map(|span| span.store);
    for (index, number) in numbers.iter().copied().enumerate() {
        let is_last = index + 1 == numbers.len();
        let frames_before = report.bytes;
        report.segment(folder, number, is_last, &mut store)?;
        if known.is_some_and(|known| number > known.newest) && report.bytes > frames_before {
            report.damage.push(Damage::of(name_of(number), "is not in the manifest, and holds records"));
        }
        told(report.segments, numbers.len() as u64);
    }
    Ok(report)
}

impl Damage {
    pub(crate) fn of(file: String, why: impl Into<String>) -> Self {
        Self { file, offset: None, why: why.into(), records: Vec::new() }
    }

    /// Damage from one offset to another, where `sidecar` may know what stood.
    fn between(segment: &Segment, from: usize, to: usize, why: &str, sidecar: Option<&Sidecar>) -> Self {
        let entries =
            sidecar.into_iter().flat_map(|sidecar| (0..SHARDS).map(|shard| sidecar.entries_of(shard)));
        let there = |entry: &Entry| (from..to).contains(&(entry.offset as usize));
        let records = entries.flatten().flatten().filter(there).map(|entry| entry.id).collect();
        let (file, offset) = (name_of(segment.number), Some(from as u64));
        Self { file, offset, why: why.into(), records }
    }
}

impl Report {
    fn segment(
        &mut self,
        folder: &dyn Folder,
        number: u32,
        is_last: bool,
        store: &mut Option<u64>,
    ) -> Result<(), OpenError> {
        self.segments += 1;
        let name = name_of(number);
        let io = |error| OpenError::io(format!("cannot read {name}"), error);
        let file = folder.open(&name).map_err(io)?;
        let bytes = read_all(&*file).map_err(io)?;
        let header = Header::decode(&bytes)?
            .filter(|header| header.segment == number && *store.get_or_insert(header.store) == header.store);
        let Some(header) = header else {
            self.damage.push(Damage::of(name, "has no header of this store"));
            return Ok(());
        };
        *self.log_formats.entry(Header::format_of(&bytes)).or_default() += 1;
        let segment = Segment::new(number, header.store, file, bytes.len() as u64);
        let sidecar = Sidecar::open(folder, number, header.store, &*segment.file);
        let damaged_before = self.damage.len();
        let built = self.frames(&segment, &bytes, is_last, sidecar.as_ref());
        self.entries += (built.entries.len() + built.audits.lines.len()) as u64;
        if !built.end.ended || self.damage.len() > damaged_before {
            return Ok(());
        }
        if !sidecar.is_some_and(|sidecar| is_sidecar_right(&sidecar, built)) {
            self.sidecars_missing += 1;
        }
        Ok(())
    }

    /// Reads all frames of a segment, those behind damage as well.
    fn frames(&mut self, segment: &Segment, bytes: &[u8], is_last: bool, sidecar: Option<&Sidecar>) -> Built {
        let (number, store) = (segment.number, segment.store);
        let mut built = Built::thorough();
        loop {
            let from = built.end.offset;
            let read = built.read_bytes(bytes.get(from..).unwrap_or_default(), number, store);
            let at = built.end.offset;
            self.saw_formats(bytes.get(from..at).unwrap_or_default());
            self.bytes += (at - from) as u64;
            if read.is_ok() && built.end.ended {
                return built;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            if read.is_ok() && is_last && frame::later_batch(bytes, at as u32, store, number).is_none() {
                self.has_torn_tail |= frame::whole_frame(rest, at as u32, store, number).is_some();
                return built;
            }
            let (why, next) = if let Err(error) = read {
                // A whole frame of what makes no sense: the next one stands behind it.
                let len = frame::header(rest).map_or(FRAME_ALIGN, |(_, payload)| frame::frame_len(payload));
                (error.to_string(), Some(at + len))
            } else {
                let from = at + FRAME_ALIGN;
                let behind = bytes.get(from..).unwrap_or_default();
                let next = frame::whole_frame(behind, from as u32, store, number);
                ("no whole record".to_owned(), next.map(|next| next as usize))
            };
            self.damage.push(Damage::between(segment, at, next.unwrap_or(bytes.len()), &why, sidecar));
            let Some(next) = next else { return built };
            built.end.offset = next;
        }
    }

    /// Counts the formats of records in frames that were read whole.
    fn saw_formats(&mut self, mut frames: &[u8]) {
        while let Some((kind, length)) = frame::header(frames) {
            if kind == Kind::Record
                && let Some(format) = frames.get(FRAME_HEADER_BYTES)
            {
                *self.record_formats.entry(*format).or_default() += 1;
            }
            frames = frames.get(frame::frame_len(length)..).unwrap_or_default();
        }
    }
}

/// Whether the sidecar says what the segment says.
fn is_sidecar_right(sidecar: &Sidecar, mut built: Built) -> bool {
    built.finish();
    let mut entries = Vec::new();
    for shard in 0..SHARDS {
        match sidecar.entries_of(shard) {
            Ok(found) => entries.extend(found),
            Err(_) => return false,
        }
    }
    entries == built.entries
        && sidecar.check_rows().is_ok()
        && sidecar.check_audits().is_ok()
        && sidecar.audits().is_ok_and(|found| found == built.audits.lines)
}

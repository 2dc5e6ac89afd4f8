//! Looking at every byte of a store without opening it: before a copy is trusted, and to say in which formats it is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codec;
use crate::embedded::disk::Folder;
use crate::embedded::disk::real::RealFolder;
use crate::embedded::error::OpenError;
use crate::embedded::frame::{self, Kind};
use crate::embedded::listing::{Built, read_all};
use crate::embedded::segment::{Header, LOG_FORMAT, Segment, name_of, number_of};
use crate::embedded::sidecar::Sidecar;
use crate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, SHARDS};

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
    pub damage: Vec<String>,
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
/// The folder is in use or cannot be read, or was written by a later version. Damage is no error: it is in the report.
pub fn check(folder: &Path) -> Result<Report, OpenError> {
    check_told(folder, |_, _| {})
}

/// As [`check`], and says how far it is: segments read, and segments in all.
///
/// # Errors
/// As [`check`].
pub fn check_told(folder: &Path, told: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    check_in(&RealFolder::open(folder)?, told)
}

pub(crate) fn check_in(folder: &dyn Folder, mut told: impl FnMut(u64, u64)) -> Result<Report, OpenError> {
    let names = folder.list().map_err(|error| OpenError::io("cannot list the store's folder", error))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let mut report = Report::default();
    let mut store = None;
    for (index, number) in numbers.iter().copied().enumerate() {
        if index > 0 && numbers[index - 1] + 1 != number {
            report.damage.push(format!("{} is missing", name_of(number - 1)));
        }
        let is_last = index + 1 == numbers.len();
        report.segment(folder, number, is_last, &mut store)?;
        told(report.segments, numbers.len() as u64);
    }
    Ok(report)
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
            self.damage.push(format!("{name} has no header of this store"));
            return Ok(());
        };
        let mut built = Built::default();
        let frames = bytes.get(SEGMENT_HEADER_BYTES as usize..).unwrap_or_default();
        if let Err(error) = built.read_bytes(frames, number, header.store) {
            self.damage.push(format!("{name}: {}", error.into_io()));
            return Ok(());
        }
        let end = built.end.offset;
        *self.log_formats.entry(Header::format_of(&bytes)).or_default() += 1;
        self.saw_formats(bytes.get(SEGMENT_HEADER_BYTES as usize..end).unwrap_or_default());
        self.entries += (built.entries.len() + built.audits.lines.len()) as u64;
        self.bytes += end as u64 - SEGMENT_HEADER_BYTES;
        if !built.end.ended {
            let later = frame::later_batch(&bytes, end as u32, header.store, number);
            if !is_last || later.is_some() {
                self.damage.push(format!("{name} is damaged at byte {end}"));
            } else {
                let tail = &bytes[end..];
                self.has_torn_tail |= frame::any_frame(tail, end as u32, header.store, number);
            }
            return Ok(());
        }
        let segment = Segment::new(number, header.store, file, bytes.len() as u64);
        if !is_sidecar_right(folder, &segment, built) {
            self.sidecars_missing += 1;
        }
        Ok(())
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

/// Whether there is a sidecar, and it says what the segment says.
fn is_sidecar_right(folder: &dyn Folder, segment: &Segment, mut built: Built) -> bool {
    built.finish();
    let sidecar = Sidecar::open(folder, segment.number, segment.store, &*segment.file);
    let Some(sidecar) = sidecar else { return false };
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

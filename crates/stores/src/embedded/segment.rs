//! A segment: a file of the log, its header, and reading from it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use semel_core::{Fence, Timestamp};

use crate::embedded::audit_list::AuditLists;
use crate::embedded::disk::File;
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::frame::{self, Kind, Seat};
use crate::embedded::index::{Place, shard_of};
use crate::embedded::listing::{Built, Entry, ReadError};
use crate::embedded::sidecar::{AuditSpan, Sidecar};
use crate::limits::{FRAME_HEADER_BYTES, READ_AHEAD_BYTES, SEGMENT_HEADER_BYTES};

/// The version of the format of segments that is written.
pub(crate) const LOG_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SEMELLOG";
const HEADER_LEN: usize = 48;

/// The name of the file of a segment.
pub(crate) fn name_of(number: u32) -> String {
    format!("{number:08x}.log")
}

/// The segment that a file's name stands for.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// What stands at the head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The store's own number.
    pub(crate) store: u64,
    /// The segment's number.
    pub(crate) segment: u32,
    /// The store's time when the segment was begun.
    pub(crate) time: Timestamp,
    /// The floor under all fences then.
    pub(crate) floor: Fence,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time.as_millis().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.floor.0.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The format that a whole header names.
    pub(crate) fn format_of(bytes: &[u8]) -> u32 {
        word(bytes, 8)
    }

    /// Reads a header; `None` if there is no whole one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = bytes.get(..HEADER_LEN) else { return Ok(None) };
        let sum = crc32c::crc32c(&bytes[..40]);
        if &bytes[..8] != MAGIC || word(bytes, 40) != sum {
            return Ok(None);
        }
        let format = Self::format_of(bytes);
        if format > LOG_FORMAT {
            let message = format!("the store was written by a later version (log format {format})");
            return Err(OpenError::new(OpenErrorKind::Newer, message));
        }
        Ok(Some(Self {
            segment: word(bytes, 12),
            store: long(bytes, 16),
            time: Timestamp::from_millis(long(bytes, 24)),
            floor: Fence(long(bytes, 32)),
        }))
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

/// Whether a frame could be read from memory.
pub(crate) enum Resident {
    /// One has to wait for the disk.
    No,
    /// This is what it holds; `None` if there is no whole record there.
    Yes(Option<Bytes>),
}

/// An open segment. Readers hold it by an [`Arc`]: what a merge removes stays readable for those who are reading.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) store: u64,
    pub(crate) file: Arc<dyn File>,
    /// Its length.
    pub(crate) bytes: u64,
    /// Up to where there are frames that are durable: who finds fewer of them has found damage.
    written: AtomicU64,
    /// Bytes of frames that the index points to.
    live_bytes: AtomicU64,
    live_records: AtomicU64,
    /// When it is worth while to look for expired records in it, in milliseconds.
    sweep_at: AtomicU64,
    /// The shard that a sweep goes on with.
    pub(crate) sweep_from: AtomicUsize,
    /// Whether a merge has carried its audit entries to the end of the log.
    pub(crate) audits_are_carried: AtomicBool,
    /// What it holds, as far as anybody has asked.
    pub(crate) listing: Mutex<Listing>,
}

/// Where the lists of a segment are.
pub(crate) enum Listing {
    /// In memory, and read as far as somebody wanted to know.
    Memory(Box<Built>),
    /// In a file beside the segment.
    File(Arc<Sidecar>),
}

impl Segment {
    pub(crate) fn new(number: u32, store: u64, file: Arc<dyn File>, bytes: u64) -> Self {
        Self {
            number,
            store,
            file,
            bytes,
            written: AtomicU64::new(SEGMENT_HEADER_BYTES),
            live_bytes: AtomicU64::new(0),
            live_records: AtomicU64::new(0),
            sweep_at: AtomicU64::new(u64::MAX),
            sweep_from: AtomicUsize::new(0),
            audits_are_carried: AtomicBool::new(false),
            listing: Mutex::new(Listing::Memory(Box::default())),
        }
    }

    /// Notes that there are durable frames up to this offset.
    pub(crate) fn wrote_to(&self, offset: usize) {
        self.written.fetch_max(offset as u64, Ordering::AcqRel);
    }

    /// Notes that something in it expires then.
    pub(crate) fn expires(&self, at: Timestamp) {
        if at.as_millis() < self.sweep_at.load(Ordering::Relaxed) {
            self.sweep_at.fetch_min(at.as_millis(), Ordering::Relaxed);
        }
    }

    /// When it is worth while to sweep it.
    pub(crate) fn sweep_at(&self) -> Timestamp {
        Timestamp::from_millis(self.sweep_at.load(Ordering::Relaxed))
    }

    /// A sweep begins, or ends knowing when the next is worth while.
    pub(crate) fn sweep_next(&self, at: Timestamp) {
        self.sweep_at.store(at.as_millis(), Ordering::Relaxed);
    }

    /// Its sidecar, if it has one.
    pub(crate) fn sidecar(&self) -> Option<Arc<Sidecar>> {
        match &*self.listing.lock() {
            Listing::File(sidecar) => Some(Arc::clone(sidecar)),
            Listing::Memory(_) => None,
        }
    }

    /// The newest entries of a shard, by id or in the order of the log.
    pub(crate) fn entries_of(&self, shard: usize) -> io::Result<Vec<Entry>> {
        if let Some(sidecar) = self.sidecar()
            && let Ok(entries) = sidecar.entries_of(shard)
        {
            return Ok(entries);
        }
        // A sidecar that has gone bad is as good as none: the segment knows everything.
        self.in_memory(|built| {
            built.entries.iter().filter(|entry| shard_of(entry.id) == shard).copied().collect()
        })
    }

    /// Shows its lists as far as the segment is written, from memory.
    pub(crate) fn in_memory<T>(&self, show: impl FnOnce(&mut Built) -> T) -> io::Result<T> {
        let mut listing = self.listing.lock();
        if let Listing::File(_) = &*listing {
            *listing = Listing::Memory(Box::default());
        }
        let Listing::Memory(built) = &mut *listing else { return Err(io::Error::other("no lists")) };
        let written = self.written.load(Ordering::Acquire);
        built.read_on(self).map_err(ReadError::into_io)?;
        let end = built.end;
        if !end.ended && (end.offset as u64) < written {
            // Lists that end before the segment does would have records drop out of pages (L13).
            let message = format!("{} is damaged at byte {}", name_of(self.number), end.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(show(built))
    }

    /// Shows its lists of audit entries, as far as the segment is written.
    pub(crate) fn audit_lists<T>(
        &self,
        show: impl FnOnce(&dyn AuditLists) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(sidecar) = self.sidecar()
            && sidecar.check_audits().is_ok()
        {
            return show(&*sidecar);
        }
        self.in_memory(|built| {
            built.audits.sort();
            show(&built.audits)
        })?
    }

    /// About how many of its bytes hold audit entries that are not forgotten. (Of a segment without a sidecar: none.)
    pub(crate) fn audit_bytes(&self, floor: u64) -> u64 {
        let Some(span) = self.sidecar().and_then(|sidecar| sidecar.audit_span.map(|span| (span, sidecar)))
        else {
            return 0;
        };
        let (AuditSpan { first, last }, sidecar) = span;
        let (numbers, kept) = (
            last.sequence + 1 - first.sequence,
            (last.sequence + 1).saturating_sub(floor.max(first.sequence)),
        );
        (u128::from(sidecar.audit_bytes) * u128::from(kept) / u128::from(numbers)) as u64
    }

    /// Counts a frame that the index points to from now on.
    pub(crate) fn gains(&self, place: Place) {
        self.live_bytes.fetch_add(place.bytes(), Ordering::Relaxed);
        self.live_records.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that the index points to no longer.
    pub(crate) fn loses(&self, place: Place) {
        self.live_bytes.fetch_sub(place.bytes(), Ordering::Relaxed);
        self.live_records.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn live_records(&self) -> u64 {
        self.live_records.load(Ordering::Relaxed)
    }

    /// Reads the payload of a frame if no wait for the disk is needed.
    pub(crate) fn read_resident(&self, place: Place) -> io::Result<Resident> {
        let Some(len) = place.len_at_most() else { return Ok(Resident::No) };
        let mut buffer = vec![0; len];
        let Some(read) = self.file.read_resident(u64::from(place.offset()), &mut buffer)? else {
            return Ok(Resident::No);
        };
        buffer.truncate(read);
        Ok(Resident::Yes(self.payload(place, buffer)))
    }

    /// Reads the payload of a frame; `None` if there is no whole record there.
    pub(crate) fn read(&self, place: Place) -> io::Result<Option<Bytes>> {
        let offset = u64::from(place.offset());
        let mut buffer = vec![0; place.len_at_most().unwrap_or(READ_AHEAD_BYTES)];
        let mut read = self.file.read_at(offset, &mut buffer)?;
        buffer.truncate(read);
        if place.len_at_most().is_none()
            && let Some((_, payload)) = frame::header(&buffer)
        {
            let whole = FRAME_HEADER_BYTES + payload;
            buffer.resize(whole, 0);
            if whole > read {
                read += self.file.read_at(offset + read as u64, &mut buffer[read..])?;
                buffer.truncate(read);
            }
        }
        Ok(self.payload(place, buffer))
    }

    fn payload(&self, place: Place, buffer: Vec<u8>) -> Option<Bytes> {
        let seat = Seat { store: self.store, segment: self.number, offset: place.offset() };
        let frame = frame::parse(&buffer, seat)?;
        if !matches!(frame.kind, Kind::Record | Kind::Audit) {
            return None;
        }
        let end = FRAME_HEADER_BYTES + frame.payload.len();
        Some(Bytes::from(buffer).slice(FRAME_HEADER_BYTES..end))
    }
}

const _: () = assert!(HEADER_LEN as u64 <= SEGMENT_HEADER_BYTES);

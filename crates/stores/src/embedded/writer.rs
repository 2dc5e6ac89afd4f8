//! The one writer of the log: frames into segments, one sync for each batch, segment after segment.
//!
//! What this room guarantees, and recovery relies on:
//! - a batch is written only when everything before it is synced;
//! - a segment is begun only when the one before it is synced and ends with an [`Kind::End`] frame;
//! - a segment's header and its name are durable before its first frame is written, and so is the manifest that knows it;
//! - after a write or sync that failed, nothing is written ever again: the kernel may have dropped the pages, so that a
//!   second sync that succeeds proves nothing.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use semel_core::{Fence, Timestamp};

use crate::embedded::disk::{File, Folder};
use crate::embedded::frame::{self, Kind, Seat, frame_len};
use crate::embedded::index::Place;
use crate::embedded::manifest::Manifest;
use crate::embedded::queue::{Gathered, MARK_BYTES, Step, mark_payload};
use crate::embedded::segment::{Header, Segment, name_of};
use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// Bytes that stay free at the end of a segment for the frame that ends it.
pub(crate) const END_BYTES: usize = frame_len(0);

/// A batch that could not be written.
#[derive(Debug)]
pub(crate) struct WriteError {
    /// Whether anything of it was handed to the disk.
    pub(crate) in_doubt: bool,
    pub(crate) what: &'static str,
    pub(crate) source: io::Error,
}

/// Files that are ready to become segments: filled, synced, and named as such.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Vec<String>>);

impl Spares {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(Mutex::new(names))
    }

    pub(crate) fn put(&self, name: String) {
        self.0.lock().push(name);
    }

    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Whether a file is a spare one.
pub(crate) fn is_spare(name: &str) -> bool {
    name.strip_suffix(".spare").is_some()
}

/// Whether a file was to become a spare one.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".new").is_some()
}

/// Makes a file of zeros, and gives it its name only when it is whole.
pub(crate) fn make_spare(folder: &dyn Folder, number: u32, bytes: u64) -> io::Result<String> {
    let (unfinished, name) = (make_unfinished(folder, number, bytes)?, format!("{number:08x}.spare"));
    folder.rename(&unfinished, &name)?;
    Ok(name)
}

/// Makes a file of zeros, under a name that the next opening removes.
pub(crate) fn make_unfinished(folder: &dyn Folder, number: u32, bytes: u64) -> io::Result<String> {
    let unfinished = format!("{number:08x}.new");
    folder.allocate(&unfinished, bytes)?;
    Ok(unfinished)
}

/// The end of the log.
pub(crate) struct Writer {
    folder: Arc<dyn Folder>,
    spares: Arc<Spares>,
    manifest: Arc<Manifest>,
    segment_bytes: u64,
    store: u64,
    current: Arc<Segment>,
    offset: usize,
    ended: bool,
    /// Files for the segments that the batch at hand will begin.
    reserved: Vec<String>,
}

impl Writer {
    /// Goes on where recovery found the end of the log: at `offset` of `current`.
    pub(crate) fn new(
        folder: Arc<dyn Folder>,
        spares: Arc<Spares>,
        manifest: Arc<Manifest>,
        segment_bytes: u64,
        current: Arc<Segment>,
        offset: usize,
        ended: bool,
    ) -> Self {
        let store = current.store;
        Self { folder, spares, manifest, segment_bytes, store, current, offset, ended, reserved: Vec::new() }
    }

    /// Bytes of the longest frame that fits a segment.
    pub(crate) fn frame_max(segment_bytes: u64) -> usize {
        segment_bytes as usize - SEGMENT_HEADER_BYTES as usize - END_BYTES - frame_len(MARK_BYTES)
    }

    /// Writes and syncs what was gathered, and says in its steps where each frame lies. Calls `began` with every
    /// segment that is begun on the way, before anything in it is written.
    pub(crate) fn write(
        &mut self,
        gathered: &mut Gathered,
        time: Timestamp,
        floor: Fence,
        audit_floor: u64,
        mut began: impl FnMut(&Arc<Segment>),
    ) -> Result<(), WriteError> {
        let Gathered { bytes, steps, .. } = gathered;
        bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + MARK_BYTES].copy_from_slice(&mark_payload(
            time,
            floor,
            audit_floor,
        ));
        self.reserve(steps)?;
        // Frame 0 is the mark, frame n is step n - 1.
        let frames = steps.len() + 1;
        let (mut next, mut from) = (0, 0);
        while next < frames {
            let len = len_of(steps, next);
            if self.ended || self.offset + len + END_BYTES > self.segment_bytes as usize {
                began(&self.next_segment(time, floor)?);
            }
            let batch = self.offset;
            let mut to = from;
            while next < frames {
                let len = len_of(steps, next);
                let offset = batch + (to - from);
                let fits = offset + len + END_BYTES <= self.segment_bytes as usize;
                if !fits || (to > from && to - from + len > BATCH_BYTES_MAX) {
                    break;
                }
                let seat = Seat { store: self.store, segment: self.current.number, offset: offset as u32 };
                frame::seat(&mut bytes[to..to + len], seat, batch as u32);
                if let Some(step) = next.checked_sub(1) {
                    steps[step].place = Place::new(self.current.number, offset as u32, len);
                }
                to += len;
                next += 1;
            }
            self.put(&bytes[from..to])?;
            from = to;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let failed = |what| move |source| WriteError { in_doubt: true, what, source };
        self.current.file.append(self.offset as u64, bytes).map_err(failed("write to the log"))?;
        self.offset += bytes.len();
        self.current.wrote_to(self.offset);
        Ok(())
    }

    /// Sees to it that there are files for all segments that a batch will begin. What can run out of space comes
    /// before anything is written: then the log is as it was, and a later batch may try again.
    fn reserve(&mut self, steps: &[Step]) -> Result<(), WriteError> {
        let full = |source| WriteError { in_doubt: false, what: "begin a segment of the log", source };
        let mut needed = usize::from(self.ended);
        let mut offset = if self.ended { SEGMENT_HEADER_BYTES as usize } else { self.offset };
        for frame in 0..=steps.len() {
            let len = len_of(steps, frame);
            if offset + len + END_BYTES > self.segment_bytes as usize {
                needed += 1;
                offset = SEGMENT_HEADER_BYTES as usize;
            }
            offset += len;
        }
        while self.reserved.len() < needed {
            let number = self.current.number + 1 + self.reserved.len() as u32;
            let name = match self.spares.take() {
                Some(name) => name,
                None => make_spare(&*self.folder, number, self.segment_bytes).map_err(full)?,
            };
            self.reserved.push(name);
        }
        Ok(())
    }

    /// Ends the current segment and begins the next.
    fn next_segment(&mut self, time: Timestamp, floor: Fence) -> Result<Arc<Segment>, WriteError> {
        let failed = |source| WriteError { in_doubt: true, what: "begin a segment of the log", source };
        let number = self.current.number + 1;
        let spare = self.reserved.pop();
        let spare = spare.ok_or_else(|| failed(io::Error::other("no file was reserved")))?;
        if !self.ended {
            let mut end = Vec::new();
            frame::append(&mut end, Kind::End, |_| {});
            let offset = self.offset as u32;
            frame::seat(&mut end, Seat { store: self.store, segment: self.current.number, offset }, offset);
            self.put(&end)?;
            self.ended = true;
        }
        let header = Header { store: self.store, segment: number, time, floor };
        let file = begin(&*self.folder, &spare, &header).map_err(failed)?;
        self.manifest.begins(number).map_err(failed)?;
        self.current = Arc::new(Segment::new(number, self.store, file, self.segment_bytes));
        self.offset = SEGMENT_HEADER_BYTES as usize;
        self.ended = false;
        Ok(Arc::clone(&self.current))
    }
}

fn len_of(steps: &[Step], frame: usize) -> usize {
    match frame.checked_sub(1) {
        Some(step) => steps[step].len,
        None => frame_len(MARK_BYTES),
    }
}

/// Turns a spare file into a segment. The header is synced before the name is, so that a file that is named as a segment
/// has a whole header.
pub(crate) fn begin(folder: &dyn Folder, spare: &str, header: &Header) -> io::Result<Arc<dyn File>> {
    let file = folder.open_to_append(spare)?;
    file.append(0, &header.encode())?;
    folder.rename(spare, &name_of(header.segment))?;
    folder.sync()?;
    Ok(file)
}

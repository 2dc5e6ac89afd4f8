//! The manifest: from which segment to which the log reaches, so that one that is lost at either end is missed.
//!
//! ```text
//! 0   8   magic
//! 8   u32 format
//! 12  u32 the oldest segment
//! 16  u32 the newest segment
//! 20  u32 zero
//! 24  u64 the store's own number
//! 32  u64 how often it was written; the higher one of the two counts
//! 40  u32 checksum of everything above
//! ```
//! Two copies lie in one file, 4,096 bytes apart, and are written in turn: a write that a crash tears leaves the other one.
//! The file keeps its length, so writing takes no space that a full disk may refuse, and is one write and one sync.
//!
//! - A segment is begun, named and synced, then the manifest says so, then its first batch is written.
//! - The manifest lets go of the oldest segment, then its file goes.
//!
//! So a segment after the newest may be there without a frame, and segments before the oldest are remains; every other
//! difference is a loss.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::embedded::disk::{File, Folder};
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::listing::read_all;
use crate::embedded::segment::{long, word};

/// The name of the file.
pub(crate) const NAME: &str = "manifest";
const UNFINISHED: &str = "manifest.new";
const MAGIC: &[u8; 8] = b"SEMELMAN";
const FORMAT: u32 = 1;
const COPY_BYTES: usize = 44;
/// Further apart than anything that a disk writes in one piece.
const COPY_AT: [u64; 2] = [0, 4096];
const FILE_BYTES: usize = 8192;

/// From where to where the log of a store reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The store's own number.
    pub(crate) store: u64,
    pub(crate) oldest: u32,
    pub(crate) newest: u32,
}

/// One of the two copies.
#[derive(Clone, Copy)]
struct Copy {
    span: Span,
    times: u64,
    /// Which one.
    at: usize,
}

impl Copy {
    fn encode(&self) -> [u8; COPY_BYTES] {
        let mut bytes = [0; COPY_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.span.oldest.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.span.newest.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.span.store.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.times.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads one; `None` if it is not whole.
    fn decode(file: &[u8], at: usize) -> Result<Option<Self>, OpenError> {
        let from = COPY_AT[at] as usize;
        let Some(bytes) = file.get(from..from + COPY_BYTES) else { return Ok(None) };
        if &bytes[..8] != MAGIC || word(bytes, 40) != crc32c::crc32c(&bytes[..40]) {
            return Ok(None);
        }
        let format = word(bytes, 8);
        if format > FORMAT {
            let message = format!("the store was written by a later version (manifest format {format})");
            return Err(OpenError::new(OpenErrorKind::Newer, message));
        }
        let span = Span { store: long(bytes, 24), oldest: word(bytes, 12), newest: word(bytes, 16) };
        Ok(Some(Self { span, times: long(bytes, 32), at }))
    }
}

/// What the manifest of a folder says, if it has one.
pub(crate) fn read(folder: &dyn Folder, names: &[String]) -> Result<Option<Span>, OpenError> {
    if !names.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let cannot = |error| OpenError::io("cannot read the manifest", error);
    let file = folder.open(NAME).map_err(cannot)?;
    Ok(Some(newest(&read_all(&*file).map_err(cannot)?)?.span))
}

fn newest(bytes: &[u8]) -> Result<Copy, OpenError> {
    let copies = [Copy::decode(bytes, 0)?, Copy::decode(bytes, 1)?];
    let newest = copies.into_iter().flatten().max_by_key(|copy| copy.times);
    newest.ok_or_else(|| OpenError::corrupt(format!("{NAME} is damaged")))
}

/// The manifest of an open store. The log thread says what begins, the upkeep thread what goes.
pub(crate) struct Manifest {
    file: Arc<dyn File>,
    last: Mutex<Copy>,
}

impl Manifest {
    /// Opens the manifest of a store that has one, and makes durable what it says before anybody acts on it: the process
    /// before may have been killed between the write and its sync, or the sync may have failed.
    pub(crate) fn find(folder: &dyn Folder, names: &[String]) -> Result<Option<Self>, OpenError> {
        if !names.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let file = folder.open(NAME).map_err(|error| OpenError::io("cannot open the manifest", error))?;
        let bytes = read_all(&*file).map_err(|error| OpenError::io("cannot read the manifest", error))?;
        let last = newest(&bytes)?;
        write(&*file, &last).map_err(cannot_write)?;
        Ok(Some(Self { file, last: Mutex::new(last) }))
    }

    /// Makes one for a store that has none.
    pub(crate) fn make(folder: &dyn Folder, span: Span) -> Result<Self, OpenError> {
        let last = Copy { span, times: 1, at: 0 };
        let file = create(folder, &last).map_err(cannot_write)?;
        Ok(Self { file, last: Mutex::new(last) })
    }

    /// From where to where the log reaches.
    pub(crate) fn span(&self) -> Span {
        self.last.lock().span
    }

    /// The log was found to reach from here to there.
    pub(crate) fn reaches(&self, span: Span) -> Result<(), OpenError> {
        self.change(|all| *all = span).map_err(cannot_write)
    }

    /// A segment has begun, and nothing is written in it yet.
    pub(crate) fn begins(&self, segment: u32) -> io::Result<()> {
        self.change(|span| span.newest = segment)
    }

    /// Every segment before this one goes.
    pub(crate) fn begins_with(&self, oldest: u32) -> io::Result<()> {
        self.change(|span| span.oldest = oldest)
    }

    /// A change that failed is made again in the same place: what that copy holds is not known, and the other one is
    /// what counts.
    fn change(&self, change: impl FnOnce(&mut Span)) -> io::Result<()> {
        let mut last = self.last.lock();
        let mut span = last.span;
        change(&mut span);
        if span == last.span {
            return Ok(());
        }
        let next = Copy { span, times: last.times + 1, at: 1 - last.at };
        write(&*self.file, &next)?;
        *last = next;
        Ok(())
    }
}

fn cannot_write(error: io::Error) -> OpenError {
    OpenError::io("cannot write the manifest", error)
}

fn write(file: &dyn File, copy: &Copy) -> io::Result<()> {
    file.write_at(COPY_AT[copy.at], &copy.encode())?;
    file.sync()
}

/// Makes the file, and gives it its name only when it is whole.
fn create(folder: &dyn Folder, first: &Copy) -> io::Result<Arc<dyn File>> {
    let file = folder.create(UNFINISHED)?;
    let mut bytes = vec![0; FILE_BYTES];
    bytes[..COPY_BYTES].copy_from_slice(&first.encode());
    file.write_at(0, &bytes)?;
    file.sync()?;
    folder.rename(UNFINISHED, NAME)?;
    folder.sync()?;
    Ok(file)
}

//! Past the system's cache: how the log is written, and how what is read once is read.
//!
//! What goes by the cache costs a page of memory for each page of the log, a copy of its bytes, and two calls, one for the write and one
//! for its sync. What goes past it begins and ends at blocks, in the file as in memory. Reads of records go by the cache, of the
//! same file: the system takes out of it what is written past it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::limits::{BESIDE_BYTES, DIRECT_BLOCK_BYTES};

const BLOCK: u64 = DIRECT_BLOCK_BYTES as u64;

/// What the files of a folder share, of which one is appended to at a time.
#[derive(Default)]
pub(crate) struct Desk {
    files: AtomicU64,
    end: Mutex<End>,
    reading: Mutex<Blocks>,
}

/// The end of the file that was appended to last.
#[derive(Default)]
struct End {
    /// Which file, and where it ends. Nobody knows before the first append, and after one that failed.
    of: Option<(u64, u64)>,
    /// Begins with the bytes of its last block, as far as that is full.
    blocks: Blocks,
}

/// Memory that begins at a block.
#[derive(Default)]
struct Blocks {
    bytes: Vec<u8>,
    skip: usize,
}

impl Blocks {
    fn all(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BESIDE_BYTES + DIRECT_BLOCK_BYTES];
            // Where the place of memory says nothing, the system refuses it, and the cache is used.
            self.skip = self.bytes.as_ptr().align_offset(DIRECT_BLOCK_BYTES).min(DIRECT_BLOCK_BYTES);
        }
        &mut self.bytes[self.skip..self.skip + BESIDE_BYTES]
    }
}

/// Whether an error says that a file cannot be used so at all: nothing was done.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

#[cfg(target_os = "linux")]
fn open(path: &Path, flags: OFlags) -> io::Result<fs::File> {
    let flags = (flags | OFlags::DIRECT).bits().cast_signed();
    fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open(_path: &Path, _flags: OFlags) -> io::Result<fs::File> {
    Err(Errno::OPNOTSUPP.into())
}

/// Fills a new file with zeros, and syncs it.
///
/// # Errors
/// [Refused](is_refused) where it cannot be done past the cache.
pub(crate) fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let file = open(path, OFlags::empty())?;
    let mut zeros = Blocks::default();
    let mut offset = 0;
    while offset < bytes {
        let part = usize::try_from((bytes - offset).next_multiple_of(BLOCK)).unwrap_or(usize::MAX);
        let part = part.min(BESIDE_BYTES);
        file.write_all_at(&zeros.all()[..part], offset)?;
        offset += part as u64;
    }
    file.set_len(bytes)?;
    file.sync_all()
}

/// A file past the cache, whose writes are on the disk when they are answered.
pub(crate) struct Direct {
    handle: fs::File,
    number: u64,
    desk: Arc<Desk>,
}

impl Direct {
    /// A file that is there.
    ///
    /// # Errors
    /// [Refused](is_refused) where its file system has only files in the cache.
    pub(crate) fn open(path: &Path, desk: &Arc<Desk>) -> io::Result<Self> {
        let number = desk.files.fetch_add(1, Ordering::Relaxed);
        Ok(Self { handle: open(path, OFlags::DSYNC)?, number, desk: Arc::clone(desk) })
    }

    /// Writes `bytes` at `offset`, behind everything, and zeros up to the end of the last block. What stands before it
    /// in its first block is read from `cached`, the same file, unless it is known.
    pub(crate) fn append(&self, offset: u64, mut bytes: &[u8], cached: &fs::File) -> io::Result<()> {
        let mut end = self.desk.end.lock();
        let is_known = end.of.take() == Some((self.number, offset));
        let blocks = end.blocks.all();
        let mut first = offset - offset % BLOCK;
        let mut before = (offset % BLOCK) as usize;
        if !is_known {
            cached.read_exact_at(&mut blocks[..before], first)?;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(blocks.len() - before));
            let filled = before + now.len();
            let whole = filled.next_multiple_of(DIRECT_BLOCK_BYTES);
            blocks[before..filled].copy_from_slice(now);
            blocks[filled..whole].fill(0);
            self.handle.write_all_at(&blocks[..whole], first)?;
            // A block that is not full is written again, with what comes next.
            before = filled % DIRECT_BLOCK_BYTES;
            blocks.copy_within(filled - before..filled, 0);
            first += (filled - before) as u64;
            bytes = later;
        }
        end.of = Some((self.number, first + before as u64));
        Ok(())
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reading = self.desk.reading.lock();
        let blocks = reading.all();
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let before = (at % BLOCK) as usize;
            let wanted = (before + buffer.len() - filled).next_multiple_of(DIRECT_BLOCK_BYTES);
            let wanted = wanted.min(blocks.len());
            let read = self.handle.read_at(&mut blocks[..wanted], at - before as u64)?;
            let Some(found) = blocks[..read].get(before..).filter(|found| !found.is_empty()) else { break };
            let part = found.len().min(buffer.len() - filled);
            buffer[filled..filled + part].copy_from_slice(&found[..part]);
            filled += part;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::sim::Chance;

    /// `None`, said aloud, where the folder of temporary files has only files in the cache.
    fn opened(path: &Path, desk: &Arc<Desk>) -> Option<Direct> {
        match Direct::open(path, desk) {
            Err(error) if is_refused(&error) => {
                println!("skipped: {} cannot be written past the cache", path.display());
                None
            }
            opened => Some(opened.unwrap()),
        }
    }

    fn read(file: &fs::File, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        bytes
    }

    #[test]
    fn what_is_appended_past_the_cache_is_read_by_it_wherever_blocks_begin_and_whoever_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let len = 8 * BESIDE_BYTES;
        fs::write(&path, vec![7; len]).unwrap();
        let (cached, desk) = (fs::File::options().read(true).open(&path).unwrap(), Arc::default());
        let mut chance = Chance::new(1);
        let Some(mut direct) = opened(&path, &desk) else { return };
        let mut expected: Vec<u8> = Vec::new();
        loop {
            let large = chance.below(20) == 0;
            let size = 8 * (1 + chance.below(if large { 300_000 } else { 700 }));
            if expected.len() + size > len {
                break;
            }
            let bytes: Vec<u8> = (0..size).map(|_| chance.next() as u8).collect();
            direct.append(expected.len() as u64, &bytes, &cached).unwrap();
            expected.extend(bytes);
            // A page that is read into the cache now must not be shown once more has been appended to it.
            let from = chance.below(expected.len());
            assert_eq!(read(&cached, from, expected.len() - from), expected[from..], "from {from}");
            let odd = chance.below(expected.len());
            let mut once = vec![0; expected.len() - odd];
            assert_eq!(direct.read_at(odd as u64, &mut once).unwrap(), once.len());
            assert_eq!(once, expected[odd..]);
            if chance.below(5) == 0 {
                direct = Direct::open(&path, &desk).unwrap();
            }
        }
        let block = expected.len().next_multiple_of(DIRECT_BLOCK_BYTES);
        assert!(read(&cached, expected.len(), block - expected.len()).iter().all(|byte| *byte == 0));
        let mut behind = [0; 64];
        assert_eq!(direct.read_at(len as u64 - 8, &mut behind).unwrap(), 8, "the end of the file");
        assert_eq!(direct.read_at(len as u64 + 8, &mut behind).unwrap(), 0);
    }

    #[test]
    fn a_new_file_is_zeros_to_its_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [16 * 1024, BESIDE_BYTES as u64 + 24, 3 * BESIDE_BYTES as u64] {
            let path = folder.path().join(bytes.to_string());
            fs::write(&path, []).unwrap();
            if opened(&path, &Arc::default()).is_none() {
                return;
            }
            fill(&path, bytes).unwrap();
            let filled = fs::read(&path).unwrap();
            assert_eq!(filled.len() as u64, bytes);
            assert!(filled.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn memory_that_is_at_no_block_is_refused_and_nothing_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, vec![7; DIRECT_BLOCK_BYTES]).unwrap();
        let Some(direct) = opened(&path, &Arc::default()) else { return };
        let mut blocks = Blocks::default();
        match direct.handle.write_all_at(&blocks.all()[1..=512], 0) {
            Err(error) => {
                assert!(is_refused(&error), "{error}");
                assert_eq!(fs::read(&path).unwrap(), vec![7; DIRECT_BLOCK_BYTES]);
            }
            // Some file systems go by the cache instead, which is as good.
            Ok(()) => assert_eq!(fs::read(&path).unwrap()[..512], [0; 512]),
        }
    }
}

//! What the log does to a disk, and nothing more: two small traits, so that the same store runs over a real folder and
//! over a simulated disk that loses power.
//!
//! The rules that the log relies on, and that the simulation breaks wherever a caller forgets them:
//! bytes written are durable only after [`File::sync`]; a name created, renamed or removed is durable only after
//! [`Folder::sync`]; a sync that failed says nothing about what is on the disk, now or after another sync.

use std::io;
use std::sync::Arc;

mod direct;
pub(crate) mod look;
pub(crate) mod real;
#[cfg(test)]
pub(crate) mod sim;

/// An open file. Positions are absolute; there is no cursor, so that readers and the one writer do not meet.
pub(crate) trait File: Send + Sync {
    /// Writes all of `bytes` at `offset`; not durable before the next [`sync`](File::sync).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`read_at`](File::read_at) if that needs no wait for the disk, else `None`.
    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Makes all that was written durable.
    fn sync(&self) -> io::Result<()>;

    /// Writes `bytes` at `offset`, where what was appended so far ends, durably. What lies behind is free, and may be
    /// zeros afterwards.
    fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }

    /// As [`read_at`](File::read_at), of what is not likely to be read again.
    fn read_once(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    /// Its length.
    fn len(&self) -> io::Result<u64>;
}

/// A folder that one process owns.
pub(crate) trait Folder: Send + Sync {
    /// The names in it.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new file of `bytes` zeros, written and synced: blocks that were only reserved (`fallocate`) cost a metadata
    /// write on first use, which doubles the time of a sync.
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>>;

    /// A new, empty file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// A file that is there, to be [appended](File::append) to.
    fn open_to_append(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }

    /// Gives a file another name, in place of any file of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives the lock back: the owner has stopped.
    fn release(&self);

    /// Makes names durable.
    fn sync(&self) -> io::Result<()>;
}

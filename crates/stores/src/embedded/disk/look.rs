//! A folder that is only looked at: what would change it is left undone.
//!
//! Opening a store tidies: it cuts off a torn end, removes what is left over, makes the end of the log durable again. Over this
//! folder the same code finds the same things, and leaves the disk as it is.

use std::io;
use std::sync::Arc;

use crate::embedded::disk::{File, Folder};

/// A folder to look at.
pub(crate) struct Looking<F>(pub(crate) F);

impl<F: Folder> Folder for Looking<F> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn allocate(&self, _name: &str, _bytes: u64) -> io::Result<Arc<dyn File>> {
        Err(only_looking())
    }

    fn create(&self, _name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Nowhere))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(LookedAt(self.0.open(name)?)))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn release(&self) {
        self.0.release();
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn only_looking() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the folder is only looked at")
}

/// A new file that was not made.
struct Nowhere;

impl File for Nowhere {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn read_resident(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(Some(0))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
}

struct LookedAt(Arc<dyn File>);

impl File for LookedAt {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.read_resident(offset, buffer)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

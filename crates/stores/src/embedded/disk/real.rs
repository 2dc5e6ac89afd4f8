//! A folder of the operating system.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use crate::embedded::disk::direct::{self, Desk, Direct};
use crate::embedded::disk::look::Looking;
use crate::embedded::disk::{File, Folder};
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::layout::is_of_a_store;
use crate::limits::BESIDE_BYTES;

const LOCK_NAME: &str = "lock";

/// A folder on disk, locked for this process as long as the value lives.
pub(crate) struct RealFolder {
    path: PathBuf,
    handle: fs::File,
    lock: Mutex<Option<fs::File>>,
    is_read_only: bool,
    desk: Arc<Desk>,
}

impl RealFolder {
    /// Creates the folder if need be, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let cannot = |what: &str, error| OpenError::io(format!("cannot {what} {}", path.display()), error);
        let is_new = !path.exists();
        fs::create_dir_all(path).map_err(|error| cannot("create folder", error))?;
        if is_new && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let parent = fs::File::open(parent).map_err(|error| cannot("open the parent of", error))?;
            parent.sync_all().map_err(|error| cannot("sync the parent of", error))?;
        }
        let handle = fs::File::open(path).map_err(|error| cannot("open folder", error))?;
        let lock = Self::lock(path)?;
        let (lock, desk) = (Mutex::new(Some(lock)), Arc::default());
        Ok(Self { path: path.to_owned(), handle, lock, is_read_only: false, desk })
    }

    /// A folder that is there, to be read only: also where nothing can be written. Others may look at the same time; a
    /// server may not start meanwhile.
    pub(crate) fn look(path: &Path) -> Result<Looking<Self>, OpenError> {
        let cannot = |what: &str, error| OpenError::io(format!("cannot {what} {}", path.display()), error);
        let handle = match fs::File::open(path) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::absent(path)),
            Err(error) => return Err(cannot("open folder", error)),
        };
        let (lock, desk) = (Mutex::new(None), Arc::default());
        let folder = Self { path: path.to_owned(), handle, lock, is_read_only: true, desk };
        let names = match folder.list() {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(OpenError::absent(path));
            }
            Err(error) => return Err(cannot("list folder", error)),
        };
        if !names.iter().any(|name| is_of_a_store(name)) {
            return Err(OpenError::absent(path));
        }
        let name = path.join(LOCK_NAME);
        // A copy may have none; then nobody has it open.
        match fs::File::open(&name) {
            Ok(lock) => {
                Self::hold(&lock, FlockOperation::NonBlockingLockShared, path)?;
                *folder.lock.lock() = Some(lock);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::io(format!("cannot lock {}", name.display()), error)),
        }
        Ok(Looking(folder))
    }

    /// An advisory lock that the kernel gives back however the process ends. The process id is for people only.
    fn lock(path: &Path) -> Result<fs::File, OpenError> {
        let name = path.join(LOCK_NAME);
        let failed = |error| OpenError::io(format!("cannot lock {}", name.display()), error);
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let mut file = options.map_err(failed)?;
        Self::hold(&file, FlockOperation::NonBlockingLockExclusive, path)?;
        file.set_len(0).map_err(failed)?;
        write!(file, "process {}", std::process::id()).map_err(failed)?;
        Ok(file)
    }

    fn hold(file: &fs::File, how: FlockOperation, path: &Path) -> Result<(), OpenError> {
        match rustix::fs::flock(file, how) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let owner = fs::read_to_string(path.join(LOCK_NAME)).unwrap_or_default();
                let owner = owner.trim();
                let owner = if owner.is_empty() { "another process" } else { owner };
                let message = format!("the folder {} is in use by {owner}", path.display());
                Err(OpenError::new(OpenErrorKind::InUse, message))
            }
            Err(error) => {
                Err(OpenError::io(format!("cannot lock {}", path.join(LOCK_NAME).display()), error.into()))
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn open_with(&self, name: &str, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
        options.read(true).write(!self.is_read_only).open(self.at(name))
    }
}

/// Fills a new file with zeros by the cache, and syncs it: piece by piece, since a sync of the log would stand behind all of
/// it.
fn fill(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; BESIDE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let part = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..part], offset)?;
        file.sync_all()?;
        offset += part as u64;
    }
    Ok(())
}

impl Folder for RealFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_NAME
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let file = self.open_with(name, fs::OpenOptions::new().create(true).truncate(true))?;
        let path = self.at(name);
        let filled = match direct::fill(&path, bytes) {
            Err(error) if direct::is_refused(&error) => fill(&file, bytes),
            filled => filled,
        };
        if let Err(error) = filled {
            // What there was of space is somebody's: the next try begins anew in any case.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(RealFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.open_with(name, fs::OpenOptions::new().create(true).truncate(true))?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile::new(self.open_with(name, &mut fs::OpenOptions::new())?)))
    }

    fn open_to_append(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.open_with(name, &mut fs::OpenOptions::new())?;
        // Without it the cache does it, too.
        let direct = Direct::open(&self.at(name), &self.desk).ok();
        Ok(Arc::new(RealFile { file, direct }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn release(&self) {
        drop(self.lock.lock().take());
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Reads and writes by the system's cache; appends past it, where that can be done.
struct RealFile {
    file: fs::File,
    direct: Option<Direct>,
}

impl RealFile {
    const fn new(file: fs::File) -> Self {
        Self { file, direct: None }
    }
}

impl File for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    #[cfg(target_os = "linux")]
    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags};
        let wanted = buffer.len();
        match rustix::io::preadv2(
            &self.file,
            &mut [io::IoSliceMut::new(buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        ) {
            // Part of it may be on the disk only.
            Ok(read) => Ok((read == wanted).then_some(read)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_resident(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.append(offset, bytes, &self.file) {
                Err(error) if direct::is_refused(&error) => {}
                appended => return appended,
            }
        }
        self.write_at(offset, bytes)?;
        self.sync()
    }

    fn read_once(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(direct) = &self.direct {
            match direct.read_at(offset, buffer) {
                Err(error) if direct::is_refused(&error) => {}
                read => return read,
            }
        }
        self.read_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

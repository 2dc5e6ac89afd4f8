//! A disk in memory that loses power. Deterministic: the same operations and the same seed give the same disk.
//!
//! Writes go to a cache, sector by sector; a sync makes them durable. At a power loss each sector that was not synced is, by the
//! seed, its old or any of its newer contents, independently of all others: so unsynced writes are dropped, reordered and torn.
//! Names follow a journal: some prefix of the changes since the last sync of the folder survives.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::embedded::disk::{File, Folder};

const SECTOR: usize = 512;

/// A small generator, good enough to choose which sectors survive.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// What happens at the n-th operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes: this and every later operation fails.
    PowerLoss,
    /// A sync fails, and what it should have synced is left to chance, also for later syncs.
    SyncFails,
    /// There is no space: a write or an allocation fails with nothing or half of it done.
    NoSpace,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Sectors not synced: what each held before, oldest first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Sectors of a sync that failed: the kernel may think them clean, and no later sync writes them.
    forgotten: BTreeMap<usize, Vec<Vec<u8>>>,
    durable_len: usize,
    /// The next sync of this file fails.
    sync_fails: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    journal: Vec<NameChange>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    off: bool,
    full: bool,
}

/// The disk. Clones are the same disk; open files stay usable until the power goes.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    /// Counts an operation that changes the disk, and says which fault hits it.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        if self.off {
            return Err(power_is_off());
        }
        let now = self.operations;
        self.operations += 1;
        let fault = self.faults.remove(&now);
        if fault == Some(Fault::PowerLoss) {
            self.off = true;
        }
        Ok(fault)
    }

    fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let content = &mut self.files[file];
        let end = offset + bytes.len();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        if bytes.is_empty() {
            return;
        }
        for sector in offset / SECTOR..=(end - 1) / SECTOR {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(content.bytes.len());
            let old = content.bytes[from..to].to_vec();
            content.unsynced.entry(sector).or_default().push(old);
        }
        content.bytes[offset..end].copy_from_slice(bytes);
    }

    fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
        match change {
            NameChange::Link(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Unlink(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn change_name(&mut self, change: NameChange) {
        Self::apply(&mut self.names, &change);
        self.journal.push(change);
    }
}

impl SimDisk {
    /// Lets `fault` happen at the n-th changing operation from now on (0 is the next).
    pub(crate) fn fault_at(&self, n: u64, fault: Fault) {
        let mut state = self.0.lock();
        let at = state.operations + n;
        state.faults.insert(at, fault);
    }

    /// Lets the next sync of a file fail, whatever other threads do to other files.
    pub(crate) fn fail_sync_of(&self, name: &str) {
        let mut state = self.0.lock();
        let file = state.names[name];
        state.files[file].sync_fails = true;
    }

    /// Leaves no space for new files, or gives it back.
    pub(crate) fn no_space(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// How many changing operations there have been.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// The power goes (if it has not yet) and comes back: what was not synced is left to chance.
    pub(crate) fn power_cycle(&self, seed: u64) {
        let mut chance = Chance::new(seed);
        let mut state = self.0.lock();
        let survivors = chance.below(state.journal.len() + 1);
        let journal = std::mem::take(&mut state.journal);
        let mut names = std::mem::take(&mut state.durable_names);
        for change in &journal[..survivors] {
            State::apply(&mut names, change);
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        for content in &mut state.files {
            let mut open = std::mem::take(&mut content.forgotten);
            for (sector, versions) in std::mem::take(&mut content.unsynced) {
                open.entry(sector).or_default().extend(versions);
            }
            for (sector, mut versions) in open {
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(content.bytes.len());
                versions.push(content.bytes[from..to].to_vec());
                let kept = &versions[chance.below(versions.len())];
                content.bytes[from..to].fill(0);
                let kept_len = kept.len().min(to - from);
                content.bytes[from..from + kept_len].copy_from_slice(&kept[..kept_len]);
            }
            let len = content.bytes.len();
            if len > content.durable_len {
                let keep = content.durable_len + chance.below(len - content.durable_len + 1);
                content.bytes.truncate(keep);
            }
            content.durable_len = content.bytes.len();
        }
        state.faults.clear();
        state.off = false;
    }

    /// The process is killed and started again: what it has written is in the kernel's cache, synced or not.
    pub(crate) fn restart(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.off = false;
    }

    /// Changes a byte of a file, as a failing disk does.
    pub(crate) fn flip(&self, name: &str, offset: usize) {
        let mut state = self.0.lock();
        let file = state.names[name];
        state.files[file].bytes[offset] ^= 0x55;
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.files[state.names[name]].bytes.clone()
    }

    /// Puts bytes in the place of a file's, durably.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content { durable_len: bytes.len(), bytes, ..Content::default() });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    fn find(state: &State, name: &str) -> io::Result<usize> {
        state.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn handle(&self, file: usize) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), file })
    }
}

impl Folder for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        match state.step()? {
            Some(Fault::NoSpace) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            None if state.full => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(_) => return Err(io::Error::other("the disk failed")),
            None => {}
        }
        let file = state.files.len();
        let len = bytes as usize;
        state.files.push(Content { bytes: vec![0; len], durable_len: len, ..Content::default() });
        state.change_name(NameChange::Link(name.to_owned(), file));
        drop(state);
        Ok(self.handle(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        match state.step()? {
            Some(Fault::NoSpace) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            None if state.full => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(_) => return Err(io::Error::other("the disk failed")),
            None => {}
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.change_name(NameChange::Link(name.to_owned(), file));
        drop(state);
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.0.lock();
        let file = Self::find(&state, name)?;
        drop(state);
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.step()?.is_some() {
            return Err(io::Error::other("the disk failed"));
        }
        Self::find(&state, from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.step()?.is_some() {
            return Err(io::Error::other("the disk failed"));
        }
        Self::find(&state, name)?;
        state.change_name(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn release(&self) {}

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.step()?.is_some() {
            return Err(io::Error::other("the disk failed"));
        }
        state.journal.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl File for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let offset = offset as usize;
        match state.step()? {
            // The machine may have got any part of it to the disk's cache before it went.
            Some(Fault::PowerLoss) => {
                state.write(self.file, offset, bytes);
                Err(power_is_off())
            }
            Some(Fault::NoSpace) => {
                state.write(self.file, offset, &bytes[..bytes.len() / 2]);
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Some(Fault::SyncFails) => Err(io::Error::other("the disk failed")),
            None => {
                state.write(self.file, offset, bytes);
                Ok(())
            }
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.0.lock();
        if state.off {
            return Err(power_is_off());
        }
        let bytes = &state.files[self.file].bytes;
        let from = (offset as usize).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn read_resident(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // Half of the reads take the way over the blocking pool.
        if offset.is_multiple_of(16) { Ok(None) } else { self.read_at(offset, buffer).map(Some) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fault = state.step()?;
        let content = &mut state.files[self.file];
        let unsynced = std::mem::take(&mut content.unsynced);
        let fails = std::mem::take(&mut content.sync_fails) || fault.is_some();
        if !fails {
            for sector in unsynced.into_keys() {
                content.forgotten.remove(&sector);
            }
            content.durable_len = content.bytes.len();
            return Ok(());
        }
        for (sector, versions) in unsynced {
            content.forgotten.entry(sector).or_default().extend(versions);
        }
        Err(io::Error::other("the sync failed"))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        if state.off {
            return Err(power_is_off());
        }
        Ok(state.files[self.file].bytes.len() as u64)
    }
}

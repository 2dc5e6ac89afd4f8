//! An open store: how it is opened, the threads that work for it, and what it tells about itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock, StoreTime, SystemClock};
use crate::embedded::batch::{Batch, Fate};
use crate::embedded::disk::Folder;
use crate::embedded::disk::real::RealFolder;
use crate::embedded::engine::Engine;
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::queue::Work;
use crate::embedded::recover::{self, Recovery};
use crate::embedded::relay::Relay;
use crate::embedded::upkeep::Round;
use crate::limits::{
    CACHE_BYTES, FRAME_ALIGN, GATHER, MERGE_PAUSE, QUIET_AFTER, RELAY_BATCHES, RELAY_PATIENCE, SEGMENT_BYTES,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, UPKEEP_AFTER_FAILURE, UPKEEP_EVERY,
};

/// How to open an [`EmbeddedStore`].
#[derive(Clone)]
pub struct Options {
    folder: PathBuf,
    segment_bytes: u64,
    cache_bytes: u64,
    clock: Arc<dyn Clock>,
}

impl Options {
    /// A store in this folder, which is created if need be.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: CACHE_BYTES,
            clock: Arc::new(SystemClock::start()),
        }
    }

    /// Bytes of a segment of the log. A store keeps the size that it was created with.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Bytes of the cache of settled records.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Takes the time from elsewhere, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn check(&self) -> Result<(), OpenError> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
            || !bytes.is_multiple_of(FRAME_ALIGN as u64)
        {
            let message = format!("segment_bytes must be from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
            return Err(OpenError::new(OpenErrorKind::Options, message));
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What a store holds and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records, expired ones included until they are swept.
    pub records: u64,
    /// Those of them that are not settled.
    pub unsettled: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Bytes of frames of the newest versions, rounded up to 64 each.
    pub live_bytes: u64,
}

/// The embedded store. See the [module](super) for how it works.
pub struct EmbeddedStore {
    pub(super) engine: Arc<Engine>,
    relay: Arc<Relay>,
    log: Mutex<Option<JoinHandle<()>>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
    resting: Arc<Resting>,
    recovery: Recovery,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in a folder, or begins one. Blocks while it reads; call it inside the runtime that will use it,
    /// so that writers are woken from there.
    ///
    /// # Errors
    /// Another process has the folder open, the folder cannot be used, or what was acknowledged cannot be read.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        options.check()?;
        let folder: Arc<dyn Folder> = Arc::new(RealFolder::open(&options.folder)?);
        Self::open_in(folder, options)
    }

    /// Opens the store in the default way.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(folder: &Path) -> Result<Self, OpenError> {
        Self::open(&Options::new(folder))
    }

    /// Opens the store in a folder to look at it, and changes nothing there: it works on a read-only file system, and refuses
    /// every write. What a crash left at the end of the log is passed over, as a server would cut it off.
    ///
    /// # Errors
    /// There is no store, another process has it open, or what was acknowledged cannot be read.
    pub fn look(folder: &Path) -> Result<Self, OpenError> {
        let (engine, recovery) = open_engine(Arc::new(RealFolder::look(folder)?), &Options::new(folder))?;
        engine.queue.close();
        Ok(Self::without_threads(engine, recovery))
    }

    fn without_threads(engine: Engine, recovery: Recovery) -> Self {
        Self {
            engine: Arc::new(engine),
            relay: Arc::default(),
            log: Mutex::new(None),
            upkeep: Mutex::new(None),
            resting: Arc::default(),
            recovery,
        }
    }

    pub(crate) fn open_in(folder: Arc<dyn Folder>, options: &Options) -> Result<Self, OpenError> {
        let (engine, recovery) = open_engine(folder, options)?;
        let engine = Arc::new(engine);
        let relay = Relay::start(&engine);
        let log = {
            let (engine, relay) = (Arc::clone(&engine), Arc::clone(&relay));
            std::thread::Builder::new().name("semel-log".into()).spawn(move || {
                let mut last = Told { writers: 0, until: Instant::now() };
                loop {
                    // The relay's task may have to wait for its turn; nobody should wait for that for long.
                    let unpublished = engine.unpublished();
                    match engine.queue.wait((unpublished > 0).then_some(RELAY_PATIENCE)) {
                        Work::Over => break,
                        Work::None => engine.publish(),
                        Work::Some => {
                            if unpublished >= RELAY_BATCHES {
                                engine.publish();
                            }
                            engine.queue.gather(last.writers, last.until);
                            let writers = engine.commit();
                            // Who came meanwhile is there already; who is told now may come back.
                            let writers = writers + engine.queue.writers();
                            last = Told { writers, until: Instant::now() + GATHER };
                            if writers == 1 {
                                engine.publish();
                                engine.queue.expect(last.until);
                            } else {
                                relay.publish(&engine);
                            }
                        }
                    }
                }
            })
        };
        let log = log.map_err(|error| OpenError::io("cannot start the log's thread", error))?;
        let resting = Arc::new(Resting::default());
        let upkeep = {
            let (engine, resting) = (Arc::clone(&engine), Arc::clone(&resting));
            let upkeep = move || {
                give_way();
                resting.keep_up(&engine);
            };
            std::thread::Builder::new().name("semel-upkeep".into()).spawn(upkeep)
        };
        let upkeep = upkeep.map_err(|error| OpenError::io("cannot start the upkeep thread", error))?;
        Ok(Self {
            engine,
            relay,
            log: Mutex::new(Some(log)),
            upkeep: Mutex::new(Some(upkeep)),
            resting,
            recovery,
        })
    }

    /// Opens a store whose threads' work is done by [`step`](Self::step) and [`upkeep`](Self::upkeep).
    #[cfg(test)]
    pub(crate) fn open_stepwise(folder: Arc<dyn Folder>, options: &Options) -> Result<Self, OpenError> {
        let (engine, recovery) = open_engine(folder, options)?;
        Ok(Self::without_threads(engine, recovery))
    }

    /// Writes what is waiting and makes it visible.
    #[cfg(test)]
    pub(crate) fn step(&self) {
        self.engine.commit();
        self.engine.publish();
    }

    /// The segment that is being written.
    #[cfg(test)]
    pub(crate) fn newest_segment(&self) -> u32 {
        self.engine.newest_segment()
    }

    /// What the upkeep thread does in one round.
    #[cfg(test)]
    pub(crate) fn upkeep(&self, quiet: Option<u32>) {
        let wait = |batch: &Arc<Batch>| {
            self.step();
            batch.fate()
        };
        // A fault of the disk is no more than a round that did nothing.
        drop(self.engine.upkeep(quiet, &wait));
        drop(self.engine.sweep(2));
    }

    /// What opening found.
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Tells `tell` from now on how many writes have shared each sync, on the log's thread: it must not block. The first
    /// who asks is told.
    pub fn tell_batches(&self, tell: impl Fn(usize) + Send + Sync + 'static) {
        // A second one is a second handle of the same store, whose metrics are those of the first.
        self.engine.batches.set(Box::new(tell)).ok();
    }

    /// What the store holds and takes.
    pub fn stats(&self) -> Stats {
        let engine = &*self.engine;
        let mut stats = Stats::default();
        for shard in engine.shards() {
            let shard = shard.lock();
            stats.records += (shard.table.len() + shard.active.len()) as u64;
            stats.index_bytes += shard.table.bytes() as u64;
        }
        stats.unsettled = engine.tally.lock().unsettled();
        for segment in engine.segments.read().values() {
            stats.segments += 1;
            stats.live_bytes += segment.live_bytes();
        }
        stats.log_bytes = stats.segments * engine.segment_bytes;
        stats
    }

    /// How many records are waited for.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.engine.shards().iter().map(|shard| shard.lock().watchers.len()).sum()
    }

    pub(super) fn stop(&self) {
        self.resting.stop();
        if let Some(upkeep) = self.upkeep.lock().take() {
            drop(upkeep.join());
        }
        // One more batch proves that the one before it was synced, so that damage to it is never taken for a torn tail.
        if let Ok(batch) = self.engine.queue.barrier() {
            drop(batch);
        }
        self.engine.queue.close();
        if let Some(log) = self.log.lock().take() {
            // A panic of the log thread has shown itself already; there is nothing to add here.
            drop(log.join());
        }
        self.engine.publish();
        self.relay.stop();
        self.engine.folder.release();
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Who has been told, or waits already, and may have something to write until then.
struct Told {
    writers: usize,
    until: Instant,
}

/// How the upkeep thread rests between its rounds.
#[derive(Default)]
struct Resting {
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Resting {
    fn stop(&self) {
        *self.is_over.lock() = true;
        self.over.notify_all();
    }

    /// Rests; `true` when the store stops.
    fn rest(&self, length: Duration) -> bool {
        let mut is_over = self.is_over.lock();
        if !*is_over {
            self.over.wait_for(&mut is_over, length);
        }
        *is_over
    }

    fn keep_up(&self, engine: &Engine) {
        let wait = |batch: &Arc<Batch>| loop {
            let fate = batch.fate();
            if fate != Fate::Open || self.rest(MERGE_PAUSE) {
                break fate;
            }
        };
        let (mut written, mut since, mut quiet) = (engine.queue.written(), Instant::now(), None);
        loop {
            let now_written = engine.queue.written();
            if now_written != written {
                (written, since, quiet) = (now_written, Instant::now(), None);
            } else if quiet.is_none() && since.elapsed() >= QUIET_AFTER {
                quiet = Some(engine.newest_segment());
            }
            // What fails here is tried again; what it means for writers they are told by their own writes.
            let pause = match engine.upkeep(quiet, &wait) {
                Ok(Round::Busy) => MERGE_PAUSE,
                Ok(Round::Idle) => UPKEEP_EVERY,
                Err(_) => UPKEEP_AFTER_FAILURE,
            };
            if self.rest(pause) {
                break;
            }
        }
    }
}

/// Lets the other threads go first when the processor is busy: making the lists of a finished
/// segment is a lot of work at once, and requests would stand behind it. Where the system has no such thing the thread is like any other.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), crate::limits::UPKEEP_NICE);
}

/// Recovers an engine from a folder.
pub(crate) fn open_engine(
    folder: Arc<dyn Folder>,
    options: &Options,
) -> Result<(Engine, Recovery), OpenError> {
    let wall = options.clock.wall();
    let (found, persisted, recovery) = recover::open(&folder, options.segment_bytes, wall)?;
    let time = StoreTime::open(Arc::clone(&options.clock), persisted);
    let engine = Engine::new(folder, time, options.segment_bytes, options.cache_bytes, found);
    Ok((engine, recovery))
}

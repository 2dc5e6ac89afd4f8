//! The contract of stores, over the engine.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use semel_core::audit::Entry;
use semel_core::id::Lane;
use semel_core::limits::TAKE_MAX;
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, RecordId, StoreError, Timestamp, Version};
use tokio::sync::Notify;

use crate::clock::{Clock, StoreTime, SystemClock};
use crate::embedded::batch::{Batch, Fate};
use crate::embedded::disk::Folder;
use crate::embedded::disk::real::RealFolder;
use crate::embedded::engine::{Decision, Engine, Health, Need, fact};
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::index::Place;
use crate::embedded::queue::Work;
use crate::embedded::recover::{self, Recovery};
use crate::embedded::relay::Relay;
use crate::embedded::segment::Resident;
use crate::embedded::shard::{Fact, Facts, Shard};
use crate::embedded::upkeep::Round;
use crate::limits::{
    CACHE_BYTES, FRAME_ALIGN, GATHER, MERGE_PAUSE, QUIET_AFTER, RELAY_BATCHES, RELAY_PATIENCE, SEGMENT_BYTES,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, UPKEEP_EVERY,
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
    /// Those of them that are not at rest.
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
    engine: Arc<Engine>,
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
                            relay.publish(&engine);
                            last = Told { writers, until: Instant::now() + GATHER };
                        }
                    }
                }
            })
        };
        let log = log.map_err(|error| OpenError::io("cannot start the log's thread", error))?;
        let resting = Arc::new(Resting::default());
        let upkeep = {
            let (engine, resting) = (Arc::clone(&engine), Arc::clone(&resting));
            let upkeep = move || resting.keep_up(&engine);
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
        Ok(Self {
            engine: Arc::new(engine),
            relay: Arc::default(),
            log: Mutex::new(None),
            upkeep: Mutex::new(None),
            resting: Arc::default(),
            recovery,
        })
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
            stats.unsettled += shard.active.len() as u64;
            stats.index_bytes += shard.table.bytes() as u64;
        }
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

    fn stop(&self) {
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
            let round = engine.upkeep(quiet, &wait).unwrap_or(Round::Idle);
            if self.rest(if round == Round::Busy { MERGE_PAUSE } else { UPKEEP_EVERY }) {
                break;
            }
        }
    }
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

/// What the read of a place says, without blocking the runtime.
async fn read(engine: &Engine, during: &'static str, place: Place) -> Result<Fact, StoreError> {
    let Some(segment) = engine.segment(place) else { return Ok(Fact::Gone) };
    match segment.read_resident(place) {
        Ok(Resident::Yes(payload)) => fact(during, place, Ok(payload)),
        Err(error) => fact(during, place, Err(error)),
        Ok(Resident::No) => {
            if tokio::runtime::Handle::try_current().is_err() {
                return fact(during, place, segment.read(place));
            }
            let read = tokio::task::spawn_blocking(move || segment.read(place)).await;
            fact(during, place, read.unwrap_or_else(|error| Err(std::io::Error::other(error))))
        }
    }
}

impl Engine {
    /// Decides about `id`, reading and waiting for what the decision needs.
    async fn settle<T>(
        &self,
        during: &'static str,
        id: RecordId,
        is_write: bool,
        mut decision: impl FnMut(&mut Shard, Option<Arc<Record>>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut facts = Facts::new();
        loop {
            self.check_usable(during)?;
            if is_write && let Some(batch) = self.queue.crowded() {
                batch.settled().await;
                continue;
            }
            match self.decide(during, id, &facts, is_write, &mut decision)? {
                Ok(answer) => return Ok(answer),
                Err(Need::Read(place)) => facts.push((place, read(self, during, place).await?)),
                Err(Need::Wait(batch)) => {
                    batch.settled().await;
                }
            }
        }
    }

    async fn durable(&self, during: &'static str, batch: Arc<Batch>) -> Result<(), StoreError> {
        match batch.settled().await {
            Fate::Durable | Fate::Open => Ok(()),
            Fate::InDoubt => Err(StoreError::in_doubt(during, self.why())),
            Fate::NotApplied => {
                let retry_helps = matches!(self.health(), Health::Full(_) | Health::Well);
                Err(StoreError::not_applied(during, retry_helps, self.why()))
            }
        }
    }

    fn why(&self) -> String {
        match self.health() {
            Health::Well => "the log was full for a moment".into(),
            Health::Full(why) | Health::Failed(why) => why,
        }
    }

    /// Settles a decision, and waits for what it put on its way.
    async fn write<T>(
        &self,
        during: &'static str,
        id: RecordId,
        decision: impl FnMut(&mut Shard, Option<Arc<Record>>) -> Result<Decision<T>, StoreError>,
    ) -> Result<T, StoreError> {
        match self.settle(during, id, true, decision).await? {
            Decision::Answer(answer) => Ok(answer),
            Decision::After(batch, answer) => {
                self.durable(during, batch).await?;
                Ok(answer)
            }
        }
    }

    /// Stamps a write and puts it on its way.
    fn stamp(
        &self,
        shard: &mut Shard,
        during: &'static str,
        write: Write,
        before: Option<Arc<Record>>,
    ) -> Result<(Arc<Batch>, AsOf<Arc<Record>>), StoreError> {
        let now = self.now();
        if now > write.deadline() {
            return Err(StoreError::not_applied(during, false, "the write came after its deadline"));
        }
        let (record, audit) = write.seal(now, self.floor());
        let (batch, record) = self.send(shard, during, record, before, audit)?;
        Ok((batch, AsOf { as_of: now, value: record }))
    }

    async fn newest(
        &self,
        during: &'static str,
        id: RecordId,
    ) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        // A task that only reads would never give way to the one that publishes.
        tokio::task::coop::consume_budget().await;
        self.settle(during, id, false, |_, newest| Ok(AsOf { as_of: self.now(), value: newest })).await
    }
}

fn answer<'a, T>(future: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Answer<'a, T> {
    Box::pin(future)
}

impl Store for EmbeddedStore {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn time(&self) -> Timestamp {
        self.engine.now()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        let engine = &*self.engine;
        answer(async move {
            let id = write.id();
            let mut write = Some(write);
            engine
                .write("insert", id, |shard, newest| {
                    let as_of = engine.now();
                    if let Some(record) = newest {
                        return Ok(Decision::Answer(AsOf { as_of, value: Inserted::Occupied(record) }));
                    }
                    let Some(write) = write.take() else { return Err(decided_twice("insert")) };
                    let (batch, sent) = engine.stamp(shard, "insert", write, None)?;
                    let value = Inserted::Inserted(sent.value);
                    Ok(Decision::After(batch, AsOf { as_of: sent.as_of, value }))
                })
                .await
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        let engine = &*self.engine;
        answer(async move {
            let id = write.id();
            let mut write = Some(write);
            engine
                .write("replace", id, |shard, newest| {
                    let as_of = engine.now();
                    match newest {
                        Some(record) if record.version() == expected => {
                            let Some(write) = write.take() else { return Err(decided_twice("replace")) };
                            let (batch, sent) = engine.stamp(shard, "replace", write, Some(record))?;
                            let value = Replaced::Replaced(sent.value);
                            Ok(Decision::After(batch, AsOf { as_of: sent.as_of, value }))
                        }
                        newest => Ok(Decision::Answer(AsOf { as_of, value: Replaced::Conflict(newest) })),
                    }
                })
                .await
        })
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        let engine = &*self.engine;
        answer(async move {
            engine
                .write("remove", id, |shard, newest| match newest {
                    Some(record) if record.version() == expected => {
                        Ok(Decision::After(engine.send_removal(shard, "remove", record)?, true))
                    }
                    _ => Ok(Decision::Answer(false)),
                })
                .await
        })
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        answer(self.engine.newest("load", id))
    }

    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("take_due")?;
            let as_of = engine.now();
            let mut orders = engine.orders.lock();
            engine.settle_orders(&mut orders);
            let ids = orders.due(lane.as_ref(), as_of, limit.min(TAKE_MAX));
            drop(orders);
            let records = ids.into_iter().filter_map(|id| {
                engine.shard(id).lock().active.get(&id).map(|active| Arc::clone(&active.record))
            });
            let value = records.filter(|record| record.due().is_some_and(|due| due <= as_of)).collect();
            Ok(AsOf { as_of, value })
        })
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("lanes")?;
            let mut orders = engine.orders.lock();
            engine.settle_orders(&mut orders);
            Ok(orders.lanes(engine.now()))
        })
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("next_due")?;
            let mut orders = engine.orders.lock();
            engine.settle_orders(&mut orders);
            let value = orders.next_due();
            let told = value.map_or(u64::MAX, Timestamp::as_millis);
            engine.told_due.store(told, Ordering::Release);
            Ok(AsOf { as_of: engine.now(), value })
        })
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        let engine = &*self.engine;
        answer(async move {
            let watch = Watch::new(engine, id);
            let wait = async {
                loop {
                    let mut change = std::pin::pin!(watch.notify.notified());
                    change.as_mut().enable();
                    let newest = engine.newest("changed", id).await?;
                    if newest.value.as_ref().is_none_or(|record| record.version() > seen) {
                        return Ok(newest);
                    }
                    change.await;
                }
            };
            let mut seen_newer = None;
            engine.time.wait(patience, async { seen_newer = Some(wait.await) }).await;
            match seen_newer {
                Some(newest) => newest,
                None => engine.newest("changed", id).await,
            }
        })
    }

    fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
        let engine = &*self.engine;
        // Watches from the call on, so that a caller who calls before it asks for `next_due` misses nothing.
        let woken = engine.due_changed.notified();
        answer(async move {
            // Both ways of waking are an answer.
            engine.time.wait(patience, woken).await;
            engine.check_usable("due_changed")
        })
    }

    fn sweep(&self, limit: usize) -> Answer<'_, usize> {
        let engine = Arc::clone(&self.engine);
        answer(async move {
            engine.check_usable("sweep")?;
            blocking(move || engine.sweep(limit)).await.map_err(|error| {
                StoreError::not_applied("sweep", true, "cannot read the log").with_source(error)
            })
        })
    }

    fn counts(&self) -> Answer<'_, Vec<Count>> {
        answer(async move {
            self.engine.check_usable("counts")?;
            Ok(self.engine.tally.lock().counts())
        })
    }

    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("oldest_pending")?;
            let mut orders = engine.orders.lock();
            engine.settle_orders(&mut orders);
            Ok(AsOf { as_of: engine.now(), value: orders.oldest_pending() })
        })
    }

    fn search(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Answer<'_, Page<Summary, Cursor>> {
        let engine = Arc::clone(&self.engine);
        answer(async move {
            engine.check_usable("search")?;
            blocking(move || engine.search(&query, cursor, limit)).await.map_err(|error| {
                StoreError::not_applied("search", true, "cannot read the log").with_source(error)
            })
        })
    }

    fn append_audit(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("append_audit")?;
            let mut last = None;
            for entry in entries {
                last = Some(engine.queue.audit("append_audit", &entry.at(engine.now()))?);
            }
            match last {
                Some(batch) => engine.durable("append_audit", batch).await,
                None => Ok(()),
            }
        })
    }

    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<Entry, AuditCursor>> {
        {
            let engine = Arc::clone(&self.engine);
            answer(async move {
                engine.check_usable("audit")?;
                blocking(move || engine.audit_page(&query, cursor, limit)).await.map_err(|error| {
                    StoreError::not_applied("audit", true, "cannot read the log").with_source(error)
                })
            })
        }
    }

    fn survives_failover(&self) -> bool {
        true
    }

    fn ready(&self) -> Answer<'_, ()> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("ready")?;
            engine.queue.check_open("ready")?;
            match engine.health() {
                Health::Well => Ok(()),
                Health::Full(why) | Health::Failed(why) => Err(StoreError::not_applied("ready", true, why)),
            }
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("close")?;
            let batch = engine.queue.barrier()?;
            engine.durable("close", batch).await?;
            // What follows waits for the log thread, which has nothing left to do but one last batch.
            self.stop();
            Ok(())
        })
    }
}

/// Runs what waits for the disk where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn decided_twice(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "the decision was asked for twice")
}

/// A place in the list of those who wait for a record; the list's entry goes with the last of them.
struct Watch<'a> {
    engine: &'a Engine,
    id: RecordId,
    notify: Arc<Notify>,
}

impl<'a> Watch<'a> {
    fn new(engine: &'a Engine, id: RecordId) -> Self {
        let notify = Arc::clone(engine.shard(id).lock().watchers.entry(id).or_default());
        Self { engine, id, notify }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut shard = self.engine.shard(self.id).lock();
        // This one and the map's.
        if Arc::strong_count(&self.notify) <= 2 {
            shard.watchers.remove(&self.id);
        }
    }
}

//! The store without threads and tasks: shards, queue, log, and the order in which a version becomes visible.
//!
//! A write is decided under its shard's lock against the newest durable version, and goes to the queue. The log thread takes
//! the whole queue, writes and syncs it ([`Engine::commit`]); then, in the order of the log, versions become
//! visible and their writers are told ([`Engine::publish`]). Tests call these steps one by one; `threads` runs them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use semel_core::audit::Entry;
use semel_core::record::StateName;
use semel_core::{Fence, Record, RecordId, StoreError, Timestamp};
use tokio::sync::Notify;

use crate::clock::StoreTime;
use crate::embedded::batch::{Batch, Fate};
use crate::embedded::disk::Folder;
use crate::embedded::index::{Place, shard_of, tag_of};
use crate::embedded::listing::cell_of;
use crate::embedded::manifest::Manifest;
use crate::embedded::orders::{Orders, Seat};
use crate::embedded::queue::{Effect, Gathered, Queue, Step};
use crate::embedded::segment::Segment;
use crate::embedded::shard::{Active, Fact, Facts, Look, Shard};
use crate::embedded::tally::Tally;
use crate::embedded::writer::{Spares, WriteError, Writer};

/// A settled record's weight in the cache: about its bytes.
#[derive(Clone)]
pub(crate) struct ByBytes;

impl Weighter<RecordId, Arc<Record>> for ByBytes {
    fn weight(&self, _id: &RecordId, record: &Arc<Record>) -> u64 {
        weight_of(record) as u64
    }
}

/// About the bytes that a record takes in memory.
fn weight_of(record: &Record) -> usize {
    use semel_core::outcome::Body;
    use semel_core::record::State;
    let body = match record.state() {
        State::Completed { outcome } => match &outcome.body {
            Body::Kept(body) => body.len() + outcome.headers.len() * 96,
            Body::Gone => outcome.headers.len() * 96,
        },
        State::Pending { .. }
        | State::Running { .. }
        | State::Released { .. }
        | State::Unknown { .. }
        | State::Dead { .. } => 0,
    };
    let request = record.request();
    let input = request.input().map_or(0, |input| input.body().len() + input.headers().len() * 96);
    let checkpoints: usize = record.parts().checkpoints.iter().map(|point| point.data().len() + 64).sum();
    RECORD_BYTES + body + input + checkpoints + request.tags().len() * 96
}

/// Bytes of a record in memory without bodies, headers and tags: the structs, the request, its texts.
const RECORD_BYTES: usize = 900;

/// How the store is.
#[derive(Clone, Debug)]
pub(crate) enum Health {
    /// It serves.
    Well,
    /// There was no file for a new segment: no space, as a rule. Reads are safe, and what fits the rest of the segment is
    /// written; upkeep tries again.
    Full(String, std::io::ErrorKind),
    /// A write or sync failed: nothing is known but what the disk says when it is opened again.
    Failed(String),
}

/// A batch that is synced.
struct Done {
    gathered: Gathered,
}

/// Everything but threads.
pub(crate) struct Engine {
    pub(crate) folder: Arc<dyn Folder>,
    pub(crate) time: StoreTime,
    pub(crate) queue: Queue,
    pub(crate) spares: Arc<Spares>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) segment_bytes: u64,
    pub(crate) segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(crate) orders: Mutex<Orders>,
    pub(crate) tally: Mutex<Tally>,
    /// When audit entries were stamped, by number, with their segment: of segments without a sidecar.
    pub(crate) audits: Mutex<BTreeMap<u64, (u32, Timestamp)>>,
    /// The number after the highest of a durable audit entry: what comes behind it is shown to nobody yet.
    pub(crate) audit_end: AtomicU64,
    /// The lowest number of an audit entry that is not forgotten.
    pub(crate) audit_floor: AtomicU64,
    /// Woken when something may be due earlier than was said.
    pub(crate) due_changed: Notify,
    /// What `next_due` said last.
    pub(crate) told_due: AtomicU64,
    shards: Box<[Mutex<Shard>]>,
    floor: AtomicU64,
    writer: Mutex<Writer>,
    done: Mutex<VecDeque<Done>>,
    publishing: Mutex<()>,
    pub(crate) cache: Cache<RecordId, Arc<Record>, ByBytes>,
    health: RwLock<Health>,
    /// Who is told how many writes have shared a sync.
    pub(crate) batches: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
}

/// What recovery found.
pub(crate) struct Found {
    pub(crate) shards: Box<[Mutex<Shard>]>,
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    pub(crate) orders: Orders,
    pub(crate) tally: Tally,
    pub(crate) audits: BTreeMap<u64, (u32, Timestamp)>,
    pub(crate) next_audit: u64,
    pub(crate) audit_floor: u64,
    pub(crate) floor: Fence,
    pub(crate) writer: Writer,
    pub(crate) spares: Arc<Spares>,
    pub(crate) manifest: Arc<Manifest>,
}

/// What a decision does with the newest durable version.
pub(crate) enum Decision<T> {
    /// Nothing: this is the answer.
    Answer(T),
    /// It put something on its way; this is the answer once that is durable.
    After(Arc<Batch>, T),
}

/// A read that has to happen outside of the shard's lock.
pub(crate) enum Need {
    /// This place must be read.
    Read(Place),
    /// A version must become durable first.
    Wait(Arc<Batch>),
}

impl Engine {
    pub(crate) fn new(
        folder: Arc<dyn Folder>,
        time: StoreTime,
        segment_bytes: u64,
        cache_bytes: u64,
        found: Found,
    ) -> Self {
        let items = (cache_bytes / (2 * RECORD_BYTES as u64)).max(16) as usize;
        Self {
            folder,
            time,
            queue: Queue::new(Writer::frame_max(segment_bytes), found.next_audit),
            spares: found.spares,
            manifest: found.manifest,
            segment_bytes,
            segments: RwLock::new(found.segments),
            orders: Mutex::new(found.orders),
            tally: Mutex::new(found.tally),
            audits: Mutex::new(found.audits),
            audit_end: AtomicU64::new(found.next_audit),
            audit_floor: AtomicU64::new(found.audit_floor),
            due_changed: Notify::new(),
            told_due: AtomicU64::new(u64::MAX),
            shards: found.shards,
            floor: AtomicU64::new(found.floor.0),
            writer: Mutex::new(found.writer),
            done: Mutex::new(VecDeque::new()),
            publishing: Mutex::new(()),
            cache: Cache::with_weighter(items, cache_bytes, ByBytes),
            health: RwLock::new(Health::Well),
            batches: OnceLock::new(),
        }
    }

    pub(crate) fn shard(&self, id: RecordId) -> &Mutex<Shard> {
        &self.shards[shard_of(id)]
    }

    pub(crate) fn shards(&self) -> &[Mutex<Shard>] {
        &self.shards
    }

    pub(crate) fn floor(&self) -> Fence {
        Fence(self.floor.load(Ordering::Acquire))
    }

    pub(crate) fn raise_floor(&self, fence: Fence) {
        self.floor.fetch_max(fence.0, Ordering::AcqRel);
    }

    pub(crate) fn health(&self) -> Health {
        self.health.read().clone()
    }

    /// Refuses everything once a write or sync has failed.
    pub(crate) fn check_usable(&self, during: &'static str) -> Result<(), StoreError> {
        match &*self.health.read() {
            Health::Well | Health::Full(..) => Ok(()),
            Health::Failed(why) => Err(StoreError::not_applied(during, false, why.as_str())),
        }
    }

    /// Looks at the newest durable version of `id`, and decides under the shard's lock; `Err` says what has to happen
    /// first. `facts` is what was read for it so far.
    pub(crate) fn decide<T>(
        &self,
        during: &'static str,
        id: RecordId,
        facts: &Facts,
        is_write: bool,
        decision: impl FnOnce(&mut Shard, Option<Arc<Record>>) -> Result<T, StoreError>,
    ) -> Result<Result<T, Need>, StoreError> {
        let mut shard = self.shard(id).lock();
        if is_write && let Some(batch) = shard.pending.get(&id) {
            return Ok(Err(Need::Wait(Arc::clone(batch))));
        }
        let newest = match shard.look(id, facts, || self.cache.get(&id)) {
            Look::Absent => None,
            Look::Found(record) => {
                let is_read =
                    facts.iter().any(|(_, fact)| matches!(fact, Fact::Holds(held) if held.id() == id));
                if is_read && !shard.active.contains_key(&id) {
                    self.cache.insert(id, Arc::clone(&record));
                }
                Some(record)
            }
            Look::Read(place) => return Ok(Err(Need::Read(place))),
            Look::Damaged(place, why) => return Err(damaged(during, id, place, why)),
        };
        decision(&mut shard, newest).map(Ok)
    }

    /// The segment of a place, if it is still there.
    pub(crate) fn segment(&self, place: Place) -> Option<Arc<Segment>> {
        self.segments.read().get(&place.segment()).cloned()
    }

    /// Puts a version on its way, under the lock of its shard.
    pub(crate) fn send(
        &self,
        shard: &mut Shard,
        during: &'static str,
        record: Record,
        before: Option<Arc<Record>>,
        audit: Option<Entry>,
    ) -> Result<(Arc<Batch>, Arc<Record>), StoreError> {
        let record = Arc::new(record);
        let batch = self.queue.put(during, Arc::clone(&record), before, audit)?;
        shard.pending.insert(record.id(), Arc::clone(&batch));
        Ok((batch, record))
    }

    /// Puts a removal on its way, under the lock of its shard.
    pub(crate) fn send_removal(
        &self,
        shard: &mut Shard,
        during: &'static str,
        before: Arc<Record>,
    ) -> Result<Arc<Batch>, StoreError> {
        let id = before.id();
        // Raised before it is durable: a floor that is too high costs nothing.
        self.raise_floor(before.fence());
        let batch = self.queue.remove(during, before)?;
        shard.pending.insert(id, Arc::clone(&batch));
        Ok(batch)
    }

    /// Writes and syncs what has been gathered, if anything was, and says how many writers wait to be told.
    pub(crate) fn commit(&self) -> usize {
        let mut writer = self.writer.lock();
        let Some(mut gathered) = self.queue.take() else { return 0 };
        let writers = gathered.writers;
        if let Health::Failed(_) = self.health() {
            self.give_up(gathered, Fate::NotApplied);
            return 0;
        }
        let (time, floor) = (self.time.now(), self.floor());
        let mut has_room = false;
        let began = |segment: &Arc<Segment>| {
            has_room = true;
            self.segments.write().insert(segment.number, Arc::clone(segment));
        };
        let audit_floor = self.audit_floor.load(Ordering::Acquire);
        match writer.write(&mut gathered, time, floor, audit_floor, began) {
            Ok(()) => {
                if has_room {
                    self.has_room();
                }
                if let Some(tell) = self.batches.get() {
                    tell(gathered.steps.len());
                }
                self.done.lock().push_back(Done { gathered });
            }
            Err(error) => self.failed(&error, gathered),
        }
        writers
    }

    /// There is a file for the next segment, or a segment has just begun.
    pub(crate) fn has_room(&self) {
        let mut health = self.health.write();
        if let Health::Full(..) = *health {
            *health = Health::Well;
        }
    }

    fn failed(&self, error: &WriteError, gathered: Gathered) {
        let WriteError { in_doubt, what, source } = error;
        if *in_doubt {
            let why = format!("could not {what} ({source}); the store has to be opened again");
            *self.health.write() = Health::Failed(why);
            self.queue.close();
            self.give_up(gathered, Fate::InDoubt);
            self.due_changed.notify_waiters();
        } else {
            *self.health.write() = Health::Full(format!("could not {what}: {source}"), source.kind());
            self.give_up(gathered, Fate::NotApplied);
        }
    }

    /// Tells writers that their versions will not become visible. Batches before it are published first, so that fates
    /// are told in the order of the log.
    fn give_up(&self, gathered: Gathered, fate: Fate) {
        self.publish();
        for step in &gathered.steps {
            if let Some(id) = step.effect.written() {
                self.shard(id).lock().pending.remove(&id);
            }
        }
        gathered.batch.settle(fate);
        self.queue.reuse(gathered);
    }

    /// How many synced batches are not visible yet.
    pub(crate) fn unpublished(&self) -> usize {
        self.done.lock().len()
    }

    /// Makes synced batches visible, in the order of the log, and tells their writers.
    pub(crate) fn publish(&self) {
        let _one_at_a_time = self.publishing.lock();
        loop {
            let Some(Done { mut gathered }) = self.done.lock().pop_front() else { return };
            for step in &gathered.steps {
                self.show(step);
            }
            self.count(&gathered.steps);
            gathered.batch.settle(Fate::Durable);
            gathered.steps.clear();
            self.queue.reuse(gathered);
        }
    }

    /// Makes one step visible in the map.
    fn show(&self, step: &Step) {
        match &step.effect {
            Effect::Put { record, before, .. } => self.show_version(record, before.as_ref(), step.place),
            Effect::Remove { before } => {
                let id = before.id();
                let mut shard = self.shard(id).lock();
                shard.pending.remove(&id);
                self.hide(&mut shard, id, before);
                wake(&shard, id);
            }
            Effect::Move { id, from } => {
                let mut shard = self.shard(*id).lock();
                let moved = match shard.active.get_mut(id) {
                    Some(active) if active.place == *from => {
                        active.place = step.place;
                        true
                    }
                    Some(_) => false,
                    None => shard.table.move_entry(tag_of(*id), *from, step.place),
                };
                drop(shard);
                if moved {
                    self.loses(*from);
                    self.gains(step.place);
                }
            }
            Effect::Audit { .. } | Effect::MoveAudit | Effect::Nothing => {}
        }
    }

    fn show_version(&self, record: &Arc<Record>, before: Option<&Arc<Record>>, place: Place) {
        let id = record.id();
        let mut shard = self.shard(id).lock();
        shard.pending.remove(&id);
        if let Some(before) = before {
            self.hide(&mut shard, id, before);
        }
        if is_held(record) {
            shard.active.insert(id, Active { record: Arc::clone(record), place });
        } else {
            shard.table.insert(tag_of(id), place);
            self.cache.insert(id, Arc::clone(record));
            self.note_expiry(place, record);
        }
        wake(&shard, id);
        drop(shard);
        self.gains(place);
    }

    /// Takes the version that was there out of the map.
    fn hide(&self, shard: &mut Shard, id: RecordId, before: &Record) {
        if is_held(before) {
            if let Some(active) = shard.active.remove(&id) {
                self.loses(active.place);
            }
            return;
        }
        self.cache.remove(&id);
        let tag = tag_of(id);
        let mut places = shard.table.places(tag);
        let (first, second) = (places.next(), places.next());
        drop(places);
        // Two ids with one tag are rare enough to read the log under the lock.
        let place = if second.is_none() { first } else { self.place_among(shard, id) };
        if let Some(place) = place
            && shard.table.remove(tag, place)
        {
            self.loses(place);
        }
    }

    /// Which of several places is this id's. It has one: what cannot be read is it, unless another can be and is. With
    /// more in doubt the store stops, since an old version that stayed in the map could be found before the new one.
    fn place_among(&self, shard: &Shard, id: RecordId) -> Option<Place> {
        let mut doubtful = Vec::new();
        for place in shard.table.places(tag_of(id)) {
            match self.read("publish", place) {
                Ok(Fact::Holds(record)) if record.id() == id => return Some(place),
                Ok(Fact::Holds(_)) => {}
                Ok(Fact::Gone | Fact::Damaged(_)) | Err(_) => doubtful.push(place),
            }
        }
        if doubtful.len() > 1 {
            let why =
                format!("cannot tell which of {doubtful:?} is current; the store has to be opened again");
            *self.health.write() = Health::Failed(why);
            self.queue.close();
        }
        doubtful.pop().filter(|_| doubtful.is_empty())
    }

    fn note_expiry(&self, place: Place, record: &Record) {
        if let Some(expires) = record.times().expires
            && let Some(segment) = self.segment(place)
        {
            segment.expires(expires);
        }
    }

    fn gains(&self, place: Place) {
        if let Some(segment) = self.segment(place) {
            segment.gains(place);
        }
    }

    fn loses(&self, place: Place) {
        if let Some(segment) = self.segment(place) {
            segment.loses(place);
        }
    }

    /// Keeps the orders and counts of a batch.
    fn count(&self, steps: &[Step]) {
        let (mut left, mut waiting) = (Vec::new(), Vec::new());
        let mut tally = self.tally.lock();
        for step in steps {
            let (before, after) = match &step.effect {
                Effect::Put { record, before, .. } => (before.as_ref(), Some(record)),
                Effect::Remove { before } => (Some(before), None),
                Effect::Move { .. } | Effect::Audit { .. } | Effect::MoveAudit | Effect::Nothing => {
                    (None, None)
                }
            };
            if let Some(before) = before {
                let cell = tally.cell(before);
                tally.subtract(cell);
                if waits(before) {
                    left.push((&**before, cell_of(cell.group as usize, cell.state)));
                }
            }
            if let Some(after) = after {
                let cell = tally.cell(after);
                tally.add(cell);
                if waits(after) {
                    waiting.push((&**after, cell_of(cell.group as usize, cell.state)));
                }
            }
        }
        drop(tally);
        // What is due already wakes them, too: a lane that nobody empties must not hide what comes into another.
        let told = self.told_due.load(Ordering::Acquire).max(self.now().as_millis().saturating_add(1));
        let mut due_earlier = false;
        let mut orders = self.orders.lock();
        for step in steps {
            match &step.effect {
                Effect::Put { record, before, audit } => {
                    waits_no_more(&mut orders, before.as_deref());
                    // Before what waits leaves: it may stand already where it came to stand since.
                    orders.forget(record.id());
                    if is_held(record) {
                        orders.note(record.id());
                    } else if is_settled(record)
                        && let Some(due) = record.due()
                    {
                        orders.waits(due, record.id());
                    }
                    due_earlier |= record.due().is_some_and(|due| due.as_millis() < told);
                    if let Some((sequence, at)) = audit {
                        self.show_audit(*sequence, *at, step.place);
                    }
                }
                Effect::Remove { before } => {
                    waits_no_more(&mut orders, Some(before));
                    orders.forget(before.id());
                }
                Effect::Audit { sequence, at } => self.show_audit(*sequence, *at, step.place),
                Effect::Move { .. } | Effect::MoveAudit | Effect::Nothing => {}
            }
        }
        for (record, cell) in left {
            orders.leave(record.id(), &Seat::of(record, cell));
        }
        for (record, cell) in waiting {
            orders.wait(record.id(), &Seat::of(record, cell));
        }
        if orders.is_crowded() {
            self.settle_orders(&mut orders);
        }
        drop(orders);
        if due_earlier {
            self.due_changed.notify_waiters();
            self.due_changed.notify_one();
        }
    }

    /// Makes an audit entry visible. They come in the order of their numbers.
    fn show_audit(&self, sequence: u64, at: Timestamp, place: Place) {
        self.audits.lock().insert(sequence, (place.segment(), at));
        self.audit_end.store(sequence + 1, Ordering::Release);
    }

    /// Puts the orders in order.
    pub(crate) fn settle_orders(&self, orders: &mut Orders) {
        orders.settle(|id| {
            let record = self.shard(id).lock().active.get(&id).map(|active| Arc::clone(&active.record))?;
            let cell = self.tally.lock().cell(&record);
            Some((record, cell_of(cell.group as usize, cell.state)))
        });
    }

    /// Reads a record, waiting for the disk if need be.
    pub(crate) fn read(&self, during: &'static str, place: Place) -> Result<Fact, StoreError> {
        let Some(segment) = self.segment(place) else { return Ok(Fact::Gone) };
        fact(during, place, segment.read(place))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.time.now()
    }
}

/// What a read of a place says.
pub(crate) fn fact(
    during: &'static str,
    place: Place,
    read: std::io::Result<Option<bytes::Bytes>>,
) -> Result<Fact, StoreError> {
    let failed = || StoreError::not_applied(during, true, format!("cannot read {}", place.in_words()));
    let Some(payload) = read.map_err(|error| failed().with_source(error))? else {
        return Ok(Fact::Damaged("there is no whole record"));
    };
    Ok(match crate::codec::decode_record(payload) {
        Ok((record, _)) => Fact::Holds(Arc::new(record)),
        Err(crate::codec::Corrupt(why)) => Fact::Damaged(why),
    })
}

/// The index points to a place where the record cannot be read (L13): which one, for whoever has to look for it.
pub(crate) fn damaged(during: &'static str, id: RecordId, place: Place, why: &str) -> StoreError {
    let place = place.in_words();
    StoreError::corrupt(during, format!("the record {id}, at {place}, cannot be read: {why}"))
}

/// Whether somebody holds a record, and will say something about it before long: then it is kept whole in memory. Of all
/// others only the place is, since nobody knows how many events wait for a target that is down, or for how long.
pub(crate) fn is_held(record: &Record) -> bool {
    record.state().name() == StateName::Running
}

/// Whether a record has come to its end.
pub(crate) fn is_settled(record: &Record) -> bool {
    record.times().expires.is_some()
}

/// Whether a record waits, for a worker or for somebody to look at it.
fn waits(record: &Record) -> bool {
    !is_held(record) && !is_settled(record)
}

/// A version gave way: if it was settled and due once more, it is so no longer.
fn waits_no_more(orders: &mut Orders, before: Option<&Record>) {
    if let Some(before) = before
        && is_settled(before)
        && let Some(due) = before.due()
    {
        orders.waits_no_more(due, before.id());
    }
}

fn wake(shard: &Shard, id: RecordId) {
    if let Some(watcher) = shard.watchers.get(&id) {
        watcher.notify_waiters();
    }
}

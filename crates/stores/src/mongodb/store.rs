//! The contract of stores over MongoDB.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::{
    Acknowledgment, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Collection, Database};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use semel_core::audit::Entry;
use semel_core::id::{Fence, Lane, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::{Kind, failed};
use super::open::{Server, connect, create_indexes};
use super::options::Options;
use super::settle::settles;
use super::slot::{Known, Put, birth, slot};
use super::time::ServerTime;
use super::turns::gives_turns;
use super::version::{REMOVED, audit_fields, date, fence, fields, kind_of, unreadable};
use crate::clock::Clock;
use crate::limits;
use crate::remote::calls::{self, Lanes, Remote, calls_of_shared};
use crate::remote::draft::{millis, time};
use crate::remote::open::OpenError;
use crate::remote::wake::Waiters;

/// Records in MongoDB.
pub struct MongoStore {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// What calls and background tasks share.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) time: ServerTime,
    pub(super) database: Database,
    /// A document for each version of a record.
    pub(super) records: Collection<Document>,
    pub(super) log: Collection<Document>,
    pub(super) counts: Collection<Document>,
    pub(super) floors: Collection<Document>,
    pub(super) places: Cache<RecordId, Known>,
    pub(super) floor: Mutex<(Fence, Option<Instant>)>,
    pub(super) waiters: Waiters,
    /// When this node last deleted what had been kept for long enough.
    pub(super) pruned: Mutex<Option<Instant>>,
    pub(super) look_every: Duration,
    pub(super) keep: Duration,
    pub(super) command_timeout: Duration,
    /// Somebody has left a call before its end.
    pub(super) left: Arc<Notify>,
    /// There are versions that nobody has settled.
    pub(super) unsettled: Notify,
    /// The last number of an audit entry here.
    last_entry: AtomicI64,
    /// What this process begins to count them from within a millisecond.
    seed: i64,
    closed: AtomicBool,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoStore").field("collection", &self.shared.records.name()).finish_non_exhaustive()
    }
}

impl Drop for MongoStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl MongoStore {
    /// Connects, and creates what is missing of the collections' indexes.
    ///
    /// # Errors
    /// No server can be reached, or it refuses.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let database = connect(options).await?;
        Self::over(database, options).await
    }

    /// The same over a database that the caller has connected to. Whatever concerns that has, the store writes to a majority
    /// and reads what a majority has. Of the options the collection is used, and how it is used, but no URL.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn over(database: Database, options: &Options) -> Result<Self, OpenError> {
        let refused = |error| OpenError::because("cannot open MongoDB", failed(error, Kind::Read, "open"));
        let (server, hello, sent) = Server::ask(&database).await.map_err(refused)?;
        create_indexes(&database, &options.collection, server).await.map_err(refused)?;
        let collection = |suffix: &str| {
            database.collection_with_options(&format!("{}{suffix}", options.collection), concerns())
        };
        let shared = Arc::new(Shared {
            server,
            time: ServerTime::new(options.stepped.clone()),
            records: collection(""),
            log: collection("_audit"),
            counts: collection("_counts"),
            floors: collection("_floors"),
            places: Cache::new(limits::MONGODB_PLACES),
            floor: Mutex::new((Fence::default(), None)),
            waiters: Waiters::new(false),
            pruned: Mutex::new(None),
            look_every: options.poll,
            keep: options.keep,
            command_timeout: options.command_timeout,
            left: Arc::default(),
            unsettled: Notify::new(),
            last_entry: AtomicI64::new(0),
            seed: seed(),
            closed: AtomicBool::new(false),
            database,
        });
        let said = hello.get_datetime("localTime");
        let said = said.map_err(|error| OpenError::because("cannot open MongoDB", unreadable(error)))?;
        shared.time.heard(time(said.timestamp_millis()), sent);
        shared.unsettled.notify_one();
        let settler = tokio::spawn(settles(Arc::downgrade(&shared)));
        let giver = tokio::spawn(gives_turns(Arc::downgrade(&shared)));
        Ok(Self { shared, tasks: [settler, giver] })
    }

    /// Whether the server is FerretDB, which speaks MongoDB's protocol over PostgreSQL: right, but every question reads all
    /// of a collection, and nothing expires by itself. For development and tests.
    pub fn is_ferretdb(&self) -> bool {
        self.shared.server.is_ferretdb
    }
}

#[cfg(test)]
impl MongoStore {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// What is answered is durable on a majority (L4), and what is read is, too.
fn concerns() -> CollectionOptions {
    CollectionOptions::builder()
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
        .read_concern(ReadConcern::majority())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .build()
}

/// Where this process begins to count its audit entries, so that two that start together do not count alike.
fn seed() -> i64 {
    let random = RandomState::new().build_hasher().finish();
    // Half of a millisecond's numbers are left to count on from it.
    (random >> (64 - (COUNTER_BITS - 1))).cast_signed()
}

fn too_often(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "others were quicker, time and again")
}

fn too_late(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "the write came after its deadline")
}

/// Bits of an audit entry's number below its time.
pub(super) const COUNTER_BITS: u32 = 21;

/// Where the next version goes.
struct Next<'a> {
    /// The highest number that is taken; none if nothing is there.
    after: Option<i64>,
    floor: Fence,
    was: Option<&'a str>,
    at_least: Timestamp,
}

impl Shared {
    pub(super) fn open(&self, during: &'static str) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::not_applied(during, false, "the store is closed"));
        }
        Ok(())
    }

    /// The number of an audit entry of this time; above all that were given here before.
    pub(super) fn audit_number(&self, at: Timestamp) -> i64 {
        let first = (millis(at).min(i64::MAX >> COUNTER_BITS) << COUNTER_BITS) | self.seed;
        let after = |last: i64| Some(first.max(last + 1));
        let last = self.last_entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        first.max(last.unwrap_or_else(|last| last) + 1)
    }

    /// Puts the next version of a record into its slot; `None` if something else is there.
    async fn put_version(
        &self,
        during: &'static str,
        write: &Write,
        next: &Next<'_>,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        let now = self.time.stamp(next.at_least);
        let deadline = write.deadline();
        if now > deadline {
            return Err(too_late(during));
        }
        let (record, entry) = write.clone().seal(now, next.floor);
        let mut fields = fields(&record)?;
        if let Some(entry) = &entry {
            fields.insert("audit", audit_fields(entry, self.audit_number(now)));
        }
        let top = self.put_at(during, record.id(), self.time.may_come_until(deadline), next, fields).await?;
        let Some(top) = top else { return Ok(None) };
        self.remember(&record, top);
        self.waiters.changed(record.id());
        self.waiters.written(&record, now);
        self.unsettled.notify_one();
        Ok(Some(Arc::new(record)))
    }

    /// Puts a version of these fields where it belongs, and says under which number it is there.
    async fn put_at(
        &self,
        during: &'static str,
        id: RecordId,
        until: Timestamp,
        next: &Next<'_>,
        mut fields: Document,
    ) -> Result<Option<i64>, StoreError> {
        let record = id.to_string();
        // A life that nothing is left of was forgotten long ago, so that the time is above all its numbers.
        let number = next.after.map_or_else(|| millis(self.time.server_latest()), |top| top + 1);
        let slot = if next.after.is_some() { slot(&record, number) } else { birth(&record) };
        if next.after.is_none() {
            fields.insert("birth", true);
        }
        fields.insert("r", record);
        fields.insert("n", number);
        fields.insert("new", true);
        if let Some(was) = next.was {
            fields.insert("was", was);
        }
        match self.put(during, &self.records, &slot, until, fields).await {
            Ok(Put::There) => Ok(Some(number)),
            Ok(Put::Taken) => {
                self.places.remove(&id);
                Ok(None)
            }
            Ok(Put::Late) => {
                self.places.remove(&id);
                Err(too_late(during))
            }
            Err(error) => {
                self.places.remove(&id);
                Err(error)
            }
        }
    }

    async fn insert(&self, write: Write) -> Result<AsOf<Inserted>, StoreError> {
        const DURING: &str = "insert";
        let id = write.id();
        // Nothing is there, most likely.
        let (mut after, mut above, mut forgot) = (None, write.after().fence, false);
        for _ in 0..limits::MONGODB_ROUNDS {
            self.ask_time(DURING).await?;
            let floor = self.floor(DURING).await?.max(above);
            let next = Next { after, floor, was: None, at_least: Timestamp::ZERO };
            if let Some(record) = self.put_version(DURING, &write, &next).await? {
                return Ok(AsOf { as_of: record.times().written, value: Inserted::Inserted(record) });
            }
            let seen = self.look(DURING, id).await?;
            if let Some(there) = seen.record() {
                let as_of = self.time.now(there.times().written);
                if as_of > write.deadline() {
                    return Err(too_late(DURING));
                }
                return Ok(AsOf { as_of, value: Inserted::Occupied(Arc::clone(there)) });
            }
            above = write.after().fence.max(seen.fence());
            after = match &seen.head {
                Some(head) if head.placed.is_closed() => {
                    if std::mem::replace(&mut forgot, true) {
                        // Whoever forgets the life before is still about it.
                        break;
                    }
                    self.forget(DURING, &head.placed, true).await?;
                    None
                }
                _ => seen.top,
            };
        }
        Err(too_often(DURING))
    }

    async fn replace(&self, write: Write, expected: Version) -> Result<AsOf<Replaced>, StoreError> {
        const DURING: &str = "replace";
        let id = write.id();
        let at_least = write.parts().times.written;
        for _ in 0..limits::MONGODB_ROUNDS {
            self.ask_time(DURING).await?;
            let known = if let Some(known) = self.known(id, expected) {
                known
            } else {
                let seen = self.look(DURING, id).await?;
                let there = seen.record();
                let as_of = self.time.now(there.map_or(Timestamp::ZERO, |there| there.times().written));
                if as_of > write.deadline() {
                    return Err(too_late(DURING));
                }
                match (there, seen.top) {
                    (Some(there), Some(top)) if there.version() == expected => {
                        Known { version: expected, top, kind: kind_of(there), at: Instant::now() }
                    }
                    _ => return Ok(AsOf { as_of, value: Replaced::Conflict(there.cloned()) }),
                }
            };
            let floor = if write.stamp().raise_fence { self.floor(DURING).await? } else { Fence::default() };
            let next = Next { after: Some(known.top), floor, was: Some(&known.kind), at_least };
            if let Some(record) = self.put_version(DURING, &write, &next).await? {
                return Ok(AsOf { as_of: record.times().written, value: Replaced::Replaced(record) });
            }
        }
        Err(too_often(DURING))
    }

    /// Puts a tombstone after the version that was expected.
    pub(super) async fn bury(&self, id: RecordId, expected: Version) -> Result<bool, StoreError> {
        const DURING: &str = "remove";
        for _ in 0..limits::MONGODB_ROUNDS {
            self.ask_time(DURING).await?;
            let known = if let Some(known) = self.known(id, expected) {
                known
            } else {
                let seen = self.look(DURING, id).await?;
                match (seen.record(), seen.top) {
                    (Some(there), Some(top)) if there.version() == expected => {
                        Known { version: expected, top, kind: kind_of(there), at: Instant::now() }
                    }
                    _ => return Ok(false),
                }
            };
            let fields = doc! {
                "state": REMOVED,
                "fence": fence(expected.fence),
                "goneAt": date(self.time.server_latest()),
            };
            let until = self.time.may_come_until(Timestamp::MAX);
            let next = Next {
                after: Some(known.top),
                floor: Fence::default(),
                was: Some(&known.kind),
                at_least: Timestamp::ZERO,
            };
            if self.put_at(DURING, id, until, &next, fields).await?.is_some() {
                self.places.remove(&id);
                self.waiters.changed(id);
                self.unsettled.notify_one();
                return Ok(true);
            }
        }
        Err(too_often(DURING))
    }

    async fn remove(&self, id: RecordId, expected: Version) -> Result<bool, StoreError> {
        let removed = self.bury(id, expected).await?;
        if removed {
            self.raise_floor("remove", expected.fence).await?;
        }
        Ok(removed)
    }

    pub(super) async fn load(&self, id: RecordId) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        self.ask_time("load").await?;
        let record = self.look("load", id).await?.record().cloned();
        let as_of = self.time.now(record.as_ref().map_or(Timestamp::ZERO, |record| record.times().written));
        Ok(AsOf { as_of, value: record })
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let sent = Instant::now();
        let hello = self.answer("ready", Kind::Read, self.database.run_command(doc! { "hello": 1 })).await?;
        if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Err(StoreError::not_applied("ready", true, "no primary takes writes"));
        }
        let said = hello.get_datetime("localTime").map_err(unreadable)?;
        self.time.heard(time(said.timestamp_millis()), sent);
        Ok(())
    }
}

impl Remote for Arc<Shared> {
    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn clock(&self) -> &dyn Clock {
        self.time.clock()
    }

    fn now(&self) -> Timestamp {
        self.time.now(Timestamp::ZERO)
    }

    fn look_every(&self) -> Duration {
        self.look_every
    }

    fn find(
        &self,
        id: RecordId,
    ) -> impl Future<Output = Result<AsOf<Option<Arc<Record>>>, StoreError>> + Send {
        self.load(id)
    }

    fn lanes(&self, during: &'static str) -> impl Future<Output = Result<AsOf<Lanes>, StoreError>> + Send {
        Shared::lanes(self, during)
    }
}

impl Store for MongoStore {
    fn name(&self) -> &'static str {
        "mongodb"
    }

    calls_of_shared!();

    /// Whatever is acknowledged is on a majority, or there is only one server.
    fn survives_failover(&self) -> bool {
        true
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shared.closed.store(true, Ordering::Release);
            self.tasks.iter().for_each(JoinHandle::abort);
            Ok(())
        })
    }
}

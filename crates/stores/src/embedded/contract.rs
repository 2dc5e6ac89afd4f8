//! The contract of stores, over the engine: what each method of [`Store`] decides, reads and waits for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use semel_core::audit::Entry;
use semel_core::error::StoreErrorKind;
use semel_core::id::Lane;
use semel_core::limits::TAKE_MAX;
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, RecordId, StoreError, Timestamp, Version};
use tokio::sync::Notify;

use crate::embedded::batch::{Batch, Fate};
use crate::embedded::engine::{Decision, Engine, Health, Need, fact};
use crate::embedded::index::Place;
use crate::embedded::search::unread;
use crate::embedded::segment::Resident;
use crate::embedded::shard::{Fact, Facts, Shard};
use crate::embedded::store::EmbeddedStore;

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
                let retry_helps = matches!(self.health(), Health::Full(..) | Health::Well);
                Err(StoreError::not_applied(during, retry_helps, self.why()))
            }
        }
    }

    fn why(&self) -> String {
        match self.health() {
            Health::Well => "the log was full for a moment".into(),
            Health::Full(why, _) | Health::Failed(why) => why,
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
            return Err(StoreError::not_applied(during, true, "the write came after its deadline"));
        }
        let (record, audit) = write.seal(now, self.floor());
        let (batch, record) = self.send(shard, during, record, before, audit)?;
        Ok((batch, AsOf { as_of: now, value: record }))
    }

    /// The records of an order, read where they lie; those that are not there, or not due then any more, leave it.
    async fn read_due(
        &self,
        lane: Option<&Lane>,
        order: Vec<(Timestamp, RecordId)>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut records = Vec::with_capacity(order.len());
        for (due, id) in order {
            match self.newest("take_due", id).await.map(|newest| newest.value) {
                Ok(Some(record)) if record.due() == Some(due) => records.push(record),
                // A sweep says nothing to the order; and a version that came meanwhile has a place of its own.
                Ok(Some(_) | None) => self.orders.lock().waits_no_more(due, id),
                // Whoever asks for it is told that it is damaged; nothing else that is due waits because of it.
                Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                    self.orders.lock().pass_over(lane, due, id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Sees to it that what is due first among what is settled is there: a sweep says nothing to their order.
    async fn first_at_rest(&self) -> Result<(), StoreError> {
        loop {
            let first = self.orders.lock().waiting(self.now(), 1);
            if first.is_empty() || !self.read_due(None, first).await?.is_empty() {
                return Ok(());
            }
        }
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
            let limit = limit.min(TAKE_MAX);
            let due = {
                let mut orders = engine.orders.lock();
                engine.settle_orders(&mut orders);
                let mut due = orders.due(lane.as_ref(), as_of, limit);
                if lane.is_none() {
                    due.extend(orders.waiting(as_of, limit));
                    due.sort_unstable();
                    due.truncate(limit);
                }
                due
            };
            Ok(AsOf { as_of, value: engine.read_due(lane.as_ref(), due).await? })
        })
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("lanes")?;
            engine.first_at_rest().await?;
            let mut orders = engine.orders.lock();
            engine.settle_orders(&mut orders);
            Ok(orders.lanes(engine.now()))
        })
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("next_due")?;
            engine.first_at_rest().await?;
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
            blocking(move || engine.sweep(limit)).await.map_err(|error| unread("sweep", error))
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
            let read = blocking(move || Ok(engine.search(&query, cursor, limit))).await;
            read.map_err(|error| unread("search", error))?
        })
    }

    fn append_audit(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        let engine = &*self.engine;
        answer(async move {
            engine.check_usable("append_audit")?;
            let mut last = None;
            for entry in entries {
                last =
                    Some(engine.queue.audit("append_audit", entry.stamped(Timestamp::ZERO, engine.now()))?);
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
                blocking(move || engine.audit_page(&query, cursor, limit))
                    .await
                    .map_err(|error| unread("audit", error))
            })
        }
    }

    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
        let engine = Arc::clone(&self.engine);
        answer(async move {
            engine.check_usable("forget_audit")?;
            let held = Arc::clone(&engine);
            let forgotten = blocking(move || held.forget(before, limit))
                .await
                .map_err(|error| unread("forget_audit", error))?;
            if forgotten > 0 {
                // Every batch says from where on entries are kept.
                let batch = engine.queue.barrier()?;
                engine.durable("forget_audit", batch).await?;
            }
            Ok(forgotten)
        })
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
                Health::Full(why, kind) => {
                    Err(StoreError::not_applied("ready", true, why).with_source(std::io::Error::from(kind)))
                }
                Health::Failed(why) => Err(StoreError::not_applied("ready", false, why)),
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

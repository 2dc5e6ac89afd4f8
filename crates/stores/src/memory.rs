//! The store in memory: the whole contract of [`semel_core::store`], and nothing left of it when the process ends.
//!
//! For tests, and for trying Semel out. One mutex holds the map and every order beside it, so each answer is a
//! snapshot and each write is one step; nothing is awaited while it is held. Versions are "durable" as soon as they
//! are there: there is nothing that they could outlive.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit::Entry;
use semel_core::id::{Fence, Lane, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};
use tokio::sync::Notify;

use self::audit_log::AuditLog;
use self::orders::Orders;
use crate::clock::{Clock, StoreTime, SystemClock};
use crate::limits;

mod audit_log;
mod orders;

/// Records in memory. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    time: StoreTime,
    inner: Mutex<Inner>,
    /// Waiters for changes, by a part of the id: a fixed number of places, so that nothing grows with the keys.
    changed: [Notify; limits::MEMORY_WAIT_PLACES],
    due_changed: Notify,
}

#[derive(Default)]
struct Inner {
    records: HashMap<RecordId, Arc<Record>>,
    orders: Orders,
    audit: AuditLog,
    /// The highest fence of any record that was removed.
    floor: Fence,
    /// Something may be due earlier than the last answer to `next_due` said, and nobody has been told.
    due_earlier: bool,
    closed: bool,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.shared.inner.lock().records.len();
        f.debug_struct("MemoryStore").field("records", &records).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store that goes by the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::start()))
    }

    /// An empty store that goes by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            time: StoreTime::open(clock, Timestamp::ZERO),
            inner: Mutex::default(),
            changed: std::array::from_fn(|_| Notify::new()),
            due_changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    fn waiters(&self, id: RecordId) -> &Notify {
        // The id is a digest, so any part of it spreads.
        &self.changed[usize::from(id.as_bytes()[0]) % limits::MEMORY_WAIT_PLACES]
    }

    /// Puts a version in the place of another, and wakes whom that concerns.
    fn put(&self, inner: &mut Inner, write: Write, now: Timestamp) -> Arc<Record> {
        let (record, entry) = write.seal(now, inner.floor);
        let record = Arc::new(record);
        let old = inner.records.insert(record.id(), Arc::clone(&record));
        let due_earlier = inner.orders.change(old.as_deref(), Some(&record), now);
        if let Some(entry) = entry {
            inner.audit.add(entry);
        }
        self.waiters(record.id()).notify_waiters();
        if due_earlier {
            inner.due_earlier = true;
            self.due_changed.notify_waiters();
        }
        record
    }

    fn take_away(&self, inner: &mut Inner, id: RecordId, now: Timestamp) {
        if let Some(old) = inner.records.remove(&id) {
            inner.floor = inner.floor.max(old.fence());
            inner.orders.change(Some(&old), None, now);
            self.waiters(id).notify_waiters();
        }
    }

    fn load(&self, id: RecordId) -> AsOf<Option<Arc<Record>>> {
        let inner = self.inner.lock();
        AsOf { as_of: self.time.now(), value: inner.records.get(&id).cloned() }
    }

    fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let mut swept = 0;
        while swept < limit {
            let step = (limit - swept).min(limits::MEMORY_SWEEP_STEP);
            // The lock is given back between steps, so that no other call waits for the whole sweep.
            let mut inner = self.inner.lock();
            inner.open("sweep")?;
            let now = self.time.now();
            let expired = inner.orders.expired(now, step);
            for id in &expired {
                self.take_away(&mut inner, *id, now);
            }
            swept += expired.len();
            if expired.len() < step {
                break;
            }
        }
        Ok(swept)
    }

    fn search(&self, query: &Query, cursor: Option<Cursor>, limit: usize) -> Page<Summary, Cursor> {
        let limit = limit.clamp(1, semel_core::limits::PAGE_MAX);
        let inner = self.inner.lock();
        let now = self.time.now();
        let mut page = Page { items: Vec::<Summary>::new(), next: None, entries_read: 0 };
        for place in inner.orders.candidates(query, cursor) {
            page.entries_read += 1;
            let Some(record) = inner.records.get(&place.id) else { continue };
            if record.is_expired(now) || !query.matches(record) {
                continue;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(Summary::cursor);
                break;
            }
            page.items.push(Summary::of(record));
        }
        page
    }
}

impl Inner {
    fn open(&self, during: &'static str) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::not_applied(during, false, "the store is closed")) } else { Ok(()) }
    }

    fn judge(&self, during: &'static str, write: &Write, now: Timestamp) -> Result<(), StoreError> {
        self.open(during)?;
        if now > write.deadline() {
            return Err(StoreError::not_applied(during, true, "the write came after its deadline"));
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn time(&self) -> Timestamp {
        self.shared.time.now()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            let as_of = self.shared.time.now();
            inner.judge("insert", &write, as_of)?;
            let value = match inner.records.get(&write.id()) {
                Some(there) => Inserted::Occupied(Arc::clone(there)),
                None => Inserted::Inserted(self.shared.put(&mut inner, write, as_of)),
            };
            Ok(AsOf { as_of, value })
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            let as_of = self.shared.time.now();
            inner.judge("replace", &write, as_of)?;
            let there = inner.records.get(&write.id());
            let value = if there.is_some_and(|record| record.version() == expected) {
                Replaced::Replaced(self.shared.put(&mut inner, write, as_of))
            } else {
                Replaced::Conflict(there.cloned())
            };
            Ok(AsOf { as_of, value })
        })
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            inner.open("remove")?;
            let there = inner.records.get(&id).is_some_and(|record| record.version() == expected);
            if there {
                self.shared.take_away(&mut inner, id, self.shared.time.now());
            }
            Ok(there)
        })
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(async move { Ok(self.shared.load(id)) })
    }

    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
        Box::pin(async move {
            let inner = self.shared.inner.lock();
            let as_of = self.shared.time.now();
            let limit = limit.min(semel_core::limits::TAKE_MAX);
            let due = inner.orders.due(lane.as_ref(), as_of).take(limit);
            let value = due.filter_map(|id| inner.records.get(&id).cloned()).collect();
            Ok(AsOf { as_of, value })
        })
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        Box::pin(async move { Ok(self.shared.inner.lock().orders.lanes(self.shared.time.now())) })
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            inner.due_earlier = false;
            Ok(AsOf { as_of: self.shared.time.now(), value: inner.orders.next_due() })
        })
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(async move {
            let shared = &self.shared;
            let until = shared.time.now().plus(patience);
            loop {
                // Watched before it is looked at, so that no change falls between the two.
                let mut woken = pin!(shared.waiters(id).notified());
                woken.as_mut().enable();
                let found = shared.load(id);
                let waits = found.value.as_ref().is_some_and(|record| record.version() <= seen);
                let left = until.since(found.as_of);
                if !waits || left.is_zero() || !shared.time.wait(left, woken).await {
                    return Ok(if waits { shared.load(id) } else { found });
                }
            }
        })
    }

    fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
        // Watches from the call on, so that a caller who calls before it asks for `next_due` misses nothing.
        let woken = self.shared.due_changed.notified();
        Box::pin(async move {
            if !std::mem::take(&mut self.shared.inner.lock().due_earlier) {
                self.shared.time.wait(patience, woken).await;
                self.shared.inner.lock().due_earlier = false;
            }
            Ok(())
        })
    }

    fn sweep(&self, limit: usize) -> Answer<'_, usize> {
        Box::pin(async move { self.shared.sweep(limit) })
    }

    fn counts(&self) -> Answer<'_, Vec<Count>> {
        Box::pin(async move { Ok(self.shared.inner.lock().orders.counts()) })
    }

    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        Box::pin(async move {
            let value = self.shared.inner.lock().orders.oldest_pending();
            Ok(AsOf { as_of: self.shared.time.now(), value })
        })
    }

    fn search(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Answer<'_, Page<Summary, Cursor>> {
        Box::pin(async move { Ok(self.shared.search(&query, cursor, limit)) })
    }

    fn append_audit(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            inner.open("append_audit")?;
            let now = self.shared.time.now();
            for entry in entries {
                let newest = inner.audit.newest();
                inner.audit.add(entry.stamped(newest, now));
            }
            Ok(())
        })
    }

    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
        Box::pin(async move {
            let mut inner = self.shared.inner.lock();
            inner.open("forget_audit")?;
            Ok(inner.audit.forget(before, limit))
        })
    }

    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<Entry, AuditCursor>> {
        let limit = limit.clamp(1, semel_core::limits::PAGE_MAX);
        Box::pin(async move { Ok(self.shared.inner.lock().audit.page(&query, cursor, limit)) })
    }

    /// No: what it holds ends with its process, so *at most once* over a restart needs the operator's consent.
    fn survives_failover(&self) -> bool {
        false
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.shared.inner.lock().open("ready") })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shared.inner.lock().closed = true;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use semel_core::command::{Claimed, Held};
    use semel_core::id::{Namespace, Scope, Tenant};
    use semel_core::ledger::Entropy;
    use semel_core::outcome::{Class, Headers};
    use semel_core::request::Fingerprint;
    use semel_core::{Key, Ledger, Operation, Outcome, Policy, Request, Token};

    use super::*;
    use crate::clock::SteppedClock;

    struct Same;

    impl Entropy for Same {
        fn token(&self) -> Token {
            Token::from_bytes([7; 16])
        }
    }

    // The rest of the contract is the conformance suite's.
    #[tokio::test]
    async fn a_key_runs_once_is_replayed_and_runs_again_under_a_higher_fence_once_it_was_swept() {
        let clock = SteppedClock::at(Timestamp::from_millis(1_000));
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        let ledger = Ledger::new(Arc::new(store.clone()), Arc::new(Same));
        let scope =
            Scope { namespace: Namespace::Execute, tenant: Tenant::try_new("one").unwrap(), subject: None };
        let (key, operation) = (Key::try_new("k").unwrap(), Operation::try_new("charge").unwrap());
        let fingerprint = Fingerprint { version: 1, digest: [1; 32] };
        let request = Arc::new(Request::new(scope, key, operation, fingerprint, Policy::default()));
        let ask = || ledger.claim(Arc::clone(&request), None);

        let Claimed::Granted(claim) = ask().await.unwrap() else { panic!("granted") };
        let outcome = Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::new()).unwrap();
        assert!(matches!(ledger.complete(claim, outcome).await.unwrap(), Held::Done(_)));
        assert!(matches!(ask().await.unwrap(), Claimed::Replay(_)));

        clock.advance(Policy::default().retention());
        assert_eq!(store.sweep(10).await.unwrap(), 1);
        assert_eq!(store.counts().await.unwrap(), Vec::new());
        let Claimed::Granted(again) = ask().await.unwrap() else { panic!("granted again") };
        assert_eq!(again.fence(), Fence(2), "L2");
    }
}

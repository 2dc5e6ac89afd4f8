//! Calls of the contract that are the same in every store over a network: what is due, and who waits for it or for a record.
//! A store says how it finds a record and the lanes; what is made of them stands here, once.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use semel_core::id::{Lane, RecordId, Version};
use semel_core::store::AsOf;
use semel_core::{Record, StoreError, Timestamp};
use tokio::sync::futures::Notified;

use super::draft::{millis, time};
use super::wake::{Waiters, Woken, wait};
use crate::clock::Clock;

/// Lanes, each with the earliest time of what is in it.
pub(crate) type Lanes = Vec<(String, i64)>;

/// What a store's calls and tasks share, as far as these calls need it.
pub(crate) trait Remote: Sync {
    /// Waiters of this node.
    fn waiters(&self) -> &Waiters;

    /// What waits count their patience by.
    fn clock(&self) -> &dyn Clock;

    /// The store's time, as far as it is known here.
    fn now(&self) -> Timestamp;

    /// Between two looks for what other nodes did.
    fn look_every(&self) -> Duration;

    /// What is there of a record.
    fn find(
        &self,
        id: RecordId,
    ) -> impl Future<Output = Result<AsOf<Option<Arc<Record>>>, StoreError>> + Send;

    /// The lanes, the longest due first.
    fn lanes(&self, during: &'static str) -> impl Future<Output = Result<AsOf<Lanes>, StoreError>> + Send;
}

pub(crate) async fn lanes_due(store: &impl Remote) -> Result<Vec<Option<Lane>>, StoreError> {
    let AsOf { as_of, value } = store.lanes("lanes").await?;
    let due = value.into_iter().filter(|(_, wake)| time(*wake) <= as_of).map(|(lane, _)| lane);
    let read = |lane: String| {
        let named = if lane.is_empty() { Ok(None) } else { Lane::try_new(&lane).map(Some) };
        named.map_err(|error| StoreError::corrupt("lanes", "a lane without a name").with_source(error))
    };
    due.take(semel_core::limits::TAKE_MAX).map(read).collect()
}

pub(crate) async fn next_due(store: &impl Remote) -> Result<AsOf<Option<Timestamp>>, StoreError> {
    store.waiters().ask_next_due();
    let AsOf { as_of, value: lanes } = store.lanes("next_due").await?;
    let value = lanes.iter().map(|(_, wake)| time(*wake)).min();
    store.waiters().told_next_due(lanes, value, as_of);
    Ok(AsOf { as_of, value })
}

pub(crate) async fn changed(
    store: &impl Remote,
    id: RecordId,
    seen: Version,
    patience: Duration,
) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
    let mut until = None;
    loop {
        // Watched before it is looked at, so that no change falls between the two.
        let mut woken = pin!(store.waiters().of(id).notified());
        woken.as_mut().enable();
        let found = store.find(id).await?;
        let waits = found.value.as_ref().is_some_and(|record| record.version() <= seen);
        let left = until.get_or_insert(found.as_of.plus(patience)).since(found.as_of);
        if !waits || left.is_zero() {
            return Ok(found);
        }
        wait(store.clock(), left, store.look_every(), woken).await;
    }
}

/// Waits for something that is due earlier; `woken` watches since the call.
pub(crate) async fn due_changed(
    store: &impl Remote,
    patience: Duration,
    woken: Notified<'_>,
) -> Result<(), StoreError> {
    let until = store.now().plus(patience);
    let mut woken = pin!(woken);
    while !store.waiters().take_earlier() {
        let left = until.since(store.now());
        if left.is_zero() {
            return Ok(());
        }
        match wait(store.clock(), left, store.look_every(), woken.as_mut()).await {
            Woken::Told => {
                store.waiters().take_earlier();
                return Ok(());
            }
            Woken::OutOfPatience => {}
            // What cannot be looked at now is found by whoever asks what is due, with the error.
            Woken::TimeToLook => {
                if let Ok(AsOf { as_of, value }) = store.lanes("due_changed").await
                    && store.waiters().is_news(&value, millis(as_of))
                {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The calls of the contract that a store hands to what its calls share (`self.shared`), which has them under the same
/// names. Names of types are those that are known where it stands.
macro_rules! calls_of_shared {
    () => {
        fn time(&self) -> Timestamp {
            self.shared.now()
        }

        fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
            Box::pin(self.shared.insert(write))
        }

        fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
            Box::pin(self.shared.replace(write, expected))
        }

        fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
            Box::pin(self.shared.remove(id, expected))
        }

        fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
            Box::pin(self.shared.load(id))
        }

        fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
            Box::pin(self.shared.take_due(lane, limit))
        }

        fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
            Box::pin(calls::lanes_due(&self.shared))
        }

        fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
            Box::pin(calls::next_due(&self.shared))
        }

        fn changed(
            &self,
            id: RecordId,
            seen: Version,
            patience: Duration,
        ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
            Box::pin(calls::changed(&self.shared, id, seen, patience))
        }

        fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
            // Watches from the call on, so that a caller who calls before it asks for `next_due` misses nothing.
            let woken = self.shared.waiters.due_changed();
            Box::pin(calls::due_changed(&self.shared, patience, woken))
        }

        fn sweep(&self, limit: usize) -> Answer<'_, usize> {
            Box::pin(self.shared.sweep(limit))
        }

        fn counts(&self) -> Answer<'_, Vec<Count>> {
            Box::pin(self.shared.counts())
        }

        fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
            Box::pin(self.shared.oldest_pending())
        }

        fn search(
            &self,
            query: Query,
            cursor: Option<Cursor>,
            limit: usize,
        ) -> Answer<'_, Page<Summary, Cursor>> {
            Box::pin(async move { self.shared.search(&query, cursor, limit).await })
        }

        fn append_audit(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
            Box::pin(self.shared.append_audit(entries))
        }

        fn audit(
            &self,
            query: AuditQuery,
            cursor: Option<AuditCursor>,
            limit: usize,
        ) -> Answer<'_, Page<Entry, AuditCursor>> {
            Box::pin(async move { self.shared.audit(&query, cursor, limit).await })
        }

        fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
            Box::pin(self.shared.forget_audit(before, limit))
        }

        fn ready(&self) -> Answer<'_, ()> {
            Box::pin(self.shared.ready())
        }
    };
}

pub(crate) use calls_of_shared;

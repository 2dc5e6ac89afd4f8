//! A store whose writes fail when a test says so.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit;
use semel_core::id::{Lane, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, RecordId, Store, StoreError, Timestamp};
use semel_stores::memory::MemoryStore;

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Weather {
    /// They are written.
    Fair,
    /// They are not written, and reads have no answer.
    Down,
    /// They are written, the answer is lost, and from then on the store is down.
    LosesAnswers,
    /// They are written, and one answer is lost; whoever then looks is shown the record when its work has ended.
    LosesOneUntilItsEnd,
    /// The next who looks waits for the end.
    ShowsTheEnd,
}

/// A store in memory, in changing weather.
pub(in crate::engine) struct Flaky {
    store: MemoryStore,
    weather: Mutex<Weather>,
}

impl Flaky {
    pub(in crate::engine) fn new() -> Arc<Self> {
        Arc::new(Self { store: MemoryStore::new(), weather: Mutex::new(Weather::Fair) })
    }

    pub(in crate::engine) fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    fn check(&self, during: &'static str) -> Result<(), StoreError> {
        match *self.weather.lock() {
            Weather::Down => Err(StoreError::not_applied(during, true, "down")),
            Weather::Fair | Weather::LosesAnswers | Weather::LosesOneUntilItsEnd | Weather::ShowsTheEnd => {
                Ok(())
            }
        }
    }

    fn answered<T>(&self, during: &'static str, answer: T) -> Result<T, StoreError> {
        let mut weather = self.weather.lock();
        *weather = match *weather {
            Weather::LosesAnswers => Weather::Down,
            Weather::LosesOneUntilItsEnd => Weather::ShowsTheEnd,
            Weather::Fair | Weather::Down | Weather::ShowsTheEnd => return Ok(answer),
        };
        Err(StoreError::in_doubt(during, "the answer was lost"))
    }

    /// Waits until the record has ended, if that is what the weather is like.
    async fn end_of(&self, id: RecordId) -> Result<(), StoreError> {
        let waits = std::mem::replace(&mut *self.weather.lock(), Weather::Fair);
        if waits != Weather::ShowsTheEnd {
            *self.weather.lock() = waits;
            return Ok(());
        }
        let mut seen = Version::default();
        while let Some(record) = self.store.changed(id, seen, Duration::from_secs(3_600)).await?.value {
            if record.due().is_none() {
                return Ok(());
            }
            seen = record.version();
        }
        Ok(())
    }
}

impl Store for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn time(&self) -> Timestamp {
        self.store.time()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(async move {
            self.check("insert")?;
            let answer = self.store.insert(write).await?;
            self.answered("insert", answer)
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        Box::pin(async move {
            self.check("replace")?;
            let answer = self.store.replace(write, expected).await?;
            self.answered("replace", answer)
        })
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        self.store.remove(id, expected)
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(async move {
            self.check("load")?;
            self.end_of(id).await?;
            self.store.load(id).await
        })
    }

    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
        self.store.take_due(lane, limit)
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        self.store.lanes()
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        self.store.next_due()
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        self.store.changed(id, seen, patience)
    }

    fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
        self.store.due_changed(patience)
    }

    fn sweep(&self, limit: usize) -> Answer<'_, usize> {
        self.store.sweep(limit)
    }

    fn counts(&self) -> Answer<'_, Vec<Count>> {
        self.store.counts()
    }

    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        self.store.oldest_pending()
    }

    fn search(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Answer<'_, Page<Summary, Cursor>> {
        self.store.search(query, cursor, limit)
    }

    fn append_audit(&self, entries: Vec<audit::Entry>) -> Answer<'_, ()> {
        self.store.append_audit(entries)
    }

    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<audit::Entry, AuditCursor>> {
        self.store.audit(query, cursor, limit)
    }

    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
        self.store.forget_audit(before, limit)
    }

    fn survives_failover(&self) -> bool {
        self.store.survives_failover()
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.store.ready()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.store.close()
    }
}

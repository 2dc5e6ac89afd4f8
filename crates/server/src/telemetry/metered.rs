//! A store that is measured: durations, failures, and what the writes brought.

use std::sync::Arc;
use std::time::{Duration, Instant};

use semel_core::audit;
use semel_core::error::StoreErrorKind;
use semel_core::id::{Lane, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::record::State;
use semel_core::store::{Answer, AsOf, Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, RecordId, Store, StoreError, Timestamp};

use super::metrics::{Metrics, StoreCall};

/// A store that is measured. It changes nothing of what the store below says.
pub struct Metered {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl Metered {
    /// Measures `store`.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    fn timed<'a, T: 'a>(&'a self, call: StoreCall, answer: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = answer.await;
            self.metrics.store_call(call, began.elapsed());
            self.counted(call, answer)
        })
    }

    /// For calls that wait: their time is the caller's patience.
    fn untimed<'a, T: 'a>(&'a self, call: StoreCall, answer: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move { self.counted(call, answer.await) })
    }

    fn counted<T>(&self, call: StoreCall, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| {
            let kind = match error.kind() {
                StoreErrorKind::NotApplied { .. } => "not_applied",
                StoreErrorKind::InDoubt => "in_doubt",
                StoreErrorKind::Corrupt => "corrupt",
                StoreErrorKind::TooLarge => "too_large",
            };
            if error.kind() == StoreErrorKind::Corrupt {
                tracing::error!(
                    %error,
                    "a stored record is damaged, and nothing runs for its key: stop the server, run `semel store check`, and \
                     restore the store from a copy"
                );
            }
            self.metrics.store_error(call, kind);
        })
    }

    /// A version was written; `sees_lapse` if it is the first after a lease has lapsed.
    fn wrote(&self, record: &Record, sees_lapse: bool) {
        self.metrics.written(record.state().name());
        if sees_lapse {
            self.metrics.lapsed(record.id());
        }
        match record.state() {
            State::Unknown { why, .. } => self.metrics.unknown(*why, record.id()),
            State::Dead { .. } => self.metrics.dead(record.id()),
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Completed { .. } => {}
        }
    }
}

impl Store for Metered {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn time(&self) -> Timestamp {
        self.store.time()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.store.insert(write).await;
            self.metrics.store_call(StoreCall::Insert, began.elapsed());
            if let Ok(AsOf { value: Inserted::Inserted(record), .. }) = &answer {
                self.wrote(record, false);
            }
            self.counted(StoreCall::Insert, answer)
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        let sees_lapse = write.sees_lapse();
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.store.replace(write, expected).await;
            self.metrics.store_call(StoreCall::Replace, began.elapsed());
            if let Ok(AsOf { value: Replaced::Replaced(record), .. }) = &answer {
                self.wrote(record, sees_lapse);
            }
            self.counted(StoreCall::Replace, answer)
        })
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        self.timed(StoreCall::Remove, self.store.remove(id, expected))
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        self.timed(StoreCall::Load, self.store.load(id))
    }

    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
        self.timed(StoreCall::TakeDue, self.store.take_due(lane, limit))
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        self.timed(StoreCall::NextDue, self.store.lanes())
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        self.timed(StoreCall::NextDue, self.store.next_due())
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        self.untimed(StoreCall::Changed, self.store.changed(id, seen, patience))
    }

    fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
        self.untimed(StoreCall::Changed, self.store.due_changed(patience))
    }

    fn sweep(&self, limit: usize) -> Answer<'_, usize> {
        self.timed(StoreCall::Sweep, self.store.sweep(limit))
    }

    fn counts(&self) -> Answer<'_, Vec<Count>> {
        self.timed(StoreCall::Counts, self.store.counts())
    }

    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        self.timed(StoreCall::Counts, self.store.oldest_pending())
    }

    fn search(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Answer<'_, Page<Summary, Cursor>> {
        self.timed(StoreCall::Search, self.store.search(query, cursor, limit))
    }

    fn append_audit(&self, entries: Vec<audit::Entry>) -> Answer<'_, ()> {
        self.timed(StoreCall::AppendAudit, self.store.append_audit(entries))
    }

    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<audit::Entry, AuditCursor>> {
        self.timed(StoreCall::Audit, self.store.audit(query, cursor, limit))
    }

    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
        self.timed(StoreCall::ForgetAudit, self.store.forget_audit(before, limit))
    }

    fn survives_failover(&self) -> bool {
        self.store.survives_failover()
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.timed(StoreCall::Ready, self.store.ready())
    }

    fn close(&self) -> Answer<'_, ()> {
        self.timed(StoreCall::Close, self.store.close())
    }
}

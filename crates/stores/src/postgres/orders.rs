//! What is due, what has changed, how much there is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use semel_core::id::{Lane, Operation, RecordId, Version};
use semel_core::query::Count;
use semel_core::store::AsOf;
use semel_core::{Record, StoreError, Timestamp};
use tokio_postgres::types::ToSql;

use super::error::Kind;
use super::rows::{lane_name, millis, namespace_of, record, state_of, time, unreadable};
use super::store::Shared;
use super::wake::{Woken, wait};

impl Shared {
    /// The lanes, the longest due first, each with its earliest; and the time.
    async fn lanes(&self, during: &'static str) -> Result<AsOf<Vec<(String, i64)>>, StoreError> {
        let rows = self.rows(during, Kind::Read, &self.sql.lanes, &[]).await?;
        let (mut as_of, mut lanes) = (Timestamp::ZERO, Vec::with_capacity(rows.len()));
        for row in &rows {
            as_of = as_of.max(time(row.try_get(0).map_err(unreadable)?));
            let lane: Option<String> = row.try_get(1).map_err(unreadable)?;
            let wake: Option<i64> = row.try_get(2).map_err(unreadable)?;
            lanes.extend(lane.zip(wake));
        }
        Ok(AsOf { as_of: self.time.told(as_of), value: lanes })
    }

    pub(super) async fn lanes_due(&self) -> Result<Vec<Option<Lane>>, StoreError> {
        let AsOf { as_of, value } = self.lanes("lanes").await?;
        let due = value.into_iter().filter(|(_, wake)| time(*wake) <= as_of).map(|(lane, _)| lane);
        let read = |lane: String| {
            let named = if lane.is_empty() { Ok(None) } else { Lane::try_new(&lane).map(Some) };
            named.map_err(|error| StoreError::corrupt("lanes", "a lane without a name").with_source(error))
        };
        due.take(semel_core::limits::TAKE_MAX).map(read).collect()
    }

    pub(super) async fn next_due(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        self.waiters.ask_next_due();
        let AsOf { as_of, value: lanes } = self.lanes("next_due").await?;
        let value = lanes.iter().map(|(_, wake)| time(*wake)).min();
        self.waiters.told_next_due(lanes, value, as_of);
        Ok(AsOf { as_of, value })
    }

    pub(super) async fn take_due(
        &self,
        lane: Option<Lane>,
        limit: usize,
    ) -> Result<AsOf<Vec<Arc<Record>>>, StoreError> {
        let limit = i64::try_from(limit.min(semel_core::limits::TAKE_MAX)).unwrap_or(0);
        let values: [&(dyn ToSql + Sync); 2] = [&lane_name(lane.as_ref()), &limit];
        let rows = self.rows("take_due", Kind::Read, &self.sql.take_due, &values).await?;
        let (mut as_of, mut due) = (Timestamp::ZERO, Vec::with_capacity(rows.len()));
        for row in &rows {
            as_of = time(row.try_get(0).map_err(unreadable)?);
            due.extend(record(row, 1)?);
        }
        Ok(AsOf { as_of: self.time.told(as_of), value: due })
    }

    pub(super) async fn changed(
        self: &Arc<Self>,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        let mut until = None;
        loop {
            // Watched before it is looked at, so that no change falls between the two.
            let mut woken = pin!(self.waiters.of(id).notified());
            woken.as_mut().enable();
            let found = self.load(id).await?;
            let waits = found.value.as_ref().is_some_and(|record| record.version() <= seen);
            let left = until.get_or_insert(found.as_of.plus(patience)).since(found.as_of);
            if !waits || left.is_zero() {
                return Ok(found);
            }
            wait(self.time.clock(), left, self.look, woken).await;
        }
    }

    /// Waits for something that is due earlier; `woken` watches since the call.
    pub(super) async fn due_changed(
        &self,
        patience: Duration,
        woken: tokio::sync::futures::Notified<'_>,
    ) -> Result<(), StoreError> {
        let until = self.time.now().plus(patience);
        let mut woken = pin!(woken);
        while !self.waiters.take_earlier() {
            let left = until.since(self.time.now());
            if left.is_zero() {
                return Ok(());
            }
            match wait(self.time.clock(), left, self.look, woken.as_mut()).await {
                Woken::Told => {
                    self.waiters.take_earlier();
                    return Ok(());
                }
                Woken::OutOfPatience => {}
                // What cannot be looked at now is found by whoever asks what is due, with the error.
                Woken::TimeToLook => {
                    if let Ok(AsOf { as_of, value }) = self.lanes("due_changed").await
                        && self.waiters.is_news(&value, millis(as_of))
                    {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let rows = self.rows("counts", Kind::Read, &self.sql.counts, &[]).await?;
        let mut counts = Vec::with_capacity(rows.len());
        for row in &rows {
            let wrong = || StoreError::corrupt("counts", "a kind of record that there is not");
            let namespace = namespace_of(row.try_get(0).map_err(unreadable)?).ok_or_else(wrong)?;
            let operation: &str = row.try_get(1).map_err(unreadable)?;
            let operation = Operation::try_new(operation).map_err(|error| wrong().with_source(error))?;
            let state = state_of(row.try_get(2).map_err(unreadable)?).ok_or_else(wrong)?;
            let records = row.try_get::<_, i64>(3).map_err(unreadable)?.unsigned_abs();
            counts.push(Count { namespace, operation, state, records });
        }
        counts.sort();
        Ok(counts)
    }

    pub(super) async fn oldest_pending(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        let row = self.row("oldest_pending", Kind::Read, &self.sql.oldest_pending, &[]).await?;
        let as_of = self.time.told(time(row.try_get(0).map_err(unreadable)?));
        Ok(AsOf { as_of, value: row.try_get::<_, Option<i64>>(1).map_err(unreadable)?.map(time) })
    }
}

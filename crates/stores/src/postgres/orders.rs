//! What is due, and how much there is.

use std::sync::Arc;

use semel_core::id::{Lane, Operation};
use semel_core::query::Count;
use semel_core::store::AsOf;
use semel_core::{Record, StoreError, Timestamp};
use tokio_postgres::types::ToSql;

use super::error::Kind;
use super::rows::{lane_name, namespace_of, record, state_of, time, unreadable};
use super::store::Shared;
use crate::remote::calls::Lanes;

impl Shared {
    /// The lanes, the longest due first, each with its earliest; and the time.
    pub(super) async fn lanes(&self, during: &'static str) -> Result<AsOf<Lanes>, StoreError> {
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

//! What leaves: expired records, then what is superseded, then tombstones, each long after nobody can be under way to it.

use futures_util::{StreamExt, stream};
use mongodb::bson::{Document, doc};
use semel_core::id::Fence;
use semel_core::{RecordId, StoreError, Timestamp};
use tokio::time::Instant;

use super::error::Kind;
use super::slot::{Put, slot};
use super::store::Shared;
use super::version::{CLOSED, Placed, REMOVED, date, fence, unreadable};
use crate::limits;

impl Shared {
    /// The floor under new fences, as far as it is known here. What was raised lately is under tombstones as well.
    pub(super) async fn floor(&self, during: &'static str) -> Result<Fence, StoreError> {
        let (floor, read) = *self.floor.lock();
        if read.is_some_and(|read| read.elapsed() < self.keep / limits::MONGODB_HOLDS_PER_KEEP) {
            return Ok(floor);
        }
        let highest = self.floors.find(doc! {}).sort(doc! { "n": -1 }).limit(1);
        let highest = self.all(during, highest).await?;
        let highest = highest.first().map(|highest| highest.get_i64("n").map_err(unreadable)).transpose()?;
        Ok(self.learnt(highest.unwrap_or(0), Some(Instant::now())))
    }

    fn learnt(&self, highest: i64, read: Option<Instant>) -> Fence {
        let mut floor = self.floor.lock();
        floor.0 = floor.0.max(Fence(u64::try_from(highest).unwrap_or(0)));
        floor.1 = read.or(floor.1);
        floor.0
    }

    /// No fence is given any more that is not above this one (L2).
    pub(super) async fn raise_floor(&self, during: &'static str, to: Fence) -> Result<(), StoreError> {
        if self.floor.lock().0 >= to {
            return Ok(());
        }
        let highest = fence(to);
        // It never comes too late.
        let until = Timestamp::from_millis(u64::from(u32::MAX) * 1_000);
        let fields = doc! { "n": highest };
        self.put(during, &self.floors, &format!("{highest}"), until, fields).await?;
        self.learnt(highest, None);
        Ok(())
    }

    pub(super) async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        const DURING: &str = "sweep";
        self.ask_time(DURING).await?;
        let swept = self.bury_expired(limit).await?;
        // What is kept for so long need not be looked at with every sweep.
        let is_due = {
            let mut pruned = self.pruned.lock();
            let is_due =
                pruned.is_none_or(|pruned| pruned.elapsed() >= self.keep / limits::MONGODB_PRUNES_PER_KEEP);
            if is_due {
                *pruned = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            self.prune(DURING).await?;
        }
        Ok(swept)
    }

    /// Puts tombstones over what has expired.
    async fn bury_expired(&self, limit: usize) -> Result<usize, StoreError> {
        const DURING: &str = "sweep";
        let now = self.time.now(Timestamp::ZERO);
        let (mut swept, mut floor, mut passed) = (0, Fence::default(), 0);
        while swept < limit {
            let step =
                i64::try_from(limit - swept + passed).unwrap_or(i64::MAX).min(limits::MONGODB_PRUNE_STEP);
            let expired = doc! { "expiresAt": { "$lte": date(now) } };
            let expired = self.records.find(expired).sort(doc! { "expiresAt": 1 }).limit(step);
            let expired = self.all(DURING, expired.projection(doc! { "r": 1 })).await?;
            let ids: Vec<_> =
                expired.iter().filter_map(|found| found.get_str("r").ok().map(str::to_owned)).collect();
            let heads = self.heads(DURING, &ids).await?;
            let expired = heads.into_values().filter(|record| record.is_expired(now)).take(limit - swept);
            let burials = stream::iter(expired).map(|record| async move {
                self.bury(record.id(), record.version()).await.map(|buried| buried.then(|| record.fence()))
            });
            let buried: Vec<_> = burials.buffer_unordered(limits::MONGODB_SWEEPERS).collect().await;
            let mut any = 0;
            for buried in buried {
                if let Some(fence) = buried? {
                    floor = floor.max(fence);
                    any += 1;
                }
            }
            swept += any;
            passed += ids.len() - any;
            // What was read and is not there any more is passed over, once it is all that is left to read.
            if i64::try_from(ids.len()).is_ok_and(|read| read < step) || (any == 0 && passed > limit) {
                break;
            }
        }
        self.raise_floor(DURING, floor).await?;
        Ok(swept)
    }

    /// Deletes what has been kept for long enough.
    async fn prune(&self, during: &'static str) -> Result<(), StoreError> {
        let long_ago = self.long_ago();
        let over = doc! { "over": { "$lt": date(long_ago) }, "birth": { "$exists": false } };
        let over = self.records.find(over).limit(limits::MONGODB_PRUNE_STEP).projection(doc! { "_id": 1 });
        let over = self.all(during, over).await?;
        self.delete(during, &ids(&over)).await?;
        let gone = doc! { "goneAt": { "$lt": date(long_ago) } };
        let gone = self.records.find(gone).limit(limits::MONGODB_PRUNE_STEP).projection(doc! { "record": 0 });
        for document in self.all(during, gone).await? {
            self.close_or_forget(during, &Placed::read(&document)?, long_ago).await?;
        }
        let last = self.sum().await?.number;
        let sums = doc! { "at": { "$lt": date(long_ago) }, "n": { "$lt": last } };
        self.answer(during, Kind::Write, self.counts.delete_many(sums)).await?;
        let highest = fence(self.floor(during).await?);
        let floors = doc! { "at": { "$lt": date(long_ago) }, "n": { "$lt": highest } };
        self.answer(during, Kind::Write, self.floors.delete_many(floors)).await.map(drop)
    }

    fn long_ago(&self) -> Timestamp {
        let keep = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(self.time.server_earliest().as_millis().saturating_sub(keep))
    }

    /// What becomes of a tombstone that is old enough. It is closed first, so that nobody can begin a life after it while
    /// somebody else, who finds nothing, begins one where the first one was.
    async fn close_or_forget(
        &self,
        during: &'static str,
        gone: &Placed,
        long_ago: Timestamp,
    ) -> Result<(), StoreError> {
        if gone.void || gone.new || gone.came >= long_ago {
            return Ok(());
        }
        let places = self.records.find(doc! { "r": &gone.record }).sort(doc! { "n": -1 });
        let places = self.all(during, places.projection(doc! { "record": 0 })).await?;
        let places = places.iter().map(Placed::read).collect::<Result<Vec<_>, _>>()?;
        let newest = places.iter().find(|place| !place.void);
        if newest.is_none_or(|newest| newest.id != gone.id) {
            // A later life goes on behind it: it is superseded like anything else.
            return Ok(());
        }
        if gone.state.as_deref() == Some(REMOVED) {
            // The floor must have been above it for as long, so that every node knows it.
            let covered = doc! { "n": { "$gte": fence(gone.fence) }, "at": { "$lt": date(long_ago) } };
            let covered = self.all(during, self.floors.find(covered).limit(1)).await?;
            if covered.is_empty() {
                return self.raise_floor(during, gone.fence).await;
            }
            if places.iter().any(|place| place.new) {
                return Ok(());
            }
            let Some(top) = places.first().map(|top| top.number) else { return Ok(()) };
            let fields = doc! {
                "r": &gone.record,
                "n": top + 1,
                "state": CLOSED,
                "fence": fence(gone.fence),
                "goneAt": date(self.time.server_latest()),
            };
            let until = self.time.may_come_until(Timestamp::MAX);
            let put = self.put(during, &self.records, &slot(&gone.record, top + 1), until, fields).await?;
            if put != Put::There {
                return Ok(());
            }
            if let Some(id) = RecordId::parse(&gone.record) {
                self.places.remove(&id);
            }
            return self.delete_below(during, &gone.record, top + 1).await;
        }
        self.forget(during, gone, false).await
    }

    /// Deletes what is left of a closed record, the birth slot and all; itself only when nobody asks for it.
    pub(super) async fn forget(
        &self,
        during: &'static str,
        closed: &Placed,
        for_a_new_life: bool,
    ) -> Result<(), StoreError> {
        // Whoever closed it is about it.
        let since = self.time.server_earliest().since(closed.came);
        if since < limits::MONGODB_SETTLER_PATIENCE && for_a_new_life {
            return Ok(());
        }
        self.delete_below(during, &closed.record, closed.number).await?;
        if !for_a_new_life {
            self.delete(during, std::slice::from_ref(&closed.id)).await?;
        }
        Ok(())
    }

    async fn delete_below(&self, during: &'static str, record: &str, number: i64) -> Result<(), StoreError> {
        let below = doc! { "r": record, "n": { "$lt": number } };
        self.answer(during, Kind::Write, self.records.delete_many(below)).await.map(drop)
    }

    async fn delete(&self, during: &'static str, ids: &[String]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let among = doc! { "_id": { "$in": ids } };
        self.answer(during, Kind::Write, self.records.delete_many(among)).await.map(drop)
    }
}

fn ids(documents: &[Document]) -> Vec<String> {
    documents.iter().filter_map(|document| document.get_str("_id").ok().map(str::to_owned)).collect()
}

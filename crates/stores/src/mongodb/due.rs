//! What is due. The orders may still hold a version that was superseded a moment ago, so whatever is
//! found in one is compared with its record's newest version.

use std::collections::HashMap;
use std::sync::Arc;

use mongodb::bson::{Document, doc};
use semel_core::id::Lane;
use semel_core::record::StateName;
use semel_core::store::AsOf;
use semel_core::{Record, StoreError, Timestamp};

use super::store::Shared;
use super::version::{date, unreadable};
use crate::remote::calls::Lanes;
use crate::remote::draft::{lane_name, millis};

/// Entries of an order that are read at once.
const WINDOW: i64 = 128;

/// An entry of the order of what is due.
struct Entry {
    record: String,
    lane: String,
    wake: i64,
}

impl Entry {
    fn read(document: &Document) -> Result<Self, StoreError> {
        Ok(Self {
            record: document.get_str("r").map_err(unreadable)?.to_owned(),
            lane: document.get_str("lane").map_err(unreadable)?.to_owned(),
            wake: document.get_datetime("wakeAt").map_err(unreadable)?.timestamp_millis(),
        })
    }

    /// Its record, if that is what the entry says.
    fn of<'a>(&self, heads: &'a HashMap<String, Arc<Record>>) -> Option<&'a Arc<Record>> {
        heads.get(&self.record).filter(|record| {
            record.due().is_some_and(|due| millis(due) == self.wake)
                && lane_name(record.due_lane()) == self.lane
        })
    }
}

impl Shared {
    async fn entries(
        &self,
        during: &'static str,
        filter: Document,
        order: Document,
        limit: i64,
    ) -> Result<(Vec<Entry>, HashMap<String, Arc<Record>>), StoreError> {
        let entries = self.records.find(filter).sort(order).limit(limit);
        let entries = self.all(during, entries.projection(doc! { "r": 1, "lane": 1, "wakeAt": 1 })).await?;
        let entries = entries.iter().map(Entry::read).collect::<Result<Vec<_>, _>>()?;
        let mut records: Vec<_> = entries.iter().map(|entry| entry.record.clone()).collect();
        records.sort();
        records.dedup();
        let heads = if records.is_empty() { HashMap::new() } else { self.heads(during, &records).await? };
        Ok((entries, heads))
    }

    pub(super) async fn take_due(
        &self,
        lane: Option<Lane>,
        limit: usize,
    ) -> Result<AsOf<Vec<Arc<Record>>>, StoreError> {
        const DURING: &str = "take_due";
        self.ask_time(DURING).await?;
        let as_of = self.time.now(Timestamp::ZERO);
        let limit = limit.min(semel_core::limits::TAKE_MAX);
        let mut window = i64::try_from(limit).unwrap_or(WINDOW).saturating_add(8);
        loop {
            let filter = doc! { "lane": lane_name(lane.as_ref()), "wakeAt": { "$lte": date(as_of) } };
            let order = doc! { "wakeAt": 1, "recordId": 1 };
            let (entries, heads) = self.entries(DURING, filter, order, window).await?;
            let due = entries.iter().filter_map(|entry| entry.of(&heads)).cloned();
            let mut due: Vec<_> = due.collect();
            due.dedup_by_key(|record| record.id());
            if due.len() >= limit || i64::try_from(entries.len()).is_ok_and(|read| read < window) {
                due.truncate(limit);
                let written = due.iter().map(|record| record.times().written).max();
                return Ok(AsOf { as_of: self.time.now(written.unwrap_or(as_of)), value: due });
            }
            window *= 2;
        }
    }

    /// The lanes, each with its earliest.
    pub(super) async fn lanes(&self, during: &'static str) -> Result<AsOf<Lanes>, StoreError> {
        self.ask_time(during).await?;
        let as_of = self.time.now(Timestamp::ZERO);
        let mut lanes = Lanes::new();
        let mut filter = doc! { "lane": { "$gte": "" } };
        loop {
            let order = doc! { "lane": 1, "wakeAt": 1 };
            let (entries, heads) = self.entries(during, filter, order, WINDOW).await?;
            for entry in &entries {
                let had = lanes.last().is_some_and(|(lane, _)| *lane == entry.lane);
                if !had && entry.of(&heads).is_some() {
                    lanes.push((entry.lane.clone(), entry.wake));
                }
            }
            let last =
                entries.last().filter(|_| i64::try_from(entries.len()).is_ok_and(|read| read == WINDOW));
            let Some(last) = last else { break };
            let later = doc! { "lane": { "$gt": &last.lane } };
            filter = if lanes.last().is_some_and(|(lane, _)| *lane == last.lane) {
                later
            } else {
                let wake = date(crate::remote::draft::time(last.wake));
                doc! { "$or": [{ "lane": &last.lane, "wakeAt": { "$gt": wake } }, later] }
            };
        }
        lanes.sort_by(|(lane, wake), (other, later)| (wake, lane).cmp(&(later, other)));
        Ok(AsOf { as_of, value: lanes })
    }

    pub(super) async fn oldest_pending(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        const DURING: &str = "oldest_pending";
        self.ask_time(DURING).await?;
        let as_of = self.time.now(Timestamp::ZERO);
        let mut window = 8;
        loop {
            let pending = self.records.find(doc! { "state": StateName::Pending.as_str() });
            let pending = pending.sort(doc! { "createdAt": 1 }).limit(window);
            let pending = self.all(DURING, pending.projection(doc! { "r": 1, "createdAt": 1 })).await?;
            let mut records = Vec::with_capacity(pending.len());
            for entry in &pending {
                records.push(entry.get_str("r").map_err(unreadable)?.to_owned());
            }
            let heads =
                if records.is_empty() { HashMap::new() } else { self.heads(DURING, &records).await? };
            for (entry, record) in pending.iter().zip(&records) {
                let created = entry.get_datetime("createdAt").map_err(unreadable)?.timestamp_millis();
                let still = |head: &&Arc<Record>| {
                    head.state().name() == StateName::Pending && millis(head.times().created) == created
                };
                if let Some(head) = heads.get(record).filter(still) {
                    return Ok(AsOf { as_of, value: Some(head.times().created) });
                }
            }
            if i64::try_from(pending.len()).is_ok_and(|read| read < window) {
                return Ok(AsOf { as_of, value: None });
            }
            window *= 4;
        }
    }
}

//! Compare and swap: a version comes into the slot after the one that was judged, and a slot has room for one.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::sync::Arc;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::options::{ReadConcern, ReturnDocument};
use mongodb::{Collection, error::Error};
use semel_core::id::{Fence, RecordId};
use semel_core::{Record, StoreError, Timestamp, Version};
use tokio::time::Instant;

use super::error::{Kind, failed, is_duplicate, no_answer};
use super::store::Shared;
use super::turns::Turn;
use super::version::{Placed, date, read_record, unreadable};
use crate::limits;
use crate::remote::draft::time;

/// What became of putting something into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there.
    There,
    /// Something else is.
    Taken,
    /// It is there, and void: it came too late.
    Late,
}

/// The slot of a record that nothing is known of; the next life of one that was forgotten begins there as well.
pub(super) fn birth(record: &str) -> String {
    record.to_owned()
}

/// The slot of the version of this number.
pub(super) fn slot(record: &str, number: i64) -> String {
    format!("{record}:{number:x}")
}

/// What is there of a record.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The highest number that is taken, by whatever.
    pub(super) top: Option<i64>,
    /// The newest version that is not void.
    pub(super) head: Option<Head>,
}

/// The newest version of a record.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) placed: Placed,
    /// None if it is a removal.
    pub(super) record: Option<Arc<Record>>,
}

impl Seen {
    pub(super) fn record(&self) -> Option<&Arc<Record>> {
        self.head.as_ref()?.record.as_ref()
    }

    /// The fence that the next life must be above, as far as this record knows.
    pub(super) fn fence(&self) -> Fence {
        self.head.as_ref().map_or(Fence::default(), |head| head.placed.fence)
    }
}

/// Where a node has seen a record's newest version.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) version: Version,
    pub(super) top: i64,
    pub(super) kind: String,
    pub(super) at: Instant,
}

impl Shared {
    /// Waits for an answer of the server, for as long as one may take.
    pub(super) async fn answer<T>(
        &self,
        during: &'static str,
        kind: Kind,
        asking: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        self.raw_answer(during, kind, asking).await?.map_err(|error| failed(error, kind, during))
    }

    /// The same, with the driver's own error where the server answered with one.
    pub(super) async fn raw_answer<T>(
        &self,
        during: &'static str,
        kind: Kind,
        asking: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, StoreError> {
        self.open(during)?;
        let patience = self.command_timeout + limits::MONGODB_CONNECT_TIMEOUT + limits::MONGODB_ANSWER_MARGIN;
        let turn = Turn::begin(&self.left);
        let answer = tokio::time::timeout(patience, asking.into_future()).await;
        let answer = answer.map_err(|_| no_answer(kind, during))?;
        turn.end();
        Ok(answer)
    }

    /// Sees to it that the server's time is known well enough.
    pub(super) async fn ask_time(&self, during: &'static str) -> Result<(), StoreError> {
        if !self.time.is_old() {
            return self.open(during);
        }
        let sent = Instant::now();
        let said = self.answer(during, Kind::Read, self.database.run_command(doc! { "hello": 1 })).await?;
        let said = said.get_datetime("localTime").map_err(unreadable)?;
        self.time.heard(time(said.timestamp_millis()), sent);
        Ok(())
    }

    /// Puts a document into a slot, unless something is there, by one command that is atomic on any server: a document that
    /// is there already has `at`, so the filter never matches, and what is inserted meets the unique `_id`.
    pub(super) async fn put(
        &self,
        during: &'static str,
        into: &Collection<Document>,
        slot: &str,
        until: Timestamp,
        mut fields: Document,
    ) -> Result<Put, StoreError> {
        let until = date(until);
        fields.insert("by", until);
        let sent = Instant::now();
        let mut asking = into
            .find_one_and_update(
                doc! { "_id": slot, "at": { "$exists": false } },
                doc! { "$setOnInsert": fields, "$currentDate": { "at": true } },
            )
            .upsert(true)
            .return_document(ReturnDocument::After)
            .max_time(self.command_timeout);
        if !self.server.is_ferretdb {
            asking = asking.projection(doc! { "at": 1 });
        }
        match self.raw_answer(during, Kind::Write, asking).await? {
            Ok(answer) => {
                let answer =
                    answer.ok_or_else(|| StoreError::in_doubt(during, "MongoDB answered nothing"))?;
                let came = answer.get_datetime("at");
                let came = came.map_err(|error| {
                    StoreError::in_doubt(during, "MongoDB did not say when it came").with_source(error)
                })?;
                self.time.heard(time(came.timestamp_millis()), sent);
                Ok(if *came > until { Put::Late } else { Put::There })
            }
            Err(error) if is_duplicate(&error) => Ok(Put::Taken),
            Err(error) => Err(failed(error, Kind::Write, during)),
        }
    }

    /// All that a query finds.
    pub(super) async fn all(
        &self,
        during: &'static str,
        asking: mongodb::action::Find<'_, Document>,
    ) -> Result<Vec<Document>, StoreError> {
        let asking = asking.max_time(self.command_timeout);
        self.answer(during, Kind::Read, async { asking.await?.try_collect().await }).await
    }

    /// What is there of a record. Linearizable where there is more than one server.
    pub(super) async fn look(&self, during: &'static str, id: RecordId) -> Result<Seen, StoreError> {
        let record = id.to_string();
        for limit in [1, 0] {
            let mut asking = self.records.find(doc! { "r": &record }).sort(doc! { "n": -1 }).limit(limit);
            if self.server.is_replicated {
                asking = asking.read_concern(ReadConcern::linearizable());
            }
            let mut seen = Seen::default();
            for document in self.all(during, asking).await? {
                let placed = Placed::read(&document)?;
                seen.top = seen.top.max(Some(placed.number));
                if !placed.void {
                    let record = if placed.is_removal() { None } else { Some(read_record(&document)?) };
                    seen.head = Some(Head { placed, record });
                    break;
                }
            }
            if seen.head.is_some() || seen.top.is_none() {
                return Ok(self.remembered(id, seen));
            }
            // The newest one is void: what is below it?
            if limit == 0 {
                return Ok(self.remembered(id, seen));
            }
        }
        Ok(Seen::default())
    }

    fn remembered(&self, id: RecordId, seen: Seen) -> Seen {
        match (seen.record(), seen.top) {
            (Some(record), Some(top)) => self.remember(record, top),
            _ => drop(self.places.remove(&id)),
        }
        seen
    }

    pub(super) fn remember(&self, record: &Record, top: i64) {
        let kind = super::version::kind_of(record);
        self.places.insert(record.id(), Known { version: record.version(), top, kind, at: Instant::now() });
    }

    /// Where this version is, if it is known to be the newest one and was seen a short while ago.
    pub(super) fn known(&self, id: RecordId, version: Version) -> Option<Known> {
        let fresh = |known: &Known| {
            known.version == version && known.at.elapsed() < self.keep / limits::MONGODB_HOLDS_PER_KEEP
        };
        self.places.get(&id).filter(fresh)
    }

    /// The newest versions of these records, and what they hold.
    pub(super) async fn heads(
        &self,
        during: &'static str,
        records: &[String],
    ) -> Result<HashMap<String, Arc<Record>>, StoreError> {
        let mut newest: HashMap<String, (i64, Document, bool)> = HashMap::new();
        let among = doc! { "r": { "$in": records }, "over": { "$exists": false } };
        for document in self.all(during, self.records.find(among)).await? {
            let placed = Placed::read(&document)?;
            let older = newest.get(&placed.record).is_some_and(|(number, ..)| *number > placed.number);
            if !placed.void && !older {
                let removal = placed.is_removal();
                newest.insert(placed.record, (placed.number, document, removal));
            }
        }
        let there = newest.into_iter().filter(|(_, (_, _, removal))| !removal);
        there.map(|(record, (_, document, _))| Ok((record, read_record(&document)?))).collect()
    }
}

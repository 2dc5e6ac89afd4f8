//! What follows a version: it is counted, its audit entry is copied into the log, and what it supersedes is marked.
//!
//! A version comes marked as new, and says what it superseded. Whoever settles takes some new ones, writes the counts that
//! come out of them and their ids into the next *sum* (a slot of its own chain, so that of many exactly one does), and then
//! takes the marks away. Until that is done the sum's ids say which of the new versions it holds: so the counts are those
//! of the last sum and of whatever is new and not in it, at any moment, and nothing is counted twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Weak;

use mongodb::bson::{Bson, Document, doc};
use semel_core::query::Count;
use semel_core::{StoreError, Timestamp};

use super::error::{Kind, failed, is_duplicate};
use super::slot::Put;
use super::store::Shared;
use super::version::{Placed, count, date, log_id, superseded, unreadable};
use crate::limits;

/// Counts, as of some version of theirs.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) number: i64,
    /// The highest number that is taken, by whatever.
    top: i64,
    kinds: BTreeMap<String, i64>,
    ids: Vec<String>,
    /// Whether its versions are marked as settled.
    done: bool,
    came: Timestamp,
}

impl Sum {
    fn read(document: &Document) -> Result<Self, StoreError> {
        let mut sum = Self {
            number: document.get_i64("n").map_err(unreadable)?,
            done: document.get_bool("done").unwrap_or(false),
            ..Self::default()
        };
        let came = document.get_datetime("at").map_err(unreadable)?;
        sum.came = crate::remote::draft::time(came.timestamp_millis());
        // Empty ones need not be there.
        for id in document.get_array("ids").into_iter().flatten() {
            sum.ids.push(id.as_str().ok_or_else(|| unreadable("an id that is no text"))?.to_owned());
        }
        for kind in document.get_array("kinds").into_iter().flatten() {
            let kind = kind.as_document().ok_or_else(|| unreadable("a count that is none"))?;
            let records = kind.get_i64("records").map_err(unreadable)?;
            sum.kinds.insert(kind.get_str("kind").map_err(unreadable)?.to_owned(), records);
        }
        Ok(sum)
    }

    fn add(&mut self, kind: &str, by: i64) {
        let records = self.kinds.entry(kind.to_owned()).or_default();
        *records += by;
        if *records == 0 {
            self.kinds.remove(kind);
        }
    }

    /// What this version changes of the counts.
    fn count(&mut self, version: &Placed) {
        if version.void {
            return;
        }
        if let Some(was) = &version.was {
            self.add(was, -1);
        }
        if let Some(kind) = &version.kind {
            self.add(kind, 1);
        }
    }
}

/// Settles whenever there is something to settle, until the store is gone.
pub(super) async fn settles(store: Weak<Shared>) {
    loop {
        let Some(shared) = store.upgrade() else { return };
        let waits = async {
            shared.unsettled.notified().await;
            tokio::time::sleep(limits::MONGODB_SETTLE_EVERY).await;
        };
        waits.await;
        // What cannot be settled now stays new, and counts all the same.
        while shared.settle().await.is_ok_and(|more| more) {}
    }
}

impl Shared {
    /// The last sum of the counts.
    pub(super) async fn sum(&self) -> Result<Sum, StoreError> {
        let last = self.counts.find(doc! {}).sort(doc! { "n": -1 }).limit(4);
        let mut top = 0;
        for document in self.all("counts", last).await? {
            top = top.max(document.get_i64("n").map_err(unreadable)?);
            let (came, until) = (document.get_datetime("at"), document.get_datetime("by"));
            if came.map_err(unreadable)? <= until.map_err(unreadable)? {
                return Ok(Sum { top, ..Sum::read(&document)? });
            }
        }
        Ok(Sum { done: true, top, ..Sum::default() })
    }

    /// New versions, some of them.
    async fn new_versions(&self, limit: i64) -> Result<Vec<Document>, StoreError> {
        let new = self.records.find(doc! { "new": true }).limit(limit).projection(doc! {
            "r": 1, "n": 1, "at": 1, "by": 1, "fence": 1, "birth": 1, "over": 1, "new": 1, "state": 1, "kind": 1,
            "was": 1, "audit": 1,
        });
        self.all("counts", new).await
    }

    pub(super) async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        for _ in 0..limits::MONGODB_ROUNDS {
            let mut sum = self.sum().await?;
            let (number, counted) = (sum.number, sum.ids.iter().cloned().collect::<HashSet<_>>());
            for document in self.new_versions(0).await? {
                let version = Placed::read(&document)?;
                if !counted.contains(&version.id) {
                    sum.count(&version);
                }
            }
            // Somebody may have settled in between: then some were neither in the sum nor new.
            if self.sum().await?.number == number {
                let kinds = sum.kinds.iter().filter(|(_, records)| **records > 0);
                let counts = kinds.map(|(kind, records)| count(kind, records.unsigned_abs()));
                let mut counts = counts.collect::<Result<Vec<_>, _>>()?;
                counts.sort();
                return Ok(counts);
            }
        }
        Err(StoreError::not_applied("counts", true, "others were quicker, time and again"))
    }

    /// The kinds of record that are there; some more, perhaps. What is new is looked at first: what is settled in between is
    /// in the sum by then.
    pub(super) async fn kinds_there(&self) -> Result<Vec<String>, StoreError> {
        let new = self.new_versions(0).await?;
        let mut kinds: HashSet<String> = self.sum().await?.kinds.into_keys().collect();
        for document in &new {
            kinds.extend(Placed::read(document)?.kind);
        }
        Ok(kinds.into_iter().collect())
    }

    /// Settles some new versions; whether there may be more.
    pub(super) async fn settle(&self) -> Result<bool, StoreError> {
        const DURING: &str = "settle";
        self.ask_time(DURING).await?;
        let mut sum = self.sum().await?;
        if !sum.done {
            // Somebody is about it, or was.
            if self.time.server_earliest().since(sum.came) < limits::MONGODB_SETTLER_PATIENCE {
                return Ok(false);
            }
            let versions = self.versions(&sum.ids).await?;
            self.mark(&versions).await?;
            self.is_done(sum.number, None).await?;
        }
        let documents = self.new_versions(limits::MONGODB_SETTLE_STEP).await?;
        if documents.is_empty() {
            return Ok(false);
        }
        let versions = documents.iter().map(Placed::read).collect::<Result<Vec<_>, _>>()?;
        self.copy_audit(&documents, &versions).await?;
        for version in &versions {
            sum.count(version);
        }
        let number = sum.top + 1;
        let kinds = sum.kinds.iter().map(|(kind, records)| doc! { "kind": kind, "records": *records });
        let fields = doc! {
            "n": number,
            "kinds": kinds.map(Bson::from).collect::<Vec<_>>(),
            "ids": versions.iter().map(|version| version.id.as_str()).collect::<Vec<_>>(),
        };
        let until = self.time.may_come_until(Timestamp::MAX);
        if self.put(DURING, &self.counts, &format!("{number}"), until, fields).await? != Put::There {
            // Somebody else settles.
            return Ok(false);
        }
        self.mark(&versions).await?;
        self.is_done(number, Some(sum.number)).await?;
        Ok(i64::try_from(versions.len()).is_ok_and(|settled| settled == limits::MONGODB_SETTLE_STEP))
    }

    async fn versions(&self, ids: &[String]) -> Result<Vec<Placed>, StoreError> {
        let among = self.records.find(doc! { "_id": { "$in": ids } }).projection(doc! { "record": 0 });
        self.all("settle", among).await?.iter().map(Placed::read).collect()
    }

    /// Copies audit entries into the log. Said again, it changes nothing.
    async fn copy_audit(&self, documents: &[Document], versions: &[Placed]) -> Result<(), StoreError> {
        let audited = documents.iter().zip(versions).filter(|(_, version)| !version.void);
        for (document, version) in audited {
            let Ok(entry) = document.get_document("audit") else { continue };
            let id = log_id(&version.record, version.number);
            let copy = self.log.update_one(doc! { "_id": id }, doc! { "$setOnInsert": entry.clone() });
            match self.raw_answer("settle", Kind::Write, copy.upsert(true)).await? {
                // Somebody else settles, too, and was quicker.
                Err(error) if !is_duplicate(&error) => return Err(failed(error, Kind::Write, "settle")),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes the marks off settled versions, and marks what has been superseded. Only whoever has written the sum does this,
    /// or comes after it when it is dead: nobody changes a version at the same time.
    async fn mark(&self, versions: &[Placed]) -> Result<(), StoreError> {
        let records: HashSet<_> = versions.iter().map(|version| version.record.as_str()).collect();
        let records: Vec<_> = records.into_iter().collect();
        let places = doc! { "r": 1, "n": 1, "at": 1, "by": 1, "fence": 1, "birth": 1, "over": 1, "new": 1, "state": 1 };
        let among = doc! { "r": { "$in": &records }, "over": { "$exists": false } };
        let places = self.all("settle", self.records.find(among).projection(places)).await?;
        let places = places.iter().map(Placed::read).collect::<Result<Vec<_>, _>>()?;
        let mut newest = HashMap::<&str, i64>::new();
        for place in places.iter().filter(|place| !place.void) {
            let number = newest.entry(&place.record).or_insert(place.number);
            *number = place.number.max(*number);
        }
        let settled: HashSet<_> = versions.iter().map(|version| version.id.as_str()).collect();
        let is_over =
            |place: &&Placed| newest.get(place.record.as_str()).is_some_and(|newest| place.number < *newest);
        let over =
            places.iter().filter(is_over).filter(|place| !place.new || settled.contains(place.id.as_str()));
        let (births, over): (Vec<_>, Vec<_>) = over.partition(|place| place.birth);
        let ids = |places: &[&Placed]| places.iter().map(|place| place.id.clone()).collect::<Vec<_>>();
        let now = self.time.server_latest();
        let purge = Some(date(now.plus(limits::MONGODB_BACKSTOP)));
        for (ids, purge) in [(ids(&over), purge), (ids(&births), None)] {
            if !ids.is_empty() {
                let marks =
                    self.records.update_many(doc! { "_id": { "$in": ids } }, superseded(date(now), purge));
                self.answer("settle", Kind::Write, marks).await?;
            }
        }
        let settled: Vec<_> = settled.into_iter().collect();
        let marks = doc! { "$unset": { "new": "", "was": "", "audit": "" } };
        let marks = self.records.update_many(doc! { "_id": { "$in": settled }, "new": true }, marks);
        self.answer("settle", Kind::Write, marks).await.map(drop)
    }

    /// The sum's versions are marked: its ids are of no more use, and the one before it is of none at all.
    async fn is_done(&self, number: i64, last: Option<i64>) -> Result<(), StoreError> {
        let done = doc! { "$set": { "done": true, "ids": [] } };
        self.answer("settle", Kind::Write, self.counts.update_one(doc! { "n": number }, done)).await?;
        let Some(last) = last else { return Ok(()) };
        let bare = self.counts.update_one(doc! { "n": last }, doc! { "$set": { "kinds": [] } });
        self.answer("settle", Kind::Write, bare).await.map(drop)
    }
}

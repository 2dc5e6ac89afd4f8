//! Search and audit: pages by a place that does not move.

use std::collections::{BTreeMap, HashMap};

use mongodb::Collection;
use mongodb::bson::{Bson, DateTime, Document, doc};
use semel_core::audit::Entry;
use semel_core::id::Namespace;
use semel_core::query::{AuditCursor, AuditQuery, Cursor, Page, Query, Summary};
use semel_core::record::StateName;
use semel_core::{RecordId, StoreError, Timestamp};

use super::error::Kind;
use super::store::{COUNTER_BITS, Shared};
use super::version::{audit_fields, count, date, kind, log_id, read_audit, tag_text, term, unreadable};
use crate::remote::draft::{actor_hash, millis, narrowest, operation_hash, time};
use crate::remote::pages::{self, Run};

/// The number below which all entries were stamped before this time.
fn audit_number(at: Timestamp) -> i64 {
    millis(at).min(i64::MAX >> COUNTER_BITS) << COUNTER_BITS
}

const SEARCH: &str = "search";

fn window(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Shared {
    pub(super) async fn search(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Summary, Cursor>, StoreError> {
        self.ask_time(SEARCH).await?;
        let Some(filter) = self.filter(query).await? else {
            return Ok(Page { items: Vec::new(), next: None, entries_read: 0 });
        };
        let read = |below, count| self.records(query, &filter, below, count);
        pages::page(limit, cursor, read, |place| place).await
    }

    /// The next places that a filter finds, with what is shown of those that match.
    async fn records(
        &self,
        query: &Query,
        filter: &Document,
        below: Option<Cursor>,
        count: usize,
    ) -> Result<Run<Option<Cursor>, Summary>, StoreError> {
        let mut filter = filter.clone();
        if let Some(below) = below {
            let (created, id) = (date(below.created), below.id.to_string());
            let after = vec![
                doc! { "createdAt": { "$lt": created } },
                doc! { "createdAt": created, "recordId": { "$lt": id } },
            ];
            filter.insert("$or", after);
        }
        let places = self.records.find(filter).sort(doc! { "createdAt": -1, "recordId": -1 });
        let places = places.limit(window(count)).projection(doc! { "recordId": 1, "createdAt": 1 });
        let places = self.all(SEARCH, places).await?;
        let mut run = Run { items: Vec::new(), full: places.len() >= count, read: places.len() as u64 };
        let mut places = places.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        // A version that was superseded a moment ago has the place of its successor.
        places.dedup();
        let records: Vec<_> = places.iter().map(|place| place.id.to_string()).collect();
        let heads = if records.is_empty() { HashMap::new() } else { self.heads(SEARCH, &records).await? };
        let now = self.time.now(Timestamp::ZERO);
        for (place, record) in places.iter().zip(&records) {
            let shown = heads.get(record).filter(|head| {
                head.times().created == place.created && !head.is_expired(now) && query.matches(head)
            });
            run.items.push((Some(*place), shown.map(|head| Summary::of(head))));
        }
        Ok(run)
    }

    /// What a query asks of a document; `None` if nothing can match.
    async fn filter(&self, query: &Query) -> Result<Option<Document>, StoreError> {
        let mut created = doc! { "$gte": date(query.from.unwrap_or(Timestamp::ZERO)) };
        if let Some(until) = query.until {
            created.insert("$lt", date(until));
        }
        let mut filter = doc! { "createdAt": created };
        if let Some(key) = &query.key {
            filter.insert("key", key.as_str());
        }
        if let Some(tag) = &query.tag {
            filter.insert("tags", tag_text(tag));
        }
        if query.namespace.is_none() && query.states.is_empty() && query.operation.is_none() {
            return Ok(Some(filter));
        }
        let kinds = self.kinds(query).await?;
        if kinds.is_empty() {
            return Ok(None);
        }
        filter.insert("kind", doc! { "$in": kinds });
        Ok(Some(filter))
    }

    /// The kinds of record that a query asks for, each of which has an order of its own.
    async fn kinds(&self, query: &Query) -> Result<Vec<String>, StoreError> {
        let is_asked = |namespace: Namespace, state: StateName| {
            query.namespace.is_none_or(|asked| asked == namespace)
                && (query.states.is_empty() || query.states.contains(&state))
        };
        if let Some(operation) = &query.operation {
            let all = Namespace::ALL
                .into_iter()
                .flat_map(|namespace| StateName::ALL.map(|state| (namespace, state)));
            let asked = all.filter(|(namespace, state)| is_asked(*namespace, *state));
            return Ok(asked.map(|(namespace, state)| kind(namespace, state, operation)).collect());
        }
        let mut kinds = self.kinds_there().await?;
        kinds.retain(|there| count(there, 0).is_ok_and(|count| is_asked(count.namespace, count.state)));
        Ok(kinds)
    }

    pub(super) async fn audit(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Result<Page<Entry, AuditCursor>, StoreError> {
        let until = query.until.map_or(i64::MAX, audit_number);
        let below = cursor.map_or(i64::MAX, |cursor| i64::try_from(cursor.0).unwrap_or(i64::MAX));
        let read = |below, count| self.newest_entries(query, below, count);
        let cursor = |number| u64::try_from(number).ok().map(AuditCursor);
        pages::page(limit, below.min(until), read, cursor).await
    }

    /// The next entries of both places where they are.
    async fn newest_entries(
        &self,
        query: &AuditQuery,
        below: i64,
        count: usize,
    ) -> Result<Run<i64, Entry>, StoreError> {
        // What is copied into the log leaves its version only afterwards: whoever looks there first misses nothing.
        let beside = self.run(&self.records, "audit.", query, below, count).await?;
        let log = self.run(&self.log, "", query, below, count).await?;
        let full = |run: &Entries, read: usize| {
            run.keys().next().map(|(number, _)| *number).filter(|_| read >= count)
        };
        // Where one of the two goes on, the other's are not next yet.
        let end = [full(&beside.0, beside.1), full(&log.0, log.1)].into_iter().flatten().max();
        let read = (beside.1 + log.1) as u64;
        let mut entries = beside.0;
        entries.extend(log.0);
        let next = entries.into_iter().rev();
        let next = next.take_while(|((number, _), _)| end.is_none_or(|end| *number >= end));
        let shown = |((number, _), entry): (_, Entry)| (number, query.matches(&entry).then_some(entry));
        Ok(Run { items: next.map(shown).collect(), full: end.is_some(), read })
    }

    /// The next entries of one of the two places where they are, and how many were read.
    async fn run(
        &self,
        from: &Collection<Document>,
        prefix: &str,
        query: &AuditQuery,
        below: i64,
        count: usize,
    ) -> Result<(Entries, usize), StoreError> {
        let name = |name: &str| format!("{prefix}{name}");
        let mut filter = doc! {
            name("number"): { "$lt": below, "$gte": query.from.map_or(0, audit_number) },
            name("terms"): term(narrowest(query)),
        };
        if let Some(operation) = &query.operation {
            filter.insert(name("operation"), term(operation_hash(operation)));
        }
        if let Some(actor) = &query.actor {
            filter.insert(name("actor"), term(actor_hash(actor)));
        }
        if let Some(action) = query.action {
            filter.insert(name("action"), action.as_str());
        }
        let found = from.find(filter).sort(doc! { name("number"): -1 }).limit(window(count));
        let found = if prefix.is_empty() {
            found
        } else {
            found.projection(doc! { "audit": 1, "at": 1, "by": 1, "r": 1, "n": 1 })
        };
        let found = self.all("audit", found).await?;
        let mut entries = BTreeMap::new();
        for document in &found {
            let fields = if prefix.is_empty() { Ok(document) } else { document.get_document("audit") };
            if !prefix.is_empty() {
                let (came, until) = (document.get_datetime("at"), document.get_datetime("by"));
                if came.map_err(unreadable)? > until.map_err(unreadable)? {
                    continue;
                }
            }
            let (number, entry) = read_audit(fields.map_err(unreadable)?)?;
            entries.insert((number, id(document)?), entry.at(time(number >> COUNTER_BITS)));
        }
        Ok((entries, found.len()))
    }

    pub(super) async fn append_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        const DURING: &str = "append_audit";
        self.ask_time(DURING).await?;
        if entries.is_empty() {
            return Ok(());
        }
        let newest = self.newest_entry().await?;
        let now = self.time.stamp(newest);
        let mut stamped = Vec::with_capacity(entries.len());
        for entry in entries {
            let entry = entry.stamped(newest, now);
            let number = self.audit_number(entry.at);
            stamped.push(audit_fields(&entry.at(time(number >> COUNTER_BITS)), number));
        }
        self.answer(DURING, Kind::Write, self.log.insert_many(stamped)).await.map(drop)
    }

    /// When the newest entry happened that anybody may have been shown.
    async fn newest_entry(&self) -> Result<Timestamp, StoreError> {
        let mut newest = 0;
        for (from, name) in [(&self.records, "audit.number"), (&self.log, "number")] {
            let last = from.find(doc! { name: { "$gt": newest } }).sort(doc! { name: -1 }).limit(1);
            let last = self.all("append_audit", last.projection(doc! { name: 1 })).await?;
            let Some(last) = last.first() else { continue };
            let fields = if name == "number" { Ok(last) } else { last.get_document("audit") };
            newest = fields.and_then(|fields| fields.get_i64("number")).map_err(unreadable)?;
        }
        Ok(time(newest >> COUNTER_BITS))
    }

    pub(super) async fn forget_audit(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        const DURING: &str = "forget_audit";
        // What is still beside its version goes into the log first.
        self.settle().await?;
        let old =
            self.log.find(doc! { "number": { "$lt": audit_number(before) } }).sort(doc! { "number": 1 });
        let old = self.all(DURING, old.limit(window(limit.max(1))).projection(doc! { "_id": 1 })).await?;
        let ids: Vec<_> = old.iter().filter_map(|entry| entry.get("_id").cloned()).collect();
        if ids.is_empty() || limit == 0 {
            return Ok(0);
        }
        let forgotten = self.log.delete_many(doc! { "_id": { "$in": ids } });
        let forgotten = self.answer(DURING, Kind::Write, forgotten).await?;
        Ok(usize::try_from(forgotten.deleted_count).unwrap_or(usize::MAX))
    }
}

/// Entries by number and id, which two of different nodes may share in part.
type Entries = BTreeMap<(i64, String), Entry>;

/// The id of an entry: in the log, or that which it will have there.
fn id(document: &Document) -> Result<String, StoreError> {
    if let (Ok(record), Ok(number)) = (document.get_str("r"), document.get_i64("n")) {
        return Ok(log_id(record, number));
    }
    match document.get("_id") {
        Some(Bson::String(id)) => Ok(id.clone()),
        Some(id) => Ok(id.to_string()),
        None => Err(unreadable("an entry without an id")),
    }
}

fn place(document: &Document) -> Result<Cursor, StoreError> {
    let created: &DateTime = document.get_datetime("createdAt").map_err(unreadable)?;
    let id = document.get_str("recordId").ok().and_then(RecordId::parse);
    let id = id.ok_or_else(|| unreadable("an id that is none"))?;
    Ok(Cursor { created: time(created.timestamp_millis()), id })
}

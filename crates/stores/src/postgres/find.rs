//! Search and audit: pages by a place that does not move, each from the narrowest order there is.

use bytes::Bytes;
use semel_core::audit::Entry;
use semel_core::query::{AuditCursor, AuditQuery, Cursor, Page, Query, Summary};
use semel_core::{StoreError, Timestamp};
use tokio_postgres::types::ToSql;

use super::error::Kind;
use super::pool::Statement;
use super::rows::{
    AuditDraft, EVERYTHING, Id, actor_hash, corrupt, key_hash, literal, millis, namespace_number,
    operation_hash, record, state_number, tag_hash, time, unreadable,
};
use super::store::Shared;
use crate::codec::{Corrupt, decode_audit};
use crate::remote::draft::narrowest;
use crate::remote::pages::{self, Run, newest};

/// Bits of an audit entry's number below its time.
const COUNTER_BITS: u32 = 21;

/// The number below which all entries were stamped before this time.
fn audit_number(at: Timestamp) -> i64 {
    let at = millis(at).min(i64::MAX >> COUNTER_BITS);
    at << COUNTER_BITS
}

impl Shared {
    pub(super) async fn search(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Summary, Cursor>, StoreError> {
        let read = |below, window| self.records(query, below, window);
        pages::page(limit, cursor.unwrap_or_else(newest), read, Some).await
    }

    /// The next places of the narrowest order, with what is shown of those that match.
    async fn records(
        &self,
        query: &Query,
        below: Cursor,
        window: usize,
    ) -> Result<Run<Cursor, Summary>, StoreError> {
        let (created, id) = (millis(below.created), Id(below.id));
        let until = query.until.map_or(i64::MAX, millis);
        let from = query.from.map_or(0, millis);
        let count = i64::try_from(window).unwrap_or(i64::MAX);
        let place: [&(dyn ToSql + Sync); 5] = [&created, &id, &until, &from, &count];
        let rows = if let Some(key) = &query.key {
            self.rows_by(&self.sql.search_key, &place, &[&key_hash(key)]).await?
        } else if let Some(tag) = &query.tag {
            self.rows_by(&self.sql.search_tag, &place, &[&tag_hash(tag)]).await?
        } else if query.namespace.is_none() && query.states.is_empty() && query.operation.is_none() {
            self.rows_by(&self.sql.search, &place, &[]).await?
        } else {
            let namespace = query.namespace.map(namespace_number);
            let states: Vec<_> = query.states.iter().copied().map(state_number).collect();
            let states = (!states.is_empty()).then_some(states);
            let operation = query.operation.as_ref().map(semel_core::Operation::as_str);
            self.rows_by(&self.sql.search_kinds, &place, &[&namespace, &states, &operation]).await?
        };
        let mut run = Run { items: Vec::with_capacity(rows.len()), full: rows.len() >= window, read: 0 };
        for row in &rows {
            let now = self.time.told(time(row.try_get(0).map_err(unreadable)?));
            let id: Id = row.try_get(1).map_err(unreadable)?;
            run.read = run.read.max(entries(row, 2)?);
            let found =
                record(row, 3)?.ok_or_else(|| corrupt(Corrupt("a listed record that is not there")))?;
            let shown = !found.is_expired(now) && query.matches(&found);
            let place = Cursor { created: found.times().created, id: id.0 };
            run.items.push((place, shown.then(|| Summary::of(&found))));
        }
        run.read = run.read.max(rows.len() as u64);
        Ok(run)
    }

    async fn rows_by(
        &self,
        statement: &Statement,
        place: &[&(dyn ToSql + Sync)],
        by: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.rows("search", Kind::Read, statement, &[place, by].concat()).await
    }

    pub(super) async fn audit(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Result<Page<Entry, AuditCursor>, StoreError> {
        let until = query.until.map_or(i64::MAX, audit_number);
        let from = query.from.map_or(0, audit_number);
        let below = cursor.map_or(i64::MAX, |cursor| i64::try_from(cursor.0).unwrap_or(i64::MAX));
        let read = |below, window| self.entries(query, below, from, window);
        let cursor = |number| u64::try_from(number).ok().map(AuditCursor);
        pages::page(limit, below.min(until), read, cursor).await
    }

    async fn entries(
        &self,
        query: &AuditQuery,
        below: i64,
        from: i64,
        window: usize,
    ) -> Result<Run<i64, Entry>, StoreError> {
        let count = i64::try_from(window).unwrap_or(i64::MAX);
        let operation = query.operation.as_ref().map(operation_hash);
        let actor = query.actor.as_deref().map(actor_hash);
        let action = query.action.map(semel_core::audit::Action::as_str);
        let term = narrowest(query);
        let rows = if term == EVERYTHING && operation.is_none() && actor.is_none() && action.is_none() {
            self.rows("audit", Kind::Read, &self.sql.audit, &[&below, &from, &count]).await?
        } else {
            let values: [&(dyn ToSql + Sync); 7] =
                [&below, &from, &count, &term, &operation, &actor, &action];
            self.rows("audit", Kind::Read, &self.sql.audit_term, &values).await?
        };
        let mut run = Run { items: Vec::with_capacity(rows.len()), full: rows.len() >= window, read: 0 };
        for row in &rows {
            let number: i64 = row.try_get(0).map_err(unreadable)?;
            let at = time(row.try_get(1).map_err(unreadable)?);
            let bytes: &[u8] = row.try_get(2).map_err(unreadable)?;
            run.read = run.read.max(entries(row, 3)?);
            let (_, entry) = decode_audit(Bytes::copy_from_slice(bytes)).map_err(corrupt)?;
            let entry = entry.at(at);
            run.items.push((number, query.matches(&entry).then_some(entry)));
        }
        run.read = run.read.max(rows.len() as u64);
        Ok(run)
    }

    pub(super) async fn append_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return self.open("append_audit");
        }
        let drafts: Vec<_> = entries.iter().map(AuditDraft::of).collect();
        let cells: Vec<_> = drafts.iter().map(|draft| draft.cell).collect();
        // An array of arrays would have to be a rectangle.
        let terms: Vec<_> = drafts.iter().map(|draft| literal(&draft.terms)).collect();
        let bytes: Vec<_> = drafts.iter().map(|draft| draft.entry.as_slice()).collect();
        let operations: Vec<_> = drafts.iter().map(|draft| draft.operation).collect();
        let actors: Vec<_> = drafts.iter().map(|draft| draft.actor).collect();
        let actions: Vec<_> = drafts.iter().map(|draft| draft.action).collect();
        let happened: Vec<_> = entries.iter().map(|entry| millis(entry.at)).collect();
        let values: [&(dyn ToSql + Sync); 7] =
            [&cells, &terms, &bytes, &operations, &actors, &actions, &happened];
        self.row("append_audit", Kind::Write, &self.sql.append_audit, &values).await.map(drop)
    }

    pub(super) async fn forget_audit(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values: [&(dyn ToSql + Sync); 2] = [&audit_number(before), &limit];
        let row = self.row("forget_audit", Kind::Write, &self.sql.forget_audit, &values).await?;
        let forgotten = row.try_get::<_, i64>(0).map_err(unreadable)?;
        Ok(usize::try_from(forgotten).unwrap_or(0))
    }
}

/// How many entries of an order a statement says it has read.
fn entries(row: &tokio_postgres::Row, at: usize) -> Result<u64, StoreError> {
    row.try_get::<_, i64>(at).map(i64::unsigned_abs).map_err(unreadable)
}

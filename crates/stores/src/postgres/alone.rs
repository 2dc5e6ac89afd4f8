//! One command in one statement: what is too large for a batch, leaves an audit entry, begins a new life, or came back
//! from a batch that could not do it.

use std::sync::Arc;

use semel_core::id::Version;
use semel_core::store::{AsOf, Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, RecordId, StoreError, Timestamp};
use tokio_postgres::types::ToSql;

use super::batch::Replacement;
use super::error::Kind;
use super::gather::Gathered;
use super::pool::{Statement, Values};
use super::rows::{
    AuditDraft, Columns, Draft, Id, Stamps, millis, record, stamps, time, unreadable, version_numbers,
};
use super::store::{Shared, no_answer};
use crate::limits;

/// What a write's statement answers.
pub(super) struct Swapped {
    pub(super) as_of: Timestamp,
    pub(super) stamps: Option<Stamps>,
    pub(super) there: Option<Arc<Record>>,
}

impl Swapped {
    pub(super) fn read(row: &impl Columns) -> Result<Self, StoreError> {
        let as_of = time(row.get(0)?);
        Ok(Self { as_of, stamps: stamps(row, 1)?, there: record(row, 8)? })
    }
}

const INSERT: &str = "insert";
const REPLACE: &str = "replace";

pub(super) fn too_late(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "the write came after its deadline")
}

fn too_often(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "others were quicker, time and again")
}

impl Shared {
    /// One statement that swaps; `None` if another was in its way, and nothing happened.
    async fn swap(
        &self,
        during: &'static str,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Option<Swapped>, StoreError> {
        self.open(during)?;
        match self.database.rows(statement, values).await {
            Ok(rows) => {
                let swapped = Swapped::read(rows.first().ok_or_else(|| no_answer(during))?)?;
                self.time.told(swapped.as_of);
                Ok(Some(swapped))
            }
            Err(failure) if failure.is_collision() => Ok(None),
            Err(failure) => Err(failure.into_error(Kind::Write, during)),
        }
    }

    pub(super) async fn insert(self: &Arc<Self>, write: Write) -> Result<AsOf<Inserted>, StoreError> {
        self.open(INSERT)?;
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(INSERT, false, why))?;
        let Some(batches) = self.batches.as_ref().filter(|_| draft.fits_a_batch()) else {
            return self.insert_alone(draft).await;
        };
        match self.insert_gathered(batches, draft).await {
            Gathered::Answer(answer) => answer,
            Gathered::Alone(draft) => self.insert_alone(draft).await,
        }
    }

    async fn insert_alone(self: &Arc<Self>, draft: Draft) -> Result<AsOf<Inserted>, StoreError> {
        let (operation, deadline) = (draft.operation.as_str(), millis(draft.deadline));
        let mut values = insert_values(&draft, &operation, &deadline);
        let statement =
            audited(draft.audit.as_ref(), &mut values, &self.sql.insert, &self.sql.insert_audited);
        for _ in 0..limits::POSTGRES_ROUNDS {
            let Some(swapped) = self.swap(INSERT, statement, &values).await? else { continue };
            if let Some(stamps) = swapped.stamps {
                let record = self.written(&draft, swapped.as_of, stamps)?;
                self.moved(1);
                return Ok(AsOf { as_of: swapped.as_of, value: Inserted::Inserted(record) });
            }
            if swapped.as_of > draft.deadline {
                return Err(too_late(INSERT));
            }
            if let Some(there) = swapped.there {
                return Ok(AsOf { as_of: swapped.as_of, value: Inserted::Occupied(there) });
            }
            // It came while the statement ran, so that the statement could not see it.
            let AsOf { as_of, value } = self.load(draft.id.0).await?;
            if let Some(there) = value {
                return Ok(AsOf { as_of, value: Inserted::Occupied(there) });
            }
        }
        Err(too_often(INSERT))
    }

    pub(super) async fn replace(
        self: &Arc<Self>,
        write: Write,
        expected: Version,
    ) -> Result<AsOf<Replaced>, StoreError> {
        self.open(REPLACE)?;
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(REPLACE, false, why))?;
        let replacement = Replacement { draft, expected };
        // A new life takes the tags of the old one away; and what others are stamped with in a batch follows from what they were
        // judged on.
        let draft = &replacement.draft;
        let gathers = !draft.begins && draft.judged == expected && draft.fits_a_batch();
        let Some(batches) = self.batches.as_ref().filter(|_| gathers) else {
            return self.replace_alone(replacement).await;
        };
        match self.replace_gathered(batches, replacement).await {
            Gathered::Answer(answer) => answer,
            Gathered::Alone(replacement) => self.replace_alone(replacement).await,
        }
    }

    async fn replace_alone(
        self: &Arc<Self>,
        Replacement { draft, expected }: Replacement,
    ) -> Result<AsOf<Replaced>, StoreError> {
        let (operation, deadline) = (draft.operation.as_str(), millis(draft.deadline));
        let version = version_numbers(expected);
        let mut values = replace_values(&draft, &version, &operation, &deadline);
        let statement =
            audited(draft.audit.as_ref(), &mut values, &self.sql.replace, &self.sql.replace_audited);
        for _ in 0..limits::POSTGRES_ROUNDS {
            let Some(swapped) = self.swap(REPLACE, statement, &values).await? else { continue };
            if let Some(stamps) = swapped.stamps {
                let record = self.written(&draft, swapped.as_of, stamps)?;
                self.moved(1);
                return Ok(AsOf { as_of: swapped.as_of, value: Replaced::Replaced(record) });
            }
            if swapped.as_of > draft.deadline {
                return Err(too_late(REPLACE));
            }
            if swapped.there.as_ref().is_none_or(|there| there.version() != expected) {
                return Ok(AsOf { as_of: swapped.as_of, value: Replaced::Conflict(swapped.there) });
            }
            // Somebody has replaced it while the statement ran, which still shows what was there before.
            let AsOf { as_of, value } = self.load(draft.id.0).await?;
            if value.as_ref().is_none_or(|there| there.version() != expected) {
                return Ok(AsOf { as_of, value: Replaced::Conflict(value) });
            }
        }
        Err(too_often(REPLACE))
    }

    pub(super) async fn load(
        self: &Arc<Self>,
        id: RecordId,
    ) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        self.open("load")?;
        let Some(batches) = &self.batches else { return self.load_alone(id).await };
        match self.load_gathered(batches, id).await {
            Gathered::Answer(answer) => answer,
            Gathered::Alone(id) => self.load_alone(id).await,
        }
    }

    async fn load_alone(&self, id: RecordId) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        let row = self.row("load", Kind::Read, &self.sql.load, &[&Id(id)]).await?;
        let as_of = self.time.told(time(row.try_get(0).map_err(unreadable)?));
        Ok(AsOf { as_of, value: record(&row, 1)? })
    }

    pub(super) async fn remove(&self, id: RecordId, expected: Version) -> Result<bool, StoreError> {
        let (fence, sequence) = version_numbers(expected);
        let values: [&(dyn ToSql + Sync); 3] = [&Id(id), &fence, &sequence];
        let row = self.row("remove", Kind::Write, &self.sql.remove, &values).await?;
        let removed = row.try_get::<_, i64>(0).map_err(unreadable)? > 0;
        if removed {
            self.waiters.changed(id);
        }
        Ok(removed)
    }
}

/// What an insert is given, without an audit entry.
pub(super) fn insert_values<'a>(
    draft: &'a Draft,
    operation: &'a &'a str,
    deadline: &'a i64,
) -> Vec<&'a (dyn ToSql + Sync)> {
    vec![
        &draft.id,
        &draft.after,
        &draft.namespace,
        operation,
        &draft.key,
        &draft.lane,
        &draft.state,
        &draft.wake,
        &draft.rests,
        &draft.names,
        &draft.head,
        &draft.input,
        deadline,
    ]
}

/// What a replacement is given, without an audit entry.
pub(super) fn replace_values<'a>(
    draft: &'a Draft,
    (fence, sequence): &'a (i64, i64),
    operation: &'a &'a str,
    deadline: &'a i64,
) -> Vec<&'a (dyn ToSql + Sync)> {
    vec![
        &draft.id,
        fence,
        sequence,
        &draft.raise,
        &draft.begins,
        operation,
        &draft.lane,
        &draft.state,
        &draft.keep_wake,
        &draft.wake,
        &draft.rests,
        &draft.names,
        &draft.head,
        &draft.input,
        deadline,
    ]
}

/// Adds what is written to the audit log, if anything, and says by which statement.
fn audited<'a>(
    audit: Option<&'a AuditDraft>,
    values: &mut Vec<&'a (dyn ToSql + Sync)>,
    without: &'a Statement,
    with: &'a Statement,
) -> &'a Statement {
    let Some(draft) = audit else { return without };
    values.extend([
        &draft.cell as &(dyn ToSql + Sync),
        &draft.terms,
        &draft.entry,
        &draft.operation,
        &draft.actor,
        &draft.action,
    ]);
    with
}

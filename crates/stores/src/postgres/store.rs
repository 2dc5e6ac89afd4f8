//! The contract of stores over PostgreSQL.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use semel_core::audit::Entry;
use semel_core::id::{Lane, Operation, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::{Failure, Kind};
use super::listen::{channel, hear, tell};
use super::options::Options;
use super::pool::{Database, Statement, Values};
use super::rows::{
    AuditDraft, Draft, Id, Stamps, lane_name, millis, namespace_of, record, stamps, state_of, time,
    unreadable, version_numbers,
};
use super::schema::{OpenError, migrate};
use super::sql::Sql;
use super::time::Time;
use super::tls::Tls;
use super::wake::{Waiters, Woken, wait};
use crate::limits;

/// Records in PostgreSQL.
pub struct PostgresStore {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What calls and background tasks share.
pub(super) struct Shared {
    pub(super) sql: Arc<Sql>,
    pub(super) time: Time,
    database: Arc<Database>,
    waiters: Arc<Waiters>,
    look: Duration,
    /// Writes of this node since it opened.
    writes: AtomicU64,
    survives_failover: bool,
    closed: AtomicBool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// The database cannot be reached, is no UTF-8 database, or holds a schema that this program must not touch.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let encrypted = |config: &tokio_postgres::Config| {
            config.get_ssl_mode() != tokio_postgres::config::SslMode::Disable
        };
        let tls = if encrypted(&options.server) || options.listen.as_ref().is_some_and(encrypted) {
            Tls::new(options.root_certificates.as_deref())?
        } else {
            Tls::none()
        };
        let database = Arc::new(Database::new(options, tls.clone())?);
        let no_database = |failure: Failure| {
            OpenError::because("cannot connect to PostgreSQL", failure.into_error(Kind::Read, "open"))
        };
        let mut connection = database.connection().await.map_err(no_database)?;
        migrate(&mut connection, &options.schema).await?;
        drop(connection);
        let sql = Arc::new(Sql::new(&options.schema));
        let told = database.rows(&sql.durability, &[]).await.map_err(no_database)?;
        let says = |column| told.first().is_some_and(|row| row.try_get(column).unwrap_or(false));
        if !says(0) {
            return Err(OpenError::new("the database's encoding must be UTF8"));
        }
        let poll =
            if options.listen.is_some() { limits::POSTGRES_POLL_LISTENING } else { limits::POSTGRES_POLL };
        let shared = Arc::new(Shared {
            sql,
            time: Time::new(Arc::clone(&options.clock)),
            database,
            waiters: Arc::new(Waiters::new(options.listen.is_some())),
            look: options.poll.unwrap_or(poll),
            writes: AtomicU64::new(0),
            survives_failover: says(1) && says(2),
            closed: AtomicBool::new(false),
        });
        shared.ready().await.map_err(|error| OpenError::because("PostgreSQL takes no writes", error))?;
        let mut tasks = Vec::new();
        if let Some(listen) = &options.listen {
            let (channel, waiters) = (channel(&options.schema), || Arc::clone(&shared.waiters));
            let (database, sql) = (Arc::clone(&shared.database), Arc::clone(&shared.sql));
            tasks.push(tokio::spawn(tell(waiters(), database, sql, channel.clone())));
            tasks.push(tokio::spawn(hear(waiters(), listen.clone(), tls, channel)));
        }
        Ok(Self { shared, tasks })
    }
}

/// What a write's statement answers.
struct Swapped {
    as_of: Timestamp,
    stamps: Option<Stamps>,
    there: Option<Arc<Record>>,
}

impl Swapped {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let as_of = time(row.try_get(0).map_err(unreadable)?);
        Ok(Self { as_of, stamps: stamps(row, 1)?, there: record(row, 8)? })
    }
}

fn too_often(during: &'static str) -> StoreError {
    StoreError::not_applied(during, true, "others were quicker, time and again")
}

fn no_answer(during: &'static str) -> StoreError {
    StoreError::corrupt(during, "PostgreSQL answered without a row")
}

impl Shared {
    pub(super) fn open(&self, during: &'static str) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::not_applied(during, false, "the store is closed"));
        }
        Ok(())
    }

    pub(super) async fn rows(
        &self,
        during: &'static str,
        kind: Kind,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.open(during)?;
        let mut again = if kind == Kind::Read { limits::POSTGRES_READS_AGAIN } else { 0 };
        loop {
            match self.database.rows(statement, values).await {
                // What changes nothing may be said twice.
                Err(failure) if failure.is_lost_connection() && again > 0 => again -= 1,
                answer => return answer.map_err(|failure| failure.into_error(kind, during)),
            }
        }
    }

    pub(super) async fn row(
        &self,
        during: &'static str,
        kind: Kind,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Row, StoreError> {
        self.rows(during, kind, statement, values).await?.pop().ok_or_else(|| no_answer(during))
    }

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

    fn written(
        self: &Arc<Self>,
        draft: &Draft,
        swapped: &Swapped,
        stamps: Stamps,
    ) -> Result<Arc<Record>, StoreError> {
        let record = draft.stamped(stamps)?;
        self.waiters.changed(record.id());
        self.waiters.written(&record, swapped.as_of);
        if (self.writes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(limits::POSTGRES_FOLD_EVERY) {
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.fold().await });
        }
        Ok(record)
    }

    async fn insert(self: &Arc<Self>, write: Write) -> Result<AsOf<Inserted>, StoreError> {
        const DURING: &str = "insert";
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(DURING, false, why))?;
        let deadline = millis(draft.deadline);
        let (operation, rests) = (draft.operation.as_str(), &draft.rests);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![
            &draft.id,
            &draft.after,
            &draft.namespace,
            &operation,
            &draft.key,
            &draft.lane,
            &draft.state,
            &draft.wake,
            rests,
            &draft.names,
            &draft.head,
            &draft.input,
            &deadline,
        ];
        let statement =
            audited(draft.audit.as_ref(), &mut values, &self.sql.insert, &self.sql.insert_audited);
        for _ in 0..limits::POSTGRES_ROUNDS {
            let Some(swapped) = self.swap(DURING, statement, &values).await? else { continue };
            if let Some(stamps) = swapped.stamps {
                let record = self.written(&draft, &swapped, stamps)?;
                return Ok(AsOf { as_of: swapped.as_of, value: Inserted::Inserted(record) });
            }
            self.in_time(DURING, &draft, &swapped)?;
            if let Some(there) = swapped.there {
                return Ok(AsOf { as_of: swapped.as_of, value: Inserted::Occupied(there) });
            }
            // It came while the statement ran, so that the statement could not see it.
            let AsOf { as_of, value } = self.load(draft.id.0).await?;
            if let Some(there) = value {
                return Ok(AsOf { as_of, value: Inserted::Occupied(there) });
            }
        }
        Err(too_often(DURING))
    }

    async fn replace(
        self: &Arc<Self>,
        write: Write,
        expected: Version,
    ) -> Result<AsOf<Replaced>, StoreError> {
        const DURING: &str = "replace";
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(DURING, false, why))?;
        let deadline = millis(draft.deadline);
        let (fence, sequence) = version_numbers(expected);
        let operation = draft.operation.as_str();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![
            &draft.id,
            &fence,
            &sequence,
            &draft.raise,
            &draft.begins,
            &operation,
            &draft.lane,
            &draft.state,
            &draft.keep_wake,
            &draft.wake,
            &draft.rests,
            &draft.names,
            &draft.head,
            &draft.input,
            &deadline,
        ];
        let statement =
            audited(draft.audit.as_ref(), &mut values, &self.sql.replace, &self.sql.replace_audited);
        for _ in 0..limits::POSTGRES_ROUNDS {
            let Some(swapped) = self.swap(DURING, statement, &values).await? else { continue };
            if let Some(stamps) = swapped.stamps {
                let record = self.written(&draft, &swapped, stamps)?;
                return Ok(AsOf { as_of: swapped.as_of, value: Replaced::Replaced(record) });
            }
            self.in_time(DURING, &draft, &swapped)?;
            if swapped.there.as_ref().is_none_or(|there| there.version() != expected) {
                return Ok(AsOf { as_of: swapped.as_of, value: Replaced::Conflict(swapped.there) });
            }
            // Somebody has replaced it while the statement ran, which still shows what was there before.
            let AsOf { as_of, value } = self.load(draft.id.0).await?;
            if value.as_ref().is_none_or(|there| there.version() != expected) {
                return Ok(AsOf { as_of, value: Replaced::Conflict(value) });
            }
        }
        Err(too_often(DURING))
    }

    #[expect(clippy::unused_self, reason = "it reads as a step of the write")]
    fn in_time(&self, during: &'static str, draft: &Draft, swapped: &Swapped) -> Result<(), StoreError> {
        if swapped.as_of > draft.deadline {
            return Err(StoreError::not_applied(during, true, "the write came after its deadline"));
        }
        Ok(())
    }

    pub(super) async fn load(&self, id: RecordId) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        let row = self.row("load", Kind::Read, &self.sql.load, &[&Id(id)]).await?;
        let as_of = self.time.told(time(row.try_get(0).map_err(unreadable)?));
        Ok(AsOf { as_of, value: record(&row, 1)? })
    }

    async fn remove(&self, id: RecordId, expected: Version) -> Result<bool, StoreError> {
        let (fence, sequence) = version_numbers(expected);
        let values: [&(dyn ToSql + Sync); 3] = [&Id(id), &fence, &sequence];
        let row = self.row("remove", Kind::Write, &self.sql.remove, &values).await?;
        let removed = row.try_get::<_, i64>(0).map_err(unreadable)? > 0;
        if removed {
            self.waiters.changed(id);
        }
        Ok(removed)
    }

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

    async fn lanes_due(&self) -> Result<Vec<Option<Lane>>, StoreError> {
        let AsOf { as_of, value } = self.lanes("lanes").await?;
        let due = value.into_iter().filter(|(_, wake)| time(*wake) <= as_of).map(|(lane, _)| lane);
        let read = |lane: String| {
            let named = if lane.is_empty() { Ok(None) } else { Lane::try_new(&lane).map(Some) };
            named.map_err(|error| StoreError::corrupt("lanes", "a lane without a name").with_source(error))
        };
        due.take(semel_core::limits::TAKE_MAX).map(read).collect()
    }

    async fn next_due(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        self.waiters.ask_next_due();
        let AsOf { as_of, value: lanes } = self.lanes("next_due").await?;
        let value = lanes.iter().map(|(_, wake)| time(*wake)).min();
        self.waiters.told_next_due(lanes, value, as_of);
        Ok(AsOf { as_of, value })
    }

    async fn take_due(&self, lane: Option<Lane>, limit: usize) -> Result<AsOf<Vec<Arc<Record>>>, StoreError> {
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

    async fn changed(
        &self,
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
    async fn due_changed(
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

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let mut swept = 0;
        while swept < limit {
            let step = (limit - swept).min(limits::POSTGRES_SWEEP_STEP);
            let count = i64::try_from(step).unwrap_or(0);
            let rows = self.rows("sweep", Kind::Write, &self.sql.sweep, &[&count]).await?;
            for row in &rows {
                self.waiters.changed(row.try_get::<_, Id>(0).map_err(unreadable)?.0);
            }
            swept += rows.len();
            if rows.len() < step {
                break;
            }
        }
        self.fold().await;
        Ok(swept)
    }

    /// Folds moves into the counts. What cannot be folded now stays a move, and counts all the same.
    async fn fold(&self) {
        let step = limits::POSTGRES_FOLD_STEP;
        while let Ok(row) = self.row("fold", Kind::Write, &self.sql.fold, &[&step]).await {
            if row.try_get::<_, i64>(0).unwrap_or(0) < step {
                break;
            }
        }
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
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

    async fn oldest_pending(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        let row = self.row("oldest_pending", Kind::Read, &self.sql.oldest_pending, &[]).await?;
        let as_of = self.time.told(time(row.try_get(0).map_err(unreadable)?));
        Ok(AsOf { as_of, value: row.try_get::<_, Option<i64>>(1).map_err(unreadable)?.map(time) })
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let row = self.row("ready", Kind::Read, &self.sql.ready, &[]).await?;
        self.time.told(time(row.try_get(0).map_err(unreadable)?));
        if row.try_get(1).map_err(unreadable)? {
            return Err(StoreError::not_applied("ready", true, "the database takes no writes"));
        }
        Ok(())
    }
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

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn time(&self) -> Timestamp {
        self.shared.time.now()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(self.shared.insert(write))
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        Box::pin(self.shared.replace(write, expected))
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        Box::pin(self.shared.remove(id, expected))
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(self.shared.load(id))
    }

    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>> {
        Box::pin(self.shared.take_due(lane, limit))
    }

    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>> {
        Box::pin(self.shared.lanes_due())
    }

    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        Box::pin(self.shared.next_due())
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(self.shared.changed(id, seen, patience))
    }

    fn due_changed(&self, patience: Duration) -> Answer<'_, ()> {
        // Watches from the call on, so that a caller who calls before it asks for `next_due` misses nothing.
        Box::pin(self.shared.due_changed(patience, self.shared.waiters.due_changed()))
    }

    fn sweep(&self, limit: usize) -> Answer<'_, usize> {
        Box::pin(self.shared.sweep(limit))
    }

    fn counts(&self) -> Answer<'_, Vec<Count>> {
        Box::pin(self.shared.counts())
    }

    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>> {
        Box::pin(self.shared.oldest_pending())
    }

    fn search(
        &self,
        query: Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Answer<'_, Page<Summary, Cursor>> {
        Box::pin(async move { self.shared.search(&query, cursor, limit).await })
    }

    fn append_audit(&self, entries: Vec<Entry>) -> Answer<'_, ()> {
        Box::pin(self.shared.append_audit(entries))
    }

    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<Entry, AuditCursor>> {
        Box::pin(async move { self.shared.audit(&query, cursor, limit).await })
    }

    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize> {
        Box::pin(self.shared.forget_audit(before, limit))
    }

    /// As far as the server could tell when it was opened: it syncs its log, and what it acknowledges is on a standby,
    /// too, or there is none.
    fn survives_failover(&self) -> bool {
        self.shared.survives_failover
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(self.shared.ready())
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shared.closed.store(true, Ordering::Release);
            self.tasks.iter().for_each(JoinHandle::abort);
            self.shared.database.close();
            Ok(())
        })
    }
}

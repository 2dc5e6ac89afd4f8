//! The contract of stores over PostgreSQL.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use semel_core::audit::Entry;
use semel_core::id::{Lane, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};
use tokio::task::JoinHandle;
use tokio_postgres::Row;

use super::batch::Batches;
use super::error::{Failure, Kind};
use super::listen::{channel, hear, tell};
use super::options::Options;
use super::pool::{Database, Statement, Values};
use super::rows::{Draft, Stamps, time, unreadable};
use super::schema::{is_lost_connection, migrate};
use super::sql::Sql;
use super::time::Time;
use super::tls::Tls;
use super::wake::Waiters;
use crate::clock::Clock;
use crate::limits;
use crate::remote::calls::{self, Lanes, Remote, calls_of_shared};
use crate::remote::open::OpenError;

/// Records in PostgreSQL.
pub struct PostgresStore {
    pub(super) shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What calls and background tasks share.
pub(super) struct Shared {
    pub(super) sql: Arc<Sql>,
    pub(super) time: Time,
    pub(super) database: Arc<Database>,
    pub(super) batches: Option<Arc<Batches>>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) look: Duration,
    /// Moves of this node since it opened.
    pub(super) moves: AtomicU64,
    /// Whether batches everywhere know that claims join transactions here.
    pub(super) joins: AtomicBool,
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
        let batches = if options.batch { Some(Database::for_batches(options, tls.clone())?) } else { None };
        let no_database = |failure: Failure| {
            OpenError::because("cannot connect to PostgreSQL", failure.into_error(Kind::Read, "open"))
        };
        let mut again = limits::POSTGRES_READS_AGAIN;
        loop {
            let mut connection = database.connection().await.map_err(no_database)?;
            match migrate(&mut connection, &options.schema).await {
                Ok(()) => break,
                // A migration is a transaction: it happened or not, and whoever comes next looks.
                Err(error) if is_lost_connection(&error) && again > 0 => {
                    again -= 1;
                    drop(deadpool_postgres::Object::take(connection));
                }
                Err(error) => return Err(error),
            }
        }
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
            batches: batches.map(|database| Arc::new(Batches::new(database, options.lanes))),
            moves: AtomicU64::new(0),
            joins: AtomicBool::new(false),
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

pub(super) fn no_answer(during: &'static str) -> StoreError {
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

    /// This node has written a version.
    pub(super) fn written(
        &self,
        draft: &Draft,
        as_of: Timestamp,
        stamps: Stamps,
    ) -> Result<Arc<Record>, StoreError> {
        let record = draft.stamped(stamps)?;
        self.waiters.changed(record.id());
        self.waiters.written(&record, as_of);
        Ok(record)
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

impl Remote for Arc<Shared> {
    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn clock(&self) -> &dyn Clock {
        self.time.clock()
    }

    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn look_every(&self) -> Duration {
        self.look
    }

    fn find(
        &self,
        id: RecordId,
    ) -> impl Future<Output = Result<AsOf<Option<Arc<Record>>>, StoreError>> + Send {
        self.load(id)
    }

    fn lanes(&self, during: &'static str) -> impl Future<Output = Result<AsOf<Lanes>, StoreError>> + Send {
        Shared::lanes(self, during)
    }
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    calls_of_shared!();

    /// As far as the server could tell when it was opened: it syncs its log, and what it acknowledges is on a standby,
    /// too, or there is none.
    fn survives_failover(&self) -> bool {
        self.shared.survives_failover
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shared.closed.store(true, Ordering::Release);
            self.tasks.iter().for_each(JoinHandle::abort);
            self.shared.database.close();
            if let Some(batches) = &self.shared.batches {
                batches.close();
            }
            Ok(())
        })
    }
}

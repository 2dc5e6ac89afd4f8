//! Connections, time-outs, and statements under way.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};

use super::error::Failure;
use super::options::Options;
use super::tls::Tls;
use crate::limits;
use crate::remote::open::OpenError;

/// Inserts, replacements, loads.
const KINDS_OF_BATCHES: usize = 3;

/// What fills a statement's places.
pub(super) type Values<'a> = [&'a (dyn ToSql + Sync)];

/// A statement, with the types of its places, so that the server need not be asked for them.
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) types: Vec<Type>,
}

/// A pool of connections to one database.
pub(super) struct Database {
    pool: Pool,
    pooled: bool,
    patience: Duration,
}

impl Database {
    pub(super) fn new(options: &Options, tls: Tls) -> Result<Self, OpenError> {
        Self::of(options, options.server.clone(), options.pool, tls)
    }

    /// The connections that batches go over: one for each lane, so that none of them ever waits for one.
    pub(super) fn for_batches(options: &Options, tls: Tls) -> Result<Self, OpenError> {
        Self::of(options, options.for_batches(), options.lanes * KINDS_OF_BATCHES, tls)
    }

    fn of(options: &Options, server: Config, size: usize, tls: Tls) -> Result<Self, OpenError> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(server, tls, config);
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.connect_timeout))
            .create_timeout(Some(options.connect_timeout))
            .build()
            .map_err(|error| OpenError::because("cannot make a pool of connections", error))?;
        let patience = options.statement_timeout + limits::POSTGRES_ANSWER_MARGIN;
        Ok(Self { pool, pooled: options.pooled, patience })
    }

    pub(super) async fn connection(&self) -> Result<Object, Failure> {
        self.pool.get().await.map_err(Failure::no_connection)
    }

    /// Runs a statement in a transaction of its own, and waits until that is committed.
    pub(super) async fn rows(&self, statement: &Statement, values: &Values<'_>) -> Result<Vec<Row>, Failure> {
        let connection = self.connection().await?;
        let answer = self.ask(&connection, statement, values).await;
        if answer.as_ref().is_err_and(Failure::spoils_connection) {
            drop(Object::take(connection));
        }
        answer
    }

    async fn ask(
        &self,
        connection: &Object,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let answer = if self.pooled {
            // Unnamed, and described in the same message: the next one may run in another session.
            let typed: Vec<_> = values.iter().copied().zip(statement.types.iter().cloned()).collect();
            timeout(self.patience, connection.query_typed(&statement.text, &typed)).await
        } else {
            let prepared = connection.prepare_typed_cached(&statement.text, &statement.types);
            let prepared = match timeout(self.patience, prepared).await {
                Ok(prepared) => prepared.map_err(Failure::not_prepared)?,
                Err(_) => return Err(Failure::NoAnswer),
            };
            timeout(self.patience, connection.query(&prepared, values)).await
        };
        match answer {
            Ok(answer) => answer.map_err(Failure::Sent),
            Err(_) => Err(Failure::NoAnswer),
        }
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

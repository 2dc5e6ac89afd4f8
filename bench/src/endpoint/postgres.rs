//! PostgreSQL, one statement per command: `INSERT … ON CONFLICT DO NOTHING` takes the key, `UPDATE` stores the outcome.

use anyhow::{Context, Result};
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

use super::{Backend, Claim};
use crate::limits::POSTGRES_POOL;

/// Created by whoever comes first; the harness gives every round an empty database.
pub(crate) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS keys (
    key text PRIMARY KEY,
    outcome bytea,
    expires_at timestamptz NOT NULL DEFAULT now() + interval '1 day'
)";

const INSERT: &str = "INSERT INTO keys (key) VALUES ($1) ON CONFLICT (key) DO NOTHING";
const SELECT: &str = "SELECT outcome FROM keys WHERE key = $1";
const UPDATE: &str = "UPDATE keys SET outcome = $2 WHERE key = $1";

/// A pool of connections with prepared statements.
pub(crate) struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Connects and creates the table.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let config = url.parse().context("the url of the database")?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool =
            Pool::builder(Manager::from_config(config, NoTls, recycling)).max_size(POSTGRES_POOL).build()?;
        pool.get().await?.batch_execute(SCHEMA).await?;
        Ok(Self { pool })
    }
}

impl Backend for Postgres {
    async fn claim(&self, key: &str) -> Result<Claim> {
        let client = self.pool.get().await?;
        let insert = client.prepare_cached(INSERT).await?;
        if client.execute(&insert, &[&key]).await? == 1 {
            return Ok(Claim::Fresh);
        }
        let select = client.prepare_cached(SELECT).await?;
        let outcome: Option<Vec<u8>> = client.query_one(&select, &[&key]).await?.get(0);
        Ok(outcome.map_or(Claim::Busy, |bytes| Claim::Replay(bytes.into())))
    }

    async fn complete(&self, key: &str, outcome: Bytes) -> Result<()> {
        let client = self.pool.get().await?;
        let update = client.prepare_cached(UPDATE).await?;
        client.execute(&update, &[&key, &&outcome[..]]).await?;
        Ok(())
    }
}

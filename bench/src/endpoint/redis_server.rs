//! Redis: `SET NX` takes the key, `SET` stores the outcome. How durable that is says the server's `appendfsync`.

use anyhow::Result;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;

use super::{Backend, Claim};

/// Retention as the server has it by default: a day.
const RETENTION_S: u64 = 86_400;

/// A held key without an outcome; no JSON begins so.
const HELD: &[u8] = b"-";

/// One connection whose commands are pipelined: with it Redis writes its log once for many commands.
pub(crate) struct Redis {
    connection: MultiplexedConnection,
}

impl Redis {
    /// Connects to `redis://…`.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        Ok(Self { connection })
    }
}

impl Backend for Redis {
    async fn claim(&self, key: &str) -> Result<Claim> {
        let mut connection = self.connection.clone();
        // `NX GET` answers the old value in the same round trip, so that a replay costs one command.
        let found: Option<Vec<u8>> = redis::cmd("SET")
            .arg(key)
            .arg(HELD)
            .arg("NX")
            .arg("GET")
            .arg("EX")
            .arg(RETENTION_S)
            .query_async(&mut connection)
            .await?;
        Ok(match found {
            None => Claim::Fresh,
            Some(value) if value == HELD => Claim::Busy,
            Some(value) => Claim::Replay(value.into()),
        })
    }

    async fn complete(&self, key: &str, outcome: Bytes) -> Result<()> {
        let mut connection = self.connection.clone();
        let () = redis::cmd("SET")
            .arg(key)
            .arg(&outcome[..])
            .arg("EX")
            .arg(RETENTION_S)
            .query_async(&mut connection)
            .await?;
        Ok(())
    }
}

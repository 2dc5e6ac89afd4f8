//! A Redis for tests: a prefix for each, with the clock that the test wants.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, cmd};
use semel_core::Timestamp;

use super::keys::Shard;
use super::{Options, RedisStore};
use crate::clock::{Clock, SteppedClock};
use crate::remote::testing::{name_of_this_test, variable};

/// Where `cargo xtask services up` says that Redis listens.
const VARIABLE: &str = "SEMEL_TEST_REDIS";

/// The URL of the server, or `None` where tests need none.
pub(super) fn url() -> Option<String> {
    variable(VARIABLE)
}

/// The program of Valkey, which has what Redis 7.2 has, or `None` where tests need none.
pub(super) fn valkey() -> Option<String> {
    variable("SEMEL_TEST_VALKEY")
}

/// A connection past the store.
pub(super) async fn client(url: &str) -> MultiplexedConnection {
    let patient = redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// A prefix of the test's own, empty, and gone when it is dropped.
pub(super) struct Space {
    pub(super) prefix: String,
    pub(super) server: String,
    pub(super) client: MultiplexedConnection,
}

impl Space {
    pub(super) async fn new(server: &str) -> Self {
        let (prefix, client) = (name_of_this_test(), client(server).await);
        Self { prefix, server: server.to_owned(), client }
    }

    pub(super) fn url(&self) -> String {
        format!("{}?prefix={}", self.server, self.prefix)
    }

    pub(super) fn shards(&self, shards: usize) -> Vec<Shard> {
        (0..shards).map(|number| Shard::new(&self.prefix, number)).collect()
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.client.clone()).await.unwrap()
    }

    /// The clock of every shard is this one from now on.
    pub(super) async fn set_clock(&self, shards: usize, now: Timestamp) {
        for shard in self.shards(shards) {
            let () = self.ask(cmd("HSET").arg(&shard.own).arg("clock").arg(now.as_millis())).await;
        }
    }

    pub(super) async fn pass(&self, shards: usize, length: Duration) {
        let length = u64::try_from(length.as_millis()).unwrap();
        for shard in self.shards(shards) {
            let () = self.ask(cmd("HINCRBY").arg(&shard.own).arg("clock").arg(length)).await;
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let (pattern, server) = (format!("{{{}*", self.prefix), self.server.clone());
        let removing = std::thread::spawn(move || -> redis::RedisResult<()> {
            let mut connection = Client::open(server)?.get_connection()?;
            let keys: Vec<Vec<u8>> =
                redis::Commands::scan_match(&mut connection, pattern)?.collect::<Result<_, _>>()?;
            for key in keys {
                cmd("UNLINK").arg(key).exec(&mut connection)?;
            }
            Ok(())
        });
        // Keys that stay are in nobody's way: their prefix comes again only with its process id.
        drop(removing.join());
    }
}

/// A store whose clocks, here and there, go when they are told to.
pub(super) struct Stepped {
    pub(super) space: Space,
    pub(super) clock: SteppedClock,
    pub(super) shards: usize,
    pub(super) store: Option<Arc<RedisStore>>,
}

impl Stepped {
    pub(super) async fn new(server: &str, shards: usize) -> Self {
        let began = Timestamp::from_millis(1_700_000_000_000);
        let (space, clock) = (Space::new(server).await, SteppedClock::at(began));
        space.set_clock(shards, began).await;
        let mut stepped = Self { space, clock, shards, store: None };
        stepped.open().await;
        stepped
    }

    pub(super) async fn open(&mut self) {
        let clock = Arc::new(self.clock.clone()) as Arc<dyn Clock>;
        let options = Options::parse(&format!("{}&shards={}", self.space.url(), self.shards)).unwrap();
        let options = options.clock(clock).poll(Duration::from_millis(20)).stepped();
        self.store = Some(Arc::new(RedisStore::open(&options).await.unwrap()));
    }
}

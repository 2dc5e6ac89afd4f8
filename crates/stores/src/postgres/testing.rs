//! A database for tests: a schema for each, with the clock that the test wants.

use std::sync::Arc;
use std::time::Duration;

use semel_core::Timestamp;
use tokio_postgres::{Client, NoTls};

use super::pooler::Pooler;
use super::schema::migrate;
use super::{Options, PostgresStore};
use crate::clock::{Clock, SteppedClock};
use crate::remote::testing::{name_of_this_test, variable};

/// Where `cargo xtask services up` says that PostgreSQL listens.
const VARIABLE: &str = "SEMEL_TEST_POSTGRES";

/// The URL of the server, or `None` where tests need none.
pub(super) fn url() -> Option<String> {
    variable(VARIABLE)
}

/// A connection past the store.
pub(super) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// A schema of the test's own, empty, and gone when it is dropped.
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) server: String,
    pub(super) client: Client,
}

impl Schema {
    pub(super) async fn new(server: String) -> Self {
        let (name, client) = (name_of_this_test(), client(&server).await);
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await.unwrap();
        Self { name, server, client }
    }

    /// The store's URL. The tests are of what is kept and not of how it is synced, so its syncs are not waited for.
    pub(super) fn url(&self) -> String {
        let name = &self.name;
        let options = "options=-c%20synchronous_commit%3Doff";
        format!("{}?schema={name}&application_name={name}&pool=8&{options}", self.server)
    }

    pub(super) async fn migrated(server: String) -> Self {
        let mut schema = Self::new(server).await;
        migrate(&mut schema.client, &schema.name).await.unwrap();
        schema
    }

    pub(super) async fn run(&self, sql: &str) {
        self.client.batch_execute(&sql.replace("SCHEMA", &self.name)).await.unwrap();
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(&sql.replace("SCHEMA", &self.name), &[]).await.unwrap().get(0)
    }

    /// The clock of the database is this one from now on.
    pub(super) async fn step_clock(&self, now: Timestamp) {
        let now = now.as_millis();
        self.run(&format!(
            "CREATE TABLE SCHEMA.test_clock (ms bigint NOT NULL);
             INSERT INTO SCHEMA.test_clock VALUES ({now});
             CREATE OR REPLACE FUNCTION SCHEMA.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
               'SELECT ms FROM SCHEMA.test_clock';"
        ))
        .await;
    }

    pub(super) async fn pass(&self, length: Duration) {
        let length = length.as_millis();
        self.run(&format!("UPDATE SCHEMA.test_clock SET ms = ms + {length}")).await;
    }

    /// Ends every session of the store, as a server does that goes down; of those behind a pooler, too.
    pub(super) async fn cut(&self) {
        // Each is gone when its turn is over.
        let ended = self.number(
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
             WHERE application_name = 'SCHEMA'",
        );
        assert!(ended.await > 0, "a store that is open has a session");
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (name, server) = (self.name.clone(), self.server.clone());
        // The test's runtime may be ending, and what it had connected with it.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = client(&server).await;
                client.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await
            })
        });
        // A schema that stays is in nobody's way: its name comes again only with its process id.
        drop(dropping.join());
    }
}

/// A store whose clocks, here and there, go when they are told to.
pub(super) struct Stepped {
    pub(super) schema: Schema,
    pub(super) clock: SteppedClock,
    pub(super) store: Option<Arc<PostgresStore>>,
    /// The URL that the store is opened by.
    url: String,
    /// What is between the two, if anything; gone with it.
    _pooler: Option<Pooler>,
}

impl Stepped {
    pub(super) async fn new(server: String) -> Self {
        Self::with(server, "").await
    }

    /// With more in the store's URL.
    pub(super) async fn with(server: String, more: &str) -> Self {
        let schema = Schema::migrated(server).await;
        let url = format!("{}{more}", schema.url());
        Self::over(schema, url, None).await
    }

    /// Behind a pooler of its own, which takes no options for a session.
    pub(super) async fn behind_pooler(server: String) -> Option<Self> {
        let pooler = Pooler::before(&server)?;
        let schema = Schema::migrated(server).await;
        // The pooler hands the name on, by which `cut` finds its sessions.
        let url =
            format!("{}?schema={1}&application_name={1}&pool=8&pgbouncer=true", pooler.url(), schema.name);
        Some(Self::over(schema, url, Some(pooler)).await)
    }

    async fn over(schema: Schema, url: String, pooler: Option<Pooler>) -> Self {
        let began = Timestamp::from_millis(1_700_000_000_000);
        let clock = SteppedClock::at(began);
        schema.step_clock(began).await;
        let mut stepped = Self { schema, clock, store: None, url, _pooler: pooler };
        stepped.open().await;
        stepped
    }

    pub(super) async fn open(&mut self) {
        let clock = Arc::new(self.clock.clone()) as Arc<dyn Clock>;
        let options = Options::parse(&self.url).unwrap();
        let options = options.clock(clock).poll(Duration::from_millis(20));
        self.store = Some(Arc::new(PostgresStore::open(&options).await.unwrap()));
    }
}

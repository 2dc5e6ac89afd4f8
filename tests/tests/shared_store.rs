//! Stores that several servers may share: the real services that `cargo xtask services` brings up, in a part of their own
//! for each test, which is removed afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::Document;
use tokio_postgres::NoTls;

use crate::load::Pace;

/// How many parts of services this process has named.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Which kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mongodb,
    Postgres,
    Redis,
}

impl Kind {
    /// The variable that says where the service listens.
    const fn variable(self) -> &'static str {
        match self {
            Self::Mongodb => "SEMEL_TEST_MONGODB",
            Self::Postgres => "SEMEL_TEST_POSTGRES",
            Self::Redis => "SEMEL_TEST_REDIS",
        }
    }

    /// What the server calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// How hard its servers are driven. MongoDB's protocol is spoken by FerretDB here, which reads all of a collection for
    /// every question: few keys, so that it stays small, and leases that a slow answer does not outlast.
    pub(crate) fn pace(self) -> Pace {
        match self {
            Self::Mongodb => Pace { keys: 40, clients: 3, lease: Duration::from_secs(10) },
            Self::Postgres | Self::Redis => Pace::default(),
        }
    }

    /// How many keys a test has that asks for each of them from everywhere at once.
    pub(crate) const fn keys(self) -> usize {
        match self {
            Self::Mongodb => 6,
            Self::Postgres | Self::Redis => 20,
        }
    }

    /// A lease of this pace, as an operation's configuration has it.
    pub(crate) fn lease(self) -> String {
        format!("lease = \"{}s\"", self.pace().lease.as_secs())
    }

    /// A part of the service that no other test has; `None`, with a word, by hand and without the service. Where the
    /// service should have been there that is a failure.
    pub(crate) async fn fresh(self) -> Option<SharedStore> {
        let variable = self.variable();
        let Ok(service) = std::env::var(variable) else {
            assert!(std::env::var_os("CI").is_none(), "{variable} is not set; `cargo xtask test` sets it");
            println!("skipped: {variable} is not set; `eval \"$(cargo xtask services env)\"` sets it");
            return None;
        };
        let name = format!("e2e_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        clear(self, &service, &name).await;
        Some(SharedStore { kind: self, service, name })
    }
}

/// One test for each kind of store, in a module of its name.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        on_every_store! { mongodb: Mongodb; $($name),* }
        on_every_store! { postgres: Postgres; $($name),* }
        on_every_store! { redis: Redis; $($name),* }
    };
    ($module:ident: $kind:ident; $($name:ident),*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::shared_store::Kind::$kind).await;
            })*
        }
    };
}

pub(crate) use on_every_store;

/// A store of a test's own.
pub(crate) struct SharedStore {
    kind: Kind,
    service: String,
    name: String,
}

impl SharedStore {
    /// Its URL.
    pub(crate) fn url(&self) -> String {
        self.url_through(&self.service)
    }

    /// Its URL where the service is reached elsewhere (`127.0.0.1:41234`), such as through a proxy.
    pub(crate) fn url_at(&self, address: &str) -> String {
        self.url_through(&self.service.replace(&self.address(), address))
    }

    fn url_through(&self, service: &str) -> String {
        match self.kind {
            Kind::Mongodb => format!("{service}semel_e2e?collection={}", self.name),
            // Few connections each: many tests with several servers share one PostgreSQL.
            Kind::Postgres => format!("{service}?schema={0}&application_name={0}&pool=6", self.name),
            Kind::Redis => format!("{service}?prefix={}", self.name),
        }
    }

    /// Where the service listens.
    pub(crate) fn address(&self) -> String {
        let (_, rest) = self.service.split_once("://").unwrap();
        let authority = rest.split(['/', '?']).next().unwrap();
        authority.rsplit('@').next().unwrap().to_owned()
    }
}

/// Runs SQL on a connection past the servers.
async fn run(service: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(service, NoTls).await?;
    let connection = tokio::spawn(connection);
    let done = client.batch_execute(sql).await;
    connection.abort();
    done
}

async fn clear(kind: Kind, service: &str, name: &str) {
    match kind {
        // What cannot be removed (a server still uses it) is in nobody's way: its name comes again only with this
        // process's id.
        Kind::Postgres => {
            drop(run(service, &format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await);
        }
        // A database for all of them: to FerretDB each is a schema of PostgreSQL's, which take long to come and go.
        Kind::Mongodb => {
            let Ok(client) = Client::with_uri_str(service).await else { return };
            for part in ["", "_audit", "_counts", "_floors"] {
                drop(
                    client
                        .database("semel_e2e")
                        .collection::<Document>(&format!("{name}{part}"))
                        .drop()
                        .await,
                );
            }
        }
        // Theirs go with the services' data; a name does not come again.
        Kind::Redis => {}
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        let (kind, service, name) = (self.kind, self.service.clone(), self.name.clone());
        // The test's runtime may be ending, and what it had connected with it.
        let clearing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clear(kind, &service, &name));
        });
        drop(clearing.join());
    }
}

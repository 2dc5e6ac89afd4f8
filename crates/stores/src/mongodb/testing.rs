//! A database of a server for tests: one for each test, gone when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection, Database};
use semel_core::Timestamp;

use super::{MongoStore, Options};
use crate::clock::{Clock, SteppedClock};
use crate::remote::testing::{name_of_this_test, variable};

/// Where `cargo xtask services up` says that FerretDB listens.
const VARIABLE: &str = "SEMEL_TEST_MONGODB";

/// The URL of the server, or `None` where tests need none.
pub(super) fn url() -> Option<String> {
    variable(VARIABLE)
}

/// Collections of the test's own, empty, and gone when it is dropped. The database is shared: a database of FerretDB's is a
/// schema of PostgreSQL's, and many take long to come and go.
pub(super) struct Room {
    pub(super) url: String,
    pub(super) name: String,
    pub(super) database: Database,
}

const DATABASE: &str = "semel_test";

/// How many rooms this process has had.
static COUNT: AtomicU32 = AtomicU32::new(0);
const PARTS: [&str; 5] = ["", "_audit", "_counts", "_floors", "_setup"];

impl Room {
    pub(super) async fn new(server: String) -> Self {
        // Of those that a test has one after the other each has a name of its own: what a store was still about when it
        // was dropped may come after its collections were.
        let name = format!("{}_{}", name_of_this_test(), COUNT.fetch_add(1, Ordering::Relaxed));
        let url = format!("{server}{DATABASE}?collection={name}");
        let client = Client::with_uri_str(&server).await.unwrap();
        Self { url, name, database: client.database(DATABASE) }
    }

    pub(super) fn options(&self) -> Options {
        Options::parse(&self.url).unwrap().command_timeout(COMMAND_TIMEOUT)
    }

    pub(super) fn versions(&self) -> Collection<Document> {
        self.database.collection(&self.name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let (name, url) = (self.name.clone(), self.url.clone());
        // The test's runtime may be ending, and what it had connected with it.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = url.split('?').next().unwrap_or(&url).to_owned();
                let client = Client::with_uri_str(server).await?;
                for part in PARTS {
                    client.database(DATABASE).run_command(doc! { "drop": format!("{name}{part}") }).await?;
                }
                Ok::<(), mongodb::error::Error>(())
            })
        });
        // A collection that stays is in nobody's way: its name comes again only with its process id.
        drop(dropping.join());
    }
}

/// A store whose clocks, here and there, go when they are told to.
pub(super) struct Stepped {
    pub(super) room: Room,
    pub(super) clock: SteppedClock,
    pub(super) store: Option<Arc<MongoStore>>,
}

impl Stepped {
    pub(super) async fn new(server: String) -> Self {
        let clock = SteppedClock::at(Timestamp::from_millis(1_700_000_000_000));
        let mut stepped = Self { room: Room::new(server).await, clock, store: None };
        stepped.open().await;
        stepped
    }

    pub(super) async fn open(&mut self) {
        let clock = Arc::new(self.clock.clone()) as Arc<dyn Clock>;
        let options = self.room.options().stepped(clock).poll(Duration::from_millis(20)).keep(KEEP);
        self.store = Some(Arc::new(MongoStore::open(&options).await.unwrap()));
    }
}

/// Long enough for what a test has under way, and short enough that its collections stay small.
const KEEP: Duration = Duration::from_secs(20);

/// FerretDB lets nothing else by while somebody creates or drops a collection, which tests do all the time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

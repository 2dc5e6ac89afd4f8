//! Connecting: what kind of server it is, and the indexes, which any number of nodes may create at once.

use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use semel_core::StoreError;
use tokio::time::Instant;

use super::error::{Kind, failed};
use super::options::Options;
use super::setup::Turn;
use crate::limits;
use crate::remote::open::OpenError;

impl OpenError {
    /// For options that cannot be.
    pub fn of(invalid: super::InvalidUrl) -> Self {
        Self::because("no usable options", invalid)
    }
}

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// It speaks MongoDB's protocol over PostgreSQL: for development and tests.
    pub(super) is_ferretdb: bool,
    /// A replica set, or a router in front of some: there is a majority, and reads can be linearizable.
    pub(super) is_replicated: bool,
}

impl Server {
    pub(super) async fn ask(database: &Database) -> Result<(Self, Document, Instant), mongodb::error::Error> {
        let build = database.run_command(doc! { "buildInfo": 1 }).await?;
        let sent = Instant::now();
        let hello = database.run_command(doc! { "hello": 1 }).await?;
        let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let server = Self {
            is_ferretdb: build.contains_key("ferretdb") || build.contains_key("ferretdbVersion"),
            is_replicated: is_router || hello.contains_key("setName"),
        };
        Ok((server, hello, sent))
    }
}

pub(super) async fn connect(options: &Options) -> Result<Database, OpenError> {
    // Of `mongodb+srv://` it asks a name server.
    let no_url = |error| OpenError::because("no usable URL of MongoDB", failed(error, Kind::Read, "open"));
    let client = options.client().await.map_err(no_url)?;
    let client = Client::with_options(client)
        .map_err(|error| OpenError::because("no usable URL of MongoDB", error))?;
    client
        .default_database()
        .ok_or_else(|| OpenError::because("no usable URL of MongoDB", "it names no database"))
}

/// The indexes of each collection: its suffix, and its keys. All but the first serve only what has their fields.
fn indexes() -> Vec<(&'static str, Vec<Document>)> {
    vec![
        (
            "",
            vec![
                doc! { "r": 1, "n": -1 },
                doc! { "lane": 1, "wakeAt": 1 },
                doc! { "wakeAt": 1 },
                doc! { "createdAt": -1, "recordId": -1 },
                doc! { "kind": 1, "createdAt": -1, "recordId": -1 },
                doc! { "key": 1, "createdAt": -1, "recordId": -1 },
                doc! { "tags": 1, "createdAt": -1, "recordId": -1 },
                doc! { "state": 1, "createdAt": 1 },
                doc! { "expiresAt": 1 },
                doc! { "new": 1 },
                doc! { "over": 1 },
                doc! { "goneAt": 1 },
                doc! { "audit.number": -1 },
            ],
        ),
        (
            "_audit",
            vec![
                doc! { "terms": 1, "number": -1 },
                doc! { "terms": 1, "operation": 1, "number": -1 },
                doc! { "terms": 1, "actor": 1, "number": -1 },
                doc! { "terms": 1, "action": 1, "number": -1 },
                doc! { "number": -1 },
            ],
        ),
        ("_counts", vec![doc! { "n": -1 }]),
        ("_floors", vec![doc! { "n": -1 }]),
    ]
}

fn index(keys: Document, unique: bool) -> Document {
    let name = keys.iter().map(|(key, way)| format!("{}_{way}", key.replace('.', "_")));
    let name = format!("semel_{}", name.collect::<Vec<_>>().join("_"));
    if unique {
        return doc! { "key": keys, "name": name, "unique": true };
    }
    doc! { "key": keys, "name": name, "sparse": true }
}

/// Creates what is missing of the collections and their indexes.
pub(super) async fn create_indexes(
    database: &Database,
    collection: &str,
    server: Server,
) -> Result<(), mongodb::error::Error> {
    let wanted = wanted(collection, server);
    if !server.is_ferretdb {
        return create_all(database, &wanted).await;
    }
    let mut missing = false;
    for (collection, wanted) in &wanted {
        missing |= !missing_of(database, collection, wanted).await.is_empty();
    }
    if !missing {
        return Ok(());
    }
    let turn = Turn::take(database, collection, limits::MONGODB_SETTLER_PATIENCE).await?;
    let created = create_all(database, &wanted).await;
    // Whoever fails leaves the turn to the next one, too.
    turn.end().await?;
    created
}

/// Each collection, and the indexes that this kind of server is to have of it.
fn wanted(collection: &str, server: Server) -> Vec<(String, Vec<Document>)> {
    let mut all = Vec::new();
    for (suffix, keys) in indexes() {
        let mut wanted = Vec::new();
        for (place, keys) in keys.into_iter().enumerate() {
            let unique = suffix.is_empty() && place == 0;
            // No index serves a query of FerretDB's, and each costs a write.
            if unique || !server.is_ferretdb {
                wanted.push(index(keys, unique));
            }
        }
        if suffix.is_empty() && !server.is_ferretdb {
            // The server's own expiry: a backstop for what no sweep has taken. It decides nothing.
            let backstop = doc! { "key": { "purgeAt": 1 }, "name": "semel_purgeAt", "expireAfterSeconds": 0 };
            wanted.push(backstop);
        }
        all.push((format!("{collection}{suffix}"), wanted));
    }
    all
}

async fn create_all(
    database: &Database,
    wanted: &[(String, Vec<Document>)],
) -> Result<(), mongodb::error::Error> {
    for (collection, wanted) in wanted {
        let mut tries = limits::MONGODB_INDEX_TRIES;
        while let Err(error) = create_missing(database, collection, wanted).await {
            // Another node may have created them in between, which FerretDB takes badly.
            tries -= 1;
            if tries == 0 {
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn missing_of(database: &Database, collection: &str, wanted: &[Document]) -> Vec<Document> {
    let there = database.collection::<Document>(collection).list_index_names().await;
    // Where there is no collection, there are no indexes, and some servers call that an error.
    let there = there.unwrap_or_default();
    let is_missing =
        |index: &&Document| !index.get_str("name").is_ok_and(|name| there.iter().any(|there| there == name));
    wanted.iter().filter(is_missing).cloned().collect()
}

async fn create_missing(
    database: &Database,
    collection: &str,
    wanted: &[Document],
) -> Result<(), mongodb::error::Error> {
    let missing = missing_of(database, collection, wanted).await;
    if missing.is_empty() {
        return Ok(());
    }
    let command = doc! { "createIndexes": collection, "indexes": missing };
    database.run_command(command).await.map(drop)
}

/// Creates what is missing of the indexes of a collection of records and of what lies beside it, as opening a store does:
/// a unique one, those that records are found by, and, where the server has such, the one by which it removes remains on
/// its own. Any number of nodes may do it, at any time.
///
/// # Errors
/// The server cannot be reached, or refuses.
pub async fn initialize_indexes(database: &Database, collection: &str) -> Result<(), StoreError> {
    let creating = async {
        let (server, ..) = Server::ask(database).await?;
        create_indexes(database, collection, server).await
    };
    let patience = limits::MONGODB_COMMAND_TIMEOUT * 12;
    match tokio::time::timeout(patience, creating).await {
        Ok(created) => created
            .map_err(|error| super::error::failed(error, super::error::Kind::Read, "initialize_indexes")),
        Err(_) => Err(super::error::no_answer(super::error::Kind::Read, "initialize_indexes")),
    }
}

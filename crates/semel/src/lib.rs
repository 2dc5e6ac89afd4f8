//! Make an operation happen once, however often it is asked for.
//!
//! ```
//! use axum::{Json, Router, routing::post};
//! use semel::{Claimed, Config, IdempotencyLayer};
//! use serde_json::{Value, json};
//!
//! async fn create_order(claimed: Option<Claimed>, Json(order): Json<Value>) -> Json<Value> {
//!     // Runs once per key. What is called from here can be handed a key of its own, the same on every attempt.
//!     let payment_key = claimed.map(|claimed| claimed.downstream_key());
//!     Json(json!({ "order": order, "payment_key": payment_key }))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ledger = semel::open("memory:").await?; // `embedded:./data` outlives the process
//!     // All callers share their keys here; where they have identities, `.caller(|parts| …)` keeps them apart.
//!     let config = Config::new("order-service").shared_keys(true).require_key(true);
//!     let idempotency = IdempotencyLayer::try_new(ledger, config)?;
//!     let app = Router::new().route("/orders", post(create_order)).layer(idempotency.clone());
//!
//!     let address = "127.0.0.1:3000";
//! #   let address = "127.0.0.1:0";
//!     let listener = tokio::net::TcpListener::bind(address).await?;
//!     let stopped = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! #   drop(stopped);
//! #   let (asking, (done, asked)) = (client(listener.local_addr()?), tokio::sync::oneshot::channel());
//! #   let stopped = async move { asking.await; done.send(()).unwrap() };
//!     axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
//!     idempotency.drain(std::time::Duration::from_secs(25)).await; // what still runs ends in peace
//! #   asked.await?;
//!     Ok(())
//! }
//! #
//! # async fn client(address: std::net::SocketAddr) {
//! #     use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! #     for is_retry in [false, true] {
//! #         let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
//! #         let body = r#"{"sku":"A-1","quantity":2}"#;
//! #         let request = format!(
//! #             "POST /orders HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ncontent-type: application/json\r\n\
//! #              idempotency-key: \"8e03978e\"\r\ncontent-length: {}\r\n\r\n{body}",
//! #             body.len()
//! #         );
//! #         stream.write_all(request.as_bytes()).await.unwrap();
//! #         let mut reply = String::new();
//! #         stream.read_to_string(&mut reply).await.unwrap();
//! #         assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
//! #         assert_eq!(reply.contains("idempotent-replayed: true"), is_retry, "{reply}");
//! #     }
//! # }
//! ```
//!
//! With `axum`, `serde_json` and `tokio` beside `semel = { version = "…", features = ["axum"] }`, that is a whole program. Ask
//! it twice; the second answer says `idempotent-replayed: true`, and is the first one:
//!
//! ```text
//! curl -i localhost:3000/orders -H 'Idempotency-Key: "8e03978e"' -H 'Content-Type: application/json' -d '{"sku":"A-1"}'
//! ```
//!
//! # What is here
//! - [`IdempotencyLayer`], [`Config`] and what belongs to them: the `Idempotency-Key` contract for any service of HTTP
//!   requests (`axum`, `hyper`, `tonic`). All of it is in [`tower`].
//! - [`open`]: a ledger over a store that a URL names.
//! - [`Jobs`]: `ledger.job("EXPIRE_LOCKS").run(…)`, one running instance of each type over all nodes.
//! - [`Phases`]: work in several steps, each done once, resumed where it stopped.
//! - `kafka`, with the feature of that name: consumers whose handlers run once per event.
//! - [`wms`]: the same under the names of the WMS guide.
//! - [`Ledger`]: claims and outcomes without HTTP.
//! - `postgres`, with the feature of that name: a ledger that several services share, and claims that join a transaction
//!   of yours.
//!
//! # Features
//! `axum` handlers take the claim as an argument · `embedded` a durable store for one node · `kafka` consumers · `postgres` and `redis` stores
//! for several nodes · `memory` (on) a store for tests · `metrics` (on) counts for a registry of prometheus-client ·
//! `webhook` verifies and signs webhooks, for services that take them themselves.

use std::fmt;
use std::sync::Arc;

use semel_core::Store;

#[cfg(feature = "postgres")]
pub mod postgres;
pub mod wms;

pub use semel_core::command::{Claim, Claimed as ClaimAnswer};
pub use semel_core::{Ledger, Outcome};
pub use semel_runtime::OsEntropy;
/// Jobs: one running instance of each type, over all nodes, and the record of its runs.
pub use semel_runtime::job;
pub use semel_runtime::job::{Job, JobError, Jobs, Run, Turn};
#[cfg(feature = "metrics")]
pub use semel_tower::Metrics;
pub use semel_tower::{
    Body, Caller, CheckpointError, Claimed, Config, ConfigError, Fields, IdempotencyLayer,
    IdempotencyService, Keep, KeyAlphabet, OnLapse, OnServerError, PhaseError, Phases, Profile, ReplayStatus,
    RouteOptions, Steer, Streamed,
};

/// The layer's crate, with all that it has.
pub use semel_tower as tower;

/// Everything that a record, a command or a store can be.
pub use semel_core as core;

/// Where records live.
pub use semel_stores as stores;

/// Consumers of Kafka whose handlers run once per event.
#[cfg(feature = "kafka")]
pub use semel_kafka as kafka;

/// Webhooks, verified: providers' signatures, the identity of events, signing.
#[cfg(feature = "webhook")]
pub use semel_webhook as webhook;

/// A store cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A ledger over the store that a URL names: `memory:`, `embedded:PATH`, `mongodb://…`, `postgres://…`, or `redis://…` and `rediss://…`,
/// each with the feature of its name. Of these Redis may lose claims in a failover: see its page before *at most once* rests
/// on it.
///
/// # Errors
/// The URL names no store that this build has, or the store cannot be opened. What it says holds nothing of the URL.
pub async fn open(url: &str) -> Result<Ledger, OpenError> {
    Ok(Ledger::new(store(url).await?, Arc::new(OsEntropy)))
}

#[cfg_attr(
    not(any(feature = "mongodb", feature = "postgres", feature = "redis")),
    expect(clippy::unused_async, reason = "only some stores connect")
)]
async fn store(url: &str) -> Result<Arc<dyn Store>, OpenError> {
    // What follows the scheme may hold a password: it is not repeated.
    let (scheme, rest) = url.split_once(':').unwrap_or(("", ""));
    match (scheme, rest) {
        #[cfg(feature = "memory")]
        ("memory", "") => Ok(Arc::new(semel_stores::memory::MemoryStore::new())),
        #[cfg(feature = "embedded")]
        ("embedded", folder) if !folder.is_empty() => {
            use semel_stores::embedded::{EmbeddedStore, Options};
            let opened = EmbeddedStore::open(&Options::new(folder));
            Ok(Arc::new(opened.map_err(because("the embedded store cannot be opened"))?))
        }
        #[cfg(feature = "mongodb")]
        ("mongodb" | "mongodb+srv", _) => {
            use semel_stores::mongodb::{MongoStore, Options};
            let options = Options::parse(url).map_err(because("the URL of MongoDB is wrong"))?;
            let opened = MongoStore::open(&options).await;
            Ok(Arc::new(opened.map_err(because("the store in MongoDB cannot be opened"))?))
        }
        #[cfg(feature = "postgres")]
        ("postgres" | "postgresql", _) => {
            use semel_stores::postgres::{Options, PostgresStore};
            let options = Options::parse(url).map_err(because("the URL of PostgreSQL is wrong"))?;
            let opened = PostgresStore::open(&options).await;
            Ok(Arc::new(opened.map_err(because("the store in PostgreSQL cannot be opened"))?))
        }
        #[cfg(feature = "redis")]
        ("redis" | "rediss", _) => {
            use semel_stores::redis::{Options, RedisStore};
            let options = Options::parse(url).map_err(because("the URL of Redis is wrong"))?;
            let opened = RedisStore::open(&options).await;
            Ok(Arc::new(opened.map_err(because("the store in Redis cannot be opened"))?))
        }
        _ => Err(OpenError {
            what: format!(
                "there is no store `{scheme}` in this build; stores are features: `memory`, `embedded`, `mongodb`, `postgres`, `redis`"
            ),
            source: None,
        }),
    }
}

#[cfg(any(feature = "embedded", feature = "mongodb", feature = "postgres", feature = "redis"))]
fn because<E: std::error::Error + Send + Sync + 'static>(what: &str) -> impl FnOnce(E) -> OpenError {
    let what = what.to_owned();
    |source| OpenError { what, source: Some(Box::new(source)) }
}

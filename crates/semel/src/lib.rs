//! Make an operation happen once, however often it is asked for.
//!
//! ```
//! use axum::{Json, Router, body::Body, http::Request, routing::post};
//! use semel::{Claimed, Config, IdempotencyLayer};
//! use serde_json::{Value, json};
//! use tower::ServiceExt;
//!
//! async fn create_order(claimed: Option<Claimed>, Json(order): Json<Value>) -> Json<Value> {
//!     // Runs once per key. What is called from here can be handed a key of its own, the same on every attempt.
//!     let payment_key = claimed.map(|claimed| claimed.downstream_key());
//!     Json(json!({ "order": order, "paid": payment_key.is_some() }))
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ledger = semel::open("memory:").await?; // `embedded:./data` outlives the process
//!     let config = Config::new("order-service").shared_keys(true).require_key(true);
//!     let idempotency = IdempotencyLayer::try_new(ledger, config)?;
//!     let app = Router::new().route("/orders", post(create_order)).layer(idempotency);
//!
//!     for is_retry in [false, true] {
//!         let request = Request::post("/orders")
//!             .header("Idempotency-Key", "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"")
//!             .header("Content-Type", "application/json")
//!             .body(Body::from(r#"{"sku":"A-1","quantity":2}"#))?;
//!         let response = app.clone().oneshot(request).await?;
//!         assert!(response.status().is_success());
//!         assert_eq!(response.headers().contains_key("Idempotent-Replayed"), is_retry);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! With a server that listens, call [`IdempotencyLayer::drain`] when it has stopped accepting, so that what still runs
//! ends in peace.
//!
//! # What is here
//! - [`IdempotencyLayer`], [`Config`] and what belongs to them: the `Idempotency-Key` contract for any service of HTTP
//!   requests (`axum`, `hyper`, `tonic`). All of it is in [`tower`].
//! - [`open`]: a ledger over a store that a URL names.
//! - [`wms`]: the same under the names of the WMS guide.
//! - [`Ledger`]: claims and outcomes without HTTP.
//!
//! # Features
//! `axum` handlers take the claim as an argument · `embedded` a durable store for one node · `postgres` a store for several
//! nodes · `memory` (on) a store for tests · `metrics` (on) counts for a registry of prometheus-client.

use std::fmt;
use std::sync::Arc;

use semel_core::Store;

pub mod wms;

pub use semel_core::command::{Claim, Claimed as ClaimAnswer};
pub use semel_core::{Ledger, Outcome};
pub use semel_runtime::OsEntropy;
#[cfg(feature = "metrics")]
pub use semel_tower::Metrics;
pub use semel_tower::{
    Body, Caller, CheckpointError, Claimed, Config, ConfigError, Fields, IdempotencyLayer,
    IdempotencyService, Keep, KeyAlphabet, OnLapse, OnServerError, Profile, ReplayStatus, RouteOptions,
    Steer, Streamed,
};

/// The layer's crate, with all that it has.
pub use semel_tower as tower;

/// Everything that a record, a command or a store can be.
pub use semel_core as core;

/// Where records live.
pub use semel_stores as stores;

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

/// A ledger over the store that a URL names: `memory:`, `embedded:PATH` or `postgres://…`, each with the feature of its
/// name.
///
/// # Errors
/// The URL names no store that this build has, or the store cannot be opened. What it says holds nothing of the URL.
pub async fn open(url: &str) -> Result<Ledger, OpenError> {
    Ok(Ledger::new(store(url).await?, Arc::new(OsEntropy)))
}

#[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "only some stores connect"))]
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
        #[cfg(feature = "postgres")]
        ("postgres" | "postgresql", _) => {
            use semel_stores::postgres::{Options, PostgresStore};
            let options = Options::parse(url).map_err(because("the URL of PostgreSQL is wrong"))?;
            let opened = PostgresStore::open(&options).await;
            Ok(Arc::new(opened.map_err(because("the store in PostgreSQL cannot be opened"))?))
        }
        _ => Err(OpenError {
            what: format!(
                "there is no store `{scheme}` in this build; stores are features: `memory`, `embedded`, `postgres`"
            ),
            source: None,
        }),
    }
}

#[cfg(any(feature = "embedded", feature = "postgres"))]
fn because<E: std::error::Error + Send + Sync + 'static>(what: &str) -> impl FnOnce(E) -> OpenError {
    let what = what.to_owned();
    |source| OpenError { what, source: Some(Box::new(source)) }
}

//! The `Idempotency-Key` contract for any HTTP service in Rust, as a Tower layer.
//!
//! A client that times out and tries again must not pay twice. With this layer around it a service runs once per key,
//! and a retry is given the first answer: for `axum`, `hyper`, `tonic`, and whatever else is a
//! [`tower_service::Service`] of HTTP requests.
//!
//! ```
//! use std::convert::Infallible;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! use http::{Request, Response};
//! use semel_core::Ledger;
//! use semel_runtime::OsEntropy;
//! use semel_stores::memory::MemoryStore;
//! use semel_tower::{Body, Config, IdempotencyLayer};
//! use tower::{ServiceExt, service_fn};
//! use tower_layer::Layer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let orders = Arc::new(AtomicU32::new(0));
//! let create_order = service_fn(move |_: Request<Body>| {
//!     let number = orders.fetch_add(1, Ordering::SeqCst) + 1;
//!     async move { Ok::<_, Infallible>(Response::new(Body::from(format!("order {number}").into_bytes()))) }
//! });
//!
//! let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
//! let layer = IdempotencyLayer::try_new(ledger, Config::new("orders").shared_keys(true))?;
//! let service = layer.layer(create_order);
//!
//! for replayed in [false, true] {
//!     let request = Request::post("/orders").header("idempotency-key", "k-1").body(Body::from("{}"))?;
//!     let response = service.clone().oneshot(request).await?;
//!     assert_eq!(response.headers().contains_key("idempotent-replayed"), replayed);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! - The claim is durable before the service runs, and the reply before anyone is given it. If the store does not
//!   answer, nothing runs: 503 `IDEMPOTENCY_STORAGE_UNAVAILABLE`.
//! - Work that has begun is not cancelled because its client went away: it runs in place while somebody waits, and in a
//!   task of its own after that.
//! - Requests without a key, and with methods that change nothing, pass through untouched and unbuffered.
//! - A reply that streams, or is larger than is kept, is recorded as done before its first byte goes out.
//!
//! The service says what a reply means for its key by the status, or by a [`Steer`].
//!
//! Rooms: [`config`] what can be configured · [`profile`] rules by the word · [`layer`] what is protected · `run` one
//! protected request · [`claimed`] what a handler knows · [`phases`] a handler in steps · [`steer`] and says · [`reply`] what is kept · [`key`] and
//! [`prefer`] the headers · [`caller`] scopes · [`route`] matchers · [`observe`] what is told · `report` report mode ·
//! [`openapi`] · `grpc` · [`body`] · [`limits`].

pub mod body;
pub mod caller;
pub mod claimed;
pub mod config;
mod grpc;
pub mod key;
pub mod layer;
pub mod limits;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod observe;
pub mod openapi;
pub mod phases;
pub mod prefer;
pub mod profile;
mod refuse;
pub mod reply;
mod report;
pub mod route;
mod run;
pub mod steer;

pub use body::{Body, BoxError};
pub use caller::{Caller, Destination};
pub use claimed::{CheckpointError, CheckpointErrorKind, Claimed};
pub use config::{Config, ConfigError, OnServerError, RouteOptions};
pub use key::KeyAlphabet;
pub use layer::{IdempotencyLayer, IdempotencyService, ResponseFuture, Route};
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use observe::{Context, Event, Observer, What};
pub use phases::{PhaseError, Phases};
pub use profile::{Codes, Profile, ReplayStatus};
pub use route::{Matcher, MatcherError};
pub use semel_api::{ErrorCode, Form};
pub use semel_core::policy::{Keep, OnLapse};
pub use semel_fingerprint::Fields;
pub use steer::{AnswerLost, Steer, Streamed};

//! The one axum endpoint that every engine stands behind, each in a process of its own.
//!
//! It does the least that makes an operation happen once: read and parse the JSON body, read the key, claim it,
//! "run" a no-op, store the outcome, answer. No fingerprint, lease, fence, audit, metric or limit: the peers do less
//! than the server does, so a comparison flatters them. With [`bare`] behind it, it is **H**, the ceiling.

mod bare;
mod fjall_engine;
mod group;
mod postgres;
mod postgres_batched;
mod redb_engine;
mod redis_server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use bytes::Bytes;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a claim found.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody had the key; it is held now, durably as far as the engine's setting goes.
    Fresh,
    /// The key is held and its outcome not there yet.
    Busy,
    /// The stored outcome.
    Replay(Bytes),
}

/// An engine that remembers keys and outcomes.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Takes the key, or says who was first.
    fn claim(&self, key: &str) -> impl Future<Output = Result<Claim>> + Send;
    /// Stores the outcome of a key that was taken.
    fn complete(&self, key: &str, outcome: Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// The engines that can stand behind the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// None: the bare endpoint, H.
    Bare,
    /// A Redis server at `--url`.
    Redis,
    /// A PostgreSQL server at `--url`, one statement per command.
    Postgres,
    /// The same, statements batched by `UNNEST`.
    PostgresBatched,
    /// fjall in `--data`, group commit.
    Fjall,
    /// redb in `--data`, group commit.
    Redb,
}

/// How to serve the endpoint.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The engine behind it.
    #[arg(long)]
    engine: Engine,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where the engine's server is, for those that have one.
    #[arg(long, default_value = "")]
    url: String,
    /// The folder of an engine in this process.
    #[arg(long, default_value = ".")]
    data: PathBuf,
}

#[derive(Deserialize)]
struct Request {
    operation: String,
    payload: serde_json::Value,
}

#[derive(Serialize)]
struct Outcome<'a> {
    status: &'a str,
    result: &'a serde_json::Value,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the engine cannot be opened or the address is taken.
pub(crate) async fn serve(options: Options) -> Result<()> {
    let router = match options.engine {
        Engine::Bare => router(bare::Bare),
        Engine::Redis => router(redis_server::Redis::connect(&options.url).await?),
        Engine::Postgres => router(postgres::Postgres::connect(&options.url).await?),
        Engine::PostgresBatched => router(postgres_batched::Batched::connect(&options.url).await?),
        Engine::Fjall => router(fjall_engine::open(&options.data)?),
        Engine::Redb => router(redb_engine::open(&options.data)?),
    };
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?
        .tap_io(|stream| {
            // Without it small replies may wait for the peer's acknowledgement. A socket that refuses is only slower.
            let _ = stream.set_nodelay(true);
        });
    axum::serve(listener, router).await?;
    Ok(())
}

fn router<B: Backend>(backend: B) -> Router {
    Router::new().route("/v1/idempotency/execute", post(execute::<B>)).with_state(Arc::new(backend))
}

async fn execute<B: Backend>(
    State(backend): State<Arc<B>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|value| value.to_str().ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if request.operation != "echo" {
        return StatusCode::NOT_FOUND.into_response();
    }
    match run(&*backend, key, &request).await {
        Ok(Some((outcome, replayed))) => {
            let mut response = ([(header::CONTENT_TYPE, "application/json")], outcome).into_response();
            if replayed {
                response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            }
            response
        }
        Ok(None) => StatusCode::CONFLICT.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

async fn run<B: Backend>(backend: &B, key: &str, request: &Request) -> Result<Option<(Bytes, bool)>> {
    match backend.claim(key).await? {
        Claim::Fresh => {
            let outcome = Outcome { status: "completed", result: &request.payload };
            let outcome = Bytes::from(serde_json::to_vec(&outcome)?);
            backend.complete(key, outcome.clone()).await?;
            Ok(Some((outcome, false)))
        }
        Claim::Busy => Ok(None),
        Claim::Replay(outcome) => Ok(Some((outcome, true))),
    }
}

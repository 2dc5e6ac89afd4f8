//! The doors: HTTP in, the engine behind. They parse, ask, and render; what an answer means is decided elsewhere.
//!
//! The `gate` stands before all routes: request ids, the bound on requests in progress, tokens, rates, the form of
//! errors, the log line. (The headers `Idempotency-Key` and `Prefer` are read by `semel-tower`.) Rooms: `body` · `execute` · `executions` · `claims` ·
//! `webhooks` · `jobs` · `reply` answers · `refusal` errors · `tenants` · `caller`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Router, extract::State};
use http::StatusCode;
use semel_api::ErrorCode;
use semel_api::health::{Health, HealthStatus};
use semel_core::Key;
use semel_core::policy::Policy;
use semel_core::record::{Record, StateName};
use tokio_util::sync::CancellationToken;

use crate::config::gateway::Network;
use crate::config::{Config, KeyAlphabet};
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::store::Readiness;
use crate::telemetry::observer::Observer;
use crate::webhook::Sources;

mod body;
mod caller;
mod claims;
mod execute;
mod executions;
pub(crate) mod gate;
mod jobs;
mod refusal;
mod reply;
mod tenants;
pub(crate) mod webhooks;

pub(crate) use body::json as json_body;
pub(crate) use caller::{
    REQUEST_ID, RequestIds, TRACEPARENT, check_head, check_size, form as accepted_form, id_header,
    traceparent,
};
pub(crate) use claims::outcome as given_outcome;
pub(crate) use gate::{panic_text, usual_form};
pub(crate) use refusal::{Refusal, write as write_refusal};
pub(crate) use tenants::bearer;

/// What all handlers of the doors share. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Doors(Arc<Shared>);

/// See [`Doors`].
pub(crate) struct Shared {
    engine: Engine,
    jobs: Jobs,
    observer: Observer,
    body_bytes_max: usize,
    wait_max: Duration,
    key_alphabet: KeyAlphabet,
    claims: Policy,
    /// Whether a claim may ask for *at most once* itself.
    at_most_once: bool,
    readiness: Readiness,
    sources: Sources,
    /// Whose word about an address is believed.
    trusted_proxies: Vec<Network>,
    stopping: CancellationToken,
}

/// What the doors lead to.
pub(crate) struct Behind {
    pub(crate) engine: Engine,
    pub(crate) jobs: Jobs,
    pub(crate) sources: Sources,
}

impl std::ops::Deref for Doors {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Doors {
    /// Doors before these. When `stopping` is cancelled, nobody is kept waiting any longer.
    pub(crate) fn new(
        config: &Config,
        behind: Behind,
        observer: Observer,
        readiness: Readiness,
        at_most_once: bool,
        stopping: CancellationToken,
    ) -> Self {
        let (server, Behind { engine, jobs, sources }) = (&config.server, behind);
        Self(Arc::new(Shared {
            engine,
            jobs,
            observer,
            body_bytes_max: server.body_bytes_max,
            wait_max: server.wait_max,
            key_alphabet: server.key_alphabet,
            claims: server.claims,
            at_most_once,
            readiness,
            sources,
            trusted_proxies: server.trusted_proxies.clone(),
            stopping,
        }))
    }

    /// The routes, without the gate; and without the execute door, which the gate enters straight.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/v1/idempotency/executions/{key}", get(executions::show))
            .route("/v1/claims", post(claims::claim))
            .route("/v1/claims/{id}/extend", post(claims::extend))
            .route("/v1/claims/{id}/checkpoints", post(claims::checkpoint))
            .route("/v1/claims/{id}/complete", post(claims::complete))
            .route("/v1/claims/{id}/release", post(claims::release))
            .route("/v1/jobs", get(jobs::list))
            .route("/v1/jobs/{type}/runs", get(jobs::history).post(jobs::start))
            .route("/v1/jobs/{type}/runs/{run}", get(jobs::show))
            .route("/v1/jobs/{type}/runs/{run}/heartbeat", post(jobs::heartbeat))
            .route("/v1/jobs/{type}/runs/{run}/complete", post(jobs::complete))
            .route("/v1/jobs/{type}/runs/{run}/fail", post(jobs::fail))
            .route(gate::HEALTH, get(health))
            .route(gate::READY, get(ready))
            .fallback(|| async { Refusal::from(ErrorCode::NotFound) })
            .method_not_allowed_fallback(|| async { Refusal::from(ErrorCode::MethodNotAllowed) })
            .with_state(self.clone())
    }
}

impl Shared {
    /// Waits for the record's end, as long as the client and a shutdown let it.
    async fn wait(&self, record: &Record, patience: Duration) -> Result<Option<Arc<Record>>, Refusal> {
        let wait = self.engine.wait(record.id(), record.version(), patience);
        tokio::select! {
            settled = wait => settled.map_err(|error| refusal::engine(&error).into()),
            () = self.stopping.cancelled() => Ok(None),
        }
    }
}

/// Whether somebody is at it, or it waits for a worker.
fn is_in_progress(record: &Record) -> bool {
    matches!(record.state().name(), StateName::Pending | StateName::Running)
}

/// Runs work to its end whatever becomes of the connection (L11): dropping the answer does not drop the work.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(|panic| {
        tracing::error!(%panic, "a request's work has panicked");
        ErrorCode::Internal.into()
    })
}

/// What the log line of a request says beside what every request has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) operation: Option<Box<str>>,
    pub(crate) key: Option<Key>,
    pub(crate) record: Option<Arc<Record>>,
    /// Whether the key had been asked for before, where that is known.
    pub(crate) is_retry: Option<bool>,
}

impl Seen {
    /// It is this record that the request is about.
    fn is(&mut self, record: &Arc<Record>) {
        self.operation = Some(record.request().operation().as_str().into());
        self.key = Some(record.request().key().clone());
        self.record = Some(Arc::clone(record));
    }

    /// Goes out with the answer as far as the gate.
    fn beside(self, answer: Result<Response, Refusal>) -> Response {
        let mut response = answer.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

async fn health() -> Response {
    let version = Some(env!("CARGO_PKG_VERSION").to_owned());
    healthy(StatusCode::OK, &Health { status: HealthStatus::Ok, store: None, reason: None, version })
}

async fn ready(State(doors): State<Doors>) -> Response {
    readiness(&doors.readiness).await
}

/// The answer of `/readyz`, on the doors and for operators.
pub(crate) async fn readiness(readiness: &Readiness) -> Response {
    let (status, health) = readiness.answer().await;
    healthy(status, &health)
}

fn healthy(status: StatusCode, health: &Health) -> Response {
    reply::json(status, serde_json::to_vec(health).unwrap_or_default().into())
}

//! The admin listener: what operators, scrapers and readers of the documentation come for.
//!
//! Rooms: `records` and `bulk` what operators see and do, `judge` how · `dead` letters · `lapsed` claims that nobody drives, `picked`
//! like other rows that no store has an order for · `jobs` of any tenant · `audit` who did it · `webhooks` why a signature
//! does not hold · `documents` the OpenAPI
//! document and its reader · `access` tokens and roles · `gate` what stands before all of it · `filter`, `cursor`,
//! `view` between the wire and core.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use semel_api::health::{Health, HealthStatus};
use semel_api::{ApiError, ErrorCode};
use semel_core::{Ledger, Store};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::door::{self, Refusal};
use crate::jobs::Jobs;
use crate::store::Readiness;
use crate::telemetry::metrics::{self, Metrics};
use crate::webhook::Sources;

mod access;
mod audit;
mod bulk;
pub(crate) mod cursor;
mod dead;
mod documents;
mod filter;
mod gate;
mod jobs;
mod judge;
mod lapsed;
mod picked;
mod records;
mod view;
mod webhooks;

pub(crate) use documents::Reached;
pub(crate) use filter::Parameters;
pub(crate) use gate::AdminGate;
pub(crate) use records::storage as storage_refused;

/// What all handlers share. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Admin(Arc<Shared>);

pub(crate) struct Shared {
    store: Arc<dyn Store>,
    ledger: Ledger,
    jobs: Jobs,
    metrics: Metrics,
    readiness: Readiness,
    sources: Sources,
    /// The doors and the admin side, for the document that names them.
    listening: [Reached; 2],
    stopping: CancellationToken,
}

impl std::ops::Deref for Admin {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The ids of a request, which the gate found out.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    request_id: Arc<str>,
    correlation_id: Arc<str>,
}

impl Admin {
    /// The admin side of this ledger.
    pub(crate) fn new(
        ledger: Ledger,
        jobs: Jobs,
        metrics: Metrics,
        readiness: Readiness,
        sources: Sources,
        listening: [Reached; 2],
        stopping: CancellationToken,
    ) -> Self {
        let store = Arc::clone(ledger.store());
        Self(Arc::new(Shared { store, ledger, jobs, metrics, readiness, sources, listening, stopping }))
    }

    /// The routes, without the gate.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/v1/records", get(records::list))
            .route("/v1/records/resolve", post(bulk::resolve))
            .route("/v1/records/revive", post(bulk::revive))
            .route("/v1/records/discard", post(bulk::discard))
            .route("/v1/records/{id}", get(records::show))
            .route("/v1/records/{id}/resolve", post(records::resolve))
            .route("/v1/records/{id}/revive", post(records::revive))
            .route("/v1/records/{id}/discard", post(records::discard))
            .route("/v1/dead", get(dead::list))
            .route("/v1/dead/groups", get(dead::group))
            .route("/v1/dead/revive", post(dead::revive_many))
            .route("/v1/dead/discard", post(dead::discard_many))
            .route("/v1/dead/{id}", get(dead::show))
            .route("/v1/dead/{id}/revive", post(dead::revive))
            .route("/v1/dead/{id}/discard", post(dead::discard))
            .route("/v1/webhooks/{source}/verify", post(webhooks::verify))
            .route("/v1/jobs", get(jobs::list))
            .route("/v1/jobs/{type}/runs", get(jobs::history))
            .route("/v1/jobs/{type}/release", post(jobs::release))
            .route("/v1/audit", get(audit::list))
            .route("/metrics", get(scrape))
            .route(documents::OPENAPI, get(documents::openapi))
            .route(documents::DOCS, get(documents::redirect))
            .route("/docs/", get(documents::index))
            .route("/docs/{*path}", get(documents::asset))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .fallback(|| async { Refusal::from(ErrorCode::NotFound) })
            .method_not_allowed_fallback(|| async { Refusal::from(ErrorCode::MethodNotAllowed) })
            .with_state(self.clone())
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

async fn scrape(State(admin): State<Admin>) -> Response {
    let text = admin.metrics.scrape(&*admin.store).await;
    ([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response()
}

async fn health() -> Result<Response, Refusal> {
    let version = Some(env!("CARGO_PKG_VERSION").to_owned());
    json(StatusCode::OK, &Health { status: HealthStatus::Ok, store: None, reason: None, version })
}

async fn ready(State(admin): State<Admin>) -> Response {
    door::readiness(&admin.readiness).await
}

/// A JSON answer.
fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ApiError::new(ErrorCode::Internal)
    })?;
    let json = HeaderValue::from_static("application/json");
    Ok((status, [(header::CONTENT_TYPE, json)], body).into_response())
}

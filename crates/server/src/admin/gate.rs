//! What stands before every admin route: ids, tokens, the form of errors, headers that harden a browser, the log line.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use semel_api::{ErrorCode, Form};
use tower_service::Service as _;

use super::access::Access;
use super::{Admin, Ids, documents};
use crate::config::Config;
use crate::door::{
    REQUEST_ID, Refusal, RequestIds, accepted_form, check_head, id_header, panic_text, usual_form,
    write_refusal,
};
use crate::telemetry::logs::RequestLine;
use crate::telemetry::metrics::{Door, Metrics};
use crate::telemetry::traces::{Place, Traces};

/// The gate. A clone is another handle.
#[derive(Clone)]
pub(crate) struct AdminGate(Arc<Inner>);

struct Inner {
    router: Router,
    ids: RequestIds,
    usual_form: Form,
    docs_base: String,
    access: ArcSwap<Access>,
    metrics: Metrics,
    traces: Traces,
}

impl AdminGate {
    /// A gate before the admin routes. `process` is 64 random bits.
    pub(crate) fn new(config: &Config, admin: &Admin, traces: Traces, process: u64) -> Self {
        Self(Arc::new(Inner {
            router: admin.router(),
            ids: RequestIds::new(process),
            usual_form: usual_form(config),
            docs_base: config.server.error_docs_base.clone(),
            access: ArcSwap::from_pointee(Access::new(&config.admin.tokens)),
            metrics: admin.metrics.clone(),
            traces,
        }))
    }

    /// Takes over the tokens of a configuration that was read again.
    pub(crate) fn reload(&self, config: &Config) {
        self.0.access.store(Arc::new(Access::new(&config.admin.tokens)));
    }
}

impl hyper::service::Service<Request<Incoming>> for AdminGate {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.pass(request.map(Body::new)).await) })
    }
}

/// What browsers are told about every answer: nothing of it is to be framed, guessed at or kept.
const HARDENING: [(HeaderName, &str); 5] = [
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (http::header::X_FRAME_OPTIONS, "DENY"),
    (http::header::REFERRER_POLICY, "no-referrer"),
    (http::header::CACHE_CONTROL, "no-store"),
    (http::header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

impl Inner {
    async fn pass(&self, request: Request<Body>) -> Response {
        let started = Instant::now();
        let (request_id, correlation_id) = self.ids.of(request.headers());
        let form = accepted_form(request.headers(), self.usual_form);
        let method = request.method().clone();
        let (route, is_open) = route_name(request.uri().path());
        let headers = request.headers();
        let mut place = if is_quiet(route) { Place::untold(headers) } else { self.traces.place(headers) };
        let ids = Ids { request_id: Arc::clone(&request_id), correlation_id: Arc::clone(&correlation_id) };
        let mut response = match check_head(&request) {
            Ok(()) => self.admit(request, is_open, ids).await,
            Err(error) => Refusal::from(error).into_response(),
        };
        let code = write_refusal(&mut response, form, &self.docs_base, &request_id);
        let headers = response.headers_mut();
        for (name, value) in HARDENING {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if let Some(id) = id_header(&request_id) {
            headers.insert(REQUEST_ID, id);
        }
        // Probes and scrapes come all the time, and say nothing while they succeed.
        if !(is_quiet(route) && response.status().is_success()) {
            let took = started.elapsed();
            self.metrics.operation("").request(Door::Admin, response.status().as_u16(), took, place.trace);
            place.tell(&RequestLine {
                door: Door::Admin.as_str(),
                method: method.as_str(),
                route,
                status: response.status().as_u16(),
                took,
                code: code.map(ErrorCode::as_str),
                request_id: &request_id,
                correlation_id: Some(&correlation_id),
                ..RequestLine::default()
            });
        }
        response
    }

    async fn admit(&self, mut request: Request<Body>, is_open: bool, ids: Ids) -> Response {
        if !is_open {
            let authority = request.uri().authority().cloned();
            match self.access.load().authenticate(request.headers(), authority.as_ref()) {
                Ok(operator) => {
                    request.extensions_mut().insert(operator);
                }
                Err(error) => return Refusal::from(error).into_response(),
            }
        }
        request.extensions_mut().insert(ids);
        let mut router = self.router.clone();
        match AssertUnwindSafe(router.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "an admin handler has panicked");
                Refusal::from(ErrorCode::Internal).into_response()
            }
        }
    }
}

const fn is_quiet(route: &str) -> bool {
    matches!(route.as_bytes(), b"/healthz" | b"/readyz" | b"/metrics")
}

/// What the log calls a path, and whether everybody may have it: health, for orchestrators, and the documentation,
/// since a browser sends no token for a page, and nothing in it is ours to hide.
fn route_name(path: &str) -> (&'static str, bool) {
    match path {
        "/healthz" => ("/healthz", true),
        "/readyz" => ("/readyz", true),
        documents::OPENAPI => (documents::OPENAPI, true),
        documents::DOCS => (documents::DOCS, true),
        _ if path.strip_prefix(documents::DOCS).is_some_and(|rest| rest.starts_with('/')) => {
            (documents::DOCS, true)
        }
        "/metrics" => ("/metrics", false),
        "/v1/audit" => ("/v1/audit", false),
        "/v1/records" => ("/v1/records", false),
        "/v1/records/resolve" => ("/v1/records/resolve", false),
        "/v1/records/revive" => ("/v1/records/revive", false),
        "/v1/records/discard" => ("/v1/records/discard", false),
        "/v1/dead" => ("/v1/dead", false),
        "/v1/dead/groups" => ("/v1/dead/groups", false),
        "/v1/dead/revive" => ("/v1/dead/revive", false),
        "/v1/dead/discard" => ("/v1/dead/discard", false),
        _ if path.starts_with("/v1/dead/") => match path.rsplit('/').next() {
            Some("revive") => ("/v1/dead/{id}/revive", false),
            Some("discard") => ("/v1/dead/{id}/discard", false),
            _ => ("/v1/dead/{id}", false),
        },
        _ if path.starts_with("/v1/webhooks/") && path.ends_with("/verify") => {
            ("/v1/webhooks/{source}/verify", false)
        }
        "/v1/jobs" => ("/v1/jobs", false),
        _ if path.starts_with("/v1/jobs/") => match path.rsplit('/').next() {
            Some("runs") => ("/v1/jobs/{type}/runs", false),
            Some("release") => ("/v1/jobs/{type}/release", false),
            _ => ("(none)", false),
        },
        _ if path.starts_with("/v1/records/") => match path.rsplit('/').next() {
            Some("resolve") => ("/v1/records/{id}/resolve", false),
            Some("revive") => ("/v1/records/{id}/revive", false),
            Some("discard") => ("/v1/records/{id}/discard", false),
            _ => ("/v1/records/{id}", false),
        },
        _ => ("(none)", false),
    }
}

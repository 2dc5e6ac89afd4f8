//! What stands before every route of a listener: ids, the bound on requests in progress, tokens, rates, the form of
//! errors, and the log line. Nothing behind it is reached without it.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use semel_api::{ApiError, ErrorCode, Form};
use semel_core::Key;
use semel_core::id::Tenant;
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service as _;

use super::caller::{self, Caller, RequestIds};
use super::refusal::{self, Refusal};
use super::tenants::Tenants;
use super::{Doors, Seen, execute, webhooks};
use crate::config::{Config, ErrorStyle};
use crate::listen::Origin;
use crate::room::Room;
use crate::telemetry::logs::RequestLine;
use crate::telemetry::metrics::{Door, Metrics};
use crate::telemetry::traces::{Place, Traces};
use crate::webhook::TENANT;

/// Answered to everybody, token or not, busy or not: orchestrators ask it.
pub(crate) const HEALTH: &str = "/healthz";
/// As [`HEALTH`].
pub(crate) const READY: &str = "/readyz";

/// The gate. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    doors: Doors,
    router: Router,
    ids: RequestIds,
    usual_form: Form,
    docs_base: String,
    tenants: ArcSwap<Tenants>,
    /// Whose the records of webhooks are.
    partners: Tenant,
    room: Room,
    metrics: Metrics,
    traces: Traces,
}

impl Gate {
    /// A gate before these doors. `process` is 64 random bits.
    ///
    /// # Errors
    /// A tenant's name is none.
    pub(crate) fn new(
        config: &Config,
        doors: &Doors,
        metrics: Metrics,
        traces: Traces,
        process: u64,
    ) -> Result<Self, semel_core::Invalid> {
        Ok(Self(Arc::new(Inner {
            router: doors.router(),
            doors: doors.clone(),
            ids: RequestIds::new(process),
            usual_form: usual_form(config),
            docs_base: config.server.error_docs_base.clone(),
            tenants: ArcSwap::from_pointee(Tenants::new(&config.tenants, None)?),
            partners: Tenant::try_new(TENANT)?,
            room: Room::new(config.server.in_progress_max),
            metrics,
            traces,
        })))
    }

    /// As hyper wants it. Its future is no box: hyper has room for it in the connection.
    pub(crate) fn service(
        &self,
        origin: Origin,
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
    + use<> {
        let inner = Arc::clone(&self.0);
        service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.pass(request, origin).await) }
        })
    }

    /// Takes over the tenants of a configuration that was read again.
    ///
    /// # Errors
    /// A tenant's name is none.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), semel_core::Invalid> {
        let before = self.0.tenants.load();
        let tenants = Tenants::new(&config.tenants, Some(&before))?;
        self.0.tenants.store(Arc::new(tenants));
        Ok(())
    }
}

impl Inner {
    async fn pass(&self, request: Request<Incoming>, origin: Origin) -> Response {
        let started = Instant::now();
        let (request_id, correlation_id) = self.ids.of(request.headers());
        let form = caller::form(request.headers(), self.usual_form);
        let method = request.method().clone();
        let mut told = HeaderMap::new();
        let mut seen = Seen::default();
        let is_probe = matches!(request.uri().path(), HEALTH | READY);
        let headers = request.headers();
        let mut place = if is_probe { Place::default() } else { self.traces.place(headers) };
        let (route, tenant, mut response) = if let Err(error) = caller::check_head(&request) {
            (route_name(request.uri().path()), None, Refusal::from(error).into_response())
        } else if is_probe {
            (HEALTH, None, caught(pin!(self.routed(request.map(Body::new)))).await)
        } else if webhooks::source_of(request.uri().path()).is_some() {
            // A partner proves itself to its source, and has no tenant's token.
            let caller = Caller {
                request_id: Arc::clone(&request_id),
                correlation_id: Arc::clone(&correlation_id),
                tenant: self.partners.clone(),
                traceparent: place.traceparent.take(),
            };
            (webhooks::ROUTE, None, self.deliver(request, caller, origin, &mut told, &mut seen).await)
        } else {
            let route = route_name(request.uri().path());
            match self.admit(request.headers(), &mut told).await {
                Err(error) => (route, None, Refusal::from(error).into_response()),
                Ok((permit, tenant)) => {
                    let caller = Caller {
                        request_id: Arc::clone(&request_id),
                        correlation_id: Arc::clone(&correlation_id),
                        tenant: tenant.clone(),
                        traceparent: place.traceparent.take(),
                    };
                    let response = self.answer(request, caller, &mut seen).await;
                    drop(permit);
                    (route, Some(tenant), response)
                }
            }
        };
        let code = refusal::write(&mut response, form, &self.docs_base, &request_id);
        response.headers_mut().extend(told);
        if let Some(id) = caller::id_header(&request_id) {
            response.headers_mut().insert(caller::REQUEST_ID, id);
        }
        if !is_probe {
            let took = started.elapsed();
            let operation = self.metrics.operation(seen.operation.as_deref().unwrap_or(""));
            operation.request(door_of(route), response.status().as_u16(), took, place.trace);
            place.tell(&RequestLine {
                door: door_of(route).as_str(),
                method: method.as_str(),
                route,
                status: response.status().as_u16(),
                took,
                code: code.map(ErrorCode::as_str),
                tenant: tenant.as_ref().map(Tenant::as_str),
                // Its label: a name that is not configured is a part of a body, and no body is logged.
                operation: seen.operation.is_some().then(|| operation.name()),
                key: seen.key.as_ref().map(Key::as_str),
                record: seen.record.as_deref(),
                is_retry: seen.is_retry,
                request_id: &request_id,
                correlation_id: Some(&correlation_id),
            });
        }
        response
    }

    /// Lets a request in: not too many at once, a tenant's, and within its rate.
    async fn admit(
        &self,
        headers: &HeaderMap,
        told: &mut HeaderMap,
    ) -> Result<(OwnedSemaphorePermit, Tenant), ApiError> {
        let permit = self.room.enter().await?;
        let tenant = self.tenants.load().authenticate(headers)?;
        tenant.admit(told)?;
        Ok((permit, tenant.name.clone()))
    }

    /// The answer to a partner.
    async fn deliver(
        &self,
        request: Request<Incoming>,
        caller: Caller,
        origin: Origin,
        told: &mut HeaderMap,
        seen: &mut Seen,
    ) -> Response {
        if request.method() != Method::POST {
            return execute::other_method().into_response();
        }
        let _place = match self.room.enter().await {
            Ok(place) => place,
            Err(error) => return Refusal::from(error).into_response(),
        };
        let source = webhooks::source_of(request.uri().path()).and_then(|name| self.doors.sources.get(name));
        let Some(source) = source else { return Refusal::from(webhooks::unknown()).into_response() };
        // Nothing else of it is kept: it is all slices of the connection's read buffer.
        let (Parts { headers, .. }, body) = request.into_parts();
        let delivered = webhooks::Delivered { source, address: origin.address.ip(), headers, body };
        // In a box of its own: it is large, and the busiest door must not carry its room about.
        caught(Box::pin(webhooks::take(&self.doors, &caller, delivered, told, seen)).as_mut()).await
    }

    /// The answer of the door that is asked for.
    async fn answer(&self, request: Request<Incoming>, caller: Caller, seen: &mut Seen) -> Response {
        // The busiest door is entered straight, past the routes and the boxes that they make for every request.
        if request.uri().path() == execute::PATH {
            if request.method() != Method::POST {
                return execute::other_method().into_response();
            }
            // Nothing else of it is kept: it is all slices of the connection's read buffer.
            let (Parts { headers, .. }, body) = request.into_parts();
            let executed = pin!(execute::execute(&self.doors, &caller, headers, body, seen));
            return caught(executed).await;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller);
        let mut response = caught(pin!(self.routed(request))).await;
        if let Some(noted) = response.extensions_mut().remove() {
            *seen = noted;
        }
        response
    }

    async fn routed(&self, request: Request<Body>) -> Response {
        match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A door's answer. A panic is an answer, too, with nothing of it but its code. Pinned where it is made, since it has some
/// thousand bytes, which each hand that it went through would copy.
async fn caught<T: IntoResponse>(answer: Pin<&mut impl Future<Output = T>>) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.into_response(),
        Err(panic) => {
            tracing::error!(panic = panic_text(&*panic), "a handler has panicked");
            Refusal::from(ErrorCode::Internal).into_response()
        }
    }
}

/// How errors are written when the client does not say.
pub(crate) const fn usual_form(config: &Config) -> Form {
    match config.server.errors {
        ErrorStyle::Envelope => Form::Envelope,
        ErrorStyle::Flat => Form::Flat,
        ErrorStyle::Problem => Form::Problem,
    }
}

/// What a panic said, for the log.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// What the log calls a path: the route that it matches, never the path itself, which may hold keys.
fn route_name(path: &str) -> &'static str {
    match path {
        HEALTH => HEALTH,
        READY => READY,
        execute::PATH => execute::PATH,
        "/v1/claims" => "/v1/claims",
        _ if path.starts_with(super::executions::PREFIX) => "/v1/idempotency/executions/{key}",
        _ if path.starts_with("/v1/claims/") => match path.rsplit('/').next() {
            Some("extend") => "/v1/claims/{id}/extend",
            Some("checkpoints") => "/v1/claims/{id}/checkpoints",
            Some("complete") => "/v1/claims/{id}/complete",
            Some("release") => "/v1/claims/{id}/release",
            _ => "(none)",
        },
        "/v1/jobs" => "/v1/jobs",
        _ if path.starts_with(super::jobs::PREFIX) => job_route(path),
        _ => "(none)",
    }
}

fn job_route(path: &str) -> &'static str {
    let mut parts = path[super::jobs::PREFIX.len()..].split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("runs"), None, None, None) => "/v1/jobs/{type}/runs",
        (Some("runs"), Some(_), None, None) => "/v1/jobs/{type}/runs/{run}",
        (Some("runs"), Some(_), Some("heartbeat"), None) => "/v1/jobs/{type}/runs/{run}/heartbeat",
        (Some("runs"), Some(_), Some("complete"), None) => "/v1/jobs/{type}/runs/{run}/complete",
        (Some("runs"), Some(_), Some("fail"), None) => "/v1/jobs/{type}/runs/{run}/fail",
        _ => "(none)",
    }
}

/// The label of a route.
fn door_of(route: &str) -> Door {
    match route {
        execute::PATH => Door::Execute,
        webhooks::ROUTE => Door::Webhooks,
        "/v1/idempotency/executions/{key}" => Door::Executions,
        _ if route.starts_with("/v1/claims") => Door::Claims,
        _ if route.starts_with("/v1/jobs") => Door::Jobs,
        _ => Door::Other,
    }
}

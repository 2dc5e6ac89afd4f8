//! Where clients come in: a request's route, what it has to be, who passes it on, and what is told about it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use semel_api::{ApiError, ErrorCode};
use tokio::time::Instant as Clock;

use super::body::{Outgoing, Reply};
use super::head::{self, Peer};
use super::table::{Route, Table};
use super::upstream::{Failed, Sent, Times, Upgrading, Upstream};
use super::{Gateway, Inner, usual_form};
use crate::door::{REQUEST_ID, Refusal, accepted_form, id_header, traceparent, write_refusal};
use crate::limits;
use crate::telemetry::logs::{self, RequestLine};
use crate::telemetry::metrics::{Door, TraceId};

/// Serves one connection. A clone serves another stream of it.
#[derive(Clone)]
pub(crate) struct Front {
    gateway: Gateway,
    peer: Arc<Peer>,
}

impl Front {
    pub(super) fn new(gateway: Gateway, peer: Peer) -> Self {
        Self { gateway, peer: Arc::new(peer) }
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.gateway.0.pass(&front.peer, request).await) })
    }
}

impl Inner {
    async fn pass(&self, peer: &Peer, mut request: Request<Incoming>) -> Response {
        let started = Instant::now();
        let table = self.table.load_full();
        let (request_id, correlation_id) = self.ids.of(request.headers());
        let (method, version) = (request.method().clone(), request.version());
        let trace = traceparent(request.headers()).and_then(TraceId::of);
        let host = head::settle_host(&mut request);
        let name = host.as_ref().ok().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (route, upstream) = table.find(&method, head::without_port(name), request.uri().path());
        let form = accepted_form(request.headers(), usual_form(route.rules.profile));
        if !request.headers().contains_key(REQUEST_ID)
            && let Some(id) = id_header(&request_id)
        {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        let answered = match host {
            Err(error) => Err(error),
            Ok(host) => self.admit(&table, route, upstream, peer, &host, request).await,
        };
        let mut response = answered.unwrap_or_else(|error| Refusal::from(error).into_response());
        let code = write_refusal(&mut response, form, &self.docs_base, &request_id);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            head::to_client(response.headers_mut(), version);
        }
        if !response.headers().contains_key(REQUEST_ID)
            && let Some(id) = id_header(&request_id)
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let took = started.elapsed();
        route.metrics.request(Door::Gateway, response.status().as_u16(), took, trace);
        logs::request(&RequestLine {
            door: Door::Gateway.as_str(),
            method: method.as_str(),
            route: &route.name,
            status: response.status().as_u16(),
            took,
            code: code.map(ErrorCode::as_str),
            tenant: None,
            operation: None,
            key: None,
            record: None,
            is_retry: None,
            request_id: &request_id,
            correlation_id: Some(&correlation_id),
        });
        response
    }

    /// Lets a request in, and passes it on.
    async fn admit(
        &self,
        table: &Table,
        route: &Route,
        upstream: Option<&Arc<Upstream>>,
        peer: &Peer,
        host: &HeaderValue,
        mut request: Request<Incoming>,
    ) -> Result<Response, ApiError> {
        // Nothing waits here: a queue without an end is only a slower way to fail.
        let _permit = self.in_progress.try_acquire().map_err(|_| {
            ApiError::new(ErrorCode::Overloaded).with_retry_after(limits::RETRY_AFTER_OVERLOAD)
        })?;
        head::check(&request)?;
        let upstream = upstream.ok_or(ErrorCode::NotFound)?;
        let upgrade = head::wanted_upgrade(&request).map(|_| hyper::upgrade::on(&mut request));
        head::to_upstream(&mut request, peer, host, table.config.forwarded)?;
        self.plain(route, upstream, request, upgrade).await
    }

    /// Passes a request on that nothing is promised for.
    async fn plain(
        &self,
        route: &Route,
        upstream: &Arc<Upstream>,
        request: Request<Incoming>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response, ApiError> {
        let rules = &route.rules;
        let (mut parts, incoming) = request.into_parts();
        parts.extensions.clear();
        if upgrade.is_some() {
            parts.extensions.insert(Upgrading);
        }
        let outgoing = Outgoing::of(incoming, rules.idle_within);
        settle_length(&mut parts.headers, &parts.method, &outgoing);
        let times = Times {
            first_byte: rules.first_byte_within,
            deadline: rules.whole_within.map(|within| Clock::now() + within),
        };
        let exchanged = upstream.exchange(Request::from_parts(parts, outgoing), times).await;
        let (mut response, lent) = exchanged.map_err(|failed| told(&route.name, &failed))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                return Err(told(
                    &route.name,
                    &Failed::lost("it changes the protocol, and nobody asked it to"),
                ));
            };
            self.tunnels.tie(client, &mut response, lent);
            return Ok(response.map(|_| Body::empty()));
        }
        Ok(response.map(|incoming| Body::new(Reply::new(incoming, lent, rules.idle_within, times.deadline))))
    }
}

/// A length that the client has given stays only where it is the body's own: two servers that read different lengths
/// take one request for two.
fn settle_length(headers: &mut HeaderMap, method: &Method, body: &Outgoing) {
    use http_body::Body as _;
    let exact = body.size_hint().exact();
    let expects_a_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    match exact {
        Some(length) if length > 0 || expects_a_body => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

/// What a client is told of an exchange without an answer.
pub(super) fn told(route: &str, failed: &Failed) -> ApiError {
    tracing::warn!(route, detail = failed.detail, timed_out = failed.timed_out, "an upstream gave no answer");
    match failed.sent {
        Sent::Nothing(_) | Sent::NothingButSpent => {
            ApiError::new(ErrorCode::TargetUnavailable).with_retry_after(limits::RETRY_AFTER_TARGET)
        }
        Sent::Something if failed.timed_out => ApiError::new(ErrorCode::OutcomeUnknown).with_status(504),
        Sent::Something => ErrorCode::OutcomeUnknown.into(),
    }
}

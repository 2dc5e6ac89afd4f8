//! Where clients come in: a request's route, what it has to be, who passes it on, and what is told about it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use semel_api::{ApiError, ErrorCode};

use super::body::Outgoing;
use super::guard;
use super::head::{self, Peer};
use super::passage::{Passage, told};
use super::table::Route;
use super::told::Asked;
use super::upstream::{Failed, Upgrading, Upstream};
use super::{Gateway, Inner, usual_form};
use crate::config::gateway::{Contract, ForwardedStyle};
use crate::door::{REQUEST_ID, Refusal, TRACEPARENT, accepted_form, check_size, id_header, write_refusal};
use crate::engine::Link;
use crate::limits;
use crate::telemetry::logs::RequestLine;
use crate::telemetry::metrics::Door;
use crate::telemetry::traces::Place;

/// Serves one connection. Its futures are no boxes: hyper has room for them in the connection.
pub(super) fn service(
    gateway: Gateway,
    peer: Peer,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
+ Send
+ 'static {
    let peer = Arc::new(peer);
    service_fn(move |request| {
        let (gateway, peer) = (gateway.clone(), Arc::clone(&peer));
        async move { Ok(gateway.0.pass(&peer, request).await) }
    })
}

/// What is known of a request by its head.
struct Arrival<'a> {
    route: &'a Route,
    upstream: Option<&'a Arc<Upstream>>,
    peer: &'a Peer,
    style: ForwardedStyle,
    asked: Arc<Asked>,
}

/// What is told of a request, once. One that is dropped before has been left by its client.
struct Line<'a> {
    route: &'a Route,
    asked: &'a Asked,
    method: &'a Method,
    place: Place,
    request_id: &'a str,
    correlation_id: &'a str,
    started: Instant,
    is_told: bool,
}

impl Line<'_> {
    fn tell(&mut self, status: u16, code: Option<ErrorCode>) {
        self.is_told = true;
        let took = self.started.elapsed();
        self.route.metrics.request(Door::Gateway, status, took, self.place.trace.take());
        let (record, is_retry) = self.asked.seen().map(|(record, is_retry)| (&**record, *is_retry)).unzip();
        self.place.tell(&RequestLine {
            door: Door::Gateway.as_str(),
            method: self.method.as_str(),
            route: &self.route.name,
            status,
            took,
            code: code.map(ErrorCode::as_str),
            tenant: None,
            operation: None,
            key: record.map(|record| record.request().key().as_str()),
            record,
            is_retry,
            request_id: self.request_id,
            correlation_id: Some(self.correlation_id),
        });
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(limits::STATUS_CLIENT_GONE, None);
        }
    }
}

impl Inner {
    async fn pass(&self, peer: &Peer, mut request: Request<Incoming>) -> Response {
        let started = Instant::now();
        let table = self.table.load_full();
        let (request_id, correlation_id) = self.ids.of(request.headers());
        let (method, version) = (request.method().clone(), request.version());
        let mut place = self.traces.place(request.headers());
        let host = head::settle_host(&mut request);
        let name = host.as_ref().ok().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (route, upstream) = table.find(&method, head::without_port(name), request.uri().path());
        let form = accepted_form(request.headers(), usual_form(&route.rules));
        if !request.headers().contains_key(REQUEST_ID)
            && let Some(id) = id_header(&request_id)
        {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        let on_behalf = Link {
            request_id: Some(Arc::clone(&request_id)),
            correlation_id: Some(Arc::clone(&correlation_id)),
            traceparent: place.traceparent.clone(),
            ..Link::default()
        };
        let asked = Asked::new(on_behalf, upstream.map(|upstream| Arc::clone(upstream.service())));
        // What the upstream does is a part of our span, which is a part of the client's trace.
        if place.is_own()
            && let Some(own) = place.traceparent.take()
        {
            request.headers_mut().insert(TRACEPARENT, own);
        }
        let mut line = Line {
            route,
            asked: &asked,
            method: &method,
            place,
            request_id: &request_id,
            correlation_id: &correlation_id,
            started,
            is_told: false,
        };
        let answered = match host {
            Err(error) => Err(error),
            Ok(host) => {
                let style = table.config.forwarded;
                let arrival = Arrival { route, upstream, peer, style, asked: Arc::clone(&asked) };
                self.admit(&arrival, &host, request).await
            }
        };
        let mut response = answered.unwrap_or_else(|error| Refusal::from(error).into_response());
        let code = write_refusal(&mut response, form, &self.docs_base, &request_id);
        if let Some(code) = code {
            head::link(response.headers_mut(), code, &self.docs_base);
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            head::to_client(response.headers_mut(), version);
        }
        if !response.headers().contains_key(REQUEST_ID)
            && let Some(id) = id_header(&request_id)
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        line.tell(response.status().as_u16(), code);
        response
    }

    /// Lets a request in, and passes it on.
    async fn admit(
        &self,
        arrival: &Arrival<'_>,
        host: &HeaderValue,
        mut request: Request<Incoming>,
    ) -> Result<Response, ApiError> {
        let Arrival { route, upstream, peer, style, .. } = *arrival;
        // Held by the client's wait, by the work that goes on without it, and by what is still on its way back.
        let place = Arc::new(self.room.enter().await?);
        check_size(&request)?;
        head::check(&request)?;
        let upstream = Arc::clone(upstream.ok_or(ErrorCode::NotFound)?);
        let mut passage = Passage {
            upstream,
            rules: Arc::clone(&route.rules),
            route: Arc::clone(&route.name),
            upload: None,
            stopping: self.tunnels.stopping.clone(),
            place: Arc::clone(&place),
        };
        let is_keyed = guard::is_keyed(&request);
        let rule = route.rule.as_ref().filter(|rule| rule.concerns(request.method()));
        if rule.is_some() {
            route.keys.seen(is_keyed);
        }
        let Some(rule) = rule.filter(|rule| rule.needs(is_keyed)) else {
            let upgrade = head::wanted_upgrade(&request).map(|_| hyper::upgrade::on(&mut request));
            head::to_upstream(&mut request, peer, host, style, upgrade.is_some())?;
            return self.plain(&passage, request, upgrade).await;
        };
        head::to_upstream(&mut request, peer, host, style, false)?;
        // Where the contract is kept nothing has begun before the whole request is there: a stop waits for no rest of it.
        let is_kept = route.rules.contract == Contract::Kept;
        let within = if is_kept { Duration::ZERO } else { limits::STREAMS_END_WITHIN };
        let (idle, stopping) = (route.rules.idle_within, &self.tunnels.stopping);
        let mut request = request.map(|incoming| Outgoing::of(incoming, idle, stopping, within));
        let upload = request.body().upload();
        passage.upload.clone_from(&upload);
        rule.prepare(&mut request, &route.rules, passage, Arc::clone(&arrival.asked));
        let response = self.guard.call(request).await;
        if is_kept && upload.is_some_and(|upload| upload.was_cut()) {
            return Err(ApiError::new(ErrorCode::Overloaded)
                .with_message("The server is stopping, and the request had not arrived whole")
                .with_retry_after(limits::RETRY_AFTER_OVERLOAD));
        }
        Ok(response.map(Body::new))
    }

    /// Passes a request on that nothing is promised for.
    async fn plain(
        &self,
        passage: &Passage,
        request: Request<Incoming>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response, ApiError> {
        let (mut parts, incoming) = request.into_parts();
        parts.extensions.clear();
        // A part of it is with the upstream: it has a while to end, as streams have.
        let (idle, stopping) = (passage.rules.idle_within, &passage.stopping);
        let outgoing = Outgoing::of(incoming, idle, stopping, limits::STREAMS_END_WITHIN);
        let failed = |failed: Failed| told(&passage.route, &failed);
        let Some(client) = upgrade else {
            let (response, reply) =
                passage.pass(Request::from_parts(parts, outgoing)).await.map_err(failed)?;
            return Ok(response.map(|()| Body::new(reply)));
        };
        parts.extensions.insert(Upgrading);
        let exchanged = passage.exchange(Request::from_parts(parts, outgoing)).await;
        let (mut response, lent, times) = exchanged.map_err(failed)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let idle = passage.rules.upgrade_idle_within;
            self.tunnels.tie(client, &mut response, lent, idle, Arc::clone(&passage.place));
            return Ok(response.map(|_| Body::empty()));
        }
        let (response, reply) = passage.reply(response, lent, times);
        Ok(response.map(|()| Body::new(reply)))
    }
}

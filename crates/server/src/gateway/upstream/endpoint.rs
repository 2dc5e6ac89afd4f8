//! One address of an upstream: idle connections, how new ones are made, and how busy it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::{Address, Connector, Opened};
use super::health::Health;
use super::http1::Http1;
use super::http2::Http2;
use super::{Failed, Sent, Times, Upgrading};
use crate::config::gateway::{Protocol, UpstreamConfig};
use crate::gateway::body::{Outgoing, Progress};
use crate::limits;

/// One address.
pub(in crate::gateway) struct Endpoint {
    /// As it stands in metrics and logs: `http://10.0.0.1:9000`.
    name: String,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    preserve_host: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    address: Address,
    connector: Arc<Connector>,
    idle: Mutex<Vec<(Instant, Http1)>>,
    shared: Mutex<Vec<Http2>>,
    /// One new HTTP/2 connection at a time: those who wait for it share it.
    opening: tokio::sync::Mutex<()>,
    in_flight: AtomicUsize,
    health: Health,
}

/// A connection that is lent to an exchange. When it is dropped, the connection is closed or left to others, as its
/// protocol has it; when it is given back, it serves the next request.
pub(in crate::gateway) struct Lent {
    endpoint: Arc<Endpoint>,
    connection: Option<Http1>,
}

impl Lent {
    /// The answer came whole.
    pub(in crate::gateway) fn give_back(mut self) {
        // One that is still busy with the request (it was answered before its end) is closed.
        if let Some(mut connection) = self.connection.take()
            && connection.is_usable()
        {
            let mut idle = self.endpoint.idle.lock();
            if idle.len() < limits::UPSTREAM_CONNECTIONS_IDLE_MAX {
                idle.push((Instant::now(), connection));
            }
        }
    }

    /// Moves what can be moved on the connection, where nobody else does.
    pub(in crate::gateway) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
    }

    /// The connection goes on by itself, in another protocol.
    pub(in crate::gateway) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.detach();
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// An address of an upstream.
    pub(super) fn new(config: &UpstreamConfig, url: &Uri, connector: &Arc<Connector>) -> Arc<Self> {
        let scheme = url.scheme().cloned().unwrap_or(Scheme::HTTP);
        let authority = url.authority().cloned().unwrap_or_else(|| Authority::from_static("localhost"));
        let sensitive = |(name, secret): &(HeaderName, crate::config::Secret)| {
            let mut value = HeaderValue::from_str(secret.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        };
        Arc::new(Self {
            name: format!("{scheme}://{authority}"),
            host: HeaderValue::from_str(authority.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            preserve_host: config.preserve_host,
            headers: config.headers.iter().filter_map(sensitive).collect(),
            address: Address::new(&scheme, &authority, config.protocol, config.connect_within),
            scheme,
            authority,
            connector: Arc::clone(connector),
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            in_flight: AtomicUsize::new(0),
            health: Health::new(&config.health),
        })
    }

    /// As it stands in metrics and logs.
    pub(in crate::gateway) fn name(&self) -> &str {
        &self.name
    }

    /// Whether requests should go there.
    pub(in crate::gateway) fn is_well(&self) -> bool {
        self.health.is_well()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// Sends a request over a connection that is open, or over a new one where there is none, or where those that
    /// were open turn out to be closed before anything was written.
    pub(super) async fn exchange(
        self: Arc<Self>,
        request: Request<Outgoing>,
        times: Times,
    ) -> Result<(Response<Incoming>, Lent), Failed> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut lent = Lent { endpoint: Arc::clone(&self), connection: None };
        let mut request = request;
        if self.address.may_speak_http2()
            && request.extensions().get::<Upgrading>().is_none()
            && let Some(shared) = self.share()
        {
            match self.over_http2(&shared, request, times).await {
                Err(Failed { sent: Sent::Nothing(again), .. }) => request = *again,
                answered => return answered.map(|response| (response, lent)),
            }
        }
        while let Some(connection) = self.take_idle() {
            match self.over_http1(connection, request, times).await {
                Ok((response, connection)) => {
                    lent.connection = connection;
                    return Ok((response, lent));
                }
                Err(Failed { sent: Sent::Nothing(again), .. }) => request = *again,
                Err(failed) => return Err(failed),
            }
        }
        // On the heap: to open one is rare, and its room would be copied about with every request.
        Box::pin(self.over_a_new_one(request, times, lent)).await
    }

    async fn over_a_new_one(
        &self,
        request: Request<Outgoing>,
        times: Times,
        mut lent: Lent,
    ) -> Result<(Response<Incoming>, Lent), Failed> {
        let protocol = match request.extensions().get::<Upgrading>() {
            Some(Upgrading) => Protocol::Http1,
            None => self.address.protocol(),
        };
        let only_one = match protocol {
            Protocol::Http2 => Some(self.opening.lock().await),
            Protocol::Auto | Protocol::Http1 => None,
        };
        // Somebody else may have opened one meanwhile.
        let shared = only_one.as_ref().and_then(|_| self.share());
        let opened = match shared {
            Some(shared) => Ok(Opened::Http2(shared)),
            None => self.connector.open(&self.address, protocol).await,
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(detail) => {
                self.health.could_not_connect(&self.name);
                return Err(Failed::unsent(request, format!("{}: {detail}", self.name)));
            }
        };
        self.health.could_connect();
        match opened {
            Opened::Http1(connection) => {
                let (response, connection) = self.over_http1(connection, request, times).await?;
                lent.connection = connection;
                Ok((response, lent))
            }
            Opened::Http2(shared) => {
                self.keep(&shared);
                drop(only_one);
                Ok((self.over_http2(&shared, request, times).await?, lent))
            }
        }
    }

    /// A connection that was used last, since it is the least likely to be closed from the other side.
    fn take_idle(&self) -> Option<Http1> {
        loop {
            // Looked at outside the lock: to look is to read.
            let (since, mut connection) = self.idle.lock().pop()?;
            if since.elapsed() >= limits::IDLE_CONNECTION_WITHIN {
                // All others are older still.
                self.idle.lock().clear();
                return None;
            }
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Whether a request would find an open connection.
    #[cfg(test)]
    pub(super) fn has_idle(&self) -> bool {
        self.idle.lock().iter_mut().any(|(_, connection)| connection.is_usable())
    }

    /// Closes connections that nobody has used for a while.
    pub(super) fn forget_the_idle(&self) {
        let mut idle = self.idle.lock();
        let keep = |since: &Instant| since.elapsed() < limits::IDLE_CONNECTION_WITHIN;
        let first = idle.iter().position(|(since, _)| keep(since)).unwrap_or(idle.len());
        idle.drain(..first);
        drop(idle);
        self.shared.lock().retain(|connection| !connection.is_closed());
    }

    /// A connection of which another stream can be had.
    fn share(&self) -> Option<Http2> {
        let mut shared = self.shared.lock();
        shared.retain(|connection| !connection.is_closed());
        shared.iter().find(|connection| connection.has_room()).cloned()
    }

    fn keep(&self, connection: &Http2) {
        let mut shared = self.shared.lock();
        if !shared.iter().any(|kept| kept.is(connection)) {
            shared.push(connection.clone());
        }
    }

    async fn over_http1(
        &self,
        mut connection: Http1,
        mut request: Request<Outgoing>,
        times: Times,
    ) -> Result<(Response<Incoming>, Option<Http1>), Failed> {
        *request.version_mut() = Version::HTTP_11;
        self.set_host(&mut request);
        let upload = request.body().upload();
        let response = within(times, upload.as_ref(), connection.send(request)).await?;
        if upload.is_some_and(|upload| !upload.has_ended()) {
            // Answered before the end of the request: what is left of it must not wait for the client to read.
            connection.detach();
            return Ok((response, None));
        }
        Ok((response, Some(connection)))
    }

    async fn over_http2(
        &self,
        connection: &Http2,
        mut request: Request<Outgoing>,
        times: Times,
    ) -> Result<Response<Incoming>, Failed> {
        self.set_host(&mut request);
        let host = request.headers().get(header::HOST).cloned();
        let authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(authority.unwrap_or_else(|| self.authority.clone()));
        uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let upload = request.body().upload();
        let answered = within(times, upload.as_ref(), connection.send(request)).await;
        answered.map_err(|mut failed| {
            // It may go out over HTTP/1.1 yet.
            if let Sent::Nothing(request) = &mut failed.sent {
                let path = request.uri().path_and_query().cloned().map(Uri::from);
                *request.uri_mut() = path.unwrap_or_default();
                request.headers_mut().extend(host.map(|host| (header::HOST, host)));
            }
            failed
        })
    }

    fn set_host(&self, request: &mut Request<Outgoing>) {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if !self.preserve_host || !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, self.host.clone());
        }
    }
}

/// An answer within its time, which counts from the end of the request: a long upload is no slow upstream.
async fn within(
    times: Times,
    upload: Option<&Progress>,
    answer: impl Future<Output = Result<Response<Incoming>, Failed>>,
) -> Result<Response<Incoming>, Failed> {
    let mut answer = std::pin::pin!(answer);
    let mut until = Instant::now() + times.first_byte;
    loop {
        let end = times.deadline.map_or(until, |deadline| deadline.min(until));
        if let Ok(answered) = tokio::time::timeout_at(end, answer.as_mut()).await {
            return answered;
        }
        let moved = upload.map(|upload| upload.last() + times.first_byte);
        match moved {
            Some(later) if later > until && times.deadline != Some(end) => until = later,
            // Dropping the request closes its connection, or resets its stream; a part of it may be on its way.
            _ => {
                let detail = "the upstream did not answer in time".to_owned();
                return Err(Failed { sent: Sent::Something, timed_out: true, detail });
            }
        }
    }
}

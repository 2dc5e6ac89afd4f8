//! The way of one request to its upstream and back, with or without a contract around it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use semel_api::{ApiError, ErrorCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{Outgoing, Progress, Reply};
use super::head;
use super::upstream::{Failed, Lent, Sent, Times, Upstream};
use crate::config::gateway::RouteRules;
use crate::limits;

/// A place among the requests in progress. It is free when everybody who works on the request is done with it, its
/// client or not.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Where a request goes, and how long that may take.
pub(super) struct Passage {
    pub(super) upstream: Arc<Upstream>,
    pub(super) rules: Arc<RouteRules>,
    pub(super) route: Arc<str>,
    /// How far the client has come with its request, where that comes bit by bit.
    pub(super) upload: Option<Progress>,
    /// Cancelled when the server stops.
    pub(super) stopping: CancellationToken,
    pub(super) place: Place,
}

impl Passage {
    /// Sends a request, and gives the head of the answer and the body as it comes.
    pub(super) async fn pass(&self, request: Request<Outgoing>) -> Result<(Response<()>, Reply), Failed> {
        let (response, lent, times) = self.exchange(request).await?;
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failed::lost("it changes the protocol, and nobody asked it to"));
        }
        Ok(self.reply(response, lent, times))
    }

    /// The body of an answer, as it comes. Events have no end to wait for when the server stops: they go on a little
    /// longer, and are then cut, as their clients expect of any connection.
    pub(super) fn reply(
        &self,
        response: Response<Incoming>,
        lent: Lent,
        times: Times,
    ) -> (Response<()>, Reply) {
        let (parts, incoming) = response.into_parts();
        let place = Arc::clone(&self.place);
        let reply = Reply::new(incoming, lent, self.rules.idle_within, times.deadline).holding(place);
        let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_endless = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let stopping = self.stopping.clone();
        let reply = if is_endless { reply.until(ended_after(stopping)) } else { reply };
        (Response::from_parts(parts, ()), reply)
    }

    /// Sends a request, and gives the answer with the connection that it comes over.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Lent, Times), Failed> {
        let method = request.method().clone();
        let exact = http_body::Body::size_hint(request.body()).exact();
        settle_length(request.headers_mut(), &method, exact);
        let times = Times {
            first_byte: self.rules.first_byte_within,
            deadline: self.rules.whole_within.map(|within| Instant::now() + within),
        };
        let (mut response, lent) = self.upstream.exchange(request, times).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            if head::has_transfer_coding(response.headers()) {
                // Without its header the coding would pass for the content.
                return Err(Failed::lost("it answers in a transfer coding that nobody has asked for"));
            }
            head::strip_hop_by_hop(response.headers_mut());
        }
        Ok((response, lent, times))
    }
}

/// Ends a while after the server has begun to stop.
pub(super) async fn ended_after(stopping: CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(limits::STREAMS_END_WITHIN).await;
}

/// A length that the client has given stays only where it is the body's own: two servers that read different lengths
/// take one request for two.
fn settle_length(headers: &mut HeaderMap, method: &Method, exact: Option<u64>) {
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

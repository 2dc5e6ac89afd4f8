//! An upstream: one service at one address or several, with the connections to each and what is known of its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::body::Outgoing;
use crate::config::gateway::UpstreamConfig;
use crate::telemetry::metrics::{Metrics, ServiceMetrics};
use watch::Shown;

mod connect;
mod endpoint;
mod health;
mod http1;
mod http2;
#[cfg(test)]
mod tests;
mod watch;

pub(super) use connect::Connector;
pub(super) use endpoint::{Endpoint, Lent};

/// An exchange that has no answer.
pub(super) struct Failed {
    /// What became of the request.
    pub(super) sent: Sent,
    /// Whether it was given up, rather than lost.
    pub(super) timed_out: bool,
    /// The circumstances, for operators.
    pub(super) detail: String,
}

/// How much of a request has reached the transport.
pub(super) enum Sent {
    /// Nothing, and here it is again.
    Nothing(Box<Request<Outgoing>>),
    /// Nothing that the upstream has acted on; but the request is spent.
    NothingButSpent,
    /// Something, or nobody knows.
    Something,
}

impl Failed {
    fn unsent(request: Request<Outgoing>, detail: impl Into<String>) -> Self {
        Self { sent: Sent::Nothing(Box::new(request)), timed_out: false, detail: detail.into() }
    }

    /// It may have been acted on.
    pub(super) fn lost(detail: impl Into<String>) -> Self {
        Self { sent: Sent::Something, timed_out: false, detail: detail.into() }
    }
}

/// Stands in a request that wants to change the protocol, which only HTTP/1.1 can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upgrading;

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From the end of the request to the first byte of the answer.
    pub(super) first_byte: std::time::Duration,
    /// When the whole has to be there.
    pub(super) deadline: Option<Instant>,
}

/// One service.
pub(super) struct Upstream {
    config: UpstreamConfig,
    endpoints: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
    /// What is counted of it as of a service.
    service: Arc<ServiceMetrics>,
    /// Ends its watch with it.
    _watched: DropGuard,
}

impl Upstream {
    /// An upstream as it is configured, watched from now on; nothing is connected yet.
    pub(super) fn start(config: &UpstreamConfig, connector: &Arc<Connector>, metrics: &Metrics) -> Arc<Self> {
        let endpoint = |url| Endpoint::new(config, url, connector);
        let endpoints: Vec<_> = config.urls.iter().map(endpoint).collect();
        let ended = CancellationToken::new();
        for endpoint in &endpoints {
            let shown = Shown::new(metrics.gateway(), &config.name, endpoint.name());
            let (endpoint, health) = (Arc::downgrade(endpoint), config.health.clone());
            tokio::spawn(watch::watch(endpoint, health, shown, ended.clone()));
        }
        Arc::new(Self {
            endpoints,
            config: config.clone(),
            next: AtomicUsize::new(0),
            service: metrics.upstream(config.given_name()),
            _watched: ended.drop_guard(),
        })
    }

    /// What it is configured as.
    pub(super) const fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// What is counted of it as of a service.
    pub(super) const fn service(&self) -> &Arc<ServiceMetrics> {
        &self.service
    }

    /// Sends a request to one address, and to another where nothing was sent to the first.
    pub(super) async fn exchange(
        &self,
        request: Request<Outgoing>,
        times: Times,
    ) -> Result<(Response<Incoming>, Lent), Failed> {
        if let [only] = &self.endpoints[..] {
            return Arc::clone(only).exchange(request, times).await;
        }
        let mut request = request;
        let mut failed = None;
        for endpoint in self.order() {
            match endpoint.exchange(request, times).await {
                Err(Failed { sent: Sent::Nothing(again), detail, timed_out }) => {
                    request = *again;
                    failed = Some((detail, timed_out));
                }
                other => return other,
            }
        }
        let (detail, timed_out) = failed.unwrap_or_default();
        Err(Failed { timed_out, ..Failed::unsent(request, detail) })
    }

    /// Who is asked, one after the other: those that are well before those that are not, the least busy first, and
    /// turns where that is even.
    fn order(&self) -> Vec<Arc<Endpoint>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut order: Vec<_> = (0..count)
            .map(|place| Arc::clone(&self.endpoints[(first.wrapping_add(place)) % count]))
            .collect();
        order.sort_by_key(|endpoint| (!endpoint.is_well(), endpoint.in_flight()));
        order
    }
}

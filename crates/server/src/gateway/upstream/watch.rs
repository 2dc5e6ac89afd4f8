//! Watches an address: asks it whether it is well, where that is configured, and closes connections that nobody uses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::BodyExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::{Failed, Times};
use crate::config::gateway::HealthConfig;
use crate::gateway::body::{Outgoing, Reply};
use crate::limits;
use crate::telemetry::metrics::GatewayMetrics;

/// How often connections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The gauge of an address, as long as it is watched.
pub(super) struct Shown {
    metrics: GatewayMetrics,
    upstream: String,
    address: String,
    gauge: Gauge,
}

impl Shown {
    pub(super) fn new(metrics: &GatewayMetrics, upstream: &str, address: &str) -> Self {
        let (upstream, address) = (upstream.to_owned(), address.to_owned());
        Self { gauge: metrics.address(&upstream, &address), metrics: metrics.clone(), upstream, address }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.metrics.forget(&self.upstream, &self.address);
    }
}

/// Watches until the upstream is gone.
pub(super) async fn watch(
    endpoint: Weak<Endpoint>,
    config: HealthConfig,
    shown: Shown,
    ended: CancellationToken,
) {
    let mut look = interval(LOOK_EVERY);
    let mut ask = interval(config.interval);
    for ticks in [&mut look, &mut ask] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let asks = tokio::select! {
            () = ended.cancelled() => return,
            _ = look.tick() => false,
            _ = ask.tick(), if config.path.is_some() => true,
        };
        let Some(endpoint) = endpoint.upgrade() else { return };
        match &config.path {
            Some(path) if asks => {
                let well = asked(&endpoint, path, config.timeout).await;
                endpoint.health().said(endpoint.name(), well);
            }
            _ => endpoint.forget_the_idle(),
        }
        shown.gauge.set(i64::from(endpoint.is_well()));
    }
}

/// Whether it answers with a 2xx, whole and in time.
async fn asked(endpoint: &Arc<Endpoint>, path: &str, timeout: Duration) -> bool {
    let Ok(uri) = path.parse::<Uri>() else { return false };
    let mut request = Request::new(Outgoing::Empty);
    *request.uri_mut() = uri;
    let agent = concat!("semel/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static(agent));
    let times = Times { first_byte: timeout, deadline: Some(Instant::now() + timeout) };
    let exchange = async {
        let (response, lent) = Arc::clone(endpoint).exchange(request, times).await?;
        let well = response.status().is_success();
        let reply = Reply::new(response.into_body(), lent, limits::UPSTREAM_IDLE_DEFAULT, times.deadline);
        let whole = reply.collect().await.is_ok();
        Ok::<_, Failed>(well && whole)
    };
    matches!(tokio::time::timeout(timeout, exchange).await, Ok(Ok(true)))
}

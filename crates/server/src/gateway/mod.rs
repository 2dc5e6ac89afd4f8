//! The gateway: a reverse proxy that gives any HTTP service the contract of the idempotency key, route by route.
//!
//! A request comes in at the [`front`], finds its route and upstream in the [`table`], and is passed on: streamed as it
//! comes where nothing is promised, through the contract's layer where something is. The layer is that of
//! `semel-tower`; here is only what it is put around. Rooms: [`guard`] the contract · [`passage`] the way to the upstream
//! and back · [`head`] and [`body`] of messages on it · [`upstream`] connections, balance, health · [`upgrade`] other
//! protocols · [`told`] metrics, logs, audit · [`running`] the listener.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use semel_api::Form;
use semel_runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::config::gateway::{GatewayConfig, ProfileName, RouteRules};
use crate::door::RequestIds;
use crate::listen::Origin;
use crate::room::Room;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observer::Observer;
use crate::telemetry::traces::Traces;
use crate::tls::TlsError;

mod body;
mod front;
mod guard;
mod head;
mod passage;
mod running;
mod table;
#[cfg(test)]
mod testing;
mod told;
mod upgrade;
mod upstream;

use guard::{Guard, GuardError};
use head::Peer;
pub(crate) use running::{RunningGateway, tls_of};
use table::Table;
use told::Teller;
use upgrade::Tunnels;
use upstream::Connector;

/// The gateway. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    connector: Arc<Connector>,
    guard: Guard,
    room: Room,
    ids: RequestIds,
    docs_base: String,
    metrics: Metrics,
    traces: Traces,
    tunnels: Tunnels,
}

/// What the gateway shares with the rest of the server.
pub(crate) struct Around {
    /// What its work runs over.
    pub(crate) runtime: Runtime,
    pub(crate) observer: Observer,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    /// 64 random bits.
    pub(crate) process: u64,
    /// What it spawns for connections ends after this.
    pub(crate) stopping: CancellationToken,
    /// Knows when they have.
    pub(crate) tracker: TaskTracker,
}

/// Why there is no gateway.
#[derive(Debug)]
pub(crate) enum GatewayError {
    /// The authorities that upstreams are trusted by cannot be read, or a certificate for one cannot be used.
    Trust(TlsError),
    /// A contract is beyond its limits.
    Contract(GuardError),
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(error) => error.fmt(f),
            Self::Contract(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GatewayError {}

impl Gateway {
    /// A gateway.
    ///
    /// # Errors
    /// The authorities that upstreams are trusted by cannot be read, or a contract is beyond its limits.
    pub(crate) fn new(
        config: &Config,
        gateway: &GatewayConfig,
        around: Around,
    ) -> Result<Self, GatewayError> {
        let Around { runtime, observer, metrics, traces, process, stopping, tracker } = around;
        let connector = Connector::new(&config.targets).map_err(GatewayError::Trust)?;
        let teller = Teller::new(observer, metrics.clone());
        let guard = Guard::new(runtime, config, teller).map_err(GatewayError::Contract)?;
        let table = Table::new(gateway, &connector, &guard, None, &metrics)?;
        Ok(Self(Arc::new(Inner {
            table: ArcSwap::from_pointee(table),
            connector,
            guard,
            room: Room::new(gateway.in_progress_max),
            ids: RequestIds::new(process),
            docs_base: config.server.error_docs_base.clone(),
            metrics,
            traces,
            tunnels: Tunnels { tracker, stopping },
        })))
    }

    /// Takes over routes and upstreams of a configuration that was read again. What is in progress goes on as it
    /// began.
    ///
    /// # Errors
    /// A contract is beyond its limits: everything stays as it is.
    pub(crate) fn reload(&self, gateway: &GatewayConfig) -> Result<(), GatewayError> {
        let Inner { table, connector, guard, metrics, .. } = &*self.0;
        let before = table.load_full();
        let after = Table::new(gateway, connector, guard, Some(&before), metrics);
        table.store(Arc::new(after?));
        Ok(())
    }

    /// What serves one connection.
    pub(crate) fn front(
        &self,
        origin: Origin,
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
    + Send
    + use<> {
        let peer = Peer::new(&self.0.table.load().config, origin.address, origin.is_tls);
        front::service(self.clone(), peer)
    }
}

/// How errors look on a route, when the client does not say.
fn usual_form(rules: &RouteRules) -> Form {
    rules.overrides.error_form.unwrap_or(match rules.profile {
        ProfileName::Ietf => Form::Problem,
        ProfileName::Wms => Form::Flat,
        ProfileName::Stripe | ProfileName::Acp => Form::Envelope,
    })
}

//! The gateway: a reverse proxy that gives any HTTP service the contract of the idempotency key, route by route.
//!
//! A request comes in at the [`front`], finds its route and upstream in the [`table`], and is passed on: streamed as it
//! comes where nothing is promised, through the contract's layer where something is. The layer is that of
//! `semel-tower`; here is only what it is put around. Rooms: [`head`] and [`body`] of messages on their way ·
//! [`upstream`] connections, balance, health · [`upgrade`] other protocols.

use std::sync::Arc;

use arc_swap::ArcSwap;
use semel_api::Form;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::config::gateway::GatewayConfig;
use crate::door::RequestIds;
use crate::listen::Origin;
use crate::telemetry::metrics::Metrics;
use crate::tls::TlsError;

mod body;
mod front;
mod head;
mod running;
mod table;
#[cfg(test)]
mod testing;
mod upgrade;
mod upstream;

use front::Front;
use head::Peer;
pub(crate) use running::{RunningGateway, tls_of};
use table::Table;
use upgrade::Tunnels;
use upstream::Connector;

/// The gateway. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    connector: Arc<Connector>,
    in_progress: Semaphore,
    ids: RequestIds,
    docs_base: String,
    metrics: Metrics,
    tunnels: Tunnels,
}

impl Gateway {
    /// A gateway. `process` is 64 random bits; what it spawns is tracked and ends after `stopping`.
    ///
    /// # Errors
    /// The authorities that upstreams are trusted by cannot be read.
    pub(crate) fn new(
        config: &Config,
        gateway: &GatewayConfig,
        metrics: Metrics,
        process: u64,
        stopping: CancellationToken,
        tracker: TaskTracker,
    ) -> Result<Self, TlsError> {
        let connector = Connector::new(&config.targets)?;
        let table = Table::new(gateway, &connector, None, &metrics);
        Ok(Self(Arc::new(Inner {
            table: ArcSwap::from_pointee(table),
            connector,
            in_progress: Semaphore::new(gateway.in_progress_max),
            ids: RequestIds::new(process),
            docs_base: config.server.error_docs_base.clone(),
            metrics,
            tunnels: Tunnels { tracker, stopping },
        })))
    }

    /// Takes over routes and upstreams of a configuration that was read again. What is in progress goes on as it began.
    pub(crate) fn reload(&self, gateway: &GatewayConfig) {
        let before = self.0.table.load_full();
        let table = Table::new(gateway, &self.0.connector, Some(&before), &self.0.metrics);
        self.0.table.store(Arc::new(table));
    }

    /// What serves one connection.
    pub(crate) fn front(&self, origin: Origin) -> Front {
        let peer = Peer::new(&self.0.table.load().config, origin.address, origin.is_tls);
        Front::new(self.clone(), peer)
    }
}

/// How errors look on a route, when the client does not say.
const fn usual_form(profile: crate::config::gateway::ProfileName) -> Form {
    use crate::config::gateway::ProfileName;
    match profile {
        ProfileName::Ietf => Form::Problem,
        ProfileName::Wms => Form::Flat,
        ProfileName::Stripe | ProfileName::Acp => Form::Envelope,
    }
}

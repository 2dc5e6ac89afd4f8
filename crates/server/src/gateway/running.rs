//! The gateway with its listener: started with the server, reloaded and stopped with it.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Gateway, GatewayError};
use crate::config::Config;
use crate::config::gateway::GatewayConfig;
use crate::listen::Listener;
use crate::tls;

/// The gateway, bound and ready to serve.
pub(crate) struct RunningGateway {
    gateway: Gateway,
    address: SocketAddr,
    tls: Arc<ArcSwapOption<ServerConfig>>,
}

impl RunningGateway {
    /// Serves a gateway on its listener until `stopping` is cancelled.
    pub(crate) fn serve(
        gateway: Gateway,
        listener: Listener,
        stopping: CancellationToken,
        tracker: &TaskTracker,
    ) -> Self {
        let running = Self { address: listener.address(), tls: listener.tls(), gateway: gateway.clone() };
        let fronts = move |origin| gateway.front(origin);
        tracker.spawn(listener.serve_each(fronts, stopping, tracker.clone()));
        running
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes over routes, upstreams and, where there is TLS, certificates.
    ///
    /// # Errors
    /// A contract is beyond its limits: nothing is taken over.
    pub(crate) fn reload(
        &self,
        config: &GatewayConfig,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<(), GatewayError> {
        self.gateway.reload(config)?;
        // Taking TLS away, or adding it, would surprise every client; that needs a restart.
        if self.tls.load().is_some() && tls.is_some() {
            self.tls.store(tls);
        }
        Ok(())
    }
}

/// The TLS of the gateway's listener.
///
/// # Errors
/// A file cannot be read, or holds nothing that can be used.
pub(crate) fn tls_of(config: &Config) -> Result<Option<Arc<ServerConfig>>, tls::TlsError> {
    config.gateway.as_ref().and_then(|gateway| gateway.tls.as_ref()).map(tls::server).transpose()
}

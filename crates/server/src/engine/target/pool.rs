//! Connections that are open to targets and idle, and how new ones are made.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use http::uri::{Authority, Scheme};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::{TargetError, is_forbidden};
use crate::config::TargetsConfig;
use crate::limits;

/// A connection, and since when it is idle.
type Idle = (Instant, Connection);

/// Idle connections by target, the longest idle first.
pub(super) struct Pool {
    idle: Mutex<HashMap<(bool, Authority), Vec<Idle>>>,
    tls: TlsConnector,
    allow_link_local: bool,
}

impl Pool {
    pub(super) fn new(config: &TargetsConfig) -> Result<Self, TargetError> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_native_certs::load_native_certs().certs {
            // One that the system trusts and rustls cannot read is one fewer to trust.
            roots.add(certificate).ok();
        }
        if let Some(path) = &config.ca {
            let unreadable = |why: String| TargetError(format!("targets.ca {}: {why}", path.display()));
            let pem = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
            for certificate in pem {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TargetError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            idle: Mutex::default(),
            tls: TlsConnector::from(Arc::new(tls)),
            allow_link_local: config.allow_link_local,
        })
    }

    /// A connection to the target of this address: an idle one, or a new one.
    pub(super) async fn take(&self, uri: &Uri) -> Result<Connection, String> {
        if let Some(idle) = self.take_idle(uri) {
            return Ok(idle);
        }
        let host = uri.host().ok_or("the address has no host")?;
        let is_tls = is_tls(uri);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|error| format!("{host}: {error}"))?
            .collect();
        let allowed: Vec<SocketAddr> =
            addresses.into_iter().filter(|addr| self.allow_link_local || !is_forbidden(addr.ip())).collect();
        if allowed.is_empty() {
            return Err(format!(
                "{host} has no address that may be reached (targets.allow_link_local lets link-local ones)"
            ));
        }
        let stream =
            TcpStream::connect(&*allowed).await.map_err(|error| format!("{host}:{port}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !is_tls {
            return Connection::open(stream).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| format!("{host}: TLS: {error}"))?;
        Connection::open(stream).await
    }

    /// The answer came whole: the connection may serve another request.
    pub(super) fn give_back(&self, uri: &Uri, connection: Connection) {
        let Some(target) = target_of(uri) else { return };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(target).or_default();
        if connections.len() < limits::IDLE_CONNECTIONS_MAX {
            connections.push((Instant::now(), connection));
        }
    }

    /// The one that was used last, since it is the least likely to be closed from the other side.
    fn take_idle(&self, uri: &Uri) -> Option<Connection> {
        let target = target_of(uri)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(&target)?;
        connections.retain(|(since, connection)| {
            since.elapsed() < limits::IDLE_CONNECTION_WITHIN && !connection.is_closed()
        });
        let usable = connections.iter().rposition(|(_, connection)| connection.is_usable())?;
        Some(connections.remove(usable).1)
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

fn target_of(uri: &Uri) -> Option<(bool, Authority)> {
    Some((is_tls(uri), uri.authority()?.clone()))
}

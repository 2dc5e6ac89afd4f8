//! Connections that are open to targets and idle, and how new ones are made.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use http::uri::{Authority, Scheme};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::{Failed, TargetError};
use crate::address::is_forbidden;
use crate::config::TargetsConfig;
use crate::{limits, tls};

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
        let tls = tls::client(config.ca.as_deref());
        let mut tls = tls.map_err(|error| TargetError(format!("targets.ca: {error}")))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            idle: Mutex::default(),
            tls: TlsConnector::from(Arc::new(tls)),
            allow_link_local: config.allow_link_local,
        })
    }

    /// A new connection to the target of this address.
    pub(super) async fn open(&self, uri: &Uri) -> Result<Connection, Failed> {
        let host = uri.host().ok_or_else(|| Failed::unsent("the address has no host"))?;
        let is_tls = is_tls(uri);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let unsent = |error: &dyn std::fmt::Display| Failed::unsent(format!("{host}:{port}: {error}"));
        let found = tokio::net::lookup_host((bare, port)).await.map_err(|error| unsent(&error))?;
        let allowed: Vec<SocketAddr> =
            found.filter(|found| self.allow_link_local || !is_forbidden(found.ip())).collect();
        let stream = self.connect(&allowed).await.map_err(|failed| match failed {
            Some(error) => unsent(&error),
            None => Failed {
                permanent: true,
                ..unsent(&"no address that may be reached (targets.allow_link_local lets link-local ones)")
            },
        })?;
        stream.set_nodelay(true).map_err(|error| unsent(&error))?;
        let opened = if is_tls {
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| unsent(&error))?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| unsent(&error))?;
            Connection::open(stream, false).await
        } else {
            Connection::open(stream, true).await
        };
        opened.map_err(|error| unsent(&error))
    }

    /// The first address that answers; each has its own time, so that one which swallows everything hides no other.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Option<std::io::Error>> {
        let mut last = None;
        for address in addresses {
            match tokio::time::timeout(limits::CONNECT_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
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

    #[cfg(test)]
    pub(super) fn has_idle(&self, uri: &Uri) -> bool {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = target_of(uri).and_then(|target| idle.get(&target));
        connections.is_some_and(|all| all.iter().any(|(_, one)| one.is_usable() && !one.is_closed()))
    }

    /// The one that was used last, since it is the least likely to be closed from the other side.
    pub(super) fn take_idle(&self, uri: &Uri) -> Option<Connection> {
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

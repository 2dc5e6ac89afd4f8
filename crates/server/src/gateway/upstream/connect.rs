//! New connections to upstreams: names, addresses, TLS, and which protocol is spoken on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::http1::Http1;
use super::http2::Http2;
use crate::address::is_forbidden;
use crate::config::gateway::Protocol;
use crate::config::{ClientTls, TargetsConfig};
use crate::tls::{self, TlsError};

/// Makes connections.
pub(in crate::gateway) struct Connector {
    /// Offering either protocol, HTTP/1.1 alone, HTTP/2 alone.
    tls: [TlsConnector; 3],
    targets: TargetsConfig,
}

/// Where connections are made to.
pub(super) struct Address {
    host: String,
    port: u16,
    /// The name that its certificate must have, where it speaks TLS.
    tls: Option<ServerName<'static>>,
    is_tls: bool,
    protocol: Protocol,
    within: Duration,
    /// The address, where the host is one: no name has to be looked up.
    literal: Option<IpAddr>,
    /// Which of the addresses that a name has is next.
    turn: AtomicUsize,
}

/// A new connection.
pub(super) enum Opened {
    Http1(Http1),
    Http2(Http2),
}

impl Address {
    pub(super) fn new(scheme: &Scheme, authority: &Authority, protocol: Protocol, within: Duration) -> Self {
        let is_tls = *scheme == Scheme::HTTPS;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Self {
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            tls: ServerName::try_from(host.clone()).ok().filter(|_| is_tls),
            is_tls,
            protocol,
            within,
            literal: host.parse().ok(),
            host,
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) const fn may_speak_http2(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => self.is_tls,
        }
    }

    /// Its addresses, another one first each time, so that connections spread over them.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        if let Some(ip) = self.literal {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
        if !found.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
            found.rotate_left(turn);
        }
        Ok(found)
    }
}

impl Connector {
    /// A connector that trusts whom targets are trusted by.
    ///
    /// # Errors
    /// The authorities to trust cannot be read.
    pub(in crate::gateway) fn new(config: &TargetsConfig) -> Result<Arc<Self>, TlsError> {
        Self::showing(config, None)
    }

    /// As this one, with a certificate of its own for those who ask for one.
    ///
    /// # Errors
    /// The authorities to trust cannot be read, or the certificate cannot be used.
    pub(in crate::gateway) fn with(&self, own: &ClientTls) -> Result<Arc<Self>, TlsError> {
        Self::showing(&self.targets, Some(own))
    }

    fn showing(config: &TargetsConfig, own: Option<&ClientTls>) -> Result<Arc<Self>, TlsError> {
        let usual = tls::client_as(config.ca.as_deref(), own)?;
        let offering = |protocols: &[&[u8]]| {
            let mut tls = usual.clone();
            tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(tls))
        };
        Ok(Arc::new(Self {
            tls: [offering(&[b"h2", b"http/1.1"]), offering(&[b"http/1.1"]), offering(&[b"h2"])],
            targets: config.clone(),
        }))
    }

    /// A new connection, within the time that the upstream has for it.
    pub(super) async fn open(&self, address: &Address, protocol: Protocol) -> Result<Opened, String> {
        match tokio::time::timeout(address.within, self.open_at_all(address, protocol)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no connection within {:?}", address.within)),
        }
    }

    async fn open_at_all(&self, address: &Address, protocol: Protocol) -> Result<Opened, String> {
        let stream = self.connect(address).await?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !address.is_tls {
            return match protocol {
                Protocol::Http2 => Http2::open(stream, true).await.map(Opened::Http2),
                Protocol::Auto | Protocol::Http1 => Http1::open(stream, true).await.map(Opened::Http1),
            };
        }
        let name = address.tls.clone().ok_or("its host can have no certificate")?;
        let tls = match protocol {
            Protocol::Auto => &self.tls[0],
            Protocol::Http1 => &self.tls[1],
            Protocol::Http2 => &self.tls[2],
        };
        let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_http2 {
            Http2::open(stream, false).await.map(Opened::Http2)
        } else if protocol == Protocol::Http2 {
            Err("it does not speak HTTP/2 over TLS".to_owned())
        } else {
            Http1::open(stream, false).await.map(Opened::Http1)
        }
    }

    /// The first address that answers.
    async fn connect(&self, address: &Address) -> Result<TcpStream, String> {
        let found = address.resolve().await?;
        let allowed: Vec<_> = found
            .into_iter()
            .filter(|found| self.targets.allow_link_local || !is_forbidden(found.ip()))
            .collect();
        // Each has its part of the time, so that one which swallows everything hides no other.
        let each = address.within / u32::try_from(allowed.len().max(1)).unwrap_or(1);
        let mut last =
            "no address that may be reached (targets.allow_link_local lets link-local ones)".to_owned();
        for found in allowed {
            match tokio::time::timeout(each, TcpStream::connect(found)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no connection within {each:?}"),
            }
        }
        Err(last)
    }
}

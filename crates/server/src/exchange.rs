//! One request over one connection of its own: for the command line, and for spans, which are sent now and then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// How long connecting and the handshake may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whom to ask.
pub(crate) struct Address<'a> {
    authority: &'a Authority,
    pub(crate) is_secure: bool,
}

impl<'a> Address<'a> {
    /// The server of this address.
    ///
    /// # Errors
    /// It names none: why.
    pub(crate) fn of(url: &'a Uri) -> Result<Self, String> {
        let is_secure = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("the address {url} must begin with http:// or https://")),
        };
        let named = url.authority().filter(|authority| !authority.host().is_empty());
        let authority = named.ok_or_else(|| format!("the address {url} names no host"))?;
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none() {
            return Err(format!("the address {url} must have a port from 1 to 65535, or none"));
        }
        Ok(Self { authority, is_secure })
    }

    /// As the header `Host` has it.
    pub(crate) fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// Sends one request, and reads the answer whole, up to `bytes_max` of its body. `tls` is needed where the address is
    /// secure.
    ///
    /// # Errors
    /// There is no whole answer: why.
    pub(crate) async fn send(
        &self,
        tls: Option<Arc<ClientConfig>>,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, String> {
        let authority = self.authority;
        let port = authority.port_u16().unwrap_or(if self.is_secure { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port)));
        let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
        let stream = stream.map_err(|error| format!("cannot reach {authority}: {error}"))?;
        let Some(config) = tls.filter(|_| self.is_secure) else {
            return exchange(stream, request, bytes_max).await;
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        let stream = tokio::time::timeout(CONNECT_WITHIN, TlsConnector::from(config).connect(name, stream));
        let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
        let refused = |error| format!("TLS with {authority}: {}", tls::explain(&error));
        exchange(stream.map_err(refused)?, request, bytes_max).await
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<Response<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, bytes_max).collect().await;
    let body = body.map_err(|error| format!("the answer was cut off: {error}"))?;
    connection.abort();
    Ok(Response::from_parts(parts, body.to_bytes()))
}

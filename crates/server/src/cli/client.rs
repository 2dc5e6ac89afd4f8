//! The little of an HTTP client that the command line needs: one request over one connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// How long connecting and the handshake may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Which server, and as whom.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// The server's address
    #[arg(long, value_name = "URL", env = "SEMEL_URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: Uri,
    /// The token of the tenant. Better given by the environment than on a command line that others can see
    #[arg(long, value_name = "TOKEN", env = "SEMEL_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// PEM file with an authority to trust besides the system's, or with the server's own certificate
    #[arg(long, value_name = "FILE", env = "SEMEL_CA")]
    pub(super) ca: Option<PathBuf>,
}

/// What cannot be sent or received, for people.
pub(super) type Problem = String;

/// Sends one request to a path below the server's address, and reads the answer whole.
pub(super) async fn send(
    server: &ServerArgs,
    request: http::request::Builder,
    path: &str,
    body: Bytes,
) -> Result<Response<Bytes>, Problem> {
    let url = &server.url;
    let authority = url.authority().ok_or_else(|| format!("{url} names no host"))?;
    let secure = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("{url} must begin with http:// or https://")),
    };
    let path = format!("{}{path}", url.path().trim_end_matches('/'));
    let mut request = request.uri(path).header(header::HOST, authority.as_str());
    if let Some(token) = &server.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port)));
    let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
    let stream = stream.map_err(|error| format!("cannot reach {authority}: {error}"))?;
    if !secure {
        return exchange(stream, request).await;
    }
    let config = tls::client(server.ca.as_deref()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let stream = tokio::time::timeout(CONNECT_WITHIN, connector.connect(name, stream));
    let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
    exchange(stream.map_err(|error| format!("TLS with {authority}: {error}"))?, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| format!("the answer was cut off: {error}"))?;
    connection.abort();
    Ok(Response::from_parts(parts, body.to_bytes()))
}

//! The little of an HTTP client that the command line needs: one request over one connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::exit;
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

/// Why there is no answer: for people, and as an exit code.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Problem {
    /// The command line is wrong: trying again does not help.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { code: exit::USAGE, text: text.into() }
    }
}

/// It could not be done this time.
impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { code: exit::FAILED, text }
    }
}

/// Sends one request to a path below the server's address, and reads the answer whole.
pub(super) async fn send(
    server: &ServerArgs,
    request: http::request::Builder,
    path: &str,
    body: Bytes,
) -> Result<Response<Bytes>, Problem> {
    let url = &server.url;
    let secure = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(Problem::usage(format!("the address {url} must begin with http:// or https://"))),
    };
    let named = url.authority().filter(|authority| !authority.host().is_empty());
    let authority = named.ok_or_else(|| Problem::usage(format!("the address {url} names no host")))?;
    let has_port = authority.as_str().len() > authority.host().len();
    if has_port && authority.port_u16().is_none() {
        return Err(Problem::usage(format!("the address {url} must have a port from 1 to 65535, or none")));
    }
    let path = format!("{}{path}", url.path().trim_end_matches('/'));
    let mut request = request.uri(path).header(header::HOST, authority.as_str());
    if let Some(token) = &server.token {
        let token = HeaderValue::from_str(&format!("Bearer {token}"));
        let token = token.map_err(|_| Problem::usage("the token has characters that no header can have"))?;
        request = request.header(header::AUTHORIZATION, token);
    }
    let tls = secure.then(|| tls::client(server.ca.as_deref())).transpose();
    let tls = tls.map_err(|error| Problem::usage(error.to_string()))?;
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host, port)));
    let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
    let stream = stream.map_err(|error| format!("cannot reach {authority}: {error}"))?;
    let Some(config) = tls else { return exchange(stream, request).await };
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let stream = tokio::time::timeout(CONNECT_WITHIN, connector.connect(name, stream));
    let stream = stream.await.map_err(|_| format!("{authority} does not answer"))?;
    let refused = |error| format!("TLS with {authority}: {}", tls::explain(&error));
    exchange(stream.map_err(refused)?, request).await
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

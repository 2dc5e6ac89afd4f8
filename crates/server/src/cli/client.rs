//! What the command line sends: which server, as whom, and what went wrong.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Response, Uri, header};
use http_body_util::Full;

use super::exit;
use crate::exchange::Address;
use crate::tls;

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
    let address = Address::of(url).map_err(Problem::usage)?;
    let path = format!("{}{path}", url.path().trim_end_matches('/'));
    let mut request = request.uri(path).header(header::HOST, address.host());
    if let Some(token) = &server.token {
        let token = HeaderValue::from_str(&format!("Bearer {token}"));
        let token = token.map_err(|_| Problem::usage("the token has characters that no header can have"))?;
        request = request.header(header::AUTHORIZATION, token);
    }
    let tls = address.is_secure.then(|| tls::client(server.ca.as_deref())).transpose();
    let tls = tls.map_err(|error| Problem::usage(error.to_string()))?.map(Arc::new);
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    // The server has its own limits for what it answers.
    Ok(address.send(tls, request, usize::MAX).await?)
}

//! The OpenAPI document, and Swagger UI to read it with. All of it comes from the binary: nothing is fetched from
//! elsewhere, so it works without a network, and no other site learns who reads it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header};
use semel_api::ErrorCode;
use utoipa_swagger_ui::{Config, serve};

use super::Admin;
use crate::door::Refusal;

/// Where the document is.
pub(super) const OPENAPI: &str = "/openapi.json";
/// Where its reader is.
pub(super) const DOCS: &str = "/docs";

/// What the reader may do: run its own scripts, and load the document.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A listener, as whoever reads about it reaches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whether it speaks TLS.
    pub(crate) is_tls: bool,
}

impl Reached {
    /// Its address, for somebody who has come by this name. All addresses are none that can be asked.
    fn url(self, by: Option<&Authority>) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        match by.filter(|_| self.address.ip().is_unspecified()) {
            Some(name) => format!("{scheme}://{}:{}", name.host(), self.address.port()),
            None => format!("{scheme}://{}", self.address),
        }
    }
}

pub(super) async fn openapi(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let json = HeaderValue::from_static("application/json");
    let host = headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let [doors, own] = admin.listening.map(|reached| reached.url(host.as_ref()));
    ([(header::CONTENT_TYPE, json)], semel_api::openapi::document_at(&doors, &own)).into_response()
}

/// The reader's own links are relative, so its page is a folder.
pub(super) async fn redirect() -> Redirect {
    Redirect::permanent("/docs/")
}

pub(super) async fn index() -> Result<Response, Refusal> {
    file("index.html")
}

pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Refusal> {
    file(&path)
}

fn file(path: &str) -> Result<Response, Refusal> {
    // For reading: the doors have another address, and operators have commands that ask before they change something.
    let nothing: [&str; 0] = [];
    let config = Config::from(OPENAPI).supported_submit_methods(nothing).use_base_layout();
    let config = Arc::new(config);
    let found = serve(path, config).map_err(|error| {
        tracing::error!(%error, "the documentation's reader could not be written");
        ErrorCode::Internal
    })?;
    let file = found.ok_or(ErrorCode::NotFound)?;
    let kind = HeaderValue::from_str(&file.content_type).map_err(|_| ErrorCode::Internal)?;
    let headers =
        [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    Ok((headers, file.bytes.into_owned()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_named_as_its_reader_reaches_it() {
        let url = |address: &str, is_tls, host: &str| {
            let reached = Reached { address: address.parse().unwrap(), is_tls };
            reached.url(host.parse().ok().as_ref())
        };
        assert_eq!(url("127.0.0.1:9080", false, "localhost:9081"), "http://127.0.0.1:9080");
        assert_eq!(url("[::1]:9080", true, "localhost:9081"), "https://[::1]:9080");
        assert_eq!(url("0.0.0.0:9080", true, "semel.example:9081"), "https://semel.example:9080");
        assert_eq!(url("[::]:9080", false, "[2001:db8::1]:9081"), "http://[2001:db8::1]:9080");
        assert_eq!(url("0.0.0.0:9080", false, ""), "http://0.0.0.0:9080");
    }
}

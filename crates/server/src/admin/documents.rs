//! The OpenAPI document, and Swagger UI to read it with. All of it comes from the binary: nothing is fetched from
//! elsewhere, so it works without a network, and no other site learns who reads it.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderValue, header};
use semel_api::ErrorCode;
use utoipa_swagger_ui::{Config, serve};

use crate::door::Refusal;

/// Where the document is.
pub(super) const OPENAPI: &str = "/openapi.json";
/// Where its reader is.
pub(super) const DOCS: &str = "/docs";

/// What the reader may do: run its own scripts, and load the document.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(super) async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], semel_api::openapi::document()).into_response()
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

//! The OpenAPI 3.1 document of every endpoint.
//!
//! It is checked in as `docs/openapi.json`, so that a change of the wire shows in a review, and held against the last
//! released one, so that nothing is renamed or removed.

mod errors;
mod jobs;
mod paths;
mod values;

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::{Modify, OpenApi};

use crate::error::{ErrorCode, ErrorEnvelope, FlatError, Problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Semel",
        description = "Makes an operation happen once, however often it is asked for.\n\nDoors and admin listen on separate addresses: `execute`, `claims`, `webhooks` and `jobs` on the one, `records`, `audit` and `metrics` on the other; `health`, and what there is to see of `jobs`, on both. `/v1` only grows: fields and endpoints may be added, nothing is renamed or removed.\n\nLengths of time are whole milliseconds in fields that end in `_ms` and whole seconds in `retry_after`; points in time are RFC 3339 in UTC with milliseconds. Errors are written in an envelope, or as problem details (RFC 9457) to whoever accepts them.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        paths::execute, paths::execution, paths::claim, paths::extend, paths::checkpoint, paths::complete,
        paths::release, paths::list_records, paths::show_record, paths::resolve_record, paths::revive_record,
        paths::discard_record, paths::resolve_records, paths::revive_records, paths::discard_records,
        paths::webhook, paths::verify_webhook, paths::list_dead, paths::group_dead, paths::show_dead, paths::revive_dead, paths::discard_dead,
        paths::revive_all_dead, paths::discard_all_dead, jobs::start, jobs::heartbeat, jobs::complete, jobs::fail,
        jobs::history, jobs::show, jobs::list, jobs::release, paths::list_audit, paths::health, paths::ready, paths::metrics,
    ),
    components(schemas(ErrorCode, ErrorEnvelope, FlatError, Problem)),
    tags(
        (name = "execute", description = "Run a named operation against its target, at most once per key."),
        (name = "claims", description = "Claim a key, do the work yourself, complete it."),
        (name = "webhooks", description = "Take partners' events in, once, and find out why a signature does not hold."),
        (name = "jobs", description = "One running instance of each type of job, and the record of its runs."),
        (name = "records", description = "What operators see and do."),
        (name = "dead", description = "Dead letters: what died, of what, and what becomes of it."),
        (name = "audit", description = "Who did what to which record."),
        (name = "health", description = "For orchestrators and monitoring."),
    ),
    modifiers(&Beside),
)]
struct Document;

/// What stands beside the paths.
struct Beside;

impl Modify for Beside {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = |text: &str| {
            let mut http = Http::new(HttpAuthScheme::Bearer);
            http.description = Some(text.to_owned());
            SecurityScheme::Http(http)
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("tenant", bearer("A tenant's token, where tenants are configured."));
        components.add_security_scheme(
            "admin",
            bearer("An operator's token, where admin tokens are configured; without them only loopback is served."),
        );
    }
}

/// The document, as the JSON text that is checked in: with the addresses that hold where none are configured.
pub fn document() -> String {
    document_at("http://127.0.0.1:8080", "http://127.0.0.1:8081")
}

/// The document of a server whose listeners are there.
pub fn document_at(doors: &str, admin: &str) -> String {
    let mut document = Document::openapi();
    let server = |url, what| ServerBuilder::new().url(url).description(Some(what)).build();
    document.servers = Some(vec![server(doors, "doors"), server(admin, "admin")]);
    // A document of texts can always be written; the type of the writer does not know that.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

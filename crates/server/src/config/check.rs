//! What contradicts what: everything that each value alone does not show.
//!
//! It is looked for in what could be read, so that all problems are said at once; what may only follow from a value that
//! could not be read is not said.

use super::exposed::{Listening, exposed};
use super::reader::Reading;
use super::sections::{Draft, Origins};
use crate::address;
use crate::store;

pub(super) fn contradictions(reading: &Reading, draft: &Draft) {
    let Draft { config, origins, .. } = draft;
    listeners(reading, draft);
    if !config.targets.allow_link_local {
        addresses(reading);
    }
    if !reading.is_wrong(|path| path == "store.url") {
        for (key, problem) in store::problems(&config.store) {
            reading.problem(&origins.store.of(key), &format!("store.{key}"), problem);
        }
    }
}

fn listeners(reading: &Reading, draft: &Draft) {
    let Draft { config, origins: Origins { listen, admin_listen, gateway_listen, .. }, .. } = draft;
    for (key, problem) in exposed(config, Listening::wanted(config)) {
        let (origin, rests_on): (_, fn(&str) -> bool) = match (key, gateway_listen) {
            ("admin.listen", _) => (admin_listen, |path| path.starts_with("admin.tokens")),
            ("gateway.listen", Some(listen)) => (listen, |path| {
                let key = path.strip_prefix("gateway.").and_then(|rest| rest.rsplit('.').next());
                matches!(key, Some("scope" | "shared_keys"))
            }),
            _ => (listen, |path| {
                path == "tenants" || path.starts_with("tenants[") && path.contains("].tokens")
            }),
        };
        if !reading.is_wrong(rests_on) {
            reading.problem(origin, key, problem);
        }
    }
    let (doors, admin) = (config.server.listen, config.admin.listen);
    let mut pairs = vec![("admin", "server", admin_listen, admin, doors)];
    if let (Some(gateway), Some(origin)) = (&config.gateway, gateway_listen) {
        pairs.push(("gateway", "server", origin, gateway.listen, doors));
        pairs.push(("gateway", "admin", origin, gateway.listen, admin));
    }
    for (name, other, origin, address, taken) in pairs {
        let path = format!("{name}.listen");
        let unread = |wrong: &str| wrong == path || wrong.strip_suffix(".listen") == Some(other);
        if address == taken && address.port() != 0 && !reading.is_wrong(unread) {
            let message =
                format!("{address} is {other}.listen, too; the {name} listener needs an address of its own");
            reading.problem(origin, &path, message);
        }
    }
}

/// Addresses that are written out, and are such as none may have. What a name stands for is only known when it is asked
/// for, so it is judged then, too.
fn addresses(reading: &Reading) {
    for named in reading.take_named() {
        let host = named.address.host().unwrap_or_default();
        if address::is_forbidden_host(host) {
            let what = if named.path.starts_with("gateway.") { "upstream" } else { "target" };
            reading.problem(&named.origin, &named.path, address::forbidden(host, what));
        }
    }
}

//! What contradicts what: everything that each value alone does not show.

use std::collections::BTreeSet;

use http::Uri;

use super::exposed::{Listening, exposed};
use super::gateway::check::contradictions as gateway;
use super::jobs::contradictions as jobs;
use super::reader::Reading;
use super::sections::Origins;
use super::sources::check::{contradictions as sources, of_consumers};
use super::sources::is_reserved;
use super::{Config, Target};
use crate::address;
use crate::store;

pub(super) fn contradictions(reading: &Reading, config: &Config, origins: &Origins) {
    addresses(reading, config, origins);
    tenants(reading, config, origins);
    operations(reading, config, origins);
    targets(reading, config, origins);
    jobs(reading, config, &origins.jobs);
    if let (Some(given), Some(origins)) = (&config.gateway, &origins.gateway) {
        gateway(reading, config, given, origins);
    }
    sources(reading, config, &origins.sources, origins.alerts.as_ref());
    of_consumers(reading, config, &origins.consumers);
    for (key, problem) in store::problems(&config.store) {
        reading.problem(&origins.store.of(key), &format!("store.{key}"), problem);
    }
}

fn addresses(reading: &Reading, config: &Config, origins: &Origins) {
    for (key, problem) in exposed(config, Listening::wanted(config)) {
        let origin = match (key, &origins.gateway) {
            ("admin.listen", _) => &origins.admin_listen,
            ("gateway.listen", Some(gateway)) => &gateway.listen,
            _ => &origins.listen,
        };
        reading.problem(origin, key, problem);
    }
    let (doors, admin) = (config.server.listen, config.admin.listen);
    if doors == admin && doors.port() != 0 {
        let message =
            format!("{admin} is server.listen, too; the admin listener needs an address of its own");
        reading.problem(&origins.admin_listen, "admin.listen", message);
    }
}

fn tenants(reading: &Reading, config: &Config, origins: &Origins) {
    if config.tenants.len() > crate::limits::TENANTS_MAX {
        let most = crate::limits::TENANTS_MAX;
        reading.problem(&origins.listen, "tenants", format!("there may be at most {most}"));
    }
    let mut names = BTreeSet::new();
    let mut tokens = BTreeSet::new();
    for (place, (tenant, origin)) in config.tenants.iter().zip(&origins.tenants).enumerate() {
        if !names.insert(tenant.name.as_str()) {
            let message = format!("there is a tenant `{}` above", tenant.name);
            reading.problem(origin, &format!("tenants[{place}].name"), message);
        }
        for token in &tenant.tokens {
            if !tokens.insert(token.expose()) {
                let message =
                    "a token of this tenant is another's, too: nobody could tell whose request it is";
                reading.problem(origin, &format!("tenants[{place}].tokens"), message);
            }
        }
        if tenant.tokens.is_empty() && config.tenants.len() > 1 {
            let message = "is missing: with several tenants, each needs a token to be told apart";
            reading.problem(origin, &format!("tenants[{place}].tokens"), message);
        }
    }
}

fn operations(reading: &Reading, config: &Config, origins: &Origins) {
    if config.operations.len() > crate::limits::OPERATIONS_MAX {
        let most = crate::limits::OPERATIONS_MAX;
        reading.problem(&origins.listen, "operations", format!("there may be at most {most}"));
    }
    let mut names = BTreeSet::new();
    for (place, (operation, origin)) in config.operations.iter().zip(&origins.operations).enumerate() {
        if !names.insert(operation.name.as_str()) {
            let message = format!("there is an operation `{}` above", operation.name);
            reading.problem(origin, &format!("operations[{place}].name"), message);
        }
        if is_reserved(operation.name.as_str()) {
            let message = format!("`{}` is a name that Semel gives operations itself", operation.name);
            reading.problem(origin, &format!("operations[{place}].name"), message);
        }
    }
}

/// Targets whose address is written out, and is one that none may have. What a name stands for is only known when it
/// is asked for, so it is judged then, too.
fn targets(reading: &Reading, config: &Config, origins: &Origins) {
    if config.targets.allow_link_local {
        return;
    }
    let judge = |uri: &Uri, origin, path: String| {
        let host = uri.host().unwrap_or_default();
        if address::is_forbidden_host(host) {
            reading.problem(origin, &path, address::forbidden(host));
        }
    };
    for (place, operation) in config.operations.iter().enumerate() {
        let Some((target, probe)) = origins.targets.get(place) else { continue };
        if let Target::Http(uri) = &operation.target {
            judge(uri, target, format!("operations[{place}].target"));
        }
        let asked = operation.probe.as_ref().and_then(|probe| probe.url.replace("{key}", "key").parse().ok());
        if let Some(uri) = &asked {
            judge(uri, probe, format!("operations[{place}].probe"));
        }
    }
    for (place, (job, origin)) in config.jobs.iter().zip(&origins.jobs).enumerate() {
        judge(&job.target, origin, format!("jobs[{place}].target"));
    }
}

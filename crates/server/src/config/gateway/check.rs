//! What contradicts what in the gateway's part of the configuration.

use std::collections::BTreeSet;

use super::super::Config;
use super::super::reader::Reading;
use super::GatewayConfig;
use super::read::GatewayOrigins;
use crate::address;

pub(in crate::config) fn contradictions(
    reading: &Reading,
    config: &Config,
    gateway: &GatewayConfig,
    origins: &GatewayOrigins,
) {
    listener(reading, config, gateway, origins);
    upstreams(reading, gateway, origins);
    upstream_addresses(reading, config, origins);
    circles(reading, gateway, origins);
    routes(reading, gateway, origins);
}

fn listener(reading: &Reading, config: &Config, gateway: &GatewayConfig, origins: &GatewayOrigins) {
    let listen = gateway.listen;
    let problem = |message: String| reading.problem(&origins.listen, "gateway.listen", message);
    for (name, other) in [("server", config.server.listen), ("admin", config.admin.listen)] {
        if listen == other && listen.port() != 0 {
            problem(format!("{listen} is {name}.listen, too; the gateway needs an address of its own"));
        }
    }
}

fn upstreams(reading: &Reading, gateway: &GatewayConfig, origins: &GatewayOrigins) {
    if gateway.upstreams.is_empty() {
        let message = "is missing: where requests are passed on to, here or in [[gateway.upstreams]]";
        reading.problem(&origins.whole, "gateway.upstream", message);
    }
    if gateway.upstreams.len() > crate::limits::UPSTREAMS_MAX {
        let most = crate::limits::UPSTREAMS_MAX;
        reading.problem(&origins.whole, "gateway.upstreams", format!("there may be at most {most}"));
    }
    let mut names = BTreeSet::new();
    for (place, (upstream, origin)) in gateway.upstreams.iter().zip(&origins.upstreams).enumerate() {
        if !names.insert(upstream.name.as_str()) {
            let message = format!("there is an upstream `{}` above", upstream.name);
            reading.problem(origin, &format!("gateway.upstreams[{place}].name"), message);
        }
    }
}

/// Addresses that are written out, and are such as no upstream may have.
fn upstream_addresses(reading: &Reading, config: &Config, origins: &GatewayOrigins) {
    let Some(gateway) = config.gateway.as_ref().filter(|_| !config.targets.allow_link_local) else { return };
    for (place, (upstream, origin)) in gateway.upstreams.iter().zip(&origins.upstreams).enumerate() {
        for host in upstream.urls.iter().filter_map(http::Uri::host) {
            if address::is_forbidden_host(host) {
                let message = format!(
                    "{host} is a link-local, metadata or unspecified address, where no upstream has any business; \
                     targets.allow_link_local = true lets it be reached"
                );
                reading.problem(origin, &format!("gateway.upstreams[{place}].url"), message);
            }
        }
    }
}

/// An upstream that is the gateway itself: each request would come back to it until its headers are full.
fn circles(reading: &Reading, gateway: &GatewayConfig, origins: &GatewayOrigins) {
    for (place, (upstream, origin)) in gateway.upstreams.iter().zip(&origins.upstreams).enumerate() {
        if upstream.urls.iter().any(|url| address::leads_to(url, gateway.listen)) {
            let message =
                format!("{} is gateway.listen: a request would go round in a circle", gateway.listen);
            reading.problem(origin, &format!("gateway.upstreams[{place}].url"), message);
        }
    }
}

fn routes(reading: &Reading, gateway: &GatewayConfig, origins: &GatewayOrigins) {
    if gateway.routes.len() > crate::limits::ROUTES_MAX {
        let most = crate::limits::ROUTES_MAX;
        reading.problem(&origins.whole, "gateway.routes", format!("there may be at most {most}"));
    }
    let mut names = BTreeSet::new();
    for (place, (route, origin)) in gateway.routes.iter().zip(&origins.routes).enumerate() {
        if !names.insert(route.name.as_str()) {
            let message = format!("there is a route `{}` above, so this one is never taken", route.name);
            reading.problem(origin, &format!("gateway.routes[{place}].match"), message);
        }
        let known = |name: &String| gateway.upstreams.iter().any(|upstream| upstream.name == *name);
        if let Some(name) = route.upstream.as_ref().filter(|name| !known(name)) {
            let message = format!("there is no upstream `{name}`");
            reading.problem(origin, &format!("gateway.routes[{place}].upstream"), message);
        }
    }
}

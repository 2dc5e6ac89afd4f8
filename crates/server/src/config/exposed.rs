//! Listeners that strangers can reach, and what they need then. Judged twice: for the addresses that a configuration names,
//! and, when it is read again, for those that the process is listening on, since they stay until the next start.

use std::net::SocketAddr;

use super::Config;
use super::gateway::{Contract, GatewayConfig, RouteRules};

/// Where the listeners are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    /// Execute and claims.
    pub(crate) doors: SocketAddr,
    /// Records, audit, metrics, documents.
    pub(crate) admin: SocketAddr,
    /// The gateway, where there is one.
    pub(crate) gateway: Option<SocketAddr>,
}

impl Listening {
    /// Where this configuration wants them.
    pub(super) fn wanted(config: &Config) -> Self {
        let gateway = config.gateway.as_ref().map(|gateway| gateway.listen);
        Self { doors: config.server.listen, admin: config.admin.listen, gateway }
    }
}

/// What is too open: the key of the listener, and what it needs. Whoever reaches an address without a token may do
/// everything there, so such an address is loopback.
pub(crate) fn exposed(config: &Config, listening: Listening) -> Vec<(&'static str, String)> {
    let anonymous = config.tenants.is_empty() || config.tenants.iter().any(|tenant| tenant.tokens.is_empty());
    let without_tokens = config.admin.tokens.is_empty();
    // One caller must never be given another's outcome.
    let shared = config.gateway.as_ref().is_some_and(shares_keys);
    let callers =
        "needs gateway.scope, which tells callers apart, or shared_keys = true where all callers are one";
    let listeners = [
        ("server.listen", Some(listening.doors), anonymous, "every tenant needs a token"),
        ("admin.listen", Some(listening.admin), without_tokens, "admin.tokens is needed"),
        ("gateway.listen", listening.gateway, shared, callers),
    ];
    let mut found = Vec::new();
    for (key, address, open, need) in listeners {
        let Some(address) = address.filter(|address| !address.ip().is_loopback()) else { continue };
        if config.development {
            found
                .push((key, format!("{address} is not loopback, and development mode is only for loopback")));
        } else if open {
            found.push((key, format!("{address} is not loopback: {need}")));
        }
    }
    found
}

/// Whether somewhere all callers share their keys, and nobody has said that they may.
fn shares_keys(gateway: &GatewayConfig) -> bool {
    let open =
        |rules: &RouteRules| rules.contract != Contract::Off && rules.scope.is_empty() && !rules.shared_keys;
    open(&gateway.usual) || gateway.routes.iter().any(|route| open(&route.rules))
}

//! What the gateway is told: where it listens, which upstreams there are, and which contract holds for which route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, Uri};
use semel_core::policy::OnLapse;

use super::{ClientTls, Secret, TlsConfig};
use crate::jwt::Tokens;

mod jwt;
mod overrides;
mod pattern;
pub(super) mod read;
#[cfg(test)]
mod tests;

pub use overrides::Overrides;
pub use pattern::{HostPattern, Network, PathPattern, RoutePattern};

/// The gateway: a listener of its own, upstreams behind it, routes with policies.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, where it is wanted.
    pub tls: Option<TlsConfig>,
    /// Connections open at once.
    pub connections_max: usize,
    /// Requests in progress at once; the next is refused (`OVERLOADED`), not queued.
    pub in_progress_max: usize,
    /// Peers whose forwarded headers are believed; those of others are replaced.
    pub trusted_proxies: Vec<Network>,
    /// Which headers tell an upstream who asked.
    pub forwarded: ForwardedStyle,
    /// What is behind it, at least one, unique by name.
    pub upstreams: Vec<UpstreamConfig>,
    /// Routes, the first that matches counts.
    pub routes: Vec<RouteConfig>,
    /// What holds for what no route matches.
    pub usual: RouteRules,
}

/// Which headers tell an upstream who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedStyle {
    /// `Forwarded` (RFC 7239) and `X-Forwarded-*`.
    Both,
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// None: those of the client are taken away all the same.
    None,
}

/// Something to pass requests on to: one service, at one address or several.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Its name.
    pub name: String,
    /// Its addresses, among which requests are balanced.
    pub urls: Vec<Uri>,
    /// The hosts that it serves; none: all.
    pub hosts: Vec<HostPattern>,
    /// The paths that it serves, each with all that is below; none: all.
    pub paths: Vec<String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it is told the host that the client named, instead of its own.
    pub preserve_host: bool,
    /// Headers that it is sent with every request.
    pub headers: Vec<(HeaderName, Secret)>,
    /// What it is shown, where it asks for a certificate.
    pub tls: Option<ClientTls>,
    /// How long a connection may take to be made, TLS included.
    pub connect_within: Duration,
    /// How it is asked whether it is well.
    pub health: HealthConfig,
}

impl UpstreamConfig {
    /// What the upstream is called that `gateway.upstream` stands for, which has no name.
    const UNNAMED: &str = "upstream";

    /// The name that it was given.
    pub fn given_name(&self) -> Option<&str> {
        (self.name != Self::UNNAMED).then_some(&self.name)
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Over TLS what it chooses (ALPN); without TLS HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
}

/// How an upstream is found to be ill, and well again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// The path that is asked; none: only what requests show counts.
    pub path: Option<String>,
    /// How often it is asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row after which an address is not used.
    pub fall: u32,
    /// Successes in a row after which it is used again.
    pub rise: u32,
    /// How long an address is not used that could not be connected to `fall` times in a row.
    pub rest: Duration,
}

/// A route: what it matches, where it leads, and what holds.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Its name in metrics and logs: the pattern, with its host where it has one.
    pub name: String,
    /// The host that it is for; none: any.
    pub host: Option<HostPattern>,
    /// Methods and path.
    pub pattern: RoutePattern,
    /// The upstream by name; none: by host and path.
    pub upstream: Option<String>,
    /// What holds.
    pub rules: RouteRules,
}

/// The contract of a route, and its times.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRules {
    /// Whether there is a contract, and whether it is kept.
    pub contract: Contract,
    /// The group of rules.
    pub profile: ProfileName,
    /// Whether a key must be there.
    pub require_key: bool,
    /// Methods that the contract holds for; none: the profile's.
    pub methods: Vec<Method>,
    /// Characters of a key.
    pub key_chars_max: usize,
    /// What tells callers apart.
    pub scope: Vec<Identity>,
    /// Which bearer tokens are believed, where claims of them tell callers apart.
    pub tokens: Option<Arc<Tokens>>,
    /// Whether all callers share one room of keys.
    pub shared_keys: bool,
    /// How long a claim outlives the process that holds it.
    pub lease: Duration,
    /// How long the outcome is replayed.
    pub retention: Duration,
    /// What a lapsed lease, a cut or a time-out means.
    pub on_lapse: OnLapse,
    /// What a 5xx of the upstream means.
    pub on_5xx: On5xx,
    /// Statuses by which the upstream says that nothing was done.
    pub not_executed: Vec<StatusCode>,
    /// What is said against the profile.
    pub overrides: Overrides,
    /// Bytes of a body that is protected: it is read before it is passed on.
    pub body_bytes_max: usize,
    /// Bytes of an answer that is kept.
    pub result_bytes_max: usize,
    /// JSON Pointers to what alone makes the fingerprint; none: everything.
    pub fingerprint_select: Vec<String>,
    /// JSON Pointers to what is left out of the fingerprint.
    pub fingerprint_exclude: Vec<String>,
    /// How long an upstream may take to begin its answer, from the end of the request.
    pub first_byte_within: Duration,
    /// How long an exchange may take in all; none: as long as something moves.
    pub whole_within: Option<Duration>,
    /// How long nothing may move in either direction.
    pub idle_within: Duration,
    /// How long nothing may move on a connection that has changed its protocol.
    pub upgrade_idle_within: Duration,
}

/// A part of what says who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A header that somebody before the gateway vouches for.
    Header(HeaderName),
    /// A claim of the bearer token.
    Claim(String),
}

impl RouteRules {
    /// Whether it promises that what may have happened is not repeated.
    pub fn is_protected_at_most_once(&self) -> bool {
        self.contract == Contract::Kept && self.on_lapse == OnLapse::AtMostOnce
    }
}

/// Whether there is a contract, and whether it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// A plain proxy.
    Off,
    /// What would have happened is only counted.
    Reported,
    /// It is kept.
    Kept,
}

/// A group of rules by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileName {
    /// draft-ietf-httpapi-idempotency-key-header.
    Ietf,
    /// As the WMS services have it.
    Wms,
    /// As Stripe's API has it.
    Stripe,
    /// The Agentic Commerce Protocol.
    Acp,
}

/// What a 5xx of the upstream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On5xx {
    /// What the profile says.
    Profile,
    /// It may have happened: nothing runs again by itself.
    Unknown,
    /// It is kept and replayed.
    Keep,
    /// Nothing has happened: the next request runs.
    Release,
}

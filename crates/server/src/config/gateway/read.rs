//! Reads `[gateway]` with its upstreams and routes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, Uri};
use semel_core::limits as core;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_fingerprint::Fields;

use super::super::reader::Section;
use super::super::sections::{http_address, target_headers, tls_section, within};
use super::super::tree::Origin;
use super::super::{ClientTls, Secret};
use super::jwt;
use super::overrides::{Overrides, contradictions, overrides};
use super::{
    Contract, ForwardedStyle, GatewayConfig, HealthConfig, HostPattern, Identity, Network, On5xx,
    PathPattern, ProfileName, Protocol, RouteConfig, RoutePattern, RouteRules, UpstreamConfig,
};
use crate::limits;

/// Headers that the gateway itself sends to upstreams: who could set them would hide who asked. (And all that begin with
/// `semel-`.)
const GATEWAYS_OWN: [&str; 7] = [
    "forwarded",
    "idempotency-key",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Where the values stand that a contradiction can be about.
pub(in crate::config) struct GatewayOrigins {
    pub(in crate::config) listen: Origin,
    pub(in crate::config) whole: Origin,
    pub(in crate::config) upstreams: Vec<Origin>,
    pub(in crate::config) routes: Vec<Origin>,
}

/// The gateway, unless something in it cannot be made sense of (and has been reported).
pub(in crate::config) fn gateway(
    section: Section<'_>,
    development: bool,
) -> Option<(GatewayConfig, GatewayOrigins)> {
    let listen = section.address_or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8082)));
    let styles = [
        ("both", ForwardedStyle::Both),
        ("x-forwarded", ForwardedStyle::XForwarded),
        ("rfc7239", ForwardedStyle::Rfc7239),
        ("none", ForwardedStyle::None),
    ];
    let (connections, in_progress) = (limits::CONNECTIONS_DEFAULT, limits::IN_PROGRESS_DEFAULT);
    let tokens = section.optional("jwt").and_then(|section| jwt::tokens(section, development)).map(Arc::new);
    let (usual, said) = rules(&section, &RouteRules { tokens, ..RouteRules::usual() }, Said::default());
    let (upstreams, upstream_origins) = upstreams(&section, development);
    let (routes, route_origins) = routes(&section, &usual, said);
    let config = GatewayConfig {
        listen: listen.value,
        tls: section.optional("tls").and_then(tls_section),
        connections_max: section.size_or("max_connections", 1, limits::CONNECTIONS_MAX, connections),
        in_progress_max: section.size_or("max_in_progress", 1, limits::IN_PROGRESS_MAX, in_progress),
        trusted_proxies: texts(&section, "trusted_proxies", Network::parse),
        forwarded: section.choice_or("forwarded", &styles, styles[0]),
        upstreams: upstreams?,
        routes: routes?,
        usual,
    };
    let origins = GatewayOrigins {
        listen: listen.origin,
        whole: section.origin.clone(),
        upstreams: upstream_origins,
        routes: route_origins,
    };
    section.finish();
    Some((config, origins))
}

impl RouteRules {
    /// What holds where nothing is said.
    fn usual() -> Self {
        let policy = Policy::default();
        Self {
            contract: Contract::Kept,
            profile: ProfileName::Ietf,
            require_key: false,
            methods: Vec::new(),
            key_chars_max: core::KEY_CHARS_MAX,
            scope: Vec::new(),
            tokens: None,
            shared_keys: false,
            lease: policy.lease(),
            retention: policy.retention(),
            on_lapse: OnLapse::AtMostOnce,
            on_5xx: On5xx::Profile,
            not_executed: Vec::new(),
            overrides: Overrides::default(),
            body_bytes_max: limits::BODY_BYTES_DEFAULT,
            result_bytes_max: limits::RESULT_BYTES_DEFAULT,
            fingerprint_select: Vec::new(),
            fingerprint_exclude: Vec::new(),
            first_byte_within: limits::UPSTREAM_FIRST_BYTE_DEFAULT,
            whole_within: None,
            idle_within: limits::UPSTREAM_IDLE_DEFAULT,
            upgrade_idle_within: limits::UPGRADE_IDLE_DEFAULT,
        }
    }
}

/// Each text of an array, as `read` takes it; what it does not take is reported.
pub(in crate::config) fn texts<T>(
    section: &Section<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Vec<T> {
    let one = |text: String| match read(&text) {
        Ok(value) => Some(value),
        Err(problem) => {
            section.problem(key, format!("`{text}`: {problem}"));
            None
        }
    };
    section.texts(key).into_iter().filter_map(one).collect()
}

/// As [`texts`]; those of `usual` where the key does not stand there.
fn texts_or<T: Clone>(
    section: &Section<'_>,
    key: &'static str,
    usual: &[T],
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Vec<T> {
    let read = texts(section, key, read);
    if section.has(key) { read } else { usual.to_vec() }
}

const PROFILES: [(&str, ProfileName); 4] = [
    ("ietf", ProfileName::Ietf),
    ("wms", ProfileName::Wms),
    ("stripe", ProfileName::Stripe),
    ("acp", ProfileName::Acp),
];
const SEMANTICS: [(&str, OnLapse); 2] = [("at-most-once", OnLapse::AtMostOnce), ("resume", OnLapse::Resume)];
const ON_5XX: [(&str, On5xx); 4] = [
    ("profile", On5xx::Profile),
    ("unknown", On5xx::Unknown),
    ("keep", On5xx::Keep),
    ("release", On5xx::Release),
];

/// The word of a value, with the value.
fn usual_word<T: Copy + PartialEq>(words: &[(&'static str, T)], usual: T) -> (&'static str, T) {
    words.iter().find(|(_, value)| *value == usual).copied().unwrap_or(("", usual))
}

/// What was said of rules that depend on others: their defaults are found last, when all that is said is known.
#[derive(Clone, Copy, Default)]
struct Said {
    protect: Option<bool>,
    enforce: Option<bool>,
    require_key: Option<bool>,
}

/// A truth that is said here or was said before, and what it is where nobody says it.
fn truth(section: &Section<'_>, key: &'static str, said: &mut Option<bool>, otherwise: bool) -> bool {
    let value = section.boolean(key, said.unwrap_or(otherwise));
    if section.has(key) {
        *said = Some(value);
    }
    value
}

/// How callers are told apart: a word about it is the last one, since the one excludes the other.
fn callers(section: &Section<'_>, usual: &RouteRules) -> (Vec<Identity>, bool) {
    let names_scope = section.has("scope");
    let shared = section.boolean("shared_keys", usual.shared_keys && !names_scope);
    let mut parts = texts_or(section, "scope", &usual.scope, scope);
    if shared && section.has("shared_keys") {
        if names_scope && !parts.is_empty() {
            section.problem("shared_keys", "contradicts scope: keys are shared, or callers are told apart");
        }
        parts.clear();
    }
    let reads_tokens = parts.iter().any(|part| matches!(part, Identity::Claim(_)));
    if names_scope && reads_tokens && usual.tokens.is_none() {
        section.problem(
            "scope",
            "reads a bearer token, and [gateway.jwt] must say who verifies it: anybody can write a token",
        );
    }
    (parts, shared)
}

/// Rules, each of `usual` where nothing is said.
fn rules(section: &Section<'_>, usual: &RouteRules, mut said: Said) -> (RouteRules, Said) {
    let lease = section.duration_or("lease", usual.lease);
    let retention = section.duration_or("retention", usual.retention);
    let on_lapse = section.choice_or("semantics", &SEMANTICS, usual_word(&SEMANTICS, usual.on_lapse));
    if let Err(invalid) = Policy::try_new(lease, retention, on_lapse, Keep::Deterministic, Schedule::ONCE) {
        section.problem(if invalid.what() == "lease" { "lease" } else { "retention" }, invalid);
    }
    let statuses = section.numbers("not_executed", 300, 599);
    let statuses: Vec<StatusCode> =
        statuses.into_iter().filter_map(|status| StatusCode::from_u16(status).ok()).collect();
    let not_executed = if section.has("not_executed") { statuses } else { usual.not_executed.clone() };
    let whole = section.duration("timeout").map(|found| found.value);
    let profile = section.choice_or("profile", &PROFILES, usual_word(&PROFILES, usual.profile));
    let (scope, shared_keys) = callers(section, usual);
    let rules = RouteRules {
        contract: contract(section, &mut said),
        profile,
        require_key: truth(section, "require_key", &mut said.require_key, profile == ProfileName::Acp),
        methods: texts_or(section, "methods", &usual.methods, method),
        key_chars_max: section.size_or("max_key_length", 1, core::KEY_CHARS_MAX, usual.key_chars_max),
        scope,
        tokens: usual.tokens.clone(),
        shared_keys,
        lease,
        retention,
        on_lapse,
        on_5xx: section.choice_or("on_5xx", &ON_5XX, usual_word(&ON_5XX, usual.on_5xx)),
        not_executed,
        overrides: overrides(section, &usual.overrides),
        body_bytes_max: section.size_or("max_body_bytes", 1, limits::BODY_BYTES_MAX, usual.body_bytes_max),
        result_bytes_max: section.size_or(
            "max_response_size",
            1,
            core::BODY_BYTES_MAX,
            usual.result_bytes_max,
        ),
        fingerprint_select: texts_or(section, "fingerprint_select", &usual.fingerprint_select, pointer),
        fingerprint_exclude: texts_or(section, "fingerprint_exclude", &usual.fingerprint_exclude, pointer),
        first_byte_within: section.duration_or("first_byte_timeout", usual.first_byte_within),
        whole_within: whole.or(usual.whole_within),
        idle_within: section.duration_or("idle_timeout", usual.idle_within),
        upgrade_idle_within: section.duration_or("upgrade_idle_timeout", usual.upgrade_idle_within),
    };
    contradictions(section, &rules);
    let shortest = Duration::from_millis(1);
    for (key, length) in [
        ("first_byte_timeout", rules.first_byte_within),
        ("timeout", rules.whole_within.unwrap_or(shortest)),
        ("idle_timeout", rules.idle_within),
        ("upgrade_idle_timeout", rules.upgrade_idle_within),
    ] {
        within(section, key, length, shortest, limits::TIMEOUT_MAX);
    }
    if !rules.fingerprint_select.is_empty() && !rules.fingerprint_exclude.is_empty() {
        let problem = "contradicts fingerprint_select: what is not selected is left out anyway";
        section.problem("fingerprint_exclude", problem);
    }
    (rules, said)
}

fn contract(section: &Section<'_>, said: &mut Said) -> Contract {
    let protect = truth(section, "protect", &mut said.protect, true);
    let enforce = truth(section, "enforce", &mut said.enforce, true);
    match (protect, enforce) {
        (false, _) => Contract::Off,
        (true, false) => Contract::Reported,
        (true, true) => Contract::Kept,
    }
}

fn method(text: &str) -> Result<Method, &'static str> {
    let upper = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| upper);
    method.ok_or("methods are written in capitals, such as \"POST\"")
}

fn scope(text: &str) -> Result<Identity, &'static str> {
    const ALLOWED: &str = "allowed is a header that names a verified, stable caller, such as \"header:x-account-id\", or a \
                           claim of the bearer token, such as \"jwt:sub\"";
    if let Some(claim) = text.strip_prefix("jwt:") {
        return jwt::claim(claim).map(Identity::Claim);
    }
    let name = text.strip_prefix("header:").ok_or(ALLOWED)?;
    let name: HeaderName = name.trim().parse().map_err(|_| ALLOWED)?;
    if [http::header::AUTHORIZATION, http::header::COOKIE].contains(&name) {
        return Err("a credential that rotates makes duplicates; name a header that says who it is");
    }
    Ok(Identity::Header(name))
}

fn pointer(text: &str) -> Result<String, &'static str> {
    let fits = Fields::except([text]).is_ok() && !text.is_empty();
    fits.then(|| text.to_owned()).ok_or("is no JSON Pointer (RFC 6901), such as \"/sent_at\"")
}

/// All upstreams: those with a section, and the one that `upstream` stands for, which takes what is left.
fn upstreams(section: &Section<'_>, development: bool) -> (Option<Vec<UpstreamConfig>>, Vec<Origin>) {
    let given = section.sections("upstreams");
    let mut origins: Vec<Origin> = given.iter().map(|section| section.origin.clone()).collect();
    let count = given.len();
    let mut upstreams: Vec<_> =
        given.into_iter().filter_map(|section| upstream(section, development)).collect();
    let mut whole = upstreams.len() == count;
    if let Some(found) = section.text("upstream") {
        match address(&found.value) {
            Ok(url) => {
                origins.push(section.origin_of("upstream"));
                upstreams.push(UpstreamConfig {
                    name: UpstreamConfig::UNNAMED.to_owned(),
                    urls: vec![url],
                    hosts: Vec::new(),
                    paths: Vec::new(),
                    protocol: Protocol::Auto,
                    preserve_host: true,
                    headers: Vec::new(),
                    tls: None,
                    connect_within: limits::UPSTREAM_CONNECT_DEFAULT,
                    health: HealthConfig::usual(),
                });
            }
            Err(problem) => {
                section.problem("upstream", problem);
                whole = false;
            }
        }
    } else {
        whole &= !section.has("upstream");
    }
    (whole.then_some(upstreams), origins)
}

impl HealthConfig {
    const fn usual() -> Self {
        Self {
            path: None,
            interval: limits::HEALTH_EVERY_DEFAULT,
            timeout: limits::HEALTH_WITHIN_DEFAULT,
            fall: 3,
            rise: 2,
            rest: limits::UPSTREAM_REST_DEFAULT,
        }
    }
}

/// The address of an upstream: a scheme, a host, a port, and nothing else.
fn address(text: &str) -> Result<Uri, &'static str> {
    let uri = http_address(text)?;
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err("must have no path: a request is passed on with the path that it has");
    }
    Ok(uri)
}

fn upstream(section: Section<'_>, development: bool) -> Option<UpstreamConfig> {
    let name = section.text("name").map(|found| found.value);
    let fits = |name: &String| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !name.as_ref().is_some_and(fits) {
        section.problem("name", "must have 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    let mut urls = texts(&section, "urls", address);
    let url = section
        .text("url")
        .and_then(|found| address(&found.value).map_err(|problem| section.problem("url", problem)).ok());
    urls.extend(url);
    if urls.is_empty() && !section.has("url") && !section.has("urls") {
        section.problem("url", "is missing: the address of the upstream, or `urls` with several");
    }
    if urls.len() > limits::UPSTREAM_ADDRESSES_MAX {
        section.problem("urls", format!("there may be at most {}", limits::UPSTREAM_ADDRESSES_MAX));
    }
    let protocols = [("auto", Protocol::Auto), ("http1", Protocol::Http1), ("h2", Protocol::Http2)];
    let prefix = |text: &str| match PathPattern::parse(text) {
        Ok(_) if !text.contains('{') => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("a path such as \"/payments\", for itself and all below it"),
    };
    let connect_within = section.duration_or("connect_timeout", limits::UPSTREAM_CONNECT_DEFAULT);
    within(&section, "connect_timeout", connect_within, Duration::from_millis(1), limits::TIMEOUT_MAX);
    let config = UpstreamConfig {
        name: name.unwrap_or_default(),
        urls,
        hosts: texts(&section, "hosts", HostPattern::parse),
        paths: texts(&section, "paths", prefix),
        protocol: section.choice_or("protocol", &protocols, protocols[0]),
        preserve_host: section.boolean("preserve_host", true),
        headers: target_headers(&section, development, &GATEWAYS_OWN),
        tls: section.optional("tls").and_then(client_tls),
        connect_within,
        health: health(section.section("health")),
    };
    section.finish();
    (!config.urls.is_empty() && fits(&config.name)).then_some(config)
}

/// The certificate that an upstream is shown.
fn client_tls(section: Section<'_>) -> Option<ClientTls> {
    let read = |key: &'static str| {
        let path = section.path_to(key);
        if path.is_none() && !section.has(key) {
            section.problem(key, "is missing: an upstream is shown a certificate with its key, as PEM files");
        }
        let path = path?;
        match std::fs::read_to_string(&path) {
            Ok(text) => Some((path, text)),
            Err(error) => {
                section.problem(key, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    };
    let (certificate, key) = (read("certificate"), read("key"));
    let ((certificate, chain_pem), (key, key_pem)) = (certificate?, key?);
    let own = ClientTls { certificate, key, chain_pem, key_pem: Secret::new(&key_pem) };
    if let Err(error) = crate::tls::identity(&own) {
        let wrong = if error.file() == own.key { "key" } else { "certificate" };
        section.problem(wrong, error);
    }
    section.finish();
    Some(own)
}

fn health(section: Section<'_>) -> HealthConfig {
    let usual = HealthConfig::usual();
    let path = section.text("path").map(|found| found.value);
    if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.parse::<Uri>().is_err()) {
        section.problem("path", "must be a path such as \"/healthz\"");
    }
    let small =
        |key, usual: u32| u32::try_from(section.number_or(key, 1, 100, u64::from(usual))).unwrap_or(usual);
    let config = HealthConfig {
        path,
        interval: section.duration_or("interval", usual.interval),
        timeout: section.duration_or("timeout", usual.timeout),
        fall: small("fall", usual.fall),
        rise: small("rise", usual.rise),
        rest: section.duration_or("rest", usual.rest),
    };
    for (key, length) in [("interval", config.interval), ("timeout", config.timeout), ("rest", config.rest)] {
        within(&section, key, length, Duration::from_millis(10), limits::TIMEOUT_MAX);
    }
    section.finish();
    config
}

fn routes(section: &Section<'_>, usual: &RouteRules, said: Said) -> (Option<Vec<RouteConfig>>, Vec<Origin>) {
    let given = section.sections("routes");
    let origins = given.iter().map(|section| section.origin.clone()).collect();
    let count = given.len();
    let routes: Vec<_> = given.into_iter().filter_map(|section| route(section, usual, said)).collect();
    ((routes.len() == count).then_some(routes), origins)
}

fn route(section: Section<'_>, usual: &RouteRules, said: Said) -> Option<RouteConfig> {
    let text = section.text("match");
    if text.is_none() && !section.has("match") {
        section.problem("match", "is missing: methods and a path, such as \"POST /orders/{id}/pay\"");
    }
    let text = text.map(|found| found.value);
    let pattern = text
        .as_deref()
        .and_then(|text| RoutePattern::parse(text).map_err(|problem| section.problem("match", problem)).ok());
    let host = section.text("host").map(|found| found.value);
    let host_pattern = host
        .as_deref()
        .and_then(|host| HostPattern::parse(host).map_err(|problem| section.problem("host", problem)).ok());
    let upstream = section.text("upstream").map(|found| found.value);
    let (rules, _) = rules(&section, usual, said);
    section.finish();
    let name = match (&text, &host) {
        (Some(text), Some(host)) => format!("{host} {text}"),
        (text, _) => text.clone().unwrap_or_default(),
    };
    Some(RouteConfig { name, host: host_pattern, pattern: pattern?, upstream, rules })
}

//! Reads `[gateway]` with its upstreams and routes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode, Uri};
use semel_core::limits as core;
use semel_core::policy::{OnLapse, Policy};
use semel_fingerprint::Fields;

use super::super::operations::{http_address, lengths, target_headers};
use super::super::reader::{Section, named_once};
use super::super::sections::{tls_section, within};
use super::super::tree::Origin;
use super::super::{ClientTls, Secret};
use super::jwt;
use super::overrides::{Overrides, contradictions, overrides};
use super::pattern::method;
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

/// The gateway as far as it can be made sense of, and whether that is all; and where its address stands.
pub(in crate::config) fn gateway(section: Section<'_>, development: bool) -> ((GatewayConfig, bool), Origin) {
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
    let (upstreams, names) = upstreams(&section, development, listen.value);
    let (routes, has_routes) = routes(&section, &usual, said, &names);
    let is_whole = has_routes && upstreams.len() == names.len();
    let config = GatewayConfig {
        listen: listen.value,
        tls: section.optional("tls").and_then(tls_section),
        connections_max: section.size_or("max_connections", 1, limits::CONNECTIONS_MAX, connections),
        in_progress_max: section.size_or("max_in_progress", 1, limits::IN_PROGRESS_MAX, in_progress),
        trusted_proxies: texts(&section, "trusted_proxies", Network::parse),
        forwarded: section.choice_or("forwarded", &styles, styles[0]),
        upstreams,
        routes,
        usual,
    };
    section.finish();
    ((config, is_whole), listen.origin)
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
pub(in crate::config) fn texts<T, E: Display>(
    section: &Section<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, E>,
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
fn texts_or<T: Clone, E: Display>(
    section: &Section<'_>,
    key: &'static str,
    usual: &[T],
    read: impl Fn(&str) -> Result<T, E>,
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
    lengths(section, lease, retention);
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
        if section.has(key) {
            within(section, key, length, shortest, limits::TIMEOUT_MAX);
        }
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

/// All upstreams that can be read: those with a section, and the one that `upstream` stands for, which takes what is left.
/// With them the names of all that were given.
fn upstreams(
    section: &Section<'_>,
    development: bool,
    listen: SocketAddr,
) -> (Vec<UpstreamConfig>, Vec<Option<String>>) {
    let given = section.sections("upstreams");
    let mut names: Vec<_> = given.iter().map(|one| one.written("name")).collect();
    if given.len() > limits::UPSTREAMS_MAX {
        section.problem("upstreams", format!("there may be at most {}", limits::UPSTREAMS_MAX));
    }
    named_once(&given, "name", "an upstream");
    let same = given.iter().find(|one| one.written("name").as_deref() == Some(UpstreamConfig::UNNAMED));
    if let Some(same) = same.filter(|_| section.has("upstream")) {
        let message = "there is an upstream `upstream` above: what gateway.upstream stands for";
        same.reading.problem(&same.origin, &same.path_of("name"), message);
    }
    let mut upstreams: Vec<_> =
        given.into_iter().filter_map(|one| upstream(one, development, listen)).collect();
    let unnamed = section.text("upstream");
    if section.has("upstream") {
        names.push(Some(UpstreamConfig::UNNAMED.to_owned()));
    } else if names.is_empty() && !section.reading.is_wrong(|path| path == "gateway.upstreams") {
        let message = "is missing: where requests are passed on to, here or in [[gateway.upstreams]]";
        section.problem("upstream", message);
    }
    let url = unnamed.and_then(|found| one_address(section, "upstream", listen, &found.value));
    upstreams.extend(url.map(|url| UpstreamConfig {
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
    }));
    (upstreams, names)
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

/// The address under a key; what is wrong with it is reported, and that it leads back to the gateway: each request would
/// come back until its headers are full.
fn one_address(section: &Section<'_>, key: &'static str, listen: SocketAddr, text: &str) -> Option<Uri> {
    let which = if key == "urls" { format!("`{text}`: ") } else { String::new() };
    let url = address(text).map_err(|problem| section.problem(key, format!("{which}{problem}"))).ok()?;
    section.names_address(key, &url);
    let knows_listen = !section.reading.is_wrong(|path| path == "gateway.listen");
    if knows_listen && crate::address::leads_to(&url, listen) {
        section.problem(key, format!("{listen} is gateway.listen: a request would go round in a circle"));
    }
    Some(url)
}

fn upstream(section: Section<'_>, development: bool, listen: SocketAddr) -> Option<UpstreamConfig> {
    let name = section.text("name").map(|found| found.value);
    let fits = |name: &String| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !name.as_ref().is_some_and(fits) {
        section.problem("name", "must have 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    let mut urls: Vec<_> =
        section.texts("urls").iter().filter_map(|url| one_address(&section, "urls", listen, url)).collect();
    let url = section.text("url").map(|found| found.value);
    urls.extend(url.and_then(|url| one_address(&section, "url", listen, &url)));
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
    let own = read("certificate").zip(read("key")).map(|((certificate, chain_pem), (key, key_pem))| {
        ClientTls { certificate, key, chain_pem, key_pem: Secret::new(&key_pem) }
    });
    if let Some(own) = &own
        && let Err(error) = crate::tls::identity(own)
    {
        let wrong = if error.file() == own.key { "key" } else { "certificate" };
        section.problem(wrong, error);
    }
    section.finish();
    own
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

/// All routes that can be read, and whether those are all. `upstreams` are the names of those that there are.
fn routes(
    section: &Section<'_>,
    usual: &RouteRules,
    said: Said,
    upstreams: &[Option<String>],
) -> (Vec<RouteConfig>, bool) {
    let given = section.sections("routes");
    if given.len() > limits::ROUTES_MAX {
        section.problem("routes", format!("there may be at most {}", limits::ROUTES_MAX));
    }
    let mut names = BTreeSet::new();
    for one in &given {
        let Some(name) = route_name(one) else { continue };
        let message = format!("there is a route `{name}` above, so this one is never taken");
        if !names.insert(name) {
            section.reading.problem(&one.origin, &one.path_of("match"), message);
        }
    }
    let count = given.len();
    let routes: Vec<_> = given.into_iter().filter_map(|one| route(one, usual, said, upstreams)).collect();
    let is_whole = routes.len() == count;
    (routes, is_whole)
}

/// What a route is called: its pattern, with its host where it has one.
fn route_name(section: &Section<'_>) -> Option<String> {
    let text = section.written("match")?;
    Some(section.written("host").map_or_else(|| text.clone(), |host| format!("{host} {text}")))
}

fn route(
    section: Section<'_>,
    usual: &RouteRules,
    said: Said,
    upstreams: &[Option<String>],
) -> Option<RouteConfig> {
    let text = section.text("match");
    if text.is_none() && !section.has("match") {
        section.problem("match", "is missing: methods and a path, such as \"POST /orders/{id}/pay\"");
    }
    let pattern = text.and_then(|found| {
        RoutePattern::parse(&found.value).map_err(|problem| section.problem("match", problem)).ok()
    });
    let host = section.text("host").and_then(|found| {
        HostPattern::parse(&found.value).map_err(|problem| section.problem("host", problem)).ok()
    });
    let upstream = section.text("upstream").map(|found| found.value);
    if let Some(name) = &upstream
        && !upstreams.iter().any(|known| known.as_ref() == Some(name))
    {
        section.problem("upstream", format!("there is no upstream `{name}`"));
    }
    let (rules, _) = rules(&section, usual, said);
    let name = route_name(&section).unwrap_or_default();
    section.finish();
    // Whatever it matches, its rules are looked at.
    let pattern = pattern.or_else(|| RoutePattern::parse("/").ok());
    Some(RouteConfig { name, host, pattern: pattern?, upstream, rules })
}

//! Reads each section of the configuration: names, types, ranges and defaults. What contradicts what is
//! [`check`](super::check)'s.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Uri;
use semel_core::id::Tenant;
use semel_core::limits as core;

use super::gateway::Network;
use super::gateway::read::{gateway, texts};
use super::jobs::jobs;
use super::operations::{http_address, operations, policy, target_headers};
use super::reader::{Section, named_once, quote, secret};
use super::sources::consumers::consumers;
use super::sources::read::{alerts, sample, source};
use super::tree::Origin;
use super::{
    AdminConfig, AdminToken, AuditConfig, Config, DispatcherConfig, ErrorStyle, KeyAlphabet, LogConfig,
    LogFormat, RateLimit, Role, ServerConfig, SourceConfig, StoreConfig, StoreUrl, TargetsConfig,
    TenantConfig, TlsConfig, TracingConfig,
};
use crate::limits;

/// A configuration as far as it can be read. What is wrong with it has been reported; what stands in the place of that is
/// for nothing but the search for more.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) origins: Origins,
    /// Whether all of it is there.
    pub(super) is_whole: bool,
}

/// Where the values stand that a contradiction can be about.
pub(super) struct Origins {
    pub(super) listen: Origin,
    pub(super) admin_listen: Origin,
    pub(super) store: StoreOrigins,
    pub(super) gateway_listen: Option<Origin>,
}

/// Where each key of the store stands, or the section.
pub(super) struct StoreOrigins(Vec<(&'static str, Origin)>);

impl StoreOrigins {
    /// Where this key stands.
    pub(super) fn of(&self, key: &str) -> Origin {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map_or(Origin::Default, |(_, origin)| origin.clone())
    }
}

/// The whole, as far as it can be made sense of.
pub(super) fn config(root: Section<'_>, without_file: bool) -> Draft {
    let server = root.section("server");
    let development = server.boolean("development", without_file);
    let service_name = server.text_or("service_name", "semel");
    if service_name.is_empty() || service_name.len() > core::TAG_VALUE_CHARS_MAX {
        server.problem("service_name", "must have 1 to 255 characters");
    }
    let (server, listen) = server_section(server);
    let (admin, admin_listen) = admin_section(root.section("admin"), development);
    let (store, store_origins) = store_section(root.section("store"), development);
    let (tenants, has_tenants) = tenants(&root, development);
    let (operations, has_operations) = operations(&root, development);
    let (jobs, has_jobs) = jobs(&root, development, &tenants);
    let gateway = root.optional("gateway").map(|section| gateway(section, development));
    let (gateway, gateway_origin) = gateway.unzip();
    let (mut webhooks, has_sources) = sources(&root, development, server.body_bytes_max);
    if without_file && webhooks.is_empty() {
        webhooks.extend(sample());
    }
    let (consumers, has_consumers) = consumers(&root, development);
    let alerts = root.optional("alerts").map(|section| alerts(section, development));
    let tracing = root.optional("tracing").map(|section| tracing_section(section, development));
    let is_whole = has_tenants
        && has_operations
        && has_jobs
        && has_sources
        && has_consumers
        && gateway.as_ref().is_none_or(|(_, has_all)| *has_all)
        && !matches!(alerts, Some(None))
        && !matches!(tracing, Some(None));
    let config = Config {
        development,
        service_name,
        server,
        admin,
        store,
        tenants,
        operations,
        jobs,
        gateway: gateway.map(|(gateway, _)| gateway),
        webhooks,
        consumers,
        alerts: alerts.flatten(),
        targets: targets_section(root.section("targets")),
        dispatcher: dispatcher_section(root.section("dispatcher")),
        audit: audit_section(root.section("audit")),
        log: log_section(root.section("log")),
        tracing: tracing.flatten(),
        warnings: Vec::new(),
    };
    root.finish();
    let origins = Origins { listen, admin_listen, store: store_origins, gateway_listen: gateway_origin };
    Draft { config, origins, is_whole }
}

/// All of an array that can be read, and whether that is all. Two of one name, and too many, are reported whatever else is
/// wrong with them: `name` is the key of their name, `what` is what one of them is.
pub(super) fn all<T>(
    given: Vec<Section<'_>>,
    (name, what): (&str, &str),
    most: usize,
    read: impl FnMut(Section<'_>) -> Option<T>,
) -> (Vec<T>, bool) {
    named_once(&given, name, what);
    if let Some(over) = given.get(most) {
        let path = over.path.split('[').next().unwrap_or_default();
        over.reading.problem(&over.origin, path, format!("there may be at most {most}"));
    }
    let count = given.len();
    let read: Vec<T> = given.into_iter().filter_map(read).collect();
    let is_whole = read.len() == count;
    (read, is_whole)
}

fn tenants(root: &Section<'_>, development: bool) -> (Vec<TenantConfig>, bool) {
    let given = root.sections("tenants");
    let are_several = given.len() > 1;
    let mut tokens = BTreeSet::new();
    let read = |section: Section<'_>| tenant_section(section, development, are_several, &mut tokens);
    all(given, ("name", "a tenant"), limits::TENANTS_MAX, read)
}

fn sources(root: &Section<'_>, development: bool, body_bytes: usize) -> (Vec<SourceConfig>, bool) {
    let read = |section: Section<'_>| source(section, development, body_bytes);
    all(root.sections("webhooks"), ("source", "a source"), limits::SOURCES_MAX, read)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn server_section(section: Section<'_>) -> (ServerConfig, Origin) {
    let listen = section.address_or("listen", loopback(8080));
    let styles =
        [("envelope", ErrorStyle::Envelope), ("flat", ErrorStyle::Flat), ("problem", ErrorStyle::Problem)];
    let alphabets = [("token", KeyAlphabet::Token), ("printable", KeyAlphabet::Printable)];
    let error_docs_base = docs_base(&section);
    let in_progress = limits::IN_PROGRESS_DEFAULT;
    let grace = section.duration_or("shutdown_grace", limits::SHUTDOWN_GRACE_DEFAULT);
    within(&section, "shutdown_grace", grace, Duration::ZERO, limits::SHUTDOWN_GRACE_MAX);
    let wait_max = section.duration_or("wait_max", limits::WAIT_DEFAULT);
    within(&section, "wait_max", wait_max, Duration::ZERO, limits::WAIT_MAX);
    let claims = section.section("claims");
    let server = ServerConfig {
        listen: listen.value,
        tls: section.optional("tls").and_then(tls_section),
        body_bytes_max: section.size_or(
            "max_body_bytes",
            1,
            limits::BODY_BYTES_MAX,
            limits::BODY_BYTES_DEFAULT,
        ),
        connections_max: section.size_or(
            "max_connections",
            1,
            limits::CONNECTIONS_MAX,
            limits::CONNECTIONS_DEFAULT,
        ),
        in_progress_max: section.size_or("max_in_progress", 1, limits::IN_PROGRESS_MAX, in_progress),
        trusted_proxies: texts(&section, "trusted_proxies", Network::parse),
        wait_max,
        key_alphabet: section.choice_or("key_alphabet", &alphabets, alphabets[0]),
        errors: section.choice_or("errors", &styles, styles[0]),
        error_docs_base,
        shutdown_grace: grace,
        claims: policy(&claims),
    };
    claims.finish();
    section.finish();
    (server, listen.origin)
}

/// Problem documents name a page under this base; it must be an address that a reader can open.
fn docs_base(section: &Section<'_>) -> String {
    let base = section.text_or("error_docs_base", semel_api::error::PAGES);
    let absolute = base.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
    if !absolute {
        section.problem("error_docs_base", "must be an absolute address such as \"https://errors.example/\"");
    }
    if base.ends_with('/') || base.contains("{code}") { base } else { format!("{base}/") }
}

pub(super) fn within(
    section: &Section<'_>,
    key: &'static str,
    length: Duration,
    min: Duration,
    max: Duration,
) {
    if length < min || length > max {
        let (min, max) = (super::duration::show(min), super::duration::show(max));
        section.problem(key, format!("must be from {min} to {max}"));
    }
}

pub(super) fn tls_section(section: Section<'_>) -> Option<TlsConfig> {
    let (certificate, key) = (section.path_to("certificate"), section.path_to("key"));
    for (name, path) in [("certificate", &certificate), ("key", &key)] {
        if path.is_none() && !section.has(name) {
            section.problem(name, "is missing: TLS needs a certificate and its key, as PEM files");
        }
    }
    let client_ca = section.path_to("client_ca");
    section.finish();
    Some(TlsConfig { certificate: certificate?, key: key?, client_ca })
}

fn admin_section(section: Section<'_>, development: bool) -> (AdminConfig, Origin) {
    let listen = section.address_or("listen", loopback(8081));
    let roles = [("read", Role::Read), ("operate", Role::Operate)];
    let tokens = section.sections("tokens").into_iter().filter_map(|section| {
        let role = section.choice("role", &roles);
        let name = section.text("name");
        let token = section.secret("token", development);
        for (key, missing) in [("role", role.is_none()), ("token", token.is_none())] {
            if missing && !section.has(key) {
                section.problem(key, "is missing");
            }
        }
        section.finish();
        let role = role?.value;
        // Without a name of its own an operator is known by its role.
        let usual = if role == Role::Read { "reader" } else { "operator" };
        let name = name.map_or_else(|| usual.to_owned(), |name| name.value);
        Some(AdminToken { role, name, token: token?.value })
    });
    let tokens = tokens.collect();
    let tls = section.optional("tls").and_then(tls_section);
    section.finish();
    (AdminConfig { listen: listen.value, tls, tokens }, listen.origin)
}

fn store_section(section: Section<'_>, development: bool) -> (StoreConfig, StoreOrigins) {
    let usual = StoreUrl::new("embedded:./semel-data");
    let url = section.store_url("url", development);
    let url = section.or_default("url", url, usual.clone(), quote(usual.expose()));
    let pool = section.number("pool", 1, limits::STORE_CONNECTIONS_MAX);
    let timeout = |key| {
        let found = section.duration(key)?.value;
        let (min, max) = (limits::STORE_TIMEOUT_MIN, limits::STORE_TIMEOUT_MAX);
        within(&section, key, found, min, max);
        (min..=max).contains(&found).then_some(found)
    };
    let config = StoreConfig {
        url,
        listen_url: section.store_url("listen_url", development).map(|found| found.value),
        pool: pool.and_then(|found| usize::try_from(found.value).ok()),
        connect_timeout: timeout("connect_timeout"),
        statement_timeout: timeout("statement_timeout"),
        start_timeout: start_timeout(&section),
        accept_claim_loss: section.boolean("accept_claim_loss", false),
    };
    let keys = ["url", "listen_url", "pool", "connect_timeout", "statement_timeout", "start_timeout"];
    let origins = keys.into_iter().map(|key| (key, section.origin_of(key))).collect();
    section.finish();
    (config, StoreOrigins(origins))
}

/// Zero waits for nothing.
fn start_timeout(section: &Section<'_>) -> Option<Duration> {
    let found = section.duration("start_timeout")?.value;
    within(section, "start_timeout", found, Duration::ZERO, limits::STORE_START_WITHIN_MAX);
    (found <= limits::STORE_START_WITHIN_MAX).then_some(found)
}

/// One of `[[tenants]]`. `known` are the tokens of those before it.
fn tenant_section(
    section: Section<'_>,
    development: bool,
    are_several: bool,
    known: &mut BTreeSet<String>,
) -> Option<TenantConfig> {
    // Whatever it is called, its tokens are looked at.
    let name = named(&section, Tenant::try_new).or_else(|| Tenant::try_new("unnamed").ok());
    let path = section.path_of("tokens");
    let given = section.entries("tokens");
    let has_none = given.is_empty() && !section.reading.is_wrong(|wrong| wrong == path);
    let tokens: Vec<_> = given
        .into_iter()
        .enumerate()
        .filter_map(|(place, entry)| {
            secret(section.reading, format!("{path}[{place}]"), &entry, development).map(|found| found.value)
        })
        .collect();
    for token in &tokens {
        if !known.insert(token.expose().to_owned()) {
            let message = "a token of this tenant is another's, too: nobody could tell whose request it is";
            section.reading.problem(&section.origin, &path, message);
        }
    }
    if has_none && are_several {
        let message = "is missing: with several tenants, each needs a token to be told apart";
        section.reading.problem(&section.origin, &path, message);
    }
    let rate_limit = section.optional("rate_limit").and_then(rate_section);
    section.finish();
    Some(TenantConfig { name: name?, tokens, rate_limit })
}

pub(super) fn rate_section(section: Section<'_>) -> Option<RateLimit> {
    let per_second = section.number("requests_per_second", 1, u64::from(limits::RATE_MAX));
    if per_second.is_none() && !section.has("requests_per_second") {
        section.problem("requests_per_second", "is missing");
    }
    let rate = per_second.map_or(1, |found| found.value);
    let burst = section.number_or("burst", 1, u64::from(limits::RATE_MAX), rate);
    section.finish();
    Some(RateLimit { requests_per_second: u32::try_from(rate).ok()?, burst: u32::try_from(burst).ok()? })
}

/// The section's name, checked by one of core's types.
pub(super) fn named<T>(
    section: &Section<'_>,
    check: impl FnOnce(&str) -> Result<T, semel_core::Invalid>,
) -> Option<T> {
    let Some(name) = section.text("name") else {
        if !section.has("name") {
            section.problem("name", "is missing");
        }
        return None;
    };
    check(&name.value).map_err(|invalid| section.problem("name", invalid)).ok()
}

fn targets_section(section: Section<'_>) -> TargetsConfig {
    let allow_link_local = section.boolean("allow_link_local", false);
    let ca = section.path_to("ca");
    section.finish();
    TargetsConfig { allow_link_local, ca }
}

fn dispatcher_section(section: Section<'_>) -> DispatcherConfig {
    let concurrency = section.size_or("concurrency", 1, limits::DISPATCH_MAX, limits::DISPATCH_DEFAULT);
    section.finish();
    DispatcherConfig { concurrency }
}

fn audit_section(section: Section<'_>) -> AuditConfig {
    let traffic = section.boolean("traffic", true);
    let retention = section.duration_or("retention", limits::AUDIT_RETENTION_DEFAULT);
    within(&section, "retention", retention, limits::AUDIT_RETENTION_MIN, core::RETENTION_MAX);
    section.finish();
    AuditConfig { traffic, retention }
}

fn log_section(section: Section<'_>) -> LogConfig {
    let filter = section.text_or("filter", "info");
    let formats = [("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
    let format = section.choice("format", &formats).map(|found| found.value);
    section.finish();
    LogConfig { filter, format }
}

fn tracing_section(section: Section<'_>, development: bool) -> Option<TracingConfig> {
    let endpoint = section.text("endpoint");
    if endpoint.is_none() && !section.has("endpoint") {
        section.problem(
            "endpoint",
            "is missing: the address that takes spans, such as \"http://127.0.0.1:4318/v1/traces\"",
        );
    }
    let endpoint = endpoint.and_then(|found| {
        http_address(&found.value).map_err(|problem| section.problem("endpoint", problem)).ok()
    });
    let sample_percent = section.number_or("sample_percent", 0, 100, 100);
    let headers = target_headers(&section, development, &["content-type", "traceparent", "user-agent"]);
    let ca = section.path_to("ca");
    section.finish();
    let sample_percent = u8::try_from(sample_percent).unwrap_or(100);
    Some(TracingConfig { endpoint: endpoint?, sample_percent, headers, ca })
}

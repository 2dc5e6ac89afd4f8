//! Reads each section of the configuration: names, types, ranges and defaults. What contradicts what is
//! [`check`](super::check)'s.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, Uri};
use semel_core::Operation;
use semel_core::id::{Lane, TagName, Tenant};
use semel_core::limits as core;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};

use super::gateway::Network;
use super::gateway::read::{gateway, texts};
use super::jobs::jobs;
use super::reader::{Found, Section, named_once, quote, secret};
use super::sources::consumers::consumers;
use super::sources::is_reserved;
use super::sources::read::{alerts, sample, source};
use super::tree::{Entry, Origin};
use super::{
    AdminConfig, AdminToken, AuditConfig, Builtin, Config, DispatcherConfig, ErrorStyle, KeyAlphabet,
    LogConfig, LogFormat, OperationConfig, ProbeConfig, RateLimit, Role, ServerConfig, SourceConfig,
    StoreConfig, StoreUrl, Target, TargetsConfig, TenantConfig, TlsConfig, TracingConfig,
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
fn all<T>(
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

fn operations(root: &Section<'_>, development: bool) -> (Vec<OperationConfig>, bool) {
    let read = |section: Section<'_>| operation_section(section, development);
    let given = root.sections("operations");
    let (mut operations, is_whole) = all(given, ("name", "an operation"), limits::OPERATIONS_MAX, read);
    if development {
        for builtin in Builtin::ALL {
            if !operations.iter().any(|operation| operation.name.as_str() == builtin.as_str()) {
                operations.extend(builtin_operation(builtin));
            }
        }
    }
    (operations, is_whole)
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
fn named<T>(section: &Section<'_>, check: impl FnOnce(&str) -> Result<T, semel_core::Invalid>) -> Option<T> {
    let Some(name) = section.text("name") else {
        if !section.has("name") {
            section.problem("name", "is missing");
        }
        return None;
    };
    check(&name.value).map_err(|invalid| section.problem("name", invalid)).ok()
}

fn operation_section(section: Section<'_>, development: bool) -> Option<OperationConfig> {
    let name = named(&section, Operation::try_new);
    if let Some(name) = section.written("name").filter(|name| is_reserved(name)) {
        section.problem("name", format!("`{name}` is a name that Semel gives operations itself"));
    }
    let target = target(&section, development);
    let policy = policy(&section);
    let timeout = section.duration_or("timeout", limits::TIMEOUT_DEFAULT);
    within(&section, "timeout", timeout, Duration::from_millis(1), limits::TIMEOUT_MAX);
    let probe = probe(&section);
    let tags = tags(&section);
    let not_executed = section.numbers("not_executed", 300, 599);
    let not_executed = not_executed.into_iter().filter_map(|status| status.try_into().ok()).collect();
    let forward_key = section.boolean("forward_key", false);
    let keep_headers = keep_headers(&section);
    let headers = target_headers(&section, development, &SEMELS_OWN);
    let concurrency = section.size_or("concurrency", 1, limits::DISPATCH_MAX, limits::LANE_DEFAULT);
    let most = core::BODY_BYTES_MAX;
    let result_bytes_max = section.size_or("max_response_size", 1, most, limits::RESULT_BYTES_DEFAULT);
    section.finish();
    let target = target?;
    Some(OperationConfig {
        name: name?,
        lane: lane(&target)?,
        target,
        policy,
        timeout,
        probe,
        tags,
        not_executed,
        forward_key,
        keep_headers,
        headers,
        concurrency,
        result_bytes_max,
    })
}

fn target(section: &Section<'_>, development: bool) -> Option<Target> {
    let Some(Found { value, .. }) = section.text("target") else {
        if !section.has("target") {
            section.problem("target", "is missing: the address that does the operation");
        }
        return None;
    };
    if let Some(name) = value.strip_prefix("builtin:") {
        let builtin = Builtin::ALL.into_iter().find(|builtin| builtin.as_str() == name);
        if builtin.is_none() || !development {
            let allowed =
                "built-in targets (builtin:echo, sleep, fail, count) exist only in development mode";
            section.problem("target", allowed);
            return None;
        }
        return builtin.map(Target::Builtin);
    }
    match http_address(&value) {
        Ok(uri) => {
            section.names_address("target", &uri);
            Some(Target::Http(uri))
        }
        Err(problem) => {
            section.problem("target", problem);
            None
        }
    }
}

pub(super) fn http_address(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri =
        text.parse().map_err(|_| "must be an address such as \"http://127.0.0.1:9000/charges\"")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("must name a host");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not contain a user or password; use headers = { authorization = { env = \"…\" } }");
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = authority.strip_prefix(uri.host().unwrap_or_default()).unwrap_or_default();
    if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("must have a port from 1 to 65535, or none");
    }
    if text.contains('#') {
        return Err("must have no fragment (`#…`): it is never sent");
    }
    if text.contains(['{', '}']) {
        return Err("must have no braces: only a probe has a place, {key}, that is filled in");
    }
    Ok(uri)
}

/// One queue for each target host, so that a dead one starves no other.
fn lane(target: &Target) -> Option<Lane> {
    let name = match target {
        Target::Builtin(builtin) => format!("builtin:{}", builtin.as_str()),
        Target::Http(uri) => {
            format!("{}://{}", uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |a| a.as_str()))
        }
        // Each has a lane of its own, by its own name.
        Target::Delivery(delivery) => format!("webhook:{}/{}", delivery.source, delivery.name),
    };
    Lane::try_new(&name).ok()
}

fn policy(section: &Section<'_>) -> Policy {
    let usual = Policy::default();
    let lease = section.duration_or("lease", usual.lease());
    let retention = section.duration_or("retention", usual.retention());
    let semantics = [("at-most-once", OnLapse::AtMostOnce), ("resume", OnLapse::Resume)];
    let on_lapse = section.choice_or("semantics", &semantics, semantics[0]);
    let retry = retry(section.section("retry"));
    lengths(section, lease, retention);
    let payload_retention = payload_retention(section, retention);
    let policy = Policy::try_new(lease, retention, on_lapse, Keep::Deterministic, retry);
    policy.and_then(|policy| policy.try_with_payload_retention(payload_retention)).unwrap_or(usual)
}

/// Says of both lengths of time of a policy what is wrong with them.
pub(super) fn lengths(section: &Section<'_>, lease: Duration, retention: Duration) {
    let usual = Policy::default();
    for (key, lease, retention) in
        [("lease", lease, usual.retention()), ("retention", usual.lease(), retention)]
    {
        let judged = Policy::try_new(lease, retention, usual.on_lapse(), Keep::Deterministic, Schedule::ONCE);
        // What is inherited is said where it stands.
        if let Err(invalid) = judged
            && section.has(key)
        {
            section.problem(key, invalid);
        }
    }
}

/// How long the payload of what is done is kept, where that is not for as long as the record.
pub(super) fn payload_retention(section: &Section<'_>, retention: Duration) -> Option<Duration> {
    let kept = section.duration("payload_retention")?.value;
    if kept < limits::PAYLOAD_RETENTION_MIN || kept >= retention {
        let (min, max) = (limits::PAYLOAD_RETENTION_MIN, retention);
        let (min, max) = (super::duration::show(min), super::duration::show(max));
        section.problem(
            "payload_retention",
            format!("must be at least {min}, and less than `retention` ({max})"),
        );
        return None;
    }
    Some(kept)
}

fn retry(section: Section<'_>) -> Schedule {
    let usual = u64::from(limits::RETRY_ATTEMPTS_DEFAULT);
    let attempts = section.number_or("max_attempts", 1, u64::from(core::ATTEMPTS_MAX), usual);
    let first = section.duration_or("first", limits::RETRY_FIRST_DEFAULT);
    let cap = section.duration_or("cap", limits::RETRY_CAP_DEFAULT);
    let max_age = section.duration_or("max_age", limits::RETRY_MAX_AGE_DEFAULT);
    let attempts = u32::try_from(attempts).unwrap_or(core::ATTEMPTS_MAX);
    let schedule = Schedule::try_new(attempts, first, cap, Some(max_age)).unwrap_or_else(|invalid| {
        section.problem(if invalid.what() == "cap" { "cap" } else { "first" }, invalid);
        Schedule::ONCE
    });
    section.finish();
    schedule
}

fn probe(section: &Section<'_>) -> Option<ProbeConfig> {
    let url = section.text("probe");
    let is_final = section.boolean("probe_final", false);
    let Some(Found { value: url, .. }) = url else {
        if is_final {
            section.problem("probe_final", "says something about a probe, and there is no probe");
        }
        return None;
    };
    if url.contains("{key}") {
        match http_address(&url.replace("{key}", "key")) {
            Ok(uri) => section.names_address("probe", &uri),
            Err(problem) => section.problem("probe", problem),
        }
    } else {
        section.problem("probe", "must contain {key} where the key goes");
    }
    Some(ProbeConfig { url, is_final })
}

pub(super) fn tags(section: &Section<'_>) -> Vec<(TagName, String)> {
    let given = section.names("tags");
    if given.len() > core::TAGS_MAX {
        section.problem("tags", format!("there may be at most {} of them", core::TAGS_MAX));
    }
    let tag = |(name, pointer): (String, String)| {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            let message = format!("`{pointer}` is no JSON Pointer (RFC 6901): it must begin with `/`");
            section.problem("tags", message);
        } else if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            let message =
                format!("`{pointer}` is no JSON Pointer (RFC 6901): after `~` there must be 0 or 1");
            section.problem("tags", message);
        }
        match TagName::try_new(&name) {
            Ok(name) => Some((name, pointer)),
            Err(invalid) => {
                section.problem("tags", invalid);
                None
            }
        }
    };
    given.into_iter().filter_map(tag).collect()
}

fn keep_headers(section: &Section<'_>) -> Vec<HeaderName> {
    let read = |name: String| match name.parse::<HeaderName>() {
        Ok(header) if NEVER_REPLAYED.contains(&header.as_str()) => {
            section.problem("keep_headers", format!("`{name}` belongs to one answer and is never replayed"));
            None
        }
        Ok(header) => Some(header),
        Err(_) => {
            section.problem("keep_headers", format!("`{name}` is no name of a header"));
            None
        }
    };
    section.texts("keep_headers").into_iter().filter_map(read).collect()
}

/// Headers that no configuration may keep: they belong to one answer, one connection or one caller.
const NEVER_REPLAYED: [&str; 11] = [
    "set-cookie",
    "date",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "content-length",
];

/// Headers that frame a message or belong to its connection: whoever could set them could make one request two.
const FRAMING: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that the server itself sends with an operation: a second value would contradict the first. (And all that
/// begin with `semel-`.)
const SEMELS_OWN: [&str; 5] =
    ["content-type", "idempotency-key", "traceparent", "user-agent", "x-correlation-id"];

/// Those that it sends with a delivery.
pub(super) const DELIVERYS_OWN: [&str; 8] = [
    "content-type",
    "idempotency-key",
    "traceparent",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-correlation-id",
];

/// Headers that are sent with every request, but for those that frame it and `own` ones, which say what they say.
pub(super) fn target_headers(
    section: &Section<'_>,
    development: bool,
    own: &[&str],
) -> Vec<(HeaderName, super::Secret)> {
    let path = section.path_of("headers");
    let read = |(name, entry): (String, Entry)| {
        let path = format!("{path}.{name}");
        // Whatever its value is, its name is looked at.
        let secret = secret(section.reading, path.clone(), &entry, development).map(|found| found.value);
        let problem = |message: String| section.reading.problem(&entry.origin, &path, message);
        let Ok(header) = name.parse::<HeaderName>() else {
            problem(format!("`{name}` is no name of a header"));
            return None;
        };
        if FRAMING.contains(&header.as_str()) {
            problem(format!("`{name}` belongs to the connection or frames the message; it cannot be set"));
        } else if own.contains(&header.as_str()) || header.as_str().starts_with("semel-") {
            problem(format!("`{name}` is sent by Semel itself; it cannot be set"));
        }
        let secret = secret?;
        if http::HeaderValue::from_str(secret.expose()).is_err() {
            problem(format!("the value of `{name}` cannot be sent as a header"));
        }
        Some((header, secret))
    };
    section.named("headers").into_iter().filter_map(read).collect()
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

/// A built-in operation as development mode has it: with the policy of a configured one that says nothing.
fn builtin_operation(builtin: Builtin) -> Option<OperationConfig> {
    let target = Target::Builtin(builtin);
    let usual = Policy::default();
    let retry = Schedule::try_new(
        limits::RETRY_ATTEMPTS_DEFAULT,
        limits::RETRY_FIRST_DEFAULT,
        limits::RETRY_CAP_DEFAULT,
        Some(limits::RETRY_MAX_AGE_DEFAULT),
    );
    let policy =
        Policy::try_new(usual.lease(), usual.retention(), usual.on_lapse(), usual.keep(), retry.ok()?);
    Some(OperationConfig {
        name: Operation::try_new(builtin.as_str()).ok()?,
        lane: lane(&target)?,
        target,
        policy: policy.ok()?,
        timeout: limits::TIMEOUT_DEFAULT,
        probe: None,
        tags: Vec::new(),
        not_executed: Vec::new(),
        forward_key: false,
        keep_headers: Vec::new(),
        headers: Vec::new(),
        concurrency: limits::LANE_DEFAULT,
        result_bytes_max: limits::RESULT_BYTES_DEFAULT,
    })
}

//! Reads `[[operations]]`: what is done at whose address, under which policy, and what of it is kept. What sources, jobs and
//! the gateway say of their targets in the same words is read here as well.

use std::time::Duration;

use http::{HeaderName, Uri};
use semel_core::Operation;
use semel_core::id::{Lane, TagName};
use semel_core::limits as core;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};

use super::reader::{Found, Section, secret};
use super::sections::{all, named, within};
use super::sources::is_reserved;
use super::tree::Entry;
use super::{Builtin, OperationConfig, ProbeConfig, Target};
use crate::limits;

/// All operations that can be read, and whether those are all. In development mode the built-in ones are there as well.
pub(super) fn operations(root: &Section<'_>, development: bool) -> (Vec<OperationConfig>, bool) {
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

pub(super) fn policy(section: &Section<'_>) -> Policy {
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

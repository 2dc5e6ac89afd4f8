//! Reads `[[webhooks]]` and `[alerts]`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use semel_core::id::TagName;
use semel_core::limits as core;
use semel_webhook::{
    ConfigError, IdentityRule, Locator, MissingIdentity, Part, Provider, SecretValue, Source, SourceBuilder,
    Warning,
};

use super::super::operations::{DELIVERYS_OWN, payload_retention, tags, target_headers};
use super::super::reader::{Section, array, named_once, text};
use super::super::sections::{rate_section, within};
use super::super::tree::{Entry, Node};
use super::generic::signing;
use super::secrets::{bare, secrets, signer};
use super::targets::{Kept, Place, Tries, place, url};
use super::{
    ALERTS, AlertFormat, AlertKind, AlertsConfig, Duplicates, SourceConfig, SourceResponse, SourceTarget,
};
use crate::limits;

/// The tag whose value says which deliveries are kept in order.
pub const ORDER_TAG: &str = "order";
/// Tags that the door gives records itself.
const OWN_TAGS: [&str; 5] = ["source", "target", ORDER_TAG, "kind", "event_id"];

/// One of `[[webhooks]]`; `None` where something of it cannot be used, which has been said.
pub(in crate::config) fn source(
    section: Section<'_>,
    development: bool,
    body_bytes_default: usize,
) -> Option<SourceConfig> {
    let retention = section.duration_or("retention", semel_webhook::limits::RETENTION_DEFAULT);
    within(&section, "retention", retention, Duration::from_millis(1), core::RETENTION_MAX);
    let kept = Kept { records: retention, payloads: payload_retention(&section, retention) };
    let source = verifier(&section, development);
    let order_by = pointer(&section, "order_by");
    let places = places(&section, development);
    let duplicates = duplicates(section.section("duplicates"));
    let statuses = [("200", StatusCode::OK), ("409", StatusCode::CONFLICT)];
    let status = section.number("conflict_status", 200, 409).map_or(200, |found| found.value);
    let conflict_status = statuses.iter().find(|(text, _)| *text == status.to_string());
    if conflict_status.is_none() {
        section.problem("conflict_status", "must be 200 or 409");
    }
    let answer = source.as_ref().map(Source::answer);
    let response = response(section.section("response"), answer);
    let tags = own_tags(&section);
    let most = limits::WEBHOOK_CACHE_MAX;
    let cache_entries = section.size_or("cache_size", 0, most, limits::WEBHOOK_CACHE_DEFAULT);
    let body_bytes_max = section.size_or("max_body_bytes", 1, limits::BODY_BYTES_MAX, body_bytes_default);
    let rate_limit = section.optional("rate_limit").and_then(rate_section);
    if let Some(source) = &source {
        warn(&section, source, retention);
    }
    section.finish();
    let (source, places) = (source?, places?);
    let ordered = order_by.is_some();
    let targets: Option<Vec<SourceTarget>> =
        places.into_iter().map(|place| place.of_source(source.name(), kept, ordered)).collect();
    Some(SourceConfig {
        source: Arc::new(source),
        targets: targets?,
        retention,
        duplicates,
        conflict_status: conflict_status?.1,
        response,
        order_by,
        tags,
        cache_entries,
        body_bytes_max,
        rate_limit,
    })
}

/// A source to try it out with: it is proved by a token that everybody knows, and delivers to nobody.
pub(in crate::config) fn sample() -> Option<SourceConfig> {
    let builder = Source::builder(SAMPLE, Provider::Generic)
        .token(SAMPLE_HEADER, "")
        .secret(SecretValue::new("sample", SAMPLE_TOKEN))
        .identity(IdentityRule::first_of(&["/id"]).ok()?);
    let place = Place {
        name: "default".into(),
        url: super::targets::Url::Builtin(super::super::Builtin::Echo),
        signer: None,
        headers: Vec::new(),
        tries: Tries::usual(),
    };
    let retention = semel_webhook::limits::RETENTION_DEFAULT;
    Some(SourceConfig {
        source: Arc::new(builder.build().ok()?),
        targets: vec![place.of_source(SAMPLE, Kept { records: retention, payloads: None }, false)?],
        retention,
        duplicates: Duplicates { dead_letter: false, alert: false },
        conflict_status: StatusCode::OK,
        response: SourceResponse { status: StatusCode::OK, content_type: None, body: Bytes::new() },
        order_by: None,
        tags: Vec::new(),
        cache_entries: limits::WEBHOOK_CACHE_DEFAULT,
        body_bytes_max: limits::BODY_BYTES_DEFAULT,
        rate_limit: None,
    })
}

/// The source that is there without any configuration.
pub const SAMPLE: &str = "sample";
/// The header that proves its deliveries.
pub const SAMPLE_HEADER: &str = "x-sample-token";
/// What stands in it.
pub const SAMPLE_TOKEN: &str = "try-me";

/// Who may send, and how that is proved.
fn verifier(section: &Section<'_>, development: bool) -> Option<Source> {
    let name = section.text("source");
    let provider = section.text("provider");
    for (key, missing) in [("source", name.is_none()), ("provider", provider.is_none())] {
        if missing && !section.has(key) {
            section.problem(key, if key == "source" { MISSING_NAME } else { MISSING_PROVIDER });
        }
    }
    let provider = provider.and_then(|found| {
        let known = Provider::ALL.map(Provider::as_str).join(", ");
        let said = |_| {
            section.problem("provider", format!("there is no provider {:?}; known: {known}", found.value));
        };
        Provider::parse(&found.value).map_err(said).ok()
    });
    // Everything is read before anything is given up, so that all of it is reported.
    let secrets = secrets(section, development);
    let insecure = section.boolean("insecure", false);
    let identity = identity(section);
    let missing = missing_identity(section);
    let tolerance = section.duration("tolerance").map(|found| found.value);
    let addresses = section.texts("addresses");
    let volatile = section.texts("fingerprint_exclude");
    // What could not be read has been said, and whatever seems to be wrong for the want of it is not.
    let mut said = Vec::new();
    let mut unread = |is_unread: bool, keys: &[&'static str]| {
        if is_unread {
            said.extend_from_slice(keys);
        }
    };
    unread(name.is_none(), &["source"]);
    unread(secrets.is_none(), &["secrets"]);
    unread(missing.is_none(), &["missing_identity", "identity"]);
    unread(identity.is_none() && section.has("identity"), &["identity"]);
    let name = name.map_or_else(|| SAMPLE.to_owned(), |name| name.value);
    let unsigned = Source::builder(&name, provider?).insecure(insecure);
    let signed = signing(section, unsigned.clone());
    unread(signed.is_none(), &["scheme", "token", "tolerance"]);
    let mut builder = signed.unwrap_or(unsigned).missing_identity(missing.unwrap_or(MissingIdentity::Reject));
    builder = secrets.unwrap_or_default().into_iter().fold(builder, SourceBuilder::secret);
    builder = addresses.iter().fold(builder, |builder, range| builder.address(range));
    builder = volatile.iter().fold(builder, |builder, pointer| builder.volatile(pointer));
    builder = identity.into_iter().fold(builder, SourceBuilder::identity);
    builder = tolerance.into_iter().fold(builder, SourceBuilder::tolerance);
    let built = builder.build_or_all();
    for problem in built.as_ref().err().into_iter().flatten() {
        refused(section, problem, &said);
    }
    built.ok().filter(|_| said.is_empty())
}

const MISSING_NAME: &str = "is missing: the name that the partner's address ends with";
const MISSING_PROVIDER: &str = "is missing: who sends, such as \"xendit\", \"stripe\" or \"generic\"";

/// Says under which key it stands what the crate does not take, unless all has been `said` of that.
fn refused(section: &Section<'_>, error: &ConfigError, said: &[&str]) {
    let key = match error.what() {
        key @ ("source" | "secrets" | "identity" | "insecure" | "missing_identity" | "tolerance") => key,
        "addresses" => "addresses",
        "volatile" => "fingerprint_exclude",
        "scheme" | "template" | "timestamp" | "key_encoding" => "scheme",
        what if what.starts_with("secret ") => "secrets",
        what if what.starts_with('"') => "addresses",
        // The name of a header that is none.
        _ if section.has("token") => "token",
        _ => "scheme",
    };
    if !said.contains(&key) {
        section.problem(key, if error.what() == key { bare(error) } else { error.to_string() });
    }
}

/// `["webhook-id", ["/a", "/b"]]`: ways to find the identity, each a place, or several that count together. `None` where
/// nothing is said, or nothing that can be read.
fn identity(section: &Section<'_>) -> Option<IdentityRule> {
    let entry = section.ask("identity")?.clone();
    let allowed =
        "must be an array of headers and JSON Pointers, such as [\"webhook-id\", [\"/account\", \"/id\"]]";
    let way = |entry: &Entry| -> Option<Result<Vec<Part>, ConfigError>> {
        let places = match &entry.node {
            Node::Array(places) => {
                places.iter().map(|place| text(&place.node)).collect::<Option<Vec<_>>>()?
            }
            other => vec![text(other)?],
        };
        let part = |place: &String| Ok(Part::required(vec![Locator::parse(place)?]));
        Some(places.iter().map(part).collect())
    };
    let ways = array(&entry.node, &entry.origin)
        .and_then(|entries| entries.iter().map(way).collect::<Option<Vec<_>>>());
    let Some(ways) = ways else {
        section.problem("identity", allowed);
        return None;
    };
    let rule = ways.into_iter().collect::<Result<Vec<_>, _>>().and_then(IdentityRule::try_new);
    match rule {
        Ok(rule) => {
            section.reading.show(&entry.origin, section.path_of("identity"), shown(&entry));
            Some(rule)
        }
        Err(error) => {
            section.problem("identity", bare(&error));
            None
        }
    }
}

/// An array of texts and arrays of texts, as it would stand in the file.
fn shown(entry: &Entry) -> String {
    match &entry.node {
        Node::Text(text) => format!("{text:?}"),
        Node::Array(entries) => format!("[{}]", entries.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Node::Raw(text) => text.clone(),
        other => other.to_string(),
    }
}

fn missing_identity(section: &Section<'_>) -> Option<MissingIdentity> {
    let words = [("reject", false), ("content-hash", true)];
    let hashes = section.choice_or("missing_identity", &words, words[0]);
    let hash = section.optional("content_hash");
    if let Some(table) = hash {
        let (headers, without) = (table.texts("headers"), table.texts("without"));
        table.finish();
        if !hashes {
            section.problem(
                "content_hash",
                "says something that only `missing_identity = \"content-hash\"` does",
            );
            return None;
        }
        return Some(MissingIdentity::ContentHash { headers, without });
    }
    Some(if hashes {
        MissingIdentity::ContentHash { headers: Vec::new(), without: Vec::new() }
    } else {
        MissingIdentity::Reject
    })
}

/// Where its events go; `None` where that cannot be used, which has been said.
fn places(section: &Section<'_>, development: bool) -> Option<Vec<Place>> {
    let usual = Tries::read(section, &Tries::usual());
    let given = section.sections("targets");
    if given.is_empty() {
        let url = url(section, "target", development);
        let signer = signer(section, "target_secret", false, development);
        let headers = target_headers(section, development, &DELIVERYS_OWN);
        let signer = signer.ok()?.map(Arc::new);
        return Some(vec![Place { name: "default".into(), url: url?, signer, headers, tries: usual }]);
    }
    for key in ["target", "target_secret", "headers"] {
        if section.has(key) {
            // Asked for, so that it is not an unknown key as well.
            section.ask(key);
            section.problem(key, "is given beside `targets`: each of them has its own");
        }
    }
    let count = given.len();
    if count > limits::WEBHOOK_TARGETS_MAX {
        section.problem("targets", format!("there may be at most {}", limits::WEBHOOK_TARGETS_MAX));
    }
    named_once(&given, "name", "a target");
    let places: Vec<_> =
        given.into_iter().filter_map(|section| place(section, &usual, development)).collect();
    (places.len() == count && !section.has("target")).then_some(places)
}

fn duplicates(section: Section<'_>) -> Duplicates {
    let found = Duplicates {
        dead_letter: section.boolean("dead_letter", false),
        alert: section.boolean("alert", false),
    };
    section.finish();
    found
}

/// What the partner is answered: as its provider wants it, unless something else is said.
fn response(section: Section<'_>, usual: Option<semel_webhook::Answer>) -> SourceResponse {
    let (status, kind, text) =
        usual.map_or((200, None, ""), |usual| (usual.status, usual.content_type, usual.body));
    let status = section.number("status", 200, 299).map_or(u64::from(status), |found| found.value);
    let content_type = section.text("content_type").map(|found| found.value);
    let body = section.text("body").map(|found| found.value);
    let value = content_type.as_deref().or(kind).map(HeaderValue::from_str);
    if matches!(value, Some(Err(_))) {
        section.problem("content_type", "cannot be sent as a header");
    }
    section.finish();
    SourceResponse {
        status: u16::try_from(status)
            .ok()
            .and_then(|status| status.try_into().ok())
            .unwrap_or(StatusCode::OK),
        content_type: value.and_then(Result::ok),
        body: body.map_or_else(|| Bytes::from_static(text.as_bytes()), Bytes::from),
    }
}

fn pointer(section: &Section<'_>, key: &'static str) -> Option<String> {
    let found = section.text(key)?.value;
    let is_one = found.starts_with('/') && found.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !is_one {
        section.problem(key, "must be a JSON Pointer (RFC 6901) such as \"/order_id\"");
    }
    is_one.then_some(found)
}

fn own_tags(section: &Section<'_>) -> Vec<(TagName, String)> {
    let tags = tags(section);
    if let Some((name, _)) = tags.iter().find(|(name, _)| OWN_TAGS.contains(&name.as_str())) {
        section.problem("tags", format!("`{name}` is a tag that Semel gives itself"));
    }
    let most = core::TAGS_MAX - OWN_TAGS.len();
    if tags.len() > most {
        section.problem("tags", format!("there may be at most {most} of them"));
    }
    tags
}

fn warn(section: &Section<'_>, source: &Source, retention: Duration) {
    for warning in source.warnings(retention) {
        let key = match &warning {
            Warning::RetentionBelowRetries { .. } => "retention",
            Warning::IdentityUnsigned { .. } => "identity",
            Warning::Sha1 => "scheme",
            Warning::Insecure => "insecure",
        };
        section.reading.warn(&section.origin_of(key), &section.path_of(key), warning);
    }
}

/// Where alerts go; `None` where something of it cannot be used, which has been said.
pub(in crate::config) fn alerts(section: Section<'_>, development: bool) -> Option<AlertsConfig> {
    let url = url(&section, "url", development);
    let formats = [("standard-webhooks", AlertFormat::StandardWebhooks), ("slack", AlertFormat::Slack)];
    let format = section.choice_or("format", &formats, formats[0]);
    let signer = signer(&section, "secret", true, development);
    if format == AlertFormat::Slack && matches!(signer, Ok(Some(_))) {
        section.problem("secret", "signs nothing in the format \"slack\", where the address is the secret");
    }
    let headers = target_headers(&section, development, &DELIVERYS_OWN);
    let every = section.duration_or("every", limits::ALERTS_EVERY_DEFAULT);
    within(&section, "every", every, limits::ALERTS_EVERY_MIN, limits::ALERTS_EVERY_MAX);
    let on = kinds(&section);
    let tries = Tries::read(&section, &Tries::usual());
    section.finish();
    let signer = signer.ok()?.map(Arc::new);
    let place = Place { name: "default".into(), url: url?, signer, headers, tries };
    let retention = semel_webhook::limits::RETENTION_DEFAULT;
    let kept = Kept { records: retention, payloads: None };
    let operation = place.operation(ALERTS, ALERTS, kept, false)?;
    Some(AlertsConfig { format, on, every, operation })
}

fn kinds(section: &Section<'_>) -> Vec<AlertKind> {
    let Some(names) = section.texts_given("on") else { return AlertKind::ALL.to_vec() };
    let known = AlertKind::ALL.map(AlertKind::as_str).join(", ");
    let kind = |name: &String| {
        let found = AlertKind::ALL.into_iter().find(|kind| kind.as_str() == name);
        if found.is_none() {
            section.problem("on", format!("there is no kind {name:?}; known: {known}"));
        }
        found
    };
    names.iter().filter_map(kind).collect()
}

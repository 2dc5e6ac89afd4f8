//! Reads `[[consumers]]`: topics of Kafka whose events are delivered to a target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use semel_core::limits as core;
use semel_kafka::{Conflicts, Identity};

use super::super::operations::{DELIVERYS_OWN, target_headers};
use super::super::reader::{Section, bare, quote, secret, text};
use super::super::sections::within;
use super::super::tree::{Entry, Node};
use super::super::{OperationConfig, Secret};
use super::secrets::signer;
use super::targets::{Kept, Place, Tries, url};
use crate::limits;

/// What begins the name of a consumer's operation.
pub(super) const CONSUMER: &str = "consumer:";

/// Topics, in whose name they are consumed, and where their events go.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Its name: unique, and the consumer group's unless another is given.
    pub name: Arc<str>,
    /// Brokers, as `host:port`, by commas.
    pub brokers: String,
    /// At least one, each once.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// What makes two messages one event.
    pub identity: Identity,
    /// What the same identity with other content means.
    pub conflicts: Conflicts,
    /// Where messages go that cannot be taken in; `{topic}.dlq` unless one is named.
    pub dead_letter_topic: Option<String>,
    /// Options of librdkafka, passwords among them.
    pub options: BTreeMap<String, Secret>,
    /// What the engine runs for each event, by the name `consumer:<name>`, which is its lane as well.
    pub operation: OperationConfig,
}

impl PartialEq for ConsumerConfig {
    /// Whether it consumes the same in the same way. (Where events go, how often and with what is the operation's, which is
    /// looked up by its name.)
    fn eq(&self, other: &Self) -> bool {
        let parts = |config: &Self| {
            let Self { name, brokers, topics, group, .. } = config.clone();
            (name, brokers, topics, group, config.operation.policy, config.operation.lane.clone())
        };
        let rules = |config: &Self| {
            let Self { identity, conflicts, dead_letter_topic, options, .. } = config.clone();
            (identity, conflicts, dead_letter_topic, options)
        };
        parts(self) == parts(other) && rules(self) == rules(other)
    }
}

/// All consumers that can be read, and whether those are all.
pub(in crate::config) fn consumers(root: &Section<'_>, development: bool) -> (Vec<ConsumerConfig>, bool) {
    let given = root.sections("consumers");
    if given.len() > limits::CONSUMERS_MAX {
        root.problem("consumers", format!("there may be at most {}", limits::CONSUMERS_MAX));
    }
    let mut names = BTreeSet::new();
    for one in &given {
        if cfg!(not(feature = "kafka")) {
            let message =
                "this program was built without Kafka; the feature `kafka` of semel-server brings it along";
            one.problem("brokers", message);
        }
        let key = if one.has("name") { "name" } else { "group" };
        let Some(name) = one.written(key) else { continue };
        let message = format!("there is a consumer `{name}` above: give this one a `name`");
        if !names.insert(name) {
            one.reading.problem(&one.origin_of(key), &one.path_of("name"), message);
        }
    }
    let count = given.len();
    let consumers: Vec<_> = given.into_iter().filter_map(|section| consumer(section, development)).collect();
    let is_whole = consumers.len() == count;
    (consumers, is_whole)
}

/// One of `[[consumers]]`; `None` where something of it cannot be used, which has been said.
fn consumer(section: Section<'_>, development: bool) -> Option<ConsumerConfig> {
    let brokers = required(&section, "brokers", "such as \"127.0.0.1:9092\"");
    let group = required(&section, "group", "the consumer group");
    let name = section.text("name").map(|found| found.value).or_else(|| group.clone());
    let topics = topics(&section);
    let identity = identity(&section);
    let words = [("dead-letter", Conflicts::DeadLetter), ("duplicate", Conflicts::Duplicate)];
    let conflicts = section.choice_or("conflicts", &words, words[0]);
    let dead_letter_topic = section.text("dead_letter_topic").map(|found| found.value);
    let options = options(&section, development);
    let retention = section.duration_or("retention", semel_kafka::limits::RETENTION_DEFAULT);
    within(&section, "retention", retention, Duration::from_millis(1), core::RETENTION_MAX);
    let address = url(&section, "target", development);
    let signer = signer(&section, "target_secret", false, development);
    let headers = target_headers(&section, development, &DELIVERYS_OWN);
    let tries = Tries::read(&section, &Tries::usual());
    check(&section, name.as_deref(), group.as_deref(), &topics, dead_letter_topic.as_deref());
    check_options(&section, brokers.as_deref(), &options);
    section.finish();
    let (name, signer) = (name?, signer.ok()?.map(Arc::new));
    let place = Place { name: "default".into(), url: address?, signer, headers, tries };
    let kept = Kept { records: retention, payloads: None };
    let operation =
        place.operation(&format!("{CONSUMER}{name}"), &format!("{CONSUMER}{name}"), kept, false)?;
    Some(ConsumerConfig {
        name: name.into(),
        brokers: brokers?,
        topics,
        group: group?,
        identity: identity?,
        conflicts,
        dead_letter_topic,
        options,
        operation,
    })
}

fn required(section: &Section<'_>, key: &'static str, what: &str) -> Option<String> {
    let found = section.text(key).map(|found| found.value);
    if found.is_none() && !section.has(key) {
        section.problem(key, format!("is missing: {what}"));
    }
    found
}

/// `topic`, or `topics`.
fn topics(section: &Section<'_>) -> Vec<String> {
    let one = section.text("topic").map(|found| found.value);
    let several = section.texts_given("topics");
    match (one, several) {
        (Some(topic), None) => vec![topic],
        (None, Some(topics)) if !topics.is_empty() => topics,
        (Some(topic), Some(_)) => {
            section.problem("topics", "is given beside `topic`: one of them is enough");
            vec![topic]
        }
        (None, _) => {
            if !section.has("topic") {
                section.problem("topic", "is missing: the topic, or several as `topics`");
            }
            Vec::new()
        }
    }
}

/// Options of librdkafka: texts, but what is secret among them comes as secrets do. Each is tried by itself, since
/// librdkafka says no more than the first that it does not take.
fn options(section: &Section<'_>, development: bool) -> BTreeMap<String, Secret> {
    let path = section.path_of("options");
    let read = |(name, entry): (String, Entry)| {
        let path = format!("{path}.{}", bare(&name));
        let value = option(section, &path, &name, &entry, development)?;
        if let Some(refusal) = refusal(&name, &value) {
            section.reading.problem(&entry.origin, &path, refusal);
        }
        Some((name, value))
    };
    section.named("options").into_iter().filter_map(read).collect()
}

fn option(section: &Section<'_>, path: &str, name: &str, entry: &Entry, development: bool) -> Option<Secret> {
    if is_secret(name) || matches!(entry.node, Node::Table(_)) {
        return Some(secret(section.reading, path.to_owned(), entry, development)?.value);
    }
    let Some(text) = text(&entry.node) else {
        section.reading.problem(&entry.origin, path, "must be a text, also where it is a number");
        return None;
    };
    section.reading.show(&entry.origin, path.to_owned(), quote(&text));
    Some(Secret::new(&text))
}

/// Whether an option of librdkafka holds what nobody is to see.
fn is_secret(option: &str) -> bool {
    ["password", "secret", ".pem", "oauthbearer.config"].iter().any(|part| option.contains(part))
}

/// What librdkafka would say of an option when the consumer starts.
#[cfg(feature = "kafka")]
fn refusal(name: &str, value: &Secret) -> Option<semel_kafka::config::ConfigError> {
    semel_kafka::Settings::new("localhost").option(name, value.expose()).check().err()
}

#[cfg(not(feature = "kafka"))]
fn refusal(_: &str, _: &Secret) -> Option<&'static str> {
    None
}

/// Says of the brokers, and of options that can be each by itself, what librdkafka would of all together.
#[cfg(feature = "kafka")]
fn check_options(section: &Section<'_>, brokers: Option<&str>, options: &BTreeMap<String, Secret>) {
    let Some(brokers) = brokers else { return };
    let path = section.path_of("options");
    if let Err(error) = semel_kafka::Settings::new(brokers).check() {
        section.problem("brokers", error);
    } else if !section.reading.is_wrong(|wrong| wrong.starts_with(&path))
        && let Err(error) = settings(brokers, options).check()
    {
        section.problem("options", error);
    }
}

#[cfg(not(feature = "kafka"))]
fn check_options(_: &Section<'_>, _: Option<&str>, _: &BTreeMap<String, Secret>) {}

/// What a consumer of these is set to.
#[cfg(feature = "kafka")]
fn settings(brokers: &str, options: &BTreeMap<String, Secret>) -> semel_kafka::Settings {
    let settings = semel_kafka::Settings::new(brokers);
    options.iter().fold(settings, |settings, (name, value)| settings.option(name, value.expose()))
}

#[cfg(feature = "kafka")]
impl ConsumerConfig {
    /// What its consumer is set to.
    pub(crate) fn settings(&self) -> semel_kafka::Settings {
        let settings = settings(&self.brokers, &self.options);
        self.dead_letter_topic.iter().fold(settings, semel_kafka::Settings::dead_letter_topic)
    }
}

/// `"source+id"`, `"id"`, `"offset"`, a JSON Pointer, or the name of a header.
fn identity(section: &Section<'_>) -> Option<Identity> {
    let Some(found) = section.text("identity") else {
        return (!section.has("identity")).then_some(Identity::SourceAndId);
    };
    let text = found.value.as_str();
    // Whoever means one of these, and is believed to name a header, has all of the topic put aside.
    let plain: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    let meant = match plain.to_ascii_lowercase().as_str() {
        "sourceandid" | "sourceplusid" => Some("source+id"),
        "id" => Some("id"),
        "offset" => Some("offset"),
        _ => None,
    };
    let is_header = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let identity = match (text, meant) {
        ("source+id", _) => Ok(Identity::SourceAndId),
        ("id", _) => Ok(Identity::Id),
        ("offset", _) => Ok(Identity::Offset),
        (pointer, _) if pointer.starts_with('/') && is_pointer(pointer) => {
            Ok(Identity::Pointer(pointer.to_owned()))
        }
        (pointer, _) if pointer.starts_with('/') => {
            Err("is no JSON Pointer: behind each `~` comes 0 or 1 (RFC 6901)".to_owned())
        }
        (_, Some(meant)) => Err(format!("is `{text}`; write `{meant}`")),
        (header, None) if is_header => Ok(Identity::Header(header.to_owned())),
        (_, None) => Err("must be source+id, id, offset, a JSON Pointer or the name of a header".to_owned()),
    };
    identity.map_err(|problem| section.problem("identity", problem)).ok()
}

/// RFC 6901, section 3.
fn is_pointer(text: &str) -> bool {
    text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

fn check(
    section: &Section<'_>,
    name: Option<&str>,
    group: Option<&str>,
    topics: &[String],
    dead: Option<&str>,
) {
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=limits::TARGET_NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(plain)
    };
    if name.is_some_and(|name| !is_name(name)) {
        let most = limits::TARGET_NAME_CHARS_MAX;
        section.problem(
            "name",
            format!("must have 1 to {most} letters, digits, `-`, `_` or `.`; without one, it is the group's"),
        );
    }
    if let Some(Err(error)) = group.map(semel_kafka::config::check_group) {
        section.problem("group", error);
    }
    for (place, topic) in topics.iter().enumerate() {
        let key = if section.has("topics") { "topics" } else { "topic" };
        if let Err(error) = semel_kafka::config::check_topic(topic) {
            section.problem(key, error);
        } else if topics[..place].contains(topic) {
            section.problem(key, format!("names `{topic}` twice"));
        } else if let Err(error) = semel_kafka::config::dead_letter_topic(topic, dead, topics) {
            section.problem("dead_letter_topic", error);
        }
    }
}

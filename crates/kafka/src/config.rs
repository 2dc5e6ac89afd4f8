//! What can be configured of a handler that deduplicates.

use std::fmt;
use std::time::Duration;

use semel_core::error::Invalid;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};

use crate::cloud_event::shown;
use crate::identity::Identity;
use crate::{dead_letter, limits};

/// What an event means whose identity was used before, with other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Conflicts {
    /// It is another event, and goes to the dead letter topic: nothing is dropped because a producer drew an id twice.
    #[default]
    DeadLetter,
    /// It is a duplicate, whatever it holds: the WMS guide's rule.
    Duplicate,
}

/// How a handler deduplicates. Names as in the WMS guide where it has them.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) service_name: String,
    pub(crate) topics: Vec<String>,
    pub(crate) consumer_group: String,
    pub(crate) tenant: String,
    pub(crate) identity: Identity,
    pub(crate) conflicts: Conflicts,
    pub(crate) retention: Duration,
    pub(crate) lease: Duration,
    pub(crate) handler_time: Duration,
    pub(crate) attempts: u32,
    pub(crate) pause_first: Duration,
    pub(crate) pause_max: Duration,
    pub(crate) on_lapse: OnLapse,
}

impl Config {
    /// For a service that consumes a topic in a group: events by `source` and `id`, remembered for 24 h, tried 5 times,
    /// under a lease of 5 min that is renewed while the handler runs; when its process dies, the next consumer resumes.
    pub fn new(
        service_name: impl Into<String>,
        topic: impl Into<String>,
        consumer_group: impl Into<String>,
    ) -> Self {
        Self {
            service_name: service_name.into(),
            topics: vec![topic.into()],
            consumer_group: consumer_group.into(),
            tenant: "default".to_owned(),
            identity: Identity::default(),
            conflicts: Conflicts::default(),
            retention: limits::RETENTION_DEFAULT,
            lease: limits::LEASE_DEFAULT,
            handler_time: limits::HANDLER_TIME_DEFAULT,
            attempts: limits::ATTEMPTS_DEFAULT,
            pause_first: limits::RETRY_PAUSE_FIRST,
            pause_max: limits::RETRY_PAUSE_MAX,
            on_lapse: OnLapse::Resume,
        }
    }

    /// One more topic, whose events are told apart from those of the others.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// What makes two messages one event.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// What the same identity with other content means.
    #[must_use]
    pub fn conflicts(self, conflicts: Conflicts) -> Self {
        Self { conflicts, ..self }
    }

    /// How long an event is remembered, from when it was handled.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// How long a claim holds without a heartbeat: how long an event of a process that died waits for the next one.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How long the handler may take with one event; after that the try has failed.
    #[must_use]
    pub fn handler_time(self, handler_time: Duration) -> Self {
        Self { handler_time, ..self }
    }

    /// Tries in all, those of processes that died among them.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The first pause between two tries, and the longest; it doubles, with jitter.
    #[must_use]
    pub fn pauses(self, first: Duration, max: Duration) -> Self {
        Self { pause_first: first, pause_max: max, ..self }
    }

    /// An event whose process died while it was handled is not handled again: it goes to the dead letter topic, as
    /// nobody knows what was done. (Without this, it is handled again.)
    #[must_use]
    pub fn at_most_once(self) -> Self {
        Self { on_lapse: OnLapse::AtMostOnce, ..self }
    }

    /// The tenant whose records these are, in a store that several share.
    #[must_use]
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), ..self }
    }

    /// The topics.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The consumer group.
    pub fn consumer_group(&self) -> &str {
        &self.consumer_group
    }

    /// The policy of every record.
    pub(crate) fn policy(&self) -> Result<Policy, Invalid> {
        Policy::try_new(self.lease, self.retention, self.on_lapse, Keep::Everything, Schedule::ONCE)
    }

    /// The tries in place, by which the pauses go.
    pub(crate) fn schedule(&self) -> Result<Schedule, Invalid> {
        Schedule::try_new(self.attempts, self.pause_first, self.pause_max, None)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for topic in &self.topics {
            check_topic(topic)?;
            if self.topics.iter().filter(|other| *other == topic).count() > 1 {
                return Err(ConfigError::new(format!("the topic `{}` is given twice", shown(topic))));
            }
        }
        check_group(&self.consumer_group)?;
        match &self.identity {
            Identity::Header(name) if name.is_empty() => {
                Err(ConfigError::new("the header that identifies messages has no name"))
            }
            Identity::Pointer(pointer) if !pointer.starts_with('/') => {
                Err(ConfigError::new("a JSON Pointer begins with a slash"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a topic can have this name.
///
/// # Errors
/// It cannot, by the broker's own rule.
pub fn check_topic(topic: &str) -> Result<(), ConfigError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || topic.len() > limits::TOPIC_CHARS_MAX
        || !topic.chars().all(is_legal)
        || matches!(topic, "." | "..")
    {
        return Err(ConfigError::new(format!("no topic can have the name `{}`", shown(topic))));
    }
    Ok(())
}

/// Whether a consumer group can have this name.
///
/// # Errors
/// It is empty, too long, or holds control characters.
pub fn check_group(group: &str) -> Result<(), ConfigError> {
    let is_legal = !group.is_empty()
        && group.chars().count() <= limits::GROUP_CHARS_MAX
        && !group.chars().any(char::is_control);
    if is_legal {
        Ok(())
    } else {
        Err(ConfigError::new(
            "a consumer group has from 1 to 255 characters, none of them a control character",
        ))
    }
}

/// The topic for the dead letters of one of `topics`: `named`, or its own name with `.dlq` behind it.
///
/// # Errors
/// It is one of the topics that are consumed: a poison message would come round for ever. Or no topic can have its name.
pub fn dead_letter_topic(topic: &str, named: Option<&str>, topics: &[String]) -> Result<String, ConfigError> {
    let dead = named.map_or_else(|| dead_letter::topic_of(topic), str::to_owned);
    if topics.contains(&dead) {
        return Err(ConfigError::new(format!(
            "the dead letters of `{topic}` would go to `{dead}`, which is consumed itself"
        )));
    }
    if named.is_none() && topic.ends_with(limits::DEAD_LETTER_SUFFIX) {
        return Err(ConfigError::new(format!(
            "`{topic}` is a dead letter topic: say by name where its own dead letters go"
        )));
    }
    check_topic(&dead)?;
    Ok(dead)
}

/// A configuration that cannot be.
#[derive(Debug)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl From<Invalid> for ConfigError {
    fn from(invalid: Invalid) -> Self {
        Self(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poison_message_does_not_loop_in_the_dead_letter_topic_itself() {
        let topics = ["orders".to_owned(), "orders.dlq".to_owned()];
        assert!(
            dead_letter_topic("orders", None, &topics).unwrap_err().to_string().contains("consumed itself")
        );
        assert!(dead_letter_topic("orders", Some("orders"), &topics[..1]).is_err());
        assert_eq!(dead_letter_topic("orders", None, &topics[..1]).unwrap(), "orders.dlq");
        assert!(
            dead_letter_topic("orders.dlq", None, &topics[1..]).unwrap_err().to_string().contains("by name")
        );
        assert_eq!(dead_letter_topic("orders.dlq", Some("buried"), &topics[1..]).unwrap(), "buried");
    }

    #[test]
    fn names_that_no_broker_takes_are_refused() {
        for topic in ["", ".", "a/b", "a b", &"x".repeat(250)] {
            assert!(Config::new("s", topic, "g").check().is_err(), "{topic}");
        }
        assert!(Config::new("s", "orders", "").check().is_err());
        assert!(Config::new("s", "orders", "a\nb").check().is_err());
        assert!(Config::new("s", "orders", "g").topic("orders").check().is_err());
        assert!(Config::new("s", "orders", "g").identity(Identity::Pointer("id".into())).check().is_err());
        assert!(Config::new("s", "orders.received", "order-processor").check().is_ok());
    }
}

//! What can be configured of a consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::cloud_event::shown;
use crate::config::ConfigError;
use crate::limits;

/// Where a consumer's messages come from, and how many are handled at once.
#[derive(Clone)]
pub struct Settings {
    pub(crate) brokers: String,
    pub(crate) client_id: String,
    pub(crate) dead_letter_topic: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) in_flight: usize,
    pub(crate) commit_every: Duration,
    pub(crate) drain: Duration,
    pub(crate) options: BTreeMap<String, String>,
}

/// The values of options may be passwords: their names are shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("concurrency", &self.concurrency)
            .field("options", &self.options.keys())
            .finish_non_exhaustive()
    }
}

/// What a consumer of ours cannot do without, and says itself.
const OWN: [&str; 10] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.commit.interval.ms",
    "enable.partition.eof",
    "statistics.interval.ms",
    "enable.idempotence",
];

impl Settings {
    /// From these brokers (`host:port`, several by commas); 16 messages at once, dead letters in `{topic}.dlq`, a group
    /// without offsets begins with the oldest message.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "semel".to_owned(),
            dead_letter_topic: None,
            concurrency: limits::CONCURRENCY_DEFAULT,
            in_flight: limits::IN_FLIGHT_DEFAULT,
            commit_every: limits::COMMIT_EVERY_DEFAULT,
            drain: limits::DRAIN_DEFAULT,
            options: BTreeMap::new(),
        }
    }

    /// The name under which the broker knows this client.
    #[must_use]
    pub fn client_id(self, client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), ..self }
    }

    /// Where dead letters of all topics go.
    #[must_use]
    pub fn dead_letter_topic(self, topic: impl Into<String>) -> Self {
        Self { dead_letter_topic: Some(topic.into()), ..self }
    }

    /// How many messages are handled at once.
    #[must_use]
    pub fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency, ..self }
    }

    /// How many messages of a partition may be taken and not done.
    #[must_use]
    pub fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight, ..self }
    }

    /// How often offsets are committed.
    #[must_use]
    pub fn commit_every(self, commit_every: Duration) -> Self {
        Self { commit_every, ..self }
    }

    /// How long running handlers are waited for when their partition is revoked, or the consumer stops.
    #[must_use]
    pub fn drain(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// An option of librdkafka, such as `session.timeout.ms` or `auto.offset.reset`.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Whether these can be.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.brokers.trim().is_empty() {
            return Err(ConfigError::new("no broker is named"));
        }
        if self.concurrency == 0 || self.in_flight == 0 {
            return Err(ConfigError::new("at least one message is handled at a time"));
        }
        if let Some(name) = self.options.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(ConfigError::new(format!("the option `{}` is the consumer's own", shown(name))));
        }
        // The group's name is the handler's to say.
        for client in [self.consumer("group"), self.producer()] {
            client.create_native_config().map_err(|error| ConfigError::new(refused(&error)))?;
        }
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut client = self.client();
        client
            .set("group.id", group)
            // The oldest message and not the newest: what nobody has handled is to be handled.
            .set("auto.offset.reset", "earliest")
            // A rebalance takes only what moves; the rest goes on.
            .set("partition.assignment.strategy", "cooperative-sticky")
            // A topic that is made after its consumer is found soon.
            .set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in &self.options {
            client.set(name, value);
        }
        let statistics = limits::STATISTICS_EVERY.as_millis().to_string();
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("statistics.interval.ms", statistics);
        client
    }

    pub(super) fn producer(&self) -> ClientConfig {
        /// Options that mean something to both, and are needed to get to the broker at all.
        const SHARED: [&str; 5] = ["security.", "sasl.", "ssl.", "socket.", "broker.address"];
        let mut client = self.client();
        for (name, value) in &self.options {
            if SHARED.iter().any(|prefix| name.starts_with(prefix)) {
                client.set(name, value);
            }
        }
        // Acknowledged by all replicas that are in sync, once and in order.
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", limits::DEAD_LETTER_TIMEOUT.as_millis().to_string())
            .set("message.max.bytes", limits::DEAD_LETTER_BYTES_MAX.to_string());
        client
    }
}

/// Why librdkafka does not take an option: in its own words, which say the option's name and no more of a password than
/// that it is none.
fn refused(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, _, _) => why.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_consumer_cannot_do_without_is_not_an_option() {
        let wrong = Settings::new("127.0.0.1:9092").option("enable.auto.commit", "true");
        assert_eq!(
            wrong.check().unwrap_err().to_string(),
            "the option `enable.auto.commit` is the consumer's own"
        );
        assert!(Settings::new(" ").check().is_err());
        assert!(Settings::new("127.0.0.1:9092").concurrency(0).check().is_err());
        assert!(Settings::new("127.0.0.1:9092").option("session.timeout.ms", "6000").check().is_ok());
    }

    #[test]
    fn an_option_that_the_driver_does_not_know_is_told_by_its_name_and_nothing_shows_its_value() {
        let settings = Settings::new("127.0.0.1:9092").option("sasl.pasword", "hunter2");
        let said = settings.check().unwrap_err().to_string();
        assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
        let shown = format!("{settings:?}");
        assert!(shown.contains("sasl.pasword") && !shown.contains("hunter2"), "{shown}");
        let said = Settings::new("127.0.0.1:9092").option("session.timeout.ms", "soon").check().unwrap_err();
        assert!(said.to_string().contains("session.timeout.ms"), "{said}");
    }
}

//! The metrics of consumers, for a registry of prometheus-client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use semel_core::ledger::LedgerError;

use crate::dead_letter::Reason;
use crate::observe::{Observer, What};

/// Counts what consumers do: `message_deduplication_hits_total` and `message_deduplication_misses_total` under the names
/// of the contract, and `semel_consumer_*` for the rest. All carry `topic` and `consumer_group`. Clones are the same
/// metrics, and several consumers may share them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    hits: Family<Labels, Counter>,
    misses: Family<Labels, Counter>,
    results: Family<ResultLabels, Counter>,
    dead_letters: Family<ReasonLabels, Counter>,
    storage_errors: Counter,
    heartbeats_failed: Counter,
    commits: Family<CommitLabels, Counter>,
    handler: Family<Labels, Histogram>,
    lag: Family<PartitionLabels, Gauge>,
    assigned: Family<Labels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    topic: String,
    consumer_group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    topic: String,
    consumer_group: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    topic: String,
    consumer_group: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommitLabels {
    consumer_group: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    consumer_group: String,
    partition: i32,
}

/// From 1 ms to 5 min.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 300.0];

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics in this registry.
    pub fn new(registry: &mut Registry) -> Self {
        let families = Families {
            hits: Family::default(),
            misses: Family::default(),
            results: Family::default(),
            dead_letters: Family::default(),
            storage_errors: Counter::default(),
            heartbeats_failed: Counter::default(),
            commits: Family::default(),
            handler: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            lag: Family::default(),
            assigned: Family::default(),
        };
        families.register(registry);
        Self(Arc::new(families))
    }

    /// What alerts watch stands at 0 from the start: a series that begins with its first event shows no increase.
    pub fn configured(&self, topic: &str, group: &str) {
        let labels = labels(topic, group);
        self.0.hits.get_or_create_owned(&labels);
        self.0.misses.get_or_create_owned(&labels);
        for reason in Reason::ALL {
            self.0.dead_letters.get_or_create_owned(&reason_labels(topic, group, reason));
        }
    }
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "message_deduplication_hits",
            "Messages that had been handled before",
            self.hits.clone(),
        );
        registry.register(
            "message_deduplication_misses",
            "Messages whose handler was run",
            self.misses.clone(),
        );
        registry.register("semel_consumer_messages", "Messages by what became of them", self.results.clone());
        registry.register(
            "semel_consumer_dead_letters",
            "Messages that are in the dead letter topic, by the reason",
            self.dead_letters.clone(),
        );
        registry.register(
            "semel_consumer_storage_errors",
            "Calls of the store that failed",
            self.storage_errors.clone(),
        );
        registry.register(
            "semel_consumer_heartbeats_failed",
            "Heartbeats of claims on messages that the store did not answer",
            self.heartbeats_failed.clone(),
        );
        registry.register(
            "semel_consumer_commits",
            "Commits of offsets, by their result",
            self.commits.clone(),
        );
        registry.register(
            "semel_consumer_handler_duration_seconds",
            "From the beginning of a handler to its end",
            self.handler.clone(),
        );
        registry.register(
            "semel_consumer_lag_messages",
            "Messages that a partition is behind, of partitions that are this process's",
            self.lag.clone(),
        );
        registry.register(
            "semel_consumer_partitions",
            "Partitions that are this process's",
            self.assigned.clone(),
        );
    }
}

fn labels(topic: &str, group: &str) -> Labels {
    Labels { topic: topic.to_owned(), consumer_group: group.to_owned() }
}

fn reason_labels(topic: &str, group: &str, reason: Reason) -> ReasonLabels {
    let Labels { topic, consumer_group } = labels(topic, group);
    ReasonLabels { topic, consumer_group, reason: reason.as_str() }
}

impl Observer for Metrics {
    fn happened(&self, topic: &str, group: &str, what: What) {
        let result = match what {
            What::Claimed => {
                self.0.misses.get_or_create(&labels(topic, group)).inc();
                return;
            }
            What::Duplicate => {
                self.0.hits.get_or_create(&labels(topic, group)).inc();
                "duplicate"
            }
            What::DeadLettered(reason) => {
                self.0.dead_letters.get_or_create(&reason_labels(topic, group, reason)).inc();
                "dead_letter"
            }
            What::Handled => "handled",
            What::Busy => "waited",
            What::Retried => "retried",
            What::NotDeadLettered => "dead_letter_failed",
            What::GivenUp => "given_up",
        };
        let Labels { topic, consumer_group } = labels(topic, group);
        self.0.results.get_or_create(&ResultLabels { topic, consumer_group, result }).inc();
    }

    fn handled(&self, topic: &str, group: &str, after: Duration) {
        self.0.handler.get_or_create(&labels(topic, group)).observe(after.as_secs_f64());
    }

    fn storage_failed(&self, _: &LedgerError) {
        self.0.storage_errors.inc();
    }

    fn heartbeat_failed(&self, _: &LedgerError) {
        self.0.heartbeats_failed.inc();
    }

    fn committed(&self, group: &str, _: usize, succeeded: bool) {
        let result = if succeeded { "committed" } else { "failed" };
        self.0.commits.get_or_create(&CommitLabels { consumer_group: group.to_owned(), result }).inc();
    }

    fn lag(&self, topic: &str, group: &str, partition: i32, behind: Option<u64>) {
        let Labels { topic, consumer_group } = labels(topic, group);
        let labels = PartitionLabels { topic, consumer_group, partition };
        match behind {
            Some(behind) => {
                self.0.lag.get_or_create(&labels).set(i64::try_from(behind).unwrap_or(i64::MAX));
            }
            None => {
                self.0.lag.remove(&labels);
            }
        }
    }

    fn assigned(&self, topic: &str, group: &str, partitions: usize) {
        let partitions = i64::try_from(partitions).unwrap_or(i64::MAX);
        self.0.assigned.get_or_create(&labels(topic, group)).set(partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_misses_have_the_names_of_the_contract_by_topic_and_group() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.configured("orders.received", "order-processor");
        metrics.happened("orders.received", "order-processor", What::Claimed);
        metrics.happened("orders.received", "order-processor", What::Duplicate);
        metrics.happened("orders.received", "order-processor", What::Duplicate);
        metrics.lag("orders.received", "order-processor", 3, Some(7));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let of = r#"{topic="orders.received",consumer_group="order-processor"}"#;
        for line in [
            format!("message_deduplication_hits_total{of} 2"),
            format!("message_deduplication_misses_total{of} 1"),
            r#"semel_consumer_lag_messages{topic="orders.received",consumer_group="order-processor",partition="3"} 7"#
                .to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        metrics.lag("orders.received", "order-processor", 3, None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(!text.contains(r#"partition="3""#), "a partition that is another's is not ours to tell of");
    }
}

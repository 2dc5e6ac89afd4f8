//! What contradicts what among sources.

use std::collections::BTreeSet;

use super::super::reader::Reading;
use super::super::tree::Origin;
use super::super::{Config, Target};
use super::consumers::{CONSUMER, ConsumerOrigins};
use super::read::SourceOrigins;
use crate::address;
use crate::limits;

pub(in crate::config) fn contradictions(
    reading: &Reading,
    config: &Config,
    sources: &[SourceOrigins],
    alerts: Option<&Origin>,
) {
    if config.webhooks.len() > limits::SOURCES_MAX
        && let Some(one) = sources.last()
    {
        reading.problem(&one.name, "webhooks", format!("there may be at most {}", limits::SOURCES_MAX));
    }
    let mut names = BTreeSet::new();
    for (place, (source, origins)) in config.webhooks.iter().zip(sources).enumerate() {
        if !names.insert(source.source.name()) {
            let message = format!("there is a source `{}` above", source.source.name());
            reading.problem(&origins.name, &format!("webhooks[{place}].source"), message);
        }
        for (target, (origin, path)) in source.targets.iter().zip(&origins.targets) {
            judge(reading, config, &target.operation.target, origin, path);
        }
    }
    if let (Some(alerts), Some(origin)) = (&config.alerts, alerts) {
        judge(reading, config, &alerts.operation.target, origin, "alerts.url");
    }
}

/// What contradicts what among consumers.
pub(in crate::config) fn of_consumers(reading: &Reading, config: &Config, origins: &[ConsumerOrigins]) {
    let mut names = BTreeSet::new();
    for (place, (consumer, origins)) in config.consumers.iter().zip(origins).enumerate() {
        let path = |key: &str| format!("consumers[{place}].{key}");
        if cfg!(not(feature = "kafka")) {
            let message =
                "this program was built without Kafka; the feature `kafka` of semel-server brings it along";
            reading.problem(&origins.name, &path("brokers"), message);
        }
        if place >= limits::CONSUMERS_MAX {
            reading.problem(
                &origins.name,
                "consumers",
                format!("there may be at most {}", limits::CONSUMERS_MAX),
            );
        }
        if !names.insert(&consumer.name) {
            let message = format!("there is a consumer `{}` above: give this one a `name`", consumer.name);
            reading.problem(&origins.name, &path("name"), message);
        }
        judge(reading, config, &consumer.operation.target, &origins.target, &path("target"));
    }
}

/// Whether Semel gives an operation this name itself: a configured one of that name could be run by a client.
pub(in crate::config) fn is_reserved(name: &str) -> bool {
    name == super::ALERTS || name.starts_with("webhook:") || name.starts_with(CONSUMER)
}

/// As any target, an address that is written out is none that no target may have.
fn judge(reading: &Reading, config: &Config, target: &Target, origin: &Origin, path: &str) {
    let Target::Delivery(delivery) = target else { return };
    let host = delivery.url.host().unwrap_or_default();
    if !config.targets.allow_link_local && address::is_forbidden_host(host) {
        reading.problem(origin, path, address::forbidden(host));
    }
}

//! What is counted of deliveries to targets, of the circuits before them, and of alerts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::histogram::Durations;
use crate::config::{AlertKind, DeliveryTarget};
use crate::engine::{CircuitState, TryResult};

/// Metrics of deliveries. Clones are the same. Their labels are names from the configuration.
#[derive(Clone, Debug, Default)]
pub struct DeliveryMetrics {
    tries: Family<TryLabels, Counter>,
    durations: Family<TargetLabels, Durations>,
    circuits: Family<TargetLabels, Gauge>,
    alerts: Family<AlertLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    source: Arc<str>,
    target: Arc<str>,
}

impl TargetLabels {
    fn of(target: &DeliveryTarget) -> Self {
        Self { source: Arc::clone(&target.source), target: Arc::clone(&target.name) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TryLabels {
    source: Arc<str>,
    target: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    kind: &'static str,
}

impl DeliveryMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "semel_deliveries",
            "Tries to deliver an event, by source, target and what they came to",
            self.tries.clone(),
        );
        registry.register(
            "semel_delivery_duration_seconds",
            "From the beginning of a try to its end",
            self.durations.clone(),
        );
        registry.register(
            "semel_circuit_state",
            "The circuit of a target as this process has it: 0 closed, 1 half open, 2 open",
            self.circuits.clone(),
        );
        registry.register("semel_alerts", "Alerts taken in for delivery, by kind", self.alerts.clone());
    }

    /// These deliveries are configured, from the start or since a reload: their series stand at 0 from now on, so that the
    /// first event is an increase.
    pub fn configured(&self, target: &DeliveryTarget) {
        for result in TryResult::ALL {
            self.tries.get_or_create_owned(&Self::of_try(target, result));
        }
        self.circuits.get_or_create_owned(&TargetLabels::of(target));
    }

    fn of_try(target: &DeliveryTarget, result: TryResult) -> TryLabels {
        let TargetLabels { source, target } = TargetLabels::of(target);
        TryLabels { source, target, result: result.as_str() }
    }

    /// A try has ended.
    pub fn tried(&self, target: &DeliveryTarget, result: TryResult, took: Duration) {
        self.tries.get_or_create(&Self::of_try(target, result)).inc();
        self.durations.get_or_create(&TargetLabels::of(target)).observe(took);
    }

    /// The circuit of a target stands there.
    pub fn circuit(&self, target: &DeliveryTarget, state: CircuitState) {
        let state = match state {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        };
        self.circuits.get_or_create(&TargetLabels::of(target)).set(state);
    }

    /// An alert was taken in.
    pub fn alert(&self, kind: AlertKind) {
        self.alerts.get_or_create(&AlertLabels { kind: kind.as_str() }).inc();
    }
}

//! What the gateway counts by route: the keys that clients send, and in report mode what would have happened.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::ReportResult;

/// The gateway's own metrics. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct GatewayMetrics {
    keys: Family<KeyLabels, Counter>,
    reports: Family<ReportLabels, Counter>,
    addresses: Family<AddressLabels, Gauge>,
}

/// The keys of one route: the handle to find once and keep.
#[derive(Clone, Debug)]
pub struct RouteKeys {
    present: Counter,
    missing: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    route: Arc<str>,
    key: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    route: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    upstream: Arc<str>,
    address: Arc<str>,
}

impl GatewayMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "semel_keys",
            "Requests that a contract holds for, by route and whether they have a key",
            self.keys.clone(),
        );
        registry.register(
            "semel_reports",
            "What would have happened to requests on routes in report mode",
            self.reports.clone(),
        );
        registry.register(
            "semel_gateway_upstream_well",
            "Whether an address of an upstream is used (1) or avoided (0)",
            self.addresses.clone(),
        );
    }

    /// The counters of a route's keys.
    pub fn keys(&self, route: &str) -> RouteKeys {
        let counter = |key| self.keys.get_or_create_owned(&KeyLabels { route: route.into(), key });
        RouteKeys { present: counter("present"), missing: counter("missing") }
    }

    /// On a route in report mode this would have happened.
    pub fn report(&self, route: &str, result: ReportResult) {
        self.reports.get_or_create(&ReportLabels { route: route.into(), result: result.as_str() }).inc();
    }

    /// The gauge of an address.
    pub fn address(&self, upstream: &str, address: &str) -> Gauge {
        let labels = AddressLabels { upstream: upstream.into(), address: address.into() };
        let gauge = self.addresses.get_or_create_owned(&labels);
        gauge.set(1);
        gauge
    }

    /// The address is configured no more.
    pub fn forget(&self, upstream: &str, address: &str) {
        self.addresses.remove(&AddressLabels { upstream: upstream.into(), address: address.into() });
    }
}

impl RouteKeys {
    /// A request came with a key, or without one.
    pub fn seen(&self, is_keyed: bool) {
        if is_keyed {
            self.present.inc()
        } else {
            self.missing.inc()
        };
    }
}

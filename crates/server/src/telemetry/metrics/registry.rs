//! What every metric is called, what a scrape says of it, and how one is written.

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::{Inner, process};

impl Inner {
    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        encode_registry(text, &self.registry)?;
        // Claims have the label already.
        self.services.locks().write(&[], text)?;
        self.families.durations.write(&[("service", &self.service)], text)?;
        encode_eof(text)
    }

    pub(super) fn register(&mut self, service: &str) {
        let service = (std::borrow::Cow::Borrowed("service"), std::borrow::Cow::Owned(service.to_owned()));
        let mut registry = Registry::default();
        self.services.register(&mut registry);
        self.register_ours(registry.sub_registry_with_label(service));
        process::register(&mut registry);
        self.registry = registry;
    }

    fn register_ours(&self, registry: &mut Registry) {
        registry.register(
            "oldest_pending_seconds",
            "Age of the oldest record that waits for a worker; 0 if there is none",
            self.oldest_pending.clone(),
        );
        self.gateway.register(registry);
        self.webhooks.register(registry);
        #[cfg(feature = "kafka")]
        self.consumers.get_or_init(|| semel_kafka::Metrics::new(registry));
        self.deliveries.register(registry);
        self.jobs.register(registry);
        let families = &self.families;
        registry.register(
            "semel_requests",
            "Requests by door, operation and class of status",
            families.requests.clone(),
        );
        registry.register(
            "semel_duplicates",
            "Requests for a key that was asked for before, by door and what they were told",
            families.duplicates.clone(),
        );
        registry.register(
            "semel_claims_lapsed",
            "Leases that lapsed, once somebody saw it",
            self.lapsed.clone(),
        );
        registry.register(
            "semel_fenced_writes",
            "Commands refused since their token is wrong, stale or spent",
            self.fenced.clone(),
        );
        registry.register(
            "semel_heartbeats_failed",
            "Heartbeats of this process's own leases that the store did not answer, or not in time",
            self.heartbeats_failed.clone(),
        );
        registry.register(
            "semel_outcomes_unknown",
            "Outcomes that became unknown, and why",
            families.unknown.clone(),
        );
        registry.register("semel_dead_letters", "Records that died", self.dead.clone());
        registry.register(
            "semel_records_written",
            "Versions written, by the state they brought",
            families.states.clone(),
        );
        registry.register("semel_records", "Records by namespace, operation and state", self.records.clone());
        registry.register(
            "semel_store_call_duration_seconds",
            "Calls of the store, until their answer was durable",
            families.store_calls.clone(),
        );
        registry.register(
            "semel_store_errors",
            "Calls of the store that failed, by what that means",
            families.store_errors.clone(),
        );
        registry.register(
            "semel_store_batch_size",
            "Writes that shared one sync",
            self.store_batches.clone(),
        );
        registry.register(
            "semel_audit_entries_written",
            "Audit entries of traffic written",
            self.audit_written.clone(),
        );
        registry.register(
            "semel_audit_entries_dropped",
            "Audit entries of traffic that found no room",
            self.audit_dropped.clone(),
        );
        registry.register(
            "semel_log_lines_dropped",
            "Lines of the log that found no room",
            self.log_dropped.clone(),
        );
        let build = prometheus_client::metrics::info::Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("semel_build", "The server's version", build);
    }
}

//! Webhooks between their door and the ledger: the sources as they run, and what becomes of an event that is proved to be
//! its partner's.
//!
//! Rooms: `intake` makes records of events, all of them durable before anybody is answered · `cache` the identities that
//! are settled, so that their duplicates touch no store · `told` what metrics, log and audit are told.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use semel_core::error::Invalid;
use semel_core::id::{Lane, Operation, Scope, Tag, TagName, TagValue, Tenant};
use semel_core::policy::Policy;

use crate::config::SourceConfig;
use crate::rate::Limit;
use crate::telemetry::metrics::{Metrics, SourceMetrics};
use cache::Settled;

mod cache;
mod intake;
mod told;

pub(crate) use intake::{Arrival, Judged, Verdict};

/// Whose events they are: partners prove themselves to the server, and to no tenant of it.
pub(crate) const TENANT: &str = "default";

/// The sources of a running server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Sources(Arc<ArcSwap<HashMap<Box<str>, Arc<Inbound>>>>);

/// One source, as it runs.
pub(crate) struct Inbound {
    config: SourceConfig,
    /// What stands for it in metrics and in the log: `webhook:<source>`.
    label: Box<str>,
    routes: Vec<Route>,
    settled: Settled,
    limit: Option<Limit>,
    metrics: SourceMetrics,
}

/// The way of an event to one target: all of its record that does not depend on the event.
struct Route {
    scope: Scope,
    operation: Operation,
    lane: Lane,
    policy: Policy,
    tags: [Tag; 2],
}

impl Sources {
    /// These sources.
    ///
    /// # Errors
    /// A name is none of core's, which the configuration has excluded.
    pub(crate) fn new(configured: &[SourceConfig], metrics: &Metrics) -> Result<Self, Invalid> {
        let sources = all(configured, metrics, &HashMap::new())?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(sources))))
    }

    /// Puts these in the place of those that are there. Deliveries under way go on with what they began with.
    ///
    /// # Errors
    /// As [`new`](Self::new): nothing has changed then.
    pub(crate) fn reload(&self, configured: &[SourceConfig], metrics: &Metrics) -> Result<(), Invalid> {
        let sources = all(configured, metrics, &self.0.load())?;
        self.0.store(Arc::new(sources));
        Ok(())
    }

    /// The source of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Inbound>> {
        self.0.load().get(name).cloned()
    }
}

fn all(
    configured: &[SourceConfig],
    metrics: &Metrics,
    before: &HashMap<Box<str>, Arc<Inbound>>,
) -> Result<HashMap<Box<str>, Arc<Inbound>>, Invalid> {
    let one = |config: &SourceConfig| {
        let name = config.source.name();
        let inbound = Inbound::new(config.clone(), metrics, before.get(name).map(Arc::as_ref))?;
        Ok((name.into(), Arc::new(inbound)))
    };
    configured.iter().map(one).collect()
}

impl Inbound {
    fn new(config: SourceConfig, metrics: &Metrics, before: Option<&Self>) -> Result<Self, Invalid> {
        let name = config.source.name();
        let label: Box<str> = format!("webhook:{name}").into();
        metrics.configured_names([&*label]);
        let route = |target: &crate::config::SourceTarget| {
            let operation = &target.operation;
            Ok(Route {
                scope: config.source.scope(Tenant::try_new(TENANT)?, &target.name)?,
                operation: operation.name.clone(),
                lane: operation.lane.clone(),
                policy: operation.policy,
                tags: [tag("source", name)?, tag("target", &target.name)?],
            })
        };
        let routes = config.targets.iter().map(route).collect::<Result<_, Invalid>>()?;
        // What is settled stays so, and a bucket is not filled by a reload.
        let kept = before.filter(|before| before.config.cache_entries == config.cache_entries);
        let settled = kept.map_or_else(|| Settled::new(config.cache_entries), |kept| kept.settled.clone());
        let limit = before
            .and_then(|before| before.limit.clone())
            .filter(|limit| Some(limit.rate()) == config.rate_limit)
            .or_else(|| config.rate_limit.and_then(|rate| Limit::new(rate, "source")));
        let metrics = metrics.webhooks(name);
        Ok(Self { config, label, routes, settled, limit, metrics })
    }

    /// As it is configured.
    pub(crate) const fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// What stands for it in metrics and in the log.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// How often it may come, if that is bounded.
    pub(crate) const fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }
}

fn tag(name: &str, value: &str) -> Result<Tag, Invalid> {
    Ok(Tag { name: TagName::try_new(name)?, value: TagValue::try_new(value)? })
}

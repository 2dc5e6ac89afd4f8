//! Configurations for the tests of this room.

use std::sync::Arc;

use semel_core::Ledger;
use semel_runtime::{OsEntropy, Runtime, Unwatched};
use semel_stores::memory::MemoryStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guard;
use super::told::Teller;
use crate::config::gateway::GatewayConfig;
use crate::config::{Config, Sources};
use crate::telemetry::audit::AuditLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observer::Observer;

/// The configuration of a text.
pub(super) fn config_of(text: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    crate::config::load(&sources).unwrap().config
}

/// A gateway before one upstream, with nothing else said.
pub(super) fn config(upstream: &str) -> GatewayConfig {
    config_of(&format!("[gateway]\nupstream = \"{upstream}\"\n")).gateway.unwrap()
}

/// A guard over a store in memory.
pub(super) fn guard(config: &Config, metrics: &Metrics) -> Guard {
    let store = Arc::new(MemoryStore::new());
    let audit = AuditLog::start(store.clone(), metrics.clone(), false);
    let ledger = Ledger::new(store, Arc::new(OsEntropy));
    let runtime = Runtime::new(ledger, TaskTracker::new(), CancellationToken::new(), Arc::new(Unwatched));
    let teller = Teller::new(Observer::new(metrics.clone(), audit), metrics.clone());
    Guard::new(runtime, config, teller).unwrap()
}

//! Puts the server together, and takes it apart again.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use semel_core::ledger::Entropy as _;
use semel_core::record::Text;
use semel_core::{Ledger, Store};
use semel_runtime::OsEntropy;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, AdminGate, Reached};
use crate::alerts::Alerts;
use crate::config::{Config, Listening, OperationConfig, Target, exposed};
use crate::door::{Behind, Doors, gate::Gate};
use crate::engine::schedule::{self, Schedules};
use crate::engine::{Engine, Targets};
use crate::gateway::{self, Around, Gateway, RunningGateway};
use crate::jobs::Jobs;
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::listen::Listener;
use crate::store::{self, ClaimLoss, Readiness, at_most_once};
use crate::telemetry::audit::AuditLog;
use crate::telemetry::metered::Metered;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::observer::Observer;
use crate::telemetry::traces::Traces;
use crate::tls::{self, TlsError};
use crate::webhook::Sources;

/// The server, running.
pub struct Running {
    doors: SocketAddr,
    doors_tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    gate: Gate,
    admin: SocketAddr,
    admin_tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    admin_gate: AdminGate,
    gateway: Option<RunningGateway>,
    #[cfg(feature = "kafka")]
    consumers: Option<crate::consumer::Consumers>,
    audit: AuditLog,
    engine: Engine,
    sources: Sources,
    jobs: Jobs,
    schedules: Schedules,
    metrics: Metrics,
    traces: Traces,
    store: Arc<dyn Store>,
    stopping: CancellationToken,
    tracker: TaskTracker,
    grace: Duration,
    development: bool,
}

/// Why the server does not start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StartError {
    fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<ClaimLoss> for StartError {
    fn from(error: ClaimLoss) -> Self {
        Self { what: error.to_string(), source: None }
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self { what: error.to_string(), source: None }
    }
}

/// Builds servers.
pub struct App;

impl App {
    /// Starts a server: opens the store, binds the listeners, serves. What happens is counted in `metrics`.
    ///
    /// # Errors
    /// The store cannot be opened, an address cannot be bound, or a certificate cannot be used.
    pub async fn start(config: &Config, metrics: Metrics) -> Result<Running, StartError> {
        let tls = config.server.tls.as_ref().map(tls::server).transpose()?;
        let admin_tls = config.admin.tls.as_ref().map(tls::server).transpose()?;
        let gateway_tls = gateway::tls_of(config)?;
        let traces = Traces::start(config.tracing.as_ref(), &config.service_name)
            .map_err(|error| StartError::new("tracing", error))?;
        let opened = store::open_at_start(&config.store, metrics.store_batches()).await;
        let opened = opened.map_err(|error| StartError::new("the store", error))?;
        let at_most_once = at_most_once(config, opened.survives_failover())?;
        let store: Arc<dyn Store> = Arc::new(Metered::new(opened, metrics.clone()));
        let listener = listen(config.server.listen, tls, config.server.connections_max).await?;
        let admin_listener = listen(config.admin.listen, admin_tls, ADMIN_CONNECTIONS_MAX).await?;
        let gateway_listener = match &config.gateway {
            Some(gateway) => Some(listen(gateway.listen, gateway_tls, gateway.connections_max).await?),
            None => None,
        };
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(OsEntropy));
        let targets = Targets::new(&config.targets).map_err(|error| StartError::new("targets", error))?;
        let audit = AuditLog::start(Arc::clone(&store), metrics.clone(), config.audit.traffic);
        audit.forget_after(Arc::clone(&store), config.audit.retention);
        let alerts = Alerts::new(&config.service_name, config.alerts.as_ref(), metrics.deliveries().clone());
        let observer = Observer::new(metrics.clone(), audit.clone()).with_alerts(alerts.clone());
        let (operations, events) = (config.engine_operations(), Arc::new(observer.clone()));
        let engine = Engine::new(ledger.clone(), &operations, targets, events, alerts);
        delivered(&operations, &metrics);
        engine.start(config.dispatcher.concurrency);
        audit.configuration_loaded("at the start", details(config));
        let (stopping, tracker) = (CancellationToken::new(), TaskTracker::new());
        let readiness = Readiness::new(Arc::clone(&store), stopping.clone());
        let sources =
            Sources::new(&config.webhooks, &metrics).map_err(|error| StartError::new("webhooks", error))?;
        let jobs = Jobs::new(engine.runtime().clone(), metrics.clone(), schedule::wall(), &config.jobs);
        let schedules = Schedules::start(engine.clone(), jobs.clone(), schedule::wall());
        let doors = Doors::new(
            config,
            Behind { engine: engine.clone(), jobs: jobs.clone(), sources: sources.clone() },
            observer.clone(),
            readiness.clone(),
            at_most_once,
            stopping.clone(),
        );
        let invalid = |error| StartError::new("tenants", error);
        let gate =
            Gate::new(config, &doors, metrics.clone(), traces.clone(), process_bits()).map_err(invalid)?;
        let listening = [&listener, &admin_listener]
            .map(|listener| Reached { address: listener.address(), is_tls: listener.tls().load().is_some() });
        let (sources_of_admin, stop) = (sources.clone(), stopping.clone());
        let admin =
            Admin::new(ledger, jobs.clone(), metrics.clone(), readiness, sources_of_admin, listening, stop);
        let admin_gate = AdminGate::new(config, &admin, traces.clone(), process_bits());
        let gateway = match (&config.gateway, gateway_listener) {
            (Some(gateway), Some(listener)) => {
                let around = Around {
                    runtime: engine.runtime().clone(),
                    observer: observer.clone(),
                    metrics: metrics.clone(),
                    traces: traces.clone(),
                    process: process_bits(),
                    stopping: stopping.clone(),
                    tracker: tracker.clone(),
                };
                let gateway = Gateway::new(config, gateway, around)
                    .map_err(|error| StartError::new("gateway", error))?;
                Some(RunningGateway::serve(gateway, listener, stopping.clone(), &tracker))
            }
            _ => None,
        };
        #[cfg(feature = "kafka")]
        let consumers = consumers(config, &engine, &observer, &metrics)?;
        let running = Running {
            gateway,
            #[cfg(feature = "kafka")]
            consumers,
            admin: admin_listener.address(),
            admin_tls: admin_listener.tls(),
            admin_gate: admin_gate.clone(),
            audit,
            doors: listener.address(),
            doors_tls: listener.tls(),
            gate: gate.clone(),
            engine,
            sources,
            jobs,
            schedules,
            metrics,
            traces,
            store,
            stopping: stopping.clone(),
            tracker: tracker.clone(),
            grace: config.server.shutdown_grace,
            development: config.development,
        };
        tracker.spawn(listener.serve_each(
            move |origin| gate.service(origin),
            stopping.clone(),
            tracker.clone(),
        ));
        tracker.spawn(admin_listener.serve(admin_gate, stopping, tracker.clone()));
        Ok(running)
    }
}

/// Consumers are the last to come and the first to go: what they take in has its whole way before it.
#[cfg(feature = "kafka")]
fn consumers(
    config: &Config,
    engine: &Engine,
    observer: &Observer,
    metrics: &Metrics,
) -> Result<Option<crate::consumer::Consumers>, StartError> {
    let Some(counted) = metrics.consumers() else { return Ok(None) };
    let started = crate::consumer::Consumers::start(
        &config.consumers,
        engine.clone(),
        observer.clone(),
        counted.clone(),
    );
    started.map(Some).map_err(|error| StartError::new("consumers", error))
}

/// Counts of deliveries begin with the configuration that names them.
fn delivered(operations: &[OperationConfig], metrics: &Metrics) {
    for operation in operations {
        if let Target::Delivery(target) = &operation.target {
            metrics.deliveries().configured(target);
        }
    }
}

async fn listen(
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    connections_max: usize,
) -> Result<Listener, StartError> {
    let listener = Listener::bind(address, tls, connections_max).await;
    listener.map_err(|error| StartError::new(format!("cannot listen on {address}"), error))
}

/// What the audit log says of a configuration: how much there is, and nothing of what is in it.
fn details(config: &Config) -> Vec<(Cow<'static, str>, Text)> {
    let count = |number: usize| Text::new(&number.to_string());
    vec![
        ("consumers".into(), count(config.consumers.len())),
        ("operations".into(), count(config.operations.len())),
        ("sources".into(), count(config.webhooks.len())),
        ("jobs".into(), count(config.jobs.len())),
        ("tenants".into(), count(config.tenants.len())),
        ("upstreams".into(), count(config.gateway.as_ref().map_or(0, |gateway| gateway.upstreams.len()))),
        ("version".into(), env!("CARGO_PKG_VERSION").into()),
    ]
}

/// Bits that tell this process's request ids from another's.
fn process_bits() -> u64 {
    let bytes = OsEntropy.token();
    bytes.as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// Addresses and development mode stay until the next start, so what would take tokens away from an address that is still
/// listened on is refused, whatever addresses it names itself.
fn stays_closed(config: &Config, listening: Listening, development: bool) -> Result<(), StartError> {
    let refused = |what: String| Err(StartError { what, source: None });
    if config.development != development {
        return refused("server.development is only read at the start".to_owned());
    }
    match exposed(config, listening).first() {
        Some((key, problem)) => refused(format!("{key}, as it is until the next start: {problem}")),
        None => Ok(()),
    }
}

impl Running {
    /// Where the doors listen.
    pub const fn doors_address(&self) -> SocketAddr {
        self.doors
    }

    /// Where the admin listener is.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where the gateway listens, if there is one.
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(RunningGateway::address)
    }

    /// Takes over routes, upstreams, operations, tenants, secrets and certificates of a configuration that was read again. What is in
    /// progress goes on under what held when it began; addresses, the store and limits stay as they are.
    ///
    /// # Errors
    /// A certificate cannot be used, it promises *at most once* where the store cannot, or it would leave a listener open that
    /// strangers reach: nothing is taken over.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        let gateway = self.gateway_address();
        let listening = Listening { doors: self.doors, admin: self.admin, gateway };
        stays_closed(config, listening, self.development)?;
        at_most_once(config, self.store.survives_failover())?;
        let tls = config.server.tls.as_ref().map(tls::server).transpose()?;
        let admin_tls = config.admin.tls.as_ref().map(tls::server).transpose()?;
        let gateway_tls = gateway::tls_of(config)?;
        // A gateway that comes or goes needs a restart, as every listener does.
        if let (Some(running), Some(gateway)) = (&self.gateway, &config.gateway) {
            running.reload(gateway, gateway_tls).map_err(|error| StartError::new("gateway", error))?;
        }
        self.gate.reload(config).map_err(|error| StartError::new("tenants", error))?;
        // Taking TLS away, or adding it, would surprise every client; that needs a restart.
        if self.doors_tls.load().is_some() && tls.is_some() {
            self.doors_tls.store(tls);
        }
        if self.admin_tls.load().is_some() && admin_tls.is_some() {
            self.admin_tls.store(admin_tls);
        }
        self.admin_gate.reload(config);
        let operations = config.engine_operations();
        self.metrics.configured(operations.iter().map(|operation| &operation.name));
        self.engine.reload(&operations);
        self.engine.alerts().reload(config.alerts.as_ref());
        delivered(&operations, &self.metrics);
        // After the operations, so that nothing is taken in for one that is not there yet.
        self.sources
            .reload(&config.webhooks, &self.metrics)
            .map_err(|error| StartError::new("webhooks", error))?;
        #[cfg(feature = "kafka")]
        if let Some(consumers) = &self.consumers {
            let reloaded = consumers.reload(&config.consumers);
            reloaded.map_err(|error| StartError::new("consumers", error))?;
        }
        self.jobs.reload(&config.jobs);
        self.schedules.reload();
        self.audit.keep_for(config.audit.retention);
        self.audit.configuration_loaded("read again", details(config));
        Ok(())
    }

    /// Stops: takes nobody in, finishes what runs (for the configured grace), closes the store. Whether everything
    /// was finished.
    pub async fn stop(self) -> bool {
        // While the engine still takes events in, so that what was polled can be committed.
        #[cfg(feature = "kafka")]
        if let Some(consumers) = &self.consumers {
            consumers.stop().await;
        }
        self.stopping.cancel();
        self.tracker.close();
        // Connections wait for what the engine runs, and the engine for nobody: both have the same grace.
        let connections = tokio::time::timeout(self.grace, self.tracker.wait());
        let (engine, connections) = tokio::join!(self.engine.stop(self.grace), connections);
        let finished = engine && connections.is_ok();
        // The last connections may have had something to tell.
        self.engine.tell_what_is_left().await;
        self.audit.close().await;
        self.traces.close().await;
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not close cleanly");
            return false;
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// What a configuration that was read again is told, by a server that listens on all addresses.
    fn check(text: &str, expected: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("semel.toml");
        std::fs::write(&file, text).unwrap();
        let environment = [("TOKEN".to_owned(), "secret".to_owned())].into();
        let config = load(&Sources { file: Some(file), environment, ..Sources::default() }).unwrap().config;
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let listening = Listening { doors: at(8080), admin: at(8081), gateway: Some(at(8082)) };
        let said = stays_closed(&config, listening, false).err().map(|error| error.to_string());
        match (said, expected) {
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{text}: {said}"),
            (said, expected) => assert_eq!(said.as_deref(), expected, "{text}"),
        }
    }

    #[test]
    fn a_reload_takes_no_token_from_an_address_that_is_still_listened_on() {
        let tenant = "[[tenants]]\nname = \"a\"\ntokens = [{ env = \"TOKEN\" }]\n";
        let admin = "[admin]\ntokens = [{ role = \"operate\", token = { env = \"TOKEN\" } }]\n";
        let gateway = "[gateway]\nupstream = \"http://127.0.0.1:9000\"\n";
        let scope = "scope = [\"header:x-account-id\"]\n";
        check(&format!("{tenant}{admin}"), None);
        check(&format!("{tenant}{admin}{gateway}{scope}"), None);
        // Each is right for the addresses that it names, which are loopback by default, and they are not those of the process.
        check(admin, Some("server.listen, as it is until the next start: 0.0.0.0:8080 is not loopback"));
        check(tenant, Some("admin.listen, as it is until the next start: 0.0.0.0:8081 is not loopback"));
        check(
            &format!("{tenant}{admin}{gateway}"),
            Some("0.0.0.0:8082 is not loopback: needs gateway.scope"),
        );
        check("[server]\ndevelopment = true\n", Some("server.development is only read at the start"));
    }
}

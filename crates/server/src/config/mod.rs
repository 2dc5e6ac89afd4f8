//! What the server is told: typed and checked, whole, before anything starts.
//!
//! Everything behind this module may rely on it: names are within core's limits, operations and tenants are unique,
//! addresses are free of contradictions. How a value got here (file, environment, flag, default) stands beside it for
//! `semel config show` and matters to nobody else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode, Uri};
use semel_core::Operation;
use semel_core::id::{Lane, TagName, Tenant};
use semel_core::policy::Policy;

mod check;
mod duration;
mod exposed;
pub mod gateway;
mod jobs;
mod load;
mod operations;
mod reader;
mod restart;
mod secret;
mod sections;
mod sources;
mod store_url;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use exposed::{Listening, exposed};
pub use gateway::GatewayConfig;
pub use jobs::{JobConfig, Missed};
pub use load::{ConfigError, Examined, Loaded, Sources, examine, load};
pub use reader::Shown;
pub use restart::needs_restart;
pub use secret::Secret;
pub use sources::{
    ALERTS, AlertFormat, AlertKind, AlertsConfig, ConsumerConfig, DeliveryTarget, Duplicates, ORDER_TAG,
    SAMPLE, SAMPLE_HEADER, SAMPLE_TOKEN, SourceConfig, SourceResponse, SourceTarget,
};
pub use store_url::StoreUrl;
pub use tree::{Origin, Problem};

/// Every key with its default, as `semel config example` prints it.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether this is somebody trying it out: loopback only, built-in operations, literal secrets allowed.
    pub development: bool,
    /// The `service` label of every metric.
    pub service_name: String,
    /// Execute and claims.
    pub server: ServerConfig,
    /// Records, audit, metrics, documents.
    pub admin: AdminConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// Who may come; without any there is one, `default`, without a token.
    pub tenants: Vec<TenantConfig>,
    /// What clients can have executed, unique by name. In development mode the built-in ones are among them.
    pub operations: Vec<OperationConfig>,
    /// What is started by a schedule, unique by tenant and type.
    pub jobs: Vec<JobConfig>,
    /// The gateway, where there is one.
    pub gateway: Option<GatewayConfig>,
    /// Who sends webhooks, unique by the source's name.
    pub webhooks: Vec<SourceConfig>,
    /// Which topics of Kafka are consumed, unique by name.
    pub consumers: Vec<ConsumerConfig>,
    /// Where alerts go, if anywhere.
    pub alerts: Option<AlertsConfig>,
    /// How targets and upstreams are reached.
    pub targets: TargetsConfig,
    /// The workers of accepted and lapsed records.
    pub dispatcher: DispatcherConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The log on standard error.
    pub log: LogConfig,
    /// Where spans of requests are exported to, if anywhere.
    pub tracing: Option<TracingConfig>,
    /// What holds, and is probably not meant.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// All that the engine runs: what clients may ask for, and what delivers events and alerts.
    pub fn engine_operations(&self) -> Vec<OperationConfig> {
        let targets = self.webhooks.iter().flat_map(|source| &source.targets).map(|target| &target.operation);
        let alerts = self.alerts.iter().map(|alerts| &alerts.operation);
        let consumers = self.consumers.iter().map(|consumer| &consumer.operation);
        self.operations.iter().chain(targets).chain(consumers).chain(alerts).cloned().collect()
    }
}

/// The listener of the doors, and what they take.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, where it is wanted.
    pub tls: Option<TlsConfig>,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Connections open at once.
    pub connections_max: usize,
    /// Requests in progress at once; the next is refused (`OVERLOADED`), not queued.
    pub in_progress_max: usize,
    /// Peers whose word about where a webhook comes from is believed (`X-Forwarded-For`).
    pub trusted_proxies: Vec<gateway::Network>,
    /// The longest `Prefer: wait` that is honoured.
    pub wait_max: Duration,
    /// What keys may be made of.
    pub key_alphabet: KeyAlphabet,
    /// How errors look when the client does not say.
    pub errors: ErrorStyle,
    /// The public base of `type` in problem documents, ending in `/` or with a place for the `{code}`.
    pub error_docs_base: String,
    /// How long a shutdown waits for what runs.
    pub shutdown_grace: Duration,
    /// What holds for claims that name no configured operation.
    pub claims: Policy,
}

pub use semel_tower::KeyAlphabet;

/// How errors look when the client does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStyle {
    /// `{"error":{…}}`.
    Envelope,
    /// `{"code","message","details":{…}}`.
    Flat,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

/// A certificate, and whose clients are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities whose client certificates are required; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// A certificate to show a server that asks for one. It is read with the configuration, so that another one is another
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM file with the chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// What stood in the first.
    pub chain_pem: String,
    /// What stood in the second.
    pub key_pem: Secret,
}

/// The listener of the operators.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, where it is wanted.
    pub tls: Option<TlsConfig>,
    /// Who may come; without any everybody on loopback may operate.
    pub tokens: Vec<AdminToken>,
}

/// A token of an operator or a program that reads.
#[derive(Clone, Debug)]
pub struct AdminToken {
    /// What it may do.
    pub role: Role,
    /// Who it is in the audit log.
    pub name: String,
    /// The token.
    pub token: Secret,
}

/// What an admin token may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Change.
    Operate,
}

/// Where records are kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which store, and where: see [`Location`](crate::store::Location).
    pub url: StoreUrl,
    /// Where notifications of other nodes are heard, past any pooler in transaction mode.
    pub listen_url: Option<StoreUrl>,
    /// Connections of this node to the store's server, at most.
    pub pool: Option<usize>,
    /// How long a connection may take to be made, and a call wait for a free one.
    pub connect_timeout: Option<Duration>,
    /// How long the store's server lets one statement run.
    pub statement_timeout: Option<Duration>,
    /// How long a start waits for a store that cannot be reached yet.
    pub start_timeout: Option<Duration>,
    /// Consent to *at most once* on a store that can lose acknowledged claims.
    pub accept_claim_loss: bool,
}

/// Who may come, and how often.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    /// Its name: part of the scope of its keys.
    pub name: Tenant,
    /// Any of these proves it; none only where the listener is on loopback.
    pub tokens: Vec<Secret>,
    /// How often it may come.
    pub rate_limit: Option<RateLimit>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How quickly it fills.
    pub requests_per_second: u32,
    /// How much it holds.
    pub burst: u32,
}

/// One operation that can be executed.
#[derive(Clone, Debug)]
pub struct OperationConfig {
    /// Its name.
    pub name: Operation,
    /// What does it.
    pub target: Target,
    /// Lease, retention, semantics and schedule of its records.
    pub policy: Policy,
    /// How long one try may take, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// How to find out what an unknown outcome was.
    pub probe: Option<ProbeConfig>,
    /// Tags of its records: a name, and the JSON Pointer (RFC 6901) into the payload.
    pub tags: Vec<(TagName, String)>,
    /// Statuses of this target that prove that nothing was done.
    pub not_executed: Vec<StatusCode>,
    /// Whether the target is sent the client's key instead of the downstream key.
    pub forward_key: bool,
    /// Headers of the target's answer that are kept besides `content-type`.
    pub keep_headers: Vec<HeaderName>,
    /// Headers that the target is sent with every try, such as its authorization.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The queue of its due records: one for each target, so that a dead one starves no other.
    pub lane: Lane,
    /// Tries on this lane at once, of accepted work.
    pub concurrency: usize,
    /// Bytes of a result that is kept; a larger one is done and answered as gone.
    pub result_bytes_max: usize,
}

impl OperationConfig {
    /// Whether it delivers events or alerts: no client can ask for it.
    pub fn is_semels_own(&self) -> bool {
        sources::is_reserved(self.name.as_str())
    }
}

/// What does an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A POST to this address.
    Http(Uri),
    /// Something of our own, to try it out.
    Builtin(Builtin),
    /// A place that a source's events, or alerts, are delivered to. No client can ask for it.
    Delivery(Arc<DeliveryTarget>),
}

/// Built-in operations, only in development mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Gives the payload back.
    Echo,
    /// Waits for `{"ms":…}` first.
    Sleep,
    /// Fails as `{"status":…}` says.
    Fail,
    /// Counts how often it has run for `{"name":…}`.
    Count,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Echo, Self::Sleep, Self::Fail, Self::Count];

    /// The name of its operation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sleep => "sleep",
            Self::Fail => "fail",
            Self::Count => "count",
        }
    }
}

/// A GET on the target that says whether a key took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The address, with `{key}` where the key that the target was sent goes.
    pub url: String,
    /// Whether a 404 proves that it never will: the target refuses lower fences, or has cancelled the key for good.
    pub is_final: bool,
}

/// How targets are reached.
#[derive(Clone, Debug)]
pub struct TargetsConfig {
    /// Whether link-local and metadata addresses may be reached.
    pub allow_link_local: bool,
    /// PEM file with authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// The workers of accepted and lapsed records.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// Tries at once, over all lanes.
    pub concurrency: usize,
}

/// The audit log.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// Whether traffic (claimed, replayed, completed, …) is written; what operators do always is.
    pub traffic: bool,
    /// How long entries are kept.
    pub retention: Duration,
}

/// Where spans of requests are exported to.
#[derive(Clone, Debug)]
pub struct TracingConfig {
    /// The address that takes them, with its path: `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: Uri,
    /// How many in a hundred requests have a span, where no trace that they are a part of says it.
    pub sample_percent: u8,
    /// Headers that are sent with each export.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// The log on standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A filter in the words of `tracing`, such as `info` or `semel_server=debug`.
    pub filter: String,
    /// How lines look; without it, pretty on a terminal and JSON elsewhere.
    pub format: Option<LogFormat>,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

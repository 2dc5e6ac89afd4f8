//! The names of the WMS guide, in Rust spelling: a thin layer over the rest.
//!
//! ```
//! use axum::{Router, routing::post};
//! use semel::wms;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ledger = semel::open("memory:").await?;
//! wms::initialize_indexes(&ledger).await?;
//! let repository = wms::KeyRepository::new(ledger);
//! let config = wms::Config::new("order-service", repository);
//! let router: Router = Router::new()
//!     .route("/api/v1/orders", post(|| async { "created" }))
//!     .layer(wms::middleware(config)?);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use semel_core::command::{Claim, Claimed as Answer, Held};
use semel_core::error::Invalid;
use semel_core::ledger::LedgerError;
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::request::Fingerprint;
use semel_core::{Key, Ledger, Operation, Record, Request};
use semel_fingerprint::{Fields, FingerprintBuilder};
use semel_tower::{CheckpointError, Claimed, ConfigError, IdempotencyLayer, Profile};

#[cfg(feature = "kafka")]
mod consumer;
#[cfg(feature = "mongodb")]
mod mongo;

#[cfg(feature = "kafka")]
pub use consumer::{ConsumerConfig, DeduplicatingHandler, MessageRepository, deduplicating_handler};
#[cfg(feature = "mongodb")]
pub use mongo::{MongoKeyRepository, MongoMessageRepository};
#[cfg(feature = "metrics")]
pub use semel_tower::Metrics;

/// The configuration of the middleware, with the guide's eight keys.
#[derive(Clone, Debug)]
pub struct Config {
    /// The service's name: part of every key's scope, and the label `service` of the metrics.
    pub service_name: String,
    /// Where keys are kept.
    pub repository: KeyRepository,
    /// Whether a request without a key is refused (400). Begin with `false`, for clients that do not send one yet.
    pub require_key: bool,
    /// Whether only POST, PUT, PATCH and DELETE are protected.
    pub only_mutating: bool,
    /// Characters that a key may have.
    pub max_key_length: usize,
    /// How long a lock holds without a heartbeat. It is renewed while the handler runs.
    pub lock_timeout: Duration,
    /// How long a key is remembered, from the end of its request.
    pub retention_period: Duration,
    /// Bytes of a response that is kept.
    pub max_response_size: usize,
    /// Where it is counted.
    #[cfg(feature = "metrics")]
    pub metrics: Option<Metrics>,
}

impl Config {
    /// The guide's defaults: the key optional and up to 255 characters, only mutating requests, lock time-out 5 min,
    /// retention 24 h, responses up to 1 MiB.
    pub fn new(service_name: impl Into<String>, repository: KeyRepository) -> Self {
        Self {
            service_name: service_name.into(),
            repository,
            require_key: false,
            only_mutating: true,
            max_key_length: semel_tower::limits::KEY_CHARS_DEFAULT,
            lock_timeout: semel_tower::limits::LOCK_TIMEOUT_DEFAULT,
            retention_period: semel_tower::limits::RETENTION_DEFAULT,
            max_response_size: semel_tower::limits::RESPONSE_BYTES_DEFAULT,
            #[cfg(feature = "metrics")]
            metrics: None,
        }
    }
}

/// The middleware. A key belongs to its service, as in the guide: callers share theirs. What the guide leaves open
/// (callers, routes, report mode) is configured with [`middleware_with`].
///
/// # Errors
/// The configuration is not within the limits.
pub fn middleware(config: Config) -> Result<IdempotencyLayer, ConfigError> {
    middleware_with(config, |config| config.shared_keys(true))
}

/// The middleware, with more configured than the guide has names for. It has to be said whose keys they are: with
/// [`caller`](semel_tower::Config::caller), or with `shared_keys(true)`.
///
/// # Errors
/// The configuration is not within the limits, or does not say whose keys they are.
pub fn middleware_with(
    config: Config,
    more: impl FnOnce(semel_tower::Config) -> semel_tower::Config,
) -> Result<IdempotencyLayer, ConfigError> {
    let layer = semel_tower::Config::new(config.service_name)
        .profile(Profile::Wms)
        .require_key(config.require_key)
        .only_mutating(config.only_mutating)
        .max_key_length(config.max_key_length)
        .lock_timeout(config.lock_timeout)
        .retention_period(config.retention_period)
        .max_response_size(config.max_response_size);
    #[cfg(feature = "metrics")]
    let layer = match config.metrics {
        Some(metrics) => layer.metrics(metrics),
        None => layer,
    };
    IdempotencyLayer::try_new(config.repository.ledger, more(layer))
}

/// What indexes can be created in.
pub trait HasIndexes {
    /// See [`initialize_indexes`].
    fn initialize(&self) -> impl Future<Output = Result<(), semel_core::StoreError>> + Send;
}

impl HasIndexes for Ledger {
    /// Its store has created them when it was opened: sees to it that it can serve.
    async fn initialize(&self) -> Result<(), semel_core::StoreError> {
        self.store().ready().await
    }
}

/// Creates the indexes that are missing, of a MongoDB database for both repositories (feature `mongodb`); any number of
/// nodes may, at any time. A ledger's store has created its own when it was opened.
///
/// # Errors
/// The store cannot serve.
pub async fn initialize_indexes(of: &impl HasIndexes) -> Result<(), semel_core::StoreError> {
    of.initialize().await
}

/// One key of a service, as its repository is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's key.
    pub key: String,
    /// The service.
    pub service_id: String,
    /// The request's path; where it is one that the middleware may see as well, as the router names it
    /// (`/api/v1/orders/{id}`).
    pub request_path: String,
    /// Its method.
    pub request_method: String,
    /// A digest of what it means: in any form, or [`request_fingerprint`], which is the one that the middleware makes.
    pub request_fingerprint: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it is forgotten, if its request has ended by then at once: the span from `created_at` is how long it is
    /// remembered from its end.
    pub expires_at: SystemTime,
}

/// The fingerprint that the middleware makes of such a request, for [`IdempotencyKey::request_fingerprint`]: then a
/// key that is locked by a repository is, to the middleware, the same request and no mismatch.
///
/// ```
/// use semel::wms;
///
/// let fingerprint =
///     |body| wms::request_fingerprint("POST", "/api/v1/orders", "", Some("application/json"), body);
/// assert_eq!(fingerprint(br#"{"a":1,"b":2}"#), fingerprint(br#"{ "b": 2, "a": 1 }"#));
/// ```
pub fn request_fingerprint(
    method: &str,
    path: &str,
    query: &str,
    content_type: Option<&str>,
    body: &[u8],
) -> String {
    let fingerprint = FingerprintBuilder::new().method(method).path(path).query(query);
    fingerprint.fields(&Fields::all()).body(content_type, body).finish().to_string()
}

/// What asking for a lock came to.
#[derive(Debug)]
pub struct Lock {
    /// The key's record, as it stands.
    pub record: Arc<Record>,
    /// Whether this is a first request, or one that may run again: then the lock is the caller's.
    pub is_new: bool,
    /// Whether the key was used with another path, method or fingerprint.
    pub is_mismatch: bool,
    /// What holds the lock, if it is new: give it back with [`KeyRepository::complete`] or [`KeyRepository::release`].
    pub claim: Option<Claim>,
}

/// A lock could not be asked for.
#[derive(Debug)]
pub enum RepositoryError {
    /// Part of the key is not within the limits.
    Invalid(Invalid),
    /// The store does not answer, so nothing may run.
    Storage(LedgerError),
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RepositoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(_) => None,
            Self::Storage(error) => error.source(),
        }
    }
}

impl From<Invalid> for RepositoryError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<LedgerError> for RepositoryError {
    fn from(error: LedgerError) -> Self {
        Self::Storage(error)
    }
}

/// Where the keys of services are kept. A clone is another handle. Its keys are those of the [`middleware`]: a key that
/// is locked here is in progress there, and what is completed here is replayed there.
#[derive(Clone, Debug)]
pub struct KeyRepository {
    ledger: Ledger,
    lock_timeout: Duration,
    caller: Option<Arc<str>>,
}

impl KeyRepository {
    /// Keys in this ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, lock_timeout: semel_tower::limits::LOCK_TIMEOUT_DEFAULT, caller: None }
    }

    /// With this lock time-out for keys that are locked here.
    #[must_use]
    pub fn lock_timeout(self, lock_timeout: Duration) -> Self {
        Self { lock_timeout, ..self }
    }

    /// For the keys of one caller, where the middleware was told who asks.
    #[must_use]
    pub fn of_caller(self, caller: &str) -> Self {
        Self { caller: Some(caller.into()), ..self }
    }

    /// See [`initialize_indexes`].
    ///
    /// # Errors
    /// The store cannot serve.
    pub async fn ensure_indexes(&self) -> Result<(), semel_core::StoreError> {
        initialize_indexes(&self.ledger).await
    }

    /// Asks for the lock of a key: of all that ask at once, one is given it.
    ///
    /// # Errors
    /// The store does not answer, so nothing may run; or the key is not within the limits.
    ///
    /// # Cancellation
    /// Leaves open who has the lock, until its time-out: run it to its end in a task.
    pub async fn acquire_lock(&self, key: &IdempotencyKey) -> Result<Lock, RepositoryError> {
        let scope = semel_tower::caller::of_service(&key.service_id, self.caller.as_deref())?;
        let operation = Operation::try_new(&format!("{} {}", key.request_method, key.request_path))?;
        // One that ends before it begins is refused by the policy, as it has no span.
        let retention = key.expires_at.duration_since(key.created_at).unwrap_or_default();
        let policy = Policy::try_new(
            self.lock_timeout,
            retention,
            OnLapse::Resume,
            Keep::Deterministic,
            Schedule::ONCE,
        )?;
        let fingerprint = fingerprint_of(key);
        let request = Request::new(scope, Key::try_new(&key.key)?, operation, fingerprint, policy);
        let claimed = self.ledger.claim(Arc::new(request), None).await?;
        Ok(match claimed {
            Answer::Granted(claim) => Lock {
                record: Arc::clone(claim.record()),
                is_new: true,
                is_mismatch: false,
                claim: Some(claim),
            },
            Answer::Mismatch(record) => Lock { record, is_new: false, is_mismatch: true, claim: None },
            Answer::Replay(record)
            | Answer::Busy { record, .. }
            | Answer::Unknown(record)
            | Answer::Dead(record) => Lock { record, is_new: false, is_mismatch: false, claim: None },
        })
    }

    /// Stores what the request gave, for all who ask again; whether the lock was still the caller's.
    ///
    /// # Errors
    /// The store does not answer: the lock lapses; or the response is not within the limits.
    pub async fn complete(&self, claim: Claim, status: u16, body: Bytes) -> Result<bool, RepositoryError> {
        let class = if status < 400 { Class::Success } else { Class::Rejection };
        let outcome = Outcome::try_new(class, status, Headers::default(), body)?;
        Ok(matches!(self.ledger.complete(claim, outcome).await?, Held::Done(_)))
    }

    /// Gives a lock back whose request has done nothing: the next one runs.
    ///
    /// # Errors
    /// The store does not answer: the lock lapses.
    pub async fn release(&self, claim: Claim, why: &str) -> Result<bool, RepositoryError> {
        Ok(matches!(self.ledger.release(claim, why.into()).await?, Held::Done(_)))
    }
}

/// The middleware's own fingerprint as it is; of any other text, a digest.
fn fingerprint_of(key: &IdempotencyKey) -> Fingerprint {
    let given = key.request_fingerprint.parse().ok();
    let digest: semel_fingerprint::Fingerprint = given.unwrap_or_else(|| {
        let digest = FingerprintBuilder::new().method(&key.request_method).path(&key.request_path);
        digest.raw(key.request_fingerprint.as_bytes()).finish()
    });
    Fingerprint { version: digest.version(), digest: *digest.digest() }
}

/// Steps of a request that are done once, over all its attempts. With the feature `axum` an argument of handlers:
/// `Option<PhaseManager>`, which is none where the request has no key.
///
/// ```
/// use semel::wms::PhaseManager;
///
/// async fn create_order(phases: Option<PhaseManager>) -> Result<&'static str, semel::CheckpointError> {
///     let Some(phases) = phases else { return Ok("created without protection") };
///     if !phases.is_done("inventory_reserved") {
///         // reserve the inventory
///         phases.checkpoint("inventory_reserved").await?;
///     }
///     Ok("created")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PhaseManager(Claimed);

impl From<Claimed> for PhaseManager {
    fn from(claimed: Claimed) -> Self {
        Self(claimed)
    }
}

impl PhaseManager {
    /// The step is done: durable when it returns, and known to the next attempt. Saying it again is a success.
    ///
    /// # Errors
    /// It is not kept; stop, since another attempt may do what comes next as well.
    pub async fn checkpoint(&self, phase: &str) -> Result<(), CheckpointError> {
        self.checkpoint_with(phase, Bytes::new()).await
    }

    /// The same, with what the step gave.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint); and the step is done already and gave something else.
    pub async fn checkpoint_with(&self, phase: &str, data: impl Into<Bytes>) -> Result<(), CheckpointError> {
        self.0.checkpoint(phase, data).await
    }

    /// Whether the step is done, by this attempt or an earlier one.
    pub fn is_done(&self, phase: &str) -> bool {
        self.data(phase).is_some()
    }

    /// What the step gave, if it is done.
    pub fn data(&self, phase: &str) -> Option<Bytes> {
        self.0.checkpoint_of(phase)
    }

    /// The steps as [`Phases`](semel_tower::Phases), which run each step themselves, and give a retry what it gave. Use
    /// these or [`checkpoint`](Self::checkpoint) in a handler, not both.
    pub fn phases(&self) -> semel_tower::Phases {
        semel_tower::Phases::from(&self.0)
    }

    /// The claim behind it.
    pub const fn claimed(&self) -> &Claimed {
        &self.0
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::OptionalFromRequestParts<S> for PhaseManager {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Claimed>().cloned().map(Self))
    }
}

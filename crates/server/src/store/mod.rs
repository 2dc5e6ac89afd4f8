//! The store that the configuration names: the one place that knows all of them.
//!
//! One more kind is a variant of [`Location`], an arm in [`Location::of`] that reads its URL and keys, an arm in
//! [`open`], and its scheme in [`SUPPORTED`]. Everything else works on `dyn Store`.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use semel_core::Store;
use semel_stores::embedded::{EmbeddedStore, Options};
use semel_stores::memory::MemoryStore;
#[cfg(feature = "mongodb")]
use semel_stores::mongodb::{self, MongoStore};
#[cfg(feature = "postgres")]
use semel_stores::postgres::{self, PostgresStore};
#[cfg(feature = "redis")]
use semel_stores::redis::{self, RedisStore};

use crate::config::{StoreConfig, StoreUrl};
use crate::limits;
use crate::telemetry::metrics::Sizes;

mod consent;
#[cfg(feature = "mongodb")]
mod of_mongodb;
#[cfg(feature = "postgres")]
mod of_postgres;
#[cfg(feature = "redis")]
mod of_redis;
mod ready;

pub(crate) use consent::{ClaimLoss, at_most_once};
pub(crate) use ready::Readiness;

/// What can be named.
const SUPPORTED: &[&str] = &[
    "`embedded:PATH` (such as `embedded:./semel-data`)",
    #[cfg(feature = "mongodb")]
    "`mongodb://USER:PASSWORD@HOST/DATABASE`",
    #[cfg(feature = "postgres")]
    "`postgres://USER:PASSWORD@HOST/DATABASE`",
    #[cfg(feature = "redis")]
    "`redis://USER:PASSWORD@HOST/` (or `rediss://`)",
    "`memory:`",
];

/// Schemes of stores that a build may leave out, with the feature that brings them.
const LEFT_OUT: &[(&str, &str)] = &[
    ("mongodb", "mongodb"),
    ("mongodb+srv", "mongodb"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("redis", "redis"),
    ("rediss", "redis"),
];

/// Where records are kept, read and checked, but not opened.
#[derive(Clone, Debug)]
pub enum Location {
    /// A folder of this machine.
    Embedded(PathBuf),
    /// Nothing that outlives the process.
    Memory,
    /// A replica set or cluster that several nodes may share.
    #[cfg(feature = "mongodb")]
    Mongodb(Box<mongodb::Options>),
    /// A database that several nodes may share.
    #[cfg(feature = "postgres")]
    Postgres(Box<postgres::Options>),
    /// A server, or a cluster, that several nodes may share.
    #[cfg(feature = "redis")]
    Redis(Box<redis::Options>),
}

/// What is wrong with a key of `[store]`: the key, and what is allowed. Nothing of a URL is in it.
pub type Problem = (&'static str, String);

impl Location {
    /// Reads the URL, and the keys beside it.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn of(config: &StoreConfig) -> Result<Self, Vec<Problem>> {
        let location = match (config.url.scheme(), config.url.rest()) {
            ("embedded", "") => return Err(vec![("url", format!("the path is missing; {}", allowed()))]),
            ("embedded", path) => Self::Embedded(path.into()),
            ("memory", "") => Self::Memory,
            #[cfg(feature = "mongodb")]
            ("mongodb" | "mongodb+srv", _) => {
                return of_mongodb::options(config).map(Box::new).map(Self::Mongodb);
            }
            #[cfg(feature = "postgres")]
            ("postgres" | "postgresql", _) => {
                return of_postgres::options(config).map(Box::new).map(Self::Postgres);
            }
            #[cfg(feature = "redis")]
            ("redis" | "rediss", _) => return of_redis::options(config).map(Box::new).map(Self::Redis),
            (scheme, _) => return Err(vec![("url", unsupported(scheme))]),
        };
        only_remote(config).map(|()| location)
    }
}

fn allowed() -> String {
    format!("allowed: {}", SUPPORTED.join(", "))
}

fn unsupported(scheme: &str) -> String {
    let feature = LEFT_OUT.iter().find(|(left_out, _)| *left_out == scheme);
    let wrong = match (scheme, feature) {
        ("", _) => "does not begin with a kind of store".to_owned(),
        (_, Some((_, feature))) => {
            format!("`{scheme}:` is left out of this build; its feature is `{feature}`")
        }
        _ => format!("there is no store `{scheme}:`"),
    };
    format!("{wrong}; {}", allowed())
}

/// Keys that mean something only where there is a server to connect to.
fn only_remote(config: &StoreConfig) -> Result<(), Vec<Problem>> {
    let given = [
        ("listen_url", config.listen_url.is_some()),
        ("pool", config.pool.is_some()),
        ("connect_timeout", config.connect_timeout.is_some()),
        ("statement_timeout", config.statement_timeout.is_some()),
        ("start_timeout", config.start_timeout.is_some()),
    ];
    let given = given.into_iter().filter(|(_, is_given)| *is_given);
    let problems: Vec<_> = given
        .map(|(key, _)| (key, format!("means nothing for `{}:`, which has no server", config.url.scheme())))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What is wrong with `[store]`, without opening anything.
pub fn problems(config: &StoreConfig) -> Vec<Problem> {
    Location::of(config).err().unwrap_or_default()
}

/// Why there is no store.
#[derive(Debug)]
pub enum StoreOpenError {
    /// A key of `[store]` says what cannot be.
    Config(Vec<Problem>),
    /// It is there or not, and cannot be opened.
    Open {
        /// Shown without its password.
        url: StoreUrl,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
        /// Whether somebody who waits may see it open: its server is not there yet.
        retry_helps: bool,
    },
}

impl StoreOpenError {
    fn of<E: Error + Send + Sync + 'static>(config: &StoreConfig) -> impl FnOnce(E) -> Self {
        let url = config.url.clone();
        |error| Self::Open { url, source: Box::new(error), retry_helps: false }
    }

    #[cfg(any(feature = "mongodb", feature = "postgres", feature = "redis"))]
    fn of_remote(config: &StoreConfig) -> impl FnOnce(semel_stores::OpenError) -> Self {
        let url = config.url.clone();
        |error| Self::Open { url, retry_helps: error.retry_helps(), source: Box::new(error) }
    }

    /// Whether the same can succeed later without anybody changing the configuration.
    const fn retry_helps(&self) -> bool {
        matches!(self, Self::Open { retry_helps: true, .. })
    }
}

impl fmt::Display for StoreOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                let said: Vec<_> =
                    problems.iter().map(|(key, what)| format!("store.{key}: {what}")).collect();
                f.write_str(&said.join("; "))
            }
            Self::Open { url, source, .. } => write!(f, "{url}: {source}"),
        }
    }
}

impl Error for StoreOpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(_) => None,
            Self::Open { source, .. } => source.source(),
        }
    }
}

/// Opens the configured store for a server that starts, perhaps sooner than its database: what may pass by itself is waited
/// for, for as long as the configuration says. Each try that fails is a line of the log.
///
/// # Errors
/// As [`open`]; of what may pass by itself the last one.
///
/// # Cancellation
/// As [`open`].
pub(crate) async fn open_at_start(
    config: &StoreConfig,
    batches: Sizes,
) -> Result<Arc<dyn Store>, StoreOpenError> {
    let (began, patience) = (Instant::now(), config.start_timeout.unwrap_or(limits::STORE_START_WITHIN));
    let mut pause = limits::STORE_START_PAUSE_FIRST;
    loop {
        let error = match open(config, batches.clone()).await {
            Err(error) if error.retry_helps() => error,
            opened => return opened,
        };
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        tracing::warn!(%error, seconds_left = left.as_secs(), "the store cannot be opened yet; it is tried again");
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(limits::STORE_START_PAUSE_MAX);
    }
}

/// Opens the configured store, which tells `batches` how many writes have shared each sync.
///
/// # Errors
/// The configuration names no store, or the store cannot be opened.
///
/// # Cancellation
/// What a store has begun (creating its schema) is done whole or not at all.
pub async fn open(config: &StoreConfig, batches: Sizes) -> Result<Arc<dyn Store>, StoreOpenError> {
    let store: Arc<dyn Store> = match Location::of(config).map_err(StoreOpenError::Config)? {
        Location::Memory => Arc::new(MemoryStore::new()),
        Location::Embedded(folder) => Arc::new(embedded(config, folder, batches)?),
        #[cfg(feature = "mongodb")]
        Location::Mongodb(options) => {
            let store = MongoStore::open(&options).await.map_err(StoreOpenError::of_remote(config))?;
            if store.is_ferretdb() {
                tracing::warn!(
                    "the server is FerretDB: right, but every question reads all of a collection, and nothing expires by \
                     itself; for development and tests"
                );
            }
            Arc::new(store)
        }
        #[cfg(feature = "postgres")]
        Location::Postgres(options) => {
            Arc::new(PostgresStore::open(&options).await.map_err(StoreOpenError::of_remote(config))?)
        }
        #[cfg(feature = "redis")]
        Location::Redis(options) => {
            let store = RedisStore::open(&options).await.map_err(StoreOpenError::of_remote(config))?;
            for warning in store.warnings() {
                tracing::warn!(url = %config.url, "{warning}");
            }
            Arc::new(store)
        }
    };
    tracing::info!(store = store.name(), url = %config.url, survives_failover = store.survives_failover(), "store opened");
    Ok(store)
}

/// Blocks while it reads: nothing else is served before it is there.
fn embedded(config: &StoreConfig, folder: PathBuf, batches: Sizes) -> Result<EmbeddedStore, StoreOpenError> {
    let opened = EmbeddedStore::open(&Options::new(folder));
    let store = opened.map_err(StoreOpenError::of(config))?;
    store.tell_batches(move |writes| batches.observe(writes as u64));
    let recovery = store.recovery();
    tracing::info!(
        segments = recovery.segments,
        records = recovery.records,
        torn_bytes = recovery.torn_bytes,
        "the log was read"
    );
    Ok(store)
}

#[cfg(test)]
mod tests;

//! Opens the store that a URL names.

use std::fmt;
use std::sync::Arc;

use semel_core::Store;
use semel_stores::embedded::{EmbeddedStore, OpenError, Options};
use semel_stores::memory::MemoryStore;

use crate::config::StoreConfig;
use crate::telemetry::metrics::Sizes;

/// What can be named.
const SUPPORTED: &str = "`embedded:PATH` (such as `embedded:./semel-data`) or `memory:`";

/// Why there is no store.
#[derive(Debug)]
pub enum StoreOpenError {
    /// The URL names none that this build has.
    Unsupported {
        /// What the URL begins with: the rest may hold a password.
        scheme: String,
    },
    /// The URL lacks something.
    Incomplete,
    /// It cannot be opened.
    Embedded(OpenError),
}

impl fmt::Display for StoreOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { scheme } => {
                write!(f, "store.url: there is no store `{scheme}`; this server has {SUPPORTED}")
            }
            Self::Incomplete => write!(f, "store.url: the path is missing; expected {SUPPORTED}"),
            Self::Embedded(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StoreOpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unsupported { .. } | Self::Incomplete => None,
            Self::Embedded(error) => error.source(),
        }
    }
}

/// Which store a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Embedded(std::path::PathBuf),
    /// Nothing that outlives the process.
    Memory,
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// It names no store that this build has.
    pub fn parse(url: &str) -> Result<Self, StoreOpenError> {
        match url.split_once(':') {
            Some(("embedded", "")) => Err(StoreOpenError::Incomplete),
            Some(("embedded", path)) => Ok(Self::Embedded(path.into())),
            Some(("memory", "")) => Ok(Self::Memory),
            Some((scheme, _)) => Err(StoreOpenError::Unsupported { scheme: scheme.to_owned() }),
            None => Err(StoreOpenError::Unsupported { scheme: "without a scheme".to_owned() }),
        }
    }
}

/// Opens the configured store, which tells `batches` how many writes have shared each sync. Blocks while it reads; call it inside the runtime that will use the store.
///
/// # Errors
/// The URL names no store, or the store cannot be opened.
pub fn open(config: &StoreConfig, batches: Sizes) -> Result<Arc<dyn Store>, StoreOpenError> {
    match Location::parse(&config.url)? {
        Location::Memory => Ok(Arc::new(MemoryStore::new())),
        Location::Embedded(folder) => {
            let store = EmbeddedStore::open(&Options::new(folder)).map_err(StoreOpenError::Embedded)?;
            store.tell_batches(move |writes| batches.observe(writes as u64));
            let recovery = store.recovery();
            tracing::info!(
                segments = recovery.segments,
                records = recovery.records,
                torn_bytes = recovery.torn_bytes,
                "store opened"
            );
            Ok(Arc::new(store))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_here_is_refused_without_repeating_its_password() {
        let error = Location::parse("postgres://semel:hunter2@db/semel").unwrap_err().to_string();
        assert!(error.contains("no store `postgres`") && error.contains("`embedded:PATH`"), "{error}");
        assert!(!error.contains("hunter2"));
        let nothing = Location::parse("hunter2").unwrap_err().to_string();
        assert!(!nothing.contains("hunter2"), "{nothing}");
        assert!(Location::parse("embedded:").unwrap_err().to_string().contains("the path is missing"));
        assert!(Location::parse("memory:x").is_err());
    }

    #[test]
    fn a_folder_and_memory_are_here() {
        assert_eq!(Location::parse("memory:").unwrap(), Location::Memory);
        assert_eq!(Location::parse("embedded:./a b").unwrap(), Location::Embedded("./a b".into()));
    }
}

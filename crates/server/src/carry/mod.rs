//! Records on their way from one store to another, of whatever kinds the two are.
//!
//! `archive` what lies between · [`export()`] out of a store, which servers may use meanwhile · [`import()`] into a store, any
//! number of times: what is there already stays as it is.
//!
//! What is carried keeps its key, state, token, attempts, checkpoints and outcome, so that a duplicate is answered in the
//! new store as in the old one. Lengths of time (leases, due times, retention) go on by the clock of the new store. Fences
//! rise above those of the old store, also for keys whose records were removed there (L2): the floor comes along.

mod archive;
mod export;
mod import;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use semel_core::StoreError;

pub use export::{Exported, export};
pub use import::{Imported, import};

/// Why records could not be carried.
#[derive(Debug)]
pub enum CarryError {
    /// The store did not do its part.
    Store(StoreError),
    /// The archive cannot be written or read.
    Archive(io::Error),
    /// The archive holds something else than it should.
    Damaged(String),
}

impl fmt::Display for CarryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Archive(error) => write!(f, "the archive: {error}"),
            Self::Damaged(what) => write!(f, "the archive is damaged: {what}"),
        }
    }
}

impl std::error::Error for CarryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Archive(error) => error.source(),
            Self::Damaged(_) => None,
        }
    }
}

impl From<StoreError> for CarryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for CarryError {
    fn from(error: io::Error) -> Self {
        Self::Archive(error)
    }
}

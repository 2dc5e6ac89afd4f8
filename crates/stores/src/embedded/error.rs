//! Why a store could not be opened or checked.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

/// A folder that cannot be opened as a store.
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// What an operator has to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenErrorKind {
    /// Another process has the folder open: stop one of them.
    InUse,
    /// The operating system refused: rights, space, a failing disk.
    Io,
    /// Bytes that were once acknowledged cannot be read any more: restore from a copy.
    Corrupt,
    /// Written by a later version of this program.
    Newer,
    /// There is no store, where one was to be looked at.
    Absent,
    /// The options contradict each other or the folder.
    Options,
}

impl OpenError {
    pub(crate) fn new(kind: OpenErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        Self { kind: OpenErrorKind::Io, message: message.into(), source: Some(source) }
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(OpenErrorKind::Corrupt, message)
    }

    pub(crate) fn absent(folder: &Path) -> Self {
        Self::new(OpenErrorKind::Absent, format!("{}: there is no store here", folder.display()))
    }

    /// What an operator has to do about it.
    pub const fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

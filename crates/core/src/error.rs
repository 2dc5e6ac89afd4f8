//! What can go wrong: input outside the limits, and stores.

use std::error::Error;
use std::fmt;

/// A value that is not within the limits: which one, and what was expected. Fit to be shown to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Empty,
    TooLong { max: usize },
    TooMany { max: usize },
    TooLarge { max: usize },
    ControlCharacter,
    Repeated,
    OutOfRange { expected: &'static str },
}

impl Invalid {
    pub(crate) const fn new(what: &'static str, problem: Problem) -> Self {
        Self { what, problem }
    }

    /// The name of the value, as a field of a request would have it.
    pub const fn what(&self) -> &'static str {
        self.what
    }

    /// Whether it is only too big: a door may answer 413 rather than 400.
    pub const fn is_too_large(&self) -> bool {
        matches!(self.problem, Problem::TooLarge { .. })
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match self.problem {
            Problem::Empty => write!(f, "{what} must not be empty"),
            Problem::TooLong { max } => write!(f, "{what} must have at most {max} characters"),
            Problem::TooMany { max } => write!(f, "there may be at most {max} of {what}"),
            Problem::TooLarge { max } => write!(f, "{what} must have at most {max} bytes"),
            Problem::ControlCharacter => write!(f, "{what} must not contain control characters"),
            Problem::Repeated => write!(f, "{what} must not be given twice"),
            Problem::OutOfRange { expected } => write!(f, "{what} must be {expected}"),
        }
    }
}

impl Error for Invalid {}

/// A store that could not do what it was asked to.
///
/// The kind decides what the ledger does next, and it knows only four: nothing happened, nobody knows whether it
/// happened, the bytes cannot be read, and the request can never be met. What lies behind it (a driver's error, an
/// `errno`) is the [`source`](Error::source), for the log; nothing of it reaches a client.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    during: &'static str,
    message: Box<str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a failure of a store means for the command that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The write did not happen and will not: it may be tried again when `retry_helps`.
    NotApplied {
        /// Whether the same call can succeed later without anybody changing something.
        retry_helps: bool,
    },
    /// The write may have happened, or may still happen until its `not_after`.
    InDoubt,
    /// Stored bytes that cannot be decoded (L13).
    Corrupt,
    /// More than this store can ever hold in one record.
    TooLarge,
}

impl StoreError {
    /// The write did not happen.
    pub fn not_applied(during: &'static str, retry_helps: bool, message: impl Into<Box<str>>) -> Self {
        Self::new(StoreErrorKind::NotApplied { retry_helps }, during, message)
    }

    /// Nobody knows whether the write happened.
    pub fn in_doubt(during: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::new(StoreErrorKind::InDoubt, during, message)
    }

    /// Stored bytes that cannot be decoded.
    pub fn corrupt(during: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::new(StoreErrorKind::Corrupt, during, message)
    }

    /// A record that this store can never hold.
    pub fn too_large(during: &'static str, message: impl Into<Box<str>>) -> Self {
        Self::new(StoreErrorKind::TooLarge, during, message)
    }

    fn new(kind: StoreErrorKind, during: &'static str, message: impl Into<Box<str>>) -> Self {
        Self { kind, during, message: message.into(), source: None }
    }

    /// With what lies behind it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What it means for the command.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Which call of the store met it.
    pub const fn during(&self) -> &'static str {
        self.during
    }

    /// Whether nobody knows if the write happened.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self.kind, StoreErrorKind::InDoubt)
    }

    /// Whether the same call can succeed later without anybody changing something.
    pub const fn retry_helps(&self) -> bool {
        matches!(self.kind, StoreErrorKind::NotApplied { retry_helps: true } | StoreErrorKind::InDoubt)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.kind {
            StoreErrorKind::NotApplied { .. } => "did not happen",
            StoreErrorKind::InDoubt => "may or may not have happened",
            StoreErrorKind::Corrupt => "found bytes that cannot be read",
            StoreErrorKind::TooLarge => "was given more than it can hold",
        };
        write!(f, "store: {} {meaning}: {}", self.during, self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

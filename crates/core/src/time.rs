//! Points in the store's time. Lengths of time are [`Duration`]s; only a store makes a [`Timestamp`] of its own.

use std::fmt;
use std::time::Duration;

/// A point in the *store's* time: milliseconds since the Unix epoch, never read from a caller's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The beginning of the epoch.
    pub const ZERO: Self = Self(0);
    /// The last point there is.
    pub const MAX: Self = Self(u64::MAX);

    /// The point this many milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The point that lies `length` after this one, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long this point lies after `earlier`; zero when it does not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

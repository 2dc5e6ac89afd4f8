//! The time on the wall, for what is compared with other people's clocks: the time stamps of partners' signatures, the
//! ends of secrets, and the instants of schedules. No record's time comes from here.

use std::time::{SystemTime, UNIX_EPOCH};

use semel_core::Timestamp;

/// Now, by the clock on the wall.
pub(crate) fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a partner has signed and what a schedule means is the wall's clock; no record's time depends on it"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

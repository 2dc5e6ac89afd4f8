//! Every limit of this crate, with its unit and its reason.

use std::time::Duration;

/// The first pause before the end of an attempt, which could not be stored, is stored again; it doubles.
pub const PERSIST_PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause: a store that is back is noticed soon.
pub const PERSIST_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a client is kept waiting for that: below the patience of most. It goes on in the background, as long as
/// the lease.
pub const PERSIST_ANSWER_WITHIN: Duration = Duration::from_secs(3);

const _: () = assert!(PERSIST_PAUSE_FIRST.as_millis() < PERSIST_PAUSE_MAX.as_millis());

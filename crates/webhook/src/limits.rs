//! Every limit of this crate, with its unit and its reason.

use std::time::Duration;

/// Characters of an identity: it becomes a key of the ledger. Longer ones are hashed.
pub const IDENTITY_CHARS_MAX: usize = semel_core::limits::KEY_CHARS_MAX;
/// Characters of a source's name: with its target's name it is the subject of a scope, and it is a metric label.
pub const SOURCE_CHARS_MAX: usize = 128;
/// Characters of a secret's id.
pub const SECRET_ID_CHARS_MAX: usize = 64;
/// Secrets of one source. Two are a rotation; each more is another computation over the body of every forgery.
pub const SECRETS_MAX: usize = 8;
/// Signatures of one header that are looked at, for the same reason.
pub const SIGNATURES_MAX: usize = 16;
/// Bytes of a header that is read here: a list of [`SIGNATURES_MAX`] ed25519 signatures fits.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;
/// Items of a batch: each is a record of its own, and all are durable before the one answer.
pub const BATCH_ITEMS_MAX: usize = 256;
/// Ways to find an identity, and parts of one.
pub const IDENTITY_PARTS_MAX: usize = 16;
/// Ranges of addresses that a source may list.
pub const ADDRESSES_MAX: usize = 256;
/// Characters of a template.
pub const TEMPLATE_CHARS_MAX: usize = 512;
/// How far a signed time stamp may lie from now, both ways, unless a source says otherwise: what Standard Webhooks'
/// and Stripe's own libraries take.
pub const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);
/// The widest tolerance: beyond a day, a captured request stays good for so long that the time stamp is no protection.
pub const TOLERANCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a body up to which the debugger looks for near misses: it signs each a few dozen times.
pub const NEAR_MISS_BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long identities are kept unless a source says otherwise.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Tries of a delivery to a target, unless it says otherwise.
pub const TRIES_DEFAULT: u32 = 12;
/// The longest pause between two tries, unless the target says otherwise.
pub const PAUSE_MAX_DEFAULT: Duration = Duration::from_secs(6 * 60 * 60);
/// How long a delivery is tried, unless the target says otherwise.
pub const TRYING_FOR_DEFAULT: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The longest pause that a target is granted by `Retry-After`: beyond a day it is a mistake more often than a wish.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const _: () = assert!(
    RETRY_AFTER_MAX.as_secs() < TRYING_FOR_DEFAULT.as_secs(),
    "one pause does not spend the schedule"
);
const _: () =
    assert!(SIGNATURES_MAX * 96 <= HEADER_BYTES_MAX, "a full list of ed25519 signatures fits a header");
const _: () = assert!(TOLERANCE_DEFAULT.as_secs() <= TOLERANCE_MAX.as_secs());
const _: () = assert!(
    SOURCE_CHARS_MAX * 2 < semel_core::limits::SCOPE_PART_CHARS_MAX,
    "a source and a target fit a subject"
);

//! Every limit of the ledger, with its unit and its reason. Doors have limits of their own; none is wider than these.

use std::time::Duration;

/// Characters of an idempotency key (draft-ietf-httpapi-idempotency-key-header-07 leaves it to the server; 255 is
/// what the providers of the field take).
pub const KEY_CHARS_MAX: usize = 255;
/// Characters of an operation's name: it is a metric label and part of every record.
pub const OPERATION_CHARS_MAX: usize = 255;
/// Characters of a tenant's name or of a subject (a caller, a source with its target, a topic with its group).
pub const SCOPE_PART_CHARS_MAX: usize = 512;
/// Characters of a lane's name: lanes are the targets of the configuration.
pub const LANE_CHARS_MAX: usize = 255;
/// Characters of a caller's attempt id.
pub const ATTEMPT_ID_CHARS_MAX: usize = 255;
/// Tags of one record: each is an index entry.
pub const TAGS_MAX: usize = 16;
/// Characters of a tag's name.
pub const TAG_NAME_CHARS_MAX: usize = 64;
/// Characters of a tag's value.
pub const TAG_VALUE_CHARS_MAX: usize = 255;
/// Checkpoints of one record: a handler with more steps than this is a workflow, and wants an engine for those.
pub const CHECKPOINTS_MAX: usize = 64;
/// Characters of a checkpoint's phase name.
pub const PHASE_CHARS_MAX: usize = 128;
/// Bytes of one checkpoint's data: it is rewritten with every later checkpoint of the record.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an outcome's or input's body that a record can hold; doors set theirs below it.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Headers kept with an outcome or an input.
pub const HEADERS_MAX: usize = 64;
/// Bytes of one header's name and value together.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an error text, a reason or an explanation that is kept; longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Shortest lease: below this, a heartbeat at a third of it is mostly overhead.
pub const LEASE_MIN: Duration = Duration::from_millis(100);
/// Longest lease: a longer one would wedge a key for a day after a crash; heartbeats are for that.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest retention: ten years.
pub const RETENTION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// Tries of a schedule.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Times a command is decided anew because somebody else was quicker. Each turn, another command has won, so the
/// system moves; this many losses in a row mean that the store answers conflicts which are none.
pub const DECISIONS_MAX: u32 = 64;
/// Times that a write in doubt is tried again before the doubt is handed to the caller.
pub const DOUBTS_MAX: u32 = 3;
/// How long after it was decided a write may still take effect.
pub const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Records or audit entries of one page.
pub const PAGE_MAX: usize = 1_000;
/// Lanes and due records handed out at once.
pub const TAKE_MAX: usize = 1_024;

/// A lease is renewed at this part of its length, so that two heartbeats may fail before it lapses.
pub const HEARTBEATS_PER_LEASE: u32 = 3;
/// The part of a lease that a holder leaves unused, for a clock that runs fast and a request on its way.
pub const LEASE_MARGIN_PART: u32 = 10;

const _: () = assert!(TAG_VALUE_CHARS_MAX <= KEY_CHARS_MAX, "a key fits where a tag does");
const _: () =
    assert!(CHECKPOINT_BYTES_MAX * CHECKPOINTS_MAX <= BODY_BYTES_MAX, "all checkpoints fit one body");
const _: () = assert!(LEASE_MIN.as_millis() < LEASE_MAX.as_millis());
const _: () = assert!(HEARTBEATS_PER_LEASE >= 2, "one lost heartbeat must not lose the lease");
const _: () =
    assert!(WRITE_WITHIN.as_secs() < LEASE_MAX.as_secs(), "a write cannot outlive the lease it grants");

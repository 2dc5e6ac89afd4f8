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

/// Characters of a job's type: it is a metric label and part of every record's key.
pub const JOB_TYPE_CHARS_MAX: usize = 64;
/// Characters of the name of whoever holds a job: a tag of its runs.
pub const JOB_HOLDER_CHARS_MAX: usize = 128;
/// Characters of a client's name for an attempt to start a job: with its holder it names the claim.
pub const JOB_ATTEMPT_CHARS_MAX: usize = 64;
/// Bytes of what a run has to say that are kept.
pub const JOB_DETAILS_BYTES_MAX: usize = 16 * 1024;
/// How long a job's guard holds without a heartbeat, if nothing else is said: as long as a lock of a request.
pub const JOB_LEASE_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// How long a run is remembered from its end, if nothing else is said.
pub const JOB_RETENTION_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// How long a guard that nobody holds is kept: a moment, for whoever gives it back again, since its answer was lost.
pub const JOB_GUARD_REST: Duration = Duration::from_secs(1);
/// The lease of the record of a skip, which is claimed and completed at once; what a crash leaves of one is tidied
/// after it.
pub const JOB_SKIP_LEASE: Duration = Duration::from_secs(60);
/// Runs that one start tidies up: those whose holders died before anybody had written down their end.
pub const JOB_TIDIED_MAX: usize = 100;
/// Times that a forced release is tried again because a heartbeat was quicker.
pub const JOB_FORCED_TRIES_MAX: u32 = 16;

const _: () = assert!(
    JOB_ATTEMPT_CHARS_MAX + 1 + JOB_HOLDER_CHARS_MAX <= semel_core::limits::ATTEMPT_ID_CHARS_MAX,
    "an attempt's name and its holder's fit one attempt id"
);
const _: () = assert!(JOB_HOLDER_CHARS_MAX <= semel_core::limits::TAG_VALUE_CHARS_MAX, "a holder is a tag");
const _: () = assert!(
    JOB_TYPE_CHARS_MAX + 33 <= semel_core::limits::KEY_CHARS_MAX,
    "a type and the name of a run or a skip fit one key"
);
const _: () = assert!(JOB_DETAILS_BYTES_MAX <= semel_core::limits::BODY_BYTES_MAX);
/// How long the work of a job may take: ten years, which is to say that its heartbeats end with it and not before.
pub const JOB_TIME_MAX: Duration = semel_core::limits::RETENTION_MAX;
/// How long an instant of a schedule is remembered once its run has ended: longer than any clock is set back, and than
/// a schedule looks back for what it has missed.
pub const JOB_TICK_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

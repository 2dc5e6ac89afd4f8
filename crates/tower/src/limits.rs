//! Every limit of the layer, with its unit and its reason. None is wider than core's, where core has one.

use std::time::Duration;

use semel_core::limits as core;

/// Characters of a key unless configured.
pub const KEY_CHARS_DEFAULT: usize = core::KEY_CHARS_MAX;
/// Bytes of a protected request's body unless configured: it is read whole before anything runs, since it is compared.
pub const BODY_BYTES_DEFAULT: usize = 1024 * 1024;
/// Bytes of a response that is kept, unless configured.
pub const RESPONSE_BYTES_DEFAULT: usize = 1024 * 1024;
/// How long a protected request's body may take to arrive, once the first of it is waited for.
pub const BODY_READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a claim holds without a heartbeat, unless configured.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// How long a settled key is remembered, unless configured.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a handler may run under its claim unless configured: heartbeats of one that hangs must end some day.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest time for a handler that can be configured.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest `Prefer: wait` unless configured: below the idle timeouts of common proxies (60 s).
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest `Prefer: wait` that can be configured.
pub const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// What a client is told to wait while its key is being worked on, in the flat form.
pub const RETRY_AFTER_IN_FLIGHT: Duration = Duration::from_secs(2);
/// What a client is told to wait when the store does not answer.
pub const RETRY_AFTER_STORAGE: Duration = Duration::from_secs(5);
/// What a client is told to wait when its attempt came to nothing that counts.
pub const RETRY_AFTER_LOST: Duration = Duration::from_secs(1);
/// Single-frame bodies up to so many bytes are copied before they are kept: such a body is often a slice of a larger
/// buffer, which would be kept with it.
pub const COPIED_BYTES_MAX: usize = 16 * 1024;
/// Characters of a request id that errors repeat.
pub const REQUEST_ID_CHARS_MAX: usize = 128;

const _: () = assert!(BODY_BYTES_DEFAULT <= core::BODY_BYTES_MAX);
const _: () = assert!(RESPONSE_BYTES_DEFAULT <= core::BODY_BYTES_MAX);
const _: () = assert!(WAIT_DEFAULT.as_secs() <= WAIT_MAX.as_secs());
const _: () = assert!(TIMEOUT_DEFAULT.as_secs() <= TIMEOUT_MAX.as_secs());
/// How long, after the grace of a drain, what was given up may take to be written down as such.
pub const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);
/// Expired records that are removed in one step: a step is short beside a sync to disk.
pub const SWEEP_BATCH: usize = 512;
/// The pause after a full step.
pub const SWEEP_AGAIN: Duration = Duration::from_millis(5);
/// The pause after the last step.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a reply in report mode waits, at most, until its key has been looked up: that was asked for before the
/// service was called, so mostly not at all. A store that hangs costs no request more than this.
pub const REPORT_WITHIN: Duration = Duration::from_millis(50);
/// How long a report waits for that of an earlier request, to learn when that one was answered. No client waits.
pub const REPORT_WAIT: Duration = Duration::from_secs(5);

//! Every number the bench fixes, with its unit and its reason.

use std::time::Duration;

/// Rounds that a quoted median rests on; fewer are allowed by hand and said so in the results.
pub(crate) const ROUNDS_MIN: usize = 5;

/// Open connections of the two loads that the bars name.
pub(crate) const CONNECTIONS: [usize; 2] = [64, 256];

/// How long requests that were sent before the end may still take before they count as failed.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// How long a peer may take from its start until its first right answer (Restate and PostgreSQL are the slow ones).
pub(crate) const START_PATIENCE: Duration = Duration::from_mins(1);

/// How long a peer may take to stop after SIGTERM before it is killed.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How long a store may take until merges have ended and its folder keeps its size.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_mins(2);

/// Records of the scenario with many; the bars name ten million.
pub(crate) const MANY_RECORDS: u64 = 10_000_000;

/// Between two looks at something that is waited for: a process that starts, stops or recovers.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Keys that a replay run goes round in, at most: what a slow peer wrote in its first run may be less.
pub(crate) const REPLAY_WINDOW_MAX: u64 = 200_000;

/// One connection's buffer for a reply; a reply of the scenarios is below 2 KiB with its headers.
pub(crate) const REPLY_BYTES_MAX: usize = 16 * 1024;

/// What one group commit of a peer's engine takes together at most.
pub(crate) const GROUP_MAX: usize = 4096;

/// Connections of the pool over PostgreSQL, as the bar names it.
pub(crate) const POSTGRES_POOL: usize = 48;

/// A durable write of the sync measurement; the block size of the file systems in question.
pub(crate) const SYNC_BLOCK_BYTES: usize = 4096;

/// Writes of one round of the sync measurement: at 0.1 to 0.2 ms each, well under a second.
pub(crate) const SYNC_WRITES: usize = 2_000;

const _: () = assert!(SYNC_BLOCK_BYTES.is_power_of_two(), "O_DIRECT wants aligned blocks");
const _: () = assert!(ROUNDS_MIN % 2 == 1, "an odd number of rounds has a median that was measured");
const _: () = assert!(CONNECTIONS[0] < CONNECTIONS[1], "tables list them in this order");

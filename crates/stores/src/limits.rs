//! Every limit of the stores, with its unit and its reason.

use std::time::Duration;

/// Bytes of a segment of the log: large enough that starting one is rare, small enough that dropping one frees space in
/// small steps.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Smallest segment, in bytes: its header and a few records of the tests.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
/// Largest segment, in bytes: an index entry holds 24 bits of an offset in units of [`FRAME_ALIGN`].
pub const SEGMENT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes at the head of a segment that hold its header: a page of their own, which no record's write touches.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Frames begin at multiples of this many bytes.
pub const FRAME_ALIGN: usize = 8;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 12;
/// Bytes handed to the disk between two syncs. Recovery clears as much after a torn tail.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that may wait for the log before writers have to wait themselves.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes written and synced at once by what happens beside the commits, such as filling a new segment with zeros: a
/// sync of the log has to stand behind so much at most.
pub const BESIDE_BYTES: usize = 1024 * 1024;
/// Bytes at whose multiples writes past the system's cache begin and end, in the file and in memory: no disk wants more.
pub const DIRECT_BLOCK_BYTES: usize = 4096;
/// Parts of the index, each under a lock of its own.
pub const SHARDS: usize = 256;
/// Entries of one bucket of the index, on average: a few cache lines to scan.
pub const BUCKET_ENTRIES: usize = 24;
/// Bytes of the cache of settled records, unless the options say otherwise.
pub const CACHE_BYTES: u64 = 128 * 1024 * 1024;
/// Bytes read at once when a segment's frames are read one after the other.
pub const SCAN_BYTES: usize = 1024 * 1024;
/// Bytes read at once for a record whose length the index does not know.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Places in the memory store where waiters for changes wait: a change wakes all of its place, so there are many.
pub const MEMORY_WAIT_PLACES: usize = 256;
/// Expired records that the memory store removes at a time: what any other call may have to wait for.
pub const MEMORY_SWEEP_STEP: usize = 64;
/// Audit entries that the memory store keeps: some 25 MB, the newest.
pub const MEMORY_AUDIT_ENTRIES_MAX: usize = 100_000;
/// Connections of the PostgreSQL store's pool, unless the URL says otherwise: a few per core of a usual database server.
pub const POSTGRES_POOL: usize = 16;
/// Most connections that a URL may ask for: more only queue inside the server.
pub const POSTGRES_POOL_MAX: usize = 1_000;
/// How long a connection to PostgreSQL may take, and how long a call waits for a free one.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server lets one statement run, unless the URL says otherwise.
pub const POSTGRES_STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than that a call waits for its answer, before it takes the connection for dead.
pub const POSTGRES_ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Between two looks at a record that somebody waits for, or at what is due, where no notification comes.
pub const POSTGRES_POLL: Duration = Duration::from_millis(250);
/// The same where notifications come: they are a hint, and may be lost with their connection.
pub const POSTGRES_POLL_LISTENING: Duration = Duration::from_secs(2);
/// Expired records that PostgreSQL removes in one statement: short transactions let others and vacuum by.
pub const POSTGRES_SWEEP_STEP: usize = 200;
/// Writes of a node between two foldings of the moves into the counts.
pub const POSTGRES_FOLD_EVERY: u64 = 512;
/// Moves that are folded in one statement.
pub const POSTGRES_FOLD_STEP: i64 = 5_000;
/// Commands in one statement of PostgreSQL: beyond this, a round trip is a small share of the work. Each holds a lock
/// of the server's table of locks, of which there are 6,400 unless the server is told otherwise.
pub const POSTGRES_BATCH: usize = 128;
/// Bytes of a batch, from which on nothing more goes into it; a quarter of it goes alone.
pub const POSTGRES_BATCH_BYTES: usize = 1 << 20;
/// Batches of each kind (inserts, replacements, loads) that a node has under way, unless the URL says otherwise: while one
/// waits for the disk, the next one is worked at. With more, each is smaller.
pub const POSTGRES_LANES: usize = 2;
/// Most of them that a URL may ask for: each is a connection for each kind.
pub const POSTGRES_LANES_MAX: usize = 32;
/// Commands that wait before another lane is begun beside those that are under way. However few there are in it, a
/// statement takes some 55 µs in the server's executor alone, and then its commit and its way; and 15 to 25 µs for each.
pub const POSTGRES_LANE_FROM: usize = 16;
/// How long a batch waits for somebody's lock before its commands go alone: longer than a commit takes.
pub const POSTGRES_BATCH_LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// Times that a call begins anew because a row came or went between two of its statements.
pub const POSTGRES_ROUNDS: usize = 32;
/// Times that a read is asked again because its connection turned out to be lost: one is often found so after a pause.
pub const POSTGRES_READS_AGAIN: usize = 3;
/// Ids in one notification: its payload holds less than 8,000 bytes.
pub const POSTGRES_NOTIFY_IDS: usize = 240;
/// Ids that wait to be told to other nodes; more are left to the waiters' own looks.
pub const REMOTE_NEWS_QUEUE: usize = 16 * 1024;
/// Places in which waiters for changes of a store over a network wait, as in the memory store.
pub const REMOTE_WAIT_PLACES: usize = 256;
/// Shards of a prefix in a cluster, unless the URL says otherwise: some for each server of a usual one, and still few to ask
/// where all have to be asked.
pub const REDIS_SHARDS_OF_CLUSTER: usize = 16;
/// Most shards of a prefix: what waits or searches asks each of them.
pub const REDIS_SHARDS_MAX: usize = 256;
/// The oldest Redis that can run the scripts: they say what they do in their first line.
pub const REDIS_VERSION_MIN: u32 = 7;
/// The oldest Redis that can be waited for until it has synced.
pub const REDIS_WAITAOF_VERSION: (u32, u32) = (7, 2);
/// Connections to each server, unless the URL says otherwise: one is shared by all, and pipelines.
pub const REDIS_CONNECTIONS: usize = 2;
/// The same where replicas are waited for: whoever waits blocks those behind.
pub const REDIS_CONNECTIONS_WAITING: usize = 16;
/// Most connections to each server that a URL may ask for.
pub const REDIS_CONNECTIONS_MAX: usize = 256;
/// Commands under way on one connection: more wait here, where it is known that they were not sent.
pub const REDIS_IN_FLIGHT: usize = 1024;
/// How long a connection to Redis may take, and how long a command waits for room on one.
pub const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits for its answer, unless the URL says otherwise.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write waits for its replicas, unless the URL says otherwise.
pub const REDIS_WAIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Times that a command is sent elsewhere, or again with its script: a cluster that moves a slot sends it twice at most.
pub const REDIS_HOPS: usize = 6;
/// Times that a read is asked again because its connection turned out to be lost.
pub const REDIS_READS_AGAIN: usize = 3;
/// Between two looks at a record that somebody waits for, or at what is due, where no notification comes.
pub const REDIS_POLL: Duration = Duration::from_millis(250);
/// The same where notifications come: they are a hint, and may be lost with their connection.
pub const REDIS_POLL_LISTENING: Duration = Duration::from_secs(2);
/// Records that are loaded at once for a list, and removed at once by a sweep.
pub const REDIS_LOADS_AT_ONCE: usize = 64;
/// Expired records that a sweep looks for at once.
pub const REDIS_SWEEP_STEP: usize = 200;
/// Audit entries that are dropped by one script: others wait for it.
pub const REDIS_FORGET_STEP: usize = 200;

/// The collection of the MongoDB store's records, unless the URL says otherwise: the name that its users know.
pub const MONGODB_COLLECTION: &str = "idempotency_keys";
/// Characters of such a name: with the database's and the suffixes of what lies beside it, MongoDB takes 255.
pub const MONGODB_COLLECTION_CHARS_MAX: usize = 80;
/// Connections of the MongoDB store's pool, unless the URL says otherwise.
pub const MONGODB_POOL: u32 = 64;
/// How long a connection to MongoDB may take, and how long a call waits for a server that can take it. The driver's watch
/// over a server waits as long for an answer, and so long it may take to see that a network is whole again.
pub const MONGODB_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the server lets one command run.
pub const MONGODB_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than that, and than the wait for a server, a call waits before it takes the connection for dead.
pub const MONGODB_ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Between two questions by which those who wait for a connection of the driver's get their turn.
pub const MONGODB_TURN_PAUSE: Duration = Duration::from_millis(2);
/// Most of such questions at once: more calls are not left at one moment.
pub const MONGODB_TURNS_MAX: usize = 1_024;
/// Between two looks at a record that somebody waits for, or at what is due.
pub const MONGODB_POLL: Duration = Duration::from_millis(250);
/// How long what the server said of its time is counted on from, before it is asked again.
pub const MONGODB_TIME_HOLDS: Duration = Duration::from_secs(2);
/// An answer may come late by so much; a server's clock that is behind by more has been set back.
pub const MONGODB_SET_BACK: Duration = Duration::from_secs(60);
/// How long a slot stays taken after its version was superseded: many times longer than any write may be under way, so
/// that clocks may be ten minutes off and a server may stall.
pub const MONGODB_KEEP: Duration = Duration::from_secs(30 * 60);
/// A node relies for this part of that time on where it has seen a record's newest version, and on the floor under new
/// fences that it has read.
pub const MONGODB_HOLDS_PER_KEEP: u32 = 6;
/// Records whose newest version's place a node remembers: some 100 bytes each.
pub const MONGODB_PLACES: usize = 100_000;
/// Times that a node deletes, within that time, what has been kept for long enough.
pub const MONGODB_PRUNES_PER_KEEP: u32 = 60;
/// Between two looks whether it is this node's turn to make indexes.
pub const MONGODB_SETUP_POLL: Duration = Duration::from_millis(20);
/// Versions that are settled at once.
pub const MONGODB_SETTLE_STEP: i64 = 500;
/// Between a write and its settling, so that many are settled together.
pub const MONGODB_SETTLE_EVERY: Duration = Duration::from_millis(500);
/// After so long, whoever settles is taken for dead.
pub const MONGODB_SETTLER_PATIENCE: Duration = Duration::from_secs(30);
/// Removals that a sweep has under way at once.
pub const MONGODB_SWEEPERS: usize = 8;
/// Documents that are deleted at once.
pub const MONGODB_PRUNE_STEP: i64 = 500;
/// How long after it could have been removed the server's own expiry removes what a sweep has left.
pub const MONGODB_BACKSTOP: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Times that indexes are created anew because another node was about it.
pub const MONGODB_INDEX_TRIES: usize = 5;
/// Times that a call begins anew because somebody else was quicker.
pub const MONGODB_ROUNDS: usize = 64;
/// Bytes of one document, less some for what is beside the record: MongoDB takes no larger one.
pub const MONGODB_RECORD_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;

/// The oldest segment is merged when at most this part of it, in percent, is current: copying the rest frees as much.
pub const OLD_LIVE_SHARE_PERCENT: u64 = 50;
/// The oldest segment is merged, whatever it holds, when at most this part of all of them is current.
pub const LIVE_SHARE_PERCENT: u64 = 60;
/// As before, when nobody has written for [`QUIET_AFTER`]. The log is copied once at most in each such time.
pub const QUIET_LIVE_SHARE_PERCENT: u64 = 95;
/// Without a write for so long, upkeep has time.
pub const QUIET_AFTER: Duration = Duration::from_secs(5);
/// Segments before the latter two rules hold: fewer are not worth the copying.
pub const SEGMENTS_BEFORE_MERGE: u64 = 4;
/// Lines of a list that a search reads at once.
pub const SEARCH_RUN: usize = 8;
/// Records that a line about damage names.
pub const DAMAGE_NAMED_MAX: usize = 8;
/// Bytes that a merge hands to the log before it waits for them to be durable, so that it takes its turn among writers.
pub const MERGE_BATCH_BYTES: usize = 256 * 1024;
/// Between two looks whether such a batch is durable, and between two rounds of upkeep that found something to do.
pub const MERGE_PAUSE: Duration = Duration::from_millis(2);
/// Between two rounds of upkeep that found nothing to do.
pub const UPKEEP_EVERY: Duration = Duration::from_millis(200);
/// The nice value of the upkeep's thread: about a third of the weight of a thread that serves requests.
pub const UPKEEP_NICE: i32 = 5;
/// After a round of upkeep that failed, for want of space as a rule: each try writes as much of a segment as there is room
/// for.
pub const UPKEEP_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long the log waits for writers who have just been told, so that they share the next sync. About as long as a
/// sync takes: one writer alone never waits, since it comes back as the only one who is expected.
pub const GATHER: Duration = Duration::from_micros(150);
/// How long a synced batch waits for the task that publishes it before the log's thread does that itself.
pub const RELAY_PATIENCE: Duration = Duration::from_millis(1);
/// Synced batches that may wait for that task while the log's thread is busy.
pub const RELAY_BATCHES: usize = 2;
/// Files that are kept for the next segments; more are given back to the disk.
pub const SPARES_MAX: usize = 2;

const _: () = assert!(SEGMENT_BYTES >= SEGMENT_BYTES_MIN && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX / FRAME_ALIGN as u64 == 1 << 24, "an offset fits 24 bits");
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGN as u64));
const _: () = assert!(POSTGRES_BATCH <= i16::MAX as usize, "a kind of command has a number in a batch");
const _: () = assert!(POSTGRES_NOTIFY_IDS * 32 < 8_000, "PostgreSQL takes no longer payload");
const _: () = assert!(
    POSTGRES_STATEMENT_TIMEOUT.as_secs() < semel_core::limits::WRITE_WITHIN.as_secs(),
    "a statement ends before its write's deadline"
);
const _: () = assert!(
    REDIS_TIMEOUT.as_secs() < semel_core::limits::WRITE_WITHIN.as_secs()
        && REDIS_WAIT_TIMEOUT.as_secs() < REDIS_TIMEOUT.as_secs(),
    "replicas are waited for within the answer's time, and that is over before the write's deadline"
);
const _: () = assert!(
    MONGODB_KEEP.as_secs()
        > 2 * 10 * 60
            + MONGODB_KEEP.as_secs() / MONGODB_HOLDS_PER_KEEP as u64
            + semel_core::limits::WRITE_WITHIN.as_secs(),
    "a slot is not given back while somebody may be under way to it, though two clocks are ten minutes off"
);
const _: () = assert!(SHARDS.is_power_of_two());
const _: () = assert!(
    SEGMENT_BYTES > 3 * semel_core::limits::BODY_BYTES_MAX as u64,
    "input, outcome and checkpoints of one record fit a segment"
);

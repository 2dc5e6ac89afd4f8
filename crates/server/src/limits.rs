//! Every limit of the server, with its unit and its reason. None is wider than core's, where core has one.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use semel_core::limits as core;

/// Bytes of a request's body unless configured: what the design gives every door. A payload is hashed, may be
/// stored, and is sent on.
pub const BODY_BYTES_DEFAULT: usize = 1024 * 1024;
/// Bytes of a body that can be configured: what a record can hold, less room for the envelope around the payload.
pub const BODY_BYTES_MAX: usize = core::BODY_BYTES_MAX;
/// Bytes of all request headers together, and of the request line: several times what browsers and proxies send.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a head that are read at all: above the limit for headers, so that what is above that can be refused by
/// its code. What is above this is cut off by the protocol, with the bare status.
pub const HEAD_READ_BYTES_MAX: usize = 2 * HEADER_BYTES_MAX;
/// Headers of a request: each costs a slot while it is parsed.
pub const HEADERS_MAX: usize = 100;
/// How long a client may take to send its headers: a slow one holds a connection, nothing else.
pub const HEADER_READ_WITHIN: Duration = Duration::from_secs(10);
/// How much of a body's announced length is taken from memory before any of it has come.
pub const BODY_BYTES_AT_ONCE: usize = 64 * 1024;
/// How long a client may take to send its body, whole.
pub const BODY_READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections open at once unless configured: above the load that the quality bars drive, below a common limit of
/// open files.
pub const CONNECTIONS_DEFAULT: usize = 10_000;
/// Connections that can be configured.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// HTTP/2 streams of one connection at once: what a busy proxy needs; more only queue on the same connection.
pub const STREAMS_MAX: u32 = 256;
/// Requests in progress at once unless configured: each may hold a body, so this times the body's limit bounds memory
/// in the worst case.
pub const IN_PROGRESS_DEFAULT: usize = 4_096;
/// Requests in progress that can be configured.
pub const IN_PROGRESS_MAX: usize = 1_000_000;
/// How long a refusal for want of room is held back: long enough that a thousand clients who ask again at once are no load.
pub const REFUSAL_PAUSE: Duration = Duration::from_millis(100);
/// Refusals held back at once; above it they are sent at once. Each is a request's head and a timer.
pub const REFUSALS_HELD_MAX: usize = 10_000;
/// The longest `Prefer: wait` unless configured: below the idle timeouts of common proxies (60 s).
pub const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest `Prefer: wait` that can be configured.
pub const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a shutdown waits for what runs unless configured: below the 30 s after which Kubernetes kills.
pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(25);
/// The longest wait of a shutdown.
pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long one try of an operation may take unless configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How often accepted work is tried unless configured.
pub const RETRY_ATTEMPTS_DEFAULT: u32 = 12;
/// The pause after the first try unless configured; it doubles from there.
pub const RETRY_FIRST_DEFAULT: Duration = Duration::from_secs(5);
/// The longest pause between two tries unless configured.
pub const RETRY_CAP_DEFAULT: Duration = Duration::from_secs(6 * 60 * 60);
/// How long accepted work is tried unless configured: a weekend.
pub const RETRY_MAX_AGE_DEFAULT: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The longest try that can be configured.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Records that a listing which picks its rows (claims that nobody drives, dead letters by what they died of) reads for each
/// row of its page: what any listing may read for a row that it shows.
pub const PICKED_READ_PER_ROW: usize = 20;
/// Records that it reads in one call of the store: the longest page.
pub const PICKED_READ_AT_ONCE: usize = semel_api::limits::PAGE_MAX as usize;
/// Groups of dead letters that are held while they are counted: each holds an error's text and an example. What finds no
/// place is counted among the others.
pub const DEAD_GROUPS_HELD_MAX: usize = 1_000;
/// How long a request works on dead letters before it answers how far it came: whoever waits wants to see progress.
pub const DEAD_PART_WITHIN: Duration = Duration::from_secs(10);
/// Parts of a second in which a rate is kept: so that it is even, and a shutdown waits for no more than one.
pub const DEAD_PACES_PER_SECOND: u32 = 10;
/// Characters of a request's or correlation id that is taken over from the client; another gets one of ours.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Tries at once, over all lanes, unless configured.
pub const DISPATCH_DEFAULT: usize = 64;
/// Tries at once on one lane, unless configured: what a modest target stands.
pub const LANE_DEFAULT: usize = 8;
/// Tries at once that can be configured.
pub const DISPATCH_MAX: usize = 10_000;
/// Bytes of a result that is kept, unless configured (`max_response_size` of the design).
pub const RESULT_BYTES_DEFAULT: usize = 1024 * 1024;
/// Bytes of a result that is too large to be kept, and is passed on to whoever asked first: it is held whole, since only
/// a whole one is known to be JSON or not. A larger one is done, and nobody is given it.
pub const RESULT_HELD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of all such results that are held at once, from their first byte here to their last byte at the client. (What
/// is written around them, or base64, comes on top.)
pub const RESULTS_HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// In pieces of this size room is taken for them: small beside the smallest of them, as they are configured.
pub const RESULT_UNIT_BYTES: usize = 64 * 1024;
/// Requests per second of a tenant that can be configured.
pub const RATE_MAX: u32 = 10_000_000;
/// Tenants of one configuration: each has a bucket and is found by a walk over all tokens.
pub const TENANTS_MAX: usize = 1_000;
/// Operations of one configuration: each is a metric label.
pub const OPERATIONS_MAX: usize = 1_000;
/// The status that stands in the log and in counts for a request whose client left before there was an answer. It is
/// sent to nobody; other proxies have the same number.
pub const STATUS_CLIENT_GONE: u16 = 499;
/// What a client is told to wait when the server is overloaded: long enough for a burst to pass.
pub const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);
/// What a client is told to wait when the store does not answer (the flat rendering's rule in the design).
pub const RETRY_AFTER_STORAGE: Duration = Duration::from_secs(5);
/// Connections of one node to a store's server that can be configured: more only queue inside that server.
pub const STORE_CONNECTIONS_MAX: u64 = 1_000;
/// The shortest time-out towards a store's server: a busy one in the same room needs some milliseconds.
pub const STORE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The longest: below the 10 s within which a write must have happened or never will.
pub const STORE_TIMEOUT_MAX: Duration = Duration::from_millis(9_999);
/// How long a start waits for a store that cannot be reached yet, unless configured: a database that is started beside the
/// server is there by then, and a supervisor that restarts what ends is not kept from its own alarm.
pub const STORE_START_WITHIN: Duration = Duration::from_secs(60);
/// The longest such wait.
pub const STORE_START_WITHIN_MAX: Duration = Duration::from_secs(60 * 60);
/// Between the first two tries of it; it doubles from there.
pub const STORE_START_PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two of them: so long may a server be behind a store that has come up.
pub const STORE_START_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long `/readyz` waits for the store: a probe of Kubernetes gives up after a second unless it is told otherwise.
pub const READY_WITHIN: Duration = Duration::from_millis(900);
/// Shortest `payload_retention`: each payload that goes before its record is a write of its own, and a page of the dead
/// letters should not change under who looks at it.
pub const PAYLOAD_RETENTION_MIN: Duration = Duration::from_secs(1);
/// How long audit entries are kept unless configured.
pub const AUDIT_RETENTION_DEFAULT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Audit entries that are forgotten in one step.
pub const AUDIT_FORGET_BATCH: usize = 10_000;
/// The pause after a step that found something.
pub const AUDIT_FORGET_AGAIN: Duration = Duration::from_millis(50);
/// The longest pause after the last step: how late an entry may go.
pub const AUDIT_FORGET_EVERY: Duration = Duration::from_secs(60);
/// Shortest retention of audit entries.
pub const AUDIT_RETENTION_MIN: Duration = Duration::from_secs(1);
/// Bytes of a request's body on the admin listener: an outcome that an operator gives, in base64.
pub const ADMIN_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Connections of the admin listener: people and scrapers.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Commands of a bulk form in progress at once: enough to share the store's syncs, few enough to leave room for traffic.
pub const BULK_AT_ONCE: usize = 64;
/// Audit entries of traffic that wait to be written: what a store that stalls for a second under load leaves behind,
/// at some 200 bytes each.
pub const AUDIT_QUEUE_MAX: usize = 65_536;
/// Audit entries written at once: one sync for many, and no write that keeps others waiting.
pub const AUDIT_BATCH_MAX: usize = 1_024;
/// How long audit entries of traffic are gathered before they are written.
pub const AUDIT_GATHER: Duration = Duration::from_millis(5);
/// Bytes of log lines that wait to be written: a second of busy traffic.
pub const LOG_BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Spans that wait to be exported: what a collector that stalls for a second under load leaves behind, at some 1 KiB each.
/// More are dropped.
pub const TRACES_QUEUE_MAX: usize = 8_192;
/// Spans in one export.
pub const TRACES_BATCH_MAX: usize = 512;
/// How long spans are gathered before they are exported.
pub const TRACES_EXPORT_EVERY: Duration = Duration::from_secs(1);
/// How long one export may take, and the last one of all.
pub const TRACES_EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a collector's answer: what it refused, in words.
pub const TRACES_ANSWER_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(TRACES_BATCH_MAX <= TRACES_QUEUE_MAX);
const _: () = assert!(STORE_TIMEOUT_MAX.as_millis() < core::WRITE_WITHIN.as_millis());
const _: () = assert!(DEAD_PART_WITHIN.as_secs() < SHUTDOWN_GRACE_DEFAULT.as_secs());
const _: () = assert!(STORE_START_WITHIN.as_millis() <= STORE_START_WITHIN_MAX.as_millis());
const _: () = assert!(STORE_START_PAUSE_FIRST.as_millis() <= STORE_START_PAUSE_MAX.as_millis());
const _: () = assert!(AUDIT_BATCH_MAX <= AUDIT_QUEUE_MAX);
const _: () = assert!(BODY_BYTES_DEFAULT <= BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= core::BODY_BYTES_MAX, "what a door takes, a record can hold");
const _: () = assert!(RESULT_BYTES_DEFAULT <= core::BODY_BYTES_MAX, "a result that is kept fits a record");
const _: () = assert!(RESULT_HELD_BYTES_MAX > core::BODY_BYTES_MAX, "what is held is more than what is kept");
const _: () = assert!(RESULTS_HELD_BYTES_MAX >= RESULT_HELD_BYTES_MAX, "there is room for one");
const _: () = assert!(RESULT_HELD_BYTES_MAX.is_multiple_of(RESULT_UNIT_BYTES));
const _: () = assert!(WAIT_DEFAULT.as_secs() <= WAIT_MAX.as_secs());
const _: () = assert!(SHUTDOWN_GRACE_DEFAULT.as_secs() <= SHUTDOWN_GRACE_MAX.as_secs());
const _: () = assert!(core::HEADER_BYTES_MAX <= HEADER_BYTES_MAX, "a key header fits the headers");

/// Names that the built-in `count` counts: it is for trying out, and its memory is not to grow.
pub const BUILTIN_COUNTERS_MAX: usize = 1_000;
/// Milliseconds that the built-in `sleep` sleeps at most.
pub const BUILTIN_SLEEP_MS_MAX: u64 = 60_000;
/// What a client is told to wait, at least, when its attempt did nothing: long enough for a target to come back.
pub const RETRY_AFTER_TARGET: Duration = Duration::from_secs(1);
/// The longest `Retry-After` of a target that is honoured: beyond a day it is a mistake, or an attack.
pub const RETRY_AFTER_TARGET_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one address of a target may take to accept a connection: three tries of a SYN.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(8);
/// Idle connections kept to one target: what the default concurrency of a lane and some requests need.
pub const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept: below the shortest idle timeout of common servers (Node: 5 s).
pub const IDLE_CONNECTION_WITHIN: Duration = Duration::from_secs(4);
/// Records of one lane that are taken at once: a lane waits for no more than this of another.
pub const DISPATCH_BATCH: usize = 32;
/// How long the dispatcher waits after the store failed it, or when there is work and no room.
pub const DISPATCH_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How often the dispatcher looks without being told: for a node whose store cannot tell.
pub const DISPATCH_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long work waits that this node has no operation for.
pub const DISPATCH_WITHOUT_OPERATION: Duration = Duration::from_secs(30);
/// How long the beginning of an answer to a delivery is waited for, once its status is there: the status says it all.
pub const DELIVERY_SAID_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of what a target says to a delivery that are read, and kept where it has taken the event: what says which of
/// its records it has made, or what was wrong.
pub const DELIVERY_SAID_BYTES_MAX: usize = 4 * 1024;
/// Bytes of it that stand in the audit log for each try.
pub const DELIVERY_EXCERPT_BYTES_MAX: usize = 512;
/// Bytes from which on a part of a configured header is looked for in what a target says, and hidden: shorter ones are in
/// every text.
pub const HIDDEN_BYTES_MIN: usize = 4;
/// Failures in a row of a target that open its circuit: more than the tries under way at once on a lane, unless configured,
/// so that one moment's trouble does not.
pub const CIRCUIT_FAILURES: u32 = 10;
/// How long a circuit is open at first: what the restart of a service takes.
pub const CIRCUIT_FIRST: Duration = Duration::from_secs(5);
/// How long at most; it doubles up to there. A target that has come back waits no longer for its events.
pub const CIRCUIT_CAP: Duration = Duration::from_secs(60);
/// How long until an event that waits for an earlier one of its value is looked at again, at least. Who ends here calls the
/// next one up at once: this is for what ends elsewhere.
pub const ORDER_LOOK_MIN: Duration = Duration::from_millis(250);
/// How long at most.
pub const ORDER_LOOK_MAX: Duration = Duration::from_secs(30);
/// How far apart those are looked at that wait in one line: ten thousand of them cost a hundred writes a second.
pub const ORDER_LOOK_APART: Duration = Duration::from_millis(10);
/// Events that wait for their turn and are known to this process: some 200 bytes each. Beyond it they come up by their time.
pub const WAITING_KNOWN_MAX: usize = 65_536;
/// How long until it is looked again whether the store's clock has moved, which counts in milliseconds.
pub const ORDER_TICK: Duration = Duration::from_millis(1);
/// How long what is to be told is gathered before the first alert of its kind is sent: what comes together is one alert.
pub const ALERT_GATHER: Duration = Duration::from_secs(2);
/// How long after the time of an alert its promise is sent, by whoever is there: longer than it takes to put it aside.
pub const ALERT_PROMISE_GRACE: Duration = Duration::from_secs(10);
/// How long a duplicate's answer may wait until it is on record that there is something to tell: shorter than any partner waits.
pub const ALERT_KEPT_WITHIN: Duration = Duration::from_secs(2);
/// Alerts of a kind that are kept apart by what they are about; more are one.
pub const ALERT_GROUPS_MAX: usize = 1_000;
/// Expired records that are removed in one step: a step is short beside a sync to disk.
pub const SWEEP_BATCH: usize = 512;
/// The pause after a full step.
pub const SWEEP_AGAIN: Duration = Duration::from_millis(5);
/// The pause after the last step.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Unknown records that are read at once, and that wait to be put into the probe's queues.
pub const PROBE_PAGE: usize = 1_000;
/// Unknown records of one operation that a node asks about: beyond that somebody has to look anyway. The next ones
/// follow as these are settled.
pub const PROBES_KNOWN_MAX: usize = 10_000;
/// Questions to one operation's target at once.
pub const PROBES_AT_ONCE: usize = 4;
/// How long one question may take, if its operation allows that much.
pub const PROBE_WITHIN: Duration = Duration::from_secs(10);
/// The first pause before a question about a record; it doubles.
pub const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two questions about a record.
pub const PROBE_CAP: Duration = Duration::from_secs(5 * 60);
/// How often unknown records are looked for without being told: those of other nodes.
pub const PROBE_LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long, after the grace of a shutdown, work that was given up may take to be written down as such.
pub const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);
/// Metadata services of clouds outside the link-local range.
pub const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// Metadata services of clouds outside the link-local range.
pub const METADATA_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)];
/// The names under which clouds keep them: whatever they stand for, no target has any business there.
pub const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];

const _: () = assert!(PROBE_PAGE <= core::PAGE_MAX);
const _: () = assert!(DISPATCH_BATCH <= core::TAKE_MAX);
const _: () = assert!(CIRCUIT_FAILURES as usize > LANE_DEFAULT);
const _: () = assert!(DELIVERY_EXCERPT_BYTES_MAX <= core::TEXT_BYTES_MAX);
const _: () = assert!(DELIVERY_EXCERPT_BYTES_MAX <= DELIVERY_SAID_BYTES_MAX);
const _: () = assert!(ORDER_LOOK_MIN.as_millis() < ORDER_LOOK_MAX.as_millis());

/// Upstreams of the gateway: each has connections and a watch over its health.
pub const UPSTREAMS_MAX: usize = 1_000;
/// Addresses of one upstream: each is looked at when one is chosen.
pub const UPSTREAM_ADDRESSES_MAX: usize = 64;
/// Routes of the gateway: each is a metric label, and a request is compared with each until one matches.
pub const ROUTES_MAX: usize = 1_000;
/// How long a connection to an upstream may take unless configured: two tries of a SYN, and a TLS handshake.
pub const UPSTREAM_CONNECT_DEFAULT: Duration = Duration::from_secs(5);
/// How long an upstream may take to begin its answer unless configured.
pub const UPSTREAM_FIRST_BYTE_DEFAULT: Duration = Duration::from_secs(60);
/// How long nothing may move between client and upstream unless configured: above the pings of common streams.
pub const UPSTREAM_IDLE_DEFAULT: Duration = Duration::from_secs(60);
/// How long nothing may move on a connection that has changed its protocol (WebSocket), unless configured: above the
/// pings of all libraries that send any, and long enough for those that are silent for a while. It holds two sockets.
pub const UPGRADE_IDLE_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// How much an issuer's clock may differ from ours when a token's times are judged.
pub const JWT_LEEWAY: Duration = Duration::from_secs(60);
/// Idle connections kept to one address of an upstream: what a thousand busy clients need.
pub const UPSTREAM_CONNECTIONS_IDLE_MAX: usize = 1_024;
/// Streams at once on one HTTP/2 connection to an upstream: what common servers allow.
pub const UPSTREAM_STREAMS_MAX: usize = 100;
/// How often an upstream is asked whether it is well unless configured.
pub const HEALTH_EVERY_DEFAULT: Duration = Duration::from_secs(5);
/// How long its answer may take unless configured.
pub const HEALTH_WITHIN_DEFAULT: Duration = Duration::from_secs(2);
/// How long an address rests that cannot be connected to, unless configured.
pub const UPSTREAM_REST_DEFAULT: Duration = Duration::from_secs(10);
/// How long streams without an end (upgraded connections, events) may go on when the server stops.
pub const STREAMS_END_WITHIN: Duration = Duration::from_secs(5);

const _: () = assert!(HEALTH_WITHIN_DEFAULT.as_secs() <= HEALTH_EVERY_DEFAULT.as_secs());
const _: () = assert!(STREAMS_END_WITHIN.as_secs() < SHUTDOWN_GRACE_DEFAULT.as_secs());
/// Bytes of all headers of an upstream's answer: what browsers take.
pub const UPSTREAM_HEADER_BYTES_MAX: usize = 128 * 1024;

/// Sources of one configuration: each has targets, which are operations.
pub const SOURCES_MAX: usize = 1_000;
/// Consumers of Kafka: each has a thread, and connections to all brokers of its topics.
pub const CONSUMERS_MAX: usize = 64;
/// Messages of one consumer that are taken in at once: what a store writes in one batch, and little beside its others.
pub const CONSUMER_CONCURRENCY: usize = 64;
/// The first pause after the store had no answer for a message; it doubles.
pub const CONSUMER_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest such pause: a store that is back is noticed soon.
pub const CONSUMER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Targets of one source: each event is a record for each of them, all durable before its partner is answered.
pub const WEBHOOK_TARGETS_MAX: usize = 16;
/// Characters of a target's name: with its source's name it is an operation's name, a lane's and a subject.
pub const TARGET_NAME_CHARS_MAX: usize = 64;
/// Settled identities that a process remembers of one source unless configured: an hour of a busy one, at some 100 bytes
/// each.
pub const WEBHOOK_CACHE_DEFAULT: usize = 10_000;
/// The most that can be configured.
pub const WEBHOOK_CACHE_MAX: usize = 10_000_000;
/// Bytes of a target's answer to a delivery that are kept: nobody is given it but whoever looks why it came to that.
pub const DELIVERY_RESULT_BYTES_MAX: usize = 4 * 1024;
/// One alert of a kind and a source in this time unless configured: often enough to be noticed, seldom enough to be read.
pub const ALERTS_EVERY_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// The shortest such time: below it a storm of duplicates is a storm of alerts.
pub const ALERTS_EVERY_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const ALERTS_EVERY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const _: () = assert!(
    "webhook:".len() + semel_webhook::limits::SOURCE_CHARS_MAX + 1 + TARGET_NAME_CHARS_MAX
        <= core::LANE_CHARS_MAX,
    "a source and a target fit the names of an operation and a lane"
);

/// Bytes of a request to the signature debugger: the largest body of a delivery, in base64, with its headers.
pub const VERIFY_BODY_BYTES_MAX: usize = BODY_BYTES_MAX / 3 * 4 + 1024 * 1024;
/// Characters of a body that the command line shows beside the rest of a record: a few lines of a terminal. `--json` has more.
pub const BODY_CHARS_SHOWN: usize = 200;
/// Types of jobs that one listing shows: each is two questions to the store.
pub const JOBS_LISTED_MAX: usize = 1_000;
/// Of those, how many are asked for at once, so that a listing does not take the store to itself.
pub const JOBS_SHOWN_AT_ONCE: usize = 8;
/// The largest number in a run's results: 2^53 - 1, the largest that every reader of JSON understands.
pub const JOB_NUMBER_MAX: u64 = (1 << 53) - 1;
/// Types of jobs that stand in labels of metrics: they are clients' words, and each is five series.
pub const JOB_LABELS_MAX: usize = 200;
/// How long the target of a scheduled job may take unless configured.
pub const JOB_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest that it may take.
pub const JOB_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a schedule looks at the clock on the wall, which may have been set, without being due.
pub const JOB_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How late a node may come to the last instant of a schedule before it counts as missed: a busy node, and a pause for a
/// look.
pub const JOB_LATE: Duration = Duration::from_secs(60);
/// How far back instants are looked for that nobody was there for.
pub const JOB_LOOK_BACK: Duration = Duration::from_secs(24 * 60 * 60);
/// Instants that a node comes to at once, the newest; those before the last are missed, and recorded: of a job of every second that was down for a day, nobody wants more.
pub const JOB_COME_TO_MAX: usize = 100;
/// Instants that a node looks at when it starts, to find where the schedule stopped.
pub const JOB_TICKS_LOOKED_AT: usize = 100;
/// Bytes of what the target of a scheduled job answers that are read.
pub const JOB_ANSWER_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(JOB_LOOK_EVERY.as_secs() < JOB_LATE.as_secs(), "an instant is not missed by looking");
const _: () = assert!(
    JOB_LOOK_BACK.as_secs() < semel_runtime::limits::JOB_TICK_RETENTION.as_secs(),
    "an instant that is looked for is remembered if it was begun"
);

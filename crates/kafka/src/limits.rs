//! Every limit of this crate, with its unit and its reason.

use std::time::Duration;

/// How long a processed event is remembered, if nothing else is said: the WMS guide's.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a claim on an event holds without a heartbeat: as a lock of a request. It is renewed while the handler runs.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// How long a handler may take with one event: above any call that waits for something, and not for ever.
pub const HANDLER_TIME_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Tries in all before an event goes to the dead letter topic.
pub const ATTEMPTS_DEFAULT: u32 = 5;
/// The first pause between two tries in place; it doubles.
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest such pause: the partition waits with it.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the end of an event that somebody else handles is waited for at a time, before it is claimed again.
pub const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// The first pause after the store or the broker had no answer; it doubles.
pub const OUTAGE_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest such pause: one that is back is noticed soon.
pub const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Events that are handled at once by one consumer, if nothing else is said.
pub const CONCURRENCY_DEFAULT: usize = 16;
/// Events of one partition that are taken from the broker and not done, beyond which the partition is paused: enough to
/// keep all workers busy, and little to hand back when it is revoked.
pub const IN_FLIGHT_DEFAULT: usize = 256;
/// The part of that (one in so many) at which a paused partition goes on.
pub const IN_FLIGHT_RESUME_PART: usize = 2;
/// How often offsets are committed. What a crash makes the broker deliver again costs one look into the ledger each.
pub const COMMIT_EVERY_DEFAULT: Duration = Duration::from_millis(500);
/// How long running handlers are waited for when their partition is revoked or the consumer stops; what takes longer is
/// left to its lease. Well below librdkafka's `max.poll.interval.ms` of five minutes, within which it must answer.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(20);
/// How long one look for messages takes when nothing is under way.
pub const POLL_IDLE: Duration = Duration::from_millis(100);
/// And while something is: what ends meanwhile is noticed after it.
pub const POLL_BUSY: Duration = Duration::from_millis(10);
/// How often librdkafka tells how far behind a partition is.
pub const STATISTICS_EVERY: Duration = Duration::from_secs(5);
/// How long the dead letter topic has to acknowledge a message before that is an error, and is tried again.
pub const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a message that may be sent to a dead letter topic: what the broker let in once it is to let in again, with
/// some headers more. Its own limit decides.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Characters of a topic's name: Kafka's own limit.
pub const TOPIC_CHARS_MAX: usize = 249;
/// Characters of a consumer group's name: with a topic's it is the subject of every key.
pub const GROUP_CHARS_MAX: usize = 255;
/// How often the log says at most that a broker does not answer.
pub const WARN_EVERY: Duration = Duration::from_secs(30);
/// What is put behind a topic's name for its dead letters.
pub const DEAD_LETTER_SUFFIX: &str = ".dlq";

const _: () = assert!(
    TOPIC_CHARS_MAX + 1 + GROUP_CHARS_MAX <= semel_core::limits::SCOPE_PART_CHARS_MAX,
    "a topic and a group fit one subject"
);
const _: () = assert!(IN_FLIGHT_DEFAULT >= CONCURRENCY_DEFAULT, "one partition keeps all workers busy");
const _: () =
    assert!(DRAIN_DEFAULT.as_secs() < 300, "polling goes on before the group takes the member for dead");
const _: () = assert!(RETRY_PAUSE_FIRST.as_millis() < RETRY_PAUSE_MAX.as_millis());

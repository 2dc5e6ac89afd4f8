//! What a consumer tells to metrics.

use std::time::Duration;

use semel_core::ledger::LedgerError;

use crate::dead_letter::Reason;

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was asked for first, or again after a try that had no end: its handler is run. Once for each message.
    Claimed,
    /// It was handled, and that is durable.
    Handled,
    /// It had been handled before.
    Duplicate,
    /// Somebody else is at it: it waits.
    Busy,
    /// A try has failed, and another will follow.
    Retried,
    /// It is in the dead letter topic, which has acknowledged it.
    DeadLettered(Reason),
    /// The dead letter topic has not acknowledged it: it is sent again, and not committed.
    NotDeadLettered,
    /// Its turn ended before anything was certain.
    GivenUp,
}

/// Who is told. Called on the hot path: must neither block nor fail.
pub trait Observer: Send + Sync + 'static {
    /// Something happened to a message of this topic.
    fn happened(&self, topic: &str, group: &str, what: What);

    /// A handler has come to an end after this time.
    fn handled(&self, _topic: &str, _group: &str, _after: Duration) {}

    /// The store had no answer.
    fn storage_failed(&self, _error: &LedgerError) {}

    /// A heartbeat could not be sent.
    fn heartbeat_failed(&self, _error: &LedgerError) {}

    /// Offsets were committed, or not.
    fn committed(&self, _group: &str, _partitions: usize, _succeeded: bool) {}

    /// How many messages a partition is behind; `None` once it is somebody else's.
    fn lag(&self, _topic: &str, _group: &str, _partition: i32, _behind: Option<u64>) {}

    /// How many partitions of a topic are this consumer's.
    fn assigned(&self, _topic: &str, _group: &str, _partitions: usize) {}
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn happened(&self, _: &str, _: &str, _: What) {}
}

/// Tells an observer what the runtime meets.
pub(crate) struct Watching(pub(crate) std::sync::Arc<dyn Observer>);

impl semel_runtime::Watch for Watching {
    fn storage_failed(&self, error: &LedgerError) {
        self.0.storage_failed(error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        self.0.heartbeat_failed(error);
    }
}

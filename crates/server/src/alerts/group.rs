//! What was told of one kind and one source since the last alert of it, and what is on record of that.

use std::sync::Arc;
use std::time::Duration;

use semel_core::{Record, RecordId};
use tokio::time::Instant;

use crate::limits;

/// What was told of one kind and one source.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// How often, since the last alert.
    pub(super) count: u64,
    /// The first record that it was about, since then.
    pub(super) record: Option<RecordId>,
    /// When the first of it was told.
    pub(super) since: Instant,
    /// Until when there is no other alert.
    pub(super) quiet_until: Option<Instant>,
    /// What is sent if this process does not come to it.
    pub(super) promise: Promise,
}

/// An alert that is taken in for later, in case that this process is killed before it takes in the one that counts.
#[derive(Clone, Debug)]
pub(super) enum Promise {
    /// There is something to tell, and nothing on record of it yet.
    Wanted,
    /// The store had no answer: nobody waits for it, and it is asked again.
    Failed,
    /// It is on record.
    Made(Arc<Record>),
}

impl Promise {
    pub(super) const fn made(&self) -> Option<&Arc<Record>> {
        match self {
            Self::Made(record) => Some(record),
            Self::Wanted | Self::Failed => None,
        }
    }
}

impl Group {
    /// Of which nothing was told.
    pub(super) fn new() -> Self {
        Self { count: 0, record: None, since: Instant::now(), quiet_until: None, promise: Promise::Wanted }
    }

    /// When it is to be told; `None` if there is nothing to tell.
    pub(super) fn time(&self) -> Option<Instant> {
        let gathered = self.since + limits::ALERT_GATHER;
        (self.count > 0).then(|| self.quiet_until.map_or(gathered, |quiet| gathered.max(quiet)))
    }

    /// When there is something to do about it.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let time = self.time()?;
        Some(if self.promise.made().is_some() { time } else { time.min(now + limits::ALERT_GATHER) })
    }

    /// How long it is until somebody else tells of it, if this process does not.
    pub(super) fn until_promised(&self, now: Instant) -> Duration {
        let time = self.time().map_or(Duration::ZERO, |time| time.saturating_duration_since(now));
        time + limits::ALERT_PROMISE_GRACE
    }

    /// Whether what is on record of it says all, and is sent soon enough.
    pub(super) fn is_said(&self, now: Instant) -> bool {
        let is_held_back = self.quiet_until.is_some_and(|quiet| quiet > now);
        self.count == 1 && !is_held_back && self.promise.made().is_some()
    }
}

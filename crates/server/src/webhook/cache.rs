//! Identities that are settled, in a bounded room of this process: their duplicates are answered without the store.
//!
//! Only what is final is put here, and it goes with the record that it stands for: an identity that the ledger would take
//! for a new event is not called a duplicate here. What asks for something else than what is remembered is the ledger's to
//! judge.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use semel_core::record::{Record, State};
use semel_core::request::Fingerprint;
use semel_core::{RecordId, Timestamp};
use tokio::time::Instant;

/// What is remembered. A clone is another handle.
#[derive(Clone)]
pub(super) struct Settled(Option<Arc<Cache<RecordId, Remembered>>>);

/// A settled record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    fingerprint: Fingerprint,
    /// When it came first.
    pub(super) first_seen: Timestamp,
    /// Of the attempt that settled it.
    pub(super) fence: u64,
    until: Instant,
}

impl Settled {
    /// Room for so many; none at all for 0.
    pub(super) fn new(entries: usize) -> Self {
        Self((entries > 0).then(|| Arc::new(Cache::new(entries))))
    }

    /// What is remembered of this record, if it asked for the same and is not yet forgotten by the store.
    pub(super) fn get(&self, id: RecordId, fingerprint: &Fingerprint) -> Option<Remembered> {
        let cache = self.0.as_ref()?;
        let found = cache.get(&id)?;
        if found.until <= Instant::now() {
            cache.remove(&id);
            return None;
        }
        (found.fingerprint == *fingerprint).then_some(found)
    }

    /// Remembers a record that a duplicate has met, if it is final. `now` is the store's time.
    pub(super) fn meet(&self, record: &Record, now: Timestamp) {
        let (Some(cache), State::Completed { .. }, Some(expires)) =
            (&self.0, record.state(), record.times().expires)
        else {
            return;
        };
        // A little less than what is left: the two clocks do not go alike.
        let left = expires.since(now);
        let left = left.saturating_sub(left / 100).saturating_sub(Duration::from_millis(10));
        let remembered = Remembered {
            fingerprint: *record.request().fingerprint(),
            first_seen: record.times().created,
            fence: record.fence().0,
            until: Instant::now() + left,
        };
        cache.insert(record.id(), remembered);
    }
}

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use semel_core::command::{Accept, Accepted, Held, Taken};
    use semel_core::id::{Key, Namespace, Operation, Scope, Tenant};
    use semel_core::outcome::{Class, Headers, Outcome};
    use semel_core::request::Input;
    use semel_core::{Ledger, Policy, Request};
    use semel_runtime::OsEntropy;

    use super::*;

    const SAME: Fingerprint = Fingerprint { version: 1, digest: [1; 32] };
    const OTHER: Fingerprint = Fingerprint { version: 1, digest: [2; 32] };

    /// A record that waits, and the same one completed.
    async fn records() -> (Arc<Record>, Arc<Record>) {
        let scope = Scope {
            namespace: Namespace::Webhook,
            tenant: Tenant::try_new("default").unwrap(),
            subject: None,
        };
        let (key, operation) =
            (Key::try_new("evt_1").unwrap(), Operation::try_new("webhook:a/default").unwrap());
        let input = Input::try_new("POST", "", Headers::default(), Bytes::new()).unwrap();
        let request = Request::new(scope, key, operation, SAME, Policy::default()).with_input(input);
        let store = Arc::new(semel_stores::memory::MemoryStore::new());
        let ledger = Ledger::new(store, Arc::new(OsEntropy));
        let accepted = ledger.accept(&Accept::try_new(Arc::new(request)).unwrap()).await.unwrap();
        let Accepted::Accepted(pending) = accepted else { panic!("it is new") };
        let Taken::Granted(claim) = ledger.take(&pending).await.unwrap() else { panic!("it is due") };
        let outcome = Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::new()).unwrap();
        let Held::Done(completed) = ledger.complete(claim, outcome).await.unwrap() else {
            panic!("it is ours")
        };
        (pending, completed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_local_cache_says_nothing_of_what_is_in_progress_and_outlives_no_mismatch_and_no_retention() {
        let (pending, completed) = records().await;
        let (id, now) = (completed.id(), completed.times().written);
        let settled = Settled::new(10);
        settled.meet(&pending, now);
        assert_eq!(settled.get(id, &SAME), None, "in progress");
        settled.meet(&completed, now);
        let found = settled.get(id, &SAME).unwrap();
        assert_eq!((found.first_seen, found.fence), (completed.times().created, completed.fence().0));
        assert_eq!(settled.get(id, &OTHER), None, "a mismatch is the ledger's to judge");
        assert!(settled.get(id, &SAME).is_some(), "and the first is still remembered");
        let nearly = Policy::default().retention().saturating_sub(Duration::from_secs(1));
        tokio::time::advance(nearly).await;
        assert_eq!(settled.get(id, &SAME), None, "forgotten before the store forgets it");
    }

    #[tokio::test]
    async fn it_is_bounded_and_may_be_none_at_all() {
        let (_, completed) = records().await;
        let none = Settled::new(0);
        none.meet(&completed, completed.times().written);
        assert_eq!(none.get(completed.id(), &SAME), None);
        let settled = Settled::new(1);
        settled.meet(&completed, completed.times().written);
        assert!(settled.clone().get(completed.id(), &SAME).is_some(), "a clone is another handle");
    }
}

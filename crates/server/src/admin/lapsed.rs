//! Claims that nobody drives: running, resumable, with a lease whose lapse was seen.
//!
//! No store has an order of them, since none but this listing asks for it. They are picked from what is running, and that
//! is as much as is in progress, however many records there are.

use semel_core::query::{Cursor, Page, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Store, StoreError};

use super::picked;

/// A page of at most `limit` of them, from after `cursor`.
///
/// # Errors
/// As those of a search.
pub(super) async fn page(
    store: &dyn Store,
    mut query: Query,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Summary, Cursor>, StoreError> {
    // All that is given must hold, and these are running.
    if !query.states.is_empty() && !query.states.contains(&StateName::Running) {
        return Ok(Page { items: Vec::new(), next: None, entries_read: 0 });
    }
    query.states = vec![StateName::Running];
    picked::page(store, &query, cursor, limit, |running| running.times.wake.is_none()).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use semel_core::command::Claimed;
    use semel_core::id::{Key, Namespace, Scope, Tenant};
    use semel_core::policy::{OnLapse, Policy};
    use semel_core::request::Fingerprint;
    use semel_core::{Ledger, Operation, Request, Timestamp};
    use semel_runtime::OsEntropy;
    use semel_stores::clock::SteppedClock;
    use semel_stores::memory::MemoryStore;

    use super::*;
    use crate::limits::PICKED_READ_PER_ROW;

    struct Bench {
        clock: SteppedClock,
        store: Arc<dyn Store>,
        ledger: Ledger,
    }

    impl Bench {
        fn new() -> Self {
            let clock = SteppedClock::at(Timestamp::from_millis(1_000_000));
            let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
            Self { clock, ledger: Ledger::new(Arc::clone(&store), Arc::new(OsEntropy)), store }
        }

        /// Claims a key under *resume*, and a millisecond goes by.
        async fn claim(&self, key: &str, lease: Duration) {
            let usual = Policy::default();
            let policy =
                Policy::try_new(lease, usual.retention(), OnLapse::Resume, usual.keep(), usual.retry());
            let request = Arc::new(Request::new(
                Scope {
                    namespace: Namespace::Execute,
                    tenant: Tenant::try_new("default").unwrap(),
                    subject: None,
                },
                Key::try_new(key).unwrap(),
                Operation::try_new("pick").unwrap(),
                Fingerprint { version: 1, digest: [7; 32] },
                policy.unwrap(),
            ));
            let claimed = self.ledger.claim_applied(request, None).await.unwrap();
            assert!(matches!(claimed.answer, Claimed::Granted(_)));
            self.clock.advance(Duration::from_millis(1));
        }

        /// Their leases lapse, and that is seen.
        async fn lapse(&self) {
            self.clock.advance(Duration::from_secs(2));
            for record in self.store.take_due(None, 100).await.unwrap().value {
                self.ledger.lapse(record.id()).await.unwrap();
            }
        }

        /// The keys of all pages, page by page.
        async fn pages(&self, query: &Query, limit: usize) -> Vec<Vec<String>> {
            let (mut pages, mut cursor) = (Vec::new(), None);
            loop {
                let page = page(&*self.store, query.clone(), cursor, limit).await.unwrap();
                pages.push(page.items.iter().map(|item| item.key.as_str().to_owned()).collect());
                cursor = page.next;
                if cursor.is_none() {
                    return pages;
                }
            }
        }
    }

    #[tokio::test]
    async fn every_claim_that_nobody_drives_is_on_one_page_and_no_live_one() {
        let bench = Bench::new();
        for key in ["a", "b", "c"] {
            bench.claim(key, Duration::from_secs(1)).await;
        }
        bench.lapse().await;
        bench.claim("live", Duration::from_secs(300)).await;
        let any = Query::default();
        assert_eq!(bench.pages(&any, 50).await, [vec!["c", "b", "a"]]);
        assert_eq!(bench.pages(&any, 2).await, [vec!["c", "b"], vec!["a"]]);
        assert_eq!(
            bench.pages(&any, 3).await,
            [vec!["c", "b", "a"]],
            "a full page knows that it is the last"
        );
        let other = Query { states: vec![StateName::Dead], ..Query::default() };
        assert_eq!(bench.pages(&other, 50).await, [Vec::<String>::new()]);
    }

    #[tokio::test]
    async fn a_page_reads_a_bounded_number_of_live_claims_and_says_where_to_go_on() {
        let bench = Bench::new();
        bench.claim("lost", Duration::from_secs(1)).await;
        bench.lapse().await;
        for n in 0..PICKED_READ_PER_ROW {
            bench.claim(&format!("live-{n}"), Duration::from_secs(300)).await;
        }
        let first = page(&*bench.store, Query::default(), None, 1).await.unwrap();
        assert!(first.items.is_empty() && first.next.is_some());
        assert!(first.entries_read <= PICKED_READ_PER_ROW as u64 + 1, "{}", first.entries_read);
        let none: Vec<String> = Vec::new();
        assert_eq!(bench.pages(&Query::default(), 1).await, [none, vec!["lost".to_owned()]]);
    }
}

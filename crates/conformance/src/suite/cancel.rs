//! Futures that are dropped before their end, and the end of the store.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use semel_core::Version;
use semel_core::command::{Complete, Extend};
use semel_core::error::StoreErrorKind;
use semel_core::query::{AuditQuery, Query};
use semel_core::store::Inserted;

use crate::fixture::{Ask, Hand, claim_key, outcome, write_of};
use crate::subject::Subject;

/// Polls a future so many times, and drops it.
async fn drop_after<F: Future>(polls: usize, future: F) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The write may have happened or not, whole; and whoever comes next is served.
pub async fn dropping_a_write_leaves_the_store_usable(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let store = subject.store();
    for round in 0..120 {
        let ask = Ask::key(&format!("key-{round}")).retention_ms(20).tag("order_id", "o");
        let write = write_of(&claim_key(&ask, 1), &*store, None);
        drop_after(round % 4, store.insert(write.clone())).await;
        let there = match store.insert(write).await.unwrap().value {
            Inserted::Inserted(record) | Inserted::Occupied(record) => record,
        };
        assert_eq!(hand.stored(ask.id()).await.as_ref(), Some(&there));
        let complete = Complete { holder: crate::fixture::claim_holder(&ask, 1), outcome: outcome("done") };
        let write = write_of(&complete, &*store, Some(&there));
        drop_after(round % 4, store.replace(write, there.version())).await;
        let done = hand.done(&complete).await;
        assert_eq!(hand.stored(ask.id()).await.as_ref(), Some(&done));
        if round % 3 == 0 {
            drop_after(round % 4, store.remove(ask.id(), done.version())).await;
            store.remove(ask.id(), done.version()).await.unwrap();
            assert_eq!(hand.stored(ask.id()).await, None);
        }
    }
    let found = store.search(Query::default(), None, 200).await.unwrap().items.len();
    let counted: u64 = store.counts().await.unwrap().iter().map(|count| count.records).sum();
    assert_eq!((found, counted), (80, 80));
    assert_eq!(store.next_due().await.unwrap().value, None);
}

/// Not even once it was polled.
pub async fn dropping_a_read_or_a_wait_changes_nothing(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let store = subject.store();
    let claim = hand.claim(&Ask::key("a")).await;
    let (id, seen) = (claim.record().id(), claim.record().version());
    for polls in 0..40 {
        let polls = polls % 4;
        drop_after(polls, store.load(id)).await;
        drop_after(polls, store.changed(id, seen, Duration::from_secs(60))).await;
        drop_after(polls, store.due_changed(Duration::from_secs(60))).await;
        drop_after(polls, store.take_due(None, 10)).await;
        drop_after(polls, store.search(Query::default(), None, 10)).await;
        drop_after(polls, store.audit(AuditQuery::default(), None, 10)).await;
        drop_after(polls, store.counts()).await;
    }
    assert_eq!(hand.stored(id).await.as_ref(), Some(claim.record()));
    let extended = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(store.changed(id, seen, Duration::from_secs(60)).await.unwrap().value, Some(extended));
}

/// Said as `NotApplied`, so that nobody takes it for a doubt.
pub async fn a_closed_store_refuses_writes(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let store = subject.store();
    store.ready().await.unwrap();
    let ask = Ask::key("a");
    let claim = hand.claim(&ask).await;
    store.close().await.unwrap();
    let insert = store.insert(write_of(&claim_key(&Ask::key("b"), 1), &*store, None)).await;
    let extend = Extend { holder: claim.holder() };
    let replace =
        store.replace(write_of(&extend, &*store, Some(claim.record())), claim.record().version()).await;
    let refused = [
        insert.expect_err("an insert"),
        replace.expect_err("a replacement"),
        store.remove(ask.id(), claim.record().version()).await.expect_err("a removal"),
        store.ready().await.expect_err("ready"),
    ];
    for error in refused {
        assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: false }, "{error}");
    }
    assert_ne!(claim.record().version(), Version::default());
}

//! Waiting for changes: nobody sleeps through what has happened.

use std::sync::Arc;
use std::time::Duration;

use semel_core::command::Extend;
use semel_core::{Record, RecordId, Store, Version};
use tokio::task::{JoinHandle, JoinSet};

use super::passes_until;
use crate::fixture::{Ask, Hand};
use crate::subject::Subject;

/// Longer than any case may take: who is not woken hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(100_000);

fn waiter(store: Arc<dyn Store>, id: RecordId, seen: Version) -> JoinHandle<Option<Arc<Record>>> {
    tokio::spawn(async move { store.changed(id, seen, FOR_EVER).await.unwrap().value })
}

/// Lets other tasks run for a while, so that they wait by now, most likely.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// What it has not seen is there already.
pub async fn a_waiter_is_told_at_once_what_it_has_not_seen(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a")).await;
    let (id, first) = (claim.record().id(), claim.record().version());
    let answer = hand.store().changed(id, Version::default(), FOR_EVER).await.unwrap();
    assert_eq!(answer.value.as_ref(), Some(claim.record()));
    let second = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(hand.store().changed(id, first, FOR_EVER).await.unwrap().value, Some(second));
}

/// Gone is gone, also before the wait.
pub async fn a_waiter_is_told_at_once_that_nothing_is_there(subject: &mut dyn Subject) {
    let store = subject.store();
    let nobody = Ask::key("nobody").id();
    assert_eq!(store.changed(nobody, Version::default(), FOR_EVER).await.unwrap().value, None);
}

/// By the write, not by the clock.
pub async fn a_waiter_wakes_when_the_record_changes(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a")).await;
    let waits = waiter(subject.store(), claim.record().id(), claim.record().version());
    settle().await;
    assert!(!waits.is_finished());
    hand.claim(&Ask::key("another key")).await;
    let changed = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(waits.await.unwrap(), Some(changed));
}

/// A removal is a change, too.
pub async fn a_waiter_wakes_when_the_record_goes(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").retention_ms(20);
    let done = hand.complete(&ask).await;
    let waits = waiter(subject.store(), ask.id(), done.version());
    settle().await;
    subject.pass(Duration::from_millis(30)).await;
    assert_eq!(hand.store().sweep(10).await.unwrap(), 1);
    assert_eq!(waits.await.unwrap(), None);
}

/// Which is what it was shown before.
pub async fn a_waiter_that_loses_patience_is_told_what_is_there(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a")).await;
    let (store, seen) = (subject.store(), Arc::clone(claim.record()));
    let started = store.time();
    let patience = Duration::from_millis(100);
    let waits =
        tokio::spawn(async move { store.changed(seen.id(), seen.version(), patience).await.unwrap() });
    let answer = passes_until(subject, waits).await;
    assert_eq!(answer.value.as_ref(), Some(claim.record()));
    assert!(answer.as_of >= started.plus(patience), "{started:?} → {:?}", answer.as_of);
    let seen = claim.record();
    let now = hand.store().changed(seen.id(), seen.version(), Duration::ZERO).await.unwrap();
    assert_eq!(now.value.as_ref(), Some(seen), "no patience is none, not endless");
}

/// A change that falls anywhere around the wait ends it.
pub async fn no_wake_up_is_lost_between_looking_and_waiting(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a").lease_ms(86_000_000)).await;
    let mut seen = claim.record().version();
    for round in 0..400 {
        let waits = waiter(subject.store(), claim.record().id(), seen);
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        let changed = hand.done(&Extend { holder: claim.holder() }).await;
        let told = waits.await.unwrap().unwrap();
        assert_eq!(told, changed);
        seen = told.version();
    }
}

/// All of them, by one change.
pub async fn fifty_waiters_wake_together(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a")).await;
    let mut waiters = JoinSet::new();
    for _ in 0..50 {
        let (store, seen) = (subject.store(), Arc::clone(claim.record()));
        waiters.spawn(async move { store.changed(seen.id(), seen.version(), FOR_EVER).await.unwrap().value });
    }
    settle().await;
    let changed = hand.done(&Extend { holder: claim.holder() }).await;
    for told in waiters.join_all().await {
        assert_eq!(told.as_ref(), Some(&changed));
    }
}

/// Dropped waits do not take others' wake-ups with them.
pub async fn waiters_that_give_up_leave_nothing_behind(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a")).await;
    let seen = claim.record().version();
    let stays = waiter(subject.store(), claim.record().id(), seen);
    for _ in 0..50 {
        let leaves = waiter(subject.store(), claim.record().id(), seen);
        settle().await;
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
    }
    let changed = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(stays.await.unwrap(), Some(changed));
}

/// New work is found at once, not after the next look.
pub async fn due_work_wakes_whoever_waits_for_it(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    hand.claim(&Ask::key("later").lease_ms(86_000_000)).await;
    for number in 0..10 {
        let next = hand.store().next_due().await.unwrap();
        let store = subject.store();
        let waits = tokio::spawn(async move { store.due_changed(FOR_EVER).await.unwrap() });
        settle().await;
        let pending = hand.accept(&Ask::key(&format!("key-{number}")).lane(&format!("lane-{number}"))).await;
        waits.await.unwrap();
        assert!(number > 0 || hand.store().next_due().await.unwrap().value < next.value);
        assert!(pending.due().is_some());
    }
}

/// Whoever begins to wait before it asks misses nothing.
pub async fn due_work_is_not_missed_between_asking_and_waiting(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..100 {
        let store = subject.store();
        let waits = store.due_changed(FOR_EVER);
        store.next_due().await.unwrap();
        let ask = Ask::key(&format!("key-{number}"));
        let (other, accepting) = (hand.clone(), ask.clone());
        let accepts = tokio::spawn(async move { other.accept(&accepting).await });
        waits.await.unwrap();
        // A wake-up may come early, but not so that what comes later is lost.
        while store.take_due(None, 1_000).await.unwrap().value.iter().all(|due| due.id() != ask.id()) {
            subject.pass(Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
        }
        accepts.await.unwrap();
    }
}

/// It ends, and that is all.
pub async fn whoever_waits_for_due_work_loses_patience(subject: &mut dyn Subject) {
    let store = subject.store();
    store.next_due().await.unwrap();
    let started = store.time();
    let patience = Duration::from_millis(100);
    let waits = {
        let store = subject.store();
        tokio::spawn(async move { store.due_changed(patience).await.unwrap() })
    };
    passes_until(subject, waits).await;
    assert!(store.time() >= started.plus(patience));
}

//! What outlives the process.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit::{Action, Entry};
use semel_core::command::{Claimed, Complete, Discard, Judged, Release};
use semel_core::query::{AuditQuery, Count, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Store, Timestamp};
use tokio::task::JoinSet;

use super::skipped;
use crate::fixture::{Ask, Hand, outcome};
use crate::subject::{Ending, Step, Subject};

/// More than any worker comes to before it is stopped.
const WRITES_MAX: usize = 10_000;

const NOT_HERE: &str = "nothing of this store outlives it";

/// Everything that a store can tell.
#[derive(Debug, PartialEq)]
struct Told {
    records: Vec<Option<Arc<Record>>>,
    found: Vec<Summary>,
    by_tag: Vec<Summary>,
    counts: Vec<Count>,
    due: Vec<RecordId>,
    next_due: Option<Timestamp>,
    oldest_pending: Option<Timestamp>,
    audit: Vec<Entry>,
}

async fn told(store: &dyn Store, ids: &[RecordId]) -> Told {
    let mut records = Vec::new();
    for id in ids {
        records.push(store.load(*id).await.unwrap().value);
    }
    let mut due = Vec::new();
    for lane in store.lanes().await.unwrap() {
        due.extend(store.take_due(lane, 1_000).await.unwrap().value.iter().map(|record| record.id()));
    }
    let mut counts = store.counts().await.unwrap();
    counts.retain(|count| count.records > 0);
    counts.sort();
    let tag = records.iter().flatten().flat_map(|record| record.request().tags()).next().cloned();
    Told {
        found: store.search(Query::default(), None, 1_000).await.unwrap().items,
        by_tag: store.search(Query { tag, ..Query::default() }, None, 1_000).await.unwrap().items,
        counts,
        due,
        next_due: store.next_due().await.unwrap().value,
        oldest_pending: store.oldest_pending().await.unwrap().value,
        audit: store.audit(AuditQuery::default(), None, 1_000).await.unwrap().items,
        records,
    }
}

/// Records in every state and lane, changed, removed, audited.
async fn library(subject: &dyn Subject) -> Vec<RecordId> {
    let hand = Hand::on(subject.store());
    let mut ids = Vec::new();
    for number in 0..60 {
        let ask =
            Ask::key(&format!("key-{number}")).tag("partner", ["p", "q"][number % 2]).lease_ms(3_600_000);
        // Of those that are done, and of those that are put aside: the payload of the first is due at once.
        let drops = number % 12 == 3 || number % 12 == 0;
        let ask = if drops { ask.payload_retention_ms(1 + number as u64 * 60_000) } else { ask };
        let ask = if number % 3 == 0 { ask.lane(["bank", "post"][number / 3 % 2]) } else { ask };
        let record = hand.in_state(&ask, StateName::ALL[number % 6]).await;
        ids.push(record.id());
        if number % 10 == 9 {
            assert!(hand.store().remove(record.id(), record.version()).await.unwrap());
        }
        if number % 12 == 0 {
            let (id, version) = (record.id(), record.version());
            let (actor, reason) = ("op".into(), "old".into());
            let discard = Discard { id, version, actor, reason, correlation_id: None };
            assert!(matches!(hand.ledger.apply(&discard).await.unwrap(), Judged::Done(_)));
        }
        subject.pass(Duration::from_millis(1)).await;
    }
    hand.store().append_audit(vec![Entry::new(Action::ConfigurationLoaded, "op".into())]).await.unwrap();
    ids
}

async fn outlives(subject: &mut dyn Subject, ending: Ending) {
    let ids = library(subject).await;
    let before = told(&*subject.store(), &ids).await;
    assert!(before.due.len() > 4 && before.audit.len() > 3);
    for _ in 0..3 {
        if !subject.restart(ending).await {
            return skipped(NOT_HERE);
        }
        assert_eq!(told(&*subject.store(), &ids).await, before);
    }
    let hand = Hand::on(subject.store());
    hand.complete(&Ask::key("after")).await;
    assert_eq!(told(&*subject.store(), &ids).await.records, before.records);
}

/// Records, orders, counts and audit, byte for byte.
pub async fn l4_what_was_acknowledged_outlives_a_close(subject: &mut dyn Subject) {
    outlives(subject, Ending::Closed).await;
}

/// Without a word of warning.
pub async fn l4_what_was_acknowledged_outlives_a_crash(subject: &mut dyn Subject) {
    outlives(subject, Ending::Crashed).await;
}

/// Also when the record that had the highest fence is gone.
pub async fn l2_fences_rise_over_a_restart(subject: &mut dyn Subject) {
    let ask = Ask::key("a");
    let mut last = semel_core::Fence(0);
    for round in 0..6 {
        let hand = Hand::on(subject.store());
        let claim = hand.claim(&ask).await;
        assert!(claim.fence() > last, "round {round}");
        let ended = hand.done(&Release { holder: claim.holder(), error: "refused".into() }).await;
        last = claim.fence();
        assert!(hand.store().remove(ask.id(), ended.version()).await.unwrap());
        drop(hand);
        let ending = [Ending::Closed, Ending::Crashed][round % 2];
        if !subject.restart(ending).await {
            return skipped(NOT_HERE);
        }
    }
}

/// The wall clock was set back ten minutes meanwhile.
pub async fn time_does_not_go_back_over_a_restart(subject: &mut dyn Subject) {
    for ending in [Ending::Closed, Ending::Crashed] {
        let hand = Hand::on(subject.store());
        let written = *hand.complete(&Ask::key(&format!("{ending:?}"))).await.times();
        drop(hand);
        if !subject.step_wall(Step::Back(Duration::from_secs(600))) {
            return skipped("this store's wall clock cannot be set");
        }
        if !subject.restart(ending).await {
            return skipped(NOT_HERE);
        }
        let now = subject.store().time();
        assert!(now >= written.written, "{:?} → {now:?} after {ending:?}", written.written);
        let hand = Hand::on(subject.store());
        let created = hand.claim(&Ask::key(&format!("{ending:?} again"))).await.record().times().created;
        assert!(created >= written.written);
    }
}

/// Workers are at work when it happens; what each was told is written down.
pub async fn a_crash_in_the_middle_of_many_writes_loses_none_that_was_acknowledged(
    subject: &mut dyn Subject,
) {
    if !subject.restart(Ending::Crashed).await {
        return skipped(NOT_HERE);
    }
    let acknowledged = Arc::new(Mutex::new(Vec::<Arc<Record>>::new()));
    for round in 0..4 {
        let mut workers = JoinSet::new();
        for worker in 0..12 {
            let (hand, acknowledged) = (Hand::on(subject.store()), Arc::clone(&acknowledged));
            workers.spawn(async move {
                // Told to stop by being dropped, wherever it waits.
                for number in 0..WRITES_MAX {
                    tokio::task::yield_now().await;
                    let ask = Ask::key(&format!("{round}-{worker}-{number}")).tag("partner", "p");
                    let Ok(Claimed::Granted(claim)) = hand.ledger.claim(ask.request(), None).await else {
                        return;
                    };
                    acknowledged.lock().push(Arc::clone(claim.record()));
                    let complete =
                        Complete { holder: claim.holder(), outcome: outcome(format!("{worker}/{number}")) };
                    let Ok(done) = hand.ledger.apply(&complete).await else { return };
                    let semel_core::command::Held::Done(done) = done else { panic!("{done:?}") };
                    acknowledged.lock().push(done);
                }
            });
        }
        while acknowledged.lock().len() < 150 * (round + 1) {
            assert!(!workers.is_empty());
            tokio::task::yield_now().await;
        }
        workers.abort_all();
        while workers.join_next().await.is_some() {}
        assert!(subject.restart(Ending::Crashed).await);
        let store = subject.store();
        let told = acknowledged.lock().clone();
        for record in told {
            let there = store.load(record.id()).await.unwrap().value;
            let there = there.unwrap_or_else(|| panic!("lost: {record:?}"));
            assert!(there.version() >= record.version(), "L4: {there:?} after {record:?}");
            if record.outcome().is_some() {
                assert_eq!(there, record, "L3");
            }
        }
        let counted: u64 = store.counts().await.unwrap().iter().map(|count| count.records).sum();
        let (mut found, mut cursor) = (0, None);
        loop {
            let page = store.search(Query::default(), cursor, 500).await.unwrap();
            found += page.items.len() as u64;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, counted);
    }
}

/// Nothing that expired meanwhile stays for ever, nor comes back.
pub async fn what_expires_while_the_store_is_closed_is_swept(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..20 {
        hand.complete(&Ask::key(&format!("key-{number}")).retention_ms(50)).await;
    }
    let stays = hand.complete(&Ask::key("stays")).await;
    drop(hand);
    subject.pass(Duration::from_millis(100)).await;
    if !subject.restart(Ending::Crashed).await {
        return skipped(NOT_HERE);
    }
    assert_eq!(subject.store().sweep(5).await.unwrap(), 5);
    while subject.store().sweep(100).await.unwrap() > 0 {}
    for _ in 0..2 {
        assert!(subject.restart(Ending::Crashed).await);
        // What was swept may be there again, as expired as it was (L8).
        let swept = subject.store().load(Ask::key("key-7").id()).await.unwrap();
        assert!(swept.value.is_none_or(|record| record.is_expired(swept.as_of)));
        while subject.store().sweep(100).await.unwrap() > 0 {}
        let counts = subject.store().counts().await.unwrap();
        assert_eq!(counts.iter().map(|count| count.records).sum::<u64>(), 1);
        assert_eq!(subject.store().load(stays.id()).await.unwrap().value.as_ref(), Some(&stays));
        assert_eq!(subject.store().load(Ask::key("key-7").id()).await.unwrap().value, None);
    }
}

/// Neither after a close nor after a crash; and what is added later has its place behind them.
pub async fn audit_entries_that_were_forgotten_do_not_come_back(subject: &mut dyn Subject) {
    let entry = |actor: &str| Entry::new(Action::Claimed, actor.into());
    let mut expected = Vec::new();
    for (round, ending) in [Ending::Crashed, Ending::Closed, Ending::Crashed].into_iter().enumerate() {
        let store = subject.store();
        let old = format!("old-{round}");
        store.append_audit(vec![entry(&old); 30]).await.unwrap();
        subject.pass(Duration::from_millis(5)).await;
        let border = store.time();
        while store.forget_audit(border, 7).await.unwrap() > 0 {}
        // All that was there before is older than the border.
        expected.clear();
        let young = format!("young-{round}");
        store.append_audit(vec![entry(&young)]).await.unwrap();
        expected.push(young);
        drop(store);
        for _ in 0..2 {
            if !subject.restart(ending).await {
                return skipped(NOT_HERE);
            }
            let page = subject.store().audit(AuditQuery::default(), None, 100).await.unwrap();
            let told: Vec<_> = page.items.iter().map(|entry| entry.actor.as_str().to_owned()).collect();
            assert_eq!(told, expected, "{ending:?}");
        }
        subject.pass(Duration::from_millis(5)).await;
    }
    // With nothing left that has a number, numbers go on all the same.
    while subject.store().forget_audit(subject.store().time(), 7).await.unwrap() > 0 {}
    assert!(subject.restart(Ending::Crashed).await);
    subject.store().append_audit(vec![entry("last")]).await.unwrap();
    let page = subject.store().audit(AuditQuery::default(), None, 100).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

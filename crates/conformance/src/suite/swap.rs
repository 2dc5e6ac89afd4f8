//! Insert, replace, remove, load: compare and swap, stamps, fences.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::command::{Claimed, Complete, Extend, Release};
use semel_core::error::StoreErrorKind;
use semel_core::id::{Fence, Holder};
use semel_core::invariant::judge_step;
use semel_core::limits;
use semel_core::query::Query;
use semel_core::record::StateName;
use semel_core::store::{Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, Store, Timestamp, Version};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand, claim_key, outcome, token_of, write_of};
use crate::subject::Subject;

const RACERS: u64 = 50;

fn extend(record: &Arc<Record>) -> Extend {
    Extend { holder: Holder { id: record.id(), token: record.token().unwrap() } }
}

async fn inserted(store: &dyn Store, write: Write) -> Arc<Record> {
    match store.insert(write).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("occupied by {record:?}"),
    }
}

async fn replaced(store: &dyn Store, write: Write, expected: Version) -> Arc<Record> {
    match store.replace(write, expected).await.unwrap().value {
        Replaced::Replaced(record) => record,
        Replaced::Conflict(record) => panic!("conflict with {record:?}"),
    }
}

/// What was written is there, in the stamp's own words.
pub async fn an_insert_puts_a_record_where_none_is(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a").lease_ms(300).tag("order_id", "A-1").lane("bank");
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    let write = write_of(&claim_key(&ask, 1), &*store, None);
    let answer = store.insert(write).await.unwrap();
    let Inserted::Inserted(record) = answer.value else { panic!("{answer:?}") };
    let times = record.times();
    assert_eq!((times.created, times.written), (answer.as_of, answer.as_of));
    assert_eq!(times.wake, Some(answer.as_of.plus(Duration::from_millis(300))));
    assert_eq!((times.settled, times.expires), (None, None));
    assert!(record.fence() > Fence(0));
    assert_eq!(record.version().sequence, 0);
    assert_eq!(store.load(ask.id()).await.unwrap().value.as_ref(), Some(&record));
    assert_eq!(**record.request(), *ask.request());
}

/// L5.
pub async fn an_insert_where_something_is_changes_nothing_and_shows_it(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a");
    let first = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    let second = store.insert(write_of(&claim_key(&ask, 2), &*store, None)).await.unwrap();
    assert_eq!(second.value, Inserted::Occupied(Arc::clone(&first)));
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(first));
}

/// Expiry is core's to judge (L8): the store shows what is there.
pub async fn an_expired_record_is_occupied_until_it_is_replaced(subject: &mut dyn Subject) {
    let store = subject.store();
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").retention_ms(20);
    let old = hand.complete(&ask).await;
    subject.pass(Duration::from_millis(30)).await;
    let write = write_of(&claim_key(&ask, 1), &*store, None);
    let answer = store.insert(write).await.unwrap();
    assert_eq!(answer.value, Inserted::Occupied(Arc::clone(&old)));
    assert!(old.is_expired(answer.as_of));
    let write = write_of(&claim_key(&ask, 1), &*store, Some(&old));
    let new = replaced(&*store, write, old.version()).await;
    assert!(new.fence() > old.fence(), "L2");
    assert!(new.times().created > old.times().created, "a new life");
    assert_eq!(hand.stored(ask.id()).await, Some(new));
}

/// `not_after` is enforced inside the write.
pub async fn a_write_after_its_deadline_has_no_effect(subject: &mut dyn Subject) {
    let store = subject.store();
    let (ask, other) = (Ask::key("a"), Ask::key("b"));
    let there = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    let soon = store.time().plus(Duration::from_millis(20));
    let late = write_of(&claim_key(&other, 1), &*store, None).not_after(soon);
    let late_too = write_of(&extend(&there), &*store, Some(&there)).not_after(soon);
    subject.pass(Duration::from_millis(30)).await;
    for error in [
        store.insert(late).await.expect_err("an insert after its deadline"),
        store.replace(late_too, there.version()).await.expect_err("a replacement after its deadline"),
    ] {
        assert!(matches!(error.kind(), StoreErrorKind::NotApplied { .. }), "{error}");
    }
    assert_eq!(store.load(other.id()).await.unwrap().value, None);
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(there));
    let in_time = write_of(&claim_key(&other, 1), &*store, None);
    let in_time = in_time.not_after(store.time().plus(limits::WRITE_WITHIN));
    inserted(&*store, in_time).await;
}

/// Check, then set: two workers both find the key free.
pub async fn of_many_inserts_of_a_key_exactly_one_is_inserted(subject: &mut dyn Subject) {
    for round in 0..10 {
        let ask = Ask::key(&format!("key-{round}"));
        let (start, mut racers) = (Arc::new(Barrier::new(50)), JoinSet::new());
        for number in 0..RACERS {
            let (store, start) = (subject.store(), Arc::clone(&start));
            let write = write_of(&claim_key(&ask, number), &*store, None);
            racers.spawn(async move {
                start.wait().await;
                store.insert(write).await.unwrap().value
            });
        }
        let answers = racers.join_all().await;
        let won: Vec<_> = answers
            .iter()
            .filter_map(|answer| if let Inserted::Inserted(won) = answer { Some(won) } else { None })
            .collect();
        assert_eq!(won.len(), 1, "L1");
        for answer in &answers {
            if let Inserted::Occupied(found) = answer {
                assert_eq!(found, won[0], "what is shown to the others is what won");
            }
        }
    }
}

/// A whole life of a record, step by step.
pub async fn a_replacement_of_the_version_that_was_judged_is_stamped_and_stored(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a").lease_ms(300).retention_ms(5_000);
    let first = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    subject.pass(Duration::from_millis(5)).await;
    let second = replaced(&*store, write_of(&extend(&first), &*store, Some(&first)), first.version()).await;
    assert_eq!(second.version(), first.version().next());
    assert_eq!(second.times().created, first.times().created);
    assert!(second.times().written > first.times().written);
    assert_eq!(second.times().wake, Some(second.times().written.plus(Duration::from_millis(300))));
    let holder = Holder { id: ask.id(), token: token_of(1) };
    let complete = Complete { holder, outcome: outcome("done") };
    let third = replaced(&*store, write_of(&complete, &*store, Some(&second)), second.version()).await;
    let times = third.times();
    assert_eq!((times.settled, times.wake), (Some(times.written), None));
    assert_eq!(times.expires, Some(times.written.plus(Duration::from_millis(5_000))));
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(third));
}

/// A stale version changes nothing, and is shown what is there.
pub async fn l6_a_replacement_of_another_version_conflicts_and_changes_nothing(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a");
    let stale = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    let late = write_of(&extend(&stale), &*store, Some(&stale));
    let newer = replaced(&*store, late.clone(), stale.version()).await;
    let answer = store.replace(late.clone(), stale.version()).await.unwrap();
    assert_eq!(answer.value, Replaced::Conflict(Some(Arc::clone(&newer))));
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(newer));
    let nobody = Ask::key("nobody");
    let misses = write_of(&claim_key(&nobody, 1), &*store, None);
    let answer = store.replace(misses, stale.version()).await.unwrap();
    assert_eq!(answer.value, Replaced::Conflict(None));
    assert_eq!(store.load(nobody.id()).await.unwrap().value, None);
}

/// Compare and swap is one step.
pub async fn of_many_replacements_of_a_version_exactly_one_is_replaced(subject: &mut dyn Subject) {
    let ask = Ask::key("a");
    let store = subject.store();
    let mut there = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    for _ in 0..10 {
        let (start, mut racers) = (Arc::new(Barrier::new(50)), JoinSet::new());
        for _ in 0..RACERS {
            let (store, start, expected) = (subject.store(), Arc::clone(&start), there.version());
            let write = write_of(&extend(&there), &*store, Some(&there));
            racers.spawn(async move {
                start.wait().await;
                store.replace(write, expected).await.unwrap().value
            });
        }
        let answers = racers.join_all().await;
        let won = |answer: &Replaced| matches!(answer, Replaced::Replaced(_));
        assert_eq!(answers.iter().filter(|answer| won(answer)).count(), 1);
        let now = store.load(ask.id()).await.unwrap().value.unwrap();
        assert_eq!(now.version(), there.version().next());
        for answer in answers {
            let (Replaced::Replaced(shown) | Replaced::Conflict(Some(shown))) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(shown, now);
        }
        there = now;
    }
}

/// Compare-and-swap like the rest.
pub async fn a_removal_takes_only_the_version_that_was_expected(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a");
    let first = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    let second = replaced(&*store, write_of(&extend(&first), &*store, Some(&first)), first.version()).await;
    assert!(!store.remove(ask.id(), first.version()).await.unwrap());
    assert_eq!(store.load(ask.id()).await.unwrap().value.as_ref(), Some(&second));
    assert!(store.remove(ask.id(), second.version()).await.unwrap());
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    assert!(!store.remove(ask.id(), second.version()).await.unwrap());
    assert_eq!(store.next_due().await.unwrap().value, None, "it has left the orders");
    let found = store.search(Query::default(), None, 10).await.unwrap();
    assert_eq!((found.items, store.counts().await.unwrap()), (Vec::new(), Vec::new()));
}

/// Claims, releases, completions, expiry, sweep and removal by turns.
pub async fn l2_fences_rise_and_no_version_comes_twice_across_removal_and_reuse(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").retention_ms(20);
    let (mut versions, mut last) = (HashSet::new(), Fence(0));
    for life in 0..12 {
        let claim = hand.claim(&ask).await;
        assert!(claim.fence() > last, "life {life}: {} after {last}", claim.fence());
        last = claim.fence();
        assert!(versions.insert(claim.record().version()));
        let holder = claim.holder();
        let ended = if life % 3 == 0 {
            hand.done(&Release { holder, error: "refused".into() }).await
        } else {
            hand.done(&Complete { holder, outcome: outcome("done") }).await
        };
        assert!(versions.insert(ended.version()));
        match life % 4 {
            0 => assert!(hand.store().remove(ask.id(), ended.version()).await.unwrap()),
            1 => {
                subject.pass(Duration::from_millis(30)).await;
                assert_eq!(hand.store().sweep(10).await.unwrap(), 1);
            }
            // Expired, and replaced where it lies; or released, and claimed again.
            _ => subject.pass(Duration::from_millis(30)).await,
        }
    }
}

/// The floor is the store's: a removed record leaves no other trace.
pub async fn l2_no_record_begins_below_a_fence_that_was_removed(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a");
    for _ in 0..5 {
        let holder = hand.claim(&ask).await.holder();
        hand.done(&Release { holder, error: "refused".into() }).await;
    }
    let last = hand.stored(ask.id()).await.unwrap();
    assert!(hand.store().remove(ask.id(), last.version()).await.unwrap());
    assert!(hand.claim(&Ask::key("b")).await.fence() > last.fence());
    assert!(hand.claim(&ask).await.fence() > last.fence());
}

/// `release` deletes the record, and a later claim has the same fence: not here.
pub async fn l6_a_delayed_write_does_not_hit_a_later_life(subject: &mut dyn Subject) {
    let store = subject.store();
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a");
    let first = Arc::clone(hand.claim(&ask).await.record());
    let delayed = write_of(&extend(&first), &*store, Some(&first));
    assert!(store.remove(ask.id(), first.version()).await.unwrap());
    let answer = store.replace(delayed.clone(), first.version()).await.unwrap();
    assert_eq!(answer.value, Replaced::Conflict(None));
    let second = Arc::clone(hand.claim(&ask).await.record());
    assert_ne!(second.version(), first.version());
    let answer = store.replace(delayed, first.version()).await.unwrap();
    assert_eq!(answer.value, Replaced::Conflict(Some(Arc::clone(&second))));
    assert!(!store.remove(ask.id(), first.version()).await.unwrap());
    assert_eq!(hand.stored(ask.id()).await, Some(second));
}

/// One writes, many read: nobody goes back, nobody is behind what was answered.
pub async fn a_read_sees_what_was_answered_before_it(subject: &mut dyn Subject) {
    let store = subject.store();
    let ask = Ask::key("a");
    let first = inserted(&*store, write_of(&claim_key(&ask, 1), &*store, None)).await;
    let (told, answered) = tokio::sync::watch::channel(first.version());
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (store, answered, id) = (subject.store(), answered.clone(), ask.id());
        readers.spawn(async move {
            let mut last = Version::default();
            while answered.has_changed().is_ok() {
                let floor = (*answered.borrow()).max(last);
                let seen = store.load(id).await.unwrap().value.unwrap().version();
                assert!(seen >= floor, "read {seen} after {floor} was answered");
                last = seen;
                tokio::task::yield_now().await;
            }
        });
    }
    let mut there = first;
    for _ in 0..300 {
        let write = write_of(&extend(&there), &*store, Some(&there));
        there = replaced(&*store, write, there.version()).await;
        told.send_replace(there.version());
    }
    drop(told);
    readers.join_all().await;
}

/// L10: byte for byte, whatever the state.
pub async fn records_of_every_state_are_loaded_as_they_were_written(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for (number, state) in StateName::ALL.into_iter().enumerate() {
        let ask =
            Ask::key(&format!("ключ-{number}-🔑")).tag("order_id", "Ä/1").tag("partner", "x").lane("bank");
        let written = hand.in_state(&ask, state).await;
        let loaded = hand.stored(ask.id()).await.unwrap();
        assert_eq!(loaded, written);
        assert_eq!(loaded.state().name(), state);
        assert_eq!(judge_step(None, false, &loaded), Ok(()));
    }
}

/// An input and an outcome of the largest size, and texts at their limits.
pub async fn the_largest_record_is_kept_whole_or_refused_without_effect(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for bytes in [1 << 20, limits::BODY_BYTES_MAX] {
        let body = Bytes::from((0..bytes).map(|at| (at % 251).to_le_bytes()[0]).collect::<Vec<_>>());
        let mut ask = Ask::key(&"ж".repeat(limits::KEY_CHARS_MAX - 8)).body(body.clone());
        ask = ask.tenant(&format!("tenant-{bytes}")).operation(&"ö".repeat(limits::OPERATION_CHARS_MAX));
        for tag in 0..limits::TAGS_MAX {
            ask = ask.tag(&format!("tag-{tag}"), &"v".repeat(limits::TAG_VALUE_CHARS_MAX));
        }
        let claim = match hand.ledger.claim(ask.request(), None).await {
            Ok(Claimed::Granted(claim)) => claim,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), semel_core::ledger::LedgerErrorKind::TooLarge, "{error}");
                assert_eq!(hand.stored(ask.id()).await, None);
                continue;
            }
        };
        let complete = Complete { holder: claim.holder(), outcome: outcome(body) };
        match hand.ledger.apply(&complete).await {
            Ok(_) => assert_eq!(hand.stored(ask.id()).await.unwrap().outcome(), Some(&complete.outcome)),
            Err(error) => {
                assert_eq!(error.kind(), semel_core::ledger::LedgerErrorKind::TooLarge, "{error}");
                assert_eq!(hand.stored(ask.id()).await.as_ref(), Some(claim.record()));
            }
        }
    }
}

/// Fifty workers ask for one key, each runs what it is granted.
pub async fn workers_on_one_key_run_it_once(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a");
    let (start, mut workers) = (Arc::new(Barrier::new(50)), JoinSet::new());
    for _ in 0..RACERS {
        let (hand, start, request) = (hand.clone(), Arc::clone(&start), ask.request());
        workers.spawn(async move {
            start.wait().await;
            match hand.ledger.claim(request, None).await.unwrap() {
                Claimed::Granted(claim) => {
                    let complete = Complete { holder: claim.holder(), outcome: outcome("once") };
                    hand.done(&complete).await;
                    1
                }
                Claimed::Busy { .. } => 0,
                Claimed::Replay(record) => {
                    assert_eq!(record.outcome(), Some(&outcome("once")));
                    0
                }
                other => panic!("{other:?}"),
            }
        });
    }
    assert_eq!(workers.join_all().await.into_iter().sum::<u32>(), 1, "L7");
}

/// Many keys at once, each through its whole life.
pub async fn workers_on_many_keys_do_not_disturb_each_other(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let mut workers = JoinSet::new();
    for worker in 0..16 {
        let hand = hand.clone();
        workers.spawn(async move {
            for key in 0..20 {
                let ask = Ask::key(&format!("{worker}-{key}"));
                let claim = hand.claim(&ask).await;
                let body = format!("{worker}/{key}");
                let holder = claim.holder();
                hand.done(&Complete { holder, outcome: outcome(body.clone()) }).await;
                let stored = hand.stored(ask.id()).await.unwrap();
                assert_eq!(stored.outcome(), Some(&outcome(body)));
                assert!(stored.times().created > Timestamp::ZERO);
            }
        });
    }
    workers.join_all().await;
    let counts = hand.store().counts().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.records).sum::<u64>(), 320);
}

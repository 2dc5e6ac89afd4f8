//! The orders of what is due: by lane, the longest due first.

use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{
    Accept, Accepted, Complete, Discard, Dropped, Effect, Extend, Held, Judged, Lapse, Lapsed, Postpone,
    Retry, Taken,
};
use semel_core::id::{Holder, Lane};
use semel_core::limits;
use semel_core::query::{Query, Summary};
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Store};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand, outcome};
use crate::subject::Subject;

fn lane(name: &str) -> Option<Lane> {
    Lane::try_new(name).ok()
}

async fn due(store: &dyn Store, lane: Option<Lane>) -> Vec<RecordId> {
    store.take_due(lane, limits::TAKE_MAX).await.unwrap().value.iter().map(|record| record.id()).collect()
}

/// The longest due first, and nothing of another lane.
pub async fn what_is_due_comes_in_order_from_its_lane_only(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let (mut bank, mut post, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..4 {
        bank.push(hand.accept(&Ask::key(&format!("bank-{number}")).lane("bank")).await.id());
        subject.pass(Duration::from_millis(2)).await;
        post.push(hand.accept(&Ask::key(&format!("post-{number}")).lane("post")).await.id());
        none.push(hand.accept(&Ask::key(&format!("none-{number}"))).await.id());
        subject.pass(Duration::from_millis(2)).await;
    }
    assert_eq!(due(hand.store(), lane("bank")).await, bank);
    assert_eq!(due(hand.store(), lane("post")).await, post);
    assert_eq!(due(hand.store(), None).await, none);
    assert_eq!(due(hand.store(), lane("nobody")).await, []);
    let answer = hand.store().take_due(lane("bank"), 10).await.unwrap();
    for record in answer.value {
        assert!(record.due().is_some_and(|due| due <= answer.as_of));
        assert_eq!(Some(record.clone()), hand.stored(record.id()).await);
    }
}

/// A remaining time of zero is a lapsed lease.
pub async fn a_live_lease_is_not_due_and_a_lapsed_one_is(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let short = hand.claim(&Ask::key("short").lease_ms(100)).await;
    let long = hand.claim(&Ask::key("long").lease_ms(60_000)).await;
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, short.record().due());
    subject.pass(Duration::from_millis(100)).await;
    assert_eq!(due(hand.store(), None).await, [short.record().id()]);
    assert_ne!(short.record().id(), long.record().id());
}

/// Until the last heartbeat's lease has lapsed, too.
pub async fn a_heartbeat_moves_the_lapse(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let claim = hand.claim(&Ask::key("a").lease_ms(400)).await;
    subject.pass(Duration::from_millis(300)).await;
    let extended = hand.done(&Extend { holder: claim.holder() }).await;
    subject.pass(Duration::from_millis(150)).await;
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, extended.due());
    subject.pass(Duration::from_millis(300)).await;
    assert_eq!(due(hand.store(), None).await, [claim.record().id()]);
}

/// Completed, released, unknown and dead records wait for nobody.
pub async fn what_comes_to_rest_leaves_the_order(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for state in [StateName::Completed, StateName::Released, StateName::Unknown, StateName::Dead] {
        for name in [None, Some("bank")] {
            let ask = Ask::key(&format!("{state:?}-{name:?}")).lease_ms(100);
            hand.in_state(&name.map_or(ask.clone(), |name| ask.lane(name)), state).await;
        }
    }
    subject.pass(Duration::from_millis(200)).await;
    assert_eq!(hand.store().next_due().await.unwrap().value, None);
    assert_eq!(hand.store().lanes().await.unwrap(), []);
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(due(hand.store(), lane("bank")).await, []);
}

/// Only its client can go on with it, so nobody is told of it for ever.
pub async fn a_lapse_that_was_seen_leaves_the_order(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").resume().undriven().lease_ms(100);
    let claim = hand.claim(&ask).await;
    subject.pass(Duration::from_millis(150)).await;
    assert_eq!(due(hand.store(), None).await, [ask.id()]);
    assert!(matches!(hand.ledger.lapse(ask.id()).await.unwrap(), Lapsed::Parked(_)));
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, None);
    let back = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(hand.store().next_due().await.unwrap().value, back.due(), "its holder came back");
}

/// A retry's pause, a postponement, and an end before either is over.
pub async fn work_that_waits_is_due_when_it_was_said(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").lane("bank");
    let pending = hand.accept(&ask).await;
    let Taken::Granted(claim) = hand.ledger.take(&pending).await.unwrap() else { panic!("{pending:?}") };
    let retry = Retry {
        holder: claim.holder(),
        error: "503".into(),
        pause: Duration::from_millis(200),
        effect: Effect::None,
        permanent: false,
    };
    let Held::Done(retried) = hand.ledger.retry(&retry).await.unwrap() else { panic!("retried") };
    assert_eq!(due(hand.store(), lane("bank")).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, retried.due());
    subject.pass(Duration::from_millis(250)).await;
    assert_eq!(due(hand.store(), lane("bank")).await, [ask.id()]);

    let postpone = Postpone { id: ask.id(), version: retried.version(), pause: Duration::from_millis(200) };
    let Judged::Done(postponed) = hand.ledger.apply(&postpone).await.unwrap() else { panic!("postponed") };
    assert_eq!(due(hand.store(), lane("bank")).await, []);
    let discard = Discard {
        id: ask.id(),
        version: postponed.version(),
        actor: "op".into(),
        reason: "no longer wanted".into(),
        correlation_id: None,
    };
    assert!(matches!(hand.ledger.apply(&discard).await.unwrap(), Judged::Done(_)));
    subject.pass(Duration::from_millis(250)).await;
    assert_eq!(due(hand.store(), lane("bank")).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, None);
}

/// Not before, and not sooner because it is taken in again.
pub async fn work_that_is_taken_in_for_later_is_due_then(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").lane("bank");
    let accept = Accept::try_new(ask.request()).unwrap();
    let later = accept.clone().due_after(Duration::from_secs(600));
    let Accepted::Accepted(pending) = hand.ledger.accept(&later).await.unwrap() else { panic!("accepted") };
    let wait = pending.due().unwrap().since(pending.times().written);
    assert!(wait >= Duration::from_secs(600) && wait < Duration::from_secs(660), "{wait:?}");
    assert!(matches!(hand.ledger.accept(&accept).await.unwrap(), Accepted::Duplicate(_)));
    assert!(matches!(hand.ledger.take(&pending).await.unwrap(), Taken::NotDue(_)));
    assert_eq!(due(hand.store(), lane("bank")).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, pending.due());

    let soon = Accept::try_new(Ask::key("b").lane("bank").request()).unwrap();
    let soon = soon.due_after(Duration::from_millis(100));
    assert!(matches!(hand.ledger.accept(&soon).await.unwrap(), Accepted::Accepted(_)));
    subject.pass(Duration::from_millis(150)).await;
    assert_eq!(due(hand.store(), lane("bank")).await, [Ask::key("b").id()]);
}

/// The request of the one who accepts it brings the lane.
pub async fn work_that_is_accepted_while_it_runs_goes_to_its_lane(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = Ask::key("a").resume().lease_ms(100);
    hand.claim(&ask.clone().undriven()).await;
    let accept = Accept::try_new(ask.clone().lane("bank").request()).unwrap();
    assert!(matches!(hand.ledger.accept(&accept).await.unwrap(), Accepted::Accepted(_)));
    subject.pass(Duration::from_millis(150)).await;
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(due(hand.store(), lane("bank")).await, [ask.id()]);
    assert_eq!(hand.store().lanes().await.unwrap(), [lane("bank")]);
}

/// It is due in no lane, whatever its target does, and gives up its payload, and nothing else.
pub async fn what_is_done_gives_up_its_payload_when_that_is_due_and_nothing_else(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let (kept, dropped) = (Ask::key("kept").lane("bank"), Ask::key("dropped").lane("bank"));
    let dropped = dropped.tag("partner", "p").payload_retention_ms(400);
    for ask in [&kept, &dropped] {
        let accepted = hand.accept(ask).await;
        let Taken::Granted(claim) = hand.ledger.take(&accepted).await.unwrap() else { panic!("{ask:?}") };
        hand.done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await;
    }
    let before = hand.stored(dropped.id()).await.unwrap();
    let expected = before.times().settled.map(|settled| settled.plus(Duration::from_millis(400)));
    assert_eq!(before.due(), expected);
    assert_eq!(hand.store().next_due().await.unwrap().value, expected);
    assert_eq!(due(hand.store(), None).await, []);
    subject.pass(Duration::from_millis(400)).await;
    assert_eq!(due(hand.store(), lane("bank")).await, []);
    assert_eq!(due(hand.store(), None).await, [dropped.id()]);
    assert_eq!(hand.store().lanes().await.unwrap(), [None]);
    let counts = hand.store().counts().await.unwrap();
    let Dropped::Gone(after) = hand.ledger.drop_payload(&before).await.unwrap() else { panic!("{before:?}") };
    assert_eq!(hand.stored(dropped.id()).await, Some(Arc::clone(&after)), "as it was said");
    assert_eq!((after.request().input(), after.due()), (None, None));
    assert_eq!((after.state(), after.token()), (before.state(), before.token()));
    assert_eq!(
        (after.times().created, after.times().settled),
        (before.times().created, before.times().settled)
    );
    assert_eq!(
        after.times().expires,
        before.times().expires,
        "L3: it is kept for as long as it would have been"
    );
    assert_eq!(after.request().tags(), before.request().tags());
    assert_eq!(hand.ledger.drop_payload(&before).await.unwrap(), Dropped::Nothing, "its answer was lost");
    assert_eq!(due(hand.store(), None).await, []);
    assert_eq!(hand.store().next_due().await.unwrap().value, None);
    assert_eq!(hand.store().counts().await.unwrap(), counts);
    let accept = Accept::try_new(dropped.request()).unwrap();
    assert_eq!(hand.ledger.accept(&accept).await.unwrap(), Accepted::Duplicate(Arc::clone(&after)));
    let query = Query { tag: after.request().tags().first().cloned(), ..Query::default() };
    let found = hand.store().search(query, None, 10).await.unwrap().items;
    assert_eq!(found, [Summary::of(&after)], "it is found by what it was found by, once");
    assert!(hand.stored(kept.id()).await.unwrap().is_drivable());
}

/// And never more than the limit of all stores.
pub async fn no_more_is_taken_than_was_asked_for(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let mut workers = JoinSet::new();
    for worker in 0..16 {
        let hand = hand.clone();
        workers.spawn(async move {
            for number in 0..65 {
                hand.accept(&Ask::key(&format!("{worker}-{number}")).lane("bank")).await;
            }
        });
    }
    workers.join_all().await;
    for (asked, given) in [(0, 0), (1, 1), (7, 7), (usize::MAX, limits::TAKE_MAX)] {
        let taken: Vec<Arc<Record>> = hand.store().take_due(lane("bank"), asked).await.unwrap().value;
        assert_eq!(taken.len(), given);
        assert!(taken.is_sorted_by_key(|record| record.due()));
    }
}

/// One dead target starves no other: every lane that has something due is named.
pub async fn lanes_come_with_the_longest_due_first(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    assert_eq!(hand.store().lanes().await.unwrap(), []);
    for name in ["c", "a", "b"] {
        hand.accept(&Ask::key(&format!("first-{name}")).lane(name)).await;
        subject.pass(Duration::from_millis(2)).await;
    }
    hand.accept(&Ask::key("none")).await;
    subject.pass(Duration::from_millis(2)).await;
    let second = Ask::key("second-c").lane("c");
    hand.accept(&second).await;
    hand.claim(&Ask::key("alive").lane("d")).await;
    assert_eq!(hand.store().lanes().await.unwrap(), [lane("c"), lane("a"), lane("b"), None]);
    let first = hand.stored(Ask::key("first-c").id()).await.unwrap();
    let Taken::Granted(claim) = hand.ledger.take(&first).await.unwrap() else { panic!("{first:?}") };
    hand.done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await;
    assert_eq!(hand.store().lanes().await.unwrap(), [lane("a"), lane("b"), None, lane("c")]);
}

/// In the past if something is due already, none if nothing waits.
pub async fn the_next_due_time_is_over_all_lanes(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    assert_eq!(hand.store().next_due().await.unwrap().value, None);
    let later = hand.claim(&Ask::key("a").lane("a").lease_ms(5_000)).await;
    assert_eq!(hand.store().next_due().await.unwrap().value, later.record().due());
    let sooner = hand.claim(&Ask::key("b").lease_ms(1_000)).await;
    assert_eq!(hand.store().next_due().await.unwrap().value, sooner.record().due());
    let pending = hand.accept(&Ask::key("c").lane("c")).await;
    subject.pass(Duration::from_millis(5)).await;
    let answer = hand.store().next_due().await.unwrap();
    assert_eq!(answer.value, pending.due());
    assert!(answer.value < Some(answer.as_of));
}

/// Taking is not claiming: all may be shown the record, one gets it.
pub async fn of_many_workers_that_take_exactly_one_is_granted(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..10 {
        hand.accept(&Ask::key(&format!("key-{number}")).lane("bank")).await;
    }
    let (start, mut workers) = (Arc::new(Barrier::new(16)), JoinSet::new());
    for _ in 0..16 {
        let (hand, start) = (hand.clone(), Arc::clone(&start));
        workers.spawn(async move {
            start.wait().await;
            let mut granted = Vec::<Holder>::new();
            for record in hand.store().take_due(lane("bank"), 100).await.unwrap().value {
                match hand.ledger.take(&record).await.unwrap() {
                    Taken::Granted(claim) => granted.push(claim.holder()),
                    Taken::NotDue(_) => {}
                    Taken::Ended(record) => panic!("{record:?}"),
                }
            }
            granted
        });
    }
    let mut granted: Vec<_> =
        workers.join_all().await.into_iter().flatten().map(|holder| holder.id).collect();
    assert_eq!(granted.len(), 10, "L1");
    granted.sort();
    granted.dedup();
    assert_eq!(granted.len(), 10, "each once");
    assert!(matches!(hand.ledger.apply(&Lapse { id: granted[0] }).await.unwrap(), Lapsed::Nothing));
}

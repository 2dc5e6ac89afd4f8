//! The store's time: whose clock, and which way it goes.

use std::time::Duration;

use semel_core::Record;
use semel_core::command::{Claim, Claimed, Extend, Release};
use semel_core::id::Namespace;
use semel_core::record::StateName;

use super::skipped;
use crate::fixture::{Ask, Hand};
use crate::subject::{Ending, Step, Subject};

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Not between answers, not between what is told without asking and what is answered.
pub async fn as_of_never_goes_back(subject: &mut dyn Subject) {
    let store = subject.store();
    let hand = Hand::on(subject.store());
    let mut last = store.time();
    for round in 0..20 {
        let ask = Ask::key(&format!("key-{round}"));
        let told = store.time();
        assert!(told >= last);
        let written = hand.claim(&ask).await.record().times().written;
        assert!(written >= told);
        let loaded = store.load(ask.id()).await.unwrap().as_of;
        assert!(loaded >= written);
        last = store.next_due().await.unwrap().as_of;
        assert!(last >= loaded);
        subject.pass(Duration::from_millis(1)).await;
    }
    assert!(store.time() > hand.stored(Ask::key("key-0").id()).await.unwrap().times().written);
}

/// Ten minutes in both directions, while a lease is alive and another is dead.
pub async fn a_stepped_wall_clock_neither_lapses_nor_keeps_anything(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let holder = hand.claim(&Ask::key("live").lease_ms(60_000)).await.holder();
    hand.claim(&Ask::key("dead").lease_ms(100)).await;
    subject.pass(Duration::from_millis(150)).await;
    for step in [Step::Ahead(TEN_MINUTES), Step::Back(TEN_MINUTES), Step::Back(TEN_MINUTES)] {
        let before = hand.store().time();
        if !subject.step_wall(step) {
            return skipped("this store's wall clock cannot be set");
        }
        let now = hand.store().time();
        assert!(now >= before && now.since(before) < Duration::from_secs(60), "{before:?} → {now:?}");
        let due = hand.store().take_due(None, 10).await.unwrap().value;
        let due: Vec<_> = due.iter().map(|record| record.id()).collect();
        assert_eq!(due, [Ask::key("dead").id()], "after {step:?}");
        let extended = hand.done(&Extend { holder }).await;
        assert_eq!(extended.state().name(), StateName::Running);
    }
}

/// Leases, due times and retention are lengths; the store's time makes them points.
pub async fn stamps_count_from_the_write(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for lease in [100, 5_000, 86_400_000] {
        let ask = Ask::key(&format!("key-{lease}")).lease_ms(lease).retention_ms(lease * 3);
        let before = hand.store().time();
        let done = hand.complete(&ask).await;
        let after = hand.store().load(ask.id()).await.unwrap().as_of;
        let times = done.times();
        assert!(before <= times.created && times.created <= times.written && times.written <= after);
        assert_eq!(times.settled, Some(times.written));
        assert_eq!(times.expires, Some(times.written.plus(Duration::from_millis(lease * 3))));
    }
}

/// The lease that the record says it has; what is left of it is no less, and no other length that is asked for here.
fn lease(record: &Record) -> Duration {
    let (lease, times) = (record.request().policy().lease(), record.times());
    let left = times.wake.unwrap().since(times.written);
    assert!(left >= lease && left < lease + Duration::from_secs(60), "{left:?} of {lease:?}");
    lease
}

/// Claims it as soon as the lease of the claim before has lapsed.
async fn taken_over(subject: &dyn Subject, hand: &Hand, ask: &Ask) -> Claim {
    loop {
        match hand.ledger.claim(ask.request(), None).await.unwrap() {
            Claimed::Granted(claim) => return claim,
            Claimed::Busy { .. } => subject.pass(Duration::from_millis(50)).await,
            other => panic!("not granted: {other:?}"),
        }
    }
}

/// Another one than the record was begun with: longer or shorter, after a release and at a takeover. It outlives the
/// process; and outside of jobs there is no such thing.
pub async fn l1_the_guard_of_a_job_holds_for_as_long_as_the_claim_that_has_it_asked_for(
    subject: &mut dyn Subject,
) {
    const SHORT: u64 = 100;
    const USUAL: u64 = 600_000;
    const LONG: u64 = 3_600_000;
    let ask = |lease_ms| Ask::key("EXPIRE_LOCKS").namespace(Namespace::Job).resume().lease_ms(lease_ms);
    let elsewhere = |lease_ms| ask(lease_ms).namespace(Namespace::Execute);
    let is = Duration::from_millis;
    let hand = Hand::on(subject.store());
    for lease_ms in [USUAL, LONG, USUAL] {
        let claim = hand.claim(&ask(lease_ms)).await;
        assert_eq!((claim.lease(), lease(claim.record())), (is(lease_ms), is(lease_ms)));
        assert_eq!(lease(&*hand.done(&Extend { holder: claim.holder() }).await), is(lease_ms));
        hand.done(&Release { holder: claim.holder(), error: "its run has ended".into() }).await;
        let other = hand.claim(&elsewhere(lease_ms)).await;
        assert_eq!((other.lease(), lease(other.record())), (is(USUAL), is(USUAL)), "its first claim's");
        hand.done(&Release { holder: other.holder(), error: "refused".into() }).await;
    }
    let gone = hand.claim(&ask(SHORT)).await;
    assert_eq!((gone.lease(), lease(gone.record())), (is(SHORT), is(SHORT)));
    let heir = taken_over(subject, &hand, &ask(LONG)).await;
    assert!(heir.is_tainted() && heir.fence() > gone.fence(), "L2");
    assert_eq!((heir.lease(), lease(heir.record())), (is(LONG), is(LONG)));
    let busy = hand.ledger.claim(ask(SHORT).request(), None).await.unwrap();
    assert!(matches!(busy, Claimed::Busy { .. }), "{busy:?}");
    let before = hand.stored(ask(USUAL).id()).await.unwrap();
    assert_eq!(&before, heir.record(), "L5");
    drop(hand);
    for ending in [Ending::Closed, Ending::Crashed] {
        if !subject.restart(ending).await {
            return skipped("nothing of this store outlives it");
        }
        let hand = Hand::on(subject.store());
        assert_eq!(hand.stored(ask(USUAL).id()).await.as_ref(), Some(&before), "{ending:?}");
    }
    let hand = Hand::on(subject.store());
    assert_eq!(lease(&*hand.done(&Extend { holder: heir.holder() }).await), is(LONG));
}

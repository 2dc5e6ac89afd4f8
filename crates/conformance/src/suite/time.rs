//! The store's time: whose clock, and which way it goes.

use std::time::Duration;

use semel_core::command::Extend;
use semel_core::record::StateName;

use super::skipped;
use crate::fixture::{Ask, Hand};
use crate::subject::{Step, Subject};

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

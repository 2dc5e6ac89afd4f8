//! What has expired goes, and nothing else.

use std::time::Duration;

use semel_core::command::{Claimed, Complete};
use semel_core::record::StateName;
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand, outcome};
use crate::subject::Subject;

/// A pending, running, unknown or dead record does not expire.
pub async fn l8_only_what_is_settled_and_expired_is_removed(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let mut stays = Vec::new();
    for state in StateName::ALL {
        let short = Ask::key(&format!("short-{state:?}")).retention_ms(20).lease_ms(100);
        let record = hand.in_state(&short, state).await;
        if record.times().expires.is_none() {
            stays.push(record);
        }
        stays.push(hand.in_state(&Ask::key(&format!("long-{state:?}")), state).await);
    }
    assert_eq!(stays.len(), 10);
    assert_eq!(hand.store().sweep(100).await.unwrap(), 0);
    subject.pass(Duration::from_millis(200)).await;
    assert_eq!(hand.store().sweep(100).await.unwrap(), 2);
    assert_eq!(hand.store().sweep(100).await.unwrap(), 0);
    for record in stays {
        assert_eq!(hand.stored(record.id()).await, Some(record));
    }
    for state in [StateName::Completed, StateName::Released] {
        assert_eq!(hand.stored(Ask::key(&format!("short-{state:?}")).id()).await, None);
    }
}

/// In small steps, as many as it is asked for.
pub async fn a_sweep_is_limited(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..25 {
        hand.complete(&Ask::key(&format!("key-{number}")).retention_ms(20)).await;
    }
    subject.pass(Duration::from_millis(30)).await;
    assert_eq!(hand.store().sweep(10).await.unwrap(), 10);
    let left: u64 = hand.store().counts().await.unwrap().iter().map(|count| count.records).sum();
    assert_eq!(left, 15);
    assert_eq!(hand.store().sweep(100).await.unwrap(), 15);
    assert_eq!(hand.store().counts().await.unwrap(), []);
}

/// Keys that expire are claimed again while the sweep runs over them: nobody's new claim is taken away.
pub async fn a_sweep_beside_claims_takes_nothing_that_lives(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let ask = |number: usize| Ask::key(&format!("key-{number}")).retention_ms(5);
    for _ in 0..10 {
        for number in 0..20 {
            if let Claimed::Granted(claim) = hand.ledger.claim(ask(number).request(), None).await.unwrap() {
                hand.done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await;
            }
        }
        subject.pass(Duration::from_millis(10)).await;
        let mut tasks = JoinSet::new();
        for worker in 0..8 {
            let hand = hand.clone();
            tasks.spawn(async move {
                if worker % 2 == 0 {
                    hand.store().sweep(20).await.unwrap();
                    return;
                }
                for number in (worker / 2 * 5)..(worker / 2 * 5 + 5) {
                    let claim = hand.claim(&ask(number)).await;
                    let stored = hand.stored(claim.record().id()).await;
                    assert_eq!(stored.as_ref(), Some(claim.record()), "it lives");
                    hand.done(&Complete { holder: claim.holder(), outcome: outcome("again") }).await;
                }
            });
        }
        tasks.join_all().await;
        subject.pass(Duration::from_millis(10)).await;
    }
    while hand.store().sweep(20).await.unwrap() > 0 {}
    assert_eq!(hand.store().counts().await.unwrap(), []);
}

//! How many there are, maintained with every write.

use std::collections::BTreeMap;
use std::time::Duration;

use semel_core::command::{
    Complete, Discard, Effect, Judged, MarkUnknown, Release, Resolution, Resolve, Retry, Revive, Taken,
};
use semel_core::id::Namespace;
use semel_core::query::{Count, Query};
use semel_core::record::{StateName, Why};
use semel_core::{Record, Store};
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand, outcome};
use crate::subject::Subject;

/// The counts, by what is counted.
async fn counts(store: &dyn Store) -> BTreeMap<(Namespace, String, StateName), u64> {
    let counts = store.counts().await.unwrap();
    let number = counts.len();
    let key = |count: &Count| (count.namespace, count.operation.as_str().to_owned(), count.state);
    let counts: BTreeMap<_, _> = counts.iter().map(|count| (key(count), count.records)).collect();
    assert_eq!(counts.len(), number, "each kind is counted once");
    counts.into_iter().filter(|(_, records)| *records > 0).collect()
}

async fn only(store: &dyn Store, state: StateName) {
    let expected = BTreeMap::from([((Namespace::Execute, "charge".to_owned(), state), 1)]);
    assert_eq!(counts(store).await, expected);
}

/// One record through every state there is.
pub async fn counts_follow_every_state(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let store = hand.store();
    assert_eq!(counts(store).await, BTreeMap::new());
    let ask = Ask::key("a").retention_ms(20);
    let (actor, reason) = ("op", "asked the bank");
    let judged = |judged: Judged| match judged {
        Judged::Done(record) => record,
        other => panic!("{other:?}"),
    };
    let take = async |record| match hand.ledger.take(&record).await.unwrap() {
        Taken::Granted(claim) => claim.holder(),
        other => panic!("{other:?}"),
    };
    let pending = hand.accept(&ask).await;
    only(store, StateName::Pending).await;
    let holder = take(pending).await;
    only(store, StateName::Running).await;
    let error = "no".into();
    let retry = Retry { holder, error, pause: Duration::ZERO, effect: Effect::None, permanent: true };
    let dead = hand.done(&retry).await;
    only(store, StateName::Dead).await;
    let (id, version) = (dead.id(), dead.version());
    let revive = Revive { id, version, actor: actor.into(), reason: reason.into(), correlation_id: None };
    let revived = judged(hand.ledger.apply(&revive).await.unwrap());
    only(store, StateName::Pending).await;
    let holder = take(revived).await;
    let unknown = hand.done(&MarkUnknown { holder, why: Why::AnswerLost, detail: "reset".into() }).await;
    only(store, StateName::Unknown).await;
    let resolution = Resolution::Completed(outcome("found"));
    let version = unknown.version();
    let resolve =
        Resolve { id, version, resolution, actor: actor.into(), reason: reason.into(), correlation_id: None };
    judged(hand.ledger.apply(&resolve).await.unwrap());
    only(store, StateName::Completed).await;
    subject.pass(Duration::from_millis(30)).await;
    only(store, StateName::Completed).await;
    let claim = hand.claim(&ask).await;
    only(store, StateName::Running).await;
    let released = hand.done(&Release { holder: claim.holder(), error: "refused".into() }).await;
    only(store, StateName::Released).await;
    assert!(store.remove(id, released.version()).await.unwrap());
    assert_eq!(counts(store).await, BTreeMap::new());
}

async fn storm(hand: Hand, worker: usize) {
    for round in 0..25 {
        let namespace = Namespace::ALL[(worker + round) % Namespace::ALL.len()];
        let ask = Ask::key(&format!("key-{}", (worker * 7 + round) % 23));
        let ask =
            ask.namespace(namespace).operation(["charge", "refund"][round % 2]).resume().lease_ms(60_000);
        let Ok(semel_core::command::Claimed::Granted(claim)) = hand.ledger.claim(ask.request(), None).await
        else {
            continue;
        };
        let holder = claim.holder();
        match (worker + round) % 4 {
            0 => drop(hand.done(&Complete { holder, outcome: outcome("done") }).await),
            1 => drop(hand.done(&Release { holder, error: "refused".into() }).await),
            2 => drop(hand.done(&MarkUnknown { holder, why: Why::AnswerLost, detail: "reset".into() }).await),
            _ => {}
        }
    }
}

/// Every record of a query, by all its pages.
async fn all(store: &dyn Store, query: Query) -> u64 {
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = store.search(query.clone(), cursor, 50).await.unwrap();
        found += page.items.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// Whatever many workers did at once.
pub async fn counts_hold_what_a_search_finds_after_a_storm(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let mut workers = JoinSet::new();
    for worker in 0..16 {
        workers.spawn(storm(hand.clone(), worker));
    }
    workers.join_all().await;
    let counted = hand.store().counts().await.unwrap();
    assert!(counted.len() > 10);
    for count in &counted {
        let query = Query {
            namespace: Some(count.namespace),
            operation: Some(count.operation.clone()),
            states: vec![count.state],
            ..Query::default()
        };
        assert_eq!(all(hand.store(), query).await, count.records, "{count:?}");
    }
    let total: u64 = counted.iter().map(|count| count.records).sum();
    assert_eq!(all(hand.store(), Query::default()).await, total);
}

/// By its creation, through everything that makes it pending or not.
pub async fn the_oldest_pending_record_is_known(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let oldest = async || hand.store().oldest_pending().await.unwrap().value;
    assert_eq!(oldest().await, None);
    hand.claim(&Ask::key("running")).await;
    assert_eq!(oldest().await, None, "what runs does not wait");
    let mut waiting = Vec::new();
    for number in 0..3 {
        subject.pass(Duration::from_millis(5)).await;
        waiting.push(hand.accept(&Ask::key(&format!("key-{number}")).lane("bank")).await);
    }
    let created = |record: &Record| Some(record.times().created);
    assert_eq!(oldest().await, created(&waiting[0]));
    let Taken::Granted(first) = hand.ledger.take(&waiting[0]).await.unwrap() else { panic!("not taken") };
    assert_eq!(oldest().await, created(&waiting[1]));
    hand.done(&Release { holder: first.holder(), error: "refused".into() }).await;
    assert_eq!(oldest().await, created(&waiting[0]), "it waits again, since when it was created");
    for record in &waiting {
        let stored = hand.stored(record.id()).await.unwrap();
        let discard = Discard {
            id: stored.id(),
            version: stored.version(),
            actor: "op".into(),
            reason: "old".into(),
            correlation_id: None,
        };
        assert!(matches!(hand.ledger.apply(&discard).await.unwrap(), Judged::Done(_)));
    }
    assert_eq!(oldest().await, None);
}

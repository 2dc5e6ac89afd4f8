//! Events of one value, one at a time and in the order in which they were taken in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::command::{Accepted, Taken};
use semel_core::policy::{OnLapse, Policy, Schedule};
use semel_core::record::StateName;
use semel_core::{Record, Store};
use semel_stores::memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::config::OperationConfig;
use crate::engine::delivery::order::Order;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::reply::{Lost, Reply};
use crate::engine::testing::{Fixture, Script, delivery, done, event, event_id, policy};

/// One try: the event, when it began, when it ended, whether it was taken.
#[derive(Clone, Debug)]
struct Try {
    key: String,
    began: Instant,
    ended: Option<Instant>,
    taken: bool,
}

type Tries = Arc<Mutex<Vec<Try>>>;

fn config() -> OperationConfig {
    let mut config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), true);
    let usual = policy(OnLapse::Resume);
    let retry = Schedule::try_new(20, Duration::from_secs(2), Duration::from_secs(2), None).unwrap();
    config.policy =
        Policy::try_new(usual.lease(), usual.retention(), OnLapse::Resume, usual.keep(), retry).unwrap();
    config
}

/// A target that takes a while for each, and answers what `play` says to this try of this event.
fn target(tries: &Tries, play: fn(&str, u32) -> Reply) -> Operation {
    let tries = Arc::clone(tries);
    let script = Script::of_records(move |record: Arc<Record>| {
        let (key, attempt) = (record.request().key().as_str().to_owned(), record.attempt());
        let place = {
            let mut tries = tries.lock();
            tries.push(Try { key: key.clone(), began: Instant::now(), ended: None, taken: false });
            tries.len() - 1
        };
        let tries = Arc::clone(&tries);
        async move {
            sleep(Duration::from_millis(u64::from(attempt) * 7 + key.len() as u64)).await;
            let reply = play(&key, attempt);
            let mut tries = tries.lock();
            tries[place].ended = Some(Instant::now());
            tries[place].taken = matches!(reply, Reply::Answered { .. });
            reply
        }
    });
    Operation::scripted(config(), script)
}

/// Takes an event in, as a door does.
async fn accept(fixture: &Fixture, key: &str, value: &str) -> Arc<Record> {
    let accepted = fixture.engine.file(&event(&config(), key, b"{}", Some(value))).await.unwrap();
    let Accepted::Accepted(record) = accepted else { panic!("{key} is new") };
    fixture.engine.after(record.times().created).await;
    record
}

/// Events were delivered one at a time for each value, and each before the next of it was tried at all.
fn in_order(tries: &[Try], expected: &HashMap<String, Vec<String>>) {
    for (value, keys) in expected {
        let of_value: Vec<&Try> = tries.iter().filter(|one| keys.contains(&one.key)).collect();
        for pair in of_value.windows(2) {
            assert!(pair[0].ended.unwrap() <= pair[1].began, "{value}: two at a time: {pair:?}");
        }
        let mut order: Vec<&String> = of_value.iter().map(|one| &one.key).collect();
        order.dedup();
        assert_eq!(order, keys.iter().collect::<Vec<_>>(), "{value}");
        let taken: Vec<&String> = of_value.iter().filter(|one| one.taken).map(|one| &one.key).collect();
        assert_eq!(taken, keys.iter().collect::<Vec<_>>(), "{value}: each once");
    }
}

/// Takes so many events of so many values in, by turns; their keys, by value.
async fn accept_many(fixture: &Fixture, values: usize, each: usize) -> HashMap<String, Vec<String>> {
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..each {
        for value in 0..values {
            let (key, value) = (format!("v{value}-{number}"), format!("order-{value}"));
            accept(fixture, &key, &value).await;
            keys.entry(value).or_default().push(key);
        }
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn two_engines_over_one_store_keep_the_order_of_each_value_under_retries() {
    let fails = |key: &str, attempt: u32| {
        let failures = if key.len() > 4 { 2 } else { 3 };
        if attempt <= failures { Reply::lost(Lost::Answer, "cut") } else { done() }
    };
    let tries = Tries::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let one = Fixture::over(Arc::clone(&store), vec![target(&tries, fails)]);
    let other = Fixture::over(Arc::clone(&store), vec![target(&tries, fails)]);
    let completed = || one.told.count(What::Completed) + other.told.count(What::Completed);
    let keys = accept_many(&one, 3, 12).await;
    one.engine.start(8);
    one.told.wait(What::Completed, 1).await;
    other.engine.start(8);
    while completed() < 12 {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(one.engine.stop(Duration::from_secs(10)).await);
    while completed() < 36 {
        sleep(Duration::from_millis(100)).await;
    }
    in_order(&tries.lock(), &keys);
    assert!(other.told.count(What::Completed) > 0, "both had a part");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_has_left_is_delivered_before_what_came_after_it() {
    let tries = Tries::default();
    let fixture = Fixture::new(vec![target(&tries, |_, _| done())]);
    let first = accept(&fixture, "first", "a").await;
    let second = accept(&fixture, "second", "a").await;
    // The process dies here, with the claim of the first.
    let taken = fixture.engine.ledger().take(&first).await.unwrap();
    assert!(matches!(taken, Taken::Granted(_)));
    drop(taken);
    let began = Instant::now();
    fixture.engine.start(4);
    fixture.told.wait(What::Completed, 2).await;
    let keys = HashMap::from([("a".to_owned(), vec!["first".to_owned(), "second".to_owned()])]);
    in_order(&tries.lock(), &keys);
    assert!(tries.lock()[0].began - began >= Duration::from_secs(2), "not before its lease had lapsed");
    let second = fixture.store.load(second.id()).await.unwrap().value.unwrap();
    assert_eq!(second.attempt(), 1, "waiting has spent no try");
}

#[tokio::test(start_paused = true)]
async fn one_value_that_waits_holds_up_no_other_and_spends_no_try() {
    let tries = Tries::default();
    let stuck = |key: &str, _| {
        let asked = Some(Duration::from_secs(3_600));
        if key.starts_with("a-") {
            Reply::Lost { how: Lost::Inconclusive, detail: "503".into(), retry_after: asked }
        } else {
            done()
        }
    };
    let fixture = Fixture::new(vec![target(&tries, stuck)]);
    fixture.engine.start(2);
    // More than the dispatcher takes at once.
    for number in 0..100 {
        accept(&fixture, &format!("a-{number}"), "a").await;
    }
    fixture.told.wait(What::Retried, 1).await;
    let began = Instant::now();
    for number in 0..20 {
        accept(&fixture, &format!("b-{number}"), &format!("b-{}", number % 5)).await;
    }
    fixture.told.wait(What::Completed, 20).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let of_a: Vec<_> = tries.lock().iter().filter(|one| one.key.starts_with("a-")).cloned().collect();
    assert_eq!(of_a.len(), 1, "{of_a:?}");
    let waits = fixture.store.load(event_id("a-7")).await.unwrap().value.unwrap();
    assert_eq!((waits.state().name(), waits.attempt()), (StateName::Pending, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_stands_in_nobodys_way() {
    let tries = Tries::default();
    let fixture = Fixture::new(vec![target(&tries, |key, _| {
        if key == "first" {
            Reply::NotExecuted { detail: "410".into(), retry_after: None, permanent: true }
        } else {
            done()
        }
    })]);
    accept(&fixture, "first", "a").await;
    accept(&fixture, "second", "a").await;
    fixture.engine.start(4);
    fixture.told.wait(What::Completed, 1).await;
    assert_eq!(fixture.told.count(What::Dead), 1);
    let keys: Vec<String> = tries.lock().iter().map(|one| one.key.clone()).collect();
    assert_eq!(keys, ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn of_two_claims_of_one_value_the_second_steps_back_before_it_sends_anything() {
    let tries = Tries::default();
    let fixture = Fixture::new(vec![target(&tries, |_, _| done())]);
    let first = accept(&fixture, "first", "a").await;
    let second = accept(&fixture, "second", "a").await;
    // Both looked at the same moment, and both saw that it was their turn.
    let ledger = fixture.engine.ledger();
    let Taken::Granted(late) = ledger.take(&second).await.unwrap() else { panic!("it is due") };
    let order = Order::of(&target(&tries, |_, _| done()), &first).unwrap();
    assert!(fixture.engine.is_alone(&late, &order).await.unwrap());
    let Taken::Granted(early) = ledger.take(&first).await.unwrap() else { panic!("it is due") };
    assert!(!fixture.engine.is_alone(&late, &order).await.unwrap());
    assert!(!fixture.engine.is_alone(&early, &order).await.unwrap());
    assert!(!fixture.engine.run_taken(late, Instant::now(), Some(&order)).await);
    assert_eq!(tries.lock().len(), 0, "nothing was sent");
    let back = fixture.store.load(second.id()).await.unwrap().value.unwrap();
    assert_eq!(back.state().name(), StateName::Pending);
    assert!(fixture.engine.run_taken(early, Instant::now(), Some(&order)).await);
    assert_eq!(tries.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_after_an_answer_was_created_later() {
    let fixture = Fixture::new(vec![]);
    let mut last = None;
    for number in 0..50 {
        let created = accept(&fixture, &format!("evt_{number}"), "a").await.times().created;
        assert!(last.is_none_or(|last| last < created), "{last:?} {created:?}");
        last = Some(created);
    }
}

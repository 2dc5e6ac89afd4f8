//! Targets that fail, and are left alone for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use semel_core::id::Lane;
use tokio::time::Instant;

use crate::engine::delivery::CircuitState;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::reply::{Lost, Reply};
use crate::engine::testing::{Fixture, Script, delivery, done, event, event_id};
use crate::limits;

/// Tries of which the target fails the first so many; when they began.
fn failing(failures: u32) -> (Script, Arc<Mutex<Vec<Instant>>>) {
    let (left, begun) = (Arc::new(AtomicU32::new(failures)), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&begun);
    let script = Script::new(move |_| {
        kept.lock().push(Instant::now());
        let fails =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        std::future::ready(if fails { Reply::lost(Lost::Answer, "cut") } else { done() })
    });
    (script, begun)
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_left_alone_then_given_one_event_and_then_all() {
    let (script, begun) = failing(limits::CIRCUIT_FAILURES + 1);
    let config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), false);
    let fixture = Fixture::new(vec![Operation::scripted(config.clone(), script)]);
    let keys: Vec<String> = (0..40).map(|number| format!("evt_{number}")).collect();
    for key in &keys {
        fixture.engine.file(&event(&config, key, b"{}", None)).await.unwrap();
    }
    // One after the other, so that what begins after an end can be told from what was under way.
    fixture.engine.start(1);
    fixture.told.wait_circuits(1).await;
    let opened = Instant::now();
    assert_eq!(begun.lock().len(), limits::CIRCUIT_FAILURES as usize);
    fixture.told.wait(What::Completed, keys.len()).await;
    let states = [
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Closed,
    ];
    assert_eq!(fixture.told.circuits(), states);
    let begun = begun.lock().clone();
    let after: Vec<_> = begun.iter().map(|begun| begun.saturating_duration_since(opened)).collect();
    let trial = after[limits::CIRCUIT_FAILURES as usize];
    assert!(trial >= limits::CIRCUIT_FIRST, "{trial:?}: nothing went to it in between");
    let second = after[limits::CIRCUIT_FAILURES as usize + 1];
    assert!(second >= trial + limits::CIRCUIT_FIRST * 2, "{second:?}: twice as long");
    assert_eq!(
        begun.len(),
        keys.len() + limits::CIRCUIT_FAILURES as usize + 1,
        "no try was spent but on those"
    );
    for key in &keys {
        let record = fixture.store.load(event_id(key)).await.unwrap().value.unwrap();
        assert!(record.outcome().is_some(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_circuit_spends_no_try_and_is_not_written() {
    let (script, _) = failing(u32::MAX);
    let config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), false);
    let fixture = Fixture::new(vec![Operation::scripted(config.clone(), script)]);
    fixture.engine.start(4);
    for number in 0..limits::CIRCUIT_FAILURES {
        let key = format!("evt_{number}");
        fixture.engine.file(&event(&config, &key, b"{}", None)).await.unwrap();
    }
    fixture.told.wait_circuits(1).await;
    fixture.engine.file(&event(&config, "late", b"{}", None)).await.unwrap();
    let before = fixture.store.load(event_id("late")).await.unwrap().value.unwrap();
    tokio::time::sleep(limits::CIRCUIT_FIRST / 2).await;
    let after = fixture.store.load(event_id("late")).await.unwrap().value.unwrap();
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_single_events_for_good_works_and_its_circuit_stays_closed() {
    let script = Script::new(|_| {
        let detail = "the target answered 410".to_owned();
        std::future::ready(Reply::NotExecuted { detail, retry_after: None, permanent: true })
    });
    let config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), false);
    let fixture = Fixture::new(vec![Operation::scripted(config.clone(), script)]);
    fixture.engine.start(4);
    let number = limits::CIRCUIT_FAILURES as usize * 3;
    for key in 0..number {
        fixture.engine.file(&event(&config, &key.to_string(), b"{}", None)).await.unwrap();
    }
    fixture.told.wait(What::Dead, number).await;
    assert_eq!(fixture.told.circuits(), []);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_holds_up_no_other() {
    let (script, _) = failing(u32::MAX);
    let config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), false);
    let mut other = config.clone();
    other.name = semel_core::Operation::try_new("webhook:other/default").unwrap();
    other.lane = Lane::try_new("webhook:other/default").unwrap();
    let well = Operation::scripted(other.clone(), Script::new(|_| std::future::ready(done())));
    let fixture = Fixture::new(vec![Operation::scripted(config.clone(), script), well]);
    fixture.engine.start(4);
    for number in 0..40 {
        fixture.engine.file(&event(&config, &format!("evt_{number}"), b"{}", None)).await.unwrap();
    }
    fixture.told.wait_circuits(1).await;
    let began = Instant::now();
    for number in 0..40 {
        fixture.engine.file(&event(&other, &format!("other_{number}"), b"{}", None)).await.unwrap();
    }
    fixture.told.wait(What::Completed, 40).await;
    assert!(began.elapsed() < limits::CIRCUIT_FIRST, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_read_again_closes_all_circuits() {
    let (script, _) = failing(limits::CIRCUIT_FAILURES);
    let config = delivery(&"http://127.0.0.1:1/".parse().unwrap(), false);
    let fixture = Fixture::new(vec![Operation::scripted(config.clone(), script)]);
    fixture.engine.start(1);
    for number in 0..limits::CIRCUIT_FAILURES {
        fixture.engine.file(&event(&config, &number.to_string(), b"{}", None)).await.unwrap();
    }
    fixture.told.wait_circuits(1).await;
    fixture.engine.reload(&[]);
    assert_eq!(fixture.told.circuits(), [CircuitState::Open, CircuitState::Closed]);
}

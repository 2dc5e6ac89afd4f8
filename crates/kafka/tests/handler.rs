//! What becomes of an event, without a broker: what its ledger holds of it decides.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use semel_core::Ledger;
use semel_core::command::Claimed;
use semel_kafka::{CloudEvent, Config, Conflicts, Deduplicated, Delivered, HandlerError, Message, Reason};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;

const TOPIC: &str = "orders";

fn ledger() -> Ledger {
    Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy))
}

fn config() -> Config {
    let pause = Duration::from_millis(1);
    Config::new("order-service", TOPIC, "group").pauses(pause, pause)
}

fn event(data: &str) -> CloudEvent {
    CloudEvent::new("e-1", "/shop", "placed")
        .expect("it has all it needs")
        .with_data("application/json", data.to_owned())
}

/// A handler that fails as it is told, and how often it ran.
fn failing(ledger: &Ledger, config: Config, error: fn() -> HandlerError) -> (Deduplicated, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let handler = Deduplicated::try_new(ledger.clone(), config, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Err(error()) }
    });
    (handler.expect("the configuration is one"), runs)
}

fn letter(delivered: Delivered) -> (Reason, String, u32) {
    match delivered {
        Delivered::DeadLetter(letter) => (letter.reason, letter.error, letter.attempts),
        other => panic!("{other:?}"),
    }
}

/// A process that claims the event and dies of it.
async fn dies_of(ledger: &Ledger, handler: &Deduplicated, message: &Message) {
    loop {
        let request = Arc::new(handler.request(message).unwrap());
        match ledger.claim(request, None).await.unwrap() {
            Claimed::Granted(claim) => return drop(claim),
            Claimed::Busy { record, .. } => {
                let waited = ledger.wait(record.id(), record.version(), Duration::from_millis(50)).await;
                drop(waited.unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_event_that_kills_its_process_each_time_is_put_aside_when_its_tries_are_spent() {
    let ledger = ledger();
    let config = config().attempts(2).lease(Duration::from_millis(100));
    let (handler, runs) = failing(&ledger, config, || panic!("it is not run any more"));
    let message = event("{}").to_message(TOPIC);
    dies_of(&ledger, &handler, &message).await;
    dies_of(&ledger, &handler, &message).await;
    let (reason, error, attempts) = letter(handler.handle_message(&Arc::new(message)).await);
    assert_eq!((reason, attempts), (Reason::Failed, 2));
    assert_eq!(error, "its tries are spent, and the last one had no end");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    // Whoever meets it after a crash before it was sent sends it.
    assert_eq!(letter(handler.handle(&event("{}")).await).0, Reason::Rejected);
}

#[tokio::test]
async fn at_most_once_only_what_says_that_nothing_was_done_is_tried_again() {
    let (handler, runs) = failing(&ledger(), config().at_most_once(), || "who knows".into());
    assert_eq!(letter(handler.handle(&event("{}")).await), (Reason::Unknown, "who knows".to_owned(), 1));
    assert_eq!(letter(handler.handle(&event("{}")).await).0, Reason::Unknown);
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    let config = config().at_most_once().attempts(3);
    let (handler, runs) = failing(&ledger(), config, || HandlerError::not_executed("nothing was sent"));
    let (reason, error, attempts) = letter(handler.handle(&event("{}")).await);
    assert_eq!((reason, &*error, attempts), (Reason::Failed, "nothing was sent", 3));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_producer_that_draws_an_id_twice_loses_no_event_unless_that_is_wanted() {
    for (conflicts, expected) in
        [(Conflicts::DeadLetter, Some(Reason::Conflict)), (Conflicts::Duplicate, None)]
    {
        let config = config().conflicts(conflicts);
        let handler = Deduplicated::try_new(ledger(), config, |_, _| async { Ok(()) }).unwrap();
        assert_eq!(handler.handle(&event(r#"{"a":1,"b":2}"#)).await, Delivered::Handled);
        assert_eq!(handler.handle(&event(r#"{ "b": 2, "a": 1 }"#)).await, Delivered::Duplicate, "the same");
        let other = handler.handle(&event(r#"{"a":2}"#)).await;
        match expected {
            Some(reason) => assert_eq!(letter(other).0, reason),
            None => assert_eq!(other, Delivered::Duplicate),
        }
    }
}

#[tokio::test]
async fn a_handler_that_has_no_end_within_its_time_has_failed() {
    let config = config().attempts(2).handler_time(Duration::from_millis(10));
    let handler = Deduplicated::try_new(ledger(), config, |_, _| std::future::pending()).unwrap();
    let (reason, error, attempts) = letter(handler.handle(&event("{}")).await);
    assert_eq!((reason, attempts), (Reason::Failed, 2));
    assert_eq!(error, "the handler had no end within its time");
}

#[tokio::test]
async fn whoever_waits_for_a_handler_may_go_away_and_it_goes_on_l11() {
    let (begun, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (tells, waits) = (Arc::clone(&begun), Arc::clone(&go));
    let handler = Deduplicated::try_new(ledger(), config(), move |_, _| {
        let (tells, waits) = (Arc::clone(&tells), Arc::clone(&waits));
        async move {
            tells.notify_one();
            waits.notified().await;
            Ok(())
        }
    });
    let handler = handler.unwrap();
    let event = event("{}");
    tokio::select! {
        delivered = handler.handle(&event) => panic!("{delivered:?}"),
        () = begun.notified() => {}
    }
    go.notify_one();
    assert_eq!(handler.handle(&event).await, Delivered::Duplicate);
}

//! Report mode: nothing is changed, and what would have happened is counted.

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use semel_conformance::faulty::Fault;
use semel_core::ledger::LedgerError;
use semel_tower::{Caller, Config, Event, Metrics, Observer, RouteOptions, What};
use tokio::sync::Notify;

use crate::harness::{Bench, post, request, shared};

/// What was told, with the route; but for what every request begins with.
#[derive(Default)]
struct Told {
    events: Mutex<Vec<(String, What, bool)>>,
    changed: Notify,
}

impl Observer for Told {
    fn happened(&self, event: &Event<'_>) {
        if matches!(event.what, What::Asked { .. }) {
            return;
        }
        self.events.lock().push((event.route.to_owned(), event.what, event.enforced));
        self.changed.notify_waiters();
    }

    fn storage_failed(&self, _: &LedgerError) {
        self.changed.notify_waiters();
    }

    fn heartbeat_failed(&self, _: &LedgerError) {}
}

/// A layer that reports, and waits until it has said what it has to say about each request.
struct Reporting {
    bench: Bench,
}

impl Reporting {
    fn new(config: Config) -> Self {
        Self { bench: Bench::new(config.enforce(false)) }
    }

    async fn send(&self, request: http::Request<semel_tower::Body>) -> u16 {
        let answer = self.bench.send(request).await;
        assert!(
            answer.header("idempotent-replayed").is_none() && answer.header("idempotency-expires").is_none()
        );
        while !self.bench.tasks().is_empty() {
            tokio::task::yield_now().await;
        }
        answer.status
    }
}

#[tokio::test]
async fn report_mode_changes_nothing_and_counts_what_would_have_happened() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let config = shared("orders")
        .metrics(metrics)
        .max_body_size(100)
        .route("POST /pay", RouteOptions::new().require_key(true))
        .unwrap();
    let reporting = Reporting::new(config);
    let pay = |headers: &[(&str, &str)]| request(Method::POST, "/pay", headers, "{}");
    for asked in [
        post("a", r#"{"n":1}"#),
        post("a", r#"{"n":1}"#),
        post("a", r#"{"n":2}"#),
        post("bad key", "{}"),
        post(
            "large",
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789x",
        ),
        pay(&[]),
        request(Method::POST, "/orders", &[], "{}"),
    ] {
        assert_eq!(reporting.send(asked).await, 201);
    }
    assert_eq!(reporting.bench.runs(), 7, "every request runs, whatever its key");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for (route, result, times) in [
        ("*", "run", 1),
        ("*", "replayed", 1),
        ("*", "mismatch", 1),
        ("*", "key_invalid", 1),
        ("*", "refused", 1),
        ("POST /pay", "key_missing", 1),
    ] {
        let line = format!(
            "semel_reports_total{{service=\"orders\",route=\"{route}\",result=\"{result}\"}} {times}"
        );
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    for (route, key, times) in
        [("*", "present", 5), ("*", "missing", 1), ("POST /pay", "missing", 1), ("POST /pay", "present", 0)]
    {
        let line = format!("semel_keys_total{{service=\"orders\",route=\"{route}\",key=\"{key}\"}} {times}");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    assert!(text.contains("idempotency_misses_total{service=\"orders\"} 0"), "{text}");
}

#[tokio::test]
async fn what_was_reported_is_not_promised_once_it_is_enforced() {
    let reporting = Reporting::new(shared("orders"));
    reporting.send(post("k", "{}")).await;
    let enforced = reporting.bench.enforced(shared("orders"));
    let first = enforced.send(post("k", "{}")).await;
    assert_eq!((first.status, first.is_replay()), (201, false), "not 410, though the report knows the key");
    assert!(enforced.send(post("k", "{}")).await.is_replay());
}

#[tokio::test]
async fn a_report_never_stands_in_a_requests_way() {
    let told = Arc::new(Told::default());
    let nobody = |_: &http::request::Parts| Caller::Nobody;
    let reporting = Reporting::new(shared("orders").metrics(Arc::clone(&told)).caller(nobody));
    assert_eq!(reporting.send(post("k", "{}")).await, 201);
    assert_eq!(told.events.lock()[..], [("*".to_owned(), What::Refused, false)]);
    let reporting = Reporting::new(shared("orders").metrics(Arc::clone(&told)));
    reporting.bench.store.script(&[Fault::Refused, Fault::Refused]);
    assert_eq!(reporting.send(post("k", "{}")).await, 201, "the store is down");
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_that_comes_before_the_report_of_the_first_is_stored_is_a_replay_all_the_same() {
    for round in 0..20 {
        let told = Arc::new(Told::default());
        let bench = Bench::new(shared("orders").metrics(Arc::clone(&told)).enforce(false));
        bench.store.odds(semel_conformance::faulty::Odds { writes: 0, reads: 0, delays: 100 });
        for _ in 0..4 {
            bench.post("k").await;
        }
        bench.layer.drain(std::time::Duration::from_secs(20)).await;
        let events = told.events.lock();
        let count = |is: fn(&What) -> bool| events.iter().filter(|(_, what, _)| is(what)).count();
        let (run, replayed) =
            (count(|what| matches!(what, What::Claimed { .. })), count(|what| *what == What::Replayed));
        assert_eq!((run, replayed, events.len()), (1, 3, 4), "round {round}: {events:?}");
    }
}

#[tokio::test]
async fn a_duplicate_of_what_runs_and_one_of_what_was_not_kept_are_reported_as_such() {
    let (told, go) = (Arc::new(Told::default()), Arc::new(Notify::new()));
    let waiting = Arc::clone(&go);
    let config = shared("orders").metrics(Arc::clone(&told)).enforce(false);
    let bench = Bench::serving(config, move |run, request| {
        let go = Arc::clone(&waiting);
        let slow = request.headers()["idempotency-key"] == "slow" && run == 1;
        async move {
            if slow {
                go.notified().await;
            }
            crate::harness::reply(503, "")
        }
    });
    let first = tokio::spawn({
        let bench = bench.clone();
        async move { bench.post("slow").await }
    });
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    // So that the two replies are in different milliseconds of the store's clock.
    let began = bench.now();
    bench.post("slow").await;
    while bench.now().since(began) < std::time::Duration::from_millis(3) {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    first.await.unwrap();
    bench.post("free").await;
    bench.post("free").await;
    bench.layer.drain(std::time::Duration::from_secs(20)).await;
    let told = told.events.lock();
    let would: Vec<_> = told.iter().map(|(_, what, _)| matches!(what, What::Claimed { .. })).collect();
    assert_eq!(would.iter().filter(|ran| **ran).count(), 3, "{told:?}");
    assert_eq!(told.iter().filter(|(_, what, _)| *what == What::Busy).count(), 1, "{told:?}");
}

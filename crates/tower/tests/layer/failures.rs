//! When something goes wrong: the client leaves, the handler panics or hangs, the store does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::poll;
use http::{Request, Response};
use semel_conformance::faulty::Fault;
use semel_core::record::StateName;
use semel_core::{Ledger, Store};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Body, Config, IdempotencyLayer, OnLapse};
use tokio::sync::Notify;
use tower::{Service, ServiceExt as _};
use tower_layer::Layer as _;

use crate::harness::{Bench, created, post, reply, request, shared};

/// A service that waits for `go` in the middle of its work.
fn slow(config: Config) -> (Bench, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let service = Arc::clone(&go);
    let bench = Bench::serving(config, move |run, _| {
        let go = Arc::clone(&service);
        async move {
            go.notified().await;
            created(run)
        }
    });
    (bench, go)
}

#[tokio::test]
async fn the_client_disconnects_and_the_handler_is_not_cancelled_between_effect_and_record_l11() {
    let (bench, go) = slow(shared("orders"));
    let mut client = Box::pin(bench.post("k"));
    assert!(poll!(&mut client).is_pending());
    assert_eq!(bench.runs(), 1);
    drop(client);
    assert_eq!(bench.post("k").await.status, 409, "it goes on");
    go.notify_one();
    let mut retry = post("k", r#"{"amount":5}"#);
    retry.headers_mut().insert("prefer", "wait=10".parse().unwrap());
    let retry = bench.send(retry).await;
    assert_eq!((retry.status, retry.is_replay(), bench.runs()), (201, true, 1));
}

#[tokio::test]
async fn the_task_of_the_connection_is_aborted_and_the_work_goes_on_l11() {
    let (bench, go) = slow(shared("orders"));
    let client = tokio::spawn({
        let bench = bench.clone();
        async move { bench.post("k").await }
    });
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    go.notify_one();
    assert!(bench.layer.drain(Duration::from_secs(5)).await, "a shutdown waits for it");
    assert_eq!(bench.records().await[0].state().name(), StateName::Completed);
}

#[tokio::test]
async fn the_handler_throws_and_the_claim_is_settled_by_the_policy() {
    for (on_lapse, first, second, runs) in [
        (OnLapse::Resume, (500, "INTERNAL"), (201, ""), 2),
        (OnLapse::AtMostOnce, (502, "OUTCOME_UNKNOWN"), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN"), 1),
    ] {
        for at_once in [true, false] {
            let bench = Bench::serving(shared("orders").on_lapse(on_lapse), move |run, _| {
                assert!(!(at_once && run == 1), "before there is a future");
                async move {
                    tokio::task::yield_now().await;
                    assert!(run > 1, "after its effect, perhaps");
                    created(run)
                }
            });
            let thrown = bench.post("k").await;
            assert_eq!((thrown.status, thrown.code().as_str()), first, "{on_lapse:?}");
            assert!(
                !String::from_utf8_lossy(&thrown.body).contains("effect, perhaps"),
                "nothing of the inside"
            );
            let retry = bench.post("k").await;
            assert_eq!((retry.status, retry.code().as_str(), bench.runs()), (second.0, second.1, runs));
        }
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_judged_by_the_policy() {
    for (on_lapse, first, second) in [(OnLapse::Resume, 503, 201), (OnLapse::AtMostOnce, 502, 409)] {
        let bench = Bench::serving(shared("orders").on_lapse(on_lapse), |run, _| async move {
            if run > 1 {
                return created(run);
            }
            let pieces = futures_util::stream::iter([
                Ok(http_body::Frame::data(bytes::Bytes::from_static(b"half"))),
                Err(std::io::Error::other("reset")),
            ]);
            Response::new(Body::stream(http_body_util::StreamBody::new(pieces)))
        });
        let cut = bench.post("k").await;
        assert_eq!((cut.status, cut.code().as_str()), (first, "OUTCOME_UNKNOWN"));
        assert_eq!(cut.header("retry-after").is_some(), on_lapse == OnLapse::Resume);
        assert_eq!(bench.post("k").await.status, second);
    }
}

#[derive(Debug)]
struct Broke;

#[tokio::test]
async fn an_error_of_the_service_is_handed_on_and_judged_by_the_policy() {
    for (on_lapse, state) in
        [(OnLapse::Resume, StateName::Released), (OnLapse::AtMostOnce, StateName::Unknown)]
    {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(OsEntropy));
        let layer = IdempotencyLayer::try_new(ledger, shared("orders").on_lapse(on_lapse)).unwrap();
        let service =
            layer.layer(tower::service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Broke) }));
        let Broke = service.oneshot(post("k", "{}")).await.unwrap_err();
        let found = store.search(semel_core::query::Query::default(), None, 10).await.unwrap();
        assert_eq!(found.items[0].state, state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_ends_with_its_time_and_does_not_renew_for_ever() {
    for (on_lapse, first, second) in [(OnLapse::Resume, 503, 201), (OnLapse::AtMostOnce, 504, 409)] {
        let config = shared("orders").on_lapse(on_lapse).timeout(Duration::from_secs(20));
        let bench = Bench::serving(config.lock_timeout(Duration::from_secs(3)), |run, _| async move {
            if run == 1 {
                std::future::pending::<()>().await;
            }
            created(run)
        });
        let began = tokio::time::Instant::now();
        let hung = bench.post("k").await;
        assert_eq!((hung.status, began.elapsed().as_secs()), (first, 20));
        assert_eq!(bench.post("k").await.status, second);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_runs_longer_than_its_lease_keeps_it_by_heartbeats() {
    let lease = Duration::from_secs(3);
    let (bench, go) = slow(shared("orders").lock_timeout(lease));
    let first = tokio::spawn({
        let bench = bench.clone();
        async move { bench.post("k").await }
    });
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::time::sleep(lease / 2).await;
        assert_eq!(bench.post("k").await.status, 409, "the lease is held");
    }
    go.notify_one();
    assert_eq!((first.await.unwrap().status, bench.runs()), (201, 1));
}

#[tokio::test]
async fn l12_when_the_store_does_not_answer_nothing_runs_and_the_client_is_told_when_to_come_back() {
    for config in [shared("a"), shared("a").profile(semel_tower::Profile::Wms)] {
        let bench = Bench::new(config);
        bench.store.script(&[Fault::Refused]);
        let refused = bench.post("k").await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE"));
        assert_eq!((refused.header("retry-after"), bench.runs()), (Some("5"), 0));
        assert_eq!(bench.post("k").await.status, 201);
        let duplicate = bench.post("k").await;
        assert!(duplicate.is_replay(), "{duplicate:?}");
    }
}

#[tokio::test]
async fn l13_a_record_that_cannot_be_read_is_never_absent_and_nothing_runs() {
    let bench = Bench::new(shared("orders"));
    bench.post("k").await;
    bench.store.script(&[Fault::Corrupt]);
    let damaged = bench.post("k").await;
    assert_eq!((damaged.status, damaged.code().as_str(), bench.runs()), (500, "INTERNAL", 1));
    assert!(!String::from_utf8_lossy(&damaged.body).contains("checksum"), "nothing of the inside");
}

#[tokio::test(start_paused = true)]
async fn l12_an_outcome_that_cannot_be_stored_is_told_to_nobody_and_never_released() {
    let bench = Bench::new(shared("orders"));
    let mut down = vec![Fault::None];
    down.extend([Fault::Refused; 400]);
    bench.store.script(&down);
    let told = bench.post("k").await;
    assert_eq!((told.status, told.code().as_str()), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE"));
    assert_eq!(bench.records().await[0].state().name(), StateName::Running);
    bench.store.script(&[]);
    let mut retry = post("k", r#"{"amount":5}"#);
    retry.headers_mut().insert("prefer", "wait=30".parse().unwrap());
    let retry = bench.send(retry).await;
    assert_eq!(
        (retry.status, retry.is_replay(), bench.runs()),
        (201, true, 1),
        "stored in the background after all"
    );
}

#[tokio::test(start_paused = true)]
async fn l12_a_stream_whose_end_cannot_be_stored_does_not_begin() {
    let bench = Bench::serving(shared("orders"), |_, _| async {
        let mut response = reply(200, "data: 1\n\n");
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    });
    let mut down = vec![Fault::None];
    down.extend([Fault::Refused; 400]);
    bench.store.script(&down);
    let told = bench.post("k").await;
    assert_eq!((told.status, told.code().as_str()), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE"));
    assert!(!String::from_utf8_lossy(&told.body).contains("data: 1"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_given_back_and_the_retry_runs() {
    let bench = Bench::new(shared("orders"));
    // The write happens and nobody is told; and who looks is not answered.
    bench.store.script(&[Fault::LostAfter]);
    bench.store.reads_fail(1);
    let first = bench.post("k").await;
    assert_eq!((first.status, bench.runs()), (503, 0), "nothing runs on an unsettled claim");
    let claimed = bench.records().await.remove(0);
    bench.store.changed(claimed.id(), claimed.version(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(bench.post("k").await.status, 201);
    assert_eq!(bench.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_outlives_a_drain_is_left_to_its_policy() {
    for (on_lapse, state) in
        [(OnLapse::AtMostOnce, StateName::Unknown), (OnLapse::Resume, StateName::Running)]
    {
        let (bench, _go) = slow(shared("orders").on_lapse(on_lapse));
        let mut client = Box::pin(bench.post("k"));
        assert!(poll!(&mut client).is_pending());
        drop(client);
        assert!(!bench.layer.drain(Duration::from_secs(1)).await);
        assert_eq!(bench.records().await[0].state().name(), state, "{on_lapse:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_client_that_waited_and_has_gone_away() {
    let (bench, go) = slow(shared("orders"));
    let mut first = Box::pin(bench.post("k"));
    assert!(poll!(&mut first).is_pending());
    let waiting = || {
        let mut request = post("k", r#"{"amount":5}"#);
        request.headers_mut().insert("prefer", "wait=30".parse().unwrap());
        Box::pin(bench.send(request))
    };
    for mut waits in [waiting(), waiting()] {
        assert!(poll!(&mut waits).is_pending());
    }
    tokio::task::yield_now().await;
    assert_eq!(bench.tasks().len(), 1, "the first, and nobody else");
    go.notify_one();
    assert_eq!(first.await.status, 201);
}

/// A service that counts who asked whether it is ready, and is called only by who did.
#[derive(Debug)]
struct Strict {
    ready: bool,
    open: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    /// A clone has asked nobody.
    fn clone(&self) -> Self {
        Self { ready: false, open: Arc::clone(&self.open), calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<Body>> for Strict {
    type Response = Response<Body>;
    type Error = Broke;
    type Future = std::future::Ready<Result<Response<Body>, Broke>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        if !self.open.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been asked");
        let run = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(Ok(created(run)))
    }
}

#[tokio::test]
async fn the_service_that_said_it_is_ready_is_the_one_that_is_called() {
    let open = Arc::new(AtomicBool::new(false));
    let inner = Strict { ready: false, open: Arc::clone(&open), calls: Arc::default() };
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let layer = IdempotencyLayer::try_new(ledger, shared("orders")).unwrap();
    let mut service = layer.layer(inner);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let is_ready =
        |service: &mut _, cx: &mut Context<'_>| Service::<Request<Body>>::poll_ready(service, cx).is_ready();
    assert!(!is_ready(&mut service, &mut cx), "back pressure is passed on");
    open.store(true, Ordering::SeqCst);
    for (asked, status) in [
        (post("a", "{}"), 201),
        (post("a", "{}"), 201),
        (post("b", "{}"), 201),
        (request(http::Method::POST, "/", &[], ""), 201),
        (post("bad key", "{}"), 400),
    ] {
        assert!(is_ready(&mut service, &mut cx));
        assert_eq!(service.call(asked).await.unwrap().status(), status);
    }
    assert!(is_ready(&mut service, &mut cx));
    let first = service.call(post("c", "{}"));
    assert!(is_ready(&mut service, &mut cx), "one in flight does not hold up the next");
    let second = service.call(post("d", "{}"));
    assert_eq!(second.await.unwrap().status(), 201);
    assert_eq!(first.await.unwrap().status(), 201);
}

#[tokio::test]
async fn who_waits_for_a_duplicate_holds_no_place_in_the_service() {
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    let inner = tower::service_fn(move |request: Request<Body>| {
        let (slow, go) = (request.uri().path() == "/slow", Arc::clone(&waiting));
        async move {
            if slow {
                go.notified().await;
            }
            Ok::<_, Broke>(created(1))
        }
    });
    let inner = tower::limit::ConcurrencyLimit::new(inner, 2);
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let layer = IdempotencyLayer::try_new(ledger, shared("orders")).unwrap();
    let service = layer.layer(inner);
    let slow =
        || request(http::Method::POST, "/slow", &[("idempotency-key", "k"), ("prefer", "wait=20")], "");
    let first = tokio::spawn(service.clone().oneshot(slow()));
    tokio::task::yield_now().await;
    let second = tokio::spawn(service.clone().oneshot(slow()));
    tokio::task::yield_now().await;
    let other = service.oneshot(request(http::Method::POST, "/", &[("idempotency-key", "o")], "")).await;
    assert_eq!(other.unwrap().status(), 201, "of two places one is free");
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
    assert_eq!(second.await.unwrap().unwrap().headers()["idempotent-replayed"], "true");
}

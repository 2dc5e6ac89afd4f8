//! Many at once: one runs, whatever the rest does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use semel_conformance::faulty::Odds;
use semel_tower::OnLapse;

use crate::harness::{Bench, created, post, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_duplicates_at_once_one_runs_and_the_rest_is_told_so_l1_l7() {
    for round in 0..20 {
        let bench = Bench::serving(shared("orders"), |run, _| async move {
            tokio::task::yield_now().await;
            created(run)
        });
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let bench = bench.clone();
                tokio::spawn(async move {
                    let mut request = post("k", r#"{"amount":5}"#);
                    if client % 2 == 0 {
                        request.headers_mut().insert("prefer", "wait=10".parse().unwrap());
                    }
                    bench.send(request).await
                })
            })
            .collect();
        let (mut first, mut replays) = (0, 0);
        for client in clients {
            let answer = client.await.unwrap();
            match answer.status {
                201 if answer.is_replay() => replays += 1,
                201 => first += 1,
                409 => assert_eq!(answer.code(), "IDEMPOTENCY_CONCURRENT_REQUEST"),
                other => panic!("{other}: {answer:?}"),
            }
            assert!(answer.status == 409 || answer.body == "{\"run\":1}", "{answer:?}");
        }
        assert_eq!((first, bench.runs()), (1, 1), "round {round}");
        assert!(replays >= 31, "who waits is given the result: {replays}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_keys_with_duplicates_and_clients_that_leave_run_once_each_l11() {
    let effects: Arc<Vec<AtomicUsize>> = Arc::new((0..50).map(|_| AtomicUsize::new(0)).collect());
    let counted = Arc::clone(&effects);
    let bench = Bench::serving(shared("orders"), move |run, request| {
        let key: usize = request.headers()["idempotency-key"].to_str().unwrap().parse().unwrap();
        let effects = Arc::clone(&counted);
        async move {
            effects[key].fetch_add(1, Ordering::SeqCst);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            created(run)
        }
    });
    let mut clients = Vec::new();
    for client in 0..500 {
        let bench = bench.clone();
        clients.push(tokio::spawn(async move { bench.post(&(client % 50).to_string()).await }));
        if client % 3 == 0 {
            clients.swap_remove(clients.len() / 2).abort();
        }
    }
    for client in clients {
        let answer = client.await.unwrap();
        assert!([201, 409].contains(&answer.status), "{answer:?}");
    }
    bench.layer.drain(std::time::Duration::from_secs(10)).await;
    for (key, effects) in effects.iter().enumerate() {
        let ran = effects.load(Ordering::SeqCst);
        assert!(ran <= 1, "key {key} ran {ran} times");
    }
    assert!(bench.runs() >= 45, "and they did run: {}", bench.runs());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_random_makes_nothing_run_twice_at_most_once_l7_l12() {
    let mut ran = 0;
    for seed in 0..30 {
        let config = shared("orders").on_lapse(OnLapse::AtMostOnce);
        let bench = Bench::new(config);
        bench.store.odds(Odds { writes: 30 + seed % 40, reads: 20, delays: 50 });
        for _ in 0..6 {
            let answer = bench.post("k").await;
            assert!([201, 409, 503].contains(&answer.status), "{answer:?}");
        }
        bench.store.odds(Odds::default());
        bench.store.land().await;
        bench.post("k").await;
        assert!(bench.runs() <= 1, "seed {seed}: {} runs", bench.runs());
        ran += bench.runs();
    }
    assert!(ran >= 20, "mostly it runs all the same: {ran} of 30");
}

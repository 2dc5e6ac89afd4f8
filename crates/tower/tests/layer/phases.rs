//! Handlers in several phases: each done once over all attempts, and resumed where one was cut.

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post as on_post;
use http::StatusCode;
use semel_core::command::Claimed as Asked;
use semel_core::id::{Key, Namespace, Operation, Scope, Tenant};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::record::StateName;
use semel_core::request::Fingerprint;
use semel_core::{Ledger, Request, Timestamp};
use semel_runtime::OsEntropy;
use semel_runtime::phases::STARTED;
use semel_stores::clock::SteppedClock;
use semel_stores::memory::MemoryStore;
use semel_tower::{IdempotencyLayer, PhaseError, Phases};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::harness::{post, read, request, shared};

const LEASE: Duration = Duration::from_secs(60);
const ORDER: [&str; 4] = ["validated", "inventory_reserved", "order_created", "notification_sent"];

/// Claims of one key after each other, over a store whose clock stands: what a process leaves when it is killed.
struct Bench {
    clock: SteppedClock,
    ledger: Ledger,
}

impl Bench {
    fn new() -> Self {
        let clock = SteppedClock::at(Timestamp::from_millis(1_000_000));
        let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
        Self { clock, ledger: Ledger::new(store, Arc::new(OsEntropy)) }
    }

    /// Another attempt, after the one before was killed.
    async fn attempt(&self) -> Phases {
        self.clock.advance(LEASE);
        let policy =
            Policy::try_new(LEASE, LEASE * 60, OnLapse::Resume, Keep::Deterministic, Schedule::ONCE).unwrap();
        let scope =
            Scope { namespace: Namespace::Http, tenant: Tenant::try_new("orders").unwrap(), subject: None };
        let fingerprint = Fingerprint { version: 1, digest: [7; 32] };
        let (key, operation) = (Key::try_new("k").unwrap(), Operation::try_new("POST /orders").unwrap());
        let asked = Request::new(scope, key, operation, fingerprint, policy);
        match self.ledger.claim(Arc::new(asked), None).await.unwrap() {
            Asked::Granted(claim) => Phases::over(&self.ledger, &claim, CancellationToken::new()),
            other => panic!("{other:?}"),
        }
    }
}

/// How often each phase has had its effect.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<Vec<String>>>);

impl Effects {
    fn of(&self, name: &str) -> Ready<Result<String, String>> {
        self.0.lock().unwrap().push(name.to_owned());
        ready(Ok(format!("{name} is done")))
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The requirement's four phases, up to and without the phase of this number: there the process is killed, with or
/// without the effect of that.
async fn order(
    phases: &Phases,
    effects: &Effects,
    killed_in: usize,
    after_effect: bool,
) -> Result<Vec<String>, PhaseError<String>> {
    let mut given = Vec::new();
    for (number, name) in ORDER.into_iter().enumerate() {
        if number == killed_in {
            if after_effect {
                effects.of(name).await.map_err(PhaseError::Work)?;
            }
            return Ok(given);
        }
        given.push(phases.phase(name, || effects.of(name)).await?);
    }
    phases.finish()?;
    Ok(given)
}

#[tokio::test]
async fn the_four_phases_of_an_order_that_is_killed_after_each_in_turn_are_each_run_once() {
    for killed_in in 0..ORDER.len() {
        let (bench, effects) = (Bench::new(), Effects::default());
        let first = order(&bench.attempt().await, &effects, killed_in, false).await.unwrap();
        assert_eq!(first.len(), killed_in);
        let whole = order(&bench.attempt().await, &effects, ORDER.len(), false).await.unwrap();
        assert_eq!(whole, ORDER.map(|name| format!("{name} is done")), "stored results are given again");
        assert_eq!(effects.seen(), ORDER, "killed before phase {killed_in}");
    }
}

#[tokio::test]
async fn the_phase_that_was_cut_is_run_again_under_the_same_downstream_key() {
    for (killed_in, cut) in ORDER.into_iter().enumerate() {
        let (bench, effects) = (Bench::new(), Effects::default());
        let first = bench.attempt().await;
        order(&first, &effects, killed_in, true).await.unwrap();
        let second = bench.attempt().await;
        order(&second, &effects, ORDER.len(), false).await.unwrap();
        assert_eq!(effects.seen().iter().filter(|name| *name == cut).count(), 2, "{cut}");
        assert_eq!(effects.seen().len(), ORDER.len() + 1, "and no other");
        let keys = [&first, &second].map(|phases| phases.downstream_key(cut).unwrap().unwrap());
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[0].len(), 32);
        assert_ne!(keys[0], first.downstream_key("another").unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_phase_marked_once_that_was_cut_is_not_run_again_and_the_record_is_unknown() {
    let (bench, effects) = (Bench::new(), Effects::default());
    let first = bench.attempt().await;
    let cut = Arc::new(tokio::sync::Notify::new());
    let charge = || async {
        effects.of("charged").await?;
        cut.notified().await;
        Ok::<_, String>(String::new())
    };
    // Killed between the effect and its checkpoint.
    {
        let once = first.once("charged", charge);
        tokio::pin!(once);
        while effects.seen().is_empty() {
            assert!(futures_util::poll!(&mut once).is_pending());
        }
    }
    let second = bench.attempt().await;
    let found = second.once("charged", || effects.of("charged")).await;
    assert!(matches!(found, Err(PhaseError::Unknown)), "{found:?}");
    assert_eq!(effects.seen(), ["charged"]);
    let records = bench.ledger.store().search(semel_core::query::Query::default(), None, 9).await.unwrap();
    assert_eq!(records.items[0].state, StateName::Unknown);
}

#[tokio::test]
async fn a_phase_marked_once_that_was_done_gives_what_it_gave() {
    let (bench, effects) = (Bench::new(), Effects::default());
    let first = bench.attempt().await;
    let done = first.once("charged", || effects.of("charged")).await.unwrap();
    first.phase("told", || effects.of("told")).await.unwrap();
    let second = bench.attempt().await;
    assert_eq!(second.once("charged", || effects.of("charged")).await.unwrap(), done);
    second.phase("told", || effects.of("told")).await.unwrap();
    second.finish::<String>().unwrap();
    assert_eq!(effects.seen(), ["charged", "told"]);
}

/// What a retry whose phases are not those of the first attempt is told.
async fn told(first: &[&str], second: &[&str]) -> String {
    let (bench, effects) = (Bench::new(), Effects::default());
    let run = async |phases: &Phases, names: &[&str]| {
        for name in names {
            let ran = match name.strip_suffix('!') {
                Some(name) => phases.once(name, || effects.of(name)).await,
                None => phases.phase(name, || effects.of(name)).await,
            };
            ran?;
        }
        phases.finish::<String>()
    };
    run(&bench.attempt().await, first).await.unwrap();
    let before = effects.seen().len();
    let told = run(&bench.attempt().await, second).await;
    if told.is_err() {
        assert_eq!(effects.seen().len(), before, "nothing was run");
    }
    told.map_or_else(|error| error.to_string(), |()| "the same".to_owned())
}

#[tokio::test]
async fn a_changed_list_of_phases_is_an_error_and_not_a_silent_skip() {
    for (first, second, expected) in [
        (&["a", "b"][..], &["a", "b", "c"][..], "the same"),
        (&["a", "b"], &["b", "a"], "an earlier attempt had phase `a` where this one has phase `b`"),
        (&["a", "b"], &["a", "x"], "an earlier attempt had phase `b` where this one has phase `x`"),
        (&["a", "b"], &["a"], "an earlier attempt had phase `b` where this one has the end"),
        (&["a"], &["a", "a"], "this attempt has had a phase of this name"),
        (&["a"], &["a!"], "an earlier attempt had this phase with another mark"),
        (&["a!"], &["a"], "an earlier attempt had this phase with another mark"),
        (&["a!", "b"], &["a!", "b"], "the same"),
        (&["a"], &["a:started"], "the name of a phase must not end in `:started`"),
        (&["a"], &[""], "phase must not be empty"),
    ] {
        assert_eq!(told(first, second).await, expected, "{first:?} and {second:?}");
    }
    assert_eq!(STARTED, ":started");
}

#[tokio::test]
async fn a_result_that_became_another_thing_and_one_that_is_too_large_are_errors() {
    let bench = Bench::new();
    let first = bench.attempt().await;
    first.phase("a", || async { Ok::<_, String>("text".to_owned()) }).await.unwrap();
    let large = first.phase("b", || async { Ok::<_, String>("x".repeat(65 * 1024)) }).await;
    assert!(matches!(large, Err(PhaseError::Invalid(_))), "{large:?}");
    let second = bench.attempt().await;
    let other = second.phase("a", || async { Ok::<u32, String>(7) }).await;
    let PhaseError::Result(why) = other.unwrap_err() else { panic!() };
    assert!(why.starts_with("what phase `a` gave in an earlier attempt is something else"), "{why}");
    assert!(!why.contains("text"), "{why}");
}

#[tokio::test]
async fn a_phase_that_fails_is_not_checkpointed_and_two_at_once_are_refused() {
    let (bench, effects) = (Bench::new(), Effects::default());
    let phases = bench.attempt().await;
    let failed = phases.phase("a", || async { Err::<(), _>("no") }).await;
    assert!(matches!(failed, Err(PhaseError::Work("no"))));
    phases.phase("a", || effects.of("a")).await.unwrap();
    let outer = phases.phase("b", || async {
        let inner = phases.phase("c", || effects.of("c")).await;
        assert!(inner.unwrap_err().to_string().contains("has not ended"));
        Ok::<_, String>(())
    });
    outer.await.unwrap();
    assert_eq!(effects.seen(), ["a"]);
}

#[tokio::test]
async fn a_holder_that_was_overtaken_begins_no_further_phase() {
    let (bench, effects) = (Bench::new(), Effects::default());
    let (stale, fresh) = (bench.attempt().await, bench.attempt().await);
    fresh.phase("a", || effects.of("a")).await.unwrap();
    // It runs what it has begun; that it is done is not taken down.
    let late = stale.phase("a", || effects.of("a")).await;
    assert!(matches!(late, Err(PhaseError::Lost)), "{late:?}");
    fresh.phase("b", || effects.of("b")).await.unwrap();
    assert_eq!(effects.seen(), ["a", "a", "b"]);
}

/// A service whose third phase fails until it is mended, with `Phases` as an argument of its handler.
fn service(broken: Arc<AtomicU32>, effects: Effects) -> (Router, Ledger) {
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let layer = IdempotencyLayer::try_new(ledger.clone(), shared("orders")).unwrap();
    let create = move |phases: Phases| async move {
        for name in ORDER {
            let broken = Arc::clone(&broken);
            let work = || async {
                if name == "order_created" && broken.load(Ordering::SeqCst) > 0 {
                    broken.fetch_sub(1, Ordering::SeqCst);
                    return Err(StatusCode::SERVICE_UNAVAILABLE);
                }
                effects.of(name).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
            };
            phases.phase(name, work).await?;
        }
        phases.finish()?;
        Ok::<_, PhaseError<StatusCode>>((StatusCode::CREATED, "ORD-12345"))
    };
    (Router::new().route("/orders", on_post(create)).layer(layer), ledger)
}

#[tokio::test]
async fn a_retry_under_the_layer_goes_on_where_the_first_attempt_stopped() {
    let effects = Effects::default();
    let (router, _) = service(Arc::new(AtomicU32::new(2)), effects.clone());
    let send = async || {
        let response = router.clone().oneshot(post("k", "{}").map(axum::body::Body::new)).await.unwrap();
        read(response.map(semel_tower::Body::stream)).await
    };
    assert_eq!((send().await.status, send().await.status), (503, 503));
    let done = send().await;
    assert_eq!((done.status, &done.body[..], done.is_replay()), (201, &b"ORD-12345"[..], false));
    assert!(send().await.is_replay());
    assert_eq!(effects.seen(), ORDER, "each once, over three attempts");
}

#[tokio::test]
async fn without_a_key_the_same_code_runs_unprotected() {
    let effects = Effects::default();
    let (router, ledger) = service(Arc::default(), effects.clone());
    for _ in 0..2 {
        let plain = request(http::Method::POST, "/orders", &[], "{}").map(axum::body::Body::new);
        assert_eq!(router.clone().oneshot(plain).await.unwrap().status(), 201);
    }
    assert_eq!(effects.seen().len(), 2 * ORDER.len());
    let found = ledger.store().search(semel_core::query::Query::default(), None, 9).await.unwrap();
    assert!(found.items.is_empty());
}

#[tokio::test]
async fn what_a_phase_found_to_be_unknown_is_unknown_whatever_its_handler_replies() {
    for reply in [500, 201, 422] {
        let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
        let layer = IdempotencyLayer::try_new(ledger, shared("orders")).unwrap();
        let ran = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&ran);
        let charge = move |phases: Phases| async move {
            let charged = phases.once("charged", || async {
                counted.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>("no answer")
            });
            match charged.await {
                Err(PhaseError::Unknown) => StatusCode::from_u16(reply).unwrap(),
                _ => StatusCode::BAD_GATEWAY,
            }
        };
        let router = Router::new().route("/orders", on_post(charge)).layer(layer);
        let send = async || {
            let response = router.clone().oneshot(post("k", "{}").map(axum::body::Body::new)).await.unwrap();
            read(response.map(semel_tower::Body::stream)).await
        };
        assert_eq!(send().await.status, 502, "what it said of its failure is passed on");
        let found = send().await;
        assert_eq!(found.status, if reply == 201 { 409 } else { reply }, "{}", found.code());
        let refused = send().await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN"));
        assert_eq!(ran.load(Ordering::SeqCst), 1, "once");
    }
}

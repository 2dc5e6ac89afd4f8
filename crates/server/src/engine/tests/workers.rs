//! Work that was taken in, and work whose worker was lost: it ends, by its schedule and its policy.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::Store;
use semel_core::command::Claimed;
use semel_core::id::Lane;
use semel_core::policy::OnLapse;
use semel_core::record::{State, StateName};
use semel_stores::memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::config::{Builtin, Target};
use crate::engine::Execution;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::reply::{Lost, Reply};
use crate::engine::testing::{
    Fixture, Flaky, Script, Weather, answered, ask, ask_for, config, done, scripted,
};
use crate::engine::work::Work;

/// When attempts began.
type Begun = Arc<Mutex<Vec<Instant>>>;

/// An operation whose attempts, of which the times are kept, give `reply`.
fn timed(on_lapse: OnLapse, reply: impl Fn(u32) -> Reply + Send + Sync + 'static) -> (Operation, Begun) {
    let begun = Begun::default();
    let kept = Arc::clone(&begun);
    let script = Script::new(move |attempt| {
        kept.lock().push(Instant::now());
        std::future::ready(reply(attempt))
    });
    (scripted(on_lapse, script), begun)
}

#[tokio::test(start_paused = true)]
async fn l9_what_was_taken_in_is_done_and_its_duplicates_are_given_the_result() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| done());
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    let first = fixture.engine.submit(ask("k")).await.unwrap();
    let Execution::Processing { record, fresh: true, .. } = first else { panic!("{first:?}") };
    let ended = fixture.engine.wait(record.id(), record.version(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.unwrap().state().name(), StateName::Completed);
    let again = fixture.engine.submit(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Completed { replayed: true, .. }), "{again:?}");
    let mismatch = fixture.engine.submit(ask_for("work", "k", b"7")).await.unwrap();
    assert!(matches!(mismatch, Execution::Mismatch { .. }));
    assert_eq!(begun.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_took_work_in_is_no_duplicate_of_itself_when_the_stores_answer_was_lost_and_a_worker_was_quicker()
 {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| done());
    let store = Flaky::new();
    let fixture = Fixture::over(Arc::clone(&store) as _, vec![operation]);
    fixture.engine.start(4);
    store.set(Weather::LosesOneUntilItsEnd);
    let first = fixture.engine.submit(ask("k")).await.unwrap();
    assert!(matches!(first, Execution::Completed { replayed: false, .. }), "{first:?}");
    assert!(!first.is_duplicate());
    let again = fixture.engine.submit(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Completed { replayed: true, .. }), "{again:?}");
    assert_eq!(begun.lock().len(), 1);
}

/// The record stays, and what it answers: only what was asked is gone.
#[tokio::test(start_paused = true)]
async fn retention_a_payload_goes_before_its_identity_and_a_duplicate_across_that_boundary_is_refused() {
    let kept = Duration::from_secs(600);
    let work = |begun: Begun| {
        let mut config = config(OnLapse::AtMostOnce, Target::Builtin(Builtin::Echo));
        config.policy = config.policy.try_with_payload_retention(Some(kept)).unwrap();
        Operation::scripted(
            config,
            Script::new(move |_| {
                begun.lock().push(Instant::now());
                std::future::ready(done())
            }),
        )
    };
    let begun = Begun::default();
    let fixture = Fixture::new(vec![work(Arc::clone(&begun))]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Completed, 1).await;
    sleep(Duration::from_secs(599)).await;
    let before = fixture.record("k").await;
    assert!(before.request().input().is_some(), "its time has not come");
    let seen = fixture.store.changed(before.id(), before.version(), Duration::from_secs(60)).await.unwrap();
    let after = seen.value.unwrap();
    assert!(after.payload_is_gone(), "{after:?}");
    assert_eq!((after.state(), after.times().expires), (before.state(), before.times().expires));
    assert_eq!(fixture.store.next_due().await.unwrap().value, None, "nobody has to look again");
    let again = fixture.engine.submit(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Completed { replayed: true, .. }), "{again:?}");
    let mismatch = fixture.engine.submit(ask_for("work", "k", b"7")).await.unwrap();
    assert!(matches!(mismatch, Execution::Mismatch { .. }), "{mismatch:?}");
    assert_eq!(begun.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tries_follow_the_schedule_until_one_succeeds() {
    let (operation, begun) =
        timed(OnLapse::AtMostOnce, |attempt| if attempt < 3 { answered(429) } else { done() });
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Completed, 1).await;
    let begun = begun.lock().clone();
    assert_eq!(begun.len(), 3);
    for pair in begun.windows(2) {
        assert!(
            pair[1] - pair[0] <= Duration::from_millis(1_600),
            "a second's jitter, and the look after it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn l9_spent_tries_end_in_the_dead_letter_queue() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| answered(429));
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Dead, 1).await;
    assert_eq!(begun.lock().len(), 4, "as many as the schedule has");
    let record = fixture.record("k").await;
    let State::Dead { last_error } = record.state() else { panic!("{:?}", record.state()) };
    assert_eq!(last_error.as_str(), "the target answered 429");
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Dead { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_dead_at_once() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| Reply::NotExecuted {
        detail: "no such address".into(),
        retry_after: None,
        permanent: true,
    });
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Dead, 1).await;
    assert_eq!(begun.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_asks_for_time_is_given_it() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |attempt| match attempt {
        1 => Reply::NotExecuted {
            detail: "429".into(),
            retry_after: Some(Duration::from_secs(100)),
            permanent: false,
        },
        _ => done(),
    });
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Completed, 1).await;
    let begun = begun.lock().clone();
    let waited = begun[1] - begun[0];
    assert!((100_000..105_000).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn l7_at_most_once_a_lost_answer_is_not_tried_again() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| Reply::lost(Lost::Answer, "reset"));
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Unknown, 1).await;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(fixture.state("k").await, StateName::Unknown);
    assert_eq!(begun.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn under_resume_a_lost_answer_is_tried_again_and_a_rejection_after_it_proves_nothing() {
    let (operation, begun) = timed(OnLapse::Resume, |attempt| match attempt {
        1 => Reply::lost(Lost::Answer, "reset"),
        2 => answered(404),
        _ => done(),
    });
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    let first = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(first, Execution::Retryable { .. }), "{first:?}");
    fixture.told.wait(What::Completed, 1).await;
    assert_eq!(begun.lock().len(), 3, "the 404 was not taken for an answer");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_fills_its_own_lane_and_no_others() {
    let mut hanging = config(OnLapse::AtMostOnce, Target::Builtin(Builtin::Echo));
    hanging.lane = Lane::try_new("dead").unwrap();
    hanging.name = semel_core::Operation::try_new("hanging").unwrap();
    hanging.concurrency = 8;
    hanging.timeout = Duration::from_secs(3_600);
    let hanging = Operation::scripted(hanging, Script::new(|_| pending()));
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| done());
    let fixture = Fixture::new(vec![hanging, operation]);
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for key in &keys {
        fixture.engine.submit(ask_for("hanging", &format!("h{key}"), b"1")).await.unwrap();
    }
    for key in &keys {
        fixture.engine.submit(ask(key)).await.unwrap();
    }
    let start = Instant::now();
    fixture.engine.start(10);
    fixture.told.wait(What::Completed, keys.len()).await;
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(begun.lock().len(), keys.len());
    assert!(fixture.told.count(What::Taken) <= keys.len() + 8, "its lane has room for eight");
}

#[tokio::test(start_paused = true)]
async fn a_restart_picks_up_what_was_taken_in() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (operation, _) = timed(OnLapse::AtMostOnce, |_| done());
    let before = Fixture::over(Arc::clone(&store), vec![operation]);
    before.engine.submit(ask("k")).await.unwrap();
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| done());
    let after = Fixture::over(store, vec![operation]);
    after.engine.start(4);
    after.told.wait(What::Completed, 1).await;
    assert_eq!(begun.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_worker_has_left_is_unknown_at_most_once_and_taken_over_under_resume() {
    for (on_lapse, state, runs) in
        [(OnLapse::AtMostOnce, StateName::Unknown, 0), (OnLapse::Resume, StateName::Completed, 1)]
    {
        let (operation, begun) = timed(on_lapse, |_| done());
        let fixture = Fixture::new(vec![operation]);
        let work = Work::asked(fixture.engine.operation("work").unwrap(), &ask("k"));
        let claimed = fixture.engine.claim(work.request(&ask("k"), false).unwrap(), None).await.unwrap();
        // The process dies here, with the claim.
        assert!(matches!(claimed.answer, Claimed::Granted(_)));
        fixture.engine.start(4);
        let ended = if runs == 0 { What::Unknown } else { What::Completed };
        fixture.told.wait(ended, 1).await;
        assert_eq!((fixture.state("k").await, begun.lock().len()), (state, runs));
        assert_eq!(fixture.record("k").await.tainted(), runs == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lapse_that_nobody_asks_about_is_seen() {
    for (on_lapse, state) in
        [(OnLapse::AtMostOnce, StateName::Unknown), (OnLapse::Resume, StateName::Running)]
    {
        let fixture = Fixture::new(vec![]);
        let asked = ask("k");
        let request = semel_core::Request::new(
            semel_core::Scope {
                namespace: semel_core::id::Namespace::Execute,
                tenant: asked.tenant,
                subject: None,
            },
            asked.key,
            semel_core::Operation::try_new("a client's own").unwrap(),
            semel_core::request::Fingerprint { version: 1, digest: [1; 32] },
            crate::engine::testing::policy(on_lapse),
        );
        fixture.engine.claim(Arc::new(request), None).await.unwrap();
        fixture.engine.start(4);
        fixture.told.wait(What::Lapsed, 1).await;
        assert_eq!(fixture.state("k").await, state);
        assert_eq!(fixture.record("k").await.due(), None, "nobody has to look again");
        assert_eq!(fixture.store.next_due().await.unwrap().value, None);
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_nobody_here_can_do_waits_and_spends_no_try() {
    let (operation, _) = timed(OnLapse::AtMostOnce, |_| done());
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.engine.reload(&[]);
    fixture.engine.start(4);
    sleep(Duration::from_secs(600)).await;
    let record = fixture.record("k").await;
    assert_eq!((record.state().name(), record.attempt()), (StateName::Pending, 0));
    fixture.engine.reload(&[config(OnLapse::AtMostOnce, Target::Builtin(Builtin::Echo))]);
    fixture.told.wait(What::Completed, 1).await;
}

#[tokio::test(start_paused = true)]
async fn l8_what_has_expired_is_swept() {
    let (operation, begun) = timed(OnLapse::AtMostOnce, |_| done());
    let fixture = Fixture::new(vec![operation]);
    fixture.engine.start(4);
    for number in 0..1_200 {
        fixture.engine.execute(ask(&format!("k{number}"))).await.unwrap();
    }
    sleep(Duration::from_secs(3_600 + 5)).await;
    assert_eq!(fixture.store.counts().await.unwrap(), Vec::new());
    fixture.engine.execute(ask("k0")).await.unwrap();
    assert_eq!(begun.lock().len(), 1_201, "a key that is forgotten runs again");
}

#[tokio::test(start_paused = true)]
async fn a_submit_of_what_somebody_runs_is_no_fresh_result() {
    let script = Script::new(|_| async {
        sleep(Duration::from_secs(1)).await;
        answered(429)
    });
    let fixture = Fixture::new(vec![scripted(OnLapse::AtMostOnce, script)]);
    let engine = fixture.engine.clone();
    let first = tokio::spawn(async move { engine.execute(ask("k")).await.unwrap() });
    while fixture.told.claims() == 0 {
        tokio::task::yield_now().await;
    }
    let second = fixture.engine.submit(ask("k")).await.unwrap();
    assert!(matches!(second, Execution::Processing { fresh: false, .. }), "{second:?}");
    let first = first.await.unwrap();
    assert!(
        matches!(first, Execution::Processing { .. }),
        "accepted meanwhile, so a worker goes on: {first:?}"
    );
    assert_eq!(fixture.state("k").await, StateName::Pending, "L9");
}

//! When the store does not answer: nothing runs on an unsettled claim, and nothing that ran is given back (L12).

use std::sync::Arc;
use std::time::Duration;

use semel_core::Store as _;
use semel_core::command::Claimed;
use semel_core::policy::OnLapse;
use semel_core::record::StateName;
use semel_runtime::{Ended, Keeper};
use tokio::time::{Instant, sleep};

use crate::config::{Builtin, Target};
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::progress::{Progress, Stopped};
use crate::engine::testing::{Fixture, Flaky, Script, Weather, ask, config, done, id, scripted};
use crate::engine::{EngineErrorKind, Execution};

/// An engine over a flaky store, whose work takes a second, after which the weather changes to `after`.
fn flaky(on_lapse: OnLapse, after: Weather) -> (Fixture, Arc<Flaky>) {
    let store = Flaky::new();
    let weather = Arc::clone(&store);
    let script = Script::new(move |_| {
        let weather = Arc::clone(&weather);
        async move {
            sleep(Duration::from_millis(500)).await;
            weather.set(after);
            done()
        }
    });
    let fixture = Fixture::over(Arc::clone(&store) as _, vec![scripted(on_lapse, script)]);
    (fixture, store)
}

#[tokio::test(start_paused = true)]
async fn l12_nothing_runs_when_the_store_does_not_answer() {
    let (fixture, store) = flaky(OnLapse::AtMostOnce, Weather::Fair);
    store.set(Weather::Down);
    let error = fixture.engine.execute(ask("k")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Storage);
    assert_eq!((fixture.told.claims(), fixture.told.storage_failures()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn l12_an_outcome_that_cannot_be_stored_at_once_is_stored_when_the_store_is_back() {
    for weather in [Weather::Down, Weather::LosesAnswers] {
        let (fixture, store) = flaky(OnLapse::AtMostOnce, weather);
        let client = fixture.engine.execute(ask("k"));
        let back = async {
            sleep(Duration::from_secs(1)).await;
            store.set(Weather::Fair);
        };
        let (execution, ()) = tokio::join!(client, back);
        assert!(matches!(execution, Ok(Execution::Completed { replayed: false, .. })), "{execution:?}");
        assert_eq!(fixture.state("k").await, StateName::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn l12_when_it_takes_longer_the_client_is_told_and_the_outcome_is_stored_all_the_same() {
    let store = Flaky::new();
    let weather = Arc::clone(&store);
    let script = Script::new(move |_| {
        weather.set(Weather::Down);
        std::future::ready(done())
    });
    let mut config = config(OnLapse::AtMostOnce, Target::Builtin(Builtin::Echo));
    config.policy = semel_core::Policy::default();
    let fixture = Fixture::over(Arc::clone(&store) as _, vec![Operation::scripted(config, script)]);
    let error = fixture.engine.execute(ask("k")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Unstored);
    sleep(Duration::from_secs(60)).await;
    store.set(Weather::Fair);
    fixture.told.wait(What::Completed, 1).await;
    assert_eq!(fixture.state("k").await, StateName::Completed);
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Completed { replayed: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn l12_an_outcome_that_cannot_be_stored_leaves_its_record_running_and_it_lapses() {
    let (fixture, store) = flaky(OnLapse::AtMostOnce, Weather::Down);
    let error = fixture.engine.execute(ask("k")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Unstored);
    sleep(Duration::from_secs(10)).await;
    store.set(Weather::Fair);
    assert_eq!(fixture.state("k").await, StateName::Running, "not released");
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Unknown { fresh: None, .. }), "L7: {again:?}");
    assert_eq!(fixture.told.claims(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_given_to_nobody_is_given_back() {
    let (fixture, store) = flaky(OnLapse::AtMostOnce, Weather::Fair);
    store.set(Weather::LosesAnswers);
    let error = fixture.engine.execute(ask("k")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Storage);
    store.set(Weather::Fair);
    assert_eq!(fixture.state("k").await, StateName::Running, "it was written");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.state("k").await, StateName::Released, "well before its lease of 3 s has lapsed");
    assert_eq!(fixture.told.claims(), 0, "nothing ran under it");
}

#[tokio::test(start_paused = true)]
async fn heartbeat_errors_are_not_dropped_and_the_work_is_told_before_its_lease_lapses() {
    let (fixture, store) = flaky(OnLapse::Resume, Weather::Fair);
    let request = crate::engine::work::Work::asked(fixture.engine.operation("work").unwrap(), &ask("k"))
        .request(&ask("k"), true)
        .unwrap();
    let asked = Instant::now();
    let Claimed::Granted(claim) = fixture.engine.claim(request, None).await.unwrap().answer else {
        panic!("it is free")
    };
    store.set(Weather::Down);
    let progress = Progress::default();
    let keeper = Keeper::new(&fixture.engine.0.runtime, claim.holder(), claim.lease(), asked);
    let work = async {
        progress.stopped().await;
        (asked.elapsed(), progress.begin())
    };
    let ended = keeper.during(work, Duration::from_secs(60), || progress.stop()).await;
    let Ended::Done((told, begun)) = ended else { panic!("the work ends when it is told") };
    assert_eq!(begun, Err(Stopped), "no further side effect");
    assert!(told < Duration::from_secs(3), "{told:?}");
    assert!(fixture.told.heartbeats_failed() >= 3);
    store.set(Weather::Fair);
    assert!(!store.load(id("k")).await.unwrap().value.unwrap().is_lapsed(store.time()), "not yet lapsed");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_the_dispatcher_is_not_asked_again_at_once_and_the_work_is_done_later() {
    let (fixture, store) = flaky(OnLapse::AtMostOnce, Weather::Fair);
    fixture.engine.submit(ask("k")).await.unwrap();
    store.set(Weather::Down);
    fixture.engine.start(4);
    sleep(Duration::from_secs(10)).await;
    let failures = fixture.told.storage_failures();
    assert!((10..=30).contains(&failures), "{failures}");
    store.set(Weather::Fair);
    fixture.told.wait(What::Completed, 1).await;
}

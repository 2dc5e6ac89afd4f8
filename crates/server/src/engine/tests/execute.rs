//! What a request comes to, whatever its work does and whoever goes away.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use semel_core::id::AttemptId;
use semel_core::outcome::Class;
use semel_core::policy::OnLapse;
use semel_core::record::{State, StateName, Why};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::config::{Builtin, Target};
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::reply::{Lost, Reply};
use crate::engine::testing::{Fixture, Script, answered, ask, ask_for, config, done, scripted};
use crate::engine::{Ask, EngineErrorKind, Execution};

fn outcome_class(execution: &Execution) -> Option<(Class, bool)> {
    match execution {
        Execution::Completed { record, replayed, .. } => Some((record.outcome()?.class, *replayed)),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn l11_a_client_that_goes_away_cancels_nothing() {
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes_on) = (Arc::clone(&began), Arc::clone(&go_on));
    let script = Script::new(move |_| {
        let (begins, goes_on) = (Arc::clone(&begins), Arc::clone(&goes_on));
        async move {
            begins.notify_one();
            goes_on.notified().await;
            done()
        }
    });
    let fixture = Fixture::new(vec![scripted(OnLapse::AtMostOnce, script)]);
    let engine = fixture.engine.clone();
    let client = tokio::spawn(async move { engine.execute(ask("k")).await });
    began.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(fixture.state("k").await, StateName::Running);
    go_on.notify_one();
    fixture.told.wait(What::Completed, 1).await;
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert_eq!(outcome_class(&again), Some((Class::Success, true)), "L10");
    assert_eq!(fixture.told.claims(), 1);
}

#[tokio::test(start_paused = true)]
async fn fifty_requests_with_one_key_at_once_run_the_work_once() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    let script = Script::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_millis(10)).await;
            done()
        }
    });
    let fixture = Fixture::new(vec![scripted(OnLapse::AtMostOnce, script)]);
    let answers = join_all((0..50).map(|_| fixture.engine.execute(ask("k")))).await;
    assert_eq!(ran.load(Ordering::Relaxed), 1, "L7");
    let firsts = answers.iter().flatten().filter(|one| outcome_class(one) == Some((Class::Success, false)));
    assert_eq!(firsts.count(), 1);
    let waiting = answers.iter().flatten().filter(|one| matches!(one, Execution::Processing { .. }));
    assert_eq!(waiting.count(), 49);
    let other = fixture.engine.execute(ask_for("work", "k", br#"{"n":2}"#)).await.unwrap();
    assert!(matches!(other, Execution::Mismatch { .. }));
}

#[tokio::test(start_paused = true)]
async fn l1_a_request_that_repeats_an_attempts_name_does_not_run_beside_it() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    let script = Script::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_millis(10)).await;
            done()
        }
    });
    let fixture = Fixture::new(vec![scripted(OnLapse::AtMostOnce, script)]);
    let named = || Ask { attempt_id: Some(AttemptId::try_new("try-1").unwrap()), ..ask("k") };
    let answers = join_all((0..2).map(|_| fixture.engine.execute(named()))).await;
    assert_eq!((ran.load(Ordering::Relaxed), fixture.told.claims()), (1, 1), "L7");
    assert!(answers.iter().flatten().any(|one| matches!(one, Execution::Processing { .. })));
}

/// What a request comes to whose first attempt gives `reply`, and where its record stands then.
async fn first_attempt(on_lapse: OnLapse, reply: Reply) -> (Execution, Fixture) {
    let script = Script::new(move |_| std::future::ready(reply.clone()));
    let fixture = Fixture::new(vec![scripted(on_lapse, script)]);
    let execution = fixture.engine.execute(ask("k")).await.unwrap();
    (execution, fixture)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_effect_is_released_and_the_next_request_runs() {
    for on_lapse in [OnLapse::AtMostOnce, OnLapse::Resume] {
        let (execution, fixture) = first_attempt(on_lapse, answered(429)).await;
        assert!(matches!(execution, Execution::NotExecuted { .. }), "{execution:?}");
        assert_eq!(fixture.state("k").await, StateName::Released);
        fixture.engine.execute(ask("k")).await.unwrap();
        assert_eq!(fixture.told.claims(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_proves_nothing_is_unknown_at_most_once_and_never_run_again() {
    for (reply, status) in [
        (answered(500), StatusCode::BAD_GATEWAY),
        (Reply::lost(Lost::Answer, "reset"), StatusCode::BAD_GATEWAY),
        (Reply::lost(Lost::TimedOut, "slow"), StatusCode::GATEWAY_TIMEOUT),
    ] {
        let (execution, fixture) = first_attempt(OnLapse::AtMostOnce, reply).await;
        let Execution::Unknown { fresh: Some(told), .. } = execution else { panic!("{execution:?}") };
        assert_eq!(told, status);
        let again = fixture.engine.execute(ask("k")).await.unwrap();
        assert!(matches!(again, Execution::Unknown { fresh: None, .. }), "{again:?}");
        assert_eq!(fixture.told.claims(), 1, "L7");
    }
}

#[tokio::test(start_paused = true)]
async fn under_resume_it_becomes_a_workers_and_a_later_rejection_proves_nothing() {
    let (execution, fixture) = first_attempt(OnLapse::Resume, answered(502)).await;
    let Execution::Retryable { retry_after, .. } = execution else { panic!("{execution:?}") };
    assert!(retry_after >= Duration::from_secs(1));
    let record = fixture.record("k").await;
    assert_eq!(
        (record.state().name(), record.accepted(), record.tainted()),
        (StateName::Pending, true, true)
    );
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(again, Execution::Processing { .. }), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_stored_and_replayed_alike() {
    let (execution, fixture) = first_attempt(OnLapse::AtMostOnce, answered(422)).await;
    assert_eq!(outcome_class(&execution), Some((Class::Rejection, false)));
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    assert_eq!(outcome_class(&again), Some((Class::Rejection, true)));
}

#[tokio::test(start_paused = true)]
async fn the_work_throws_after_its_effect_and_its_claim_is_settled_and_not_given_back() {
    for (on_lapse, state) in
        [(OnLapse::AtMostOnce, StateName::Unknown), (OnLapse::Resume, StateName::Pending)]
    {
        let script = Script::new(|_| async { panic!("after the effect") });
        let fixture = Fixture::new(vec![scripted(on_lapse, script)]);
        let execution = fixture.engine.execute(ask("k")).await.unwrap();
        let record = fixture.record("k").await;
        assert_eq!(record.state().name(), state);
        match record.state() {
            State::Unknown { why, .. } => {
                assert_eq!(*why, Why::WorkAbandoned);
                assert!(matches!(execution, Execution::Unknown { fresh: Some(_), .. }));
            }
            _ => assert!(matches!(execution, Execution::Retryable { .. }) && record.tainted()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_shorter_than_the_work_and_heartbeats_keep_the_claim() {
    let script = Script::new(|_| async {
        sleep(Duration::from_secs(30)).await;
        done()
    });
    let fixture = Fixture::new(vec![scripted(OnLapse::Resume, script)]);
    fixture.engine.start(4);
    let engine = fixture.engine.clone();
    let first = tokio::spawn(async move { engine.execute(ask("k")).await.unwrap() });
    sleep(Duration::from_secs(20)).await;
    let meanwhile = fixture.engine.execute(ask("k")).await.unwrap();
    assert!(matches!(meanwhile, Execution::Processing { .. }), "the lease of 3 s was renewed");
    assert_eq!(outcome_class(&first.await.unwrap()), Some((Class::Success, false)));
    assert_eq!(fixture.record("k").await.attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leaked_heartbeat_does_not_renew_for_ever() {
    let fixture = Fixture::new(vec![scripted(OnLapse::AtMostOnce, Script::new(|_| pending()))]);
    let began = Instant::now();
    let execution = fixture.engine.execute(ask("k")).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(60), "the operation's time");
    let Execution::Unknown { fresh: Some(StatusCode::GATEWAY_TIMEOUT), record } = execution else {
        panic!("{execution:?}")
    };
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(fixture.record("k").await.version(), record.version(), "nothing is written any more");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_runs_and_gives_the_rest_up_by_its_policy() {
    let takes = |on_lapse, seconds| {
        let script = Script::new(move |_| async move {
            sleep(Duration::from_secs(seconds)).await;
            done()
        });
        Fixture::new(vec![scripted(on_lapse, script)])
    };
    for (on_lapse, seconds, ended, state) in [
        (OnLapse::AtMostOnce, 5, true, StateName::Completed),
        (OnLapse::AtMostOnce, 50, false, StateName::Unknown),
        (OnLapse::Resume, 50, false, StateName::Pending),
    ] {
        let fixture = takes(on_lapse, seconds);
        let engine = fixture.engine.clone();
        let client = tokio::spawn(async move { engine.execute(ask("k")).await });
        while fixture.told.claims() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.engine.stop(Duration::from_secs(10)).await, ended);
        assert_eq!(fixture.state("k").await, state, "nothing is left in processing");
        client.await.unwrap().unwrap();
        let late = fixture.engine.execute(ask("other")).await.unwrap_err();
        assert_eq!(*late.kind(), EngineErrorKind::Stopping);
    }
}

#[tokio::test(start_paused = true)]
async fn built_in_operations_do_what_they_say() {
    let builtin = |builtin: Builtin| {
        let mut config = config(OnLapse::AtMostOnce, Target::Builtin(builtin));
        config.name = semel_core::Operation::try_new(builtin.as_str()).unwrap();
        Operation::new(config)
    };
    let fixture = Fixture::new(Builtin::ALL.map(builtin).into());
    let run = async |operation: &str, key: &str, payload: &'static [u8]| {
        let execution = fixture.engine.execute(ask_for(operation, key, payload)).await.unwrap();
        match execution {
            Execution::Completed { record, .. } => {
                let outcome = record.outcome().unwrap().clone();
                let semel_core::outcome::Body::Kept(body) = outcome.body else { panic!("it is kept") };
                format!("{} {}", outcome.status, std::str::from_utf8(&body).unwrap())
            }
            Execution::NotExecuted { .. } => "not executed".to_owned(),
            Execution::Unknown { fresh: Some(status), .. } => format!("unknown {}", status.as_u16()),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(run("echo", "1", b"{\"a\": 1.0}").await, "200 {\"a\": 1.0}", "as it came");
    assert_eq!(run("sleep", "2", b"{\"ms\":5}").await, r#"200 {"slept_ms":5}"#);
    assert_eq!(run("count", "3", b"{\"name\":\"x\"}").await, r#"200 {"count":1,"name":"x"}"#);
    assert_eq!(run("count", "3", b"{\"name\":\"x\"}").await, r#"200 {"count":1,"name":"x"}"#, "a replay");
    assert_eq!(run("count", "4", b"{\"name\":\"x\"}").await, r#"200 {"count":2,"name":"x"}"#);
    assert_eq!(run("fail", "5", b"{\"status\":404}").await, r#"404 {"message":"told to answer 404"}"#);
    assert_eq!(run("fail", "6", b"{\"status\":429}").await, "not executed");
    assert_eq!(run("fail", "7", b"{\"status\":500}").await, "unknown 502");
    let refused = |message: &str| format!(r#"400 {{"message":"{message}"}}"#);
    for (key, payload) in [("8", &b"{\"status\":7}"[..]), ("9", b"{\"status\":\"404\"}"), ("10", b"{}")] {
        assert_eq!(
            run("fail", key, payload).await,
            refused("`status` must be a whole number from 100 to 999")
        );
    }
    assert_eq!(run("fail", "11", b"5").await, refused("the payload must be an object"));
    assert_eq!(
        run("sleep", "12", b"{\"ms\":\"5\"}").await,
        refused("`ms` must be a whole number of milliseconds")
    );
    assert_eq!(run("count", "13", b"{\"name\":5}").await, refused("`name` must be a text"));
    assert_eq!(run("count", "14", b"{}").await, r#"200 {"count":1,"name":"default"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_nothing_that_is_configured_leaves_nothing_behind() {
    let fixture = Fixture::new(vec![]);
    let error = fixture.engine.execute(ask("k")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::UnknownOperation);
    assert_eq!(fixture.store.counts().await.unwrap(), Vec::new());
}

#[tokio::test(start_paused = true)]
async fn tags_come_from_the_payload() {
    let mut config = config(OnLapse::AtMostOnce, Target::Builtin(Builtin::Echo));
    let name = |name| semel_core::id::TagName::try_new(name).unwrap();
    config.tags = vec![(name("order_id"), "/order/id".into()), (name("missing"), "/nowhere".into())];
    let fixture = Fixture::new(vec![Operation::new(config)]);
    fixture
        .engine
        .execute(ask_for("work", "k", br#"{"order":{"id":12345678901234567890.50}}"#))
        .await
        .unwrap();
    let record = fixture.record("k").await;
    let tags: Vec<_> =
        record.request().tags().iter().map(|tag| (tag.name.as_str(), tag.value.as_str())).collect();
    assert_eq!(tags, [("order_id", "12345678901234567890.50")]);
}

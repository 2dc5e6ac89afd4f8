//! Schedules over a store in memory, by a clock on the wall that the tests set; targets over real sockets.

use semel_core::Store;
use semel_runtime::job::{Force, Forced, JobType, RunStatus};
use semel_stores::clock::SteppedClock;
use semel_stores::memory::MemoryStore;

use super::*;
use crate::config::Missed;
use crate::cron::{Cron, Zone};
use crate::engine::testing::{Fixture, Flaky, Peer, TcpTarget, Weather};
use crate::telemetry::metrics::Metrics;

/// Long beside what a test takes, so that nothing lapses by itself; a test that wants a lapse holds the store's clock.
const LEASE: Duration = Duration::from_secs(600);

/// A server's part in the schedule of `EXPIRE_LOCKS`, at every full hour.
struct Node {
    scheduled: Scheduled,
    wall: Arc<Mutex<Timestamp>>,
}

impl Node {
    fn over(store: &Arc<dyn Store>, target: &TcpTarget, missed: Missed) -> Self {
        let config = JobConfig {
            job: JobType::try_new("EXPIRE_LOCKS").unwrap(),
            cron: Cron::parse("0 * * * *", &Zone::parse("UTC").unwrap()).unwrap(),
            target: target.uri.clone(),
            headers: vec![(http::header::AUTHORIZATION, crate::config::Secret::new("Bearer t"))],
            timeout: LEASE,
            lease: LEASE,
            retention: LEASE,
            missed,
        };
        let engine = Fixture::over(Arc::clone(store), Vec::new()).engine;
        let wall_says = Arc::new(Mutex::new(at("12:00")));
        let shown = Arc::clone(&wall_says);
        let wall: Wall = Arc::new(move || *shown.lock());
        let runtime = engine.runtime().clone();
        let jobs =
            Jobs::new(runtime, Metrics::new("semel", []), Arc::clone(&wall), std::slice::from_ref(&config));
        let scheduled = Scheduled { engine, jobs, config: Arc::new(config), wall };
        Self { scheduled, wall: wall_says }
    }

    /// As the schedule does it: the wall shows `now`, and it had come up to `after`.
    fn come_to(&self, after: Timestamp, now: &str) -> Timestamp {
        *self.wall.lock() = at(now);
        self.scheduled.come_to(after.min(at(now)), at(now))
    }

    /// Waits until nothing is under way here.
    async fn is_done(&self) {
        let tasks = &self.scheduled.engine.0.tasks;
        tasks.close();
        tasks.wait().await;
        tasks.reopen();
    }

    /// What became of the runs, the oldest first: of which instant, and what there is to say.
    async fn told(&self) -> Vec<(String, RunStatus, String)> {
        let runs = self.scheduled.guard().history(None, 100).await.unwrap().items;
        let told = runs.into_iter().map(|run| {
            let instant = run.scheduled_at.unwrap_or_default();
            (instant[11..16].to_owned(), run.status, run.results.details)
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    }
}

fn at(clock: &str) -> Timestamp {
    let seconds = if clock.len() == 5 { ":00Z" } else { "Z" };
    format!("2026-11-21T{clock}{seconds}").parse().unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// The next run's request, which is for this instant.
async fn begun(target: &mut TcpTarget, clock: &str) -> (Peer, String) {
    let mut peer = target.accept().await;
    let request = peer.request().await;
    assert!(request.contains(&format!(r#""scheduledAt":"{}""#, at(clock))), "{clock}: {request}");
    (peer, request)
}

async fn answered(mut peer: Peer, body: &str) {
    peer.reply(200, "connection: close\r\n", body).await;
}

fn missed(clock: &str) -> (String, RunStatus, String) {
    let details = "Nothing was running at this instant of the schedule".to_owned();
    (clock.to_owned(), RunStatus::Skipped, details)
}

fn ran(clock: &str) -> (String, RunStatus, String) {
    (clock.to_owned(), RunStatus::Completed, String::new())
}

#[tokio::test]
async fn the_clock_steps_back_and_no_instant_begins_its_job_again() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::CatchUp);
    let after = node.come_to(at("11:30"), "12:00:01");
    answered(begun(&mut target, "12:00").await.0, "").await;
    node.is_done().await;
    // Set back by half an hour: nothing is due until noon, which comes again.
    let after = node.come_to(after, "11:30:02");
    assert_eq!(after, at("11:30:02"));
    let after = node.come_to(after, "12:00:01");
    node.is_done().await;
    assert!(target.is_idle(), "noon is remembered");
    node.come_to(after, "13:00");
    answered(begun(&mut target, "13:00").await.0, "").await;
    node.is_done().await;
    assert_eq!(node.told().await, [ran("12:00"), ran("13:00")]);
}

#[tokio::test]
async fn the_clock_steps_forward_and_what_lies_between_is_recorded_and_not_run() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    node.come_to(at("11:30"), "15:00:05");
    answered(begun(&mut target, "15:00").await.0, "").await;
    node.is_done().await;
    assert!(target.is_idle());
    assert_eq!(node.told().await, [missed("12:00"), missed("13:00"), missed("14:00"), ran("15:00")]);
}

#[tokio::test]
async fn the_last_missed_instant_is_caught_up_with_where_that_is_asked_for() {
    for (policy, expected) in [
        (Missed::Skip, [missed("12:00"), missed("13:00")]),
        (Missed::CatchUp, [missed("12:00"), ran("13:00")]),
    ] {
        let mut target = TcpTarget::start().await;
        let node = Node::over(&memory(), &target, policy);
        node.come_to(at("11:30"), "13:40");
        if policy == Missed::CatchUp {
            answered(begun(&mut target, "13:00").await.0, "").await;
        }
        node.is_done().await;
        assert!(target.is_idle());
        assert_eq!(node.told().await, expected, "{policy:?}");
    }
}

#[tokio::test]
async fn a_tick_does_not_fire_on_two_nodes() {
    let (mut target, store) = (TcpTarget::start().await, memory());
    let nodes = [(); 3].map(|()| Node::over(&store, &target, Missed::Skip));
    for node in &nodes {
        node.come_to(at("11:30"), "12:00:00.5");
    }
    answered(begun(&mut target, "12:00").await.0, "").await;
    for node in &nodes {
        node.is_done().await;
    }
    assert!(target.is_idle());
    assert_eq!(nodes[2].told().await, [ran("12:00")]);
}

#[tokio::test]
async fn a_short_job_and_skewed_clocks_do_not_run_it_twice() {
    let (mut target, store) = (TcpTarget::start().await, memory());
    let [fast, right, slow] = [(); 3].map(|()| Node::over(&store, &target, Missed::CatchUp));
    // One wall shows noon ten minutes early; by the time that the others do, its run is long over.
    fast.come_to(at("11:30"), "12:00");
    answered(begun(&mut target, "12:00").await.0, "").await;
    fast.is_done().await;
    for node in [&right, &slow] {
        node.come_to(at("11:30"), "12:00");
        node.is_done().await;
    }
    assert!(target.is_idle());
    assert_eq!(slow.told().await, [ran("12:00")]);
}

#[tokio::test]
async fn skips_are_not_silent_an_overlapping_instant_is_recorded() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    let after = node.come_to(at("11:30"), "12:00");
    let (peer, _) = begun(&mut target, "12:00").await;
    node.come_to(after, "13:00");
    while node.told().await.len() < 2 {
        tokio::task::yield_now().await;
    }
    answered(peer, "").await;
    node.is_done().await;
    assert!(target.is_idle());
    let skipped = ("13:00".to_owned(), RunStatus::Skipped, "Another instance is already running".to_owned());
    assert_eq!(node.told().await, [ran("12:00"), skipped]);
}

/// A store that comes back finds one follower for each instant since: they must not all run, one after the other.
#[tokio::test(start_paused = true)]
async fn instants_that_came_while_the_store_was_down_are_missed_and_do_not_all_run_once_it_is_back() {
    let (mut target, flaky) = (TcpTarget::start().await, Flaky::new());
    let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
    let node = Node::over(&store, &target, Missed::Skip);
    flaky.set(Weather::Down);
    let after = node.come_to(at("11:30"), "12:00");
    node.come_to(after, "13:00");
    // Time goes on once everybody waits for it: both have been refused by then, and have paused.
    sleep(Duration::from_millis(1)).await;
    *node.wall.lock() = at("13:10");
    flaky.set(Weather::Fair);
    node.is_done().await;
    assert!(target.is_idle());
    assert_eq!(node.told().await, [missed("12:00"), missed("13:00")]);
}

#[tokio::test]
async fn a_slow_store_makes_no_instant_late_that_was_come_to_in_time() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    node.come_to(at("11:30"), "12:00");
    *node.wall.lock() = at("14:00");
    answered(begun(&mut target, "12:00").await.0, "").await;
    node.is_done().await;
    assert_eq!(node.told().await, [ran("12:00")]);
}

#[tokio::test]
async fn what_a_dead_node_had_begun_is_begun_again_under_the_same_key_and_a_higher_fence_l2() {
    let mut target = TcpTarget::start().await;
    let clock = SteppedClock::at(semel_core::Timestamp::from_millis(1_000_000));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let node = Node::over(&store, &target, Missed::Skip);
    // Another node has claimed noon, and begun its run; then it was killed.
    let (guard, noon) = (node.scheduled.guard(), at("12:00").to_string());
    let TickAnswer::Yours(tick) = guard.tick(&noon, LEASE).await.unwrap() else { panic!() };
    let Started::Began(dead) = guard.start(&node.scheduled.start(at("12:00"))).await.unwrap() else {
        panic!()
    };
    *node.wall.lock() = at("12:05");
    assert_eq!(node.scheduled.resume().await, at("12:00"), "the schedule goes on from there");
    clock.advance(LEASE * 2);
    let (peer, request) = begun(&mut target, "12:00").await;
    let key = tick.record().id().downstream_key(None);
    assert!(request.contains(&format!("idempotency-key: {key}\r\n")), "{request}");
    assert!(request.contains("semel-attempt: 2\r\n"), "{request}");
    answered(peer, "").await;
    node.is_done().await;
    let runs = guard.history(None, 10).await.unwrap().items;
    let of = |status| runs.iter().find(|run| run.status == status).unwrap();
    assert_eq!(of(RunStatus::Lapsed).id, dead.run().id);
    assert!(of(RunStatus::Completed).fence > dead.run().fence, "L2");
    assert!(matches!(guard.tick(&noon, LEASE).await.unwrap(), TickAnswer::Over));
}

/// With `missed = "skip"` it must not begin its job ten minutes after it was found to be too late for that.
#[tokio::test]
async fn a_missed_instant_whose_node_died_before_it_was_recorded_is_recorded_by_the_next_and_begins_nothing()
{
    let mut target = TcpTarget::start().await;
    let clock = SteppedClock::at(semel_core::Timestamp::from_millis(1_000_000));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let node = Node::over(&store, &target, Missed::Skip);
    // Another node has come an hour too late, and claimed noon to record that; then it was killed.
    let (guard, noon) = (node.scheduled.guard(), at("12:00").to_string());
    assert!(matches!(guard.tick_missed(&noon, LEASE).await.unwrap(), TickAnswer::Yours(_)));
    *node.wall.lock() = at("13:10");
    assert_eq!(node.scheduled.resume().await, at("12:00"), "the schedule goes on from there");
    clock.advance(LEASE * 2);
    node.is_done().await;
    assert!(target.is_idle(), "nothing is begun");
    assert_eq!(node.told().await, [missed("12:00")]);
    assert!(matches!(guard.tick(&noon, LEASE).await.unwrap(), TickAnswer::Over));
}

#[tokio::test]
async fn work_that_is_shut_down_with_the_process_does_not_stay_running_for_ever() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    node.come_to(at("11:30"), "12:00");
    let (_peer, _) = begun(&mut target, "12:00").await;
    assert!(!node.scheduled.engine.stop(Duration::ZERO).await, "it had not ended by itself");
    let failed =
        ("12:00".to_owned(), RunStatus::Failed, "the server went down before the target answered".to_owned());
    assert_eq!(node.told().await, [failed]);
    assert_eq!(node.scheduled.guard().running().await.unwrap(), None, "the next one begins at once");
    let over = node.scheduled.guard().ticks(10).await.unwrap();
    assert!(over.iter().all(|tick| tick.is_over), "{over:?}");
}

#[tokio::test]
async fn a_run_that_has_lost_its_guard_counts_no_more_whatever_its_target_says_l6() {
    let mut target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    node.come_to(at("11:30"), "12:00");
    let (peer, _) = begun(&mut target, "12:00").await;
    let guard = node.scheduled.guard();
    let fence = guard.running().await.unwrap().unwrap().fence.unwrap();
    let force = Force { fence, actor: "admin:ann".into(), reason: "it hangs".into(), correlation_id: None };
    assert!(matches!(guard.release_by_force(&force).await.unwrap(), Forced::Released(_)));
    answered(peer, r#"{"processed":7}"#).await;
    node.is_done().await;
    let runs = guard.history(None, 10).await.unwrap().items;
    assert_eq!((runs[0].status, runs[0].results.processed), (RunStatus::Lapsed, 0));
}

#[tokio::test]
async fn what_the_target_answers_is_the_runs_result() {
    let huge = format!(r#"{{"details":"{}"}}"#, "x".repeat(limits::JOB_ANSWER_BYTES_MAX));
    let most = limits::JOB_NUMBER_MAX;
    for (status, body, expected) in [
        (200, r#"{"processed":12,"errors":1,"details":"ok","more":[]}"#, (RunStatus::Completed, 12, 1, "ok")),
        (204, "", (RunStatus::Completed, 0, 0, "")),
        (200, "done", (RunStatus::Completed, 0, 0, "")),
        (200, r#"{"processed":-1}"#, (RunStatus::Completed, 0, 0, "")),
        (200, r#"{"processed":18446744073709551615}"#, (RunStatus::Completed, most, 0, "")),
        (200, huge.as_str(), (RunStatus::Completed, 0, 0, "")),
        (500, r#"{"processed":12}"#, (RunStatus::Failed, 0, 0, "the target answered 500")),
        (302, "", (RunStatus::Failed, 0, 0, "the target answered 302")),
    ] {
        let mut target = TcpTarget::start().await;
        let node = Node::over(&memory(), &target, Missed::Skip);
        node.come_to(at("11:30"), "12:00");
        let (mut peer, request) = begun(&mut target, "12:00").await;
        for part in ["authorization: Bearer t\r\n", "semel-job: EXPIRE_LOCKS\r\n", "semel-attempt: 1\r\n"] {
            assert!(request.contains(part), "{part:?} in {request}");
        }
        if body.len() > limits::JOB_ANSWER_BYTES_MAX {
            peer.offer(status, body).await;
        } else {
            peer.reply(status, "", body).await;
        }
        node.is_done().await;
        let run = node.scheduled.guard().history(None, 1).await.unwrap().items.remove(0);
        let said = (run.status, run.results.processed, run.results.errors, run.results.details.as_str());
        assert_eq!(said, expected, "{status} {body:.60}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_fails_the_run_and_says_why() {
    let target = TcpTarget::start().await;
    let mut node = Node::over(&memory(), &target, Missed::Skip);
    let mut config = (*node.scheduled.config).clone();
    config.target = "http://127.0.0.1:1/jobs".parse().unwrap();
    node.scheduled.config = Arc::new(config);
    node.come_to(at("11:30"), "12:00");
    node.is_done().await;
    let told = node.told().await;
    assert_eq!((told.len(), told[0].1), (1, RunStatus::Failed));
    assert!(!told[0].2.is_empty() && !told[0].2.contains("Bearer"), "{}", told[0].2);
}

#[tokio::test]
async fn an_instant_that_was_given_back_is_not_lost_on_restart() {
    let target = TcpTarget::start().await;
    let node = Node::over(&memory(), &target, Missed::Skip);
    let (guard, noon) = (node.scheduled.guard(), at("12:00").to_string());
    let TickAnswer::Yours(claim) = guard.tick(&noon, LEASE).await.unwrap() else { panic!() };
    let seen = guard.ticks(10).await.unwrap();
    assert_eq!((seen.len(), seen[0].is_over), (1, false));
    let engine = &node.scheduled.engine;
    engine.ledger().release(claim, "it has not begun".into()).await.unwrap();
    let seen = guard.ticks(10).await.unwrap();
    assert_eq!((seen.len(), seen[0].is_over), (1, false), "nothing has come of it");
}

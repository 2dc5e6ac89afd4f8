//! The guard of jobs, over a store whose clock the tests hold.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use semel_conformance::faulty::{Fault, Faulty};
use semel_core::audit::Action;
use semel_core::id::Tenant;
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::query::AuditQuery;
use semel_core::record::StateName;
use semel_core::{Fence, Ledger, Store, Timestamp};
use semel_runtime::job::{
    ALREADY_RUNNING, Force, Forced, GuardError, JobError, JobGuard, JobRun, JobType, Jobs as _, Run,
    RunClaim, RunProof, RunResults, RunStatus, Start, Started, TickAnswer, TickSeen, Turn,
};
use semel_runtime::{OsEntropy, Runtime, Unwatched};
use semel_stores::clock::SteppedClock;
use semel_stores::memory::MemoryStore;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LEASE: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(3_600);
const JOB: &str = "EXPIRE_LOCKS";

/// A ledger, its clock, and its store with the faults it is told to have.
struct Bench {
    clock: SteppedClock,
    store: Arc<Faulty>,
    ledger: Ledger,
}

impl Bench {
    fn new() -> Self {
        let clock = SteppedClock::at(Timestamp::from_millis(1_000_000));
        let store = Arc::new(Faulty::over(Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))), 7));
        let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(OsEntropy));
        Self { clock, store, ledger }
    }

    fn guard(&self) -> JobGuard {
        JobGuard::new(self.runtime(), JobType::try_new(JOB).unwrap())
    }

    fn runtime(&self) -> Runtime {
        Runtime::new(self.ledger.clone(), TaskTracker::new(), CancellationToken::new(), Arc::new(Unwatched))
    }

    async fn began(&self, holder: &str) -> RunClaim {
        match self.guard().start(&start(holder)).await.unwrap() {
            Started::Began(claim) => claim,
            Started::Skipped(skip) => panic!("{holder} was skipped: {skip:?}"),
        }
    }

    async fn history(&self) -> Vec<JobRun> {
        self.guard().history(None, 100).await.unwrap().items
    }

    /// Who ran, and what became of it, the oldest first.
    async fn told(&self) -> Vec<(String, RunStatus)> {
        let runs = self.history().await.into_iter().rev();
        runs.map(|run| (run.holder, run.status)).collect()
    }

    async fn guard_state(&self) -> Option<StateName> {
        let guard = self.ledger.load(self.guard().job().guard()).await.unwrap();
        guard.map(|guard| guard.state().name())
    }
}

fn start(holder: &str) -> Start {
    Start { lease: LEASE, retention: RETENTION, ..Start::by(holder) }
}

fn results(processed: u64) -> RunResults {
    RunResults { processed, errors: 1, details: "one lock was gone".into() }
}

fn named(told: &[(&str, RunStatus)]) -> Vec<(String, RunStatus)> {
    told.iter().map(|(holder, status)| ((*holder).to_owned(), *status)).collect()
}

#[tokio::test]
async fn of_many_that_start_at_once_one_runs_and_the_others_are_skipped_and_recorded() {
    let bench = Bench::new();
    let (running, ran, go) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let turns = (0..8).map(|number| {
        let (running, ran, go) = (Arc::clone(&running), Arc::clone(&ran), Arc::clone(&go));
        let job = bench.ledger.job(JOB).holder(format!("node-{number}")).lease(LEASE);
        let turn = job.run(move |run| async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two run at once");
            go.notified().await;
            run.add_processed(3);
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(ran.fetch_add(1, Ordering::SeqCst))
        });
        tokio::spawn(turn)
    });
    let turns: Vec<_> = turns.collect();
    while bench.history().await.iter().filter(|run| run.status == RunStatus::Skipped).count() < 7 {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    let turns: Vec<Turn<usize>> =
        join_all(turns).await.into_iter().map(|turn| turn.unwrap().unwrap()).collect();
    let holder = bench.history().await.into_iter().find(|run| run.status == RunStatus::Completed).unwrap();
    assert_eq!((holder.results.processed, ran.load(Ordering::SeqCst)), (3, 1));
    let skipped: Vec<_> = turns.iter().filter(|turn| matches!(turn, Turn::Skipped { .. })).collect();
    assert_eq!(skipped.len(), 7);
    for turn in skipped {
        assert_eq!(turn.to_string(), "Another instance is already running");
        let told = Turn::Skipped { running_since: holder.started_at, by: holder.holder.clone() };
        assert_eq!(*turn, told);
    }
    let recorded = bench.history().await;
    assert_eq!(recorded.len(), 8, "{recorded:?}");
    for skip in recorded.iter().filter(|run| run.status == RunStatus::Skipped) {
        assert_eq!(
            (skip.by.as_deref(), skip.results.details.as_str()),
            (Some(&*holder.holder), ALREADY_RUNNING)
        );
        assert_eq!((skip.running_since, skip.fence), (Some(holder.started_at), None));
    }
}

#[tokio::test]
async fn an_error_or_a_panic_ends_the_run_failed_at_once_and_the_next_one_begins() {
    let bench = Bench::new();
    let job = |holder: &str| bench.ledger.job(JOB).holder(holder);
    let failed = job("a").run(|run| async move {
        run.add_processed(2);
        run.add_errors(1);
        Err::<(), _>("the database is gone")
    });
    assert!(matches!(failed.await, Err(JobError::Failed("the database is gone"))));
    let panicked = job("b").run(|_| async { if true { panic!("at 7") } else { Ok::<(), String>(()) } });
    assert!(matches!(panicked.await, Err(JobError::Panicked)));
    // The closure itself may panic, too, before there is a future.
    let panicked = job("c").run(|_: Run| -> std::future::Ready<Result<(), String>> { panic!("at 8") });
    assert!(matches!(panicked.await, Err(JobError::Panicked)));
    let ran = job("d").run(|_| async { Ok::<_, String>(7) }).await;
    assert!(matches!(ran, Ok(Turn::Ran(7))), "no time has passed: {ran:?}");
    let told = bench.told().await;
    let (failed, completed) = (RunStatus::Failed, RunStatus::Completed);
    let mut expected = named(&[("a", failed), ("b", failed), ("c", failed), ("d", completed)]);
    expected.sort();
    let mut told = told;
    told.sort();
    assert_eq!(told, expected);
    let first = bench.history().await.into_iter().find(|run| run.holder == "a").unwrap();
    let reported = RunResults { processed: 2, errors: 1, details: "the database is gone".into() };
    assert_eq!(first.results, reported);
    let second = bench.history().await.into_iter().find(|run| run.holder == "b").unwrap();
    assert_eq!(second.results.details, "the job has panicked", "a panic's text is for logs");
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_the_lease_of_who_runs_does_not_let_two_run() {
    // Time goes by for the store as it goes by for the holder, ten leases of it.
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let job = || ledger.job(JOB).lease(LEASE);
    let begun = Arc::new(Notify::new());
    let long = tokio::spawn({
        let begun = Arc::clone(&begun);
        job().run(move |run| async move {
            begun.notify_one();
            tokio::time::sleep(LEASE * 10).await;
            Ok::<_, String>(run.lost().is_cancelled())
        })
    });
    begun.notified().await;
    for _ in 0..9 {
        tokio::time::sleep(LEASE).await;
        let other = job().run(|_| async { Ok::<_, String>(true) }).await.unwrap();
        assert!(matches!(other, Turn::Skipped { .. }), "the guard was renewed: {other:?}");
    }
    assert!(matches!(long.await.unwrap(), Ok(Turn::Ran(false))), "the lease was never lost");
}

#[tokio::test]
async fn l6_a_holder_that_was_paused_beyond_its_lease_is_fenced_and_its_run_has_lapsed() {
    let bench = Bench::new();
    let paused = bench.began("paused").await;
    bench.clock.advance(LEASE);
    let next = bench.began("next").await;
    assert!(next.is_taken_over());
    assert!(next.run().fence > paused.run().fence, "L2");
    // It wakes, and knows nothing of it.
    let guard = bench.guard();
    assert!(matches!(guard.heartbeat(paused.proof()).await, Err(GuardError::Fenced)));
    assert!(matches!(guard.complete(paused.proof(), results(9)).await, Err(GuardError::Fenced)));
    assert!(matches!(guard.fail(paused.proof(), results(9)).await, Err(GuardError::Fenced)));
    assert_eq!(bench.told().await, named(&[("paused", RunStatus::Lapsed), ("next", RunStatus::Running)]));
    assert_eq!(bench.guard_state().await, Some(StateName::Running), "the new holder's is untouched");
    guard.complete(next.proof(), results(2)).await.unwrap();
    assert_eq!(bench.told().await, named(&[("paused", RunStatus::Lapsed), ("next", RunStatus::Completed)]));
    let lapsed = &bench.history().await[1];
    assert_eq!(lapsed.results.details, "its holder gave no heartbeat, and another run took over");
    assert!(!bench.began("after").await.is_taken_over(), "the one before it has ended");
}

#[tokio::test]
async fn a_lapsed_holder_whom_nobody_has_overtaken_may_still_end_its_run() {
    let bench = Bench::new();
    let late = bench.began("late").await;
    bench.clock.advance(LEASE * 2);
    assert_eq!(bench.guard().heartbeat(late.proof()).await.unwrap().status, RunStatus::Running);
    bench.clock.advance(LEASE * 2);
    let ended = bench.guard().complete(late.proof(), results(4)).await.unwrap().run;
    assert_eq!((ended.status, ended.results), (RunStatus::Completed, results(4)));
    assert_eq!(bench.guard_state().await, Some(StateName::Released), "never completed");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_released_by_force_is_told_and_counts_no_more() {
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let (begun, job) = (Arc::new(Notify::new()), ledger.job(JOB).lease(LEASE).holder("stuck"));
    let guard = job.guard().unwrap();
    let stuck = tokio::spawn({
        let begun = Arc::clone(&begun);
        job.run(move |run| async move {
            begun.notify_one();
            run.lost().cancelled().await;
            Ok::<_, String>(())
        })
    });
    begun.notified().await;
    let fence = guard.running().await.unwrap().unwrap().fence.unwrap();
    let force =
        |fence| Force { fence, actor: "admin:ann".into(), reason: "it hangs".into(), correlation_id: None };
    let other = guard.release_by_force(&force(Fence(fence.0 + 1))).await.unwrap();
    assert_eq!(other, Forced::Changed(fence), "another run than the one that was judged");
    let Forced::Released(run) = guard.release_by_force(&force(fence)).await.unwrap() else { panic!() };
    assert_eq!(
        (run.status, &*run.results.details),
        (RunStatus::Lapsed, "released by force by admin:ann: it hangs")
    );
    assert!(
        matches!(stuck.await.unwrap(), Err(JobError::Lost)),
        "its heartbeat was refused, and so is its end"
    );
    assert_eq!(guard.release_by_force(&force(fence)).await.unwrap(), Forced::NotHeld);
    let audit = ledger.store().audit(AuditQuery::default(), None, 10).await.unwrap().items;
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(
        (audit[0].action, audit[0].reason.as_ref().unwrap().as_str()),
        (Action::ForcedRelease, "it hangs")
    );
}

#[tokio::test(start_paused = true)]
async fn the_run_ends_first_and_then_the_guard_is_released() {
    let bench = Bench::new();
    let claim = bench.began("a").await;
    // The end of the run is refused once: it is said again after a pause, and the guard is held meanwhile.
    bench.store.script(&[Fault::Refused]);
    let guard = bench.guard();
    let ending = guard.complete(claim.proof(), results(1));
    tokio::pin!(ending);
    while bench.store.script_left() > 0 {
        assert!(futures_util::poll!(&mut ending).is_pending());
    }
    assert_eq!(bench.guard_state().await, Some(StateName::Running));
    let run = guard.running().await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Running);
    assert_eq!(ending.await.unwrap().run.status, RunStatus::Completed);
    assert_eq!(bench.guard_state().await, Some(StateName::Released));
}

#[tokio::test(start_paused = true)]
async fn a_guard_whose_run_could_not_be_written_down_is_given_back() {
    let bench = Bench::new();
    bench.store.script(&[Fault::None, Fault::Refused]);
    let refused = bench.guard().start(&start("a")).await;
    assert!(matches!(refused, Err(GuardError::Ledger(_))), "{refused:?}");
    while bench.guard_state().await == Some(StateName::Running) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(bench.history().await.is_empty(), "nothing has run");
    bench.began("b").await;
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_the_same_run_when_it_is_asked_for_again() {
    let bench = Bench::new();
    let named = Start { attempt: Some("try-1".into()), ..start("cron") };
    let guard = bench.guard();
    let asked = async || match guard.start(&named).await.unwrap() {
        Started::Began(claim) => claim,
        Started::Skipped(skip) => panic!("{skip:?}"),
    };
    let (first, again) = (asked().await, asked().await);
    assert_eq!((first.proof(), first.run().fence), (again.proof(), again.run().fence));
    assert!(!first.is_again() && again.is_again());
    assert_eq!(bench.told().await.len(), 1);
    let other = Start { attempt: Some("try-2".into()), ..start("cron") };
    assert!(
        matches!(guard.start(&other).await.unwrap(), Started::Skipped(_)),
        "another attempt is another run"
    );
}

#[tokio::test]
async fn an_end_that_is_said_twice_is_a_success_and_another_end_is_none() {
    let bench = Bench::new();
    let claim = bench.began("a").await;
    let guard = bench.guard();
    let first = guard.complete(claim.proof(), results(5)).await.unwrap();
    let again = guard.complete(claim.proof(), results(5)).await.unwrap();
    assert_eq!((&first.run, first.again, again.again), (&again.run, false, true));
    assert!(matches!(guard.fail(claim.proof(), results(5)).await, Err(GuardError::Fenced)));
    // Also when another run has begun since.
    bench.began("b").await;
    assert_eq!(guard.complete(claim.proof(), results(5)).await.unwrap(), again);
    assert_eq!(bench.guard_state().await, Some(StateName::Running));
    let forged = RunProof { run: claim.proof().run, token: semel_core::Token::from_bytes([1; 16]) };
    assert!(matches!(guard.complete(forged, results(5)).await, Err(GuardError::Fenced)));
    let elsewhere = RunProof { run: guard.job().guard(), token: claim.proof().token };
    assert!(matches!(guard.complete(elsewhere, results(5)).await, Err(GuardError::NotFound)));
}

#[tokio::test]
async fn a_run_is_forgotten_an_hour_after_its_end_and_one_that_runs_is_not() {
    let bench = Bench::new();
    let claim = bench.began("a").await;
    bench.clock.advance(RETENTION * 3);
    assert_eq!(bench.guard().heartbeat(claim.proof()).await.unwrap().expires_at, None);
    let ended = bench.guard().complete(claim.proof(), results(1)).await.unwrap().run;
    let completed = ended.completed_at.unwrap();
    assert_eq!(ended.expires_at, Some(completed.plus(RETENTION)));
    assert_eq!(completed.since(ended.started_at), RETENTION * 3);
    bench.clock.advance(Duration::from_millis(3_599_999));
    assert_eq!(bench.told().await.len(), 1);
    bench.clock.advance(Duration::from_millis(1));
    assert!(bench.told().await.is_empty());
}

#[tokio::test]
async fn a_lease_that_was_configured_anew_holds_from_the_next_run_on_however_soon_that_is() {
    // At once, while the guard that was given back is there; and when it is as good as absent.
    for pause in [Duration::ZERO, Duration::from_secs(2)] {
        let bench = Bench::new();
        for (number, lease) in [LEASE, LEASE * 2, LEASE / 2, LEASE].into_iter().enumerate() {
            let start = Start { lease, ..start(&format!("run-{number}")) };
            let Started::Began(claim) = bench.guard().start(&start).await.unwrap() else { panic!() };
            let held = |run: &JobRun| run.lease_until.unwrap().since(run.heartbeat_at.unwrap());
            assert_eq!((claim.lease(), held(claim.run())), (lease, lease));
            bench.clock.advance(lease / 2);
            assert_eq!(held(&bench.guard().heartbeat(claim.proof()).await.unwrap()), lease);
            bench.guard().complete(claim.proof(), results(1)).await.unwrap();
            bench.clock.advance(pause);
        }
    }
}

#[tokio::test]
async fn l1_whoever_takes_over_has_the_lease_that_it_asks_for_and_not_the_dead_holders() {
    for lease in [LEASE / 2, LEASE * 3] {
        let bench = Bench::new();
        bench.began("dead").await;
        bench.clock.advance(LEASE);
        let heir = bench.guard().start(&Start { lease, ..start("heir") }).await.unwrap();
        let Started::Began(heir) = heir else { panic!() };
        assert!(heir.is_taken_over() && heir.lease() == lease);
        bench.clock.advance(lease.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(matches!(bench.guard().start(&start("next")).await.unwrap(), Started::Skipped(_)));
        bench.clock.advance(Duration::from_millis(1));
        assert!(bench.began("next").await.is_taken_over());
    }
}

#[tokio::test]
async fn a_start_that_is_asked_for_again_keeps_the_lease_that_it_began_with() {
    let bench = Bench::new();
    let named = |lease| Start { attempt: Some("try-1".into()), lease, ..start("cron") };
    for lease in [LEASE, LEASE * 2] {
        let Started::Began(claim) = bench.guard().start(&named(lease)).await.unwrap() else { panic!() };
        assert_eq!((claim.lease(), claim.is_again()), (LEASE, lease != LEASE));
    }
}

#[tokio::test]
async fn one_tenants_job_does_not_hold_up_anothers() {
    let bench = Bench::new();
    let tenant = |name: &str| Tenant::try_new(name).unwrap();
    let inner = bench.ledger.clone();
    let outer = bench.ledger.job(JOB).of_tenant(tenant("acme")).run(move |_| async move {
        inner
            .job(JOB)
            .of_tenant(tenant("globex"))
            .run(|_| async { Ok::<_, String>(7) })
            .await
            .map_err(|_| "no")
    });
    assert!(matches!(outer.await, Ok(Turn::Ran(Turn::Ran(7)))));
}

#[tokio::test]
async fn what_is_wrong_with_a_start_is_said_before_anything_is_taken() {
    let bench = Bench::new();
    let guard = bench.guard();
    for (wrong, what) in [
        (Start { lease: Duration::ZERO, ..start("a") }, "lease"),
        (Start { retention: Duration::ZERO, ..start("a") }, "retention"),
        (start(""), "holder"),
        (start("a\nb"), "holder"),
        (Start { attempt: Some("a@b".into()), ..start("a") }, "attempt"),
    ] {
        match guard.start(&wrong).await {
            Err(GuardError::Invalid(invalid)) => assert_eq!(invalid.what(), what),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(bench.guard_state().await, None);
    let odd = bench.ledger.job("EXPIRE LOCKS").run(|_| async { Ok::<_, String>(()) }).await;
    assert!(matches!(odd, Err(JobError::Guard(GuardError::Invalid(_)))));
}

#[tokio::test]
async fn work_goes_on_when_whoever_waits_for_its_job_goes_away_l11() {
    let bench = Bench::new();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let turn = tokio::spawn(bench.ledger.job(JOB).run(move |_| async move {
        told.notify_one();
        wait.notified().await;
        Ok::<_, String>(())
    }));
    begun.notified().await;
    turn.abort();
    assert!(turn.await.unwrap_err().is_cancelled());
    go.notify_one();
    while bench.history().await[0].status == RunStatus::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.history().await[0].status, RunStatus::Completed);
}

#[tokio::test]
async fn pages_of_the_history_miss_nothing_and_show_nothing_twice() {
    let bench = Bench::new();
    for number in 0..7 {
        let claim = bench.began(&format!("n{number}")).await;
        bench.guard().complete(claim.proof(), results(number)).await.unwrap();
        bench.clock.advance(Duration::from_millis(1));
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = bench.guard().history(cursor, 3).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|run| run.results.processed));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn an_instant_of_a_schedule_is_one_nodes_and_is_over_once_its_run_has_ended() {
    let bench = Bench::new();
    let guard = bench.guard();
    let instant = "2026-11-21T12:00:00Z";
    let TickAnswer::Yours(claim) = guard.tick(instant, LEASE).await.unwrap() else { panic!() };
    let TickAnswer::Busy(record) = guard.tick(instant, LEASE).await.unwrap() else { panic!() };
    assert_eq!(record.id(), claim.record().id());
    let seen = |is_over| vec![TickSeen { instant: instant.to_owned(), is_over }];
    assert_eq!(guard.ticks(10).await.unwrap(), seen(false));
    assert!(bench.history().await.is_empty(), "it is no run");
    let outcome = Outcome::try_new(Class::Success, 200, Headers::default(), "ran".into()).unwrap();
    bench.ledger.complete(claim, outcome).await.unwrap();
    assert!(matches!(guard.tick(instant, LEASE).await.unwrap(), TickAnswer::Over));
    assert_eq!(guard.ticks(10).await.unwrap(), seen(true));
    // The clock is set back by days: what comes again is remembered.
    bench.clock.advance(Duration::from_secs(6 * 24 * 3_600));
    assert!(matches!(guard.tick(instant, LEASE).await.unwrap(), TickAnswer::Over));
}

#[tokio::test]
async fn an_instant_whose_holder_died_is_taken_over_when_the_guard_of_its_run_has_lapsed() {
    let bench = Bench::new();
    let (guard, instant) = (bench.guard(), "2026-11-21T12:00:00Z");
    let TickAnswer::Yours(first) = guard.tick(instant, LEASE).await.unwrap() else { panic!() };
    bench.began("dead").await;
    bench.clock.advance(LEASE);
    assert!(matches!(guard.tick(instant, LEASE).await.unwrap(), TickAnswer::Busy(_)), "not before the guard");
    bench.clock.advance(LEASE);
    let TickAnswer::Yours(second) = guard.tick(instant, LEASE).await.unwrap() else { panic!() };
    assert_eq!((second.attempt(), second.fence() > first.fence()), (2, true));
    assert!(bench.began("heir").await.is_taken_over());
    let told = named(&[("dead", RunStatus::Lapsed), ("heir", RunStatus::Running)]);
    assert_eq!(bench.told().await, told);
}

#[tokio::test]
async fn an_instant_that_nobody_was_there_for_is_recorded() {
    let bench = Bench::new();
    let missed = Start { scheduled_at: Some("2026-11-21T12:00:00Z".into()), ..start("late") };
    let run = bench.guard().missed(&missed).await.unwrap().unwrap();
    assert_eq!((run.status, run.scheduled_at.as_deref()), (RunStatus::Skipped, Some("2026-11-21T12:00:00Z")));
    assert_eq!(run.results.details, "Nothing was running at this instant of the schedule");
    assert_eq!(bench.history().await, [run]);
}

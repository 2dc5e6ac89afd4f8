//! The guard of jobs, as Rust programs have it, over every store: three ledgers, as three processes would have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use semel::core::query::AuditQuery;
use semel::core::{Fence, audit::Action};
use semel::job::{
    ALREADY_RUNNING, Force, Forced, GuardError, JobGuard, JobRun, RunClaim, RunResults, RunStatus, Start,
    Started, TickAnswer,
};
use semel::{JobError, Jobs as _, Ledger, Turn};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::shared_store::{Kind, SharedStore};
use crate::wait::eventually;

const JOB: &str = "EXPIRE_LOCKS";
const NODES: usize = 3;
/// Long beside everything that a test does, so that nothing lapses by itself.
const LONG: Duration = Duration::from_secs(600);
/// So short that it lapses while a test waits for just that.
const SHORT: Duration = Duration::from_millis(300);

/// A store, with as many ledgers over it as there are nodes.
struct Stage {
    nodes: Vec<Ledger>,
    /// Removed with the stage.
    _shared: Option<SharedStore>,
    _folder: Option<TempDir>,
}

impl Stage {
    /// One process has an embedded store; its nodes are tasks.
    async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("embedded:{}", folder.path().join("data").display());
        let ledger = semel::open(&url).await.unwrap();
        Self { nodes: vec![ledger; NODES], _shared: None, _folder: Some(folder) }
    }

    async fn over(kind: Kind) -> Option<Self> {
        let shared = kind.fresh().await?;
        let url = shared.url();
        let nodes = join_all((0..NODES).map(|_| semel::open(&url))).await;
        let nodes = nodes.into_iter().map(Result::unwrap).collect();
        Some(Self { nodes, _shared: Some(shared), _folder: None })
    }

    fn guard(&self, node: usize) -> JobGuard {
        self.nodes[node].job(JOB).guard().unwrap()
    }

    async fn began(&self, node: usize, start: &Start) -> RunClaim {
        match self.guard(node).start(start).await.unwrap() {
            Started::Began(claim) => claim,
            Started::Skipped(skip) => panic!("{start:?} was skipped: {skip:?}"),
        }
    }

    async fn history(&self) -> Vec<JobRun> {
        self.guard(0).history(None, 100).await.unwrap().items
    }

    /// What became of this holder's runs and skips.
    async fn of(&self, holder: &str) -> Vec<RunStatus> {
        let runs = self.history().await.into_iter().filter(|run| run.holder == holder);
        runs.map(|run| run.status).collect()
    }
}

macro_rules! over_every_store {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Stage::embedded().await).await;
            })*
        }
        over_every_store! { mongodb: Mongodb; $($name),* }
        over_every_store! { postgres: Postgres; $($name),* }
        over_every_store! { redis: Redis; $($name),* }
    };
    ($module:ident: $kind:ident; $($name:ident),*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(stage) = super::Stage::over(super::Kind::$kind).await else { return };
                super::$name(stage).await;
            })*
        }
    };
}

over_every_store! {
    of_three_nodes_that_start_at_once_one_runs_and_the_others_are_skipped_and_recorded,
    an_error_or_a_panic_ends_the_run_failed_at_once_and_the_next_one_begins,
    a_pause_longer_than_the_lease_lets_the_next_one_run_and_fences_the_first_l2_l6,
    a_lost_answer_is_asked_for_again_and_changes_nothing,
    a_run_holds_its_guard_for_the_lease_that_its_own_job_was_given_l1,
    a_run_that_is_released_by_force_is_over_and_the_release_is_audited,
    pages_of_the_history_miss_nothing_and_show_nothing_twice,
    a_tick_is_one_nodes_and_is_taken_over_when_that_is_dead,
}

fn start(holder: &str, lease: Duration) -> Start {
    Start { lease, ..Start::by(holder) }
}

fn results(processed: u64) -> RunResults {
    RunResults { processed, errors: 1, details: "one lock was gone".into() }
}

async fn of_three_nodes_that_start_at_once_one_runs_and_the_others_are_skipped_and_recorded(stage: Stage) {
    let (running, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let turns = stage.nodes.iter().enumerate().map(|(number, node)| {
        let (running, go) = (Arc::clone(&running), Arc::clone(&go));
        tokio::spawn(node.job(JOB).holder(format!("node-{number}")).run(move |run| async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two run at once");
            go.notified().await;
            run.add_processed(3);
            Ok::<_, String>(())
        }))
    });
    let turns: Vec<_> = turns.collect();
    eventually("the others are skipped", async || {
        let skipped =
            stage.history().await.into_iter().filter(|run| run.status == RunStatus::Skipped).count();
        (skipped == NODES - 1).then_some(())
    })
    .await;
    go.notify_one();
    let turns: Vec<Turn<()>> = join_all(turns).await.into_iter().map(|turn| turn.unwrap().unwrap()).collect();
    let told: Vec<String> = turns.iter().map(ToString::to_string).collect();
    assert_eq!(told.iter().filter(|told| *told == "ran").count(), 1);
    assert_eq!(told.iter().filter(|told| *told == "Another instance is already running").count(), NODES - 1);
    let recorded = stage.history().await;
    let ran = recorded.iter().find(|run| run.status == RunStatus::Completed).unwrap();
    assert_eq!((recorded.len(), ran.results.processed), (NODES, 3), "{recorded:?}");
    for skip in recorded.iter().filter(|run| run.status == RunStatus::Skipped) {
        let said = (skip.by.as_deref(), skip.results.details.as_str(), skip.fence);
        assert_eq!(said, (Some(ran.holder.as_str()), ALREADY_RUNNING, None));
    }
}

async fn an_error_or_a_panic_ends_the_run_failed_at_once_and_the_next_one_begins(stage: Stage) {
    let job = |node: usize, holder: &str| stage.nodes[node].job(JOB).holder(holder).lease(LONG);
    let failed = job(0, "a").run(|run| async move {
        run.add_processed(2);
        Err::<(), _>("the database is gone")
    });
    assert!(matches!(failed.await, Err(JobError::Failed("the database is gone"))));
    let panicked = job(1, "b").run(|_| async { if true { panic!("at 7") } else { Ok::<(), String>(()) } });
    assert!(matches!(panicked.await, Err(JobError::Panicked)));
    let ran = job(2, "c").run(|_| async { Ok::<_, String>(7) }).await;
    assert!(matches!(ran, Ok(Turn::Ran(7))), "{ran:?}");
    let runs = stage.history().await;
    let of = |holder: &str| runs.iter().find(|run| run.holder == holder).unwrap();
    let ends = ["a", "b", "c"].map(|holder| of(holder).status);
    assert_eq!(ends, [RunStatus::Failed, RunStatus::Failed, RunStatus::Completed]);
    let said = RunResults { processed: 2, errors: 0, details: "the database is gone".into() };
    assert_eq!(of("a").results, said);
}

async fn a_pause_longer_than_the_lease_lets_the_next_one_run_and_fences_the_first_l2_l6(stage: Stage) {
    let paused = stage.began(0, &start("paused", SHORT)).await;
    let next = eventually("the lease lapses", async || {
        match stage.guard(1).start(&start("next", LONG)).await.unwrap() {
            Started::Began(claim) => Some(claim),
            Started::Skipped(_) => None,
        }
    })
    .await;
    assert!(next.is_taken_over());
    assert!(next.run().fence > paused.run().fence, "L2");
    let guard = stage.guard(0);
    assert!(matches!(guard.heartbeat(paused.proof()).await, Err(GuardError::Fenced)));
    assert!(matches!(guard.complete(paused.proof(), results(9)).await, Err(GuardError::Fenced)));
    assert!(matches!(guard.fail(paused.proof(), results(9)).await, Err(GuardError::Fenced)));
    assert_eq!(stage.of("paused").await, [RunStatus::Lapsed]);
    assert_eq!(guard.running().await.unwrap().map(|run| run.id), Some(next.run().id), "L6: untouched");
    stage.guard(2).complete(next.proof(), results(2)).await.unwrap();
    assert!(stage.of("next").await.contains(&RunStatus::Completed));
    let after = stage.began(0, &start("after", LONG)).await;
    assert!(!after.is_taken_over() && after.run().fence > next.run().fence, "L2, also after a release");
}

async fn a_lost_answer_is_asked_for_again_and_changes_nothing(stage: Stage) {
    let named = Start { attempt: Some("try-1".into()), ..start("cron", LONG) };
    let (first, again) = (stage.began(0, &named).await, stage.began(1, &named).await);
    assert_eq!((first.proof(), first.run().fence), (again.proof(), again.run().fence));
    assert!(!first.is_again() && again.is_again());
    let ended = stage.guard(0).complete(first.proof(), results(5)).await.unwrap();
    let twice = stage.guard(1).complete(first.proof(), results(5)).await.unwrap();
    assert_eq!((&ended.run, ended.again, twice.again), (&twice.run, false, true));
    let other = stage.guard(2).fail(first.proof(), results(5)).await;
    assert!(matches!(other, Err(GuardError::Fenced)), "{other:?}");
    assert_eq!(stage.of("cron").await, [RunStatus::Completed]);
}

/// By `.lease(…)`, one after the other, and then after one that is gone.
async fn a_run_holds_its_guard_for_the_lease_that_its_own_job_was_given_l1(stage: Stage) {
    let held = async |node: usize, lease: Duration| {
        let guard = stage.guard(node);
        let job = stage.nodes[node].job(JOB).lease(lease);
        let turn = job.run(move |_| async move { guard.running().await.map_err(|error| error.to_string()) });
        match turn.await.unwrap() {
            Turn::Ran(run) => run.map(|run| run.lease_until.unwrap().since(run.heartbeat_at.unwrap())),
            Turn::Skipped { .. } => None,
        }
    };
    let is = |held: Duration, lease: Duration| held >= lease && held < lease + LONG / 2;
    for (node, lease) in [(0, LONG), (1, LONG * 3), (2, LONG)] {
        let held = held(node, lease).await.unwrap();
        assert!(is(held, lease), "{held:?} of {lease:?}");
    }
    stage.began(0, &start("gone", SHORT)).await;
    let held = eventually("the short lease lapses", async || held(1, LONG * 3).await).await;
    assert!(is(held, LONG * 3), "{held:?}");
}

async fn a_run_that_is_released_by_force_is_over_and_the_release_is_audited(stage: Stage) {
    let stuck = stage.began(0, &start("stuck", LONG)).await;
    let fence = stuck.run().fence.unwrap();
    let by =
        |fence| Force { fence, actor: "admin:ann".into(), reason: "it hangs".into(), correlation_id: None };
    let other = stage.guard(1).release_by_force(&by(Fence(fence.0 + 1))).await.unwrap();
    assert_eq!(other, Forced::Changed(fence), "another run than the one that was judged");
    let Forced::Released(run) = stage.guard(1).release_by_force(&by(fence)).await.unwrap() else { panic!() };
    assert_eq!((run.id, run.status), (stuck.run().id, RunStatus::Lapsed));
    assert_eq!(run.results.details, "released by force by admin:ann: it hangs");
    assert!(matches!(stage.guard(0).heartbeat(stuck.proof()).await, Err(GuardError::Fenced)));
    assert_eq!(stage.guard(2).release_by_force(&by(fence)).await.unwrap(), Forced::NotHeld);
    assert!(!stage.began(2, &start("next", LONG)).await.is_taken_over());
    // Where audit entries are copied out of records, that is done after the answer.
    let entries = eventually("the release is in the audit log", async || {
        let audit = stage.nodes[0].store().audit(AuditQuery::default(), None, 100).await.unwrap().items;
        let forced: Vec<_> =
            audit.into_iter().filter(|entry| entry.action == Action::ForcedRelease).collect();
        (!forced.is_empty()).then_some(forced)
    })
    .await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reason.as_ref().map(semel::core::record::Text::as_str), Some("it hangs"));
}

async fn pages_of_the_history_miss_nothing_and_show_nothing_twice(stage: Stage) {
    for number in 0..5 {
        let node = usize::try_from(number).unwrap() % NODES;
        let claim = stage.began(node, &start("n", LONG)).await;
        stage.guard(node).complete(claim.proof(), results(number)).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = stage.guard(1).history(cursor, 2).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|run| run.results.processed));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

async fn a_tick_is_one_nodes_and_is_taken_over_when_that_is_dead(stage: Stage) {
    let (noon, one) = ("2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z");
    let guards = [0, 1, 2].map(|node| stage.guard(node));
    let asked = join_all(guards.iter().map(|guard| guard.tick(noon, LONG))).await;
    let asked: Vec<_> = asked.into_iter().map(Result::unwrap).collect();
    assert_eq!(asked.iter().filter(|answer| matches!(answer, TickAnswer::Yours(_))).count(), 1);
    assert_eq!(asked.iter().filter(|answer| matches!(answer, TickAnswer::Busy(_))).count(), NODES - 1);
    // Whoever has the next one is never heard of again.
    let TickAnswer::Yours(dead) = guards[0].tick(one, SHORT / 2).await.unwrap() else { panic!() };
    let heir = eventually("its lease lapses", async || match guards[1].tick(one, LONG).await.unwrap() {
        TickAnswer::Yours(claim) => Some(claim),
        TickAnswer::Busy(_) => None,
        TickAnswer::Over => panic!("nothing has come of it"),
    })
    .await;
    assert!(heir.is_tainted() && heir.fence() > dead.fence(), "L2");
    let mut seen = guards[2].ticks(10).await.unwrap();
    seen.sort_by(|one, other| one.instant.cmp(&other.instant));
    let seen: Vec<_> = seen.iter().map(|tick| (tick.instant.as_str(), tick.is_over)).collect();
    assert_eq!(seen, [(noon, false), (one, false)]);
}

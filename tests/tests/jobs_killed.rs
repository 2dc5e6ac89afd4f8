//! The guard of jobs inside Rust programs that die in the middle of a run, or stand still for longer than their lease.
//!
//! The program is this very test program, started again: it opens the store that it is told, and runs the job by
//! `ledger.job(…).run(…)` until it is told that the guard is lost. What it works on is this test, which keeps the highest
//! fence that it has seen and refuses a lower one.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use semel::core::{Fence, RecordId};
use semel::job::{ALREADY_RUNNING, JobGuard, JobRun, RunStatus};
use semel::{Job, JobError, Jobs as _, Ledger, Turn};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, oneshot};

use crate::shared_store::{Kind, on_every_store};
use crate::wait::eventually;

const JOB: &str = "EXPIRE_LOCKS";
/// Where the program that is started again finds its store.
const STORE: &str = "JOBS_TEST_STORE";
/// How long a dead holder is in the way: no longer than a test can wait.
const LEASE: Duration = Duration::from_secs(3);
/// Long beside everything that a test does, so that nothing lapses by itself.
const LONG: Duration = Duration::from_secs(600);
/// No program takes longer than this to say what it has to.
const WITHIN: Duration = Duration::from_secs(60);

on_every_store! {
    a_killed_programs_lease_lapses_and_the_next_run_starts_l2,
    a_program_that_stood_still_for_longer_than_its_lease_is_told_and_fenced_l2_l6,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_embedded_store_the_next_program_runs_once_a_killed_ones_lease_has_lapsed_l2() {
    let folder = tempfile::tempdir().unwrap();
    overtakes_a_killed_one(&format!("embedded:{}", folder.path().join("data").display())).await;
}

async fn a_killed_programs_lease_lapses_and_the_next_run_starts_l2(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    overtakes_a_killed_one(&store.url()).await;
}

fn job(ledger: &Ledger, holder: &str, lease: Duration) -> Job {
    ledger.job(JOB).holder(holder).lease(lease)
}

/// The program. Without being told of a store it has one of its own, and nobody to fear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_runs_until_its_guard_is_lost() {
    let Ok(store) = std::env::var(STORE) else {
        let ledger = semel::open("memory:").await.unwrap();
        let turn = job(&ledger, "alone", LONG).run(|run| async move { Ok::<_, String>(run.fence()) }).await;
        assert!(matches!(turn, Ok(Turn::Ran(_))), "{turn:?}");
        return;
    };
    let ledger = semel::open(&store).await.unwrap();
    let turn = job(&ledger, "victim", LEASE).run(|run| async move {
        println!("running: {}", run.fence());
        run.lost().cancelled().await;
        println!("lost");
        // What it has in mind when it is stopped it does when it goes on.
        let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
        told.unwrap().map_err(|error| error.to_string())?;
        println!("writes: {}", run.fence());
        Ok::<_, String>(())
    });
    match turn.await {
        Err(JobError::Lost) => println!("ended: lost"),
        other => println!("ended: {other:?}"),
    }
}

/// The program in a process of its own.
struct Program {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    tells: ChildStdin,
}

impl Program {
    /// Starts it, and waits until it runs the job.
    async fn running(store: &str) -> (Self, Fence) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "jobs_killed::the_job_runs_until_its_guard_is_lost", "--nocapture"]);
        command.env(STORE, store).kill_on_drop(true);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = pipes.spawn().unwrap();
        let (said, tells) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let mut program = Self { child, said: BufReader::new(said).lines(), tells };
        let fence = program.says("running: ").await;
        (program, Fence(fence.parse().unwrap()))
    }

    /// What follows this on the line that it begins.
    async fn says(&mut self, what: &str) -> String {
        let saying = async {
            while let Some(line) = self.said.next_line().await.unwrap() {
                // The first line may stand behind what the test's runner has printed.
                if let Some((_, rest)) = line.split_once(what) {
                    return rest.to_owned();
                }
            }
            panic!("it has ended without {what:?}");
        };
        tokio::time::timeout(WITHIN, saying).await.unwrap_or_else(|_| panic!("it never says {what:?}"))
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    async fn killed(mut self) {
        self.signal(Signal::KILL);
        tokio::time::timeout(WITHIN, self.child.wait()).await.expect("an end").unwrap();
    }
}

/// What the job works on: it refuses a fence that is lower than one that it has seen.
#[derive(Default)]
struct Resource(Fence);

impl Resource {
    fn takes(&mut self, fence: Fence) -> bool {
        let is_newest = fence >= self.0;
        self.0 = self.0.max(fence);
        is_newest
    }
}

/// A run by `next`, which stays at work until it is let go.
struct Next {
    id: RecordId,
    fence: Fence,
    go: Arc<Notify>,
    turn: tokio::task::JoinHandle<Result<Turn<()>, JobError<String>>>,
}

/// Asks until the job is this program's: whoever is turned away is told why.
async fn next(ledger: &Ledger) -> Next {
    eventually("the lease of the one before lapses", async || {
        let (begun, begins) = oneshot::channel();
        let go = Arc::new(Notify::new());
        let waits = Arc::clone(&go);
        let turn = job(ledger, "next", LONG).run(move |run| async move {
            assert!(run.is_taken_over(), "the one before has had no end");
            begun.send((run.id(), run.fence())).unwrap();
            waits.notified().await;
            run.add_processed(1);
            Ok::<_, String>(())
        });
        let turn = tokio::spawn(turn);
        if let Ok((id, fence)) = begins.await {
            return Some(Next { id, fence, go, turn });
        }
        let skipped = turn.await.unwrap().unwrap();
        assert_eq!(skipped.to_string(), ALREADY_RUNNING);
        assert!(matches!(skipped, Turn::Skipped { by, .. } if by == "victim"));
        None
    })
    .await
}

fn guard(ledger: &Ledger) -> JobGuard {
    ledger.job(JOB).guard().unwrap()
}

/// The run that has the guard.
async fn running(ledger: &Ledger) -> JobRun {
    guard(ledger).running().await.unwrap().expect("nobody has ended it")
}

async fn run(ledger: &Ledger, id: RecordId) -> JobRun {
    guard(ledger).run(id).await.unwrap()
}

async fn overtakes_a_killed_one(store: &str) {
    let (victim, fence) = Program::running(store).await;
    victim.killed().await;
    // Not before: one process at a time has an embedded store.
    let ledger = semel::open(store).await.unwrap();
    let dead = running(&ledger).await;
    assert_eq!((dead.fence, dead.holder.as_str()), (Some(fence), "victim"));
    let next = next(&ledger).await;
    assert!(next.fence > fence, "L2");
    // By the store's time, whatever this machine was busy with.
    let (began, held_until) = (run(&ledger, next.id).await.started_at, dead.lease_until.unwrap());
    assert!(began >= held_until, "{began:?} is before {held_until:?}");
    ends(&ledger, &dead, next).await;
}

/// The run before has lapsed, and the next one ends as if nothing had been.
async fn ends(ledger: &Ledger, before: &JobRun, next: Next) {
    assert_eq!(run(ledger, before.id).await.status, RunStatus::Lapsed);
    assert_eq!(running(ledger).await.id, next.id, "nothing of the run before has touched it");
    next.go.notify_one();
    assert!(matches!(next.turn.await.unwrap(), Ok(Turn::Ran(()))));
    let ended = run(ledger, next.id).await;
    assert_eq!((ended.status, ended.results.processed), (RunStatus::Completed, 1));
}

async fn a_program_that_stood_still_for_longer_than_its_lease_is_told_and_fenced_l2_l6(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let (mut paused, fence) = Program::running(&store.url()).await;
    let mut resource = Resource::default();
    assert!(resource.takes(fence));
    paused.signal(Signal::STOP);
    let ledger = semel::open(&store.url()).await.unwrap();
    let before = running(&ledger).await;
    let next = next(&ledger).await;
    assert!(next.fence > fence && resource.takes(next.fence), "L2");
    paused.signal(Signal::CONT);
    paused.says("lost").await;
    // It goes on all the same: what it works on refuses it, and so does the ledger.
    paused.tells.write_all(b"go on\n").await.unwrap();
    let stale = Fence(paused.says("writes: ").await.parse().unwrap());
    assert!(stale == fence && !resource.takes(stale), "L6");
    assert_eq!(paused.says("ended: ").await, "lost");
    ends(&ledger, &before, next).await;
}

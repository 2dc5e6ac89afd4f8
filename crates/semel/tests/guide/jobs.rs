//! `docs/guide/jobs.md`: locks that have expired are released, by one node at a time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use semel::core::Fence;
use semel::job::RunStatus;
use tokio::sync::Semaphore;

/// The newest fence that the database has seen.
static NEWEST: AtomicU64 = AtomicU64::new(0);
/// How many of those who ask for locks are answered.
static ASKED: Semaphore = Semaphore::const_new(0);

#[derive(Debug)]
struct DbError;

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the database says no")
    }
}

async fn expired_locks() -> Result<Vec<&'static str>, DbError> {
    ASKED.acquire().await.map_err(|_| DbError)?.forget();
    Ok(vec!["A-1", "A-2", "gone"])
}

async fn release(lock: &str, fence: Fence) -> Result<(), DbError> {
    let newest = NEWEST.fetch_max(fence.0, Ordering::SeqCst);
    if fence.0 < newest || lock == "gone" { Err(DbError) } else { Ok(()) }
}

use semel::{JobError, Jobs as _, Ledger, Turn};

async fn expire_locks(ledger: &Ledger) -> Result<Turn<()>, JobError<DbError>> {
    let job = ledger.job("EXPIRE_LOCKS");
    let turn = job.run(|run| async move {
        for lock in expired_locks().await? {
            if run.lost().is_cancelled() {
                break; // another node has taken over
            }
            // The database refuses a lower fence.
            match release(lock, run.fence()).await {
                Ok(()) => run.add_processed(1),
                Err(_) => run.add_errors(1),
            }
        }
        Ok(())
    });
    let turn = turn.await?;
    if let Turn::Skipped { .. } = turn {
        println!("{turn}"); // Another instance is already running
    }
    Ok(turn)
}

#[tokio::test]
async fn the_job_of_the_guide_runs_once_at_a_time_and_its_results_are_recorded() {
    let ledger = semel::open("memory:").await.unwrap();
    let (one, other) = (ledger.clone(), ledger.clone());
    let first = tokio::spawn(async move { expire_locks(&one).await });
    while ledger.job("EXPIRE_LOCKS").guard().unwrap().running().await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let skipped = expire_locks(&other).await.unwrap();
    assert_eq!(skipped.to_string(), "Another instance is already running");
    ASKED.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), Turn::Ran(()));
    let runs = ledger.job("EXPIRE_LOCKS").guard().unwrap().history(None, 10).await.unwrap().items;
    let ran = runs.iter().find(|run| run.status == RunStatus::Completed).unwrap();
    assert_eq!((runs.len(), ran.results.processed, ran.results.errors), (2, 2, 1));
}

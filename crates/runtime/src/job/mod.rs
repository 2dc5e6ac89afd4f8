//! Jobs: one running instance of each type, over all nodes, and the record of its runs.
//!
//! ```
//! use semel_core::Ledger;
//! use semel_runtime::job::{Jobs as _, Turn};
//! # use semel_runtime::OsEntropy;
//! # use semel_stores::memory::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ledger = Ledger::new(std::sync::Arc::new(MemoryStore::new()), std::sync::Arc::new(OsEntropy));
//! let turn = ledger
//!     .job("EXPIRE_LOCKS")
//!     .run(|run| async move {
//!         for lock in ["A-1", "A-2"] {
//!             if run.lost().is_cancelled() {
//!                 break; // another node has taken over
//!             }
//!             # let _ = lock;
//!             run.add_processed(1); // … and release the lock, under `run.fence()`
//!         }
//!         Ok::<_, std::io::Error>(())
//!     })
//!     .await?;
//! match turn {
//!     Turn::Ran(()) => println!("done"),
//!     skipped @ Turn::Skipped { .. } => println!("{skipped}"), // Another instance is already running
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A run keeps its guard by heartbeats, however long it takes. It ends `FAILED` at once by an error or a panic; only the
//! death of its process waits for the lease. Whoever takes over then ends it as `LAPSED`, under a higher fence; the old
//! holder, if it was only paused, is told by [`Run::lost`], and what it says of its run counts no more.

use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use semel_core::{Fence, Ledger, RecordId, Timestamp};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Ended as Kept, Runtime, Unwatched, limits};

mod guard;
mod history;
mod kind;
mod run;
mod tick;

pub use guard::{Force, Forced, GuardError, JobGuard, RunClaim, RunEnd, RunProof, Skip, Start, Started};
pub use kind::{InvalidJob, JobType};
pub use run::{JobRun, RunResults, RunStatus};
pub use tick::{TickAnswer, TickSeen};

/// What a start is told that comes while another instance runs.
pub const ALREADY_RUNNING: &str = "Another instance is already running";

/// What has jobs.
pub trait Jobs {
    /// The job of this type, such as `EXPIRE_LOCKS`. What is wrong with the type is said when it is run.
    fn job(&self, job_type: &str) -> Job;
}

impl Jobs for Ledger {
    fn job(&self, job_type: &str) -> Job {
        Runtime::new(self.clone(), TaskTracker::new(), CancellationToken::new(), Arc::new(Unwatched))
            .job(job_type)
    }
}

impl Jobs for Runtime {
    fn job(&self, job_type: &str) -> Job {
        Job { runtime: self.clone(), named: JobType::try_new(job_type), start: Start::by(this_process()) }
    }
}

/// A job, about to be run.
#[derive(Clone, Debug)]
#[must_use = "a job does nothing before it is run"]
pub struct Job {
    runtime: Runtime,
    named: Result<JobType, InvalidJob>,
    start: Start,
}

/// What became of a job's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It ran, and gave this.
    Ran(T),
    /// Another instance is already running. The skip is recorded.
    Skipped {
        /// Since when, in the store's time.
        running_since: Timestamp,
        /// Who runs it.
        by: String,
    },
}

/// What a schedule's log says of a turn.
impl<T> fmt::Display for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ran(_) => "ran",
            Self::Skipped { .. } => ALREADY_RUNNING,
        })
    }
}

/// A turn that came to no good end.
#[derive(Debug)]
pub enum JobError<E> {
    /// The work said so. The run is recorded as failed.
    Failed(E),
    /// The work has panicked. The run is recorded as failed; the panic's text went where the process's panics go.
    Panicked,
    /// The work was given up, since the process goes down. The run is recorded as failed.
    GivenUp,
    /// The work ended, and by then another run had taken over, or an operator had put this one out.
    Lost,
    /// It did not begin; or its work ended well, and that could not be stored.
    Guard(GuardError),
}

impl<E: fmt::Display> fmt::Display for JobError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Panicked => f.write_str("the job has panicked"),
            Self::GivenUp => f.write_str("the process went down before the job had ended"),
            Self::Lost => f.write_str("the job was lost to another run while its work went on"),
            Self::Guard(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for JobError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::Guard(error) => error.source(),
            Self::Panicked | Self::GivenUp | Self::Lost => None,
        }
    }
}

/// The run, for its work: what it runs under, and what it reports. A clone is another handle.
#[derive(Clone, Debug)]
pub struct Run(Arc<RunShared>);

#[derive(Debug)]
struct RunShared {
    run: JobRun,
    taken_over: bool,
    lost: CancellationToken,
    processed: AtomicU64,
    errors: AtomicU64,
    details: std::sync::Mutex<String>,
}

impl Run {
    fn new(claim: &RunClaim, lost: CancellationToken) -> Self {
        Self(Arc::new(RunShared {
            run: claim.run().clone(),
            taken_over: claim.is_taken_over(),
            lost,
            processed: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            details: std::sync::Mutex::default(),
        }))
    }

    /// The record of the run: for logs.
    pub fn id(&self) -> RecordId {
        self.0.run.id
    }

    /// Rises with every run of the type: a resource that remembers the highest one it has seen can refuse a run that
    /// was overtaken.
    pub fn fence(&self) -> Fence {
        self.0.run.fence.unwrap_or_default()
    }

    /// Whether the run before it lapsed, so that its work may be half done.
    pub fn is_taken_over(&self) -> bool {
        self.0.taken_over
    }

    /// Cancelled when the guard is not safe any more: begin nothing further.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// So many more were processed.
    pub fn add_processed(&self, number: u64) {
        self.0.processed.fetch_add(number, Ordering::Relaxed);
    }

    /// So many more went wrong.
    pub fn add_errors(&self, number: u64) {
        self.0.errors.fetch_add(number, Ordering::Relaxed);
    }

    /// What else there is to say, in the place of what was said before; up to [`limits::JOB_DETAILS_BYTES_MAX`].
    pub fn set_details(&self, details: impl Into<String>) {
        *self.0.details.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = details.into();
    }

    /// What it has reported so far; `otherwise` is what it says if it has said nothing.
    fn results(&self, otherwise: impl FnOnce() -> String) -> RunResults {
        let said = self.0.details.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        RunResults {
            processed: self.0.processed.load(Ordering::Relaxed),
            errors: self.0.errors.load(Ordering::Relaxed),
            details: if said.is_empty() { otherwise() } else { said },
        }
    }
}

impl Job {
    /// Of a tenant: another tenant's job of the same type is another job.
    pub fn of_tenant(mut self, tenant: semel_core::id::Tenant) -> Self {
        self.named = self.named.and_then(|job| JobType::of(tenant, job.name()));
        self
    }

    /// Run by somebody of this name, for people; this host and process, if it is not given.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.start.holder = holder.into();
        self
    }

    /// With a guard that holds so long without a heartbeat (5 min, if it is not given). It is renewed while the work
    /// runs, so it says how long the next run waits after the death of a process, and nothing else.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.start.lease = lease;
        self
    }

    /// With runs that are remembered so long from their end (1 h, if it is not given).
    pub fn retention(mut self, retention: Duration) -> Self {
        self.start.retention = retention;
        self
    }

    /// As the turn of a schedule at that instant (RFC 3339).
    pub fn scheduled_at(mut self, instant: impl Into<String>) -> Self {
        self.start.scheduled_at = Some(instant.into());
        self
    }

    /// The guard alone, for whoever runs the work elsewhere.
    ///
    /// # Errors
    /// The type is none that a job can have.
    pub fn guard(&self) -> Result<JobGuard, InvalidJob> {
        Ok(JobGuard::new(self.runtime.clone(), self.named.clone()?))
    }

    /// Runs the work, unless another instance is already running. It goes on if whoever waits for it goes away.
    ///
    /// # Errors
    /// See [`JobError`].
    ///
    /// # Cancellation
    /// Cancels nothing but the wait, once it was polled.
    pub async fn run<T, E, W, F>(self, work: W) -> Result<Turn<T>, JobError<E>>
    where
        W: FnOnce(Run) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let runtime = self.runtime.clone();
        // A panic of the work is caught inside, where its run is ended; this is one of the guard's.
        runtime.detached(self.run_here(work)).await.unwrap_or(Err(JobError::Panicked))
    }

    async fn run_here<T, E, W, F>(self, work: W) -> Result<Turn<T>, JobError<E>>
    where
        W: FnOnce(Run) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        let guard = self.guard().map_err(|invalid| JobError::Guard(invalid.into()))?;
        let claim = match guard.start(&self.start).await.map_err(JobError::Guard)? {
            Started::Began(claim) => claim,
            Started::Skipped(Skip { running_since, by, run: _ }) => {
                return Ok(Turn::Skipped { running_since, by });
            }
        };
        let lost = CancellationToken::new();
        let run = Run::new(&claim, lost.clone());
        let handed = run.clone();
        let worked = AssertUnwindSafe(async move { work(handed).await }).catch_unwind();
        let kept = claim.keeper(&self.runtime).during(worked, limits::JOB_TIME_MAX, || lost.cancel()).await;
        let proof = claim.proof();
        let error = match kept {
            Kept::Done(Ok(Ok(given))) => {
                return match guard.complete(proof, run.results(String::new)).await {
                    Ok(_) => Ok(Turn::Ran(given)),
                    Err(GuardError::Fenced | GuardError::NotFound) => Err(JobError::Lost),
                    Err(error) => Err(JobError::Guard(error)),
                };
            }
            Kept::Done(Ok(Err(error))) => JobError::Failed(error),
            Kept::Done(Err(_)) => JobError::Panicked,
            Kept::TimedOut | Kept::GivenUp => JobError::GivenUp,
        };
        if let Err(unended) = guard.fail(proof, run.results(|| error.to_string())).await {
            tracing::warn!(
                job_type = guard.job().name(), run = %proof.run, error = %unended,
                "a failed run of a job could not be ended"
            );
        }
        Err(error)
    }
}

/// This host and process, as a holder is called that has no other name.
pub fn this_process() -> String {
    let host = host();
    let host = &host[..host.floor_char_boundary(limits::JOB_HOLDER_CHARS_MAX - 12)];
    format!("{host}:{}", std::process::id())
}

#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().replace(char::is_control, "")
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default().replace(char::is_control, "")
}

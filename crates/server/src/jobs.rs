//! Jobs, as both listeners show them: from the guard's words into those of the wire.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use semel_api::jobs::{self as wire, JobResults, JobRunPage};
use semel_api::{ApiError, Detail, ErrorCode, Time};
use semel_core::id::{Namespace, Tenant};
use semel_core::ledger::LedgerErrorKind;
use semel_core::query::Cursor;
use semel_core::{RecordId, StoreError, Timestamp};
use semel_runtime::Runtime;
use semel_runtime::job::{
    GuardError, InvalidJob, JobGuard, JobRun, JobType, RunClaim, RunResults, RunStatus, Skip,
};

use crate::admin::{cursor, storage_refused};
use crate::config::JobConfig;
use crate::engine::schedule::Wall;
use crate::limits::{JOB_NUMBER_MAX, JOBS_LISTED_MAX, JOBS_SHOWN_AT_ONCE, RETRY_AFTER_STORAGE};
use crate::telemetry::metrics::Metrics;

/// The jobs of this server. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Jobs(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    metrics: Metrics,
    wall: Wall,
    configured: ArcSwap<Vec<Arc<JobConfig>>>,
}

impl Jobs {
    /// Over this runtime.
    pub(crate) fn new(runtime: Runtime, metrics: Metrics, wall: Wall, configured: &[JobConfig]) -> Self {
        let jobs = Self(Arc::new(Inner { runtime, metrics, wall, configured: ArcSwap::default() }));
        jobs.reload(configured);
        jobs
    }

    /// Other jobs are configured from now on.
    pub(crate) fn reload(&self, configured: &[JobConfig]) {
        self.0.configured.store(Arc::new(configured.iter().cloned().map(Arc::new).collect()));
    }

    /// Those that are started by a schedule.
    pub(crate) fn configured(&self) -> Arc<Vec<Arc<JobConfig>>> {
        self.0.configured.load_full()
    }

    fn configured_as(&self, guard: RecordId) -> Option<Arc<JobConfig>> {
        self.0.configured.load().iter().find(|job| job.job.guard() == guard).map(Arc::clone)
    }

    /// The guard of a tenant's job.
    ///
    /// # Errors
    /// The type is none that a job can have.
    pub(crate) fn guard(&self, tenant: &Tenant, job_type: &str) -> Result<JobGuard, ApiError> {
        let job = JobType::of(tenant.clone(), job_type).map_err(|problem| invalid(&problem))?;
        Ok(JobGuard::new(self.0.runtime.clone(), job))
    }

    /// What holds for runs of this job that say nothing else: lease and retention.
    pub(crate) fn usual(&self, guard: &JobGuard) -> (Duration, Duration) {
        let usual = (semel_runtime::limits::JOB_LEASE_DEFAULT, semel_runtime::limits::JOB_RETENTION_DEFAULT);
        self.configured_as(guard.job().guard()).map_or(usual, |job| (job.lease, job.retention))
    }

    /// A run has begun. If it has taken over, the one before it is over, and nobody else says so.
    pub(crate) fn began(&self, claim: &RunClaim) {
        if claim.is_again() {
            return;
        }
        if claim.is_taken_over() {
            self.0.metrics.job_run(&claim.run().job_type, RunStatus::Lapsed);
        }
        self.became(claim.run());
    }

    /// A holder came too late: its run is over.
    pub(crate) fn fenced(&self, run: RecordId) {
        self.0.metrics.fenced(run);
    }

    /// A run has come to this: counted and logged once.
    pub(crate) fn became(&self, run: &JobRun) {
        self.0.metrics.job_run(&run.job_type, run.status);
        let status = run.status.as_str();
        let fence = run.fence.map(|fence| fence.0);
        tracing::info!(
            job_type = run.job_type, record_id = %run.id, fence, holder = run.holder, status,
            processed = run.results.processed, errors = run.results.errors, "a run of a job"
        );
    }

    /// The jobs of a tenant, by type.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn list(&self, tenant: &Tenant) -> Result<wire::JobList, ApiError> {
        let mut types = self.types().await.map_err(|error| storage_refused(&error))?;
        let configured = self.configured();
        let ours = configured.iter().filter(|job| job.job.tenant() == tenant);
        types.extend(ours.map(|job| job.job.name().to_owned()));
        types.sort();
        types.dedup();
        types.truncate(JOBS_LISTED_MAX);
        let shown = types.into_iter().map(|job_type| self.clone().show(tenant.clone(), job_type));
        let jobs: Vec<_> = stream::iter(shown).buffered(JOBS_SHOWN_AT_ONCE).try_collect().await?;
        Ok(wire::JobList { jobs: jobs.into_iter().flatten().collect() })
    }

    /// The types that any tenant has runs of: counted by the store, and not looked for.
    async fn types(&self) -> Result<Vec<String>, StoreError> {
        let counts = self.0.runtime.ledger().store().counts().await?;
        let jobs = counts.into_iter().filter(|count| count.namespace == Namespace::Job && count.records > 0);
        Ok(jobs.map(|count| count.operation.as_str().to_owned()).collect())
    }

    async fn show(self, tenant: Tenant, job_type: String) -> Result<Option<wire::Job>, ApiError> {
        // What is no type of a job is the operation of some other record.
        let Ok(guard) = self.guard(&tenant, &job_type) else { return Ok(None) };
        let running = guard.running().await.map_err(|error| refused(&error))?;
        let newest = guard.history(None, 1).await.map_err(|error| refused(&error))?;
        let last = newest.items.into_iter().next();
        let schedule = self.configured_as(guard.job().guard()).map(|job| self.schedule(&job));
        if running.is_none() && last.is_none() && schedule.is_none() {
            return Ok(None);
        }
        Ok(Some(wire::Job {
            job_type,
            running: running.as_ref().map(view),
            last: last.as_ref().map(view),
            schedule,
        }))
    }

    fn schedule(&self, job: &JobConfig) -> wire::JobSchedule {
        let next = job.cron.next_after((self.0.wall)());
        let next = next.and_then(|next| u64::try_from(next.as_millisecond()).ok());
        wire::JobSchedule {
            cron: job.cron.text().to_owned(),
            time_zone: job.cron.zone_name().to_owned(),
            next_at: next.map(Time::from_millis),
        }
    }

    /// A page of a job's history.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn history(
        &self,
        guard: &JobGuard,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<JobRunPage, ApiError> {
        let page = guard.history(from, limit).await.map_err(|error| refused(&error))?;
        Ok(JobRunPage {
            runs: page.items.iter().map(view).collect(),
            next: page.next.as_ref().map(cursor::write),
        })
    }
}

/// A run, as the wire shows it.
pub(crate) fn view(run: &JobRun) -> wire::JobRun {
    wire::JobRun {
        id: run.id.to_string(),
        job_type: run.job_type.clone(),
        status: match run.status {
            RunStatus::Running => wire::JobStatus::Running,
            RunStatus::Completed => wire::JobStatus::Completed,
            RunStatus::Failed => wire::JobStatus::Failed,
            RunStatus::Lapsed => wire::JobStatus::Lapsed,
            RunStatus::Skipped => wire::JobStatus::Skipped,
        },
        started_at: time(run.started_at),
        completed_at: run.completed_at.map(time),
        results: JobResults {
            processed: run.results.processed,
            errors: run.results.errors,
            details: run.results.details.clone(),
        },
        expires_at: run.expires_at.map(time),
        holder: run.holder.clone(),
        fence: run.fence.map(|fence| fence.0),
        heartbeat_at: run.heartbeat_at.map(time),
        lease_until: run.lease_until.map(time),
        scheduled_at: run.scheduled_at.clone(),
        running_since: run.running_since.map(time),
        by: run.by.clone(),
    }
}

/// What a client says that a run has done.
///
/// # Errors
/// A number that JavaScript would change.
pub(crate) fn results(given: JobResults) -> Result<RunResults, ApiError> {
    for (field, number) in [("results.processed", given.processed), ("results.errors", given.errors)] {
        if number > JOB_NUMBER_MAX {
            return Err(Detail::new(field, "value", format!("must be at most {JOB_NUMBER_MAX}")).into());
        }
    }
    Ok(RunResults { processed: given.processed, errors: given.errors, details: given.details })
}

fn time(at: Timestamp) -> Time {
    Time::from_millis(at.as_millis())
}

/// Another instance is running: which.
pub(crate) fn already_running(skip: &Skip) -> ApiError {
    let message = format!("has been running since {}, by {}", time(skip.running_since), skip.by);
    ApiError::new(ErrorCode::JobAlreadyRunning).with_detail(Detail::new("run", "running", message))
}

/// A name or a length of time that no job has, under the name that it has on the wire.
pub(crate) fn invalid(problem: &InvalidJob) -> ApiError {
    let field = match problem.what() {
        "lease" => "lease_ms",
        "retention" => "retention_ms",
        "attempt" => "attempt_id",
        other => other,
    };
    Detail::new(field, "value", problem.to_string()).into()
}

/// What a guard cannot do, as its client is told. What lies behind it goes into the log.
pub(crate) fn refused(error: &GuardError) -> ApiError {
    let unavailable =
        || ApiError::new(ErrorCode::IdempotencyStorageUnavailable).with_retry_after(RETRY_AFTER_STORAGE);
    match error {
        GuardError::Invalid(problem) => return invalid(problem),
        GuardError::NotFound => return ErrorCode::NotFound.into(),
        GuardError::Fenced => return ErrorCode::IdempotencyFenced.into(),
        GuardError::Store(error) => return storage_refused(error),
        GuardError::Ledger(_) | GuardError::Unstored(_) | GuardError::NoGuard => {}
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, source, "a command on a job has no answer");
    match error {
        GuardError::Ledger(error) => match error.kind() {
            LedgerErrorKind::Unavailable | LedgerErrorKind::InDoubt | LedgerErrorKind::Contended => {
                unavailable()
            }
            LedgerErrorKind::TooLarge => ErrorCode::PayloadTooLarge.into(),
            LedgerErrorKind::Corrupt => ErrorCode::Internal.into(),
        },
        GuardError::Unstored(_) => unavailable().with_message(
            "The idempotency store does not take the end of the run; say it again once the store answers",
        ),
        GuardError::Invalid(_)
        | GuardError::NotFound
        | GuardError::Fenced
        | GuardError::Store(_)
        | GuardError::NoGuard => ErrorCode::Internal.into(),
    }
}

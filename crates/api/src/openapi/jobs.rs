//! The endpoints of jobs, as the document has them. See [`paths`](super::paths).

#![expect(dead_code, reason = "utoipa reads the attributes; nobody calls the functions")]

use super::errors::{JobErrors, JobReadErrors, JobReleaseErrors, JobStartErrors};
use crate::jobs::{
    JobCompleteRequest, JobFailRequest, JobHeartbeatRequest, JobList, JobReleaseRequest, JobRun, JobRunPage,
    JobRunQuery, JobStartRequest, JobStarted,
};

/// Start a run of a job
///
/// Unless another instance is already running: then the skip is recorded, and refused with `JOB_ALREADY_RUNNING`. Send
/// a heartbeat at a third of the lease while the work goes on; complete or fail the run at the end. A run whose lease
/// has lapsed is overtaken by the next one.
#[utoipa::path(
    post, path = "/v1/jobs/{type}/runs", tag = "jobs", operation_id = "startJobRun",
    request_body(content = JobStartRequest, example = json!({"holder": "node-1", "lease_ms": 60000})),
    params(("type" = String, Path, description = "The type of the job: 1 to 64 letters, digits, `-`, `_`, `.`, `:`.",
        example = "EXPIRE_LOCKS")),
    responses(
        (status = 201, description = "The run is yours: do the work.", body = JobStarted, example = json!({
            "id": "6d0f4bd6a3c51f0a9be2c1f1f0b3a7d2", "jobType": "EXPIRE_LOCKS", "status": "RUNNING",
            "startedAt": "2026-11-21T04:30:00.000Z", "completedAt": null,
            "results": {"processed": 0, "errors": 0, "details": ""}, "expiresAt": null, "holder": "node-1",
            "fence": 7, "heartbeatAt": "2026-11-21T04:30:00.000Z", "leaseUntil": "2026-11-21T04:31:00.000Z",
            "scheduledAt": null, "runningSince": null, "by": null,
            "token": "00000000000000000000000000000000", "leaseMs": 60000, "takenOver": false
        })),
        JobStartErrors,
    ),
    security((), ("tenant" = [])),
)]
pub(super) fn start() {}

/// Keep a run
///
/// A heartbeat: the lease of the guard begins anew. Also possible after a lapse, if no other run has taken over.
#[utoipa::path(
    post, path = "/v1/jobs/{type}/runs/{run}/heartbeat", tag = "jobs", operation_id = "keepJobRun",
    request_body(content = JobHeartbeatRequest),
    params(
        ("type" = String, Path, description = "The type of the job."),
        ("run" = String, Path, description = "The run's `id`; 32 hexadecimal digits."),
    ),
    responses((status = 200, description = "The lease was renewed.", body = JobRun), JobErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn heartbeat() {}

/// Complete a run
///
/// It was done. The guard is released. The same results again are a success.
#[utoipa::path(
    post, path = "/v1/jobs/{type}/runs/{run}/complete", tag = "jobs", operation_id = "completeJobRun",
    request_body(content = JobCompleteRequest, example = json!({
        "token": "00000000000000000000000000000000", "results": {"processed": 12, "errors": 0, "details": ""}
    })),
    params(
        ("type" = String, Path, description = "The type of the job."),
        ("run" = String, Path, description = "The run's `id`; 32 hexadecimal digits."),
    ),
    responses((status = 200, description = "The end of the run is durable.", body = JobRun), JobErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn complete() {}

/// Fail a run
///
/// It has failed. The guard is released. The same results again are a success.
#[utoipa::path(
    post, path = "/v1/jobs/{type}/runs/{run}/fail", tag = "jobs", operation_id = "failJobRun",
    request_body(content = JobFailRequest, example = json!({
        "token": "00000000000000000000000000000000", "error": "the database is gone"
    })),
    params(
        ("type" = String, Path, description = "The type of the job."),
        ("run" = String, Path, description = "The run's `id`; 32 hexadecimal digits."),
    ),
    responses((status = 200, description = "The end of the run is durable.", body = JobRun), JobErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn fail() {}

/// The history of a job
///
/// Runs and skips, newest first: on the doors the tenant's own, on the admin listener (role `read`) those of any tenant.
#[utoipa::path(
    get, path = "/v1/jobs/{type}/runs", tag = "jobs", operation_id = "listJobRuns",
    params(("type" = String, Path, description = "The type of the job."), JobRunQuery),
    responses((status = 200, description = "A page of runs.", body = JobRunPage), JobReadErrors),
    security((), ("tenant" = []), ("admin" = [])),
)]
pub(super) fn history() {}

/// Show a run
#[utoipa::path(
    get, path = "/v1/jobs/{type}/runs/{run}", tag = "jobs", operation_id = "getJobRun",
    params(
        ("type" = String, Path, description = "The type of the job."),
        ("run" = String, Path, description = "The run's `id`; 32 hexadecimal digits."),
    ),
    responses((status = 200, description = "The run.", body = JobRun), JobErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn show() {}

/// List jobs
///
/// Those that a schedule of this server starts, and those that have runs which are remembered: on the doors the tenant's
/// own, on the admin listener (role `read`) those of any tenant.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs",
    params(("tenant" = Option<String>, Query,
        description = "Whose jobs, on the admin listener; `default` if it is not given.")),
    responses((status = 200, description = "The jobs, by type.", body = JobList), JobReadErrors),
    security((), ("tenant" = []), ("admin" = [])),
)]
pub(super) fn list() {}

/// Release a job by force
///
/// Takes the guard from the run that has it: the run is over (`LAPSED`), its holder is fenced, and the next one may
/// begin. The work itself may still go on where it runs. Admin listener, role `operate`; in the audit log.
#[utoipa::path(
    post, path = "/v1/jobs/{type}/release", tag = "jobs", operation_id = "releaseJob",
    request_body(content = JobReleaseRequest, example = json!({"fence": 7, "reason": "its host was switched off"})),
    params(("type" = String, Path, description = "The type of the job.")),
    responses((status = 200, description = "The run, which is over.", body = JobRun), JobReleaseErrors),
    security((), ("admin" = [])),
)]
pub(super) fn release() {}

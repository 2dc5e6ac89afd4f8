//! Jobs: one running instance of each type, and the record of its runs.
//!
//! The names of a run's fields are `camelCase`, as those who asked for it have them.

use serde::{Deserialize, Serialize};

use crate::value::Time;

/// `POST /v1/jobs/{type}/runs`: starts a run. All of it may be left out, and the body with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct JobStartRequest {
    /// Who runs it, for people: 1 to 128 characters. If it is not given: the tenant's name.
    /// Needed beside `attempt_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The client's name for the attempt, 1 to 64 characters without `@`: a start whose answer was lost can be asked for
    /// again, by the same holder, and is the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<String>,
    /// How long the run keeps its guard without a heartbeat; 100 ms to 24 h. If it is not given: as is configured for
    /// the type, else 5 min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long the run is remembered from its end; up to ten years. If it is not given: as is configured for the type,
    /// else 1 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
}

/// `POST /v1/jobs/{type}/runs/{run}/heartbeat`: the guard holds for the whole of its lease again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobHeartbeatRequest {
    /// The run's token.
    pub token: String,
}

/// `POST /v1/jobs/{type}/runs/{run}/complete`: it was done. The same results again are a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobCompleteRequest {
    /// The run's token.
    pub token: String,
    /// What it has done.
    #[serde(default)]
    pub results: JobResults,
}

/// `POST /v1/jobs/{type}/runs/{run}/fail`: it has failed. The same results again are a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobFailRequest {
    /// The run's token.
    pub token: String,
    /// What it has done all the same.
    #[serde(default)]
    pub results: JobResults,
    /// Why, for people: the `details` of its results, if those say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a run has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct JobResults {
    /// How much was processed. Below 2^53.
    pub processed: u64,
    /// How much of it went wrong. Below 2^53.
    pub errors: u64,
    /// What else there is to say; up to 16 KiB are kept.
    pub details: String,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Somebody is at it.
    Running,
    /// It was done.
    Completed,
    /// It has failed.
    Failed,
    /// Its holder gave no heartbeat for the length of the lease and was overtaken, or an operator released it by force.
    Lapsed,
    /// It did not begin, since another instance was running.
    Skipped,
}

impl JobStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Lapsed => "LAPSED",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// A run of a job, or a skip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JobRun {
    /// The run, in the paths of its commands; 32 hexadecimal digits.
    pub id: String,
    /// The type of the job.
    pub job_type: String,
    /// Where it stands.
    pub status: JobStatus,
    /// When it began, in the store's time.
    pub started_at: Time,
    /// When it ended.
    pub completed_at: Option<Time>,
    /// What it has done.
    pub results: JobResults,
    /// When it is forgotten: once it has ended, and the retention has gone by.
    pub expires_at: Option<Time>,
    /// Who runs it.
    pub holder: String,
    /// For the resource that is worked on, so that it can refuse an overtaken run with a lower one; `null` for a skip.
    /// Below 2^53.
    pub fence: Option<u64>,
    /// The last heartbeat of a run that runs.
    pub heartbeat_at: Option<Time>,
    /// Until when a run that runs keeps its guard without another heartbeat.
    pub lease_until: Option<Time>,
    /// The instant of the schedule that began it.
    pub scheduled_at: Option<String>,
    /// Of a skip: since when the other instance had been running.
    pub running_since: Option<Time>,
    /// Of a skip: who ran that.
    pub by: Option<String>,
}

/// 201 of `POST /v1/jobs/{type}/runs`: run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JobStarted {
    /// The run.
    #[serde(flatten)]
    pub run: JobRun,
    /// The proof, for the run's commands: a secret; 32 hexadecimal digits.
    pub token: String,
    /// How long the run keeps its guard without a heartbeat. Send one at a third of this.
    pub lease_ms: u64,
    /// Whether the run before it lapsed, so that its work may be half done.
    pub taken_over: bool,
}

/// A part of the history of a job, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobRunPage {
    /// Runs and skips.
    pub runs: Vec<JobRun>,
    /// The `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// Which part of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct JobRunQuery {
    /// Whose jobs, on the admin listener; `default` if it is not given. (On the doors: the tenant's who asks.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Where the page begins: the `next` of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Runs of the page, 1 to 1,000; 50 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The jobs of a tenant: those that a schedule starts, and those that have runs which are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    /// By type.
    pub jobs: Vec<Job>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its type.
    pub job_type: String,
    /// The run that runs.
    pub running: Option<JobRun>,
    /// The newest run or skip that is remembered.
    pub last: Option<JobRun>,
    /// Its schedule, if this server has one for it.
    pub schedule: Option<JobSchedule>,
}

/// When a job is started by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JobSchedule {
    /// In the words of cron.
    pub cron: String,
    /// The time zone that it is read in.
    pub time_zone: String,
    /// When it starts the job next.
    pub next_at: Option<Time>,
}

/// `POST /v1/jobs/{type}/release` on the admin listener: takes the guard from the run that has it, which is over then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobReleaseRequest {
    /// Whose job; `default` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The fence of the run that was judged: if another one has the guard by now, nothing changes.
    pub fence: u64,
    /// Why, for the audit log: 1 to 1,024 bytes.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_names_that_were_asked_for() {
        let run = JobRun {
            id: "0".repeat(32),
            job_type: "EXPIRE_LOCKS".into(),
            status: JobStatus::Completed,
            started_at: Time::from_millis(0),
            completed_at: Some(Time::from_millis(1_000)),
            results: JobResults { processed: 12, errors: 1, details: "ok".into() },
            expires_at: Some(Time::from_millis(3_601_000)),
            holder: "node-1".into(),
            fence: Some(7),
            heartbeat_at: None,
            lease_until: None,
            scheduled_at: None,
            running_since: None,
            by: None,
        };
        let started = JobStarted { run, token: "1".repeat(32), lease_ms: 60_000, taken_over: false };
        let text = serde_json::to_string(&started).unwrap();
        let (run, rest) = text.split_once(r#""holder""#).unwrap();
        assert_eq!(
            run,
            r#"{"id":"00000000000000000000000000000000","jobType":"EXPIRE_LOCKS","status":"COMPLETED","startedAt":"1970-01-01T00:00:00.000Z","completedAt":"1970-01-01T00:00:01.000Z","results":{"processed":12,"errors":1,"details":"ok"},"expiresAt":"1970-01-01T01:00:01.000Z","#
        );
        assert!(
            rest.ends_with(
                r#""token":"11111111111111111111111111111111","leaseMs":60000,"takenOver":false}"#
            )
        );
        assert_eq!(serde_json::from_str::<JobStarted>(&text).unwrap(), started);
    }
}

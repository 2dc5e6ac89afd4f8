//! One run of a job, as its record has it.
//!
//! The record's outcome says how it ended: the numbers in headers, what there is to say about it in the body. So it
//! needs no format of its own, and an operator who looks at the record can read it.

use bytes::Bytes;
use semel_core::error::Invalid;
use semel_core::id::{Tag, Tenant};
use semel_core::outcome::{Body, Class, Header, Headers, Outcome};
use semel_core::record::{Record, State};
use semel_core::{Fence, RecordId, Timestamp};

use super::kind::{JobType, Kind, TAG_HOLDER, TAG_TICK};
use crate::limits;

const STATUS: &str = "semel-job-status";
const PROCESSED: &str = "semel-job-processed";
const ERRORS: &str = "semel-job-errors";
const RUNNING_SINCE: &str = "semel-job-running-since";
const BY: &str = "semel-job-by";

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunStatus {
    /// Somebody is at it.
    Running,
    /// It was done.
    Completed,
    /// It ended by an error or a panic, or somebody said so.
    Failed,
    /// Its holder is gone, or was put out: another run has the guard, or an operator took it.
    Lapsed,
    /// It did not begin, since another one was running.
    Skipped,
}

impl RunStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Running, Self::Completed, Self::Failed, Self::Lapsed, Self::Skipped];

    /// The name in APIs, records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Lapsed => "LAPSED",
            Self::Skipped => "SKIPPED",
        }
    }

    /// What the record of a run that ended so is replayed as.
    const fn class_and_code(self) -> (Class, u16) {
        match self {
            Self::Completed | Self::Running => (Class::Success, 200),
            Self::Failed => (Class::Rejection, 500),
            Self::Lapsed => (Class::Rejection, 504),
            Self::Skipped => (Class::Rejection, 409),
        }
    }
}

/// What a run has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RunResults {
    /// How much was processed.
    pub processed: u64,
    /// How much of it went wrong.
    pub errors: u64,
    /// What else there is to say; up to [`limits::JOB_DETAILS_BYTES_MAX`] are kept.
    pub details: String,
}

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// Its record.
    pub id: RecordId,
    /// Whose job it is.
    pub tenant: Tenant,
    /// The job's type.
    pub job_type: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it began, in the store's time, as all of these.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// What it has done. While it runs: nothing yet.
    pub results: RunResults,
    /// From when on it is forgotten.
    pub expires_at: Option<Timestamp>,
    /// Who ran it, or would have.
    pub holder: String,
    /// The fence that it ran under; none for a skip.
    pub fence: Option<Fence>,
    /// The last heartbeat of a run that holds the guard.
    pub heartbeat_at: Option<Timestamp>,
    /// Until when it holds the guard without another heartbeat.
    pub lease_until: Option<Timestamp>,
    /// The instant of its schedule, where a schedule began it (RFC 3339).
    pub scheduled_at: Option<String>,
    /// Of a skip: since when another one had been running.
    pub running_since: Option<Timestamp>,
    /// Of a skip: who ran that.
    pub by: Option<String>,
}

impl JobRun {
    /// The run that a record is of; `None` if it is no run of this job. `guard` is the job's guard as it stands: a run
    /// that has not ended and does not hold it will never end by itself.
    pub(super) fn of(job: &JobType, record: &Record, guard: Option<&Record>) -> Option<Self> {
        let kind = job.kind_of(record.request())?;
        let tag = |name: &str| {
            let found = record.request().tags().iter().find(|tag: &&Tag| tag.name.as_str() == name);
            found.map(|tag| tag.value.as_str().to_owned())
        };
        let fence = match kind {
            Kind::Run(fence) => Some(fence),
            Kind::Skip => None,
        };
        let held = guard.filter(|guard| is_held(guard) && Some(guard.fence()) == fence);
        let ended = record.outcome().map(Ended::of);
        let status = match (&ended, kind) {
            (Some(ended), _) => ended.status,
            (None, Kind::Skip) => RunStatus::Skipped,
            (None, Kind::Run(_)) if held.is_some() => RunStatus::Running,
            (None, Kind::Run(_)) => RunStatus::Lapsed,
        };
        let held = held.filter(|_| status == RunStatus::Running);
        let (times, ended) = (record.times(), ended.unwrap_or_default());
        Some(Self {
            id: record.id(),
            tenant: job.tenant().clone(),
            job_type: job.name().to_owned(),
            status,
            started_at: times.created,
            completed_at: times.settled,
            results: ended.results,
            expires_at: times.expires,
            holder: tag(TAG_HOLDER).unwrap_or_default(),
            fence,
            // Once a lapse was seen, when that was written is all that is known.
            heartbeat_at: held
                .filter(|guard| guard.times().wake.is_some())
                .map(|guard| guard.times().written),
            lease_until: held.and_then(|guard| guard.times().wake),
            scheduled_at: tag(TAG_TICK),
            running_since: ended.running_since,
            by: ended.by,
        })
    }
}

/// Whether somebody has the guard, with a lease that lasts or has lapsed.
pub(super) fn is_held(guard: &Record) -> bool {
    match guard.state() {
        State::Running { .. } => true,
        // A guard is only ever running or released; anything else is held by nobody who could go on.
        State::Released { .. }
        | State::Pending { .. }
        | State::Completed { .. }
        | State::Unknown { .. }
        | State::Dead { .. } => false,
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) status: RunStatus,
    pub(super) results: RunResults,
    pub(super) running_since: Option<Timestamp>,
    pub(super) by: Option<String>,
}

impl Default for Ended {
    fn default() -> Self {
        Self::new(RunStatus::Running, RunResults::default())
    }
}

impl Ended {
    pub(super) const fn new(status: RunStatus, results: RunResults) -> Self {
        Self { status, results, running_since: None, by: None }
    }

    /// With nothing but something to say.
    pub(super) fn because(status: RunStatus, details: impl Into<String>) -> Self {
        Self::new(status, RunResults { details: details.into(), ..RunResults::default() })
    }

    /// As the record keeps it.
    pub(super) fn outcome(&self) -> Result<Outcome, Invalid> {
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        let mut headers = vec![
            header("content-type", "text/plain; charset=utf-8"),
            header(STATUS, self.status.as_str()),
            header(PROCESSED, &self.results.processed.to_string()),
            header(ERRORS, &self.results.errors.to_string()),
        ];
        if let Some(since) = self.running_since {
            headers.push(header(RUNNING_SINCE, &since.as_millis().to_string()));
        }
        if let Some(by) = &self.by {
            headers.push(header(BY, by));
        }
        let details = &self.results.details;
        let details = &details[..details.floor_char_boundary(limits::JOB_DETAILS_BYTES_MAX)];
        let (class, code) = self.status.class_and_code();
        Outcome::try_new(class, code, Headers::try_new(headers)?, Bytes::copy_from_slice(details.as_bytes()))
    }

    /// What a record has kept. What an operator has done to the record otherwise is an end without results.
    fn of(outcome: &Outcome) -> Self {
        let text = |name: &str| {
            let value = outcome.headers.get(name)?;
            std::str::from_utf8(value).ok().map(str::to_owned)
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let status = text(STATUS);
        let status = RunStatus::ALL.into_iter().find(|known| Some(known.as_str()) == status.as_deref());
        let details = match &outcome.body {
            Body::Kept(details) => String::from_utf8_lossy(details).into_owned(),
            Body::Gone => String::new(),
        };
        Self {
            status: status.unwrap_or(RunStatus::Lapsed),
            results: RunResults {
                processed: number(PROCESSED).unwrap_or_default(),
                errors: number(ERRORS).unwrap_or_default(),
                details,
            },
            running_since: number(RUNNING_SINCE).map(Timestamp::from_millis),
            by: text(BY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_as_it_was_written_and_details_are_cut_at_a_character() {
        let results = RunResults { processed: 12, errors: 1, details: "lock 7 was gone".into() };
        let ended = Ended {
            running_since: Some(Timestamp::from_millis(5)),
            by: Some("node-1".into()),
            ..Ended::new(RunStatus::Completed, results.clone())
        };
        let read = Ended::of(&ended.outcome().unwrap());
        assert_eq!((read.status, read.results), (RunStatus::Completed, results));
        assert_eq!((read.running_since, read.by.as_deref()), (ended.running_since, Some("node-1")));
        let long = Ended::because(RunStatus::Failed, "é".repeat(limits::JOB_DETAILS_BYTES_MAX));
        let cut = Ended::of(&long.outcome().unwrap()).results.details;
        assert_eq!(cut.len(), limits::JOB_DETAILS_BYTES_MAX);
    }
}

//! The instants of a schedule: each begins its job once, over all nodes.
//!
//! An instant is a record of its own, under the job's type and that instant: whoever claims it starts the job, and the
//! record is running until the run has ended. If its holder dies meanwhile, another one takes over and starts the job
//! again. Its lease is twice that of the job's guard, so that the guard has lapsed by then.
//!
//! An instant that nobody came to in time is claimed like any other, and recorded as missed. That it is claimed for that
//! stands in its record from the first claim on, so that whoever takes over from a holder that died in between records it,
//! too, and begins nothing.

use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{Claim, Claimed};
use semel_core::id::Namespace;
use semel_core::query::Query;
use semel_core::record::{Record, StateName};

use super::guard::{GuardError, JobGuard, Start};
use super::kind;
use super::run::{Ended, JobRun, RunStatus};
use crate::limits;

/// What a run is recorded as whose instant nobody was there for.
const MISSED: &str = "Nothing was running at this instant of the schedule";

/// What became of asking for an instant.
#[derive(Debug)]
pub enum TickAnswer {
    /// Start the job, and complete the claim once its run has ended.
    Yours(Claim),
    /// Somebody is at it.
    Busy(Arc<Record>),
    /// It is over.
    Over,
}

/// An instant that was asked for before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickSeen {
    /// Which (RFC 3339).
    pub instant: String,
    /// Whether its run has ended.
    pub is_over: bool,
}

impl JobGuard {
    /// Asks for an instant of the job's schedule (RFC 3339), whose guard will have this lease.
    ///
    /// # Errors
    /// See [`GuardError`]: nothing may be started.
    ///
    /// # Cancellation
    /// Leaves open who has it, until its lease is over.
    pub async fn tick(&self, instant: &str, lease: Duration) -> Result<TickAnswer, GuardError> {
        self.ask_for(instant, lease, false).await
    }

    /// The same for an instant that was missed, and is only to be recorded. Whoever was first says which of both it is:
    /// see [`is_to_be_missed`](Self::is_to_be_missed).
    ///
    /// # Errors
    /// See [`GuardError`].
    ///
    /// # Cancellation
    /// As [`tick`](Self::tick).
    pub async fn tick_missed(&self, instant: &str, lease: Duration) -> Result<TickAnswer, GuardError> {
        self.ask_for(instant, lease, true).await
    }

    /// Whether an instant was claimed to be recorded as missed, when it was claimed first: then the job was not begun, and
    /// is not to be, whoever has the claim by now.
    pub fn is_to_be_missed(claim: &Claim) -> bool {
        claim.record().request().tags().iter().any(|tag| tag.name.as_str() == kind::TAG_MISSED)
    }

    async fn ask_for(
        &self,
        instant: &str,
        lease: Duration,
        is_missed: bool,
    ) -> Result<TickAnswer, GuardError> {
        let lease = (lease * 2).min(semel_core::limits::LEASE_MAX);
        let request = self.job.tick_request(instant, lease, limits::JOB_TICK_RETENTION, is_missed)?;
        let request = Arc::new(request);
        match self.runtime.ledger().claim(request, None).await {
            Ok(Claimed::Granted(claim)) => Ok(TickAnswer::Yours(claim)),
            Ok(Claimed::Busy { record, .. }) => Ok(TickAnswer::Busy(record)),
            Ok(Claimed::Replay(_) | Claimed::Mismatch(_) | Claimed::Unknown(_) | Claimed::Dead(_)) => {
                Ok(TickAnswer::Over)
            }
            Err(error) => {
                self.runtime.claim_failed(&error, lease);
                Err(error.into())
            }
        }
    }

    /// The instants that were asked for last, the newest first, at most `limit`.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn ticks(&self, limit: usize) -> Result<Vec<TickSeen>, GuardError> {
        let query =
            Query { namespace: Some(Namespace::Job), tag: Some(self.job.tick_tag()?), ..Query::default() };
        let page = self.runtime.ledger().store().search(query, None, limit).await?;
        let seen = page.items.iter().filter_map(|summary| {
            let (_, instant) = summary.key.as_str().split_once('@')?;
            // One that was given back has not begun.
            let is_over = !matches!(summary.state, StateName::Running | StateName::Released);
            Some(TickSeen { instant: instant.to_owned(), is_over })
        });
        Ok(seen.collect())
    }

    /// Records that the job was not started at an instant, since nobody was there.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn missed(&self, start: &Start) -> Result<Option<JobRun>, GuardError> {
        self.record_ended(start, &Ended::because(RunStatus::Skipped, MISSED)).await
    }
}

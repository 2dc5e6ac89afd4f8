//! The guard of a job, one command at a time: start, heartbeat, end. [`Job::run`](super::Job::run) is these in one
//! piece; whoever runs the work elsewhere, and asks over HTTP, uses them as they are.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{Claim, ClaimKey, Claimed, Complete, ForceRelease, Held, Judged, Release};
use semel_core::error::Invalid;
use semel_core::id::{AttemptId, Holder, Namespace, Tag};
use semel_core::lease::Lease;
use semel_core::ledger::{Entropy as _, LedgerError, LedgerErrorKind};
use semel_core::query::Query;
use semel_core::record::{Record, State, StateName, Text};
use semel_core::{Fence, RecordId, StoreError, Timestamp, Token};
use tokio::time::Instant;

use super::kind::{self, InvalidJob, JobType, Kind, TAG_HOLDER, TAG_TICK};
use super::run::{Ended, JobRun, RunResults, RunStatus, is_held};
use crate::{Keeper, Late, OsEntropy, Runtime, Unstored, limits};

/// The guard of one job: one run at a time holds it, over all nodes. A clone is another handle.
#[derive(Clone, Debug)]
pub struct JobGuard {
    pub(super) runtime: Runtime,
    pub(super) job: JobType,
}

/// What starts a run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Who will run it, for people.
    pub holder: String,
    /// A name for this attempt, so that a start whose answer was lost can be asked for again, and is the same run.
    pub attempt: Option<String>,
    /// How long the guard holds without a heartbeat.
    pub lease: Duration,
    /// How long the run is remembered from its end.
    pub retention: Duration,
    /// The instant of its schedule, where a schedule begins it (RFC 3339).
    pub scheduled_at: Option<String>,
}

impl Start {
    /// By this holder, with the usual lease and retention.
    pub fn by(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            attempt: None,
            lease: limits::JOB_LEASE_DEFAULT,
            retention: limits::JOB_RETENTION_DEFAULT,
            scheduled_at: None,
        }
    }
}

/// What became of a start.
#[derive(Debug)]
pub enum Started {
    /// Run it.
    Began(RunClaim),
    /// Another instance is already running.
    Skipped(Skip),
}

/// A run that did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Since when the other one has been running.
    pub running_since: Timestamp,
    /// Who runs that.
    pub by: String,
    /// What is recorded of the skip; `None` if it could not be.
    pub run: Option<JobRun>,
}

/// The right to run a job. There is only one at a time; ending the run consumes it.
#[derive(Debug)]
pub struct RunClaim {
    proof: RunProof,
    guard: RecordId,
    lease: Duration,
    sent: Instant,
    run: JobRun,
    taken_over: bool,
    again: bool,
}

impl RunClaim {
    /// The run.
    pub const fn run(&self) -> &JobRun {
        &self.run
    }

    /// What proves it, for whoever runs it elsewhere.
    pub const fn proof(&self) -> RunProof {
        self.proof
    }

    /// How long the guard holds without a heartbeat.
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether the guard was taken from a run whose lease had lapsed.
    pub const fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Whether it had begun before, and is only asked for again.
    pub const fn is_again(&self) -> bool {
        self.again
    }

    /// Keeps the guard while the work runs here.
    pub const fn keeper<'a>(&self, runtime: &'a Runtime) -> Keeper<'a> {
        let holder = Holder { id: self.guard, token: self.proof.token };
        Keeper::new(runtime, holder, self.lease, self.sent)
    }
}

/// What proves a run: its record, and the token of its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunProof {
    /// The record of the run.
    pub run: RecordId,
    /// The guard's token, which is also that of the run's record.
    pub token: Token,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The run, which has ended.
    pub run: JobRun,
    /// Whether that had been said before.
    pub again: bool,
}

/// A command on a guard that has not done what it was to do.
#[derive(Debug)]
pub enum GuardError {
    /// A name or a length of time that no job has.
    Invalid(InvalidJob),
    /// There is no such run of this job.
    NotFound,
    /// The run has lost its guard, or has ended otherwise than it is said to: stop.
    Fenced,
    /// The store has no answer: nothing may run.
    Ledger(LedgerError),
    /// The store has no answer to a question over many records.
    Store(StoreError),
    /// The run has ended, and that is not stored.
    Unstored(Unstored),
    /// What is stored in the guard's place is none.
    NoGuard,
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::NotFound => f.write_str("there is no such run of this job"),
            Self::Fenced => f.write_str("the run has lost its guard"),
            Self::Ledger(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Unstored(unstored) => unstored.fmt(f),
            Self::NoGuard => f.write_str("what is stored in the place of the job's guard is none"),
        }
    }
}

impl Error for GuardError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ledger(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Unstored(unstored) => unstored.source(),
            Self::Invalid(_) | Self::NotFound | Self::Fenced | Self::NoGuard => None,
        }
    }
}

impl From<InvalidJob> for GuardError {
    fn from(invalid: InvalidJob) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Invalid> for GuardError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid.into())
    }
}

impl From<LedgerError> for GuardError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<StoreError> for GuardError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What became of taking a guard from its holder by force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forced {
    /// The guard is free, and this run is over.
    Released(Box<JobRun>),
    /// Another run has it by now than the one that was judged: its fence.
    Changed(Fence),
    /// Nobody has it.
    NotHeld,
}

/// Who takes a guard by force, and why.
#[derive(Clone, Debug)]
pub struct Force {
    /// The fence of the run that was judged. (Not the guard's version, which every heartbeat changes.)
    pub fence: Fence,
    /// Who does it.
    pub actor: Text,
    /// Why.
    pub reason: Text,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
}

impl JobGuard {
    /// The guard of this job, over this runtime's ledger.
    pub const fn new(runtime: Runtime, job: JobType) -> Self {
        Self { runtime, job }
    }

    /// The job.
    pub const fn job(&self) -> &JobType {
        &self.job
    }

    /// Starts a run, unless another one has the guard; then the skip is recorded. When it begins, guard and run are
    /// durable (L4), and a run whose holder has died is ended as lapsed.
    ///
    /// # Errors
    /// See [`GuardError`]: nothing may run.
    ///
    /// # Cancellation
    /// Leaves open whether the guard is held; it lapses. Run it to its end in a [`Detached`](crate::Detached).
    pub async fn start(&self, start: &Start) -> Result<Started, GuardError> {
        kind::check_name("holder", &start.holder, limits::JOB_HOLDER_CHARS_MAX)?;
        let name = match &start.attempt {
            Some(name) => {
                kind::check_name("attempt", name, limits::JOB_ATTEMPT_CHARS_MAX)?;
                name.clone()
            }
            None => OsEntropy.token().reveal(),
        };
        let attempt = kind::attempt(&name, &start.holder)?;
        // Whatever a run cannot be is said before the guard is taken.
        self.job.run_request(Fence(0), start.retention, Self::tags(start)?)?;
        let request = Arc::new(self.job.guard_request(start.lease)?);
        let holder = Holder { id: request.id(), token: OsEntropy.token() };
        let claim = ClaimKey { request, token: holder.token, attempt_id: Some(attempt.clone()) };
        let sent = Instant::now();
        let claimed = self.runtime.ledger().apply_told(&claim).await;
        match claimed.map(|claimed| (claimed.answer, claimed.change)) {
            Ok((Claimed::Granted(claim), change)) => {
                let again = change.is_none();
                // Who asks again is not told what gave way: rather a takeover too many than one too few.
                let taken_over = change
                    .map_or(claim.is_tainted(), |change| change.from.is_some_and(|from| is_held(&from)));
                let begun = self.begin(start, attempt, claim, sent).await;
                begun.map(|claim| Started::Began(RunClaim { taken_over, again, ..claim }))
            }
            Ok((Claimed::Busy { record, .. }, _)) => self.skip(start, &record).await.map(Started::Skipped),
            Ok((Claimed::Replay(_) | Claimed::Mismatch(_) | Claimed::Unknown(_) | Claimed::Dead(_), _)) => {
                Err(GuardError::NoGuard)
            }
            Err(error) => {
                // Whoever has named the attempt asks for it again.
                if error.kind() == LedgerErrorKind::InDoubt && start.attempt.is_none() {
                    self.runtime.give_back(holder, start.lease);
                }
                Err(error.into())
            }
        }
    }

    /// Writes the run down, under the token of its guard.
    async fn begin(
        &self,
        start: &Start,
        attempt: AttemptId,
        claim: Claim,
        sent: Instant,
    ) -> Result<RunClaim, GuardError> {
        let (guard, lease, fence) = (claim.holder(), claim.lease(), claim.fence());
        let request = Arc::new(self.job.run_request(fence, start.retention, Self::tags(start)?)?);
        let (id, token) = (request.id(), guard.token);
        let run = ClaimKey { request, token, attempt_id: Some(attempt) };
        let record = match self.runtime.ledger().apply(&run).await {
            Ok(Claimed::Granted(run)) => Arc::clone(run.record()),
            // It has ended meanwhile, and cannot begin again.
            Ok(_) => return Err(GuardError::Fenced),
            Err(error) => {
                // Nothing has run.
                self.runtime.give_back(guard, lease);
                return Err(error.into());
            }
        };
        self.tidy(fence).await;
        let sent = self.still_held(guard, lease, sent, &record).await?;
        let run = JobRun::of(&self.job, &record, Some(claim.record())).ok_or(GuardError::NoGuard)?;
        let proof = RunProof { run: id, token };
        Ok(RunClaim { proof, guard: guard.id, lease, sent, run, taken_over: false, again: false })
    }

    /// A holder that was paused on the way to its work asks before it begins: another may have taken over, and looked
    /// for runs before this one was written down.
    async fn still_held(
        &self,
        guard: Holder,
        lease: Duration,
        sent: Instant,
        run: &Arc<Record>,
    ) -> Result<Instant, GuardError> {
        if Lease::new(lease, Duration::ZERO).is_safe(sent.elapsed()) {
            return Ok(sent);
        }
        let sent = Instant::now();
        match self.runtime.ledger().extend(guard).await {
            Ok(Held::Done(_)) => Ok(sent),
            Ok(Held::Fenced(_) | Held::Illegal(..)) => {
                self.end_lapsed(run, "it had lost its guard before it began").await;
                Err(GuardError::Fenced)
            }
            Err(error) => {
                self.runtime.give_back(guard, lease);
                Err(error.into())
            }
        }
    }

    async fn skip(&self, start: &Start, guard: &Record) -> Result<Skip, GuardError> {
        let by = match guard.state() {
            State::Running { attempt_id } => attempt_id.as_ref().map_or("", kind::holder_of),
            State::Released { .. }
            | State::Pending { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => "",
        };
        let other = self.runtime.ledger().load(self.job.run_id(guard.fence())?).await?;
        // The guard is taken before its run is written down.
        let running_since = other.map_or(guard.times().written, |run| run.times().created);
        let mut skip = Skip { running_since, by: by.to_owned(), run: None };
        match self.record_skip(start, &skip).await {
            Ok(run) => skip.run = run,
            Err(error) => {
                tracing::warn!(job_type = self.job.name(), %error, "a skipped run could not be recorded");
            }
        }
        Ok(skip)
    }

    async fn record_skip(&self, start: &Start, skip: &Skip) -> Result<Option<JobRun>, GuardError> {
        let ended = Ended {
            running_since: Some(skip.running_since),
            by: Some(skip.by.clone()),
            ..Ended::because(RunStatus::Skipped, super::ALREADY_RUNNING)
        };
        self.record_ended(start, &ended).await
    }

    /// Records a run that did not begin.
    pub(super) async fn record_ended(
        &self,
        start: &Start,
        ended: &Ended,
    ) -> Result<Option<JobRun>, GuardError> {
        let name = OsEntropy.token().reveal();
        let request = Arc::new(self.job.skip_request(&name, start.retention, Self::tags(start)?)?);
        let token = OsEntropy.token();
        let holder = Holder { id: request.id(), token };
        self.runtime.ledger().apply(&ClaimKey { request, token, attempt_id: None }).await?;
        let complete = Complete { holder, outcome: ended.outcome()? };
        Ok(match self.runtime.ledger().apply(&complete).await? {
            Held::Done(record) => JobRun::of(&self.job, &record, None),
            Held::Fenced(_) | Held::Illegal(..) => None,
        })
    }

    /// A heartbeat: the guard holds for the whole of its lease again.
    ///
    /// # Errors
    /// See [`GuardError`]; without an answer the lease was not renewed.
    pub async fn heartbeat(&self, proof: RunProof) -> Result<JobRun, GuardError> {
        let record = self.run_record(proof.run).await?;
        let holder = Holder { id: self.job.guard(), token: proof.token };
        match self.runtime.ledger().extend(holder).await? {
            Held::Done(guard) => self.shown(&record, Some(&guard)),
            Held::Fenced(_) | Held::Illegal(..) => Err(GuardError::Fenced),
        }
    }

    /// The run was done. Saying it again with the same results is a success.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn complete(&self, proof: RunProof, results: RunResults) -> Result<RunEnd, GuardError> {
        self.end(proof, Ended::new(RunStatus::Completed, results)).await
    }

    /// The run has failed. Saying it again with the same results is a success.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn fail(&self, proof: RunProof, results: RunResults) -> Result<RunEnd, GuardError> {
        self.end(proof, Ended::new(RunStatus::Failed, results)).await
    }

    /// The run ends first, then the guard is released: whoever starts next finds no run that looks as if it went on.
    async fn end(&self, proof: RunProof, ended: Ended) -> Result<RunEnd, GuardError> {
        let record = self.run_record(proof.run).await?;
        let again = record.state().name() == StateName::Completed;
        let holder = Holder { id: self.job.guard(), token: proof.token };
        let guard = self.runtime.ledger().load(holder.id).await?;
        let held = guard.as_ref().filter(|guard| is_held(guard) && guard.token() == Some(proof.token));
        if !again && held.is_none() {
            if record.token() == Some(proof.token) {
                self.end_lapsed(&record, "its guard was lost before it ended").await;
            }
            return Err(GuardError::Fenced);
        }
        let lease = held.map_or(limits::JOB_LEASE_DEFAULT, |guard| guard.request().policy().lease());
        let outcome = ended.outcome()?;
        let complete = Complete { holder: Holder { id: proof.run, token: proof.token }, outcome };
        let first = self.runtime.ledger().apply(&complete).await;
        let stored = self.runtime.persist(complete, lease, first, || self.releases(holder, lease)).await;
        match stored.map_err(GuardError::Unstored)? {
            Held::Done(record) => {
                self.release(holder, lease).await;
                Ok(RunEnd { run: self.shown(&record, None)?, again })
            }
            Held::Fenced(_) | Held::Illegal(..) => Err(GuardError::Fenced),
        }
    }

    /// Gives the guard back. It may be another's by now, or free, which is as good.
    async fn release(&self, holder: Holder, lease: Duration) {
        let release = Release { holder, error: "its run has ended".into() };
        let first = self.runtime.ledger().apply(&release).await;
        if let Err(error) = self.runtime.persist(release, lease, first, || Box::new(|_| ())).await {
            tracing::warn!(job_type = self.job.name(), %error, "the guard of a job is left to its lapse");
        }
    }

    /// What gives the guard back once the end of its run is stored after all.
    fn releases(&self, holder: Holder, lease: Duration) -> Late {
        let guard = self.clone();
        Box::new(move |_| {
            let tasks = guard.runtime.tasks().clone();
            tasks.spawn(async move { guard.release(holder, lease).await });
        })
    }

    /// Takes the guard from whoever holds it: the run is over, and its holder fenced. Durable with its audit entry
    /// when it returns.
    ///
    /// # Errors
    /// The store has no answer.
    pub async fn release_by_force(&self, force: &Force) -> Result<Forced, GuardError> {
        for _ in 0..limits::JOB_FORCED_TRIES_MAX {
            let guard = self.runtime.ledger().load(self.job.guard()).await?;
            let Some(guard) = guard.filter(|guard| is_held(guard)) else { return Ok(Forced::NotHeld) };
            if guard.fence() != force.fence {
                return Ok(Forced::Changed(guard.fence()));
            }
            let command = ForceRelease {
                id: guard.id(),
                version: guard.version(),
                actor: force.actor.clone(),
                reason: force.reason.clone(),
                correlation_id: force.correlation_id.clone(),
            };
            match self.runtime.ledger().apply(&command).await? {
                Judged::Done(_) => return self.end_forced(force).await,
                // A heartbeat was quicker, which changes nothing about what was judged.
                Judged::VersionConflict(_) => {}
                Judged::Illegal(..) | Judged::NotFound => return Ok(Forced::NotHeld),
            }
        }
        Err(GuardError::Fenced)
    }

    async fn end_forced(&self, force: &Force) -> Result<Forced, GuardError> {
        let why = format!("released by force by {}: {}", force.actor.as_str(), force.reason.as_str());
        let id = self.job.run_id(force.fence)?;
        if let Some(record) = self.runtime.ledger().load(id).await? {
            self.end_lapsed(&record, &why).await;
        }
        let record = self.runtime.ledger().load(id).await?;
        let run = record.and_then(|record| JobRun::of(&self.job, &record, None));
        Ok(run.map_or(Forced::NotHeld, |run| Forced::Released(Box::new(run))))
    }

    /// Ends what runs of earlier fences have left: their holders died, or could not store their ends.
    async fn tidy(&self, fence: Fence) {
        let tidied = async {
            let query = Query {
                namespace: Some(Namespace::Job),
                states: vec![StateName::Running],
                tag: Some(self.job.tag()?),
                ..Query::default()
            };
            let store = self.runtime.ledger().store();
            let left = store.search(query, None, limits::JOB_TIDIED_MAX).await?;
            for summary in left.items {
                let found = store.load(summary.id).await?;
                let Some(record) = found.value else { continue };
                match self.job.kind_of(record.request()) {
                    Some(Kind::Run(earlier)) if earlier < fence => {
                        self.end_lapsed(&record, "its holder gave no heartbeat, and another run took over")
                            .await;
                    }
                    Some(Kind::Skip) if record.is_lapsed(found.as_of) => {
                        let skipped = Ended::because(RunStatus::Skipped, super::ALREADY_RUNNING);
                        self.end_as(&record, &skipped).await;
                    }
                    Some(Kind::Run(_) | Kind::Skip) | None => {}
                }
            }
            Ok::<_, GuardError>(())
        };
        if let Err(error) = tidied.await {
            // The next start looks again.
            tracing::warn!(job_type = self.job.name(), %error, "lapsed runs could not be looked for");
        }
    }

    async fn end_lapsed(&self, record: &Arc<Record>, why: &str) {
        self.end_as(record, &Ended::because(RunStatus::Lapsed, why)).await;
    }

    /// Ends a run in its holder's place, unless it has ended.
    async fn end_as(&self, record: &Arc<Record>, ended: &Ended) {
        let (Some(token), StateName::Running) = (record.token(), record.state().name()) else { return };
        let Ok(outcome) = ended.outcome() else { return };
        let complete = Complete { holder: Holder { id: record.id(), token }, outcome };
        if let Err(error) = self.runtime.ledger().apply(&complete).await {
            tracing::warn!(record_id = %record.id(), %error, "a run of a job could not be ended");
        }
    }

    /// The record of a run of this job.
    async fn run_record(&self, id: RecordId) -> Result<Arc<Record>, GuardError> {
        let record = self.runtime.ledger().load(id).await?;
        let ours = record.filter(|record| matches!(self.job.kind_of(record.request()), Some(Kind::Run(_))));
        ours.ok_or(GuardError::NotFound)
    }

    pub(super) fn shown(&self, record: &Record, guard: Option<&Record>) -> Result<JobRun, GuardError> {
        JobRun::of(&self.job, record, guard).ok_or(GuardError::NotFound)
    }

    fn tags(start: &Start) -> Result<Vec<Tag>, Invalid> {
        let mut tags = vec![kind::tag(TAG_HOLDER, &start.holder)?];
        if let Some(tick) = &start.scheduled_at {
            tags.push(kind::tag(TAG_TICK, tick)?);
        }
        Ok(tags)
    }
}

//! Starts jobs by their schedules, each instant once over all nodes.
//!
//! Every node comes to every instant, and claims it; one is given it. Whoever is not, waits for the end of its run: if the
//! holder dies, the next one takes over. What an instant begins is a run like any other: if another instance is running,
//! it is skipped, and recorded. So is an instant that nobody has come to in time.
//!
//! The clock is the one on the wall, since that is what a schedule means. It decides when a node looks, and nothing else:
//! a node whose clock is wrong comes early or late, and finds that an instant is over. A clock that is set back comes to
//! instants that are remembered; one that is set forward has missed those between.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use parking_lot::Mutex;
use semel_core::command::Claim;
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::{Record, RecordId};
use semel_runtime::job::{
    GuardError, JobGuard, JobRun, RunClaim, RunResults, Start, Started, TickAnswer, this_process,
};
use semel_runtime::{Ended, Keeper};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::config::JobConfig;
use crate::jobs::Jobs;
use crate::{limits, wall};

#[cfg(test)]
mod tests;

/// What shows the time.
pub(crate) type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything that is started by a schedule.
pub(crate) struct Schedules {
    engine: Engine,
    jobs: Jobs,
    wall: Wall,
    running: Mutex<CancellationToken>,
}

/// One job with its schedule, on this node.
#[derive(Clone)]
struct Scheduled {
    engine: Engine,
    jobs: Jobs,
    config: Arc<JobConfig>,
    wall: Wall,
}

/// What a target says of its run: anything else in its answer is its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    processed: u64,
    errors: u64,
    details: String,
}

impl Schedules {
    /// Starts the schedules of all configured jobs.
    pub(crate) fn start(engine: Engine, jobs: Jobs, wall: Wall) -> Self {
        let schedules = Self { engine, jobs, wall, running: Mutex::default() };
        schedules.reload();
        schedules
    }

    /// Goes on with the jobs that are configured now. Runs that have begun go on as they are.
    pub(crate) fn reload(&self) {
        let stop = self.engine.0.stopping.child_token();
        std::mem::replace(&mut *self.running.lock(), stop.clone()).cancel();
        for config in self.jobs.configured().iter() {
            let scheduled = Scheduled {
                engine: self.engine.clone(),
                jobs: self.jobs.clone(),
                config: Arc::clone(config),
                wall: Arc::clone(&self.wall),
            };
            self.engine.0.tasks.spawn(scheduled.keep(stop.clone()));
        }
    }
}

/// The clock on the wall.
pub(crate) fn wall() -> Wall {
    Arc::new(|| {
        let now = i64::try_from(wall::now().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX)
    })
}

impl Scheduled {
    /// Until it is stopped.
    async fn keep(self, stop: CancellationToken) {
        let kept = async {
            let mut after = self.resume().await;
            loop {
                let now = (self.wall)();
                // Set back: what comes again is remembered, and begins nothing.
                after = self.come_to(after.min(now), now);
                let next = self.config.cron.next_after(after.max(now));
                let pause =
                    next.map_or(limits::JOB_LOOK_EVERY, |next| next.duration_since(now).unsigned_abs());
                sleep(pause.min(limits::JOB_LOOK_EVERY)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            never = kept => match never {},
        }
    }

    fn guard(&self) -> JobGuard {
        JobGuard::new(self.engine.0.runtime.clone(), self.config.job.clone())
    }

    /// Where the schedule stopped, on whatever node that was. What was begun there and has not ended is followed. A
    /// schedule that is new begins now.
    async fn resume(&self) -> Timestamp {
        loop {
            match self.guard().ticks(limits::JOB_TICKS_LOOKED_AT).await {
                Ok(ticks) => {
                    let now = (self.wall)();
                    for tick in ticks.iter().filter(|tick| !tick.is_over) {
                        if let Ok(instant) = tick.instant.parse() {
                            self.follow(instant, now);
                        }
                    }
                    return ticks.iter().filter_map(|tick| tick.instant.parse().ok()).max().unwrap_or(now);
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// Sees to the instants that have come; up to which it has.
    fn come_to(&self, after: Timestamp, now: Timestamp) -> Timestamp {
        // What lies further back is forgotten.
        let oldest = now.checked_sub(limits::JOB_LOOK_BACK).unwrap_or(Timestamp::MIN);
        let come = self.config.cron.between(after.max(oldest), now, limits::JOB_COME_TO_MAX);
        for instant in &come {
            self.follow(*instant, now);
        }
        come.last().map_or(after, |newest| after.max(*newest))
    }

    /// Sees to an instant until it is over, apart from the schedule: what it begins may take longer than its interval.
    fn follow(&self, instant: Timestamp, came: Timestamp) {
        let scheduled = self.clone();
        self.engine.0.tasks.spawn(async move { scheduled.until_over(instant, came).await });
    }

    /// `came` is when this node came to it: what a slow store takes from there on makes it no later.
    async fn until_over(self, instant: Timestamp, mut came: Timestamp) {
        while !self.engine.0.stopping.is_cancelled() {
            let sent = Instant::now();
            let is_missed = self.is_missed(instant, came);
            let failed = match self.ask_for(instant, is_missed).await {
                Ok(TickAnswer::Over) => return,
                // What another node had begun is begun again, however late it is; and what it had come to too late is
                // recorded in its place.
                Ok(TickAnswer::Yours(claim))
                    if JobGuard::is_to_be_missed(&claim) || (is_missed && !claim.is_tainted()) =>
                {
                    return self.miss(claim, instant).await;
                }
                Ok(TickAnswer::Yours(claim)) => return Box::pin(self.turn(claim, sent, instant)).await,
                Ok(TickAnswer::Busy(record)) => self.settled(&record).await.err(),
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                self.failed(&error).await;
            }
            came = (self.wall)();
        }
    }

    async fn ask_for(&self, instant: Timestamp, is_missed: bool) -> Result<TickAnswer, GuardError> {
        let (guard, instant) = (self.guard(), instant.to_string());
        if is_missed {
            guard.tick_missed(&instant, self.config.lease).await
        } else {
            guard.tick(&instant, self.config.lease).await
        }
    }

    /// Waits until something has become of an instant that another node has. Its lease is renewed as long as that lives.
    async fn settled(&self, tick: &Record) -> Result<(), GuardError> {
        let patience = limits::JOB_LOOK_EVERY.min(self.config.lease);
        tokio::select! {
            () = self.engine.0.stopping.cancelled() => Ok(()),
            waited = self.engine.ledger().wait(tick.id(), tick.version(), patience) => Ok(waited.map(drop)?),
        }
    }

    fn is_missed(&self, instant: Timestamp, came: Timestamp) -> bool {
        self.config.cron.is_missed(instant, came, limits::JOB_LATE, self.config.missed)
    }

    /// Nobody was there for an instant in time.
    async fn miss(&self, claim: Claim, instant: Timestamp) {
        match self.guard().missed(&self.start(instant)).await {
            Ok(run) => run.iter().for_each(|run| self.jobs.became(run)),
            Err(error) => {
                tracing::warn!(job_type = self.config.job.name(), %error, "a missed instant could not be recorded");
            }
        }
        self.over(claim, "missed").await;
    }

    fn start(&self, instant: Timestamp) -> Start {
        Start {
            lease: self.config.lease,
            retention: self.config.retention,
            scheduled_at: Some(instant.to_string()),
            ..Start::by(this_process())
        }
    }

    /// The instant is this node's: begins the job, and keeps both until its run has ended.
    async fn turn(&self, claim: Claim, sent: Instant, instant: Timestamp) {
        let runtime = &self.engine.0.runtime;
        let keeper = Keeper::new(runtime, claim.holder(), claim.lease(), sent);
        let run = Box::pin(self.run(&claim, instant));
        let time = semel_runtime::limits::JOB_TIME_MAX;
        let told = match keeper.during(run, time, || ()).await {
            Ended::Done(told) => told,
            Ended::TimedOut | Ended::GivenUp => "given up",
        };
        self.over(claim, told).await;
    }

    /// The instant is over.
    async fn over(&self, claim: Claim, told: &'static str) {
        let outcome = Outcome::try_new(Class::Success, 200, Headers::default(), told.into());
        let Ok(outcome) = outcome else { return };
        let ended = self.engine.0.runtime.complete(claim, outcome, || Box::new(|_| ())).await;
        if let Err(error) = ended {
            tracing::warn!(job_type = self.config.job.name(), %error, "an instant of a schedule could not be settled");
        }
    }

    async fn run(&self, tick: &Claim, instant: Timestamp) -> &'static str {
        let guard = self.guard();
        let started = loop {
            match guard.start(&self.start(instant)).await {
                Ok(started) => break started,
                Err(error) => self.failed(&error).await,
            }
        };
        match started {
            Started::Skipped(skip) => {
                skip.run.iter().for_each(|run| self.jobs.became(run));
                "skipped"
            }
            Started::Began(claim) => {
                self.jobs.began(&claim);
                self.work(&guard, claim, tick, instant).await;
                "ran"
            }
        }
    }

    /// Has the target do the job, and ends the run by what it says.
    async fn work(&self, guard: &JobGuard, claim: RunClaim, tick: &Claim, instant: Timestamp) {
        let lost = CancellationToken::new();
        let work = async {
            tokio::select! {
                said = self.call(claim.run(), tick, instant) => said,
                () = lost.cancelled() => Err("its guard was lost before the target answered".to_owned()),
            }
        };
        let keeper = claim.keeper(&self.engine.0.runtime);
        let said = match keeper.during(work, self.config.timeout, || lost.cancel()).await {
            Ended::Done(said) => said,
            Ended::TimedOut => Err(format!("the target gave no answer within {:?}", self.config.timeout)),
            Ended::GivenUp => Err("the server went down before the target answered".to_owned()),
        };
        // To its end, though the server goes down meanwhile: else the guard would be left to its lapse.
        let ended = self.clone().end(guard.clone(), claim, said);
        if self.engine.0.runtime.detached(ended).await.is_err() {
            tracing::error!(job_type = self.config.job.name(), "the end of a run has panicked");
        }
    }

    async fn end(self, guard: JobGuard, claim: RunClaim, said: Result<RunResults, String>) {
        let ended = match said {
            Ok(results) => guard.complete(claim.proof(), results).await,
            Err(details) => {
                let results = RunResults { details, ..RunResults::default() };
                guard.fail(claim.proof(), results).await
            }
        };
        match ended {
            Ok(end) => self.jobs.became(&end.run),
            Err(error) => {
                let (job_type, run) = (self.config.job.name(), claim.run().id);
                tracing::warn!(job_type, record_id = %run, %error, "a run of a job could not be ended");
            }
        }
    }

    async fn call(&self, run: &JobRun, tick: &Claim, instant: Timestamp) -> Result<RunResults, String> {
        let fence = run.fence.unwrap_or_default().0;
        let body = serde_json::json!({
            "jobType": run.job_type, "run": run.id.to_string(), "scheduledAt": instant.to_string(), "fence": fence,
        });
        let headers = self.headers(run, tick.record().id(), fence, tick.attempt());
        let targets = &self.engine.0.targets;
        let asked =
            targets.post(&self.config.target, headers, body.to_string().into(), limits::JOB_ANSWER_BYTES_MAX);
        let (status, body) = asked.await?;
        if !status.is_success() {
            return Err(format!("the target answered {}", status.as_u16()));
        }
        // What is no JSON says nothing, which is no failure.
        let said: Said = body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let number = |said: u64| said.min(limits::JOB_NUMBER_MAX);
        Ok(RunResults {
            processed: number(said.processed),
            errors: number(said.errors),
            details: said.details,
        })
    }

    fn headers(&self, run: &JobRun, tick: RecordId, fence: u64, attempt: u32) -> HeaderMap {
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let own = [
            ("idempotency-key", text(&tick.downstream_key(None))),
            ("semel-job", text(&run.job_type)),
            ("semel-fence", Some(fence.into())),
            ("semel-attempt", Some(attempt.into())),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), value?)));
        let configured = self.config.headers.iter().filter_map(|(name, secret)| {
            let mut value = HeaderValue::from_str(secret.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        });
        own.chain(configured).collect()
    }

    /// The store did not answer: a pause before it is asked again.
    async fn failed(&self, error: &GuardError) {
        tracing::warn!(job_type = self.config.job.name(), %error, "a schedule has no answer from the store");
        let pause: Duration = limits::DISPATCH_AFTER_FAILURE;
        sleep(pause).await;
    }
}

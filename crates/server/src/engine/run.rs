//! One claim to its end: the work under heartbeats and within its time, then what the ledger is told of it.
//!
//! Whatever the work does, its claim is settled: by what the answer means, and by the record's policy where there is
//! none. Only where the store has no answer it is left to its lapse (L12).

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use semel_core::command::{Accept, Accepted, Claim, Effect, Held, Retry};
use semel_core::outcome::{Body, Outcome};
use semel_core::policy::OnLapse;
use semel_core::record::{Record, State, StateName, Text, Why};
use semel_runtime::{Ended, Keeper, Late, jitter};
use tokio::time::Instant;

use super::ask::{EngineError, EngineErrorKind, Execution};
use super::delivery::Heard;
use super::events::What;
use super::progress::Progress;
use super::reply::{Lost, Reply, Said};
use super::work::{Link, Work};
use super::{Engine, builtin, stands};
use crate::config::Target;
use crate::limits;

impl Engine {
    /// Runs a claim to its end and says what it gave. `sent` is when the claim was asked for.
    pub(super) async fn run_claim(
        &self,
        claim: Claim,
        sent: Instant,
        work: &Work,
    ) -> Result<Execution, EngineError> {
        if let Target::Delivery(target) = work.operation.target() {
            return Box::pin(self.run_delivery(claim, sent, work, target)).await;
        }
        let reply = self.attempt(&claim, sent, work, &OnceLock::new()).await;
        self.settle(claim, reply, &work.link).await
    }

    /// Stores what an attempt came to, and says it.
    pub(super) async fn settle(
        &self,
        claim: Claim,
        reply: Reply,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        match reply.judged_after(claim.is_tainted()) {
            Reply::Answered { class, status, headers, body } => {
                let (outcome, said) = match body {
                    Said::Kept(body) => (Outcome::try_new(class, status, headers, body.clone()), Some(body)),
                    Said::Passed(body) => (Outcome::try_without_body(class, status, headers), Some(body)),
                    Said::Gone => (Outcome::try_without_body(class, status, headers), None),
                };
                match outcome {
                    Ok(outcome) => self.complete(claim, outcome, said, link).await,
                    Err(invalid) => {
                        let detail = format!("the answer cannot be kept: {invalid}");
                        Box::pin(self.lost(claim, Lost::Inconclusive, &detail, None, link)).await
                    }
                }
            }
            // On the heap: what seldom happens must not add to the size of what always does.
            Reply::NotExecuted { detail, retry_after, permanent } => {
                Box::pin(self.give_back(claim, &detail, retry_after, permanent, link)).await
            }
            Reply::Lost { how, detail, retry_after } => {
                Box::pin(self.lost(claim, how, &detail, retry_after, link)).await
            }
        }
    }

    /// The work of one attempt. A panic of it is an answer that was lost. What a delivery heard is left in `heard`.
    pub(super) async fn attempt(
        &self,
        claim: &Claim,
        sent: Instant,
        work: &Work,
        heard: &OnceLock<Heard>,
    ) -> Reply {
        let progress = Progress::default();
        let attempt = AssertUnwindSafe(async {
            #[cfg(test)]
            if let Some(script) = work.operation.script() {
                return script.play(claim.record(), &progress).await;
            }
            match work.operation.target() {
                Target::Builtin(builtin) => {
                    builtin::run(*builtin, &work.payload, &self.0.counts, &progress).await
                }
                // On the heap: it is large, and what is built in must not carry its room about.
                Target::Http(_) => Box::pin(self.0.targets.call(claim, work, &progress)).await,
                Target::Delivery(target) => {
                    Box::pin(self.0.targets.deliver(target, claim, work, &progress, heard)).await
                }
            }
        });
        let keeper = Keeper::new(&self.0.runtime, claim.holder(), claim.lease(), sent);
        let time = work.operation.config().timeout;
        match keeper.during(attempt.catch_unwind(), time, || progress.stop()).await {
            Ended::Done(Ok(reply)) => reply,
            Ended::Done(Err(_)) => Reply::lost(Lost::Abandoned, "the work ended by a panic"),
            Ended::TimedOut if progress.has_begun() => {
                Reply::lost(Lost::TimedOut, format!("no whole answer within {time:?}"))
            }
            Ended::TimedOut => Reply::not_sent(format!("nothing could be sent within {time:?}")),
            Ended::GivenUp if progress.has_begun() => {
                Reply::lost(Lost::Abandoned, "the server went down before the work had ended")
            }
            Ended::GivenUp => Reply::not_sent("the server went down before anything was sent"),
        }
    }

    /// Stores what the operation gave. Where the record does not keep it, whoever asked is given what was `said`, once
    /// it is durable that it was done.
    async fn complete(
        &self,
        claim: Claim,
        outcome: Outcome,
        said: Option<Bytes>,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        match self.0.runtime.complete(claim, outcome, || self.late(link)).await? {
            Held::Done(record) => {
                self.tell(What::Completed, &record, link);
                let is_kept = record.outcome().is_none_or(|outcome| matches!(outcome.body, Body::Kept(_)));
                let said = said.filter(|_| !is_kept);
                Ok(Execution::Completed { record, replayed: false, said })
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, why) => Ok(unsettled(record, why)),
        }
    }

    /// Ends an attempt that is known to have done nothing. What was taken in, and what an earlier attempt may have
    /// begun, must come to an end all the same (L9): it goes back to the workers.
    pub(super) async fn give_back(
        &self,
        claim: Claim,
        detail: &str,
        asked: Option<Duration>,
        permanent: bool,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        let pause = pause(&claim, asked);
        if claim.record().accepted() || (claim.is_tainted() && claim.record().is_drivable()) {
            return self.retry(claim, detail, pause, Effect::None, permanent, link).await;
        }
        let retry_after = pause.max(limits::RETRY_AFTER_TARGET);
        match self.0.runtime.release(claim, detail.into(), || self.late(link)).await? {
            Held::Done(record) => {
                self.tell(became(&record), &record, link);
                Ok(match record.state().name() {
                    // Accepted while it ran: a worker goes on with it.
                    StateName::Pending => Execution::Processing { record, retry_after, fresh: true },
                    _ => Execution::NotExecuted { record, retry_after },
                })
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, why) => Ok(unsettled(record, why)),
        }
    }

    /// Ends an attempt that may have done something, as the record's policy says.
    async fn lost(
        &self,
        claim: Claim,
        how: Lost,
        detail: &str,
        asked: Option<Duration>,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        match claim.record().request().policy().on_lapse() {
            OnLapse::AtMostOnce => self.unknown(claim, how, detail, link).await,
            OnLapse::Resume => {
                let pause = pause(&claim, asked);
                let retried = self.retry(claim, detail, pause, Effect::Possible, false, link).await?;
                Ok(match retried {
                    // The client is told to come back: from here on it is a worker's, with the same downstream key.
                    Execution::Processing { record, .. } => {
                        Execution::Retryable { record, retry_after: pause.max(limits::RETRY_AFTER_TARGET) }
                    }
                    other => other,
                })
            }
        }
    }

    /// Hands the work to the workers, for another try after `pause`. What its client ran itself is taken in first.
    async fn retry(
        &self,
        claim: Claim,
        detail: &str,
        pause: Duration,
        effect: Effect,
        permanent: bool,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        if !claim.record().accepted() {
            let accept = Accept::try_new(Arc::clone(claim.record().request()))?;
            match self.0.ledger.accept(&accept).await.map_err(|error| self.failed(error))? {
                // Whose it is now, the retry will tell.
                Accepted::Accepted(_) | Accepted::Duplicate(_) => {}
                Accepted::Mismatch(record) => return self.overtaken(Some(record), link),
            }
        }
        let retry = Retry { holder: claim.holder(), error: Text::new(detail), pause, effect, permanent };
        let first = self.0.ledger.retry(&retry).await;
        match self.0.runtime.persist(retry, claim.lease(), first, || self.late(link)).await? {
            Held::Done(record) => {
                self.tell(became(&record), &record, link);
                Ok(stands(record))
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, why) => Ok(unsettled(record, why)),
        }
    }

    async fn unknown(
        &self,
        claim: Claim,
        how: Lost,
        detail: &str,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        let (why, status) = match how {
            Lost::Answer => (Why::AnswerLost, StatusCode::BAD_GATEWAY),
            Lost::Inconclusive => (Why::AnswerInconclusive, StatusCode::BAD_GATEWAY),
            Lost::TimedOut => (Why::AnswerLost, StatusCode::GATEWAY_TIMEOUT),
            Lost::Abandoned => (Why::WorkAbandoned, StatusCode::BAD_GATEWAY),
        };
        match self.0.runtime.mark_unknown(claim, why, detail.into(), || self.late(link)).await? {
            Held::Done(record) => {
                self.tell(What::Unknown, &record, link);
                Ok(Execution::Unknown { record, fresh: Some(status) })
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, why) => Ok(unsettled(record, why)),
        }
    }

    /// Tells of an end that was stored when nobody waited for it any more.
    fn late(&self, link: &Link) -> Late {
        let (engine, link) = (self.clone(), link.clone());
        Box::new(move |record| engine.tell(became(record), record, &link))
    }

    /// Somebody else has the claim, or has settled it: what is stored counts.
    fn overtaken(&self, record: Option<Arc<Record>>, link: &Link) -> Result<Execution, EngineError> {
        let record = record.ok_or(EngineError::new(EngineErrorKind::Internal))?;
        self.tell(What::Fenced, &record, link);
        Ok(stands(record))
    }
}

/// A command that does not fit its record: a mistake of ours. The claim is left to its lapse.
fn unsettled(record: Arc<Record>, why: &'static str) -> Execution {
    tracing::error!(record_id = %record.id(), why, "an attempt could not be settled");
    stands(record)
}

/// What happened to a record that an attempt has just left in this state.
pub(super) fn became(record: &Record) -> What {
    match record.state() {
        State::Completed { .. } => What::Completed,
        State::Released { .. } => What::Released,
        State::Unknown { .. } => What::Unknown,
        State::Dead { .. } => What::Dead,
        State::Pending { .. } | State::Running { .. } => What::Retried,
    }
}

/// When the next try may begin: by the schedule, later if the target says so.
fn pause(claim: &Claim, asked: Option<Duration>) -> Duration {
    let schedule = claim.record().request().policy().retry();
    let asked = asked.unwrap_or_default().min(limits::RETRY_AFTER_TARGET_MAX);
    schedule.pause(claim.record().tries(), jitter()).max(asked)
}

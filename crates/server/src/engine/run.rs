//! One claim to its end: the work under heartbeats, then what the ledger is told of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use semel_core::command::{Accept, Accepted, Claim, Complete, Effect, Held, Retry};
use semel_core::id::Holder;
use semel_core::outcome::Outcome;
use semel_core::record::{Record, StateName, Text, Why};
use tokio::time::Instant;

use super::ask::{EngineError, EngineErrorKind, Execution};
use super::entropy::jitter;
use super::events::What;
use super::heartbeat::Keeper;
use super::reply::{Lost, Reply};
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
        let reply = self.attempt(&claim, sent, work).await.judged_after(claim.is_tainted());
        match reply {
            Reply::Answered { class, status, headers, body } => {
                let outcome = match body {
                    Some(body) => Outcome::try_new(class, status, headers, body)?,
                    None => Outcome::try_without_body(class, status, headers)?,
                };
                let record = self.complete(claim, outcome, &work.link).await?;
                Ok(Execution::Completed { record, replayed: false })
            }
            Reply::NotExecuted { detail, retry_after } => {
                let pause = pause(&claim, retry_after);
                self.give_back(claim, &detail, pause, &work.link).await
            }
            Reply::Lost { how, detail, retry_after } if work.operation.resumes() => {
                let pause = pause(&claim, retry_after);
                self.try_again(claim, how, &detail, pause, &work.link).await
            }
            Reply::Lost { how, detail, .. } => self.unknown(claim, how, &detail, &work.link).await,
        }
    }

    /// The work of one attempt, under heartbeats. A panic of it is an answer that was lost.
    async fn attempt(&self, claim: &Claim, sent: Instant, work: &Work) -> Reply {
        let mut keeper = Keeper::new(claim.holder(), claim.lease(), sent);
        let lost = keeper.lost.clone();
        let attempt = AssertUnwindSafe(async {
            match work.operation.target() {
                Target::Builtin(builtin) => builtin::run(*builtin, &work.payload, &self.0.counts).await,
                Target::Http(_) => self.0.targets.call(claim, work, &lost).await,
            }
        });
        let abandoned =
            |detail: &str| Reply::Lost { how: Lost::Abandoned, detail: detail.to_owned(), retry_after: None };
        match keeper.during(self, attempt.catch_unwind()).await {
            Some(Ok(reply)) => reply,
            Some(Err(_)) => abandoned("the work ended by a panic"),
            None => abandoned("the server went down before the work had ended"),
        }
    }

    /// Ends an attempt that is known to have done nothing.
    pub(super) async fn give_back(
        &self,
        claim: Claim,
        detail: &str,
        pause: Duration,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        if claim.record().accepted() {
            return self.retry(&claim, detail, pause, Effect::None, link).await;
        }
        let released = self.0.ledger.release(claim, detail.into()).await;
        match released.map_err(|error| self.failed(error))? {
            // Accepted while it ran: a worker goes on with it.
            Held::Done(record) if record.state().name() == StateName::Pending => {
                self.tell(What::Retried, &record, link);
                Ok(Execution::Processing { record, retry_after: pause, fresh: true })
            }
            Held::Done(record) => {
                self.tell(What::Released, &record, link);
                Ok(Execution::NotExecuted { record, retry_after: pause })
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, _) => Ok(stands(record)),
        }
    }

    /// Under *resume*: from here on it is a worker's, with the same downstream key; the client is told to come back.
    async fn try_again(
        &self,
        claim: Claim,
        how: Lost,
        detail: &str,
        pause: Duration,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        if !claim.record().accepted() {
            let accept = Accept::try_new(Arc::clone(claim.record().request()))?;
            match self.0.ledger.accept(&accept).await.map_err(|error| self.failed(error))? {
                Accepted::Accepted(_) | Accepted::Duplicate(_) => {}
                Accepted::Mismatch(_) => return self.unknown(claim, how, detail, link).await,
            }
        }
        Ok(match self.retry(&claim, detail, pause, Effect::Possible, link).await? {
            Execution::Processing { record, .. } => Execution::Retryable { record, retry_after: pause },
            other => other,
        })
    }

    async fn retry(
        &self,
        claim: &Claim,
        detail: &str,
        pause: Duration,
        effect: Effect,
        link: &Link,
    ) -> Result<Execution, EngineError> {
        let error = Text::new(detail);
        let retry = Retry { holder: claim.holder(), error, pause, effect, permanent: false };
        match self.0.ledger.retry(&retry).await.map_err(|error| self.failed(error))? {
            Held::Done(record) => {
                let dead = record.state().name() == StateName::Dead;
                self.tell(if dead { What::Dead } else { What::Retried }, &record, link);
                Ok(stands(record))
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, _) => Ok(stands(record)),
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
            Lost::TimedOut => (Why::AnswerLost, StatusCode::GATEWAY_TIMEOUT),
            Lost::Abandoned => (Why::WorkAbandoned, StatusCode::BAD_GATEWAY),
        };
        let marked = self.0.ledger.mark_unknown(claim, why, detail.into()).await;
        match marked.map_err(|error| self.failed(error))? {
            Held::Done(record) => {
                self.tell(What::Unknown, &record, link);
                Ok(Execution::Unknown { record, fresh: Some(status) })
            }
            Held::Fenced(record) => self.overtaken(record, link),
            Held::Illegal(record, _) => Ok(stands(record)),
        }
    }

    /// Stores the outcome, trying for a while: the work has run, and giving up leaves it to its lapse (L12).
    async fn complete(
        &self,
        claim: Claim,
        outcome: Outcome,
        link: &Link,
    ) -> Result<Arc<Record>, EngineError> {
        let holder = claim.holder();
        let mut complete = None;
        let mut stored = self.0.ledger.complete(claim, outcome.clone()).await;
        for pause in limits::STORE_OUTCOME_PAUSES {
            let Err(error) = stored else { break };
            self.0.events.storage_failed(&error);
            tokio::time::sleep(pause).await;
            let complete = complete.get_or_insert_with(|| Complete { holder, outcome: outcome.clone() });
            stored = self.0.ledger.apply(complete).await;
        }
        match stored {
            Ok(Held::Done(record)) => {
                self.tell(What::Completed, &record, link);
                Ok(record)
            }
            Ok(Held::Fenced(Some(record)) | Held::Illegal(record, _)) => {
                // Somebody else has the claim, or has settled it otherwise: what is stored counts.
                self.tell(What::Fenced, &record, link);
                if record.outcome().is_some() { Ok(record) } else { Err(not_stored()) }
            }
            Ok(Held::Fenced(None)) => Err(not_stored()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn overtaken(&self, record: Option<Arc<Record>>, link: &Link) -> Result<Execution, EngineError> {
        let record = record.ok_or_else(not_stored)?;
        self.tell(What::Fenced, &record, link);
        Ok(stands(record))
    }

    /// Gives a claim back that was found after its caller had been refused, until that holds or its lease is over.
    pub(super) async fn abandon(&self, orphan: Holder) {
        for pause in limits::ABANDON_PAUSES {
            match self.0.ledger.abandon(orphan).await {
                Ok(()) => return,
                Err(error) => self.0.events.storage_failed(&error),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// When the next try may begin: by the schedule, later if the target says so, but not above the cap.
fn pause(claim: &Claim, asked: Option<Duration>) -> Duration {
    let schedule = claim.record().request().policy().retry();
    schedule.pause(claim.attempt(), jitter()).max(asked.unwrap_or_default()).min(schedule.cap())
}

fn not_stored() -> EngineError {
    EngineError::new(EngineErrorKind::Storage)
}

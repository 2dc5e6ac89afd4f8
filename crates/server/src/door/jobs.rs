//! The door of jobs: start a run, keep it, end it; and what there is to see of it. What holds a run is its token.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use hyper::body::Body as _;
use semel_api::jobs::{JobCompleteRequest, JobFailRequest, JobHeartbeatRequest, JobStartRequest, JobStarted};
use semel_api::{Detail, ErrorCode};
use semel_core::{RecordId, Token};
use semel_runtime::job::{GuardError, JobGuard, RunEnd, RunProof, Start, Started};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::Caller;
use super::refusal::{self, Refusal};
use super::{Doors, body, reply};
use crate::admin::{Parameters, cursor};
use crate::jobs;

/// What comes before a job's type in the path.
pub(super) const PREFIX: &str = "/v1/jobs/";

/// The parameters of a history. (Whose it is, the token says.)
const HISTORY: [&str; 2] = ["cursor", "limit"];

pub(super) async fn list(State(doors): State<Doors>, request: Request) -> Result<Response, Refusal> {
    let caller = caller(request.extensions())?;
    Parameters::read(request.uri().query(), &[])?;
    written(StatusCode::OK, &doors.jobs.list(&caller.tenant).await?)
}

pub(super) async fn start(
    State(doors): State<Doors>,
    Path(job_type): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = caller(&parts.extensions)?;
    let guard = doors.jobs.guard(&caller.tenant, &job_type)?;
    // Whoever has nothing to say need not say it in JSON, whatever type it would have had.
    let wanted: JobStartRequest = if body.is_end_stream() {
        JobStartRequest::default()
    } else {
        let body = body::json(&parts.headers, body, doors.body_bytes_max, &doors.stopping).await?;
        semel_api::decode(&body)?
    };
    if wanted.attempt_id.is_some() && wanted.holder.is_none() {
        let message = "is needed beside attempt_id: the same attempt of the same holder is the same run, and two that \
                       do not say who they are would both have it";
        return Err(Detail::new("holder", "required", message).into());
    }
    let (lease, retention) = doors.jobs.usual(&guard);
    let start = Start {
        holder: wanted.holder.unwrap_or_else(|| caller.tenant.as_str().to_owned()),
        attempt: wanted.attempt_id,
        lease: wanted.lease_ms.map_or(lease, Duration::from_millis),
        retention: wanted.retention_ms.map_or(retention, Duration::from_millis),
        scheduled_at: None,
    };
    let started = to_its_end(&doors, async move { guard.start(&start).await }).await?;
    match started {
        Started::Began(claim) => {
            doors.jobs.began(&claim);
            let lease_ms = u64::try_from(claim.lease().as_millis()).unwrap_or(u64::MAX);
            let (run, token) = (jobs::view(claim.run()), claim.proof().token.reveal());
            let taken_over = claim.is_taken_over();
            written(StatusCode::CREATED, &JobStarted { run, token, lease_ms, taken_over })
        }
        Started::Skipped(skip) => {
            if let Some(run) = &skip.run {
                doors.jobs.became(run);
            }
            Err(jobs::already_running(&skip).into())
        }
    }
}

pub(super) async fn heartbeat(
    State(doors): State<Doors>,
    Path((job_type, run)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (guard, body) = read::<JobHeartbeatRequest>(&doors, &job_type, request).await?;
    let proof = proof(&run, &body.token)?;
    let kept = of_holder(&doors, proof, async move { guard.heartbeat(proof).await }).await?;
    written(StatusCode::OK, &jobs::view(&kept))
}

pub(super) async fn complete(
    State(doors): State<Doors>,
    Path((job_type, run)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (guard, body) = read::<JobCompleteRequest>(&doors, &job_type, request).await?;
    let proof = proof(&run, &body.token)?;
    let results = jobs::results(body.results)?;
    let ended = of_holder(&doors, proof, async move { guard.complete(proof, results).await }).await?;
    end(&doors, &ended)
}

pub(super) async fn fail(
    State(doors): State<Doors>,
    Path((job_type, run)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (guard, body) = read::<JobFailRequest>(&doors, &job_type, request).await?;
    let proof = proof(&run, &body.token)?;
    let mut results = jobs::results(body.results)?;
    if results.details.is_empty() {
        results.details = body.error.unwrap_or_default();
    }
    let ended = of_holder(&doors, proof, async move { guard.fail(proof, results).await }).await?;
    end(&doors, &ended)
}

pub(super) async fn history(
    State(doors): State<Doors>,
    Path(job_type): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = caller(request.extensions())?;
    let guard = doors.jobs.guard(&caller.tenant, &job_type)?;
    let mut parameters = Parameters::read(request.uri().query(), &HISTORY)?;
    let limit = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    written(StatusCode::OK, &doors.jobs.history(&guard, from, limit).await?)
}

pub(super) async fn show(
    State(doors): State<Doors>,
    Path((job_type, run)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = caller(request.extensions())?;
    let guard = doors.jobs.guard(&caller.tenant, &job_type)?;
    let run = guard.run(run_id(&run)?).await.map_err(|error| jobs::refused(&error))?;
    written(StatusCode::OK, &jobs::view(&run))
}

fn end(doors: &Doors, ended: &RunEnd) -> Result<Response, Refusal> {
    if !ended.again {
        doors.jobs.became(&ended.run);
    }
    written(StatusCode::OK, &jobs::view(&ended.run))
}

fn caller(extensions: &http::Extensions) -> Result<&Caller, Refusal> {
    Ok(extensions.get::<Caller>().ok_or(ErrorCode::Internal)?)
}

/// The guard that a command is for, and what it says.
async fn read<T: DeserializeOwned>(
    doors: &Doors,
    job_type: &str,
    request: Request,
) -> Result<(JobGuard, T), Refusal> {
    let (parts, body) = request.into_parts();
    let guard = doors.jobs.guard(&caller(&parts.extensions)?.tenant, job_type)?;
    let body = body::json(&parts.headers, body, doors.body_bytes_max, &doors.stopping).await?;
    Ok((guard, semel_api::decode(&body)?))
}

/// A text that is no id is the id of nothing.
fn run_id(text: &str) -> Result<RecordId, Refusal> {
    Ok(RecordId::parse(text).ok_or(ErrorCode::NotFound)?)
}

/// What a command proves itself by. What is no token at all is a typing error, not a lost run.
fn proof(run: &str, token: &str) -> Result<RunProof, Refusal> {
    let token = Token::parse(token)
        .ok_or_else(|| Detail::new("token", "value", "must be the 32 hexadecimal digits of a run's token"))?;
    Ok(RunProof { run: run_id(run)?, token })
}

/// Runs a command of a guard to its end, whatever becomes of the connection.
async fn to_its_end<T: Send + 'static>(
    doors: &Doors,
    work: impl Future<Output = Result<T, GuardError>> + Send + 'static,
) -> Result<T, Refusal> {
    let done = doors.engine.to_its_end(work).await.map_err(|error| refusal::engine(&error))?;
    done.map_err(|error| jobs::refused(&error).into())
}

/// As [`to_its_end`], for who says that a run is theirs.
async fn of_holder<T: Send + 'static>(
    doors: &Doors,
    proof: RunProof,
    work: impl Future<Output = Result<T, GuardError>> + Send + 'static,
) -> Result<T, Refusal> {
    let jobs = doors.jobs.clone();
    to_its_end(doors, async move {
        let done = work.await;
        if let Err(GuardError::Fenced) = &done {
            jobs.fenced(proof.run);
        }
        done
    })
    .await
}

fn written(status: StatusCode, body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(body).map_err(|_| ErrorCode::Internal)?;
    Ok(reply::json(status, body.into()))
}

//! `/v1/jobs` on the admin listener: jobs of any tenant, and the release of a guard by force.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use semel_api::jobs::JobReleaseRequest;
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::Fence;
use semel_core::id::Tenant;
use semel_runtime::job::{Force, Forced};

use super::filter::Parameters;
use super::judge::{self, Judge};
use super::{Admin, cursor, json};
use crate::door::{self, Refusal};
use crate::jobs;

/// The tenant of whoever names none.
const TENANT: &str = "default";

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &["tenant"])?;
    let tenant = tenant(parameters.text("tenant").as_deref())?;
    json(StatusCode::OK, &admin.jobs.list(&tenant).await?)
}

pub(super) async fn history(
    State(admin): State<Admin>,
    Path(job_type): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let mut parameters = Parameters::read(query.as_deref(), &["tenant", "cursor", "limit"])?;
    let tenant = tenant(parameters.text("tenant").as_deref())?;
    let guard = admin.jobs.guard(&tenant, &job_type)?;
    let limit = parameters.page()?;
    let from = parameters.text("cursor").as_deref().map(cursor::read).transpose()?;
    json(StatusCode::OK, &admin.jobs.history(&guard, from, limit).await?)
}

pub(super) async fn release(Path(job_type): Path<String>, judge: Judge) -> Result<Response, Refusal> {
    let wanted: JobReleaseRequest = judge.read()?;
    let guard = judge.admin.jobs.guard(&tenant(wanted.tenant.as_deref())?, &job_type)?;
    let force = Force {
        fence: Fence(wanted.fence),
        actor: judge.actor(),
        reason: judge::reason(&wanted.reason)?,
        correlation_id: Some(judge.correlation_id()),
    };
    let jobs = judge.admin.jobs.clone();
    let forced = door::detached(async move { guard.release_by_force(&force).await }).await?;
    match forced.map_err(|error| jobs::refused(&error))? {
        Forced::Released(run) => {
            jobs.became(&run);
            json(StatusCode::OK, &jobs::view(&run))
        }
        Forced::Changed(fence) => {
            let now = Detail::new("fence", "conflict", format!("is {fence} now"));
            Err(ApiError::new(ErrorCode::VersionConflict).with_detail(now).into())
        }
        Forced::NotHeld => Err(ErrorCode::NotFound.into()),
    }
}

fn tenant(named: Option<&str>) -> Result<Tenant, ApiError> {
    Tenant::try_new(named.unwrap_or(TENANT))
        .map_err(|problem| Detail::new("tenant", "value", problem.to_string()).into())
}

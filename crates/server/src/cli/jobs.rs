//! `semel jobs ls|history|release`: what runs, what ran, and a guard taken from a holder that is gone.

use std::fmt::Display;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use semel_api::ErrorCode;
use semel_api::jobs::{Job, JobList, JobRun, JobRunPage};
use serde_json::json;

use super::admin::{AdminArgs, Ended, ended, is_refused_with, print, read, refused};
use super::{exit, say, table};

/// What `semel jobs` takes.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs: what runs, what ran last, and what is scheduled
    Ls {
        #[command(flatten)]
        of: OfArgs,
    },
    /// List the runs and skips of a job, newest first
    History {
        /// The job's type
        job_type: String,
        /// Runs of the page
        #[arg(long, value_name = "N", default_value_t = semel_api::limits::PAGE_DEFAULT)]
        limit: u32,
        /// Where the page begins: what the page before ended with
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        #[command(flatten)]
        of: OfArgs,
    },
    /// Take a job from the run that holds it, so that the next one may begin
    ///
    /// The run is over (LAPSED) and its holder is fenced; but what it works on may not know that. Be sure that it is gone.
    Release {
        /// The job's type
        job_type: String,
        /// The fence of the run that you looked at, as `history` prints it
        #[arg(long, value_name = "FENCE")]
        fence: u64,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        of: OfArgs,
    },
}

/// Whose jobs, and how they are shown.
#[derive(Args, Clone, Debug)]
pub(super) struct OfArgs {
    /// Whose jobs
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    /// Print the JSON that came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(command: &JobsCommand) -> u8 {
    ended(async {
        match command {
            JobsCommand::Ls { of } => list(of).await,
            JobsCommand::History { job_type, limit, cursor, of } => {
                history(of, job_type, *limit, cursor.as_deref()).await
            }
            JobsCommand::Release { job_type, fence, reason, of } => {
                release(of, job_type, *fence, reason).await
            }
        }
    })
}

async fn list(of: &OfArgs) -> Result<u8, Ended> {
    let path = format!("/v1/jobs?{}", query(&[("tenant", of.tenant.clone())]));
    let answer = of.admin.ask(Method::GET, &path, Bytes::new()).await?;
    if of.json {
        print(answer.body());
        return Ok(exit::DONE);
    }
    let JobList { jobs } = read(answer.body())?;
    let columns = ["type", "running", "fence", "heartbeat", "lapses", "last", "status", "schedule", "next"];
    say(table(&columns, jobs.iter().map(job_row)));
    Ok(exit::DONE)
}

fn job_row(job: &Job) -> [String; 9] {
    let running = job.running.as_ref();
    let last = job.last.as_ref();
    let schedule = job.schedule.as_ref();
    [
        job.job_type.clone(),
        cell(running.map(|run| &run.holder)),
        cell(running.and_then(|run| run.fence)),
        cell(running.and_then(|run| run.heartbeat_at)),
        cell(running.and_then(|run| run.lease_until)),
        cell(last.map(|run| run.started_at)),
        cell(last.map(|run| run.status.as_str())),
        cell(schedule.map(|schedule| format!("{} {}", schedule.cron, schedule.time_zone))),
        cell(schedule.and_then(|schedule| schedule.next_at)),
    ]
}

/// What is not there is a dash, so that `awk` counts on.
fn cell(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

async fn history(of: &OfArgs, job_type: &str, limit: u32, cursor: Option<&str>) -> Result<u8, Ended> {
    let mut pairs = vec![("tenant", of.tenant.clone()), ("limit", limit.to_string())];
    pairs.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
    let path = format!("{}?{}", path_of(job_type, "runs"), query(&pairs));
    let answer = of.admin.ask(Method::GET, &path, Bytes::new()).await?;
    if of.json {
        print(answer.body());
        return Ok(exit::DONE);
    }
    let page: JobRunPage = read(answer.body())?;
    say(table(&COLUMNS, page.runs.iter().map(run_row)));
    if let Some(next) = page.next {
        eprintln!("semel: there are more; go on with --cursor {next}");
    }
    Ok(exit::DONE)
}

const COLUMNS: [&str; 9] =
    ["started", "status", "ended", "scheduled", "holder", "fence", "processed", "errors", "details"];

fn run_row(run: &JobRun) -> [String; 9] {
    [
        run.started_at.to_string(),
        run.status.as_str().to_owned(),
        cell(run.completed_at),
        cell(run.scheduled_at.as_ref()),
        run.holder.clone(),
        cell(run.fence),
        run.results.processed.to_string(),
        run.results.errors.to_string(),
        run.results.details.clone(),
    ]
}

async fn release(of: &OfArgs, job_type: &str, fence: u64, reason: &str) -> Result<u8, Ended> {
    let body = json!({ "tenant": of.tenant, "fence": fence, "reason": reason });
    let path = path_of(job_type, "release");
    let answer = of.admin.send(Method::POST, &path, body.to_string().into()).await?;
    if !answer.status().is_success() {
        let Ended(code, problem) = refused(&answer);
        let hint = is_refused_with(&answer, ErrorCode::NotFound).then(|| {
            format!(
                "\n  tenant `{}` has no run of `{job_type}` under way; \
                 if the job is another tenant's, say whose: --tenant NAME",
                of.tenant
            )
        });
        return Err(Ended(code, problem + &hint.unwrap_or_default()));
    }
    if of.json {
        print(answer.body());
    } else {
        let released: JobRun = read(answer.body())?;
        say(table(&COLUMNS, [run_row(&released)]));
    }
    Ok(exit::DONE)
}

fn path_of(job_type: &str, rest: &str) -> String {
    let job_type: String = form_urlencoded::byte_serialize(job_type.as_bytes()).collect();
    format!("/v1/jobs/{job_type}/{rest}")
}

fn query(pairs: &[(&str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

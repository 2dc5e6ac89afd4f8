//! `semel jobs ls|history|release`: what runs, what ran, and a guard taken from a holder that is gone.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use semel_api::jobs::{Job, JobList, JobRun, JobRunPage};
use serde_json::json;

use super::admin::{AdminArgs, Ended, ended, print, read};
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
    let columns = ["type", "running", "fence", "last", "status", "schedule", "next"];
    say(table(&columns, jobs.iter().map(job_row)));
    Ok(exit::DONE)
}

fn job_row(job: &Job) -> [String; 7] {
    let running = job.running.as_ref();
    let last = job.last.as_ref();
    let schedule = job.schedule.as_ref();
    [
        job.job_type.clone(),
        running.map_or("-".to_owned(), |run| run.holder.clone()),
        running.and_then(|run| run.fence).map_or("-".to_owned(), |fence| fence.to_string()),
        last.map_or("-".to_owned(), |run| run.started_at.to_string()),
        last.map_or("-".to_owned(), |run| run.status.as_str().to_owned()),
        schedule.map_or("-".to_owned(), |schedule| format!("{} {}", schedule.cron, schedule.time_zone)),
        schedule.and_then(|schedule| schedule.next_at).map_or("-".to_owned(), |next| next.to_string()),
    ]
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

const COLUMNS: [&str; 8] =
    ["started", "status", "ended", "holder", "fence", "processed", "errors", "details"];

fn run_row(run: &JobRun) -> [String; 8] {
    [
        run.started_at.to_string(),
        run.status.as_str().to_owned(),
        run.completed_at.map_or("-".to_owned(), |at| at.to_string()),
        run.holder.clone(),
        run.fence.map_or("-".to_owned(), |fence| fence.to_string()),
        run.results.processed.to_string(),
        run.results.errors.to_string(),
        run.results.details.clone(),
    ]
}

async fn release(of: &OfArgs, job_type: &str, fence: u64, reason: &str) -> Result<u8, Ended> {
    let body = json!({ "tenant": of.tenant, "fence": fence, "reason": reason });
    let (released, text): (JobRun, _) = of.admin.post(&path_of(job_type, "release"), &body).await?;
    if of.json {
        print(&text);
    } else {
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

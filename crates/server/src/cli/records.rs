//! `semel records ls|show|resolve|revive|discard`: what operators see and do, from a shell.
//!
//! A command on one record names the version that was looked at; one on many names a filter, shows first how many there
//! are, and asks.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use indicatif::ProgressBar;
use semel_api::claims::OutcomeBody;
use semel_api::records::{
    BulkFilter, BulkReply, Excerpt, JudgeReply, RecordDetail, RecordPage, RecordSummary, Resolution,
};
use semel_api::{Json, Time};
use serde_json::{Value, json};

use super::admin::{
    AdminArgs, Ended, WhichArgs, confirmed, ended, path_of, path_with, print, read, reason, tell,
};
use super::{exit, say, table};
use crate::limits::BODY_CHARS_SHOWN;

/// What `semel records` takes.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum RecordsCommand {
    /// List records, newest first
    Ls(LsArgs),
    /// Show everything about a record but its token
    Show {
        /// The record's id
        id: String,
        /// Print the JSON that came
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Say what unknown or dead records did
    #[command(group(clap::ArgGroup::new("resolution").required(true)))]
    Resolve {
        /// They took effect: their outcome is replayed from now on
        #[arg(long, group = "resolution")]
        completed: bool,
        /// They had no effect and never will: they may run again
        #[arg(long, group = "resolution")]
        not_executed: bool,
        /// What they gave, as JSON, with --completed
        #[arg(long, value_name = "JSON", requires = "completed", allow_hyphen_values = true)]
        result: Option<String>,
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Bring dead records back, with all their tries
    Revive {
        #[command(flatten)]
        judge: JudgeArgs,
    },
    /// Put pending, dead or unknown records aside for good
    Discard {
        #[command(flatten)]
        judge: JudgeArgs,
    },
}

/// Which records. All that is given must hold.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FilterArgs {
    /// In this state: pending, running, released, completed, unknown or dead; several with commas
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    #[command(flatten)]
    which: WhichArgs,
}

/// What `semel records ls` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct LsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only claims that nobody drives: running, with a lapsed lease, and no worker to go on
    #[arg(long)]
    lapsed: bool,
    /// Records of the page
    #[arg(long, value_name = "N", default_value_t = semel_api::limits::PAGE_DEFAULT)]
    limit: u32,
    /// Where the page begins: what the page before ended with
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the JSON that came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What all commands on records take.
#[derive(Args, Clone, Debug)]
pub(super) struct JudgeArgs {
    /// One record; without it all that match the filter
    id: Option<String>,
    /// The version that you looked at, as `show` prints it
    #[arg(long, value_name = "VERSION", requires = "id")]
    seen: Option<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only say how many would be changed
    #[arg(long, conflicts_with = "id")]
    dry_run: bool,
    /// Do not ask (about one record by its id nobody asks)
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Where the records are.
const RECORDS: &str = "/v1/records";

pub(super) fn run(command: &RecordsCommand) -> u8 {
    ended(async {
        match command {
            RecordsCommand::Ls(args) => list(args).await,
            RecordsCommand::Show { id, json, admin } => show(admin, id, *json).await,
            RecordsCommand::Resolve { completed, result, judge, .. } => {
                let more = resolution(*completed, result.as_deref())?;
                judged(judge, "resolve", more).await
            }
            RecordsCommand::Revive { judge } => judged(judge, "revive", json!({})).await,
            RecordsCommand::Discard { judge } => judged(judge, "discard", json!({})).await,
        }
    })
}

async fn list(args: &LsArgs) -> Result<u8, Ended> {
    let more = [
        ("lapsed", args.lapsed.then(|| true.to_string())),
        ("limit", Some(args.limit.to_string())),
        ("cursor", args.cursor.clone()),
    ];
    let path = path_with(RECORDS, &args.filter.wire(), &more);
    let answer = args.admin.ask(Method::GET, &path, Bytes::new()).await?;
    if args.json {
        print(answer.body());
        return Ok(exit::DONE);
    }
    let page: RecordPage = read(answer.body())?;
    say(table(&COLUMNS, page.records.iter().map(row)));
    if let Some(next) = page.next {
        eprintln!("semel: there are more; go on with --cursor {next}");
    }
    Ok(exit::DONE)
}

const COLUMNS: [&str; 7] = ["id", "state", "operation", "key", "version", "attempt", "created"];

fn row(record: &RecordSummary) -> [String; 7] {
    [
        record.id.clone(),
        record.state.clone(),
        record.operation.clone(),
        record.key.clone(),
        record.version.clone(),
        record.attempt.to_string(),
        record.created_at.to_string(),
    ]
}

async fn show(admin: &AdminArgs, id: &str, as_json: bool) -> Result<u8, Ended> {
    let answer = admin.ask(Method::GET, &path_of(RECORDS, id, None), Bytes::new()).await?;
    if as_json {
        print(answer.body());
        return Ok(exit::DONE);
    }
    let record: RecordDetail = read(answer.body())?;
    let RecordSummary { tenant, namespace, subject, tags, .. } = &record.summary;
    let time = |time: Option<Time>| time.map(|time| time.to_string());
    let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let outcome = record.outcome.as_ref().map(|outcome| {
        let body = outcome.body_bytes.map_or("not kept".to_owned(), |bytes| format!("{bytes} bytes"));
        format!("{} {} ({body})", outcome.class, outcome.status)
    });
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let given = record.outcome.as_ref().and_then(|outcome| beginning(outcome.body.as_ref()));
    let asked = record.input.as_ref().and_then(|input| beginning(input.body.as_ref()));
    let asked = if record.payload_dropped { some("dropped after payload_retention") } else { asked };
    let phases: Vec<&str> = record.checkpoints.iter().map(|step| step.phase.as_str()).collect();
    tell(vec![
        ("id", some(&record.summary.id)),
        ("state", some(&record.summary.state)),
        ("version", some(&record.summary.version)),
        ("operation", some(&record.summary.operation)),
        ("key", some(&record.summary.key)),
        ("scope", Some(format!("{namespace}/{tenant}"))),
        ("subject", subject.clone()),
        ("tags", some(&tags.join(" "))),
        ("accepted", Some(record.summary.accepted.to_string())),
        ("attempt", Some(record.summary.attempt.to_string())),
        ("attempt id", record.attempt_id.clone()),
        ("tries", Some(format!("{} of {}", record.tries, record.policy.max_attempts))),
        ("tainted", Some(record.tainted.to_string())),
        ("generation", Some(record.generation.to_string())),
        ("semantics", some(&record.policy.semantics)),
        ("last error", record.last_error.clone()),
        ("unknown because", record.unknown_because.clone()),
        ("outcome", outcome),
        ("result", given),
        ("payload", asked),
        ("checkpoints", some(&phases.join(", "))),
        ("created", time(Some(record.summary.created_at))),
        ("written", time(Some(record.summary.written_at))),
        ("wakes", time(record.summary.wake_at)),
        ("settled", time(record.summary.settled_at)),
        ("expires", time(record.summary.expires_at)),
        ("fingerprint", some(&record.fingerprint)),
        ("downstream key", some(&record.downstream_key)),
        ("lane", record.lane.clone()),
        ("repeats", record.origin.clone()),
    ]);
    Ok(exit::DONE)
}

/// How a body begins, on one line; nothing of one that is no text, or is not shown to this role.
fn beginning(excerpt: Option<&Excerpt>) -> Option<String> {
    let Excerpt { base64: bytes, cut } = excerpt?;
    // The cut may go through a character.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if *cut && error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let begins: String = text.chars().take(BODY_CHARS_SHOWN).collect();
    let is_whole = !cut && begins.len() == text.len();
    let line = begins.replace(char::is_control, " ");
    Some(if is_whole { line } else { line + " …" }).filter(|line| !line.is_empty())
}

fn resolution(completed: bool, result: Option<&str>) -> Result<Value, Ended> {
    let resolution = if completed { Resolution::Completed } else { Resolution::NotExecuted };
    let outcome = match result {
        None => None,
        Some(text) => {
            let wrong = || Ended(exit::USAGE, "--result is not JSON".to_owned());
            let result = Some(Json::from_text(text).ok_or_else(wrong)?);
            Some(OutcomeBody { result, ..OutcomeBody::default() })
        }
    };
    Ok(json!({ "resolution": resolution, "outcome": outcome }))
}

async fn judged(args: &JudgeArgs, command: &str, more: Value) -> Result<u8, Ended> {
    match &args.id {
        Some(id) => one(args, id, command, more).await,
        None => many(args, command, more).await,
    }
}

async fn one(args: &JudgeArgs, id: &str, command: &str, mut body: Value) -> Result<u8, Ended> {
    let usage = |problem: &str| Ended(exit::USAGE, problem.to_owned());
    if args.filter.is_given() {
        return Err(usage("give an id or a filter, not both"));
    }
    let seen =
        args.seen.as_ref().ok_or_else(|| usage("--seen VERSION is missing: look at the record first"))?;
    body["version"] = json!(seen);
    body["reason"] = json!(reason(args.reason.as_deref())?);
    let (reply, text): (JudgeReply, _) = args.admin.post(&path_of(RECORDS, id, Some(command)), &body).await?;
    if args.json {
        print(&text);
    } else {
        say(table(&COLUMNS, [row(&reply.record)]));
    }
    Ok(exit::DONE)
}

/// Counts, asks, and then goes on part by part until all is done.
async fn many(args: &JudgeArgs, command: &str, mut body: Value) -> Result<u8, Ended> {
    if !args.filter.is_given() {
        return Err(Ended(exit::USAGE, "give an id, or a filter such as --state dead".to_owned()));
    }
    let path = format!("{RECORDS}/{command}");
    body["filter"] = json!(args.filter.wire());
    body["dry_run"] = json!(true);
    let (preview, text): (BulkReply, _) = args.admin.post(&path, &body).await?;
    let count =
        if preview.more { format!("more than {}", preview.matched) } else { preview.matched.to_string() };
    if args.dry_run {
        if args.json {
            print(&text);
        } else {
            let records = if count == "1" { "record" } else { "records" };
            say(format_args!("{count} {records} would be changed"));
        }
        return Ok(exit::DONE);
    }
    body["reason"] = json!(reason(args.reason.as_deref())?);
    if preview.matched > 0 && !args.yes && !confirmed(&format!("{command} {count} records?"))? {
        return Err(Ended(exit::FAILED, "nothing was changed".to_owned()));
    }
    body["dry_run"] = json!(false);
    let bar = if preview.more { ProgressBar::no_length() } else { ProgressBar::new(preview.matched) };
    let mut total = BulkReply::default();
    loop {
        let (part, _): (BulkReply, _) = args.admin.post(&path, &body).await?;
        bar.inc(part.matched);
        total.matched += part.matched;
        total.changed += part.changed;
        total.failed += part.failed;
        total.failures.extend(part.failures);
        let Some(next) = part.next else { break };
        body["cursor"] = json!(next);
    }
    bar.finish_and_clear();
    if args.json {
        say(format_args!("{:#}", json!(total)));
    } else {
        for failure in &total.failures {
            eprintln!("semel: {}: {} {}", failure.id, failure.code, failure.message);
        }
        let records = if total.changed == 1 { "record" } else { "records" };
        say(format_args!("{} {records} changed, {} not", total.changed, total.failed));
    }
    Ok(if total.failed == 0 { exit::DONE } else { exit::REFUSED })
}

impl FilterArgs {
    fn is_given(&self) -> bool {
        self.wire() != BulkFilter::default()
    }

    fn wire(&self) -> BulkFilter {
        let WhichArgs { operation, key, tag, namespace, from, until } = self.which.clone();
        let (state, states) = (self.state.clone(), Vec::new());
        BulkFilter { states, state, operation, key, tag, namespace, from, until }
    }
}

//! `semel dead ls|groups|show|revive|discard`: dead letters, from a shell.
//!
//! A command on one names it; a command on many names a filter, shows first how many there are, and asks. `many` is how it goes
//! through them, at a pace and until somebody interrupts it.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use semel_api::dead::{
    Attempt, DeadDetail, DeadFilter, DeadGroup, DeadGroups, DeadLetter, DeadPage, ReviveReply,
};
use semel_api::records::{JudgeReply, RecordSummary};
use serde_json::json;

use super::admin::{AdminArgs, Ended, WhichArgs, ended, path_of, path_with, print, read, reason, tell};
use super::{exit, say, table};

mod many;

/// What `semel dead` takes.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, the latest taken in first
    Ls(LsArgs),
    /// Count dead letters by what they died of
    Groups(LsArgs),
    /// Show a record and all its tries
    Show {
        /// The record's id
        id: String,
        /// Print the JSON that came
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Bring dead letters back, with all their tries
    ///
    /// Conflicts and duplicates that were filed are left out unless --kind names them. Ctrl-C ends it after what is under way,
    /// and says how to go on.
    Revive {
        #[command(flatten)]
        judge: JudgeArgs,
        /// Also what was done already: repeat a completed record, deliver a duplicate
        #[arg(long)]
        force: bool,
    },
    /// Put dead letters aside for good
    ///
    /// Ctrl-C ends it after what is under way, and says how to go on.
    Discard {
        #[command(flatten)]
        judge: JudgeArgs,
    },
}

/// Which dead letters. All that is given must hold.
#[derive(Args, Clone, Debug, Default)]
struct FilterArgs {
    /// Of this source of webhooks
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// For this target of the source
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// What it is: event, conflict or duplicate
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// What it died of, as `groups` shows it
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    #[command(flatten)]
    which: WhichArgs,
}

/// What `semel dead ls` and `groups` take.
#[derive(Args, Clone, Debug)]
pub(super) struct LsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Rows of the page
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where it begins: what the page before ended with
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the JSON that came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What both commands on dead letters take.
#[derive(Args, Clone, Debug)]
pub(super) struct JudgeArgs {
    /// These records; without any, all that match the filter
    ids: Vec<String>,
    /// Every dead letter that there is
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// The version that you looked at, as `show` prints it; without it, the one that there is now
    #[arg(long, value_name = "VERSION", requires = "ids")]
    seen: Option<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pass: PassArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// How a command goes through many.
#[derive(Args, Clone, Debug)]
struct PassArgs {
    /// Only say how many would be changed
    #[arg(long, conflicts_with = "ids")]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Dead letters per second at most
    #[arg(long, value_name = "N", conflicts_with = "ids", value_parser = clap::value_parser!(u32).range(1..=i64::from(semel_api::limits::DEAD_RATE_MAX)))]
    rate: Option<u32>,
    /// Where to go on: what an interrupted command has said
    #[arg(long, value_name = "CURSOR", conflicts_with = "ids")]
    cursor: Option<String>,
}

/// Which of the two commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Revive { force: bool },
    Discard,
}

impl Judgement {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revive { .. } => "revive",
            Self::Discard => "discard",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Revive { .. } => "revived",
            Self::Discard => "discarded",
        }
    }

    const fn force(self) -> bool {
        matches!(self, Self::Revive { force: true })
    }
}

/// Where the dead letters are.
const DEAD: &str = "/v1/dead";

pub(super) fn run(command: &DeadCommand) -> u8 {
    ended(async {
        match command {
            DeadCommand::Ls(args) => list(args).await,
            DeadCommand::Groups(args) => groups(args).await,
            DeadCommand::Show { id, json, admin } => show(admin, id, *json).await,
            DeadCommand::Revive { judge, force } => judged(judge, Judgement::Revive { force: *force }).await,
            DeadCommand::Discard { judge } => judged(judge, Judgement::Discard).await,
        }
    })
}

impl LsArgs {
    async fn ask(&self, path: &str) -> Result<Bytes, Ended> {
        let more = [("limit", self.limit.map(|limit| limit.to_string())), ("cursor", self.cursor.clone())];
        let path = path_with(path, &self.filter.wire(), &more);
        let answer = self.admin.ask(Method::GET, &path, Bytes::new()).await?;
        Ok(answer.into_body())
    }
}

async fn list(args: &LsArgs) -> Result<u8, Ended> {
    let body = args.ask(DEAD).await?;
    if args.json {
        print(&body);
        return Ok(exit::DONE);
    }
    let page: DeadPage = read(&body)?;
    say(table(&COLUMNS, page.dead.iter().map(row)));
    if let Some(next) = page.next {
        eprintln!("semel: there may be more; go on with --cursor {next}");
    }
    Ok(exit::DONE)
}

const COLUMNS: [&str; 7] = ["id", "operation", "kind", "key", "attempt", "died", "error"];

fn row(letter: &DeadLetter) -> [String; 7] {
    [
        letter.record.id.clone(),
        letter.record.operation.clone(),
        letter.kind.clone(),
        letter.record.key.clone(),
        letter.record.attempt.to_string(),
        letter.died_at.to_string(),
        letter.error.clone(),
    ]
}

async fn groups(args: &LsArgs) -> Result<u8, Ended> {
    let body = args.ask(&format!("{DEAD}/groups")).await?;
    if args.json {
        print(&body);
        return Ok(exit::DONE);
    }
    let found: DeadGroups = read(&body)?;
    let row = |group: &DeadGroup| {
        let (first, last) = (group.first.to_string(), group.last.to_string());
        [group.count.to_string(), first, last, group.example.record.id.clone(), group.error.clone()]
    };
    say(table(&["count", "first", "last", "example", "error"], found.groups.iter().map(row)));
    if found.others > 0 {
        eprintln!("semel: {} of other groups; show more of them with --limit", found.others);
    }
    if let Some(next) = found.next {
        eprintln!("semel: {} were counted, and there are more; go on with --cursor {next}", found.counted);
    }
    Ok(exit::DONE)
}

async fn look(admin: &AdminArgs, id: &str) -> Result<Bytes, Ended> {
    Ok(admin.ask(Method::GET, &path_of(DEAD, id, None), Bytes::new()).await?.into_body())
}

async fn show(admin: &AdminArgs, id: &str, as_json: bool) -> Result<u8, Ended> {
    let body = look(admin, id).await?;
    if as_json {
        print(&body);
        return Ok(exit::DONE);
    }
    let shown: DeadDetail = read(&body)?;
    let RecordSummary { id, state, version, operation, key, attempt, created_at, written_at, .. } =
        &shown.record.summary;
    tell(vec![
        ("id", Some(id.clone())),
        ("state", Some(state.clone())),
        ("version", Some(version.clone())),
        ("operation", Some(operation.clone())),
        ("source", shown.source.clone()),
        ("target", shown.target.clone()),
        ("kind", Some(shown.kind.clone())),
        ("key", Some(key.clone())),
        ("attempt", Some(attempt.to_string())),
        ("generation", Some(shown.record.generation.to_string())),
        ("last error", shown.record.last_error.clone()),
        ("payload", shown.record.payload_dropped.then(|| "dropped after payload_retention".to_owned())),
        ("created", Some(created_at.to_string())),
        ("written", Some(written_at.to_string())),
        ("downstream key", Some(shown.record.downstream_key.clone())),
        ("repeats", shown.record.origin.clone()),
        ("repeated by", shown.repeated_by.clone()),
    ]);
    if !shown.attempts.is_empty() {
        say("");
        say(table(
            &["try", "ended", "status", "ms", "error", "response"],
            shown.attempts.iter().map(try_row),
        ));
    }
    if shown.attempts_more {
        eprintln!("semel: there were more; /v1/audit?record={id} has them all");
    }
    Ok(exit::DONE)
}

fn try_row(tried: &Attempt) -> [String; 6] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        or_none(tried.attempt.map(|number| number.to_string())),
        tried.at.to_string(),
        or_none(tried.status.map(|status| status.to_string())),
        or_none(tried.latency_ms.map(|millis| millis.to_string())),
        or_none(tried.error.clone()),
        or_none(tried.response.clone()),
    ]
}

async fn judged(args: &JudgeArgs, judgement: Judgement) -> Result<u8, Ended> {
    let usage = |problem: &str| Ended(exit::USAGE, problem.to_owned());
    if args.ids.is_empty() {
        match (args.filter.is_given(), args.all) {
            (false, false) => return Err(usage("give ids, a filter such as --source NAME, or --all")),
            (true, true) => {
                return Err(usage("give a filter or --all, not both: a filter alone takes all that match"));
            }
            (true, false) | (false, true) => {}
        }
        return many::run(args, judgement).await;
    }
    if args.filter.is_given() {
        return Err(usage("give ids or a filter, not both"));
    }
    if args.seen.is_some() && args.ids.len() > 1 {
        return Err(usage("--seen is the version of one record"));
    }
    let reason = reason(args.reason.as_deref())?;
    for id in &args.ids {
        one(args, judgement, id, reason).await?;
    }
    Ok(exit::DONE)
}

/// One record, in the version that was seen, or else that it has now.
async fn one(args: &JudgeArgs, judgement: Judgement, id: &str, reason: &str) -> Result<(), Ended> {
    let version = match &args.seen {
        Some(seen) => seen.clone(),
        None => read::<DeadDetail>(&look(&args.admin, id).await?)?.record.summary.version,
    };
    let mut body = json!({ "version": version, "reason": reason });
    let path = path_of(DEAD, id, Some(judgement.as_str()));
    let (record, text) = match judgement {
        Judgement::Revive { force } => {
            body["force"] = json!(force);
            let (reply, text): (ReviveReply, Bytes) = args.admin.post(&path, &body).await?;
            if let Some(origin) = &reply.repeats {
                eprintln!("semel: {} repeats {origin}", reply.record.id);
            }
            (reply.record, text)
        }
        Judgement::Discard => {
            let (reply, text): (JudgeReply, Bytes) = args.admin.post(&path, &body).await?;
            (reply.record, text)
        }
    };
    if args.json {
        print(&text);
    } else {
        say(format_args!("{} {}: {}", record.id, judgement.done(), record.state));
    }
    Ok(())
}

impl FilterArgs {
    fn wire(&self) -> DeadFilter {
        let Self { source, target, kind, error, which } = self.clone();
        let WhichArgs { operation, key, tag, namespace, from, until } = which;
        DeadFilter { source, target, kind, error, operation, key, tag, namespace, from, until }
    }

    fn is_given(&self) -> bool {
        self.wire() != DeadFilter::default()
    }
}

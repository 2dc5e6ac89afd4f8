//! Goes through all dead letters that match: counts, asks, and works part by part until all is done or somebody interrupts.

use std::pin::pin;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use semel_api::dead::DeadBulkReply;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::admin::{Ended, confirmed, print, reason};
use super::super::{exit, say};
use super::{DEAD, JudgeArgs, Judgement};

/// Dead letters of one request: few enough that an interruption waits for no longer than a second, or about that.
const PART: u32 = 500;

pub(super) async fn run(args: &JudgeArgs, judgement: Judgement) -> Result<u8, Ended> {
    let path = format!("{DEAD}/{}", judgement.as_str());
    let mut body = json!({ "dry_run": true, "force": judgement.force() });
    if args.all {
        body["all"] = json!(true);
    } else {
        body["filter"] = json!(args.filter.wire());
    }
    if let Some(cursor) = &args.pass.cursor {
        body["cursor"] = json!(cursor);
    }
    let (preview, text): (DeadBulkReply, Bytes) = args.admin.post(&path, &body).await?;
    let meant = preview.matched - preview.skipped;
    let count = if preview.more { format!("more than {meant}") } else { meant.to_string() };
    let letters = if count == "1" { "dead letter" } else { "dead letters" };
    if args.pass.dry_run {
        if args.json {
            print(&text);
        } else {
            say(format_args!(
                "{count} {letters} would be {}, {} left out",
                judgement.done(),
                preview.skipped
            ));
        }
        return Ok(exit::DONE);
    }
    body["reason"] = json!(reason(args.reason.as_deref())?);
    let question = format!("{} {count} {letters}?", judgement.as_str());
    if meant > 0 && !args.pass.yes && !confirmed(&question)? {
        return Err(Ended(exit::FAILED, "nothing was changed".to_owned()));
    }
    body["dry_run"] = json!(false);
    body["limit"] = json!(args.pass.rate.map_or(PART, |rate| rate.min(PART)));
    if let Some(rate) = args.pass.rate {
        body["rate"] = json!(rate);
    }
    let bar = if preview.more { ProgressBar::no_length() } else { ProgressBar::new(preview.matched) };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}");
    let passage =
        Passage { args, judgement, path, bar: bar.with_style(style.map_err(|error| error.to_string())?) };
    passage.go(body).await
}

struct Passage<'a> {
    args: &'a JudgeArgs,
    judgement: Judgement,
    path: String,
    bar: ProgressBar,
}

/// What became of a part.
enum Part {
    Done(DeadBulkReply),
    /// It is not known what became of it.
    Left,
}

impl Passage<'_> {
    async fn go(&self, mut body: Value) -> Result<u8, Ended> {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut total = DeadBulkReply { next: self.args.pass.cursor.clone(), ..DeadBulkReply::default() };
        let mut is_interrupted = false;
        loop {
            let part = match self.part(&body, &mut interrupts, &mut is_interrupted).await {
                Ok(Part::Done(part)) => part,
                Ok(Part::Left) => return Ok(self.interrupted(&total)),
                Err(problem) => {
                    self.tell(&total, "it has ended early");
                    return Err(problem);
                }
            };
            self.bar.inc(part.matched);
            total.matched += part.matched;
            total.changed += part.changed;
            total.skipped += part.skipped;
            total.failed += part.failed;
            total.failures.extend(part.failures);
            total.more = part.next.is_some();
            total.next = part.next;
            let Some(next) = &total.next else { break };
            if is_interrupted {
                return Ok(self.interrupted(&total));
            }
            body["cursor"] = json!(next);
        }
        self.bar.finish_and_clear();
        self.report(&total);
        Ok(if total.failed == 0 { exit::DONE } else { exit::REFUSED })
    }

    /// Sends one part. The first interruption lets it come to its end, the second does not wait.
    async fn part(
        &self,
        body: &Value,
        interrupts: &mut Signal,
        is_interrupted: &mut bool,
    ) -> Result<Part, Ended> {
        let mut part = pin!(self.args.admin.post::<DeadBulkReply>(&self.path, body));
        loop {
            tokio::select! {
                done = &mut part => return Ok(Part::Done(done?.0)),
                _ = interrupts.recv() => {
                    if *is_interrupted {
                        return Ok(Part::Left);
                    }
                    *is_interrupted = true;
                    self.bar.println("semel: it ends after what is under way; Ctrl-C once more ends it now");
                }
            }
        }
    }

    fn interrupted(&self, total: &DeadBulkReply) -> u8 {
        self.tell(total, "interrupted");
        exit::INTERRUPTED
    }

    /// Says how far it came, and how to go on.
    fn tell(&self, total: &DeadBulkReply, what: &str) {
        self.bar.finish_and_clear();
        self.report(total);
        match &total.next {
            Some(next) => eprintln!("semel: {what}; go on with --cursor {next}"),
            None => eprintln!("semel: {what}; the same command goes on"),
        }
    }

    fn report(&self, total: &DeadBulkReply) {
        if self.args.json {
            say(format_args!("{:#}", json!(total)));
            return;
        }
        for failure in &total.failures {
            eprintln!("semel: {}: {} {}", failure.id, failure.code, failure.message);
        }
        let letters = if total.changed == 1 { "dead letter" } else { "dead letters" };
        let done = self.judgement.done();
        say(format_args!(
            "{} {letters} {done}, {} not, {} left out",
            total.changed, total.failed, total.skipped
        ));
    }
}

//! One command on many dead letters, a part at a time and at a pace.
//!
//! A request works on a part and answers where to go on, so that whoever sends it can show how far it is; not going on cancels.
//! If its connection is closed, it ends after the commands that are under way. The place is a cursor, which what was changed does
//! not move: what was revived and has died again stands behind it, and is not revived a second time.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use semel_api::dead::{DeadBulkReply, DeadBulkRequest, DeadFilter};
use semel_api::limits::{
    BULK_DEFAULT, BULK_FAILURES_MAX, BULK_MAX, DEAD_NAMED_MAX, DEAD_RATE_MAX, DEAD_READ_MAX, PAGE_MAX,
};
use semel_api::{ApiError, Detail};
use semel_core::query::{Cursor, Summary};
use semel_core::record::{StateName, Text};
use semel_core::{Record, RecordId, Version};
use tokio::time::Instant;

use super::one;
use super::select::{Kind, Selection};
use crate::admin::judge::{self, Judge};
use crate::admin::{Admin, bulk, cursor, json, records};
use crate::door::{self, Refusal};
use crate::limits::{BULK_AT_ONCE, DEAD_PACES_PER_SECOND, DEAD_PART_WITHIN};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Revive { force: bool },
    Discard,
}

pub(in crate::admin) async fn revive(judge: Judge) -> Result<Response, Refusal> {
    let asked: DeadBulkRequest = judge.read()?;
    let command = Command::Revive { force: asked.force };
    run(judge, asked, command).await
}

pub(in crate::admin) async fn discard(judge: Judge) -> Result<Response, Refusal> {
    let asked: DeadBulkRequest = judge.read()?;
    if asked.force {
        return Err(Detail::new("force", "value", "goes with revive").into());
    }
    run(judge, asked, Command::Discard).await
}

/// A record and the version that was judged.
type Named = (RecordId, Version);

async fn run(judge: Judge, asked: DeadBulkRequest, command: Command) -> Result<Response, Refusal> {
    let limit = bounded("limit", asked.limit, BULK_DEFAULT, BULK_MAX)?;
    let pace = Pace::new(asked.rate.map(|rate| bounded("rate", Some(rate), 1, DEAD_RATE_MAX)).transpose()?);
    let from = asked.cursor.as_deref().map(cursor::read).transpose()?;
    let named = named(&asked)?;
    if named.is_empty() {
        let selection = selection(&asked)?;
        if asked.dry_run {
            return json(StatusCode::OK, &preview(&judge.admin, &selection, from, command).await?);
        }
        let job = Job { reason: judge::reason(&asked.reason)?, judge, command };
        return json(StatusCode::OK, &Arc::new(job).matching(&selection, from, limit as usize, pace).await?);
    }
    if asked.dry_run {
        return json(StatusCode::OK, &preview_named(&judge.admin, named, command).await?);
    }
    let job = Job { reason: judge::reason(&asked.reason)?, judge, command };
    json(StatusCode::OK, &Arc::new(job).named(named, pace).await?)
}

fn bounded(field: &str, given: Option<u32>, usual: u32, max: u32) -> Result<u32, ApiError> {
    let given = given.unwrap_or(usual);
    if (1..=max).contains(&given) {
        return Ok(given);
    }
    Err(Detail::new(field, "value", format!("must be from 1 to {max}")).into())
}

fn named(asked: &DeadBulkRequest) -> Result<Vec<Named>, ApiError> {
    let wrong = |field: &str, message: String| ApiError::from(Detail::new(field, "value", message));
    if asked.records.is_empty() {
        return Ok(Vec::new());
    }
    if asked.filter.is_some() || asked.all || asked.cursor.is_some() || asked.limit.is_some() {
        return Err(wrong("records", "stand alone: without filter, all, limit and cursor".to_owned()));
    }
    if asked.records.len() > DEAD_NAMED_MAX {
        return Err(wrong("records", format!("must be at most {DEAD_NAMED_MAX}")));
    }
    let named = asked.records.iter().enumerate().map(|(at, one)| {
        let id = RecordId::parse(&one.id);
        let id = id.ok_or_else(|| wrong(&format!("records[{at}].id"), "must be a record's id".to_owned()))?;
        let version = Version::parse(&one.version);
        let message = || wrong(&format!("records[{at}].version"), "must be fence.sequence".to_owned());
        Ok((id, version.ok_or_else(message)?))
    });
    named.collect()
}

fn selection(asked: &DeadBulkRequest) -> Result<Selection, ApiError> {
    let empty = DeadFilter::default();
    let filter = asked.filter.as_ref().unwrap_or(&empty);
    if *filter == empty && !asked.all {
        let message = "must have at least one condition, or `all` be true: every dead letter is meant";
        return Err(Detail::new("filter", "missing", message).into());
    }
    if *filter != empty && asked.all {
        return Err(Detail::new("all", "value", "goes without a filter").into());
    }
    Selection::of(filter).map_err(|error| error.below("filter"))
}

impl Command {
    /// Whether it could change this one, which was named.
    fn can_change(self, record: &Record) -> bool {
        match (self, record.state().name()) {
            (Self::Revive { force: false }, StateName::Dead) => {
                Kind::of(record.request().tags()) != Kind::Duplicate
            }
            // What has given up its payload cannot be sent again.
            (Self::Revive { force: true }, StateName::Dead | StateName::Completed) => {
                !record.payload_is_gone()
            }
            (Self::Discard, StateName::Dead) => true,
            (
                Self::Revive { .. } | Self::Discard,
                StateName::Pending
                | StateName::Running
                | StateName::Released
                | StateName::Completed
                | StateName::Unknown,
            ) => false,
        }
    }

    /// Whether a dead letter that matches is left out: what is filed for a look is delivered only if it is asked for by name,
    /// and what was taken before only by force.
    fn leaves_out(self, summary: &Summary, selection: &Selection) -> bool {
        match (self, Kind::of(&summary.tags)) {
            (Self::Discard, _) | (Self::Revive { .. }, Kind::Event) => false,
            (Self::Revive { force }, Kind::Duplicate) => !force || selection.kind() != Some(Kind::Duplicate),
            (Self::Revive { .. }, Kind::Conflict) => selection.kind() != Some(Kind::Conflict),
        }
    }
}

/// Counts what would be changed, as far as it can be counted soon.
async fn preview(
    admin: &Admin,
    selection: &Selection,
    mut from: Option<Cursor>,
    command: Command,
) -> Result<DeadBulkReply, ApiError> {
    let mut reply = DeadBulkReply { dry_run: true, ..DeadBulkReply::default() };
    let mut read = 0;
    loop {
        let page = admin.store.search(selection.query().clone(), from, PAGE_MAX as usize).await;
        let page = page.map_err(|error| records::storage(&error))?;
        read += PAGE_MAX;
        for summary in page.items.iter().filter(|summary| selection.is_meant(summary)) {
            reply.matched += 1;
            reply.skipped += u64::from(command.leaves_out(summary, selection));
        }
        from = page.next;
        if from.is_none() || read >= DEAD_READ_MAX {
            reply.more = from.is_some();
            reply.next = from.as_ref().map(cursor::write);
            return Ok(reply);
        }
    }
}

/// Counts which of these could be changed.
async fn preview_named(
    admin: &Admin,
    named: Vec<Named>,
    command: Command,
) -> Result<DeadBulkReply, ApiError> {
    let mut reply = DeadBulkReply { dry_run: true, ..DeadBulkReply::default() };
    for (id, version) in named {
        let record = admin.ledger.load(id).await.map_err(|error| records::ledger(&error))?;
        match record.filter(|record| record.version() == version) {
            Some(record) if command.can_change(&record) => reply.matched += 1,
            Some(_) | None => reply.failed += 1,
        }
    }
    Ok(reply)
}

struct Job {
    judge: Judge,
    reason: Text,
    command: Command,
}

impl Job {
    /// All that match, as far as this part goes.
    async fn matching(
        self: Arc<Self>,
        selection: &Selection,
        mut from: Option<Cursor>,
        limit: usize,
        mut pace: Pace,
    ) -> Result<DeadBulkReply, Refusal> {
        let mut reply = DeadBulkReply::default();
        let mut left = limit;
        'part: while left > 0 {
            let found = selection.page(&*self.judge.admin.store, from, left.min(PAGE_MAX as usize)).await;
            let found = found.map_err(|error| records::storage(&error))?;
            left -= found.items.len().min(left);
            for some in found.items.chunks(pace.at_once()) {
                reply.matched += some.len() as u64;
                let (out, meant): (Vec<_>, Vec<_>) =
                    some.iter().partition(|summary| self.command.leaves_out(summary, selection));
                reply.skipped += out.len() as u64;
                let meant = meant.iter().map(|summary| (summary.id, summary.version)).collect();
                self.clone().some(meant, &mut reply, &mut pace).await?;
                from = some.last().map(Summary::cursor);
                if pace.is_over() || self.judge.admin.is_stopping() {
                    break 'part;
                }
            }
            from = found.next;
            if from.is_none() || pace.is_over() {
                break;
            }
        }
        reply.more = from.is_some();
        reply.next = from.as_ref().map(cursor::write);
        Ok(reply)
    }

    /// These, all of them that time allows.
    async fn named(self: Arc<Self>, named: Vec<Named>, mut pace: Pace) -> Result<DeadBulkReply, Refusal> {
        let mut reply = DeadBulkReply::default();
        for some in named.chunks(pace.at_once()) {
            if pace.is_over() || self.judge.admin.is_stopping() {
                reply.more = true;
                break;
            }
            reply.matched += some.len() as u64;
            self.clone().some(some.to_vec(), &mut reply, &mut pace).await?;
        }
        Ok(reply)
    }

    /// A few at once, so that they share the store's syncs; each is a command of its own, and run to its end whatever becomes
    /// of the connection.
    async fn some(
        self: Arc<Self>,
        some: Vec<Named>,
        reply: &mut DeadBulkReply,
        pace: &mut Pace,
    ) -> Result<(), Refusal> {
        let done = door::detached(async move {
            let one = |(id, version)| self.one(id, version);
            stream::iter(some).map(one).buffered(BULK_AT_ONCE).collect::<Vec<_>>().await
        });
        let done = done.await?;
        let number = done.len();
        for (id, changed) in done {
            match changed {
                Ok(()) => reply.changed += 1,
                Err(error) => {
                    reply.failed += 1;
                    if reply.failures.len() < BULK_FAILURES_MAX {
                        reply.failures.push(bulk::failure(id, &error));
                    }
                }
            }
        }
        pace.keep(number).await;
        Ok(())
    }

    async fn one(&self, id: RecordId, version: Version) -> (RecordId, Result<(), ApiError>) {
        let (judge, reason) = (&self.judge, self.reason.clone());
        let done = match self.command {
            Command::Revive { force } => one::revived(judge, id, version, reason, force).await,
            Command::Discard => one::discarded(judge, id, version, reason).await,
        };
        (id, done.map(drop))
    }
}

/// How fast it may go, and how long.
struct Pace {
    rate: Option<u32>,
    begun: Instant,
    done: u32,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { rate, begun: Instant::now(), done: 0 }
    }

    /// How many are begun at once: few enough that a rate is even.
    fn at_once(&self) -> usize {
        self.rate.map_or(BULK_AT_ONCE, |rate| rate.div_ceil(DEAD_PACES_PER_SECOND) as usize)
    }

    /// So many are done: waits until it was not too fast. After the last ones, too, so that the next part is not.
    async fn keep(&mut self, number: usize) {
        self.done = self.done.saturating_add(u32::try_from(number).unwrap_or(u32::MAX));
        if let Some(rate) = self.rate {
            let due = Duration::from_secs(1) * self.done / rate;
            tokio::time::sleep_until(self.begun + due).await;
        }
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() >= DEAD_PART_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_lets_through_as_many_a_second_as_were_asked_for_and_ends_in_time() {
        let mut pace = Pace::new(Some(25));
        assert_eq!(pace.at_once(), 3);
        let mut done = 0;
        while !pace.is_over() {
            pace.keep(3).await;
            done += 3;
        }
        let took = pace.begun.elapsed();
        assert!(took >= DEAD_PART_WITHIN && took < DEAD_PART_WITHIN + Duration::from_secs(1), "{took:?}");
        assert!((250..=252).contains(&done), "{done} in {took:?}");
        let mut unbounded = Pace::new(None);
        unbounded.keep(1_000).await;
        assert_eq!(unbounded.begun.elapsed(), Duration::ZERO);
        assert_eq!(Pace::new(Some(1)).at_once(), 1);
    }
}

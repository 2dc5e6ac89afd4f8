//! Many commands in one statement, and to each its own answer.
//!
//! A command is told apart by its id, so a batch holds one of each: who comes second for an id is answered from what the
//! first has left there. What a batch cannot do for one command, or what ends it for all without having happened,
//! is tried alone, command by command, in the callers' own time: a bad command costs its mates a round trip.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use semel_core::error::StoreErrorKind;
use semel_core::id::Version;
use semel_core::store::{AsOf, Inserted, Replaced};
use semel_core::{Record, RecordId, StoreError, Timestamp};
use tokio_postgres::Row;

use super::alone::too_late;
use super::batch_rows::{insert_rows, replace_rows};
use super::error::{Failure, Kind};
use super::gather::{Gather, Gathered, Job};
use super::pool::{Database, Statement, Values};
use super::rows::{Draft, Id, record, time, unreadable};
use super::store::Shared;
use crate::limits;

/// A replacement that waits.
pub(super) struct Replacement {
    pub(super) draft: Draft,
    pub(super) expected: Version,
}

type Insert = Job<Draft, AsOf<Inserted>>;
type Replace = Job<Replacement, AsOf<Replaced>>;
type Load = Job<RecordId, AsOf<Option<Arc<Record>>>>;

/// The queues, and the connections of their batches: no command that waits alone for a lock takes one away.
pub(super) struct Batches {
    database: Database,
    inserts: Arc<Gather<Draft, AsOf<Inserted>>>,
    replaces: Arc<Gather<Replacement, AsOf<Replaced>>>,
    loads: Arc<Gather<RecordId, AsOf<Option<Arc<Record>>>>>,
}

impl Batches {
    pub(super) fn new(database: Database, lanes: usize) -> Self {
        Self {
            database,
            inserts: Gather::new(lanes),
            replaces: Gather::new(lanes),
            loads: Gather::new(lanes),
        }
    }

    pub(super) fn close(&self) {
        self.database.close();
    }
}

/// What a statement answers for all of its commands.
#[derive(Default)]
pub(super) struct Answers {
    as_of: Timestamp,
    floor: i64,
    /// What was written; all of it, if nothing is said.
    made: Option<HashSet<RecordId>>,
    there: HashMap<RecordId, Result<Arc<Record>, StoreError>>,
}

impl Answers {
    fn read(rows: &[Row]) -> Result<Self, StoreError> {
        let mut answers = Self::default();
        for row in rows {
            let Some(Id(id)) = row.try_get(3).map_err(unreadable)? else {
                answers.as_of = time(row.try_get(0).map_err(unreadable)?);
                answers.floor = row.try_get::<_, Option<i64>>(1).map_err(unreadable)?.unwrap_or(0);
                let made: Option<Vec<Id>> = row.try_get(2).map_err(unreadable)?;
                answers.made = made.map(|ids| ids.into_iter().map(|Id(id)| id).collect());
                continue;
            };
            let missing = || StoreError::corrupt("read a row", "a record without its version");
            // One that cannot be read is the trouble of whoever asked for it.
            let found = record(row, 4).and_then(|record| record.ok_or_else(missing));
            answers.there.insert(id, found);
        }
        Ok(answers)
    }

    fn made(&self, id: RecordId) -> bool {
        self.made.as_ref().is_none_or(|made| made.contains(&id))
    }

    /// What is there in the place of a write, and the time then.
    fn found(&mut self, id: RecordId) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        let value = self.there.remove(&id).transpose()?;
        let as_of = value.as_ref().map_or(self.as_of, |there| self.as_of.max(there.times().written));
        Ok(AsOf { as_of, value })
    }
}

/// A failure that many commands share.
#[derive(Debug)]
struct Common(Arc<StoreError>);

impl std::fmt::Display for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Common {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// How a batch ended for all of it.
pub(super) enum Ended {
    /// It did not happen; each is to be tried by itself.
    Apart,
    /// All of it met this.
    Together(Arc<StoreError>),
}

impl Ended {
    fn of(failure: Failure, kind: Kind, during: &'static str) -> Self {
        if failure.is_of_one_command() {
            return Self::Apart;
        }
        Self::Together(Arc::new(failure.into_error(kind, during)))
    }

    fn end<D, A>(&self, jobs: impl IntoIterator<Item = Job<D, A>>) {
        for job in jobs {
            match self {
                Self::Apart => job.alone(),
                Self::Together(error) => job.answer(Err(shared(error))),
            }
        }
    }
}

/// The same error for one of many.
fn shared(error: &Arc<StoreError>) -> StoreError {
    let (during, source) = (error.during(), Common(Arc::clone(error)));
    let text = "its batch had no answer";
    let own = match error.kind() {
        StoreErrorKind::NotApplied { retry_helps } => StoreError::not_applied(during, retry_helps, text),
        StoreErrorKind::InDoubt => StoreError::in_doubt(during, text),
        StoreErrorKind::Corrupt => StoreError::corrupt(during, text),
        StoreErrorKind::TooLarge => StoreError::too_large(during, text),
    };
    own.with_source(source)
}

type Jobs<D, A> = Vec<Job<D, A>>;

/// The first command for each id, in the order of the ids, and the others.
fn one_of_each<D, A>(mut jobs: Jobs<D, A>, id: impl Fn(&D) -> RecordId) -> (Jobs<D, A>, Jobs<D, A>) {
    jobs.sort_by_key(|job| id(&job.command));
    let (mut firsts, mut others) = (Vec::<Job<D, A>>::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        let same = firsts.last().is_some_and(|last| id(&last.command) == id(&job.command));
        if same { others.push(job) } else { firsts.push(job) }
    }
    (firsts, others)
}

/// Asks for a batch, again while others are in its way.
pub(super) async fn ask(
    shared: &Shared,
    batches: &Batches,
    (during, kind): (&'static str, Kind),
    statement: &Statement,
    values: &Values<'_>,
) -> Result<Answers, Ended> {
    let mut again = if kind == Kind::Read { limits::POSTGRES_READS_AGAIN } else { 0 };
    for _ in 0..limits::POSTGRES_ROUNDS {
        match batches.database.rows(statement, values).await {
            Ok(rows) => {
                let answers = Answers::read(&rows).map_err(|error| Ended::Together(Arc::new(error)))?;
                shared.time.told(answers.as_of);
                return Ok(answers);
            }
            Err(failure) if failure.is_collision() => {}
            Err(failure) if failure.is_lost_connection() && again > 0 => again -= 1,
            Err(failure) => return Err(Ended::of(failure, kind, during)),
        }
    }
    Err(Ended::Apart)
}

impl Shared {
    /// Inserts with others.
    pub(super) async fn insert_gathered(
        self: &Arc<Self>,
        batches: &Arc<Batches>,
        draft: Draft,
    ) -> Gathered<Draft, AsOf<Inserted>> {
        let (shared, own, bytes) = (Arc::clone(self), Arc::clone(batches), draft.bytes());
        let run = move |jobs| insert_all(Arc::clone(&shared), Arc::clone(&own), jobs);
        batches.inserts.submit("insert", draft, bytes, run).await
    }

    /// Replaces with others.
    pub(super) async fn replace_gathered(
        self: &Arc<Self>,
        batches: &Arc<Batches>,
        replacement: Replacement,
    ) -> Gathered<Replacement, AsOf<Replaced>> {
        let (shared, own, bytes) = (Arc::clone(self), Arc::clone(batches), replacement.draft.bytes());
        let run = move |jobs| replace_all(Arc::clone(&shared), Arc::clone(&own), jobs);
        batches.replaces.submit("replace", replacement, bytes, run).await
    }

    /// Loads with others.
    pub(super) async fn load_gathered(
        self: &Arc<Self>,
        batches: &Arc<Batches>,
        id: RecordId,
    ) -> Gathered<RecordId, AsOf<Option<Arc<Record>>>> {
        let (shared, own) = (Arc::clone(self), Arc::clone(batches));
        let run = move |jobs| load_all(Arc::clone(&shared), Arc::clone(&own), jobs);
        batches.loads.submit("load", id, 0, run).await
    }
}

async fn insert_all(shared: Arc<Shared>, batches: Arc<Batches>, jobs: Vec<Insert>) {
    let (firsts, others) = one_of_each(jobs, |draft| draft.id.0);
    let answers = {
        let drafts: Vec<_> = firsts.iter().map(|job| &job.command).collect();
        shared.moved(kinds(drafts.iter().copied()));
        insert_rows(&shared, &batches, &drafts).await
    };
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(ended) => return ended.end(firsts.into_iter().chain(others)),
    };
    let mut left = HashMap::new();
    for job in firsts {
        let id = job.command.id.0;
        let answer = if answers.made(id) {
            let stamps = job.command.inserted(answers.as_of, answers.floor);
            shared.written(&job.command, answers.as_of, stamps).map(|record| {
                left.insert(id, Arc::clone(&record));
                AsOf { as_of: answers.as_of, value: Inserted::Inserted(record) }
            })
        } else {
            match answers.found(id) {
                Ok(found) if found.as_of > job.command.deadline => Err(too_late("insert")),
                Ok(AsOf { as_of, value: Some(there) }) => {
                    left.insert(id, Arc::clone(&there));
                    Ok(AsOf { as_of, value: Inserted::Occupied(there) })
                }
                // It came while the statement ran, or is somebody's whose transaction has not ended.
                Ok(AsOf { value: None, .. }) => {
                    job.alone();
                    continue;
                }
                Err(error) => Err(error),
            }
        };
        job.answer(answer);
    }
    for job in others {
        match left.get(&job.command.id.0) {
            Some(there) => {
                let value = Inserted::Occupied(Arc::clone(there));
                job.answer(Ok(AsOf { as_of: answers.as_of.max(there.times().written), value }));
            }
            None => job.alone(),
        }
    }
}

async fn replace_all(shared: Arc<Shared>, batches: Arc<Batches>, jobs: Vec<Replace>) {
    let (firsts, others) = one_of_each(jobs, |replacement| replacement.draft.id.0);
    let answers = {
        let replacements: Vec<_> = firsts.iter().map(|job| &job.command).collect();
        shared.moved(kinds(replacements.iter().map(|one| &one.draft)));
        replace_rows(&shared, &batches, &replacements).await
    };
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(ended) => return ended.end(firsts.into_iter().chain(others)),
    };
    let mut left = HashMap::new();
    for job in firsts {
        let (draft, expected) = (&job.command.draft, job.command.expected);
        let answer = if answers.made(draft.id.0) {
            let stamps = draft.replaced(answers.as_of, answers.floor);
            let as_of = answers.as_of.max(stamps.times.written);
            shared.written(draft, as_of, stamps).map(|record| {
                left.insert(draft.id.0, Arc::clone(&record));
                AsOf { as_of, value: Replaced::Replaced(record) }
            })
        } else {
            match answers.found(draft.id.0) {
                Ok(found) if found.as_of > draft.deadline => Err(too_late("replace")),
                // Somebody has replaced it while the statement ran, which still shows what was there before.
                Ok(AsOf { value: Some(there), .. }) if there.version() == expected => {
                    job.alone();
                    continue;
                }
                Ok(AsOf { as_of, value }) => Ok(AsOf { as_of, value: Replaced::Conflict(value) }),
                Err(error) => Err(error),
            }
        };
        job.answer(answer);
    }
    for job in others {
        match left.get(&job.command.draft.id.0) {
            Some(there) if there.version() != job.command.expected => {
                let value = Replaced::Conflict(Some(Arc::clone(there)));
                job.answer(Ok(AsOf { as_of: answers.as_of.max(there.times().written), value }));
            }
            Some(_) | None => job.alone(),
        }
    }
}

async fn load_all(shared: Arc<Shared>, batches: Arc<Batches>, jobs: Vec<Load>) {
    const DURING: (&str, Kind) = ("load", Kind::Read);
    let (firsts, others) = one_of_each(jobs, |id| *id);
    let ids: Vec<_> = firsts.iter().map(|job| Id(job.command)).collect();
    let mut answers = match ask(&shared, &batches, DURING, &shared.sql.load_many, &[&ids]).await {
        Ok(answers) => answers,
        Err(ended) => return ended.end(firsts.into_iter().chain(others)),
    };
    let mut others = others.into_iter().peekable();
    for job in firsts {
        let id = job.command;
        let found = answers.found(id);
        while let Some(other) = others.next_if(|other| other.command == id) {
            match &found {
                Ok(found) => other.answer(Ok(found.clone())),
                Err(_) => other.alone(),
            }
        }
        job.answer(found);
    }
}

/// How many kinds of moves these are, so far as it shows here.
fn kinds<'a>(drafts: impl Iterator<Item = &'a Draft>) -> u64 {
    let mut kinds: Vec<_> = drafts.map(|draft| (draft.operation.as_str(), draft.state)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.len() as u64
}

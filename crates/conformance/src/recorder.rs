//! A store that writes down what it was asked and what it answered, and whether some order explains it.
//!
//! Versions are never used twice, so an order is easily found, key by key: the writes form one chain from version to
//! version, with the absences between lives, and every answer has its place in the chain. It must not lie behind the
//! place of an answer that had come before the question was asked (linearizability).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit::Entry;
use semel_core::id::{Lane, RecordId, Version};
use semel_core::invariant::judge_step;
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};

/// A store that writes down what it was asked and what it answered.
pub struct Recorder {
    inner: Arc<dyn Store>,
    clock: AtomicU64,
    calls: Mutex<HashMap<RecordId, Vec<Call>>>,
}

#[derive(Clone, Debug)]
struct Call {
    called: u64,
    answered: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Put { after: Option<Version>, record: Arc<Record> },
    Removed(Version),
    Saw(Option<Version>),
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("inner", &self.inner.name()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Over this store, of which nobody else may be asked meanwhile.
    pub fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, clock: AtomicU64::new(0), calls: Mutex::default() }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, id: RecordId, called: u64, what: What) {
        let answered = self.tick();
        self.calls.lock().entry(id).or_default().push(Call { called, answered, what });
    }

    /// Whether some order explains all answers, and each step of it is legal; how many there were.
    ///
    /// # Errors
    /// There is none: what is wrong.
    pub fn judge(&self) -> Result<usize, String> {
        let calls = self.calls.lock();
        let mut judged = 0;
        for (id, calls) in &*calls {
            Chain::of(calls)
                .and_then(|chain| chain.explains(calls))
                .map_err(|wrong| format!("record {id}: {wrong}"))?;
            judged += calls.len();
        }
        Ok(judged)
    }
}

/// The states of one key, in order: absences and versions.
struct Chain {
    places: HashMap<Version, usize>,
    /// The places at which nothing was there.
    absent: Vec<usize>,
    /// When the write that led to a place was asked for.
    since: Vec<u64>,
}

impl Chain {
    fn of(calls: &[Call]) -> Result<Self, String> {
        let mut puts = BTreeMap::new();
        let mut removed = HashMap::new();
        for call in calls {
            match &call.what {
                What::Put { after, record } => {
                    if puts.insert(record.version(), (*after, record, call.called)).is_some() {
                        return Err(format!("version {} was written twice (L2)", record.version()));
                    }
                }
                What::Removed(version) => {
                    if removed.insert(*version, call.called).is_some() {
                        return Err(format!("version {version} was removed twice"));
                    }
                }
                What::Saw(_) => {}
            }
        }
        let mut chain = Self { places: HashMap::new(), absent: vec![0], since: vec![0] };
        let mut last: Option<&Arc<Record>> = None;
        for (version, (after, record, called)) in puts {
            if after != last.map(|last| last.version()) {
                return Err(format!("version {version} was put after {after:?}, and there was {last:?}"));
            }
            let expired = last.is_some_and(|last| last.is_expired(record.times().written));
            judge_step(last.map(Arc::as_ref), expired, record)
                .map_err(|broken| format!("{broken}: {record:?}"))?;
            chain.places.insert(version, chain.since.len());
            chain.since.push(called);
            last = Some(record);
            if let Some(called) = removed.remove(&version) {
                chain.absent.push(chain.since.len());
                chain.since.push(called);
                last = None;
            }
        }
        match removed.keys().next() {
            None => Ok(chain),
            Some(version) => Err(format!("version {version} was removed, and nobody wrote it")),
        }
    }

    fn explains(&self, calls: &[Call]) -> Result<(), String> {
        let mut by_call: Vec<_> = calls.iter().collect();
        by_call.sort_by_key(|call| call.called);
        let mut answers = std::collections::BinaryHeap::new();
        let mut reached = 0;
        for call in by_call {
            // Whoever was answered before this was asked.
            while let Some(std::cmp::Reverse((answered, place))) = answers.pop() {
                if answered > call.called {
                    answers.push(std::cmp::Reverse((answered, place)));
                    break;
                }
                reached = reached.max(place);
            }
            let place = self
                .place(&call.what, reached)
                .ok_or_else(|| format!("nobody wrote what was seen: {call:?}"))?;
            if place < reached {
                return Err(format!(
                    "place {place} of the chain, and {reached} was answered before: {call:?}"
                ));
            }
            if self.since[place] > call.answered {
                return Err(format!("seen before it was asked for: {call:?}"));
            }
            answers.push(std::cmp::Reverse((call.answered, place)));
        }
        Ok(())
    }

    /// Where an answer lies; of the absences, the first that is not behind.
    fn place(&self, what: &What, reached: usize) -> Option<usize> {
        match what {
            What::Put { record, .. } => self.places.get(&record.version()).copied(),
            What::Removed(version) => self.places.get(version).map(|place| place + 1),
            What::Saw(Some(version)) => self.places.get(version).copied(),
            What::Saw(None) => {
                let first = self.absent.iter().copied().find(|place| *place >= reached);
                first.or(self.absent.last().copied())
            }
        }
    }
}

/// Calls that are not about one record.
macro_rules! passes_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(
            fn $name(&self, $($arg: $type),*) -> Answer<'_, $answer> {
                self.inner.$name($($arg),*)
            }
        )*
    };
}

fn version(record: Option<&Arc<Record>>) -> Option<Version> {
    record.map(|record| record.version())
}

impl Store for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn time(&self) -> Timestamp {
        self.inner.time()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(async move {
            let (id, called) = (write.id(), self.tick());
            let answer = self.inner.insert(write).await?;
            self.note(
                id,
                called,
                match &answer.value {
                    Inserted::Inserted(record) => What::Put { after: None, record: Arc::clone(record) },
                    Inserted::Occupied(found) => What::Saw(Some(found.version())),
                },
            );
            Ok(answer)
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        Box::pin(async move {
            let (id, called) = (write.id(), self.tick());
            let answer = self.inner.replace(write, expected).await?;
            self.note(
                id,
                called,
                match &answer.value {
                    Replaced::Replaced(record) => {
                        What::Put { after: Some(expected), record: Arc::clone(record) }
                    }
                    Replaced::Conflict(found) => What::Saw(version(found.as_ref())),
                },
            );
            Ok(answer)
        })
    }

    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool> {
        Box::pin(async move {
            let called = self.tick();
            let removed = self.inner.remove(id, expected).await?;
            if removed {
                self.note(id, called, What::Removed(expected));
            }
            Ok(removed)
        })
    }

    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(async move {
            let called = self.tick();
            let answer = self.inner.load(id).await?;
            self.note(id, called, What::Saw(version(answer.value.as_ref())));
            Ok(answer)
        })
    }

    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>> {
        Box::pin(async move {
            let called = self.tick();
            let answer = self.inner.changed(id, seen, patience).await?;
            self.note(id, called, What::Saw(version(answer.value.as_ref())));
            Ok(answer)
        })
    }

    /// What it removes would not be written down: remove records one by one.
    fn sweep(&self, _limit: usize) -> Answer<'_, usize> {
        Box::pin(std::future::ready(Err(StoreError::not_applied(
            "sweep",
            false,
            "nobody would know what it removed",
        ))))
    }

    passes_on! {
        take_due(lane: Option<Lane>, limit: usize) -> AsOf<Vec<Arc<Record>>>;
        lanes() -> Vec<Option<Lane>>;
        next_due() -> AsOf<Option<Timestamp>>;
        due_changed(patience: Duration) -> ();
        counts() -> Vec<Count>;
        oldest_pending() -> AsOf<Option<Timestamp>>;
        search(query: Query, cursor: Option<Cursor>, limit: usize) -> Page<Summary, Cursor>;
        append_audit(entries: Vec<Entry>) -> ();
        audit(query: AuditQuery, cursor: Option<AuditCursor>, limit: usize) -> Page<Entry, AuditCursor>;
        forget_audit(before: Timestamp, limit: usize) -> usize;
        ready() -> ();
        close() -> ();
    }

    fn survives_failover(&self) -> bool {
        self.inner.survives_failover()
    }
}

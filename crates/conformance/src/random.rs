//! Random histories through a store, held against the model: core's own `decide` over a plain map.
//!
//! [`sequential`] gives one command after the other and knows what each must answer, to the last byte. [`concurrent`]
//! lets many workers at the same keys at once, through a [`Recorder`], and then checks that each key's versions form
//! one chain of legal steps and that no answer was behind what had been answered before it was asked.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{
    Accept, AddCheckpoint, Command, Complete, Discard, DropPayload, Effect, Extend, ForceRelease, Lapse,
    MarkUnknown, Postpone, Release, Resolution, Resolve, Retry, Revive, Take, Verdict,
};
use semel_core::error::StoreErrorKind;
use semel_core::id::{Fence, Holder, Namespace, Phase};
use semel_core::invariant::judge_step;
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::query::{Count, Query, Summary};
use semel_core::record::{Checkpoint, StateName, Why};
use semel_core::{Ledger, Record, RecordId, Store, StoreError};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::fixture::{Ask, Counting, claim_key, outcome, token_of};
use crate::recorder::Recorder;
use crate::subject::{Step, Subject};

/// Keys of a history: few, so that commands meet.
const KEYS: u64 = 10;
/// Workers of a concurrent history.
const WORKERS: usize = 8;
/// Commands between two comparisons of all orders.
const COMPARE_EVERY: usize = 250;
/// Times that one command may be refused by a store that is late: each takes as long as a write may.
const REFUSALS_MAX: usize = 8;

/// Whether histories have their full length, as `SEMEL_FULL` says.
pub fn is_full() -> bool {
    std::env::var_os("SEMEL_FULL").is_some()
}

/// How many commands a history has. A store has two histories, which are 10^5 commands and more in the full run.
pub fn commands() -> usize {
    if is_full() { 60_000 } else { 6_000 }
}

/// Gives a command to somebody who wants to see it.
trait Give {
    async fn give<C: Command<Answer: Debug>>(&mut self, command: &C);
}

fn ask(key: u64) -> Ask {
    let ask = Ask::key(&format!("key-{key}")).lease_ms(100 + key * 40).retention_ms(150 + key * 70);
    let ask = ask
        .tag("partner", ["p", "q"][usize::from(key.is_multiple_of(2))])
        .lane(["bank", "post"][usize::from(key > 4)]);
    let ask = if key.is_multiple_of(3) { ask.resume() } else { ask };
    let ask = if key.is_multiple_of(5) { ask.namespace(Namespace::Job) } else { ask };
    let ask = if key.is_multiple_of(2) { ask.payload_retention_ms(60 + key * 30) } else { ask };
    if key == 4 || key == 9 { ask.undriven() } else { ask }
}

/// A random command on a random key, by somebody who has seen this record of it, or an older one.
async fn command(chance: &mut Chance, seen: &HashMap<RecordId, Vec<Arc<Record>>>, to: &mut impl Give) {
    let key = chance.below(KEYS);
    let ask = if chance.happens(4) { ask(key).operation("refund") } else { ask(key) };
    // As long as another key's: a guard's claim has its own lease, and any other record keeps the one that it has.
    let ask = if chance.happens(15) { ask.lease_ms(100 + chance.below(KEYS) * 40) } else { ask };
    let id = ask.id();
    let number = chance.below(1 << 40);
    // Mostly the newest, so that most commands fit; stale tokens and versions are among the rest.
    let known = seen.get(&id).map(Vec::as_slice).unwrap_or_default();
    let back = if chance.happens(75) { 0 } else { usize::try_from(chance.below(6)).unwrap() };
    let Some(record) = known.len().checked_sub(back + 1).map(|at| &known[at]) else {
        return to.give(&claim_key(&ask, number)).await;
    };
    let token = record.token().unwrap_or(token_of(number));
    let (holder, version) = (Holder { id, token }, record.version());
    let (error, actor, reason) = ("503".into(), "op".into(), "by hand".into());
    let correlation_id = None;
    match chance.below(19) {
        0..=3 => to.give(&claim_key(&ask, number)).await,
        4 => match Accept::try_new(ask.request()) {
            Ok(accept) => {
                let pause = if chance.happens(40) { chance.below(300) } else { 0 };
                to.give(&accept.due_after(Duration::from_millis(pause))).await;
            }
            Err(_) => to.give(&claim_key(&ask, number)).await,
        },
        5 | 6 => to.give(&Take { id, token: token_of(number) }).await,
        7 if chance.happens(50) => to.give(&Lapse { id }).await,
        7 => to.give(&DropPayload { id }).await,
        8 => to.give(&Extend { holder }).await,
        9 => {
            let phase = Phase::try_new(&format!("phase-{}", chance.below(4))).unwrap();
            let checkpoint = Checkpoint::try_new(phase, format!("{}", chance.below(2)).into()).unwrap();
            to.give(&AddCheckpoint { holder, checkpoint }).await;
        }
        10 | 11 => to.give(&Complete { holder, outcome: outcome(format!("outcome {}", number % 7)) }).await,
        12 => to.give(&Release { holder, error }).await,
        13 => {
            let effect = *chance.one_of(&[Effect::None, Effect::Possible]);
            let pause = Duration::from_millis(chance.below(300));
            to.give(&Retry { holder, error, pause, effect, permanent: chance.happens(20) }).await;
        }
        14 => to.give(&MarkUnknown { holder, why: Why::AnswerLost, detail: "reset".into() }).await,
        15 => {
            let found = Resolution::Completed(outcome("found"));
            let resolution = if chance.happens(50) { Resolution::NotExecuted } else { found };
            to.give(&Resolve { id, version, resolution, actor, reason, correlation_id }).await;
        }
        16 => to.give(&Revive { id, version, actor, reason, correlation_id }).await,
        17 if chance.happens(50) => to.give(&Discard { id, version, actor, reason, correlation_id }).await,
        17 => to.give(&ForceRelease { id, version, actor, reason, correlation_id }).await,
        _ => to.give(&Postpone { id, version, pause: Duration::from_millis(chance.below(300)) }).await,
    }
}

/// Lets some time pass, or somebody set the wall clock.
async fn time_passes(chance: &mut Chance, subject: &dyn Subject) {
    match chance.below(40) {
        0..=9 => subject.pass(Duration::from_millis(chance.below(60))).await,
        10 => subject.pass(Duration::from_millis(chance.below(900))).await,
        11 => drop(subject.step_wall(Step::Ahead(Duration::from_secs(600)))),
        12 => drop(subject.step_wall(Step::Back(Duration::from_secs(600)))),
        _ => {}
    }
}

/// A plain map, and the highest fence that was ever removed from it.
struct Model {
    ledger: Ledger,
    records: HashMap<RecordId, Arc<Record>>,
    seen: HashMap<RecordId, Vec<Arc<Record>>>,
    floor: Fence,
    audited: usize,
    written: usize,
    /// Writes that were refused, and given again.
    refused: usize,
}

impl Give for Model {
    async fn give<C: Command<Answer: Debug>>(&mut self, command: &C) {
        let id = command.id();
        let before = self.records.get(&id).cloned();
        let now = self.ledger.store().time();
        let (answer, stored) = self.answered(command, before.as_ref()).await;
        let expected = match command.decide(before.as_ref(), now) {
            Verdict::Stay(expected) => {
                // What has expired may have been swept since.
                let gone = stored.is_none() && before.as_ref().is_some_and(|record| record.is_expired(now));
                assert!(gone || stored == before, "L5, L6: {stored:?} was {before:?}");
                expected
            }
            Verdict::Write(write) => {
                let stored = stored.unwrap();
                let fence = stored.fence();
                assert!(!write.stamp().raise_fence || fence > self.floor, "L2: {fence} after {}", self.floor);
                // How high a store's floor is, is its own affair, as long as fences rise.
                let floor = if write.stamp().raise_fence { Fence(fence.0 - 1) } else { self.floor };
                let (sealed, entry) = write.seal(now, floor);
                let expired = before.as_ref().is_some_and(|record| record.is_expired(now));
                judge_step(before.as_deref(), expired, &sealed).unwrap_or_else(|broken| panic!("{broken}"));
                assert_eq!(*stored, sealed);
                self.audited += usize::from(entry.is_some());
                self.written += 1;
                self.records.insert(id, Arc::clone(&stored));
                self.seen.entry(id).or_default().push(Arc::clone(&stored));
                command.answer(stored)
            }
        };
        assert_eq!(format!("{answer:?}"), format!("{expected:?}"));
    }
}

impl Model {
    /// The answer, and what is there after it. A server that others kept busy may take the write after its deadline, and
    /// refuse it: then nothing has happened, the store says so, and the command is given again until it is answered, so
    /// that none is left out of the history.
    async fn answered<C: Command<Answer: Debug>>(
        &mut self,
        command: &C,
        before: Option<&Arc<Record>>,
    ) -> (C::Answer, Option<Arc<Record>>) {
        for _ in 0..REFUSALS_MAX {
            let applied = self.ledger.apply(command).await;
            let found = self.ledger.store().load(command.id()).await.unwrap();
            let refusal = match applied {
                Ok(answer) => return (answer, found.value),
                Err(refusal) => refusal,
            };
            is_refused(&refusal);
            // What has expired may have been swept since.
            let gone = found.value.is_none() && before.is_some_and(|record| record.is_expired(found.as_of));
            assert!(gone || found.value.as_ref() == before, "{:?} was {before:?}", found.value);
            self.refused += 1;
        }
        panic!("refused {REFUSALS_MAX} times: a command on {}", command.id());
    }
}

/// The store has said of the write itself that it did not happen, and that trying again may help.
fn is_refused(error: &LedgerError) {
    assert_eq!(error.kind(), LedgerErrorKind::Unavailable, "{error}");
    let of_the_store = error.source().and_then(|source| source.downcast_ref::<StoreError>());
    let kind = of_the_store.map(StoreError::kind);
    assert_eq!(kind, Some(StoreErrorKind::NotApplied { retry_helps: true }), "{of_the_store:?}");
}

/// One command after the other; the store's clock must be one that tests step.
///
/// # Panics
/// An answer is not the model's.
pub async fn sequential(subject: &mut dyn Subject, seed: u64, commands: usize) {
    let mut chance = Chance::new(seed);
    let mut model = Model {
        ledger: Ledger::new(subject.store(), Arc::new(Counting::default())),
        records: HashMap::new(),
        seen: HashMap::new(),
        floor: Fence(0),
        audited: 0,
        written: 0,
        refused: 0,
    };
    for number in 0..commands {
        let known = std::mem::take(&mut model.seen);
        command(&mut chance, &known, &mut model).await;
        let news = std::mem::replace(&mut model.seen, known);
        for (id, records) in news {
            model.seen.entry(id).or_default().extend(records);
        }
        time_passes(&mut chance, subject).await;
        if chance.happens(3) {
            sweep(&mut model).await;
        }
        if number % COMPARE_EVERY == 0 {
            compare(&*subject.store(), &model.records).await;
        }
    }
    compare(&*subject.store(), &model.records).await;
    println!("{commands} commands, {} writes, {} refused and given again", model.written, model.refused);
    assert!(model.written > commands / 5, "most commands fit: {} of {commands}", model.written);
    assert!(model.audited > 0);
}

/// What the store removes must have expired; whether it removes all of it at once is its own affair.
async fn sweep(model: &mut Model) {
    let store = Arc::clone(model.ledger.store());
    let swept = store.sweep(5).await.unwrap();
    let now = store.time();
    let mut gone = 0;
    for id in model.records.keys().copied().collect::<Vec<_>>() {
        if store.load(id).await.unwrap().value.is_none() {
            let record = model.records.remove(&id).unwrap();
            assert!(record.is_expired(now), "L8: {record:?}");
            model.floor = model.floor.max(record.fence());
            gone += 1;
        }
    }
    assert_eq!(gone, swept, "it says how many");
}

/// Every order of the store, against a plain map.
async fn compare(store: &dyn Store, records: &HashMap<RecordId, Arc<Record>>) {
    let now = store.time();
    let mut counts = BTreeMap::<_, u64>::new();
    for record in records.values() {
        let request = record.request();
        let kind = (request.scope().namespace, request.operation().clone(), record.state().name());
        *counts.entry(kind).or_default() += 1;
    }
    let counts = counts.into_iter();
    let counts: Vec<_> = counts
        .map(|((namespace, operation, state), records)| Count { namespace, operation, state, records })
        .collect();
    let mut counted = store.counts().await.unwrap();
    counted.retain(|count| count.records > 0);
    counted.sort();
    assert_eq!(counted, counts);

    let due = records.values().filter_map(|record| record.due()).min();
    assert_eq!(store.next_due().await.unwrap().value, due);
    let mut taken = Vec::new();
    for lane in store.lanes().await.unwrap() {
        let due = store.take_due(lane.clone(), 100).await.unwrap().value;
        assert!(due.iter().all(|record| record.due_lane() == lane.as_ref()));
        taken.extend(due.iter().map(|record| record.id()));
    }
    let due = records.values().filter(|record| record.due().is_some_and(|due| due <= now));
    let mut due: Vec<_> = due.map(|record| record.id()).collect();
    due.sort();
    taken.sort();
    assert_eq!(taken, due);

    let pending = records.values().filter(|record| record.state().name() == StateName::Pending);
    let oldest = pending.map(|record| record.times().created).min();
    assert_eq!(store.oldest_pending().await.unwrap().value, oldest);

    let alive = records.values().filter(|record| !record.is_expired(now));
    let mut alive: Vec<_> = alive.map(|record| Summary::of(record)).collect();
    alive.sort_by_key(|record| std::cmp::Reverse(record.cursor()));
    assert_eq!(store.search(Query::default(), None, 100).await.unwrap().items, alive);
}

/// A worker of a concurrent history: it knows what it was shown.
struct Worker {
    ledger: Ledger,
    seen: HashMap<RecordId, Vec<Arc<Record>>>,
}

impl Give for Worker {
    async fn give<C: Command<Answer: Debug>>(&mut self, command: &C) {
        match self.ledger.apply(command).await {
            Ok(_) => {}
            // The clock went past the write's deadline between its decision and the store. Had it happened all the same, the
            // recorder would be shown a version that nobody has written.
            Err(error) => is_refused(&error),
        }
        if let Some(record) = self.ledger.store().load(command.id()).await.unwrap().value {
            self.seen.entry(record.id()).or_default().push(record);
        }
    }
}

impl Worker {
    async fn works(mut self, mut chance: Chance, commands: usize) {
        for _ in 0..commands {
            let seen = std::mem::take(&mut self.seen);
            command(&mut chance, &seen, &mut self).await;
            let news = std::mem::replace(&mut self.seen, seen);
            for (id, records) in news {
                self.seen.entry(id).or_default().extend(records);
            }
            if chance.happens(5) {
                self.removes(&mut chance).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Removes a record that has expired, as a sweep would.
    async fn removes(&self, chance: &mut Chance) {
        let id = ask(chance.below(KEYS)).id();
        let found = self.ledger.store().load(id).await.unwrap();
        if let Some(record) = found.value.filter(|record| record.is_expired(found.as_of)) {
            self.ledger.store().remove(id, record.version()).await.unwrap();
        }
    }
}

/// Many workers at the same keys, while time passes.
///
/// # Panics
/// The versions of a key form no chain of legal steps, or an answer was behind what had been answered before.
pub async fn concurrent(subject: &mut dyn Subject, seed: u64, commands: usize) {
    let recorder = Arc::new(Recorder::over(subject.store()));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let store = Arc::clone(&recorder) as Arc<dyn Store>;
        let tokens = Arc::new(Counting::from((number as u64 + 1) << 32));
        let worker = Worker { ledger: Ledger::new(store, tokens), seen: HashMap::new() };
        workers.spawn(worker.works(Chance::new(seed + 1 + number as u64), commands / WORKERS));
    }
    let mut chance = Chance::new(seed);
    while !workers.is_empty() {
        time_passes(&mut chance, subject).await;
        tokio::task::yield_now().await;
        while let Some(ended) = workers.try_join_next() {
            ended.unwrap();
        }
    }
    let judged = recorder.judge().unwrap_or_else(|violation| panic!("{violation}"));
    assert!(judged > commands, "{judged} answers of {commands} commands");
    drop(recorder);
    let mut records = HashMap::new();
    let store = subject.store();
    for key in 0..KEYS {
        if let Some(record) = store.load(ask(key).id()).await.unwrap().value {
            records.insert(record.id(), record);
        }
    }
    compare(&*store, &records).await;
}

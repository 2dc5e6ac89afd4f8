//! Power loss at every operation of the disk, over many lives of many stores.
//!
//! A life is a script of commands, drawn from a seed, against the store over a simulated disk; its threads' work is done
//! step by step, so that the same seed gives the same life. Each script is run once for every operation that it makes on the
//! disk, and a fault happens there: the power goes, a sync fails, or there is no space. Then the disk keeps what a
//! disk may keep, the store is opened again, and held against what its users were told.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use semel_core::error::StoreErrorKind;
use semel_core::record::StateName;
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::{Record, RecordId, StoreError, Timestamp};

use crate::clock::SteppedClock;
use crate::embedded::disk::sim::{Chance, Fault, SimDisk};
use crate::embedded::testing::{RETENTION, claim, complete, request};
use crate::embedded::{EmbeddedStore, Options};
use crate::limits::SEGMENT_BYTES_MIN;

const KEYS: usize = 5;

/// What a user was told about a key, and what may have happened besides.
#[derive(Default)]
struct Told {
    /// The newest version that anybody was shown; `None` if that was that there is none.
    newest: Option<Arc<Record>>,
    /// Writes after it that are in doubt, by what they would have left.
    doubts: Vec<Doubt>,
    /// The highest fence that anybody was shown.
    fence: u64,
    /// What was swept because it had expired: a crash may bring it back, as expired as it was (L8).
    swept: Option<Arc<Record>>,
}

#[derive(Debug)]
enum Doubt {
    /// A version with this token, in this state.
    Version([u8; 16], StateName),
    Removal,
}

impl Told {
    fn shown(&mut self, record: Option<&Arc<Record>>) {
        self.newest = record.cloned();
        self.doubts.clear();
        self.swept = None;
        if let Some(record) = record {
            self.fence = self.fence.max(record.fence().0);
        }
    }

    /// Takes note of what the store says without having been told to change it.
    fn found(&mut self, found: Option<&Arc<Record>>, now: Timestamp) {
        let swept = match &self.newest {
            Some(newest) if found.is_none() && newest.is_expired(now) => self.newest.clone(),
            None if found.is_none() => self.swept.clone(),
            _ => None,
        };
        self.shown(found);
        self.swept = swept;
    }

    /// Whether the store may say this without a crash in between.
    fn holds(&self, found: Option<&Arc<Record>>, now: Timestamp) -> bool {
        let is_swept = found.is_none() && self.newest.as_ref().is_some_and(|newest| newest.is_expired(now));
        found == self.newest.as_ref() || is_swept
    }

    /// Whether the store may say this after a crash.
    fn allows(&self, found: Option<&Arc<Record>>) -> bool {
        let is_back = found.is_some() && found == self.swept.as_ref();
        if found == self.newest.as_ref() || is_back {
            return true;
        }
        self.doubts.iter().any(|doubt| match (doubt, found) {
            (Doubt::Removal, None) => true,
            (Doubt::Version(token, state), Some(found)) => {
                found.token().is_some_and(|held| held.as_bytes() == token) && found.state().name() == *state
            }
            (Doubt::Removal, Some(_)) | (Doubt::Version(..), None) => false,
        })
    }
}

/// What a command's future gives.
enum Said {
    Shown(Option<Arc<Record>>),
    Written(Arc<Record>),
    Removed(bool),
}

struct InFlight<'a> {
    key: usize,
    doubt: Doubt,
    future: Pin<Box<dyn Future<Output = Result<Said, StoreError>> + Send + 'a>>,
}

/// A store's users, over all its lives.
struct World {
    disk: SimDisk,
    clock: SteppedClock,
    chance: Chance,
    told: BTreeMap<usize, Told>,
    tokens: u8,
    context: String,
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn now<T>(mut answer: Answer<'_, T>) -> Result<T, StoreError> {
    match poll(&mut answer) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a read waited"),
    }
}

fn id_of(key: usize) -> RecordId {
    request(&format!("key-{key}")).id()
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimDisk::default(),
            clock: SteppedClock::at(Timestamp::from_millis(1_000_000)),
            chance: Chance::new(seed),
            told: (0..KEYS).map(|key| (key, Told::default())).collect(),
            tokens: 0,
            context: format!("seed {seed}"),
        }
    }

    fn open(&self) -> Option<EmbeddedStore> {
        let options = Options::new("simulated")
            .segment_bytes(SEGMENT_BYTES_MIN)
            .cache_bytes(4096)
            .clock(Arc::new(self.clock.clone()));
        match EmbeddedStore::open_stepwise(Arc::new(self.disk.clone()), &options) {
            Ok(store) => Some(store),
            // The fault may hit the opening itself; anything that it calls damage would be a lie.
            Err(error) => {
                assert_eq!(error.kind(), crate::embedded::OpenErrorKind::Io, "{}: {error}", self.context);
                None
            }
        }
    }

    /// Starts a command that fits what is known of a key.
    fn start<'a>(&mut self, store: &'a EmbeddedStore, key: usize) -> InFlight<'a> {
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.tokens;
        let held = self.told[&key].newest.clone();
        let id = id_of(key);
        let body = vec![token; 50 + self.chance.below(1500)];
        match held {
            Some(record) if record.state().name() == StateName::Running => {
                let write = complete(&record, &body);
                let expected = record.version();
                let doubt = Doubt::Version(*record.token().unwrap().as_bytes(), StateName::Completed);
                let future = Box::pin(async move {
                    Ok(match store.replace(write, expected).await?.value {
                        Replaced::Replaced(record) => Said::Written(record),
                        Replaced::Conflict(found) => Said::Shown(found),
                    })
                });
                InFlight { key, doubt, future }
            }
            Some(record) if record.is_expired(store.time()) && self.chance.below(2) == 0 => {
                let write = claim(&request(&format!("key-{key}")), token, Some(&record), store.time());
                let expected = record.version();
                let future = Box::pin(async move {
                    Ok(match store.replace(write, expected).await?.value {
                        Replaced::Replaced(record) => Said::Written(record),
                        Replaced::Conflict(found) => Said::Shown(found),
                    })
                });
                InFlight { key, doubt: Doubt::Version([token; 16], StateName::Running), future }
            }
            Some(record) if self.chance.below(3) == 0 => {
                let expected = record.version();
                let future = Box::pin(async move { Ok(Said::Removed(store.remove(id, expected).await?)) });
                InFlight { key, doubt: Doubt::Removal, future }
            }
            _ => {
                let write = claim(&request(&format!("key-{key}")), token, None, store.time());
                let future = Box::pin(async move {
                    Ok(match store.insert(write).await?.value {
                        Inserted::Inserted(record) => Said::Written(record),
                        Inserted::Occupied(record) => Said::Shown(Some(record)),
                    })
                });
                InFlight { key, doubt: Doubt::Version([token; 16], StateName::Running), future }
            }
        }
    }

    fn hear(&mut self, at: Timestamp, key: usize, doubt: Doubt, said: Result<Said, StoreError>) {
        let context = &self.context;
        let told = self.told.get_mut(&key).unwrap();
        match said {
            Ok(Said::Written(record)) => {
                let claims = record.version().sequence == 0;
                assert!(!claims || record.fence().0 > told.fence, "{context}: L2, fence of key {key}");
                told.shown(Some(&record));
            }
            Ok(Said::Shown(found)) => told.found(found.as_ref(), at),
            Ok(Said::Removed(true)) => told.shown(None),
            Ok(Said::Removed(false)) => {}
            Err(error) => match error.kind() {
                StoreErrorKind::InDoubt => told.doubts.push(doubt),
                StoreErrorKind::NotApplied { .. } => {}
                StoreErrorKind::Corrupt | StoreErrorKind::TooLarge => panic!("{context}: {error}"),
            },
        }
    }

    /// A few commands at once, then the log's work.
    fn step(&mut self, store: &EmbeddedStore) {
        let mut flying: Vec<InFlight<'_>> = Vec::new();
        for _ in 0..=self.chance.below(3) {
            let key = self.chance.below(KEYS);
            if flying.iter().all(|other| other.key != key) {
                let command = self.start(store, key);
                flying.push(command);
            }
        }
        // Commands are decided, but nothing of them may be visible before it is durable.
        flying.retain_mut(|command| match poll(&mut command.future) {
            Poll::Pending => true,
            Poll::Ready(said) => {
                let doubt = std::mem::replace(&mut command.doubt, Doubt::Removal);
                self.hear(store.time(), command.key, doubt, said);
                false
            }
        });
        for command in &flying {
            if let Ok(AsOf { value, .. }) = now(store.load(id_of(command.key))) {
                let told = &self.told[&command.key];
                let holds = told.holds(value.as_ref(), store.time());
                assert!(holds, "{}: L4, shown before it was durable: {value:?}", self.context);
            }
        }
        store.step();
        for mut command in flying {
            match poll(&mut command.future) {
                Poll::Ready(said) => self.hear(store.time(), command.key, command.doubt, said),
                Poll::Pending => panic!("{}: a writer was forgotten", self.context),
            }
        }
        match self.chance.below(12) {
            0 => self.clock.advance(RETENTION),
            1..=2 => store.upkeep(None),
            3 => store.upkeep(Some(store.newest_segment())),
            _ => self.clock.advance(Duration::from_millis(7)),
        }
    }

    /// Holds what the store says against what its users were told.
    fn check(&mut self, store: &EmbeddedStore) {
        let mut by_state: BTreeMap<StateName, u64> = BTreeMap::new();
        for key in 0..KEYS {
            let found = now(store.load(id_of(key))).unwrap().value;
            let told = self.told.get_mut(&key).unwrap();
            let context = &self.context;
            assert!(
                told.holds(found.as_ref(), store.time()) || told.allows(found.as_ref()),
                "{context}: key {key} was {:?} with doubts {:?} and is {found:?}",
                told.newest,
                told.doubts,
            );
            if let Some(found) = &found {
                *by_state.entry(found.state().name()).or_default() += 1;
            }
            told.found(found.as_ref(), store.time());
        }
        let counts = now(store.counts()).unwrap();
        let counted: BTreeMap<_, _> = counts.iter().map(|count| (count.state, count.records)).collect();
        assert_eq!(counted, by_state, "{}: counts", self.context);
    }

    /// A life of up to `steps`; `false` if a fault ended it.
    fn live(&mut self, steps: usize) -> bool {
        let Some(store) = self.open() else { return false };
        // The fault may already have happened in the opening, without an error that shows it.
        if now(store.load(id_of(0))).is_ok() {
            self.check(&store);
        }
        for _ in 0..steps {
            self.step(&store);
            if now(store.ready()).is_err() && now(store.load(id_of(0))).is_err() {
                return false;
            }
        }
        true
    }
}

/// Runs a script with a fault at one operation, through three lives. Gives `false` when the script has no such operation.
fn run(seed: u64, at: u64, fault: Fault) -> bool {
    let mut world = World::new(seed);
    world.context = format!("seed {seed}, {fault:?} at {at}");
    world.disk.fault_at(at, fault);
    world.live(14);
    let is_hit = world.disk.operations() > at;
    for life in 0..3 {
        if world.chance.below(3) == 0 {
            world.disk.restart();
        } else {
            world.disk.power_cycle(seed ^ at << 20 ^ life);
        }
        world.clock.advance(Duration::from_millis(50));
        if life < 2 {
            // These lives end somewhere, too: in the middle of recovery, or soon after.
            let soon = world.chance.below(12) as u64;
            world.disk.fault_at(soon, Fault::PowerLoss);
        }
        world.live(6);
    }
    is_hit
}

#[test]
fn power_loss_failed_syncs_and_full_disks_lose_nothing_that_was_told() {
    let mut points = 0_u32;
    for seed in 0.. {
        let fault = [Fault::PowerLoss, Fault::PowerLoss, Fault::SyncFails, Fault::NoSpace][seed as usize % 4];
        let mut at = 0;
        while run(seed, at, fault) {
            at += 1;
            points += 1;
        }
        if points >= 10_000 {
            break;
        }
    }
    println!("{points} crash points");
}

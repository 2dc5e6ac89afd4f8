//! Workers over a store that fails by chance, judged by the checker of histories: nothing runs twice, nothing runs on
//! an unsettled claim, and no outcome that was told is lost (L1, L4, L7, L12).

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use semel_conformance::chance::Chance;
use semel_conformance::faulty::{Faulty, Odds};
use semel_conformance::fixture::{Ask, Counting, outcome};
use semel_conformance::history::{Claimed as SaidClaimed, Event, Held as SaidHeld, What, check};
use semel_core::command::{Claimed, Complete, Held, Release};
use semel_core::ledger::{LedgerError, LedgerErrorKind};
use semel_core::outcome::Body;
use semel_core::{Ledger, Record, Store, Timestamp};
use semel_stores::clock::SteppedClock;
use semel_stores::memory::MemoryStore;
use tokio::task::JoinSet;

struct Storm {
    faulty: Arc<Faulty>,
    clock: SteppedClock,
    ticks: AtomicU64,
    runs: AtomicU64,
    events: Mutex<Vec<Event>>,
}

fn told(record: &Record) -> String {
    match &record.outcome().unwrap().body {
        Body::Kept(body) => String::from_utf8(body.to_vec()).unwrap(),
        Body::Gone => panic!("no body was dropped"),
    }
}

/// What a caller may conclude from an error: a doubt is no answer, anything else that nothing happened.
fn doubt<T>(error: &LedgerError, refused: T) -> Option<T> {
    (error.kind() != LedgerErrorKind::InDoubt).then_some(refused)
}

impl Storm {
    fn now(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, key: &str, called: u64, what: What, is_answered: bool) {
        let answered = self.now();
        self.events.lock().push(Event::new(key, called, is_answered.then_some(answered), what));
    }

    async fn claims(&self, ledger: &Ledger, key: &str) -> Option<semel_core::command::Claim> {
        let called = self.now();
        let mut granted = None;
        let answer = match ledger.claim(Ask::key(key).lease_ms(400).request(), None).await {
            Ok(Claimed::Granted(claim)) => {
                let grant = claim.fence().0;
                granted = Some(claim);
                Some(SaidClaimed::Granted { grant })
            }
            Ok(Claimed::Replay(record)) => Some(SaidClaimed::Replay { outcome: told(&record) }),
            Ok(Claimed::Busy { .. }) => Some(SaidClaimed::Busy),
            Ok(Claimed::Unknown(_)) => Some(SaidClaimed::Unknown),
            Ok(other) => panic!("{other:?}"),
            Err(error) => doubt(&error, SaidClaimed::Refused),
        };
        let is_answered = answer.is_some();
        self.note(key, called, What::Claim { attempt: None, answer }, is_answered);
        granted
    }

    async fn settles(&self, ledger: &Ledger, key: &str, claim: semel_core::command::Claim, gives_back: bool) {
        let (grant, holder) = (claim.fence().0, claim.holder());
        let said = |answer: Result<Held, LedgerError>| match answer {
            Ok(Held::Done(_)) => Some(SaidHeld::Done),
            Ok(Held::Fenced(_)) => Some(SaidHeld::Fenced),
            Ok(Held::Illegal(..)) => panic!("illegal"),
            Err(error) => doubt(&error, SaidHeld::Refused),
        };
        if gives_back {
            let called = self.now();
            let answer = said(ledger.apply(&Release { holder, error: "busy".into() }).await);
            let is_answered = answer.is_some();
            return self.note(key, called, What::Release { grant, answer }, is_answered);
        }
        let started = self.now();
        let gave = format!("run {}", self.runs.fetch_add(1, Ordering::SeqCst));
        self.note(key, started, What::Ran { outcome: Some(gave.clone()) }, true);
        let called = self.now();
        let answer = said(ledger.apply(&Complete { holder, outcome: outcome(gave.clone()) }).await);
        let is_answered = answer.is_some();
        self.note(key, called, What::Complete { grant, outcome: gave, answer }, is_answered);
    }

    async fn works(self: Arc<Self>, number: u64, mut chance: Chance) {
        let store = Arc::clone(&self.faulty) as Arc<dyn Store>;
        let ledger = Ledger::new(store, Arc::new(Counting::from((number + 1) << 32)));
        for _ in 0..12 {
            let key = format!("key-{}", chance.below(6));
            if let Some(claim) = self.claims(&ledger, &key).await {
                tokio::task::yield_now().await;
                let gives_back = chance.happens(25);
                self.settles(&ledger, &key, claim, gives_back).await;
            }
            if chance.happens(20) {
                self.clock.advance(Duration::from_millis(chance.below(500)));
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn storm(seed: u64) -> (usize, u64) {
    let clock = SteppedClock::at(Timestamp::from_millis(1_700_000_000_000));
    let memory = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let faulty = Arc::new(Faulty::over(memory, seed));
    faulty.odds(Odds { writes: 30, reads: 10, delays: 50 });
    let (ticks, runs, events) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
    let storm = Arc::new(Storm { faulty, clock, ticks, runs, events });
    let mut workers = JoinSet::new();
    for number in 0..5 {
        workers.spawn(Arc::clone(&storm).works(number, Chance::new(seed * 31 + number)));
    }
    workers.join_all().await;
    let events = storm.events.lock().clone();
    if let Err(violation) = check(&events) {
        panic!("seed {seed}: {violation}");
    }
    (events.iter().filter(|event| event.answered.is_none()).count(), storm.runs.load(Ordering::SeqCst))
}

#[tokio::test]
async fn l7_whatever_the_store_does_nothing_runs_twice_and_no_outcome_is_lost() {
    let seeds = if std::env::var_os("SEMEL_FULL").is_some() { 2_000 } else { 150 };
    let (mut doubts, mut runs) = (0, 0);
    for seed in 0..seeds {
        let (unanswered, ran) = storm(seed).await;
        doubts += unanswered;
        runs += ran;
    }
    assert!(doubts as u64 > seeds && runs > seeds, "{doubts} doubts, {runs} runs");
}

//! A consumer whose store fails, before and after the effect, late, or without ever saying: nothing is handled twice under
//! the promise, nothing is lost, and nothing is committed past a message that is not handled.
//!
//! The group is played without a broker: members with the books and the handler of the real consumer take messages of a log
//! in memory, commit, and give their partitions up. Time is tokio's, and paused: nothing here waits.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_conformance::chance::Chance;
use semel_conformance::faulty::{Fault, Faulty, Odds};
use semel_core::command::Claimed as Answer;
use semel_core::{Ledger, Store};
use semel_kafka::offsets::{Offsets, Place, Ticket};
use semel_kafka::{
    Claimed, CloudEvent, Config, Deduplicated, Deliver as _, Delivered, HandlerError, Message, Reason, Turn,
};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;
/// Messages of a partition that are taken and not done.
const IN_FLIGHT: usize = 6;
/// No lease lapses by itself within a test.
const LONG: Duration = Duration::from_secs(3_000);
/// A lease that an outage outlasts.
const SHORT: Duration = Duration::from_secs(2);
/// Time stands still unless everybody waits for it: longer than this, and somebody waits for what never comes.
const HANG: Duration = Duration::from_secs(1_000);

fn faulty(seed: u64) -> (Arc<Faulty>, Ledger) {
    let store = Arc::new(Faulty::over(Arc::new(MemoryStore::new()), seed));
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(OsEntropy));
    (store, ledger)
}

fn config() -> Config {
    let pause = Duration::from_millis(5);
    Config::new("order-service", TOPIC, "group").lease(LONG).pauses(pause, pause)
}

fn event(id: &str) -> CloudEvent {
    CloudEvent::new(id, "/shop", "placed").unwrap()
}

/// What the handlers have done, and what became of the messages.
#[derive(Debug, Default)]
struct Seen {
    /// By event: how often its handler has begun, and whether its effect is there.
    runs: BTreeMap<String, Runs>,
    dead: BTreeMap<(i32, i64), Reason>,
    committed: BTreeMap<i32, i64>,
    /// A handler's panic is a failure of the handler's, so what it finds wrong is kept.
    wrong: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    begun: u32,
    under_way: bool,
    done: bool,
}

impl Seen {
    fn begins(&mut self, id: &str, claim: &Claimed) {
        let runs = self.runs.entry(id.to_owned()).or_default();
        if runs.under_way {
            self.wrong.push(format!("{id}: two at once"));
        }
        if runs.done && !claim.is_taken_over() {
            self.wrong.push(format!("{id}: handled again, unawares: attempt {}", claim.attempt()));
        }
        runs.begun += 1;
        runs.under_way = true;
    }

    fn ends(&mut self, id: &str, done: bool) {
        let runs = self.runs.entry(id.to_owned()).or_default();
        runs.under_way = false;
        runs.done |= done;
    }

    fn begun(&self) -> u32 {
        self.runs.values().map(|runs| runs.begun).sum()
    }
}

/// The topic, whose messages hold events, some of them twice, or none; and what is seen of them.
struct World {
    log: Vec<Vec<(Message, Option<String>)>>,
    seen: Mutex<Seen>,
}

impl World {
    fn new(chance: &mut Chance, events: u64) -> Arc<Self> {
        let mut log = vec![Vec::new(); 3];
        for number in 0..events + events / 4 {
            let partition = usize::try_from(chance.below(3)).unwrap();
            // Offsets have gaps of their own.
            let last = log[partition].last().map_or(0, |(message, _): &(Message, _)| message.offset);
            let offset = last + 1 + i64::try_from(chance.below(3)).unwrap();
            let place = i32::try_from(partition).unwrap();
            let entry = if chance.happens(5) {
                (Message::new(TOPIC, place, offset), None)
            } else {
                let id = format!("e-{}", if number < events { number } else { chance.below(events) });
                (Message { partition: place, offset, ..event(&id).to_message(TOPIC) }, Some(id))
            };
            log[partition].push(entry);
        }
        Arc::new(Self { log, seen: Mutex::default() })
    }

    fn of(&self, partition: i32) -> &[(Message, Option<String>)] {
        &self.log[usize::try_from(partition).unwrap()]
    }

    fn committed(&self, partition: i32) -> i64 {
        self.seen.lock().committed.get(&partition).copied().unwrap_or(0)
    }

    fn end(&self, partition: i32) -> i64 {
        self.of(partition).last().map_or(0, |(message, _)| message.offset + 1)
    }

    fn all_committed(&self) -> bool {
        (0..PARTITIONS).all(|partition| self.committed(partition) == self.end(partition))
    }

    /// What the broker is told; what is wrong with it is kept.
    fn commit(&self, partition: i32, next: i64) {
        let mut seen = self.seen.lock();
        for (message, id) in self.of(partition).iter().filter(|(message, _)| message.offset < next) {
            let done = id.as_ref().is_some_and(|id| seen.runs.get(id).is_some_and(|runs| runs.done));
            if !done && !seen.dead.contains_key(&(partition, message.offset)) {
                let at = message.offset;
                seen.wrong.push(format!("{next} is committed over {partition}/{at}, which is not handled"));
            }
        }
        let before = seen.committed.insert(partition, next);
        if before.is_some_and(|before| before > next) {
            seen.wrong.push(format!("{partition} goes back from {before:?} to {next}"));
        }
    }

    fn events(&self) -> BTreeSet<&str> {
        self.log.iter().flatten().filter_map(|(_, id)| id.as_deref()).collect()
    }

    fn handler(self: &Arc<Self>, ledger: Ledger, config: Config, fails: u64, seed: u64) -> Deduplicated {
        let (world, chance) = (Arc::clone(self), Arc::new(Mutex::new(Chance::new(seed))));
        let handler = Deduplicated::try_new(ledger, config, move |event, claim| {
            let (world, chance) = (Arc::clone(&world), Arc::clone(&chance));
            async move {
                world.seen.lock().begins(event.id(), &claim);
                let (pause, failed) = {
                    let mut chance = chance.lock();
                    (chance.below(30), chance.happens(fails))
                };
                sleep(Duration::from_millis(pause)).await;
                world.seen.lock().ends(event.id(), !failed);
                if failed { Err("not yet".into()) } else { Ok(()) }
            }
        });
        handler.unwrap()
    }
}

/// A member that has these partitions, until it is told to give them up.
struct Member {
    places: Vec<i32>,
    over: CancellationToken,
    ended: JoinHandle<()>,
}

/// A message that has come back, and whether it is done.
type Back = (Place, Ticket, bool);

impl Member {
    fn start(world: &Arc<World>, handler: &Deduplicated, places: Vec<i32>, seed: u64) -> Self {
        let over = CancellationToken::new();
        let works = work(Arc::clone(world), handler.clone(), places.clone(), over.clone(), Chance::new(seed));
        Self { places, over, ended: tokio::spawn(works) }
    }

    /// Its partitions, once it has given them up.
    async fn stop(self) -> Vec<i32> {
        self.over.cancel();
        self.ended.await.unwrap();
        self.places
    }
}

async fn work(
    world: Arc<World>,
    handler: Deduplicated,
    places: Vec<i32>,
    over: CancellationToken,
    mut chance: Chance,
) {
    let (back, mut came) = mpsc::unbounded_channel();
    let mut books = Offsets::new();
    let turn = Arc::new(Turn::until(over.clone(), Arc::new(Semaphore::new(8))));
    let places: Vec<Place> = places.into_iter().map(|partition| Place::new(TOPIC, partition)).collect();
    let mut position: BTreeMap<i32, i64> = BTreeMap::new();
    for place in &places {
        books.assign(place.clone());
        position.insert(place.partition, world.committed(place.partition));
    }
    while !over.is_cancelled() {
        for place in &places {
            while books.held(place) < IN_FLIGHT {
                let from = position[&place.partition];
                let next = world.of(place.partition).iter().find(|(message, _)| message.offset >= from);
                let Some((message, _)) = next else { break };
                position.insert(place.partition, message.offset + 1);
                let ticket = books.deliver(place, message.offset).unwrap();
                let message = Arc::new(message.clone());
                let sees = see(
                    Arc::clone(&world),
                    handler.clone(),
                    Arc::clone(&turn),
                    message,
                    ticket,
                    back.clone(),
                );
                tokio::spawn(sees);
            }
        }
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            Some(back) = came.recv() => note(&mut books, &back),
            () = sleep(Duration::from_millis(40)) => {}
        }
        if chance.happens(40) {
            commit(&world, &mut books, &mut chance);
        }
    }
    // What ends soon is committed; the rest is left to its lease, and says nothing any more.
    let drained = async {
        while places.iter().any(|place| books.running(place) > 0) {
            let Some(back) = came.recv().await else { return };
            note(&mut books, &back);
        }
    };
    tokio::select! {
        () = drained => {}
        () = sleep(Duration::from_millis(chance.below(400))) => {}
    }
    commit(&world, &mut books, &mut chance);
}

async fn see(
    world: Arc<World>,
    handler: Deduplicated,
    turn: Arc<Turn>,
    message: Arc<Message>,
    ticket: Ticket,
    back: mpsc::UnboundedSender<Back>,
) {
    let is_done = match handler.deliver(&message, &turn).await {
        Delivered::Handled | Delivered::Duplicate => true,
        Delivered::DeadLetter(letter) => {
            world.seen.lock().dead.insert((message.partition, message.offset), letter.reason);
            true
        }
        Delivered::GivenUp => false,
    };
    // Nobody listens to what ends after its member.
    drop(back.send((Place::new(TOPIC, message.partition), ticket, is_done)));
}

fn note(books: &mut Offsets, (place, ticket, is_done): &Back) {
    if *is_done {
        books.complete(place, *ticket);
    }
}

/// Commits what may be; now and then that fails.
fn commit(world: &World, books: &mut Offsets, chance: &mut Chance) {
    for (place, next) in books.take_all() {
        if chance.happens(20) {
            books.not_committed(&place, next);
        } else {
            world.commit(place.partition, next);
        }
    }
}

/// A group whose store is well, bad or gone, while its partitions change hands.
struct Play {
    world: Arc<World>,
    store: Arc<Faulty>,
    handler: Deduplicated,
    chance: Chance,
    seed: u64,
}

impl Play {
    fn new(seed: u64, config: Config, fails: u64) -> Self {
        let mut chance = Chance::new(seed);
        let (store, ledger) = faulty(seed);
        let world = World::new(&mut chance, 40);
        let handler = world.handler(ledger, config, fails, seed);
        Self { world, store, handler, chance, seed }
    }

    fn member(&mut self, places: Vec<i32>) -> Member {
        let seed = self.chance.number();
        Member::start(&self.world, &self.handler, places, seed)
    }

    /// Until everything is committed.
    async fn through(mut self) -> (u64, Arc<World>) {
        let played = async {
            let mut members = vec![self.member(vec![0, 1]), self.member(vec![2])];
            for round in 0.. {
                // The first rounds are whatever they are; then the store is only bad at times, and in the end it is well.
                let (writes, reads) = match round {
                    0..8 => [(0, 0), (30, 15), (80, 40), (100, 100)]
                        [usize::try_from(self.chance.below(4)).unwrap()],
                    8..16 => (20, 10),
                    _ => (0, 0),
                };
                self.store.odds(Odds { writes, reads, delays: 30 });
                sleep(Duration::from_millis(50 + self.chance.below(5_000))).await;
                let gives_up = usize::try_from(self.chance.below(2)).unwrap();
                let places = members.swap_remove(gives_up).stop().await;
                members.push(self.member(places));
                if round >= 16 && self.world.all_committed() {
                    break;
                }
            }
            for member in members {
                member.stop().await;
            }
            // What was on its way all the time arrives, and changes nothing any more.
            self.store.land().await;
        };
        let ended = tokio::time::timeout(HANG, played).await;
        assert!(ended.is_ok(), "seed {}: {:?}", self.seed, self.world.seen.lock());
        (self.seed, self.world)
    }
}

fn seeds() -> std::ops::Range<u64> {
    0..if std::env::var_os("SEMEL_FULL").is_some() { 1_000 } else { 40 }
}

/// What holds whatever is promised: nothing at once, nothing unawares, nothing committed over what is not handled, and
/// every message handled, or put aside for the reason that it has.
fn nothing_is_wrong(seed: u64, world: &World, expected: &[Reason]) {
    let noted = world.seen.lock();
    assert!(noted.wrong.is_empty(), "seed {seed}: {:#?}", noted.wrong);
    for (message, id) in world.log.iter().flatten() {
        let reason = noted.dead.get(&(message.partition, message.offset));
        match id {
            None => assert_eq!(reason, Some(&Reason::Malformed), "seed {seed}: {message:?}"),
            Some(id) => {
                let done = noted.runs.get(id).is_some_and(|runs| runs.done);
                assert!(done || reason.is_some(), "seed {seed}: {id} is lost");
                assert!(
                    reason.is_none_or(|reason| expected.contains(reason)),
                    "seed {seed}: {id} is put aside as {reason:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_store_does_within_a_lease_each_event_is_done_once_and_none_is_lost_l7_l12() {
    for seed in seeds() {
        let (seed, world) = Play::new(seed, config(), 0).through().await;
        nothing_is_wrong(seed, &world, &[]);
        let noted = world.seen.lock();
        let begun: BTreeMap<&str, u32> =
            noted.runs.iter().map(|(id, runs)| (id.as_str(), runs.begun)).collect();
        let once: BTreeMap<&str, u32> = world.events().into_iter().map(|id| (id, 1)).collect();
        assert_eq!(begun, once, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_over_a_store_that_fails_is_done_once_in_the_end_and_none_is_lost() {
    for seed in seeds() {
        let (seed, world) = Play::new(seed, config().attempts(1_000), 30).through().await;
        nothing_is_wrong(seed, &world, &[]);
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_once_a_store_that_is_gone_for_longer_than_a_lease_never_makes_a_handler_run_twice_l7() {
    let mut unknown = 0;
    for seed in seeds() {
        let (seed, world) = Play::new(seed, config().lease(SHORT).at_most_once(), 0).through().await;
        nothing_is_wrong(seed, &world, &[Reason::Unknown]);
        let noted = world.seen.lock();
        assert!(noted.runs.values().all(|runs| runs.begun == 1), "seed {seed}: {:?}", noted.runs);
        unknown += noted.dead.values().filter(|reason| **reason == Reason::Unknown).count();
    }
    assert!(unknown > 0, "no outage has outlasted a lease, so nothing was shown");
}

#[tokio::test(start_paused = true)]
async fn resumed_after_an_outage_longer_than_a_lease_a_handler_is_told_that_it_may_have_run_before() {
    let mut again = 0;
    for seed in seeds() {
        let (seed, world) = Play::new(seed, config().lease(SHORT).attempts(1_000), 0).through().await;
        nothing_is_wrong(seed, &world, &[]);
        again += world.seen.lock().runs.values().filter(|runs| runs.begun > 1).count();
    }
    assert!(again > 0, "no outage has outlasted a lease, so nothing was shown");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_gone_nothing_is_handled_put_aside_or_committed_and_then_all_is() {
    let mut play = Play::new(7, config(), 0);
    play.store.odds(Odds { writes: 100, reads: 100, delays: 0 });
    let member = play.member(vec![0, 1, 2]);
    sleep(Duration::from_secs(60)).await;
    {
        let seen = play.world.seen.lock();
        let unread = seen.dead.values().all(|reason| *reason == Reason::Malformed);
        assert!(seen.begun() == 0 && unread, "{seen:?}");
        for (partition, committed) in &seen.committed {
            let before = play.world.of(*partition).iter().filter(|(message, _)| message.offset < *committed);
            assert!(before.into_iter().all(|(_, id)| id.is_none()), "{partition} up to {committed}");
        }
    }
    play.store.odds(Odds::default());
    let world = Arc::clone(&play.world);
    let ended = tokio::time::timeout(HANG, async {
        while !world.all_committed() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(ended.await.is_ok(), "{:?}", world.seen.lock());
    member.stop().await;
    nothing_is_wrong(7, &world, &[]);
    assert!(world.seen.lock().runs.values().all(|runs| runs.begun == 1));
}

/// What a handler says, one after the other; then it is content.
type Says = &'static [fn() -> HandlerError];
const FINE: Says = &[];
const FLAKY: Says = &[|| "not yet".into()];
const SHY: Says = &[|| HandlerError::not_executed("not sent"), || "not yet".into()];
const HOPELESS: Says = &[|| HandlerError::permanent("never")];

/// A handler that says so, and how often it ran.
fn says(ledger: &Ledger, config: Config, errors: Says) -> (Deduplicated, Arc<Mutex<usize>>) {
    let runs = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&runs);
    let handler = Deduplicated::try_new(ledger.clone(), config, move |_, _| {
        let mut counted = counted.lock();
        let said = errors.get(*counted).map_or(Ok(()), |error| Err(error()));
        *counted += 1;
        async { said }
    });
    (handler.unwrap(), runs)
}

/// Every kind of fault at every write of every way that a message can go: before the effect (the claim) and after it (its
/// end), once and more often than one command tries.
#[tokio::test(start_paused = true)]
async fn one_fault_at_any_write_changes_nothing_of_what_becomes_of_a_message() {
    for (errors, runs, is_handled) in
        [(FINE, 1, true), (FLAKY, 2, true), (SHY, 3, true), (HOPELESS, 1, false)]
    {
        for fault in Fault::ALL {
            for (before, times) in (0..6).flat_map(|before| [(before, 1), (before, 6)]) {
                let case = format!("{runs} runs, {fault:?} {times} times after {before} writes");
                let (store, ledger) = faulty(1);
                let (handler, ran) = says(&ledger, config(), errors);
                let faults = [vec![Fault::None; before], vec![fault; times]].concat();
                store.script(&faults);
                let first = handler.handle(&event("e-1")).await;
                let second = handler.handle(&event("e-1")).await;
                store.land().await;
                let third = handler.handle(&event("e-1")).await;
                assert_eq!(*ran.lock(), runs, "{case}");
                for (delivered, is_first) in [(first, true), (second, false), (third, false)] {
                    match delivered {
                        // Its end was stored by who tried again in the background.
                        Delivered::Handled => assert!(is_handled && is_first, "{case}"),
                        Delivered::Duplicate => assert!(is_handled, "{case}"),
                        Delivered::DeadLetter(letter) => {
                            assert!(!is_handled && letter.reason == Reason::Rejected, "{case}: {letter:?}");
                        }
                        Delivered::GivenUp => panic!("{case}: nobody has ended its turn"),
                    }
                }
            }
        }
    }
}

/// Nothing has run under such a claim, and so no try is spent.
#[tokio::test(start_paused = true)]
async fn claims_whose_answers_were_lost_put_no_event_aside() {
    let (_, ledger) = faulty(1);
    let (handler, runs) = says(&ledger, config().attempts(3), FINE);
    let message = event("e-1").to_message(TOPIC);
    for _ in 0..7 {
        let request = Arc::new(handler.request(&message).unwrap());
        let Answer::Granted(claim) = ledger.claim(request, None).await.unwrap() else { panic!("it is free") };
        // Whoever asked has never heard of it, and gives it back.
        ledger.abandon(claim.holder()).await.unwrap();
    }
    assert_eq!(handler.handle_message(&Arc::new(message)).await, Delivered::Handled);
    assert_eq!(*runs.lock(), 1);
}

//! The real consumer and a real broker, over a store that fails: what the log in memory of `tests/faults.rs` stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use semel_conformance::faulty::{Faulty, Odds};
use semel_core::ledger::LedgerError;
use semel_core::{Ledger, Store};
use semel_kafka::observe::{Observer, What};
use semel_kafka::{CloudEvent, Config, Consumer, Deduplicated, Message, Settings};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;

use crate::broker::{
    self, all_committed, brokers, committed, dead_letters, eventually, producer, reader, send, unique,
};

const PARTITIONS: i32 = 3;
const EVENTS: usize = 120;

/// Counts what the store did not answer.
#[derive(Default)]
struct Failures(AtomicUsize);

impl Observer for Failures {
    fn happened(&self, _: &str, _: &str, _: What) {}

    fn storage_failed(&self, _: &LedgerError) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Failures {
    async fn more(&self, number: usize) {
        let before = self.0.load(Ordering::SeqCst);
        eventually(&format!("the store fails {number} times more"), async || {
            let failed = self.0.load(Ordering::SeqCst) - before;
            if failed >= number { Ok(()) } else { Err(failed.to_string()) }
        })
        .await;
    }
}

/// What was sent, by where it lies: an event, or none.
type Sent = BTreeMap<(i32, i64), Option<String>>;
/// How often each event was handled.
type Runs = Arc<Mutex<BTreeMap<String, u32>>>;

/// A third of them twice, here and there; and some that are no events, none of them first.
async fn produce(brokers: &str, topic: &str) -> Sent {
    let producer = producer(brokers);
    let mut sent = Sent::new();
    for number in 0..EVENTS * 4 / 3 {
        let id = format!("e-{}", number % EVENTS);
        let event = CloudEvent::new(&id, "/shop", "placed").unwrap();
        let partition = i32::try_from(number / 7).unwrap() % PARTITIONS;
        let place = send(&producer, &Message { partition, ..event.to_message(topic) }).await;
        sent.insert(place, Some(id));
        if number % 30 == 29 {
            sent.insert(send(&producer, &Message::new(topic, partition, 0).with_payload("x")).await, None);
        }
    }
    sent
}

/// A group over one ledger, which several members share.
struct Group {
    settings: Settings,
    handler: Deduplicated,
}

impl Group {
    fn member(&self) -> Consumer {
        Consumer::start(&self.settings, self.handler.clone()).unwrap()
    }
}

/// Looked at in this order, so that it holds at any time.
fn nothing_is_skipped(brokers: &str, topic: &str, group: &str, sent: &Sent, runs: &Runs) {
    let committed = committed(&reader(brokers, group), topic, PARTITIONS);
    let (handled, dead) = (runs.lock().clone(), dead_letters(brokers, topic));
    for ((partition, offset), id) in sent {
        if *offset < committed[usize::try_from(*partition).unwrap()] {
            let is_done = id
                .as_ref()
                .map_or_else(|| dead.contains_key(&(*partition, *offset)), |id| handled.contains_key(id));
            assert!(is_done, "{partition}/{offset} ({id:?}) is committed, and not done");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_store_that_fails_nothing_is_handled_twice_lost_or_committed_unhandled_l7_l12() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, PARTITIONS).await;
    let sent = produce(&brokers, &topic).await;
    let store = Arc::new(Faulty::over(Arc::new(MemoryStore::new()), 11));
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(OsEntropy));
    let (runs, failures) = (Runs::default(), Arc::new(Failures::default()));
    let counted = Arc::clone(&runs);
    // Nothing lapses by itself, however slow the machine is.
    let config = Config::new("order-service", &*topic, &*group).lease(Duration::from_secs(3_000));
    let handler = Deduplicated::try_new(ledger, config, move |event, _| {
        *counted.lock().entry(event.id().to_owned()).or_default() += 1;
        async { Ok(()) }
    });
    let handler = handler.unwrap().observed(Arc::clone(&failures) as _).unwrap();
    let settings = Settings::new(&*brokers).commit_every(Duration::from_millis(50));
    let group_of = Group { settings: settings.drain(Duration::from_millis(500)), handler };

    // It is gone before anybody comes.
    store.odds(Odds { writes: 100, reads: 100, delays: 0 });
    let first = group_of.member();
    failures.more(30).await;
    assert!(runs.lock().is_empty(), "nothing is handled on a claim that has no answer");
    let asked = reader(&brokers, &group);
    assert_eq!(committed(&asked, &topic, PARTITIONS), [0, 0, 0], "and nothing is committed");

    // It comes back, and is bad; members come and go meanwhile.
    store.odds(Odds { writes: 60, reads: 30, delays: 30 });
    let second = group_of.member();
    failures.more(10).await;
    nothing_is_skipped(&brokers, &topic, &group, &sent, &runs);
    first.stop().await;
    let third = group_of.member();
    nothing_is_skipped(&brokers, &topic, &group, &sent, &runs);

    store.odds(Odds::default());
    all_committed(&brokers, &group, &topic, PARTITIONS).await;
    second.stop().await;
    third.stop().await;
    store.land().await;
    let once: BTreeMap<String, u32> = (0..EVENTS).map(|number| (format!("e-{number}"), 1)).collect();
    assert_eq!(*runs.lock(), once, "each once");
    let wrong: BTreeSet<(i32, i64)> =
        sent.iter().filter(|(_, id)| id.is_none()).map(|(place, _)| *place).collect();
    let dead = dead_letters(&brokers, &topic);
    assert_eq!(dead.keys().copied().collect::<BTreeSet<_>>(), wrong, "and nothing else is put aside");
    assert!(dead.values().all(|reason| reason == "malformed"), "{dead:?}");
}

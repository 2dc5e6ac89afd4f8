//! One consumer, and two: what is handled, committed, put aside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use semel_core::Ledger;
use semel_kafka::{CloudEvent, Config, Consumer, Deduplicated, HandlerError, Identity, Message, Settings};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use tokio::sync::Semaphore;

use crate::broker::{
    self, all_committed, brokers, committed, eventually, producer, reader, send, text, unique,
};

fn ledger() -> Ledger {
    Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy))
}

fn settings(brokers: &str) -> Settings {
    Settings::new(brokers).commit_every(Duration::from_millis(50)).option("session.timeout.ms", "10000")
}

fn config(topic: &str, group: &str) -> Config {
    let pause = Duration::from_millis(5);
    Config::new("order-service", topic, group).pauses(pause, pause)
}

fn event(id: &str) -> CloudEvent {
    let event = CloudEvent::new(id, "/shop", "placed").unwrap();
    event.with_data("application/json", format!(r#"{{"order":"{id}"}}"#))
}

/// An event in binary mode, for a partition.
fn binary(topic: &str, partition: i32, id: &str) -> Message {
    Message { partition, ..event(id).to_message(topic) }
}

/// The same event in structured mode.
fn structured(topic: &str, partition: i32, id: &str) -> Message {
    let json = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"placed","datacontenttype":"application/json","data":{{"order":"{id}"}}}}"#
    );
    Message::new(topic, partition, 0)
        .with_header("Content-Type", "Application/CloudEvents+JSON; charset=UTF-8")
        .with_payload(json)
}

/// How often the handler ran for each event.
type Runs = Arc<Mutex<BTreeMap<String, u32>>>;

fn counting(ledger: Ledger, config: Config) -> (Deduplicated, Runs) {
    let runs = Runs::default();
    let counted = Arc::clone(&runs);
    let handler = Deduplicated::try_new(ledger, config, move |event, _| {
        *counted.lock().entry(event.id().to_owned()).or_default() += 1;
        async { Ok(()) }
    });
    (handler.unwrap(), runs)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_handled_once_per_group_in_either_mode_and_what_is_malformed_is_put_aside() {
    let Some(brokers) = brokers() else { return };
    let (topic, groups) = (unique("orders"), [unique("a"), unique("b")]);
    broker::topic(&brokers, &topic, 3).await;
    let producer = producer(&brokers);
    let mut malformed = BTreeMap::new();
    for n in 0..60 {
        let id = format!("e-{}", n % 20);
        // Three times each, in all partitions and both modes.
        let message =
            if n % 2 == 0 { binary(&topic, n % 3, &id) } else { structured(&topic, (n / 7) % 3, &id) };
        send(&producer, &message).await;
    }
    let tombstone = Message { payload: None, ..binary(&topic, 0, "tombstone") };
    send(&producer, &tombstone.with_null_header("traceparent")).await;
    for (message, why) in [
        (Message::new(&*topic, 0, 0), "it is no CloudEvent"),
        (
            Message::new(&*topic, 1, 0)
                .with_header("ce_id", "1")
                .with_null_header("ce_source")
                .with_payload("x"),
            "`specversion` is missing",
        ),
        (
            structured(&topic, 2, "x").with_header("content-type", "application/cloudevents-batch+json"),
            "batch",
        ),
    ] {
        malformed.insert(send(&producer, &message).await, (message, why));
    }
    let expected: BTreeMap<String, u32> =
        (0..20).map(|n| (format!("e-{n}"), 1)).chain([("tombstone".to_owned(), 1)]).collect();
    let ledger = ledger();
    for group in &groups {
        let (handler, runs) = counting(ledger.clone(), config(&topic, group));
        let consumer = Consumer::start(&settings(&brokers), handler).unwrap();
        all_committed(&brokers, group, &topic, 3).await;
        assert_eq!(*runs.lock(), expected, "{group}");
        consumer.stop().await;
    }
    let letters = broker::all_of(&brokers, &format!("{topic}.dlq"));
    assert_eq!(letters.len(), 2 * malformed.len(), "once for each group");
    for letter in letters {
        let place = (text(&letter, "semel-dlq-partition"), text(&letter, "semel-dlq-offset"));
        let (original, why) = &malformed[&(place.0.parse().unwrap(), place.1.parse().unwrap())];
        assert_eq!((&letter.payload, &letter.key), (&original.payload, &original.key));
        assert_eq!(letter.headers[..original.headers.len()], original.headers[..]);
        assert_eq!(text(&letter, "semel-dlq-reason"), "malformed");
        assert!(text(&letter, "semel-dlq-error").contains(why), "{}", text(&letter, "semel-dlq-error"));
        assert_eq!(
            (text(&letter, "semel-dlq-attempts"), text(&letter, "semel-dlq-topic")),
            ("0".into(), topic.clone())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_in_place_then_put_aside_and_put_back_it_is_handled_once_more() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, 1).await;
    let producer = producer(&brokers);
    for id in ["poison", "flaky", "permanent", "fine", "poison"] {
        send(&producer, &binary(&topic, 0, id).with_key("all").with_header("x-kept", "1")).await;
    }
    let (tries, repaired) = (Runs::default(), Arc::new(Mutex::new(false)));
    let (counted, mended) = (Arc::clone(&tries), Arc::clone(&repaired));
    let handler = Deduplicated::try_new(ledger(), config(&topic, &group).attempts(3), move |event, claim| {
        *counted.lock().entry(event.id().to_owned()).or_default() += 1;
        let mended = *mended.lock();
        async move {
            match event.id() {
                "poison" if !mended => panic!("it always does"),
                "flaky" if claim.attempt() < 3 => Err("not yet".into()),
                "permanent" => Err(HandlerError::permanent("never")),
                _ => Ok(()),
            }
        }
    });
    let consumer = Consumer::start(&settings(&brokers), handler.unwrap()).unwrap();
    all_committed(&brokers, &group, &topic, 1).await;
    let runs_of = |id: &str| tries.lock()[id];
    assert_eq!((runs_of("poison"), runs_of("flaky"), runs_of("permanent"), runs_of("fine")), (3, 3, 1, 1));
    let letters = broker::all_of(&brokers, &format!("{topic}.dlq"));
    let said: Vec<_> = letters
        .iter()
        .map(|letter| {
            (text(letter, "ce_id"), text(letter, "semel-dlq-reason"), text(letter, "semel-dlq-attempts"))
        })
        .collect();
    let row =
        |id: &str, reason: &str, attempts: &str| (id.to_owned(), reason.to_owned(), attempts.to_owned());
    // The second one of the same identity is not tried again, and not dropped.
    assert_eq!(
        said,
        [row("poison", "failed", "3"), row("permanent", "rejected", "1"), row("poison", "rejected", "3")]
    );
    assert_eq!(text(&letters[0], "semel-dlq-error"), "the handler has panicked");
    assert!(
        letters.iter().all(|letter| text(letter, "x-kept") == "1" && letter.key == Some(Bytes::from("all")))
    );

    *repaired.lock() = true;
    for _ in 0..2 {
        send(&producer, &Message { topic: topic.as_str().into(), partition: 0, ..letters[0].clone() }).await;
    }
    all_committed(&brokers, &group, &topic, 1).await;
    assert_eq!(runs_of("poison"), 4, "put back twice, it is handled once");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_behind_one_that_is_not_done_are_not_committed_and_a_restart_handles_only_that() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, 1).await;
    let producer = producer(&brokers);
    for n in 0..10 {
        send(&producer, &binary(&topic, 0, &format!("e-{n}"))).await;
    }
    let (ledger, runs, gate) = (ledger(), Runs::default(), Arc::new(Semaphore::new(0)));
    let start = |gate: Arc<Semaphore>| {
        let counted = Arc::clone(&runs);
        // Nobody takes over within this test.
        let config = config(&topic, &group).lease(Duration::from_secs(600));
        let handler = Deduplicated::try_new(ledger.clone(), config, move |event, _| {
            *counted.lock().entry(event.id().to_owned()).or_default() += 1;
            let gate = Arc::clone(&gate);
            async move {
                if event.id() == "e-3" {
                    gate.acquire().await?.forget();
                }
                Ok(())
            }
        });
        let settings = settings(&brokers).drain(Duration::from_millis(10));
        Consumer::start(&settings, handler.unwrap()).unwrap()
    };
    let consumer = start(Arc::clone(&gate));
    eventually("all have begun", async || {
        let runs = runs.lock().len();
        if runs == 10 { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    let asked = reader(&brokers, &group);
    eventually("what is before the gap is committed", async || {
        let committed = committed(&asked, &topic, 1);
        if committed == [3] { Ok(()) } else { Err(format!("{committed:?}")) }
    })
    .await;
    eventually("it is told how far it is behind", async || {
        let status = consumer.status();
        if status.lag == 7 && status.partitions.len() == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    // It does not wait for the one that runs: that is left to its lease, and goes on.
    consumer.stop().await;
    assert_eq!(committed(&asked, &topic, 1), [3], "e-4 and later are done, and not committed over e-3");

    let second = start(Arc::clone(&gate));
    eventually("the second one has the partition", async || {
        let status = second.status();
        if status.partitions.len() == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    gate.add_permits(1);
    all_committed(&brokers, &group, &topic, 1).await;
    assert!(runs.lock().values().all(|runs| *runs == 1), "{:?}", runs.lock());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partition_is_drained_before_its_new_owner_begins() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, 2).await;
    let producer = producer(&brokers);
    let (ledger, gate) = (ledger(), Arc::new(Semaphore::new(0)));
    let begun = Arc::new(Mutex::new(Vec::new()));
    let start = |name: &'static str| {
        let (begun, gate) = (Arc::clone(&begun), Arc::clone(&gate));
        let handler = Deduplicated::try_new(ledger.clone(), config(&topic, &group), move |event, _| {
            begun.lock().push((name, event.id().to_owned()));
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await?.forget();
                Ok(())
            }
        });
        let settings = settings(&brokers).drain(Duration::from_secs(120));
        Consumer::start(&settings, handler.unwrap()).unwrap()
    };
    for partition in 0..2 {
        send(&producer, &binary(&topic, partition, &format!("e-{partition}"))).await;
    }
    let first = start("first");
    eventually("both run", async || {
        let begun = begun.lock().clone();
        if begun.len() == 2 { Ok(()) } else { Err(format!("{begun:?}")) }
    })
    .await;
    let second = start("second");
    // One of the two partitions is to go over, and its handler still runs: when it has ended, that is committed.
    gate.add_permits(2);
    eventually("each has one", async || {
        let (one, two) = (first.status().partitions, second.status().partitions);
        if one.len() == 1 && two.len() == 1 { Ok(()) } else { Err(format!("{one:?} {two:?}")) }
    })
    .await;
    all_committed(&brokers, &group, &topic, 2).await;
    assert_eq!(begun.lock().len(), 2, "nothing was delivered to the second again that the first had done");
    gate.add_permits(2);
    for partition in 0..2 {
        send(&producer, &binary(&topic, partition, &format!("later-{partition}"))).await;
    }
    all_committed(&brokers, &group, &topic, 2).await;
    let handled: Vec<_> = begun.lock()[2..].iter().map(|(name, _)| *name).collect();
    assert!(handled.contains(&"first") && handled.contains(&"second"), "{handled:?}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_one_that_runs_elsewhere_is_waited_for_with_its_partition_paused_and_is_not_skipped() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, 2).await;
    let producer = producer(&brokers);
    let gate = Arc::new(Semaphore::new(0));
    let runs = Runs::default();
    let (counted, held) = (Arc::clone(&runs), Arc::clone(&gate));
    let handler = Deduplicated::try_new(ledger(), config(&topic, &group), move |event, _| {
        *counted.lock().entry(event.id().to_owned()).or_default() += 1;
        let held = Arc::clone(&held);
        async move {
            if event.id() == "same" {
                held.acquire().await?.forget();
            }
            Ok(())
        }
    });
    // One message at a time: who waits leaves its place to the others.
    let settings = settings(&brokers).concurrency(1).in_flight(4);
    let consumer = Consumer::start(&settings, handler.unwrap()).unwrap();
    for partition in 0..2 {
        send(&producer, &binary(&topic, partition, "same")).await;
    }
    let asked = reader(&brokers, &group);
    eventually("one runs", async || {
        let runs = runs.lock().clone();
        if runs.len() == 1 { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert_eq!(
        committed(&asked, &topic, 2),
        [0, 0],
        "neither is committed: one runs, and the other waits for it"
    );
    gate.add_permits(1);
    all_committed(&brokers, &group, &topic, 2).await;
    for partition in 0..2 {
        for n in 0..20 {
            send(&producer, &binary(&topic, partition, &format!("{partition}-{n}"))).await;
        }
    }
    all_committed(&brokers, &group, &topic, 2).await;
    assert_eq!(runs.lock().len(), 41);
    assert!(runs.lock().values().all(|runs| *runs == 1), "{:?}", runs.lock());
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_publish_that_fails_commits_nothing() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::make(&brokers, &topic, 1, &[]).await;
    // It takes nothing of this size: whatever is sent to it is refused.
    broker::make(&brokers, &format!("{topic}.dlq"), 1, &[("max.message.bytes", "200")]).await;
    let producer = producer(&brokers);
    send(&producer, &binary(&topic, 0, "good")).await;
    send(&producer, &Message::new(&*topic, 0, 0).with_payload("x".repeat(1_000))).await;
    send(&producer, &binary(&topic, 0, "behind")).await;
    let (handler, runs) = counting(ledger(), config(&topic, &group));
    let refused = Arc::new(Refusals::default());
    let consumer =
        Consumer::start_observed(&settings(&brokers), Arc::new(handler), Arc::clone(&refused) as _).unwrap();
    eventually("it was refused, and refused again", async || {
        let refused = *refused.0.lock();
        if refused >= 2 { Ok(()) } else { Err(refused.to_string()) }
    })
    .await;
    consumer.stop().await;
    assert_eq!(runs.lock().len(), 2, "what is behind it is handled");
    assert_eq!(committed(&reader(&brokers, &group), &topic, 1), [1], "and not committed over it");
}

/// Counts dead letters that were not acknowledged.
#[derive(Default)]
struct Refusals(Mutex<u32>);

impl semel_kafka::Observer for Refusals {
    fn happened(&self, _: &str, _: &str, what: semel_kafka::observe::What) {
        if what == semel_kafka::observe::What::NotDeadLettered {
            *self.0.lock() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_are_handled_in_their_order_and_those_of_others_at_once() {
    let Some(brokers) = brokers() else { return };
    let (topic, group) = (unique("orders"), unique("group"));
    broker::topic(&brokers, &topic, 1).await;
    let producer = producer(&brokers);
    let (gate, order) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (held, seen) = (Arc::clone(&gate), Arc::clone(&order));
    let config = config(&topic, &group).identity(Identity::Offset);
    let handler = Deduplicated::of_messages(ledger(), config, move |message, _| {
        let (held, seen) = (Arc::clone(&held), Arc::clone(&seen));
        async move {
            let key = String::from_utf8(message.key.clone().unwrap_or_default().to_vec())?;
            if key == "slow" {
                held.acquire().await?.forget();
            }
            seen.lock().push((key, message.offset));
            Ok(())
        }
    });
    let consumer = Consumer::start(&settings(&brokers), handler.unwrap()).unwrap();
    for key in ["slow", "fast", "slow", "fast", "slow", "fast"] {
        send(&producer, &Message::new(&*topic, 0, 0).with_key(key).with_payload("same")).await;
    }
    eventually("the fast ones are through", async || {
        let order = order.lock().clone();
        if order.len() == 3 { Ok(()) } else { Err(format!("{order:?}")) }
    })
    .await;
    gate.add_permits(3);
    all_committed(&brokers, &group, &topic, 1).await;
    let expected: Vec<(String, i64)> =
        [("fast", 1), ("fast", 3), ("fast", 5), ("slow", 0), ("slow", 2), ("slow", 4)]
            .map(|(key, at)| (key.to_owned(), at))
            .into();
    assert_eq!(*order.lock(), expected);
    consumer.stop().await;
}

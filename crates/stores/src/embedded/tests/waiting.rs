//! What waits, for a worker or for somebody to look at it, may wait for days: it lies in the log, and not in memory.

use std::sync::Arc;

use bytes::Bytes;
use semel_core::Record;
use semel_core::command::{Accept, Command, Take, Verdict};
use semel_core::error::StoreErrorKind;
use semel_core::id::{Key, Lane, Token};
use semel_core::outcome::Headers;
use semel_core::query::Query;
use semel_core::record::StateName;
use semel_core::request::Input;
use semel_core::store::{Inserted, Store};

use super::{clock, options, stepped};
use crate::embedded::EmbeddedStore;
use crate::embedded::disk::sim::SimDisk;
use crate::embedded::engine::Engine;
use crate::embedded::testing::{complete, completed, replaced, request};

/// Takes work in, or files it among the dead letters.
async fn taken_in(store: &EmbeddedStore, key: &str, is_dead: bool) -> Arc<Record> {
    let body = Bytes::from(vec![key.as_bytes()[key.len() - 1]; 400]);
    let input = Input::try_new("POST", "", Headers::default(), body).unwrap();
    let request = Arc::new((*request(key)).clone().with_input(input));
    let accept = if is_dead { Accept::try_dead(request, "why".into()) } else { Accept::try_new(request) };
    let Verdict::Write(write) = accept.unwrap().decide(None, store.time()) else { panic!("it is there") };
    match stepped(store, store.insert(*write)).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("occupied by {record:?}"),
    }
}

fn bank() -> Option<Lane> {
    Lane::try_new("bank").ok()
}

fn held(engine: &Engine) -> usize {
    engine.shards().iter().map(|shard| shard.lock().active.len()).sum()
}

async fn dead_letters(store: &EmbeddedStore) -> usize {
    let query = Query { states: vec![StateName::Dead], ..Query::default() };
    store.search(query, None, 1_000).await.unwrap().items.len()
}

#[tokio::test]
async fn what_waits_takes_no_memory_but_its_place_and_comes_back_from_the_log_as_it_was() {
    let (disk, clock) = (SimDisk::default(), clock());
    let options = options(&clock).cache_bytes(16 << 10);
    let open = || EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options).unwrap();
    let mut store = open();
    let (mut pending, mut dead) = (Vec::new(), Vec::new());
    for n in 0..150 {
        pending.push(taken_in(&store, &format!("event-{n}"), false).await);
        dead.push(taken_in(&store, &format!("dead-{n}"), true).await);
    }
    pending.sort_by_key(|record| (record.due(), record.id()));
    for is_reopened in [false, true] {
        if is_reopened {
            drop(store);
            store = open();
        }
        assert_eq!((held(&store.engine), store.stats().unsettled), (0, 300));
        assert!(store.engine.cache.weight() <= 16 << 10, "{}", store.engine.cache.weight());
        assert_eq!(store.take_due(bank(), 1_000).await.unwrap().value, pending);
        assert_eq!(store.take_due(None, 1_000).await.unwrap().value, []);
        assert_eq!(dead_letters(&store).await, 150);
        for record in pending.iter().chain(&dead) {
            assert_eq!(store.load(record.id()).await.unwrap().value.as_ref(), Some(record));
            let query = Query { key: Some(record.request().key().clone()), ..Query::default() };
            assert_eq!(store.search(query, None, 2).await.unwrap().items.len(), 1);
        }
        let oldest = store.oldest_pending().await.unwrap().value;
        assert_eq!(oldest, pending.iter().map(|record| record.times().created).min());
    }
    for record in &pending {
        let command = Take { id: record.id(), token: Token::from_bytes([3; 16]) };
        let Verdict::Write(write) = command.decide(Some(record), store.time()) else { panic!("not due") };
        let running = replaced(stepped(&store, store.replace(*write, record.version())).await);
        assert_eq!(held(&store.engine), 1);
        let write = complete(&running, b"done");
        replaced(stepped(&store, store.replace(write, running.version())).await);
        assert_eq!(held(&store.engine), 0);
    }
    assert_eq!(store.take_due(bank(), 1_000).await.unwrap().value, []);
    assert_eq!((store.stats().unsettled, dead_letters(&store).await), (150, 150));
    assert_eq!(store.oldest_pending().await.unwrap().value, None);
    // A merge carries what waits, and it is found where it lies then.
    let (quiet, before) = (Some(store.newest_segment()), store.newest_segment());
    (0..200).for_each(|_| store.upkeep(quiet));
    assert!(store.newest_segment() > before, "it was carried");
    assert_eq!(dead_letters(&store).await, 150);
    for record in dead {
        assert_eq!(store.load(record.id()).await.unwrap().value, Some(record));
    }
}

#[tokio::test]
async fn what_waits_and_cannot_be_read_is_corrupt_to_who_asks_and_holds_up_nothing_else_l13() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    let damaged = taken_in(&store, "event-1", false).await;
    let other = taken_in(&store, "event-2", false).await;
    stepped(&store, async { drop(completed(&store, "another", b"x").await) }).await;
    disk.flip("00000001.log", 4096 + 40 + 20);
    store.engine.cache.clear();
    for _ in 0..2 {
        assert_eq!(store.take_due(bank(), 10).await.unwrap().value, [Arc::clone(&other)]);
    }
    let error = store.load(damaged.id()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let query = Query { key: Key::try_new("event-1").ok(), ..Query::default() };
    let error = store.search(query, None, 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

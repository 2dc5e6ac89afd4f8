//! What is the store's own: slots, void versions, what leaves, several nodes, lost connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{DateTime, Document, doc};
use semel_conformance::fixture::{Ask, Hand, claim_holder, claim_key, outcome, write_of};
use semel_core::audit::Entry;
use semel_core::command::{Complete, Extend, Release};
use semel_core::error::StoreErrorKind;
use semel_core::query::AuditQuery;
use semel_core::store::{Inserted, Replaced};
use semel_core::{Record, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::setup::Turn;
use super::testing::{Room, url};
use super::{MongoStore, Options};

/// Longer than any test may take: who is not woken hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(100_000);

async fn store(options: &Options) -> Arc<MongoStore> {
    Arc::new(MongoStore::open(options).await.unwrap())
}

fn hand(store: &Arc<MongoStore>) -> Hand {
    Hand::on(Arc::clone(store) as Arc<dyn Store>)
}

async fn inserted(store: &MongoStore, ask: &Ask) -> Arc<Record> {
    match store.insert(write_of(&claim_key(ask, 1), store, None)).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("{record:?}"),
    }
}

async fn versions(room: &Room, ask: &Ask) -> Vec<Document> {
    use futures_util::TryStreamExt;
    let versions = room.versions();
    let found = versions.find(doc! { "r": ask.id().to_string() }).sort(doc! { "n": -1 });
    found.await.unwrap().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_are_created_by_many_nodes_at_once_and_again() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let mut nodes = JoinSet::new();
    for _ in 0..4 {
        let options = room.options();
        nodes.spawn(async move { MongoStore::open(&options).await.unwrap() });
    }
    let nodes = nodes.join_all().await;
    super::initialize_indexes(&room.database, &room.name).await.unwrap();
    let names = room.versions().list_index_names().await.unwrap();
    let unique = names.iter().filter(|name| *name == "semel_r_1_n_-1");
    assert_eq!(unique.count(), 1, "{names:?}");
    // FerretDB is known for having none that serve a query, and none that expire.
    for name in ["semel_wakeAt_1", "semel_purgeAt"] {
        assert_eq!(names.contains(&name.to_owned()), !nodes[0].is_ferretdb(), "{names:?}");
    }
    let ask = Ask::key("a");
    let there = inserted(&nodes[0], &ask).await;
    assert_eq!(nodes[3].load(ask.id()).await.unwrap().value, Some(there));
}

/// Of many who find an index missing one makes it at a time; who has died in their turn is not waited for any longer than
/// that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_are_made_in_turns_and_a_turn_ends_with_its_node() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let (mut nodes, busy) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for _ in 0..6 {
        let (database, name, busy) = (room.database.clone(), room.name.clone(), Arc::clone(&busy));
        nodes.spawn(async move {
            let turn = Turn::take(&database, &name, FOR_EVER).await.unwrap();
            assert!(!busy.swap(true, Ordering::SeqCst), "two at once");
            database.run_command(doc! { "ping": 1 }).await.unwrap();
            busy.store(false, Ordering::SeqCst);
            turn.end().await.unwrap();
        });
    }
    nodes.join_all().await;
    let died = Turn::take(&room.database, &room.name, FOR_EVER).await.unwrap();
    let next = Turn::take(&room.database, &room.name, Duration::ZERO).await.unwrap();
    assert_eq!((died.number(), next.number()), (7, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_find_a_record_by_the_names_they_know() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let store = store(&room.options()).await;
    hand(&store).complete(&Ask::key("order-1").tag("order_id", "A-1")).await;
    let found =
        room.versions().find_one(doc! { "key": "order-1", "state": "completed" }).await.unwrap().unwrap();
    assert_eq!(found.get_array("tags").unwrap()[0].as_str(), Some("order_id=A-1"));
    let (created, expires) =
        (found.get_datetime("createdAt").unwrap(), found.get_datetime("expiresAt").unwrap());
    let day = 24 * 60 * 60 * 1_000;
    assert!(expires.timestamp_millis() - created.timestamp_millis() >= day);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_a_version_that_came_too_late_is_void_and_in_nobodys_way() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let store = store(&room.options()).await;
    let ask = Ask::key("a");
    let there = inserted(&store, &ask).await;
    // Somebody was paused before they sent the next version, until long after it was due.
    let mut late = versions(&room, &ask).await.remove(0);
    let next = late.get_i64("n").unwrap() + 1;
    late.insert("_id", super::slot::slot(&ask.id().to_string(), next));
    late.insert("n", next);
    late.remove("birth");
    let came = late.get_datetime("at").unwrap().timestamp_millis();
    late.insert("by", DateTime::from_millis(came - 1));
    room.versions().insert_one(late).await.unwrap();
    assert_eq!(store.load(ask.id()).await.unwrap().value.as_ref(), Some(&there));
    assert_eq!(store.counts().await.unwrap().iter().map(|count| count.records).sum::<u64>(), 1);
    let extend = Extend { holder: claim_holder(&ask, 1) };
    let write = write_of(&extend, &*store, Some(&there));
    let Replaced::Replaced(extended) = store.replace(write, there.version()).await.unwrap().value else {
        panic!("it goes on behind what is void")
    };
    assert_eq!(extended.version(), there.version().next());
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(extended));
    while store.shared().settle().await.unwrap() {}
    assert_eq!(store.counts().await.unwrap().iter().map(|count| count.records).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_what_is_removed_leaves_in_the_end_and_fences_rise_over_it() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let store = store(&room.options().keep(Duration::ZERO)).await;
    let (hand, ask) = (hand(&store), Ask::key("a"));
    let mut last = semel_core::Fence(0);
    for round in 0..3 {
        let claim = hand.claim(&ask).await;
        assert!(claim.fence() > last, "round {round}");
        last = claim.fence();
        let released = hand.done(&Release { holder: claim.holder(), error: "refused".into() }).await;
        assert!(store.remove(ask.id(), released.version()).await.unwrap());
        if round == 1 {
            // The next life begins behind the tombstone, before that is forgotten.
            continue;
        }
        while !versions(&room, &ask).await.is_empty() {
            store.sweep(10).await.unwrap();
        }
        assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    }
    assert!(inserted(&store, &Ask::key("b")).await.fence() > last);
    assert_eq!(store.counts().await.unwrap().iter().map(|count| count.records).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn superseded_versions_are_emptied_and_deleted_and_the_newest_one_stays() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let store = store(&room.options().keep(Duration::ZERO)).await;
    let (hand, ask) = (hand(&store), Ask::key("a"));
    let claim = hand.claim(&ask).await;
    for _ in 0..4 {
        hand.done(&Extend { holder: claim.holder() }).await;
    }
    let done = hand.done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await;
    assert_eq!(versions(&room, &ask).await.len(), 6);
    // The place of the first one stays, so that nobody can begin where a record is.
    while versions(&room, &ask).await.len() > 2 {
        store.sweep(10).await.unwrap();
    }
    let left = versions(&room, &ask).await;
    assert!(left[0].contains_key("record") && !left[1].contains_key("record"), "{left:?}");
    let other_node = self::store(&room.options()).await;
    assert_eq!(other_node.load(ask.id()).await.unwrap().value.as_ref(), Some(&done));
    let again = write_of(&claim_key(&ask, 2), &*other_node, None);
    assert_eq!(other_node.insert(again).await.unwrap().value, Inserted::Occupied(done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_settle_and_nothing_is_counted_twice() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let (one, two) = (store(&room.options()).await, store(&room.options()).await);
    let mut workers = JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(if number % 2 == 0 { &one } else { &two });
        workers.spawn(async move {
            hand(&store).complete(&Ask::key(&format!("key-{number}"))).await;
            let entry = Entry::new(semel_core::audit::Action::Claimed, "test".into());
            store.append_audit(vec![entry]).await.unwrap();
            store.shared().settle().await.unwrap();
        });
    }
    workers.join_all().await;
    for store in [&one, &two] {
        let counts = store.counts().await.unwrap();
        assert_eq!(counts.len(), 1, "{counts:?}");
        assert_eq!(counts[0].records, 20);
    }
    while one.shared().settle().await.unwrap() {}
    assert_eq!(two.counts().await.unwrap()[0].records, 20);
    assert_eq!(one.audit(AuditQuery::default(), None, 100).await.unwrap().items.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_find_what_other_nodes_did_by_looking() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let options = room.options().poll(Duration::from_millis(5));
    let (here, there) = (store(&options).await, store(&options).await);
    let hand = hand(&there);
    let claim = hand.claim(&Ask::key("a").lease_ms(86_000_000)).await;
    let mut seen = claim.record().version();
    for round in 0..4 {
        let (waiter, id) = (Arc::clone(&here), claim.record().id());
        let waits = tokio::spawn(async move { waiter.changed(id, seen, FOR_EVER).await.unwrap().value });
        let changed = hand.done(&Extend { holder: claim.holder() }).await;
        assert_eq!(waits.await.unwrap(), Some(Arc::clone(&changed)));
        seen = changed.version();
        here.next_due().await.unwrap();
        let waiter = Arc::clone(&here);
        let waits = tokio::spawn(async move { waiter.due_changed(FOR_EVER).await.unwrap() });
        hand.accept(&Ask::key(&format!("key-{round}")).lane(&format!("lane-{round}"))).await;
        waits.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_times_are_the_servers() {
    let Some(url) = url() else { return };
    let room = Room::new(url).await;
    let store = store(&room.options()).await;
    let said = async || {
        let hello = room.database.run_command(doc! { "hello": 1 }).await.unwrap();
        hello.get_datetime("localTime").unwrap().timestamp_millis().unsigned_abs()
    };
    let before = said().await;
    let times = *inserted(&store, &Ask::key("a").lease_ms(5_000)).await.times();
    let after = said().await;
    // A stamp may be ahead by as long as the question took, which is less than what lies between the two.
    let within = before..=after + (after - before) + 1_000;
    assert!(within.contains(&times.written.as_millis()), "{before} {times:?} {after}");
    assert_eq!(times.wake, Some(times.written.plus(Duration::from_millis(5_000))));
    assert_eq!(times.created, times.written);
}

/// Something before the server that can lose the answers on their way.
struct Proxy {
    address: std::net::SocketAddr,
    cuts: Arc<AtomicBool>,
}

impl Proxy {
    async fn before(url: &str) -> Self {
        let server = url.trim_start_matches("mongodb://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicBool::new(false));
        let also = Arc::clone(&cuts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, cuts) = (server.clone(), Arc::clone(&also));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    carry(client, server, &cuts).await;
                });
            }
        });
        Self { address, cuts }
    }
}

/// Carries both ways, until an end closes or an answer is to be lost: then the connection goes with it.
async fn carry(client: TcpStream, server: TcpStream, cuts: &AtomicBool) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asks = async { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
    let answers = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length) = from_server.read(&mut bytes).await {
            if length == 0
                || cuts.load(Ordering::SeqCst)
                || to_client.write_all(&bytes[..length]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! { () = asks => {}, () = answers => {} }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_leaves_the_write_in_doubt_and_the_store_recovers() {
    let Some(url) = url() else { return };
    let room = Room::new(url.clone()).await;
    let proxy = Proxy::before(&url).await;
    let through = room.url.replace(url.trim_end_matches('/'), &format!("mongodb://{}", proxy.address));
    let store = store(&Options::parse(&through).unwrap()).await;
    let (lost, next) = (Ask::key("lost"), Ask::key("next"));
    inserted(&store, &Ask::key("before")).await;
    let write = write_of(&claim_key(&lost, 1), &*store, None);
    proxy.cuts.store(true, Ordering::SeqCst);
    let error = store.insert(write).await.expect_err("nobody answered");
    assert_eq!(error.kind(), StoreErrorKind::InDoubt, "{error}");
    proxy.cuts.store(false, Ordering::SeqCst);
    // It was done, as it happens, and a look settles it.
    while store.ready().await.is_err() {
        tokio::task::yield_now().await;
    }
    let there = store.load(lost.id()).await.unwrap().value.unwrap();
    assert_eq!(there.token(), Some(semel_conformance::fixture::token_of(1)));
    inserted(&store, &next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_no_absence() {
    if url().is_none() {
        return;
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("mongodb://127.0.0.1:{nobody}/?serverSelectionTimeoutMS=200");
    let error = MongoStore::open(&Options::parse(&url).unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("cannot open MongoDB"), "{error}");
}

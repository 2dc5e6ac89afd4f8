//! What is Redis's own: lost connections, scripts that are forgotten, restarts, servers that would throw records away, several
//! nodes; failovers and clusters in rooms of their own.

mod cluster;
mod failover;

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use semel_conformance::fixture::{Ask, Hand, claim_holder, claim_key, outcome, write_of};
use semel_core::command::{Claimed, Complete, Extend, Release};
use semel_core::error::StoreErrorKind;
use semel_core::store::Inserted;
use semel_core::{Record, Store, Timestamp};
use tokio::task::JoinSet;

use super::instance::{Instance, Way};
use super::testing::{Space, Stepped, url, valkey};
use super::{Options, RedisStore};
use crate::clock::SteppedClock;

/// Longer than any test may take: who is not woken hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(100_000);

const AGAIN: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: true };

async fn store(options: &Options) -> Arc<RedisStore> {
    Arc::new(RedisStore::open(options).await.unwrap())
}

fn options(url: &str, more: &str) -> Options {
    Options::parse(&format!("{url}?prefix=semel{more}")).unwrap()
}

async fn inserted(store: &RedisStore, ask: &Ask) -> Arc<Record> {
    match store.insert(write_of(&claim_key(ask, 1), store, None)).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("{record:?}"),
    }
}

fn hand(store: &Arc<RedisStore>) -> Hand {
    Hand::on(Arc::clone(store) as Arc<dyn Store>)
}

/// The script has run, and its answer waits for a replica that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_connection_that_is_killed_between_the_script_and_its_answer_leaves_the_write_in_doubt() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&[]);
    let way = Way::to(server.port).await;
    let _replica = Instance::replica_of(way.port).await;
    let store = store(&options(&server.url(), "&wait_replicas=1&wait_timeout_ms=4900")).await;
    let ask = Ask::key("a");
    way.leads_to(None);
    let waits = {
        let (store, ask) = (Arc::clone(&store), ask.clone());
        tokio::spawn(async move { store.insert(write_of(&claim_key(&ask, 1), &*store, None)).await })
    };
    server.until(cmd("INFO").arg("clients"), |clients| clients.contains("blocked_clients:1")).await;
    server.kill_clients().await;
    let error = waits.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InDoubt, "{error}");
    // Nobody is shown what one server alone has.
    way.leads_to(Some(server.port));
    server.until_replicated().await;
    let there = store.load(ask.id()).await.unwrap().value.expect("it had happened");
    assert_eq!(there.token(), Some(claim_holder(&ask, 1).token));
}

/// They are held back by the server, so that the connection ends before the script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_connection_that_is_killed_before_the_script_leaves_the_write_in_doubt_and_nothing_is_there() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&[]);
    let store = store(&options(&server.url(), "")).await;
    let ask = Ask::key("a");
    let () = server.ask(cmd("CLIENT").arg("PAUSE").arg(100_000).arg("WRITE")).await;
    let waits = {
        let (store, ask) = (Arc::clone(&store), ask.clone());
        tokio::spawn(async move { store.insert(write_of(&claim_key(&ask, 1), &*store, None)).await })
    };
    server.until(cmd("INFO").arg("clients"), |clients| clients.contains("blocked_clients:1")).await;
    server.kill_clients().await;
    let error = waits.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InDoubt, "{error}");
    let () = server.ask(cmd("CLIENT").arg("UNPAUSE")).await;
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    inserted(&store, &ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let store = store(&Options::parse(&space.url()).unwrap()).await;
    for round in 0..5 {
        let () = space.ask(cmd("SCRIPT").arg("FLUSH")).await;
        let claim = hand(&store).claim(&Ask::key(&format!("key-{round}"))).await;
        let () = space.ask(cmd("SCRIPT").arg("FLUSH")).await;
        hand(&store).done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await;
    }
    assert_eq!(store.counts().await.unwrap()[0].records, 5);
}

/// Workers are at work when it happens; what each was told is there afterwards, and the store goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_what_was_acknowledged_outlives_a_crash_of_the_server() {
    if url().is_none() {
        return;
    }
    let mut server = Instance::start(&[]);
    let store = store(&options(&server.url(), "")).await;
    let mut fences = 0;
    for round in 0..3 {
        let mut workers = JoinSet::new();
        let told = Arc::new(parking_lot::Mutex::new(Vec::<Arc<Record>>::new()));
        for worker in 0..8 {
            let (hand, told) = (hand(&store), Arc::clone(&told));
            workers.spawn(async move {
                for number in 0.. {
                    let ask = Ask::key(&format!("{round}-{worker}-{number}"));
                    let Ok(Claimed::Granted(claim)) = hand.ledger.claim(ask.request(), None).await else {
                        return;
                    };
                    told.lock().push(Arc::clone(claim.record()));
                    let complete = Complete { holder: claim.holder(), outcome: outcome("done") };
                    let Ok(semel_core::command::Held::Done(done)) = hand.ledger.apply(&complete).await else {
                        return;
                    };
                    told.lock().push(done);
                }
            });
        }
        while told.lock().len() < 100 {
            tokio::task::yield_now().await;
        }
        server.kill();
        workers.join_all().await;
        let failed = store.load(Ask::key("nobody").id()).await.unwrap_err();
        assert_eq!(failed.kind(), AGAIN, "L12: {failed}");
        server.start_again();
        let told = told.lock().clone();
        for record in &told {
            let there = store.load(record.id()).await.unwrap().value;
            let there = there.unwrap_or_else(|| panic!("lost: {record:?}"));
            assert!(there.version() >= record.version(), "L4: {there:?} after {record:?}");
        }
        let claim = hand(&store).claim(&Ask::key(&format!("after-{round}"))).await;
        assert!(claim.fence().0 > fences, "L2");
        fences = claim.fence().0;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_would_throw_records_away_is_refused() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = RedisStore::open(&options(&server.url(), "")).await.unwrap_err().to_string();
    assert!(error.contains("maxmemory-policy allkeys-lru") && error.contains("noeviction"), "{error}");
}

/// Whichever version is installed: before 7.2 there is no `WAITAOF`, and from then on it is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_what_is_to_be_synced_is_waited_for_or_refused_at_once_where_the_server_cannot_say() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&["--appendfsync", "everysec"]);
    let asked = options(&server.url(), "&wait_aof=true&wait_timeout_ms=4000");
    let info: String = server.ask(cmd("INFO").arg("server")).await;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap());
    if (parts.next().unwrap(), parts.next().unwrap()) < (7, 2) {
        let error = RedisStore::open(&asked).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("`wait_aof` needs Redis 7.2 or later") && said.contains(version), "{said}");
        assert!(!error.retry_helps(), "waiting makes it no younger");
        return;
    }
    let store = store(&asked).await;
    let there = inserted(&store, &Ask::key("a")).await;
    assert_eq!(store.load(there.id()).await.unwrap().value, Some(there));
    let no_log = Instance::start(&["--appendonly", "no"]);
    let error = RedisStore::open(&options(&no_log.url(), "&wait_aof=true")).await.unwrap_err().to_string();
    assert!(error.contains("appendonly yes"), "{error}");
}

/// By a server that can say so, whatever Redis the distribution has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_what_is_acknowledged_is_in_the_synced_log_here_and_in_the_replicas_or_nothing_runs_on_it() {
    let Some(valkey) = valkey() else { return };
    let mut server = Instance::start_of(&valkey, &["--appendfsync", "everysec"]);
    let replica = Instance::replica_by(&valkey, server.port).await;
    // Its log begins with what it was sent at first, which it writes beside everything else.
    let has_its_log = |said: &str| {
        ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|is| said.contains(is))
    };
    replica.until(cmd("INFO").arg("persistence"), has_its_log).await;
    let node = store(&options(&server.url(), "&wait_aof=true&wait_replicas=1&wait_timeout_ms=4000")).await;
    let mut told = Vec::new();
    for number in 0..3 {
        let claim = hand(&node).claim(&Ask::key(&format!("key-{number}"))).await;
        told.push(hand(&node).done(&Complete { holder: claim.holder(), outcome: outcome("done") }).await);
    }
    // Of what has gone through the log, all is synced: on the replica, too.
    let info: String = replica.ask(cmd("INFO").arg("persistence")).await;
    assert!(info.contains("aof_enabled:1") && info.contains("aof_last_write_status:ok"), "{info}");

    // Without the replica nothing is enough, and what nobody could be told of runs nowhere.
    let alone = store(&options(&server.url(), "&wait_aof=true&wait_timeout_ms=4000")).await;
    drop(replica);
    let ask = Ask::key("doubtful");
    assert!(hand(&node).ledger.claim(ask.request(), None).await.is_err(), "nothing runs");
    let error = node.load(ask.id()).await.unwrap_err();
    assert_eq!(error.kind(), AGAIN, "it is there, and not shown");

    // Nor is it where the log is switched off under way.
    hand(&alone).claim(&Ask::key("synced")).await;
    let () = server.ask(cmd("CONFIG").arg("SET").arg("appendonly").arg("no")).await;
    assert!(hand(&alone).ledger.claim(Ask::key("unsynced").request(), None).await.is_err(), "nothing runs");

    server.kill();
    server.start_again();
    let after = store(&options(&server.url(), "&wait_aof=true&wait_timeout_ms=4000")).await;
    for record in told {
        assert_eq!(after.load(record.id()).await.unwrap().value, Some(record), "what was told is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_is_no_place_for_records() {
    if url().is_none() {
        return;
    }
    let sentinel = Instance::sentinel();
    let error = RedisStore::open(&options(&sentinel.url(), "")).await.unwrap_err().to_string();
    assert!(error.contains("this is a Sentinel") && error.contains("takes writes"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_may_lose_is_said() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    assert_eq!(store(&Options::parse(&space.url()).unwrap()).await.warnings(), [""; 0]);
    for (arguments, said) in [
        (["--appendonly", "no"], "`appendonly no`"),
        (["--appendfsync", "everysec"], "`appendfsync everysec`"),
        (["--maxmemory-policy", "volatile-ttl"], "`maxmemory-policy volatile-ttl`"),
    ] {
        let server = Instance::start(&arguments);
        let store = store(&options(&server.url(), "")).await;
        assert!(store.warnings().len() == 1 && store.warnings()[0].contains(said), "{:?}", store.warnings());
        assert!(!store.survives_failover());
    }
    let server = Instance::start(&[]);
    let _replica = Instance::replica_of(server.port).await;
    let store = store(&options(&server.url(), "")).await;
    assert!(store.warnings()[0].contains("a failover loses claims"), "{:?}", store.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_a_write_whole_and_takes_it_later() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&[]);
    let store = store(&options(&server.url(), "")).await;
    let there = inserted(&store, &Ask::key("there")).await;
    let () = server.ask(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb")).await;
    let ask = Ask::key("a");
    let error = store.insert(write_of(&claim_key(&ask, 1), &*store, None)).await.unwrap_err();
    assert_eq!(error.kind(), AGAIN, "{error}");
    assert_eq!(store.ready().await.unwrap_err().kind(), AGAIN);
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    assert_eq!(store.load(there.id()).await.unwrap().value, Some(there), "reads go on");
    let () = server.ask(cmd("CONFIG").arg("SET").arg("maxmemory").arg("0")).await;
    inserted(&store, &ask).await;
    assert_eq!(store.counts().await.unwrap()[0].records, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_no_place_to_write() {
    if url().is_none() {
        return;
    }
    let server = Instance::start(&[]);
    let replica = Instance::replica_of(server.port).await;
    let error = RedisStore::open(&options(&replica.url(), "")).await.unwrap_err().to_string();
    assert!(error.contains("takes no writes"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_no_absence() {
    let nobody = super::instance::free_port();
    let error = RedisStore::open(&options(&format!("redis://127.0.0.1:{nobody}/"), "")).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect to Redis"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_open_a_prefix_together_agree_on_its_shards() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let mut nodes = JoinSet::new();
    for shards in [2, 2, 5, 5] {
        let options = Options::parse(&format!("{}&shards={shards}", space.url())).unwrap();
        nodes.spawn(async move { RedisStore::open(&options).await });
    }
    let opened = nodes.join_all().await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 2);
    for error in opened.into_iter().filter_map(Result::err) {
        assert!(error.to_string().contains("cannot be changed"), "{error}");
    }
    store(&Options::parse(&space.url()).unwrap()).await;
    let () = space.ask(cmd("HSET").arg(super::keys::layout(&space.prefix)).arg("layout").arg(99)).await;
    let error = RedisStore::open(&Options::parse(&space.url()).unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("layout 99") && error.contains("newer"), "{error}");
}

/// The record is written last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l13_an_order_that_holds_something_else_is_corrupt_and_the_record_stays_as_it_was() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let store = store(&Options::parse(&space.url()).unwrap()).await;
    let there = inserted(&store, &Ask::key("a")).await;
    let shard = &space.shards(1)[0];
    for key in [&shard.names, &shard.counts, &shard.due] {
        let aside = format!("{key}-aside");
        let () = space.ask(cmd("RENAME").arg(key).arg(&aside)).await;
        let () = space.ask(cmd("SET").arg(key).arg("not ours")).await;
        let new = Ask::key("new");
        let error = store.insert(write_of(&claim_key(&new, 1), &*store, None)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        assert_eq!(store.load(new.id()).await.unwrap().value, None);
        let complete = Complete { holder: claim_holder(&Ask::key("a"), 1), outcome: outcome("done") };
        let write = write_of(&complete, &*store, Some(&there));
        let error = store.replace(write, there.version()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        assert_eq!(store.load(there.id()).await.unwrap().value.as_ref(), Some(&there));
        let () = space.ask(cmd("RENAME").arg(&aside).arg(key)).await;
    }
    let () = space.ask(cmd("SET").arg(shard.record(there.id())).arg("not ours")).await;
    assert_eq!(store.load(there.id()).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_times_are_the_servers_whatever_this_nodes_clock_says() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let in_1970 = SteppedClock::at(Timestamp::ZERO);
    let store = store(&Options::parse(&space.url()).unwrap().clock(Arc::new(in_1970))).await;
    let now = async || {
        let (seconds, micros): (u64, u64) = space.ask(&cmd("TIME")).await;
        seconds * 1_000 + micros / 1_000
    };
    let before = now().await;
    let times = *inserted(&store, &Ask::key("a").lease_ms(5_000)).await.times();
    assert!((before..=now().await).contains(&times.written.as_millis()), "{before} {times:?}");
    assert_eq!(times.wake, Some(times.written.plus(Duration::from_millis(5_000))));
    assert_eq!(times.created, times.written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_fences_and_times_of_a_record_never_go_back_though_the_servers_clock_does() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(&url, 1).await;
    let store = stepped.store.clone().unwrap();
    let claim = hand(&store).claim(&Ask::key("a")).await;
    let past = Timestamp::from_millis(1_699_999_000_000);
    stepped.space.set_clock(1, past).await;
    let extended = hand(&store).done(&Extend { holder: claim.holder() }).await;
    assert_eq!(extended.times().written, claim.record().times().written);
    assert!(store.load(claim.record().id()).await.unwrap().as_of >= extended.times().written);
    let released = hand(&store).done(&Release { holder: claim.holder(), error: "refused".into() }).await;
    assert!(store.remove(released.id(), released.version()).await.unwrap());
    assert!(hand(&store).claim(&Ask::key("a")).await.fence() > claim.fence());
}

async fn waiters_hear_of_other_nodes([here, there]: [Arc<RedisStore>; 2]) {
    let hand = hand(&there);
    let claim = hand.claim(&Ask::key("a").lease_ms(86_000_000)).await;
    let mut seen = claim.record().version();
    for round in 0..10 {
        let (waiter, id) = (Arc::clone(&here), claim.record().id());
        let waits = tokio::spawn(async move { waiter.changed(id, seen, FOR_EVER).await.unwrap().value });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let changed = hand.done(&Extend { holder: claim.holder() }).await;
        assert_eq!(waits.await.unwrap(), Some(Arc::clone(&changed)));
        seen = changed.version();
        here.next_due().await.unwrap();
        let waiter = Arc::clone(&here);
        let waits = tokio::spawn(async move { waiter.due_changed(FOR_EVER).await.unwrap() });
        tokio::task::yield_now().await;
        hand.accept(&Ask::key(&format!("key-{round}")).lane(&format!("lane-{round}"))).await;
        waits.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_find_what_other_nodes_did_by_looking() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let quiet = Options::parse(&format!("{}&notify=false", space.url())).unwrap();
    let quiet = quiet.poll(Duration::from_millis(5));
    waiters_hear_of_other_nodes([store(&quiet).await, store(&quiet).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_notified_of_what_other_nodes_did() {
    let Some(url) = url() else { return };
    let space = Space::new(&url).await;
    let listening = Options::parse(&space.url()).unwrap().poll(FOR_EVER);
    waiters_hear_of_other_nodes([store(&listening).await, store(&listening).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_verified_over_tls() {
    if url().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let port = super::instance::free_port().to_string();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let _server = Instance::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    ]);
    let trusted = format!("rediss://localhost:{port}/?ca_file={certificate}");
    let store = store(&Options::parse(&trusted).unwrap()).await;
    inserted(&store, &Ask::key("a")).await;
    for url in
        [format!("rediss://127.0.0.1:{port}/?ca_file={certificate}"), format!("rediss://localhost:{port}/")]
    {
        let error = RedisStore::open(&Options::parse(&url).unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("cannot connect"), "{error}");
    }
}

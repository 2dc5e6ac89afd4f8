//! A real cluster of three servers: records over all of them, a slot that moves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use semel_conformance::fixture::{Ask, Hand, outcome};
use semel_conformance::subject::{Doing, Subject};
use semel_core::command::{Complete, Release};
use semel_core::query::{AuditQuery, Query};
use semel_core::{Store, Timestamp};

use super::{hand, inserted, store, url};
use crate::clock::{Clock, SteppedClock};
use crate::redis::instance::{Instance, free_port};
use crate::redis::keys::Shard;
use crate::redis::{Options, RedisStore};

const SLOTS: u16 = 16_384;

struct Cluster {
    servers: Vec<Instance>,
}

impl Cluster {
    async fn start() -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            Instance::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
            ])
        };
        let servers: Vec<_> = (0..3).map(start).collect();
        for (number, server) in (0u16..).zip(&servers) {
            let part = SLOTS / 3;
            let to = if number == 2 { SLOTS - 1 } else { (number + 1) * part - 1 };
            let () = server.ask(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(number * part).arg(to)).await;
            let bus = server.argument("--cluster-port");
            let meet = cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(server.port).arg(bus).clone();
            let () = servers[0].ask(&meet).await;
        }
        for server in &servers {
            let whole =
                |said: &str| said.contains("cluster_state:ok") && said.contains("cluster_known_nodes:3");
            server.until(cmd("CLUSTER").arg("INFO"), whole).await;
        }
        Self { servers }
    }

    fn url(&self) -> String {
        format!("{}?prefix=semel&nodes=127.0.0.1:{}", self.servers[0].url(), self.servers[1].port)
    }

    /// Moves a slot from whichever server has it to the next one, with all its keys.
    async fn move_slot(&self, slot: u16) {
        let from = usize::from(slot / (SLOTS / 3)).min(2);
        let (from, to) = (&self.servers[from], &self.servers[(from + 1) % 3]);
        let ids: [String; 2] =
            [from.ask(cmd("CLUSTER").arg("MYID")).await, to.ask(cmd("CLUSTER").arg("MYID")).await];
        let set = |how: &str, id: &str| cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(how).arg(id).clone();
        let () = to.ask(&set("IMPORTING", &ids[0])).await;
        let () = from.ask(&set("MIGRATING", &ids[1])).await;
        let keys: Vec<Vec<u8>> = from.ask(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100_000)).await;
        assert!(!keys.is_empty());
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
        let () = from.ask(&migrate).await;
        for server in [to, from] {
            let () = server.ask(&set("NODE", &ids[1])).await;
        }
    }
}

/// A store over a cluster, whose clock goes when it is told to.
struct Stepped {
    cluster: Cluster,
    clock: SteppedClock,
    shards: Vec<Shard>,
    store: Arc<RedisStore>,
}

impl Stepped {
    async fn new() -> Option<Self> {
        url()?;
        let cluster = Cluster::start().await;
        let began = Timestamp::from_millis(1_700_000_000_000);
        let clock = SteppedClock::at(began);
        let shards: Vec<_> = (0..16).map(|number| Shard::new("semel", number)).collect();
        let here = Arc::new(clock.clone()) as Arc<dyn Clock>;
        for shard in &shards {
            let set = cmd("HSET").arg(&shard.own).arg("clock").arg(began.as_millis()).clone();
            cluster.at(shard).ask::<()>(&set).await;
        }
        let options = Options::parse(&cluster.url()).unwrap().clock(here).poll(Duration::from_millis(20));
        let store = store(&options.stepped()).await;
        Some(Self { cluster, clock, shards, store })
    }
}

impl Cluster {
    fn at(&self, shard: &Shard) -> &Instance {
        &self.servers[usize::from(shard.slot / (SLOTS / 3)).min(2)]
    }
}

impl Subject for Stepped {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn pass(&self, length: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            let by = u64::try_from(length.as_millis()).unwrap();
            for shard in &self.shards {
                let step = cmd("HINCRBY").arg(&shard.own).arg("clock").arg(by).clone();
                self.cluster.at(shard).ask::<()>(&step).await;
            }
            self.clock.advance(length);
        })
    }
}

semel_conformance::store_suite! { Stepped::new;
    swap: of_many_inserts_of_a_key_exactly_one_is_inserted;
    swap: of_many_replacements_of_a_version_exactly_one_is_replaced;
    swap: l2_fences_rise_and_no_version_comes_twice_across_removal_and_reuse;
    swap: records_of_every_state_are_loaded_as_they_were_written;
    swap: workers_on_many_keys_do_not_disturb_each_other;
    due: lanes_come_with_the_longest_due_first;
    due: of_many_workers_that_take_exactly_one_is_granted;
    changes: fifty_waiters_wake_together;
    counts: counts_hold_what_a_search_finds_after_a_storm;
    search: paging_misses_nothing_that_was_there_while_records_are_inserted;
    audit: an_operators_entry_is_in_the_same_write;
    sweep: a_sweep_is_limited;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_spread_over_the_servers_and_found_as_one() {
    if url().is_none() {
        return;
    }
    let cluster = Cluster::start().await;
    let store = store(&Options::parse(&cluster.url()).unwrap()).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    for number in 0..60 {
        hand.complete(&Ask::key(&format!("key-{number}")).tag("partner", "p")).await;
    }
    for server in &cluster.servers {
        let keys: u64 = server.ask(&cmd("DBSIZE")).await;
        assert!(keys > 5, "{keys}");
    }
    let (mut found, mut cursor) = (HashSet::new(), None);
    loop {
        let page = store.search(Query::default(), cursor, 7).await.unwrap();
        found.extend(page.items.iter().map(|item| item.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 60);
    assert_eq!(store.counts().await.unwrap()[0].records, 60);
    assert_eq!(store.audit(AuditQuery::default(), None, 10).await.unwrap().items, []);
}

/// Whoever asks where it was is sent on, and asks there from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_takes_its_records_along_and_fences_go_on_rising() {
    if url().is_none() {
        return;
    }
    let cluster = Cluster::start().await;
    let store = store(&Options::parse(&format!("{}&shards=1", cluster.url())).unwrap()).await;
    let ask = Ask::key("a");
    let there = inserted(&store, &ask).await;
    cluster.move_slot(Shard::new("semel", 0).slot).await;
    assert_eq!(store.load(ask.id()).await.unwrap().value.as_ref(), Some(&there));
    let holder = semel_conformance::fixture::claim_holder(&ask, 1);
    let released = hand(&store).done(&Release { holder, error: "refused".into() }).await;
    assert!(store.remove(released.id(), released.version()).await.unwrap());
    let again = hand(&store).claim(&ask).await;
    assert!(again.fence() > there.fence());
    hand(&store).done(&Complete { holder: again.holder(), outcome: outcome("done") }).await;
}

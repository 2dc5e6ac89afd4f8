//! What a failover costs, shown: two servers, the replication between them cut, and the other one promoted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::cmd;
use semel_conformance::fixture::{Ask, outcome};
use semel_core::command::{Claimed, Complete, Extend, Held, Release};
use semel_core::error::StoreErrorKind;
use semel_core::{Fence, Store, Timestamp};

use super::{hand, options, store, url};
use crate::clock::SteppedClock;
use crate::redis::Options;
use crate::redis::instance::{Instance, Way};
use crate::redis::keys::Shard;

/// A server, its replica, and what leads from one to the other and from nodes to whichever serves.
struct Pair {
    primary: Instance,
    replica: Instance,
    replication: Way,
    name: Way,
}

impl Pair {
    async fn start() -> Self {
        let primary = Instance::start(&[]);
        let replication = Way::to(primary.port).await;
        let replica = Instance::replica_of(replication.port).await;
        let name = Way::to(primary.port).await;
        Self { primary, replica, replication, name }
    }

    /// From now on the replica hears of nothing.
    async fn cut(&self) {
        self.primary.until_replicated().await;
        self.replication.leads_to(None);
        let down = |said: &str| said.contains("connected_slaves:0");
        self.primary.until(cmd("INFO").arg("replication"), down).await;
    }

    /// The replica takes over, and the name leads there.
    async fn fail_over(&self) {
        let () = self.replica.ask(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
        self.name.leads_to(Some(self.replica.port));
    }

    fn options(&self, more: &str) -> Options {
        options(&self.name.url(), more)
    }
}

/// What the work is done to: it refuses a fence below the highest that it has seen.
#[derive(Default)]
struct Resource(Mutex<Vec<Fence>>);

impl Resource {
    fn accepts(&self, fence: Fence) -> bool {
        let mut accepted = self.0.lock();
        let newer = accepted.last().is_none_or(|last| fence >= *last);
        if newer {
            accepted.push(fence);
        }
        newer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_a_claim_that_was_granted_its_key_runs_again_and_fences_guard_the_work() {
    if url().is_none() {
        return;
    }
    let pair = Pair::start().await;
    let (one, two) = (store(&pair.options("")).await, store(&pair.options("")).await);
    let resource = Resource::default();
    let kept = hand(&one).claim(&Ask::key("kept")).await;
    pair.cut().await;
    let lost = hand(&one).claim(&Ask::key("lost")).await;
    assert!(resource.accepts(lost.fence()), "its work begins");
    pair.fail_over().await;

    // What the replica had heard of is there; what it had not is gone, though it was acknowledged.
    let ask = |key: &str| Ask::key(key).request();
    let hand_two = hand(&two);
    // Its tokens are others than those of the first.
    hand_two.claim(&Ask::key("another")).await;
    assert!(matches!(hand_two.ledger.claim(ask("kept"), None).await.unwrap(), Claimed::Busy { .. }));
    let Claimed::Granted(again) = hand_two.ledger.claim(ask("lost"), None).await.unwrap() else {
        panic!("the claim was not lost")
    };
    assert!(again.fence() > lost.fence(), "L2: {} after {}", again.fence(), lost.fence());
    assert!(resource.accepts(again.fence()), "the same key runs again");
    assert!(!resource.accepts(lost.fence()), "and whoever had it before is refused from then on");

    // Nor can the first holder say how it ended.
    let complete = |holder| Complete { holder, outcome: outcome("done") };
    let held = hand(&one).ledger.apply(&complete(lost.holder())).await.unwrap();
    assert!(matches!(held, Held::Fenced { .. }), "{held:?}");
    hand(&one).done(&complete(kept.holder())).await;
    hand(&two).done(&complete(again.holder())).await;
}

/// Neither for whoever was there before, nor, from their next claim on, for anybody who comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_fences_rise_over_a_failover_to_a_server_whose_clock_is_behind() {
    if url().is_none() {
        return;
    }
    let pair = Pair::start().await;
    let began = Timestamp::from_millis(1_700_000_000_000);
    let shard = Shard::new("semel", 0);
    let set = |now: Timestamp| cmd("HSET").arg(&shard.own).arg("clock").arg(now.as_millis()).clone();
    let () = pair.primary.ask(&set(began)).await;
    let clock = SteppedClock::at(began);
    let opens = async || store(&pair.options("").clock(Arc::new(clock.clone())).stepped()).await;
    let node = opens().await;
    pair.cut().await;
    let lost = hand(&node).claim(&Ask::key("lost")).await;
    clock.advance(Duration::from_secs(5));
    pair.fail_over().await;
    let ten_minutes_behind = Timestamp::from_millis(began.as_millis() - 600_000);
    let () = pair.replica.ask(&set(ten_minutes_behind)).await;
    let again = hand(&node).claim(&Ask::key("lost")).await;
    assert!(again.fence() > lost.fence(), "{} after {}", again.fence(), lost.fence());
    assert_eq!(again.record().times().written, ten_minutes_behind, "while its times are the server's");
    let released = Release { holder: again.holder(), error: "refused".into() };
    hand(&node).done(&released).await;
    let later = hand(&opens().await).claim(&Ask::key("lost")).await;
    assert!(later.fence() > again.fence(), "a node that knows nothing of before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_with_wait_replicas_nothing_is_shown_or_granted_that_a_replica_does_not_have() {
    if url().is_none() {
        return;
    }
    let pair = Pair::start().await;
    let node = store(&pair.options("&wait_replicas=1&wait_timeout_ms=200")).await;
    assert_eq!(node.warnings(), [""; 0]);
    let kept = hand(&node).claim(&Ask::key("kept")).await;
    pair.cut().await;
    let ask = Ask::key("doubtful");
    assert!(hand(&node).ledger.claim(ask.request(), None).await.is_err(), "nothing runs");
    let error = node.load(ask.id()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: true }, "it is there, and not shown");
    assert!(node.ready().await.is_err());
    pair.fail_over().await;
    let plain = store(&pair.options("")).await;
    let there = plain.load(kept.record().id()).await.unwrap().value;
    assert_eq!(there.as_ref(), Some(kept.record()), "what was acknowledged is there");
    assert_eq!(plain.load(ask.id()).await.unwrap().value, None);
    hand(&plain).done(&Extend { holder: kept.holder() }).await;
}

//! The network between a server and its store fails: nothing runs twice, nobody waits for ever, clients are told 503 with
//! the code that says so, and when the network is well the server is, too, by itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Answer;
use crate::load::{Servers, World, seed};
use crate::server::Server;
use crate::shared_store::{Kind, SharedStore, on_every_store};
use crate::target::Target;
use crate::toxiproxy::{Proxy, Way};
use crate::wait::eventually;

/// No answer takes longer than this while the store cannot be reached: the statement's time-out, the answer's margin, and
/// some attempts to settle a doubt.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
/// How long after the network is well again a server may still refuse.
const WELL_WITHIN: Duration = Duration::from_secs(5);

on_every_store! {
    a_slow_network_only_makes_it_slower,
    a_cut_network_is_503_and_not_ready_until_it_is_whole,
    a_network_that_swallows_everything_is_503_in_a_bounded_time,
    an_answer_lost_after_the_commit_of_a_claim_runs_nothing_twice_l7_l12,
    an_answer_lost_after_the_commit_of_an_outcome_is_settled_l4_l12,
    whatever_the_network_does_under_load_the_history_has_an_explanation_l4_l7_l9_l10,
}

/// A server that reaches its store through a proxy.
struct Behind {
    server: Server,
    proxy: Proxy,
    target: Target,
    /// Removed with it.
    _store: SharedStore,
}

impl Behind {
    async fn start(kind: Kind, path: &str) -> Option<Self> {
        let store = kind.fresh().await?;
        let proxy = Proxy::to(&store.address()).await;
        let target = Target::start().await;
        let config = target.operation("charge", path, &kind.lease());
        let server = Server::start_on(&store.url_at(proxy.address()), &config).await;
        Some(Self { server, proxy, target, _store: store })
    }

    async fn charge(&self, key: &str) -> Answer {
        self.server.execute("charge", key, "{}", &[]).await
    }

    /// Is refused, in time, with the code of a store that does not answer.
    async fn is_refused(&self, key: &str) {
        let asked = Instant::now();
        let answer = self.charge(key).await;
        assert_eq!(answer.refusal(), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE".to_owned()));
        assert!(answer.header("retry-after").is_some(), "it says when to come again");
        assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    }

    async fn is_not_ready(&self) {
        let not_ready = eventually("it is not ready", async || {
            let ready = self.server.get("/readyz", &[]).await;
            (ready.status == 503).then_some(ready)
        })
        .await;
        let said = not_ready.json();
        assert_eq!((&said["status"], &said["reason"]), (&"unavailable".into(), &"store_unavailable".into()));
        assert_eq!(self.server.get("/healthz", &[]).await.status, 200, "the process is well");
    }

    /// The network is well again: so is the server, soon.
    async fn heals(&self) {
        self.proxy.heal().await;
        let healed = Instant::now();
        eventually("it is ready again", async || {
            (self.server.get("/readyz", &[]).await.status == 200).then_some(())
        })
        .await;
        eventually("it works again", async || (self.charge("healed").await.status == 200).then_some(()))
            .await;
        assert!(healed.elapsed() < WELL_WITHIN, "{:?}", healed.elapsed());
    }
}

async fn a_slow_network_only_makes_it_slower(kind: Kind) {
    let Some(behind) = Behind::start(kind, "/json").await else { return };
    behind.proxy.spoil(Way::Down, "latency", json!({ "latency": 300, "jitter": 100 })).await;
    let (one, two) = tokio::join!(behind.charge("order"), behind.charge("order"));
    for answer in [&one, &two] {
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    }
    eventually("it is done", async || (behind.charge("order").await.status == 200).then_some(())).await;
    assert_eq!(behind.target.seen().len(), 1);
}

async fn a_cut_network_is_503_and_not_ready_until_it_is_whole(kind: Kind) {
    let Some(behind) = Behind::start(kind, "/json").await else { return };
    let before = behind.charge("before").await;
    assert_eq!(before.status, 200);
    behind.proxy.cut().await;
    behind.is_refused("during").await;
    behind.is_refused("before").await;
    behind.is_not_ready().await;
    assert_eq!(behind.target.seen().len(), 1, "L12: without an answer nothing runs");
    behind.heals().await;
    assert_eq!(behind.charge("before").await.body, before.body);
    assert_eq!(behind.charge("during").await.status, 200);
    assert_eq!(behind.target.seen().len(), 3, "before, healed, during");
}

async fn a_network_that_swallows_everything_is_503_in_a_bounded_time(kind: Kind) {
    let Some(behind) = Behind::start(kind, "/json").await else { return };
    assert_eq!(behind.charge("before").await.status, 200);
    // Nothing is closed, and nothing arrives: half-open, in both directions.
    behind.proxy.spoil(Way::Up, "timeout", json!({ "timeout": 0 })).await;
    behind.proxy.spoil(Way::Down, "timeout", json!({ "timeout": 0 })).await;
    let asked = Instant::now();
    behind.is_not_ready().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "a probe does not hang: {:?}", asked.elapsed());
    tokio::join!(behind.is_refused("one"), behind.is_refused("two"), behind.is_refused("before"));
    assert_eq!(behind.target.seen().len(), 1);
    behind.heals().await;
    for key in ["one", "two"] {
        eventually("it is done", async || (behind.charge(key).await.status == 200).then_some(())).await;
    }
    assert_eq!(behind.target.seen().len(), 4, "each once");
}

async fn an_answer_lost_after_the_commit_of_a_claim_runs_nothing_twice_l7_l12(kind: Kind) {
    let Some(behind) = Behind::start(kind, "/json").await else { return };
    assert_eq!(behind.charge("before").await.status, 200);
    // What goes up arrives and is done; the answer is a reset.
    behind.proxy.spoil(Way::Down, "reset_peer", json!({ "timeout": 0 })).await;
    behind.is_refused("order").await;
    assert_eq!(behind.target.seen().len(), 1, "nothing runs on a claim that is not settled");
    behind.heals().await;
    let done = eventually("the claim that nobody was told of is given back", async || {
        let answer = behind.charge("order").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(behind.charge("order").await.body, done.body);
    assert_eq!(behind.target.seen().len(), 3, "before, healed, order");
}

async fn an_answer_lost_after_the_commit_of_an_outcome_is_settled_l4_l12(kind: Kind) {
    let Some(behind) = Behind::start(kind, "/gated").await else { return };
    assert_eq!(behind.charge("before").await.status, 200);
    behind.target.close();
    let running = behind.charge("order");
    let failing = async {
        behind.target.arrived(2).await;
        behind.proxy.spoil(Way::Down, "reset_peer", json!({ "timeout": 0 })).await;
        behind.target.open();
        behind.server.logged("store").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        behind.proxy.heal().await;
    };
    let (answer, ()) = tokio::join!(running, failing);
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    let kept = eventually("the outcome is there", async || {
        let again = behind.charge("order").await;
        (again.status == 200).then_some(again)
    })
    .await;
    assert_eq!(kept.header("idempotent-replayed"), Some("true"));
    assert_eq!(behind.target.seen().len(), 2, "it ran once");
}

async fn whatever_the_network_does_under_load_the_history_has_an_explanation_l4_l7_l9_l10(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let proxy = Proxy::to(&store.address()).await;
    let world = World::new(seed(), kind.pace()).await;
    // One server has a bad network, the other a good one.
    let behind = Server::start_on(&store.url_at(proxy.address()), &world.config()).await;
    let beside = Server::start_on(&store.url(), &world.config()).await;
    let clients = world.clients(0, &Servers::of([behind.url(), beside.url()]));
    for (way, toxic, attributes) in [
        (Way::Down, "latency", json!({ "latency": 100, "jitter": 90 })),
        (Way::Down, "reset_peer", json!({ "timeout": 20 })),
        (Way::Up, "slow_close", json!({ "delay": 300 })),
        (Way::Down, "limit_data", json!({ "bytes": 20_000 })),
        (Way::Up, "timeout", json!({ "timeout": 200 })),
        (Way::Down, "slicer", json!({ "average_size": 60, "size_variation": 30, "delay": 500 })),
    ] {
        proxy.spoil(way, toxic, attributes).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.heal().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    proxy.cut().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.heal().await;
    clients.stop().await;
    let ends = world.ask_for_all(&behind.url()).await;
    world.judge(&ends);
}

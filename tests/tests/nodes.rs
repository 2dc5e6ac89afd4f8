//! Several servers over one store are one: whoever is asked, each key runs once, and no node's end, pause or clock changes
//! that. Every sentence holds for every store that nodes can share.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;

use crate::faketime;
use crate::load::{Servers, World, seed};
use crate::server::Server;
use crate::shared_store::{Kind, SharedStore, on_every_store};
use crate::target::Target;
use crate::wait::eventually;

/// Servers at once.
const NODES: usize = 3;

on_every_store! {
    duplicates_that_are_spread_over_nodes_run_once_l7,
    what_a_killed_node_ran_is_unknown_or_taken_over_l7_l9,
    a_node_that_slept_past_its_lease_is_fenced_l1_l6,
    a_rolling_restart_under_load_loses_nothing_l9_l11,
    nodes_that_are_killed_under_load_lose_nothing_and_repeat_nothing_l4_l7_l9_l10,
    clocks_that_are_minutes_apart_change_nothing_l1_l7_l8,
}

/// What an operation's configuration says of a short lease that others take over.
fn resumed(kind: Kind) -> String {
    format!("{}\nsemantics = \"resume\"", kind.lease())
}

async fn nodes(store: &SharedStore, config: &str) -> Vec<Server> {
    let url = store.url();
    join_all((0..NODES).map(|_| Server::start_on(&url, config))).await
}

async fn duplicates_that_are_spread_over_nodes_run_once_l7(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let nodes = nodes(&store, &target.operation("charge", "/json", "")).await;
    let keys: Vec<String> = (0..kind.keys()).map(|n| format!("order-{n}")).collect();
    let wait = [("prefer", "wait=20")];
    // Every key goes to every node three times, all at once.
    let asked =
        keys.iter().flat_map(|key| std::iter::repeat_n(&nodes, 3).flatten().map(move |node| (key, node)));
    let answers =
        join_all(asked.map(async |(key, node)| (key, node.execute("charge", key, "{}", &wait).await))).await;
    for key in &keys {
        let of_key: Vec<_> =
            answers.iter().filter(|(asked, _)| *asked == key).map(|(_, answer)| answer).collect();
        assert_eq!(of_key.len(), 3 * NODES);
        for answer in &of_key {
            assert_eq!(answer.status, 200, "{key}: {}", answer.text());
            assert_eq!(answer.body, of_key[0].body, "{key}: everybody is told the same");
        }
        let first = of_key.iter().filter(|answer| answer.header("idempotent-replayed").is_none()).count();
        assert_eq!(first, 1, "{key}: one answer is no replay");
    }
    assert_eq!(target.seen().len(), keys.len(), "each ran once");
}

async fn what_a_killed_node_ran_is_unknown_or_taken_over_l7_l9(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let config = target.operation("once", "/gated", &kind.lease())
        + &target.operation("again", "/gated", &resumed(kind));
    let mut nodes = nodes(&store, &config).await;
    target.close();
    let victim = nodes.remove(0);
    let asynchronous = [("prefer", "respond-async")];
    assert_eq!(victim.execute("once", "one", "{}", &asynchronous).await.status, 202);
    assert_eq!(victim.execute("again", "two", "{}", &asynchronous).await.status, 202);
    // Whichever nodes took them: all that has arrived is in the middle of its work.
    target.arrived(2).await;
    for node in nodes.drain(..) {
        node.kill().await;
    }
    victim.kill().await;
    let heir = Server::start_on(&store.url(), &config).await;
    let unknown = eventually("the claim lapses", async || {
        let answer = heir.execute("once", "one", "{}", &[]).await;
        (answer.status == 409).then_some(answer)
    })
    .await;
    assert_eq!(unknown.refusal().1, "IDEMPOTENCY_OUTCOME_UNKNOWN");
    target.arrived(3).await;
    target.open();
    let taken_over = eventually("it is taken over", async || {
        let answer = heir.execute("again", "two", "{}", &[]).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(taken_over.header("idempotent-replayed"), Some("true"));
    let seen = target.seen();
    assert_eq!(seen.len(), 3, "what may have happened is not repeated at most once, and resumed once");
    let tries: Vec<_> = seen
        .iter()
        .filter(|arrived| arrived.headers["idempotency-key"] == seen[2].headers["idempotency-key"])
        .collect();
    assert_eq!(tries.len(), 2, "both tries of `again` have its downstream key");
    let fence = |at: usize| tries[at].headers["semel-fence"].parse::<u64>().unwrap();
    assert!(fence(1) > fence(0), "L2: {} after {}", fence(1), fence(0));
}

async fn a_node_that_slept_past_its_lease_is_fenced_l1_l6(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let config = target.operation("again", "/gated", &resumed(kind));
    // The other one comes only when the first has taken the work.
    let sleeper = Server::start_on(&store.url(), &config).await;
    target.close();
    assert_eq!(sleeper.execute("again", "one", "{}", &[("prefer", "respond-async")]).await.status, 202);
    target.arrived(1).await;
    sleeper.signal(Signal::STOP);
    let other = Server::start_on(&store.url(), &config).await;
    target.arrived(2).await;
    target.open();
    let ended = eventually("the other one ends it", async || {
        let answer = other.execute("again", "one", "{}", &[]).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    // The sleeper wakes, finds the answer of its own try, and may not write it.
    sleeper.signal(Signal::CONT);
    let metrics = format!("{}/metrics", sleeper.admin_url());
    eventually("the sleeper is told that it is fenced", async || {
        let text = sleeper.http().get(&metrics, &[]).await.unwrap().text().to_owned();
        let fenced = text.lines().find(|line| line.starts_with("semel_fenced_writes_total"))?;
        (!fenced.split(' ').nth(1)?.starts_with('0')).then_some(())
    })
    .await;
    let later = sleeper.execute("again", "one", "{}", &[]).await;
    assert_eq!(later.body, ended.body, "the outcome is the one of the holder");
    assert_eq!(target.seen().len(), 2);
}

async fn a_rolling_restart_under_load_loses_nothing_l9_l11(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let world = World::new(seed(), kind.pace()).await;
    let mut nodes = nodes(&store, &world.config()).await;
    let servers = Servers::of(nodes.iter().map(Server::url));
    let clients = world.clients(0, &servers);
    for _ in 0..2 * NODES {
        let old = nodes.remove(0);
        let url = old.url();
        // As a load balancer does it: the new one is there before the old one goes.
        let new = Server::start_on(&store.url(), &world.config()).await;
        servers.replace(&url, Some(new.url()));
        nodes.push(new);
        let ended = old.stop().await;
        assert!(ended.success(), "an orderly end: {ended}");
    }
    clients.stop().await;
    let ends = world.ask_for_all(&nodes[0].url()).await;
    assert_eq!(world.judge(&ends), 0, "nothing is left unknown");
}

async fn nodes_that_are_killed_under_load_lose_nothing_and_repeat_nothing_l4_l7_l9_l10(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let world = World::new(seed(), kind.pace()).await;
    let mut nodes = nodes(&store, &world.config()).await;
    let servers = Servers::of(nodes.iter().map(Server::url));
    for round in 0..NODES {
        let clients = world.clients(round as u64, &servers);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let victim = nodes.remove(0);
        let url = victim.url();
        victim.kill().await;
        let new = Server::start_on(&store.url(), &world.config()).await;
        servers.replace(&url, Some(new.url()));
        nodes.push(new);
        clients.stop().await;
    }
    let ends = world.ask_for_all(&nodes[0].url()).await;
    world.judge(&ends);
}

/// A server whose wall clock is off by so much; its monotonic clock goes like all others. `None`, with a word, by hand and
/// without the library that does it.
async fn with_clock(store: &SharedStore, config: &str, off_by: &str) -> Option<Server> {
    let library = faketime::library()?;
    let environment =
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", off_by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    Some(Server::start_on_with(&store.url(), config, &environment).await)
}

async fn clocks_that_are_minutes_apart_change_nothing_l1_l7_l8(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let world = World::new(seed(), kind.pace()).await;
    let target = Target::start().await;
    let config = world.config() + &target.operation("again", "/gated", &resumed(kind));
    let Some(fast) = with_clock(&store, &config, "+10m").await else { return };
    let slow = with_clock(&store, &config, "-10m").await.unwrap();
    let right = Server::start_on(&store.url(), &config).await;
    for node in [&fast, &slow, &right] {
        node.logged("\"timestamp\":\"").await;
    }
    let stamp = |server: &Server| server.log().split_once("\"timestamp\":\"").unwrap().1[..15].to_owned();
    assert!(stamp(&slow) < stamp(&right) && stamp(&right) < stamp(&fast), "the clocks are apart");

    // A lease that is kept alive is nobody else's, whatever time it is elsewhere.
    target.close();
    assert_eq!(slow.execute("again", "one", "{}", &[("prefer", "respond-async")]).await.status, 202);
    target.arrived(1).await;
    let clients = world.clients(0, &Servers::of([fast.url(), slow.url(), right.url()]));
    tokio::time::sleep(2 * kind.pace().lease).await;
    clients.stop().await;
    assert_eq!(target.seen().len(), 1, "L1: nobody took it over");
    target.open();
    eventually("it is done", async || {
        (fast.execute("again", "one", "{}", &[]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(target.seen().len(), 1);
    let ends = world.ask_for_all(&fast.url()).await;
    assert_eq!(world.judge(&ends), 0, "no lease lapsed");
}

//! Order, circuits and alerts of deliveries, by the real process: one on its embedded store, and two that share a PostgreSQL.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::inbox::Inbox;
use crate::server::Server;
use crate::shared_store::SharedStore;
use crate::wait::eventually;

/// What the nodes share.
enum Backing {
    Embedded(TempDir),
    Postgres(SharedStore),
}

macro_rules! on_one_node_and_on_two {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Backing::Embedded(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(store) = crate::shared_store::Kind::Postgres.fresh().await else { return };
                super::$name(super::Backing::Postgres(store)).await;
            })*
        }
    };
}

on_one_node_and_on_two! {
    events_of_one_value_are_delivered_one_at_a_time_and_in_order_under_retries_and_a_kill,
    a_target_that_fails_is_left_alone_spends_no_tries_and_is_told_of_and_comes_back,
    what_is_told_while_a_process_stops_is_told_after_its_next_start_and_no_count_is_lost,
    an_alert_of_a_duplicate_that_was_answered_survives_a_sigkill,
    retention_a_payload_goes_before_its_identity_and_a_duplicate_across_the_boundary_is_refused,
}

impl Backing {
    /// All nodes that there can be.
    async fn nodes(&self, config: &str) -> Vec<Server> {
        match self {
            Self::Embedded(folder) => vec![Server::start_in(folder.path(), config).await],
            Self::Postgres(store) => {
                let url = store.url();
                join_all((0..2).map(|_| Server::start_on(&url, config))).await
            }
        }
    }

    /// Another node, or the same one again.
    async fn node(&self, config: &str) -> Server {
        match self {
            Self::Embedded(folder) => Server::start_in(folder.path(), config).await,
            Self::Postgres(store) => Server::start_on(&store.url(), config).await,
        }
    }
}

/// A source whose events the shop is sent, with this said of it; alerts go to whoever is on call.
fn config(shop: &Inbox, on_call: &Inbox, source: &str) -> String {
    format!(
        "[server]\ndevelopment = true\n\
         [alerts]\nurl = \"{}\"\n\
         [[webhooks]]\nsource = \"orders\"\nprovider = \"generic\"\ntoken = {{ header = \"x-token\" }}\n\
         secrets = [{{ id = \"1\", value = \"a token of some length\" }}]\nidentity = [\"/id\"]\n\
         target = \"{}\"\nretry = {{ max_attempts = 100, first = \"20ms\", cap = \"100ms\" }}\n{source}",
        on_call.url("/alerts"),
        shop.url("/hooks"),
    )
}

/// The partner sends an event, until it is taken in. The status.
async fn send(node: &Server, id: &str, order: &str) -> u16 {
    let url = format!("{}/v1/webhooks/orders", node.url());
    let headers = [("content-type", "application/json"), ("x-token", "a token of some length")];
    let body = json!({ "id": id, "order_id": order }).to_string();
    node.http().post(&url, &headers, body).await.unwrap().status
}

async fn records(node: &Server, query: &str) -> Vec<Value> {
    // Of its source, and not of the alerts about it.
    let url = format!("{}/v1/records?operation=webhook%3Aorders%2Fdefault&{query}", node.admin_url());
    let page = node.http().get(&url, &[]).await.unwrap().json();
    page["records"].as_array().unwrap().clone()
}

/// Where the circuit of the shop stands; alerts have one, too, and the series are in no order.
async fn circuit(node: &Server) -> Option<f64> {
    let metrics = node.http().get(&format!("{}/metrics", node.admin_url()), &[]).await.unwrap();
    let text = metrics.text();
    let mut lines = text.lines().filter(|line| line.starts_with("semel_circuit_state{"));
    lines.find(|line| line.contains("source=\"orders\""))?.rsplit(' ').next()?.parse().ok()
}

async fn stop(nodes: Vec<Server>) {
    for node in nodes {
        assert!(node.stop().await.success());
    }
}

async fn events_of_one_value_are_delivered_one_at_a_time_and_in_order_under_retries_and_a_kill(on: Backing) {
    const VALUES: usize = 3;
    const EACH: usize = 8;
    let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
    let config = config(&shop, &on_call, "order_by = \"/order_id\"\nlease = \"2s\"\n");
    let mut nodes = on.nodes(&config).await;
    shop.answers_first(503);
    let mut expected: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for number in 0..EACH {
        for value in 0..VALUES {
            let id = format!("evt-{value}-{number}");
            // By turns, as a load balancer does. A partner that waits for the answer has said in which order.
            let node = &nodes[(number + value) % nodes.len()];
            assert_eq!(send(node, &id, &format!("order-{value}")).await, 200);
            expected.entry(value).or_default().push(id);
        }
        if number == EACH / 2 {
            // In the middle of deliveries: what the dead node has claimed comes again before what follows it.
            nodes.remove(0).kill().await;
            nodes.push(on.node(&config).await);
        }
    }
    eventually("all of them are delivered", async || {
        (records(&nodes[0], "state=completed").await.len() == VALUES * EACH).then_some(())
    })
    .await;
    let steps = shop.steps();
    for (value, ids) in &expected {
        let of_value: Vec<_> = steps.iter().filter(|step| ids.contains(&step.event)).collect();
        for pair in of_value.chunks(2) {
            let [began, ended] = pair else { panic!("{value}: without an end: {of_value:?}") };
            assert!(
                began.began && !ended.began && began.event == ended.event,
                "{value}: two at a time: {of_value:?}"
            );
        }
        let mut order: Vec<&String> = of_value.iter().map(|step| &step.event).collect();
        order.dedup();
        assert_eq!(
            order,
            ids.iter().collect::<Vec<_>>(),
            "{value}: each after all tries of the one before it"
        );
    }
    stop(nodes).await;
}

async fn a_target_that_fails_is_left_alone_spends_no_tries_and_is_told_of_and_comes_back(on: Backing) {
    const EVENTS: usize = 40;
    let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
    let nodes = on.nodes(&config(&shop, &on_call, "")).await;
    shop.answers(503);
    for number in 0..EVENTS {
        assert_eq!(send(&nodes[number % nodes.len()], &format!("evt-{number}"), "any").await, 200);
    }
    // Each node judges by what it has met, and one of them may be given all of it.
    eventually("a circuit opens", async || {
        let states = join_all(nodes.iter().map(circuit)).await;
        states.into_iter().flatten().any(|state| state > 1.0).then_some(())
    })
    .await;
    let told = eventually("somebody is told", async || {
        let told =
            on_call.seen().into_iter().map(|alert| serde_json::from_str::<Value>(&alert.body).unwrap());
        told.into_iter().find(|told| told["type"] == "semel.alert.circuits")
    })
    .await;
    assert_eq!((&told["data"]["source"], &told["data"]["kind"]), (&json!("orders"), &json!("circuits")));
    let tries = shop.count();
    assert!(tries < 4 * EVENTS, "{tries} tries: what waits spends none");
    shop.answers(200);
    eventually("all of them are delivered", async || {
        (records(&nodes[0], "state=completed").await.len() == EVENTS).then_some(())
    })
    .await;
    // (A node whose part the other has done has nothing to try its circuit with.)
    if let [node] = &nodes[..] {
        eventually("its circuit closes", async || {
            circuit(node).await.is_some_and(|state| state < 1.0).then_some(())
        })
        .await;
    }
    assert_eq!(shop.overlaps(), 0);
    stop(nodes).await;
}

async fn what_is_told_while_a_process_stops_is_told_after_its_next_start_and_no_count_is_lost(on: Backing) {
    const DUPLICATES: u64 = 12;
    let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
    let config = config(&shop, &on_call, "duplicates = { alert = true }\n");
    let nodes = on.nodes(&config).await;
    assert_eq!(send(&nodes[0], "evt-1", "any").await, 200);
    shop.has(1).await;
    for number in 0..DUPLICATES {
        let node = &nodes[usize::try_from(number).unwrap() % nodes.len()];
        assert_eq!(send(node, "evt-1", "any").await, 200);
    }
    // However far they have come with telling it.
    stop(nodes).await;
    let node = on.node(&config).await;
    eventually("every duplicate is told of", async || {
        let told =
            on_call.seen().into_iter().map(|alert| serde_json::from_str::<Value>(&alert.body).unwrap());
        let counts = told.filter(|told| told["type"] == "semel.alert.duplicates");
        let all: u64 = counts.map(|told| told["data"]["count"].as_u64().unwrap()).sum();
        assert!(all <= DUPLICATES, "{all} of {DUPLICATES} were told");
        (all == DUPLICATES).then_some(())
    })
    .await;
    stop(vec![node]).await;
}

async fn an_alert_of_a_duplicate_that_was_answered_survives_a_sigkill(on: Backing) {
    let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
    let config = config(&shop, &on_call, "duplicates = { alert = true }\n");
    let mut nodes = on.nodes(&config).await;
    assert_eq!(send(&nodes[0], "evt-1", "any").await, 200);
    shop.has(1).await;
    // The one and only duplicate, and the end of the process that has answered it: before it has gathered, usually.
    assert_eq!(send(&nodes[0], "evt-1", "any").await, 200);
    nodes.remove(0).kill().await;
    nodes.push(on.node(&config).await);
    let told = eventually("somebody is told of it", async || {
        let told =
            on_call.seen().into_iter().map(|alert| serde_json::from_str::<Value>(&alert.body).unwrap());
        told.into_iter().find(|told| told["type"] == "semel.alert.duplicates")
    })
    .await;
    assert_eq!((&told["data"]["source"], &told["data"]["count"]), (&json!("orders"), &json!(1)), "{told}");
    stop(nodes).await;
}

async fn retention_a_payload_goes_before_its_identity_and_a_duplicate_across_the_boundary_is_refused(
    on: Backing,
) {
    let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
    let config = config(&shop, &on_call, "payload_retention = \"1s\"\ncache_size = 0\n");
    let mut nodes = on.nodes(&config).await;
    assert_eq!(send(&nodes[0], "evt-1", "one").await, 200);
    let id = eventually("it is delivered", async || {
        let done = records(&nodes[0], "state=completed").await;
        done.first().map(|record| record["id"].as_str().unwrap().to_owned())
    })
    .await;
    let before = eventually("its payload is dropped", async || {
        let detail = detail(&nodes[0], &id).await;
        detail["payload_dropped"].as_bool().unwrap().then_some(detail)
    })
    .await;
    assert_eq!((&before["input"], &before["wake_at"]), (&Value::Null, &Value::Null));
    assert_eq!((&before["outcome"]["status"], &before["state"]), (&json!(200), &json!("completed")));
    assert_eq!(before["policy"]["payload_retention_ms"], 1_000);
    // What is gone stays gone, and what is kept stays, whatever becomes of the process.
    nodes.remove(0).kill().await;
    nodes.push(on.node(&config).await);
    let node = &nodes[0];
    assert_eq!(detail(node, &id).await, before);
    assert_eq!(send(node, "evt-1", "one").await, 200, "a duplicate");
    assert_eq!(send(node, "evt-1", "another").await, 200, "a conflict");
    assert_eq!(detail(node, &id).await, before, "and neither of them changes it");
    let dead = records(node, "state=dead").await;
    assert_eq!(dead.len(), 1, "the other body is filed: {dead:?}");
    assert_eq!(dead[0]["tags"]["kind"], "conflict");
    let reply = revive(node, &id, before["version"].as_str().unwrap()).await;
    assert_eq!(reply.refusal(), (409, "ILLEGAL_TRANSITION".to_owned()));
    assert!(reply.text().contains("payload_retention"), "what to do is said: {}", reply.text());
    assert_eq!(shop.count(), 1, "delivered once");
    stop(nodes).await;
}

async fn detail(node: &Server, id: &str) -> Value {
    node.http().get(&format!("{}/v1/records/{id}", node.admin_url()), &[]).await.unwrap().json()
}

async fn revive(node: &Server, id: &str, version: &str) -> crate::http::Answer {
    let url = format!("{}/v1/dead/{id}/revive", node.admin_url());
    let body = json!({ "version": version, "reason": "once more", "force": true }).to_string();
    node.http().post(&url, &[("content-type", "application/json")], body).await.unwrap()
}

//! The layer under hyper, without a framework: what goes over the wire, and a connection that is cut.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;

use crate::harness::{Bench, created, shared};

/// A connection to the service, served by hyper.
fn connect(bench: &Bench) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let service = TowerToHyperService::new(bench.service());
    tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(server), service).await });
    client
}

fn request(key: &str) -> String {
    format!(
        "POST /orders HTTP/1.1\r\nhost: orders\r\nidempotency-key: {key}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    )
}

/// Everything that comes back on a connection of its own.
async fn exchange(bench: &Bench, key: &str) -> String {
    let mut client = connect(bench);
    client.write_all(request(key).as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_replay_on_the_wire_has_its_length_one_date_and_the_marker() {
    let bench = Bench::new(shared("orders"));
    let (first, again) = (exchange(&bench, "\"k\"").await, exchange(&bench, "k").await);
    for answer in [&first, &again] {
        assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"run\":1}"), "{answer}");
        for name in
            ["content-length: 9\r\n", "date: ", "idempotency-expires: ", "content-type: application/json\r\n"]
        {
            assert_eq!(answer.matches(name).count(), 1, "{name} in {answer}");
        }
    }
    assert!(!first.contains("idempotent-replayed"));
    assert_eq!(again.matches("idempotent-replayed: true\r\n").count(), 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_while_the_handler_runs_cancels_nothing_l11() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (telling, waiting) = (Arc::clone(&begun), Arc::clone(&go));
    let bench = Bench::serving(shared("orders"), move |run, _| {
        let (begun, go) = (Arc::clone(&telling), Arc::clone(&waiting));
        async move {
            begun.notify_one();
            go.notified().await;
            created(run)
        }
    });
    let mut client = connect(&bench);
    client.write_all(request("k").as_bytes()).await.unwrap();
    begun.notified().await;
    drop(client);
    assert!(exchange(&bench, "k").await.starts_with("HTTP/1.1 409 Conflict\r\n"));
    go.notify_one();
    assert!(bench.layer.drain(std::time::Duration::from_secs(10)).await);
    let retry = exchange(&bench, "k").await;
    assert!(
        retry.starts_with("HTTP/1.1 201 Created\r\n") && retry.contains("idempotent-replayed: true"),
        "{retry}"
    );
    assert_eq!(bench.runs(), 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_while_it_sends_leaves_nothing() {
    let bench = Bench::new(shared("orders"));
    let mut client = connect(&bench);
    let whole = request("k");
    client.write_all(&whole.as_bytes()[..whole.len() - 1]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.contains(" 201 "), "{answer}");
    assert_eq!((bench.runs(), bench.records().await.len()), (0, 0));
    assert!(exchange(&bench, "k").await.starts_with("HTTP/1.1 201 Created\r\n"));
}

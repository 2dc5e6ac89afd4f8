//! The WMS guide's integration test, and what the guide says of its repositories, over MongoDB's protocol.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::routing::post;
use http_body_util::BodyExt as _;
use mongodb::{Client, Database};
use semel::core::command::Claimed;
use semel::core::id::{Namespace, Tenant};
use semel::core::policy::Policy;
use semel::core::request::Fingerprint;
use semel::core::{Key, Operation, Request as Asked, Scope};
use semel::wms::{
    Config, IdempotencyKey, MongoKeyRepository, MongoMessageRepository, initialize_indexes, middleware,
};
use tower::ServiceExt as _;

/// Where `cargo xtask services up` says that FerretDB listens.
const VARIABLE: &str = "SEMEL_TEST_MONGODB";

/// A database of the test's own. Without a server there is none, by hand and in a quick run.
async fn database(name: &str) -> Option<Database> {
    let Ok(url) = std::env::var(VARIABLE) else {
        assert!(
            std::env::var_os("CI").is_none() || std::env::var_os("SEMEL_QUICK").is_some(),
            "{VARIABLE} is not set; `cargo xtask test` sets it"
        );
        println!("skipped: {VARIABLE} is not set; `eval \"$(cargo xtask services env)\"` sets it");
        return None;
    };
    let database = Client::with_uri_str(url).await.unwrap().database(&format!("wms_{name}"));
    database.drop().await.unwrap();
    Some(database)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the guide's key bears its maker's time, which decides nothing"
)]
fn key(key: &str) -> IdempotencyKey {
    let now = SystemTime::now();
    IdempotencyKey {
        key: key.into(),
        service_id: "test-service".into(),
        request_path: "/test".into(),
        request_method: "POST".into(),
        request_fingerprint: "abc123".into(),
        created_at: now,
        expires_at: now + Duration::from_secs(24 * 60 * 60),
    }
}

/// `TestIdempotencyIntegration` of the guide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_acquisition_succeeds_and_the_second_returns_what_exists() {
    let Some(database) = database("integration").await else { return };
    let repository = MongoKeyRepository::new(&database).await.unwrap();
    repository.ensure_indexes().await.unwrap();
    let first = repository.acquire_lock(&key("test-123")).await.unwrap();
    assert!(first.is_new);
    let second = repository.acquire_lock(&key("test-123")).await.unwrap();
    assert!(!second.is_new);
    assert_eq!(first.record.id(), second.record.id());
    assert!(repository.complete(first.claim.unwrap(), 201, Bytes::from_static(b"{}")).await.unwrap());
    database.drop().await.unwrap();
}

/// Steps 1 to 4 of the guide, on two nodes: a retry that comes to the other one is answered with what the first gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_two_nodes_runs_a_request_once() {
    let Some(database) = database("service").await else { return };
    initialize_indexes(&database).await.unwrap();
    initialize_indexes(&database).await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let repository = MongoKeyRepository::new(&database).await.unwrap();
        let layer = middleware(Config::new("order-service", repository.into())).unwrap();
        let runs = Arc::clone(&runs);
        let create = move || async move {
            (StatusCode::CREATED, format!("order {}", runs.fetch_add(1, Ordering::SeqCst)))
        };
        nodes.push(Router::new().route("/api/v1/orders", post(create)).layer(layer));
    }
    let mut told = Vec::new();
    for node in nodes {
        let request = Request::post("/api/v1/orders").header("idempotency-key", "order-1");
        let request = request.header("content-type", "application/json").body(Body::from("{\"sku\":\"A\"}"));
        let response = node.oneshot(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        told.push((status, response.into_body().collect().await.unwrap().to_bytes()));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!((told[0].0, told[1].0), (201, 200), "a replay is 200 in this profile");
    assert_eq!(told[0].1, told[1].1, "L10");
    let names = database.list_collection_names().await.unwrap();
    assert!(names.contains(&"idempotency_keys".to_owned()), "{names:?}");
    database.drop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_kept_apart_from_keys() {
    let Some(database) = database("messages").await else { return };
    let messages = MongoMessageRepository::new(&database).await.unwrap();
    messages.ensure_indexes().await.unwrap();
    let scope =
        Scope { namespace: Namespace::Topic, tenant: Tenant::try_new("default").unwrap(), subject: None };
    let operation = Operation::try_new("orders.received").unwrap();
    let fingerprint = Fingerprint { version: 1, digest: [7; 32] };
    let event = Key::try_new("event-1").unwrap();
    let asked = || {
        Arc::new(Asked::new(scope.clone(), event.clone(), operation.clone(), fingerprint, Policy::default()))
    };
    assert!(matches!(messages.ledger().claim(asked(), None).await.unwrap(), Claimed::Granted(_)));
    assert!(matches!(messages.ledger().claim(asked(), None).await.unwrap(), Claimed::Busy { .. }));
    let names = database.list_collection_names().await.unwrap();
    assert!(names.contains(&"processed_messages".to_owned()), "{names:?}");
    database.drop().await.unwrap();
}

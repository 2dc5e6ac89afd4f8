//! The WMS guide's complete example, multi-phase handler and integration test, under its own names.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use semel::wms::{Config, IdempotencyKey, KeyRepository, PhaseManager, initialize_indexes, middleware};
use serde_json::{Value, json};
use tower::ServiceExt as _;

async fn send(
    router: &Router,
    method: Method,
    uri: &str,
    key: Option<&str>,
    body: &'static str,
) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Steps 1 to 4 of the guide, in its order, over a store of this kind.
async fn service(url: &str) -> (Router, Arc<AtomicUsize>) {
    let ledger = semel::open(url).unwrap();
    initialize_indexes(&ledger).await.unwrap();
    let repository = KeyRepository::new(ledger);
    let config = Config::new("order-service", repository);
    let orders = Arc::new(AtomicUsize::new(0));
    let created = Arc::clone(&orders);
    let create = move || async move {
        let number = created.fetch_add(1, Ordering::SeqCst) + 1;
        (StatusCode::CREATED, Json(json!({ "orderId": format!("ORD-{number}") })))
    };
    let listed = Arc::clone(&orders);
    let list = move || async move { Json(json!(listed.load(Ordering::SeqCst))) };
    let router = Router::new()
        .route("/api/v1/orders", post(create))
        .route("/api/v1/orders/{id}", put(|| async { StatusCode::NO_CONTENT }))
        .route("/api/v1/orders/{id}", delete(|| async { StatusCode::NO_CONTENT }))
        .route("/api/v1/orders", get(list))
        .layer(middleware(config).unwrap());
    (router, orders)
}

#[tokio::test]
async fn the_complete_example_of_the_guide_creates_an_order_once() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["memory:".to_owned(), format!("embedded:{}", folder.path().display())] {
        let (router, orders) = service(&url).await;
        let create = |key, body| send(&router, Method::POST, "/api/v1/orders", key, body);
        let first = create(Some("k-1"), r#"{"customerId":"A","amount":100}"#).await;
        assert_eq!(first.status(), 201);
        let again = create(Some("k-1"), r#"{"customerId":"A","amount":100}"#).await;
        assert_eq!((again.status(), json_of(first).await), (StatusCode::OK, json_of(again).await));
        let reused = create(Some("k-1"), r#"{"customerId":"A","amount":200}"#).await;
        assert_eq!(reused.status(), 422);
        assert_eq!(json_of(reused).await["code"], "IDEMPOTENCY_PARAMETER_MISMATCH");
        assert_eq!(create(None, "{}").await.status(), 201, "the key is optional");
        assert_eq!(orders.load(Ordering::SeqCst), 2);
        let list = send(&router, Method::GET, "/api/v1/orders", Some("k-1"), "").await;
        assert_eq!(json_of(list).await, json!(2), "idempotency is skipped for GET");
    }
}

/// `createOrderWithPhases`.
#[tokio::test]
async fn each_phase_is_done_once_over_all_attempts() {
    let effects = Arc::new([const { AtomicUsize::new(0) }; 4]);
    let done = Arc::clone(&effects);
    let create = move |phases: Option<PhaseManager>| async move {
        let Some(phases) = phases else { return StatusCode::CREATED };
        for (step, phase) in
            ["validated", "inventory_reserved", "order_created", "notification_sent"].iter().enumerate()
        {
            if phases.is_done(phase) {
                continue;
            }
            let times = done[step].fetch_add(1, Ordering::SeqCst) + 1;
            if step == 2 && times == 1 {
                return StatusCode::BAD_GATEWAY;
            }
            phases.checkpoint(phase).await.unwrap();
        }
        StatusCode::CREATED
    };
    let repository = KeyRepository::new(semel::open("memory:").unwrap());
    let layer = middleware(Config::new("order-service", repository)).unwrap();
    let router = Router::new().route("/orders", post(create)).layer(layer);
    assert_eq!(send(&router, Method::POST, "/orders", Some("k"), "{}").await.status(), 502);
    assert_eq!(send(&router, Method::POST, "/orders", Some("k"), "{}").await.status(), 201);
    assert_eq!(send(&router, Method::POST, "/orders", Some("k"), "{}").await.status(), 200, "replayed");
    assert_eq!(effects.each_ref().map(|effect| effect.load(Ordering::SeqCst)), [1, 1, 2, 1]);
    assert_eq!(send(&router, Method::POST, "/orders", None, "{}").await.status(), 201, "unprotected");
}

/// `TestIdempotencyIntegration`.
#[tokio::test]
async fn test_idempotency_integration() {
    let repository = KeyRepository::new(semel::open("memory:").unwrap());
    repository.ensure_indexes().await.unwrap();
    let key = IdempotencyKey {
        key: "test-123".to_owned(),
        service_id: "test-service".to_owned(),
        request_path: "/test".to_owned(),
        request_method: "POST".to_owned(),
        request_fingerprint: "abc123".to_owned(),
    };
    let first = repository.acquire_lock(&key).await.unwrap();
    assert!(first.is_new);
    let second = repository.acquire_lock(&key).await.unwrap();
    assert!(!second.is_new && !second.is_mismatch);
    assert_eq!(first.record.id(), second.record.id());
    let other = IdempotencyKey { request_fingerprint: "def456".to_owned(), ..key.clone() };
    assert!(repository.acquire_lock(&other).await.unwrap().is_mismatch);
    assert!(repository.release(first.claim.unwrap(), "nothing was done").await.unwrap());
    let third = repository.acquire_lock(&key).await.unwrap();
    assert!(third.is_new);
    assert!(repository.complete(third.claim.unwrap(), 201, "created".into()).await.unwrap());
    let fourth = repository.acquire_lock(&key).await.unwrap();
    assert_eq!(fourth.record.outcome().map(|outcome| outcome.status), Some(201));
}

#[test]
fn a_store_that_this_build_does_not_have_is_named_without_what_follows_its_scheme() {
    let error = semel::open("postgres://user:hunter2@db").unwrap_err().to_string();
    assert!(error.contains("postgres") && !error.contains("hunter2"), "{error}");
    assert!(semel::open("embedded:").is_err() && semel::open("").is_err());
}

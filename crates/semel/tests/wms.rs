//! The WMS guide's complete example, multi-phase handler and integration test, under its own names.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use semel::wms::{
    Config, IdempotencyKey, KeyRepository, PhaseManager, RepositoryError, initialize_indexes, middleware,
    middleware_with, request_fingerprint,
};
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
    let ledger = semel::open(url).await.unwrap();
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
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
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
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    repository.ensure_indexes().await.unwrap();
    let key = IdempotencyKey {
        key: "test-123".to_owned(),
        service_id: "test-service".to_owned(),
        request_path: "/test".to_owned(),
        request_method: "POST".to_owned(),
        request_fingerprint: "abc123".to_owned(),
        created_at: SystemTime::UNIX_EPOCH,
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(24 * 60 * 60),
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

fn order_key(fingerprint: String) -> IdempotencyKey {
    IdempotencyKey {
        key: "k-1".to_owned(),
        service_id: "order-service".to_owned(),
        request_path: "/api/v1/orders".to_owned(),
        request_method: "POST".to_owned(),
        request_fingerprint: fingerprint,
        created_at: SystemTime::UNIX_EPOCH,
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(60 * 60),
    }
}

#[tokio::test]
async fn a_key_of_the_repository_is_the_middlewares_own() {
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    let router = orders(repository.clone());
    let order = r#"{"customerId":"A"}"#;
    let fingerprint =
        request_fingerprint("POST", "/api/v1/orders", "", Some("application/json"), order.as_bytes());
    let key = order_key(fingerprint);
    let create = || send(&router, Method::POST, "/api/v1/orders", Some("k-1"), order);

    let lock = repository.acquire_lock(&key).await.unwrap();
    assert_eq!(create().await.status(), 409, "the repository holds the lock");
    assert!(repository.complete(lock.claim.unwrap(), 201, "from the repository".into()).await.unwrap());
    let replayed = create().await;
    assert_eq!(replayed.status(), 200);
    assert_eq!(replayed.headers()["idempotent-replayed"], "true");
    let body = replayed.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "from the repository");

    let other = IdempotencyKey { key: "k-2".to_owned(), ..key.clone() };
    assert_eq!(send(&router, Method::POST, "/api/v1/orders", Some("k-2"), order).await.status(), 201);
    let found = repository.acquire_lock(&other).await.unwrap();
    assert!(!found.is_new && !found.is_mismatch, "{found:?}");
    assert_eq!(found.record.outcome().map(|outcome| outcome.status), Some(201));
    let elsewhere = IdempotencyKey { service_id: "other-service".to_owned(), ..other.clone() };
    assert!(repository.acquire_lock(&elsewhere).await.unwrap().is_new);
    let of_ann = repository.clone().of_caller("ann");
    assert!(of_ann.acquire_lock(&other).await.unwrap().is_new, "a caller's keys are no others'");
}

#[tokio::test]
async fn a_key_is_remembered_for_the_span_between_its_two_times() {
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    let key = order_key("abc".to_owned());
    let lock = repository.acquire_lock(&key).await.unwrap();
    assert_eq!(lock.record.request().policy().retention(), Duration::from_secs(60 * 60));
    let backwards = IdempotencyKey { key: "k-2".to_owned(), expires_at: key.created_at, ..key };
    assert!(matches!(repository.acquire_lock(&backwards).await, Err(RepositoryError::Invalid(_))));
}

fn orders(repository: KeyRepository) -> Router {
    Router::new()
        .route("/api/v1/orders", post(|| async { (StatusCode::CREATED, "created") }))
        .layer(middleware(Config::new("order-service", repository)).unwrap())
}

/// The guide's step 2, and its monitoring: `NewMetrics(registry)` and the names that its queries read.
#[tokio::test]
async fn the_metrics_of_the_guide_carry_the_service() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = semel::wms::Metrics::new(&mut registry);
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    let config = Config { metrics: Some(metrics), ..Config::new("order-service", repository) };
    let router = Router::new()
        .route("/api/v1/orders", post(|| async { StatusCode::CREATED }))
        .layer(middleware(config).unwrap());
    for _ in 0..3 {
        send(&router, Method::POST, "/api/v1/orders", Some("k"), "{}").await;
    }
    send(&router, Method::POST, "/api/v1/orders", Some("k"), "{\"other\":1}").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "idempotency_hits_total{service=\"order-service\"} 2",
        "idempotency_misses_total{service=\"order-service\"} 1",
        "idempotency_parameter_mismatches_total{service=\"order-service\"} 1",
        "idempotency_concurrent_collisions_total{service=\"order-service\"} 0",
        "idempotency_storage_errors_total{service=\"order-service\"} 0",
        "idempotency_lock_acquisition_duration_seconds_count{service=\"order-service\"} 4",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

/// The guide's checklist, step by step: keys optional at first, required when all clients have migrated.
#[tokio::test]
async fn require_key_is_switched_on_last() {
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    let config = Config::new("order-service", repository);
    for (require_key, status) in [(false, 201), (true, 400)] {
        let layer = middleware(Config { require_key, ..config.clone() }).unwrap();
        let parameter = layer.openapi_parameter();
        assert_eq!(parameter.is_required(), require_key, "the OpenAPI document says so");
        let router = Router::new().route("/orders", post(|| async { StatusCode::CREATED })).layer(layer);
        assert_eq!(send(&router, Method::POST, "/orders", None, "{}").await.status(), status);
    }
}

#[tokio::test]
async fn more_than_the_guide_names_is_configured_if_it_is_said_whose_keys_they_are() {
    let repository = KeyRepository::new(semel::open("memory:").await.unwrap());
    let config = Config::new("order-service", repository);
    assert!(middleware_with(config.clone(), |config| config).is_err());
    assert!(middleware_with(config, |config| config.caller(|_| semel::Caller::Nobody)).is_ok());
}

#[tokio::test]
async fn a_store_that_is_not_here_is_named_without_what_follows_its_scheme() {
    for (url, named) in [
        ("mysql://user:hunter2@db", "there is no store `mysql`"),
        ("postgres://user:hunter2@db?colour=red", "the URL of PostgreSQL is wrong"),
        ("postgres://user:hunter2@127.0.0.1:1/x", "PostgreSQL cannot be opened"),
    ] {
        let error = semel::open(url).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(semel::open("embedded:").await.is_err() && semel::open("").await.is_err());
}

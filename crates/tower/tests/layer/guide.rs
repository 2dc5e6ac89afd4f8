//! The WMS guide's own tests, and what it says of codes, headers and configuration, against the layer.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use semel_conformance::faulty::Fault;
use semel_core::command::Claimed as Found;
use semel_core::id::{Namespace, Tenant};
use semel_core::policy::Policy;
use semel_core::request::Fingerprint;
use semel_core::{Key, Ledger, Operation, Request as Asked, Scope};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Config, Metrics, OnServerError, Profile, ReplayStatus, RouteOptions};
use serde_json::json;

use crate::harness::{Bench, post, reply, request, shared};

/// The guide's configuration, step 3.
fn guides_config() -> Config {
    shared("test-service")
        .profile(Profile::Wms)
        .require_key(false)
        .only_mutating(true)
        .max_key_length(255)
        .lock_timeout(Duration::from_secs(5 * 60))
        .retention_period(Duration::from_secs(24 * 60 * 60))
        .max_response_size(1024 * 1024)
}

fn test_request() -> http::Request<semel_tower::Body> {
    let headers = [("content-type", "application/json"), ("idempotency-key", "test-key-123")];
    request(Method::POST, "/test", &headers, r#"{"data":"test"}"#)
}

/// `TestIdempotencyMiddleware`.
#[tokio::test]
async fn test_idempotency_middleware() {
    let bench = Bench::serving(guides_config(), |_, _| async { reply(201, r#"{"message":"created"}"#) });
    let first = bench.send(test_request()).await;
    assert_eq!(first.status, 201);
    let cached = bench.send(test_request()).await;
    assert_eq!(cached.status, 200, "cached");
    assert_eq!(first.body, cached.body);
    assert_eq!(bench.runs(), 1);
}

/// `TestIdempotencyIntegration`, over the memory store.
#[tokio::test]
async fn test_idempotency_integration() {
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    let asked = || {
        let scope = Scope {
            namespace: Namespace::Http,
            tenant: Tenant::try_new("test-service").unwrap(),
            subject: None,
        };
        let fingerprint = Fingerprint { version: 1, digest: [0xab; 32] };
        let operation = Operation::try_new("POST /test").unwrap();
        Arc::new(Asked::new(
            scope,
            Key::try_new("test-123").unwrap(),
            operation,
            fingerprint,
            Policy::default(),
        ))
    };
    let Found::Granted(first) = ledger.claim(asked(), None).await.unwrap() else { panic!("is new") };
    let Found::Busy { record, .. } = ledger.claim(asked(), None).await.unwrap() else { panic!("is not new") };
    assert_eq!(first.record().id(), record.id());
}

#[tokio::test]
async fn keys_are_optional_and_get_is_skipped() {
    let bench = Bench::new(guides_config());
    assert_eq!(bench.send(request(Method::POST, "/api/v1/orders", &[], "{}")).await.status, 201);
    for _ in 0..2 {
        bench.send(request(Method::GET, "/api/v1/orders", &[("idempotency-key", "k")], "")).await;
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let key = method.as_str().to_owned();
        let asked = || request(method.clone(), "/api/v1/orders/7", &[("idempotency-key", &key)], "{}");
        bench.send(asked()).await;
        assert!(bench.send(asked()).await.is_replay(), "{method}");
    }
    assert_eq!(bench.runs(), 6);
    let all = Bench::new(guides_config().only_mutating(false));
    all.send(request(Method::GET, "/api/v1/orders", &[("idempotency-key", "k")], "")).await;
    assert!(
        all.send(request(Method::GET, "/api/v1/orders", &[("idempotency-key", "k")], "")).await.is_replay()
    );
}

#[tokio::test]
async fn the_error_codes_of_the_guide_are_read_as_its_clients_read_them() {
    let bench = Bench::new(guides_config().require_key(true));
    let missing = bench.send(request(Method::POST, "/test", &[], "{}")).await;
    assert_eq!((missing.status, &missing.json()["code"]), (400, &json!("IDEMPOTENCY_KEY_REQUIRED")));
    for invalid in ["key with spaces", "key.dot", "schlüssel", &"x".repeat(256)] {
        let answer = bench.post(invalid).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!("IDEMPOTENCY_KEY_INVALID")),
            "{invalid}"
        );
    }
    bench.post("k").await;
    let mismatch = bench.send(post("k", r#"{"amount":200}"#)).await;
    assert_eq!((mismatch.status, &mismatch.json()["code"]), (422, &json!("IDEMPOTENCY_PARAMETER_MISMATCH")));
    bench.store.script(&[Fault::Refused]);
    let down = bench.post("other").await;
    assert_eq!((down.status, &down.json()["code"]), (503, &json!("IDEMPOTENCY_STORAGE_UNAVAILABLE")));
    assert_eq!((&down.json()["details"]["retryAfter"], down.header("retry-after")), (&json!(5), Some("5")));
    assert_eq!(down.header("content-type"), Some("application/json"));
    assert!(down.json()["message"].is_string());
    let slow = Bench::serving(guides_config(), |_, _| std::future::pending());
    let mut first = Box::pin(slow.post("k"));
    assert!(futures_util::poll!(&mut first).is_pending());
    let busy = slow.post("k").await;
    assert_eq!((busy.status, &busy.json()["code"]), (409, &json!("IDEMPOTENCY_CONCURRENT_REQUEST")));
    assert_eq!((&busy.json()["details"]["retryAfter"], busy.header("retry-after")), (&json!(2), Some("2")));
}

#[tokio::test]
async fn the_original_status_is_an_option_and_only_successes_are_replayed_as_200() {
    let status = |config: Config, status| async move {
        let bench = Bench::serving(config, move |_, _| async move { reply(status, "") });
        bench.post("k").await;
        bench.post("k").await.status
    };
    assert_eq!(status(guides_config(), 201).await, 200);
    assert_eq!(status(guides_config(), 204).await, 200);
    assert_eq!(status(guides_config(), 303).await, 303);
    assert_eq!(status(guides_config(), 404).await, 404);
    assert_eq!(status(guides_config().replay_status(ReplayStatus::Original), 201).await, 201);
}

#[tokio::test]
async fn the_metrics_of_the_guide_count_what_they_say() {
    let mut registry = Registry::default();
    let bench = Bench::new(guides_config().metrics(Metrics::new(&mut registry)));
    bench.post("a").await;
    bench.post("b").await;
    bench.post("a").await;
    bench.send(post("a", "{}")).await;
    bench.store.script(&[Fault::Refused]);
    bench.post("c").await;
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "idempotency_hits_total{service=\"test-service\"} 1",
        "idempotency_misses_total{service=\"test-service\"} 2",
        "idempotency_parameter_mismatches_total{service=\"test-service\"} 1",
        "idempotency_concurrent_collisions_total{service=\"test-service\"} 0",
        "idempotency_storage_errors_total{service=\"test-service\"} 1",
        "idempotency_lock_acquisition_duration_seconds_count{service=\"test-service\"} 4",
        "idempotency_lock_acquisition_duration_seconds_bucket{le=\"0.5\",service=\"test-service\"} 4",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

/// "Monitor metrics for adoption": the share of requests with a key, before it is required, and what the rest of the
/// names count that the server has as well.
#[tokio::test]
async fn adoption_and_what_somebody_has_to_look_at_are_counted_under_the_servers_names() {
    let mut registry = Registry::default();
    let config = guides_config()
        .metrics(Metrics::new(&mut registry))
        .on_5xx(OnServerError::Unknown)
        .route("POST /exempt", RouteOptions::new().exempt(true))
        .unwrap();
    let bench = Bench::serving(config, |run, _| async move { reply(if run == 1 { 500 } else { 201 }, "") });
    bench.post("lost").await;
    bench.post("lost").await;
    bench.post("a key, malformed").await;
    bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    bench.send(request(Method::GET, "/orders", &[], "")).await;
    bench.send(request(Method::POST, "/exempt", &[], "")).await;
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "semel_keys_total{service=\"test-service\",route=\"*\",key=\"present\"} 3",
        "semel_keys_total{service=\"test-service\",route=\"*\",key=\"missing\"} 1",
        "semel_outcomes_unknown_total{service=\"test-service\",why=\"answer_inconclusive\"} 1",
        "semel_outcomes_unknown_total{service=\"test-service\",why=\"work_abandoned\"} 0",
        "semel_duplicates_total{service=\"test-service\",door=\"middleware\",reason=\"unknown\"} 1",
        "semel_fenced_writes_total{service=\"test-service\"} 0",
        "semel_heartbeats_failed_total{service=\"test-service\"} 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("exempt"), "{text}");
}

#[tokio::test]
async fn services_that_share_their_metrics_are_told_apart_by_the_label_service() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    for service in ["orders", "carts"] {
        let bench = Bench::new(shared(service).metrics(metrics.clone()));
        bench.post("k").await;
        if service == "carts" {
            bench.post("k").await;
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for (service, hits) in [("orders", 0), ("carts", 1)] {
        let line = format!("idempotency_hits_total{{service=\"{service}\"}} {hits}");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn two_services_on_one_store_do_not_share_their_keys() {
    let orders = Bench::new(guides_config());
    orders.post("k").await;
    let other = orders.enforced(shared("other-service").profile(Profile::Wms));
    assert!(!other.post("k").await.is_replay());
    let same = orders.enforced(guides_config());
    assert!(same.post("k").await.is_replay());
}

//! What a handler knows of its claim and says by its reply; and the layer where a router puts it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Extension;
use axum::extract::Path;
use axum::response::IntoResponse as _;
use axum::routing::{get, post as on_post};
use axum::{Json, Router};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use semel_core::record::StateName;
use semel_core::{Ledger, Store};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{
    Body, CheckpointErrorKind, Claimed, Config, IdempotencyLayer, OnLapse, OnServerError, RouteOptions, Steer,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Bench, created, post, reply, request, shared};

fn layer(config: Config) -> (IdempotencyLayer, Arc<dyn Store>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = Ledger::new(Arc::clone(&store), Arc::new(OsEntropy));
    (IdempotencyLayer::try_new(ledger, config).unwrap(), store)
}

async fn send(router: &Router, request: Request<Body>) -> (u16, Option<HeaderValue>, Value) {
    let response = router.clone().oneshot(request.map(axum::body::Body::new)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let replayed = parts.headers.get("idempotent-replayed").cloned();
    (parts.status.as_u16(), replayed, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_handler_takes_the_claim_as_an_argument_and_its_token_is_not_shown() {
    let (layer, _) = layer(shared("orders"));
    let handler = |claimed: Claimed| async move {
        assert!(!format!("{claimed:?}").to_lowercase().contains("token"));
        Json(json!({
            "key": claimed.key().as_str(), "fence": claimed.fence().0, "attempt": claimed.attempt(),
            "downstream": claimed.downstream_key(),
        }))
    };
    let optional = |claimed: Option<Claimed>| async move { Json(json!(claimed.is_some())) };
    let router = Router::new().route("/a", on_post(handler)).route("/b", on_post(optional)).layer(layer);
    let key = [("idempotency-key", "k")];
    let (status, _, said) = send(&router, request(Method::POST, "/a", &key, "")).await;
    assert_eq!((status, &said["key"], &said["attempt"]), (200, &json!("k"), &json!(1)));
    assert_eq!(said["downstream"].as_str().unwrap().len(), 32);
    let (status, _, said) = send(&router, request(Method::POST, "/a", &[], "")).await;
    assert_eq!((status, &said["code"]), (400, &json!("IDEMPOTENCY_KEY_REQUIRED")));
    assert_eq!(send(&router, request(Method::POST, "/b", &[], "")).await.2, json!(false));
    assert_eq!(
        send(&router, request(Method::POST, "/b", &[("idempotency-key", "b")], "")).await.2,
        json!(true)
    );
}

#[tokio::test]
async fn checkpoints_fence_and_downstream_key_outlive_an_attempt_that_is_not_kept() {
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (layer, _) = layer(shared("orders"));
    let told = Arc::clone(&seen);
    let handler = move |claimed: Claimed| {
        let told = Arc::clone(&told);
        async move {
            told.lock().push((
                claimed.attempt(),
                claimed.fence(),
                claimed.downstream_key(),
                claimed.checkpoint_of("reserved"),
            ));
            if claimed.attempt() == 1 {
                claimed.checkpoint("reserved", "r-7").await.unwrap();
                claimed.checkpoint("reserved", "r-7").await.unwrap();
                let other = claimed.checkpoint("reserved", "r-8").await.unwrap_err();
                assert!(matches!(other.kind(), CheckpointErrorKind::Illegal(_)));
                assert_eq!(claimed.checkpoints().len(), 1);
                return StatusCode::INTERNAL_SERVER_ERROR;
            }
            StatusCode::CREATED
        }
    };
    let router = Router::new().route("/orders", on_post(handler)).layer(layer);
    assert_eq!(send(&router, post("k", "{}")).await.0, 500);
    assert_eq!(send(&router, post("k", "{}")).await.0, 201);
    let (status, replayed, _) = send(&router, post("k", "{}")).await;
    assert_eq!((status, replayed.is_some()), (201, true));
    let seen = seen.lock();
    let [first, second] = &seen[..] else { panic!("two attempts: {seen:?}") };
    assert_eq!((first.0, second.0, &first.3), (1, 2, &None));
    assert!(second.1 > first.1, "L2");
    assert_eq!(first.2, second.2);
    assert_eq!(second.3.as_deref(), Some(&b"r-7"[..]));
}

#[tokio::test]
async fn operations_are_named_by_their_route_and_compared_by_the_path_that_the_client_asked_for() {
    let (layer, store) = layer(shared("orders"));
    let pay = |Path(id): Path<u32>| async move { Json(json!({ "paid": id })) };
    let inner = Router::new().route("/orders/{id}/pay", on_post(pay)).layer(layer);
    let router = Router::new().nest("/api", inner);
    let pay = |uri| send_key(&router, uri);
    assert_eq!(pay("/api/orders/7/pay").await.0, 200);
    assert_eq!(pay("/api/orders/8/pay").await.0, 422, "another order");
    assert!(pay("/api/orders/7/pay").await.1.is_some());
    let found = store.search(semel_core::query::Query::default(), None, 10).await.unwrap();
    assert_eq!(found.items[0].operation.as_str(), "POST /api/orders/{id}/pay");
}

async fn send_key(router: &Router, uri: &str) -> (u16, Option<HeaderValue>, Value) {
    send(router, request(Method::POST, uri, &[("idempotency-key", "k")], "")).await
}

#[tokio::test]
async fn a_route_can_have_a_layer_of_its_own_and_two_layers_are_one() {
    let (layer, store) = layer(shared("orders"));
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = |Extension(runs): Extension<Arc<AtomicUsize>>| async move {
        Json(json!(runs.fetch_add(1, Ordering::SeqCst) + 1))
    };
    let strict = layer.with("pay", RouteOptions::new().require_key(true)).unwrap();
    let router = Router::new()
        .route("/pay", on_post(handler).layer(strict.clone()))
        .route("/both", on_post(handler).layer(strict))
        .route("/open", on_post(handler))
        .route("/list", get(handler))
        .route_layer(layer)
        .layer(Extension(runs));
    let plain = |uri| send(&router, request(Method::POST, uri, &[], ""));
    assert_eq!(plain("/pay").await.0, 400);
    assert_eq!(plain("/open").await.0, 200);
    assert_eq!(send(&router, request(Method::GET, "/list", &[("idempotency-key", "k")], "")).await.0, 200);
    assert_eq!(send_key(&router, "/both").await.2, json!(3));
    let (_, replayed, said) = send_key(&router, "/both").await;
    assert_eq!((replayed.is_some(), said), (true, json!(3)));
    assert_eq!(store.search(semel_core::query::Query::default(), None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_handler_that_needs_a_claim_refuses_in_the_form_of_its_layers_profile() {
    let handler = |_: semel_tower::Claimed| async { "ran" };
    let missing = async |config, accept: &str| {
        let router = Router::new().route("/pay", on_post(handler)).layer(layer(config).0);
        let asked = request(Method::POST, "/pay", &[("accept", accept)], "");
        let response = router.oneshot(asked.map(axum::body::Body::new)).await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (kind, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (kind, problem) = missing(shared("orders"), "*/*").await;
    assert_eq!((kind.as_str(), &problem["status"]), ("application/problem+json", &json!(400)));
    let flat = || shared("orders").profile(semel_tower::Profile::Wms);
    let (kind, error) = missing(flat(), "*/*").await;
    assert_eq!((kind.as_str(), &error["code"]), ("application/json", &json!("IDEMPOTENCY_KEY_REQUIRED")));
    assert_eq!(missing(flat(), "application/problem+json").await.0, "application/problem+json");
    let read = Router::new().route("/pay", axum::routing::get(handler)).layer(layer(flat()).0);
    let (status, _, body) = send(&read, request(Method::GET, "/pay", &[], "")).await;
    assert_eq!(
        (status, &body["code"]),
        (400, &json!("IDEMPOTENCY_KEY_REQUIRED")),
        "a method without protection"
    );
    let bare = Router::new().route("/pay", on_post(handler));
    assert_eq!(send(&bare, request(Method::POST, "/pay", &[], "")).await.0, 400, "and without any layer");
}

#[tokio::test]
async fn in_report_mode_no_request_has_a_claim_so_only_a_handler_that_can_do_without_is_adopted() {
    let reporting = || layer(shared("orders").profile(semel_tower::Profile::Wms).enforce(false)).0;
    let keyed = || request(Method::POST, "/pay", &[("idempotency-key", "a")], "{}");
    let needs = on_post(|_: semel_tower::Claimed| async { Json(json!("ran")) });
    let (status, _, refused) = send(&Router::new().route("/pay", needs).layer(reporting()), keyed()).await;
    assert_eq!((status, &refused["code"]), (400, &json!("IDEMPOTENCY_KEY_REQUIRED")), "{refused}");
    let can = on_post(|claim: Option<semel_tower::Claimed>| async move { Json(json!(claim.is_none())) });
    let answered = send(&Router::new().route("/pay", can).layer(reporting()), keyed()).await;
    assert_eq!(answered, (200, None, json!(true)));
}

#[tokio::test]
async fn where_a_route_has_a_layer_of_its_own_no_matcher_counts() {
    let config = shared("orders").route("POST /pay", RouteOptions::new().exempt(true)).unwrap();
    let own = layer(config).0.with("pay", RouteOptions::new().require_key(true)).unwrap();
    let router = Router::new().route("/pay", on_post(|| async { Json(json!(1)) }).layer(own));
    assert_eq!(send(&router, request(Method::POST, "/pay", &[], "")).await.0, 400);
    assert!(send_key(&router, "/pay").await.1.is_none());
    assert!(send_key(&router, "/pay").await.1.is_some(), "replayed");
}

#[tokio::test]
async fn an_outer_layer_that_knows_the_route_brings_its_rules() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ledger = Ledger::new(store, Arc::new(OsEntropy));
    let layer = IdempotencyLayer::try_new(ledger, shared("gateway")).unwrap();
    let strict = layer.route("POST /pay", RouteOptions::new().require_key(true)).unwrap();
    let inner = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(created(1)) });
    let service = tower_layer::Layer::layer(&layer, inner);
    let mut asked = request(Method::POST, "/pay", &[], "");
    assert_eq!(service.clone().oneshot(request(Method::POST, "/pay", &[], "")).await.unwrap().status(), 201);
    asked.extensions_mut().insert(strict);
    assert_eq!(service.oneshot(asked).await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_service_steers_by_extension_or_header_and_neither_reaches_the_client() {
    for (status, steer, runs, state) in [
        (503, Steer::Keep, 1, StateName::Completed),
        (201, Steer::DoNotKeep, 2, StateName::Released),
        (201, Steer::Release, 2, StateName::Released),
        (502, Steer::Unknown, 1, StateName::Unknown),
        (201, Steer::Unknown, 1, StateName::Unknown),
    ] {
        for by_header in [false, true] {
            let bench = Bench::serving(shared("orders"), move |_, _| async move {
                let mut response = reply(status, "said");
                if by_header {
                    response.headers_mut().insert("semel-outcome", HeaderValue::from_static(steer.as_str()));
                } else {
                    response.extensions_mut().insert(steer);
                }
                response
            });
            let first = bench.post("k").await;
            assert_eq!(
                (first.status, &first.body[..]),
                (status, &b"said"[..]),
                "{steer:?}: the reply is the service's"
            );
            assert_eq!(first.header("semel-outcome"), None);
            assert_eq!(bench.records().await[0].state().name(), state, "{steer:?}");
            let again = bench.post("k").await;
            assert_eq!(bench.runs(), runs, "{steer:?}");
            match steer {
                Steer::Keep => assert_eq!((again.status, again.is_replay()), (503, true)),
                Steer::Unknown => {
                    assert_eq!((again.status, again.code().as_str()), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN"));
                }
                Steer::DoNotKeep | Steer::Release => {
                    assert_eq!((again.status, again.is_replay()), (201, false));
                }
            }
        }
    }
}

#[tokio::test]
async fn the_word_of_a_service_is_stripped_where_there_is_no_key_as_well() {
    let bench = Bench::serving(shared("orders"), |_, _| async {
        let mut response = reply(200, "");
        response.headers_mut().insert("semel-outcome", HeaderValue::from_static("keep"));
        response
    });
    let answer = bench.send(request(Method::POST, "/orders", &[], "")).await;
    assert_eq!((answer.status, answer.header("semel-outcome")), (200, None));
}

#[tokio::test]
async fn a_server_error_frees_the_key_unless_it_is_said_to_be_unknown_or_kept() {
    let statuses = |config: Config| async {
        let bench = Bench::serving(config, |_, _| async { reply(503, "") });
        (bench.post("k").await.status, bench.post("k").await.status, bench.runs())
    };
    assert_eq!(statuses(shared("a")).await, (503, 503, 2));
    assert_eq!(statuses(shared("a").on_5xx(OnServerError::Unknown)).await, (503, 409, 1));
    assert_eq!(statuses(shared("a").keep_statuses(vec![503])).await, (503, 503, 1));
    let release = shared("a").keep_statuses(vec![503]).release_statuses(vec![503]);
    assert_eq!(statuses(release).await, (503, 503, 2));
    // A status that is named goes before what is said of all server errors.
    let unknown = || shared("a").on_5xx(OnServerError::Unknown);
    assert_eq!(statuses(unknown().keep_statuses(vec![503])).await, (503, 503, 1));
    assert_eq!(statuses(unknown().release_statuses(vec![503])).await, (503, 503, 2));
    assert_eq!(statuses(unknown().keep_statuses(vec![500])).await, (503, 409, 1));
    assert_eq!(
        statuses(shared("a").on_lapse(OnLapse::AtMostOnce)).await,
        (503, 503, 2),
        "it was received whole"
    );
}

#[tokio::test]
async fn a_replay_has_only_the_headers_of_the_allow_list_where_there_is_one() {
    let config = shared("orders").replay_headers(vec![http::header::ETAG, http::header::SET_COOKIE]);
    let bench = Bench::serving(config, |run, _| async move {
        let mut response = created(run);
        for (name, value) in [("etag", "\"v\""), ("set-cookie", "a=1"), ("x-other", "1")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    bench.post("k").await;
    let again = bench.post("k").await;
    assert_eq!(
        (again.header("etag"), again.header("set-cookie"), again.header("x-other")),
        (Some("\"v\""), None, None)
    );
    assert_eq!(again.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_layer_of_axum_takes_any_handler_and_its_rejections() {
    let (layer, _) = layer(shared("orders"));
    let handler =
        |Json(order): Json<Value>| async move { (StatusCode::CREATED, Json(order)).into_response() };
    let router = Router::new().route("/orders", on_post(handler)).layer(layer);
    let (status, _, said) = send(&router, post("a", r#"{"n":1}"#)).await;
    assert_eq!((status, said), (201, json!({"n": 1})));
    assert_eq!(send(&router, post("b", "no json")).await.0, 400);
    let (status, replayed, _) = send(&router, post("b", "no json")).await;
    assert_eq!((status, replayed.is_some()), (400, true), "a deterministic refusal is kept");
    assert_eq!(send(&router, request(Method::PUT, "/orders", &[("idempotency-key", "c")], "")).await.0, 405);
}

//! Claim, run, replay; mismatch, in flight, malformed: the contract's core.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use semel_core::record::StateName;
use semel_tower::{Caller, Fields, Profile, RouteOptions};
use tokio::sync::Notify;

use crate::harness::{Bench, created, post, reply, request, shared};

#[tokio::test]
async fn a_service_runs_once_per_key_and_a_retry_is_given_the_first_answer_l10() {
    let bench = Bench::new(shared("orders"));
    let first = bench.post("k-1").await;
    assert_eq!((first.status, first.is_replay()), (201, false));
    let again = bench.post("k-1").await;
    assert!(again.is_replay());
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("content-type"), Some("application/json"));
    assert_eq!(bench.runs(), 1);
    let other = bench.post("k-2").await;
    assert_ne!(other.body, first.body);
    assert_eq!(bench.runs(), 2);
}

#[tokio::test]
async fn settled_replies_say_when_the_key_is_forgotten_and_a_replay_says_the_same() {
    let bench = Bench::new(shared("orders").retention_period(Duration::from_secs(3600)));
    let first = bench.post("k").await;
    let said = first.header("idempotency-expires").unwrap();
    let at = httpdate(said);
    let expires = bench.records().await[0].times().expires.unwrap();
    assert_eq!(at, expires.as_millis() / 1000);
    assert_eq!(bench.post("k").await.header("idempotency-expires"), Some(said), "not computed anew");
}

fn httpdate(text: &str) -> u64 {
    let time = httpdate::parse_http_date(text).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_replay_has_the_same_status_kept_headers_and_body_byte_for_byte_l10() {
    let bench = Bench::serving(shared("orders"), |_, _| async {
        let mut response = reply(201, "{\"b\":1, \"a\":  2}\n");
        for (name, value) in [
            ("location", "/orders/7"),
            ("etag", "\"v1\""),
            ("link", "</a>; rel=next"),
            ("link", "</b>; rel=prev"),
            ("set-cookie", "session=1"),
            ("date", "Sat, 21 Nov 2026 07:00:00 GMT"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-type", "application/json"),
        ] {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    });
    let (first, again) = (bench.post("k").await, bench.post("k").await);
    assert_eq!(first.header("set-cookie"), Some("session=1"), "the first answer is the service's own");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    let replayed: Vec<_> =
        again.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(
        replayed[..5],
        [
            ("location", "/orders/7"),
            ("etag", "\"v1\""),
            ("link", "</a>; rel=next"),
            ("link", "</b>; rel=prev"),
            ("content-type", "application/json"),
        ]
    );
    assert_eq!(replayed.len(), 7, "and the two of the contract");
}

#[tokio::test]
async fn a_key_that_is_used_with_other_parameters_is_a_mismatch_and_changes_nothing_l5() {
    let bench = Bench::new(shared("orders"));
    bench.post("k").await;
    let before = bench.records().await;
    for other in [
        post("k", r#"{"amount":6}"#),
        request(
            Method::PUT,
            "/orders",
            &[("idempotency-key", "k"), ("content-type", "application/json")],
            r#"{"amount":5}"#,
        ),
        request(
            Method::POST,
            "/orders/7",
            &[("idempotency-key", "k"), ("content-type", "application/json")],
            r#"{"amount":5}"#,
        ),
        request(
            Method::POST,
            "/orders?dry=1",
            &[("idempotency-key", "k"), ("content-type", "application/json")],
            r#"{"amount":5}"#,
        ),
    ] {
        let answer = bench.send(other).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "IDEMPOTENCY_PARAMETER_MISMATCH"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!((bench.runs(), bench.records().await), (1, before));
}

#[tokio::test]
async fn the_same_meaning_in_another_spelling_is_the_same_request() {
    let bench = Bench::new(shared("orders"));
    let send = |uri: &'static str, body| {
        let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
        bench.send(request(Method::POST, uri, &headers, body))
    };
    send("/orders?a=1&b=2", r#"{"a":1,"b":"é"}"#).await;
    let again = send("/orders?b=2&a=1", "{ \"b\": \"\\u00e9\", \"a\": 1.0 }").await;
    assert!(again.is_replay(), "{again:?}");
}

#[tokio::test]
async fn fields_that_do_not_count_do_not_make_a_mismatch() {
    let fields = Fields::except(["/sent_at", "/meta/nonce"]).unwrap();
    let bench = Bench::new(shared("orders").fingerprint(fields));
    bench.send(post("k", r#"{"amount":5,"sent_at":1,"meta":{"nonce":"a"}}"#)).await;
    assert!(bench.send(post("k", r#"{"amount":5,"sent_at":2,"meta":{"nonce":"b"}}"#)).await.is_replay());
    assert_eq!(bench.send(post("k", r#"{"amount":6,"sent_at":2,"meta":{"nonce":"b"}}"#)).await.status, 422);
}

#[tokio::test]
async fn requests_without_a_key_and_those_that_change_nothing_pass_through_untouched() {
    let bench = Bench::new(shared("orders"));
    let plain = bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    assert_eq!((plain.status, plain.header("idempotency-expires")), (201, None));
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        bench.send(request(method.clone(), "/orders", &[("idempotency-key", "k")], "")).await;
        bench.send(request(method, "/orders", &[("idempotency-key", "k")], "")).await;
    }
    assert_eq!(bench.runs(), 7);
    assert!(bench.records().await.is_empty());
}

#[tokio::test]
async fn a_required_key_that_is_missing_is_400_and_nothing_runs() {
    let bench = Bench::new(shared("orders").require_key(true));
    let answer = bench.send(request(Method::POST, "/orders", &[("x-request-id", "r-7")], "{}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "IDEMPOTENCY_KEY_REQUIRED"));
    let json = answer.json();
    assert_eq!(
        json["type"],
        "https://github.com/semel-project/semel/blob/main/docs/errors/IDEMPOTENCY_KEY_REQUIRED.md"
    );
    assert_eq!(json["request_id"], "r-7");
    assert_eq!(bench.send(request(Method::GET, "/orders", &[], "")).await.status, 201);
    assert_eq!(bench.runs(), 1);
}

#[tokio::test]
async fn a_malformed_or_repeated_key_is_400_and_never_ignored() {
    let bench = Bench::new(shared("orders").max_key_length(8));
    for keys in [
        &[("idempotency-key", "")][..],
        &[("idempotency-key", "\"a")],
        &[("idempotency-key", "a b")],
        &[("idempotency-key", "123456789")],
        &[("idempotency-key", "a"), ("idempotency-key", "a")],
    ] {
        let answer = bench.send(request(Method::POST, "/orders", keys, "{}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "IDEMPOTENCY_KEY_INVALID"), "{keys:?}");
    }
    assert_eq!(bench.runs(), 0);
    assert_eq!(bench.post("12345678").await.status, 201);
}

#[tokio::test]
async fn the_string_in_quotes_and_the_bare_token_are_the_same_key() {
    let bench = Bench::new(shared("orders"));
    bench.post("\"8e03978e-40d5\"").await;
    assert!(bench.post("8e03978e-40d5").await.is_replay());
}

#[tokio::test]
async fn while_it_runs_a_duplicate_is_409_with_retry_after_and_one_that_waits_is_given_the_result() {
    let go = Arc::new(Notify::new());
    let service = Arc::clone(&go);
    let bench = Bench::serving(shared("orders"), move |run, _| {
        let go = Arc::clone(&service);
        async move {
            go.notified().await;
            created(run)
        }
    });
    let first = tokio::spawn({
        let bench = bench.clone();
        async move { bench.post("k").await }
    });
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let busy = bench.post("k").await;
    assert_eq!((busy.status, busy.code().as_str()), (409, "IDEMPOTENCY_CONCURRENT_REQUEST"));
    assert!((1..=2).contains(&busy.header("retry-after").unwrap().parse::<u32>().unwrap()));
    let waits = tokio::spawn({
        let bench = bench.clone();
        async move {
            let mut request = post("k", r#"{"amount":5}"#);
            request.headers_mut().insert("prefer", "wait=20".parse().unwrap());
            bench.send(request).await
        }
    });
    tokio::task::yield_now().await;
    go.notify_one();
    let (first, waited) = (first.await.unwrap(), waits.await.unwrap());
    assert_eq!(waited.header("preference-applied"), Some("wait=20"));
    assert!(waited.is_replay() && !first.is_replay());
    assert_eq!((waited.status, &waited.body, bench.runs()), (201, &first.body, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_waits_no_longer_than_is_allowed() {
    let bench =
        Bench::serving(shared("orders").max_wait(Duration::from_secs(3)), |_, _| std::future::pending());
    let first = tokio::spawn({
        let bench = bench.clone();
        async move { bench.post("k").await }
    });
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let mut request = post("k", r#"{"amount":5}"#);
    request.headers_mut().insert("prefer", "wait=60".parse().unwrap());
    let began = tokio::time::Instant::now();
    let busy = bench.send(request).await;
    assert_eq!((busy.status, busy.header("preference-applied")), (409, Some("wait=3")));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    first.abort();
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_nothing_runs() {
    let bench = Bench::new(shared("orders").max_body_size(8));
    let answer = bench.send(post("k", "123456789")).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(bench.send(post("k", "12345678")).await.status, 201);
    let plain = bench.send(request(Method::POST, "/orders", &[], "123456789")).await;
    assert_eq!(plain.status, 201, "the limit is for what is protected");
    assert_eq!(bench.runs(), 2);
}

#[tokio::test]
async fn another_callers_reply_is_never_given_out() {
    let who = |parts: &http::request::Parts| match parts.headers.get("x-user") {
        Some(user) => Caller::Known(user.to_str().unwrap().to_owned()),
        None => Caller::Nobody,
    };
    let bench = Bench::new(shared("orders").caller(who));
    let send = |user: &'static str| {
        let headers = [("idempotency-key", "k"), ("x-user", user)];
        bench.send(request(Method::POST, "/orders", &headers, "{}"))
    };
    let (a, b) = (send("a").await, send("b").await);
    assert!(!b.is_replay() && a.body != b.body);
    assert!(send("a").await.is_replay() && send("b").await.is_replay());
    let nobody = bench.send(request(Method::POST, "/orders", &[("idempotency-key", "k")], "{}")).await;
    assert_eq!((nobody.status, nobody.code().as_str(), bench.runs()), (401, "UNAUTHENTICATED", 2));
    let shared = Bench::new(shared("orders").caller(who).shared_keys(true));
    let headers = |user| [("idempotency-key", "k"), ("x-user", user)];
    shared.send(request(Method::POST, "/orders", &headers("a"), "{}")).await;
    assert!(shared.send(request(Method::POST, "/orders", &headers("b"), "{}")).await.is_replay());
}

#[tokio::test]
async fn another_tenants_key_is_another_key() {
    let tenant = |parts: &http::request::Parts| {
        parts.headers.get("x-tenant").map(|tenant| tenant.to_str().unwrap().to_owned())
    };
    let bench = Bench::new(shared("orders").tenant(tenant));
    let headers = |tenant| [("idempotency-key", "k"), ("x-tenant", tenant)];
    bench.send(request(Method::POST, "/orders", &headers("a"), "{}")).await;
    let other = bench.send(request(Method::POST, "/orders", &headers("b"), "{}")).await;
    assert_eq!((other.is_replay(), bench.runs()), (false, 2));
    let none = bench.send(request(Method::POST, "/orders", &[("idempotency-key", "k")], "{}")).await;
    assert_eq!(none.status, 401);
}

#[tokio::test]
async fn of_several_matchers_the_first_counts_and_what_it_does_not_say_the_layer_says() {
    let config = shared("orders")
        .profile(Profile::Wms)
        .route("POST /orders/{id}/pay", RouteOptions::new().require_key(true))
        .unwrap()
        .route("POST /orders/{id}/{what}", RouteOptions::new().exempt(true))
        .unwrap();
    let bench = Bench::new(config);
    let pay = bench.send(request(Method::POST, "/orders/7/pay", &[], "{}")).await;
    assert_eq!((pay.status, pay.code().as_str()), (400, "IDEMPOTENCY_KEY_REQUIRED"));
    assert!(pay.json()["details"].is_object(), "in the layer's form");
    let key = [("idempotency-key", "k")];
    for _ in 0..2 {
        bench.send(request(Method::POST, "/orders/7/note", &key, "{}")).await;
    }
    assert_eq!(bench.runs(), 2, "exempt");
    assert_eq!(bench.send(request(Method::POST, "/orders", &[], "{}")).await.status, 201);
}

#[tokio::test]
async fn the_record_carries_operation_policy_and_scope() {
    let bench = Bench::new(shared("orders").lock_timeout(Duration::from_secs(60)));
    bench.post("k").await;
    let records = bench.records().await;
    let record = &records[0];
    assert_eq!(record.state().name(), StateName::Completed);
    assert_eq!(record.request().operation().as_str(), "POST /orders");
    assert_eq!(record.request().policy().lease(), Duration::from_secs(60));
    assert_eq!(record.request().scope().tenant.as_str(), "default");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_forgotten_after_its_retention_and_runs_anew() {
    let hour = Duration::from_secs(3600);
    let bench = Bench::new(shared("orders").retention_period(hour).sweep(false));
    bench.post("k").await;
    let settled = bench.records().await.remove(0);
    tokio::time::sleep(hour.mul_f32(0.9)).await;
    assert!(bench.post("k").await.is_replay());
    tokio::time::sleep(hour.mul_f32(0.2)).await;
    let anew = bench.post("k").await;
    assert_eq!((anew.status, anew.is_replay(), bench.runs()), (201, false, 2));
    assert!(bench.records().await[0].fence() > settled.fence(), "L2");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_swept_without_being_asked_for() {
    let bench = Bench::new(shared("orders").retention_period(Duration::from_millis(1)));
    bench.post("k").await;
    let settled = bench.records().await.remove(0);
    // The clock is paused, so this is no waiting: it has expired, and the sweeper has come by.
    tokio::time::sleep(semel_tower::limits::SWEEP_EVERY * 2).await;
    assert_eq!(bench.load(settled.id()).await, None);
}

#[tokio::test]
async fn what_was_refused_is_refused_again_until_it_is_corrected() {
    let bench = Bench::new(shared("orders").require_key(true));
    bench.post("k").await;
    for _ in 0..3 {
        assert_eq!(bench.send(post("k", r#"{"amount":6}"#)).await.status, 422);
        assert_eq!(bench.send(request(Method::POST, "/orders", &[], "{}")).await.status, 400);
        assert_eq!(bench.post("\"k").await.status, 400);
    }
    assert!(bench.post("k").await.is_replay());
    assert_eq!(bench.send(post("new", r#"{"amount":6}"#)).await.status, 201);
}

#[tokio::test]
async fn the_drafts_own_examples_are_keys() {
    let bench = Bench::new(shared("orders"));
    for key in ["\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", "\"clkyoesmbgybucifusbbtdsbohtyuuwz\""] {
        assert_eq!(bench.post(key).await.status, 201);
        assert!(bench.post(key).await.is_replay());
    }
}

#[tokio::test]
async fn who_waited_for_an_attempt_that_is_not_kept_is_told_to_come_back_and_then_runs() {
    let go = Arc::new(Notify::new());
    let service = Arc::clone(&go);
    let bench = Bench::serving(shared("orders"), move |run, _| {
        let go = Arc::clone(&service);
        async move {
            if run > 1 {
                return created(run);
            }
            go.notified().await;
            reply(503, "")
        }
    });
    let send = |wait: &'static str| {
        let mut request = post("k", r#"{"amount":5}"#);
        request.headers_mut().insert("prefer", wait.parse().unwrap());
        let bench = bench.clone();
        tokio::spawn(async move { bench.send(request).await })
    };
    let first = send("wait=0");
    while bench.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let waits = send("wait=20");
    tokio::task::yield_now().await;
    go.notify_one();
    let (first, waited) = (first.await.unwrap(), waits.await.unwrap());
    assert_eq!((first.status, waited.status), (503, 409));
    assert_eq!(
        (waited.header("retry-after"), waited.header("preference-applied")),
        (Some("1"), Some("wait=20"))
    );
    assert_eq!(
        (bench.post("k").await.status, bench.runs()),
        (201, 2),
        "waiters never claim; who comes back does"
    );
}

#[tokio::test]
async fn what_an_operator_finds_out_about_an_unknown_outcome_is_what_the_next_request_is_given() {
    use semel_core::command::{Discard, Resolution, Resolve};
    use semel_core::outcome::{Class, Headers, Outcome};
    use semel_tower::{OnLapse, OnServerError};

    let outcome = Outcome::try_new(Class::Success, 201, Headers::default(), "found".into()).unwrap();
    for (resolution, status, runs) in
        [(Resolution::Completed(outcome), 201, 1), (Resolution::NotExecuted, 502, 2)]
    {
        let config = shared("orders").on_5xx(OnServerError::Unknown).on_lapse(OnLapse::AtMostOnce);
        let bench = Bench::serving(config, |_, _| async { reply(502, "") });
        bench.post("k").await;
        assert_eq!(bench.post("k").await.code(), "IDEMPOTENCY_OUTCOME_UNKNOWN");
        let unknown = bench.records().await.remove(0);
        let resolve = Resolve {
            id: unknown.id(),
            version: unknown.version(),
            resolution,
            actor: "ada".into(),
            reason: "looked it up".into(),
            correlation_id: None,
        };
        bench.layer.ledger().apply(&resolve).await.unwrap();
        assert_eq!((bench.post("k").await.status, bench.runs()), (status, runs));
    }
    let bench =
        Bench::serving(shared("orders").on_5xx(OnServerError::Unknown), |_, _| async { reply(502, "") });
    bench.post("k").await;
    let unknown = bench.records().await.remove(0);
    let discard = Discard {
        id: unknown.id(),
        version: unknown.version(),
        actor: "ada".into(),
        reason: "a test".into(),
        correlation_id: None,
    };
    bench.layer.ledger().apply(&discard).await.unwrap();
    let discarded = bench.post("k").await;
    assert_eq!((discarded.status, discarded.code().as_str(), bench.runs()), (410, "OPERATION_DISCARDED", 1));
}

//! Each profile as a table: what is sent, and what it comes to.

use http::Method;
use semel_conformance::faulty::Fault;
use semel_core::record::StateName;
use semel_tower::{Caller, Codes, Config, Form, Keep, KeyAlphabet, Profile, ReplayStatus};

use crate::harness::{Bench, request, shared};
use futures_util::poll;

/// What a profile says, as the contract's table has it.
struct Row {
    profile: Profile,
    /// Methods whose duplicates are replayed.
    protected: &'static [&'static str],
    /// What becomes of a POST without a key.
    missing: u16,
    /// Keys that are taken, and keys that are refused.
    taken: &'static [&'static str],
    refused: &'static [&'static str],
    /// Statuses whose first answer is replayed, and those that free the key.
    kept: &'static [u16],
    freed: &'static [u16],
    /// What a replay of 201 says.
    replay_of_201: u16,
    /// A mismatch: status and code.
    mismatch: (u16, &'static str),
    in_flight: (u16, &'static str),
    missing_code: &'static str,
    down_code: &'static str,
    content_type: &'static str,
    /// Whether the same key on another path is another key.
    by_path: bool,
    /// The rules one by one, instead of the profile.
    by_hand: Option<Config>,
}

const IETF: Row = Row {
    profile: Profile::Ietf,
    protected: &["POST", "PUT", "PATCH", "DELETE"],
    missing: 201,
    taken: &["8e03978e-40d5", "\"8e03978e-40d5\"", "\"a key, with spaces!\"", "a.b~c"],
    refused: &["a b", "\"a", "é", "a,b", ""],
    kept: &[200, 201, 204, 303, 400, 402, 403, 404, 410, 412, 413, 415, 422],
    freed: &[401, 407, 408, 409, 423, 425, 429, 500, 502, 503, 504],
    replay_of_201: 201,
    mismatch: (422, "IDEMPOTENCY_PARAMETER_MISMATCH"),
    in_flight: (409, "IDEMPOTENCY_CONCURRENT_REQUEST"),
    missing_code: "IDEMPOTENCY_KEY_REQUIRED",
    down_code: "IDEMPOTENCY_STORAGE_UNAVAILABLE",
    content_type: "application/problem+json",
    by_path: false,
    by_hand: None,
};

const WMS: Row = Row {
    profile: Profile::Wms,
    taken: &["8e03978e-40d5", "\"8e03978e-40d5\"", "A_b-9"],
    refused: &["a b", "a.b", "\"a b\"", "é", "a~", ""],
    replay_of_201: 200,
    content_type: "application/json",
    ..IETF
};

const STRIPE: Row = Row {
    profile: Profile::Stripe,
    protected: &["POST"],
    taken: &["8e03978e-40d5", "\"8e03978e-40d5\"", "a b/c:d", "charge(1)"],
    refused: &["\"a", "é", ""],
    kept: &[200, 201, 303, 401, 402, 404, 409, 429, 500, 502, 503],
    freed: &[400, 422],
    mismatch: (400, "IDEMPOTENCY_PARAMETER_MISMATCH"),
    content_type: "application/json",
    ..IETF
};

const ACP: Row = Row {
    profile: Profile::Acp,
    protected: &["POST"],
    missing: 400,
    taken: &["8e03978e-40d5", "\"8e03978e-40d5\"", "a b/c:d"],
    refused: &["\"a", "é", ""],
    mismatch: (422, "idempotency_conflict"),
    in_flight: (409, "idempotency_in_flight"),
    missing_code: "idempotency_key_required",
    down_code: "service_unavailable",
    content_type: "application/json",
    by_path: true,
    ..IETF
};

fn config(row: &Row) -> Config {
    row.by_hand.clone().unwrap_or_else(|| shared("orders").profile(row.profile))
}

fn answering(row: &Row, status: u16) -> Bench {
    Bench::serving(config(row), move |_, _| async move { crate::harness::reply(status, "said") })
}

fn sent(key: &str, method: &str, uri: &str, body: &'static str) -> http::Request<semel_tower::Body> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut sent = request(method, uri, &[("content-type", "application/json")], body);
    sent.headers_mut().insert("idempotency-key", http::HeaderValue::from_bytes(key.as_bytes()).unwrap());
    sent
}

async fn check_with(row: Row, by_hand: Config) {
    check(Row { by_hand: Some(by_hand), ..row }).await;
}

async fn check(row: Row) {
    let name = row.profile.as_str();
    check_requests(&row, name).await;
    check_replies(&row, name).await;
    check_refusals(&row, name).await;
    check_scope(&row, name).await;
}

async fn check_requests(row: &Row, name: &str) {
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
        let bench = answering(row, 200);
        for _ in 0..2 {
            bench.send(sent("k", method, "/orders", "")).await;
        }
        let once = row.protected.contains(&method);
        assert_eq!(bench.runs(), if once { 1 } else { 2 }, "{name}: {method}");
    }
    let bench = answering(row, 201);
    let missing = bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    assert_eq!(missing.status, row.missing, "{name}: without a key");
    for key in row.taken {
        assert_eq!(bench.send(sent(key, "POST", "/orders", "{}")).await.status / 100, 2, "{name}: {key}");
    }
    for key in row.refused {
        assert_eq!(bench.send(sent(key, "POST", "/orders", "{}")).await.status, 400, "{name}: {key}");
    }
    let longest = "x".repeat(255);
    assert_eq!(
        bench.send(sent(&longest, "POST", "/orders", "{}")).await.status,
        201,
        "{name}: 255 characters"
    );
    let too_long = "x".repeat(256);
    assert_eq!(
        bench.send(sent(&too_long, "POST", "/orders", "{}")).await.status,
        400,
        "{name}: 256 characters"
    );
}

async fn check_replies(row: &Row, name: &str) {
    for (statuses, is_kept) in [(row.kept, true), (row.freed, false)] {
        for &status in statuses {
            let bench = answering(row, status);
            let first = bench.send(sent("k", "POST", "/orders", "{}")).await;
            assert_eq!((first.status, first.is_replay()), (status, false), "{name}: {status}");
            assert_eq!(first.header("idempotency-expires").is_some(), is_kept, "{name}: {status}");
            let again = bench.send(sent("k", "POST", "/orders", "{}")).await;
            assert_eq!(
                (again.is_replay(), bench.runs()),
                (is_kept, if is_kept { 1 } else { 2 }),
                "{name}: {status}"
            );
            let state = if is_kept { StateName::Completed } else { StateName::Released };
            assert_eq!(bench.records().await[0].state().name(), state, "{name}: {status}");
            assert_eq!(again.body, "said", "{name}: {status}");
        }
    }
    let bench = answering(row, 201);
    bench.send(sent("k", "POST", "/orders", "{}")).await;
    assert_eq!(bench.send(sent("k", "POST", "/orders", "{}")).await.status, row.replay_of_201, "{name}");
}

async fn check_refusals(row: &Row, name: &str) {
    let bench = Bench::new(config(row).require_key(true));
    bench.send(sent("k", "POST", "/orders", r#"{"n":1}"#)).await;
    let mismatch = bench.send(sent("k", "POST", "/orders", r#"{"n":2}"#)).await;
    assert_eq!((mismatch.status, mismatch.code().as_str()), row.mismatch, "{name}");
    let missing = bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    assert_eq!((missing.status, missing.code().as_str()), (400, row.missing_code), "{name}");
    bench.store.script(&[Fault::Refused]);
    let down = bench.send(sent("d", "POST", "/orders", "{}")).await;
    assert_eq!((down.status, down.code().as_str()), (503, row.down_code), "{name}");
    let slow = Bench::serving(config(row), |_, _| std::future::pending());
    let mut first = Box::pin(slow.send(sent("k", "POST", "/orders", "{}")));
    assert!(poll!(&mut first).is_pending());
    let busy = slow.send(sent("k", "POST", "/orders", "{}")).await;
    assert_eq!((busy.status, busy.code().as_str()), row.in_flight, "{name}");
    for refusal in [&mismatch, &missing, &down, &busy] {
        assert_eq!(refusal.header("content-type"), Some(row.content_type), "{name}");
        assert_eq!(refusal.header("retry-after").is_some(), [409, 503].contains(&refusal.status), "{name}");
        assert!(!refusal.is_replay(), "{name}");
        let link = refusal.header("link").unwrap();
        assert!(
            link.starts_with("<https://github.com/semel-project/semel/blob/main/docs/errors/")
                && link.contains("rel=\"describedby\""),
            "{name}: {link}"
        );
    }
    let mut accepting = request(Method::POST, "/orders", &[("accept", "application/problem+json")], "{}");
    accepting.headers_mut().remove("idempotency-key");
    let problem = bench.send(accepting).await;
    assert_eq!(
        problem.header("content-type"),
        Some("application/problem+json"),
        "{name}: as the client accepts it"
    );
}

/// Section by section, what draft-07 asks of a server and no other test says by its name.
#[tokio::test]
async fn a_refusal_under_ietf_is_a_problem_whose_type_is_the_page_of_its_code() {
    let bench = Bench::new(config(&IETF).require_key(true).errors_base("https://api.example/errors/"));
    bench.send(sent("k", "POST", "/orders", r#"{"n":1}"#)).await;
    let missing = bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    let mismatch = bench.send(sent("k", "POST", "/orders", r#"{"n":2}"#)).await;
    let base = config(&IETF).errors_base("https://api.example/errors/");
    let slow = Bench::serving(base, |_, _| std::future::pending());
    let mut first = Box::pin(slow.post("k"));
    assert!(poll!(&mut first).is_pending());
    let busy = slow.post("k").await;
    for (refusal, status, code) in [
        (missing, 400, "IDEMPOTENCY_KEY_REQUIRED"),
        (mismatch, 422, "IDEMPOTENCY_PARAMETER_MISMATCH"),
        (busy, 409, "IDEMPOTENCY_CONCURRENT_REQUEST"),
    ] {
        assert_eq!(refusal.status, status);
        let link = format!("<https://api.example/errors/{code}>; rel=\"describedby\"; type=\"text/html\"");
        assert_eq!(refusal.header("link"), Some(link.as_str()));
        let problem = refusal.json();
        assert_eq!(problem["type"], format!("https://api.example/errors/{code}"));
        assert_eq!(problem["status"], refusal.status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
}

async fn check_scope(row: &Row, name: &str) {
    let by_user =
        |parts: &http::request::Parts| Caller::Known(parts.headers["x-user"].to_str().unwrap().to_owned());
    let bench = Bench::new(config(row).caller(by_user));
    let send = |user: &'static str, uri: &'static str| {
        let mut sent = sent("k", "POST", uri, "{}");
        sent.headers_mut().insert("x-user", user.parse().unwrap());
        bench.send(sent)
    };
    assert!(!send("a", "/orders").await.is_replay());
    assert!(!send("b", "/orders").await.is_replay(), "{name}: another caller");
    assert!(send("a", "/orders").await.is_replay(), "{name}");
    let elsewhere = send("a", "/carts").await;
    assert_eq!(elsewhere.status == 201, row.by_path, "{name}: another path is another key, or a mismatch");
}

/// One profile turned into another, rule by rule.
#[tokio::test]
async fn every_rule_of_a_profile_can_be_overridden() {
    let stripe_by_hand = shared("orders")
        .methods(vec![Method::POST])
        .key_alphabet(KeyAlphabet::PrintableBare)
        .mismatch_status(400)
        .keep(Keep::Everything)
        .error_form(Form::Envelope);
    check_with(STRIPE, stripe_by_hand).await;
    let acp_by_hand = shared("orders")
        .methods(vec![Method::POST])
        .require_key(true)
        .key_alphabet(KeyAlphabet::PrintableBare)
        .keep(Keep::AllButServerErrors)
        .error_form(Form::Envelope)
        .error_codes(Codes::Acp)
        .echo_key(true)
        .scope_by_path(true);
    check_with(ACP, acp_by_hand).await;
    let wms_by_hand = shared("orders")
        .key_alphabet(KeyAlphabet::Token)
        .replay_status(ReplayStatus::Ok)
        .error_form(Form::Flat)
        .scope_by_service(true);
    check_with(WMS, wms_by_hand).await;
    let ietf_by_hand = shared("orders")
        .profile(Profile::Acp)
        .methods(vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .require_key(false)
        .key_alphabet(KeyAlphabet::Printable)
        .error_form(Form::Problem)
        .error_codes(Codes::Catalogue)
        .echo_key(false)
        .scope_by_path(false);
    check_with(IETF, ietf_by_hand).await;
}

#[tokio::test]
async fn the_profile_ietf_is_what_its_table_says() {
    check(IETF).await;
}

#[tokio::test]
async fn the_profile_wms_is_what_its_table_says() {
    check(WMS).await;
}

#[tokio::test]
async fn the_profile_stripe_is_what_its_table_says() {
    check(STRIPE).await;
}

/// The protocol's own words for a refusal: `type`, `code` and `message`, beside the envelope.
#[tokio::test]
async fn a_refusal_under_acp_is_the_protocols_error_object_and_the_envelope() {
    let bench = Bench::new(config(&ACP));
    bench.send(sent("k", "POST", "/orders", r#"{"n":1}"#)).await;
    let missing = bench.send(request(Method::POST, "/orders", &[], "{}")).await;
    let mismatch = bench.send(sent("k", "POST", "/orders", r#"{"n":2}"#)).await;
    bench.store.script(&[Fault::Refused]);
    let down = bench.send(sent("d", "POST", "/orders", "{}")).await;
    let slow = Bench::serving(config(&ACP), |_, _| std::future::pending());
    let mut first = Box::pin(slow.post("k"));
    assert!(poll!(&mut first).is_pending());
    let busy = slow.post("k").await;
    for (refusal, status, kind, code) in [
        (missing, 400, "invalid_request", "idempotency_key_required"),
        (mismatch, 422, "invalid_request", "idempotency_conflict"),
        (busy, 409, "invalid_request", "idempotency_in_flight"),
        (down, 503, "service_unavailable", "service_unavailable"),
    ] {
        let said = refusal.json();
        assert_eq!((refusal.status, &said["type"], &said["code"]), (status, &kind.into(), &code.into()));
        assert_eq!((&said["error"]["code"], &said["error"]["message"]), (&said["code"], &said["message"]));
        assert!(said["message"].is_string());
    }
}

#[tokio::test]
async fn under_acp_answers_repeat_the_key_and_null_is_not_absent() {
    let bench = Bench::new(config(&ACP));
    for is_replay in [false, true] {
        let answer = bench.send(sent("\"k 1\"", "POST", "/orders", r#"{"a":1.0,"b":null}"#)).await;
        assert_eq!((answer.header("idempotency-key"), answer.is_replay()), (Some("\"k 1\""), is_replay));
    }
    let reordered = bench.send(sent("k 1", "POST", "/orders", r#"{"b":null,"a":1}"#)).await;
    assert!(reordered.is_replay(), "order of names and trailing zeros do not count");
    let absent = bench.send(sent("k 1", "POST", "/orders", r#"{"a":1}"#)).await;
    assert_eq!((absent.status, absent.header("idempotency-key")), (422, Some("k 1")));
    let ietf = Bench::new(config(&IETF)).post("k").await;
    assert_eq!(ietf.header("idempotency-key"), None, "nobody else asks for it");
}

#[tokio::test]
async fn the_profile_acp_is_what_its_table_says() {
    check(ACP).await;
}

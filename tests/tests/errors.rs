//! The error catalogue: every row that the doors can give, and the three ways in which it is written.

use crate::http::raw;
use crate::server::Server;
use crate::target::Target;

/// Unused by anybody: connecting to it is refused.
const NOBODY: &str = "[[operations]]\nname = \"nobody\"\ntarget = \"http://127.0.0.1:1/\"\n";

fn row(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let server = Server::development().await;
    let unknown = server.execute("nothing", "one", "{}", &[]).await;
    assert_eq!(unknown.refusal(), row(404, "UNKNOWN_OPERATION"));
    let cases = [
        ("{\"operation\":\"echo\"", 400, "body", "line 1, column 19"),
        ("{\"payload\":1}", 400, "operation", "missing"),
        ("{\"operation\":\"echo\"}", 400, "payload", "missing"),
        ("{\"operation\":\"\",\"payload\":1}", 400, "operation", "empty"),
        ("{\"operation\":7,\"payload\":1}", 400, "operation", "string"),
        ("{\"operation\":\"echo\",\"payload\":1,\"paylaod\":1}", 400, "paylaod", "not known here"),
        ("{\"operation\":\"echo\",\"payload\":1,\"attempt_id\":\"\"}", 400, "attempt_id", "empty"),
        ("[]", 400, "body", ""),
        ("", 400, "body", "not JSON"),
    ];
    for (body, status, field, said) in cases {
        let url = format!("{}/v1/idempotency/execute", server.url());
        let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
        let answer = server.http().post(&url, &headers, body).await.unwrap();
        assert_eq!(answer.refusal(), row(status, "VALIDATION_FAILED"), "{body}");
        let detail = &answer.json()["error"]["details"][0];
        assert_eq!(detail["field"], field, "{body}");
        assert!(detail["message"].as_str().unwrap().contains(said), "{body}: {detail}");
    }
}

#[tokio::test]
async fn the_header_is_required_and_a_malformed_or_repeated_one_is_refused() {
    let server = Server::development().await;
    let body = r#"{"operation":"echo","payload":{}}"#;
    let url = format!("{}/v1/idempotency/execute", server.url());
    let json = ("content-type", "application/json");
    let required = server.http().post(&url, &[json], body).await.unwrap();
    assert_eq!(required.refusal(), row(400, "IDEMPOTENCY_KEY_REQUIRED"));
    for keys in [&["a b"][..], &["\"a"], &[""], &["a", "a"], &["a, b"], &["a;b=1"]] {
        let headers: Vec<_> =
            std::iter::once(json).chain(keys.iter().map(|key| ("idempotency-key", *key))).collect();
        let refused = server.http().post(&url, &headers, body).await.unwrap();
        assert_eq!(refused.refusal(), row(400, "IDEMPOTENCY_KEY_INVALID"), "{keys:?}");
    }
}

#[tokio::test]
async fn addresses_and_methods_that_do_not_exist_are_refused_in_the_envelope() {
    let server = Server::development().await;
    assert_eq!(server.get("/v1/nothing", &[]).await.refusal(), row(404, "NOT_FOUND"));
    assert_eq!(server.get("/", &[]).await.refusal(), row(404, "NOT_FOUND"));
    let wrong = server.get("/v1/idempotency/execute", &[]).await;
    assert_eq!((wrong.refusal(), wrong.header("allow")), (row(405, "METHOD_NOT_ALLOWED"), Some("POST")));
    let held = server.post("/v1/claims/nothing/extend", r#"{"token":"x"}"#).await;
    assert_eq!(held.refusal(), row(404, "NOT_FOUND"));
}

#[tokio::test]
async fn only_json_is_taken() {
    let server = Server::development().await;
    let url = format!("{}/v1/idempotency/execute", server.url());
    let send = async |headers: &[(&str, &str)]| {
        let mut all = vec![("idempotency-key", "one")];
        all.extend(headers);
        server.http().post(&url, &all, r#"{"operation":"echo","payload":{}}"#).await.unwrap()
    };
    let odd: [&[(&str, &str)]; 5] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ];
    for headers in odd {
        assert_eq!(send(headers).await.refusal(), row(415, "UNSUPPORTED_MEDIA_TYPE"), "{headers:?}");
    }
    assert_eq!(send(&[("content-type", "Application/JSON; Charset=\"UTF-8\"")]).await.status, 200);
}

#[tokio::test]
async fn what_the_target_says_decides_between_refused_unavailable_and_unknown() {
    let target = Target::start().await;
    let config = target.operation("refuses", "/status/418", "")
        + &target.operation("fails", "/status/500", "")
        + &target.operation("slow", "/gated", "timeout = \"100ms\"")
        + &target.operation("resumes", "/status/500", "semantics = \"resume\"")
        + &target.operation("busy", "/status/503", "not_executed = [503]")
        + NOBODY;
    let server = Server::start(&config).await;
    target.close();
    let refused = server.execute("refuses", "one", "{}", &[]).await;
    assert_eq!(refused.refusal(), row(418, "OPERATION_REJECTED"));
    assert_eq!(refused.json()["error"]["details"][0]["result"]["run"], 1, "with what the target said");
    for (operation, status) in [("fails", 502), ("slow", 504)] {
        let first = server.execute(operation, operation, "{}", &[]).await;
        assert_eq!(first.refusal(), row(status, "OUTCOME_UNKNOWN"), "{operation}");
        let again = server.execute(operation, operation, "{}", &[]).await;
        assert_eq!(again.refusal(), row(409, "IDEMPOTENCY_OUTCOME_UNKNOWN"), "{operation}");
        let asked = server.get(&format!("/v1/idempotency/executions/{operation}"), &[]).await;
        assert_eq!(asked.refusal(), row(409, "IDEMPOTENCY_OUTCOME_UNKNOWN"), "{operation}");
    }
    let resumed = server.execute("resumes", "resumes", "{}", &[]).await;
    assert_eq!(resumed.refusal(), row(503, "OUTCOME_UNKNOWN"));
    assert!(resumed.header("retry-after").is_some());
    for operation in ["busy", "nobody"] {
        for _ in 0..2 {
            let unavailable = server.execute(operation, operation, "{}", &[]).await;
            assert_eq!(unavailable.refusal(), row(503, "TARGET_UNAVAILABLE"), "{operation}");
            assert!(unavailable.header("retry-after").is_some());
        }
        let asked = server.get(&format!("/v1/idempotency/executions/{operation}"), &[]).await;
        assert_eq!((asked.status, asked.text()), (200, r#"{"status":"released"}"#));
    }
    target.open();
}

#[tokio::test]
async fn what_the_target_said_is_in_the_details_of_a_rejection_in_every_form_and_replayed_alike_l10() {
    let target = Target::start().await;
    let operations = target.operation("json", "/refused/json", "")
        + &target.operation("text", "/refused/text", "")
        + &target.operation("empty", "/refused/empty", "");
    for (style, details) in
        [("envelope", "/error/details"), ("flat", "/details/errors"), ("problem", "/errors")]
    {
        let server = Server::start(&format!("[server]\nerrors = \"{style}\"\n{operations}")).await;
        for (operation, result) in [
            ("json", r#","result":{"z":1.10,"big":9007199254740993}"#),
            ("text", r#","result":{"content_type":"text/plain","body_base64":"bm8="}"#),
            ("empty", ""),
        ] {
            let first = server.execute(operation, operation, "{}", &[]).await;
            let entry =
                format!(r#"[{{"field":"target","code":"rejected","message":"answered 422"{result}}}]"#);
            assert_eq!(first.status, 422, "{style} {operation}");
            assert!(first.text().contains(&entry), "{style} {operation}: {}", first.text());
            let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
            assert_eq!(first.json().pointer(details), Some(&entry), "{style} {operation}");
            let again = server.execute(operation, operation, "{}", &[]).await;
            assert_eq!(first.without_the_exchange(), again.without_the_exchange(), "{style} {operation}");
            let asked = server.get(&format!("/v1/idempotency/executions/{operation}"), &[]).await;
            assert_eq!(first.without_the_exchange(), asked.without_the_exchange(), "{style} {operation}");
        }
    }
}

#[tokio::test]
async fn accepted_work_whose_tries_are_spent_is_dead() {
    let config = NOBODY.to_owned() + "retry = { max_attempts = 1 }\n";
    let server = Server::start(&config).await;
    assert_eq!(server.execute("nobody", "one", "{}", &[("prefer", "respond-async")]).await.status, 202);
    let dead = server.get("/v1/idempotency/executions/one", &[("prefer", "wait=20")]).await;
    assert_eq!(dead.refusal(), row(409, "OPERATION_DEAD"));
    assert_eq!(server.execute("nobody", "one", "{}", &[]).await.refusal(), row(409, "OPERATION_DEAD"));
}

#[tokio::test]
async fn a_result_that_is_too_large_to_keep_is_passed_on_whole_once_then_gone_and_never_run_again() {
    let target = Target::start().await;
    let config = target.operation("large", "/sized/3000000", "")
        + &target.operation("refused", "/refused/json", "max_response_size = 10")
        + &target.operation("text", "/text", "max_response_size = 3");
    let server = Server::start(&config).await;
    let text = r#"{"status":"completed","result":{"content_type":"text/plain","body_base64":"ZG9uZQ=="}}"#;
    let large = format!(r#"{{"status":"completed","result":"{}"}}"#, "x".repeat(2_999_998));
    let refused = r#""result":{"z":1.10,"big":9007199254740993}"#;
    for (operation, status, said) in [("large", 200, &*large), ("refused", 422, refused), ("text", 200, text)]
    {
        let first = server.execute(operation, operation, "{}", &[]).await;
        assert!(first.status == status && first.text().contains(said), "{operation}: {}", first.status);
        assert!(first.header("idempotent-replayed").is_none());
        let again = server.execute(operation, operation, "{}", &[]).await;
        assert_eq!(again.refusal(), row(410, "IDEMPOTENCY_RESULT_GONE"), "{operation}");
        let asked = server.get(&format!("/v1/idempotency/executions/{operation}"), &[]).await;
        assert_eq!(asked.refusal(), row(410, "IDEMPOTENCY_RESULT_GONE"), "{operation}");
    }
    assert_eq!(target.seen().len(), 3);
}

#[tokio::test]
async fn a_result_that_is_too_large_to_be_held_is_done_and_gone_at_once() {
    let target = Target::start().await;
    let server = Server::start(&target.operation("huge", "/sized/33554433", "")).await;
    for _ in 0..2 {
        let answer = server.execute("huge", "one", "{}", &[]).await;
        assert_eq!(answer.refusal(), row(410, "IDEMPOTENCY_RESULT_GONE"));
    }
    assert_eq!(target.seen().len(), 1);
}

#[tokio::test]
async fn an_error_is_written_as_its_reader_wants_it() {
    let problem = "application/problem+json";
    let server = Server::development().await;
    let answer = server.execute("nothing", "one", "{}", &[("accept", problem)]).await;
    assert_eq!(answer.header("content-type"), Some(problem));
    let json = answer.json();
    assert_eq!((json["code"].as_str(), json["status"].as_u64()), (Some("UNKNOWN_OPERATION"), Some(404)));
    assert!(json["type"].as_str().unwrap().ends_with("/UNKNOWN_OPERATION.md"));
    assert_eq!(json["request_id"].as_str(), answer.header("x-request-id"));

    let config =
        "[server]\nerrors = \"flat\"\nerror_docs_base = \"https://errors.example\"\n".to_owned() + NOBODY;
    let server = Server::start(&config).await;
    let flat = server.execute("nobody", "one", "{}", &[]).await.json();
    assert_eq!(flat["code"], "TARGET_UNAVAILABLE");
    assert!(flat["details"]["retryAfter"].as_u64().unwrap() >= 1);
    let problem = server.execute("nobody", "one", "{}", &[("accept", problem)]).await.json();
    assert_eq!(problem["type"], "https://errors.example/TARGET_UNAVAILABLE");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_harmless_one_of_the_client_is_taken_over() {
    let server = Server::development().await;
    let own = server.execute("echo", "one", "{}", &[("x-request-id", "req-7")]).await;
    assert_eq!(own.header("x-request-id"), Some("req-7"));
    let made = server.get("/v1/nothing", &[("x-request-id", "not harmless")]).await;
    assert_eq!(made.json()["error"]["request_id"].as_str(), made.header("x-request-id"));
    assert_ne!(made.header("x-request-id"), Some("not harmless"));
}

#[tokio::test]
async fn a_request_that_names_two_hosts_or_none_is_400_at_the_doors_and_at_the_admin_listener() {
    let server = Server::development().await;
    for (url, path) in [(server.url(), "/healthz"), (server.admin_url(), "/v1/records")] {
        for (hosts, code) in [("Host: localhost\r\nHost: localhost\r\n", "duplicate"), ("", "missing")] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
            let said = raw(&url, request.as_bytes()).await;
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("VALIDATION_FAILED"), "{said}");
            assert!(said.contains(&format!(r#""field":"Host","code":"{code}""#)), "{said}");
        }
    }
    // HTTP/1.0 knows no hosts; without tokens operators must still be asked for by this machine's name.
    let old = |path: &str| format!("GET {path} HTTP/1.0\r\n\r\n");
    assert!(raw(&server.url(), old("/healthz").as_bytes()).await.starts_with(b"HTTP/1.0 200 "));
    assert!(raw(&server.admin_url(), old("/v1/records").as_bytes()).await.starts_with(b"HTTP/1.0 403 "));
}

#[tokio::test]
async fn stored_bytes_that_cannot_be_read_are_internal_and_nothing_runs_for_their_key_l13() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[server]\ndevelopment = true\n";
    let server = Server::start_in(folder.path(), config).await;
    let payload = |key: &str| format!(r#"{{"text":"secret of {key}"}}"#);
    for key in ["whole", "damaged"] {
        assert_eq!(server.execute("echo", key, &payload(key), &[]).await.status, 200);
    }
    assert!(server.stop().await.success());
    // Started anew, it has nothing of them in memory.
    let server = Server::start_in(folder.path(), config).await;
    let segment = folder.path().join("data/00000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let secret = b"secret of damaged";
    let at = bytes.windows(secret.len()).position(|window| window == secret).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let looked = server.get("/v1/idempotency/executions/damaged", &[]).await;
    let again = server.execute("echo", "damaged", &payload("damaged"), &[]).await;
    for answer in [looked, again] {
        assert_eq!(answer.refusal(), row(500, "INTERNAL"));
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["message"], &error["details"]),
            (&"Something went wrong".into(), &serde_json::json!([]))
        );
    }
    server.logged("a stored record is damaged").await;
    assert_eq!(
        server.execute("echo", "whole", &payload("whole"), &[]).await.status,
        200,
        "the others are served"
    );
}

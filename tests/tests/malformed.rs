//! Malformed input over every endpoint and header: a clear refusal; no panic, no 5xx, nothing stored.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::http::raw;
use crate::server::Server;

const ID: &str = "00112233445566778899aabbccddeeff";

fn endpoints() -> Vec<(&'static str, String)> {
    let held = ["extend", "checkpoints", "complete", "release"];
    let held = held.iter().map(|command| ("POST", format!("/v1/claims/{ID}/{command}")));
    let others = [
        ("POST", "/v1/idempotency/execute".to_owned()),
        ("POST", "/v1/claims".to_owned()),
        ("GET", "/v1/idempotency/executions/one".to_owned()),
    ];
    let runs = ["heartbeat", "complete", "fail"];
    let runs = runs.iter().map(|command| ("POST", format!("/v1/jobs/NIGHTLY/runs/{ID}/{command}")));
    others.into_iter().chain(held).chain(runs).collect()
}

/// Bodies that are nearly right, and bodies that are nothing of the kind.
fn bodies() -> Vec<String> {
    let mut bodies: Vec<String> = [
        "",
        " ",
        "{",
        "}",
        "null",
        "true",
        "0",
        "\"\"",
        "[]",
        "{}",
        "{}{}",
        "\u{feff}{}",
        "{\"a\":}",
        "{'a':1}",
        "{\"operation\":null,\"payload\":null}",
        "{\"operation\":\"echo\",\"payload\":NaN}",
        "{\"operation\":\"echo\",\"payload\":1,\"payload\":2}",
        "{\"operation\":\"a\\u0000b\",\"payload\":1}",
        "{\"token\":\"\"}",
        "{\"token\":null}",
        "{\"token\":\"zz\",\"phase\":\"\"}",
        "{\"key\":\"\",\"operation\":\"\",\"payload\":1}",
        "{\"key\":\"one\",\"operation\":\"a\"}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"fingerprint\":\"00\"}",
        "{\"key\":\"one\",\"operation\":\"a\",\"fingerprint\":\"zz\"}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"lease_ms\":0}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"lease_ms\":-1}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"lease_ms\":18446744073709551615}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"policy\":{\"retention_ms\":0}}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"policy\":{\"semantics\":\"never\"}}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"tags\":{\"\":\"x\"}}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"tags\":[]}",
        "{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"attempt_id\":\"\"}",
    ]
    .map(str::to_owned)
    .into();
    let token = "00112233445566778899aabbccddeeff";
    for outcome in [
        "null",
        "1",
        "{\"status\":0}",
        "{\"status\":65536}",
        "{\"class\":\"discarded\"}",
        "{\"body_base64\":\"*\"}",
        "{\"result\":1,\"body_base64\":\"\"}",
        "{\"gone\":true,\"result\":1}",
        "{\"content_type\":\"a\\nb\",\"body_base64\":\"\"}",
    ] {
        bodies.push(format!("{{\"token\":\"{token}\",\"outcome\":{outcome}}}"));
    }
    let tags: Vec<String> = (0..17).map(|n| format!("\"t{n}\":\"v\"")).collect();
    bodies.push(format!(
        "{{\"key\":\"one\",\"operation\":\"a\",\"payload\":1,\"tags\":{{{}}}}}",
        tags.join(",")
    ));
    bodies.push(format!("{{\"key\":\"one\",\"operation\":\"{}\",\"payload\":1}}", "x".repeat(256)));
    bodies.push(format!("{{\"operation\":\"nothing\",\"payload\":{}}}", "[".repeat(10_000)));
    bodies
}

#[tokio::test]
async fn no_malformed_body_is_a_5xx_or_is_stored() {
    let server = Server::start("").await;
    for (method, path) in endpoints() {
        for body in bodies() {
            let url = format!("{}{path}", server.url());
            let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
            let answer = server.http().send(method, &url, &headers, body.clone()).await.unwrap();
            let shown: String = body.chars().take(120).collect();
            assert!((400..500).contains(&answer.status), "{method} {path} {shown}: {}", answer.status);
            let (_, code) = answer.refusal();
            assert_ne!(code, "(none)", "{method} {path} {shown}: {}", answer.text());
        }
    }
    assert_eq!(server.get("/v1/idempotency/executions/one", &[]).await.status, 404, "nothing is stored");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn no_malformed_header_is_a_5xx_or_a_panic() {
    let server = Server::development().await;
    let names = [
        "Idempotency-Key",
        "Prefer",
        "Accept",
        "Content-Type",
        "Content-Encoding",
        "Content-Length",
        "Authorization",
        "X-Request-Id",
        "X-Correlation-Id",
        "traceparent",
        "Transfer-Encoding",
        "Host",
        "Expect",
        "Connection",
    ];
    let values: [&[u8]; 16] = [
        b"",
        b" ",
        b"\"",
        b"\"\\",
        b",",
        b";",
        b"=",
        b"q=",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"wait=99999999999999999999",
        b"-1",
        b"99999999999999999999999",
        b"*/*;q=2;q=x",
        b"Bearer ",
        b"a\tb",
    ];
    for name in names {
        for value in values {
            let mut request = b"POST /v1/idempotency/execute HTTP/1.1\r\nConnection: close\r\n".to_vec();
            for (usual, usually) in
                [("Host", "a"), ("Content-Type", "application/json"), ("Content-Length", "33")]
            {
                if usual != name {
                    request.extend(format!("{usual}: {usually}\r\n").bytes());
                }
            }
            request.extend(format!("{name}: ").bytes());
            request.extend(value);
            request.extend(b"\r\n\r\n{\"operation\":\"echo\",\"payload\":{}}");
            let answer = raw(&server.url(), &request).await;
            let text = String::from_utf8_lossy(&answer);
            // A body that never comes is waited for; everything else is answered, and not by a failure.
            assert!(answer.is_empty() || !text.starts_with("HTTP/1.1 5"), "{name}: {value:?}: {text}");
        }
    }
    assert_eq!(server.execute("echo", "one", "{}", &[]).await.status, 200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn no_malformed_path_is_a_5xx() {
    let server = Server::start("").await;
    let odd = [
        "/v1/idempotency/executions/",
        "/v1/idempotency/executions/%",
        "/v1/idempotency/executions/%zz",
        "/v1/idempotency/executions/%00",
        "/v1/idempotency/executions/a/b",
        "/v1/idempotency/executions/../execute",
        "/v1/claims//extend",
        "/v1/claims/%ff/extend",
        "/v1/claims/x/y/z",
        "//",
        "/v1",
        "/v1/",
        "/?a=b&&",
        "/healthz/",
    ];
    let long = format!("/v1/idempotency/executions/{}", "x".repeat(5_000));
    for path in odd.into_iter().chain([long.as_str()]) {
        for method in ["GET", "POST", "DELETE", "BREW"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\n\r\n{{}}"
            );
            let answer = raw(&server.url(), request.as_bytes()).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("HTTP/1.1 4"), "{method} {path}: {text}");
        }
    }
}

/// Bytes at random, some of them shaped like what is expected.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        &b"{"[..],
        b"}",
        b"\"operation\"",
        b":",
        b"\"echo\"",
        b",",
        b"\"payload\"",
        b"\"key\"",
        b"\"token\"",
        b"[",
        b"]",
        b"null",
        b"1e9",
        b"\"\\u",
        b"\xf0\x9f",
        b"\x00",
        b" ",
    ]);
    let shaped = prop::collection::vec(words, 0..14).prop_map(|words| words.concat());
    prop_oneof![shaped, prop::collection::vec(any::<u8>(), 0..64)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_refused_on_every_endpoint() {
    let server = Server::start("").await;
    let (url, http) = (server.url(), server.http().clone());
    let endpoints = prop::sample::select(endpoints());
    let tried = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cases = Config { cases: 300, failure_persistence: None, ..Config::default() };
        TestRunner::new(cases).run(&(endpoints, noise()), |((method, path), body)| {
            let url = format!("{url}{path}");
            let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
            let answer = runtime.block_on(http.send(method, &url, &headers, body)).unwrap();
            prop_assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
            Ok(())
        })
    });
    tried.await.unwrap().unwrap();
    assert_eq!(server.get("/v1/idempotency/executions/one", &[]).await.status, 404);
}

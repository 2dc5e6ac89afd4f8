//! The Execute API: at most once, and the same answer for everybody.

use crate::http::Http;
use crate::server::Server;
use crate::target::Target;
use crate::wait::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_requests_with_one_key_run_the_operation_once() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let (url, http) = (server.url(), server.http().clone());
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (url, http) = (format!("{url}/v1/idempotency/execute"), http.clone());
            tokio::spawn(async move {
                let headers =
                    [("content-type", "application/json"), ("idempotency-key", "one"), ("prefer", "wait=20")];
                http.post(&url, &headers, r#"{"operation":"charge","payload":{"amount":1}}"#).await.unwrap()
            })
        })
        .collect();
    target.arrived(1).await;
    target.open();
    let mut replayed = 0;
    for answer in asking {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, r#"{"status":"completed","result":{"run":1}}"#));
        replayed += u32::from(answer.header("idempotent-replayed") == Some("true"));
    }
    assert_eq!((target.seen().len(), replayed), (1, 49));
}

#[tokio::test]
async fn a_client_that_disconnects_changes_nothing_l11() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let url = format!("{}/v1/idempotency/execute", server.url());
    let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
    let http = Http::new();
    let gone = http.post(&url, &headers, r#"{"operation":"charge","payload":{}}"#);
    tokio::select! {
        _ = gone => panic!("the gate is closed"),
        () = target.arrived(1) => {}
    }
    drop(http);
    target.open();
    let later = server.execute("charge", "one", "{}", &[("prefer", "wait=20")]).await;
    assert_eq!((later.status, later.text()), (200, r#"{"status":"completed","result":{"run":1}}"#));
    assert_eq!(target.seen().len(), 1);
}

#[tokio::test]
async fn a_replay_equals_the_first_answer_byte_for_byte_l10() {
    let target = Target::start().await;
    let config = target.operation("json", "/json", "keep_headers = [\"X-Kept\"]")
        + &target.operation("text", "/text", "")
        + &target.operation("refuse", "/status/418", "");
    let server = Server::start(&config).await;
    for operation in ["json", "text", "refuse"] {
        let first = server.execute(operation, operation, r#"{"b":1,"a":2}"#, &[]).await;
        let again = server.execute(operation, operation, r#"{"a":2,"b":1}"#, &[]).await;
        assert_eq!(first.without_the_exchange(), again.without_the_exchange(), "{operation}");
        assert_eq!(first.header("idempotent-replayed"), None);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert!(first.header("idempotency-expires").unwrap().ends_with(" GMT"));
    }
    assert_eq!(target.seen().len(), 3);
}

#[tokio::test]
async fn a_result_is_the_bytes_that_the_target_gave_and_headers_are_neither_joined_nor_invented() {
    let target = Target::start().await;
    let server = Server::start(&target.operation("json", "/json", "keep_headers = [\"X-Kept\"]")).await;
    for _ in 0..2 {
        let answer = server.execute("json", "one", "{}", &[]).await;
        let expected =
            r#"{"status":"completed","result":{"z":1.10,"run":1,"big":9007199254740993,"a":"é\u00e9"}}"#;
        assert_eq!((answer.status, answer.text()), (200, expected));
        let kept: Vec<_> = answer.headers.get_all("x-kept").iter().collect();
        assert_eq!(kept, ["one", "two"]);
        for never in ["set-cookie", "x-dropped"] {
            assert!(!answer.headers.contains_key(never), "{never}");
        }
    }
}

#[tokio::test]
async fn a_result_that_is_not_json_is_given_with_its_type_and_nothing_is_null() {
    let target = Target::start().await;
    let config = target.operation("text", "/text", "") + &target.operation("empty", "/empty", "");
    let server = Server::start(&config).await;
    let text = server.execute("text", "one", "{}", &[]).await;
    let expected =
        r#"{"status":"completed","result":{"content_type":"text/plain","body_base64":"ZG9uZQ=="}}"#;
    assert_eq!(text.text(), expected);
    let empty = server.execute("empty", "two", "{}", &[]).await;
    assert_eq!(empty.text(), r#"{"status":"completed","result":null}"#);
}

#[tokio::test]
async fn the_target_is_sent_the_payload_as_it_came_and_a_key_that_is_not_the_clients() {
    let target = Target::start().await;
    let config =
        target.operation("own", "/json", "") + &target.operation("forward", "/json", "forward_key = true");
    let server = Server::start(&config).await;
    let payload = r#"{"z":1.0,  "a":12345678901234567890}"#;
    server.execute("own", "order-1", payload, &[("traceparent", "00-aa-bb-01")]).await;
    server.execute("forward", "order-2", payload, &[]).await;
    let seen = target.seen();
    assert_eq!(seen[0].body, payload);
    assert_ne!(seen[0].headers["idempotency-key"], "order-1");
    assert_eq!(seen[1].headers["idempotency-key"], "order-2");
    assert_eq!(seen[0].headers["semel-operation"], "own");
    assert_eq!(seen[0].headers["semel-attempt"], "1");
    assert!(seen[0].headers["semel-fence"].parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn both_forms_of_the_key_and_the_body_field_are_the_same_key() {
    let server = Server::development().await;
    let first = server.execute("count", "order-1", "{}", &[]).await;
    let quoted = server.execute("count", "\"order-1\"", "{}", &[]).await;
    assert_eq!(first.body, quoted.body);
    for field in ["idempotency_key", "idempotencyKey"] {
        let odd = format!(r#"{{"operation":"count","payload":{{}},"{field}":"a b"}}"#);
        let odd = server.post("/v1/idempotency/execute", &odd).await;
        assert_eq!(odd.json()["error"]["details"][0]["field"], field, "named as it was sent");
        let body = format!(r#"{{"operation":"count","payload":{{}},"{field}":"order-1"}}"#);
        assert_eq!(server.post("/v1/idempotency/execute", &body).await.body, first.body);
        let disagreeing = [("content-type", "application/json"), ("idempotency-key", "order-2")];
        let url = format!("{}/v1/idempotency/execute", server.url());
        let refused = server.http().post(&url, &disagreeing, body).await.unwrap();
        assert_eq!(refused.refusal(), (400, "IDEMPOTENCY_KEY_INVALID".to_owned()));
    }
}

#[tokio::test]
async fn what_was_done_is_replayed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let config = target.operation("charge", "/json", "");
    let server = Server::start_in(folder.path(), &config).await;
    let first = server.execute("charge", "one", "{}", &[]).await;
    assert!(server.stop().await.success());
    let server = Server::start_in(folder.path(), &config).await;
    let again = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!(first.without_the_exchange(), again.without_the_exchange());
    assert_eq!(target.seen().len(), 1);
}

#[tokio::test]
async fn the_time_to_live_is_not_computed_anew_on_each_replay() {
    let server = Server::development().await;
    let first = server.execute("echo", "one", "{}", &[]).await;
    // In another second, so that a time that moved would show in a header of whole seconds.
    let again = eventually("an answer of another second", async || {
        let again = server.execute("echo", "one", "{}", &[]).await;
        (again.header("date") != first.header("date")).then_some(again)
    })
    .await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotency-expires"), again.header("idempotency-expires"));
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_retention() {
    let target = Target::start().await;
    let server = Server::start(&target.operation("charge", "/json", "retention = \"200ms\"")).await;
    let first = server.execute("charge", "one", "{}", &[]).await;
    // Until then it is a mismatch, which changes nothing.
    let later = eventually("the key is forgotten", async || {
        let later = server.execute("charge", "one", r#"{"other":1}"#, &[]).await;
        (later.status != 422).then_some(later)
    })
    .await;
    assert_eq!((first.status, later.status, target.seen().len()), (200, 200, 2), "L8");
}

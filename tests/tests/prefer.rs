//! `Prefer: wait=N`, `respond-async`, both, and the executions by key.

use crate::server::Server;
use crate::target::Target;

const KEY_URL: &str = "/v1/idempotency/executions/one";

#[tokio::test]
async fn a_duplicate_that_waits_is_given_the_result_and_told_so() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let (first, waiting) = tokio::join!(server.execute("charge", "one", "{}", &[]), async {
        target.arrived(1).await;
        let waiting = server.execute("charge", "one", "{}", &[("prefer", "wait=20")]);
        let (waiting, ()) = tokio::join!(waiting, async { target.open() });
        waiting
    });
    assert_eq!((first.status, waiting.status), (200, 200));
    assert_eq!(first.body, waiting.body);
    assert_eq!(waiting.header("idempotent-replayed"), Some("true"));
    assert!(waiting.header("preference-applied").is_none_or(|applied| applied == "wait=20"));
}

#[tokio::test]
async fn who_waits_in_vain_is_told_that_it_is_processing_and_that_the_wait_was_honoured() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let first = server.execute("charge", "one", "{}", &[("prefer", "respond-async")]).await;
    assert_eq!(first.status, 202);
    target.arrived(1).await;
    let waited = server.execute("charge", "one", "{}", &[("prefer", "wait=1")]).await;
    assert_eq!((waited.status, waited.header("preference-applied")), (202, Some("wait=1")));
    let asked = server.get(KEY_URL, &[("prefer", "wait=1")]).await;
    assert_eq!((asked.status, asked.header("preference-applied")), (202, Some("wait=1")));
    target.open();
}

#[tokio::test]
async fn respond_async_is_accepted_durably_and_worked_by_the_dispatcher() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let accepted = server.execute("charge", "one", "{}", &[("prefer", "respond-async")]).await;
    assert_eq!((accepted.status, accepted.text()), (202, r#"{"status":"processing"}"#));
    assert_eq!(accepted.header("location"), Some(KEY_URL));
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    assert!(accepted.header("retry-after").is_some());
    target.arrived(1).await;
    let processing = server.get(KEY_URL, &[]).await;
    assert_eq!((processing.status, processing.text()), (202, r#"{"status":"processing"}"#));
    target.open();
    let done = server.get(KEY_URL, &[("prefer", "wait=20")]).await;
    assert_eq!((done.status, done.text()), (200, r#"{"status":"completed","result":{"run":1}}"#));
    assert!(done.header("idempotency-expires").is_some());
    let replay = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!((replay.body, replay.status), (done.body, 200));
    assert_eq!(target.seen().len(), 1);
}

#[tokio::test]
async fn both_together_wait_for_the_result_and_else_accept() {
    let target = Target::start().await;
    let server = Server::start(&target.operation("charge", "/gated", "")).await;
    let done = server.execute("charge", "one", "{}", &[("prefer", "respond-async, wait=20")]).await;
    assert_eq!((done.status, done.header("preference-applied")), (200, Some("wait=20")));
    assert_eq!(done.header("idempotent-replayed"), None, "it is this very request's result");
    target.close();
    let accepted = server.execute("charge", "two", "{}", &[("prefer", "respond-async, wait=1")]).await;
    assert_eq!(
        (accepted.status, accepted.header("preference-applied")),
        (202, Some("respond-async, wait=1"))
    );
    target.open();
}

#[tokio::test]
async fn an_execution_that_nobody_asked_for_is_not_found_and_asking_does_not_make_it() {
    let target = Target::start().await;
    let server = Server::start(&target.operation("charge", "/json", "")).await;
    for _ in 0..2 {
        assert_eq!(server.get(KEY_URL, &[]).await.refusal(), (404, "NOT_FOUND".to_owned()));
    }
    let odd = server.get("/v1/idempotency/executions/a%20b", &[]).await;
    assert_eq!(odd.refusal(), (400, "IDEMPOTENCY_KEY_INVALID".to_owned()));
    let bytes = server.get("/v1/idempotency/executions/%ff", &[]).await;
    assert_eq!(bytes.refusal(), (400, "VALIDATION_FAILED".to_owned()));
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn a_key_of_the_wider_alphabet_is_encoded_in_its_location() {
    let target = Target::start().await;
    let config =
        "[server]\nkey_alphabet = \"printable\"\n".to_owned() + &target.operation("charge", "/json", "");
    let server = Server::start(&config).await;
    let prefer = [("prefer", "respond-async")];
    let accepted = server.execute("charge", "\"a/b c?\\\"%\"", "{}", &prefer).await;
    let location = accepted.header("location").unwrap();
    assert_eq!(location, "/v1/idempotency/executions/a%2Fb%20c%3F%22%25");
    let done = server.get(location, &[("prefer", "wait=20")]).await;
    assert_eq!(done.status, 200);
}

//! The example requests of the requirement give the answers in it, to the letter.

use crate::server::Server;
use crate::target::Target;

#[tokio::test]
async fn the_first_execution_and_its_safe_replay_are_completed_with_the_result() {
    let server = Server::development().await;
    let first = server.execute("echo", "attempt-1", "{}", &[]).await;
    assert_eq!((first.status, first.text()), (200, r#"{"status":"completed","result":{}}"#));
    assert_eq!(first.header("idempotent-replayed"), None);
    let replay = server.execute("echo", "attempt-1", "{}", &[]).await;
    assert_eq!((replay.status, replay.text()), (200, r#"{"status":"completed","result":{}}"#));
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn while_another_request_with_the_key_executes_it_is_processing() {
    let target = Target::start().await;
    target.close();
    let server = Server::start(&target.operation("payment.charge", "/gated", "")).await;
    let (first, second) = tokio::join!(server.execute("payment.charge", "attempt-1", "{}", &[]), async {
        target.arrived(1).await;
        let second = server.execute("payment.charge", "attempt-1", "{}", &[]).await;
        target.open();
        second
    });
    assert_eq!((second.status, second.text()), (202, r#"{"status":"processing"}"#));
    assert!(second.header("retry-after").is_some());
    assert_eq!(first.text(), r#"{"status":"completed","result":{"run":1}}"#);
}

#[tokio::test]
async fn every_operation_of_the_requirement_can_be_configured_by_its_name() {
    let target = Target::start().await;
    let names = ["user.create", "payment.charge", "email.send"];
    let config: String = names.iter().map(|name| target.operation(name, "/json", "")).collect();
    let server = Server::start(&config).await;
    for name in names {
        assert_eq!(server.execute(name, name.split('.').next().unwrap(), "{}", &[]).await.status, 200);
    }
    assert_eq!(target.seen().len(), 3);
}

#[tokio::test]
async fn an_error_has_a_code_and_a_message_in_its_envelope() {
    let server = Server::development().await;
    let answer = server.post("/v1/idempotency/execute", r#"{"operation":"echo","payload":{}}"#).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, error["code"].as_str()), (400, Some("IDEMPOTENCY_KEY_REQUIRED")));
    assert!(!error["message"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_that_is_reused_for_another_operation_or_payload_is_refused() {
    let server = Server::development().await;
    server.execute("echo", "attempt-1", r#"{"amount":5}"#, &[]).await;
    let mismatch = (422, "IDEMPOTENCY_PARAMETER_MISMATCH".to_owned());
    assert_eq!(server.execute("echo", "attempt-1", r#"{"amount":6}"#, &[]).await.refusal(), mismatch);
    assert_eq!(server.execute("count", "attempt-1", r#"{"amount":5}"#, &[]).await.refusal(), mismatch);
    let same = server.execute("echo", "attempt-1", r#"{ "amount" : 5.0 }"#, &[]).await;
    assert_eq!(same.status, 200, "the same payload in another spelling is the same payload");
}

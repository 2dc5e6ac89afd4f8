//! Work that outlives its request: retries, dead letters, probes, and what a killed server has left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::http::Answer;
use crate::server::Server;
use crate::target::Target;
use crate::wait::eventually;

const ASYNC: [(&str, &str); 1] = [("prefer", "respond-async")];

/// Asks for an execution until it stands at this status.
async fn stands(server: &Server, key: &str, status: u16) -> Answer {
    let path = format!("/v1/idempotency/executions/{key}");
    eventually(&format!("{key} comes to {status}"), async || {
        Some(server.get(&path, &[("prefer", "wait=5")]).await).filter(|answer| answer.status == status)
    })
    .await
}

fn keys(target: &Target) -> Vec<String> {
    target.seen().iter().map(|arrived| arrived.headers["idempotency-key"].clone()).collect()
}

#[tokio::test]
async fn l9_what_was_accepted_is_worked_after_a_kill_and_what_was_cut_off_at_most_once_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    target.close();
    let config = target.operation("charge", "/gated", "lease = \"1s\"\nconcurrency = 1");
    let server = Server::start_in(folder.path(), &config).await;
    assert_eq!(server.execute("charge", "cut", "1", &ASYNC).await.status, 202);
    target.arrived(1).await;
    assert_eq!(server.execute("charge", "waiting", "2", &ASYNC).await.status, 202);
    server.kill().await;
    target.open();
    let server = Server::start_in(folder.path(), &config).await;
    let done = stands(&server, "waiting", 200).await;
    assert_eq!(done.text(), r#"{"status":"completed","result":{"run":2}}"#);
    let cut = stands(&server, "cut", 409).await;
    assert_eq!(cut.refusal(), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN".to_owned()));
    let bodies: Vec<String> = target.seen().iter().map(|arrived| arrived.body.clone()).collect();
    assert_eq!(bodies, ["1", "2"], "L7: each was started once");
}

#[tokio::test]
async fn under_resume_what_was_cut_off_is_taken_over_with_the_same_key_and_a_higher_fence() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    target.close();
    let config = target.operation("charge", "/gated", "lease = \"1s\"\nsemantics = \"resume\"");
    let server = Server::start_in(folder.path(), &config).await;
    {
        let cut = server.execute("charge", "cut", "1", &[]);
        tokio::select! {
            _ = cut => panic!("the gate is closed"),
            () = target.arrived(1) => {}
        }
    }
    server.kill().await;
    target.open();
    let server = Server::start_in(folder.path(), &config).await;
    // Nobody asks: the server itself goes on with it.
    target.arrived(2).await;
    let done = stands(&server, "cut", 200).await;
    assert_eq!(done.text(), r#"{"status":"completed","result":{"run":2}}"#);
    let seen = target.seen();
    assert_eq!(keys(&target)[0], keys(&target)[1]);
    let number = |place: usize, name: &str| seen[place].headers[name].parse::<u64>().unwrap();
    assert_eq!((number(0, "semel-attempt"), number(1, "semel-attempt")), (1, 2));
    assert!(number(1, "semel-fence") > number(0, "semel-fence"), "L2");
}

#[tokio::test]
async fn spent_retries_end_in_the_dead_letter_queue() {
    let target = Target::start().await;
    let retry = "retry = { max_attempts = 3, first = \"10ms\", cap = \"10ms\" }";
    let server = Server::start(&target.operation("charge", "/status/429", retry)).await;
    assert_eq!(server.execute("charge", "one", "{}", &ASYNC).await.status, 202);
    let dead = stands(&server, "one", 409).await;
    assert_eq!(dead.refusal(), (409, "OPERATION_DEAD".to_owned()));
    let again = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!(again.refusal(), (409, "OPERATION_DEAD".to_owned()));
    assert_eq!(target.seen().len(), 3);
    assert!(keys(&target).windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn attempts_rise_for_one_record_whatever_door_they_came_by_and_a_client_spends_none_of_the_schedule() {
    let target = Target::start().await;
    let retry = "retry = { max_attempts = 2, first = \"1ms\", cap = \"1ms\" }";
    let server = Server::start(&target.operation("charge", "/status/429", retry)).await;
    for _ in 0..3 {
        let released = server.execute("charge", "one", "{}", &[]).await;
        assert_eq!(released.refusal(), (503, "TARGET_UNAVAILABLE".to_owned()));
    }
    assert_eq!(server.execute("charge", "one", "{}", &ASYNC).await.status, 202);
    assert_eq!(stands(&server, "one", 409).await.refusal(), (409, "OPERATION_DEAD".to_owned()));
    let seen = target.seen();
    let number = |name: &str| -> Vec<u64> {
        seen.iter().map(|arrived| arrived.headers[name].parse().unwrap()).collect()
    };
    assert_eq!(
        number("semel-attempt"),
        [1, 2, 3, 4, 5],
        "all tries of the schedule, after those of the client"
    );
    assert!(number("semel-fence").windows(2).all(|pair| pair[1] > pair[0]), "L2");
}

#[tokio::test]
async fn under_resume_an_answer_that_proves_nothing_is_tried_again_by_a_worker() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let charge = move || async move {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        if first { (axum::http::StatusCode::BAD_GATEWAY, "?") } else { (axum::http::StatusCode::OK, "true") }
    };
    let address = outside(Router::new().route("/charge", post(charge))).await;
    let config = format!(
        "[[operations]]\nname = \"charge\"\ntarget = \"http://{address}/charge\"\nsemantics = \"resume\"\n\
        retry = {{ max_attempts = 3, first = \"10ms\", cap = \"10ms\" }}\n"
    );
    let server = Server::start(&config).await;
    let first = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!(first.status, 503, "{}", first.text());
    assert!(first.header("retry-after").is_some());
    assert_eq!(stands(&server, "one", 200).await.status, 200);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_probe_settles_what_nobody_knew() {
    let routes = Router::new()
        .route("/charge", post(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/charge/{key}", get(|Path(key): Path<String>| async move { format!("\"{key}\"") }));
    let address = outside(routes).await;
    let config = format!(
        "[[operations]]\nname = \"charge\"\ntarget = \"http://{address}/charge\"\n\
        probe = \"http://{address}/charge/{{key}}\"\nforward_key = true\n"
    );
    let server = Server::start(&config).await;
    let lost = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!(lost.refusal(), (502, "OUTCOME_UNKNOWN".to_owned()));
    let found = stands(&server, "one", 200).await;
    let again = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.body, found.body);
}

#[tokio::test]
async fn a_target_that_is_down_has_done_nothing_and_the_same_key_runs_once_it_is_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = format!("[[operations]]\nname = \"charge\"\ntarget = \"http://{address}/charge\"\n");
    let server = Server::start(&config).await;
    let down = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!(down.refusal(), (503, "TARGET_UNAVAILABLE".to_owned()));
    assert!(down.header("retry-after").is_some());
    let listener = TcpListener::bind(address).await.unwrap();
    let routes = Router::new().route("/charge", post(|| async { "1" }));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let up = server.execute("charge", "one", "{}", &[]).await;
    assert_eq!((up.status, up.header("idempotent-replayed")), (200, None));
}

/// A target of its own, until the test ends.
async fn outside(routes: Router) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

//! Targets over real sockets, played byte by byte: what was sent, and what its answer, or its silence, proves.

use std::time::Duration;

use http::StatusCode;
use semel_core::outcome::{Body, Class};
use semel_core::policy::OnLapse;
use semel_core::record::StateName;

use crate::config::{OperationConfig, Secret, Target};
use crate::engine::Execution;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::testing::{Fixture, Peer, TcpTarget, ask, config, id};
use crate::limits;

/// An engine with one operation on a target.
async fn to_target(change: impl FnOnce(&mut OperationConfig)) -> (Fixture, TcpTarget) {
    let target = TcpTarget::start().await;
    let mut config = config(OnLapse::AtMostOnce, Target::Http(target.uri.clone()));
    change(&mut config);
    (Fixture::new(vec![Operation::new(config)]), target)
}

/// Asks with this key while the target plays.
async fn played(
    fixture: &Fixture,
    target: &mut TcpTarget,
    key: &str,
    play: impl AsyncFnOnce(Peer),
) -> Execution {
    let target = async { play(target.accept().await).await };
    let (execution, ()) = tokio::join!(fixture.engine.execute(ask(key)), target);
    execution.unwrap()
}

fn meaning(execution: &Execution) -> &'static str {
    match execution {
        Execution::Completed { record, .. } => match record.outcome().unwrap().class {
            Class::Success => "success",
            Class::Rejection => "rejection",
            Class::Discarded => "discarded",
        },
        Execution::NotExecuted { .. } => "not executed",
        Execution::Unknown { fresh: Some(StatusCode::BAD_GATEWAY), .. } => "unknown 502",
        Execution::Unknown { fresh: Some(StatusCode::GATEWAY_TIMEOUT), .. } => "unknown 504",
        Execution::Retryable { .. } => "retryable",
        Execution::Processing { .. } => "processing",
        Execution::Unknown { .. } | Execution::Mismatch { .. } | Execution::Dead { .. } => "something else",
    }
}

#[tokio::test]
async fn the_target_is_sent_the_payload_as_it_came_and_what_it_needs_to_deduplicate() {
    let (fixture, mut target) = to_target(|config| {
        config.headers = vec![(http::header::AUTHORIZATION, Secret::new("Bearer t"))];
    })
    .await;
    let execution = played(&fixture, &mut target, "k", async |mut peer| {
        let request = peer.request().await;
        let expected = [
            "POST /charges HTTP/1.1\r\n",
            "authorization: Bearer t\r\n",
            "content-type: application/json\r\n",
            &format!("idempotency-key: {}\r\n", id("k").downstream_key(None)),
            "semel-operation: work\r\n",
            "semel-attempt: 1\r\n",
            "semel-fence: 1\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
            "x-correlation-id: c-1\r\n",
            "\r\n\r\n{\"n\":1}",
        ];
        for part in expected {
            assert!(request.contains(part), "{part:?} in {request}");
        }
        assert!(!request.contains("idempotency-key: k\r\n"));
        peer.reply(201, "content-type: application/json\r\n", "{\"id\": 1.0}").await;
    })
    .await;
    let Execution::Completed { record, replayed: false, .. } = execution else { panic!("{execution:?}") };
    let outcome = record.outcome().unwrap();
    assert_eq!((outcome.status, &outcome.body), (201, &Body::Kept("{\"id\": 1.0}".into())));
}

#[tokio::test]
async fn the_clients_own_key_is_forwarded_where_the_operation_says_so() {
    let (fixture, mut target) = to_target(|config| config.forward_key = true).await;
    played(&fixture, &mut target, "order-1", async |mut peer| {
        assert!(peer.request().await.contains("idempotency-key: order-1\r\n"));
        peer.reply(200, "", "{}").await;
    })
    .await;
}

#[tokio::test]
async fn every_status_has_its_meaning_on_a_first_attempt() {
    let (fixture, mut target) = to_target(|config| config.not_executed = vec![StatusCode::BAD_GATEWAY]).await;
    for (status, expected) in [
        (200, "success"),
        (201, "success"),
        (204, "success"),
        (301, "unknown 502"),
        (302, "unknown 502"),
        (400, "rejection"),
        (401, "not executed"),
        (403, "rejection"),
        (404, "rejection"),
        (407, "not executed"),
        (408, "unknown 502"),
        (409, "unknown 502"),
        (410, "rejection"),
        (422, "rejection"),
        (423, "unknown 502"),
        (425, "not executed"),
        (429, "not executed"),
        (500, "unknown 502"),
        (502, "not executed"),
        (503, "unknown 502"),
        (504, "unknown 502"),
    ] {
        let key = format!("k{status}");
        let execution = played(&fixture, &mut target, &key, async |mut peer| {
            peer.request().await;
            // A body with a length on a 204 would be the next answer's beginning.
            let body = if status == 204 { "" } else { "{}" };
            peer.reply(status, "connection: close\r\nlocation: http://127.0.0.1:1/\r\n", body).await;
        })
        .await;
        assert_eq!(meaning(&execution), expected, "{status}");
    }
}

#[tokio::test]
async fn every_status_has_its_meaning_after_an_attempt_that_may_have_had_an_effect() {
    for status in [200, 400, 404, 429] {
        let (fixture, mut target) = to_target(|config| {
            config.policy = crate::engine::testing::hasty_policy(OnLapse::Resume);
        })
        .await;
        let mut first_key = String::new();
        let execution = played(&fixture, &mut target, "k", async |mut peer| {
            first_key = key_line(&peer.request().await);
            peer.reset();
        })
        .await;
        assert_eq!(meaning(&execution), "retryable");
        fixture.engine.start(4);
        let mut peer = target.accept().await;
        let second = peer.request().await;
        assert_eq!(key_line(&second), first_key, "the same downstream key");
        assert!(second.contains("semel-attempt: 2\r\n") && second.contains("semel-fence: 2\r\n"), "{second}");
        assert!(second.contains("x-correlation-id: c-1\r\n"), "it still belongs to its request");
        peer.reply(status, "connection: close\r\nretry-after: 3600\r\n", "{}").await;
        match status {
            200 => {
                fixture.told.wait(What::Completed, 1).await;
                assert_eq!(fixture.state("k").await, StateName::Completed);
            }
            // It did nothing, and asks for an hour; what the first attempt did is still open.
            429 => {
                fixture.told.wait(What::Retried, 2).await;
                assert_eq!(fixture.state("k").await, StateName::Pending);
            }
            // No proof that nothing happened, so it is tried again.
            _ => assert!(target.accept().await.request().await.contains("semel-attempt: 3\r\n"), "{status}"),
        }
        assert_eq!(fixture.told.count(What::Released), 0);
    }
}

fn key_line(request: &str) -> String {
    request.lines().find(|line| line.starts_with("idempotency-key:")).unwrap().to_owned()
}

#[tokio::test]
async fn what_never_reached_the_transport_was_not_executed() {
    let (fixture, target) = to_target(|_| {}).await;
    let uri = target.uri.clone();
    drop(target);
    // The listener's task ends with its first connection after that; a port that nobody listens on refuses at once.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut refused = config(OnLapse::AtMostOnce, Target::Http(format!("http://{free}/").parse().unwrap()));
    refused.name = semel_core::Operation::try_new("refused").unwrap();
    let mut nameless = refused.clone();
    nameless.name = semel_core::Operation::try_new("nameless").unwrap();
    nameless.target = Target::Http("http://nowhere.invalid/".parse().unwrap());
    let mut metadata = refused.clone();
    metadata.name = semel_core::Operation::try_new("metadata").unwrap();
    metadata.target = Target::Http("http://169.254.169.254/latest/meta-data".parse().unwrap());
    let mut not_tls = refused.clone();
    not_tls.name = semel_core::Operation::try_new("not-tls").unwrap();
    not_tls.target = Target::Http(uri.to_string().replace("http://", "https://").parse().unwrap());
    let names = ["refused", "nameless", "metadata", "not-tls"];
    fixture.engine.reload(&[refused, nameless, metadata, not_tls]);
    for name in names {
        let asked = crate::engine::testing::ask_for(name, name, b"{}");
        let execution = fixture.engine.execute(asked).await.unwrap();
        assert_eq!(meaning(&execution), "not executed", "{name}");
        assert_eq!(fixture.state(name).await, StateName::Released);
    }
}

#[tokio::test]
async fn a_cut_anywhere_after_the_first_byte_may_have_happened() {
    let (fixture, mut target) = to_target(|_| {}).await;
    // How much of the request the target reads, and what it answers before it dies.
    let cuts: [(Option<usize>, &str); 8] = [
        (Some(1), ""),
        (Some(40), ""),
        (None, ""),
        (None, "HTTP/1.1 20"),
        (None, "HTTP/1.1 200 OK\r\ncontent-le"),
        (None, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        (None, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"),
        (None, "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ];
    for (place, (read, answer)) in cuts.into_iter().enumerate() {
        let execution = played(&fixture, &mut target, &format!("k{place}"), async |mut peer| {
            match read {
                Some(number) => peer.bytes(number).await,
                None => drop(peer.request().await),
            }
            peer.answer(answer).await;
        })
        .await;
        assert_eq!(meaning(&execution), "unknown 502", "cut {place}");
        assert_eq!(fixture.state(&format!("k{place}")).await, StateName::Unknown);
    }
}

#[tokio::test]
async fn a_cut_after_a_status_that_says_it_all_changes_nothing() {
    let (fixture, mut target) = to_target(|_| {}).await;
    let execution = played(&fixture, &mut target, "k", async |mut peer| {
        peer.request().await;
        peer.answer("HTTP/1.1 429 x\r\nretry-after: 7\r\ncontent-length: 5\r\n\r\nabc").await;
    })
    .await;
    let Execution::NotExecuted { retry_after, .. } = execution else { panic!("{execution:?}") };
    assert!(retry_after >= Duration::from_secs(7), "{retry_after:?}");
}

#[tokio::test]
async fn a_target_that_does_not_answer_in_time_is_unknown() {
    let (fixture, mut target) = to_target(|config| config.timeout = Duration::from_millis(50)).await;
    let mut kept = None;
    let execution = played(&fixture, &mut target, "k", async |mut peer| {
        peer.request().await;
        kept = Some(peer);
    })
    .await;
    assert_eq!(meaning(&execution), "unknown 504");
}

#[tokio::test]
async fn a_connection_is_used_again_and_replaced_once_the_target_has_closed_it() {
    let (fixture, mut target) = to_target(|_| {}).await;
    let (targets, uri) = (&fixture.engine.0.targets, target.uri.clone());
    let mut kept = None;
    let first = played(&fixture, &mut target, "k1", async |mut peer| {
        peer.request().await;
        peer.reply(200, "", "{}").await;
        kept = Some(peer);
    })
    .await;
    while !targets.has_idle(&uri) {
        tokio::task::yield_now().await;
    }
    let mut peer = kept.unwrap();
    let again = async {
        peer.request().await;
        peer.reply(200, "", "{}").await;
    };
    let (second, ()) = tokio::join!(fixture.engine.execute(ask("k2")), again);
    assert_eq!((meaning(&first), meaning(&second.unwrap())), ("success", "success"));
    assert!(target.is_idle(), "both over one connection");
    drop(peer);
    while targets.has_idle(&uri) {
        tokio::task::yield_now().await;
    }
    let third = played(&fixture, &mut target, "k3", async |mut peer| {
        peer.request().await;
        peer.reply(200, "", "{}").await;
    })
    .await;
    assert_eq!(meaning(&third), "success");
}

#[tokio::test]
async fn a_large_result_leaves_a_tombstone_and_is_not_run_again() {
    let (fixture, mut target) = to_target(|config| config.result_bytes_max = 10).await;
    for (key, body, kept) in [("k1", "0123456789", true), ("k2", "0123456789a", false)] {
        let execution = played(&fixture, &mut target, key, async |mut peer| {
            peer.request().await;
            peer.reply(200, "connection: close\r\n", body).await;
        })
        .await;
        let Execution::Completed { said, replayed: false, .. } = execution else { panic!("{execution:?}") };
        assert_eq!(said.as_deref(), (!kept).then_some(body.as_bytes()), "{key}: whole, for the first one");
        let record = fixture.record(key).await;
        assert_eq!(matches!(record.outcome().unwrap().body, Body::Kept(_)), kept, "{key}");
        let again = fixture.engine.execute(ask(key)).await.unwrap();
        assert!(matches!(again, Execution::Completed { replayed: true, said: None, .. }));
    }
}

#[tokio::test]
async fn what_becomes_of_the_rest_of_a_large_result_does_not_change_that_it_was_done() {
    let (fixture, mut target) = to_target(|config| {
        config.result_bytes_max = 10;
        config.timeout = Duration::from_millis(500);
    })
    .await;
    let head = |length: usize| format!("HTTP/1.1 200 x\r\ncontent-length: {length}\r\n\r\n0123456789abcdef");
    let mut peers = Vec::new();
    for (key, length, closes) in [
        ("cut", 100, true),
        ("never comes", 100, false),
        ("too large to be held", limits::RESULT_HELD_BYTES_MAX + 1, false),
    ] {
        let key = key.replace(' ', "-");
        let execution = played(&fixture, &mut target, &key, async |mut peer| {
            peer.request().await;
            peer.answer(&head(length)).await;
            if !closes {
                peers.push(peer);
            }
        })
        .await;
        assert!(matches!(execution, Execution::Completed { said: None, replayed: false, .. }), "{key}");
        assert_eq!(fixture.record(&key).await.outcome().unwrap().body, Body::Gone, "{key}");
    }
}

#[tokio::test]
async fn no_more_large_results_are_held_than_there_is_room_for_and_room_comes_back() {
    let (fixture, mut target) = to_target(|config| config.result_bytes_max = 10).await;
    let body = "x".repeat(limits::RESULT_HELD_BYTES_MAX);
    let fit = limits::RESULTS_HELD_BYTES_MAX / limits::RESULT_HELD_BYTES_MAX;
    let mut held = Vec::new();
    for number in 0..=fit {
        let execution = played(&fixture, &mut target, &format!("key-{number}"), async |mut peer| {
            peer.request().await;
            peer.offer(200, &body).await;
        })
        .await;
        let Execution::Completed { said, .. } = execution else { panic!("{execution:?}") };
        assert_eq!(said.is_some(), number < fit, "{number}");
        held.push(said);
    }
    held.pop();
    drop(held.pop());
    let execution = played(&fixture, &mut target, "later", async |mut peer| {
        peer.request().await;
        peer.offer(200, &body).await;
    })
    .await;
    assert!(matches!(execution, Execution::Completed { said: Some(_), .. }));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (fixture, mut target) = to_target(|_| {}).await;
    let mut elsewhere = TcpTarget::start().await;
    let location = format!("location: {}\r\n", elsewhere.uri);
    let execution = played(&fixture, &mut target, "k", async |mut peer| {
        peer.request().await;
        peer.reply(307, &location, "").await;
    })
    .await;
    assert_eq!(meaning(&execution), "unknown 502");
    assert!(elsewhere.is_idle() && target.is_idle());
}

#[tokio::test]
async fn the_type_and_what_is_listed_is_kept_and_what_belongs_to_one_answer_never() {
    let (fixture, mut target) = to_target(|config| {
        let names = ["etag", "x-many", "set-cookie", "date", "www-authenticate", "connection"];
        config.keep_headers = names.map(|name| name.parse().unwrap()).into();
    })
    .await;
    let execution = played(&fixture, &mut target, "k", async |mut peer| {
        peer.request().await;
        let headers = "set-cookie: a=b\r\ndate: Sat, 21 Nov 2026 05:00:00 GMT\r\nx-many: one\r\nx-other: no\r\n\
            www-authenticate: Basic\r\ncontent-type: text/plain\r\nx-many: two, three\r\netag: \"1\"\r\n";
        peer.reply(200, headers, "x").await;
    })
    .await;
    let Execution::Completed { record, .. } = execution else { panic!("{execution:?}") };
    let text = |header: &semel_core::outcome::Header| {
        format!("{}: {}", header.name, std::str::from_utf8(&header.value).unwrap())
    };
    let mut kept: Vec<String> = record.outcome().unwrap().headers.iter().map(text).collect();
    assert_eq!(kept.remove(0), "content-type: text/plain");
    kept.sort();
    assert_eq!(kept, ["etag: \"1\"", "x-many: one", "x-many: two, three"], "never joined");
}

#[tokio::test]
async fn a_forbidden_address_is_a_permanent_failure_of_accepted_work() {
    let (fixture, _target) = to_target(|config| {
        config.target = Target::Http("http://[::ffff:169.254.169.254]/".parse().unwrap());
    })
    .await;
    fixture.engine.start(4);
    fixture.engine.submit(ask("k")).await.unwrap();
    fixture.told.wait(What::Dead, 1).await;
    assert_eq!(fixture.record("k").await.attempt(), 1);
}

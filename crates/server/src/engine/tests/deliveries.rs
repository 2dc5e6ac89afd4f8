//! Deliveries over real sockets: what is sent, and what its answer, or its silence, leads to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::Timestamp;
use semel_core::outcome::Body;
use semel_core::policy::{OnLapse, Policy, Schedule};
use semel_core::record::{State, StateName};
use semel_webhook::{Delivery, Provider, SecretValue, Source};

use crate::config::{OperationConfig, Secret};
use crate::engine::Execution;
use crate::engine::delivery::TryResult;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::testing::{Fixture, SECRET, TcpTarget, delivery, event, event_id, policy};

const HOUR: Duration = Duration::from_secs(3_600);

/// A policy whose tries are as far apart as jitter makes them, up to `pause`.
fn tries_apart(pause: Duration) -> Policy {
    let usual = policy(OnLapse::Resume);
    let retry = Schedule::try_new(100, pause, pause, None).unwrap();
    Policy::try_new(usual.lease(), usual.retention(), OnLapse::Resume, usual.keep(), retry).unwrap()
}

struct Playing {
    fixture: Fixture,
    config: OperationConfig,
    target: TcpTarget,
}

/// An engine at work, and the target of its deliveries.
async fn playing(change: impl FnOnce(&mut OperationConfig)) -> Playing {
    let target = TcpTarget::start().await;
    let mut config = delivery(&target.uri, false);
    change(&mut config);
    let fixture = Fixture::new(vec![Operation::new(config.clone())]);
    fixture.engine.start(4);
    Playing { fixture, config, target }
}

impl Playing {
    async fn accept(&self, key: &str) {
        self.fixture.engine.file(&event(&self.config, key, b"{\"n\": 1.0}", None)).await.unwrap();
    }

    async fn record(&self, key: &str) -> Arc<semel_core::Record> {
        self.fixture.store.load(event_id(key)).await.unwrap().value.unwrap()
    }

    /// The target's next request, answered so, on a connection that is closed after it.
    async fn answer(&mut self, status: u16, headers: &str, body: &str) -> String {
        let mut peer = self.target.accept().await;
        let request = peer.request().await;
        peer.reply(status, &format!("connection: close\r\n{headers}"), body).await;
        request
    }
}

fn header(request: &str, name: &str) -> Option<String> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let line = head.lines().filter_map(|line| line.split_once(": ")).find(|(found, _)| *found == name);
    line.map(|(_, value)| value.to_owned())
}

#[tokio::test]
async fn an_event_is_sent_as_it_came_and_its_signature_holds_for_whoever_verifies_it() {
    let mut playing = playing(|config| {
        config.headers = vec![(http::header::AUTHORIZATION, Secret::new("Bearer target-token"))];
    })
    .await;
    playing.accept("evt_1").await;
    let request = playing.answer(200, "content-type: application/json\r\n", "{\"id\": 1.0}").await;
    let key = event_id("evt_1").downstream_key(None);
    for (name, expected) in [
        ("idempotency-key", &*key),
        ("semel-event-id", "evt_1"),
        ("semel-event-source", "billing"),
        ("semel-attempt", "1"),
        ("content-type", "application/json; charset=utf-8"),
        ("authorization", "Bearer target-token"),
        ("x-correlation-id", "c-1"),
        ("webhook-id", &*key),
    ] {
        assert_eq!(header(&request, name).as_deref(), Some(expected), "{name} in {request}");
    }
    assert!(header(&request, "semel-fence").is_some(), "{request}");
    assert!(request.starts_with("POST /charges HTTP/1.1\r\n"), "{request}");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"n\": 1.0}", "byte for byte");

    let source = Source::builder("them", Provider::StandardWebhooks).secret(SecretValue::new("main", SECRET));
    let source = source.build().unwrap();
    let headers: Vec<(&str, &[u8])> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    let at: u64 = header(&request, "webhook-timestamp").unwrap().parse().unwrap();
    let now = Timestamp::from_millis(at * 1_000);
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let verified = source.verify(&Delivery::new(&headers, &bytes), now).unwrap();
    assert_eq!(verified.events()[0].identity().as_str(), key);
    let altered = Bytes::from_static(b"{\"n\": 1}");
    assert!(source.verify(&Delivery::new(&headers, &altered), now).is_err());

    playing.fixture.told.wait(What::Completed, 1).await;
    let record = playing.record("evt_1").await;
    let outcome = record.outcome().unwrap();
    assert_eq!((outcome.status, &outcome.body), (200, &Body::Kept("{\"id\": 1.0}".into())));
}

#[tokio::test]
async fn every_status_completes_buries_or_is_tried_again_and_no_redirect_is_followed() {
    let mut playing = playing(|config| config.policy = tries_apart(HOUR)).await;
    let mut elsewhere = TcpTarget::start().await;
    let (mut completed, mut dead, mut retried) = (0, 0, 0);
    for status in [
        200, 301, 202, 302, 307, 308, 204, 400, 401, 404, 408, 409, 410, 422, 425, 429, 299, 500, 502, 503,
        504,
    ] {
        let key = format!("evt_{status}");
        playing.accept(&key).await;
        let location = format!("location: {}\r\n", elsewhere.uri);
        playing.answer(status, &location, "").await;
        let (what, number, expected) = match status {
            200..=299 => (What::Completed, &mut completed, StateName::Completed),
            410 | 422 => (What::Dead, &mut dead, StateName::Dead),
            _ => (What::Retried, &mut retried, StateName::Pending),
        };
        *number += 1;
        playing.fixture.told.wait(what, *number).await;
        let record = playing.record(&key).await;
        assert_eq!(record.state().name(), expected, "{status}");
        if let State::Pending { last_error: Some(error) } | State::Dead { last_error: error } = record.state()
        {
            assert_eq!(error.as_str(), format!("the target answered {status}"));
        }
    }
    assert!(elsewhere.is_idle(), "nobody went where a redirect pointed");
}

#[tokio::test]
async fn retry_after_is_kept_to_in_seconds_and_as_a_date() {
    let mut playing = playing(|_| {}).await;
    let (noon, later) = ("Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 13:00:00 GMT");
    let cases = [
        ("a", "retry-after: 7200\r\n".to_owned(), 7_200),
        ("b", format!("date: {noon}\r\nretry-after: {later}\r\n"), 3_600),
        ("c", "retry-after: 99999999\r\n".to_owned(), 86_400),
    ];
    for (number, (key, headers, seconds)) in cases.iter().enumerate() {
        playing.accept(key).await;
        playing.answer(503, headers, "").await;
        playing.fixture.told.wait(What::Retried, number + 1).await;
        let times = *playing.record(key).await.times();
        let pause = times.wake.unwrap().since(times.written);
        assert_eq!(pause, Duration::from_secs(*seconds), "{headers}");
    }
}

#[tokio::test]
async fn a_time_out_is_tried_again_with_the_same_key_and_a_higher_fence() {
    let mut playing = playing(|config| {
        config.timeout = Duration::from_millis(500);
        config.policy = tries_apart(Duration::from_millis(10));
    })
    .await;
    playing.accept("evt_1").await;
    // However slow this machine is: the first that comes whole is not answered, and all others are.
    let (mut seen, mut silent) = (Vec::new(), None);
    loop {
        let mut peer = tokio::select! {
            peer = playing.target.accept() => peer,
            () = playing.fixture.told.wait(What::Completed, 1) => break,
        };
        let Some(request) = peer.offered().await else { continue };
        seen.push(request);
        match silent {
            None => silent = Some(peer),
            Some(_) => peer.offer(200, "").await,
        }
    }
    assert!(seen.len() > 1, "{seen:?}");
    let number = |request: &str, name: &str| header(request, name).unwrap().parse::<u64>().unwrap();
    for pair in seen.windows(2) {
        assert_eq!(header(&pair[0], "idempotency-key"), header(&pair[1], "idempotency-key"));
        assert!(number(&pair[0], "semel-fence") < number(&pair[1], "semel-fence"), "{seen:?}");
        assert!(number(&pair[0], "semel-attempt") < number(&pair[1], "semel-attempt"), "{seen:?}");
    }
    let timed_out =
        playing.fixture.told.tries().into_iter().find(|tried| tried.result == TryResult::TimedOut);
    let timed_out = timed_out.unwrap();
    assert!(timed_out.status.is_none() && timed_out.latency >= Duration::from_millis(500), "{timed_out:?}");
    assert_eq!(playing.record("evt_1").await.state().name(), StateName::Completed);
}

#[tokio::test]
async fn each_try_is_told_with_its_status_and_what_the_target_said_and_no_secret() {
    let mut playing = playing(|config| {
        config.headers = vec![(http::header::AUTHORIZATION, Secret::new("Bearer target-token"))];
    })
    .await;
    playing.accept("evt_1").await;
    let echo = "no:\r\nauthorization was Bearer target-token, and target-token is wrong";
    playing.answer(500, "", echo).await;
    let mut peer = playing.target.accept().await;
    peer.request().await;
    peer.reset();
    let long = "x".repeat(crate::limits::DELIVERY_SAID_BYTES_MAX + 1);
    playing.answer(503, "", &long).await;
    playing.answer(200, "", "taken").await;
    playing.fixture.told.wait(What::Completed, 1).await;
    let tries = playing.fixture.told.tries();
    let told: Vec<_> = tries
        .iter()
        .map(|tried| (tried.attempt, tried.result.as_str(), tried.status, tried.response.as_ref()))
        .map(|(attempt, result, status, said)| {
            (attempt, result, status, said.map(|said| said.as_str().to_owned()))
        })
        .collect();
    let masked = "no:  authorization was ***, and *** is wrong".to_owned();
    let cut = "x".repeat(crate::limits::DELIVERY_EXCERPT_BYTES_MAX);
    assert_eq!(
        told,
        [
            (1, "refused", Some(500), Some(masked)),
            (2, "cut", None, None),
            (3, "refused", Some(503), Some(cut)),
            (4, "delivered", Some(200), Some("taken".to_owned())),
        ]
    );
}

#[tokio::test]
async fn a_target_that_goes_on_talking_has_taken_the_event_all_the_same() {
    let mut playing = playing(|_| {}).await;
    playing.accept("evt_1").await;
    let mut peer = playing.target.accept().await;
    peer.request().await;
    let long = "x".repeat(crate::limits::DELIVERY_SAID_BYTES_MAX + 1);
    peer.reply(200, "", &long).await;
    playing.fixture.told.wait(What::Completed, 1).await;
    let record = playing.record("evt_1").await;
    assert_eq!(record.outcome().unwrap().body, Body::Gone, "too large to be kept");
    playing.accept("evt_2").await;
    let mut peer = playing.target.accept().await;
    peer.request().await;
    // The status is there, and then the connection is cut.
    peer.answer("HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf").await;
    peer.reset();
    playing.fixture.told.wait(What::Completed, 2).await;
}

#[tokio::test]
async fn nothing_is_sent_unsigned_where_every_secret_has_expired() {
    let mut playing = playing(|config| {
        config.policy = tries_apart(HOUR);
        let crate::config::Target::Delivery(target) = &config.target else { panic!("a delivery") };
        let expired = SecretValue::new("old", SECRET).not_after(Timestamp::from_millis(1));
        let signer = semel_webhook::Signer::try_new(&[expired]).unwrap();
        let mut target = (**target).clone();
        target.signer = Some(Arc::new(signer));
        config.target = crate::config::Target::Delivery(Arc::new(target));
    })
    .await;
    playing.accept("evt_1").await;
    playing.fixture.told.wait(What::Retried, 1).await;
    assert_eq!(playing.fixture.told.tries()[0].result, TryResult::Unsigned);
    assert!(playing.target.is_idle());
}

#[tokio::test]
async fn a_client_cannot_ask_for_what_delivers_events() {
    let playing = playing(|_| {}).await;
    let asked = crate::engine::testing::ask_for("webhook:billing/default", "k", b"{}");
    let executed: Result<Execution, _> = playing.fixture.engine.execute(asked.clone()).await;
    assert_eq!(*executed.unwrap_err().kind(), crate::engine::EngineErrorKind::UnknownOperation);
    let submitted = playing.fixture.engine.submit(asked).await;
    assert_eq!(*submitted.unwrap_err().kind(), crate::engine::EngineErrorKind::UnknownOperation);
    assert!(playing.fixture.engine.configured("webhook:billing/default", None).is_none());
}

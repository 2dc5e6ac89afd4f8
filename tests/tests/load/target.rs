//! The outside world of the crash test: a target that lives longer than any server, and writes down what reaches it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::post;
use semel_conformance::history::{Event, What};

/// What has reached the target.
#[derive(Clone)]
pub(super) struct Seen {
    began: Instant,
    events: Arc<Mutex<Vec<Event>>>,
    times: Arc<Mutex<HashMap<String, u32>>>,
}

impl Seen {
    /// Microseconds since the test began: the clock that all events share.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// Adds what a client saw.
    pub(super) fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// Everything that clients and target saw.
    pub(super) fn history(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// How often each key has arrived.
    pub(super) fn times(&self) -> HashMap<String, u32> {
        self.times.lock().unwrap().clone()
    }
}

/// Starts the target on a free port of loopback.
pub(super) async fn start() -> (SocketAddr, Seen) {
    let seen = Seen { began: Instant::now(), events: Arc::default(), times: Arc::default() };
    let app = Router::new().route("/charges", post(charge)).with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (addr, seen)
}

/// Counts at once and answers a little later, so that kills fall before, between and after the two. Every run gives
/// something that no other does.
async fn charge(State(seen): State<Seen>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let called = seen.now();
    let run = {
        let mut times = seen.times.lock().unwrap();
        let run = times.entry(key.clone()).or_default();
        *run += 1;
        *run
    };
    let receipt = format!(r#"{{"charge":"{key}","run":{run},"payload":{body}}}"#);
    let outcome = Some(receipt.clone());
    seen.note(Event::new(&key, called, Some(seen.now()), What::Ran { outcome }));
    tokio::time::sleep(Duration::from_millis(u64::from(key.as_bytes()[key.len() - 1] % 8))).await;
    ([("content-type", "application/json")], receipt)
}

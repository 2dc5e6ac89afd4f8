//! Where events are delivered: writes down what comes, answers as it is told, and sees whether two deliveries of one event ever
//! overlap.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::wait::eventually;

/// The path that is 410 whatever the others answer.
const RETIRED: &str = "/hooks/retired";

/// An inbox that is open until the test ends. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Inbox(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    status: AtomicU16,
    /// What a first try is answered, if that is something else.
    first: AtomicU16,
    gate: watch::Sender<bool>,
    seen: Mutex<Vec<Delivered>>,
    /// Deliveries in the order in which they began and ended.
    steps: Mutex<Vec<Step>>,
    events: Mutex<HashSet<String>>,
    /// How many deliveries of an event are under way, by its downstream key.
    under_way: Mutex<HashMap<String, usize>>,
    overlaps: AtomicUsize,
}

/// A delivery that has come.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    /// What makes it the same event for the target: `Idempotency-Key`.
    pub(crate) key: String,
    /// Which event it is: `Semel-Event-Id`.
    pub(crate) event: String,
    pub(crate) attempt: u32,
    pub(crate) fence: u64,
    pub(crate) body: String,
}

/// A delivery of this event began, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) event: String,
    pub(crate) began: bool,
}

/// A delivery under way. It ends with its handler, also when its sender is gone.
struct UnderWay {
    inbox: Inbox,
    key: String,
    event: String,
}

impl UnderWay {
    fn begin(inbox: &Inbox, key: &str, event: &str) -> Self {
        inbox.0.steps.lock().unwrap().push(Step { event: event.to_owned(), began: true });
        let mut under_way = inbox.0.under_way.lock().unwrap();
        let count = under_way.entry(key.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            inbox.0.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        Self { inbox: inbox.clone(), key: key.to_owned(), event: event.to_owned() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let inbox = &self.inbox.0;
        inbox.steps.lock().unwrap().push(Step { event: std::mem::take(&mut self.event), began: false });
        let mut under_way = inbox.under_way.lock().unwrap();
        if let Some(count) = under_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.key);
            }
        }
    }
}

impl Inbox {
    /// Opens one on a free port. It answers 200.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inbox = Self(Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            status: AtomicU16::new(200),
            first: AtomicU16::new(0),
            gate: watch::channel(true).0,
            seen: Mutex::default(),
            steps: Mutex::default(),
            events: Mutex::default(),
            under_way: Mutex::default(),
            overlaps: AtomicUsize::new(0),
        }));
        let routes = Router::new().fallback(post(take)).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        inbox
    }

    /// Its address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.address)
    }

    /// What it answers from now on.
    pub(crate) fn answers(&self, status: u16) {
        self.0.status.store(status, Ordering::SeqCst);
    }

    /// What it answers to the first try of each event from now on.
    pub(crate) fn answers_first(&self, status: u16) {
        self.0.first.store(status, Ordering::SeqCst);
    }

    /// Deliveries so far, in the order in which they began and ended.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.0.steps.lock().unwrap().clone()
    }

    /// Keeps everybody waiting for an answer until it goes on.
    pub(crate) fn hold(&self) {
        self.0.gate.send_replace(false);
    }

    pub(crate) fn go_on(&self) {
        self.0.gate.send_replace(true);
    }

    /// What has come so far.
    pub(crate) fn seen(&self) -> Vec<Delivered> {
        self.0.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }

    /// How many different events have come.
    pub(crate) fn events(&self) -> usize {
        self.0.events.lock().unwrap().len()
    }

    /// How often a delivery of an event came while another one of it was under way.
    pub(crate) fn overlaps(&self) -> usize {
        self.0.overlaps.load(Ordering::SeqCst)
    }

    /// Waits until so many have come.
    pub(crate) async fn has(&self, count: usize) {
        eventually(&format!("{count} deliveries come"), async || (self.count() >= count).then_some(())).await;
    }
}

async fn take(
    State(inbox): State<Inbox>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, &'static str) {
    let text =
        |name: &str| headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
    let number = |name: &str| text(name).parse::<u64>().unwrap_or_default();
    let key = text("idempotency-key");
    let (event, attempt, fence) = (text("semel-event-id"), number("semel-attempt"), number("semel-fence"));
    let attempt = u32::try_from(attempt).unwrap();
    let under_way = UnderWay::begin(&inbox, &key, &event);
    inbox.0.events.lock().unwrap().insert(event.clone());
    inbox.0.seen.lock().unwrap().push(Delivered { key, event, attempt, fence, body });
    inbox.0.gate.subscribe().wait_for(|open| *open).await.unwrap();
    // Others have a turn in between, so that an overlap would be seen.
    tokio::task::yield_now().await;
    drop(under_way);
    if uri.path() == RETIRED {
        return (StatusCode::GONE, "retired");
    }
    let first = inbox.0.first.load(Ordering::SeqCst);
    let status = if attempt == 1 && first > 0 { first } else { inbox.0.status.load(Ordering::SeqCst) };
    (StatusCode::from_u16(status).unwrap(), "taken")
}

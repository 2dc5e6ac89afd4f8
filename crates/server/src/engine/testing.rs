//! What the engine's tests share: an engine over a store in memory, operations that do what a test wants, targets that
//! follow a script byte by byte.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use semel_core::id::{Key, Lane, Tenant};
use semel_core::ledger::LedgerError;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::record::StateName;
use semel_core::{Ledger, Record, RecordId, Store, StoreError};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc;

use super::delivery::{CircuitState, Tried};
use super::events::{Event, Events, What};
use super::operation::{Operation, Operations};
use super::progress::Progress;
use super::reply::{Reply, Said};
use super::work::Link;
use super::{Ask, Engine, Targets};
use crate::alerts::Alerts;
use crate::config::{Builtin, DeliveryTarget, OperationConfig, Target, TargetsConfig};

mod delivery;
mod flaky;

pub(super) use delivery::{SECRET, delivery, event, event_id};
pub(super) use flaky::{Flaky, Weather};

type Play = dyn Fn(Arc<Record>) -> BoxFuture<'static, Reply> + Send + Sync;

/// Work that does what a test wants, by the number of the attempt or by its record.
#[derive(Clone)]
pub(super) struct Script(Arc<Play>);

impl Script {
    pub(super) fn new<F>(play: impl Fn(u32) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self(Arc::new(move |record| Box::pin(play(record.attempt()))))
    }

    pub(super) fn of_records<F>(play: impl Fn(Arc<Record>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self(Arc::new(move |record| Box::pin(play(record))))
    }

    pub(super) async fn play(&self, record: &Arc<Record>, progress: &Progress) -> Reply {
        match progress.begin() {
            Ok(()) => (self.0)(Arc::clone(record)).await,
            Err(_) => Reply::not_sent("stopped"),
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// What the engine told.
#[derive(Default)]
pub(super) struct Told {
    what: Mutex<Vec<What>>,
    failures: Mutex<usize>,
    heartbeats_failed: Mutex<usize>,
    tries: Mutex<Vec<Tried>>,
    circuits: Mutex<Vec<CircuitState>>,
    changed: Notify,
}

impl Told {
    pub(super) fn count(&self, what: What) -> usize {
        self.what.lock().iter().filter(|told| **told == what).count()
    }

    pub(super) fn claims(&self) -> usize {
        self.what.lock().iter().filter(|told| matches!(told, What::Claimed { .. } | What::Taken)).count()
    }

    pub(super) fn storage_failures(&self) -> usize {
        *self.failures.lock()
    }

    pub(super) fn heartbeats_failed(&self) -> usize {
        *self.heartbeats_failed.lock()
    }

    /// The tries of deliveries.
    pub(super) fn tries(&self) -> Vec<Tried> {
        self.tries.lock().clone()
    }

    /// Where circuits have stood, one after the other.
    pub(super) fn circuits(&self) -> Vec<CircuitState> {
        self.circuits.lock().clone()
    }

    /// Waits until circuits have changed so often.
    pub(super) async fn wait_circuits(&self, times: usize) {
        loop {
            let changed = self.changed.notified();
            if self.circuits.lock().len() >= times {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it was told so often.
    pub(super) async fn wait(&self, what: What, times: usize) {
        loop {
            let changed = self.changed.notified();
            if self.count(what) >= times {
                return;
            }
            changed.await;
        }
    }
}

impl Events for Told {
    fn happened(&self, event: &Event<'_>) {
        self.what.lock().push(event.what);
        self.changed.notify_waiters();
    }

    fn tried(&self, tried: &Tried, _: &Record, _: &Link) {
        self.tries.lock().push(tried.clone());
    }

    fn circuit(&self, _: &DeliveryTarget, state: CircuitState) {
        self.circuits.lock().push(state);
        self.changed.notify_waiters();
    }

    fn storage_failed(&self, _: &LedgerError) {
        *self.failures.lock() += 1;
    }

    fn dispatch_failed(&self, _: &StoreError) {
        *self.failures.lock() += 1;
    }

    fn heartbeat_failed(&self, _: &LedgerError) {
        *self.heartbeats_failed.lock() += 1;
    }

    fn heartbeat_unanswered(&self) {
        *self.heartbeats_failed.lock() += 1;
    }
}

/// An engine, what it told, and the store below.
pub(super) struct Fixture {
    pub(super) engine: Engine,
    pub(super) told: Arc<Told>,
    pub(super) store: Arc<dyn Store>,
}

impl Fixture {
    pub(super) fn new(operations: Vec<Operation>) -> Self {
        Self::over(Arc::new(MemoryStore::new()), operations)
    }

    pub(super) fn over(store: Arc<dyn Store>, operations: Vec<Operation>) -> Self {
        Self::telling(store, operations, Alerts::default())
    }

    pub(super) fn telling(store: Arc<dyn Store>, operations: Vec<Operation>, alerts: Alerts) -> Self {
        let told = Arc::new(Told::default());
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(OsEntropy));
        let targets = Targets::new(&TargetsConfig { allow_link_local: false, ca: None }).unwrap();
        let events: Arc<dyn Events> = Arc::clone(&told) as _;
        let engine = Engine::new(ledger, &[], targets, events, alerts);
        engine.0.operations.store(Arc::new(Operations::of(operations)));
        Self { engine, told, store }
    }

    /// The record of this key, as it is stored.
    pub(super) async fn record(&self, key: &str) -> Arc<Record> {
        self.store.load(id(key)).await.unwrap().value.unwrap()
    }

    pub(super) async fn state(&self, key: &str) -> StateName {
        self.record(key).await.state().name()
    }
}

/// What is asked for: `work` with this key.
pub(super) fn ask(key: &str) -> Ask {
    ask_for("work", key, br#"{"n":1}"#)
}

pub(super) fn ask_for(operation: &str, key: &str, payload: &'static [u8]) -> Ask {
    Ask {
        tenant: Tenant::try_new("default").unwrap(),
        subject: None,
        key: Key::try_new(key).unwrap(),
        operation: operation.to_owned(),
        payload: Bytes::from_static(payload),
        attempt_id: None,
        correlation_id: "c-1".into(),
        request_id: "r-1".into(),
        traceparent: Some(http::HeaderValue::from_static(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )),
    }
}

pub(super) fn id(key: &str) -> RecordId {
    let scope = semel_core::Scope {
        namespace: semel_core::id::Namespace::Execute,
        tenant: Tenant::try_new("default").unwrap(),
        subject: None,
    };
    RecordId::of(&scope, &Key::try_new(key).unwrap())
}

/// A policy with a lease of 3 s and four tries, a second apart at most.
pub(super) fn policy(on_lapse: OnLapse) -> Policy {
    let second = Duration::from_secs(1);
    let retry = Schedule::try_new(4, second, second, None).unwrap();
    Policy::try_new(second * 3, second * 3_600, on_lapse, Keep::Deterministic, retry).unwrap()
}

/// The same, with tries ten milliseconds apart at most: for sockets, which know no paused time.
pub(super) fn hasty_policy(on_lapse: OnLapse) -> Policy {
    let pause = Duration::from_millis(10);
    let (usual, retry) = (policy(on_lapse), Schedule::try_new(4, pause, pause, None).unwrap());
    Policy::try_new(usual.lease(), usual.retention(), on_lapse, usual.keep(), retry).unwrap()
}

/// The configuration of `work`: a minute for each try.
pub(super) fn config(on_lapse: OnLapse, target: Target) -> OperationConfig {
    OperationConfig {
        name: semel_core::Operation::try_new("work").unwrap(),
        target,
        policy: policy(on_lapse),
        timeout: Duration::from_secs(60),
        probe: None,
        tags: Vec::new(),
        not_executed: Vec::new(),
        forward_key: false,
        keep_headers: Vec::new(),
        headers: Vec::new(),
        lane: Lane::try_new("target").unwrap(),
        concurrency: 4,
        result_bytes_max: 1_000,
    }
}

/// The operation `work`, played by a script.
pub(super) fn scripted(on_lapse: OnLapse, script: Script) -> Operation {
    Operation::scripted(config(on_lapse, Target::Builtin(Builtin::Echo)), script)
}

/// An answer of 200 with `{}`.
pub(super) fn done() -> Reply {
    answered(200)
}

pub(super) fn answered(status: u16) -> Reply {
    let class = match Reply::of_status(http::StatusCode::from_u16(status).unwrap(), &[], None) {
        Ok(class) => class,
        Err(reply) => return reply,
    };
    let headers = semel_core::outcome::Headers::default();
    Reply::Answered { class, status, headers, body: Said::Kept(Bytes::from_static(b"{}")) }
}

/// A target that does with each connection what a test wants.
pub(super) struct TcpTarget {
    pub(super) uri: http::Uri,
    connections: mpsc::UnboundedReceiver<TcpStream>,
}

impl TcpTarget {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/charges", listener.local_addr().unwrap()).parse().unwrap();
        let (connected, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if connected.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { uri, connections }
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> Peer {
        Peer { stream: self.connections.recv().await.unwrap(), read: Vec::new() }
    }

    /// Whether nobody has connected beyond what was accepted.
    pub(super) fn is_idle(&mut self) -> bool {
        self.connections.try_recv().is_err()
    }
}

/// The target's end of a connection.
pub(super) struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    /// Reads one request whole, as text.
    pub(super) async fn request(&mut self) -> String {
        self.offered().await.expect("closed in the middle of a request")
    }

    /// Reads one request whole, unless whoever sends it hangs up before.
    pub(super) async fn offered(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.whole_request() {
                return String::from_utf8(self.read.drain(..end).collect()).ok();
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn whole_request(&self) -> Option<usize> {
        let text = std::str::from_utf8(&self.read).ok()?;
        let head = text.find("\r\n\r\n")? + 4;
        let length = text[..head].lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let end = head + length.unwrap_or(0);
        (self.read.len() >= end).then_some(end)
    }

    /// Reads this many bytes of a request.
    pub(super) async fn bytes(&mut self, number: usize) {
        let mut bytes = vec![0; number];
        self.stream.read_exact(&mut bytes).await.unwrap();
    }

    pub(super) async fn answer(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// An answer with this status, further headers (each with its end of line) and body.
    pub(super) async fn reply(&mut self, status: u16, headers: &str, body: &str) {
        let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
        self.answer(&text).await;
    }

    /// As [`reply`](Self::reply), to somebody who may hang up in the middle of it.
    pub(super) async fn offer(&mut self, status: u16, body: &str) {
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        for part in [&head, body] {
            self.stream.write_all(part.as_bytes()).await.ok();
        }
    }

    /// Closes the connection as a process that dies does: what was not read is refused with a reset.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

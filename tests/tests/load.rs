//! Clients that ask servers for keys at random, a target that counts, and the judgement over all that both have seen: the
//! history must have an explanation (L4, L7, L9, L10).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use semel_conformance::history::{self, Event, Executed, What};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::http::{Answer, Http};
use crate::wait::eventually;

mod target;

use target::Seen;

/// How hard servers are driven: as hard as their store can take it, so that no lease lapses of somebody who lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Keys that are in use at once; some are new in every round, some from before.
    pub(crate) keys: u64,
    /// Clients that ask at once.
    pub(crate) clients: u64,
    /// The lease of the operation: a claim that is cut off is unknown so long after.
    pub(crate) lease: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { keys: 400, clients: 8, lease: Duration::from_secs(2) }
    }
}

/// The seed of a test's random choices; `SEMEL_SEED` repeats one.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEMEL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261);
    println!("SEMEL_SEED={seed}");
    seed
}

/// Where the servers are that clients may ask, one as good as another.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<Mutex<Vec<String>>>);

impl Servers {
    pub(crate) fn of(urls: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(Mutex::new(urls.into_iter().collect())))
    }

    /// One is gone, or another has come in its place.
    pub(crate) fn replace(&self, old: &str, new: Option<String>) {
        let mut urls = self.0.lock().unwrap();
        urls.retain(|url| url != old);
        urls.extend(new);
    }

    fn one(&self, random: &mut StdRng) -> Option<String> {
        let urls = self.0.lock().unwrap();
        (!urls.is_empty()).then(|| urls[random.random_range(0..urls.len())].clone())
    }
}

/// The target, what was seen, and which keys there are.
#[derive(Clone)]
pub(crate) struct World {
    target: SocketAddr,
    seen: Seen,
    highest: Arc<AtomicU64>,
    seed: u64,
    pace: Pace,
}

impl World {
    pub(crate) async fn new(chance: u64, pace: Pace) -> Self {
        let (target, seen) = target::start().await;
        Self { target, seen, highest: Arc::default(), seed: chance, pace }
    }

    /// The configuration of a server that drives the target.
    pub(crate) fn config(&self) -> String {
        let (target, lease) = (self.target, self.pace.lease.as_secs());
        format!(
            r#"
[[operations]]
name = "payment.charge"
target = "http://{target}/charges"
semantics = "at-most-once"
timeout = "1s"
lease = "{lease}s"
retention = "24h"
forward_key = true
concurrency = 64
retry = {{ max_attempts = 12, first = "50ms", cap = "200ms" }}
"#
        )
    }

    /// Clients ask these servers, for new keys and old ones, until they are stopped.
    pub(crate) fn clients(&self, round: u64, servers: &Servers) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        self.highest.fetch_add(self.pace.keys, Ordering::Relaxed);
        let drive = |client: u64| {
            let random = StdRng::seed_from_u64(self.seed ^ (round << 32) ^ client);
            tokio::spawn(drive(self.clone(), servers.clone(), Arc::clone(&stop), random))
        };
        let tasks = (0..self.pace.clients).map(drive).collect();
        Clients { stop, tasks }
    }

    /// Asks for every key until it has an end.
    pub(crate) async fn ask_for_all(&self, url: &str) -> HashMap<String, Answer> {
        let http = Http::new();
        let mut ends = HashMap::new();
        for n in 0..self.highest.load(Ordering::Relaxed) {
            let key = format!("key-{n}");
            let end = eventually(&format!("{key} comes to an end (L9)"), async || {
                let called = self.seen.now();
                let answer = execute(&http, url, &key, false).await.unwrap();
                let executed = read(&answer);
                let is_end = matches!(executed, Some(Executed::Completed { .. } | Executed::Unknown));
                // A call in doubt may have an effect yet.
                let answered = executed.as_ref().map(|_| self.seen.now());
                self.seen.note(Event::new(&key, called, answered, What::Execute { answer: executed }));
                is_end.then_some(answer)
            })
            .await;
            ends.insert(key, end);
        }
        ends
    }

    /// Judges everything, and says how many keys have no known outcome.
    pub(crate) fn judge(&self, ends: &HashMap<String, Answer>) -> usize {
        let times = self.seen.times();
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "L7: ran more than once: {twice:?}");
        let unknown = ends.values().filter(|answer| answer.status != 200).count();
        println!("{} keys, {} ran, {unknown} unknown", ends.len(), times.len());
        for (key, answer) in ends {
            let runs = times.get(key).copied().unwrap_or(0);
            assert!(answer.status != 200 || runs == 1, "{key} is completed and ran {runs} times");
        }
        if let Err(violation) = history::check(&self.seen.history()) {
            panic!("{violation}");
        }
        unknown
    }
}

/// Clients that ask. They go on until they are stopped.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// One client: asks for keys at random, sometimes one that others ask for too, and writes down what it is told.
async fn drive(world: World, servers: Servers, stop: Arc<AtomicBool>, mut random: StdRng) {
    let http = Http::new();
    while !stop.load(Ordering::Relaxed) {
        let newest = world.highest.load(Ordering::Relaxed);
        let from = if random.random_bool(0.2) { 0 } else { newest - world.pace.keys };
        let key = format!("key-{}", random.random_range(from..newest));
        let answered = match servers.one(&mut random) {
            Some(url) => ask(&http, &url, &world.seen, &key, random.random_bool(0.15)).await,
            None => false,
        };
        if !answered {
            // The server is gone, or going: leave it the moment it needs.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Asks for one key and notes the answer; whether there was one.
async fn ask(http: &Http, url: &str, seen: &Seen, key: &str, is_async: bool) -> bool {
    let called = seen.now();
    let answer = execute(http, url, key, is_async).await;
    let executed = answer.as_ref().ok().and_then(read);
    let answered = executed.as_ref().map(|_| seen.now());
    if is_async {
        // It may have been taken in by a try of which the server had no answer, whatever a later one was told; what was
        // taken in runs whenever a worker comes to it.
        seen.note(Event::new(key, called, None, What::Execute { answer: None }));
    }
    if is_async && executed == Some(Executed::Processing) {
        return true;
    }
    seen.note(Event::new(key, called, answered, What::Execute { answer: executed }));
    answer.is_ok()
}

async fn execute(http: &Http, url: &str, key: &str, is_async: bool) -> Result<Answer, String> {
    let body = format!(r#"{{"operation":"payment.charge","payload":{{"order":"{key}","amount":4200}}}}"#);
    let mut headers = vec![("idempotency-key", key), ("content-type", "application/json")];
    if is_async {
        headers.push(("prefer", "respond-async"));
    }
    http.post(&format!("{url}/v1/idempotency/execute"), &headers, body).await
}

/// What an answer says, if it says anything: a 503 in doubt does not.
fn read(answer: &Answer) -> Option<Executed> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    match (answer.status, code) {
        (200, _) => {
            let text = std::str::from_utf8(&answer.body).unwrap();
            let outcome = text.strip_prefix(r#"{"status":"completed","result":"#).unwrap().strip_suffix('}');
            let replayed = answer.header("idempotent-replayed") == Some("true");
            Some(Executed::Completed { outcome: outcome.unwrap().to_owned(), replayed })
        }
        (202, _) => Some(Executed::Processing),
        (409, "IDEMPOTENCY_OUTCOME_UNKNOWN") | (502 | 504, "OUTCOME_UNKNOWN") => Some(Executed::Unknown),
        (503, "TARGET_UNAVAILABLE") => Some(Executed::Released),
        (503, _) => None,
        (status, code) => panic!("unexpected answer {status} {code}: {body}"),
    }
}

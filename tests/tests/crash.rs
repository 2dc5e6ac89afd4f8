//! SIGKILL at random moments under load: nothing acknowledged is lost, nothing runs twice, what was cut off is unknown.
//!
//! Clients with a few keys each drive the real server against a target that counts; the server is killed and started
//! again on the same folder, again and again. In the end every key is asked for once more, and the history of all
//! that clients and target have seen must have an explanation (L4, L7, L9, L10).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use semel_conformance::history::{self, Event, Executed, What};
use serde_json::Value;

use crate::http::{Answer, Http};
use crate::server::Server;
use crate::wait::eventually;

mod target;

use target::Seen;

/// Clients at once.
const CLIENTS: usize = 12;
/// Keys that are in use at once; some are new in every round, some from before a crash.
const KEYS_PER_ROUND: u64 = 400;
/// The lease of the operation: a claim that a crash has cut off is unknown so long after.
const LEASE: Duration = Duration::from_secs(2);

/// How often the server is killed: more in the full run.
fn kills() -> u64 {
    if std::env::var_os("SEMEL_FULL").is_some() { 60 } else { 8 }
}

fn config(target: SocketAddr) -> String {
    format!(
        r#"
[[operations]]
name = "payment.charge"
target = "http://{target}/charges"
semantics = "at-most-once"
timeout = "1s"
lease = "{}s"
retention = "24h"
forward_key = true
concurrency = 64
retry = {{ max_attempts = 12, first = "50ms", cap = "200ms" }}
"#,
        LEASE.as_secs()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_runs_twice_l4_l7_l9_l10() {
    let chance = std::env::var("SEMEL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261);
    println!("SEMEL_SEED={chance}, {} kills", kills());
    let mut random = StdRng::seed_from_u64(chance);
    let folder = tempfile::tempdir().unwrap();
    let (target, seen) = target::start().await;
    let highest = Arc::new(AtomicU64::new(0));
    for round in 0..kills() {
        let server = Server::start_in(folder.path(), &config(target)).await;
        let stop = Arc::new(AtomicBool::new(false));
        highest.fetch_add(KEYS_PER_ROUND, Ordering::Relaxed);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let chance = chance ^ (round << 32) ^ client as u64;
                tokio::spawn(drive(
                    server.url(),
                    seen.clone(),
                    Arc::clone(&highest),
                    Arc::clone(&stop),
                    chance,
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(80..900))).await;
        server.kill().await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    }
    let server = Server::start_in(folder.path(), &config(target)).await;
    // What a crash has cut off lapses; nobody asks about it, the server finds it by itself.
    let final_answers = ask_for_all(&server, &seen, highest.load(Ordering::Relaxed)).await;
    judge(&seen, &final_answers);
    server.stop().await;
}

/// One client: asks for keys at random, sometimes one that others ask for too, and writes down what it is told.
async fn drive(url: String, seen: Seen, highest: Arc<AtomicU64>, stop: Arc<AtomicBool>, chance: u64) {
    let http = Http::new();
    let mut random = StdRng::seed_from_u64(chance);
    while !stop.load(Ordering::Relaxed) {
        let newest = highest.load(Ordering::Relaxed);
        let from = if random.random_bool(0.2) { 0 } else { newest - KEYS_PER_ROUND };
        let key = format!("key-{}", random.random_range(from..newest));
        if !ask(&http, &url, &seen, &key, random.random_bool(0.15)).await {
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
    // What was taken in runs whenever a worker comes to it: a call whose effect is still to come.
    let taken_in = is_async && executed == Some(Executed::Processing);
    let (answered, executed) = if taken_in { (None, None) } else { (answered, executed) };
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

/// Asks for every key until it has an end.
async fn ask_for_all(server: &Server, seen: &Seen, keys: u64) -> HashMap<String, Answer> {
    let http = Http::new();
    let mut ends = HashMap::new();
    for n in 0..keys {
        let key = format!("key-{n}");
        let end = eventually(&format!("{key} comes to an end (L9)"), async || {
            let called = seen.now();
            let answer = execute(&http, &server.url(), &key, false).await.unwrap();
            let executed = read(&answer).expect("the last server answers");
            let is_end = matches!(executed, Executed::Completed { .. } | Executed::Unknown);
            let what = What::Execute { answer: Some(executed) };
            seen.note(Event::new(&key, called, Some(seen.now()), what));
            is_end.then_some(answer)
        })
        .await;
        ends.insert(key, end);
    }
    ends
}

fn judge(seen: &Seen, ends: &HashMap<String, Answer>) {
    let times = seen.times();
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "L7: ran more than once: {twice:?}");
    let unknown = ends.values().filter(|answer| answer.status != 200).count();
    println!("{} keys, {} ran, {unknown} unknown", ends.len(), times.len());
    for (key, answer) in ends {
        let runs = times.get(key).copied().unwrap_or(0);
        assert!(answer.status != 200 || runs == 1, "{key} is completed and ran {runs} times");
    }
    if let Err(violation) = history::check(&seen.history()) {
        panic!("{violation}");
    }
}

//! The embedded store alone: claims and outcomes, each durable before it is answered.
//!
//! ```text
//! cargo run --release -p semel-stores --features embedded --example engine_bench -- \
//!     [--folder DIR] [--keys N] [--seconds S] [--in-flight N] [--body BYTES] [--workers N]
//! ```
//! Preloads `--keys` settled records, measures for `--seconds`, closes, opens again, and prints what it saw, one
//! `name: value` a line. A preloaded folder is kept and used again when it is given a second time.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use semel_core::Policy;
use semel_core::command::{ClaimKey, Command, Complete, Verdict};
use semel_core::id::{
    Holder, Key, Namespace, Operation, RecordId, Scope, Tag, TagName, TagValue, Tenant, Token,
};
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::query::Query;
use semel_core::record::StateName;
use semel_core::request::{Fingerprint, Request};
use semel_core::store::{Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_stores::embedded::{EmbeddedStore, Options};

struct Arguments {
    folder: PathBuf,
    keys: u64,
    seconds: u64,
    in_flight: usize,
    body: usize,
    workers: usize,
}

fn arguments() -> Arguments {
    let mut found = Arguments {
        folder: std::env::temp_dir().join(format!("semel-engine-bench-{}", std::process::id())),
        keys: 0,
        seconds: 5,
        in_flight: 256,
        body: 400,
        workers: 2,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().unwrap();
        match name.as_str() {
            "--folder" => found.folder = value.into(),
            "--keys" => found.keys = value.parse().unwrap(),
            "--seconds" => found.seconds = value.parse().unwrap(),
            "--in-flight" => found.in_flight = value.parse().unwrap(),
            "--body" => found.body = value.parse().unwrap(),
            "--workers" => found.workers = value.parse().unwrap(),
            _ => panic!("unknown argument {name}"),
        }
    }
    found
}

/// What every request of the bench shares.
struct Maker {
    scope: Scope,
    operation: Operation,
    policy: Policy,
    tag: TagName,
    outcome: Outcome,
}

impl Maker {
    fn new(body: usize) -> Self {
        let text = r#"{"transactionId":"txn-000000","status":"success","amount":100000,"currency":"IDR"},"#;
        let body: Vec<u8> = text.bytes().cycle().take(body).collect();
        Self {
            scope: Scope {
                namespace: Namespace::Execute,
                tenant: Tenant::try_new("default").unwrap(),
                subject: None,
            },
            operation: Operation::try_new("payment.charge").unwrap(),
            policy: Policy::default(),
            tag: TagName::try_new("order_id").unwrap(),
            outcome: Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::from(body)).unwrap(),
        }
    }

    fn key(number: u64) -> Key {
        Key::try_new(&format!("order-{number:020}")).unwrap()
    }

    fn id(&self, number: u64) -> RecordId {
        RecordId::of(&self.scope, &Self::key(number))
    }

    fn claim(&self, store: &dyn Store, number: u64) -> Write {
        let fingerprint = Fingerprint { version: 1, digest: [number as u8; 32] };
        let request = Request::new(
            self.scope.clone(),
            Self::key(number),
            self.operation.clone(),
            fingerprint,
            self.policy,
        );
        let value = TagValue::try_new(&format!("A-{number}")).unwrap();
        let request = request.try_with_tags(vec![Tag { name: self.tag.clone(), value }]).unwrap();
        let token =
            Token::from_bytes(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060).to_le_bytes());
        let command = ClaimKey { request: Arc::new(request), token, attempt_id: None };
        match command.decide(None, store.time()) {
            Verdict::Write(write) => *write,
            Verdict::Stay(answer) => panic!("{answer:?}"),
        }
    }

    async fn run(&self, store: &dyn Store, number: u64) {
        let running = match store.insert(self.claim(store, number)).await.unwrap().value {
            Inserted::Inserted(record) => record,
            Inserted::Occupied(record) => panic!("occupied: {record:?}"),
        };
        let holder = Holder { id: running.id(), token: running.token().unwrap() };
        let command = Complete { holder, outcome: self.outcome.clone() };
        let Verdict::Write(write) = command.decide(Some(&running), running.times().written) else {
            panic!("not completed")
        };
        match store.replace(*write, running.version()).await.unwrap().value {
            Replaced::Replaced(_) => {}
            Replaced::Conflict(record) => panic!("conflict: {record:?}"),
        }
    }
}

struct Load {
    pairs: u64,
    cpu_seconds: f64,
    seconds: f64,
    latencies: Vec<u32>,
}

/// Keeps `in_flight` runs going until `until` says stop.
async fn load(
    store: &Arc<EmbeddedStore>,
    maker: &Arc<Maker>,
    in_flight: usize,
    first: u64,
    last: u64,
    stop: &Arc<AtomicBool>,
) -> Load {
    let next = Arc::new(AtomicU64::new(first));
    let start = Instant::now();
    let cpu = cpu_seconds();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (store, maker, next, stop) =
                (Arc::clone(store), Arc::clone(maker), Arc::clone(&next), Arc::clone(stop));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last {
                        break;
                    }
                    let start = Instant::now();
                    maker.run(&*store, number).await;
                    latencies.push(start.elapsed().as_micros() as u32);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let (seconds, cpu_seconds) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    latencies.sort_unstable();
    Load { pairs: latencies.len() as u64, cpu_seconds, seconds, latencies }
}

fn report(name: &str, load: &Load) {
    let at = |part: f64| {
        let index = (load.latencies.len() as f64 * part) as usize;
        f64::from(load.latencies.get(index).copied().unwrap_or(0)) / 1000.0
    };
    println!(
        "{name}: {:.0} claim+outcome/s, {:.0} durable writes/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, \
         {:.2} µs of processor each",
        load.pairs as f64 / load.seconds,
        2.0 * load.pairs as f64 / load.seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        load.cpu_seconds * 1e6 / load.pairs as f64,
    );
}

/// Processor time of this process so far: on a busy machine it says more than the clock does.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|part| part.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: 0 kB").to_owned();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn open(folder: &PathBuf) -> Arc<EmbeddedStore> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let store = EmbeddedStore::open(&Options::new(folder)).unwrap();
    println!("open: {:.2} s of processor", cpu_seconds() - cpu);
    println!(
        "open: {:.3} s, {:?}, RSS {:.0} MiB",
        start.elapsed().as_secs_f64(),
        store.recovery(),
        resident_mib()
    );
    Arc::new(store)
}

async fn replays(store: &Arc<EmbeddedStore>, maker: &Maker, keys: u64, name: &str) {
    let count = 200_000.min(keys);
    let start = Instant::now();
    for n in 0..count {
        let id = maker.id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys);
        assert!(store.load(id).await.unwrap().value.is_some());
    }
    println!("{name}: {:.0} loads/s by one task", count as f64 / start.elapsed().as_secs_f64());
}

/// Pages of 50 for several mixes of filters: what each reads for a row.
async fn pages(store: &Arc<EmbeddedStore>, maker: &Maker) {
    let value = TagValue::try_new("A-7").unwrap();
    let tag = Some(Tag { name: maker.tag.clone(), value });
    let operation = Some(maker.operation.clone());
    let states = vec![StateName::Completed];
    let dead = vec![StateName::Dead];
    let mixes = [
        ("everything", Query::default()),
        ("operation and state", Query { operation: operation.clone(), states, ..Query::default() }),
        ("a state that nothing is in", Query { operation, states: dead, ..Query::default() }),
        ("tag", Query { tag, ..Query::default() }),
        ("key", Query { key: Some(Maker::key(7)), ..Query::default() }),
    ];
    for (name, query) in mixes {
        let start = Instant::now();
        let (mut rows, mut read, mut cursor) = (0, 0, None);
        for _ in 0..4 {
            let page = store.search(query.clone(), cursor, 50).await.unwrap();
            rows += page.items.len() as u64;
            read += page.entries_read;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let each = read as f64 / rows.max(1) as f64;
        println!("pages by {name}: {rows} rows, {each:.1} entries read for each, {:?}", start.elapsed());
    }
}

fn main() {
    let arguments = arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.workers)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let maker = Arc::new(Maker::new(arguments.body));
        let store = open(&arguments.folder);
        let there = store.recovery().records;
        if arguments.keys > there {
            let never = Arc::new(AtomicBool::new(false));
            let preload = load(&store, &maker, 1024, there, arguments.keys, &never).await;
            report("preload", &preload);
        }
        let loaded = arguments.keys;
        for round in 0..3 {
            let stop = Arc::new(AtomicBool::new(false));
            let timer = {
                let (stop, seconds) = (Arc::clone(&stop), arguments.seconds);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    stop.store(true, Ordering::Relaxed);
                })
            };
            // A folder may be given again: other keys than the last time.
            let first = u64::from(std::process::id()) << 40 | (round + 1) << 36;
            let measured = load(&store, &maker, arguments.in_flight, first, u64::MAX, &stop).await;
            timer.abort();
            report(&format!("{} in flight", arguments.in_flight), &measured);
        }
        if loaded > 0 {
            replays(&store, &maker, loaded, "replays").await;
        }
        println!("memory: RSS {:.0} MiB", resident_mib());
        println!("stats: {:?}", store.stats());
        drop(store);
        let store = open(&arguments.folder);
        if loaded > 0 {
            replays(&store, &maker, loaded, "replays after opening").await;
            pages(&store, &maker).await;
        }
    });
}

//! The PostgreSQL store beside one statement per command: a claim and its outcome, each committed before it is answered.
//!
//! ```text
//! SEMEL_TEST_POSTGRES=postgres://… cargo run --release -p semel-stores --features postgres \
//!     --example postgres_bench -- [--rounds N] [--seconds S] [--body BYTES] [--in-flight N,N] [--only SIDE]
//! ```
//! The sides take turns in every round, each in a schema of its own on the same server. It prints medians, and the
//! median of the rounds' ratios to the naive form, as a table for `docs`.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_postgres::{Manager, Pool};
use semel_core::command::{ClaimKey, Command, Complete, Verdict};
use semel_core::id::{Holder, Key, Namespace, Operation, Scope, Tenant, Token};
use semel_core::outcome::{Class, Headers};
use semel_core::request::Fingerprint;
use semel_core::store::{Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Outcome, Policy, Request, Store};
use semel_stores::postgres::{Options, PostgresStore};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

struct Arguments {
    rounds: usize,
    seconds: f64,
    body: usize,
    in_flight: Vec<usize>,
    only: Option<String>,
}

fn arguments() -> Arguments {
    let mut found = Arguments { rounds: 5, seconds: 2.0, body: 400, in_flight: vec![64, 256], only: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().unwrap();
        match name.as_str() {
            "--rounds" => found.rounds = value.parse().unwrap(),
            "--seconds" => found.seconds = value.parse().unwrap(),
            "--body" => found.body = value.parse().unwrap(),
            "--in-flight" => found.in_flight = value.split(',').map(|n| n.parse().unwrap()).collect(),
            "--only" => found.only = Some(value),
            other => panic!("unknown: {other}"),
        }
    }
    found
}

/// What takes a claim and then its outcome.
trait Side: Send + Sync + 'static {
    fn run(&self, number: u64) -> impl Future<Output = ()> + Send;
}

/// A table with a primary key and nothing else, and two statements.
struct Naive {
    pool: Pool,
    outcome: Vec<u8>,
}

const NAIVE_CONNECTIONS: usize = 48;
const CLAIM: &str = "INSERT INTO semel_bench_naive.keys (id, fingerprint, token, lease)
    VALUES ($1::text::uuid, $2, $3, now() + interval '5 min') ON CONFLICT (id) DO NOTHING RETURNING 1";
const COMPLETE: &str = "UPDATE semel_bench_naive.keys SET state = 'completed', outcome = $3
    WHERE id = $1::text::uuid AND token = $2";

impl Naive {
    async fn connect(url: &str, body: usize) -> Self {
        let manager = Manager::new(url.parse().unwrap(), NoTls);
        let pool = Pool::builder(manager).max_size(NAIVE_CONNECTIONS).build().unwrap();
        let client = pool.get().await.unwrap();
        let schema = "DROP SCHEMA IF EXISTS semel_bench_naive CASCADE; CREATE SCHEMA semel_bench_naive;
            CREATE TABLE semel_bench_naive.keys (id uuid PRIMARY KEY, fingerprint bytea NOT NULL, token bytea NOT NULL,
              lease timestamptz NOT NULL, state text NOT NULL DEFAULT 'running', outcome bytea)";
        client.batch_execute(schema).await.unwrap();
        Self { pool, outcome: vec![b'x'; body] }
    }

    async fn say(&self, text: &str, types: &[Type], values: &[&(dyn ToSql + Sync)]) {
        let client = self.pool.get().await.unwrap();
        let statement = client.prepare_typed_cached(text, types).await.unwrap();
        assert_eq!(client.execute(&statement, values).await.unwrap(), 1);
    }
}

impl Side for Naive {
    async fn run(&self, number: u64) {
        let id = id_of(number);
        let (fingerprint, token) = ([number as u8; 32], number.to_le_bytes());
        let (fingerprint, token) = (fingerprint.as_slice(), token.as_slice());
        self.say(CLAIM, &[Type::TEXT, Type::BYTEA, Type::BYTEA], &[&id, &fingerprint, &token]).await;
        self.say(COMPLETE, &[Type::TEXT, Type::BYTEA, Type::BYTEA], &[&id, &token, &self.outcome]).await;
    }
}

/// Spread as a digest is.
fn id_of(number: u64) -> String {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{spread:032x}")
}

/// The store, as it is opened.
struct Ours {
    store: PostgresStore,
    scope: Scope,
    operation: Operation,
    outcome: Outcome,
}

impl Ours {
    async fn open(url: &str, schema: &str, more: &str, body: usize) -> Self {
        let client = connect(url).await;
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
        let options = Options::parse(&format!("{url}?schema={schema}{more}")).unwrap();
        let store = PostgresStore::open(&options).await.unwrap();
        let body = Bytes::from(vec![b'x'; body]);
        Self {
            store,
            scope: Scope {
                namespace: Namespace::Execute,
                tenant: Tenant::try_new("bench").unwrap(),
                subject: None,
            },
            operation: Operation::try_new("payment.charge").unwrap(),
            outcome: Outcome::try_new(Class::Success, 200, Headers::default(), body).unwrap(),
        }
    }

    fn claim(&self, number: u64) -> Write {
        let fingerprint = Fingerprint { version: 1, digest: [number as u8; 32] };
        let key = Key::try_new(&format!("key-{number}")).unwrap();
        let request =
            Request::new(self.scope.clone(), key, self.operation.clone(), fingerprint, Policy::default());
        let token = Token::from_bytes(u128::from(number).to_le_bytes());
        let command = ClaimKey { request: Arc::new(request), token, attempt_id: None };
        match command.decide(None, self.store.time()) {
            Verdict::Write(write) => *write,
            Verdict::Stay(answer) => panic!("{answer:?}"),
        }
    }
}

impl Side for Ours {
    async fn run(&self, number: u64) {
        let running = match self.store.insert(self.claim(number)).await.unwrap().value {
            Inserted::Inserted(record) => record,
            Inserted::Occupied(record) => panic!("occupied: {record:?}"),
        };
        let holder = Holder { id: running.id(), token: running.token().unwrap() };
        let command = Complete { holder, outcome: self.outcome.clone() };
        let Verdict::Write(write) = command.decide(Some(&running), running.times().written) else {
            panic!("not completed")
        };
        match self.store.replace(*write, running.version()).await.unwrap().value {
            Replaced::Replaced(_) => {}
            Replaced::Conflict(record) => panic!("conflict: {record:?}"),
        }
    }
}

struct Load {
    rate: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Keeps `in_flight` runs going for so long.
async fn load<S: Side>(
    side: &Arc<S>,
    in_flight: usize,
    seconds: f64,
    next: &Arc<AtomicU64>,
    server: &Client,
) -> Load {
    let cpu = cpu_seconds(server).await;
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (side, next) = (Arc::clone(side), Arc::clone(next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let start = Instant::now();
                    side.run(next.fetch_add(1, Ordering::Relaxed)).await;
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
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |hundredths: usize| f64::from(latencies[latencies.len() * hundredths / 100]) / 1000.0;
    let cpu_us = (cpu_seconds(server).await - cpu) * 1e6 / latencies.len() as f64;
    Load { rate: latencies.len() as f64 / elapsed, cpu_us, p50_ms: at(50), p99_ms: at(99) }
}

/// Processor time so far of this process and of the server's, which is on this machine: while others use the machine,
/// it says more than the clock does.
async fn cpu_seconds(server: &Client) -> f64 {
    let rows = server.query("SELECT pid FROM pg_stat_activity", &[]).await.unwrap();
    let servers = rows.iter().map(|row| row.get::<_, i32>(0).to_string());
    servers.chain(["self".to_owned()]).map(|pid| cpu_of(&pid)).sum()
}

fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|part| part.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

const SIDES: [&str; 3] = [
    "naive: a bare table, `INSERT … ON CONFLICT` and `UPDATE`, 48 connections",
    "this store with `batch=false`, 32 connections",
    "this store",
];

fn report(in_flight: usize, rounds: &[[Option<Load>; 3]]) {
    println!("\n## {in_flight} in flight\n");
    println!(
        "| side | claim and outcome /s | / naive | processor time each | p50 | p99 |\n|---|---|---|---|---|---|"
    );
    for (at, name) in SIDES.iter().enumerate() {
        let all = || rounds.iter().filter_map(|round| round[at].as_ref());
        if all().next().is_none() {
            continue;
        }
        let ratios: Vec<_> = rounds
            .iter()
            .filter_map(|round| Some(round[at].as_ref()?.rate / round[0].as_ref()?.rate))
            .collect();
        let (low, high) =
            ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let ratio = if ratios.is_empty() {
            "–".to_owned()
        } else {
            format!("{:.2} ({low:.2}–{high:.2})", median(ratios))
        };
        println!(
            "| {name} | {:.0} | {ratio} | {:.0} µs | {:.1} ms | {:.1} ms |",
            median(all().map(|load| load.rate).collect()),
            median(all().map(|load| load.cpu_us).collect()),
            median(all().map(|load| load.p50_ms).collect()),
            median(all().map(|load| load.p99_ms).collect()),
        );
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn settings(client: &Client) {
    let asked = "SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) FROM pg_settings WHERE name IN
        ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'wal_sync_method', 'server_version')";
    println!("{}", client.query_one(asked, &[]).await.unwrap().get::<_, String>(0));
}

fn main() {
    let arguments = arguments();
    let url = std::env::var("SEMEL_TEST_POSTGRES").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = connect(&url).await;
        settings(&server).await;
        println!("{} rounds in alternation, {} s each", arguments.rounds, arguments.seconds);
        let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
        let naive = Arc::new(Naive::connect(&url, arguments.body).await);
        let plain = "&batch=false&pool=32";
        let plain = Arc::new(Ours::open(&url, "semel_bench_plain", plain, arguments.body).await);
        let ours = Arc::new(Ours::open(&url, "semel_bench", "", arguments.body).await);
        let next = Arc::new(AtomicU64::new(0));
        for &in_flight in &arguments.in_flight {
            let mut rounds = Vec::new();
            for _ in 0..arguments.rounds {
                let mut round = [None, None, None];
                if wanted("naive") {
                    round[0] = Some(load(&naive, in_flight, arguments.seconds, &next, &server).await);
                }
                if wanted("plain") {
                    round[1] = Some(load(&plain, in_flight, arguments.seconds, &next, &server).await);
                }
                if wanted("ours") {
                    round[2] = Some(load(&ours, in_flight, arguments.seconds, &next, &server).await);
                }
                rounds.push(round);
            }
            report(in_flight, &rounds);
        }
    });
}

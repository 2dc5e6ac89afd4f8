//! The stores side by side, and PostgreSQL's naive form beside them: a claim and its outcome, each durable before it is answered
//! (as far as the store and its server's settings make it so).
//!
//! ```text
//! SEMEL_TEST_POSTGRES=postgres://… SEMEL_TEST_REDIS=redis://… SEMEL_TEST_MONGODB=mongodb://… \
//!     cargo run --release -p semel-stores --all-features --example stores_bench -- \
//!     [--rounds N] [--seconds S] [--warm-up S] [--body BYTES] [--in-flight N,N] [--only SIDE,SIDE] [--folder PATH]
//! ```
//! The sides (`naive`, `plain`, `postgres`, the same with as many lanes as `lanes1` to `lanes8` say, which are left out unless they are named, `embedded`, `redis`, `mongodb`, `memory`) take turns in every round, each in a schema, prefix or database of
//! its own; those whose server is not named in the environment are left out. It prints medians, and the median of the rounds'
//! ratios to the first side, as tables for `docs`. A PostgreSQL that has just been made creates the files of its log as it goes, 16 MB of
//! zeros each, for which all commits wait; later it takes old ones again. `--warm-up` has each side run for so long, and a checkpoint,
//! twice, before the first round, so that what is measured is a server that has been running. The embedded store's folder must lie on a real disk. Beside PostgreSQL on the same machine
//! it prints what each run cost, too: processor time of its processes and of this one, and bytes of its log. Such costs hold on a busy machine.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::path::PathBuf;
use std::pin::Pin;
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
use semel_stores::embedded::{self, EmbeddedStore};
use semel_stores::memory::MemoryStore;
use semel_stores::mongodb::{self, MongoStore};
use semel_stores::postgres::{self, PostgresStore};
use semel_stores::redis::{self, RedisStore};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

struct Arguments {
    rounds: usize,
    seconds: f64,
    warm_up: f64,
    body: usize,
    in_flight: Vec<usize>,
    only: Option<String>,
    folder: PathBuf,
}

fn arguments() -> Arguments {
    let mut found = Arguments {
        rounds: 5,
        seconds: 2.0,
        warm_up: 0.0,
        body: 400,
        in_flight: vec![64, 256],
        only: None,
        folder: PathBuf::from("target/bench"),
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().unwrap();
        match name.as_str() {
            "--rounds" => found.rounds = value.parse().unwrap(),
            "--seconds" => found.seconds = value.parse().unwrap(),
            "--warm-up" => found.warm_up = value.parse().unwrap(),
            "--body" => found.body = value.parse().unwrap(),
            "--in-flight" => found.in_flight = value.split(',').map(|n| n.parse().unwrap()).collect(),
            "--only" => found.only = Some(value),
            "--folder" => found.folder = value.into(),
            other => panic!("unknown: {other}"),
        }
    }
    found
}

/// What takes a claim and then its outcome.
trait Side: Send + Sync + 'static {
    fn run(&self, number: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
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
    fn run(&self, number: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let id = id_of(number);
            let (fingerprint, token) = ([number as u8; 32], number.to_le_bytes());
            let (fingerprint, token) = (fingerprint.as_slice(), token.as_slice());
            self.say(CLAIM, &[Type::TEXT, Type::BYTEA, Type::BYTEA], &[&id, &fingerprint, &token]).await;
            self.say(COMPLETE, &[Type::TEXT, Type::BYTEA, Type::BYTEA], &[&id, &token, &self.outcome]).await;
        })
    }
}

/// Spread as a digest is.
fn id_of(number: u64) -> String {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{spread:032x}")
}

/// One of this project's stores.
struct Ours {
    store: Arc<dyn Store>,
    scope: Scope,
    operation: Operation,
    outcome: Outcome,
}

impl Ours {
    fn over(store: Arc<dyn Store>, body: usize) -> Arc<dyn Side> {
        let body = Bytes::from(vec![b'x'; body]);
        let tenant = Tenant::try_new("bench").unwrap();
        Arc::new(Self {
            store,
            scope: Scope { namespace: Namespace::Execute, tenant, subject: None },
            operation: Operation::try_new("payment.charge").unwrap(),
            outcome: Outcome::try_new(Class::Success, 200, Headers::default(), body).unwrap(),
        })
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
    fn run(&self, number: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
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
        })
    }
}

/// What takes part, in the order of the tables.
struct Contest(Vec<(&'static str, Arc<dyn Side>)>);

impl Contest {
    async fn gather(arguments: &Arguments) -> Self {
        let wanted =
            |name: &str| arguments.only.as_deref().is_none_or(|only| only.split(',').any(|one| one == name));
        let (mut sides, body) = (Vec::new(), arguments.body);
        let of = |name: &str| std::env::var(name).ok();
        if let Some(url) = of("SEMEL_TEST_POSTGRES") {
            println!("PostgreSQL: {}", settings(&connect(&url).await).await);
            if wanted("naive") {
                let naive: Arc<dyn Side> = Arc::new(Naive::connect(&url, body).await);
                let name =
                    "PostgreSQL, naive: a bare table, `INSERT … ON CONFLICT` and `UPDATE`, 48 connections";
                sides.push((name, naive));
            }
            if wanted("plain") {
                let store = postgres(&url, "semel_bench_plain", "&batch=false&pool=32").await;
                sides.push(("PostgreSQL store with `batch=false`, 32 connections", Ours::over(store, body)));
            }
            if wanted("postgres") {
                let store = postgres(&url, "semel_bench", "").await;
                sides.push(("PostgreSQL store", Ours::over(store, body)));
            }
            for lanes in ["1", "2", "3", "4", "6", "8"] {
                if arguments.only.is_some() && wanted(&format!("lanes{lanes}")) {
                    let (schema, more) = (format!("semel_bench_{lanes}"), format!("&lanes={lanes}"));
                    let name = format!("PostgreSQL store with `lanes={lanes}`").leak();
                    sides.push((name, Ours::over(postgres(&url, &schema, &more).await, body)));
                }
            }
        }
        let run = std::process::id();
        if wanted("embedded") {
            let folder = arguments.folder.join(format!("stores-{run}"));
            let store = EmbeddedStore::open(&embedded::Options::new(folder)).unwrap();
            sides.push(("embedded store", Ours::over(Arc::new(store), body)));
        }
        if let Some(url) = of("SEMEL_TEST_REDIS").filter(|_| wanted("redis")) {
            let options = redis::Options::parse(&format!("{url}?prefix=bench{run}")).unwrap();
            let store = RedisStore::open(&options).await.unwrap();
            sides.push(("Redis store", Ours::over(Arc::new(store), body)));
        }
        if let Some(url) = of("SEMEL_TEST_MONGODB").filter(|_| wanted("mongodb")) {
            let options = mongodb::Options::parse(&format!("{url}bench{run}")).unwrap();
            let store = MongoStore::open(&options).await.unwrap();
            sides.push(("MongoDB store", Ours::over(Arc::new(store), body)));
        }
        if wanted("memory") {
            sides.push(("memory store", Ours::over(Arc::new(MemoryStore::new()), body)));
        }
        Self(sides)
    }
}

async fn postgres(url: &str, schema: &str, more: &str) -> Arc<dyn Store> {
    let client = connect(url).await;
    client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
    let options = postgres::Options::parse(&format!("{url}?schema={schema}{more}")).unwrap();
    Arc::new(PostgresStore::open(&options).await.unwrap())
}

struct Load {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    cost: Cost,
}

/// What has been spent so far, or on one run.
#[derive(Clone, Copy, Default)]
struct Cost {
    server_us: f64,
    client_us: f64,
    log_bytes: f64,
}

impl Cost {
    fn since(self, before: Self, runs: usize) -> Self {
        let each = |now: f64, before: f64| (now - before) / runs as f64;
        Self {
            server_us: each(self.server_us, before.server_us),
            client_us: each(self.client_us, before.client_us),
            log_bytes: each(self.log_bytes, before.log_bytes),
        }
    }
}

/// Reads what PostgreSQL and this process have spent.
struct Meter {
    client: Client,
    /// The server's first process, if it runs on this machine.
    server: Option<String>,
}

impl Meter {
    async fn of(url: &str) -> Self {
        let client = connect(url).await;
        let own: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let server = stat(&own.to_string()).filter(|stat| stat.name == "postgres").map(|stat| stat.parent);
        Self { client, server }
    }

    async fn read(&self) -> Cost {
        let asked = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        let log_bytes = self.client.query_one(asked, &[]).await.unwrap().get(0);
        let mut cost = Cost { log_bytes, ..Cost::default() };
        cost.client_us = stat("self").map_or(0.0, |stat| stat.own_us);
        let Some(server) = &self.server else { return cost };
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(stat) = stat(&entry.file_name().to_string_lossy()) else { continue };
            if stat.parent == *server {
                cost.server_us += stat.own_us;
            } else if entry.file_name().to_string_lossy() == *server {
                cost.server_us += stat.own_us + stat.ended_us;
            }
        }
        cost
    }
}

/// A line of `/proc`.
struct Stat {
    name: String,
    parent: String,
    own_us: f64,
    /// Of its children that have ended.
    ended_us: f64,
}

fn stat(process: &str) -> Option<Stat> {
    /// Ticks of a hundredth of a second, as Linux counts them for everybody.
    const TICK_US: f64 = 10_000.0;
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (name, rest) = line.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |from: usize| fields[from..from + 2].iter().map(|n| n.parse().unwrap_or(0.0)).sum::<f64>();
    Some(Stat {
        name: name.to_owned(),
        parent: fields[1].to_owned(),
        own_us: ticks(11) * TICK_US,
        ended_us: ticks(13) * TICK_US,
    })
}

/// Has every side run for a while, until what the servers reuse is there.
async fn warm_up(
    sides: &[(&str, Arc<dyn Side>)],
    seconds: f64,
    next: &Arc<AtomicU64>,
    meter: Option<&Meter>,
) {
    const IN_FLIGHT: usize = 256;
    for _ in 0..2 {
        for (_, side) in sides {
            load(side, IN_FLIGHT, seconds, next, None).await;
        }
        if let Some(meter) = meter {
            meter.client.batch_execute("CHECKPOINT").await.unwrap();
        }
    }
}

/// Keeps `in_flight` runs going for so long.
async fn load(
    side: &Arc<dyn Side>,
    in_flight: usize,
    seconds: f64,
    next: &Arc<AtomicU64>,
    meter: Option<&Meter>,
) -> Load {
    let read = async || if let Some(meter) = meter { meter.read().await } else { Cost::default() };
    let before = read().await;
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
    let cost = read().await.since(before, latencies.len());
    Load { rate: latencies.len() as f64 / elapsed, p50_ms: at(50), p99_ms: at(99), cost }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(names: &[&str], in_flight: usize, rounds: &[Vec<Load>]) {
    println!("\n## {in_flight} in flight\n");
    println!(
        "| side | claim and outcome /s | / the first side | p50 | p99 | server, client each | log each |\n\
         |---|---|---|---|---|---|---|"
    );
    for (at, name) in names.iter().enumerate() {
        let all = || rounds.iter().map(|round| &round[at]);
        let ratios: Vec<_> = rounds.iter().map(|round| round[at].rate / round[0].rate).collect();
        let (low, high) =
            ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), r| (low.min(*r), high.max(*r)));
        println!(
            "| {name} | {:.0} | {:.2} ({low:.2}–{high:.2}) | {:.1} ms | {:.1} ms | {:.0} + {:.0} µs | {:.0} B |",
            median(all().map(|load| load.rate).collect()),
            median(ratios),
            median(all().map(|load| load.p50_ms).collect()),
            median(all().map(|load| load.p99_ms).collect()),
            median(all().map(|load| load.cost.server_us).collect()),
            median(all().map(|load| load.cost.client_us).collect()),
            median(all().map(|load| load.cost.log_bytes).collect()),
        );
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn settings(client: &Client) -> String {
    let asked = "SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) FROM pg_settings WHERE name IN
        ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size', 'wal_sync_method',
          'server_version')";
    client.query_one(asked, &[]).await.unwrap().get(0)
}

fn main() {
    let arguments = arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let Contest(sides) = Contest::gather(&arguments).await;
        let names: Vec<_> = sides.iter().map(|(name, _)| *name).collect();
        println!("{} rounds in alternation, {} s each", arguments.rounds, arguments.seconds);
        let next = Arc::new(AtomicU64::new(0));
        let meter = match std::env::var("SEMEL_TEST_POSTGRES") {
            Ok(url) => Some(Meter::of(&url).await),
            Err(_) => None,
        };
        if arguments.warm_up > 0.0 {
            println!("after {} s of each side, and a checkpoint, twice", arguments.warm_up);
            warm_up(&sides, arguments.warm_up, &next, meter.as_ref()).await;
        }
        for &in_flight in &arguments.in_flight {
            let mut rounds = Vec::new();
            for _ in 0..arguments.rounds {
                let mut round = Vec::new();
                for (_, side) in &sides {
                    round.push(load(side, in_flight, arguments.seconds, &next, meter.as_ref()).await);
                }
                rounds.push(round);
            }
            report(&names, in_flight, &rounds);
        }
    });
}

//! Ten million live records: throughput against an empty store, memory, bytes on disk, start after SIGKILL.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head, Run};
use crate::limits::{CONNECTIONS, SETTLE_PATIENCE};
use crate::load::{self, Body, Keys};
use crate::peer::{EXECUTE, Running};
use crate::process::{disk_bytes, memory_bytes};
use crate::report::{self, Bar, Spread, mebibytes, micros};

/// How often the start after SIGKILL is measured.
const STARTS: usize = 3;

/// Keys that are asked for again after each start: all of them must be replays.
const SAMPLED: u64 = 200;

#[derive(Serialize)]
struct Millions {
    head: Head,
    records: u64,
    preload: Run,
    memory_after_preload_bytes: u64,
    memory_after_start_bytes: u64,
    disk_after_preload_bytes: u64,
    disk_settled_bytes: u64,
    starts_s: Vec<f64>,
    pairs: Vec<Pair>,
}

/// The same load on an empty store and on the full one, one after the other.
#[derive(Serialize)]
struct Pair {
    connections: usize,
    empty: Run,
    full: Run,
    /// Replays of keys drawn from all over the full store.
    replay: Run,
}

/// Measures and writes `millions.md`.
///
/// # Errors
/// When the server is not there, fails, or has lost a record.
pub(crate) fn run(harness: &mut Harness, records: u64) -> Result<()> {
    harness.peers = vec![harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    harness.expect_steps(1 + STARTS + harness.rounds * CONNECTIONS.len());
    harness.say(format!("loading {records} records through HTTP"));
    let mut full = harness.server.start(&harness.places, "millions", false)?;
    let keys = harness.fresh();
    let mut plan = Harness::plan(&full, CONNECTIONS[1], Duration::MAX / 2, keys);
    plan.body = Body::Outcome400;
    plan.requests_max = Some(records);
    plan.duration = Duration::from_hours(1);
    let preload = Harness::measure(&full, &plan)?;
    ensure!(
        preload.figures.failed + preload.figures.shed == 0,
        "loading failed: {:?}",
        preload.figures.first_failure
    );
    harness.step();
    let memory_after_preload_bytes = memory_bytes(&full.roots());
    let disk_after_preload_bytes = disk_bytes(&full.data);
    let disk_settled_bytes = settled(&full);

    let mut starts_s = Vec::new();
    for round in 0..STARTS {
        harness.say(format!("start {} after SIGKILL", round + 1));
        full.kill()?;
        let asked = Instant::now();
        full = harness.server.start(&harness.places, "millions", true)?;
        starts_s.push(asked.elapsed().as_secs_f64());
        check_nothing_lost(&full, keys, records)?;
        harness.step();
    }
    let memory_after_start_bytes = memory_bytes(&full.roots());
    let pairs = pairs(harness, &full, keys, records)?;
    full.stop()?;
    let millions = Millions {
        head,
        records,
        preload,
        memory_after_preload_bytes,
        memory_after_start_bytes,
        disk_after_preload_bytes,
        disk_settled_bytes,
        starts_s,
        pairs,
    };
    harness.write("millions", &millions, &table(&millions))?;
    std::fs::remove_dir_all(harness.places.data.join("millions"))?;
    Ok(())
}

/// As long as this nothing may change on disk before it counts as settled: the store begins to copy its log only when
/// nobody has written for some seconds.
const UNCHANGED_S: u32 = 20;

/// Bytes on disk once nothing is merged or dropped any more.
fn settled(side: &Running) -> u64 {
    let start = Instant::now();
    let mut last = disk_bytes(&side.data);
    let mut same = 0_u32;
    while same < UNCHANGED_S && start.elapsed() < SETTLE_PATIENCE {
        std::thread::sleep(Duration::from_secs(1));
        let now = disk_bytes(&side.data);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

fn check_nothing_lost(side: &Running, keys: Keys, records: u64) -> Result<()> {
    let Keys::Fresh { first } = keys else { anyhow::bail!("the loaded keys are fresh ones") };
    for index in 0..SAMPLED {
        let number = first + index * (records / SAMPLED).max(1) % records;
        let reply = load::once(side.addr, EXECUTE, number, Body::Outcome400)?;
        ensure!(
            reply.status == 200 && reply.has_header("idempotent-replayed", "true"),
            "record {number} was acknowledged and is not replayed after SIGKILL: {} {}",
            reply.status,
            reply.text()
        );
    }
    Ok(())
}

fn pairs(harness: &mut Harness, full: &Running, keys: Keys, records: u64) -> Result<Vec<Pair>> {
    let Keys::Fresh { first } = keys else { anyhow::bail!("the loaded keys are fresh ones") };
    let mut pairs = Vec::new();
    for round in 0..harness.rounds {
        for connections in CONNECTIONS {
            harness.say(format!("round {}: {connections} connections, empty and full", round + 1));
            let empty = harness.server.start(&harness.places, "millions-empty", false)?;
            let fresh = harness.fresh();
            let on_empty =
                Harness::measure(&empty, &Harness::plan(&empty, connections, harness.first_run, fresh))?;
            empty.stop()?;
            let fresh = harness.fresh();
            let on_full =
                Harness::measure(full, &Harness::plan(full, connections, harness.first_run, fresh))?;
            let scattered = Keys::Scattered { first, count: records };
            let mut plan = Harness::plan(full, connections, harness.first_run, scattered);
            plan.body = Body::Outcome400;
            let replay = Harness::measure(full, &plan)?;
            pairs.push(Pair { connections, empty: on_empty, full: on_full, replay });
            harness.step();
        }
    }
    Ok(pairs)
}

fn table(millions: &Millions) -> String {
    let mut text = format!("# {} live records, outcomes of 400 bytes\n\n", millions.records);
    report::head_of_server(&mut text, &millions.head);
    let per_record = |bytes: u64| bytes as f64 / millions.records as f64;
    let start = Spread::of(millions.starts_s.iter().copied());
    let _ = writeln!(
        text,
        "\n| | |\n|---|---|\n| loaded through HTTP at 256 connections | {:.0} /s, p99.9 {} |\n| memory after loading | {} |\n\
         | memory after a start | {} |\n| on disk after loading | {:.0} B per record |\n| on disk, settled | {:.0} B per record |\n\
         | start after SIGKILL until the first right answer | {:.2} s ({:.2}–{:.2}), {SAMPLED} sampled records replayed each time |\n",
        millions.preload.figures.per_second,
        micros(millions.preload.figures.p999_us as f64),
        mebibytes(millions.memory_after_preload_bytes),
        mebibytes(millions.memory_after_start_bytes),
        per_record(millions.disk_after_preload_bytes),
        per_record(millions.disk_settled_bytes),
        start.median,
        start.low,
        start.high,
    );
    text.push_str(
        "| connections | empty: first runs /s | full: first runs /s | full / empty | p99 full / empty | replays from all over \
         the full store /s | p99 |\n|---|---|---|---|---|---|---|\n",
    );
    for connections in CONNECTIONS {
        let of = |value: fn(&Pair) -> f64| {
            Spread::of(millions.pairs.iter().filter(|pair| pair.connections == connections).map(value))
        };
        let _ = writeln!(
            text,
            "| {connections} | {:.0} | {:.0} | {} | {} | {:.0} | {} |",
            of(|pair| pair.empty.figures.per_second).median,
            of(|pair| pair.full.figures.per_second).median,
            of(|pair| pair.full.figures.per_second / pair.empty.figures.per_second).text(),
            of(|pair| pair.full.figures.p99_us as f64 / pair.empty.figures.p99_us as f64).text(),
            of(|pair| pair.replay.figures.per_second).median,
            micros(of(|pair| pair.replay.figures.p99_us as f64).median),
        );
    }
    let slowest = CONNECTIONS
        .into_iter()
        .map(|connections| {
            let pairs = millions.pairs.iter().filter(|pair| pair.connections == connections);
            Spread::of(pairs.map(|pair| pair.full.figures.per_second / pair.empty.figures.per_second)).median
        })
        .fold(f64::INFINITY, f64::min);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report::bars(
        &mut text,
        &[
            Bar::least("throughput, full / empty", slowest, 0.7, 0.9),
            Bar::most("memory, MiB", mib(millions.memory_after_preload_bytes), 1024.0, 512.0),
            Bar::most("bytes on disk per record", per_record(millions.disk_settled_bytes), 700.0, 450.0),
            Bar::most("start after SIGKILL, s", start.median, 5.0, 1.0),
        ],
    );
    text
}

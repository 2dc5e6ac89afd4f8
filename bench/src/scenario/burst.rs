//! Ten times the load for a while: what is refused, what the served ones wait, how soon all is as before.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head, Run};
use crate::limits::CONNECTIONS;
use crate::peer::Setup;
use crate::process::memory_bytes;
use crate::report::{self, Bar, mebibytes, micros};

/// The sustained load is this part of what the server can do with 64 connections, so that ten times it is twice that.
const SUSTAINED_SHARE: f64 = 0.2;

/// Open connections during the burst.
const BURST_CONNECTIONS: usize = 1024;

/// Requests at work at once, what is above it is refused: so many keep the processors busy, and more would only wait.
const IN_PROGRESS: usize = 64;

/// How long the load is steady before and after the burst.
const STEADY: Duration = Duration::from_secs(15);

/// A second counts as recovered when its p99 is within this of that before the burst.
const RECOVERED: f64 = 1.5;

#[derive(Serialize)]
struct Burst {
    head: Head,
    capacity_per_second: f64,
    lasted_s: u64,
    before: Run,
    during: Run,
    after: Run,
    memory_highest_bytes: u64,
    recovered_after_s: Option<usize>,
}

/// Measures and writes `burst.md`.
///
/// # Errors
/// When the server is not there or fails.
pub(crate) fn run(harness: &mut Harness, duration: Duration) -> Result<()> {
    harness.peers = vec![harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    harness.expect_steps(4);
    let configuration = Some(format!("[server]\ndevelopment = true\nmax_in_progress = {IN_PROGRESS}\n"));
    let side = harness.server.start_with(&harness.places, "burst", false, &Setup { configuration })?;
    harness.say("burst: what it can do".to_owned());
    let keys = harness.fresh();
    let capacity = Harness::measure(&side, &Harness::plan(&side, CONNECTIONS[0], harness.first_run, keys))?;
    let rate = capacity.figures.per_second * SUSTAINED_SHARE;
    harness.step();
    let mut paced = |connections, duration, rate, what: &str| {
        harness.say(format!("burst: {what}"));
        let mut plan = Harness::plan(&side, connections, duration, harness.fresh());
        plan.rate = Some(rate);
        plan.by_second = true;
        let run = Harness::measure(&side, &plan);
        harness.step();
        run
    };
    let before = paced(CONNECTIONS[0], STEADY, rate, "steady before")?;
    let done = AtomicBool::new(false);
    let (burst, memory_highest_bytes) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut highest = 0;
            while !done.load(Ordering::Relaxed) {
                highest = memory_bytes(&side.roots()).max(highest);
                std::thread::sleep(Duration::from_millis(250));
            }
            highest
        });
        let burst = paced(BURST_CONNECTIONS, duration, rate * 10.0, "ten times as much");
        done.store(true, Ordering::Relaxed);
        (burst, watch.join().unwrap_or_default())
    });
    let after = paced(CONNECTIONS[0], STEADY, rate, "steady after")?;
    side.stop()?;
    let bound = before.figures.p99_us as f64 * RECOVERED;
    let recovered_after_s = after.figures.seconds.iter().position(|second| second.p99_us as f64 <= bound);
    let burst = Burst {
        head,
        capacity_per_second: capacity.figures.per_second,
        lasted_s: duration.as_secs(),
        before,
        during: burst?,
        after,
        memory_highest_bytes,
        recovered_after_s,
    };
    harness.write("burst", &burst, &table(&burst))
}

fn table(burst: &Burst) -> String {
    let mut text = format!("# A burst of ten times the load for {} s\n\n", burst.lasted_s);
    report::head_of_server(&mut text, &burst.head);
    let _ = writeln!(
        text,
        "\nThe steady load is {SUSTAINED_SHARE} of the {:.0} first runs /s that 64 connections reach; the burst offers ten times \
         it over {BURST_CONNECTIONS} connections. The server is told to refuse what comes while {IN_PROGRESS} requests are at work \
         (`server.max_in_progress`). Latency is from the sending of a request that a free connection took.\n\n\
         | | offered /s | served /s | refused with 429 or 503 | failed | p99 of what was served | memory after |\n|---|---|---|---|---|---|---|",
        burst.capacity_per_second
    );
    let rate = burst.capacity_per_second * SUSTAINED_SHARE;
    for (what, offered, run) in [
        ("before", rate, &burst.before),
        ("burst", rate * 10.0, &burst.during),
        ("after", rate, &burst.after),
    ] {
        let _ = writeln!(
            text,
            "| {what} | {offered:.0} | {:.0} | {} | {} | {} | {} |",
            run.figures.per_second,
            run.figures.shed,
            run.figures.failed,
            micros(run.figures.p99_us as f64),
            mebibytes(run.memory_bytes)
        );
    }
    let recovery = burst.recovered_after_s.map_or_else(
        || "not within the time after it".to_owned(),
        |second| format!("within {} s", second + 1),
    );
    let _ = writeln!(
        text,
        "\nMemory was {} at most during the burst. p99 of what was served is {:.1}× that before it. As before (p99 ≤ {RECOVERED}× \
         that before, by the second): {recovery}.",
        mebibytes(burst.memory_highest_bytes),
        burst.during.figures.p99_us as f64 / burst.before.figures.p99_us as f64,
    );
    let recovery = burst.recovered_after_s.map_or(f64::INFINITY, |second| second as f64 + 1.0);
    let refused_only = burst.during.figures.failed as f64;
    report::bars(
        &mut text,
        &[
            Bar::most(
                "p99 of what is served, burst / before",
                burst.during.figures.p99_us as f64 / burst.before.figures.p99_us as f64,
                3.0,
                3.0,
            ),
            Bar::most("answers other than 2xx, 429 and 503", refused_only, 0.0, 0.0),
            Bar::most("recovery, s", recovery, 5.0, 1.0),
        ],
    );
    text
}

//! The server under load for a minute: what the slowest of a thousand wait.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head, Run};
use crate::limits::CONNECTIONS;
use crate::report::{self, Bar, micros};

#[derive(Serialize)]
struct Sustained {
    head: Head,
    seconds: u64,
    runs: Vec<(usize, Run)>,
}

/// Measures and writes `sustained.md`.
///
/// # Errors
/// When the server is not there.
pub(crate) fn run(harness: &mut Harness, duration: Duration) -> Result<()> {
    harness.peers = vec![harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    let mut runs = Vec::new();
    harness.expect_steps(CONNECTIONS.len());
    for connections in CONNECTIONS {
        harness.say(format!("{connections} connections for {duration:?}"));
        let side = harness.server.start(&harness.places, "sustained", false)?;
        let keys = harness.fresh();
        let mut plan = Harness::plan(&side, connections, duration, keys);
        plan.by_second = true;
        runs.push((connections, Harness::measure(&side, &plan)?));
        side.stop()?;
        harness.step();
    }
    let sustained = Sustained { head, seconds: duration.as_secs(), runs };
    harness.write("sustained", &sustained, &table(&sustained))
}

fn table(sustained: &Sustained) -> String {
    let mut text = format!("# First runs for {} s\n\n", sustained.seconds);
    report::head_of_server(&mut text, &sustained.head);
    text.push_str(
        "\n| connections | first runs /s | slowest second /s | p50 | p99 | p99.9 | slowest | memory after | failed |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (connections, run) in &sustained.runs {
        let figures = &run.figures;
        // The last slot holds only what came in after the last whole second.
        let whole = figures.seconds.len().min(usize::try_from(sustained.seconds).unwrap_or(usize::MAX));
        let slowest = figures.seconds[..whole].iter().map(|second| second.ok).min().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {connections} | {:.0} | {slowest} | {} | {} | {} | {} | {} | {} |",
            figures.per_second,
            micros(figures.p50_us as f64),
            micros(figures.p99_us as f64),
            micros(figures.p999_us as f64),
            micros(figures.max_us as f64),
            report::mebibytes(run.memory_bytes),
            figures.failed + figures.shed
        );
    }
    let bars: Vec<Bar> = sustained
        .runs
        .iter()
        .map(|(connections, run)| {
            Bar::most(
                format!("p99.9 at {connections} connections, ms"),
                run.figures.p999_us as f64 / 1000.0,
                20.0,
                10.0,
            )
        })
        .collect();
    report::bars(&mut text, &bars);
    text
}

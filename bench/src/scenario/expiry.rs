//! Expiry at the rate of arrival, in steady state, against the same load without expiry.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head, Run};
use crate::limits::CONNECTIONS;
use crate::load::{self, Body, Keys};
use crate::peer::{EXECUTE, Setup};
use crate::process::disk_bytes;
use crate::report::{self, Bar, Spread, mebibytes, micros};

/// How long outcomes are kept on the side that forgets.
const RETENTION: Duration = Duration::from_secs(5);

/// Load before the measured one: long enough that as much expires as arrives, several times over.
const UNTIL_STEADY: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Expiry {
    head: Head,
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Round {
    kept: Run,
    expiring: Run,
    kept_disk_bytes: u64,
    expiring_disk_bytes: u64,
}

/// Measures and writes `expiry.md`.
///
/// # Errors
/// When the server is not there, or an expired key is still replayed.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    harness.peers = vec![harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    let mut rounds = Vec::new();
    harness.expect_steps(harness.rounds);
    for round in 0..harness.rounds {
        harness.say(format!("round {}: nothing expires", round + 1));
        let (kept, kept_disk_bytes) = one(harness, "24h", false)?;
        harness.say(format!("round {}: as much expires as arrives", round + 1));
        let (expiring, expiring_disk_bytes) = one(harness, &format!("{}s", RETENTION.as_secs()), true)?;
        rounds.push(Round { kept, expiring, kept_disk_bytes, expiring_disk_bytes });
        harness.step();
    }
    let expiry = Expiry { head, rounds };
    harness.write("expiry", &expiry, &table(&expiry))
}

fn one(harness: &mut Harness, retention: &str, forgets: bool) -> Result<(Run, u64)> {
    let operation = format!(
        "[server]\ndevelopment = true\n[[operations]]\nname = \"brief\"\ntarget = \"builtin:echo\"\nretention = \"{retention}\"\n"
    );
    let setup = Setup { configuration: Some(operation) };
    let side = harness.server.start_with(&harness.places, "expiry", false, &setup)?;
    let warm = harness.fresh();
    let mut plan = Harness::plan(&side, CONNECTIONS[0], UNTIL_STEADY, warm);
    plan.body = Body::Brief;
    let warmed = Harness::measure(&side, &plan)?;
    ensure!(warmed.figures.failed == 0, "{:?}", warmed.figures.first_failure);
    plan.keys = harness.fresh();
    plan.duration = UNTIL_STEADY;
    let run = Harness::measure(&side, &plan)?;
    if let (true, Keys::Fresh { first }) = (forgets, warm) {
        let reply = load::once(side.addr, EXECUTE, first, Body::Brief)?;
        ensure!(
            reply.status == 200 && !reply.has_header("idempotent-replayed", "true"),
            "a key that expired long ago is still replayed"
        );
    }
    let data = side.data.clone();
    side.stop()?;
    Ok((run, disk_bytes(&data)))
}

fn table(expiry: &Expiry) -> String {
    let mut text = String::from("# Expiry at the rate of arrival\n\n");
    report::head_of_server(&mut text, &expiry.head);
    let of = |value: fn(&Round) -> f64| Spread::of(expiry.rounds.iter().map(value));
    let _ = writeln!(
        text,
        "\nFirst runs at {} connections for {} s, after {} s of the same load; {} rounds in alternation, medians. One side keeps outcomes \
         for a day, the other for {} s, so that in the measured time as much expires as arrives.\n\n\
         | | kept for a day | expiring | expiring / kept |\n|---|---|---|---|\n\
         | first runs /s | {:.0} | {:.0} | {} |\n| p99 | {} | {} | {} |\n| p99.9 | {} | {} | {} |\n\
         | memory after | {} | {} | |\n| on disk after an orderly stop | {} | {} | |",
        CONNECTIONS[0],
        UNTIL_STEADY.as_secs(),
        UNTIL_STEADY.as_secs(),
        expiry.rounds.len(),
        RETENTION.as_secs(),
        of(|one| one.kept.figures.per_second).median,
        of(|one| one.expiring.figures.per_second).median,
        of(|one| one.expiring.figures.per_second / one.kept.figures.per_second).text(),
        micros(of(|one| one.kept.figures.p99_us as f64).median),
        micros(of(|one| one.expiring.figures.p99_us as f64).median),
        of(|one| one.expiring.figures.p99_us as f64 / one.kept.figures.p99_us as f64).text(),
        micros(of(|one| one.kept.figures.p999_us as f64).median),
        micros(of(|one| one.expiring.figures.p999_us as f64).median),
        of(|one| one.expiring.figures.p999_us as f64 / one.kept.figures.p999_us as f64).text(),
        mebibytes(expiry.rounds.last().map_or(0, |one| one.kept.memory_bytes)),
        mebibytes(expiry.rounds.last().map_or(0, |one| one.expiring.memory_bytes)),
        mebibytes(expiry.rounds.last().map_or(0, |one| one.kept_disk_bytes)),
        mebibytes(expiry.rounds.last().map_or(0, |one| one.expiring_disk_bytes)),
    );
    report::bars(
        &mut text,
        &[Bar::most(
            "p99, expiring / kept",
            of(|one| one.expiring.figures.p99_us as f64 / one.kept.figures.p99_us as f64).median,
            2.0,
            1.2,
        )],
    );
    text
}

//! What the server takes when nobody asks anything of it.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head};
use crate::process::{memory_bytes, processor_time};
use crate::report::{self, Bar, mebibytes};

/// After the start, until what it does once is done.
const CALM: Duration = Duration::from_secs(3);

/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(20);

#[derive(Serialize)]
struct Idle {
    head: Head,
    memory_bytes: u64,
    processor_share: f64,
}

/// Measures and writes `idle.md`.
///
/// # Errors
/// When the server is not there.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    harness.peers = vec![harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    harness.expect_steps(1);
    harness.say(format!("idle for {WATCHED:?}"));
    let side = harness.server.start(&harness.places, "idle", false)?;
    std::thread::sleep(CALM);
    let before = processor_time(&side.roots());
    std::thread::sleep(WATCHED);
    let spent = processor_time(&side.roots()).saturating_sub(before);
    let memory_bytes = memory_bytes(&side.roots());
    side.stop()?;
    let idle = Idle { head, memory_bytes, processor_share: spent.as_secs_f64() / WATCHED.as_secs_f64() };
    let mut text = String::from("# Idle\n\n");
    report::head_of_server(&mut text, &idle.head);
    let _ = writeln!(
        text,
        "\nOver {} s after a start on an empty folder: {} of memory, {:.2} % of one processor.",
        WATCHED.as_secs(),
        mebibytes(idle.memory_bytes),
        idle.processor_share * 100.0
    );
    report::bars(
        &mut text,
        &[
            Bar::most("memory, MiB", idle.memory_bytes as f64 / f64::from(1 << 20), 40.0, 40.0),
            Bar::most("one processor, %", idle.processor_share * 100.0, 0.5, 0.1),
        ],
    );
    harness.write("idle", &idle, &text)
}

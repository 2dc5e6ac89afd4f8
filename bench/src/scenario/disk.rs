//! Bytes on disk per settled record with an outcome of 400 bytes.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Absent, Harness, Head};
use crate::limits::CONNECTIONS;
use crate::load::{self, Body};
use crate::peer::Peer;
use crate::process::disk_bytes;
use crate::report;

/// How long a side writes: enough records that what it allocates ahead counts little.
const WRITING: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Row {
    peer: Peer,
    records: u64,
    bytes: u64,
    per_record: f64,
}

#[derive(Serialize)]
struct Disk {
    head: Head,
    absent: Vec<Absent>,
    rows: Vec<Row>,
}

/// Measures and writes `disk.md`.
///
/// # Errors
/// When results cannot be written.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    let mut absent = harness.prepare();
    harness.peers.retain(|peer| *peer != Peer::H);
    let head = harness.head()?;
    let mut rows = Vec::new();
    harness.expect_steps(harness.peers.len());
    for peer in harness.peers.clone() {
        harness.say(format!("bytes on disk: {peer:?}"));
        match one(harness, peer) {
            Ok(row) => rows.push(row),
            Err(error) => absent.push(Absent { peer, why: format!("{error:#}") }),
        }
        harness.step();
    }
    let disk = Disk { head, absent, rows };
    harness.write("disk", &disk, &table(&disk))
}

fn one(harness: &mut Harness, peer: Peer) -> Result<Row> {
    // An orderly stop gives back what was allocated ahead; so the empty store is measured after one, too.
    let empty = peer.start(&harness.places, "disk", false)?;
    let data = empty.data.clone();
    empty.stop()?;
    let before = disk_bytes(&data);
    let side = peer.start(&harness.places, "disk", true)?;
    let keys = harness.fresh();
    let mut plan = Harness::plan(&side, CONNECTIONS[1], WRITING, keys);
    plan.body = Body::Outcome400;
    let figures = load::run(&plan)?;
    side.stop()?;
    let bytes = disk_bytes(&data).saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "bytes and records stay far below 2^52")]
    let per_record = bytes as f64 / figures.sent.max(1) as f64;
    Ok(Row { peer, records: figures.sent, bytes, per_record })
}

fn table(disk: &Disk) -> String {
    let mut text = String::from("# Bytes on disk per settled record, outcome of 400 bytes\n\n");
    report::head(&mut text, &disk.head);
    text.push_str(
        "\nAllocated blocks after ten seconds of first runs at 256 connections and an orderly stop, less those of the \
         empty store. Logs that a later checkpoint or compaction would drop are counted, as they are there.\n\n\
         | side | records | on disk | per record |\n|---|---|---|---|\n",
    );
    for row in &disk.rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} B |",
            row.peer.describe().name,
            row.records,
            report::mebibytes(row.bytes),
            row.per_record
        );
    }
    text.push('\n');
    report::absent(&mut text, &disk.absent);
    text
}

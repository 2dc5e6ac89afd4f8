//! What is measured. Each scenario is one file, leaves its figures as JSON and its table as Markdown.

pub(crate) mod burst;
pub(crate) mod contest;
pub(crate) mod disk;
pub(crate) mod expiry;
pub(crate) mod gateway;
pub(crate) mod idle;
pub(crate) mod millions;
pub(crate) mod sustained;
pub(crate) mod webhooks;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::limits::REPLAY_WINDOW_MAX;
use crate::load::{self, Body, Figures, Keys, Plan};
use crate::machine::{self, Machine, SyncLatency};
use crate::peer::{Peer, Places, Running};
use crate::process;

/// The scenarios by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// All sides: first runs and replays at 64 and 256 connections, and one client alone.
    Contest,
    /// All sides: bytes on disk per record of a 400-byte outcome.
    Disk,
    /// The server: a sustained minute.
    Sustained,
    /// The server: ten times the load for a minute.
    Burst,
    /// The server: ten million live records.
    Millions,
    /// The server: as much expires as arrives.
    Expiry,
    /// The gateway with and without the contract, and nginx, before the same upstream.
    Gateway,
    /// The server: webhooks taken in, verified, deduplicated and synced, with and without deliveries beside it.
    Webhooks,
    /// The server: nothing to do.
    Idle,
}

/// What every scenario needs.
pub(crate) struct Harness {
    /// Where things are.
    pub(crate) places: Places,
    /// Where results are written.
    pub(crate) results: PathBuf,
    /// Which form of the server the scenarios of the server alone take.
    pub(crate) server: Peer,
    /// Sides that take part.
    pub(crate) peers: Vec<Peer>,
    /// How often everything is measured.
    pub(crate) rounds: usize,
    /// How long one measurement of first runs takes; replays take two thirds.
    pub(crate) first_run: Duration,
    /// The next key number that nobody has used.
    next_key: u64,
    progress: ProgressBar,
}

/// A side that took no part, and why.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Absent {
    pub(crate) peer: Peer,
    pub(crate) why: String,
}

/// What stands at the head of every result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    pub(crate) machine: Machine,
    /// The form of the server.
    pub(crate) server: Peer,
    pub(crate) syncs: Vec<SyncLatency>,
}

/// Figures of one run with what it cost the side that answered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    /// What the generator saw.
    pub(crate) figures: Figures,
    /// Processor time of the side per good reply, in microseconds.
    pub(crate) processor_us: f64,
    /// Memory of the side after it.
    pub(crate) memory_bytes: u64,
}

/// Threads of the generator: as many as processors, one for one connection.
const THREADS: usize = 2;

impl Harness {
    /// A harness that has prepared nothing yet.
    pub(crate) fn new(
        places: Places,
        results: PathBuf,
        server: Peer,
        peers: Vec<Peer>,
        rounds: usize,
        first_run: Duration,
    ) -> Result<Self> {
        fs::create_dir_all(&places.data)?;
        fs::create_dir_all(&results)?;
        machine::require_real_disk(&places.data)?;
        let progress = ProgressBar::new(0);
        progress.set_style(ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}")?);
        Ok(Self { places, results, server, peers, rounds, first_run, next_key: 0, progress })
    }

    /// The machine and its syncs, measured now.
    pub(crate) fn head(&self) -> Result<Head> {
        let machine = machine::describe(&self.places.data);
        Ok(Head { machine, server: self.server, syncs: machine::sync_latency(&self.places.data)? })
    }

    /// Prepares the sides; those that cannot be had are taken out and named.
    pub(crate) fn prepare(&mut self) -> Vec<Absent> {
        let mut absent = Vec::new();
        let mut present = Vec::new();
        for peer in std::mem::take(&mut self.peers) {
            self.say(format!("preparing {peer:?}"));
            match peer.prepare(&self.places) {
                Ok(()) => present.push(peer),
                Err(error) => absent.push(Absent { peer, why: format!("{error:#}") }),
            }
        }
        self.peers = present;
        absent
    }

    /// Says how many steps there will be.
    pub(crate) fn expect_steps(&self, steps: usize) {
        self.progress.reset();
        self.progress.set_length(steps as u64);
    }

    /// One step further.
    pub(crate) fn step(&self) {
        self.progress.inc(1);
    }

    /// Says what is going on; printed as a line where there is no terminal to draw a bar on.
    pub(crate) fn say(&self, what: String) {
        if self.progress.is_hidden() {
            eprintln!("{what}");
        }
        self.progress.set_message(what);
    }

    /// A closed-loop plan against a running side.
    pub(crate) fn plan(side: &Running, connections: usize, duration: Duration, keys: Keys) -> Plan {
        Plan {
            addr: side.addr,
            path: side.path.clone(),
            connections,
            threads: THREADS.min(connections),
            duration,
            requests_max: None,
            keys,
            body: Body::Small,
            rate: None,
            by_second: false,
        }
    }

    /// Key numbers that nobody has used, with room for any run.
    pub(crate) fn fresh(&mut self) -> Keys {
        let first = self.next_key;
        self.next_key += 1 << 32;
        Keys::Fresh { first }
    }

    /// Runs a plan and counts what it cost the side.
    pub(crate) fn measure(side: &Running, plan: &Plan) -> Result<Run> {
        let before = process::processor_time(&side.roots());
        let figures = load::run(plan)?;
        let spent = process::processor_time(&side.roots()).saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "counts of requests stay far below 2^52")]
        let processor_us = spent.as_secs_f64() * 1e6 / figures.ok.max(1) as f64;
        Ok(Run { figures, processor_us, memory_bytes: process::memory_bytes(&side.roots()) })
    }

    /// Writes a scenario's figures and table.
    pub(crate) fn write(&self, name: &str, figures: &impl Serialize, table: &str) -> Result<()> {
        fs::write(self.results.join(format!("{name}.json")), serde_json::to_string_pretty(figures)? + "\n")?;
        let path = self.results.join(format!("{name}.md"));
        fs::write(&path, table)?;
        self.progress.finish_and_clear();
        println!("{table}\nwritten to {}", path.display());
        Ok(())
    }
}

/// Replays of what a run of first runs has sent.
pub(crate) fn again(keys: Keys, sent: u64) -> Keys {
    match keys {
        Keys::Fresh { first } | Keys::Again { first, .. } | Keys::Scattered { first, .. } => {
            Keys::Again { first, count: sent.min(REPLAY_WINDOW_MAX) }
        }
    }
}

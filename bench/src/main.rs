//! `semel-bench`: starts the server and its peers, drives all with one load generator, writes down the ratios.
//!
//! `endpoint/` is what peers stand behind, `load/` the generator, `peer/` how each side is brought up and ended,
//! `scenario/` what is measured, `report` how it is written. Method and caveats are in `bench/README.md`.
#![allow(
    clippy::cast_precision_loss,
    reason = "figures for people: counts and microseconds stay far below 2^52, where floats are exact"
)]

mod endpoint;
mod limits;
mod load;
mod machine;
mod peer;
mod process;
mod report;
mod scenario;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use peer::{Peer, Places};
use scenario::{Harness, Scenario};

/// Drives the server and its peers with one load generator and writes the ratios to `bench/results/`.
#[derive(Debug, Parser)]
#[command(name = "semel-bench")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Short rounds, the few peers that are quickly had.
    #[arg(long)]
    quick: bool,
    /// Only these sides, by name; H is always measured, since the ratios are to it.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Only these scenarios; without it all of them.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// The form of the server that the scenarios of the server alone take: semel or semel-quiet.
    #[arg(long, default_value = "semel")]
    server: Peer,
    /// Rounds of the contest.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of first runs in each round.
    #[arg(long)]
    seconds: Option<u64>,
    /// Records of the scenario with many.
    #[arg(long)]
    records: Option<u64>,
    /// The server's binary; without it `cargo build --release --bin semel` makes it.
    #[arg(long)]
    semel: Option<PathBuf>,
    /// Where the results go.
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the endpoint that peers stand behind (the harness starts it in a process of its own).
    Endpoint(endpoint::Options),
    /// Only the generator, against whatever listens there: to look at a server with a profiler.
    Load(Load),
}

#[derive(Debug, clap::Args)]
struct Load {
    /// Where it listens.
    addr: std::net::SocketAddr,
    /// Open connections.
    #[arg(long, default_value_t = limits::CONNECTIONS[0])]
    connections: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The number of the first key; runs that begin at the same one replay each other.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Go round this many keys; 0 sends each once.
    #[arg(long, default_value_t = 0)]
    again: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Endpoint(options)) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(endpoint::serve(options)),
        Some(Command::Load(options)) => drive(&options),
        None => measure(cli),
    }
}

fn drive(options: &Load) -> Result<()> {
    let first = options.first;
    let plan = load::Plan {
        addr: options.addr,
        path: peer::EXECUTE.to_owned(),
        connections: options.connections,
        threads: 2.min(options.connections),
        duration: Duration::from_secs(options.seconds),
        requests_max: None,
        keys: match options.again {
            0 => load::Keys::Fresh { first },
            count => load::Keys::Again { first, count },
        },
        body: load::Body::Small,
        rate: None,
        by_second: false,
    };
    println!("{}", serde_json::to_string_pretty(&load::run(&plan)?)?);
    Ok(())
}

fn measure(cli: Cli) -> Result<()> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::env::current_exe()?;
    let profile = own.parent().context("the folder of this binary")?;
    let target = profile.parent().context("the target folder")?;
    let semel = match cli.semel {
        Some(path) => std::path::absolute(path)?,
        None => build_server(crate_folder, profile),
    };
    let places = Places {
        data: target.join("bench"),
        tools: target.join("tools"),
        sources: crate_folder.join("peers"),
        semel,
        own,
    };
    let mut peers = if cli.only.is_empty() { Peer::defaults(cli.quick) } else { cli.only };
    if !peers.contains(&Peer::H) {
        peers.insert(0, Peer::H);
    }
    let rounds = cli.rounds.unwrap_or(if cli.quick { 3 } else { limits::ROUNDS_MIN });
    let first_run = Duration::from_secs(cli.seconds.unwrap_or(if cli.quick { 1 } else { 3 }));
    let records =
        cli.records.unwrap_or(if cli.quick { limits::MANY_RECORDS / 100 } else { limits::MANY_RECORDS });
    let minute = Duration::from_secs(if cli.quick { 10 } else { 60 });
    let results = cli.results.unwrap_or_else(|| crate_folder.join("results"));
    let mut harness = Harness::new(places, results, cli.server, peers.clone(), rounds, first_run)?;
    let all = Scenario::value_variants().to_vec();
    for scenario in if cli.scenario.is_empty() { all } else { cli.scenario } {
        harness.peers.clone_from(&peers);
        match scenario {
            Scenario::Contest => scenario::contest::run(&mut harness)?,
            Scenario::Disk => scenario::disk::run(&mut harness)?,
            Scenario::Sustained => scenario::sustained::run(&mut harness, minute)?,
            Scenario::Burst => scenario::burst::run(&mut harness, minute)?,
            Scenario::Millions => scenario::millions::run(&mut harness, records)?,
            Scenario::Expiry => scenario::expiry::run(&mut harness)?,
            Scenario::Gateway => scenario::gateway::run(&mut harness)?,
            Scenario::Webhooks => scenario::webhooks::run(&mut harness)?,
            Scenario::Idle => scenario::idle::run(&mut harness)?,
        }
    }
    Ok(())
}

/// Builds the server beside this binary. Where that fails, the results say that there is no server to measure.
fn build_server(crate_folder: &Path, profile: &Path) -> PathBuf {
    let mut build = process::cargo();
    build.args(["build", "--release", "--package", "semel-server"]).current_dir(crate_folder);
    if let Err(error) = process::run(&mut build) {
        eprintln!("building the server: {error:#}");
    }
    profile.join("semel")
}

//! The sides of the comparison: what each is, how durable, and how it is brought up.
//!
//! A peer comes from the registries (Debian, crates.io, npm, `PyPI`) by the ordinary clients, lives below the target
//! folder, listens on a free loopback port and is stopped by its process id. One that cannot be had is an error with what
//! was tried; the report prints that instead of figures.

mod gateway;
mod node;
mod postgres;
mod python;
mod redis;
mod restate;
mod semel;

pub(crate) use gateway::Proxy;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::limits::START_PATIENCE;
use crate::load::{self, Body};
use crate::process::{self, Process};

/// Every side that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// The bare axum endpoint: the ceiling.
    H,
    /// The server of this project.
    Semel,
    /// The same with its request log at `warn` and without audit entries of traffic.
    SemelQuiet,
    /// Redis, every command synced.
    RedisAlways,
    /// Redis, synced once a second.
    RedisEverysec,
    /// PostgreSQL, one statement per command.
    Postgres,
    /// PostgreSQL, batched by UNNEST.
    PostgresBatched,
    /// fjall 3 with group commit.
    Fjall,
    /// redb 4 with group commit.
    Redb,
    /// Express with `express-idempotency` over Redis.
    Express,
    /// `FastAPI` with `asgi-idempotency-header` over Redis.
    Fastapi,
    /// Restate with a Node service.
    Restate,
    /// Diom.
    Diom,
    /// `RocksDB` with group commit.
    Rocksdb,
}

/// What the tables say about a side.
pub(crate) struct Description {
    /// The name in tables.
    pub(crate) name: &'static str,
    /// What survives a crash of the machine, as it is set here.
    pub(crate) durability: &'static str,
    /// Whether an acknowledged first run survives a power cut: only then is it compared at equal durability.
    pub(crate) durable: bool,
}

/// Where things are.
#[derive(Debug)]
pub(crate) struct Places {
    /// Data of the sides, on a real disk.
    pub(crate) data: PathBuf,
    /// What was fetched, kept between runs.
    pub(crate) tools: PathBuf,
    /// Sources of the peers that are programs of their own.
    pub(crate) sources: PathBuf,
    /// The server's binary.
    pub(crate) semel: PathBuf,
    /// This binary, which also holds the endpoint.
    pub(crate) own: PathBuf,
}

/// What a scenario sets for the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// A configuration file in place of none.
    pub(crate) configuration: Option<String>,
}

/// A side that runs and has answered.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which.
    pub(crate) peer: Peer,
    /// Where requests go.
    pub(crate) addr: SocketAddr,
    /// The path that takes them.
    pub(crate) path: String,
    /// Its data folder.
    pub(crate) data: PathBuf,
    /// Its processes, the one that answers first.
    processes: Vec<Process>,
}

impl Peer {
    /// How the tables name and judge this side.
    pub(crate) fn describe(self) -> Description {
        let (name, durability, durable) = match self {
            Self::H => ("H: bare axum endpoint", "none, nothing is stored", false),
            Self::Semel => ("Semel, embedded store", "claim and outcome each synced before it answers", true),
            Self::SemelQuiet => (
                "Semel, log at `warn`, no audit of traffic",
                "claim and outcome each synced before it answers",
                true,
            ),
            Self::RedisAlways => ("Redis 7, `SET NX` + `SET`, axum", "appendfsync always", true),
            Self::RedisEverysec => {
                ("Redis 7, `SET NX` + `SET`, axum", "appendfsync everysec: loses up to a second", false)
            }
            Self::Postgres => (
                "PostgreSQL 15, `INSERT … ON CONFLICT` + `UPDATE`, pool 48, axum",
                "synchronous_commit on",
                true,
            ),
            Self::PostgresBatched => {
                ("PostgreSQL 15, batched by `UNNEST`, axum", "synchronous_commit on", true)
            }
            Self::Fjall => ("fjall 3, group commit, axum", "journal fdatasync per group, both writes", true),
            Self::Redb => {
                ("redb 4, group commit, axum", "Durability::Immediate per group, both writes", true)
            }
            Self::Express => (
                "Express + express-idempotency + Redis",
                "appendfsync everysec, and the outcome is stored after the answer; GET then SET races",
                false,
            ),
            Self::Fastapi => ("FastAPI + asgi-idempotency-header + Redis", "appendfsync everysec", false),
            Self::Restate => ("Restate 1.7, Node SDK", "its defaults: log synced", true),
            Self::Diom => ("Diom 0.2", "not run", true),
            Self::Rocksdb => ("RocksDB, group commit, axum", "not run", true),
        };
        Description { name, durability, durable }
    }

    /// Whether this is the server, in one of its forms.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Self::Semel | Self::SemelQuiet)
    }

    /// Sides whose figures go into the table unless others are asked for.
    pub(crate) fn defaults(quick: bool) -> Vec<Self> {
        if quick {
            return vec![Self::H, Self::Semel, Self::SemelQuiet, Self::RedisAlways, Self::Fjall];
        }
        Self::value_variants().to_vec()
    }

    /// Fetches and installs what this side needs, once.
    ///
    /// # Errors
    /// With what was tried.
    pub(crate) fn prepare(self, places: &Places) -> Result<()> {
        match self {
            Self::H | Self::Fjall | Self::Redb => Ok(()),
            Self::Semel | Self::SemelQuiet => semel::prepare(places),
            Self::RedisAlways | Self::RedisEverysec => redis::prepare(places),
            Self::Postgres | Self::PostgresBatched => postgres::prepare(places),
            Self::Express => redis::prepare(places).and_then(|()| node::prepare(places, "express")),
            Self::Fastapi => redis::prepare(places).and_then(|()| python::prepare(places)),
            Self::Restate => node::prepare(places, "restate"),
            Self::Diom => bail!(
                "its server is in no package registry: crates.io holds only the client `diom`; building it takes its \
                 source from its repository"
            ),
            Self::Rocksdb => bail!("left out: its bindings take about 13 minutes to compile on two cores"),
        }
    }

    /// Starts the side on its data folder and waits for its first right answer.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub(crate) fn start(self, places: &Places, name: &str, keep_data: bool) -> Result<Running> {
        self.start_with(places, name, keep_data, &Setup::default())
    }

    /// The same with something set that the server does not do by itself.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn start_with(
        self,
        places: &Places,
        name: &str,
        keep_data: bool,
        setup: &Setup,
    ) -> Result<Running> {
        let data = places.data.join(name);
        if !keep_data && data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("emptying {}", data.display()))?;
        }
        fs::create_dir_all(&data)?;
        let mut running = match self {
            Self::H => endpoint(self, places, data, "bare", "")?,
            Self::Semel | Self::SemelQuiet => semel::start(self, places, data, setup)?,
            Self::RedisAlways => redis::start(self, places, data, "always")?,
            Self::RedisEverysec => redis::start(self, places, data, "everysec")?,
            Self::Postgres => postgres::start(self, places, data, "postgres")?,
            Self::PostgresBatched => postgres::start(self, places, data, "postgres-batched")?,
            Self::Fjall => endpoint(self, places, data, "fjall", "")?,
            Self::Redb => endpoint(self, places, data, "redb", "")?,
            Self::Express => node::start_express(places, data)?,
            Self::Fastapi => python::start(places, data)?,
            Self::Restate => restate::start(places, data)?,
            Self::Diom | Self::Rocksdb => bail!("this side cannot be started"),
        };
        running.wait_until_right(!keep_data).with_context(|| format!("{self:?}"))?;
        Ok(running)
    }
}

impl Running {
    /// Waits for an answer, then checks that a second request with the key is a replay of the first and not a second run.
    fn wait_until_right(&mut self, check_replay: bool) -> Result<()> {
        let (addr, path) = (self.addr, self.path.clone());
        let mut number = u64::MAX / 2;
        let processes = &mut self.processes;
        process::wait_for(
            START_PATIENCE,
            || processes.iter_mut().try_for_each(Process::check_alive),
            || {
                // A fresh key each time: a try that was cut off may have left its key held.
                number += 1;
                let reply = load::once(addr, &path, number, Body::Small)?;
                ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
                ensure!(
                    reply.text().contains("completed"),
                    "not the answer that was expected: {}",
                    reply.text()
                );
                Ok(())
            },
        )?;
        if check_replay && self.peer != Peer::H {
            let again = load::once(addr, &path, number, Body::Small)?;
            ensure!(again.status == 200, "the replay: {} {}", again.status, again.text());
            if !matches!(self.peer, Peer::Express | Peer::Restate) {
                ensure!(
                    again.has_header("idempotent-replayed", "true"),
                    "the replay does not say that it is one"
                );
            }
        }
        Ok(())
    }

    /// Ids of the processes that the harness started for this side.
    pub(crate) fn roots(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Stops all its processes, front first.
    pub(crate) fn stop(self) -> Result<()> {
        self.processes.into_iter().try_for_each(Process::stop)
    }
}

impl Running {
    /// SIGKILL to all its processes.
    pub(crate) fn kill(self) -> Result<()> {
        self.processes.into_iter().try_for_each(Process::kill)
    }
}

/// Starts this binary's endpoint with an engine behind it.
fn endpoint(peer: Peer, places: &Places, data: PathBuf, engine: &str, url: &str) -> Result<Running> {
    let addr = free_address()?;
    let mut command = child(&places.own);
    command.args(["endpoint", "--engine", engine, "--listen", &addr.to_string(), "--url", url]);
    command.arg("--data").arg(data.join("engine"));
    let process = Process::start(command, &data.join("endpoint.log"))?;
    Ok(Running { peer, addr, path: EXECUTE.to_owned(), data, processes: vec![process] })
}

/// The path of the Execute API, which the endpoint shares.
pub(crate) const EXECUTE: &str = "/v1/idempotency/execute";

/// A command that ends when the harness does, where `setpriv` can see to that.
fn child(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A loopback address that is free now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Fetches Debian packages and unpacks them below the tools folder, without installing anything.
fn debian(places: &Places, packages: &[&str]) -> Result<PathBuf> {
    let root = places.tools.join("debian");
    fs::create_dir_all(&root)?;
    process::run(Command::new("apt-get").arg("download").args(packages).current_dir(&root))
        .with_context(|| format!("apt-get download {}", packages.join(" ")))?;
    for entry in fs::read_dir(&root)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::run(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(root)
}

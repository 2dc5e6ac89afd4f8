//! PostgreSQL 15: the installed one, or Debian's unpacked below the tools folder. It refuses to run as root, so that the
//! harness, when it is root, runs it as another user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Peer, Places, Running, debian, endpoint, free_address};
use crate::limits::START_PATIENCE;
use crate::process::{Process, run, wait_for};

const INSTALLED: &str = "/usr/lib/postgresql/15/bin";

/// What differs from the defaults: memory as the bar for the server allows it, and a log that is not checkpointed in the
/// middle of a round. Durability stays as it is by default.
const SETTINGS: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "max_connections=100",
    "unix_socket_directories=",
];

fn programs(places: &Places) -> PathBuf {
    let installed = PathBuf::from(INSTALLED);
    if installed.join("postgres").exists() {
        return installed;
    }
    places.tools.join("debian/usr/lib/postgresql/15/bin")
}

/// Fetches it where it is not installed, and makes an empty cluster to copy for each round.
pub(super) fn prepare(places: &Places) -> Result<()> {
    if !programs(places).join("postgres").exists() {
        debian(places, &["postgresql-15", "postgresql-client-15", "libpq5", "libllvm14"])?;
    }
    let template = template(places);
    if !template.join("PG_VERSION").exists() {
        fs::create_dir_all(&template)?;
        give(&template)?;
        let mut command = as_other(&programs(places).join("initdb"));
        command
            .args(["--username=bench", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&template);
        run(&mut command)?;
    }
    Ok(())
}

fn template(places: &Places) -> PathBuf {
    places.tools.join("postgres-cluster")
}

/// Starts it on a copy of the empty cluster, with the axum endpoint in front.
pub(super) fn start(peer: Peer, places: &Places, data: PathBuf, engine: &str) -> Result<Running> {
    let cluster = data.join("cluster");
    if !cluster.exists() {
        run(Command::new("cp").arg("-a").arg(template(places)).arg(&cluster))?;
    }
    let addr = free_address()?;
    let mut command = as_other(&programs(places).join("postgres"));
    command.arg("-D").arg(&cluster).args(["-h", "127.0.0.1", "-p", &addr.port().to_string()]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    let log = data.join("postgres.log");
    let mut process = Process::start(command, &log)?;
    // Its port is open before it takes connections; the log says when it does.
    wait_for(
        START_PATIENCE,
        || process.check_alive(),
        || {
            ensure!(fs::read_to_string(&log)?.contains("ready to accept connections"), "not ready");
            Ok(())
        },
    )?;
    let mut running = endpoint(peer, places, data, engine, &format!("postgres://bench@{addr}/postgres"))?;
    running.processes.push(process);
    Ok(running)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The other user: `postgres` where Debian made it, else nobody.
fn other() -> &'static str {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if known.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

fn as_other(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", other(), "--regid", other(), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

fn give(folder: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").arg(other()).arg(folder)).context("giving the cluster to its user")?;
    }
    Ok(())
}

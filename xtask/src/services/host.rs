//! What services need of this machine: packages, ports, and who we are here.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::Program;

/// How long a service may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Installs a package of the distribution.
///
/// # Errors
/// When there is none, or we may not.
pub(super) fn apt(package: &str) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let sudo: &[&str] = if is_root()? { &[] } else { &["sudo", "--non-interactive"] };
        let words: Vec<_> = sudo.iter().chain(&["apt-get", "--yes", "--quiet"]).chain(arguments).collect();
        Program::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").run()
    };
    apt(&["update"])?;
    // Its maintainer script would start a system service; `policy-rc.d` is how a script is told not to, but that is
    // a file of the system. Without an init system nothing starts; with one, it is left as the package leaves it.
    apt(&["install", "--no-install-recommends", package])
}

/// Installs a program that is written in Go into this folder, under the name of its package.
///
/// # Errors
/// When Go is missing, or does not get or build it.
pub(super) fn go_install(module: &str, folder: &Path) -> Result<()> {
    Program::new("go").args(["install", module]).env("GOBIN", folder).run()
}

/// Starts a program that stays in the foreground by itself, so that it goes on when this one ends. Its output goes into
/// `server.log` of the folder, its process id into `pid`.
///
/// # Errors
/// When it cannot be started, or not be noted.
pub(super) fn start_in_background(program: &Path, arguments: &[&str], folder: &Path) -> Result<()> {
    let log = File::create(folder.join("server.log")).context("cannot write its log")?;
    let errors = log.try_clone().context("cannot write its log")?;
    eprintln!("$ {} {} &", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    // A group of its own, so that a Ctrl-C in this terminal is not meant for it.
    command.args(arguments).current_dir(folder).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    let id = child.with_context(|| format!("cannot start {}", program.display()))?.id();
    fs::write(folder.join("pid"), id.to_string()).context("cannot note its process id")
}

/// The folder on the path that has a program of this name.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).find(|folder| folder.join(program).exists())
}

/// Whether this is the system's administrator, whom some programs refuse to run as.
///
/// # Errors
/// When that cannot be told.
pub(super) fn is_root() -> Result<bool> {
    Ok(Program::new("id").args(["-u"]).read()?.trim() == "0")
}

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

/// Whether somebody listens there.
pub(super) fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Waits until somebody listens there.
///
/// # Errors
/// When nobody does in time.
pub(super) fn wait_for(port: u16, name: &str) -> Result<()> {
    let start = Instant::now();
    while !answers(port) {
        if start.elapsed() > START_TIMEOUT {
            bail!("{name} does not answer on port {port} after {} s", START_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

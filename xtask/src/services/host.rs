//! What services need of this machine: packages, ports, and who we are here.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
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

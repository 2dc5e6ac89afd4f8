//! Licences, duplicates, sources and advisories, by cargo-deny and `deny.toml`.
//!
//! The tool is built into `target/tools` once. Advisories need the database of `RustSec`, a git repository on
//! GitHub: where that cannot be reached, the check says so and goes on.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cargo::{Program, cargo};
use crate::workspace;

/// Where the advisories are kept.
const DATABASE: &str = "github.com:443";

/// How long to wait for [`DATABASE`] before it counts as out of reach.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

/// Checks `deny.toml` against the dependencies.
///
/// # Errors
/// When a rule is broken, or the tool cannot be had under CI.
pub(crate) fn check() -> Result<()> {
    let tool = match tool() {
        Ok(tool) => tool,
        Err(error) if !workspace::in_ci() => {
            eprintln!("skipped: licences, duplicates and advisories: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let deny = |checks: &[&str]| {
        Program::new(&tool)
            .args(["--workspace", "--all-features", "check", "--hide-inclusion-graph"])
            .args(checks)
            .run()
    };
    deny(&["bans", "licenses", "sources"])?;
    if !reachable() {
        eprintln!("skipped: advisories: {DATABASE}, where the RustSec database is, cannot be reached");
        return Ok(());
    }
    deny(&["advisories"])
}

fn tool() -> Result<PathBuf> {
    let folder = workspace::root().join("target/tools");
    let tool = folder.join("bin/cargo-deny");
    if !tool.exists() {
        eprintln!("building cargo-deny into target/tools; this is done once and takes some minutes");
        // Whether it is fast does not matter; whether it is soon there does.
        cargo(["install", "cargo-deny", "--locked", "--version", "0.20.2", "--root"])
            .args([&folder])
            .env("CARGO_TARGET_DIR", folder.join("build"))
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .run()?;
    }
    Ok(tool)
}

fn reachable() -> bool {
    let Ok(mut addresses) = DATABASE.to_socket_addrs() else { return false };
    addresses.any(|address| TcpStream::connect_timeout(&address, REACH_TIMEOUT).is_ok())
}

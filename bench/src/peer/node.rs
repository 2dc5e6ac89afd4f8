//! Peers from npm: installed below the tools folder from the pinned versions beside this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{EXECUTE, Peer, Places, Running, child, free_address, redis};
use crate::process::{Process, run};

/// The folder that holds a peer's program and its packages.
pub(super) fn folder(places: &Places, name: &str) -> PathBuf {
    places.tools.join(name)
}

/// Copies the program and installs its packages where they are not there yet or have changed.
pub(super) fn prepare(places: &Places, name: &str) -> Result<()> {
    let folder = folder(places, name);
    fs::create_dir_all(&folder)?;
    let wanted = places.sources.join(name).join("package.json");
    let same = fs::read(folder.join("package.json")).ok() == fs::read(&wanted).ok();
    for entry in fs::read_dir(places.sources.join(name))?.flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    if !same || !folder.join("node_modules").exists() {
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(&folder))
            .with_context(|| format!("npm install for {name}"))?;
    }
    Ok(())
}

/// Express over Redis.
pub(super) fn start_express(places: &Places, data: PathBuf) -> Result<Running> {
    let (store, at) = redis::server(places, &data, "everysec")?;
    let addr = free_address()?;
    let mut command = child(Path::new("node"));
    command.arg("server.js").arg(addr.port().to_string()).arg(format!("redis://{at}"));
    command.current_dir(folder(places, "express")).env("NODE_ENV", "production");
    let process = Process::start(command, &data.join("express.log"))?;
    Ok(Running { peer: Peer::Express, addr, path: EXECUTE.to_owned(), data, processes: vec![process, store] })
}

//! The server itself: development mode on loopback, rate limits off, the embedded store.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{EXECUTE, Peer, Places, Running, Setup, child, free_address};
use crate::process::Process;

/// The binary must have been built; the harness does that unless it was given one.
pub(super) fn prepare(places: &Places) -> Result<()> {
    ensure!(
        places.semel.exists(),
        "no server at {}: cargo build --release --bin semel",
        places.semel.display()
    );
    Ok(())
}

/// Starts it on `data/store`. Its log goes to a file, as every side's does.
pub(super) fn start(peer: Peer, places: &Places, data: PathBuf, setup: &Setup) -> Result<Running> {
    let (doors, admin) = (free_address()?, free_address()?);
    let mut command = child(&places.semel);
    command
        .arg("serve")
        .current_dir(&data)
        .env("SEMEL__SERVER__LISTEN", doors.to_string())
        .env("SEMEL__ADMIN__LISTEN", admin.to_string())
        .env("SEMEL__STORE__URL", format!("embedded:{}", data.join("store").display()));
    if peer == Peer::SemelQuiet {
        command.env("SEMEL__LOG__FILTER", "warn").env("SEMEL__AUDIT__TRAFFIC", "false");
    }
    if let Some(configuration) = &setup.configuration {
        let file = data.join("bench.toml");
        fs::write(&file, configuration)?;
        command.arg("--config").arg(file);
    }
    let process = Process::start(command, &data.join("semel.log"))?;
    Ok(Running { peer, addr: doors, path: EXECUTE.to_owned(), data, processes: vec![process] })
}

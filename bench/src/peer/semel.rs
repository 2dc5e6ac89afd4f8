//! The server itself, as a newcomer gets it: development mode, no configuration file, the embedded store.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{EXECUTE, Peer, Places, Running, child, free_address};
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

/// Starts it on `data/store`.
pub(super) fn start(places: &Places, data: PathBuf) -> Result<Running> {
    let (doors, admin) = (free_address()?, free_address()?);
    let mut command = child(&places.semel);
    command
        .arg("serve")
        .current_dir(&data)
        .env("SEMEL__SERVER__LISTEN", doors.to_string())
        .env("SEMEL__ADMIN__LISTEN", admin.to_string())
        .env("SEMEL__STORE__URL", format!("embedded:{}", data.join("store").display()));
    let process = Process::start(command, &data.join("semel.log"))?;
    Ok(Running { peer: Peer::Semel, addr: doors, path: EXECUTE.to_owned(), data, processes: vec![process] })
}

//! `FastAPI` from `PyPI`, in a virtual environment below the tools folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{EXECUTE, Peer, Places, Running, child, free_address, redis};
use crate::process::{Process, run};

/// Makes the environment and installs the pinned versions where they are not there yet or have changed.
pub(super) fn prepare(places: &Places) -> Result<()> {
    let folder = places.tools.join("fastapi");
    fs::create_dir_all(&folder)?;
    let wanted = places.sources.join("fastapi/requirements.txt");
    let same = fs::read(folder.join("requirements.txt")).ok() == fs::read(&wanted).ok();
    if !same || !folder.join("venv/bin/uvicorn").exists() {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(&folder))?;
        run(Command::new("venv/bin/pip")
            .args(["install", "--quiet", "-r"])
            .arg(&wanted)
            .current_dir(&folder))
        .context("pip install for fastapi")?;
    }
    for file in ["app.py", "requirements.txt"] {
        fs::copy(places.sources.join("fastapi").join(file), folder.join(file))?;
    }
    Ok(())
}

/// `FastAPI` over Redis.
pub(super) fn start(places: &Places, data: PathBuf) -> Result<Running> {
    let (store, at) = redis::server(places, &data, "everysec")?;
    let addr = free_address()?;
    let folder = places.tools.join("fastapi");
    let mut command = child(&folder.join("venv/bin/uvicorn"));
    command.args(["app:app", "--host", "127.0.0.1", "--port", &addr.port().to_string(), "--no-access-log"]);
    command.current_dir(&folder).env("REDIS_URL", format!("redis://{at}"));
    let process = Process::start(command, &data.join("fastapi.log"))?;
    Ok(Running { peer: Peer::Fastapi, addr, path: EXECUTE.to_owned(), data, processes: vec![process, store] })
}

//! Redis 7 from Debian, unpacked below the tools folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Peer, Places, Running, child, debian, endpoint, free_address};
use crate::limits::START_PATIENCE;
use crate::load;
use crate::process::{Process, wait_for};

fn libraries(places: &Places) -> PathBuf {
    places.tools.join("debian/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
}

fn program(places: &Places) -> PathBuf {
    places.tools.join("debian/usr/bin/redis-server")
}

/// Fetches the server and its libraries.
pub(super) fn prepare(places: &Places) -> Result<()> {
    if !program(places).exists() {
        // redis-server is a link to redis-check-rdb's twin in redis-tools.
        debian(places, &["redis-server", "redis-tools", "libjemalloc2", "liblzf1"])?;
    }
    Ok(())
}

/// Starts a Redis server alone.
pub(super) fn server(places: &Places, data: &Path, sync: &str) -> Result<(Process, SocketAddr)> {
    let addr = free_address()?;
    let folder = data.join("redis");
    fs::create_dir_all(&folder)?;
    let mut command = child(&program(places));
    command.env("LD_LIBRARY_PATH", libraries(places));
    command.args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", sync, "--maxmemory-policy", "noeviction"]);
    command.arg("--dir").arg(&folder);
    let mut process = Process::start(command, &data.join("redis.log"))?;
    wait_for(START_PATIENCE, || process.check_alive(), || load::connect(addr))?;
    Ok((process, addr))
}

/// Redis with the axum endpoint in front.
pub(super) fn start(peer: Peer, places: &Places, data: PathBuf, sync: &str) -> Result<Running> {
    let (process, addr) = server(places, &data, sync)?;
    let mut running = endpoint(peer, places, data, "redis", &format!("redis://{addr}"))?;
    running.processes.push(process);
    Ok(running)
}

//! Restate's server from npm, with a Node service that holds the no-op.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{Peer, Places, Running, child, free_address, node};
use crate::limits::START_PATIENCE;
use crate::load;
use crate::process::{Process, wait_for};

/// Starts both and makes the service known to the server.
pub(super) fn start(places: &Places, data: PathBuf) -> Result<Running> {
    let folder = node::folder(places, "restate");
    let (ingress, admin, own, service) = (free_address()?, free_address()?, free_address()?, free_address()?);
    let mut command = child(Path::new("node"));
    command
        .arg("service.js")
        .arg(service.port().to_string())
        .current_dir(&folder)
        .env("NODE_ENV", "production");
    let worker = Process::start(command, &data.join("service.log"))?;
    // The program itself, not the wrapper in Node that starts it, so that it is this child that is watched and stopped.
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
    let package = format!("node_modules/@restatedev/restate-server-linux-{architecture}/bin/restate-server");
    let mut command = child(&folder.join(package));
    command
        .arg("--no-logo")
        .env("DO_NOT_TRACK", "1")
        .env("RUST_LOG", "warn")
        .env("RESTATE_LISTEN_MODE", "tcp")
        .env("RESTATE_BIND_IP", "127.0.0.1")
        .env("RESTATE_BASE_DIR", data.join("restate"))
        .env("RESTATE_BIND_ADDRESS", own.to_string())
        .env("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string())
        .env("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string());
    let mut server = Process::start(command, &data.join("restate.log"))?;
    let body = format!(r#"{{"uri":"http://{service}"}}"#);
    let request = format!(
        "POST /deployments HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wait_for(
        START_PATIENCE,
        || server.check_alive(),
        || {
            let reply = load::exchange(admin, request.as_bytes())?;
            ensure!((200..300).contains(&reply.status), "{} {}", reply.status, reply.text());
            Ok(())
        },
    )?;
    let path = "/bench/execute".to_owned();
    Ok(Running { peer: Peer::Restate, addr: ingress, path, data, processes: vec![server, worker] })
}

//! Reverse proxies before the same upstream, the bare axum endpoint: the gateway with the contract, without it, and
//! nginx from Debian.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{EXECUTE, Peer, Places, Running, child, debian, endpoint, free_address};
use crate::limits::START_PATIENCE;
use crate::load::{self, Body};
use crate::process::{self, Process};

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proxy {
    /// The gateway with the contract, over the embedded store.
    On,
    /// The gateway as a plain proxy.
    Off,
    /// nginx.
    Nginx,
}

impl Proxy {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::On, Self::Off, Self::Nginx];

    /// The name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::On => "Semel gateway, contract on, embedded store",
            Self::Off => "Semel gateway, contract off",
            Self::Nginx => "nginx, proxying",
        }
    }

    /// Fetches what this proxy needs, once.
    ///
    /// # Errors
    /// With what was tried.
    pub(crate) fn prepare(self, places: &Places) -> Result<()> {
        match self {
            Self::On | Self::Off => Peer::Semel.prepare(places),
            Self::Nginx if nginx(places).exists() => Ok(()),
            Self::Nginx => debian(places, &["nginx"]).map(drop),
        }
    }

    /// Starts it before a fresh upstream, and waits for its first right answer.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub(crate) fn start(self, places: &Places, name: &str) -> Result<Running> {
        let data = places.data.join(name);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("emptying {}", data.display()))?;
        }
        fs::create_dir_all(&data)?;
        let mut upstream = endpoint(Peer::H, places, data.clone(), "bare", "")?;
        upstream.wait_until_right(false)?;
        let addr = free_address()?;
        let process = match self {
            Self::On | Self::Off => semel(places, &data, addr, upstream.addr, self == Self::On)?,
            Self::Nginx => start_nginx(places, &data, addr, upstream.addr)?,
        };
        let mut processes = vec![process];
        processes.append(&mut upstream.processes);
        let mut running = Running { peer: Peer::H, addr, path: EXECUTE.to_owned(), data, processes };
        running.wait_until_right(false).with_context(|| format!("{self:?}"))?;
        if self == Self::On {
            let once = load::once(addr, EXECUTE, u64::MAX / 4, Body::Small)?;
            let again = load::once(addr, EXECUTE, u64::MAX / 4, Body::Small)?;
            ensure!(once.status == 200 && again.status == 200, "{} {}", once.status, again.status);
            ensure!(again.has_header("idempotent-replayed", "true"), "a replay does not say that it is one");
        }
        Ok(running)
    }
}

/// The gateway, with its log at `warn` and no audit of traffic: nginx writes no log either.
fn semel(
    places: &Places,
    data: &Path,
    addr: SocketAddr,
    upstream: SocketAddr,
    protect: bool,
) -> Result<Process> {
    let file = data.join("semel.toml");
    let store = data.join("store");
    fs::write(
        &file,
        format!(
            "[server]\nlisten = \"{}\"\n[admin]\nlisten = \"{}\"\n[store]\nurl = \"embedded:{}\"\n[audit]\ntraffic = false\n\
             [log]\nfilter = \"warn\"\n[gateway]\nlisten = \"{addr}\"\nupstream = \"http://{upstream}\"\nprotect = {protect}\n",
            free_address()?,
            free_address()?,
            store.display(),
        ),
    )?;
    let mut command = child(&places.semel);
    command.arg("serve").arg("--config").arg(&file).current_dir(data);
    Process::start(command, &data.join("semel.log"))
}

fn nginx(places: &Places) -> PathBuf {
    places.tools.join("debian/usr/sbin/nginx")
}

/// nginx as it is set up for this: a worker per processor, connections kept to the upstream, no log of accesses, and the
/// headers that tell an upstream who asked.
fn start_nginx(places: &Places, data: &Path, addr: SocketAddr, upstream: SocketAddr) -> Result<Process> {
    let folder = data.display();
    let file = data.join("nginx.conf");
    fs::write(
        &file,
        format!(
            "daemon off;\nworker_processes auto;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-errors.log warn;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n access_log off;\n keepalive_requests 1000000000;\n\
             client_body_temp_path {folder}/body;\n proxy_temp_path {folder}/proxy;\n fastcgi_temp_path {folder}/f;\n\
             uwsgi_temp_path {folder}/u;\n scgi_temp_path {folder}/s;\n\
             upstream service {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
             server {{\n  listen {addr};\n  location / {{\n   proxy_pass http://service;\n   proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\n   proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n   proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-Host $http_host;\n  }}\n }}\n}}\n"
        ),
    )?;
    let mut command = child(&nginx(places));
    command.arg("-p").arg(data).arg("-c").arg(&file);
    let mut process = Process::start(command, &data.join("nginx.log"))?;
    process::wait_for(START_PATIENCE, || process.check_alive(), || load::connect(addr))?;
    Ok(process)
}

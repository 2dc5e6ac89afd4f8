//! Redis, alone, that forgets nothing it has answered.

use std::path::PathBuf;

use anyhow::Result;

use super::host::{apt, on_path};
use super::{Place, Service};
use crate::cargo::Program;

/// One server, with every write synced before its answer. Tests that stop and fail over a server start their own.
pub(super) struct Redis;

impl Service for Redis {
    fn name(&self) -> &'static str {
        "Redis"
    }

    fn folder_name(&self) -> &'static str {
        "redis-server"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_REDIS"
    }

    fn url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/")
    }

    fn installed(&self) -> Option<PathBuf> {
        on_path("redis-server")
    }

    fn install(&self) -> Result<()> {
        apt("redis-server")
    }

    fn start(&self, at: &Place) -> Result<()> {
        Program::new(at.programs.join("redis-server"))
            .args([
                "--bind",
                "127.0.0.1",
                "--daemonize",
                "yes",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(["--maxmemory-policy", "noeviction", "--port", &at.port.to_string(), "--dir"])
            .args([&at.folder])
            .args(["--pidfile"])
            .args([at.folder.join("pid")])
            .args(["--logfile"])
            .args([at.folder.join("server.log")])
            .run()
    }
}

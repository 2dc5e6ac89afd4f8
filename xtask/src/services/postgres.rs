//! PostgreSQL, of the distribution's newest version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::host::{apt, is_root};
use super::{Place, Service};
use crate::cargo::Program;

/// One server with one database, where everybody on this machine is `semel`.
pub(super) struct Postgres;

impl Service for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn folder_name(&self) -> &'static str {
        "postgresql"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_POSTGRES"
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://semel@127.0.0.1:{port}/postgres")
    }

    fn installed(&self) -> Option<PathBuf> {
        let versions =
            fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
        versions.filter(|folder| folder.join("initdb").exists()).max()
    }

    fn install(&self) -> Result<()> {
        apt("postgresql")
    }

    fn start(&self, at: &Place) -> Result<()> {
        let data = data_folder(&at.folder)?;
        if !data.join("PG_VERSION").exists() {
            as_ordinary_user(&at.programs.join("initdb"))?
                .args(["--username=semel", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
                .args([&data])
                .run()?;
        }
        // Many tests run at once, some with several servers, each with its pool. The socket is beside the data, so that two
        // checkouts do not meet in one folder of the system.
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c max_connections=400 -c unix_socket_directories={}",
            at.port,
            data.display()
        );
        as_ordinary_user(&at.programs.join("pg_ctl"))?
            .args(["start", "--wait", "--silent", "--options", &options, "--log"])
            .args([data.join("server.log")])
            .args(["--pgdata"])
            .args([&data])
            .run()
    }

    fn stop(&self, at: &Place) -> Result<()> {
        let stop = [data_folder(&at.folder)?.as_os_str(), "stop".as_ref(), "--mode=fast".as_ref()]
            .map(std::ffi::OsStr::to_owned);
        as_ordinary_user(&at.programs.join("pg_ctl"))?.args(["--pgdata"]).args(stop).run()
    }
}

/// PostgreSQL refuses to run as root, so root runs it as the user that its package brings along.
fn as_ordinary_user(program: &Path) -> Result<Program> {
    if !is_root()? {
        return Ok(Program::new(program));
    }
    Ok(Program::new("runuser").args(["--user", "postgres", "--"]).args([program]))
}

/// Where the data are: in the service's folder, or, when root's checkout is closed to the ordinary user, in a folder of
/// its own that is linked from there.
fn data_folder(folder: &Path) -> Result<PathBuf> {
    let data = folder.join("data");
    if !is_root()? {
        return Ok(data);
    }
    if let Ok(linked) = fs::read_link(&data) {
        return Ok(linked);
    }
    if !data.exists() {
        fs::create_dir(&data).context("cannot create the data folder")?;
    }
    Program::new("chown").args(["postgres:"]).args([&data]).read()?;
    if Program::new("runuser").args(["--user", "postgres", "--", "test", "-w"]).args([&data]).read().is_ok() {
        return Ok(data);
    }
    let elsewhere =
        Program::new("mktemp").args(["--directory", "--tmpdir", "semel-postgres-XXXXXX"]).read()?;
    let elsewhere = PathBuf::from(elsewhere.trim());
    Program::new("chown").args(["postgres:"]).args([&elsewhere]).read()?;
    fs::remove_dir(&data).context("cannot make room for the link")?;
    std::os::unix::fs::symlink(&elsewhere, &data).context("cannot link the data folder")?;
    Ok(elsewhere)
}

//! FerretDB: MongoDB's protocol over the PostgreSQL beside it. MongoDB itself is in no registry that tests can reach.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::host::on_path;
use super::{Place, Service, postgres, running};
use crate::cargo::Program;
use crate::workspace;

/// One server, over a database of its own.
///
/// It is built once, by Go 1.22 or later, from the module under `xtask/ferretdb`, whose `go.sum` pins every byte of it,
/// and kept under `target/tools`. Its other back end, `SQLite`, is left out: that halves what is compiled.
pub(super) struct FerretDb;

const DATABASE: &str = "ferretdb";

impl Service for FerretDb {
    fn name(&self) -> &'static str {
        "FerretDB"
    }

    fn folder_name(&self) -> &'static str {
        "ferretdb"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_MONGODB"
    }

    fn url(&self, port: u16) -> String {
        format!("mongodb://127.0.0.1:{port}/")
    }

    fn installed(&self) -> Option<PathBuf> {
        let tools = tools();
        tools.join("ferretdb").exists().then_some(tools)
    }

    fn install(&self) -> Result<()> {
        on_path("go").context("Go builds FerretDB, and is not installed")?;
        let source = workspace::root().join("xtask/ferretdb");
        Program::new("go")
            .args(["build", "-C"])
            .args([&source])
            .args(["-buildvcs=false", "-mod=readonly", "-tags", "ferretdb_no_sqlite", "-o"])
            .args([tools().join("ferretdb")])
            .args(["."])
            .env("CGO_ENABLED", "0")
            .run()
    }

    fn start(&self, at: &Place) -> Result<()> {
        let database = database()?;
        let log = fs::File::create(at.folder.join("server.log")).context("cannot create its log")?;
        let mut server = Command::new(at.programs.join("ferretdb"));
        server.arg(format!("127.0.0.1:{}", at.port)).arg(database).current_dir(&at.folder);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // In a group of its own: it goes on when this program ends, however it ends.
        let server = server.process_group(0).spawn().context("cannot start it")?;
        fs::write(at.folder.join("pid"), server.id().to_string()).context("cannot note its process id")
    }
}

fn tools() -> PathBuf {
    workspace::root().join("target/tools")
}

/// The URL of its database, which is created if it is not there.
fn database() -> Result<String> {
    let server = &postgres::Postgres;
    let url = match std::env::var(server.variable()) {
        Ok(url) => url,
        Err(_) => server.url(running(server).context("PostgreSQL does not run")?),
    };
    let (base, parameters) = url.split_once('?').unwrap_or((&url, ""));
    let (base, _) = base.rsplit_once('/').with_context(|| format!("no database in {}", server.variable()))?;
    let programs = server.installed().context("PostgreSQL's programs are not there")?;
    let created = Program::new(programs.join("psql"))
        .args(["--no-psqlrc", "--quiet", "--dbname"])
        .args([&url])
        .args(["--command", &format!("CREATE DATABASE {DATABASE}")])
        .read();
    if let Err(error) = created
        && !error.to_string().contains("already exists")
    {
        return Err(error);
    }
    // The tests are of what is kept and not of how it is synced, so its syncs are not waited for.
    Ok(format!("{base}/{DATABASE}?synchronous_commit=off&{parameters}"))
}

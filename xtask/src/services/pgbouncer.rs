//! A pooler before PostgreSQL, `PgBouncer`, in transaction mode.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::host::{apt, is_root, start_in_background};
use super::{Place, Service, postgres, running};

/// One pooler of the distribution's version. Whoever comes is `semel`.
pub(super) struct PgBouncer;

impl Service for PgBouncer {
    fn name(&self) -> &'static str {
        "PgBouncer"
    }

    fn folder_name(&self) -> &'static str {
        "pgbouncer"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_PGBOUNCER"
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://semel@127.0.0.1:{port}/postgres")
    }

    fn installed(&self) -> Option<PathBuf> {
        let folder = Path::new("/usr/sbin");
        folder.join("pgbouncer").exists().then(|| folder.to_owned())
    }

    fn install(&self) -> Result<()> {
        apt("pgbouncer")
    }

    fn start(&self, at: &Place) -> Result<()> {
        let (host, port) = server()?;
        let settings = format!(
            "[databases]\n* = host={host} port={port} user=semel\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 30\nmax_client_conn = 2000\n",
            at.port
        );
        let file = at.folder.join("pgbouncer.ini");
        fs::write(&file, settings).context("cannot write its settings")?;
        let file = file.to_str().context("its folder has no name in Unicode")?;
        // It refuses to run as root, and becomes another user when it has read its settings.
        let arguments = if is_root()? { vec!["-u", "postgres", file] } else { vec![file] };
        start_in_background(&at.programs.join("pgbouncer"), &arguments, &at.folder)
    }
}

/// Where PostgreSQL is.
fn server() -> Result<(String, String)> {
    let server = &postgres::Postgres;
    let url = match std::env::var(server.variable()) {
        Ok(url) => url,
        Err(_) => server.url(running(server).context("PostgreSQL does not run")?),
    };
    let address = url.split_once('@').and_then(|(_, behind)| behind.split(['/', '?']).next());
    let address = address.with_context(|| format!("no address in {}", server.variable()))?;
    let (host, port) = address.split_once(':').unwrap_or((address, "5432"));
    Ok((host.to_owned(), port.to_owned()))
}

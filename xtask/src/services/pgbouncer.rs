//! `PgBouncer`, a pooler before PostgreSQL: no service, but a program that tests start themselves, each its own, so that they
//! may end its sessions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::host::apt;

/// The variable by which tests learn where it is.
pub(super) const VARIABLE: &str = "SEMEL_TEST_PGBOUNCER";

/// Where it is; installs it if it is missing.
///
/// # Errors
/// When it cannot be installed.
pub(super) fn program() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    eprintln!("PgBouncer is not installed; installing it");
    apt("pgbouncer")?;
    installed().context("PgBouncer is still not there after its installation")
}

/// The distribution has it among the programs of administrators, which are not on everybody's path.
pub(super) fn installed() -> Option<PathBuf> {
    Some(Path::new("/usr/sbin/pgbouncer")).filter(|program| program.exists()).map(Path::to_owned)
}

//! A library that shifts the clock of the program into which it is loaded: no service, but what tests need beside them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::host::apt;

/// The variable by which tests learn where it is.
pub(super) const VARIABLE: &str = "SEMEL_TEST_FAKETIME";

/// Where it is; installs it if it is missing.
///
/// # Errors
/// When it cannot be installed.
pub(super) fn library() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    eprintln!("libfaketime is not installed; installing it");
    apt("libfaketime")?;
    installed().context("libfaketime is still not there after its installation")
}

/// The distribution has it in a folder for the processor, or in none.
pub(super) fn installed() -> Option<PathBuf> {
    let folders = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", ""];
    let libraries = folders.map(|folder| format!("/usr/lib/{folder}faketime/libfaketime.so.1"));
    libraries.iter().map(Path::new).find(|library| library.exists()).map(Path::to_owned)
}

//! `cargo xtask openapi`: the checked-in OpenAPI document, written again from the server's own.

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{cargo::cargo, workspace};

/// The document that is checked in; a test fails on a breaking difference to it.
const DOCUMENT: &str = "docs/openapi.json";

/// What to do with the document.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the checked-in document is not the server's
    #[arg(long)]
    check: bool,
}

/// Writes or compares the document.
///
/// # Errors
/// When the server cannot be built, or the documents differ under `--check`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let document =
        cargo(["run", "--quiet", "--package", "semel-server", "--bin", "semel", "--", "openapi"]).read()?;
    let path = workspace::root().join(DOCUMENT);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    if before == document {
        eprintln!("{DOCUMENT} is the server's already");
        return Ok(());
    }
    if options.check {
        bail!("{DOCUMENT} is not the server's; run `cargo xtask openapi` and look at the difference");
    }
    std::fs::write(&path, document).with_context(|| format!("cannot write {DOCUMENT}"))?;
    eprintln!("{DOCUMENT} was written");
    Ok(())
}

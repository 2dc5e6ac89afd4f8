//! `cargo xtask lint`: everything about the code that can be judged without running it.

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::cargo;
use crate::{arrows, deny, workspace};

/// Which checks to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out licences, duplicates and advisories (the first run builds cargo-deny)
    #[arg(long)]
    no_deny: bool,
}

/// Runs every check, also after one has failed, and names those that did.
///
/// # Errors
/// When a check fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    let deny = if options.no_deny { None } else { Some(("licences and duplicates", deny::check as Check)) };
    let checks = [
        ("formatting", format as Check),
        ("file headers", file_headers),
        ("dependency arrows", arrows::check),
        ("clippy", clippy),
        ("documentation", documentation),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks.into_iter().chain(deny) {
        match check() {
            Ok(()) => eprintln!("ok: {name}"),
            Err(error) => {
                eprintln!("failed: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

type Check = fn() -> Result<()>;

fn format() -> Result<()> {
    cargo(["fmt", "--all", "--check"]).run()
}

fn clippy() -> Result<()> {
    cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"]).run()
}

fn documentation() -> Result<()> {
    // Private items, too: the map of a crate's rooms links to them, for whoever works on it.
    cargo(["doc", "--workspace", "--all-features", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private-intra-doc-links")
        .run()
}

/// Every file opens by saying what room it is.
fn file_headers() -> Result<()> {
    let mut without = Vec::new();
    for path in workspace::files(".rs")? {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.starts_with("//!") {
            without.push(path.strip_prefix(workspace::root()).unwrap_or(&path).display().to_string());
        }
    }
    if !without.is_empty() {
        bail!("no `//!` opens {}", without.join(", "));
    }
    Ok(())
}

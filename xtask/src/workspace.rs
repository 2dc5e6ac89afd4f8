//! What the workspace consists of: its root, its members, its files.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cargo::{Program, cargo};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The names of the workspace's packages.
pub(crate) fn members() -> Result<Vec<String>> {
    let tree =
        cargo(["tree", "--workspace", "--depth", "0", "--prefix", "none", "--format", "{p}"]).read()?;
    Ok(names(&tree))
}

/// The package names in what `cargo tree --prefix none --format {p}` prints.
pub(crate) fn names(tree: &str) -> Vec<String> {
    let mut names: Vec<_> =
        tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// The files of the project that end in `suffix`: what git knows, and what it would take in.
pub(crate) fn files(suffix: &str) -> Result<Vec<PathBuf>> {
    let list = Program::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).read()?;
    let root = root();
    Ok(list
        .lines()
        .filter(|name| name.ends_with(suffix))
        .map(|name| root.join(name))
        .filter(|p| p.exists())
        .collect())
}

/// Whether this runs where a missing tool or service must fail rather than be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_tree() {
        let tree = "semel-core v0.1.0 (/src/crates/core)\n\nbytes v1.0.0\nbytes v1.0.0 (*)\n";
        assert_eq!(names(tree), ["bytes", "semel-core"]);
    }
}

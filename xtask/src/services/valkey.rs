//! Valkey, which has the commands of Redis 7.2 where the distribution's Redis may be older: no service, but a program that tests
//! start themselves, each its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::host::on_path;
use crate::cargo::Program;
use crate::workspace;

/// The variable by which tests learn where it is.
pub(super) const VARIABLE: &str = "SEMEL_TEST_VALKEY";

/// Where the server is; gets it if it is missing.
///
/// # Errors
/// When it cannot be had.
pub(super) fn program() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    eprintln!("Valkey is not installed; unpacking it");
    unpack().context("Valkey cannot be had from the distribution")?;
    installed().context("Valkey is still not there after it was unpacked")
}

pub(super) fn installed() -> Option<PathBuf> {
    let unpacked = folder().join("usr/bin");
    let folder =
        on_path("valkey-server").or_else(|| Some(unpacked).filter(|at| runs(&at.join("valkey-server"))));
    folder.map(|folder| folder.join("valkey-server"))
}

fn runs(program: &Path) -> bool {
    program.exists() && Program::new(program).args(["--version"]).read().is_ok()
}

fn folder() -> PathBuf {
    workspace::root().join("target/services/valkey")
}

/// Takes the packages apart in a folder of this checkout: nothing of the system is changed, neither its packages nor where
/// they come from. A stable distribution has it among its backports.
fn unpack() -> Result<()> {
    let apt = folder().join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part)).context("cannot create a folder for packages")?;
    }
    fs::write(apt.join("sources.list"), sources()?).context("cannot write where packages come from")?;
    let option = |name: &str, value: &str| [String::from("-o"), format!("{name}={value}")];
    let at = |part: &str| apt.join(part).display().to_string();
    let options: Vec<_> = [
        option("Dir::Etc::sourcelist", &at("sources.list")),
        option("Dir::Etc::sourceparts", "/dev/null"),
        option("Dir::State::lists", &at("lists")),
        option("Dir::Cache", &at("cache")),
        option("APT::Sandbox::User", "root"),
    ]
    .concat();
    let ask = |words: &[&str]| {
        let program = Program::new("env").args(["--chdir", &at(""), "apt-get", "--quiet"]);
        program.args(&options).args(words).run()
    };
    ask(&["update"])?;
    ask(&["download", "valkey-server", "valkey-tools"])?;
    for entry in fs::read_dir(&apt).context("cannot read the packages")?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            Program::new("dpkg").args(["--extract"]).args([entry.path(), folder()]).run()?;
        }
    }
    Ok(())
}

/// What the distribution's packages come from, and its backports beside them.
fn sources() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot tell which distribution this is")?;
    let Some(name) = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")) else {
        bail!("the distribution does not tell its name");
    };
    let codename = format!("Codename: {name}");
    let told = ["indextargets", "--format", "$(REPO_URI)", &codename, "Created-By: Packages"];
    let told = Program::new("apt-get").args(told).read()?;
    let Some(place) = told.lines().next() else { bail!("no packages of `{name}` are known here") };
    Ok(format!("deb {place} {name} main\ndeb {place} {name}-backports main\n"))
}

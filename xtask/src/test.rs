//! `cargo xtask test`: every test of the workspace, with one line at the end that says how it went.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::cargo;
use crate::{services, workspace};

/// Which tests to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Under three minutes: no services, no end-to-end tests, few random cases
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Everything at full length: the long crash, storm and random runs
    #[arg(long)]
    full: bool,
    /// Only the tests of this package
    #[arg(long, short, value_name = "NAME")]
    package: Option<String>,
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// How long the tests may take. They are told by a variable, `SEMEL_QUICK` or `SEMEL_FULL`, or by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Quick,
    Standard,
    Full,
}

impl Level {
    const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Quick => Some("SEMEL_QUICK"),
            Self::Standard => None,
            Self::Full => Some("SEMEL_FULL"),
        }
    }

    /// How many cases each property is tried with.
    const fn proptest_cases(self) -> &'static str {
        match self {
            Self::Quick => "64",
            Self::Standard => "256",
            Self::Full => "4096",
        }
    }
}

const END_TO_END: &str = "semel-e2e";

/// Runs what was asked for.
///
/// # Errors
/// When a test fails or does not compile.
pub(crate) fn run(options: &Options) -> Result<()> {
    let level = match (options.quick, options.full) {
        (true, _) => Level::Quick,
        (_, true) => Level::Full,
        _ => Level::Standard,
    };
    let mut arguments: Vec<String> = ["test", "--all-features", "--no-fail-fast"].map(str::to_owned).to_vec();
    match &options.package {
        Some(package) => arguments.extend(["--package".to_owned(), package.clone()]),
        None => arguments.push("--workspace".to_owned()),
    }
    if level == Level::Quick {
        // Documentation tests are linked one by one; they take most of the time and change least.
        arguments.extend(["--lib", "--bins", "--tests"].map(str::to_owned));
        if options.package.is_none() && workspace::members()?.iter().any(|member| member == END_TO_END) {
            arguments.extend(["--exclude", END_TO_END].map(str::to_owned));
        }
    }
    arguments.extend(options.filter.clone());

    let mut sum = Sum::default();
    let cases = std::env::var("PROPTEST_CASES").unwrap_or(level.proptest_cases().to_owned());
    let mut tests = cargo(&arguments).env("PROPTEST_CASES", cases);
    if let Some(variable) = level.variable() {
        tests = tests.env(variable, "1");
    }
    if let Some(server) = server(options, level)? {
        tests = tests.env("SEMEL_BIN", server);
    }
    for (variable, url) in services(options, level)? {
        tests = tests.env(variable, url);
    }
    let succeeded = tests.lines(|line| {
        println!("{line}");
        sum.add(line);
    })?;
    sum.report(succeeded)
}

/// The packages whose tests want services.
const WITH_SERVICES: &[&str] = &["semel", "semel-kafka", "semel-stores", END_TO_END];

/// Brings the services up that some tests want, if they are to run.
fn services(options: &Options, level: Level) -> Result<Vec<(&'static str, String)>> {
    let wanted = match &options.package {
        Some(package) => WITH_SERVICES.contains(&package.as_str()),
        None => true,
    };
    if level == Level::Quick || !wanted { Ok(Vec::new()) } else { services::for_tests() }
}

/// Builds the server that the end-to-end tests drive, if they are to run: once, before them, as a part of the same
/// build, and not from within a test. One that was given is taken as it is.
fn server(options: &Options, level: Level) -> Result<Option<PathBuf>> {
    let wanted = match &options.package {
        Some(package) => package == END_TO_END,
        None => level != Level::Quick,
    };
    if !wanted || std::env::var_os("SEMEL_BIN").is_some() {
        return Ok(None);
    }
    // With the tests beside it, as the features of what they need are those of the server's dependencies, too: else most of these would be built twice.
    cargo(["build", "--workspace", "--all-features", "--tests", "--bin", "semel"]).run()?;
    // This command was built into the same folder: `cargo xtask` runs it from where cargo puts everything.
    let here = std::env::current_exe().context("cannot tell where this program stands")?;
    let built = here.with_file_name(format!("semel{}", std::env::consts::EXE_SUFFIX));
    if !built.is_file() {
        bail!("{} is not there, although it was built", built.display());
    }
    Ok(Some(built))
}

/// The results of all test binaries together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    names: Vec<String>,
}

impl Sum {
    /// Takes a line of a test binary into account: `test result: ok. 3 passed; 0 failed; …` or `test NAME ... FAILED`.
    fn add(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let words: Vec<_> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let count = |what: &str| words.windows(2).find(|pair| pair[1] == what)?[0].parse::<u64>().ok();
            self.passed += count("passed").unwrap_or(0);
            self.failed += count("failed").unwrap_or(0);
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.names.push(name.to_owned());
        }
    }

    fn report(&self, succeeded: bool) -> Result<()> {
        if !self.names.is_empty() {
            println!("\nfailed:");
            self.names.iter().for_each(|name| println!("  {name}"));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        match (succeeded, self.failed) {
            (true, 0) if self.passed > 0 => Ok(()),
            (true, 0) => bail!("no test ran"),
            (false, 0) => bail!("a test binary could not be built, or ended before its tests did"),
            (_, failed) => bail!("{failed} tests failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_over_all_binaries() {
        let mut sum = Sum::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test src/lib.rs - (line 8) ... ok",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
            "the operation passed; 9 failed",
        ] {
            sum.add(line);
        }
        assert_eq!(sum, Sum { passed: 42, failed: 1, names: vec!["a::c".to_owned()] });
    }

    #[test]
    fn what_did_not_run_is_not_a_success() {
        let sum = |passed, failed| Sum { passed, failed, names: Vec::new() };
        assert!(sum(1, 0).report(true).is_ok());
        assert!(sum(0, 0).report(true).is_err());
        assert!(sum(1, 0).report(false).is_err());
        assert!(sum(1, 1).report(true).is_err());
    }
}

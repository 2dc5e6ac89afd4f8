//! Starting other programs, always from the root of the workspace, and saying what was started.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A program to start, with its words for the log.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
}

/// The cargo that this command runs under, as if it had been started by hand: `cargo xtask` sets what this package is called and
/// where it stands, build scripts of the registry's crates take note of that, and those crates, with all that stand on them, would be
/// built again whenever one has changed between `cargo xtask test` and `cargo test`.
pub(crate) fn cargo<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(arguments: I) -> Program {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut program = Program::new(cargo).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            program.command.env_remove(name);
        }
    }
    program
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(workspace::root());
        Self { command }
    }

    pub(crate) fn args<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it with its output shown, and fails when it does.
    pub(crate) fn run(mut self) -> Result<()> {
        let words = self.words();
        eprintln!("$ {words}");
        let status = self.command.status().with_context(|| format!("cannot start `{words}`"))?;
        if !status.success() {
            bail!("`{words}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it and gives what it wrote to standard output; what it wrote to standard error is part of the failure.
    pub(crate) fn read(mut self) -> Result<String> {
        let words = self.words();
        let output =
            self.command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{words}`"))?;
        if !output.status.success() {
            bail!("`{words}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{words}` did not write text"))
    }

    /// Runs it, gives each line of its standard output to `each`, and says whether it succeeded.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<bool> {
        use std::io::{BufRead, BufReader};
        let words = self.words();
        eprintln!("$ {words}");
        let mut child =
            self.command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{words}`"))?;
        let mut output = BufReader::new(child.stdout.take().context("the output was not piped")?);
        let mut line = Vec::new();
        // A test may write bytes that are no text; they are shown as well as can be.
        while output.read_until(b'\n', &mut line).context("cannot read the output")? > 0 {
            each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
        Ok(child.wait().context("cannot wait for the end")?.success())
    }

    fn words(&self) -> String {
        let name = self.command.get_program();
        let name = std::path::Path::new(name).file_name().unwrap_or(name);
        let words = std::iter::once(name).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

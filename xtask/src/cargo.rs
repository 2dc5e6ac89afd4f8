//! Starting other programs, always from the root of the workspace, and saying what was started.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How long nothing is written before it is asked whether a program is over.
const QUIET: Duration = Duration::from_millis(500);

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

    /// Runs it, gives each line of its standard output to `each`, and says whether it succeeded. It is over when the program is,
    /// also where a process that it has left behind holds its output open.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<bool> {
        let words = self.words();
        eprintln!("$ {words}");
        let mut child =
            self.command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{words}`"))?;
        let output = child.stdout.take().context("the output was not piped")?;
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // A test may write bytes that are no text; they are shown as well as can be.
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            match lines.recv_timeout(QUIET) {
                Ok(line) => each(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if child.try_wait().context("cannot ask for the end")?.is_some() {
                        // What it wrote last may be on its way yet.
                        while let Ok(line) = lines.recv_timeout(QUIET * 4) {
                            each(&line);
                        }
                        break;
                    }
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_over_though_what_it_left_behind_holds_its_output() {
        let mut said = Vec::new();
        let sleeper = "sleep 30 & echo $!; printf 'no end of line'; exit 3";
        let succeeded = Program::new("sh").args(["-c", sleeper]).lines(|line| said.push(line.to_owned()));
        let pid = said[0].clone();
        let left = Program::new("kill").args([&pid]).read();
        assert!(left.is_ok(), "it was still there: {left:?}");
        assert!(!succeeded.unwrap());
        assert_eq!(said.len(), 1, "a line is one once it has ended");
    }

    #[test]
    fn all_that_a_program_writes_is_given_on_also_what_is_no_text() {
        let mut said = Vec::new();
        let script = "printf 'one\\ntwo \\377\\r\\nthree'";
        let succeeded = Program::new("sh").args(["-c", script]).lines(|line| said.push(line.to_owned()));
        assert!(succeeded.unwrap());
        assert_eq!(said, ["one", "two \u{fffd}", "three"]);
    }
}

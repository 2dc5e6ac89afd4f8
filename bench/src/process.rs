//! Child processes of the harness: started with a log, watched through `/proc`, stopped by process id.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::{POLL_INTERVAL, STOP_PATIENCE};

/// A running child. Dropping it kills it, so that an error on the way leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the command with its output in the log file.
    ///
    /// # Errors
    /// When the program is not there.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child =
            command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log if the process has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("ended by itself with {status}: {}", self.log_end());
        }
        Ok(())
    }

    /// Asks the process to end and waits for it; kills it when it does not.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_PATIENCE {
                return self.kill();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(600)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended or already waited for: both are what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cargo that this harness runs under, as if it had been started by hand.
///
/// `cargo run` sets what this package is called and where it stands; build scripts of the registry's crates take note of that, and
/// those crates, with all that stand on them, would be built once more than for a build by hand.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for name in of_this_package(env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    command
}

/// The variables that `cargo run` sets for the package that it runs.
fn of_this_package(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let begins = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    names.filter(move |name| {
        name.to_str().is_some_and(|name| begins.iter().any(|begin| name.starts_with(begin)))
    })
}

/// Runs a command to its end and fails with its output if it failed.
///
/// # Errors
/// When the program is not there or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, text.trim().chars().take(400).collect::<String>());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The processes and all their descendants.
pub(crate) fn family(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse().ok())
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while next < found.len() {
        found.extend(children.get(&found[next]).into_iter().flatten());
        next += 1;
    }
    found
}

/// Fields of `/proc/PID/stat` after the name, which may itself hold blanks and brackets.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text[text.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect())
}

/// Processor time that these processes and their descendants have used.
///
/// Linux counts it in hundredths of a second on every machine this runs on.
pub(crate) fn processor_time(roots: &[u32]) -> Duration {
    let ticks: u64 = family(roots)
        .into_iter()
        .filter_map(|pid| {
            let fields = stat_fields(pid)?;
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of these processes and their descendants, in bytes: the sum of their proportional sets, so that pages that
/// PostgreSQL's processes share count once. For a single process it is its resident set.
pub(crate) fn memory_bytes(roots: &[u32]) -> u64 {
    family(roots)
        .into_iter()
        .filter_map(|pid| kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .sum::<u64>()
        * 1024
}

fn kilobytes(path: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// Bytes that the files below a folder take on disk (allocated blocks, so that holes do not count).
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => total += disk_bytes(&entry.path()),
            Ok(meta) => total += meta.blocks() * 512,
            // A file that a compaction has just removed takes no space.
            Err(_) => {}
        }
    }
    total
}

/// Waits until `ready` says yes.
///
/// # Errors
/// With the last refusal once the patience is spent, or at once when `alive` fails.
pub(crate) fn wait_for(
    patience: Duration,
    mut alive: impl FnMut() -> Result<()>,
    mut ready: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        alive()?;
        match ready() {
            Ok(()) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > patience => return Err(error.context("did not become ready")),
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_build_of_the_harness_is_told_nothing_of_the_harness_own_package() {
        let set = ["CARGO_PKG_NAME", "CARGO_HOME", "CARGO_MANIFEST_DIR", "PATH", "CARGO_MANIFEST_PATH"];
        let removed: Vec<_> = of_this_package(set.into_iter().map(OsString::from)).collect();
        assert_eq!(removed, ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"]);
        // As cargo itself has set them for this test.
        let (mut here, command) = (BTreeSet::new(), cargo());
        here.extend(of_this_package(env::vars_os().map(|(name, _)| name)));
        let changed: BTreeSet<_> = command.get_envs().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(changed, here.into_iter().map(|name| (name, None)).collect());
    }
}

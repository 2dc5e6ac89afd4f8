//! The machine the figures are from, and what one durable write costs on its disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::limits::{SYNC_BLOCK_BYTES, SYNC_WRITES};
use crate::process::run;

/// What the results say about the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Processor model.
    pub(crate) processor: String,
    /// Processors in use.
    pub(crate) cores: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// File system and device under the data.
    pub(crate) disk: String,
    /// The commit that was built, with a mark when files had changed.
    pub(crate) commit: String,
    /// When the run began, UTC.
    pub(crate) date: String,
    /// The compiler.
    pub(crate) rustc: String,
}

/// Median and tail of one kind of durable 4 KiB write.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SyncLatency {
    /// How the write was made durable.
    pub(crate) kind: &'static str,
    /// Median in microseconds.
    pub(crate) p50_us: u64,
    /// 99 of 100.
    pub(crate) p99_us: u64,
}

/// Reads what there is to know; what cannot be read is said to be unknown.
pub(crate) fn describe(data: &Path) -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = field(&cpu, "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = field(&memory, "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let said = |program: &str, args: &[&str]| {
        run(Command::new(program).args(args))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let folder = data.display().to_string();
    Machine {
        processor,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: memory_kib * 1024,
        kernel: said("uname", &["-r"]),
        disk: said("findmnt", &["-no", "FSTYPE,SOURCE,OPTIONS", "--target", &folder]),
        commit: said("git", &["describe", "--always", "--dirty"]),
        date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        rustc: said("rustc", &["--version"]),
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .find(|line| line.starts_with(name))?
        .split_once(':')
        .map(|(_, value)| value.trim().to_owned())
}

/// Refuses folders in memory: a sync there costs nothing and says nothing.
///
/// # Errors
/// When the folder lies on tmpfs.
pub(crate) fn require_real_disk(folder: &Path) -> Result<()> {
    const TMPFS: i64 = 0x0102_1994;
    if rustix::fs::statfs(folder)?.f_type == TMPFS {
        bail!("{} lies on tmpfs, where a sync costs nothing; choose a folder on a disk", folder.display());
    }
    Ok(())
}

/// Measures durable writes of 4 KiB in the three ways a log can make them.
///
/// # Errors
/// When the folder cannot be written; a file system without `O_DIRECT` only loses that line.
pub(crate) fn sync_latency(folder: &Path) -> Result<Vec<SyncLatency>> {
    let path = folder.join("sync-latency");
    let mut found = Vec::new();
    if let Ok(file) = zeroed(&path).and_then(|()| direct(&path)) {
        found.push(measure("pre-zeroed, O_DIRECT and O_DSYNC", |at, block| {
            Ok(file.write_all_at(block, at)?)
        })?);
    }
    zeroed(&path)?;
    let file = OpenOptions::new().write(true).open(&path)?;
    found.push(measure("pre-zeroed, fdatasync", |at, block| {
        file.write_all_at(block, at)?;
        Ok(file.sync_data()?)
    })?);
    let file = File::create(&path)?;
    found.push(measure("growing file, fdatasync", |at, block| {
        file.write_all_at(block, at)?;
        Ok(file.sync_data()?)
    })?);
    fs::remove_file(&path)?;
    Ok(found)
}

fn zeroed(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&vec![0; SYNC_BLOCK_BYTES * SYNC_WRITES])?;
    file.sync_all()?;
    Ok(())
}

fn direct(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    Ok(OpenOptions::new().write(true).custom_flags(i32::try_from(flags.bits())?).open(path)?)
}

fn measure(kind: &'static str, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<SyncLatency> {
    // O_DIRECT wants a block that begins where a block of memory begins.
    let room = vec![0x5a_u8; SYNC_BLOCK_BYTES * 2];
    let skip = room.as_ptr().align_offset(SYNC_BLOCK_BYTES);
    let block = &room[skip..skip + SYNC_BLOCK_BYTES];
    let mut times = Vec::with_capacity(SYNC_WRITES);
    for index in 0..SYNC_WRITES {
        let start = Instant::now();
        write((index * SYNC_BLOCK_BYTES) as u64, block)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let micros = |at: usize| times.get(at).copied().unwrap_or(Duration::MAX).as_micros();
    Ok(SyncLatency {
        kind,
        p50_us: u64::try_from(micros(SYNC_WRITES / 2))?,
        p99_us: u64::try_from(micros(SYNC_WRITES * 99 / 100))?,
    })
}

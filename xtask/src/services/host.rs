//! What services need of this machine: packages, ports, and who we are here.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::Program;

/// How long a service may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Installs a package of the distribution.
///
/// # Errors
/// When there is none, or we may not.
pub(super) fn apt(package: &str) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let sudo: &[&str] = if is_root()? { &[] } else { &["sudo", "--non-interactive"] };
        let words: Vec<_> = sudo.iter().chain(&["apt-get", "--yes", "--quiet"]).chain(arguments).collect();
        Program::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").run()
    };
    apt(&["update"])?;
    // Its maintainer script would start a system service; `policy-rc.d` is how a script is told not to, but that is
    // a file of the system. Without an init system nothing starts; with one, it is left as the package leaves it.
    apt(&["install", "--no-install-recommends", package])
}

/// Installs a program that is written in Go into this folder, under the name of its package.
///
/// # Errors
/// When Go is missing, or does not get or build it.
pub(super) fn go_install(module: &str, folder: &Path) -> Result<()> {
    Program::new("go").args(["install", module]).env("GOBIN", folder).run()
}

/// Starts a program that stays in the foreground by itself, so that it goes on when this one ends. Its output goes into
/// `server.log` of the folder, its process id into `pid`.
///
/// # Errors
/// When it cannot be started, or not be noted.
pub(super) fn start_in_background(program: &Path, arguments: &[&str], folder: &Path) -> Result<()> {
    let log = File::create(folder.join("server.log")).context("cannot write its log")?;
    let errors = log.try_clone().context("cannot write its log")?;
    eprintln!("$ {} {} &", program.display(), arguments.join(" "));
    let mut command = Command::new(program);
    // A group of its own, so that a Ctrl-C in this terminal is not meant for it.
    command.args(arguments).current_dir(folder).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    let id = child.with_context(|| format!("cannot start {}", program.display()))?.id();
    fs::write(folder.join("pid"), id.to_string()).context("cannot note its process id")
}

/// The process that was noted in `pid` of a service's folder, if it is still that one.
pub(super) fn noted_process(folder: &Path) -> Option<u32> {
    let id = fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()?;
    (!noted_process_is_gone(folder)).then_some(id)
}

/// Whether a process was noted that has ended since, its number perhaps given to another. Services work in their own
/// folders, by which they are known. Where the system does not show that, the note is believed.
pub(super) fn noted_process_is_gone(folder: &Path) -> bool {
    let Ok(id) = fs::read_to_string(folder.join("pid")) else { return false };
    match fs::read_link(Path::new("/proc").join(id.trim()).join("cwd")) {
        Ok(works_in) => Some(works_in) != fs::canonicalize(folder).ok(),
        Err(error) => error.kind() == ErrorKind::NotFound && Path::new("/proc/self").exists(),
    }
}

/// The process that works in a service's folder and was started with its port.
pub(super) fn process_of(folder: &Path, port: u16) -> Option<u32> {
    let (folder, port) = (fs::canonicalize(folder).ok()?, port.to_string());
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let id = process.file_name().to_str()?.parse().ok()?;
        let works_there = fs::read_link(process.path().join("cwd")).ok()? == folder;
        let words = fs::read(process.path().join("cmdline")).ok()?;
        (works_there && String::from_utf8_lossy(&words).contains(&port)).then_some(id)
    })
}

/// Forgets the process that was noted: it is stopped, or another one is about to start.
///
/// # Errors
/// When the note cannot be removed.
pub(super) fn forget_process(folder: &Path) -> Result<()> {
    match fs::remove_file(folder.join("pid")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot forget its process id")
        }
        _ => Ok(()),
    }
}

/// The folder on the path that has a program of this name.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).find(|folder| folder.join(program).exists())
}

/// Whether this is the system's administrator, whom some programs refuse to run as.
///
/// # Errors
/// When that cannot be told.
pub(super) fn is_root() -> Result<bool> {
    Ok(Program::new("id").args(["-u"]).read()?.trim() == "0")
}

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

/// Whether this port is free.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether somebody listens there.
pub(super) fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Waits until somebody listens there.
///
/// # Errors
/// When nobody does in time.
pub(super) fn wait_for(port: u16, name: &str) -> Result<()> {
    let start = Instant::now();
    while !answers(port) {
        if start.elapsed() > START_TIMEOUT {
            bail!("{name} does not answer on port {port} after {} s", START_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until nobody listens there any more.
///
/// # Errors
/// When somebody still does.
pub(super) fn wait_until_gone(port: u16) -> Result<()> {
    let start = Instant::now();
    while answers(port) {
        if start.elapsed() > STOP_TIMEOUT {
            bail!("port {port} still answers after {} s", STOP_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_service_is_known_by_its_folder_whatever_was_noted_of_it() {
        let folder = workspace::root().join("target/services/of-a-test");
        fs::create_dir_all(&folder).unwrap();
        forget_process(&folder).unwrap();
        assert!(!noted_process_is_gone(&folder), "nothing is noted");

        let mut program = Command::new("sleep").arg("47113").current_dir(&folder).spawn().unwrap();
        // Linux lets whoever started it go on a moment before its arguments can be read.
        let start = Instant::now();
        while process_of(&folder, 47113).is_none() && start.elapsed() < START_TIMEOUT {
            std::thread::yield_now();
        }
        assert_eq!((noted_process(&folder), process_of(&folder, 47113)), (None, Some(program.id())));
        assert_eq!(process_of(&folder, 47114), None, "another port is another program");
        fs::write(folder.join("pid"), program.id().to_string()).unwrap();
        assert_eq!(noted_process(&folder), Some(program.id()));

        // A number that another process has by now: this one, which works elsewhere.
        fs::write(folder.join("pid"), std::process::id().to_string()).unwrap();
        assert!(noted_process_is_gone(&folder) && noted_process(&folder).is_none());

        program.kill().unwrap();
        program.wait().unwrap();
        fs::write(folder.join("pid"), program.id().to_string()).unwrap();
        assert!(noted_process_is_gone(&folder) && process_of(&folder, 47113).is_none());
        forget_process(&folder).unwrap();
    }
}

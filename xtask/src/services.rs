//! `cargo xtask services`: PostgreSQL and Redis for tests and benches.
//!
//! They come from the distribution's packages, run as ordinary processes of this checkout on loopback and free ports,
//! and keep their data under `target/services`. Nothing is registered with the system, and what runs there already is
//! left alone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::cargo::Program;
use crate::workspace;

/// What to do with the services.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Start what does not run yet, installing it if need be, and print where it listens
    Up,
    /// Stop what `up` started; the data stays until the next `up`
    Down,
    /// Print where they listen, as lines for a shell to `eval`
    Env,
}

/// How long a service may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Does what was asked.
///
/// # Errors
/// When a service cannot be installed, started or stopped.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up => {
            for service in [Service::Postgres, Service::Redis] {
                service.up().with_context(|| format!("{} does not come up", service.name()))?;
            }
            environment()
        }
        Command::Down => [Service::Postgres, Service::Redis].into_iter().try_for_each(Service::down),
        Command::Env => environment(),
    }
}

/// PostgreSQL for tests: the variable that they read, and where it listens. One that is named there already is taken as
/// it is.
///
/// # Errors
/// When it cannot be installed or started.
pub(crate) fn postgres() -> Result<(&'static str, String)> {
    let service = Service::Postgres;
    if let Ok(url) = std::env::var(service.variable()) {
        return Ok((service.variable(), url));
    }
    service.up().with_context(|| format!("{} does not come up", service.name()))?;
    let port = service.port().with_context(|| format!("{} has no port", service.name()))?;
    Ok((service.variable(), service.url(port)))
}

fn environment() -> Result<()> {
    for service in [Service::Postgres, Service::Redis] {
        match service.port() {
            Some(port) if answers(port) => println!("export {}='{}'", service.variable(), service.url(port)),
            _ => bail!("{} does not run; `cargo xtask services up` starts it", service.name()),
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Postgres,
    Redis,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Redis => "redis-server",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "SEMEL_TEST_POSTGRES",
            Self::Redis => "SEMEL_TEST_REDIS",
        }
    }

    fn url(self, port: u16) -> String {
        match self {
            Self::Postgres => format!("postgres://semel@127.0.0.1:{port}/postgres"),
            Self::Redis => format!("redis://127.0.0.1:{port}/"),
        }
    }

    fn folder(self) -> PathBuf {
        workspace::root().join("target/services").join(self.package())
    }

    /// The port of the running service, as `up` noted it.
    fn port(self) -> Option<u16> {
        fs::read_to_string(self.folder().join("port")).ok()?.trim().parse().ok()
    }

    fn up(self) -> Result<()> {
        if self.port().is_some_and(answers) {
            eprintln!("{} runs already", self.name());
            return Ok(());
        }
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let programs = self.programs()?;
        let port = free_port()?;
        match self {
            Self::Postgres => start_postgres(&programs, &folder, port)?,
            Self::Redis => start_redis(&programs, &folder, port)?,
        }
        wait_for(port, self.name())?;
        fs::write(folder.join("port"), port.to_string()).context("cannot note the port")?;
        eprintln!("{} listens on 127.0.0.1:{port}", self.name());
        Ok(())
    }

    fn down(self) -> Result<()> {
        let folder = self.folder();
        if !self.port().is_some_and(answers) {
            eprintln!("{} does not run", self.name());
            return Ok(());
        }
        match self {
            Self::Postgres => {
                let stop = [data_folder(&folder)?.as_os_str(), "stop".as_ref(), "--mode=fast".as_ref()]
                    .map(std::ffi::OsStr::to_owned);
                as_ordinary_user(&self.programs()?.join("pg_ctl"))?.args(["--pgdata"]).args(stop).run()?;
            }
            Self::Redis => {
                let pid =
                    fs::read_to_string(folder.join("redis.pid")).context("cannot read its process id")?;
                Program::new("kill").args([pid.trim()]).run()?;
            }
        }
        fs::remove_file(folder.join("port")).context("cannot forget the port")
    }

    /// The folder of the service's programs; installs them if they are missing.
    fn programs(self) -> Result<PathBuf> {
        if let Some(folder) = self.installed() {
            return Ok(folder);
        }
        eprintln!("{} is not installed; installing the package {}", self.name(), self.package());
        let apt = |arguments: &[&str]| {
            let sudo: &[&str] = if is_root()? { &[] } else { &["sudo", "--non-interactive"] };
            let words: Vec<_> =
                sudo.iter().chain(&["apt-get", "--yes", "--quiet"]).chain(arguments).collect();
            Program::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").run()
        };
        apt(&["update"])?;
        // Its maintainer script would start a system service; `policy-rc.d` is how a script is told not to, but that is
        // a file of the system. Without an init system nothing starts; with one, it is left as the package leaves it.
        apt(&["install", "--no-install-recommends", self.package()])?;
        self.installed().with_context(|| format!("{} is still not there after its installation", self.name()))
    }

    fn installed(self) -> Option<PathBuf> {
        match self {
            Self::Postgres => {
                let versions =
                    fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
                versions.filter(|folder| folder.join("initdb").exists()).max()
            }
            Self::Redis => {
                let folders = std::env::var_os("PATH")?;
                std::env::split_paths(&folders).find(|folder| folder.join("redis-server").exists())
            }
        }
    }
}

fn start_postgres(programs: &Path, folder: &Path, port: u16) -> Result<()> {
    let data = data_folder(folder)?;
    if !data.join("PG_VERSION").exists() {
        as_ordinary_user(&programs.join("initdb"))?
            .args(["--username=semel", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
            .args([&data])
            .run()?;
    }
    // The socket is beside the data, so that two checkouts do not meet in one folder of the system.
    let options =
        format!("-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={}", data.display());
    as_ordinary_user(&programs.join("pg_ctl"))?
        .args(["start", "--wait", "--silent", "--options", &options, "--log"])
        .args([data.join("server.log")])
        .args(["--pgdata"])
        .args([&data])
        .run()
}

fn start_redis(programs: &Path, folder: &Path, port: u16) -> Result<()> {
    Program::new(programs.join("redis-server"))
        .args(["--bind", "127.0.0.1", "--daemonize", "yes", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--maxmemory-policy", "noeviction", "--port", &port.to_string(), "--dir"])
        .args([folder])
        .args(["--pidfile"])
        .args([folder.join("redis.pid")])
        .args(["--logfile"])
        .args([folder.join("server.log")])
        .run()
}

/// PostgreSQL refuses to run as root, so root runs it as the user that its package brings along.
fn as_ordinary_user(program: &Path) -> Result<Program> {
    if !is_root()? {
        return Ok(Program::new(program));
    }
    Ok(Program::new("runuser").args(["--user", "postgres", "--"]).args([program]))
}

/// Where the data are: in the service's folder, or, when root's checkout is closed to the ordinary user, in a folder of
/// its own that is linked from there.
fn data_folder(folder: &Path) -> Result<PathBuf> {
    let data = folder.join("data");
    if !is_root()? {
        return Ok(data);
    }
    if let Ok(linked) = fs::read_link(&data) {
        return Ok(linked);
    }
    if !data.exists() {
        fs::create_dir(&data).context("cannot create the data folder")?;
    }
    Program::new("chown").args(["postgres:"]).args([&data]).read()?;
    if Program::new("runuser").args(["--user", "postgres", "--", "test", "-w"]).args([&data]).read().is_ok() {
        return Ok(data);
    }
    let elsewhere =
        Program::new("mktemp").args(["--directory", "--tmpdir", "semel-postgres-XXXXXX"]).read()?;
    let elsewhere = PathBuf::from(elsewhere.trim());
    Program::new("chown").args(["postgres:"]).args([&elsewhere]).read()?;
    fs::remove_dir(&data).context("cannot make room for the link")?;
    std::os::unix::fs::symlink(&elsewhere, &data).context("cannot link the data folder")?;
    Ok(elsewhere)
}

fn is_root() -> Result<bool> {
    Ok(Program::new("id").args(["-u"]).read()?.trim() == "0")
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn wait_for(port: u16, name: &str) -> Result<()> {
    let start = Instant::now();
    while !answers(port) {
        if start.elapsed() > START_TIMEOUT {
            bail!("{name} does not answer on port {port} after {} s", START_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

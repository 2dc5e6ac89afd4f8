//! `cargo xtask services`: what tests and benches talk to besides the project itself: databases and their like.
//!
//! They are run as ordinary processes of this checkout on loopback and free ports, and keep their data under
//! `target/services`. Nothing is registered with the system, and what runs there already is left alone.
//!
//! One service, one file. A new one implements [`Service`] in a file of its own and gets its line in [`SERVICES`].

mod faketime;
mod ferretdb;
mod host;
mod kafka;
mod pgbouncer;
mod postgres;
mod redis;
mod toxiproxy;
mod valkey;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::cargo::Program;
use crate::workspace;

/// Every service, in the order in which they start: what another one needs stands before it.
const SERVICES: &[&dyn Service] = &[
    &postgres::Postgres, //
    &ferretdb::FerretDb,
    &redis::Redis,
    &kafka::Kafka,
    &toxiproxy::Toxiproxy,
];

/// A program that tests talk to over a port of this machine.
trait Service: Sync {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Its folder under `target/services`.
    fn folder_name(&self) -> &'static str;

    /// The variable by which tests learn where it is.
    fn variable(&self) -> &'static str;

    /// What the variable says when it listens on `port`.
    fn url(&self, port: u16) -> String;

    /// The folder of its programs, if they are there.
    fn installed(&self) -> Option<PathBuf>;

    /// Installs them; by [`host::apt`] where the distribution has a package.
    ///
    /// # Errors
    /// When that fails.
    fn install(&self) -> Result<()>;

    /// Starts it on `at.port`, so that it goes on when this program ends.
    ///
    /// # Errors
    /// When it does not start. That it answers is waited for by the caller.
    fn start(&self, at: &Place) -> Result<()>;

    /// Stops it: as it is, by the process id that was noted in `pid` of its folder, or, where an interrupted or older
    /// `up` noted none, by what runs in that folder.
    ///
    /// # Errors
    /// When it cannot be told to stop.
    fn stop(&self, at: &Place) -> Result<()> {
        let found = host::noted_process(&at.folder).or_else(|| host::process_of(&at.folder, at.port));
        let id = found.with_context(|| format!("no process of its own is found behind port {}", at.port))?;
        Program::new("kill").args([id.to_string()]).run()
    }
}

/// Where a service is.
struct Place {
    /// The folder of its programs.
    programs: PathBuf,
    /// Its own folder, which outlives it.
    folder: PathBuf,
    port: u16,
}

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

/// Does what was asked.
///
/// # Errors
/// When a service cannot be installed, started or stopped.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up => {
            let _alone = alone()?;
            SERVICES.iter().try_for_each(|service| up(*service).map(|_| ()))?;
            faketime::library()?;
            pgbouncer::program()?;
            valkey::program()?;
            environment()
        }
        Command::Down => {
            let _alone = alone()?;
            // One that does not stop is no reason to let the others run.
            let stopped: Vec<_> = SERVICES.iter().rev().map(|service| down(*service)).collect();
            let failures: Vec<_> = stopped.into_iter().filter_map(Result::err).collect();
            if failures.is_empty() {
                return Ok(());
            }
            bail!("{}", failures.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "))
        }
        Command::Env => environment(),
    }
}

/// All services for tests: the variables that they read, and what those say. A service whose variable is set already is
/// taken as it is.
///
/// # Errors
/// When one cannot be installed or started.
pub(crate) fn for_tests() -> Result<Vec<(&'static str, String)>> {
    let _alone = alone()?;
    let place = |service: &&dyn Service| match std::env::var(service.variable()) {
        Ok(url) => Ok((service.variable(), url)),
        Err(_) => Ok((service.variable(), service.url(up(*service)?))),
    };
    let mut places = SERVICES.iter().map(place).collect::<Result<Vec<_>>>()?;
    places.push((faketime::VARIABLE, faketime::library()?.display().to_string()));
    places.push((pgbouncer::VARIABLE, pgbouncer::program()?.display().to_string()));
    places.push((valkey::VARIABLE, valkey::program()?.display().to_string()));
    Ok(places)
}

/// The right to start and stop, which one program of this checkout has at a time: held as long as the file is open.
fn alone() -> Result<File> {
    let folder = workspace::root().join("target/services");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = File::create(folder.join("lock")).context("cannot write the lock")?;
    file.lock().context("cannot take the lock")?;
    Ok(file)
}

/// Prints all or nothing: a shell that evaluates half of it would test against half of the services.
fn environment() -> Result<()> {
    let line = |service: &&dyn Service| match running(*service) {
        Some(port) => Ok(format!("export {}='{}'\n", service.variable(), service.url(port))),
        None => bail!("{} does not run; `cargo xtask services up` starts it", service.name()),
    };
    print!("{}", SERVICES.iter().map(line).collect::<Result<String>>()?);
    let beside = [
        (faketime::VARIABLE, faketime::installed()),
        (pgbouncer::VARIABLE, pgbouncer::installed()),
        (valkey::VARIABLE, valkey::installed()),
    ];
    for (variable, path) in beside {
        if let Some(path) = path {
            println!("export {variable}='{}'", path.display());
        }
    }
    Ok(())
}

/// Starts a service unless it runs, and says on which port.
fn up(service: &dyn Service) -> Result<u16> {
    if let Some(port) = running(service) {
        eprintln!("{} runs already", service.name());
        return Ok(port);
    }
    start(service).with_context(|| format!("{} does not come up", service.name()))
}

fn start(service: &dyn Service) -> Result<u16> {
    let folder = folder(service);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Its last port if that is free: what was told it, such as another service over this one, need not be told again.
    let port = match noted_port(service).filter(|port| host::is_free(*port)) {
        Some(port) => port,
        None => host::free_port()?,
    };
    let place = Place { programs: programs(service)?, folder, port };
    // Noted before it starts: whoever interrupts this can still stop what was started.
    host::forget_process(&place.folder)?;
    fs::write(port_file(&place.folder), port.to_string()).context("cannot note the port")?;
    service.start(&place)?;
    host::wait_for(port, service.name())?;
    eprintln!("{} listens on 127.0.0.1:{port}", service.name());
    Ok(port)
}

fn down(service: &dyn Service) -> Result<()> {
    let Some(port) = running(service) else {
        eprintln!("{} does not run", service.name());
        return Ok(());
    };
    // Nothing is installed in order to stop.
    let place = Place { programs: service.installed().unwrap_or_default(), folder: folder(service), port };
    let stopped = service.stop(&place).and_then(|()| host::wait_until_gone(port));
    stopped.with_context(|| format!("{} does not stop", service.name()))?;
    host::forget_process(&place.folder)?;
    eprintln!("{} is stopped", service.name());
    Ok(())
}

/// The port of a service that runs. What answers on a port that was noted long ago may be somebody else's by now.
fn running(service: &dyn Service) -> Option<u16> {
    let ours = !host::noted_process_is_gone(&folder(service));
    noted_port(service).filter(|port| ours && host::answers(*port))
}

/// The port on which a service was last started.
fn noted_port(service: &dyn Service) -> Option<u16> {
    fs::read_to_string(port_file(&folder(service))).ok()?.trim().parse().ok()
}

fn folder(service: &dyn Service) -> PathBuf {
    workspace::root().join("target/services").join(service.folder_name())
}

fn port_file(folder: &Path) -> PathBuf {
    folder.join("port")
}

/// The folder of a service's programs; installs them if they are missing.
fn programs(service: &dyn Service) -> Result<PathBuf> {
    if let Some(folder) = service.installed() {
        return Ok(folder);
    }
    eprintln!("{} is not installed; installing it", service.name());
    service.install()?;
    service
        .installed()
        .with_context(|| format!("{} is still not there after its installation", service.name()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_services_share_a_name_a_folder_or_a_variable() {
        let facts = SERVICES.iter().flat_map(|service| {
            [("name", service.name()), ("folder", service.folder_name()), ("variable", service.variable())]
        });
        let distinct: HashSet<_> = facts.collect();
        assert_eq!(distinct.len(), 3 * SERVICES.len());
    }
}

//! The command line. Without a command it serves.
//!
//! Exit codes are for scripts, and every command has the same ones: see [`exit`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::Sources;

mod admin;
mod carry;
mod client;
mod config;
mod dead;
mod execute;
pub mod exit;
mod jobs;
mod migrate;
mod openapi;
mod records;
mod serve;
mod store;
mod verify;

/// Makes an operation happen once, however often it is asked for.
///
/// Without a command it serves; without a configuration, in development mode on loopback.
#[derive(Debug, Parser)]
#[command(name = "semel", version, args_conflicts_with_subcommands = true, max_term_width = 100, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    Serve(ServeArgs),
    /// Execute an operation on a server, at most once per key
    Execute(Box<execute::ExecuteArgs>),
    /// See and settle records on a server's admin listener
    #[command(subcommand)]
    Records(Box<records::RecordsCommand>),
    /// See, revive and discard dead letters on a server's admin listener
    #[command(subcommand)]
    Dead(Box<dead::DeadCommand>),
    /// Say why the signature of a webhook does not hold: `semel verify SOURCE < request`
    Verify(Box<verify::VerifyArgs>),
    /// See jobs and their runs on a server's admin listener, and release one by force
    #[command(subcommand)]
    Jobs(Box<jobs::JobsCommand>),
    /// Migrate, check, count, export or import a store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Check, show or begin a configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the completions of a shell
    ///
    /// For bash: `semel completions bash > /etc/bash_completion.d/semel`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where a configuration is read from.
#[derive(Args, Clone, Debug, Default)]
struct ConfigArgs {
    /// The configuration file; without it ./semel.toml if it is there, else development mode
    #[arg(long, short, value_name = "FILE", env = "SEMEL_CONFIG")]
    config: Option<PathBuf>,
    /// Where execute and claims listen (`server.listen`)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where records, metrics and documents listen (`admin.listen`)
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Where records are kept (`store.url`): embedded:PATH, postgres://…, redis://…, mongodb://… or
    /// memory:
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Development mode, also with a file (`server.development`)
    #[arg(long)]
    dev: bool,
}

/// What `semel serve` takes.
#[derive(Args, Clone, Debug, Default)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

impl ConfigArgs {
    fn sources(&self) -> Sources {
        let mut sources = Sources { file: self.config.clone(), ..Sources::of_process() };
        let flags = [
            ("--listen", "server.listen", self.listen.clone()),
            ("--admin-listen", "admin.listen", self.admin_listen.clone()),
            ("--store", "store.url", self.store.clone()),
            ("--dev", "server.development", self.dev.then(|| "true".to_owned())),
        ];
        let given = flags.into_iter().filter_map(|(flag, path, value)| Some((flag, path, value?)));
        sources.flags.extend(given);
        sources
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        None => serve::serve(&cli.serve),
        Some(Command::Serve(args)) => serve::serve(&args),
        Some(Command::Execute(args)) => execute::execute(&args),
        Some(Command::Records(command)) => records::run(&command),
        Some(Command::Dead(command)) => dead::run(&command),
        Some(Command::Verify(args)) => verify::verify(&args),
        Some(Command::Jobs(command)) => jobs::run(&command),
        Some(Command::Store(command)) => store::run(&command),
        Some(Command::Openapi) => openapi::openapi(),
        Some(Command::Config(command)) => config::run(&command),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "semel", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            exit::DONE
        }
    };
    ExitCode::from(code)
}

/// Says on standard error why a command has failed, and gives its exit code.
fn fail(code: u8, problem: impl std::fmt::Display) -> u8 {
    eprintln!("semel: {problem}");
    code
}

/// Prints a line on standard output, or ends the process: nobody acts on an answer that was not written. A reader that
/// has had enough (`| head`) is no failure.
fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(fail(exit::FAILED, format_args!("cannot write: {error}"))));
        }
        Ok(()) | Err(_) => {}
    }
}

/// A table without lines, for people and for `awk`.
fn table<const N: usize>(
    columns: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if !columns.is_empty() {
        table.set_header(columns);
    }
    for row in rows {
        // What came from a client is shown without what would move the terminal's cursor.
        table.add_row(row.map(|cell| cell.chars().filter(|c| !c.is_control()).collect::<String>()));
    }
    table
}

/// A runtime for a command that speaks to a server.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_takes_what_serve_takes() {
        let cli = Cli::try_parse_from(["semel", "--listen", "127.0.0.1:1", "--dev"]).unwrap();
        let flags = cli.serve.config.sources().flags;
        assert_eq!(
            flags,
            [
                ("--listen", "server.listen", "127.0.0.1:1".to_owned()),
                ("--dev", "server.development", "true".to_owned())
            ]
        );
        assert!(matches!(
            Cli::try_parse_from(["semel", "serve", "--dev"]).unwrap().command,
            Some(Command::Serve(_))
        ));
        assert!(Cli::try_parse_from(["semel", "--nonsense"]).is_err());
    }
}

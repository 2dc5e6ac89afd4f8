//! The developer commands: `cargo xtask --help` is the list.

mod arrows;
mod cargo;
mod deny;
#[cfg(test)]
mod docs;
mod lint;
mod openapi;
mod services;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer commands of Semel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the tests, and say how many passed and failed
    Test(test::Options),
    /// Check formatting, lints, documentation, dependency arrows and licences
    Lint(lint::Options),
    /// Measure against the peers and write the table to bench/results
    Bench {
        /// What the bench itself is told; `cargo xtask bench -- --help` says what it knows
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the checked-in OpenAPI document again, from the server's own
    Openapi(openapi::Options),
    /// Bring PostgreSQL, Redis, Kafka and the others up for tests and benches, or down again
    #[command(subcommand)]
    Services(services::Command),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Lint(options) => lint::run(&options),
        Command::Bench { arguments } => bench(&arguments),
        Command::Openapi(options) => openapi::run(&options),
        Command::Services(command) => services::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> anyhow::Result<()> {
    cargo::cargo(["build", "--release", "--package", "semel-server"]).run()?;
    cargo::cargo(["run", "--release", "--package", "semel-bench", "--"]).args(arguments).run()
}

//! `semel config check|show|example`.

use clap::Subcommand;
use serde_json::json;

use super::{ConfigArgs, exit, fail, say};
use crate::config::{EXAMPLE, Loaded, load};
use crate::telemetry::logs::check_filter;
use crate::tls;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the server would start with this configuration, and everything that is wrong with it
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print every value with where it comes from; secrets are hidden
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration file with every key, its default and what it is for
    Example,
}

pub(super) fn run(command: &ConfigCommand) -> u8 {
    match command {
        ConfigCommand::Check { config } => match checked(config) {
            Ok(loaded) => {
                let file = loaded.file.map_or_else(
                    || "no file: development mode".to_owned(),
                    |file| file.display().to_string(),
                );
                say(format_args!("the configuration is good ({file})"));
                exit::DONE
            }
            Err(code) => code,
        },
        ConfigCommand::Show { config, json } => match checked(config) {
            Ok(loaded) => {
                show(&loaded, *json);
                exit::DONE
            }
            Err(code) => code,
        },
        ConfigCommand::Example => {
            say(EXAMPLE.trim_end());
            exit::DONE
        }
    }
}

/// A configuration with which the server would start, as far as that can be told without starting it.
pub(super) fn checked(args: &ConfigArgs) -> Result<Loaded, u8> {
    let loaded = load(&args.sources()).map_err(|error| fail(exit::CONFIGURATION, format!("\n{error}")))?;
    let config = &loaded.config;
    check_filter(&config.log.filter).map_err(|error| fail(exit::CONFIGURATION, error))?;
    for listener in [&config.server.tls, &config.admin.tls].into_iter().flatten() {
        tls::server(listener).map_err(|error| fail(exit::CONFIGURATION, error))?;
    }
    Ok(loaded)
}

fn show(loaded: &Loaded, as_json: bool) {
    if as_json {
        let values = loaded
            .shown
            .iter()
            .map(|shown| json!({ "key": shown.path, "value": shown.value, "origin": shown.origin }));
        say(format_args!("{:#}", json!({ "values": values.collect::<Vec<_>>() })));
        return;
    }
    let width = |of: fn(&crate::config::Shown) -> usize| loaded.shown.iter().map(of).max().unwrap_or(0);
    let (path, value) = (width(|shown| shown.path.len()), width(|shown| shown.value.len()).min(40));
    for shown in &loaded.shown {
        say(format_args!("{:path$}  {:value$}  # {}", shown.path, shown.value, shown.origin));
    }
}

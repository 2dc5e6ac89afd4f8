//! `semel config check|show|example`.

use clap::Subcommand;
use serde_json::json;

use super::{ConfigArgs, exit, fail, say};
use crate::config::{EXAMPLE, Examined, Loaded, Shown, examine};
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
                for warning in &loaded.config.warnings {
                    say(format_args!("warning: {warning}"));
                }
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
    let examined =
        examine(&args.sources()).map_err(|error| fail(exit::CONFIGURATION, format!("\n{error}")))?;
    let Examined { loaded, problems } = examined;
    let mut problems: Vec<String> = problems.iter().map(|problem| format!("\n{problem}")).collect();
    problems.extend(outside(&loaded));
    if problems.is_empty() { Ok(loaded) } else { Err(fail(exit::CONFIGURATION, problems.concat())) }
}

/// What is wrong with what the configuration only names: files, and the words of the log's filter.
fn outside(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    if let Err(error) = check_filter(&config.log.filter) {
        problems.push(format!("\n{}: {error}", place(loaded, |shown| shown.path == "log.filter")));
    }
    let gateway = config.gateway.as_ref().and_then(|gateway| gateway.tls.as_ref());
    let listeners = [
        ("server.tls.", config.server.tls.as_ref()),
        ("admin.tls.", config.admin.tls.as_ref()),
        ("gateway.tls.", gateway),
    ];
    let listeners =
        listeners.into_iter().filter_map(|(section, tls)| Some((section, tls::server(tls?).err()?)));
    let ca = config.targets.ca.as_deref().and_then(|ca| tls::client(Some(ca)).err());
    for (section, error) in listeners.chain(ca.map(|error| ("targets.ca", error))) {
        let file = toml::Value::String(error.file().display().to_string()).to_string();
        let at = place(loaded, |shown| shown.path.starts_with(section) && shown.value == file);
        problems.push(format!("\n{at}: {error}"));
    }
    problems
}

/// Where the first such value stands, and its key.
fn place(loaded: &Loaded, is_it: impl Fn(&Shown) -> bool) -> String {
    let found = loaded.shown.iter().find(|shown| is_it(shown));
    found.map_or_else(String::new, |shown| format!("{}: {}", shown.origin, shown.path))
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
    let width = |of: fn(&Shown) -> usize| loaded.shown.iter().map(of).max().unwrap_or(0);
    let (path, value) = (width(|shown| shown.path.len()), width(|shown| shown.value.len()).min(40));
    for shown in &loaded.shown {
        say(format_args!("{:path$}  {:value$}  # {}", shown.path, shown.value, shown.origin));
    }
}

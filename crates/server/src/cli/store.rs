//! `semel store migrate|check|stats|export|import`: what can be done to a store past the servers: to an embedded one while none has it
//! open, to a database at any time.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use semel_core::query::Count;
use semel_core::{Store, StoreError};
use semel_stores::embedded::{Damage, EmbeddedStore, OpenError, Report, check_told};
use serde_json::json;

use super::{ConfigArgs, carry, config, exit, fail, migrate, say, table};
use crate::config::StoreConfig;
use crate::store::{Location, StoreOpenError};
use crate::telemetry::metrics::Metrics;

/// What `semel store` takes.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Say in which formats a store is, and bring it to where this version can serve it
    ///
    /// A server does it at its start as well; this is for whoever wants it done, and seen, before. Doing it again
    /// finds nothing to do. Works on a database while servers use it.
    Migrate {
        #[command(flatten)]
        store: StoreArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every byte of the log, and say what cannot be read
    ///
    /// Changes nothing, and works on a read-only file system, such as a snapshot. Exit code 1 if there is damage. For
    /// an embedded store only: a database checks its own files.
    Check {
        #[command(flatten)]
        store: StoreArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count records by operation and state
    ///
    /// Changes nothing, and works on a read-only file system. A database is brought up to date first, as by a server.
    Stats {
        #[command(flatten)]
        store: StoreArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write all records into an archive, for another store to import
    ///
    /// Servers may use a database meanwhile; of an embedded store they must have been stopped. The archive holds what the
    /// store holds, results and tokens of claims among it: keep it as safe.
    Export {
        #[command(flatten)]
        store: StoreArgs,
        /// The archive, which must not be there yet; without it standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read an archive into a store
    ///
    /// What is there already stays, so it can be said again. Exit code 1 if something else has a record's place.
    Import {
        #[command(flatten)]
        store: StoreArgs,
        /// The archive; without it standard input
        #[arg(long, short, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Replace what differs: for the last of several imports, while no server uses the store
        #[arg(long)]
        replace: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl StoreCommand {
    const fn store(&self) -> &StoreArgs {
        match self {
            Self::Migrate { store, .. }
            | Self::Check { store, .. }
            | Self::Stats { store, .. }
            | Self::Export { store, .. }
            | Self::Import { store, .. } => store,
        }
    }
}

/// Which store: that of a configuration, or one by its URL.
#[derive(Args, Clone, Debug)]
pub(super) struct StoreArgs {
    /// The configuration file; without it ./semel.toml if it is there, else development mode
    #[arg(long, short, value_name = "FILE", env = "SEMEL_CONFIG")]
    config: Option<PathBuf>,
    /// Where records are kept (`store.url`): embedded:PATH, postgres://…, redis://… or mongodb://…
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Read the configuration as development mode does (`server.development`)
    #[arg(long)]
    dev: bool,
}

pub(super) fn run(command: &StoreCommand) -> u8 {
    let StoreArgs { config, store, dev } = command.store().clone();
    let args = ConfigArgs { config, store, dev, ..ConfigArgs::default() };
    let loaded = match config::checked(&args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, format!("no threads: {error}")),
    };
    let location = match Location::of(&loaded.config.store) {
        Ok(location) => location,
        Err(problems) => return fail(exit::CONFIGURATION, StoreOpenError::Config(problems)),
    };
    match location {
        Location::Memory => fail(
            exit::FAILED,
            "a store in memory lives and ends with its server; ask that: semel records, /metrics",
        ),
        Location::Embedded(folder) => on_folder(command, &folder, &loaded.config.store, &runtime),
        #[cfg(feature = "mongodb")]
        Location::Mongodb(_) => runtime.block_on(opened(command, &loaded.config.store)),
        #[cfg(feature = "postgres")]
        Location::Postgres(_) => runtime.block_on(opened(command, &loaded.config.store)),
        #[cfg(feature = "redis")]
        Location::Redis(_) => runtime.block_on(opened(command, &loaded.config.store)),
    }
}

fn on_folder(
    command: &StoreCommand,
    folder: &Path,
    config: &StoreConfig,
    runtime: &tokio::runtime::Runtime,
) -> u8 {
    match command {
        StoreCommand::Migrate { json, .. } => migrate::run(folder, *json, runtime),
        StoreCommand::Check { json, .. } => check(folder, *json),
        StoreCommand::Stats { json, .. } => {
            let store = match EmbeddedStore::look(folder) {
                Ok(store) => store,
                Err(error) => return fail(exit::FAILED, error),
            };
            let told = runtime.block_on(stats(&store, *json));
            told.unwrap_or_else(|error| fail(exit::FAILED, error))
        }
        // Opening begins a store where there is none: right for an import, and nothing to export.
        StoreCommand::Export { .. } if !folder.is_dir() => {
            fail(exit::FAILED, format_args!("there is no store in {}", folder.display()))
        }
        StoreCommand::Export { .. } | StoreCommand::Import { .. } => {
            runtime.block_on(opened(command, config))
        }
    }
}

/// On a store that is opened as a server opens it.
async fn opened(command: &StoreCommand, config: &StoreConfig) -> u8 {
    if matches!(command, StoreCommand::Check { .. }) {
        return fail(
            exit::USAGE,
            format_args!(
                "check reads the files of an embedded store. {} is a server with means of its own; Semel checks the sum \
                 of each record that it reads",
                config.url
            ),
        );
    }
    // Nobody asks for how many writes shared a sync.
    let batches = Metrics::new("semel", []).store_batches();
    let store = match crate::store::open(config, batches).await {
        Ok(store) => store,
        Err(error) => return fail(exit::FAILED, error),
    };
    let code = match command {
        StoreCommand::Migrate { json, .. } => {
            let told = migrate::told(&*store, config, *json).await;
            told.unwrap_or_else(|error| fail(exit::FAILED, error))
        }
        StoreCommand::Stats { json, .. } | StoreCommand::Check { json, .. } => {
            let told = stats(&*store, *json).await;
            told.unwrap_or_else(|error| fail(exit::FAILED, error))
        }
        StoreCommand::Export { output, .. } => carry::out(&store, output.as_deref()).await,
        StoreCommand::Import { input, replace, json, .. } => {
            carry::into(&store, input.as_deref(), *replace, *json).await
        }
    };
    match store.close().await {
        Ok(()) => code,
        Err(error) => fail(exit::FAILED, error),
    }
}

/// Reads every byte of the log, and then opens it as a server would, to count what is there.
fn check(folder: &Path, as_json: bool) -> u8 {
    let report = match read_all(folder) {
        Ok(report) => report,
        Err(error) => return fail(exit::FAILED, error),
    };
    let records = match EmbeddedStore::look(folder) {
        Ok(store) => Some(store.stats().records),
        // Damage that is reported already may be why.
        Err(_) if !report.is_sound() => None,
        Err(error) => return fail(exit::FAILED, error),
    };
    let damage = &report.damage;
    if as_json {
        let unreadable: Vec<_> = damage.iter().map(in_json).collect();
        let found = json!({
            "store": "embedded", "records": records, "segments": report.segments, "entries": report.entries,
            "bytes": report.bytes, "has_torn_tail": report.has_torn_tail, "unreadable": unreadable,
        });
        say(format_args!("{found:#}"));
    } else {
        for damage in damage {
            eprintln!("semel: {damage}");
        }
        let records = records.map_or_else(|| "a log".to_owned(), |records| format!("{records} records"));
        say(format_args!(
            "{records} in {} segments; {} entries of the log read, {} places cannot be read",
            report.segments,
            report.entries,
            damage.len(),
        ));
        if !report.is_sound() {
            eprintln!("semel: the store is damaged; restore it from a copy");
        }
    }
    if report.is_sound() { exit::DONE } else { exit::FAILED }
}

fn in_json(damage: &Damage) -> serde_json::Value {
    let Damage { file, offset, why, records } = damage;
    let records: Vec<_> = records.iter().map(ToString::to_string).collect();
    json!({ "file": file, "offset": offset, "why": why, "records": records })
}

/// Reads every byte of a store, and shows how far it is.
pub(super) fn read_all(folder: &Path) -> Result<Report, OpenError> {
    let bar = ProgressBar::new(0).with_message("segments read");
    let report = check_told(folder, |read, all| {
        bar.set_length(all);
        bar.set_position(read);
    });
    bar.finish_and_clear();
    report
}

async fn stats(store: &dyn Store, as_json: bool) -> Result<u8, StoreError> {
    let mut counts: Vec<Count> =
        store.counts().await?.into_iter().filter(|count| count.records > 0).collect();
    counts.sort();
    let oldest = store.oldest_pending().await?;
    let age = oldest.value.map(|created| oldest.as_of.since(created));
    if as_json {
        let rows: Vec<_> = counts
            .iter()
            .map(|count| {
                json!({
                    "namespace": count.namespace.as_str(), "operation": count.operation.as_str(),
                    "state": count.state.as_str(), "records": count.records,
                })
            })
            .collect();
        let age = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        say(format_args!("{:#}", json!({ "store": store.name(), "counts": rows, "oldest_pending_ms": age })));
        return Ok(exit::DONE);
    }
    let rows = counts.iter().map(|count| {
        [
            count.namespace.as_str().to_owned(),
            count.operation.to_string(),
            count.state.as_str().to_owned(),
            count.records.to_string(),
        ]
    });
    say(table(&["namespace", "operation", "state", "records"], rows));
    if let Some(age) = age {
        say(format_args!("the oldest pending record has waited for {} s", age.as_secs()));
    }
    Ok(exit::DONE)
}

//! `semel store migrate|check|stats`: what can be done to a store while no server has it open.

use std::sync::Arc;

use clap::Subcommand;
use indicatif::ProgressBar;
use semel_core::query::{Count, Cursor, Query};
use semel_core::{RecordId, Store, StoreError};
use serde_json::json;

use super::{ConfigArgs, config, exit, fail, migrate, say, table};
use crate::store;
use crate::telemetry::metrics::Sizes;

/// What `semel store` takes.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Say in which formats a store is, and bring it to where this version can serve it
    ///
    /// A server does it at its start as well; this is for whoever wants it done, and seen, before. Doing it again
    /// finds nothing to do.
    Migrate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every record, and say which cannot be read
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count records by operation and state
    Stats {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Records that one step of a check reads.
const STEP: usize = semel_core::limits::PAGE_MAX;

pub(super) fn run(command: &StoreCommand) -> u8 {
    let (StoreCommand::Migrate { config, .. }
    | StoreCommand::Check { config, .. }
    | StoreCommand::Stats { config, .. }) = command;
    let loaded = match config::checked(config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, format!("no threads: {error}")),
    };
    let url = &loaded.config.store.url;
    match (store::Location::parse(url), command) {
        (Ok(store::Location::Memory), _) => {
            return fail(
                exit::FAILED,
                "a store in memory lives and ends with its server; ask that: semel records, /metrics",
            );
        }
        (Ok(store::Location::Embedded(folder)), StoreCommand::Migrate { json, .. }) => {
            return migrate::run(&folder, *json, &runtime);
        }
        (Ok(store::Location::Embedded(_)) | Err(_), _) => {}
    }
    runtime.block_on(async {
        let store = match store::open(&loaded.config.store, Sizes::default()) {
            Ok(store) => store,
            Err(error) => return fail(exit::FAILED, error),
        };
        let done = match command {
            // Has been done, or names no store, which opening has said.
            StoreCommand::Migrate { .. } => Ok(exit::DONE),
            StoreCommand::Check { json, .. } => check(&store, *json).await,
            StoreCommand::Stats { json, .. } => stats(&store, *json).await,
        };
        let closed = store.close().await;
        match (done, closed) {
            (Ok(code), Ok(())) => code,
            (Err(error), _) | (Ok(_), Err(error)) => fail(exit::FAILED, error),
        }
    })
}

/// What a check found.
#[derive(Default)]
struct Checked {
    read: u64,
    unreadable: Vec<(RecordId, String)>,
}

async fn check(store: &Arc<dyn Store>, as_json: bool) -> Result<u8, StoreError> {
    let total: u64 = store.counts().await?.iter().map(|count| count.records).sum();
    let bar = ProgressBar::new(total);
    let checked = read_all(&**store, &bar).await?;
    bar.finish_and_clear();
    let Checked { read, unreadable } = &checked;
    if as_json {
        let unreadable: Vec<_> =
            unreadable.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why })).collect();
        say(format_args!("{:#}", json!({ "read": read, "unreadable": unreadable })));
    } else {
        for (id, why) in unreadable {
            eprintln!("semel: {id}: {why}");
        }
        say(format_args!("{read} records read, {} cannot be read", unreadable.len()));
    }
    Ok(if unreadable.is_empty() { exit::DONE } else { exit::FAILED })
}

async fn read_all(store: &dyn Store, bar: &ProgressBar) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = store.search(Query::default(), cursor, STEP).await?;
        for summary in &page.items {
            match store.load(summary.id).await {
                Ok(_) => checked.read += 1,
                // Another failure than of this record would be met again with the next one.
                Err(error) if error.kind() == semel_core::error::StoreErrorKind::Corrupt => {
                    checked.unreadable.push((summary.id, error.to_string()));
                }
                Err(error) => return Err(error),
            }
            bar.inc(1);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(checked);
        }
    }
}

async fn stats(store: &Arc<dyn Store>, as_json: bool) -> Result<u8, StoreError> {
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

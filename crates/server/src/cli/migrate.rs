//! `semel store migrate`: which formats a store is in, what had to be done to it, and that it answers in this version's.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use semel_core::{Store, StoreError};
use semel_stores::embedded::{EmbeddedStore, Options, Recovery, Report};
use serde_json::json;

use super::store::read_all;
use super::{exit, fail, say};
use crate::config::StoreConfig;

/// Migrates the store in this folder. Doing it again finds nothing to do.
pub(super) fn run(folder: &Path, as_json: bool, runtime: &tokio::runtime::Runtime) -> u8 {
    // Every byte is read before anything is changed: what cannot be read is not to be made worse.
    let report = read_all(folder);
    let report = match report {
        Ok(report) => report,
        Err(error) => return fail(exit::FAILED, error),
    };
    if !report.is_sound() {
        report.damage.iter().for_each(|damage| eprintln!("semel: {damage}"));
        return fail(exit::FAILED, "the store is damaged; nothing was changed. Restore it from a copy");
    }
    match runtime.block_on(open_and_count(folder)) {
        Ok((records, recovery)) => {
            tell(
                as_json,
                &in_words(folder, &report, records, recovery),
                &in_json(&report, records, recovery),
            );
            exit::DONE
        }
        Err(why) => fail(exit::FAILED, why),
    }
}

/// Says where a database is that was just opened, which is what migrates it.
pub(super) async fn told(store: &dyn Store, config: &StoreConfig, as_json: bool) -> Result<u8, StoreError> {
    let records: u64 = store.counts().await?.iter().map(|count| count.records).sum();
    let said = format!("{}: up to date, with {records} records", config.url);
    tell(as_json, &said, &json!({ "store": store.name(), "records": records, "is_current": true }));
    Ok(exit::DONE)
}

/// Opening is what migrates: it cuts off what a crash left half written, and refuses what it cannot read.
async fn open_and_count(folder: &Path) -> Result<(u64, Recovery), String> {
    let text = |error: &dyn Display| error.to_string();
    let store = EmbeddedStore::open(&Options::new(folder)).map_err(|error| text(&error))?;
    let recovery = *store.recovery();
    let store: Arc<dyn Store> = Arc::new(store);
    let counts = store.counts().await;
    store.close().await.map_err(|error| text(&error))?;
    let records = counts.map_err(|error| text(&error))?.iter().map(|count| count.records).sum();
    Ok((records, recovery))
}

fn tell(as_json: bool, said: &str, found: &serde_json::Value) {
    if as_json { say(format_args!("{found:#}")) } else { say(said) }
}

fn in_words(folder: &Path, report: &Report, records: u64, recovery: Recovery) -> String {
    let formats =
        |formats: Vec<String>| if formats.is_empty() { "none".to_owned() } else { formats.join(", ") };
    let log = report.log_formats.iter().map(|(format, segments)| format!("{format} ({segments} segments)"));
    let versions =
        report.record_formats.iter().map(|(format, versions)| format!("{format} ({versions} versions)"));
    let found = format!(
        "{}: found {records} records; formats of the log: {}; formats of records: {}",
        folder.display(),
        formats(log.collect()),
        formats(versions.collect()),
    );
    let done = match recovery.torn_bytes {
        0 => "nothing to do".to_owned(),
        torn => {
            format!("cut off {torn} bytes that a crash had left half written; nobody had been told of them")
        }
    };
    let reads = if report.is_current() {
        "everything is in the format of this version"
    } else {
        "this version reads all of them, and writes its own as records change"
    };
    format!("{found}\n{reads}; {done}")
}

fn in_json(report: &Report, records: u64, recovery: Recovery) -> serde_json::Value {
    fn named<F: ToString>(formats: &BTreeMap<F, u64>) -> BTreeMap<String, u64> {
        formats.iter().map(|(format, count)| (format.to_string(), *count)).collect()
    }
    json!({
        "store": "embedded",
        "records": records,
        "log_formats": named(&report.log_formats),
        "record_formats": named(&report.record_formats),
        "is_current": report.is_current(),
        "torn_bytes": recovery.torn_bytes,
        "changed": recovery.torn_bytes > 0,
    })
}

//! `semel store export | semel store import`: from one store into another.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use semel_core::Store;
use serde_json::json;

use super::{exit, fail, say};
use crate::carry::{CarryError, Imported, export, import};

/// Bytes that are gathered before they are written or read.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Writes the store's records into a file, or to standard output.
pub(super) async fn out(store: &Arc<dyn Store>, output: Option<&Path>) -> u8 {
    let bar = bar("exported");
    let told = |records, about| {
        bar.set_length(about);
        bar.set_position(records);
    };
    let exported = match sink(output) {
        Ok(sink) => export(store, BufWriter::with_capacity(BUFFER_BYTES, sink), told).await,
        Err(error) => Err(error.into()),
    };
    bar.finish_and_clear();
    match exported {
        Ok(exported) => {
            // Standard output may be the archive.
            eprintln!("semel: exported {} records", exported.records);
            exit::DONE
        }
        Err(error) => fail(exit::FAILED, in_words(&error)),
    }
}

fn sink(output: Option<&Path>) -> io::Result<Box<dyn Write>> {
    if let Some(path) = output {
        // It holds what the store holds: results, and the tokens of claims that are held.
        return Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?));
    }
    if io::stdout().is_terminal() {
        let message = "it is not for a terminal; say --output FILE, or let semel store import read it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(Box::new(io::stdout()))
}

/// Reads records from a file, or from standard input, into the store.
pub(super) async fn into(store: &Arc<dyn Store>, input: Option<&Path>, replace: bool, as_json: bool) -> u8 {
    let bar = bar("imported");
    let imported = match source(input) {
        Ok(source) => import(store, source, replace, |records| bar.set_position(records)).await,
        Err(error) => Err(error.into()),
    };
    bar.finish_and_clear();
    match imported {
        Ok(imported) => told(&imported, as_json),
        Err(error) => fail(exit::FAILED, in_words(&error)),
    }
}

fn source(input: Option<&Path>) -> io::Result<Box<dyn Read>> {
    if let Some(path) = input {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, File::open(path)?)));
    }
    if io::stdin().is_terminal() {
        let message = "there is none; say --input FILE, or let semel store export write it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())))
}

fn told(imported: &Imported, as_json: bool) -> u8 {
    let Imported { added, replaced, same, different, expired } = *imported;
    if as_json {
        let found = json!({
            "records": imported.records(), "added": added, "replaced": replaced, "same": same,
            "different": different, "expired": expired,
        });
        say(format_args!("{found:#}"));
    } else {
        say(format_args!(
            "imported {} records: {added} added, {replaced} replaced, {same} there already, {expired} expired, \
             {different} left alone",
            imported.records()
        ));
    }
    if different == 0 {
        return exit::DONE;
    }
    fail(
        exit::FAILED,
        format_args!(
            "{different} records of the store are not as they are in the archive, and were left alone; --replace takes \
             the archive's, which is right only while no server uses the store"
        ),
    )
}

fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(what);
    // Without a length, as when an archive is read, it only counts.
    match ProgressStyle::with_template("{msg} {human_pos} records in {elapsed} ({per_sec})") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn in_words(error: &CarryError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

//! The file is the same to the byte, and what is written is read back.

use std::path::Path;

use semel_core::audit;

use super::*;
use crate::codec;
use crate::embedded::disk::sim::SimDisk;
use crate::embedded::testing::request;
use crate::limits::SEGMENT_HEADER_BYTES;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored_bytes/format_2");
    std::fs::read(folder.join(name)).unwrap()
}

fn golden_log() -> Vec<u8> {
    let mut log = golden("00000001.log");
    // Zeros at the end are not checked in.
    log.resize(log.len() + 64, 0);
    log
}

/// The lists of the golden segment, and the number of its store.
fn golden_lists() -> (Built, u64) {
    let log = golden_log();
    let store = long(&log, 16);
    let mut built = Built::default();
    built.read_bytes(&log[SEGMENT_HEADER_BYTES as usize..], 1, store).unwrap();
    assert!(built.end.ended);
    built.finish();
    (built, store)
}

#[test]
fn the_golden_sidecar_is_written_again_byte_for_byte() {
    let (built, store) = golden_lists();
    let mut expected = golden("00000001.index");
    let written = encode(1, store, &built);
    expected.resize(written.len(), 0);
    assert_eq!(written, expected);
    assert_eq!(written.capacity(), written.len(), "its size is known before");
}

#[test]
fn all_sections_are_read_back_as_they_were_written() {
    let (mut built, store) = golden_lists();
    for (at, entry) in (0_u64..).zip(&mut built.entries) {
        entry.wake = (at % 3 == 1).then(|| Timestamp::from_millis(at << 40));
    }
    for sequence in 0..20 {
        let mut entry = audit::Entry::new(audit::Action::Completed, Text::new(["ann", "bob"][sequence % 2]));
        entry.correlation_id = Some(Text::new(&format!("request-{sequence}")));
        let entry = if sequence % 3 == 0 { entry } else { entry.about(&request("key-1")) };
        let mut payload = Vec::new();
        codec::encode_audit(sequence as u64, &entry, &mut payload);
        let line = AuditLine { sequence: sequence as u64, at: Timestamp::ZERO, offset: 4096, len: 80 };
        built.audits.add(line, &codec::glance_audit(&payload).unwrap()).unwrap();
    }
    built.finish();
    let disk = SimDisk::default();
    disk.put("00000001.log", golden_log());
    write(&disk, 1, store, &built).unwrap();
    assert_eq!(built.audits.groups.len(), 4);
    let log = disk.open("00000001.log").unwrap();
    let sidecar = Sidecar::open(&disk, 1, store, &*log).unwrap();
    let entries = (0..SHARDS).flat_map(|shard| sidecar.entries_of(shard).unwrap());
    let without_wake = built.entries.iter().map(|entry| Entry { wake: None, ..*entry });
    assert!(entries.eq(without_wake));
    let waits = (0_u32..).zip(&built.entries).filter_map(|(at, entry)| Some((at, entry.wake?)));
    let waits: Vec<_> = waits.collect();
    assert!(waits.len() > 10);
    assert_eq!(sidecar.waits().unwrap(), waits);
    sidecar.check_rows().unwrap();
    sidecar.check_audits().unwrap();
    let rows: Vec<_> = (0..sidecar.rows()).map(|at| sidecar.row(at).unwrap()).collect();
    assert_eq!(rows, built.rows);
    assert_eq!(sidecar.audits().unwrap(), built.audits.lines);
    let finders: Vec<_> = (0..sidecar.finders()).map(|at| sidecar.finder(at).unwrap()).collect();
    let expected: Vec<_> = built.audits.rows.iter().map(|row| (row.term, row.cell)).collect();
    assert_eq!(finders, expected);
    assert_eq!((&sidecar.groups, sidecar.groups()), (&built.groups, &built.audits.groups[..]));
    assert_eq!((sidecar.summary, sidecar.end), (built.summary, built.end));
}

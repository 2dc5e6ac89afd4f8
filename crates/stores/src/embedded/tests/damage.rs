//! Damage is told, to a check and to whoever asks, and is never taken for absence.

use std::sync::Arc;

use semel_core::error::StoreErrorKind;
use semel_core::id::Key;
use semel_core::query::Query;
use semel_core::store::Store;

use super::{clock, open, options, stepped};
use crate::embedded::EmbeddedStore;
use crate::embedded::check::check_in;
use crate::embedded::disk::Folder;
use crate::embedded::disk::sim::SimDisk;
use crate::embedded::frame::{self, Seat};
use crate::embedded::segment::{LOG_FORMAT, long, word};
use crate::embedded::testing::{completed, request};
use crate::limits::SEGMENT_HEADER_BYTES;

#[tokio::test]
async fn a_check_reads_everything_and_reports_damage() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    for n in 0..100 {
        completed(&store, &format!("key-{n}"), &[7; 400]).await;
    }
    drop(store);
    let mut told = Vec::new();
    let sound = check_in(&disk, |read, all| told.push((read, all))).unwrap();
    assert!(sound.is_sound() && !sound.has_torn_tail, "{sound:?}");
    assert_eq!(sound.entries, 200);
    assert!(sound.is_current(), "{sound:?}");
    let formats = (sound.log_formats[&LOG_FORMAT], sound.record_formats[&crate::codec::FORMAT]);
    assert_eq!(formats, (sound.segments, 200));
    assert_eq!(told.last(), Some(&(sound.segments, sound.segments)), "it says how far it is");
    let mut older = sound.clone();
    older.record_formats.insert(0, 1);
    assert!(!older.is_current());
    disk.flip("00000001.log", 4096 + 40 + 20);
    disk.flip("00000002.log", 4096 + 3000);
    let report = check_in(&disk, |_, _| {}).unwrap();
    let [first, second] = &report.damage[..] else { panic!("{:?}", report.damage) };
    assert_eq!(first.to_string(), "00000001.log at byte 4136: no whole record");
    assert_eq!(second.file, "00000002.log");
    assert!(report.entries >= 198 && report.segments == sound.segments, "it goes on behind it: {report:?}");
}

/// Makes the newest version of a record in a segment one that no version of this program writes, under a checksum that is
/// right. Gives where it lies.
fn spoil(disk: &SimDisk, name: &str, key: &[u8]) -> Option<u64> {
    let mut log = disk.bytes(name);
    let (store, segment) = (long(&log, 16), word(&log, 12));
    let (mut at, mut found) = (SEGMENT_HEADER_BYTES as usize, None);
    while let Some(frame) = frame::parse(&log[at..], Seat { store, segment, offset: at as u32 }) {
        if frame.payload.windows(key.len()).any(|part| part == key) {
            found = Some((at, frame.batch, frame.len()));
        }
        at += frame.len();
    }
    let (at, batch, len) = found?;
    // No name of a lane has such a character. Lists say nothing of lanes.
    let lane = log[at..at + len].windows(4).position(|part| part == b"bank")?;
    log[at + lane] = 1;
    frame::seat(&mut log[at..at + len], Seat { store, segment, offset: at as u32 }, batch);
    disk.put(name, log);
    Some(at as u64)
}

#[tokio::test]
async fn a_frame_of_a_right_checksum_that_no_reading_takes_is_damage_to_a_check_and_corrupt_to_who_reads_it_l13()
 {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    let mut records = Vec::new();
    for n in 100..200 {
        let key = format!("key-{n}");
        stepped(&store, async { records.push(completed(&store, &key, &[7; 400]).await) }).await;
    }
    drop(store);
    let offset = spoil(&disk, "00000001.log", b"key-105").unwrap();
    let report = check_in(&disk, |_, _| {}).unwrap();
    let [damage] = &report.damage[..] else { panic!("{:?}", report.damage) };
    assert_eq!((&*damage.file, damage.offset), ("00000001.log", Some(offset)));
    assert_eq!(damage.why, "stored bytes cannot be read: a value outside its limits");
    assert_eq!(report.entries, 199, "it goes on behind it");
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    // Its lists are made of what a glance sees.
    (0..20).for_each(|_| store.upkeep(None));
    assert_eq!(store.load(records[5].id()).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(store.load(records[6].id()).await.unwrap().value.as_ref(), Some(&records[6]));
}

#[tokio::test]
async fn a_damaged_record_is_an_error_of_its_page_and_never_absent_from_it_l13() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    for n in 0..200 {
        stepped(&store, completed(&store, &format!("key-{n}"), &[7; 400])).await;
    }
    (0..20).for_each(|_| store.upkeep(None));
    drop(store);
    let damaged = request("key-60");
    let key = damaged.key().as_str().as_bytes();
    for name in disk.list().unwrap().iter().filter(|name| name.strip_suffix(".log").is_some()) {
        let bytes = disk.bytes(name);
        let found = bytes.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
        found.for_each(|(offset, _)| disk.flip(name, offset));
    }
    let report = check_in(&disk, |_, _| {}).unwrap();
    assert!(report.damage.iter().any(|damage| damage.records == [damaged.id()]), "{report:?}");
    let store = open(&disk, &clock);
    let of = |key: &str| Query { key: Some(Key::try_new(key).unwrap()), ..Query::default() };
    let errors = [
        store.load(damaged.id()).await.unwrap_err(),
        store.search(of("key-60"), None, 10).await.unwrap_err(),
        store.search(Query::default(), None, 200).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        let said = error.to_string();
        assert!(said.contains(&damaged.id().to_string()) && said.contains(".log, cannot be read"), "{said}");
    }
    assert_eq!(store.search(of("key-61"), None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn lists_that_end_before_their_segment_does_are_damage_and_no_shorter_page_l13() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    for n in 0..8 {
        stepped(&store, completed(&store, &format!("key-{n}"), b"x")).await;
    }
    // The segment is being written to, and nobody has read it yet.
    disk.flip("00000001.log", 4096 + 3000);
    let error = store.search(Query::default(), None, 10).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
}

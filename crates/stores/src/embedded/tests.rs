//! The store over real and simulated disks.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use semel_core::audit::{Action, Entry};
use semel_core::error::StoreErrorKind;
use semel_core::query::AuditQuery;
use semel_core::record::Text;
use semel_core::store::{Inserted, Replaced, Store};
use semel_core::{Record, Timestamp, Version};

use crate::clock::SteppedClock;
use crate::embedded::check::check_in;
use crate::embedded::disk::Folder;
use crate::embedded::disk::look::Looking;
use crate::embedded::disk::sim::SimDisk;
use crate::embedded::engine::is_settled;
use crate::embedded::index::tag_of;
use crate::embedded::store::open_engine;
use crate::embedded::testing::{
    LEASE, RETENTION, claim, claimed, complete, completed, release, replaced, request,
};
use crate::embedded::{EmbeddedStore, OpenErrorKind, Options};
use crate::limits::SEGMENT_BYTES_MIN;

mod damage;
mod waiting;

fn clock() -> SteppedClock {
    SteppedClock::at(Timestamp::from_millis(1_000_000))
}

fn options(clock: &SteppedClock) -> Options {
    Options::new("simulated").segment_bytes(SEGMENT_BYTES_MIN * 2).clock(Arc::new(clock.clone()))
}

fn open(disk: &SimDisk, clock: &SteppedClock) -> EmbeddedStore {
    EmbeddedStore::open_in(Arc::new(disk.clone()), &options(clock)).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let running = claimed(&store, "running", 1).await;
    let done = completed(&store, "done", b"42").await;
    store.close().await.unwrap();
    drop(store);
    let store = open(&disk, &clock);
    assert_eq!(store.load(running.id()).await.unwrap().value, Some(running));
    assert_eq!(store.load(done.id()).await.unwrap().value, Some(done));
    assert_eq!(store.recovery().records, 2);
    assert_eq!(store.recovery().torn_bytes, 0);
}

#[tokio::test]
async fn many_segments_are_filled_and_read_back() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let mut records = Vec::new();
    for n in 0..300_u16 {
        records.push(completed(&store, &format!("key-{n}"), &[n.to_le_bytes()[0]; 400]).await);
    }
    drop(store);
    let store = open(&disk, &clock);
    assert!(store.recovery().segments > 5, "{:?}", store.recovery());
    for record in records {
        assert_eq!(store.load(record.id()).await.unwrap().value, Some(record));
    }
}

#[tokio::test]
async fn of_many_concurrent_inserts_one_wins_and_the_others_see_what_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open_at(folder.path()).unwrap());
    let racers: Vec<_> = (0..50)
        .map(|token| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let write = claim(&request("contended"), token, None, store.time());
                store.insert(write).await.unwrap().value
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Inserted::Inserted(record) => winners.push(record),
            Inserted::Occupied(record) => seen.push(record),
        }
    }
    assert_eq!(winners.len(), 1);
    assert!(seen.iter().all(|record| *record == winners[0]));
}

#[tokio::test]
async fn a_stale_version_changes_nothing_l6() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let running = claimed(&store, "key", 1).await;
    let done = replaced(store.replace(complete(&running, b"1"), running.version()).await);
    let late = store.replace(complete(&running, b"2"), running.version()).await.unwrap().value;
    assert_eq!(late, Replaced::Conflict(Some(Arc::clone(&done))));
    assert!(!store.remove(done.id(), Version::default()).await.unwrap());
    assert_eq!(store.load(done.id()).await.unwrap().value, Some(done));
}

#[tokio::test]
async fn a_fence_rises_across_removal_and_restart_l2() {
    let (disk, clock) = (SimDisk::default(), clock());
    let mut fence = 0;
    for _ in 0..4 {
        let store = open(&disk, &clock);
        let done = completed(&store, "key", b"x").await;
        assert!(done.fence().0 > fence);
        fence = done.fence().0;
        assert!(store.remove(done.id(), done.version()).await.unwrap());
        assert_eq!(store.load(done.id()).await.unwrap().value, None);
    }
}

#[tokio::test]
async fn what_is_due_is_found_by_lane_also_after_reopening() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let running = claimed(&store, "key", 1).await;
    completed(&store, "other", b"x").await;
    assert_eq!(store.next_due().await.unwrap().value, running.due());
    assert_eq!(store.lanes().await.unwrap(), []);
    clock.advance(LEASE);
    drop(store);
    let store = open(&disk, &clock);
    let lane = running.request().lane().cloned();
    assert_eq!(store.lanes().await.unwrap(), std::slice::from_ref(&lane));
    assert_eq!(store.take_due(lane, 10).await.unwrap().value, [Arc::clone(&running)]);
    assert_eq!(store.take_due(None, 10).await.unwrap().value, []);
}

#[tokio::test]
async fn expired_records_come_back_as_occupied_until_they_are_swept() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let done = completed(&store, "key", b"x").await;
    assert_eq!(store.sweep(100).await.unwrap(), 0);
    clock.advance(RETENTION);
    let write = claim(&request("key"), 2, None, store.time());
    let occupied = store.insert(write).await.unwrap().value;
    assert_eq!(occupied, Inserted::Occupied(Arc::clone(&done)));
    assert_eq!(store.sweep(100).await.unwrap(), 1);
    assert_eq!(store.load(done.id()).await.unwrap().value, None);
    assert_eq!(store.counts().await.unwrap(), []);
}

#[tokio::test]
async fn a_record_larger_than_a_segment_is_refused_before_it_is_written() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let running = claimed(&store, "key", 1).await;
    let before = disk.operations();
    let error = store.replace(complete(&running, &vec![0; 40_000]), running.version()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(disk.operations(), before);
    replaced(store.replace(complete(&running, b"small"), running.version()).await);
}

#[tokio::test]
async fn a_failed_sync_is_not_tried_again_and_believed() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let before = claimed(&store, "before", 1).await;
    disk.fail_sync_of("00000001.log");
    let error = store.insert(claim(&request("key"), 1, None, store.time())).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InDoubt);
    let later = store.insert(claim(&request("later"), 1, None, store.time())).await.unwrap_err();
    assert_eq!(later.kind(), StoreErrorKind::NotApplied { retry_helps: false });
    assert!(store.load(before.id()).await.is_err(), "nothing is answered from memory after it");
    drop(store);
    disk.power_cycle(1);
    let store = open(&disk, &clock);
    assert_eq!(store.load(before.id()).await.unwrap().value, Some(before));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    let done = completed(&store, "done", b"x").await;
    let mut refused = 0;
    for n in 0..2_000 {
        if n == 50 {
            disk.no_space(true);
        }
        if n == 1_500 {
            disk.no_space(false);
        }
        let write = claim(&request(&format!("key-{n}")), 1, None, store.time());
        match store.insert(write).await {
            Ok(_) => assert!(store.ready().await.is_ok()),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: true }, "{error}");
                assert!(store.ready().await.is_err());
                refused += 1;
            }
        }
        assert_eq!(store.load(done.id()).await.unwrap().value.as_ref(), Some(&done));
    }
    assert!((1..1_450).contains(&refused), "{refused} refused");
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_gets_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_at(folder.path()).unwrap();
    let error = EmbeddedStore::open_at(folder.path()).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::InUse);
    let owner = format!("is in use by process {}", std::process::id());
    assert!(error.to_string().contains(&owner), "{error}");
    drop(store);
    EmbeddedStore::open_at(folder.path()).unwrap();
}

#[tokio::test]
async fn a_bad_record_in_the_middle_is_reported_and_not_cut_off_silently() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    for n in 0..4 {
        claimed(&store, &format!("key-{n}"), 1).await;
    }
    drop(store);
    // The first record of the log, behind the header of the segment and the mark.
    disk.flip("00000001.log", 4096 + 40 + 20);
    let error = EmbeddedStore::open_in(Arc::new(disk.clone()), &options(&clock)).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Corrupt);
    assert!(error.to_string().contains("damaged at byte 4136"), "{error}");
}

#[tokio::test]
async fn of_two_ids_with_one_tag_the_one_that_cannot_be_read_makes_room_for_its_next_version_l6() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = open(&disk, &clock);
    // Found by trying some two million.
    let (first, second) = ("key-1383920", "key-1740613");
    let running = claimed(&store, first, 1).await;
    let other = completed(&store, second, b"other").await;
    assert_eq!(other.id().as_bytes()[..5], running.id().as_bytes()[..5], "one shard, one tag");
    let places = || {
        let shard = store.engine.shard(running.id()).lock();
        shard.table.places(tag_of(running.id())).collect::<Vec<_>>()
    };
    let before = places();
    let released = replaced(store.replace(release(&running), running.version()).await);
    assert!(is_settled(&released));
    let at = *places().iter().find(|place| !before.contains(place)).unwrap();
    disk.flip("00000001.log", at.offset() as usize + 20);
    // It is decided on from memory, so that nobody notices.
    let again = claim(&request(first), 2, Some(&released), store.time());
    let again = replaced(store.replace(again, released.version()).await);
    assert_eq!(places(), before, "the version that was replaced is not found any more");
    let done = replaced(store.replace(complete(&again, b"done"), again.version()).await);
    store.engine.cache.remove(&done.id());
    assert_eq!(store.load(done.id()).await.unwrap().value, Some(done));
}

#[tokio::test]
async fn a_hint_file_that_is_damaged_or_older_than_its_segment_is_made_anew() {
    let (disk, clock) = (SimDisk::default(), clock());
    let options = options(&clock);
    let stepwise = || EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options).unwrap();
    let mut records = Vec::new();
    {
        let store = open(&disk, &clock);
        for n in 0..200 {
            records.push(completed(&store, &format!("key-{n}"), &[7; 400]).await);
        }
    }
    let store = stepwise();
    for _ in 0..20 {
        store.upkeep(None);
    }
    drop(store);
    let first = disk.bytes("00000001.index");
    disk.put("00000002.index", first);
    disk.flip("00000003.index", 40);
    let entries = 96 + 256 * 8 + 100;
    disk.flip("00000004.index", entries);
    let store = stepwise();
    assert_eq!(store.recovery().segments_read, 3, "the second, the third and the last");
    for record in records {
        assert_eq!(store.load(record.id()).await.unwrap().value, Some(record));
    }
}

#[tokio::test]
async fn when_it_is_quiet_the_log_comes_down_to_what_is_current() {
    let (disk, clock) = (SimDisk::default(), clock());
    let options = options(&clock);
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options).unwrap();
    for n in 0..400 {
        stepped(&store, completed(&store, &format!("key-{n}"), &[7; 400])).await;
    }
    let at_work = store.stats();
    (0..200).for_each(|_| store.upkeep(None));
    assert_eq!(store.stats(), at_work, "claims that were completed are too little to copy for");
    let quiet = Some(store.newest_segment());
    (0..200).for_each(|_| store.upkeep(quiet));
    let settled = store.stats();
    assert_eq!(settled.live_bytes, at_work.live_bytes);
    assert!(settled.segments < at_work.segments, "{at_work:?} {settled:?}");
    (0..200).for_each(|_| store.upkeep(quiet));
    assert_eq!(store.stats(), settled, "copied once, and that is the end of it");
    for n in 0..400 {
        assert!(store.load(request(&format!("key-{n}")).id()).await.unwrap().value.is_some(), "key-{n}");
    }
}

#[tokio::test]
async fn merging_does_not_bring_the_dead_back_and_readers_keep_what_they_read() {
    let (disk, clock) = (SimDisk::default(), clock());
    let options = options(&clock);
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options).unwrap();
    let done = |key: &str, body: &[u8]| {
        let key = key.to_owned();
        let body = body.to_vec();
        let store = &store;
        async move { stepped(store, completed(store, &key, &body)).await }
    };
    let kept = done("kept", b"kept").await;
    let entry = Entry::new(Action::Resolved, Text::new("operator"));
    stepped(&store, store.append_audit(vec![entry])).await.unwrap();
    let removed = done("removed", b"removed").await;
    stepped(&store, store.remove(removed.id(), removed.version())).await.unwrap();
    for n in 0..400 {
        let record = done(&format!("key-{n}"), &[7; 400]).await;
        stepped(&store, store.remove(record.id(), record.version())).await.unwrap();
        store.upkeep(None);
    }
    assert!(!disk.list().unwrap().contains(&"00000001.log".to_owned()), "the first segment was merged");
    assert!(store.stats().segments < 8, "{:?}", store.stats());
    assert_eq!(store.load(kept.id()).await.unwrap().value.as_ref(), Some(&kept));
    drop(store);
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options).unwrap();
    assert_eq!(store.load(kept.id()).await.unwrap().value, Some(kept));
    assert_eq!(store.load(removed.id()).await.unwrap().value, None);
    assert_eq!(store.recovery().records, 1);
    let audits = store.audit(AuditQuery::default(), None, 10).await.unwrap().items;
    assert_eq!(audits.iter().map(|entry| entry.action).collect::<Vec<_>>(), [Action::Resolved]);
}

/// Does the log's work until a future is ready.
async fn stepped<T>(store: &EmbeddedStore, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        for _ in 0..8 {
            if let Poll::Ready(given) = future.as_mut().poll(context) {
                return Poll::Ready(given);
            }
            store.step();
        }
        Poll::Pending
    })
    .await
}

#[tokio::test]
async fn a_waiter_is_told_of_a_change_and_leaves_nothing_behind() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = Arc::new(open(&disk, &clock));
    let running = claimed(&*store, "key", 1).await;
    let waiter = {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tokio::spawn(
            async move { store.changed(running.id(), running.version(), LEASE).await.unwrap().value },
        )
    };
    tokio::task::yield_now().await;
    assert_eq!(store.watchers(), 1);
    let done = replaced(store.replace(complete(&running, b"x"), running.version()).await);
    assert_eq!(waiter.await.unwrap(), Some(done));
    assert_eq!(store.watchers(), 0, "a lock map that only grows");
}

/// What the stored bytes below hold.
async fn write_samples(store: &EmbeddedStore) -> Vec<Arc<Record>> {
    let mut records = vec![claimed(store, "running", 3).await];
    for n in 0..60_u8 {
        records.push(completed(store, &format!("key-{n}"), &[n; 300]).await);
    }
    let removed = completed(store, "removed", b"x").await;
    assert!(store.remove(removed.id(), removed.version()).await.unwrap());
    let actor = Text::new("operator");
    store.append_audit(vec![Entry::new(Action::Discarded, actor)]).await.unwrap();
    records
}

/// A later version that cannot read these has to bring a migration. They are written anew, for a new version of the format
/// only, with `SEMEL_WRITE_STORED_BYTES=1`.
async fn stored_bytes_are_read(format: &str, is_newest: bool) -> EmbeddedStore {
    let clock = clock();
    let written = SimDisk::default();
    let store = open(&written, &clock);
    let expected = write_samples(&store).await;
    drop(store);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored_bytes").join(format);
    let names = ["00000001.log", "00000001.index"];
    if is_newest && std::env::var_os("SEMEL_WRITE_STORED_BYTES").is_some() {
        let store = EmbeddedStore::open_stepwise(Arc::new(written.clone()), &options(&clock)).unwrap();
        store.upkeep(None);
        std::fs::create_dir_all(&folder).unwrap();
        for name in written.list().unwrap().iter().filter(|name| !name.contains("spare")) {
            let mut bytes = written.bytes(name);
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let disk = SimDisk::default();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if name.strip_suffix(".log").is_some() {
            // Zeros at the end are not checked in.
            bytes.resize(SEGMENT_BYTES_MIN as usize * 2, 0);
        }
        disk.put(&name, bytes);
    }
    assert!(names.iter().all(|name| folder.join(name).exists()));
    let store = open(&disk, &clock);
    let read = if is_newest { 1 } else { 2 };
    assert_eq!(store.recovery().segments_read, read, "only a sidecar of the newest format is used");
    assert_eq!(store.recovery().records, expected.len() as u64);
    for record in expected {
        assert_eq!(store.load(record.id()).await.unwrap().value, Some(record));
    }
    let removed = request("removed").id();
    assert_eq!(store.load(removed).await.unwrap().value, None);
    let audits = store.audit(AuditQuery::default(), None, 10).await.unwrap().items;
    assert_eq!(audits.iter().map(|entry| entry.action).collect::<Vec<_>>(), [Action::Discarded]);
    store
}

#[tokio::test]
async fn stored_bytes_of_format_1_are_read() {
    let store = stored_bytes_are_read("format_1", false).await;
    let old = store.audit(AuditQuery::default(), None, 10).await.unwrap().items.remove(0);
    assert_eq!((old.key, old.operation, old.tags.len()), (None, None, 0), "they did not say more");
}

#[tokio::test]
async fn stored_bytes_of_format_2_are_read() {
    stored_bytes_are_read("format_2", true).await;
}

#[tokio::test]
async fn the_audit_log_is_not_carried_round_and_round_and_frees_its_segments_when_it_is_forgotten() {
    let (disk, clock) = (SimDisk::default(), clock());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    for n in 0..40 {
        let entry = |m| Entry::new(Action::Claimed, Text::new(&format!("actor {n} {m} {}", "x".repeat(200))));
        stepped(&store, store.append_audit((0..10).map(entry).collect())).await.unwrap();
        store.upkeep(None);
    }
    for _ in 0..40 {
        store.upkeep(None);
    }
    let kept = store.stats().segments;
    assert!(kept > 3, "{:?}", store.stats());
    let names =
        || disk.list().unwrap().into_iter().filter(|name| !name.contains("spare")).collect::<Vec<_>>();
    let before = names();
    for _ in 0..40 {
        store.upkeep(None);
    }
    assert_eq!(names(), before, "nothing is left to do");
    clock.advance(std::time::Duration::from_millis(1));
    let forget = || stepped(&store, store.forget_audit(store.time(), 150));
    assert_eq!((forget().await.unwrap(), forget().await.unwrap()), (150, 150));
    let left = store.audit(AuditQuery::default(), None, 1_000).await.unwrap().items.len();
    assert_eq!(left, 100);
    for _ in 0..40 {
        store.upkeep(None);
    }
    assert!(store.stats().segments < kept, "{:?}", store.stats());
    assert_eq!(store.audit(AuditQuery::default(), None, 1_000).await.unwrap().items.len(), left);
    drop(store);
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    assert_eq!(store.audit(AuditQuery::default(), None, 1_000).await.unwrap().items.len(), left);
}

/// A store of several segments, closed.
async fn several_segments(clock: &SteppedClock) -> SimDisk {
    let disk = SimDisk::default();
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(clock)).unwrap();
    for n in 0..240 {
        stepped(&store, completed(&store, &format!("key-{n}"), &[7; 400])).await;
    }
    (0..20).for_each(|_| store.upkeep(None));
    assert!(store.stats().segments > 3);
    drop(store);
    disk
}

#[tokio::test]
async fn a_segment_that_is_lost_at_either_end_or_in_the_middle_is_missed() {
    let clock = clock();
    let disk = several_segments(&clock).await;
    let last = disk.list().unwrap().into_iter().rfind(|name| name.strip_suffix(".log").is_some()).unwrap();
    for lost in ["00000001.log", "00000002.log", last.as_str()] {
        for with_sidecar in [false, true] {
            let disk = several_segments(&clock).await;
            disk.remove(lost).unwrap();
            if with_sidecar && lost != last {
                disk.remove(&lost.replace(".log", ".index")).unwrap();
            }
            let error = EmbeddedStore::open_in(Arc::new(disk.clone()), &options(&clock)).unwrap_err();
            assert_eq!(error.kind(), OpenErrorKind::Corrupt);
            let said = format!("segment {lost} of the log is missing");
            assert!(error.to_string().contains(&said), "{error}");
            let report = check_in(&disk, |_, _| {}).unwrap();
            assert!(report.damage.iter().any(|damage| damage.file == lost), "{report:?}");
        }
    }
    for name in disk.list().unwrap().iter().filter(|name| name.strip_suffix(".log").is_some()) {
        disk.remove(name).unwrap();
    }
    for left in ["all", "no manifest", "only spares"] {
        let error = EmbeddedStore::open_in(Arc::new(disk.clone()), &options(&clock)).unwrap_err();
        assert!(error.to_string().contains("segment 00000001.log of the log is missing"), "{left}: {error}");
        assert!(!check_in(&disk, |_, _| {}).unwrap().is_sound(), "{left}");
        let goes = |name: &String| match left {
            "all" => name == "manifest",
            _ => name.strip_suffix(".index").is_some(),
        };
        disk.list().unwrap().iter().filter(|name| goes(name)).for_each(|name| disk.remove(name).unwrap());
    }
}

#[tokio::test]
async fn a_manifest_that_is_damaged_or_older_than_the_log_is_reported() {
    let clock = clock();
    let disk = several_segments(&clock).await;
    let open = |disk: &SimDisk| EmbeddedStore::open_in(Arc::new(disk.clone()), &options(&clock));
    let whole = disk.bytes("manifest");
    disk.put("manifest", vec![0; whole.len()]);
    let error = open(&disk).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (OpenErrorKind::Corrupt, "manifest is damaged".into()));
    assert!(!check_in(&disk, |_, _| {}).unwrap().is_sound());
    // Only the copy before the last is left.
    let newer = usize::from(whole[4096 + 32] > whole[32]) * 4096;
    let mut older = whole.clone();
    older[newer] ^= 1;
    disk.put("manifest", older);
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("is not in the manifest, and holds records"), "{error}");
    assert!(!check_in(&disk, |_, _| {}).unwrap().is_sound());
    disk.put("manifest", whole);
    assert!(check_in(&disk, |_, _| {}).unwrap().is_sound());
    open(&disk).unwrap();
}

#[tokio::test]
async fn whoever_looks_at_a_store_of_before_the_manifest_makes_none() {
    let clock = clock();
    let disk = several_segments(&clock).await;
    disk.remove("manifest").unwrap();
    let before = disk.operations();
    let (engine, recovery) = open_engine(Arc::new(Looking(disk.clone())), &options(&clock)).unwrap();
    assert_eq!((recovery.records, disk.operations()), (240, before));
    drop(engine);
    drop(EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap());
    assert!(disk.list().unwrap().contains(&"manifest".to_owned()), "a server makes one");
}

#[tokio::test]
async fn a_crash_between_merge_and_removal_leaves_remains_that_are_no_loss() {
    let clock = clock();
    let disk = several_segments(&clock).await;
    let (log, index) = (disk.bytes("00000001.log"), disk.bytes("00000001.index"));
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    let quiet = Some(store.newest_segment());
    (0..100).for_each(|_| store.upkeep(quiet));
    drop(store);
    assert!(!disk.list().unwrap().contains(&"00000001.log".to_owned()), "it was merged");
    disk.put("00000001.log", log);
    disk.put("00000001.index", index);
    assert!(check_in(&disk, |_, _| {}).unwrap().is_sound());
    let store = EmbeddedStore::open_stepwise(Arc::new(disk.clone()), &options(&clock)).unwrap();
    assert_eq!(store.recovery().records, 240);
    assert!(!disk.list().unwrap().iter().any(|name| name.starts_with("00000001.")));
}

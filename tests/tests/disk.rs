//! Disks that fill, folders that cannot be written, folders that somebody else has: a clear word, and nothing lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::http::Answer;
use crate::server::{self, Server};
use crate::target::Target;
use crate::wait::eventually;

/// What makes two answers the same (L10).
type Same = (u16, Vec<(String, Vec<u8>)>, bytes::Bytes);

/// A file system of its own, in memory; gone when dropped.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// One of this size. `None`, said aloud, where this process may not mount; under CI that is a failure.
    pub(crate) fn of(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        if run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path(folder.path())]) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        println!("skipped: this process may not mount a file system");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro", path(self.path())]));
    }

    pub(crate) fn of_size(&self, mebibytes: u32) {
        assert!(run("mount", &["-o", &format!("remount,size={mebibytes}m"), path(self.path())]));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", path(self.path())]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

async fn echo(server: &Server, key: &str, payload: &str) -> Answer {
    server.execute("echo", key, payload, &[]).await
}

const CONFIG: &str = "[server]\ndevelopment = true\n";

#[tokio::test]
async fn a_disk_that_fills_in_the_middle_of_a_batch_refuses_writes_loses_nothing_and_recovers_when_there_is_room()
 {
    // Room for two segments, not for a third.
    let Some(disk) = Disk::of(170) else { return };
    let mut server = Server::start_in(disk.path(), CONFIG).await;
    let payload = format!("\"{}\"", "x".repeat(900_000));
    let mut acknowledged = BTreeMap::new();
    let mut refused = None;
    for n in 0..250 {
        let key = format!("key-{n}");
        let answer = echo(&server, &key, &payload).await;
        if answer.status != 200 {
            refused = Some((key, answer));
            break;
        }
        acknowledged.insert(key, answer.without_the_exchange());
    }
    let (key, answer) = refused.expect("the disk fills");
    assert_eq!(answer.refusal(), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE".to_owned()));
    assert!(answer.header("retry-after").is_some());
    for (key, first) in &acknowledged {
        assert_eq!(
            echo(&server, key, &payload).await.without_the_exchange(),
            *first,
            "{key}, disk full (L10)"
        );
    }
    server.signal(rustix::process::Signal::KILL);
    server.ended().await;
    disk.of_size(400);
    let server = Server::start_in(disk.path(), CONFIG).await;
    for (key, first) in &acknowledged {
        assert_eq!(echo(&server, key, &payload).await.without_the_exchange(), *first, "{key}, after it (L4)");
    }
    // Its claim may have been durable when its outcome found no room: then it is unknown or runs, and never both.
    let again = echo(&server, &key, &payload).await;
    assert!(matches!(again.status, 200 | 202 | 409), "{}", again.status);
    assert_eq!(echo(&server, "afterwards", "1").await.status, 200);
}

async fn readiness(server: &Server) -> (u16, Option<String>) {
    let answer = server.get("/readyz", &[]).await;
    (answer.status, answer.json()["reason"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn readyz_says_that_the_disk_is_full_until_there_is_room_and_needs_no_write_to_find_out() {
    let Some(disk) = Disk::of(170) else { return };
    let server = Server::start_in(disk.path(), CONFIG).await;
    let large = format!("\"{}\"", "x".repeat(900_000));
    assert_eq!(readiness(&server).await, (200, None));
    let mut filled = 0;
    while echo(&server, &format!("key-{filled}"), &large).await.status == 200 {
        filled += 1;
        assert!(filled < 250, "the disk fills");
    }
    let full = (503, Some("out_of_space".to_owned()));
    assert_eq!(readiness(&server).await, full);
    // What is small may still fit the end of the log; that does not make it ready.
    for n in 0..20 {
        echo(&server, &format!("small-{n}"), "1").await;
        assert_eq!(readiness(&server).await, full);
    }
    assert_eq!(echo(&server, "key-0", &large).await.status, 200, "what is stored is replayed");
    disk.of_size(400);
    eventually("it is ready again", async || (readiness(&server).await == (200, None)).then_some(())).await;
    assert_eq!(echo(&server, "afterwards", &large).await.status, 200);
    server.stop().await;
}

/// Executes this many keys, and gives what each was answered.
async fn acknowledged(server: &Server, keys: usize) -> BTreeMap<String, Same> {
    let mut acknowledged = BTreeMap::new();
    for n in 0..keys {
        let key = format!("key-{n}");
        let answer = server.execute("charge", &key, "{}", &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        acknowledged.insert(key, answer.without_the_exchange());
    }
    acknowledged
}

fn unavailable() -> (u16, String) {
    (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE".to_owned())
}

/// Under a tracer that lets one synced write of the log fail, and no other: what a disk does that has dropped what it could not
/// write, and is well again. `None`, said aloud, where there is none that may; under CI that is a failure.
fn with_a_sync_that_fails(folder: &Path) -> Option<tokio::process::Command> {
    // The tracer as a grandchild, so that the server's process is ours. Past the system's cache the write is the sync.
    let tracer = "strace -D -f -qq -o /dev/null -e trace=pwrite64,fdatasync -e signal=none";
    if !run("sh", &["-c", &format!("{tracer} true")]) {
        assert!(std::env::var_os("CI").is_none(), "CI must have strace, and be able to trace");
        println!("skipped: there is no strace, or it may not trace");
        return None;
    }
    let log = folder.join("data/00000001.log");
    let inject = format!("{tracer} -P '{}' -e inject=pwrite64,fdatasync:error=EIO:when=50", path(&log));
    let script = format!("set -- {inject} \"$0\" \"$@\"; exec \"$@\"");
    Some(server::command_of(&script, &["serve"], folder))
}

#[tokio::test]
async fn a_failed_sync_that_is_tried_again_is_not_believed_and_nothing_acknowledged_is_lost_l4_l12() {
    let folder = tempfile::tempdir().unwrap();
    let Some(command) = with_a_sync_that_fails(folder.path()) else { return };
    let target = Target::start().await;
    let config = target.operation("charge", "/json", "");
    let config = format!("[store]\nurl = \"embedded:data\"\n[audit]\ntraffic = false\n{config}");
    std::fs::write(folder.path().join("semel.toml"), &config).unwrap();
    let mut server = Server::run(command).await.unwrap();
    let mut acknowledged = BTreeMap::new();
    let failed = loop {
        let key = format!("key-{}", acknowledged.len());
        let answer = server.execute("charge", &key, "{}", &[]).await;
        if answer.status != 200 {
            break answer;
        }
        acknowledged.insert(key, answer.without_the_exchange());
        assert!(acknowledged.len() < 100, "a sync fails");
    };
    assert_eq!(failed.refusal(), unavailable());
    assert!(failed.header("retry-after").is_some() && acknowledged.len() > 10);
    let ran = target.seen().len();
    assert!(
        (0..=1).contains(&(ran - acknowledged.len())),
        "the last one may have run, and nobody was told so"
    );
    // The next sync would succeed, and prove nothing: the kernel may have dropped what the failed one was to write.
    assert_eq!(server.execute("charge", "another", "{}", &[]).await.refusal(), unavailable());
    assert_eq!(readiness(&server).await, (503, Some("store_failed".to_owned())));
    for (key, first) in &acknowledged {
        let again = server.execute("charge", key, "{}", &[]).await;
        let same = again.status == 503 || again.without_the_exchange() == *first;
        assert!(same, "{key}, while it is failed: {}", again.text());
    }
    assert_eq!(target.seen().len(), ran, "nothing runs on the strength of a claim that is not durable");
    server.signal(rustix::process::Signal::KILL);
    server.ended().await;
    let server = Server::run(server::command(&["serve"], folder.path())).await.unwrap();
    for (key, first) in &acknowledged {
        let again = server.execute("charge", key, "{}", &[]).await;
        assert_eq!(again.without_the_exchange(), *first, "{key}, after it");
    }
    assert_eq!(server.execute("charge", "another", "{}", &[]).await.status, 200);
    assert_eq!(target.seen().len(), ran + 1);
    server.stop().await;
}

#[tokio::test]
async fn a_write_that_fails_when_the_work_has_run_is_no_success_and_never_a_second_run_l7_l12() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let config = target.operation("charge", "/gated", "lease = \"1s\"");
    let config = format!("[store]\nurl = \"embedded:data\"\n{config}");
    std::fs::write(folder.path().join("semel.toml"), &config).unwrap();
    // Above the limit a write fails, if the signal that says so is ignored.
    let command = server::command_of("trap '' XFSZ; exec \"$0\" \"$@\"", &["serve"], folder.path());
    let mut server = Server::run(command).await.unwrap();
    let acknowledged = acknowledged(&server, 20).await;
    target.close();
    let (cut, ()) = tokio::join!(server.execute("charge", "cut", "{}", &[]), async {
        target.arrived(21).await;
        // Its claim is durable, and its work is running; nothing can be written from here on.
        let limit = Rlimit { current: Some(4_096), maximum: None };
        prlimit(Some(server.process()), Resource::Fsize, limit).unwrap();
        target.open();
    });
    assert_eq!(cut.refusal(), unavailable());
    assert!(cut.text().contains("may have been executed"), "it is not said that nothing was: {}", cut.text());
    assert_eq!(server.execute("charge", "later", "{}", &[]).await.refusal(), unavailable());
    prlimit(Some(server.process()), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    assert_eq!(server.execute("charge", "later", "{}", &[]).await.refusal(), unavailable());
    assert_eq!(target.seen().len(), 21, "what was not claimed has not run");
    server.signal(rustix::process::Signal::KILL);
    server.ended().await;
    let server = Server::run(server::command(&["serve"], folder.path())).await.unwrap();
    for (key, first) in &acknowledged {
        let again = server.execute("charge", key, "{}", &[]).await;
        assert_eq!(again.without_the_exchange(), *first, "{key}, after it");
    }
    eventually("the lapse of what was cut off", async || {
        let answer = server.execute("charge", "cut", "{}", &[]).await;
        assert!(matches!(answer.status, 202 | 409), "{}", answer.text());
        (answer.status == 409 && answer.refusal().1 == "IDEMPOTENCY_OUTCOME_UNKNOWN").then_some(())
    })
    .await;
    assert_eq!(target.seen().len(), 21, "L7");
    server.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_the_start_with_a_clear_word() {
    let Some(disk) = Disk::of(200) else { return };
    let server = Server::start_in(disk.path(), CONFIG).await;
    assert_eq!(echo(&server, "before", "1").await.status, 200);
    server.stop().await;
    disk.read_only();
    let data = format!("embedded:{}", disk.path().join("data").display());
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = server::command(&["serve"], elsewhere.path());
    command.env("SEMEL__STORE__URL", data);
    let said = Server::run(command).await.err().expect("it does not start");
    assert!(said.contains("data") && said.to_lowercase().contains("read-only"), "{said}");
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Server::start_in(folder.path(), CONFIG).await;
    let data = format!("embedded:{}", folder.path().join("data").display());
    let mut command = server::command(&["serve"], folder.path());
    command.env("SEMEL__STORE__URL", data);
    let said = Server::run(command).await.err().expect("it does not start");
    assert!(said.contains("another process") || said.contains("in use"), "{said}");
}

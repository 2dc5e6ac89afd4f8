//! Disks that fill, folders that cannot be written, folders that somebody else has: a clear word, and nothing lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::http::Answer;
use crate::server::{self, Server};

/// A file system of its own, in memory; gone when dropped.
struct Disk(TempDir);

impl Disk {
    /// One of this size. `None`, said aloud, where this process may not mount; under CI that is a failure.
    fn of(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        if run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path(folder.path())]) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        println!("skipped: this process may not mount a file system");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro", path(self.path())]));
    }

    fn of_size(&self, mebibytes: u32) {
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

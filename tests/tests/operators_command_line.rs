//! `semel records`, `semel store` and `semel openapi`: what they print, and their exit codes.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::server::{Server, command};

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(arguments, folder).output().await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(output)))
}

/// `semel records` against a server.
async fn records(server: &Server, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let admin = server.admin_url();
    let mut all = vec!["records", arguments[0], "--admin-url", admin.as_str()];
    all.extend(&arguments[1..]);
    run(folder.path(), &all).await
}

#[tokio::test]
async fn records_are_listed_shown_and_settled_from_a_shell() {
    let server = Server::development().await;
    server.execute("echo", "done", "{}", &[]).await;
    for key in ["lost-1", "lost-2", "lost-3"] {
        server.execute("fail", key, r#"{"status":500}"#, &[]).await;
    }
    let listed = records(&server, &["ls"]).await;
    assert_eq!(code(&listed), 0, "{}", err(&listed));
    assert_eq!(out(&listed).lines().count(), 5, "a header and four records: {}", out(&listed));
    let page = json(&records(&server, &["ls", "--state", "unknown,dead", "--json"]).await);
    let record = page["records"].as_array().unwrap().iter().find(|record| record["key"] == "lost-1").unwrap();
    let (id, version) = (record["id"].as_str().unwrap(), record["version"].as_str().unwrap());
    let shown = records(&server, &["show", id]).await;
    assert!(
        out(&shown).contains("unknown") && out(&shown).contains("answer_inconclusive"),
        "{}",
        out(&shown)
    );
    for row in ["subject", "attempt id", "lane", "repeats"] {
        assert!(!out(&shown).contains(row), "it has none: {}", out(&shown));
    }
    let unseen = records(&server, &["discard", id, "--reason", "x"]).await;
    assert_eq!(code(&unseen), 2, "it names no version");
    let stale = records(&server, &["discard", id, "--seen", "1.77", "--reason", "x"]).await;
    assert_eq!(code(&stale), 11);
    assert!(err(&stale).contains("VERSION_CONFLICT"), "{}", err(&stale));
    let result = r#"{"n":9007199254740993}"#;
    let resolve =
        ["resolve", id, "--seen", version, "--completed", "--result", result, "--reason", "seen", "--yes"];
    let resolved = records(&server, &resolve).await;
    assert_eq!(code(&resolved), 0, "{}", err(&resolved));
    let replay = server.execute("fail", "lost-1", r#"{"status":500}"#, &[]).await;
    assert_eq!(replay.text(), r#"{"status":"completed","result":{"n":9007199254740993}}"#);
    let shown = records(&server, &["show", id]).await;
    assert!(out(&shown).contains(result), "how the result begins: {}", out(&shown));
    let missing = records(&server, &["show", "00000000000000000000000000000000"]).await;
    assert_eq!(code(&missing), 11);
    assert!(err(&missing).contains("NOT_FOUND"), "{}", err(&missing));
}

#[tokio::test]
async fn a_record_is_shown_with_who_sent_it_and_for_whom() {
    let source = "[server]\ndevelopment = true\n[[webhooks]]\nsource = \"shop\"\nprovider = \"none\"\ninsecure = true\n\
                  identity = [\"/id\"]\ntarget = \"builtin:echo\"\n";
    let server = Server::start(source).await;
    let json_header = [("content-type", "application/json")];
    let url = format!("{}/v1/webhooks/shop", server.url());
    assert_eq!(server.http().post(&url, &json_header, r#"{"id":"e-1"}"#).await.unwrap().status, 200);
    let page = json(&records(&server, &["ls", "--namespace", "webhook", "--key", "e-1", "--json"]).await);
    let event = records(&server, &["show", page["records"][0]["id"].as_str().unwrap()]).await;
    let row = |name: &str| {
        let found = out(&event).lines().find_map(|line| line.trim().strip_prefix(name));
        found.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(row("subject"), "shop/default", "{}", out(&event));
    assert_eq!((row("accepted"), row("lane")), ("true".to_owned(), "webhook:shop/default".to_owned()));
    assert!(row("tries").ends_with(" of 12") && row("fingerprint").starts_with("1:"), "{}", out(&event));
}

#[tokio::test]
async fn many_records_are_changed_only_after_somebody_said_yes() {
    let server = Server::development().await;
    for key in ["lost-1", "lost-2", "lost-3"] {
        server.execute("fail", key, r#"{"status":500}"#, &[]).await;
    }
    let discard = async |arguments: &[&str]| {
        let mut all = vec!["discard"];
        all.extend(arguments);
        records(&server, &all).await
    };
    let preview = discard(&["--state", "unknown", "--dry-run"]).await;
    assert_eq!((code(&preview), out(&preview)), (0, "3 records would be changed\n"), "{}", err(&preview));
    let unasked = discard(&["--state", "unknown", "--reason", "a drill"]).await;
    assert_eq!(code(&unasked), 2, "nobody is there to be asked: {}", err(&unasked));
    assert_eq!(code(&discard(&["--reason", "everything", "--yes"]).await), 2, "no filter");
    assert_eq!(code(&discard(&["--state", "unknown", "--yes"]).await), 2, "no reason");
    let done = discard(&["--state", "unknown", "--reason", "a drill", "--yes"]).await;
    assert_eq!((code(&done), out(&done)), (0, "3 records changed, 0 not\n"), "{}", err(&done));
    let again = discard(&["--state", "unknown", "--reason", "a drill", "--yes", "--json"]).await;
    assert_eq!((code(&again), &json(&again)["matched"]), (0, &0.into()));
}

#[tokio::test]
async fn a_store_is_checked_and_counted_while_no_server_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), "[server]\ndevelopment = true\n").await;
    server.execute("echo", "done", "{}", &[]).await;
    server.execute("fail", "lost", r#"{"status":500}"#, &[]).await;
    let url = format!("embedded:{}", folder.path().join("data").display());
    let store = async |what: &str, more: &[&str]| {
        let mut all = vec!["store", what, "--store", url.as_str(), "--dev"];
        all.extend(more);
        run(folder.path(), &all).await
    };
    let busy = store("stats", &[]).await;
    assert!(code(&busy) == 1 && !err(&busy).is_empty(), "a server has it open");
    assert!(server.stop().await.success());
    let stats = json(&store("stats", &["--json"]).await);
    let counts = stats["counts"].as_array().unwrap();
    assert!(counts.len() == 2 && counts.iter().all(|count| count["records"] == 1), "{stats}");
    let table = store("stats", &[]).await;
    assert!(out(&table).contains("echo") && out(&table).contains("unknown"), "{}", out(&table));
    let checked = store("check", &[]).await;
    let said = out(&checked);
    assert_eq!(code(&checked), 0, "{}", err(&checked));
    assert!(said.starts_with("2 records in 1 segments; "), "{said}");
    assert!(said.ends_with(" entries of the log read, 0 places cannot be read\n"), "{said}");
    let migrated = store("migrate", &[]).await;
    assert_eq!(code(&migrated), 0, "{}", err(&migrated));
    let said = "found 2 records; formats of the log: 1 (1 segments); formats of records: 1 (4 versions)\n\
                everything is in the format of this version; nothing to do\n";
    assert!(out(&migrated).ends_with(said), "{}", out(&migrated));
    let again = json(&store("migrate", &["--json"]).await);
    assert_eq!(
        (&again["changed"], &again["records"], &again["is_current"]),
        (&false.into(), &2.into(), &true.into())
    );
    let memory = run(folder.path(), &["store", "stats", "--store", "memory:", "--dev"]).await;
    assert_eq!(code(&memory), 1);
    let elsewhere = ["store", "check", "--store", "postgres://u:hunter2@db/x", "--dev"];
    let elsewhere = run(folder.path(), &elsewhere).await;
    assert!(code(&elsewhere) != 0 && !err(&elsewhere).contains("hunter2"), "{}", err(&elsewhere));
}

/// What lies in a folder, to see that nothing was changed.
fn contents(folder: &std::path::Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name(), std::fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn whoever_looks_at_a_store_changes_nothing_and_a_wrong_path_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = async |what: &str, path: &std::path::Path| {
        let url = format!("embedded:{}", path.display());
        run(folder.path(), &["store", what, "--store", &url, "--dev"]).await
    };
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letter.txt"), "Dear").unwrap();
    for what in ["check", "stats", "migrate"] {
        for path in [folder.path().join("nowhere"), other.clone(), other.join("letter.txt")] {
            let told = store(what, &path).await;
            assert!(code(&told) == 1, "{what} {}", path.display());
            assert!(err(&told).contains("there is no store here"), "{what}: {}", err(&told));
        }
    }
    assert!(!folder.path().join("nowhere").exists(), "none is begun");
    assert_eq!(contents(&other).len(), 1);
    let server = Server::start_in(folder.path(), "[server]\ndevelopment = true\n").await;
    server.execute("echo", "done", "{}", &[]).await;
    server.kill().await;
    let data = folder.path().join("data");
    let before = contents(&data);
    for what in ["check", "stats"] {
        let told = store(what, &data).await;
        assert_eq!(code(&told), 0, "{what}: {}", err(&told));
        assert!(contents(&data) == before, "{what} changes nothing");
    }
    // A copy, without the file that a server locks.
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for (name, bytes) in before.iter().filter(|(name, _)| name != "lock") {
        std::fs::write(copy.join(name), bytes).unwrap();
    }
    assert_eq!(code(&store("check", &copy).await), 0);
    assert!(!copy.join("lock").exists());
}

#[tokio::test]
async fn a_damaged_record_is_named_by_the_check_l13() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), "[server]\ndevelopment = true\n").await;
    for n in 0..3 {
        server.execute("echo", &format!("key-{n}"), "{}", &[]).await;
    }
    assert!(server.stop().await.success());
    let segment = folder.path().join("data/00000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The first record: behind the header of the segment and the mark.
    bytes[4096 + 40 + 20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let url = format!("embedded:{}", folder.path().join("data").display());
    let check = ["store", "check", "--store", &url, "--dev"];
    let told = run(folder.path(), &check).await;
    assert!(code(&told) == 1 && err(&told).contains("00000001.log at byte 4136"), "{}", err(&told));
    let found = json(&run(folder.path(), &[&check[..], &["--json"]].concat()).await);
    assert_eq!(found["unreadable"][0]["offset"], 4136, "{found}");
    assert!(found["entries"].as_u64().unwrap() >= 5, "it reads on behind it: {found}");
}

#[tokio::test]
async fn a_migration_says_what_it_found_and_did_and_a_second_one_finds_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let url = format!("embedded:{}", data.display());
    let migrate = async || run(folder.path(), &["store", "migrate", "--store", &url, "--dev"]).await;
    let nothing = migrate().await;
    assert!(code(&nothing) == 1 && err(&nothing).contains("there is no store here"), "{}", err(&nothing));
    assert!(!data.exists(), "and none is begun");
    let server = Server::start_in(folder.path(), "[server]\ndevelopment = true\n").await;
    server.execute("echo", "done", "{}", &[]).await;
    let busy = migrate().await;
    assert!(code(&busy) == 1 && err(&busy).contains("in use by"), "{}", err(&busy));
    assert!(server.stop().await.success());
    let first = migrate().await;
    assert!(code(&first) == 0 && out(&first).contains("found 1 records"), "{}", err(&first));
    assert_eq!(out(&migrate().await), out(&first), "done again, it finds the same");
    let segment = data.join("00000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The first record: behind the header of the segment and the mark.
    bytes[4096 + 32 + 20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let damaged = migrate().await;
    assert!(code(&damaged) == 1 && err(&damaged).contains("nothing was changed"), "{}", err(&damaged));
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

#[tokio::test]
async fn the_document_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run(folder.path(), &["openapi"]).await;
    assert_eq!((code(&printed), out(&printed)), (0, semel_api::openapi::document().as_str()));
}

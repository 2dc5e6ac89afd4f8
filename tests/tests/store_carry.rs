//! Moving from one store to another with `semel store export | semel store import`, while duplicates keep being refused.

use std::path::Path;

use crate::http::Answer;
use crate::server::{Server, command, command_of};
use crate::shared_store::Kind;
use crate::target::Target;
use crate::wait::eventually;

/// Keys that have run before the move.
const KEYS: usize = 30;

/// As the guide has it: one command's output into the other.
async fn carry(from: &str, to: &str, how: &str, folder: &Path) -> String {
    let script = format!(r#"set -e; "$0" store export --store "$1" | "$0" store import --store "$2" {how}"#);
    let output = command_of(&script, &[from, to], folder).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

async fn charge(server: &Server, key: &str) -> Answer {
    server.execute("charge", key, r#"{"amount":1}"#, &[]).await
}

async fn check_moved(from: &str, to: &str, ends_first: bool) {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let charge_config = target.operation("charge", "/json", "");
    // Nobody is there yet who could do it.
    let later = |target: &str| format!("[[operations]]\nname = \"later\"\ntarget = \"{target}\"\n");
    let nobody = later("http://127.0.0.1:9/");
    let mut old = Some(Server::start_on(from, &(charge_config.clone() + &nobody)).await);
    let mut before = Vec::new();
    for n in 0..KEYS {
        before.push(charge(old.as_ref().unwrap(), &format!("order-{n}")).await);
    }
    let accepted =
        old.as_ref().unwrap().execute("later", "later", "{}", &[("prefer", "respond-async")]).await;
    assert_eq!(accepted.status, 202);
    if ends_first {
        old.take().unwrap().stop().await;
    }
    let said = carry(from, to, "", folder.path()).await;
    assert!(said.contains(&format!("exported {} records", KEYS + 1)), "{said}");
    assert!(said.contains(&format!("{} added", KEYS + 1)), "{said}");
    if let Some(old) = old {
        // The old store still serves: duplicates are refused, and new keys run.
        assert_eq!(charge(&old, "order-0").await.body, before[0].body);
        before.push(charge(&old, &format!("order-{KEYS}")).await);
        assert!(old.stop().await.success());
        let said = carry(from, to, "--replace", folder.path()).await;
        assert!(said.contains("1 added"), "what has run meanwhile: {said}");
    }
    let (runs, later) = (target.seen().len(), target.operation("later", "/text", ""));
    let new = Server::start_on(to, &(charge_config + &later)).await;
    for (n, first) in before.iter().enumerate() {
        let again = charge(&new, &format!("order-{n}")).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "order-{n}");
        assert_eq!((again.status, &again.body), (first.status, &first.body), "L10: order-{n}");
    }
    let other = new.execute("charge", "order-0", r#"{"amount":2}"#, &[]).await;
    assert_eq!(other.refusal().1, "IDEMPOTENCY_PARAMETER_MISMATCH");
    eventually("what was accepted there is done here (L9)", async || {
        (new.execute("later", "later", "{}", &[]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(target.seen().len(), runs + 1, "L7: nothing else has run");
}

#[tokio::test]
async fn from_a_database_into_a_folder_while_the_database_serves() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let folder = tempfile::tempdir().unwrap();
    check_moved(&store.url(), &format!("embedded:{}", folder.path().display()), false).await;
}

#[tokio::test]
async fn from_a_folder_into_a_database() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let folder = tempfile::tempdir().unwrap();
    check_moved(&format!("embedded:{}", folder.path().display()), &store.url(), true).await;
}

#[tokio::test]
async fn from_redis_into_mongodb_while_redis_serves() {
    let (Some(from), Some(to)) = (Kind::Redis.fresh().await, Kind::Mongodb.fresh().await) else { return };
    check_moved(&from.url(), &to.url(), false).await;
}

#[tokio::test]
async fn from_mongodb_into_redis() {
    let (Some(from), Some(to)) = (Kind::Mongodb.fresh().await, Kind::Redis.fresh().await) else { return };
    check_moved(&from.url(), &to.url(), true).await;
}

#[tokio::test]
async fn from_one_database_into_another_while_it_serves() {
    let (Some(from), Some(to)) = (Kind::Postgres.fresh().await, Kind::Postgres.fresh().await) else { return };
    check_moved(&from.url(), &to.url(), false).await;
}

#[tokio::test]
async fn an_archive_in_a_file_is_for_its_owner_only_and_no_store_is_begun_to_export_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let output = command(arguments, folder.path()).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["store", "export", "--store", "embedded:nothing", "--output", "a"]).await;
    assert!(code == Some(1) && said.contains("there is no store in nothing"), "{said}");
    assert!(!folder.path().join("nothing").exists());
    let data = format!("embedded:{}", folder.path().join("data").display());
    let server = Server::start_on(&data, "[server]\ndevelopment = true\n").await;
    assert_eq!(server.execute("count", "one", r#"{"name":"a"}"#, &[]).await.status, 200);
    let (code, said) = run(&["store", "export", "--store", &data, "--output", "a"]).await;
    assert!(code == Some(1) && said.contains("is in use by process"), "a server has it open: {said}");
    server.stop().await;
    let (code, said) = run(&["store", "export", "--store", &data, "--output", "a"]).await;
    assert_eq!(code, Some(0), "{said}");
    let mode = std::fs::metadata(folder.path().join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, said) = run(&["store", "export", "--store", &data, "--output", "a"]).await;
    assert!(code == Some(1) && said.contains("exists"), "{said}");
    let whole = std::fs::read(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("half"), &whole[..whole.len() / 2]).unwrap();
    let (code, said) = run(&["store", "import", "--store", "embedded:there", "--input", "half"]).await;
    assert!(code == Some(1) && said.contains("it ends before its end"), "{said}");
    let (code, said) = run(&["store", "import", "--store", "embedded:there", "--input", "a", "--json"]).await;
    assert_eq!(code, Some(0), "{said}");
}

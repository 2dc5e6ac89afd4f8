//! The commands of the documents work as printed: every block marked `sh test=server` is run against a real server, and
//! what it prints is what the block after it says.
//!
//! The blocks of one document share a server and run in order, as a reader would run them. In an expected `json` block the
//! text `…` stands for any value. Blocks marked `sh test=webhooks` run against a server with the document's own configuration, its blocks
//! marked `toml test=webhooks`, whose targets are an inbox of the test; `kafka` and `jobs` see to what is marked so. Blocks marked `sh test=stores` run without a server, in a folder in which one has been,
//! with databases of the test's own for those of the document.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::inbox::Inbox;
use crate::server::{Server, binary, command};
use crate::shared_store::Kind;
use crate::wait::eventually;

mod jobs;
mod kafka;

/// Stands for any value in what is expected.
const ANY: &str = "…";

/// The info string of a block that is run.
const RUN: &str = "sh test=server";

/// The info string of a block that is run on stores.
const RUN_ON_STORES: &str = "sh test=stores";

/// The info string of a block that is run on a server with the document's configuration, and of that.
const RUN_ON_WEBHOOKS: &str = "sh test=webhooks";
const WEBHOOKS: &str = "toml test=webhooks";

/// What the documents take from the environment.
const SECRETS: [(&str, &str); 5] = [
    ("XENDIT_CALLBACK_TOKEN", "xnd-callback-token"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_stripe_signing_secret"),
    ("GITHUB_WEBHOOK_SECRET", "It's a Secret to Everybody"),
    ("CARRIER_SECRET", "the carrier's secret"),
    ("HOOKS_SECRET", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
];

/// Where the documents say that targets are.
const TARGETS: &str = "http://127.0.0.1:9000";

/// The databases of the documents.
const DATABASES: [&str; 2] = ["postgres://semel@db.internal/ledger", "postgres://semel@db2.internal/ledger"];

/// Where the documents say that the doors and the operators' listener are.
const DOORS: &str = "http://127.0.0.1:8080";
const ADMIN: &str = "http://127.0.0.1:8081";

/// A command of a document, and what it prints.
struct Step {
    line: usize,
    script: String,
    expected: Option<Expected>,
}

enum Expected {
    Json(String),
    Text(String),
}

/// A fenced block: the line of its fence, what stands after that, the text inside.
struct Block<'a> {
    line: usize,
    info: &'a str,
    text: String,
}

fn blocks(document: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text = lines.by_ref().map_while(|(_, line)| (!line.starts_with("```")).then_some(line));
            blocks.push(Block { line: at + 1, info, text: text.collect::<Vec<_>>().join("\n") });
        }
    }
    blocks
}

fn steps(document: &str, info: &str) -> Vec<Step> {
    let blocks = blocks(document);
    let after = blocks.iter().skip(1).map(Some).chain([None]);
    let runnable = blocks.iter().zip(after).filter(|(block, _)| block.info == info);
    runnable
        .map(|(block, after)| {
            let end = block.line + block.text.lines().count() + 1;
            // Only a block that follows at once is what the command prints.
            let next = after.filter(|next| next.line == end + 1);
            let expected = next.and_then(|next| match next.info {
                "json" => Some(Expected::Json(next.text.clone())),
                "text" => Some(Expected::Text(next.text.clone())),
                _ => None,
            });
            Step { line: block.line, script: block.text.clone(), expected }
        })
        .collect()
}

fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(text), _) if text == ANY => true,
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(name, value)| found.get(name).is_some_and(|other| matches(value, other)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(one, other)| matches(one, other))
        }
        _ => expected == found,
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The documents that hold commands to run.
fn documents() -> Vec<PathBuf> {
    let guide = std::fs::read_dir(root().join("docs/guide")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> = guide.chain([root().join("README.md")]).collect();
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.sort();
    documents
}

/// Runs a command as a reader would, with the server's addresses for those of the document.
async fn run(script: &str, server: &Server) -> String {
    let mut script = script.replace(DOORS, &server.url());
    if script.contains(ADMIN) {
        script = script.replace(ADMIN, &server.admin_url());
    }
    let admin = server.admin_url();
    run_in(&script, Path::new("."), &[("SEMEL_ADMIN_URL", admin.as_str())]).await
}

async fn run_in(script: &str, folder: &Path, environment: &[(&str, &str)]) -> String {
    let programs = binary().parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).env("PATH", path).current_dir(folder);
    shell.envs(environment.iter().copied());
    let output = shell.output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\nfailed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The configuration that a document prints in its blocks with this info string.
fn config(document: &str, info: &str) -> String {
    let blocks = blocks(document).into_iter().filter(|block| block.info == info);
    blocks.map(|block| block.text).collect::<Vec<_>>().join("\n")
}

/// What is wrong with what was printed, if anything is.
fn difference(at: &str, expected: &Expected, printed: &str) -> Option<String> {
    match expected {
        Expected::Text(text) => (printed.trim() != text.trim())
            .then(|| format!("{at}: expected\n{text}\nbut it printed\n{printed}")),
        Expected::Json(text) => {
            let read = |text: &str| {
                serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{at}: {error} in {text}"))
            };
            let same = matches(&read(text), &read(printed));
            (!same).then(|| format!("{at}: expected\n{text}\nbut it printed\n{printed}"))
        }
    }
}

fn compare(at: &str, expected: &Expected, printed: &str) {
    if let Some(difference) = difference(at, expected, printed) {
        panic!("{difference}");
    }
}

#[tokio::test]
async fn the_commands_of_the_documents_print_what_the_documents_say() {
    let mut ran = 0;
    for path in documents() {
        let steps = steps(&std::fs::read_to_string(&path).unwrap(), RUN);
        if steps.is_empty() {
            continue;
        }
        let server = Server::development().await;
        for Step { line, script, expected } in steps {
            let at = format!("{}:{line}", path.strip_prefix(root()).unwrap().display());
            let printed = run(&script, &server).await;
            if let Some(expected) = expected {
                compare(&at, &expected, &printed);
            }
            ran += 1;
        }
    }
    assert!(ran >= 8, "only {ran} commands were found");
}

#[tokio::test]
async fn the_commands_of_the_documents_on_stores_print_what_the_documents_say() {
    let (Some(one), Some(other)) = (Kind::Postgres.fresh().await, Kind::Postgres.fresh().await) else {
        return;
    };
    let mut ran = 0;
    for path in documents() {
        let steps = steps(&std::fs::read_to_string(&path).unwrap(), RUN_ON_STORES);
        if steps.is_empty() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let data = format!("embedded:{}", folder.path().join("semel-data").display());
        let server = Server::start_on(&data, "[server]\ndevelopment = true\n").await;
        assert_eq!(server.execute("count", "one", r#"{"name":"a"}"#, &[]).await.status, 200);
        server.stop().await;
        for Step { line, script, expected } in steps {
            let at = format!("{}:{line}", path.strip_prefix(root()).unwrap().display());
            // Its parameters are quoted, as the shell wants it.
            let quoted = |url: String| format!("'{url}'");
            let script =
                script.replace(DATABASES[1], &quoted(other.url())).replace(DATABASES[0], &quoted(one.url()));
            let printed = run_in(&script, folder.path(), &[]).await;
            if let Some(expected) = expected {
                compare(&at, &expected, &printed);
            }
            ran += 1;
        }
    }
    assert!(ran >= 3, "only {ran} commands were found");
}

#[tokio::test]
async fn the_commands_of_the_documents_on_webhooks_print_what_the_documents_say() {
    let mut ran = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        let config = config(&text, WEBHOOKS);
        if config.is_empty() {
            continue;
        }
        let inbox = Inbox::open().await;
        let folder = tempfile::tempdir().unwrap();
        let config = config.replace(TARGETS, &inbox.url(""));
        std::fs::write(folder.path().join("semel.toml"), config).unwrap();
        let mut serve = command(&["serve"], folder.path());
        serve.envs(SECRETS);
        let server = Server::run(serve).await.unwrap_or_else(|log| panic!("it does not start:\n{log}"));
        let admin = server.admin_url();
        let environment = [&SECRETS[..], &[("SEMEL_ADMIN_URL", admin.as_str())]].concat();
        for Step { line, script, expected } in steps(&text, RUN_ON_WEBHOOKS) {
            let at = format!("{}:{line}", path.strip_prefix(root()).unwrap().display());
            let script = script.replace(DOORS, &server.url()).replace(ADMIN, &admin);
            // What is delivered is delivered a moment later: a reader would look again.
            eventually(&at, async || {
                let printed = run_in(&script, folder.path(), &environment).await;
                let difference = expected.as_ref().and_then(|expected| difference(&at, expected, &printed));
                if let Some(difference) = &difference {
                    println!("{difference}");
                }
                difference.is_none().then_some(())
            })
            .await;
            ran += 1;
        }
        eventually("all four partners' events are delivered", async || (inbox.events() >= 4).then_some(()))
            .await;
    }
    assert!(ran >= 6, "only {ran} commands were found");
}

#[test]
fn a_command_is_compared_with_the_block_that_follows_it_at_once() {
    let document = "x\n```sh test=server\na\nb\n```\n```json\n{}\n```\n```sh\nc\n```\n```sh test=server\nd\n```\n\n```json\n1\n```\n";
    let steps = steps(document, RUN);
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[0].line, steps[0].script.as_str()), (2, "a\nb"));
    assert!(matches!(&steps[0].expected, Some(Expected::Json(text)) if text == "{}"));
    assert!(steps[1].expected.is_none(), "a blank line lies between");
}

#[test]
fn any_value_matches_an_ellipsis_and_nothing_else_does() {
    let check = |expected: &str, found: &str, same: bool| {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(matches(&read(expected), &read(found)), same, "{expected} and {found}");
    };
    check(r#"{"id":"…","n":[1,2]}"#, r#"{"n":[1,2],"id":{"x":1}}"#, true);
    check(r#"{"id":"…"}"#, "{}", false);
    check("{}", r#"{"id":1}"#, false);
    check("[1]", "[1,2]", false);
    check("1", "2", false);
}

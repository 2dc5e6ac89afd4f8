//! The commands of the documents on `[[consumers]]`, against a real broker: blocks marked `toml test=kafka` are the server's
//! configuration, those marked `sh test=kafka` are run in order.
//!
//! Of Kafka's programs there is none here. In the place of its producer stands a script that notes what it was given; what
//! it was given is sent.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{
    ADMIN, DOORS, Expected, Step, TARGETS, binary, config, difference, documents, root, run_in, steps,
};
use crate::consumers::{Topic, brokers};
use crate::inbox::Inbox;
use crate::server::Server;
use crate::wait::eventually;

const CONFIG: &str = "toml test=kafka";
const RUN: &str = "sh test=kafka";
/// What the documents call their broker, topic and group.
const NAMES: [&str; 3] = ["127.0.0.1:9092", "orders.received", "order-processor"];
/// What stands in the place of Kafka's producer, and where it notes what it was given.
const PRODUCER: &str = "kafka-console-producer.sh";
const NOTED: &str = "produced";

/// A folder of programs that has it.
fn programs(folder: &Path) -> String {
    let programs = folder.join("bin");
    std::fs::create_dir(&programs).unwrap();
    let (program, noted) = (programs.join(PRODUCER), folder.join(NOTED));
    let script = format!("#!/bin/sh\n{{ echo \"$@\"; cat; }} > '{}'\n", noted.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = binary().parent().unwrap();
    format!("{}:{}:{}", programs.display(), server.display(), std::env::var("PATH").unwrap())
}

/// Sends what the producer was given, as it would with these arguments: headers before a tabulator, then the payload.
async fn send(noted: &str, topic: &Topic, brokers: &str) -> usize {
    let mut lines = noted.lines();
    let arguments =
        format!("--bootstrap-server {brokers} --topic {} --property parse.headers=true", topic.name);
    assert_eq!(lines.next(), Some(arguments.as_str()));
    let mut sent = 0;
    for line in lines {
        let (headers, payload) = line.split_once('\t').expect("headers, and a payload");
        let headers: Vec<(&str, Option<&str>)> = headers
            .split(',')
            .map(|header| header.split_once(':').unwrap())
            .map(|(name, value)| (name, Some(value)))
            .collect();
        topic.send(&headers, Some(payload)).await;
        sent += 1;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_documents_on_kafka_print_what_the_documents_say() {
    let Some(brokers) = brokers() else { return };
    let (mut ran, mut sent) = (0, 0);
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.contains(CONFIG) {
            continue;
        }
        let (topic, inbox) = (Topic::new(&brokers), Inbox::open().await);
        // What others have sent to the documents' topic is none of this test's business.
        let own = [brokers.as_str(), &topic.name, &topic.group];
        let text = NAMES.iter().zip(own).fold(text, |text, (name, own)| text.replace(name, own));
        let config = config(&text, CONFIG).replace(TARGETS, &inbox.url(""));
        let server = Server::start(&config).await;
        let folder = tempfile::tempdir().unwrap();
        let path_of_programs = programs(folder.path());
        for Step { line, script, expected } in steps(&text, RUN) {
            let at = format!("{}:{line}", path.strip_prefix(root()).unwrap().display());
            let script = script.replace(DOORS, &server.url()).replace(ADMIN, &server.admin_url());
            let environment = [("PATH", path_of_programs.as_str())];
            let Some(expected) = expected else {
                run_in(&script, folder.path(), &environment).await;
                let noted = std::fs::read_to_string(folder.path().join(NOTED)).unwrap();
                sent += send(&noted, &topic, &brokers).await;
                ran += 1;
                continue;
            };
            // What is consumed is consumed a moment later: a reader would look again.
            eventually(&at, async || differs(&at, &script, folder.path(), &environment, &expected).await)
                .await;
            ran += 1;
        }
        topic.all_committed().await;
        eventually("what was sent twice is delivered", async || (inbox.events() == 1).then_some(())).await;
        assert!(server.stop().await.success());
    }
    assert!(ran >= 4 && sent >= 3, "only {ran} commands were found, which sent {sent} messages");
}

/// Nothing, if it prints what the document says.
async fn differs(
    at: &str,
    script: &str,
    folder: &Path,
    environment: &[(&str, &str)],
    expected: &Expected,
) -> Option<()> {
    // Nothing to be found is nothing printed, so far.
    let printed = run_in(&format!("{{ {script}\n}} || true"), folder, environment).await;
    let difference = difference(at, expected, &printed);
    if let Some(difference) = &difference {
        println!("{difference}");
    }
    difference.is_none().then_some(())
}

/// `cargo install --path crates/server --features kafka` is too long for a test; what it names is there.
#[test]
fn what_the_documents_install_can_be_built() {
    let mut found = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.starts_with("cargo install ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| *word == name);
                at.and_then(|at| words.get(at + 1).copied())
            };
            let folder = root().join(after("--path").expect("a path"));
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            assert!(manifest.contains("[[bin]]\nname = \"semel\""), "{line}");
            for feature in after("--features").into_iter().flat_map(|features| features.split(',')) {
                assert!(manifest.contains(&format!("\n{feature} = [")), "{line}: {feature}");
            }
            found += 1;
        }
    }
    assert!(found > 0, "none was found");
}

//! The Rust programs of the guide, compiled and run: every block of these documents stands in a module here as it is
//! printed, and the module's tests call it.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]
#![allow(
    clippy::unused_async,
    reason = "what the guide's programs call waits for something, where it is not a test"
)]

mod jobs;
mod kafka;
mod phases;

/// A document, the module that holds its programs, and how many they are.
const DOCUMENTS: [(&str, &str, &str, usize); 3] = [
    ("jobs.md", include_str!("../../../../docs/guide/jobs.md"), include_str!("jobs.rs"), 1),
    ("kafka.md", include_str!("../../../../docs/guide/kafka.md"), include_str!("kafka.rs"), 3),
    ("phases.md", include_str!("../../../../docs/guide/phases.md"), include_str!("phases.rs"), 1),
];

/// The features of the crate that the documents name.
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// The blocks of a document whose info string begins with this word.
fn blocks(document: &str, word: &str) -> Vec<String> {
    let (mut blocks, mut lines) = (Vec::new(), document.lines());
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            if info.split([' ', ',']).next() == Some(word) {
                blocks.push(text.join("\n"));
            }
        }
    }
    blocks
}

/// Without white space, and without the commas that depend on where lines are broken.
fn bare(code: &str) -> String {
    let code: String = code.chars().filter(|character| !character.is_whitespace()).collect();
    [")", "]", "}", ">"].iter().fold(code, |code, closing| code.replace(&format!(",{closing}"), closing))
}

#[test]
fn every_program_of_the_guide_is_compiled_as_it_is_printed() {
    for (name, document, module, expected) in DOCUMENTS {
        let (programs, module) = (blocks(document, "rust"), bare(module));
        assert_eq!(programs.len(), expected, "{name}");
        for program in programs {
            assert!(module.contains(&bare(&program)), "{name}: this is compiled nowhere:\n{program}");
        }
    }
}

#[test]
fn every_feature_that_the_guide_names_is_one() {
    let mut named = 0;
    for (name, document, ..) in DOCUMENTS {
        for block in blocks(document, "toml") {
            for line in block.lines().filter(|line| line.starts_with("semel = ")) {
                let (_, features) = line.split_once("features = [").unwrap();
                for feature in features.split(']').next().unwrap().split(',') {
                    let feature = feature.trim().trim_matches('"');
                    assert!(MANIFEST.contains(&format!("\n{feature} = [")), "{name}: {feature}");
                    named += 1;
                }
            }
        }
    }
    assert!(named >= 2, "only {named} were found");
}

#[test]
fn a_program_that_differs_is_found() {
    let document = "x\n```rust\nlet a = f(1, 2,);\n```\n```rust,no_run\nb\n```\n```rusty\nc\n```\n";
    let found = blocks(document, "rust");
    assert_eq!(found, ["let a = f(1, 2,);", "b"]);
    assert!(bare("{ let a = f(\n    1,\n    2,\n); }").contains(&bare(&found[0])));
    assert!(!bare("let a = f(1, 3);").contains(&bare(&found[0])));
}

//! The vectors that clients in other languages share. They were made by `vectors/reference.py`, which shares no code
//! with this crate.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests panic as tests do")]

use std::collections::HashMap;

use semel_fingerprint::{ALGORITHM_VERSION, FingerprintBuilder, canonical_json};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/fingerprint.json")).expect("the vectors are JSON")
}

fn fingerprint(request: &Value) -> String {
    let text = |name: &str| request[name].as_str();
    let mut builder = FingerprintBuilder::new();
    for name in request.as_object().expect("a request is an object").keys() {
        let part = &request[name];
        builder = match name.as_str() {
            "operation" => builder.operation(text(name).unwrap()),
            "method" => builder.method(text(name).unwrap()),
            "path" => builder.path(text(name).unwrap()),
            "query" => builder.query(text(name).unwrap()),
            "json" => builder.json(text(name).unwrap().as_bytes()),
            "raw" => builder.raw(text(name).unwrap().as_bytes()),
            "multipart" => builder
                .multipart(part["boundary"].as_str().unwrap(), part["body"].as_str().unwrap().as_bytes()),
            other => panic!("the vectors have a part {other} that this test does not know"),
        };
    }
    builder.finish().to_string()
}

#[test]
fn the_vectors_are_of_this_version() {
    assert_eq!(vectors()["algorithm_version"], ALGORITHM_VERSION);
}

#[test]
fn documents_have_the_canonical_form_of_the_vectors() {
    let vectors = vectors();
    let documents = vectors["canonical_json"].as_array().unwrap();
    assert!(documents.len() > 40, "only {} documents", documents.len());
    for vector in documents {
        let document = vector["json"].as_str().unwrap();
        let form = canonical_json(document.as_bytes()).ok().map(|form| String::from_utf8(form).unwrap());
        assert_eq!(form.as_deref(), vector["canonical"].as_str(), "of {document}");
    }
}

#[test]
fn requests_have_the_fingerprint_of_the_vectors() {
    let vectors = vectors();
    let requests = vectors["fingerprints"].as_array().unwrap();
    assert!(requests.len() > 20, "only {} requests", requests.len());
    for vector in requests {
        assert_eq!(
            fingerprint(&vector["request"]),
            vector["fingerprint"].as_str().unwrap(),
            "{}",
            vector["about"]
        );
    }
}

/// Guards against vectors that are right for a builder which ignores its input.
#[test]
fn the_vectors_tell_requests_apart_and_say_which_are_the_same() {
    let vectors = vectors();
    let by_name: HashMap<_, _> = vectors["fingerprints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vector| (vector["about"].as_str().unwrap(), vector["fingerprint"].as_str().unwrap()))
        .collect();
    let same = [
        ("an operation with a payload", "the same payload spelled otherwise"),
        ("a request", "query order"),
        ("escapes in a path", "the same path"),
        ("a form", "the same form"),
    ];
    for (one, other) in same {
        assert_eq!(by_name[one], by_name[other], "{one}, {other}");
    }
    let distinct: std::collections::HashSet<_> = by_name.values().collect();
    assert_eq!(distinct.len(), by_name.len() - same.len());
}

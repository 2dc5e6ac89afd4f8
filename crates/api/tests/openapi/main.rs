//! The OpenAPI document: the checked-in one is the generated one, and nothing breaks a client of the last release.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod differ;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
const RELEASED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.released.json");

fn generated() -> Value {
    serde_json::from_str(&semel_api::openapi::document()).unwrap()
}

#[test]
fn the_checked_in_document_is_the_generated_one() {
    let checked_in = fs::read_to_string(CHECKED_IN).unwrap();
    assert!(
        checked_in == semel_api::openapi::document(),
        "docs/openapi.json is not the generated one; run `cargo xtask openapi` and look at the difference"
    );
}

#[test]
fn nothing_breaks_a_client_of_the_last_release() {
    let released: Value = serde_json::from_str(&fs::read_to_string(RELEASED).unwrap()).unwrap();
    assert_eq!(differ::breaking(&released, &generated()), Vec::<String>::new());
}

#[test]
fn every_endpoint_says_what_it_is_and_shows_an_example_or_a_shape_of_its_answer() {
    let document = generated();
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.ends_with('.')),
                "{method} {path}"
            );
            let success: Vec<&Value> = operation["responses"]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(status, _)| status.starts_with('2'))
                .map(|(_, response)| response)
                .collect();
            assert!(!success.is_empty(), "{method} {path}");
            for response in success {
                assert!(
                    response["content"].as_object().is_some_and(|content| !content.is_empty()),
                    "{method} {path}"
                );
            }
            if method == "post" {
                // A partner's bytes are whatever they are.
                let is_raw = operation["operationId"] == "takeWebhook";
                let form = if is_raw { "application/octet-stream" } else { "application/json" };
                assert!(operation["requestBody"]["content"][form].is_object(), "{method} {path}");
                // The debugger of signatures asks no store.
                let asks =
                    if path.ends_with("/verify") { &["400", "500"][..] } else { &["400", "500", "503"] };
                for status in asks {
                    assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
                }
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    found.insert(target);
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = generated();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

#[test]
fn the_names_on_the_wire_are_snake_case_but_where_they_are_other_peoples() {
    let document = generated();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let other_peoples = ["AuditEntry", "FlatDetails", "Job", "JobRun", "JobSchedule", "JobStarted"];
        if other_peoples.contains(&name.as_str()) {
            continue;
        }
        for field in schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(field.chars().all(plain), "{name}.{field}");
        }
    }
}

/// A small document, to change.
fn small() -> Value {
    json!({
        "paths": {"/things": {
            "post": {
                "parameters": [{"name": "limit", "in": "query", "required": false, "schema": {"type": "integer"}}],
                "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ask"}}}},
                "responses": {
                    "200": {
                        "headers": {"Location": {"schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
                    }
                }
            }
        }},
        "components": {"schemas": {
            "Ask": {
                "type": "object", "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 10},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}
                }
            },
            "Thing": {
                "type": "object", "required": ["id", "state"],
                "properties": {
                    "id": {"type": "string"},
                    "state": {"type": "string", "enum": ["on", "off"]},
                    "at": {"type": ["string", "null"], "format": "date-time"},
                    "inner": {"$ref": "#/components/schemas/Thing"}
                }
            }
        }}
    })
}

/// Sets what a pointer leads to, or removes it.
fn change(document: &mut Value, pointer: &str, value: Option<Value>) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    let last = last.replace("~1", "/");
    match value {
        Some(value) => parent.insert(last, value),
        None => parent.remove(&last),
    };
}

#[test]
fn the_differ_finds_what_breaks_a_client() {
    let ask = "/components/schemas/Ask";
    let thing = "/components/schemas/Thing";
    let post = "/paths/~1things/post";
    let cases: Vec<(String, Option<Value>, &str)> = vec![
        ("/paths/~1things".to_owned(), None, "POST /things: was removed"),
        (post.to_owned(), None, "POST /things: was removed"),
        (format!("{post}/responses/200"), None, "POST /things 200: was removed"),
        (format!("{post}/responses/200/headers/Location"), None, "header Location: was removed"),
        (format!("{post}/parameters"), Some(json!([])), "parameter limit: was removed"),
        (
            format!("{post}/parameters"),
            Some(json!([
                {"name": "limit", "in": "query", "required": true, "schema": {"type": "integer"}}
            ])),
            "parameter limit: became required",
        ),
        (
            format!("{post}/parameters"),
            Some(json!([
                {"name": "limit", "in": "query", "schema": {"type": "integer"}},
                {"name": "tenant", "in": "header", "required": true, "schema": {"type": "string"}}
            ])),
            "parameter tenant: is new and required",
        ),
        (
            format!("{post}/requestBody/content"),
            Some(json!({"text/plain": {}})),
            "application/json was removed",
        ),
        (format!("{ask}/properties/name"), None, "request.name: was removed"),
        (format!("{ask}/properties/name/type"), Some(json!("integer")), "request.name: the type changed"),
        (
            format!("{ask}/properties/name/maxLength"),
            Some(json!(9)),
            "request.name: maxLength became tighter",
        ),
        (format!("{ask}/properties/kind/enum"), Some(json!(["a"])), "the values [\"b\"] were removed"),
        (format!("{ask}/properties/parts/items/properties/n"), None, "request.parts[].n: was removed"),
        (format!("{ask}/required"), Some(json!(["name", "kind"])), "request.kind: became required"),
        (format!("{thing}/properties/id"), None, "200.id: was removed"),
        (format!("{thing}/properties/id/type"), Some(json!(["string", "null"])), "200.id: the type changed"),
        (format!("{thing}/properties/at/format"), None, "200.at: the format changed"),
        (format!("{thing}/properties/state/enum"), Some(json!(["on"])), "the values [\"off\"] were removed"),
        (format!("{thing}/required"), Some(json!(["id"])), "200.state: is no longer always there"),
    ];
    for (pointer, value, expected) in cases {
        let mut changed = small();
        change(&mut changed, &pointer, value);
        let found = differ::breaking(&small(), &changed);
        assert!(found.iter().any(|said| said.contains(expected)), "{pointer}: {found:?}");
    }
}

#[test]
fn the_differ_lets_pass_what_is_only_added_or_loosened() {
    let ask = "/components/schemas/Ask";
    let thing = "/components/schemas/Thing";
    let cases: Vec<(String, Value)> = vec![
        ("/paths/~1others".to_owned(), json!({"get": {"responses": {"200": {}}}})),
        ("/paths/~1things/get".to_owned(), json!({"responses": {"200": {}}})),
        ("/paths/~1things/post/responses/202".to_owned(), json!({})),
        ("/paths/~1things/post/requestBody/required".to_owned(), json!(false)),
        (format!("{ask}/properties/more"), json!({"type": "string"})),
        (format!("{ask}/properties/name/maxLength"), json!(11)),
        (format!("{ask}/properties/kind/enum"), json!(["a", "b", "c"])),
        (format!("{ask}/required"), json!([])),
        (format!("{thing}/properties/more"), json!({"type": "string"})),
        (format!("{thing}/properties/at/type"), json!("string")),
        (format!("{thing}/required"), json!(["id", "state", "at"])),
    ];
    assert_eq!(differ::breaking(&small(), &small()), Vec::<String>::new());
    for (pointer, value) in cases {
        let mut changed = small();
        change(&mut changed, &pointer, Some(value));
        assert_eq!(differ::breaking(&small(), &changed), Vec::<String>::new(), "{pointer}");
    }
}

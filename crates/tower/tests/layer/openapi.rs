//! The header as it is published: in the OpenAPI document of whoever uses the layer.

use crate::harness::shared;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use semel_core::Ledger;
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Config, IdempotencyLayer, KeyAlphabet, Profile, RouteOptions, key};
use serde_json::{Value, json};

fn layer(config: Config) -> IdempotencyLayer {
    let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
    IdempotencyLayer::try_new(ledger, config).unwrap()
}

#[test]
fn the_header_is_a_parameter_for_openapi_and_required_where_the_layer_requires_it() {
    for required in [false, true] {
        let config = shared("orders").profile(Profile::Wms).require_key(required).max_key_length(64);
        let parameter = layer(config).openapi_parameter().to_json();
        assert_eq!(
            (&parameter["name"], &parameter["in"], &parameter["required"], &parameter["schema"]["maxLength"]),
            (&json!("Idempotency-Key"), &json!("header"), &json!(required), &json!(66))
        );
        let read: utoipa::openapi::path::Parameter = serde_json::from_value(parameter.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), parameter, "as utoipa reads it");
    }
    let reporting = layer(shared("orders").require_key(true).enforce(false)).openapi_parameter();
    assert!(!reporting.is_required(), "report mode refuses nobody");
}

#[test]
fn the_parameter_says_for_how_long_a_key_is_remembered() {
    let parameter =
        |retention| layer(shared("orders").retention_period(retention)).openapi_parameter().to_json();
    for (hours, said) in [(24, "forgotten 1 day after"), (36, "forgotten 36 hours after")] {
        let parameter = parameter(Duration::from_secs(hours * 60 * 60));
        assert!(parameter["description"].as_str().unwrap().contains(said), "{parameter}");
        assert_eq!(parameter["x-idempotency-retention-seconds"], json!(hours * 60 * 60));
    }
}

#[test]
fn the_pattern_of_the_parameter_takes_exactly_the_keys_that_the_layer_takes() {
    let long = |count| "x".repeat(count);
    let values = [
        "8e03978e-40d5",
        "\"8e03978e-40d5\"",
        "A_b-9",
        "a.b",
        "a b",
        "\"a b\"",
        "a,b",
        "a\"b",
        "\"a\"b\"",
        r#""a\"b""#,
        r#""a\\b""#,
        r#""a\b""#,
        r#""a\""#,
        "\"a",
        "\"",
        "\"\"",
        "",
        "(x)",
        "[x]",
        "{x}",
        "x~y`z|",
        "é",
        &long(12),
        &long(13),
        &format!("\"{}\"", long(12)),
        &format!("\"{}\"", long(13)),
        &format!("\"{}\"", "\\\"".repeat(12)),
        &format!("\"{}\"", "\\\"".repeat(13)),
    ];
    for alphabet in [KeyAlphabet::Token, KeyAlphabet::Printable, KeyAlphabet::PrintableBare] {
        for max in [1, 2, 12] {
            let config = shared("orders").key_alphabet(alphabet).max_key_length(max);
            let schema = &layer(config).openapi_parameter().to_json()["schema"];
            let pattern = regex::Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
            let longest = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
            for value in values {
                let published = pattern.is_match(value) && value.len() <= longest;
                assert_eq!(published, is_taken(value, alphabet, max), "{value} of {max} under {alphabet:?}");
            }
        }
    }
}

/// Whether the layer takes such a header.
fn is_taken(value: &str, alphabet: KeyAlphabet, max: usize) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(key::HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    let key = key::of_headers(&headers, alphabet);
    key.is_ok_and(|key| key.is_some_and(|key| key.as_str().chars().count() <= max))
}

#[test]
fn every_operation_of_a_document_is_given_the_parameter_of_its_own_route() {
    let config = shared("orders")
        .route("POST /orders/{order}/pay", RouteOptions::new().require_key(true).max_key_length(36))
        .unwrap()
        .route("* /internal/{*rest}", RouteOptions::new().exempt(true))
        .unwrap();
    let layer = layer(config);
    let mut document = json!({
        "openapi": "3.1.0",
        "paths": {
            "/orders": { "get": {}, "post": { "parameters": [
                { "name": "page", "in": "query" }, { "name": "idempotency-key", "in": "header" }
            ] } },
            "/orders/{id}/pay": { "summary": "pays", "post": {} },
            "/internal/jobs/{id}": { "delete": {} }
        }
    });
    for _ in 0..2 {
        assert_eq!(layer.add_to_openapi(&mut document), 2, "done again it is the same");
    }
    let parameters = |path: &str, method: &str| document["paths"][path][method]["parameters"].clone();
    let orders = parameters("/orders", "post");
    assert_eq!((orders.as_array().unwrap().len(), &orders[0]["name"]), (2, &json!("page")));
    assert_eq!((&orders[1]["required"], &orders[1]["schema"]["maxLength"]), (&json!(false), &json!(512)));
    let pay = &parameters("/orders/{id}/pay", "post")[0];
    assert_eq!((&pay["required"], &pay["schema"]["maxLength"]), (&json!(true), &json!(74)));
    for (path, method) in [("/orders", "get"), ("/internal/jobs/{id}", "delete")] {
        assert_eq!(parameters(path, method), Value::Null, "{method} {path} is not protected");
    }
    assert_eq!(layer.add_to_openapi(&mut json!({ "paths": [] })), 0);
    assert!(layer.openapi_parameter_of(&Method::DELETE, "/internal/jobs/7").is_none());
}

#[test]
fn the_parameter_of_a_route_with_a_layer_of_its_own_is_that_layers() {
    let config = shared("orders").route("POST /pay", RouteOptions::new().exempt(true)).unwrap();
    let own = layer(config).with("pay", RouteOptions::new().require_key(true)).unwrap();
    assert!(own.openapi_parameter().is_required());
    let parameter = own.openapi_parameter_of(&Method::POST, "/pay").unwrap();
    assert!(parameter.is_required(), "no matcher counts there");
}

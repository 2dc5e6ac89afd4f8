//! Whose keys they are has to be said.

use semel_core::Ledger;
use semel_tower::{Caller, Config, IdempotencyLayer, RouteOptions};

use crate::harness::{Bench, post, shared};

fn ledger() -> Ledger {
    Bench::new(shared("orders")).layer.ledger().clone()
}

#[test]
fn a_layer_that_was_not_told_whose_keys_they_are_is_not_made() {
    let error = IdempotencyLayer::try_new(ledger(), Config::new("orders")).unwrap_err().to_string();
    assert!(error.contains("Config::caller") && error.contains("shared_keys(true)"), "{error}");
    let made = |config| IdempotencyLayer::try_new(ledger(), config);
    assert!(made(shared("orders")).is_ok());
    assert!(made(Config::new("orders").caller(|_| Caller::Nobody)).is_ok());
    let apart = RouteOptions::new().shared_keys(false);
    assert!(made(shared("orders").route("POST /pay", apart.clone()).unwrap()).is_err());
    let none = shared("orders").route("POST /pay", apart.clone().exempt(true)).unwrap();
    assert!(made(none).is_ok(), "there are no keys to speak of");
    assert!(made(shared("orders")).unwrap().with("pay", apart).is_err());
}

#[tokio::test]
async fn the_last_word_on_whose_keys_they_are_counts() {
    let by_user = |parts: &http::request::Parts| match parts.headers.get("x-user") {
        Some(user) => Caller::Known(user.to_str().unwrap().to_owned()),
        None => Caller::Nobody,
    };
    let by = |user: &'static str| {
        let mut asked = post("k", "{}");
        asked.headers_mut().insert("x-user", user.parse().unwrap());
        asked
    };
    for (config, is_shared) in [
        (shared("orders").caller(by_user), false),
        (Config::new("orders").caller(by_user).shared_keys(true), true),
    ] {
        let bench = Bench::new(config);
        bench.send(by("ann")).await;
        assert_eq!(bench.send(by("bob")).await.is_replay(), is_shared);
    }
}

//! What has to be said before there is a layer: whose keys they are, and that claims may be lost where they may.

use std::sync::Arc;

use semel_core::Ledger;
use semel_runtime::OsEntropy;
use semel_stores::embedded::{EmbeddedStore, Options};
use semel_tower::{Caller, Config, IdempotencyLayer, OnLapse, RouteOptions};

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

#[test]
fn at_most_once_over_a_store_that_may_lose_claims_needs_consent() {
    let config = || Config::new("orders").shared_keys(true);
    let made = |config| IdempotencyLayer::try_new(ledger(), config);
    let once = || RouteOptions::new().on_lapse(OnLapse::AtMostOnce);
    let error = made(config().on_lapse(OnLapse::AtMostOnce)).unwrap_err().to_string();
    assert!(error.contains("accept_claim_loss(true)") && error.contains("may lose claims"), "{error}");
    assert!(made(config().route("POST /pay", once()).unwrap()).is_err(), "for one route as well");
    let layer = made(config()).expect("resume promises nothing of the kind");
    assert!(layer.with("pay", once()).is_err() && layer.route("pay", once()).is_err());
    assert!(layer.with("pay", once().enforce(false)).is_ok(), "a report promises nothing either");
    let layer = made(config().accept_claim_loss(true).on_lapse(OnLapse::AtMostOnce)).unwrap();
    assert!(layer.with("pay", once()).is_ok());

    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&Options::new(folder.path())).unwrap();
    let ledger = Ledger::new(Arc::new(store), Arc::new(OsEntropy));
    let kept = IdempotencyLayer::try_new(ledger, config().on_lapse(OnLapse::AtMostOnce));
    assert!(kept.is_ok(), "a store that keeps its claims needs none");
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

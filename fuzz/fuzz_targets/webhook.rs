//! Whatever is sent to a source of any provider, it neither panics nor is accepted. `cargo fuzz run webhook`.
//!
//! The input: a number of headers, then for each a name (of those that are looked for) and a length with a value, then
//! the body.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use semel_core::Timestamp;
use semel_webhook::{Delivery, MissingIdentity, Provider, SecretValue, Source};

const NAMES: [&str; 14] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "stripe-signature",
    "x-hub-signature-256",
    "x-shopify-hmac-sha256",
    "x-callback-token",
    "aftership-hmac-sha256",
    "am-webhook-signature",
    "x-hmac-signature",
    "authorization",
];
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let sources = Provider::ALL.into_iter().filter(|provider| *provider != Provider::None).map(|provider| {
        let secret = match provider {
            Provider::StandardWebhooks => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            Provider::Adyen => "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00",
            _ => "a secret that no fuzzer finds",
        };
        let builder = Source::builder("partner", provider).secret(SecretValue::new("main", secret));
        let builder = if provider == Provider::Generic {
            let hash = MissingIdentity::ContentHash { headers: Vec::new(), without: Vec::new() };
            builder.token("authorization", "Bearer ").missing_identity(hash)
        } else {
            builder
        };
        builder.build().expect("the source is sound")
    });
    sources.collect()
});

/// Reads everything that comes after verification, which a fuzzer does not pass.
static OPEN: LazyLock<Source> = LazyLock::new(|| {
    let rule = semel_webhook::IdentityRule::first_of(&["webhook-id", "/id", "/data/0/id"]).expect("places");
    let hash =
        MissingIdentity::ContentHash { headers: vec!["svix-id".to_owned()], without: vec!["/n".to_owned()] };
    let builder = Source::builder("open", Provider::None).identity(rule).missing_identity(hash);
    builder.insecure(true).build().expect("the source is sound")
});

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(bytes.min(input.len()));
    *input = rest;
    taken
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut headers = Vec::new();
    for _ in 0..take(&mut input, 1).first().map_or(0, |count| count % 8) {
        let name = take(&mut input, 1).first().map_or(0, |name| usize::from(*name) % NAMES.len());
        let bytes = take(&mut input, 1).first().map_or(0, |bytes| usize::from(*bytes));
        headers.push((NAMES[name], take(&mut input, bytes)));
    }
    let body = Bytes::copy_from_slice(input);
    let delivery = Delivery::new(&headers, &body);
    for source in SOURCES.iter() {
        assert!(source.verify(&delivery, NOW).is_err(), "{:?} was accepted", source.provider());
        assert!(source.diagnose(&delivery, NOW).rejection.is_some());
    }
    if let Ok(verified) = OPEN.verify(&delivery, NOW) {
        for event in verified.events() {
            event.identity().key().expect("an identity is a key");
            OPEN.fingerprint(event);
        }
    }
});

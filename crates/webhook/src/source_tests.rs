//! Tests of sources: policies for missing identities, scopes, warnings, what a builder refuses.

use bytes::Bytes;
use semel_core::id::Tenant;
use semel_core::{Key as LedgerKey, RecordId, Timestamp};

use crate::providers::testing::{one, verify};
use crate::{
    Algorithm, Delivery, Encoding, IdentityRule, KeyEncoding, MissingIdentity, Provider, Scheme, SecretValue,
    Source, SourceBuilder, Template, Unit, limits,
};

fn generic() -> SourceBuilder {
    Source::builder("carrier", Provider::Generic).secret(SecretValue::new("main", "secret"))
}

fn error(builder: SourceBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

const TOKEN: (&str, &str) = ("authorization", "Bearer secret");

fn content(headers: &[&str], without: &[&str]) -> MissingIdentity {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    MissingIdentity::ContentHash { headers: owned(headers), without: owned(without) }
}

#[test]
fn a_carrier_without_ids_is_known_by_its_content_and_its_events_time() {
    let source = generic()
        .token("Authorization", "Bearer ")
        .missing_identity(content(&["x-event-time"], &["/attempt"]))
        .build()
        .unwrap();
    let name = |time: &str, body: &str| {
        let found = verify(&source, &[TOKEN, ("x-event-time", time)], body, 0).unwrap();
        assert!(found[0].starts_with("#content:"), "{found:?}");
        found
    };
    let first = name("10:00", r#"{"parcel":"P1","state":"out","attempt":1}"#);
    assert_eq!(name("10:00", r#"{ "state": "\u006fut", "attempt": 2, "parcel": "P1" }"#), first);
    assert_ne!(name("10:01", r#"{"parcel":"P1","state":"out","attempt":1}"#), first);
    assert_ne!(name("10:00", r#"{"parcel":"P1","state":"in","attempt":1}"#), first);
    let absent = verify(&source, &[TOKEN], r#"{"parcel":"P1","state":"out","attempt":1}"#, 0);
    assert_ne!(absent.unwrap(), first);
    assert_ne!(name("10:00", "state=out"), name("10:00", "state=in"), "what is no JSON counts byte by byte");
}

#[test]
fn nothing_at_all_has_no_content_to_be_known_by() {
    let source =
        generic().token("authorization", "Bearer ").missing_identity(content(&[], &[])).build().unwrap();
    for body in ["", " ", "\r\n"] {
        assert_eq!(verify(&source, &[TOKEN], body, 0), Err("identity_missing"));
    }
}

#[test]
fn a_missing_identity_is_rejected_unless_the_source_says_otherwise() {
    let rule = || IdentityRule::first_of(&["x-event-id", "/event_id"]).unwrap();
    let rejects = generic().token("authorization", "Bearer ").identity(rule()).build().unwrap();
    assert_eq!(verify(&rejects, &[TOKEN], "{}", 0), Err("identity_missing"));
    let hashes = generic().token("authorization", "Bearer ").identity(rule());
    let hashes = hashes.missing_identity(content(&[], &[])).build().unwrap();
    assert_eq!(verify(&hashes, &[TOKEN, ("X-Event-Id", "e-1")], "{}", 0), one("e-1"));
    assert!(verify(&hashes, &[TOKEN], "{}", 0).unwrap()[0].starts_with("#content:"));
    // What is there and cannot be read is not "missing".
    assert_eq!(verify(&hashes, &[TOKEN], r#"{"event_id":[]}"#, 0), Err("identity_malformed"));
}

#[test]
fn generic_verifies_what_its_scheme_describes() {
    // Computed with Python's `hmac`: SHA-512 in hexadecimal digits, under a key in hexadecimal digits.
    let template = Template::parse("{header:x-id}:{timestamp}:{body}").unwrap();
    let scheme = Scheme::new("X-Signature", template)
        .separator(';')
        .signature("sig=", Algorithm::HmacSha512)
        .encoding(Encoding::Hex)
        .timestamp_item("ts=", Unit::Milliseconds);
    let source = Source::builder("carrier", Provider::Generic)
        .scheme(scheme)
        .key_encoding(KeyEncoding::Hex)
        .secret(SecretValue::new("main", "00ff10"))
        .identity(IdentityRule::first_of(&["x-id"]).unwrap())
        .tolerance(std::time::Duration::from_secs(1))
        .build()
        .unwrap();
    let signature = "ts=1700000000000;sig=89345653f9e9d33200117498a0729a9765d4b02c834d90246428f27776fc2c2cd7e5ea21b790d59ee1b5ec29e671a2cafa224709fb8259bf3419da57d4fe2a61";
    let headers = [("x-id", "e-1"), ("x-signature", signature)];
    assert_eq!(verify(&source, &headers, "a=1", 1_700_000_000), one("e-1"));
    assert_eq!(verify(&source, &headers, "a=1", 1_700_000_001), one("e-1"));
    assert_eq!(verify(&source, &headers, "a=1", 1_700_000_002), Err("timestamp_too_old"));
    assert_eq!(verify(&source, &headers, "a=2", 1_700_000_000), Err("signature_mismatch"));
}

#[test]
fn identities_are_unique_in_their_source_and_target_and_nowhere_else() {
    let source = |name: &str| {
        let builder = Source::builder(name, Provider::Xendit).secret(SecretValue::new("main", "secret"));
        builder.build().unwrap()
    };
    let id = |tenant: &str, name: &str, target: &str| {
        let scope = source(name).scope(Tenant::try_new(tenant).unwrap(), target).unwrap();
        RecordId::of(&scope, &LedgerKey::try_new("evt_1").unwrap())
    };
    let first = id("t", "xendit", "orders");
    assert_eq!(id("t", "xendit", "orders"), first);
    assert_ne!(id("t", "xendit-id", "orders"), first);
    assert_ne!(id("t", "xendit", "mail"), first);
    assert_ne!(id("u", "xendit", "orders"), first);
}

#[test]
fn retention_below_the_providers_retries_is_warned_of() {
    let day = std::time::Duration::from_secs(86_400);
    let source =
        Source::builder("s", Provider::Stripe).secret(SecretValue::new("main", "secret")).build().unwrap();
    let said = |retention| source.warnings(retention).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(day * 3), Vec::<String>::new());
    assert_eq!(
        said(day * 2),
        [
            "identities are kept for 172800 s, and the provider retries for 259200 s: a late retry will be a new event"
        ]
    );
    let default =
        |provider: Provider| provider.retry_span().is_none_or(|span| span <= limits::RETENTION_DEFAULT);
    let longer: Vec<_> = Provider::ALL.into_iter().filter(|provider| !default(*provider)).collect();
    assert_eq!(longer, [Provider::Adyen], "the others' retries end within the default");
}

#[test]
fn an_identity_that_nothing_signs_is_warned_of() {
    let scheme = |text: &str| Scheme::new("x-signature", Template::parse(text).unwrap());
    let source = |scheme| {
        let rule = IdentityRule::first_of(&["x-id", "/id"]).unwrap();
        generic().scheme(scheme).identity(rule).build().unwrap()
    };
    let said = |source: &Source| source.warnings(limits::RETENTION_DEFAULT).len();
    assert_eq!(said(&source(scheme("{body}"))), 1);
    assert_eq!(said(&source(scheme("{header:x-id}.{body}"))), 0);
    assert_eq!(said(&source(scheme("{header:x-id}.{body}").signature("", Algorithm::HmacSha1))), 1);
}

#[test]
fn none_verifies_nothing_and_must_say_so() {
    let none = || Source::builder("open", Provider::None).identity(IdentityRule::first_of(&["/id"]).unwrap());
    assert!(error(none()).starts_with("insecure: "));
    assert!(error(none().insecure(true).secret(SecretValue::new("main", "s"))).starts_with("secrets: "));
    let source = none().insecure(true).build().unwrap();
    assert_eq!(verify(&source, &[], r#"{"id":"e-1"}"#, 0), one("e-1"));
    assert_eq!(source.warnings(limits::RETENTION_DEFAULT).len(), 1);
    let stripe = Source::builder("s", Provider::Stripe).secret(SecretValue::new("main", "s")).insecure(true);
    assert_eq!(error(stripe), "insecure: cannot be set for this provider");
}

#[test]
fn a_builder_says_what_is_wrong() {
    let stripe = || Source::builder("s", Provider::Stripe).secret(SecretValue::new("main", "secret"));
    let body = || Scheme::new("x-signature", Template::body());
    assert_eq!(error(generic().token("authorization", "")), "identity: is missing");
    assert_eq!(error(stripe().scheme(body())), "scheme: cannot be set for this provider");
    assert_eq!(
        error(stripe().key_encoding(KeyEncoding::Hex)),
        "key_encoding: cannot be set for this provider"
    );
    assert_eq!(
        error(stripe().secret(SecretValue::new("main", "x"))),
        "secret \"main\": must not be given twice"
    );
    assert_eq!(
        error(stripe().address("localhost")),
        "\"localhost\": is no address or range such as 203.0.113.0/24"
    );
    assert_eq!(
        error(stripe().volatile("pending")),
        "volatile: is no JSON Pointer (RFC 6901), or names the whole document"
    );
    let github = Source::builder("s", Provider::Github).secret(SecretValue::new("main", "secret"));
    let second = std::time::Duration::from_secs(1);
    assert_eq!(error(github.tolerance(second)), "tolerance: cannot be set for this provider");
    let adyen = Source::builder("s", Provider::Adyen).secret(SecretValue::new("main", "00ff"));
    let rule = IdentityRule::first_of(&["/id"]).unwrap();
    assert_eq!(error(adyen.identity(rule)), "identity: cannot be set for this provider");
    for name in ["", "a/b", "a b", "ä", &"x".repeat(limits::SOURCE_CHARS_MAX + 1)] {
        assert!(error(Source::builder(name, Provider::Stripe)).starts_with("source: "), "{name}");
    }
    let many = (0..=limits::SECRETS_MAX).fold(Source::builder("s", Provider::Stripe), |builder, at| {
        builder.secret(SecretValue::new(&at.to_string(), "secret"))
    });
    assert_eq!(error(many), "secrets: there may be at most 8");
}

#[test]
fn neither_secrets_nor_bodies_show_in_debug_output() {
    let builder = Source::builder("s", Provider::Xendit).secret(SecretValue::new("main", "top-secret"));
    let source = builder.clone().build().unwrap();
    let body = Bytes::from_static(br#"{"payment_id":"p-1","card":"4111"}"#);
    let headers: [(&str, &[u8]); 1] = [("x-callback-token", b"top-secret")];
    let verified = source.verify(&Delivery::new(&headers, &body), Timestamp::ZERO).unwrap();
    for shown in [format!("{builder:?}"), format!("{source:?}"), format!("{verified:?}")] {
        assert!(!shown.contains("top-secret") && !shown.contains("4111"), "{shown}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_that_only_follows() {
    let check = |builder: SourceBuilder, expected: &[&str]| {
        let problems = builder.clone().build_or_all().unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
        assert_eq!(builder.build().unwrap_err(), problems[0], "`build` gives the first");
    };
    let secret = |id: &str, value: &str| SecretValue::new(id, value);
    check(
        Source::builder("a/b", Provider::Stripe)
            .token("x", "")
            .key_encoding(KeyEncoding::Hex)
            .tolerance(std::time::Duration::MAX)
            .insecure(true)
            .secret(secret("one", ""))
            .secret(secret("two", " text"))
            .secret(secret("two", "text"))
            .address("10.0.0.0/99")
            .address("nowhere")
            .volatile("no pointer"),
        &[
            "source: may hold letters, digits, `-`, `_` and `.`",
            "scheme: cannot be set for this provider",
            "tolerance: must be at most 24 h",
            "insecure: cannot be set for this provider",
            "secret \"two\": must not be given twice",
            "secret \"one\": must not be empty",
            "secret \"two\": begins or ends with white space",
            "volatile: is no JSON Pointer (RFC 6901), or names the whole document",
            "\"10.0.0.0/99\": is no address or range such as 203.0.113.0/24",
            "\"nowhere\": is no address or range such as 203.0.113.0/24",
        ],
    );
    check(
        Source::builder("carrier", Provider::Generic),
        &["scheme: is missing", "secrets: has no secret: nothing would be verified", "identity: is missing"],
    );
    let scheme = Scheme::new("x y", Template::body()).timestamp_header("a b", Unit::Seconds);
    check(
        generic().scheme(scheme).missing_identity(content(&["c d", "e"], &["f"])),
        &[
            "x y: is no name of a header",
            "a b: is no name of a header",
            "timestamp: is not in the template: a time stamp that is not signed protects nothing",
            "c d: is no name of a header",
            "missing_identity: is no JSON Pointer (RFC 6901), or names the whole document",
        ],
    );
    let many = (0..=limits::SECRETS_MAX).map(|id| secret(&id.to_string(), ""));
    let many = many.fold(Source::builder("s", Provider::Github), SourceBuilder::secret);
    check(
        many.address("-"),
        &[
            &format!("secrets: there may be at most {}", limits::SECRETS_MAX),
            "\"-\": is no address or range such as 203.0.113.0/24",
        ],
    );
}

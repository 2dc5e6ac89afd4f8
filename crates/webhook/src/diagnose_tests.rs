//! Tests of the debugger: each thing that goes wrong at partners is named, and nothing secret is.

use bytes::Bytes;
use semel_core::Timestamp;

use super::*;
use crate::{IdentityRule, Provider, SecretValue, Signer, Unit};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const AT: u64 = 1_614_265_330;

fn standard() -> Source {
    crate::providers::testing::source(Provider::StandardWebhooks, SECRET)
}

fn diagnose(source: &Source, headers: &[(&str, &str)], body: &str, now_s: u64) -> Diagnosis {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let diagnosis = source.diagnose(&Delivery::new(&headers, &body), Timestamp::from_millis(now_s * 1_000));
    let mut shown = format!("{diagnosis:?}");
    shown.extend(diagnosis.findings.iter().map(ToString::to_string));
    for secret in source.secrets() {
        assert!(!shown.contains(secret.written.trim_start_matches("whsec_")), "{shown}");
    }
    diagnosis
}

fn found(source: &Source, headers: &[(&str, &str)], body: &str) -> Vec<String> {
    diagnose(source, headers, body, AT).findings.iter().map(ToString::to_string).collect()
}

/// Headers of a delivery of `body`, signed with this secret of Standard Webhooks.
fn signed(secret: &str, body: &str) -> crate::Signed {
    let signer = Signer::try_new(&[SecretValue::new("other", secret)]).unwrap();
    signer.sign("msg_1", Timestamp::from_millis(AT * 1_000), body.as_bytes()).unwrap()
}

#[test]
fn what_passes_has_nothing_to_explain() {
    let signed = signed(SECRET, "{}");
    let diagnosis = diagnose(&standard(), &signed.headers(), "{}", AT + 7);
    assert_eq!((diagnosis.rejection, diagnosis.findings), (None, vec![]));
    assert_eq!(diagnosis.template.as_deref(), Some("{header:webhook-id}.{timestamp}.{body}"));
    assert_eq!((diagnosis.skew_ms, diagnosis.body_bytes), (Some(-7_000), 2));
    assert_eq!(diagnosis.secrets, [("main".to_owned(), true)]);
}

#[test]
fn verification_over_re_serialised_json_is_named() {
    let check = |signed_body: &str, arrived: &str, expected: &str| {
        let signed = signed(SECRET, signed_body);
        let expected = format!("the body is not the one that was signed: {expected}");
        assert_eq!(found(&standard(), &signed.headers(), arrived), [expected], "{arrived}");
    };
    let again = "was signed: it was parsed and written again on the way";
    let spaced = r#"{"a": [1, {}, "x: y, \"z\" "], "b": {"c": []}}"#;
    let compact = r#"{"a":[1,{},"x: y, \"z\" "],"b":{"c":[]}}"#;
    let indented =
        "{\n  \"a\": [\n    1,\n    {},\n    \"x: y, \\\"z\\\" \"\n  ],\n  \"b\": {\n    \"c\": []\n  }\n}";
    check(compact, spaced, &format!("the JSON without white space {again}"));
    check(spaced, compact, &format!("the JSON with single spaces {again}"));
    check(indented, compact, &format!("the JSON in indented lines {again}"));
    check("a=1", "a=1\n", "a line end was added on the way");
    check("a=1\n", "a=1", "its last line end was lost on the way");
    check("a\nb", "a\r\nb", "its line ends were changed on the way");
    check("", "a=1", "an empty body was signed");
}

#[test]
fn a_secret_that_the_sender_reads_otherwise_is_named() {
    // The sender took the text for the key: what Standard Webhooks makes of its base64.
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let check = |key: String, expected: &str| {
        let signed = signed(&key, "{}");
        assert_eq!(
            found(&standard(), &signed.headers(), "{}"),
            [format!("the sender reads the secret \"main\" {expected}")]
        );
    };
    check(encode(&SECRET[6..]), "as its text without the prefix");
    let github = crate::providers::testing::source(Provider::Github, "d2hvZXZlcg==");
    // Computed with Python's `hmac`, under the decoded key.
    let header =
        ("x-hub-signature-256", "sha256=d32eae784a9ea6441d3bd6f17df41980c86212c3c68bdc061c7e49d327a7f007");
    assert_eq!(found(&github, &[header], "{}"), ["the sender reads the secret \"main\" decoded from base64"]);
}

#[test]
fn time_expiry_and_another_secret_are_told_apart() {
    let own = signed(SECRET, "{}");
    let late = diagnose(&standard(), &own.headers(), "{}", AT + 1_000);
    assert_eq!(late.findings, [Finding::OnlyTime { id: "main".to_owned() }]);
    assert_eq!(late.skew_ms, Some(-1_000_000));
    let expired = SecretValue::new("old", SECRET).not_after(Timestamp::from_millis(1));
    let builder = Source::builder("s", Provider::StandardWebhooks).secret(expired);
    let source = builder.secret(SecretValue::new("new", "whsec_AAAA")).build().unwrap();
    assert_eq!(
        found(&source, &own.headers(), "{}"),
        ["it is signed with the secret \"old\", which has expired"]
    );
    let other = signed("whsec_AAAA", "{}");
    assert_eq!(
        found(&standard(), &other.headers(), "{}"),
        ["nothing comes near: most likely it is another secret"]
    );
    // Late and of another secret: the time is not all that is wrong.
    assert_eq!(diagnose(&standard(), &other.headers(), "{}", AT + 1_000).findings, []);
}

#[test]
fn a_header_of_nearly_the_name_is_named() {
    let own = signed(SECRET, "{}");
    let [id, time, signature] = own.headers();
    let missing = |headers: &[(&str, &str)]| found(&standard(), headers, "{}");
    assert_eq!(
        missing(&[id, time, ("x-webhook-signature", signature.1)]),
        ["webhook-signature is missing, and x-webhook-signature was sent"]
    );
    assert_eq!(
        missing(&[id, signature, ("acme-timestamp", time.1)]),
        ["webhook-timestamp is missing, and acme-timestamp was sent"]
    );
    assert_eq!(missing(&[time, signature]), Vec::<String>::new());
}

#[test]
fn another_encoding_algorithm_prefix_or_template_is_named() {
    let scheme = |template: &str| {
        let scheme = Scheme::new("x-signature", Template::parse(template).unwrap());
        scheme.signature("sha256=", Algorithm::HmacSha256).encoding(Encoding::Hex)
    };
    let source = |scheme: Scheme| {
        let builder = Source::builder("s", Provider::Generic).secret(SecretValue::new("main", "key"));
        builder.scheme(scheme).identity(IdentityRule::first_of(&["/id"]).unwrap()).build().unwrap()
    };
    let body = source(scheme("{body}"));
    let check = |source: &Source, value: &str, expected: &str| {
        let headers = [("x-signature", value), ("x-time", "1614265330")];
        assert_eq!(found(source, &headers, "{}"), [expected], "{value}");
    };
    // Computed with Python's `hmac`.
    check(&body, "sha256=p3dyTZQ+tI3Gm8qKSm1XoE2z+ex+HeTlgehgJlvfMDI=", "the signature is written in base64");
    check(&body, "sha256=c9963b837183dc667106461b3de91d0885f539b3", "the sender signs with sha1");
    check(
        &body,
        "a777724d943eb48dc69bca8a4a6d57a04db3f9ec7e1de4e581e860265bdf3032",
        "the signature stands without its prefix",
    );
    let timed = source(scheme("{timestamp}.{body}").timestamp_header("x-time", Unit::Seconds));
    check(
        &timed,
        "sha256=a777724d943eb48dc69bca8a4a6d57a04db3f9ec7e1de4e581e860265bdf3032",
        "the sender signs {body}",
    );
    check(
        &timed,
        "sha256=08968133136537dadffd18e6896971d00a870dfd3bb4079b016a3e7c14dff477",
        "the sender signs {timestamp}:{body}",
    );
}

#[test]
fn a_batch_under_another_reading_of_the_key_is_named() {
    let item = r#"{"NotificationRequestItem":{"additionalData":{"hmacSignature":"o10OBOFINUGhlB24OXIkmo561ZhCW8YVFkzOCqFqmEM="},"pspReference":"1","eventCode":"A","success":"true"}}"#;
    let body = format!(r#"{{"notificationItems":[{item}]}}"#);
    let source = crate::providers::testing::source(Provider::Adyen, "00ff10");
    assert_eq!(found(&source, &[], &body), ["the sender reads the secret \"main\" as its text, not decoded"]);
}

#[test]
fn a_large_body_is_not_signed_dozens_of_times() {
    let signed = signed("whsec_AAAA", "{}");
    let body = " ".repeat(limits::NEAR_MISS_BODY_BYTES_MAX + 1);
    assert_eq!(
        found(&standard(), &signed.headers(), &body),
        ["the body is too large to look for near misses"]
    );
}

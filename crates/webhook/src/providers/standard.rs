//! Standard Webhooks, and Svix, whose headers are called `svix-…`.
//!
//! Rule: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>. Retries: its
//! example schedule, 75 h 35 min from the first try to the last.

use std::time::Duration;

use crate::error::ConfigError;
use crate::identity::IdentityRule;
use crate::mac::Algorithm;
use crate::providers::{Answer, Pack};
use crate::scheme::{Scheme, Unit};
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    Ok(Pack {
        check: Check::Schemes(vec![scheme("webhook")?, scheme("svix")?]),
        key_encoding: KeyEncoding::Standard,
        identity: None,
        volatile: &[],
        answer: Answer::PLAIN,
        retry_span: Some(Duration::from_secs(75 * 3_600 + 35 * 60 + 5)),
        rule: "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
    })
}

/// The identity is read from the header that was signed: with `svix-…` signed, a `webhook-id` beside it proves nothing.
fn scheme(family: &str) -> Result<Scheme, ConfigError> {
    let template = Template::parse(&format!("{{header:{family}-id}}.{{timestamp}}.{{body}}"))?;
    let scheme = Scheme::new(&format!("{family}-signature"), template)
        .separator(' ')
        .signature("v1,", Algorithm::HmacSha256)
        .signature("v1a,", Algorithm::Ed25519)
        .timestamp_header(&format!("{family}-timestamp"), Unit::Seconds);
    Ok(scheme.identity(IdentityRule::first_of(&[&format!("{family}-id")])?))
}

#[cfg(test)]
mod tests {
    use crate::providers::testing::{one, source, verify};
    use crate::{Provider, SecretValue, Source};
    use semel_core::Timestamp;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;
    const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const V1A: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    fn sent<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> [(&'a str, &'a str); 3] {
        [("Webhook-Id", id), ("webhook-timestamp", timestamp), ("WEBHOOK-SIGNATURE", signature)]
    }

    fn check(signature: &str, expected: Result<Vec<String>, &'static str>) {
        let found =
            verify(&source(Provider::StandardWebhooks, SECRET), &sent(ID, "1614265330", signature), BODY, AT);
        assert_eq!(found, expected, "{signature}");
    }

    /// The vectors of the libraries of Svix and of Standard Webhooks.
    #[test]
    fn the_published_vectors_hold() {
        let source = |secret| source(Provider::StandardWebhooks, secret);
        let first = source("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let headers = sent(
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            "1649367553",
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        );
        assert_eq!(verify(&first, &headers, body, 1_649_367_553), one("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"));
        for secret in [SECRET, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(verify(&source(secret), &sent(ID, "1614265330", V1), BODY, AT), one(ID));
        }
        assert_eq!(verify(&source(PUBLIC), &sent(ID, "1614265330", V1A), BODY, AT), one(ID));
    }

    #[test]
    fn any_v1_that_matches_passes_and_unknown_versions_are_ignored() {
        let other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
        check(&format!("{other} {V1}"), one(ID));
        check(&format!("v2,abc {V1A} v1,%%% {V1}  "), one(ID));
        check(other, Err("signature_mismatch"));
        check(V1A, Err("signature_mismatch"));
        check(&V1.replace("v1,", "v2,"), Err("header_malformed"));
        check(&V1[3..], Err("header_malformed"));
        for malformed in ["v1,", "v1", "v1,AAAA", "v1,not-base64", ","] {
            check(malformed, Err("header_malformed"));
        }
        check("", Err("header_missing"));
        check(&vec![other; 17].join(" "), Err("header_malformed"));
    }

    #[test]
    fn a_header_that_is_missing_or_altered_is_refused() {
        let source = source(Provider::StandardWebhooks, SECRET);
        let whole = sent(ID, "1614265330", V1);
        for at in 0..3 {
            let mut headers = whole.to_vec();
            headers.remove(at);
            assert_eq!(verify(&source, &headers, BODY, AT), Err("header_missing"));
            headers.extend([whole[at], whole[at]]);
            assert_eq!(verify(&source, &headers, BODY, AT), Err("header_repeated"));
        }
        assert_eq!(
            verify(&source, &sent("msg_other", "1614265330", V1), BODY, AT),
            Err("signature_mismatch")
        );
        assert_eq!(verify(&source, &sent(ID, "1614265331", V1), BODY, AT), Err("signature_mismatch"));
        assert_eq!(verify(&source, &whole, r#"{"test":2432232314}"#, AT), Err("signature_mismatch"));
    }

    #[test]
    fn a_timestamp_near_the_limits_of_i64_does_not_overflow_the_tolerance_check() {
        let source = source(Provider::StandardWebhooks, SECRET);
        let check = |timestamp: &str, expected: &str| {
            let found = verify(&source, &sent(ID, timestamp, V1), BODY, AT);
            assert_eq!(found, Err(expected).map_err(|label: &str| leak(label)), "{timestamp}");
        };
        check("9223372036854775807", "timestamp_too_new");
        check("18446744073709551615", "timestamp_too_new");
        check("18446744073709551616", "timestamp_malformed");
        check("0", "timestamp_too_old");
        for malformed in ["-1", "+1614265330", "1614265330.0", "0x10", "1e9", "now", "١"] {
            check(malformed, "timestamp_malformed");
        }
        let at = |now| verify(&source, &sent(ID, "1614265330", V1), BODY, now);
        assert_eq!((at(AT + 300), at(AT - 300)), (one(ID), one(ID)));
        assert_eq!((at(AT + 301), at(AT - 301)), (Err("timestamp_too_old"), Err("timestamp_too_new")));
        assert_eq!((at(0), at(u64::MAX / 1_000)), (Err("timestamp_too_new"), Err("timestamp_too_old")));
    }

    fn leak(label: &str) -> &'static str {
        crate::Reason::ALL.into_iter().map(crate::Reason::as_str).find(|known| *known == label).unwrap()
    }

    #[test]
    fn svix_names_its_headers_otherwise_and_only_signed_ones_name_the_event() {
        let source = source(Provider::StandardWebhooks, SECRET);
        let svix = [("svix-id", ID), ("svix-timestamp", "1614265330"), ("svix-signature", V1)];
        assert_eq!(verify(&source, &svix, BODY, AT), one(ID));
        let mut forged = svix.to_vec();
        forged.push(("webhook-id", "msg_forged"));
        assert_eq!(verify(&source, &forged, BODY, AT), one(ID));
        let mixed = [("webhook-id", ID), ("webhook-timestamp", "1614265330"), ("svix-signature", V1)];
        assert_eq!(verify(&source, &mixed, BODY, AT), Err("header_missing"));
    }

    #[test]
    fn the_border_between_id_and_time_stamp_cannot_be_moved() {
        // `a.1614265330` + `1614265331` + body signs like `a` + `1614265330` + `1614265331.` and the body.
        let source = source(Provider::StandardWebhooks, SECRET);
        assert_eq!(
            verify(&source, &sent("a.1614265330", "1614265331", V1), BODY, AT),
            Err("header_malformed")
        );
    }

    #[test]
    fn several_secrets_hold_at_once_each_until_its_own_end() {
        let end = Timestamp::from_millis(AT * 1_000);
        let build = |old_end: Option<Timestamp>| {
            let old = SecretValue::new("old", SECRET);
            let old = old_end.map_or(old.clone(), |end| old.not_after(end));
            let builder = Source::builder("partner", Provider::StandardWebhooks).secret(old);
            builder.secret(SecretValue::new("new", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")).build().unwrap()
        };
        let headers = sent(ID, "1614265330", V1);
        assert_eq!(verify(&build(Some(end)), &headers, BODY, AT), one(ID));
        assert_eq!(verify(&build(Some(end)), &headers, BODY, AT + 1), Err("signature_mismatch"));
        assert_eq!(verify(&build(None), &headers, BODY, AT + 1), one(ID));
        let alone = SecretValue::new("old", SECRET).not_after(end);
        let alone = Source::builder("partner", Provider::StandardWebhooks).secret(alone).build().unwrap();
        assert_eq!(verify(&alone, &headers, BODY, AT + 1), Err("secrets_expired"));
    }
}

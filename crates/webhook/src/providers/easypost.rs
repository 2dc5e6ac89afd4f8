//! `EasyPost`.
//!
//! Rule: <https://docs.easypost.com/guides/webhooks-guide>, and its libraries for the secret's normalisation. Retries: it
//! says that an outage of less than 24 hours loses nothing.

use crate::error::ConfigError;
use crate::identity::IdentityRule;
use crate::mac::{Algorithm, Encoding};
use crate::providers::{Answer, DAY, Pack};
use crate::scheme::Scheme;
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    let scheme = Scheme::new("x-hmac-signature", Template::body())
        .signature("hmac-sha256-hex=", Algorithm::HmacSha256)
        .encoding(Encoding::Hex);
    Ok(Pack {
        check: Check::Schemes(vec![scheme]),
        key_encoding: KeyEncoding::Nfkd,
        identity: Some(IdentityRule::first_of(&["/id"])?),
        // The event tells of its own delivery.
        volatile: &["/pending_urls", "/completed_urls", "/status", "/updated_at"],
        answer: Answer::PLAIN,
        retry_span: Some(DAY),
        rule: "https://docs.easypost.com/guides/webhooks-guide",
    })
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verify};

    /// The vector of the tests of `EasyPost`'s own libraries: `tests/conftest.py` and `tests/test_webhook.py` of
    /// easypost-python 7, `test/helpers/fixture.js` and `test/services/webhook.test.js` of easypost-node 5. (Since 2024 they
    /// have a longer body in <https://github.com/EasyPost/examples>, below `official/fixtures`, under the same secret.)
    #[test]
    fn the_published_vector_holds_and_nothing_that_was_altered() {
        let body = concat!(
            r#"{"result":{"id":"batch_123...","object":"Batch","mode":"test","state":"created","num_shipments":0,"reference":null,"created_at":"2022-07-26T17:22:32Z","updated_at":"2022-07-26T17:22:32Z","scan_form":null,"shipments":[],"#,
            r#""status":{"created":0,"queued_for_purchase":0,"creation_failed":0,"postage_purchased":0,"postage_purchase_failed":0},"pickup":null,"label_url":null},"#,
            r#""description":"batch.created","mode":"test","previous_attributes":null,"completed_urls":null,"user_id":"user_123...","status":"pending","object":"Event","id":"evt_123..."}"#,
        );
        let signature = "hmac-sha256-hex=e93977c8ccb20363d51a62b3fe1fc402b7829be1152da9e88cf9e8d07115a46b";
        let source = source(Provider::Easypost, "s\u{e9}cret");
        let check =
            |signature: &str, body: &str| verify(&source, &[("X-Hmac-Signature", signature)], body, 0);
        assert_eq!(check(signature, body), one("evt_123..."));
        assert_eq!(check(signature, &body.replace("created", "deleted")), Err("signature_mismatch"));
        assert_eq!(check(&signature.replace("46b", "46a"), body), Err("signature_mismatch"));
        assert_eq!(check(&signature[16..], body), Err("header_malformed"));
    }

    /// No vector says it: computed with Python's `hmac` and `unicodedata`, by the rule of `EasyPost`'s libraries, which
    /// themselves judge it in the tests of interoperation.
    #[test]
    fn a_signature_of_easypost_holds_however_the_secret_is_composed() {
        let body = r#"{"description":"tracker.updated","id":"evt_1"}"#;
        let signature = (
            "X-Hmac-Signature",
            "hmac-sha256-hex=a3ee1114b9d16304f45281390ea5e06c5573503fc9b8950328c720ab6c75cf54",
        );
        for secret in ["s\u{e9}cret", "se\u{301}cret"] {
            let source = source(Provider::Easypost, secret);
            assert_eq!(verify(&source, &[signature], body, 0), one("evt_1"));
            assert_eq!(verify(&source, &[signature], "{}", 0), Err("signature_mismatch"));
        }
        let other = source(Provider::Easypost, "secret");
        assert_eq!(verify(&other, &[signature], body, 0), Err("signature_mismatch"));
    }
}

//! Shopify.
//!
//! Rule: <https://shopify.dev/docs/apps/build/webhooks/subscribe/https>. Retries: 8 times over 4 hours
//! (<https://shopify.dev/changelog/updates-to-webhook-retry-mechanism>). Not `X-Shopify-Event-Id`: deliveries of several
//! topics share one. The signature covers the body only.

use crate::error::ConfigError;
use crate::identity::IdentityRule;
use crate::mac::Algorithm;
use crate::providers::{Answer, HOUR, Pack};
use crate::scheme::Scheme;
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    let scheme = Scheme::new("x-shopify-hmac-sha256", Template::body()).signature("", Algorithm::HmacSha256);
    Ok(Pack {
        check: Check::Schemes(vec![scheme]),
        key_encoding: KeyEncoding::Utf8,
        identity: Some(IdentityRule::first_of(&["x-shopify-webhook-id"])?),
        volatile: &[],
        answer: Answer::within(5),
        retry_span: Some(HOUR.saturating_mul(4)),
        rule: "https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
    })
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verify};

    /// The vector of the tests of Shopify's own library for PHP (shopify-api-php, `tests/Webhooks/RegistryTest.php`, with the
    /// secret of `tests/BaseTestCase.php`). Its documentation publishes none; its library for Node signs and verifies in the
    /// tests of interoperation.
    #[test]
    fn the_published_vector_holds_and_nothing_that_was_altered() {
        let source = source(Provider::Shopify, "steffi");
        let id = ("X-Shopify-Webhook-Id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043");
        let check = |signature: &str, body: &str| {
            verify(&source, &[("X-Shopify-Hmac-SHA256", signature), id], body, 0)
        };
        let signature = "/Redz4YXHLnSmmSN8grr5/Jl/Ua3d7yX3iWbjb8R8wo=";
        assert_eq!(check(signature, r#"{"foo":"bar"}"#), one(id.1));
        assert_eq!(check(signature, r#"{"foo":"baz"}"#), Err("signature_mismatch"));
        assert_eq!(check(signature, r#"{"foo": "bar"}"#), Err("signature_mismatch"));
        assert_eq!(
            check(&signature.replace("/Redz", "/redz"), r#"{"foo":"bar"}"#),
            Err("signature_mismatch")
        );
        assert_eq!(check(&signature[1..], r#"{"foo":"bar"}"#), Err("header_malformed"));
    }

    /// This one is of the tests of `SQLPage`, which verifies the same rule.
    #[test]
    fn a_signature_of_shopify_holds_and_the_event_id_names_nothing() {
        let body = r#"{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}"#;
        let signature = ("X-Shopify-Hmac-SHA256", "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw=");
        let source = source(Provider::Shopify, "test-webhook-secret");
        let id = ("X-Shopify-Webhook-Id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043");
        let event = ("X-Shopify-Event-Id", "98880550-7158-44d4-b7cd-2c97c8a091b5");
        assert_eq!(verify(&source, &[signature, id, event], body, 0), one(id.1));
        assert_eq!(verify(&source, &[signature, event], body, 0), Err("identity_missing"));
        assert_eq!(verify(&source, &[signature, id], &body.replace('5', "6"), 0), Err("signature_mismatch"));
        assert_eq!(verify(&source, &[id], body, 0), Err("header_missing"));
    }
}

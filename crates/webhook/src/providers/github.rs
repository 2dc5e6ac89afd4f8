//! GitHub.
//!
//! Rule: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>. It retries nothing by itself;
//! a redelivery by hand has the same `X-GitHub-Delivery`. The signature covers the body only: the identity is believed
//! because the connection is.

use crate::error::ConfigError;
use crate::identity::IdentityRule;
use crate::mac::{Algorithm, Encoding};
use crate::providers::{Answer, Pack};
use crate::scheme::Scheme;
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    let scheme = Scheme::new("x-hub-signature-256", Template::body())
        .signature("sha256=", Algorithm::HmacSha256)
        .encoding(Encoding::Hex);
    Ok(Pack {
        check: Check::Schemes(vec![scheme]),
        key_encoding: KeyEncoding::Utf8,
        identity: Some(IdentityRule::first_of(&["x-github-delivery"])?),
        volatile: &[],
        answer: Answer::within(10),
        retry_span: None,
        rule: "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
    })
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verify};

    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    const DELIVERY: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";

    fn check(headers: &[(&str, &str)], body: &str, expected: Result<Vec<String>, &'static str>) {
        let source = source(Provider::Github, "It's a Secret to Everybody");
        assert_eq!(verify(&source, headers, body, 0), expected, "{headers:?} {body}");
    }

    /// The vector of GitHub's documentation.
    #[test]
    fn the_published_vector_holds_and_nothing_beside_it() {
        let delivery = ("X-GitHub-Delivery", DELIVERY);
        check(&[delivery, ("X-Hub-Signature-256", SIGNATURE)], "Hello, World!", one(DELIVERY));
        check(&[delivery, ("X-Hub-Signature-256", SIGNATURE)], "Hello, World", Err("signature_mismatch"));
        check(
            &[delivery, ("X-Hub-Signature-256", &SIGNATURE[7..])],
            "Hello, World!",
            Err("header_malformed"),
        );
        check(&[delivery, ("X-Hub-Signature", SIGNATURE)], "Hello, World!", Err("header_missing"));
        check(&[delivery, ("X-Hub-Signature-256", "sha256=")], "Hello, World!", Err("header_malformed"));
    }

    #[test]
    fn verified_without_a_delivery_id_is_rejected_as_such() {
        check(&[("X-Hub-Signature-256", SIGNATURE)], "Hello, World!", Err("identity_missing"));
        check(
            &[("X-Hub-Signature-256", SIGNATURE), ("X-GitHub-Delivery", "")],
            "Hello, World!",
            Err("identity_missing"),
        );
    }
}

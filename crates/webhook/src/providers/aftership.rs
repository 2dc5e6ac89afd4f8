//! `AfterShip`: Tracking, Returns and Warranty, and Shipping, each with a header of its own.
//!
//! Rules: <https://www.aftership.com/docs/tracking/webhook/webhook-signature>,
//! <https://www.aftership.com/docs/warranty/webhook/webhook-signature>. Retries: 14 tries, the last 245,730 s after the
//! first (<https://www.aftership.com/docs/tracking/webhook/webhook-overview>).

use std::time::Duration;

use crate::error::ConfigError;
use crate::identity::IdentityRule;
use crate::mac::Algorithm;
use crate::providers::{Answer, Pack};
use crate::scheme::Scheme;
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    let scheme = |header: &str, prefix: &str| {
        Scheme::new(header, Template::body()).signature(prefix, Algorithm::HmacSha256)
    };
    Ok(Pack {
        check: Check::Schemes(vec![
            scheme("aftership-hmac-sha256", ""),
            scheme("as-signature-hmac-sha256", ""),
            scheme("am-webhook-signature", "hmac-sha256="),
        ]),
        key_encoding: KeyEncoding::Utf8,
        identity: Some(IdentityRule::first_of(&["/event_id", "/id"])?),
        volatile: &[],
        answer: Answer::PLAIN,
        retry_span: Some(Duration::from_secs(245_730)),
        rule: "https://www.aftership.com/docs/tracking/webhook/webhook-signature",
    })
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verify};

    /// `AfterShip` publishes no vector: its pages on webhook signatures say the rule, with a sample in several languages and
    /// nothing that it gives, and its SDKs verify none. This one was computed with Python's `hmac`; the sample's computation
    /// stands in the tests of interoperation.
    const SIGNATURE: &str = "3D9uOi1eJZcz/RqeOHyYPI9Q/AKHuZ0JGKkr2Ft1HLw=";
    const BODY: &str =
        r#"{"event":"tracking_update","event_id":"c2b0f2f3-1f5d-4a53-8d0b-6b1a3b6b5a11","ts":1700000000}"#;

    #[test]
    fn each_product_has_its_header() {
        let source = source(Provider::Aftership, "aftership-secret");
        let prefixed = format!("hmac-sha256={SIGNATURE}");
        let id = "c2b0f2f3-1f5d-4a53-8d0b-6b1a3b6b5a11";
        for (header, value) in [
            ("aftership-hmac-sha256", SIGNATURE),
            ("as-signature-hmac-sha256", SIGNATURE),
            ("am-webhook-signature", &prefixed),
        ] {
            assert_eq!(verify(&source, &[(header, value)], BODY, 0), one(id), "{header}");
            assert_eq!(
                verify(&source, &[(header, value)], &format!("{BODY} "), 0),
                Err("signature_mismatch")
            );
        }
        assert_eq!(verify(&source, &[("am-webhook-signature", SIGNATURE)], BODY, 0), Err("header_malformed"));
        assert_eq!(verify(&source, &[], BODY, 0), Err("header_missing"));
    }
}

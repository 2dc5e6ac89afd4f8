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

    /// Computed with Python's `hmac` and `unicodedata`, by `EasyPost`'s rule.
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

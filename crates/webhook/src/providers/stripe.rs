//! Stripe.
//!
//! Rule: <https://docs.stripe.com/webhooks#verify-manually>. Retries: "for up to three days".

use crate::error::ConfigError;
use crate::identity::{IdentityRule, Locator, Part};
use crate::mac::{Algorithm, Encoding};
use crate::providers::{Answer, DAY, Pack};
use crate::scheme::{Scheme, Unit};
use crate::secret::KeyEncoding;
use crate::source::Check;
use crate::template::Template;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    // `v0` is Stripe's for test events, and made with another key: it is ignored.
    let scheme = Scheme::new("stripe-signature", Template::parse("{timestamp}.{body}")?)
        .separator(',')
        .signature("v1=", Algorithm::HmacSha256)
        .encoding(Encoding::Hex)
        .timestamp_item("t=", Unit::Seconds);
    // One endpoint may serve many connected accounts.
    let identity = IdentityRule::try_new(vec![vec![
        Part::required(vec![Locator::parse("/id")?]),
        Part::optional(vec![Locator::parse("/account")?]),
    ]])?;
    Ok(Pack {
        check: Check::Schemes(vec![scheme]),
        // The literal text, `whsec_` included.
        key_encoding: KeyEncoding::Utf8,
        identity: Some(identity),
        // How many deliveries of the event are still to succeed: another number on every try.
        volatile: &["/pending_webhooks"],
        answer: Answer::PLAIN,
        retry_span: Some(DAY.saturating_mul(3)),
        rule: "https://docs.stripe.com/webhooks#verify-manually",
    })
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verified, verify};

    /// The vector of the tests of Stripe's own library for .NET (stripe-dotnet, `EventUtilityTest.cs` and the file
    /// `event_test_signature.json` beside it): a signature of a connected account's event, with a `v0` that is ignored. The
    /// others generate theirs, and so are asked in the tests of interoperation.
    #[test]
    fn the_published_vector_holds_and_nothing_that_was_altered() {
        let body = r#"{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"#;
        let header = "t=1533204620,v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,\
                      v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
        let source = source(Provider::Stripe, "webhook_secret");
        let check =
            |header: &str, body: &str, now| verify(&source, &[("Stripe-Signature", header)], body, now);
        let at = 1_533_204_620;
        assert_eq!(check(header, body, at + 100), one("evt_123|acct_123"));
        assert_eq!(check(header, body, at + 301), Err("timestamp_too_old"));
        assert_eq!(check(header, &format!("{body}this_changes_the_json"), at), Err("signature_mismatch"));
        assert_eq!(check(header, body.trim_end(), at), Err("signature_mismatch"));
        assert_eq!(check(&header.replace("4620", "4621"), body, at), Err("signature_mismatch"));
    }

    /// Computed with Python's `hmac` over `1700000000.` and the body; Stripe's own library signs in the interoperation
    /// tests.
    const V1: &str = "dfd168a529ccc1ce6f1dd116de0687e30767623ec422edbf60f2a93e88c855a1";
    const BODY: &str = r#"{"id":"evt_1","type":"charge.succeeded","pending_webhooks":1}"#;
    const AT: u64 = 1_700_000_000;

    fn check(header: &str, expected: Result<Vec<String>, &'static str>) {
        let source = source(Provider::Stripe, "whsec_test_secret");
        assert_eq!(verify(&source, &[("Stripe-Signature", header)], BODY, AT + 100), expected, "{header}");
    }

    #[test]
    fn a_signature_of_stripe_holds() {
        check(&format!("t=1700000000,v1={V1}"), one("evt_1"));
        check(&format!("t=1700000000,v1={},v1={V1},v0=6ffb", "0".repeat(64)), one("evt_1"));
        check(&format!("t=1700000000, v1={V1}"), one("evt_1"));
        check(&format!("t=1700000001,v1={V1}"), Err("signature_mismatch"));
        check(&format!("t=1700000000,v0={V1}"), Err("header_malformed"));
        check(&format!("v1={V1}"), Err("header_malformed"));
        check(&format!("t=1700000000,t=1700000000,v1={V1}"), Err("header_repeated"));
        check(&format!("t=,v1={V1}"), Err("timestamp_malformed"));
        check(&format!("t=1699999000,v1={V1}"), Err("timestamp_too_old"));
        check("t=1700000000,v1=", Err("header_malformed"));
        check(V1, Err("header_malformed"));
    }

    #[test]
    fn a_connected_account_is_part_of_the_identity() {
        let source = source(Provider::Stripe, "whsec_test_secret");
        let body = r#"{"id":"evt_1","account":"acct_2"}"#;
        let header = "t=1700000000,v1=f94ec9a86ccbae9441b9d35a92e53823e11006f870403bd982f2a1a13032ba4c";
        assert_eq!(verify(&source, &[("Stripe-Signature", header)], body, AT), one("evt_1|acct_2"));
    }

    #[test]
    fn what_stripe_changes_from_try_to_try_is_no_conflict() {
        let source = source(Provider::Stripe, "whsec_test_secret");
        let event = |body: &str, v1: &str| {
            let header = format!("t=1700000000,v1={v1}");
            verified(&source, &[("stripe-signature", &header)], body, AT).unwrap().into_events().remove(0)
        };
        let first = event(BODY, V1);
        let again = event(
            &BODY.replace(":1}", ":0}"),
            "3136e9317dfe85e23b0d8e131b7cc463420183992101deb052bf31bd3e62cc56",
        );
        let other = event(
            &BODY.replace("succeeded", "failed"),
            "18a7a4bb992bf418fec9e180dbbf276d7eaf25e95f92b3cbb84553d5d8a6380b",
        );
        assert_eq!(source.fingerprint(&first), source.fingerprint(&again));
        assert_ne!(source.fingerprint(&first), source.fingerprint(&other));
    }
}

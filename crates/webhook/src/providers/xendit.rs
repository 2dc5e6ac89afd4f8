//! Xendit.
//!
//! Rule: <https://docs.xendit.co/webhook>: a token in `x-callback-token`, which is the account's. Nothing signs the body:
//! a source may also list the addresses it comes from. Retries at 15 min, 45 min, 2 h, 3 h, 6 h and 12 h, a day in all
//! (<https://docs.xendit.co/webhook/delivery-attempts-and-retries/>).

use crate::error::ConfigError;
use crate::identity::{IdentityRule, Locator, Part};
use crate::providers::{Answer, DAY, Pack};
use crate::secret::KeyEncoding;
use crate::source::Check;

pub(crate) fn pack() -> Result<Pack, ConfigError> {
    Ok(Pack {
        check: Check::Token { header: "x-callback-token".into(), prefix: "".into() },
        key_encoding: KeyEncoding::Utf8,
        identity: Some(identity()?),
        volatile: &[],
        answer: Answer::PLAIN,
        retry_span: Some(DAY),
        rule: "https://docs.xendit.co/webhook",
    })
}

/// The `webhook-id` header; else what the callback is about with what happened to it. Never `id` alone: callbacks of an
/// invoice have the invoice's from status to status, and the second would be taken for the first again. A `payment_id`
/// names one payment, so callbacks of virtual accounts, which have neither status nor event, are named by that.
fn identity() -> Result<IdentityRule, ConfigError> {
    let places =
        |places: &[&str]| places.iter().map(|place| Locator::parse(place)).collect::<Result<Vec<_>, _>>();
    let object = || places(&["/data/payment_id", "/payment_id", "/data/id", "/id"]).map(Part::required);
    let status = || places(&["/data/status", "/status"]);
    let business = || places(&["/business_id", "/data/business_id"]).map(Part::optional);
    IdentityRule::try_new(vec![
        vec![Part::required(places(&["webhook-id"])?)],
        vec![object()?, Part::required(status()?), Part::optional(places(&["/event"])?), business()?],
        vec![object()?, Part::required(places(&["/event"])?), business()?],
        vec![Part::required(places(&["/data/payment_id", "/payment_id"])?), business()?],
    ])
}

#[cfg(test)]
mod tests {
    use crate::providers::testing::{one, source, verify};
    use crate::{Delivery, Provider, SecretValue, Source};
    use bytes::Bytes;
    use semel_core::Timestamp;

    const TOKEN: (&str, &str) = ("X-CALLBACK-TOKEN", "xendit-token");

    fn check(headers: &[(&str, &str)], body: &str, expected: Result<Vec<String>, &'static str>) {
        let source = source(Provider::Xendit, "xendit-token");
        assert_eq!(verify(&source, headers, body, 0), expected, "{headers:?} {body}");
    }

    /// A token has no vector: it is the text that the dashboard shows, and signs nothing.
    #[test]
    fn the_token_is_the_accounts_or_nothing_is_taken() {
        let body = r#"{"id":"inv-1","status":"PAID"}"#;
        check(&[TOKEN, ("webhook-id", "wh-1")], body, one("wh-1"));
        check(
            &[("x-callback-token", "xendit-tokem"), ("webhook-id", "wh-1")],
            body,
            Err("signature_mismatch"),
        );
        check(
            &[("x-callback-token", "xendit-token2"), ("webhook-id", "wh-1")],
            body,
            Err("signature_mismatch"),
        );
        check(&[("webhook-id", "wh-1")], body, Err("header_missing"));
        check(&[TOKEN, TOKEN, ("webhook-id", "wh-1")], body, Err("header_repeated"));
    }

    #[test]
    fn an_invoice_keeps_its_id_from_status_to_status_and_is_two_events() {
        check(&[TOKEN], r#"{"id":"inv-1","status":"PENDING"}"#, one("#2:inv-1|PENDING"));
        check(&[TOKEN], r#"{"id":"inv-1","status":"PAID"}"#, one("#2:inv-1|PAID"));
        check(&[TOKEN], r#"{"id":"inv-1"}"#, Err("identity_missing"));
        check(&[TOKEN], "{}", Err("identity_missing"));
        check(&[TOKEN], "no json", Err("identity_malformed"));
    }

    #[test]
    fn a_payment_is_named_by_its_payment_id_with_event_and_status() {
        let body = r#"{"event":"payment.capture","business_id":"b-1","created":"2026-01-01T00:00:00Z",
            "data":{"payment_id":"py-1","status":"SUCCEEDED","id":"other"}}"#;
        check(&[TOKEN], body, one("#2:py-1|SUCCEEDED|payment.capture|b-1"));
        check(
            &[TOKEN],
            r#"{"event":"payment.failure","data":{"id":"py-1"}}"#,
            one("#3:py-1|payment.failure"),
        );
        check(&[TOKEN], r#"{"payment_id":"1487156512722","amount":10000}"#, one("#4:1487156512722"));
    }

    #[test]
    fn a_listed_address_is_needed_where_addresses_are_listed() {
        let source = Source::builder("partner", Provider::Xendit)
            .secret(SecretValue::new("main", "xendit-token"))
            .address("203.0.113.0/24")
            .build()
            .unwrap();
        let headers: [(&str, &[u8]); 2] = [("x-callback-token", b"xendit-token"), ("webhook-id", b"wh-1")];
        let body = Bytes::from_static(b"{}");
        let delivery = Delivery::new(&headers, &body);
        let verify = |delivery: &Delivery<'_>| {
            let verified = source.verify(delivery, Timestamp::ZERO);
            verified.map(|verified| verified.events().len()).map_err(|rejection| rejection.reason().as_str())
        };
        assert_eq!(verify(&delivery.from("203.0.113.9".parse().unwrap())), Ok(1));
        assert_eq!(verify(&delivery.from("198.51.100.9".parse().unwrap())), Err("address_not_listed"));
        assert_eq!(verify(&delivery), Err("address_not_listed"));
    }
}

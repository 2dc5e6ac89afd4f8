//! Adyen's standard webhooks: a batch of items, each with a signature of its own inside.
//!
//! Rule: <https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures>. Retries: for up to
//! 30 days (<https://docs.adyen.com/development-resources/webhooks/troubleshoot>).
//!
//! What is signed are eight fields, not the item: whatever else stands in it is believed because the connection is.
//! Adyen joins the fields by colons and escapes nothing. So only the merchant's own reference may hold a colon: it lies
//! between three fields that hold none and four that hold none, and no border can be moved.

use std::sync::Arc;

use bytes::Bytes;
use semel_core::Timestamp;

use crate::identity::compose;
use crate::json::{Document, JsonProblem};
use crate::limits;
use crate::mac::{self, Algorithm};
use crate::providers::{Answer, DAY, Pack};
use crate::reason::{Reason, Rejection};
use crate::secret::{Key, KeyEncoding, Secret, base64};
use crate::source::{Check, Event};

pub(crate) fn pack() -> Pack {
    Pack {
        check: Check::Adyen,
        key_encoding: KeyEncoding::Hex,
        identity: None,
        volatile: &[],
        answer: Answer { content_type: Some("text/plain"), body: "[accepted]", ..Answer::within(10) },
        retry_span: Some(DAY.saturating_mul(30)),
        rule: "https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
    }
}

/// Places of the signed fields, in their order; the fourth may hold a colon.
const FIELDS: [&[&str]; 8] = [
    &["pspReference"],
    &["originalReference"],
    &["merchantAccountCode"],
    &["merchantReference"],
    &["amount", "value"],
    &["amount", "currency"],
    &["eventCode"],
    &["success"],
];
const MERCHANT_REFERENCE: usize = 3;

/// An item: its element in the batch, what it signs, and its signature.
pub(crate) struct Item<'a> {
    element: Document<'a>,
    pub(crate) fields: [String; 8],
    signature: Vec<u8>,
}

/// The events of a batch and the id of the secret; none of them, unless all of them hold.
pub(crate) fn verify(
    body: &Bytes,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<(Vec<Event>, Arc<str>), Rejection> {
    let batch = Document::parse(body).map_err(|_| Rejection::new(Reason::BodyMalformed))?;
    let items = items(batch)?;
    if !secrets.iter().any(|secret| secret.holds_at(now)) {
        return Err(Rejection::new(Reason::SecretsExpired));
    }
    let mut by = None;
    for item in &items {
        let holding = secrets.iter().filter(|secret| secret.holds_at(now));
        by = Some(
            matching(item, holding).ok_or(Rejection::about(Reason::SignatureMismatch, "hmacSignature"))?,
        );
    }
    let by = by.ok_or(Rejection::new(Reason::BatchSize))?;
    let events = items.iter().map(|item| event(batch, item, items.len(), body)).collect::<Result<_, _>>()?;
    Ok((events, by))
}

pub(crate) fn items(batch: Document<'_>) -> Result<Vec<Item<'_>>, Rejection> {
    let malformed = |_: JsonProblem| Rejection::about(Reason::BodyMalformed, "notificationItems");
    let missing = || Rejection::about(Reason::BodyMalformed, "notificationItems");
    let list = batch.child("notificationItems").map_err(malformed)?.ok_or_else(missing)?;
    let elements = list.elements().map_err(malformed)?;
    if elements.is_empty() || elements.len() > limits::BATCH_ITEMS_MAX {
        return Err(Rejection::new(Reason::BatchSize));
    }
    elements.into_iter().map(read).collect()
}

fn read(element: Document<'_>) -> Result<Item<'_>, Rejection> {
    let malformed = |place: &str| Rejection::about(Reason::BodyMalformed, place);
    let item = element.child("NotificationRequestItem").ok().flatten();
    let item = item.ok_or_else(|| malformed("NotificationRequestItem"))?;
    let mut fields: [String; 8] = Default::default();
    for (at, (field, path)) in fields.iter_mut().zip(FIELDS).enumerate() {
        let name = path.last().copied().unwrap_or_default();
        *field = text(item, path).map_err(|_| malformed(name))?.unwrap_or_default();
        if at != MERCHANT_REFERENCE && field.contains(':') {
            return Err(malformed(name));
        }
    }
    let signature = text(item, &["additionalData", "hmacSignature"]).ok().flatten();
    let signature = signature.and_then(|text| base64(&text)).ok_or_else(|| malformed("hmacSignature"))?;
    Ok(Item { element, fields, signature })
}

fn text(item: Document<'_>, path: &[&str]) -> Result<Option<String>, JsonProblem> {
    let mut here = item;
    for name in path {
        match here.child(name)? {
            Some(child) if child.text() != "null" => here = child,
            Some(_) | None => return Ok(None),
        }
    }
    here.scalar().map(|text| Some(text.into_owned()))
}

pub(crate) fn matching<'s>(
    item: &Item<'_>,
    mut secrets: impl Iterator<Item = &'s Secret>,
) -> Option<Arc<str>> {
    let signed = item.fields.join(":");
    let holds = |secret: &&Secret| match &secret.key {
        Key::Shared(key) => {
            mac::equal(&mac::code(Algorithm::HmacSha256, key, &[signed.as_bytes()]), &item.signature)
        }
        Key::Public(_) => false,
    };
    secrets.find(holds).map(|secret| Arc::clone(&secret.id))
}

/// An item alone is delivered as it came. One of several is put into an envelope of its own, its bytes unchanged, so that a
/// target reads both alike.
fn event(batch: Document<'_>, item: &Item<'_>, items: usize, body: &Bytes) -> Result<Event, Rejection> {
    let [psp_reference, .., event_code, success] = &item.fields;
    if [psp_reference, event_code, success].iter().any(|field| field.trim().is_empty()) {
        return Err(Rejection::new(Reason::IdentityMissing));
    }
    let identity = compose(0, &[psp_reference.clone(), event_code.clone(), success.clone()]);
    if items == 1 {
        return Ok(Event::new(identity, body.clone()));
    }
    let live = batch.child("live").ok().flatten().map_or("null", Document::text);
    let element = item.element.text();
    let envelope = format!(r#"{{"live":{live},"notificationItems":[{element}]}}"#);
    Ok(Event::new(identity, envelope.into()))
}

#[cfg(test)]
mod tests {
    use crate::Provider;
    use crate::providers::testing::{one, source, verified, verify};

    const KEY: &str = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";

    /// An item and its signature, of the tests of Adyen's own library for PHP (adyen-php-api-library, `HmacSignatureTest.php`).
    const ITEM: &str = r#"{"NotificationRequestItem":{"additionalData":{"hmacSignature":"Ny9gS2veKo5E4w8/OL6xz1/wvT/hYkAXy1xNc/QvO4I="},"pspReference":"7914073381342284","merchantAccountCode":"TestMerchant","merchantReference":"TestPayment-1407325143704","amount":{"value":1130,"currency":"EUR"},"eventCode":"AUTHORISATION","success":"true"}}"#;
    const IDENTITY: &str = "7914073381342284|AUTHORISATION|true";

    fn batch(items: &[&str]) -> String {
        format!(r#"{{"live":"false","notificationItems":[{}]}}"#, items.join(","))
    }

    fn check(body: &str, expected: Result<Vec<String>, &'static str>) {
        assert_eq!(verify(&source(Provider::Adyen, KEY), &[], body, 0), expected, "{body}");
    }

    #[test]
    fn the_published_vector_holds_and_nothing_that_was_altered() {
        check(&batch(&[ITEM]), one(IDENTITY));
        check(&batch(&[&ITEM.replace("\"true\"", "true")]), one(IDENTITY));
        for (from, to) in [
            ("7914073381342284", "7914073381342285"),
            ("TestMerchant", "OtherMerchant"),
            ("TestPayment", "OtherPayment"),
            ("1130", "11300"),
            ("EUR", "USD"),
            ("AUTHORISATION", "REFUND"),
            ("\"true\"", "\"false\""),
            ("\"merchantReference\"", "\"reference\""),
            ("Ny9g", "Ny9h"),
        ] {
            check(&batch(&[&ITEM.replace(from, to)]), Err("signature_mismatch"));
        }
        let other = KEY.replace('D', "E");
        assert_eq!(
            verify(&source(Provider::Adyen, &other), &[], &batch(&[ITEM]), 0),
            Err("signature_mismatch")
        );
    }

    #[test]
    fn a_batch_is_as_many_events_or_none_at_all() {
        let second = ITEM.replace("7914073381342284", "1111111111111111").replace(
            "Ny9gS2veKo5E4w8/OL6xz1/wvT/hYkAXy1xNc/QvO4I=",
            "ZIT4FUWNgCzFK/57MeCTNEnEAiPqirKH+zdB0jjDTc0=",
        );
        let both = batch(&[ITEM, &second]);
        check(&both, Ok(vec![IDENTITY.to_owned(), "1111111111111111|AUTHORISATION|true".to_owned()]));
        check(&batch(&[ITEM, &second.replace("1130", "9999")]), Err("signature_mismatch"));
        let events = verified(&source(Provider::Adyen, KEY), &[], &both, 0).unwrap().into_events();
        assert_eq!(events[1].body(), &batch(&[&second]), "an item keeps its bytes");
        let alone = format!(" {}", batch(&[ITEM]));
        let events = verified(&source(Provider::Adyen, KEY), &[], &alone, 0).unwrap().into_events();
        assert_eq!(events[0].body(), &alone, "one alone is delivered as it came");
    }

    #[test]
    fn a_border_between_fields_cannot_be_moved() {
        // Both sign `a:b::…`; only the merchant's own reference may hold a colon.
        let moved =
            ITEM.replace("\"7914073381342284\"", "\"7914073381342284:\"").replace("\"TestMerchant\"", "\"\"");
        check(&batch(&[&moved]), Err("body_malformed"));
        let reference = ITEM.replace("TestPayment-1407325143704", "a:b").replace(
            "Ny9gS2veKo5E4w8/OL6xz1/wvT/hYkAXy1xNc/QvO4I=",
            "TPp2C2+691SWrfBKFhDPRe+K4rEU7No5eI6l43SqRiQ=",
        );
        check(&batch(&[&reference]), one(IDENTITY));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for body in ["", "{}", "[]", "no json", r#"{"notificationItems":{}}"#, r#"{"notificationItems":[1]}"#]
        {
            check(body, Err("body_malformed"));
        }
        check(&batch(&[]), Err("batch_size"));
        check(&batch(&[ITEM; 257]), Err("batch_size"));
        check(&batch(&["{}"]), Err("body_malformed"));
        check(&batch(&[&ITEM.replace("hmacSignature", "other")]), Err("body_malformed"));
        check(
            &batch(&[&ITEM.replace(r#""success":"#, r#""success":"true","success":"#)]),
            Err("body_malformed"),
        );
        check(
            &batch(&[&ITEM.replace(r#"{"value":1130,"currency":"EUR"}"#, "[]")]),
            Err("signature_mismatch"),
        );
    }

    #[test]
    fn adyen_is_answered_what_it_expects() {
        let answer = Provider::Adyen.answer();
        assert_eq!(
            (answer.status, answer.content_type, answer.body),
            (200, Some("text/plain"), "[accepted]")
        );
    }
}

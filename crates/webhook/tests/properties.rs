//! Properties over headers and bodies: nothing panics, whatever is sent, and nothing that was altered is accepted. The same
//! properties are under `fuzz/`, for those who leave a fuzzer running.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use semel_core::Timestamp;
use semel_webhook::{
    Delivery, IdentityRule, MissingIdentity, Provider, SecretValue, Signer, Source, Template, Verified,
};
use sha2::Sha256;

const AT_S: u64 = 1_700_000_000;
const NOW: Timestamp = Timestamp::from_millis(AT_S * 1_000);
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ADYEN_KEY: &str = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";

fn secret(provider: Provider) -> &'static str {
    match provider {
        Provider::StandardWebhooks => STANDARD_SECRET,
        Provider::Adyen => ADYEN_KEY,
        _ => "a-secret",
    }
}

/// A source of every provider that verifies something.
fn sources() -> Vec<Source> {
    let made = Provider::ALL.into_iter().filter(|provider| *provider != Provider::None).map(|provider| {
        let builder = Source::builder("partner", provider).secret(SecretValue::new("main", secret(provider)));
        if provider == Provider::Generic {
            let hash =
                MissingIdentity::ContentHash { headers: vec!["x-time".to_owned()], without: Vec::new() };
            builder.token("authorization", "Bearer ").missing_identity(hash).build().unwrap()
        } else {
            builder.build().unwrap()
        }
    });
    made.collect()
}

fn code(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut code = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        code.update(part);
    }
    code.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

type Headers = Vec<(String, Vec<u8>)>;

fn verify(source: &Source, headers: &Headers, body: &[u8]) -> Option<Verified> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let body = Bytes::copy_from_slice(body);
    source.verify(&Delivery::new(&headers, &body), NOW).ok()
}

/// A delivery that holds: headers, of which the first `signed` ones are covered, and the body.
fn genuine(provider: Provider, id: &str, body: &[u8]) -> (Headers, usize) {
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    let key = b"a-secret";
    let at = AT_S.to_string();
    match provider {
        Provider::StandardWebhooks => {
            let signer = Signer::try_new(&[SecretValue::new("main", STANDARD_SECRET)]).unwrap();
            let sent = signer.sign(id, NOW, body).unwrap();
            (sent.headers().map(|(name, value)| header(name, value.to_owned())).to_vec(), 3)
        }
        Provider::Stripe => {
            let signature = hex(&code(key, &[at.as_bytes(), b".", body]));
            (vec![header("stripe-signature", format!("t={at},v1={signature}"))], 1)
        }
        Provider::Github => {
            let signature = hex(&code(key, &[body]));
            (
                vec![
                    header("x-hub-signature-256", format!("sha256={signature}")),
                    header("x-github-delivery", id.to_owned()),
                ],
                1,
            )
        }
        Provider::Shopify => {
            let signature = STANDARD.encode(code(key, &[body]));
            (
                vec![
                    header("x-shopify-hmac-sha256", signature),
                    header("x-shopify-webhook-id", id.to_owned()),
                ],
                1,
            )
        }
        Provider::Easypost => {
            let signature = hex(&code(key, &[body]));
            (vec![header("x-hmac-signature", format!("hmac-sha256-hex={signature}"))], 1)
        }
        _ => {
            let signature = STANDARD.encode(code(key, &[body]));
            (vec![header("aftership-hmac-sha256", signature)], 1)
        }
    }
}

const SIGNING: [Provider; 6] = [
    Provider::StandardWebhooks,
    Provider::Stripe,
    Provider::Github,
    Provider::Shopify,
    Provider::Easypost,
    Provider::Aftership,
];

/// Names that are looked for, in any order and number, and some that are not.
fn any_headers() -> impl Strategy<Value = Headers> {
    let names = prop::sample::select(vec![
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "svix-signature",
        "stripe-signature",
        "x-hub-signature-256",
        "x-github-delivery",
        "x-shopify-hmac-sha256",
        "x-callback-token",
        "aftership-hmac-sha256",
        "am-webhook-signature",
        "x-hmac-signature",
        "authorization",
        "x-time",
        "",
    ]);
    let values = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(v1,|t=|v1=|sha256=|hmac-sha256-hex=|Bearer |)[ -~]{0,70}".prop_map(String::into_bytes),
        "[0-9]{1,22}".prop_map(String::into_bytes),
    ];
    prop::collection::vec((names.prop_map(str::to_owned), values), 0..8)
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        r#"[\{\}\[\]",:0-9a-c\\ ]{0,60}"#.prop_map(String::into_bytes),
        Just(br#"{"notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"AAAA"}}}]}"#.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_made_up_is_accepted(headers in any_headers(), body in any_body(), now in any::<u64>()) {
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let body = Bytes::from(body);
        let delivery = Delivery::new(&pairs, &body);
        for source in sources() {
            let now = Timestamp::from_millis(now);
            prop_assert!(source.verify(&delivery, now).is_err(), "{:?}", source.provider());
            prop_assert!(source.diagnose(&delivery, now).rejection.is_some());
        }
    }

    #[test]
    fn what_is_genuine_is_accepted_and_what_was_altered_is_not(
        which in 0..SIGNING.len(),
        id in "[!-+/-~]{1,40}",
        value in "[a-z]{0,20}",
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let provider = SIGNING[which];
        let source = Source::builder("partner", provider).secret(SecretValue::new("main", secret(provider))).build().unwrap();
        let body = serde_json::json!({ "id": id, "event_id": id, "value": value }).to_string().into_bytes();
        let (headers, signed) = genuine(provider, &id, &body);
        let verified = verify(&source, &headers, &body);
        prop_assert!(verified.is_some(), "{provider:?} {headers:?}");

        let mut altered = body.clone();
        altered[at.index(body.len())] ^= 1 << bit;
        prop_assert!(verify(&source, &headers, &altered).is_none(), "the body of {provider:?}");
        prop_assert!(verify(&source, &headers, &body[..at.index(body.len())]).is_none(), "a shorter body of {provider:?}");

        for which in 0..signed {
            let mut altered = headers.clone();
            let value = &mut altered[which].1;
            let place = at.index(value.len());
            value[place] ^= 1 << bit;
            let means_the_same = value.eq_ignore_ascii_case(&headers[which].1) && is_hex(provider, place, &headers[which].1);
            prop_assert!(means_the_same || verify(&source, &altered, &body).is_none(), "{altered:?}");
            let mut without = headers.clone();
            without.remove(which);
            prop_assert!(verify(&source, &without, &body).is_none());
        }
    }

    #[test]
    fn an_item_of_a_batch_that_was_altered_is_not_accepted(
        reference in "[a-zA-Z0-9:]{0,20}",
        value in 0..1_000_000_u32,
        at in any::<prop::sample::Index>(),
        with in "[a-zA-Z0-9:]",
    ) {
        let key: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&ADYEN_KEY[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let fields = ["psp1".to_owned(), String::new(), "Shop".to_owned(), reference, value.to_string(), "EUR".to_owned(), "AUTHORISATION".to_owned(), "true".to_owned()];
        let signature = STANDARD.encode(code(&key, &[fields.join(":").as_bytes()]));
        let body = |fields: &[String]| serde_json::json!({ "notificationItems": [{ "NotificationRequestItem": {
            "additionalData": { "hmacSignature": signature },
            "pspReference": fields[0], "originalReference": fields[1], "merchantAccountCode": fields[2],
            "merchantReference": fields[3], "amount": { "value": fields[4], "currency": fields[5] },
            "eventCode": fields[6], "success": fields[7],
        } }] }).to_string().into_bytes();
        let source = Source::builder("partner", Provider::Adyen).secret(SecretValue::new("main", ADYEN_KEY)).build().unwrap();
        prop_assert!(verify(&source, &Vec::new(), &body(&fields)).is_some());
        let mut altered = fields.clone();
        altered[at.index(8)].push_str(&with);
        prop_assert!(verify(&source, &Vec::new(), &body(&altered)).is_none(), "{altered:?}");
        // A border that is moved by one character.
        let mut moved = fields.clone();
        let which = at.index(7);
        if let Some(first) = moved[which + 1].chars().next() {
            moved[which + 1].remove(0);
            moved[which].push(first);
            prop_assert!(verify(&source, &Vec::new(), &body(&moved)).is_none(), "{moved:?}");
        }
    }

    #[test]
    fn two_events_never_have_one_name(one in "[ -~é|#%]{1,12}", two in "[ -~é|#%]{1,12}", other in "[ -~|]{1,12}", third in "[ -~|]{1,12}") {
        let source = Source::builder("partner", Provider::None)
            .identity(IdentityRule::all_of(&["/a", "/b"]).unwrap())
            .insecure(true)
            .build()
            .unwrap();
        let name = |a: &str, b: &str| {
            let body = serde_json::json!({ "a": a, "b": b }).to_string();
            verify(&source, &Vec::new(), body.as_bytes()).map(|verified| verified.events()[0].identity().to_string())
        };
        let (first, second) = (name(&one, &two), name(&other, &third));
        if let (Some(first), Some(second)) = (first, second) {
            prop_assert_eq!(first == second, (one, two) == (other, third));
        }
    }

    #[test]
    fn a_template_is_parsed_or_refused(text in "[a-z{}:.]{0,30}|(\\{body\\}|\\{timestamp\\}|\\{header:x\\}|[.:a]){0,6}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.as_str(), text);
        }
    }
}

/// Whether the place lies in hexadecimal digits, of which either case means the same.
fn is_hex(provider: Provider, place: usize, value: &[u8]) -> bool {
    let written_so = matches!(provider, Provider::Stripe | Provider::Github | Provider::Easypost);
    written_so && place >= value.len() - 64
}

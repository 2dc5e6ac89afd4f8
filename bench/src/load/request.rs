//! Requests as bytes: built once, then patched with the key and the noise of each number.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Which payload the request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// An order number and an amount, about 60 bytes.
    Small,
    /// The same with noise, so that the stored outcome is about 400 bytes and does not compress well.
    Outcome400,
    /// As small, for the operation `brief`, which a scenario configures.
    Brief,
    /// A webhook as GitHub sends it: the number is in the header of the delivery, so that one signature holds for the body of all,
    /// and the generator need not sign.
    Webhook,
}

/// The secret of the source that takes [`Body::Webhook`].
pub(crate) const WEBHOOK_SECRET: &str = "bench";

/// HMAC-SHA-256 of the body of [`Body::Webhook`] under [`WEBHOOK_SECRET`]. The server says at the start of a run whether it holds.
const WEBHOOK_SIGNATURE: &str = "43b93d91cb2681835e202c440b051360ce3acda18889ab985e80efc639732508";

/// Hexadecimal digits of noise in [`Body::Outcome400`]: with the envelope around it the outcome is 400 bytes.
const NOISE_DIGITS: usize = 311;

const KEY_DIGITS: usize = 32;
const ORDER_DIGITS: usize = 16;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// One request's bytes and the places in it that change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    key_at: usize,
    /// Where the body has the number, if it has.
    order_at: Option<usize>,
    noise_at: Option<usize>,
}

impl Template {
    /// Builds the request for `path` with placeholders.
    pub(crate) fn new(path: &str, addr: SocketAddr, body: Body) -> Self {
        let order = "0".repeat(ORDER_DIGITS);
        let note = match body {
            Body::Small | Body::Brief | Body::Webhook => String::new(),
            Body::Outcome400 => format!(r#","note":"{}""#, "0".repeat(NOISE_DIGITS)),
        };
        let operation = if body == Body::Brief { "brief" } else { "echo" };
        let body_text = format!(
            r#"{{"operation":"{operation}","payload":{{"order_id":"{order}","amount":125000{note}}}}}"#
        );
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = write!(
            text,
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body_text.len()
        );
        if body == Body::Webhook {
            let _ =
                write!(text, "X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256={WEBHOOK_SIGNATURE}\r\n");
            text.push_str("X-GitHub-Delivery: ");
        } else {
            text.push_str("Idempotency-Key: ");
        }
        let key_at = text.len();
        text.push_str(&"0".repeat(KEY_DIGITS));
        text.push_str("\r\n\r\n");
        let body_at = text.len();
        text.push_str(&body_text);
        let order_at = body_text.find(&order).map(|at| body_at + at).filter(|_| body != Body::Webhook);
        let noise_at = body_text.find(r#""note":""#).map(|at| body_at + at + r#""note":""#.len());
        Self { bytes: text.into_bytes(), key_at, order_at, noise_at }
    }

    /// Puts the key and the payload of `number` in place.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.bytes[self.key_at..self.key_at + KEY_DIGITS].copy_from_slice(&key_of(number));
        if let Some(at) = self.order_at {
            write_hex(&mut self.bytes[at..at + ORDER_DIGITS], number);
        }
        if let Some(at) = self.noise_at {
            for (index, part) in (1_u64..).zip(self.bytes[at..at + NOISE_DIGITS].chunks_mut(ORDER_DIGITS)) {
                write_hex(part, scramble(number.wrapping_mul(31).wrapping_add(index)));
            }
        }
    }

    /// The request as it goes out.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The idempotency key of a number: 32 hexadecimal digits in no order, as a random UUID would be.
pub(crate) fn key_of(number: u64) -> [u8; KEY_DIGITS] {
    let mut key = [0; KEY_DIGITS];
    let high = scramble(number);
    write_hex(&mut key[..ORDER_DIGITS], high);
    write_hex(&mut key[ORDER_DIGITS..], scramble(high ^ number));
    key
}

/// `SplitMix64`'s finisher: a bijection, so that two numbers never share a key.
pub(super) fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn write_hex(into: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in into.iter_mut().rev() {
        *digit = HEX[usize::from((rest & 0xf) as u8)];
        rest >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_key_and_a_body_of_the_length_it_says() {
        for body in [Body::Small, Body::Outcome400, Body::Brief] {
            let mut template = Template::new("/x", "127.0.0.1:1".parse().unwrap(), body);
            template.set_number(7);
            let text = String::from_utf8(template.bytes().to_vec()).unwrap();
            let (head, content) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", content.len())));
            assert!(head.contains(&String::from_utf8(key_of(7).to_vec()).unwrap()));
            let value: serde_json::Value = serde_json::from_str(content).unwrap();
            assert_eq!(value["payload"]["order_id"], "0000000000000007");
        }
    }

    #[test]
    fn webhooks_differ_in_their_header_and_not_in_what_is_signed() {
        let mut template = Template::new("/x", "127.0.0.1:1".parse().unwrap(), Body::Webhook);
        let mut sent = |number| {
            template.set_number(number);
            String::from_utf8(template.bytes().to_vec()).unwrap()
        };
        let (one, two) = (sent(1), sent(2));
        let body = |text: &str| text.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(
            body(&one),
            r#"{"operation":"echo","payload":{"order_id":"0000000000000000","amount":125000}}"#
        );
        assert_eq!(body(&one), body(&two));
        assert!(
            two.contains(&format!(
                "X-GitHub-Delivery: {}\r\n",
                String::from_utf8(key_of(2).to_vec()).unwrap()
            ))
        );
        assert_ne!(one, two);
    }

    #[test]
    fn the_large_body_makes_an_outcome_of_400_bytes() {
        let mut template = Template::new("/x", "127.0.0.1:1".parse().unwrap(), Body::Outcome400);
        template.set_number(1);
        let text = String::from_utf8(template.bytes().to_vec()).unwrap();
        let value: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let outcome = serde_json::json!({"status": "completed", "result": value["payload"]}).to_string();
        assert_eq!(outcome.len(), 400);
    }

    #[test]
    fn two_numbers_never_share_a_key() {
        let keys: std::collections::HashSet<_> = (0..100_000).map(key_of).collect();
        assert_eq!(keys.len(), 100_000);
    }
}

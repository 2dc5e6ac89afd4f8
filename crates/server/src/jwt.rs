//! JSON Web Tokens (RFC 7519) as they stand behind `Bearer`: whether one is genuine and holds now, and what a claim of
//! it says about who asks.
//!
//! A key decides which algorithms it may have signed with; a token only says which of those it was. So no token turns a
//! public key into a shared secret, and none is without a signature.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use ring::signature as signed;
use ring::{digest, hmac};
use serde_json::{Map, Value};

use crate::config::Secret;
use crate::limits;

/// Which tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// By whose keys they are judged; `None`: whoever stands before has judged them, and they are only read.
    pub(crate) keys: Option<Vec<Key>>,
    /// Who must have issued them.
    pub(crate) issuer: Option<String>,
    /// For one of whom they must have been issued; none: for anybody.
    pub(crate) audience: Vec<String>,
}

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Shared(Secret),
}

impl Key {
    /// A secret that the issuer shares (HS256, HS384, HS512).
    pub(crate) const fn shared(secret: Secret) -> Self {
        Self { id: None, algorithm: None, kind: Kind::Shared(secret) }
    }

    /// The keys of a JWK set (RFC 7517) that can have signed a token; those for anything else are left out.
    ///
    /// # Errors
    /// It is no such set, or there is no such key in it.
    pub(crate) fn of_set(text: &str) -> Result<Vec<Self>, &'static str> {
        let set: Value = serde_json::from_str(text).map_err(|_| "is no JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("is no JWK set: it has no `keys`")?;
        let keys: Vec<_> = keys.iter().filter_map(Self::of_jwk).collect();
        if keys.is_empty() {
            Err("has no public key that signs (RSA, EC P-256 or P-384, Ed25519)")
        } else {
            Ok(keys)
        }
    }

    fn of_jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        if text("use").is_some_and(|meant| meant != "sig") {
            return None;
        }
        // As SEC 1, section 2.3.3, writes a point that is not compressed.
        let point = || Some([&[4], &bytes("x")?[..], &bytes("y")?[..]].concat());
        let kind = match (text("kty")?, text("crv")) {
            ("RSA", _) => Kind::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Kind::P256(point()?),
            ("EC", Some("P-384")) => Kind::P384(point()?),
            ("OKP", Some("Ed25519")) => Kind::Ed25519(bytes("x")?),
            // A shared secret has no place in a file that is made to be published.
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), kind })
    }

    /// Whether it has signed this by that algorithm.
    fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_ref().is_some_and(|own| own != algorithm) {
            return false;
        }
        let by = |algorithm: &'static dyn signed::VerificationAlgorithm, key: &[u8]| {
            signed::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        let rsa = |parameters: &signed::RsaParameters, n: &[u8], e: &[u8]| {
            signed::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
        };
        let shared = |algorithm: hmac::Algorithm, secret: &Secret| {
            let key = hmac::Key::new(algorithm, secret.expose().as_bytes());
            hmac::verify(&key, message, signature).is_ok()
        };
        match (&self.kind, algorithm) {
            (Kind::Rsa { n, e }, "RS256") => rsa(&signed::RSA_PKCS1_2048_8192_SHA256, n, e),
            (Kind::Rsa { n, e }, "RS384") => rsa(&signed::RSA_PKCS1_2048_8192_SHA384, n, e),
            (Kind::Rsa { n, e }, "RS512") => rsa(&signed::RSA_PKCS1_2048_8192_SHA512, n, e),
            (Kind::Rsa { n, e }, "PS256") => rsa(&signed::RSA_PSS_2048_8192_SHA256, n, e),
            (Kind::Rsa { n, e }, "PS384") => rsa(&signed::RSA_PSS_2048_8192_SHA384, n, e),
            (Kind::Rsa { n, e }, "PS512") => rsa(&signed::RSA_PSS_2048_8192_SHA512, n, e),
            (Kind::P256(point), "ES256") => by(&signed::ECDSA_P256_SHA256_FIXED, point),
            (Kind::P384(point), "ES384") => by(&signed::ECDSA_P384_SHA384_FIXED, point),
            (Kind::Ed25519(key), "EdDSA" | "Ed25519") => by(&signed::ED25519, key),
            (Kind::Shared(secret), "HS256") => shared(hmac::HMAC_SHA256, secret),
            (Kind::Shared(secret), "HS384") => shared(hmac::HMAC_SHA384, secret),
            (Kind::Shared(secret), "HS512") => shared(hmac::HMAC_SHA512, secret),
            _ => false,
        }
    }
}

/// Bytes of a shared secret, at least (RFC 7518, section 3.2).
pub(crate) const SECRET_BYTES_MIN: usize = digest::SHA256_OUTPUT_LEN;

/// The claims of a token that is believed.
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    /// A claim that can say who asks: a text that is not empty, or a whole number.
    pub(crate) fn text(&self, claim: &str) -> Option<String> {
        match self.0.get(claim)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }
}

impl Tokens {
    /// The claims of the one bearer token of a request; why it is not believed, else.
    pub(crate) fn of_headers(&self, headers: &HeaderMap) -> Result<Claims, &'static str> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(one), None) = (given.next(), given.next()) else {
            return Err("there is not one Authorization");
        };
        let (scheme, token) = one.to_str().ok().and_then(|text| text.split_once(' ')).ok_or("no scheme")?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err("the scheme is not Bearer");
        }
        self.claims(token.trim(), now())
    }

    fn claims(&self, token: &str, now: Duration) -> Result<Claims, &'static str> {
        let (message, signature) = token.rsplit_once('.').ok_or("no JWT")?;
        let (head, payload) =
            message.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or("no JWT")?;
        let claims = object(payload).ok_or("its payload is no JSON object")?;
        let Some(keys) = &self.keys else { return self.meant_for_us(claims) };
        let head = object(head).ok_or("its header is no JSON object")?;
        let text = |name: &str| head.get(name).and_then(Value::as_str);
        // What must be understood is not (RFC 7515, section 4.1.11).
        if head.contains_key("crit") {
            return Err("its header has something critical that is not understood");
        }
        let (algorithm, id) = (text("alg").ok_or("its header names no algorithm")?, text("kid"));
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature is no base64url")?;
        let named = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let has_signed = |key: &Key| key.has_signed(algorithm, message.as_bytes(), &signature);
        if !keys.iter().filter(named).any(has_signed) {
            return Err("no key has signed it");
        }
        // A time that is no number is no time, and never one that is not there.
        let time =
            |name: &str| claims.get(name).map(|time| time.as_f64().ok_or("one of its times is no number"));
        let (now, leeway) = (now.as_secs_f64(), limits::JWT_LEEWAY.as_secs_f64());
        let expires = time("exp").ok_or("it has no time at which it expires")??;
        if now > expires + leeway {
            return Err("it has expired");
        }
        if time("nbf").transpose()?.is_some_and(|begins| now < begins - leeway) {
            return Err("it is not valid yet");
        }
        self.meant_for_us(claims)
    }

    fn meant_for_us(&self, claims: Map<String, Value>) -> Result<Claims, &'static str> {
        let said = |name: &str| claims.get(name).and_then(Value::as_str);
        if self.issuer.is_some() && said("iss") != self.issuer.as_deref() {
            return Err("another issuer has issued it");
        }
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|text| self.audience.iter().any(|own| own == text))
        };
        let meant = match claims.get("aud") {
            _ if self.audience.is_empty() => true,
            Some(Value::Array(several)) => several.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if meant { Ok(Claims(claims)) } else { Err("it was issued for somebody else") }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The times in a token are those of its issuer's wall.
fn now() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "an issuer's times are compared with nothing else; no record's time comes from here"
    )]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);
    const SECRET: &str = "a secret of thirty-two characters";

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn token(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", part(head), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())))
    }

    fn with_secret(message: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::sign(&key, message).as_ref().to_vec()
    }

    fn tokens(keys: Vec<Key>) -> Tokens {
        Tokens { keys: Some(keys), issuer: None, audience: Vec::new() }
    }

    fn shared() -> Tokens {
        tokens(vec![Key::shared(Secret::new(SECRET))])
    }

    fn sub(tokens: &Tokens, token: &str) -> Result<Option<String>, &'static str> {
        tokens.claims(token, NOW).map(|claims| claims.text("sub"))
    }

    fn hs256(claims: &Value) -> String {
        token(&json!({ "alg": "HS256" }), claims, with_secret)
    }

    #[test]
    fn a_token_is_believed_if_a_key_of_ours_has_signed_it_and_it_holds_now() {
        let at = |exp: i64, nbf: i64| sub(&shared(), &hs256(&json!({ "sub": "a", "exp": exp, "nbf": nbf })));
        assert_eq!(at(1_000_100, 999_000), Ok(Some("a".to_owned())));
        assert_eq!(at(999_950, 1_000_050), Ok(Some("a".to_owned())), "clocks differ a little");
        assert_eq!(at(999_900, 0), Err("it has expired"));
        assert_eq!(at(2_000_000, 1_000_100), Err("it is not valid yet"));
        let said = |claims: Value| sub(&shared(), &hs256(&claims));
        assert_eq!(said(json!({ "sub": "a" })), Err("it has no time at which it expires"));
        for odd in [json!("1000100"), json!(null), json!([1_000_100])] {
            assert_eq!(said(json!({ "sub": "a", "exp": odd })), Err("one of its times is no number"));
            let claims = json!({ "sub": "a", "exp": 1_000_100, "nbf": odd });
            assert_eq!(said(claims), Err("one of its times is no number"));
        }
        let other = token(&json!({ "alg": "HS256" }), &json!({ "exp": 1_000_100 }), |_| vec![0; 32]);
        assert_eq!(sub(&shared(), &other), Err("no key has signed it"));
        for odd in ["", "a", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", "e30.e30.e30"] {
            assert!(sub(&shared(), odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_key_says_by_which_algorithms_it_signs_and_no_token_does() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "one" });
        let tokens = tokens(Key::of_set(&json!({ "keys": [jwk] }).to_string()).unwrap());
        let claims = json!({ "sub": 7, "exp": 1_000_100 });
        let signed = |message: &[u8]| pair.sign(message).as_ref().to_vec();
        for (head, expected) in [
            (json!({ "alg": "EdDSA", "kid": "one" }), Ok(Some("7".to_owned()))),
            (json!({ "alg": "EdDSA" }), Ok(Some("7".to_owned()))),
            (json!({ "alg": "EdDSA", "kid": "two" }), Err("no key has signed it")),
            (json!({ "alg": "ES256" }), Err("no key has signed it")),
            (json!({ "alg": "none" }), Err("no key has signed it")),
            (json!({}), Err("its header names no algorithm")),
            (
                json!({ "alg": "EdDSA", "crit": ["b64"] }),
                Err("its header has something critical that is not understood"),
            ),
        ] {
            assert_eq!(sub(&tokens, &token(&head, &claims, signed)), expected, "{head}");
        }
        // The public key as a shared secret, as whoever has read it would like to have it.
        let forged = |message: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
            hmac::sign(&key, message).as_ref().to_vec()
        };
        let forged = token(&json!({ "alg": "HS256" }), &claims, forged);
        assert_eq!(sub(&tokens, &forged), Err("no key has signed it"));
        let unsigned = token(&json!({ "alg": "none" }), &claims, |_| Vec::new());
        assert_eq!(sub(&tokens, &unsigned), Err("no key has signed it"));
    }

    #[test]
    fn elliptic_curves_of_a_set_are_read_and_what_cannot_sign_is_left_out() {
        let random = SystemRandom::new();
        let algorithm = &signed::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let key = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "use": "sig" });
        let others = json!([{ "kty": "oct", "k": "c2VjcmV0" }, { "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "enc" }, key]);
        let keys = Key::of_set(&json!({ "keys": others }).to_string()).unwrap();
        assert_eq!(keys.len(), 1);
        let signed = token(&json!({ "alg": "ES256" }), &json!({ "sub": "a", "exp": 1_000_100 }), |message| {
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        });
        assert_eq!(sub(&tokens(keys), &signed), Ok(Some("a".to_owned())));
        assert!(
            Key::of_set("{}").is_err() && Key::of_set("x").is_err() && Key::of_set(r#"{"keys":[]}"#).is_err()
        );
    }

    #[test]
    fn rsa_keys_judge_tokens_that_another_tool_has_signed() {
        // Made with OpenSSL by a key of 2048 bits that was thrown away.
        let n = "ueEL6gMq_UfenapeGj4y3WYAT09jv-obTcDTqTG7UgiZzDX3VNZuC4eqKYXMBtL1pvzbQruoGeIyri5Cl3VVCrAKbALofVHf_E4x\
             BC2yENBSzpAMHRNeIf3FxDRR_MJeYOjM2AuIS7otByJhR1vmWO_Pg0HW5xlk4n0YEwRpRpxX0sdtds9zzVriSj0O-5X99GxxLEeA\
             bQBrAwTrLm8Q2Uw_XB9NdMCzuAqeH8G45GqAY4WYgoDjM-1sFKJOHuazwFzmYtkP_OGNRx82Ilb6UyoMsDN_AV8PoJnqJHt8XpHT\
             hQKo3drcHPEeoerL_pDlkyPgvDSowtDQ_Kgs1-JDww";
        let rs256 = "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJzdWIiOiJhIiwiZXhwIjoxMDAwMTAwfQ.cWSw6OmTZVSqL380aTHa4E-2m7IwP5\
             cRpAoO4u7aDK4D7c4SHWfEiGXzJQgofOfQ5fLZEX-tvk90nWNCbJ0x8Xi-d2qywhxFlCIozP47KvQbDHLV9_vcd3NNtiJoTQvYvV\
             szu8CUpHpYEtZYmdsJgmEc1XKkQKwaYxF9OPN9DjmAad1aURjfIeuJboCK__xgHMxkaDtMJlxdq-XyLiSPqQnP36_Sg7Cry7GwKD\
             7R9DJfHfyRkPNVZM37lgp8VgG3J8qTO4mcEvyLq9ocH6sTbo3t5ZY0G-XVolX8WLDVsXKOrknAKaivDutVYaqpIwgnLTKYDgF0la\
             0_WCNn6ROHfQ";
        let ps256 = "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxMDAwMTAwfQ.aSVD3RjAuChDCyEpqyWYp0vfRlJ2C7vmEUVqH3w8_oAZ\
             -OGPDup-SCaVeKegdZn6TBfwAxvCYOguaDAvWba6yuz3gC5oIIUK0cO-5-cRxqrlDJyM1vOFZyeKTeyNekze3c80PQVLXkE5kDP8\
             Tfz3-koni48l9fYSKckh85oYexxifoMKQ3zoo7mu-d3iBcH8xxBjsce1IUJbAjuffRzJVcPjt6Pu80kcXRw1KAbu6BiGlrhXoPFX\
             Y9KAoYk7L39FUmKn5EqqxTI5Za82yaS_CkDYHVf5ljkPQMmehrpTa2vDDgzj98tZt01DqaFkaHQVLrnjK0lzXs6q0oMc7c9mww";
        let set = json!({ "keys": [{ "kty": "RSA", "n": n, "e": "AQAB", "kid": "r" }] }).to_string();
        let trusted = tokens(Key::of_set(&set).unwrap());
        for token in [rs256, ps256] {
            assert_eq!(sub(&trusted, token), Ok(Some("a".to_owned())));
            let (message, _) = token.rsplit_once('.').unwrap();
            assert_eq!(sub(&trusted, &format!("{message}.AAAA")), Err("no key has signed it"));
        }
    }

    #[test]
    fn an_issuer_and_an_audience_that_are_named_must_be_there_also_where_others_have_verified() {
        for keys in [Some(vec![Key::shared(Secret::new(SECRET))]), None] {
            let tokens = Tokens { keys, issuer: Some("us".to_owned()), audience: vec!["orders".to_owned()] };
            for (iss, aud, expected) in [
                (json!("us"), json!("orders"), true),
                (json!("us"), json!(["carts", "orders"]), true),
                (json!("us"), json!("carts"), false),
                (json!("us"), json!(null), false),
                (json!("them"), json!("orders"), false),
                (json!(null), json!("orders"), false),
            ] {
                let claims = json!({ "sub": "a", "exp": 1_000_100, "iss": iss, "aud": aud });
                assert_eq!(sub(&tokens, &hs256(&claims)).is_ok(), expected, "{claims}");
            }
        }
    }

    #[test]
    fn a_missing_identity_is_nobody_and_never_hashes_as_empty() {
        for odd in [json!(""), json!(null), json!(true), json!(1.5), json!(["a"]), json!({ "a": 1 })] {
            let claims = json!({ "sub": odd, "exp": 1_000_100 });
            assert_eq!(sub(&shared(), &hs256(&claims)), Ok(None), "{claims}");
        }
        let headers = |given: &[&str]| {
            let mut headers = HeaderMap::new();
            for one in given {
                headers.append(header::AUTHORIZATION, one.parse().unwrap());
            }
            headers
        };
        let unread = Tokens { keys: None, issuer: None, audience: Vec::new() };
        let bearer = format!("bearer {}", hs256(&json!({ "sub": "a" })));
        let said =
            |given: &[&str]| unread.of_headers(&headers(given)).ok().and_then(|claims| claims.text("sub"));
        assert_eq!(said(&[bearer.as_str()]), Some("a".to_owned()));
        let bearer = bearer.as_str();
        for odd in [&[][..], &[bearer, bearer], &["Basic eDp5"], &["Bearer"], &["Bearer x"]] {
            assert_eq!(said(odd), None, "{odd:?}");
        }
    }
}

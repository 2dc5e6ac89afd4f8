//! Secrets: how they are written, what they decode to, and until when they hold.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::VerifyingKey;
use semel_core::Timestamp;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::{ConfigError, Problem};
use crate::limits;

/// How a secret is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyEncoding {
    /// The text itself is the key.
    Utf8,
    /// The text itself after normalisation to NFKD, as `EasyPost` has it.
    Nfkd,
    /// Hexadecimal digits.
    Hex,
    /// Base64, padded or not.
    Base64,
    /// Base64 with the alphabet for URLs, padded or not.
    Base64Url,
    /// Standard Webhooks: base64, after `whsec_` or without it for a shared key, after `whpk_` for a public one.
    Standard,
}

/// Secrets are pasted without their padding as often as with it; bits beyond the last byte are still an error.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

pub(crate) const SHARED_PREFIX: &str = "whsec_";
pub(crate) const PUBLIC_PREFIX: &str = "whpk_";
pub(crate) const PRIVATE_PREFIX: &str = "whsk_";

/// A secret as it is configured: a name for logs, the value, and when it ends.
///
/// Each has an end of its own. During a rotation the old one is given the end and the new one none; the next rotation
/// begins again from there, and nothing is inherited.
#[derive(Clone)]
pub struct SecretValue {
    pub(crate) id: Arc<str>,
    pub(crate) value: Box<str>,
    pub(crate) not_after: Option<Timestamp>,
}

impl SecretValue {
    /// A secret that holds until it is taken out.
    pub fn new(id: &str, value: &str) -> Self {
        Self { id: id.into(), value: value.into(), not_after: None }
    }

    /// It holds up to and including `end`.
    #[must_use]
    pub const fn not_after(mut self, end: Timestamp) -> Self {
        self.not_after = Some(end);
        self
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a secret decodes to.
#[derive(Clone)]
pub(crate) enum Key {
    Shared(Box<[u8]>),
    Public(Box<VerifyingKey>),
}

/// A secret that can verify.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) id: Arc<str>,
    pub(crate) key: Key,
    pub(crate) not_after: Option<Timestamp>,
    /// As it was written, for the debugger's near misses.
    pub(crate) written: Box<str>,
}

impl Secret {
    pub(crate) fn try_new(value: &SecretValue, encoding: KeyEncoding) -> Result<Self, ConfigError> {
        let wrong = |problem| ConfigError::new(format!("secret {:?}", value.id), problem);
        check_id(&value.id).map_err(wrong)?;
        let key = decode(&value.value, encoding).map_err(wrong)?;
        Ok(Self { id: Arc::clone(&value.id), key, not_after: value.not_after, written: value.value.clone() })
    }

    pub(crate) fn holds_at(&self, now: Timestamp) -> bool {
        self.not_after.is_none_or(|end| now <= end)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn check_id(id: &str) -> Result<(), Problem> {
    match id {
        "" => Err(Problem::Empty),
        id if id.chars().count() > limits::SECRET_ID_CHARS_MAX => {
            Err(Problem::TooLong { max: limits::SECRET_ID_CHARS_MAX })
        }
        id if id.chars().any(char::is_control) => Err(Problem::ControlCharacter),
        _ => Ok(()),
    }
}

fn decode(text: &str, encoding: KeyEncoding) -> Result<Key, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    // A line end from a file or a blank from a paste: nobody means it, and it makes another key.
    if text.trim() != text {
        return Err(Problem::SurroundedByWhiteSpace);
    }
    let shared =
        |bytes: Vec<u8>| if bytes.is_empty() { Err(Problem::Empty) } else { Ok(Key::Shared(bytes.into())) };
    match encoding {
        KeyEncoding::Utf8 => shared(text.as_bytes().to_vec()),
        KeyEncoding::Nfkd => shared(nfkd(text).into_bytes()),
        KeyEncoding::Hex => shared(hex(text).ok_or(Problem::NotHex)?),
        KeyEncoding::Base64 => shared(base64(text).ok_or(Problem::NotBase64)?),
        KeyEncoding::Base64Url => shared(base64_url(text).ok_or(Problem::NotBase64)?),
        KeyEncoding::Standard => {
            if text.starts_with(PRIVATE_PREFIX) {
                return Err(Problem::PrivateKey);
            }
            if let Some(public) = text.strip_prefix(PUBLIC_PREFIX) {
                return public_key(public).map(|key| Key::Public(Box::new(key)));
            }
            standard_shared(text).and_then(shared)
        }
    }
}

/// The bytes of a shared secret of Standard Webhooks, with or without its prefix.
pub(crate) fn standard_shared(text: &str) -> Result<Vec<u8>, Problem> {
    let plain = text.strip_prefix(SHARED_PREFIX).unwrap_or(text);
    if plain.starts_with(SHARED_PREFIX) {
        return Err(Problem::PrefixTwice);
    }
    let bytes = base64(plain).ok_or(Problem::NotBase64)?;
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    if bytes.starts_with(SHARED_PREFIX.as_bytes()) {
        return Err(Problem::EncodedTwice);
    }
    Ok(bytes)
}

fn public_key(text: &str) -> Result<VerifyingKey, Problem> {
    let bytes = base64(text).ok_or(Problem::NotBase64)?;
    let bytes = bytes.try_into().map_err(|_| Problem::KeyLength { expected: 32 })?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| Problem::KeyInvalid)?;
    // A key of small order verifies signatures that nobody made.
    if key.is_weak() { Err(Problem::KeyInvalid) } else { Ok(key) }
}

pub(crate) fn nfkd(text: &str) -> String {
    text.nfkd().collect()
}

pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

pub(crate) fn base64_url(text: &str) -> Option<Vec<u8>> {
    BASE64_URL.decode(text).ok()
}

/// The bytes of an even number of hexadecimal digits, in either case.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: KeyEncoding, text: &str, expected: Result<&[u8], &str>) {
        let secret = Secret::try_new(&SecretValue::new("main", text), encoding);
        let found = match &secret {
            Ok(Secret { key: Key::Shared(bytes), .. }) => Ok(bytes.to_vec()),
            Ok(Secret { key: Key::Public(key), .. }) => Ok(key.as_bytes().to_vec()),
            Err(error) => Err(error.to_string()),
        };
        let expected = expected.map(<[u8]>::to_vec).map_err(|problem| format!("secret \"main\": {problem}"));
        assert_eq!(found, expected, "{encoding:?} {text}");
    }

    #[test]
    fn secrets_pasted_with_prefix_unpadded_base64_of_base64_or_empty() {
        use KeyEncoding::{Base64, Base64Url, Hex, Nfkd, Standard, Utf8};
        let key = b"0123456789abcdef";
        check(Standard, "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", Ok(key));
        check(Standard, "MDEyMzQ1Njc4OWFiY2RlZg==", Ok(key));
        check(Standard, "whsec_MDEyMzQ1Njc4OWFiY2RlZg", Ok(key));
        check(Standard, "whsec_whsec_MDEy", Err("has its prefix twice"));
        check(Standard, "d2hzZWNfTURFeQ==", Err("is base64 of a secret that is encoded already"));
        check(Standard, "whsec_", Err("must not be empty"));
        check(Standard, "", Err("must not be empty"));
        check(Standard, "whsec_MDEy\n", Err("begins or ends with white space"));
        check(Standard, "whsec_not base64", Err("is not base64"));
        check(Standard, "whsec_MDF=", Err("is not base64"));
        check(Utf8, "whsec_MDEy", Ok(b"whsec_MDEy"));
        check(Utf8, "", Err("must not be empty"));
        check(Utf8, " x", Err("begins or ends with white space"));
        check(Nfkd, "s\u{e9}cret", Ok("se\u{301}cret".as_bytes()));
        check(Hex, "00fFa1", Ok(&[0, 255, 161]));
        check(Hex, "0", Err("is not hexadecimal"));
        check(Hex, "+1", Err("is not hexadecimal"));
        check(Base64, "-_8=", Err("is not base64"));
        check(Base64, "====", Err("is not base64"));
        check(Base64Url, "-_8", Ok(&[251, 255]));
    }

    #[test]
    fn a_public_key_is_one_and_a_private_key_is_not_taken_for_it() {
        let public = base64("1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=").unwrap();
        check(KeyEncoding::Standard, "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", Ok(&public));
        check(KeyEncoding::Standard, "whpk_AAAA", Err("must have 32 bytes once decoded"));
        let zero = format!("whpk_{}", "A".repeat(43));
        check(KeyEncoding::Standard, &zero, Err("is no valid key"));
        let private = "is a private key (`whsk_`): to verify, the public one (`whpk_`) is what is needed";
        check(KeyEncoding::Standard, "whsk_AAAA", Err(private));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let value = SecretValue::new("main", "top-secret").not_after(Timestamp::from_millis(5));
        let secret = Secret::try_new(&value, KeyEncoding::Utf8).unwrap();
        for shown in [format!("{value:?}"), format!("{secret:?}")] {
            assert!(shown.contains("main") && shown.contains("5ms"), "{shown}");
            assert!(!shown.contains("top-secret") && !shown.contains("116"), "{shown}");
        }
    }

    #[test]
    fn a_second_rotation_of_secrets_does_not_inherit_the_first_ones_expiry() {
        let old = SecretValue::new("old", "a").not_after(Timestamp::from_millis(10));
        let new = SecretValue::new("new", "b");
        let made = |value: &SecretValue| Secret::try_new(value, KeyEncoding::Utf8).unwrap();
        assert!(made(&old).holds_at(Timestamp::from_millis(10)));
        assert!(!made(&old).holds_at(Timestamp::from_millis(11)));
        assert!(made(&new).holds_at(Timestamp::MAX));
        let newest = SecretValue::new("newest", "c");
        let new = new.not_after(Timestamp::from_millis(20));
        assert!(made(&new).holds_at(Timestamp::from_millis(20)) && made(&newest).holds_at(Timestamp::MAX));
    }
}

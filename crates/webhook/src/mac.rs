//! Computing signatures, and comparing them without telling how far they agree.

use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::secret::{Key, base64, base64_url, hex};

/// How a signature is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// HMAC with SHA-1, for partners that have nothing better.
    HmacSha1,
    /// Ed25519 (RFC 8032), verified strictly.
    Ed25519,
}

impl Algorithm {
    /// The name, as the configuration has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "sha256",
            Self::HmacSha512 => "sha512",
            Self::HmacSha1 => "sha1",
            Self::Ed25519 => "ed25519",
        }
    }

    pub(crate) const fn signature_bytes(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha512 | Self::Ed25519 => 64,
            Self::HmacSha1 => 20,
        }
    }
}

/// How the bytes of a signature are written in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Hexadecimal digits, in either case.
    Hex,
    /// Base64, padded or not.
    Base64,
    /// Base64 with the alphabet for URLs, padded or not.
    Base64Url,
}

impl Encoding {
    /// The bytes, if the text is one of this encoding.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex(text),
            Self::Base64 => base64(text),
            Self::Base64Url => base64_url(text),
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
        }
    }
}

/// The code over `parts`, one after the other. Empty for an algorithm that has no shared key: an empty code equals
/// no signature, since [`equal`] takes none.
pub(crate) fn code(algorithm: Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    fn over<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        // HMAC takes keys of any length (RFC 2104): there is no error to meet.
        let Ok(mut code) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        for part in parts {
            Mac::update(&mut code, part);
        }
        code.finalize().into_bytes().to_vec()
    }
    match algorithm {
        Algorithm::HmacSha256 => over::<Hmac<Sha256>>(key, parts),
        Algorithm::HmacSha512 => over::<Hmac<Sha512>>(key, parts),
        Algorithm::HmacSha1 => over::<Hmac<Sha1>>(key, parts),
        Algorithm::Ed25519 => Vec::new(),
    }
}

/// Whether any of the signatures is what this key gives over the parts.
pub(crate) fn any_holds<'s>(
    algorithm: Algorithm,
    key: &Key,
    parts: &[&[u8]],
    signatures: impl Iterator<Item = &'s [u8]>,
) -> bool {
    match (algorithm, key) {
        (Algorithm::Ed25519, Key::Public(key)) => {
            let message = parts.concat();
            let mut signatures = signatures;
            signatures.any(|signature| ed25519_holds(key, &message, signature))
        }
        (Algorithm::HmacSha256 | Algorithm::HmacSha512 | Algorithm::HmacSha1, Key::Shared(key)) => {
            let expected = code(algorithm, key, parts);
            // All are compared, whichever matches.
            signatures.fold(false, |found, signature| equal(&expected, signature) | found)
        }
        // A key of the other kind verifies nothing.
        (Algorithm::Ed25519, Key::Shared(_)) => false,
        (Algorithm::HmacSha256 | Algorithm::HmacSha512 | Algorithm::HmacSha1, Key::Public(_)) => false,
    }
}

fn ed25519_holds(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
}

/// Whether two codes are the same, in a time that depends on their length only. Empty ones are not.
pub(crate) fn equal(expected: &[u8], found: &[u8]) -> bool {
    !expected.is_empty() && bool::from(expected.ct_eq(found))
}

/// Whether two tokens are the same, in a time that tells neither how far they agree nor how long the right one is.
pub(crate) fn token_equal(expected: &[u8], found: &[u8]) -> bool {
    !expected.is_empty() && bool::from(Sha256::digest(expected).ct_eq(&Sha256::digest(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// RFC 4231, section 4.3, and RFC 2202, section 3, test case 2.
    #[test]
    fn codes_are_those_of_the_rfcs_however_the_message_is_cut() {
        let check = |algorithm, expected: &str| {
            let parts: [&[&[u8]]; 3] = [
                &[b"what do ya want for nothing?"],
                &[b"what do ", b"", b"ya want for nothing", b"?"],
                &[b"what do ya want for nothing?", b""],
            ];
            for parts in parts {
                assert_eq!(shown(&code(algorithm, b"Jefe", parts)), expected, "{algorithm:?}");
            }
            assert_eq!(expected.len(), algorithm.signature_bytes() * 2);
        };
        check(Algorithm::HmacSha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        check(
            Algorithm::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        );
        check(Algorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }

    #[test]
    fn nothing_equals_nothing() {
        assert!(!equal(b"", b"") && !token_equal(b"", b""));
        assert!(equal(b"a", b"a") && token_equal(b"a", b"a"));
        assert!(!equal(b"a", b"ab") && !token_equal(b"a", b"ab") && !token_equal(b"ab", b"a"));
    }
}

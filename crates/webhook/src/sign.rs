//! Signing what Semel sends, by Standard Webhooks.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use semel_core::Timestamp;

use crate::error::{ConfigError, Problem};
use crate::limits;
use crate::mac::{self, Algorithm};
use crate::secret::{PRIVATE_PREFIX, PUBLIC_PREFIX, SecretValue, base64, standard_shared};

/// Signs deliveries with all secrets that hold: during a rotation each carries a signature of the old and of the new one,
/// and the target may change over when it likes.
///
/// ```
/// use semel_core::Timestamp;
/// use semel_webhook::{SecretValue, Signer};
///
/// let signer = Signer::try_new(&[SecretValue::new("main", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")])?;
/// let at = Timestamp::from_millis(1_614_265_330_000);
/// let signed = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#)?;
/// assert_eq!(signed.signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Signer {
    keys: Vec<SignerKey>,
}

#[derive(Clone)]
struct SignerKey {
    id: Arc<str>,
    key: Kind,
    not_after: Option<Timestamp>,
}

#[derive(Clone)]
enum Kind {
    Shared(Box<[u8]>),
    Private(Box<SigningKey>),
}

/// The headers of a signed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: of this try, in seconds.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
}

impl Signed {
    /// Names and values.
    pub fn headers(&self) -> [(&'static str, &str); 3] {
        [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.timestamp),
            ("webhook-signature", &self.signature),
        ]
    }
}

/// Why a delivery cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The id is empty, too long, holds a `.` (which is the border to the time stamp), or is not printable ASCII.
    Id,
    /// Every secret has expired: a delivery without a signature is not sent.
    SecretsExpired,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "the id of a signed delivery is printable, and holds no full stop and no space",
            Self::SecretsExpired => "every secret has expired",
        })
    }
}

impl std::error::Error for SignError {}

impl Signer {
    /// A signer with these secrets: `whsec_…` or plain base64 for `v1`, `whsk_…` for `v1a`.
    ///
    /// # Errors
    /// There is none, more than [`limits::SECRETS_MAX`], or one that is not of either form.
    pub fn try_new(secrets: &[SecretValue]) -> Result<Self, ConfigError> {
        if secrets.is_empty() {
            return Err(ConfigError::new("secrets", Problem::Missing));
        }
        if secrets.len() > limits::SECRETS_MAX {
            return Err(ConfigError::new("secrets", Problem::TooMany { max: limits::SECRETS_MAX }));
        }
        let key = |secret: &SecretValue| {
            let wrong = |problem| ConfigError::new(format!("secret {:?}", secret.id), problem);
            let key = kind(&secret.value).map_err(wrong)?;
            Ok(SignerKey { id: Arc::clone(&secret.id), key, not_after: secret.not_after })
        };
        Ok(Self { keys: secrets.iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Signs a delivery made now.
    ///
    /// # Errors
    /// The id cannot stand in the signed text, or no secret holds.
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8]) -> Result<Signed, SignError> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
        if id.is_empty() || id.len() > limits::IDENTITY_CHARS_MAX || !id.bytes().all(plain) {
            return Err(SignError::Id);
        }
        let timestamp = (now.as_millis() / 1_000).to_string();
        let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let holding = self.keys.iter().filter(|key| key.not_after.is_none_or(|end| now <= end));
        let signatures: Vec<String> = holding.map(|key| key.key.sign(&parts)).collect();
        if signatures.is_empty() {
            return Err(SignError::SecretsExpired);
        }
        Ok(Signed { id: id.to_owned(), timestamp, signature: signatures.join(" ") })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| &*key.id).collect();
        f.debug_struct("Signer").field("secrets", &ids).finish()
    }
}

impl Kind {
    fn sign(&self, parts: &[&[u8]]) -> String {
        match self {
            Self::Shared(key) => {
                format!("v1,{}", STANDARD.encode(mac::code(Algorithm::HmacSha256, key, parts)))
            }
            Self::Private(key) => format!("v1a,{}", STANDARD.encode(key.sign(&parts.concat()).to_bytes())),
        }
    }
}

fn kind(text: &str) -> Result<Kind, Problem> {
    if text.trim() != text {
        return Err(Problem::SurroundedByWhiteSpace);
    }
    if text.starts_with(PUBLIC_PREFIX) {
        return Err(Problem::PublicKey);
    }
    let Some(private) = text.strip_prefix(PRIVATE_PREFIX) else {
        return standard_shared(text).map(|bytes| Kind::Shared(bytes.into()));
    };
    let bytes = base64(private).ok_or(Problem::NotBase64)?;
    // The seed with the public key behind it, or the seed alone.
    let key = match (<[u8; 64]>::try_from(&*bytes), <[u8; 32]>::try_from(&*bytes)) {
        (Ok(pair), _) => SigningKey::from_keypair_bytes(&pair).map_err(|_| Problem::KeyInvalid)?,
        (_, Ok(seed)) => SigningKey::from_bytes(&seed),
        (Err(_), Err(_)) => return Err(Problem::KeyLength { expected: 64 }),
    };
    Ok(Kind::Private(Box::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::{one, source, verify};
    use crate::{Provider, SecretValue};

    const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const AT: Timestamp = Timestamp::from_millis(1_614_265_330_999);

    fn signer(secrets: &[&str]) -> Signer {
        let value = |(at, secret): (usize, &&str)| SecretValue::new(&at.to_string(), secret);
        Signer::try_new(&secrets.iter().enumerate().map(value).collect::<Vec<_>>()).unwrap()
    }

    /// The vectors of Svix's server, for both kinds of keys.
    #[test]
    fn signatures_are_the_published_ones() {
        let sign =
            |secret| signer(&[secret]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, br#"{"test": 2432232314}"#);
        assert_eq!(sign(SHARED).unwrap().signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let v1a =
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(sign(PRIVATE).unwrap().signature, v1a);
        let seed = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";
        assert_eq!(sign(seed).unwrap().signature, v1a);
    }

    #[test]
    fn what_is_signed_during_a_rotation_is_verified_by_every_secret_of_it() {
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let signed = signer(&[SHARED, other, PRIVATE]).sign("msg_1", AT, b"body").unwrap();
        assert_eq!(signed.signature.split(' ').count(), 3);
        for secret in [SHARED, other, PUBLIC] {
            let source = source(Provider::StandardWebhooks, secret);
            assert_eq!(verify(&source, &signed.headers(), "body", 1_614_265_330), one("msg_1"));
            assert_eq!(verify(&source, &signed.headers(), "bodz", 1_614_265_330), Err("signature_mismatch"));
        }
        let none = source(Provider::StandardWebhooks, "whsec_AAAA");
        assert_eq!(verify(&none, &signed.headers(), "body", 1_614_265_330), Err("signature_mismatch"));
    }

    #[test]
    fn an_id_that_could_be_read_in_two_ways_is_not_signed_and_neither_is_anything_without_a_secret() {
        let signer = signer(&[SHARED]);
        for id in ["", "a.b", "a b", "a\n", "ä", &"x".repeat(256)] {
            assert_eq!(signer.sign(id, AT, b""), Err(SignError::Id), "{id}");
        }
        let expired = SecretValue::new("old", SHARED).not_after(Timestamp::from_millis(5));
        let expired = Signer::try_new(&[expired]).unwrap();
        assert_eq!(expired.sign("a", AT, b""), Err(SignError::SecretsExpired));
    }

    #[test]
    fn a_key_that_cannot_sign_is_refused_and_none_shows() {
        let error =
            |secret: &str| Signer::try_new(&[SecretValue::new("main", secret)]).unwrap_err().to_string();
        assert_eq!(
            error(PUBLIC),
            "secret \"main\": is a public key (`whpk_`): nothing can be signed with it"
        );
        assert_eq!(error("whsk_AAAA"), "secret \"main\": must have 64 bytes once decoded");
        assert_eq!(error("whsec_"), "secret \"main\": must not be empty");
        assert_eq!(error(&PRIVATE.replace("fVKI", "gVKI")), "secret \"main\": is no valid key");
        assert_eq!(Signer::try_new(&[]).unwrap_err().to_string(), "secrets: is missing");
        assert_eq!(format!("{:?}", signer(&[SHARED])), "Signer { secrets: [\"0\"] }");
    }
}

//! What is wrong with a source as it was configured. Nothing is guessed: a source that cannot verify does not start.

use std::fmt;

/// Why a source, a scheme or a signer cannot be made. It names what is wrong and never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    what: Box<str>,
    problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Empty,
    TooLong { max: usize },
    TooMany { max: usize },
    Missing,
    Repeated,
    BadName,
    NoSecrets,
    SecretsUnused,
    InsecureUnsaid,
    SurroundedByWhiteSpace,
    NotHex,
    NotBase64,
    PrefixTwice,
    EncodedTwice,
    KeyLength { expected: usize },
    KeyInvalid,
    PrivateKey,
    PublicKey,
    Placeholder,
    NoBody,
    BodyTwice,
    TimestampUnsigned,
    TimestampUnknown,
    Ambiguous,
    ToleranceTooWide,
    NotAPointer,
    NotAnAddress,
    UnknownProvider,
    NotForThisProvider,
    ControlCharacter,
    SourceName,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<Box<str>>, problem: Problem) -> Self {
        Self { what: what.into(), problem }
    }

    /// What it is about: the name of a setting, or of a secret.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match self.problem {
            Problem::Empty => f.write_str("must not be empty"),
            Problem::TooLong { max } => write!(f, "must have at most {max} characters"),
            Problem::TooMany { max } => write!(f, "there may be at most {max}"),
            Problem::Missing => f.write_str("is missing"),
            Problem::Repeated => f.write_str("must not be given twice"),
            Problem::BadName => f.write_str("is no name of a header"),
            Problem::NoSecrets => f.write_str("has no secret: nothing would be verified"),
            Problem::SecretsUnused => f.write_str("has secrets, and the provider `none` verifies nothing"),
            Problem::InsecureUnsaid => f.write_str(
                "the provider `none` verifies nothing; `insecure = true` must say that this is meant",
            ),
            Problem::SurroundedByWhiteSpace => f.write_str("begins or ends with white space"),
            Problem::NotHex => f.write_str("is not hexadecimal"),
            Problem::NotBase64 => f.write_str("is not base64"),
            Problem::PrefixTwice => f.write_str("has its prefix twice"),
            Problem::EncodedTwice => f.write_str("is base64 of a secret that is encoded already"),
            Problem::KeyLength { expected } => write!(f, "must have {expected} bytes once decoded"),
            Problem::KeyInvalid => f.write_str("is no valid key"),
            Problem::PrivateKey => f.write_str(
                "is a private key (`whsk_`): to verify, the public one (`whpk_`) is what is needed",
            ),
            Problem::PublicKey => f.write_str("is a public key (`whpk_`): nothing can be signed with it"),
            Problem::Placeholder => f.write_str(
                "knows the placeholders {body}, {timestamp} and {header:name}, and no other braces",
            ),
            Problem::NoBody => f.write_str("must hold {body}: otherwise nothing binds the signature to it"),
            Problem::BodyTwice => f.write_str("may hold {body} once"),
            Problem::TimestampUnsigned => {
                f.write_str("is not in the template: a time stamp that is not signed protects nothing")
            }
            Problem::TimestampUnknown => {
                f.write_str("holds {timestamp}, and nothing says where that is found")
            }
            Problem::Ambiguous => {
                f.write_str("has nothing between a header and its neighbour: two requests would sign alike")
            }
            Problem::ToleranceTooWide => f.write_str("must be at most 24 h"),
            Problem::NotAPointer => f.write_str("is no JSON Pointer (RFC 6901), or names the whole document"),
            Problem::NotAnAddress => f.write_str("is no address or range such as 203.0.113.0/24"),
            Problem::UnknownProvider => f.write_str("is no known provider"),
            Problem::NotForThisProvider => f.write_str("cannot be set for this provider"),
            Problem::SourceName => f.write_str("may hold letters, digits, `-`, `_` and `.`"),
            Problem::ControlCharacter => f.write_str("must not contain control characters"),
        }
    }
}

impl std::error::Error for ConfigError {}

//! Why a delivery was not taken in: a short list, fit to be a metric's label.

use std::fmt;

/// Why a delivery was rejected. There are as many as are listed here, so they can label a metric; what exactly was
/// wrong (which header) is in the [`Rejection`], for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A header that verification needs is absent or empty.
    HeaderMissing,
    /// A header that verification needs is there more than once.
    HeaderRepeated,
    /// A header that verification needs cannot be read, or holds no signature of a known form.
    HeaderMalformed,
    /// The time stamp is no whole number.
    TimestampMalformed,
    /// The time stamp is further in the past than the tolerance.
    TimestampTooOld,
    /// The time stamp is further in the future than the tolerance.
    TimestampTooNew,
    /// No signature is the one that any secret gives; or the token is none of them.
    SignatureMismatch,
    /// Every secret of the source has expired.
    SecretsExpired,
    /// The address is none of those that the source lists.
    AddressNotListed,
    /// The signature lies in the body, and the body cannot be read.
    BodyMalformed,
    /// The batch holds no items, or more than are taken.
    BatchSize,
    /// Verified, but nothing in it says which event it is.
    IdentityMissing,
    /// Verified, but what should say which event it is cannot be read, or says so twice.
    IdentityMalformed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HeaderMissing,
        Self::HeaderRepeated,
        Self::HeaderMalformed,
        Self::TimestampMalformed,
        Self::TimestampTooOld,
        Self::TimestampTooNew,
        Self::SignatureMismatch,
        Self::SecretsExpired,
        Self::AddressNotListed,
        Self::BodyMalformed,
        Self::BatchSize,
        Self::IdentityMissing,
        Self::IdentityMalformed,
    ];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderMissing => "header_missing",
            Self::HeaderRepeated => "header_repeated",
            Self::HeaderMalformed => "header_malformed",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::TimestampTooNew => "timestamp_too_new",
            Self::SignatureMismatch => "signature_mismatch",
            Self::SecretsExpired => "secrets_expired",
            Self::AddressNotListed => "address_not_listed",
            Self::BodyMalformed => "body_malformed",
            Self::BatchSize => "batch_size",
            Self::IdentityMissing => "identity_missing",
            Self::IdentityMalformed => "identity_malformed",
        }
    }

    /// Whether the sender had proved who it is before this was found: then it may be told that the request is wrong
    /// (400). Otherwise it is told no more than that its signature does not hold (401).
    pub const fn is_verified(self) -> bool {
        match self {
            Self::IdentityMissing | Self::IdentityMalformed => true,
            Self::HeaderMissing
            | Self::HeaderRepeated
            | Self::HeaderMalformed
            | Self::TimestampMalformed
            | Self::TimestampTooOld
            | Self::TimestampTooNew
            | Self::SignatureMismatch
            | Self::SecretsExpired
            | Self::AddressNotListed
            | Self::BodyMalformed
            | Self::BatchSize => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderMissing => "a header is missing",
            Self::HeaderRepeated => "a header is there more than once",
            Self::HeaderMalformed => "a header cannot be read",
            Self::TimestampMalformed => "the time stamp is no whole number",
            Self::TimestampTooOld => "the time stamp is too old",
            Self::TimestampTooNew => "the time stamp lies too far in the future",
            Self::SignatureMismatch => "no signature matches",
            Self::SecretsExpired => "every secret has expired",
            Self::AddressNotListed => "the address is not listed",
            Self::BodyMalformed => "the signature is in the body, which cannot be read",
            Self::BatchSize => "the batch is empty or too large",
            Self::IdentityMissing => "nothing says which event it is",
            Self::IdentityMalformed => "what says which event it is cannot be read",
        })
    }
}

/// A delivery that is not taken in. It stores nothing and is counted by its [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: Reason,
    about: Option<Box<str>>,
}

impl Rejection {
    pub(crate) const fn new(reason: Reason) -> Self {
        Self { reason, about: None }
    }

    /// `about` is a name of the configuration (a header, a pointer), never a value that was sent.
    pub(crate) fn about(reason: Reason, about: &str) -> Self {
        Self { reason, about: Some(about.into()) }
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The header or the place in the body that it is about.
    pub fn place(&self) -> Option<&str> {
        self.about.as_deref()
    }
}

impl fmt::Display for Rejection {
    /// For the log: what was sent does not show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            Some(about) => write!(f, "{}: {about}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_has_a_label_of_its_own() {
        let all: BTreeSet<_> = Reason::ALL.into_iter().collect();
        let labels: BTreeSet<_> = Reason::ALL.into_iter().map(Reason::as_str).collect();
        assert_eq!((all.len(), labels.len()), (Reason::ALL.len(), Reason::ALL.len()));
        let plain = |label: &&str| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(labels.iter().all(plain), "{labels:?}");
    }
}

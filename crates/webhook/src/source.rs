//! A partner's inbound address: who may send there, how that is proved, and which events it sends.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::error::Invalid;
use semel_core::id::{Namespace, Subject, Tenant};
use semel_core::{Scope, Timestamp};
use semel_fingerprint::{Fields, Fingerprint, FingerprintBuilder};
use sha2::{Digest as _, Sha256};

use crate::address::AddressRange;
use crate::builder::SourceBuilder;
use crate::delivery::Delivery;
use crate::identity::{Identity, IdentityRule};
use crate::mac::{self, Algorithm};
use crate::providers::{Answer, Provider, adyen};
use crate::reason::{Reason, Rejection};
use crate::scheme::Scheme;
use crate::secret::{Key, Secret};

/// How a delivery proves where it comes from.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// By a signature; of several schemes, the first whose header was sent.
    Schemes(Vec<Scheme>),
    /// By a token in a header, after a prefix. Nothing signs the body.
    Token { header: Box<str>, prefix: Box<str> },
    /// By a signature in each item of the body.
    Adyen,
    /// Not at all.
    None,
}

/// What is done with a verified event that brings no identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MissingIdentity {
    /// It is rejected: the partner broke its own rule.
    #[default]
    Reject,
    /// Its content is its identity: what is sent again unchanged is the same event. For JSON the order of members, white
    /// space and escapes do not count.
    ContentHash {
        /// Headers that count, too: an event's own time, where it is not in the body. Never the time of the attempt (a
        /// signature's time stamp): it changes with every retry, and each would be a new event.
        headers: Vec<String>,
        /// JSON Pointers to what does not count, such as a counter of attempts.
        without: Vec<String>,
    },
}

/// A source, ready to verify.
#[derive(Clone)]
pub struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) provider: Provider,
    pub(crate) check: Check,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) identity: Option<IdentityRule>,
    pub(crate) identity_is_own: bool,
    pub(crate) content: Option<ContentHash>,
    pub(crate) fields: Fields,
    pub(crate) addresses: Vec<AddressRange>,
    pub(crate) answer: Answer,
    pub(crate) retry_span: Option<Duration>,
}

#[derive(Clone)]
pub(crate) struct ContentHash {
    pub(crate) headers: Vec<Box<str>>,
    pub(crate) fields: Fields,
}

/// A delivery whose sender is proved: one event, or the several of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    events: Vec<Event>,
    secret: Option<Arc<str>>,
}

impl Verified {
    /// The events, in the order they were sent. There is at least one.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events.
    pub fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// The id of the secret that it was verified with, so that it can be seen when a rotation is over.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }
}

/// One event of a delivery.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    identity: Identity,
    body: Bytes,
}

impl Event {
    pub(crate) const fn new(identity: Identity, body: Bytes) -> Self {
        Self { identity, body }
    }

    /// Its name within the source.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its bytes: those of the delivery, or of the batch's item in the batch's envelope.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        f.debug_struct("Event").field("identity", &self.identity).field("body_bytes", &bytes).finish()
    }
}

/// Something about a source that works and is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Identities are forgotten while the provider still retries: a retry after that is a new event.
    RetentionBelowRetries {
        /// How long identities are kept.
        retention: Duration,
        /// How long the provider retries.
        span: Duration,
    },
    /// The identity is read from a header that the signature does not cover: whoever captured a delivery can send it again
    /// under another name while its signature holds.
    IdentityUnsigned {
        /// The header.
        header: String,
    },
    /// Signatures are over SHA-1.
    Sha1,
    /// Nothing is verified.
    Insecure,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetentionBelowRetries { retention, span } => write!(
                f,
                "identities are kept for {} s, and the provider retries for {} s: a late retry will be a new event",
                retention.as_secs(),
                span.as_secs()
            ),
            Self::IdentityUnsigned { header } => {
                write!(f, "the identity is read from {header}, which the signature does not cover")
            }
            Self::Sha1 => f.write_str("signatures are over SHA-1"),
            Self::Insecure => f.write_str("nothing is verified: whoever knows the address is believed"),
        }
    }
}

impl Source {
    /// Begins a source of a provider. Its name is part of addresses, keys and metrics.
    pub fn builder(name: &str, provider: Provider) -> SourceBuilder {
        SourceBuilder::new(name, provider)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The provider.
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// What the provider wants to be answered when its delivery was taken in, or was a duplicate.
    pub const fn answer(&self) -> Answer {
        self.answer
    }

    /// How long the provider retries by itself, where it says so.
    pub const fn retry_span(&self) -> Option<Duration> {
        self.retry_span
    }

    /// Where this source's identities are unique: in this source, for one of its targets. Two sources' `evt_1` are two
    /// events, and so are two targets' deliveries of one.
    ///
    /// # Errors
    /// The target's name is longer than a subject takes.
    pub fn scope(&self, tenant: Tenant, target: &str) -> Result<Scope, Invalid> {
        // A source's name holds no `/`: the first one ends it, whatever the target is called.
        let subject = Subject::try_new(&format!("{}/{target}", self.name))?;
        Ok(Scope { namespace: Namespace::Webhook, tenant, subject: Some(subject) })
    }

    /// What the event says, to tell a duplicate from a conflict. What the provider itself changes from try to try does not
    /// count.
    pub fn fingerprint(&self, event: &Event) -> Fingerprint {
        FingerprintBuilder::new().operation(&self.name).fields(&self.fields).json(&event.body).finish()
    }

    /// What is probably not meant, with identities kept for so long.
    pub fn warnings(&self, retention: Duration) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some(span) = self.retry_span.filter(|span| retention < *span) {
            warnings.push(Warning::RetentionBelowRetries { retention, span });
        }
        match &self.check {
            Check::None => warnings.push(Warning::Insecure),
            Check::Schemes(schemes) => {
                if schemes.iter().any(|scheme| scheme.algorithms().any(|one| one == Algorithm::HmacSha1)) {
                    warnings.push(Warning::Sha1);
                }
                let own =
                    self.identity.iter().filter(|_| self.identity_is_own).flat_map(IdentityRule::headers);
                let signed = |header: &str| {
                    schemes.iter().all(|scheme| scheme.template().headers().any(|signed| signed == header))
                };
                let unsigned = own.filter(|header| !signed(header));
                warnings
                    .extend(unsigned.map(|header| Warning::IdentityUnsigned { header: header.to_owned() }));
            }
            Check::Token { .. } | Check::Adyen => {}
        }
        warnings
    }

    /// Verifies a delivery, and finds which events it brings.
    ///
    /// `now` is the wall clock, which the time stamps of partners are compared with. Nothing is stored or looked up here,
    /// and nothing may be before this has succeeded: a forger must not learn which identities there are.
    ///
    /// # Errors
    /// It proves nothing ([`Reason::is_verified`] says no), or brings no identity.
    pub fn verify(&self, delivery: &Delivery<'_>, now: Timestamp) -> Result<Verified, Rejection> {
        self.check_address(delivery)?;
        match &self.check {
            Check::Schemes(schemes) => {
                let scheme = scheme_for(schemes, delivery)?;
                let secret = scheme.verify(delivery, &self.secrets, now)?;
                // What one of several schemes signs is read from the headers that it signs, and from no others.
                let rule = if self.identity_is_own { None } else { scheme.identity.as_ref() };
                self.single(delivery, rule.or(self.identity.as_ref()), Some(secret))
            }
            Check::Token { header, prefix } => {
                let secret = self.check_token(delivery, header, prefix, now)?;
                self.single(delivery, self.identity.as_ref(), Some(secret))
            }
            Check::Adyen => {
                let (events, secret) = adyen::verify(delivery.body(), &self.secrets, now)?;
                Ok(Verified { events, secret: Some(secret) })
            }
            Check::None => self.single(delivery, self.identity.as_ref(), None),
        }
    }

    pub(crate) const fn check(&self) -> &Check {
        &self.check
    }

    pub(crate) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    fn check_address(&self, delivery: &Delivery<'_>) -> Result<(), Rejection> {
        let listed = |peer: IpAddr| self.addresses.iter().any(|range| range.contains(peer));
        if self.addresses.is_empty() || delivery.peer().is_some_and(listed) {
            return Ok(());
        }
        Err(Rejection::new(Reason::AddressNotListed))
    }

    fn check_token(
        &self,
        delivery: &Delivery<'_>,
        header: &str,
        prefix: &str,
        now: Timestamp,
    ) -> Result<Arc<str>, Rejection> {
        let value = delivery.header(header)?;
        let token =
            value.strip_prefix(prefix).ok_or_else(|| Rejection::about(Reason::HeaderMalformed, header))?;
        let mut holding = self.secrets.iter().filter(|secret| secret.holds_at(now)).peekable();
        if holding.peek().is_none() {
            return Err(Rejection::new(Reason::SecretsExpired));
        }
        let matches = |secret: &&Secret| match &secret.key {
            Key::Shared(key) => mac::token_equal(key, token.as_bytes()),
            Key::Public(_) => false,
        };
        let found = holding.find(matches).map(|secret| Arc::clone(&secret.id));
        found.ok_or_else(|| Rejection::about(Reason::SignatureMismatch, header))
    }

    fn single(
        &self,
        delivery: &Delivery<'_>,
        rule: Option<&IdentityRule>,
        secret: Option<Arc<str>>,
    ) -> Result<Verified, Rejection> {
        let found = rule.map_or(Ok(None), |rule| rule.find(delivery))?;
        let identity = match (found, &self.content) {
            (Some(identity), _) => identity,
            (None, Some(content)) => content.identity(delivery)?,
            (None, None) => return Err(Rejection::new(Reason::IdentityMissing)),
        };
        Ok(Verified { events: vec![Event::new(identity, delivery.body().clone())], secret })
    }
}

/// Of several schemes, the first whose header was sent.
pub(crate) fn scheme_for<'s>(
    schemes: &'s [Scheme],
    delivery: &Delivery<'_>,
) -> Result<&'s Scheme, Rejection> {
    let sent = schemes.iter().find(|scheme| delivery.has(scheme.header()));
    sent.ok_or_else(|| {
        let header = schemes.first().map_or("", Scheme::header);
        Rejection::about(Reason::HeaderMissing, header)
    })
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets: Vec<&str> = self.secrets.iter().map(|secret| &*secret.id).collect();
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("provider", &self.provider.as_str())
            .field("secrets", &secrets)
            .finish_non_exhaustive()
    }
}

impl ContentHash {
    fn identity(&self, delivery: &Delivery<'_>) -> Result<Identity, Rejection> {
        // All empty bodies are alike, and no two of them are known to be the same event.
        if delivery.body().iter().all(u8::is_ascii_whitespace) {
            return Err(Rejection::new(Reason::IdentityMissing));
        }
        let content = FingerprintBuilder::new().fields(&self.fields).json(delivery.body()).finish();
        let mut digest = Sha256::new();
        digest.update(b"semel webhook content 1");
        digest.update([content.version()]);
        digest.update(content.digest());
        for name in &self.headers {
            // Framed, and an absent header is not an empty one.
            let value = if delivery.has(name) { Some(delivery.header(name)) } else { None };
            match value.transpose() {
                Ok(None) => digest.update([0]),
                Ok(Some(value)) => {
                    digest.update([1]);
                    digest.update((value.len() as u64).to_le_bytes());
                    digest.update(value.as_bytes());
                }
                Err(rejection) if rejection.reason() == Reason::HeaderMissing => digest.update([0]),
                Err(_) => return Err(Rejection::about(Reason::IdentityMalformed, name)),
            }
        }
        Ok(Identity::content(&digest.finalize()))
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

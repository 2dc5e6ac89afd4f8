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
use crate::delivery::Delivery;
use crate::error::{ConfigError, Problem};
use crate::identity::{Identity, IdentityRule};
use crate::limits;
use crate::mac::{self, Algorithm};
use crate::providers::{Answer, Pack, Provider, adyen};
use crate::reason::{Reason, Rejection};
use crate::scheme::Scheme;
use crate::secret::{Key, KeyEncoding, Secret, SecretValue};
use crate::template::is_header_name;

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
    name: Arc<str>,
    provider: Provider,
    check: Check,
    secrets: Vec<Secret>,
    identity: Option<IdentityRule>,
    identity_is_own: bool,
    content: Option<ContentHash>,
    fields: Fields,
    addresses: Vec<AddressRange>,
    answer: Answer,
    retry_span: Option<Duration>,
}

#[derive(Clone)]
struct ContentHash {
    headers: Vec<Box<str>>,
    fields: Fields,
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
        SourceBuilder {
            name: name.into(),
            provider,
            check: None,
            secrets: Vec::new(),
            key_encoding: None,
            identity: None,
            missing: MissingIdentity::Reject,
            tolerance: None,
            addresses: Vec::new(),
            volatile: Vec::new(),
            insecure: false,
        }
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

/// A source, as it is put together. Nothing is checked before [`build`](SourceBuilder::build).
#[derive(Clone, Debug)]
#[must_use]
pub struct SourceBuilder {
    name: String,
    provider: Provider,
    check: Option<Check>,
    secrets: Vec<SecretValue>,
    key_encoding: Option<KeyEncoding>,
    identity: Option<IdentityRule>,
    missing: MissingIdentity,
    tolerance: Option<Duration>,
    addresses: Vec<String>,
    volatile: Vec<String>,
    insecure: bool,
}

impl SourceBuilder {
    /// A secret. Several hold at once, each as long as it says itself.
    pub fn secret(mut self, secret: SecretValue) -> Self {
        self.secrets.push(secret);
        self
    }

    /// For `generic`: how it signs.
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.check = Some(Check::Schemes(vec![scheme]));
        self
    }

    /// For `generic`: a token in a header, after a prefix such as `Bearer ` or none.
    pub fn token(mut self, header: &str, prefix: &str) -> Self {
        self.check = Some(Check::Token { header: header.to_ascii_lowercase().into(), prefix: prefix.into() });
        self
    }

    /// For `generic`: how its secrets are written; as plain text where nothing is said.
    pub const fn key_encoding(mut self, encoding: KeyEncoding) -> Self {
        self.key_encoding = Some(encoding);
        self
    }

    /// How the identity is found, instead of the provider's own way.
    pub fn identity(mut self, rule: IdentityRule) -> Self {
        self.identity = Some(rule);
        self
    }

    /// What is done with an event that brings no identity.
    pub fn missing_identity(mut self, policy: MissingIdentity) -> Self {
        self.missing = policy;
        self
    }

    /// How far a signed time stamp may lie from now, both ways.
    pub const fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = Some(tolerance);
        self
    }

    /// An address, or a range of them, that deliveries may come from; all of them where none is listed.
    pub fn address(mut self, range: &str) -> Self {
        self.addresses.push(range.into());
        self
    }

    /// A JSON Pointer to what the partner changes from try to try, so that it makes no conflict.
    pub fn volatile(mut self, pointer: &str) -> Self {
        self.volatile.push(pointer.into());
        self
    }

    /// For `none`: that nothing is verified is meant.
    pub const fn insecure(mut self, meant: bool) -> Self {
        self.insecure = meant;
        self
    }

    /// The source.
    ///
    /// # Errors
    /// Something is missing or wrong: above all, a source without a secret is none.
    pub fn build(self) -> Result<Source, ConfigError> {
        check_name(&self.name)?;
        let Pack { check, key_encoding, identity, volatile, .. } = self.provider.pack()?;
        let check = self.checked(check)?;
        let encoding = match (self.provider, self.key_encoding) {
            (Provider::Generic, Some(encoding)) => encoding,
            (_, None) => key_encoding,
            (_, Some(_)) => return Err(ConfigError::new("key_encoding", Problem::NotForThisProvider)),
        };
        let secrets = self.secrets(&check, encoding)?;
        if matches!(check, Check::Adyen)
            && (self.identity.is_some() || self.missing != MissingIdentity::Reject)
        {
            return Err(ConfigError::new("identity", Problem::NotForThisProvider));
        }
        let volatile: Vec<&str> =
            volatile.iter().copied().chain(self.volatile.iter().map(String::as_str)).collect();
        let fields = fields(&volatile, "volatile")?;
        let content = self.content(&volatile)?;
        let identity_is_own = self.identity.is_some();
        let identity = self.identity.or(identity);
        let found_by_scheme = match &check {
            Check::Schemes(schemes) => schemes.iter().all(|scheme| scheme.identity.is_some()),
            Check::Adyen => true,
            Check::Token { .. } | Check::None => false,
        };
        if identity.is_none() && content.is_none() && !found_by_scheme {
            return Err(ConfigError::new("identity", Problem::Missing));
        }
        let addresses =
            self.addresses.iter().map(|text| AddressRange::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if addresses.len() > limits::ADDRESSES_MAX {
            return Err(ConfigError::new("addresses", Problem::TooMany { max: limits::ADDRESSES_MAX }));
        }
        Ok(Source {
            name: self.name.into(),
            provider: self.provider,
            check,
            secrets,
            identity,
            identity_is_own,
            content,
            fields,
            addresses,
            answer: self.provider.answer(),
            retry_span: self.provider.retry_span(),
        })
    }

    fn checked(&self, of_provider: Check) -> Result<Check, ConfigError> {
        let check = match (self.provider, &self.check) {
            (Provider::Generic, Some(check)) => check.clone(),
            (Provider::Generic, None) => return Err(ConfigError::new("scheme", Problem::Missing)),
            (_, Some(_)) => return Err(ConfigError::new("scheme", Problem::NotForThisProvider)),
            (_, None) => of_provider,
        };
        match check {
            Check::Schemes(schemes) => {
                let timed = schemes.iter().any(|scheme| scheme.template().has_timestamp());
                if self.tolerance.is_some() && !timed {
                    return Err(ConfigError::new("tolerance", Problem::NotForThisProvider));
                }
                let with = |scheme: Scheme| match self.tolerance {
                    Some(tolerance) => scheme.tolerance(tolerance),
                    None => scheme,
                };
                let schemes = schemes.into_iter().map(|scheme| with(scheme).check());
                Ok(Check::Schemes(schemes.collect::<Result<_, _>>()?))
            }
            Check::Token { .. } | Check::Adyen | Check::None if self.tolerance.is_some() => {
                Err(ConfigError::new("tolerance", Problem::NotForThisProvider))
            }
            Check::Token { header, .. } if !is_header_name(&header) => {
                Err(ConfigError::new(header, Problem::BadName))
            }
            check @ (Check::Token { .. } | Check::Adyen | Check::None) => Ok(check),
        }
    }

    fn secrets(&self, check: &Check, encoding: KeyEncoding) -> Result<Vec<Secret>, ConfigError> {
        let wrong = |problem| Err(ConfigError::new("secrets", problem));
        if matches!(check, Check::None) {
            return match (self.insecure, self.secrets.is_empty()) {
                (false, _) => Err(ConfigError::new("insecure", Problem::InsecureUnsaid)),
                (true, false) => wrong(Problem::SecretsUnused),
                (true, true) => Ok(Vec::new()),
            };
        }
        if self.insecure {
            return Err(ConfigError::new("insecure", Problem::NotForThisProvider));
        }
        if self.secrets.is_empty() {
            return wrong(Problem::NoSecrets);
        }
        if self.secrets.len() > limits::SECRETS_MAX {
            return wrong(Problem::TooMany { max: limits::SECRETS_MAX });
        }
        for (at, secret) in self.secrets.iter().enumerate() {
            if self.secrets[..at].iter().any(|other| other.id == secret.id) {
                return Err(ConfigError::new(format!("secret {:?}", secret.id), Problem::Repeated));
            }
        }
        self.secrets.iter().map(|value| Secret::try_new(value, encoding)).collect()
    }

    fn content(&self, volatile: &[&str]) -> Result<Option<ContentHash>, ConfigError> {
        let MissingIdentity::ContentHash { headers, without } = &self.missing else { return Ok(None) };
        if let Some(name) = headers.iter().find(|name| !is_header_name(name)) {
            return Err(ConfigError::new(name.as_str(), Problem::BadName));
        }
        let without: Vec<&str> = volatile.iter().copied().chain(without.iter().map(String::as_str)).collect();
        let headers = headers.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        Ok(Some(ContentHash { headers, fields: fields(&without, "missing_identity")? }))
    }
}

fn fields(without: &[&str], what: &str) -> Result<Fields, ConfigError> {
    if without.is_empty() {
        return Ok(Fields::all());
    }
    Fields::except(without.iter().copied()).map_err(|_| ConfigError::new(what, Problem::NotAPointer))
}

/// A source's name stands in addresses and before the `/` of a subject.
fn check_name(name: &str) -> Result<(), ConfigError> {
    let wrong = |problem| Err(ConfigError::new("source", problem));
    if name.is_empty() {
        return wrong(Problem::Empty);
    }
    if name.len() > limits::SOURCE_CHARS_MAX {
        return wrong(Problem::TooLong { max: limits::SOURCE_CHARS_MAX });
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.bytes().all(plain) { Ok(()) } else { wrong(Problem::SourceName) }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

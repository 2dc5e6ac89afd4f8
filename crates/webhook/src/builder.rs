//! Putting a source together: everything is checked here, so that a source which exists can verify.

use std::time::Duration;

use semel_fingerprint::Fields;

use crate::address::AddressRange;
use crate::error::{ConfigError, Problem};
use crate::identity::IdentityRule;
use crate::limits;
use crate::providers::{Pack, Provider};
use crate::scheme::Scheme;
use crate::secret::{KeyEncoding, Secret, SecretValue};
use crate::source::{Check, ContentHash, MissingIdentity, Source};
use crate::template::is_header_name;

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
    pub(crate) fn new(name: &str, provider: Provider) -> Self {
        Self {
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
    /// Something is missing or wrong: above all, a source without a secret is none. This is the first of it;
    /// [`build_or_all`](Self::build_or_all) gives everything.
    pub fn build(self) -> Result<Source, ConfigError> {
        let first = |problems: Vec<ConfigError>| problems.into_iter().next();
        self.build_or_all().map_err(|problems| {
            // There is one at least.
            first(problems).unwrap_or_else(|| ConfigError::new("source", Problem::Missing))
        })
    }

    /// The source, or all that is missing or wrong, so that it can be mended at once. What is only wrong because something
    /// else is, is not said.
    ///
    /// # Errors
    /// As [`build`](Self::build), one problem at least.
    pub fn build_or_all(self) -> Result<Source, Vec<ConfigError>> {
        let mut problems = Problems::default();
        problems.keep(check_name(&self.name));
        let pack = self.provider.pack().map_err(|problem| vec![problem])?;
        let Pack { check: usual, key_encoding, identity, volatile, .. } = pack;
        let checked = self.checked(&usual, &mut problems);
        let check = checked.as_ref().unwrap_or(&usual);
        let encoding = match (self.provider, self.key_encoding) {
            (Provider::Generic, Some(encoding)) => encoding,
            (_, None) => key_encoding,
            // A scheme brings one along: then it is the scheme that is wrong.
            (_, Some(_)) if self.check.is_some() => key_encoding,
            (_, Some(_)) => problems.and(key_encoding, "key_encoding", Problem::NotForThisProvider),
        };
        let secrets = self.secrets(check, encoding, &mut problems);
        let identity_is_own = self.identity.is_some();
        if matches!(check, Check::Adyen) && (identity_is_own || self.missing != MissingIdentity::Reject) {
            problems.say("identity", Problem::NotForThisProvider);
        }
        let volatile: Vec<&str> =
            volatile.iter().copied().chain(self.volatile.iter().map(String::as_str)).collect();
        let fields = problems.keep(fields(&volatile, "volatile"));
        // What is wrong with the fields has been said: it is not said again of the content.
        let content = self.content(if fields.is_some() { &volatile[..] } else { &[] }, &mut problems);
        let identity = self.identity.or(identity);
        let found_by_scheme = match check {
            Check::Schemes(schemes) => {
                !schemes.is_empty() && schemes.iter().all(|scheme| scheme.identity.is_some())
            }
            Check::Adyen => true,
            Check::Token { .. } | Check::None => false,
        };
        if identity.is_none() && self.missing == MissingIdentity::Reject && !found_by_scheme {
            problems.say("identity", Problem::Missing);
        }
        let addresses: Vec<_> =
            self.addresses.iter().filter_map(|text| problems.keep(AddressRange::parse(text))).collect();
        if self.addresses.len() > limits::ADDRESSES_MAX {
            problems.say("addresses", Problem::TooMany { max: limits::ADDRESSES_MAX });
        }
        let (Some(check), Some(fields), true) = (checked, fields, problems.0.is_empty()) else {
            return Err(problems.0);
        };
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

    /// How deliveries are proved; `None` where that cannot be, which has been said.
    fn checked(&self, of_provider: &Check, problems: &mut Problems) -> Option<Check> {
        let check = match (self.provider, &self.check) {
            (Provider::Generic, Some(check)) => check,
            (Provider::Generic, None) => return problems.none("scheme", Problem::Missing),
            (_, Some(_)) => {
                problems.say("scheme", Problem::NotForThisProvider);
                of_provider
            }
            (_, None) => of_provider,
        };
        let is_timed = match check {
            Check::Schemes(schemes) => schemes.iter().any(|scheme| scheme.template().has_timestamp()),
            Check::Token { .. } | Check::Adyen | Check::None => false,
        };
        if self.tolerance.is_some() && !is_timed {
            problems.say("tolerance", Problem::NotForThisProvider);
        }
        match check {
            Check::Schemes(schemes) => {
                let with = |scheme: &Scheme| match self.tolerance {
                    Some(tolerance) => scheme.clone().tolerance(tolerance),
                    None => scheme.clone(),
                };
                let good: Vec<_> =
                    schemes.iter().filter_map(|scheme| problems.all(with(scheme).check_all())).collect();
                (good.len() == schemes.len()).then_some(Check::Schemes(good))
            }
            Check::Token { header, .. } if !is_header_name(header) => problems.none(header, Problem::BadName),
            Check::Token { .. } | Check::Adyen | Check::None => Some(check.clone()),
        }
    }

    fn secrets(&self, check: &Check, encoding: KeyEncoding, problems: &mut Problems) -> Vec<Secret> {
        if matches!(check, Check::None) {
            if !self.insecure {
                problems.say("insecure", Problem::InsecureUnsaid);
            } else if !self.secrets.is_empty() {
                problems.say("secrets", Problem::SecretsUnused);
            }
            return Vec::new();
        }
        if self.insecure {
            problems.say("insecure", Problem::NotForThisProvider);
        }
        if self.secrets.is_empty() {
            problems.say("secrets", Problem::NoSecrets);
        }
        if self.secrets.len() > limits::SECRETS_MAX {
            problems.say("secrets", Problem::TooMany { max: limits::SECRETS_MAX });
            return Vec::new();
        }
        for (at, secret) in self.secrets.iter().enumerate() {
            if self.secrets[..at].iter().any(|other| other.id == secret.id) {
                problems.say(format!("secret {:?}", secret.id), Problem::Repeated);
            }
        }
        let secrets = self.secrets.iter();
        secrets.filter_map(|value| problems.keep(Secret::try_new(value, encoding))).collect()
    }

    fn content(&self, volatile: &[&str], problems: &mut Problems) -> Option<ContentHash> {
        let MissingIdentity::ContentHash { headers, without } = &self.missing else { return None };
        for name in headers.iter().filter(|name| !is_header_name(name)) {
            problems.say(name.as_str(), Problem::BadName);
        }
        let without: Vec<&str> = volatile.iter().copied().chain(without.iter().map(String::as_str)).collect();
        let headers = headers.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        let fields = problems.keep(fields(&without, "missing_identity"))?;
        Some(ContentHash { headers, fields })
    }
}

/// What has been found wrong, in the order in which it was looked for.
#[derive(Default)]
struct Problems(Vec<ConfigError>);

impl Problems {
    fn say(&mut self, what: impl Into<Box<str>>, problem: Problem) {
        self.0.push(ConfigError::new(what, problem));
    }

    /// Says it, and goes on with something in its place.
    fn and<T>(&mut self, instead: T, what: &str, problem: Problem) -> T {
        self.say(what, problem);
        instead
    }

    /// Says it; there is nothing to go on with.
    fn none<T>(&mut self, what: &str, problem: Problem) -> Option<T> {
        self.and(None, what, problem)
    }

    /// What is right, or `None`, and why is kept.
    fn keep<T>(&mut self, found: Result<T, ConfigError>) -> Option<T> {
        self.all(found.map_err(|problem| vec![problem]))
    }

    fn all<T>(&mut self, found: Result<T, Vec<ConfigError>>) -> Option<T> {
        found.map_err(|problems| self.0.extend(problems)).ok()
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

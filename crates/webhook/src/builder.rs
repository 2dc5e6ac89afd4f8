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

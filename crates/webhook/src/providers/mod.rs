//! The providers that are known by name: one file each, with its rule and where that stands.

pub(crate) mod adyen;
mod aftership;
mod easypost;
mod github;
mod shopify;
mod standard;
mod stripe;
mod xendit;

use std::time::Duration;

use crate::error::{ConfigError, Problem};
use crate::identity::IdentityRule;
use crate::secret::KeyEncoding;
use crate::source::Check;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// [Standard Webhooks](https://www.standardwebhooks.com/), and Svix, which is the same under other headers.
    StandardWebhooks,
    /// Stripe.
    Stripe,
    /// GitHub.
    Github,
    /// Shopify.
    Shopify,
    /// Xendit.
    Xendit,
    /// Adyen's standard webhooks.
    Adyen,
    /// `AfterShip`'s products.
    Aftership,
    /// `EasyPost`.
    Easypost,
    /// Anybody else, described by a [`Scheme`](crate::Scheme) or a token.
    Generic,
    /// Nobody in particular: nothing is verified.
    None,
}

/// What a provider wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The type of the body, where there is one.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: &'static str,
    /// How soon, where the provider says so. Past that it takes the delivery for failed.
    pub within: Option<Duration>,
}

impl Answer {
    const PLAIN: Self = Self { status: 200, content_type: None, body: "", within: None };

    const fn within(seconds: u64) -> Self {
        Self { within: Some(Duration::from_secs(seconds)), ..Self::PLAIN }
    }
}

/// All that a provider's name stands for.
pub(crate) struct Pack {
    pub(crate) check: Check,
    pub(crate) key_encoding: KeyEncoding,
    pub(crate) identity: Option<IdentityRule>,
    /// What it changes in the body from try to try.
    pub(crate) volatile: &'static [&'static str],
    pub(crate) answer: Answer,
    pub(crate) retry_span: Option<Duration>,
    pub(crate) rule: &'static str,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::StandardWebhooks,
        Self::Stripe,
        Self::Github,
        Self::Shopify,
        Self::Xendit,
        Self::Adyen,
        Self::Aftership,
        Self::Easypost,
        Self::Generic,
        Self::None,
    ];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Shopify => "shopify",
            Self::Xendit => "xendit",
            Self::Adyen => "adyen",
            Self::Aftership => "aftership",
            Self::Easypost => "easypost",
            Self::Generic => "generic",
            Self::None => "none",
        }
    }

    /// The provider of that name. `svix` is `standard-webhooks`.
    ///
    /// # Errors
    /// There is none: an unknown name is never taken for one that verifies nothing.
    pub fn parse(name: &str) -> Result<Self, ConfigError> {
        if name == "svix" {
            return Ok(Self::StandardWebhooks);
        }
        let found = Self::ALL.into_iter().find(|provider| provider.as_str() == name);
        found.ok_or_else(|| ConfigError::new(format!("provider {name:?}"), Problem::UnknownProvider))
    }

    /// What it wants to be answered.
    pub fn answer(self) -> Answer {
        self.pack().map_or(Answer::PLAIN, |pack| pack.answer)
    }

    /// How long it retries by itself, where it says so. Identities should be kept longer.
    pub fn retry_span(self) -> Option<Duration> {
        self.pack().ok().and_then(|pack| pack.retry_span)
    }

    /// Where its rule stands.
    pub fn rule(self) -> &'static str {
        self.pack().map_or("", |pack| pack.rule)
    }

    pub(crate) fn pack(self) -> Result<Pack, ConfigError> {
        match self {
            Self::StandardWebhooks => standard::pack(),
            Self::Stripe => stripe::pack(),
            Self::Github => github::pack(),
            Self::Shopify => shopify::pack(),
            Self::Xendit => xendit::pack(),
            Self::Adyen => Ok(adyen::pack()),
            Self::Aftership => aftership::pack(),
            Self::Easypost => easypost::pack(),
            Self::Generic => Ok(unknown(Check::Schemes(Vec::new()))),
            Self::None => Ok(unknown(Check::None)),
        }
    }
}

/// A provider of which nothing is known but what the configuration says.
const fn unknown(check: Check) -> Pack {
    Pack {
        check,
        key_encoding: KeyEncoding::Utf8,
        identity: None,
        volatile: &[],
        answer: Answer::PLAIN,
        retry_span: None,
        rule: "",
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all providers do alike.

    use bytes::Bytes;
    use semel_core::Timestamp;

    use crate::{Delivery, Provider, SecretValue, Source, Verified};

    pub(crate) fn source(provider: Provider, secret: &str) -> Source {
        Source::builder("partner", provider).secret(SecretValue::new("main", secret)).build().unwrap()
    }

    /// The identities, or the reason.
    pub(crate) fn verify(
        source: &Source,
        headers: &[(&str, &str)],
        body: &str,
        now_s: u64,
    ) -> Result<Vec<String>, &'static str> {
        let verified = verified(source, headers, body, now_s)?;
        Ok(verified.events().iter().map(|event| event.identity().to_string()).collect())
    }

    pub(crate) fn verified(
        source: &Source,
        headers: &[(&str, &str)],
        body: &str,
        now_s: u64,
    ) -> Result<Verified, &'static str> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let now = Timestamp::from_millis(now_s * 1_000);
        source.verify(&Delivery::new(&headers, &body), now).map_err(|rejection| rejection.reason().as_str())
    }

    /// One identity, accepted.
    pub(crate) fn one(name: &str) -> Result<Vec<String>, &'static str> {
        Ok(vec![name.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SecretValue, Source};

    #[test]
    fn every_provider_has_a_pack_and_is_found_by_its_name() {
        for provider in Provider::ALL {
            assert_eq!(Provider::parse(provider.as_str()), Ok(provider));
            assert!(provider.pack().is_ok(), "{provider:?}");
        }
        assert_eq!(Provider::parse("svix"), Ok(Provider::StandardWebhooks));
    }

    #[test]
    fn an_unknown_provider_type_is_not_silently_accepted() {
        for name in ["", "Stripe", "stripe ", "nobody"] {
            let error = Provider::parse(name).unwrap_err().to_string();
            assert_eq!(error, format!("provider {name:?}: is no known provider"));
        }
    }

    #[test]
    fn a_missing_secret_does_not_mean_no_check() {
        let error = |provider: Provider| Source::builder("s", provider).build().unwrap_err().to_string();
        for provider in Provider::ALL {
            match provider {
                Provider::None => assert!(error(provider).starts_with("insecure: "), "{}", error(provider)),
                Provider::Generic => assert_eq!(error(provider), "scheme: is missing"),
                Provider::StandardWebhooks
                | Provider::Stripe
                | Provider::Github
                | Provider::Shopify
                | Provider::Xendit
                | Provider::Adyen
                | Provider::Aftership
                | Provider::Easypost => {
                    assert_eq!(error(provider), "secrets: has no secret: nothing would be verified");
                }
            }
        }
        let empty = Source::builder("s", Provider::Stripe).secret(SecretValue::new("main", ""));
        assert_eq!(empty.build().unwrap_err().to_string(), "secret \"main\": must not be empty");
    }
}

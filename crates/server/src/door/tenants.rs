//! Tenants: whose token it is, and how often it may come.

use std::sync::Arc;

use http::{HeaderMap, header};
use semel_api::{ApiError, ErrorCode};
use semel_core::id::Tenant;
use subtle::ConstantTimeEq as _;

use crate::config::TenantConfig;
use crate::rate::Limit;

/// All tenants.
#[derive(Debug)]
pub(crate) struct Tenants {
    all: Vec<Arc<TenantEntry>>,
    open: bool,
}

/// One tenant.
pub(crate) struct TenantEntry {
    pub(crate) name: Tenant,
    /// Digests, so that comparing takes the same time whatever the length of the token that was sent.
    tokens: Vec<[u8; 32]>,
    limit: Option<Limit>,
}

impl std::fmt::Debug for TenantEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tenants {
    /// These tenants; without any, `default`, without a token. Buckets of `before` go on where they are, so that a
    /// reload does not fill them.
    ///
    /// # Errors
    /// Core does not take the name `default`, which it does.
    pub(crate) fn new(
        configured: &[TenantConfig],
        before: Option<&Self>,
    ) -> Result<Self, semel_core::Invalid> {
        let entry = |tenant: &TenantConfig| {
            let kept = before.and_then(|before| {
                let same = before.all.iter().find(|entry| entry.name == tenant.name)?;
                same.limit.clone().filter(|limit| Some(limit.rate()) == tenant.rate_limit)
            });
            let tokens =
                tenant.tokens.iter().map(|token| digest(token.expose().as_bytes())).collect::<Vec<_>>();
            let limit = kept.or_else(|| tenant.rate_limit.and_then(|rate| Limit::new(rate, "tenant")));
            Arc::new(TenantEntry { name: tenant.name.clone(), tokens, limit })
        };
        let mut all: Vec<_> = configured.iter().map(entry).collect();
        if all.is_empty() {
            let name = Tenant::try_new("default")?;
            all.push(Arc::new(TenantEntry { name, tokens: Vec::new(), limit: None }));
        }
        // The configuration lets a tenant without tokens be only where it is alone, and on loopback.
        let open = all.len() == 1 && all[0].tokens.is_empty();
        Ok(Self { all, open })
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// There is no token, or nobody's.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<TenantEntry>, ApiError> {
        if self.open {
            return Ok(Arc::clone(&self.all[0]));
        }
        let presented = digest(bearer(headers).ok_or(ErrorCode::Unauthenticated)?);
        // All tokens are compared, whichever matches, so that the time tells nothing.
        let mut found = None;
        for entry in &self.all {
            for token in &entry.tokens {
                if bool::from(token.ct_eq(&presented)) {
                    found = Some(entry);
                }
            }
        }
        found.map(Arc::clone).ok_or_else(|| ErrorCode::Unauthenticated.into())
    }
}

impl TenantEntry {
    /// Takes one from the bucket; what is to be said about it goes into `told`.
    ///
    /// # Errors
    /// The bucket is empty.
    pub(crate) fn admit(&self, told: &mut HeaderMap) -> Result<(), ApiError> {
        self.limit.as_ref().map_or(Ok(()), |limit| limit.admit(told))
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}

/// The bearer token (RFC 6750, section 2.1) of the one `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RateLimit, Secret};
    use crate::rate::{RATE_LIMIT, RATE_LIMIT_POLICY};
    use http::HeaderValue;

    fn tenant(name: &str, tokens: &[&str], rate_limit: Option<RateLimit>) -> TenantConfig {
        let tokens = tokens.iter().map(|token| Secret::new(token)).collect();
        TenantConfig { name: Tenant::try_new(name).unwrap(), tokens, rate_limit }
    }

    fn authorization(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_token_tells_the_tenant_and_nothing_else_lets_anybody_in() {
        let tenants =
            Tenants::new(&[tenant("a", &["one", "two"], None), tenant("b", &["three"], None)], None).unwrap();
        let who = |values: &[&'static str]| {
            tenants.authenticate(&authorization(values)).map(|t| t.name.to_string())
        };
        assert_eq!(who(&["Bearer one"]).unwrap(), "a");
        assert_eq!(who(&["bearer two"]).unwrap(), "a");
        assert_eq!(who(&["Bearer three"]).unwrap(), "b");
        for values in [
            &[][..],
            &["Bearer "],
            &["Bearer"],
            &["one"],
            &["Basic one"],
            &["Bearer on"],
            &["Bearer onee"],
            &["Bearer one", "Bearer one"],
        ] {
            assert_eq!(who(values).unwrap_err().code(), ErrorCode::Unauthenticated, "{values:?}");
        }
    }

    #[test]
    fn without_tenants_everybody_is_the_default_one() {
        let tenants = Tenants::new(&[], None).unwrap();
        assert_eq!(tenants.authenticate(&HeaderMap::new()).unwrap().name.as_str(), "default");
    }

    #[test]
    fn a_bucket_that_is_empty_says_when_to_come_back_and_a_reload_does_not_fill_it() {
        let rate = RateLimit { requests_per_second: 1, burst: 2 };
        let configured = [tenant("a", &["one"], Some(rate))];
        let tenants = Tenants::new(&configured, None).unwrap();
        let admit = |tenants: &Tenants| {
            let mut told = HeaderMap::new();
            let entry = tenants.authenticate(&authorization(&["Bearer one"])).unwrap();
            (entry.admit(&mut told), told)
        };
        let (first, told) = admit(&tenants);
        assert!(first.is_ok());
        assert_eq!(told[RATE_LIMIT_POLICY], "\"tenant\";q=2;w=2");
        assert_eq!(told[RATE_LIMIT], "\"tenant\";r=1;t=1");
        assert!(admit(&tenants).0.is_ok());
        let refused = admit(&tenants).0.unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_seconds()), (ErrorCode::RateLimited, Some(1)));
        let reloaded = Tenants::new(&configured, Some(&tenants)).unwrap();
        assert!(admit(&reloaded).0.is_err());
        let wider = [tenant("a", &["one"], Some(RateLimit { requests_per_second: 1, burst: 3 }))];
        assert!(admit(&Tenants::new(&wider, Some(&tenants)).unwrap()).0.is_ok());
    }
}

//! Who may come to the admin listener, and what they may do.

use std::sync::Arc;

use http::{HeaderMap, header, uri::Authority};
use semel_api::{ApiError, ErrorCode};
use subtle::ConstantTimeEq as _;

use crate::config::{AdminToken, Role};
use crate::door::bearer;

/// What the audit log calls whoever comes without a token, which only somebody on this machine can.
const LOCAL: &str = "admin:local";

/// All tokens.
pub(super) struct Access {
    tokens: Vec<Known>,
}

struct Known {
    /// A digest, so that comparing takes the same time whatever the length of the token that was sent.
    digest: [u8; 32],
    role: Role,
    actor: Arc<str>,
}

/// Who it is.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// What they may do.
    pub(crate) role: Role,
    /// What the audit log calls them.
    pub(crate) actor: Arc<str>,
}

impl Access {
    pub(super) fn new(tokens: &[AdminToken]) -> Self {
        let known = |token: &AdminToken| Known {
            digest: digest(token.token.expose().as_bytes()),
            role: token.role,
            actor: format!("admin:{}", token.name).into(),
        };
        Self { tokens: tokens.iter().map(known).collect() }
    }

    /// Who it is.
    ///
    /// # Errors
    /// There is no token, or nobody's; or there are none at all and the request was not meant for this machine.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        authority: Option<&Authority>,
    ) -> Result<Operator, ApiError> {
        if self.tokens.is_empty() {
            // Without tokens the listener is on loopback, and what keeps a page of somebody's website from speaking
            // to it under a name that was bound to 127.0.0.1 is that the name stands here.
            return if is_for_loopback(headers, authority) {
                Ok(Operator { role: Role::Operate, actor: LOCAL.into() })
            } else {
                Err(ApiError::new(ErrorCode::Forbidden)
                    .with_message("Without admin tokens only requests to localhost are taken"))
            };
        }
        let presented = digest(bearer(headers).ok_or(ErrorCode::Unauthenticated)?);
        let mut found = None;
        // All tokens are compared, whichever matches, so that the time tells nothing.
        for known in &self.tokens {
            if bool::from(known.digest.ct_eq(&presented)) {
                found = Some(known);
            }
        }
        let known = found.ok_or(ErrorCode::Unauthenticated)?;
        Ok(Operator { role: known.role, actor: Arc::clone(&known.actor) })
    }
}

impl Operator {
    /// Whether they may change something.
    ///
    /// # Errors
    /// They may only look.
    pub(super) fn may_operate(&self) -> Result<(), ApiError> {
        if self.role >= Role::Operate { Ok(()) } else { Err(ErrorCode::Forbidden.into()) }
    }
}

fn is_for_loopback(headers: &HeaderMap, authority: Option<&Authority>) -> bool {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    // In HTTP/2 it is part of the target.
    let Some(authority) = authority.cloned().or(named) else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::Secret;

    fn token(role: Role, name: &str, token: &str) -> AdminToken {
        AdminToken { role, name: name.to_owned(), token: Secret::new(token) }
    }

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_token_says_who_it_is_and_what_they_may() {
        let access = Access::new(&[token(Role::Read, "grafana", "r"), token(Role::Operate, "ann", "o")]);
        let with = |token: &str| {
            access.authenticate(&headers(header::AUTHORIZATION, &format!("Bearer {token}")), None)
        };
        let reader = with("r").unwrap();
        assert_eq!(
            (&*reader.actor, reader.may_operate().unwrap_err().code()),
            ("admin:grafana", ErrorCode::Forbidden)
        );
        let ann = with("o").unwrap();
        assert_eq!((&*ann.actor, ann.may_operate()), ("admin:ann", Ok(())));
        assert_eq!(with("x").unwrap_err().code(), ErrorCode::Unauthenticated);
        assert_eq!(
            access.authenticate(&headers(header::HOST, "localhost"), None).unwrap_err().code(),
            ErrorCode::Unauthenticated
        );
    }

    #[test]
    fn without_tokens_a_name_that_was_bound_to_loopback_is_refused() {
        let access = Access::new(&[]);
        let host = |host: &str| access.authenticate(&headers(header::HOST, host), None).is_ok();
        for ours in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.9.9.9", "[::1]:8081"] {
            assert!(host(ours), "{ours}");
        }
        for odd in
            ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil", ""]
        {
            assert!(!host(odd), "{odd}");
        }
        let target: Authority = "evil.example".parse().unwrap();
        assert!(access.authenticate(&HeaderMap::new(), Some(&target)).is_err());
        assert!(access.authenticate(&HeaderMap::new(), None).is_err(), "HTTP/1.0 may leave it out");
    }
}

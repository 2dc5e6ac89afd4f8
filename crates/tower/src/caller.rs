//! Who asks: the part of a key's scope that keeps one caller's outcomes from another.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use semel_core::error::Invalid;
use semel_core::id::{Namespace, Subject, Tenant};
use semel_core::{Scope, limits};
use semel_fingerprint::FingerprintBuilder;

/// Whose request it is, as the service knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A verified and stable identity. Never a credential that rotates: its refresh would make duplicates.
    Known(String),
    /// Callers are not told apart here: all share their keys.
    Anybody,
    /// The request has no identity and needs one: it is answered 401, and nothing runs.
    Nobody,
    /// As nobody; and the client is told which headers an identity needs.
    Lacks(Vec<String>),
}

/// A request extension of an outer layer's: which of several services behind this one the request is for. A key of
/// one is another key at the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(pub Arc<str>);

type Extract<T> = dyn Fn(&Parts) -> T + Send + Sync;

/// Reads an identity from a request's head.
#[derive(Clone)]
pub(crate) struct By<T>(Arc<Extract<T>>);

impl<T> By<T> {
    pub(crate) fn new(extract: impl Fn(&Parts) -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(extract))
    }

    pub(crate) fn of(&self, parts: &Parts) -> T {
        (self.0)(parts)
    }
}

impl<T> fmt::Debug for By<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By")
    }
}

/// The scope of a service's keys, as the layer has it under the profile `wms` for one tenant: of all its callers, where
/// they share them, or of one.
///
/// # Errors
/// A part of it is not within core's limits, which is not known to happen: what is too long becomes a digest.
pub fn of_service(service: &str, caller: Option<&str>) -> Result<Scope, Invalid> {
    scope(default_tenant()?, Some(service), None, caller, None, false)
}

/// The tenant of a service that has none.
pub(crate) fn default_tenant() -> Result<Tenant, Invalid> {
    Tenant::try_new("default")
}

/// The parts of a scope beside the tenant. Each is framed by a letter and its length, so that no two lists of parts
/// are one.
pub(crate) fn scope(
    tenant: Tenant,
    service: Option<&str>,
    destination: Option<&str>,
    caller: Option<&str>,
    path: Option<&str>,
    reported: bool,
) -> Result<Scope, Invalid> {
    let mut text = String::new();
    let reported = reported.then_some("");
    for (letter, part) in [('r', reported), ('s', service), ('d', destination), ('c', caller), ('p', path)] {
        let Some(part) = part else { continue };
        text.push(letter);
        text.push_str(&part.len().to_string());
        text.push(':');
        text.push_str(part);
    }
    let subject = if text.is_empty() { None } else { Some(subject(&text)?) };
    Ok(Scope { namespace: Namespace::Http, tenant, subject })
}

/// The text, or what stands for it where it is too long or holds what no subject may.
fn subject(text: &str) -> Result<Subject, Invalid> {
    if text.len() <= limits::SCOPE_PART_CHARS_MAX && !text.chars().any(char::is_control) {
        return Subject::try_new(text);
    }
    let digest = FingerprintBuilder::new().operation("subject").raw(text.as_bytes()).finish();
    Subject::try_new(&format!("d{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject_of(service: Option<&str>, caller: Option<&str>, path: Option<&str>) -> Option<String> {
        let tenant = Tenant::try_new("default").unwrap();
        scope(tenant, service, None, caller, path, false).unwrap().subject.map(|subject| subject.to_string())
    }

    #[test]
    fn unframed_parts_do_not_collide() {
        let ab_c = subject_of(Some("ab"), Some("c"), None);
        assert_eq!(ab_c.as_deref(), Some("s2:abc1:c"));
        assert_ne!(ab_c, subject_of(Some("a"), Some("bc"), None));
        assert_ne!(subject_of(None, Some("x"), None), subject_of(None, None, Some("x")));
        assert_eq!(subject_of(None, None, None), None);
        let tenant = Tenant::try_new("default").unwrap();
        let reported = scope(tenant, None, None, Some("x"), None, true).unwrap().subject.unwrap();
        assert_eq!(reported.as_str(), "r0:c1:x", "what was only reported is another scope");
        let tenant = Tenant::try_new("default").unwrap();
        let elsewhere = scope(tenant, None, Some("a"), Some("x"), None, false).unwrap().subject.unwrap();
        assert_eq!(elsewhere.as_str(), "d1:ac1:x", "a key of one destination is another key at the next");
    }

    #[test]
    fn an_identity_of_any_length_and_content_has_a_scope_of_its_own() {
        let long = |last: char| subject_of(None, Some(&format!("{}{last}", "x".repeat(600))), None);
        assert_ne!(long('a'), long('b'));
        assert_ne!(subject_of(None, Some("a\nb"), None), subject_of(None, Some("a\tb"), None));
        assert_ne!(subject_of(None, Some(""), None), None, "an empty identity is not none");
    }
}

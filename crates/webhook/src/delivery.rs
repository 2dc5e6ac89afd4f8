//! What a partner sent, as it came: header fields, raw bytes, and where from.

use std::net::IpAddr;

use bytes::Bytes;

use crate::limits;
use crate::reason::{Reason, Rejection};

/// One request of a partner. The body is what came over the wire, content encodings included: signatures are over
/// bytes, and nothing that was parsed and written again has the same ones.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a Bytes,
    peer: Option<IpAddr>,
}

impl<'a> Delivery<'a> {
    /// A request with these header fields (names in any case, a name may come twice) and this body.
    pub const fn new(headers: &'a [(&'a str, &'a [u8])], body: &'a Bytes) -> Self {
        Self { headers, body, peer: None }
    }

    /// The address it came from, as far as it can be believed.
    #[must_use]
    pub const fn from(mut self, peer: IpAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The body.
    pub const fn body(&self) -> &'a Bytes {
        self.body
    }

    pub(crate) const fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    pub(crate) const fn with_body(&self, body: &'a Bytes) -> Self {
        Self { headers: self.headers, body, peer: self.peer }
    }

    /// Names of the header fields, as they came.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.headers.iter().map(|(name, _)| *name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|found| found.eq_ignore_ascii_case(name))
    }

    /// The one value of a header that something depends on.
    ///
    /// # Errors
    /// It is absent or empty; there twice, so that this code and another may read different ones; too long; or holds
    /// what is not printable.
    pub(crate) fn header(&self, name: &str) -> Result<&'a str, Rejection> {
        let mut found = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some((_, value)) = found.next() else {
            return Err(Rejection::about(Reason::HeaderMissing, name));
        };
        if found.next().is_some() {
            return Err(Rejection::about(Reason::HeaderRepeated, name));
        }
        let malformed = || Rejection::about(Reason::HeaderMalformed, name);
        if value.len() > limits::HEADER_BYTES_MAX {
            return Err(malformed());
        }
        let value = std::str::from_utf8(value).map_err(|_| malformed())?;
        let value = value.trim_matches([' ', '\t']);
        if value.is_empty() {
            return Err(Rejection::about(Reason::HeaderMissing, name));
        }
        if value.chars().any(char::is_control) {
            return Err(malformed());
        }
        Ok(value)
    }
}

impl std::fmt::Debug for Delivery<'_> {
    /// Names and sizes: headers hold tokens, and bodies hold what partners trusted us with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.names().collect();
        f.debug_struct("Delivery")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .field("peer", &self.peer)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &[u8])], expected: Result<&str, &str>) {
        let body = Bytes::new();
        let delivery = Delivery::new(headers, &body);
        let found = delivery.header("X-Id");
        let found = found.as_ref().map(|value| *value).map_err(|rejection| rejection.reason().as_str());
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn a_header_is_there_once_and_readable_or_not_used() {
        check(&[("x-id", b"a"), ("other", b"b")], Ok("a"));
        check(&[("X-ID", b" a ")], Ok("a"));
        check(&[], Err("header_missing"));
        check(&[("x-id", b"")], Err("header_missing"));
        check(&[("x-id", b"  ")], Err("header_missing"));
        check(&[("x-id", b"a"), ("X-Id", b"a")], Err("header_repeated"));
        check(&[("x-id", b"a\0b")], Err("header_malformed"));
        check(&[("x-id", b"\xff")], Err("header_malformed"));
        check(&[("x-id", &[b'a'; limits::HEADER_BYTES_MAX + 1])], Err("header_malformed"));
    }

    #[test]
    fn neither_values_nor_bodies_show_in_debug_output() {
        let body = Bytes::from_static(b"body-content");
        let shown = format!("{:?}", Delivery::new(&[("x-token", b"token-value")], &body));
        assert!(shown.contains("x-token") && shown.contains("12"), "{shown}");
        assert!(!shown.contains("token-value") && !shown.contains("body-content"), "{shown}");
    }
}

//! Who asked, by the word of the proxies on the way: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Both are lists to which each proxy appends whom it has heard, so they are read from the last to the first, as long as
//! whoever says it is trusted. Some proxies write the one and let the other pass as a client has sent it. So where both
//! stand and name two clients, neither is believed.

use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::str::Chars;

use http::header::{FORWARDED, HeaderMap, HeaderName};

use crate::config::gateway::Network;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from: the other end of the connection, or whom a trusted proxy there has named, and so on from the
/// last to the first. What anybody else says of itself is not believed.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let followed = |named: Vec<Option<IpAddr>>| {
        let mut here = peer;
        for address in named.into_iter().rev() {
            let Some(address) = address else { break };
            here = address.to_canonical();
            if !is_trusted(here) {
                break;
            }
        }
        here
    };
    let by_custom = headers.contains_key(X_FORWARDED_FOR).then(|| followed(by_custom(headers)));
    let by_standard = headers.contains_key(FORWARDED).then(|| followed(by_standard(headers)));
    match (by_custom, by_standard) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => peer,
    }
}

/// Whom `X-Forwarded-For` names, in its order; `None` for what is no address.
fn by_custom(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(|name| address_in(name.trim())).collect()
}

/// Whom `Forwarded` names, in its order; `None` for what is no address, and for a line that cannot be read.
fn by_standard(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut named = Vec::new();
    for line in headers.get_all(FORWARDED) {
        match line.to_str().ok().and_then(elements) {
            Some(elements) => named.extend(elements.iter().map(Element::address)),
            None => named.push(None),
        }
    }
    named
}

/// An address, with or without the port that some proxies add.
pub(crate) fn address_in(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(bare, _)| bare);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// What one proxy says in `Forwarded`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// Whom it has heard (`for`): an address with or without a port, `unknown`, or a name that only it understands.
    pub(crate) node: Option<String>,
    /// What it was asked for (`host`).
    pub(crate) host: Option<String>,
    /// How (`proto`).
    pub(crate) proto: Option<String>,
}

impl Element {
    /// The address that it has heard.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.node.as_deref().and_then(address_in)
    }

    fn put(&mut self, name: &str, value: String) -> Option<()> {
        let place = match name.to_ascii_lowercase().as_str() {
            "for" => &mut self.node,
            "host" => &mut self.host,
            "proto" => &mut self.proto,
            // `by`, and what RFC 7239 lets others add.
            _ => return Some(()),
        };
        // Each parameter at most once (section 4).
        place.replace(value).is_none().then_some(())
    }
}

/// The elements of one line of `Forwarded` (RFC 7239, section 4); `None` if it is malformed: then nobody knows which of it a
/// proxy has appended.
pub(crate) fn elements(line: &str) -> Option<Vec<Element>> {
    let mut rest = line.chars().peekable();
    let (mut elements, mut element) = (Vec::new(), None);
    loop {
        skip_space(&mut rest);
        let name = token(&mut rest);
        if name.is_empty() {
            // A list may have empty elements (RFC 9110, section 5.6.1).
            if !matches!(rest.peek(), None | Some(',' | ';')) {
                return None;
            }
        } else {
            rest.next_if_eq(&'=')?;
            element.get_or_insert_with(Element::default).put(&name, value(&mut rest)?)?;
        }
        skip_space(&mut rest);
        match rest.next() {
            Some(';') => {}
            end @ (Some(',') | None) => {
                elements.extend(element.take());
                if end.is_none() {
                    return Some(elements);
                }
            }
            Some(_) => return None,
        }
    }
}

fn skip_space(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
}

fn token(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut token = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c)) {
        token.push(c);
    }
    token
}

/// A quoted string, or a token. Some proxies forget the quotes around an address with colons.
fn value(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    if rest.next_if_eq(&'"').is_none() {
        while let Some(c) = rest.next_if(|c| c.is_ascii_graphic() && !matches!(c, ',' | ';' | '"' | '=')) {
            value.push(c);
        }
        return Some(value).filter(|value| !value.is_empty());
    }
    loop {
        match rest.next()? {
            '"' => return Some(value),
            '\\' => value.push(rest.next()?),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CUSTOM: &str = "x-forwarded-for";
    const STANDARD: &str = "forwarded";

    fn found(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let trusted = [Network::parse("10.0.0.0/8").unwrap(), Network::parse("fd00::/8").unwrap()];
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn an_address_is_believed_as_far_as_the_proxies_that_say_it() {
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let lines: Vec<_> = forwarded.iter().map(|line| (CUSTOM, *line)).collect();
            assert_eq!(found(peer, &lines), expected, "{peer} {forwarded:?}");
        };
        check("203.0.113.9", &[], "203.0.113.9");
        // Whoever is not a proxy of ours says what it likes.
        check("203.0.113.9", &["198.51.100.1"], "203.0.113.9");
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("::ffff:10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1");
        check("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1");
        // The client's own word stands first, and is not reached.
        check("10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["1.2.3.4", "198.51.100.1", "10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["nonsense"], "10.0.0.1");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn the_standard_header_is_believed_by_the_same_rule() {
        let check = |peer: &str, forwarded: &[&str], expected: &str| {
            let lines: Vec<_> = forwarded.iter().map(|line| (STANDARD, *line)).collect();
            assert_eq!(found(peer, &lines), expected, "{peer} {forwarded:?}");
        };
        check("203.0.113.9", &["for=198.51.100.1"], "203.0.113.9");
        check("10.0.0.1", &["for=198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["For=\"198.51.100.1:4711\";proto=https;by=10.0.0.1"], "198.51.100.1");
        check("10.0.0.1", &["proto=https; FOR=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17");
        check("10.0.0.1", &["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17");
        check("fd00::1", &["for=[2001:db8::1]:80, for=fd00::2"], "2001:db8::1");
        // Several hops, in one line and in several; the client's own word stands first, and is not reached.
        check("10.0.0.1", &["for=1.2.3.4, for=198.51.100.1;proto=http, for=10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["for=1.2.3.4", "for=198.51.100.1", ", for=\"10.0.0.2:80\" ,"], "198.51.100.1");
        check("10.0.0.1", &["for=\"1\\0.0.0.2\", for=10.0.0.3"], "10.0.0.2");
        // Who is hidden, or not said, is whoever was there last.
        check("10.0.0.1", &["for=198.51.100.1, for=unknown"], "10.0.0.1");
        check("10.0.0.1", &["for=198.51.100.1, for=_hidden, for=10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["for=198.51.100.1, proto=https"], "10.0.0.1");
        check("10.0.0.1", &["for=198.51.100.1, by=10.0.0.1"], "10.0.0.1");
    }

    #[test]
    fn a_line_that_is_malformed_names_nobody_and_neither_does_what_stands_before_it() {
        for wrong in [
            "for=\"1.2.3.4",
            "for=\"1.2.3.4, for=198.51.100.1",
            "for=\"a, for=\"[2001:db8::1]\"",
            "for=1.2.3.4 for=198.51.100.1",
            "for=1.2.3.4;for=198.51.100.1",
            "for",
            "for=",
            "=1.2.3.4",
            "for=\"1.2.3.4\\",
            "for =1.2.3.4",
        ] {
            assert_eq!(elements(wrong), None, "{wrong}");
            assert_eq!(found("10.0.0.1", &[(STANDARD, wrong)]), "10.0.0.1", "{wrong}");
            let lines = [(STANDARD, "for=1.2.3.4"), (STANDARD, wrong), (STANDARD, "for=10.0.0.2")];
            assert_eq!(found("10.0.0.1", &lines), "10.0.0.2", "{wrong}");
        }
    }

    #[test]
    fn a_header_that_a_proxy_lets_pass_does_not_outdo_the_one_that_it_writes() {
        let both =
            |custom: &str, standard: &str| found("10.0.0.1", &[(CUSTOM, custom), (STANDARD, standard)]);
        assert_eq!(both("198.51.100.1", "for=198.51.100.1"), "198.51.100.1", "they agree");
        assert_eq!(both("198.51.100.1", "for=1.2.3.4"), "10.0.0.1", "a client has made one of them up");
        assert_eq!(both("198.51.100.1", "for=\""), "10.0.0.1");
        assert_eq!(both("", "for=198.51.100.1"), "10.0.0.1");
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic_and_what_is_written_is_read(line in "\\PC{0,60}", node in "[ -~]{0,30}") {
            drop(elements(&line));
            let quoted = node.replace('\\', "\\\\").replace('"', "\\\"");
            let read = elements(&format!("proto=http;for=\"{quoted}\", for=10.0.0.1")).unwrap();
            proptest::prop_assert_eq!(read[0].node.as_deref(), Some(node.as_str()));
            proptest::prop_assert_eq!(read.len(), 2);
        }
    }
}

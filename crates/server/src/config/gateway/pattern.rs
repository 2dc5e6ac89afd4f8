//! What a route, a host or a network looks like in the configuration, and whether something matches it.

use std::net::IpAddr;

use http::Method;
use percent_encoding::percent_decode_str;

/// A part of a path between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// This text, once percent-encoding is undone.
    Literal(String),
    /// Any one segment that is not empty.
    Any,
    /// All that is left, if anything is.
    Rest,
}

/// A path with places for anything: `/orders/{id}/pay`, `/files/{*rest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix('/').ok_or("a path must begin with `/`")?;
        let mut segments = Vec::new();
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            let segment = match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) if name.starts_with('*') && name.len() > 1 => {
                    if parts.peek().is_some() {
                        return Err("`{*…}` must be the last part of a path");
                    }
                    Segment::Rest
                }
                Some(name) if !name.is_empty() && !name.contains(['{', '}', '*']) => Segment::Any,
                None if !part.contains(['{', '}', '*', '?', '#']) => Segment::Literal(decoded(part)),
                _ => return Err("a part of a path is a text, `{name}` or, at the end, `{*rest}`"),
            };
            segments.push(segment);
        }
        Ok(Self(segments))
    }

    /// Whether a path, as it stands in a request, is one of these.
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let mut parts = rest.split('/');
        for segment in &self.0 {
            match (segment, parts.next()) {
                (Segment::Rest, part) => return part.is_some(),
                (Segment::Any, Some(part)) if !part.is_empty() => {}
                (Segment::Literal(text), Some(part)) if text == part || *text == decoded(part) => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }
}

/// Two spellings of a path are one: a route is not avoided by writing `%6f` for `o`.
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// A method by its name. One that nobody has registered is a slip of the pen, whose route would never be taken.
///
/// # Errors
/// It is none: what is expected.
pub(super) fn method(name: &str) -> Result<Method, &'static str> {
    let known = semel_tower::route::method(name).filter(|method| *method != Method::CONNECT);
    known.ok_or(
        "no method that is passed on; methods are written in capitals: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, \
         or another one of HTTP's registry",
    )
}

/// Methods and a path: `POST /orders/{id}/pay`, `POST|PUT /orders`, `/orders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePattern {
    methods: Vec<Method>,
    path: PathPattern,
}

impl RoutePattern {
    /// Reads a pattern; one without methods is for all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (methods, path) = match text.trim().split_once(char::is_whitespace) {
            None => ("", text.trim()),
            Some((methods, path)) => (methods, path.trim_start()),
        };
        let methods = methods.split('|').filter(|_| !methods.is_empty());
        let read = |name| {
            let several = "several have `|` between them";
            method(name).map_err(|problem| format!("`{name}`: {problem}; {several}"))
        };
        let methods = methods.map(read).collect::<Result<_, _>>()?;
        Ok(Self { methods, path: PathPattern::parse(path)? })
    }

    /// Whether a request is one of these.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && self.path.matches(path)
    }
}

/// A host, or all below one: `api.example.com`, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In small letters, with the dot where it is a suffix.
    name: String,
    is_suffix: bool,
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, is_suffix) = match text.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => (suffix, true),
            Some(_) => return Err("a host is a name such as \"api.example.com\" or \"*.example.com\""),
            None => (text, false),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
        if name.trim_matches('.').is_empty() || !name.chars().all(fits) {
            return Err("a host is a name such as \"api.example.com\" or \"*.example.com\"");
        }
        if !name.starts_with('[') && name.contains(':') {
            return Err("a host is given without a port");
        }
        Ok(Self { name: name.to_ascii_lowercase(), is_suffix })
    }

    /// Whether a host, without its port, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !self.is_suffix {
            return host.eq_ignore_ascii_case(&self.name);
        }
        let start = host.len().checked_sub(self.name.len());
        start.filter(|start| *start > 0).is_some_and(|start| {
            host.get(start..).is_some_and(|suffix| suffix.eq_ignore_ascii_case(&self.name))
        })
    }
}

/// Addresses with a common beginning: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads a network; an address by itself is one of one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const ALLOWED: &str = "an address or a network such as \"127.0.0.1\" or \"10.0.0.0/8\"";
        let (address, bits) = text.split_once('/').map_or((text, None), |(left, right)| (left, Some(right)));
        let address: IpAddr = address.parse().map_err(|_| ALLOWED)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| ALLOWED)?;
        if bits > most { Err(ALLOWED) } else { Ok(Self { address, bits }) }
    }

    /// Whether an address is one of these. An IPv4 address that came over IPv6 is what it stands for.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32 - self.bits;
                (u64::from(mine.to_bits()) >> shift) == (u64::from(other.to_bits()) >> shift)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => match 128 - self.bits {
                128 => true,
                shift => mine.to_bits() >> shift == other.to_bits() >> shift,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_by_whole_segments_however_it_is_spelt() {
        let check = |pattern: &str, path: &str| PathPattern::parse(pattern).unwrap().matches(path);
        assert!(check("/orders/{id}/pay", "/orders/7/pay"));
        assert!(check("/orders/{id}/pay", "/%6frders/7/p%61y"), "percent-encoding hides nothing");
        assert!(!check("/orders/{id}/pay", "/orders//pay"), "an empty segment is none");
        assert!(!check("/orders/{id}/pay", "/orders/7/pay/now"));
        assert!(!check("/orders/{id}/pay", "/orders/7"));
        assert!(!check("/orders", "/orders/"));
        assert!(check("/", "/") && !check("/", "/a"));
        assert!(check("/files/{*rest}", "/files/a/b") && check("/files/{*rest}", "/files/"));
        assert!(!check("/files/{*rest}", "/files"));
        assert!(check("/{*rest}", "/") && check("/{*rest}", "/a/b"));
        assert!(!check("/orders%2f7", "/orders/7"), "an encoded slash is none");
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for wrong in ["orders", "/a{b}", "/{}", "/{*}", "/{*rest}/a", "/a?b", "/*"] {
            assert!(PathPattern::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["post /orders", "PSOT /orders", "POST,PUT /orders", "POST| /orders", "POST"] {
            assert!(RoutePattern::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "*", "*example.com", "a b", "example.com:80", "*."] {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/-1"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_route_without_methods_is_for_all() {
        let check =
            |pattern: &str, method: Method| RoutePattern::parse(pattern).unwrap().matches(&method, "/a");
        assert!(check("/a", Method::DELETE) && check("POST|PUT /a", Method::PUT));
        assert!(!check("POST|PUT /a", Method::GET));
    }

    #[test]
    fn a_host_matches_without_regard_to_capitals_and_a_star_stands_for_something() {
        let check = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().matches(host);
        assert!(check("api.example.com", "API.Example.com") && check("api.example.com", "api.example.com."));
        assert!(check("*.example.com", "a.b.example.com"));
        assert!(!check("*.example.com", "example.com") && !check("*.example.com", ".example.com"));
        assert!(!check("*.example.com", "badexample.com"));
        assert!(check("[::1]", "[::1]"));
    }

    #[test]
    fn a_network_holds_what_begins_as_it_does() {
        let check = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(check("10.0.0.0/8", "10.200.3.4") && !check("10.0.0.0/8", "11.0.0.1"));
        assert!(check("127.0.0.1", "127.0.0.1") && !check("127.0.0.1", "127.0.0.2"));
        assert!(check("0.0.0.0/0", "8.8.8.8") && check("::/0", "fe80::1"));
        assert!(check("fd00::/8", "fd12::1") && !check("fd00::/8", "fe00::1"));
        assert!(check("10.0.0.0/8", "::ffff:10.1.2.3"), "IPv4 over IPv6 is IPv4");
        assert!(!check("0.0.0.0/0", "fe80::1"));
    }
}

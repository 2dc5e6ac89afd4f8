//! Heads on their way through: what belongs to one connection stays there, and an upstream is told who asked.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};
use semel_api::{ApiError, Detail, ErrorCode};

use crate::config::gateway::{ForwardedStyle, GatewayConfig};
use crate::forwarded::{self, Element, X_FORWARDED_FOR, address_in};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What only the gateway says to an upstream: a client that says it is not believed.
const OURS: [HeaderName; 3] = [
    HeaderName::from_static("semel-fence"),
    HeaderName::from_static("semel-attempt"),
    HeaderName::from_static("semel-operation"),
];

/// What belongs to one connection (RFC 9110, section 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HTTP2_SETTINGS,
];

/// What `Connection` cannot take away: it is for everybody on the way, whatever a client says.
const FOR_ALL: [&str; 5] = ["host", "content-length", "authorization", "cache-control", "idempotency-key"];

/// Who is at the other end of a client's connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// As `X-Forwarded-For` has it.
    address: HeaderValue,
    /// As `for=` of `Forwarded` has it.
    node: String,
    /// Whether what it says about others is believed.
    is_trusted: bool,
    is_tls: bool,
}

impl Peer {
    /// The peer of a new connection.
    pub(super) fn new(config: &GatewayConfig, address: SocketAddr, is_tls: bool) -> Self {
        let ip = address.ip().to_canonical();
        let text = ip.to_string();
        Self {
            // An address has no character that a header cannot have.
            address: HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            node: node(ip),
            is_trusted: config.trusted_proxies.iter().any(|network| network.contains(ip)),
            is_tls,
        }
    }

    const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

fn refused(field: &str, message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed).with_detail(Detail::new(field, "value", message))
}

/// The host that a request is for, as it was sent: in the address of HTTP/2 and of the absolute form, else in `Host`.
/// It then stands in `Host`, once.
///
/// # Errors
/// There is none, or more than one: two servers may then take it for two requests.
pub(super) fn settle_host<B>(request: &mut Request<B>) -> Result<HeaderValue, ApiError> {
    let mut given = request.headers().get_all(header::HOST).iter();
    let first = given.next().cloned();
    if given.next().is_some() {
        return Err(refused("host", "there is more than one Host header"));
    }
    if let Some(authority) = request.uri().authority() {
        let bare = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(bare).map_err(|_| refused("host", "is no host"))?;
        request.headers_mut().insert(header::HOST, host.clone());
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        return Ok(host);
    }
    match first {
        Some(host) if !host.is_empty() && host.to_str().is_ok() => Ok(host),
        _ if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        _ => Err(refused("host", "there is no Host header")),
    }
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a request can be passed on at all.
///
/// # Errors
/// It is for a tunnel, or its path means another one: a route could be avoided by it.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), ApiError> {
    if *request.method() == Method::CONNECT {
        return Err(ErrorCode::MethodNotAllowed.into());
    }
    if has_transfer_coding(request.headers()) {
        // RFC 9112, section 6.1: 501 for a coding that is not understood.
        let message = "only chunked is understood; compress the content (Content-Encoding) instead";
        return Err(refused("transfer-encoding", message).with_status(501));
    }
    let path = request.uri().path();
    if has_dot_segment(path) {
        return Err(refused(
            "path",
            "has a segment that is . or .., which every client resolves before it sends",
        ));
    }
    Ok(())
}

/// Whether a body is in another transfer coding than chunked, which is undone as it is read: the header stays behind
/// with its connection, and whoever is next would take what is coded for the content.
pub(super) fn has_transfer_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(one), None) => !one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

fn has_dot_segment(path: &str) -> bool {
    // Nearly no path has a segment that begins with a dot.
    if !path.contains("/.") && !path.contains('%') {
        return false;
    }
    path.split('/').any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

/// The protocol that a client wants to change to (RFC 9110, section 7.8).
pub(super) fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let upgrade = request.headers().get(header::UPGRADE)?;
    let named = request.headers().get_all(header::CONNECTION).iter().any(|value| {
        let tokens = value.to_str().unwrap_or_default().split(',');
        tokens.map(str::trim).any(|token| token.eq_ignore_ascii_case("upgrade"))
    });
    (named && request.version() == Version::HTTP_11).then(|| upgrade.clone())
}

/// Takes away what belongs to one connection.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !name.eq_ignore_ascii_case("close") && !name.eq_ignore_ascii_case("keep-alive"))
            .filter(|name| !FOR_ALL.iter().any(|all| all.eq_ignore_ascii_case(name)))
            .filter_map(|name| name.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a client's head one for an upstream.
///
/// # Errors
/// The client expects something that nobody can promise.
pub(super) fn to_upstream<B>(
    request: &mut Request<B>,
    peer: &Peer,
    host: &HeaderValue,
    style: ForwardedStyle,
    may_upgrade: bool,
) -> Result<(), ApiError> {
    let version = request.version();
    let upgrade = wanted_upgrade(request).filter(|_| may_upgrade);
    let headers = request.headers_mut();
    let trailers = headers.get_all(header::TE).iter().any(|te| {
        te.to_str().unwrap_or_default().split(',').any(|te| te.trim().eq_ignore_ascii_case("trailers"))
    });
    strip_hop_by_hop(headers);
    if let Some(expected) = headers.remove(header::EXPECT) {
        // The client is told to go on when its body is asked for.
        if !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(refused("expect", "only 100-continue can be expected").with_status(417));
        }
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if version != Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    for name in &OURS {
        headers.remove(name);
    }
    forward(headers, peer, host, style);
    headers.append(header::VIA, via(version));
    Ok(())
}

const fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 semel",
        Version::HTTP_10 => "1.0 semel",
        _ => "1.1 semel",
    })
}

fn forward(headers: &mut HeaderMap, peer: &Peer, host: &HeaderValue, style: ForwardedStyle) {
    let custom = matches!(style, ForwardedStyle::Both | ForwardedStyle::XForwarded);
    let standard = matches!(style, ForwardedStyle::Both | ForwardedStyle::Rfc7239);
    if peer.is_trusted {
        // What a trusted proxy has said in one of the two ways is said in the other, too (RFC 7239, section 7.4): else an
        // upstream that reads the other would take the proxy for the client. Where both stand, both are left as they are.
        match (headers.contains_key(header::FORWARDED), headers.contains_key(X_FORWARDED_FOR)) {
            (true, false) if custom => to_custom(headers),
            (false, true) if standard => to_standard(headers),
            _ => {}
        }
    } else {
        for name in [header::FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            headers.remove(name);
        }
    }
    if custom {
        match headers.entry(X_FORWARDED_FOR) {
            Entry::Vacant(vacant) => {
                vacant.insert(peer.address.clone());
            }
            Entry::Occupied(occupied) => {
                let before: Vec<_> = occupied.iter().map(HeaderValue::as_bytes).collect();
                let all = [&before[..], &[peer.address.as_bytes()]].concat().join(&b", "[..]);
                if let Ok(all) = HeaderValue::from_bytes(&all) {
                    headers.insert(X_FORWARDED_FOR, all);
                }
            }
        }
        if let Entry::Vacant(vacant) = headers.entry(X_FORWARDED_PROTO) {
            vacant.insert(HeaderValue::from_static(peer.scheme()));
        }
        if let Entry::Vacant(vacant) = headers.entry(X_FORWARDED_HOST) {
            vacant.insert(host.clone());
        }
    }
    if standard {
        let host = escaped(host.to_str().unwrap_or_default());
        let element = format!("for={};host=\"{host}\";proto={}", peer.node, peer.scheme());
        if let Ok(element) = HeaderValue::from_str(&element) {
            headers.append(header::FORWARDED, element);
        }
    }
}

/// As it stands between the quotes of a quoted string.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['"', '\\']) {
        return text.replace('\\', "\\\\").replace('"', "\\\"").into();
    }
    text.into()
}

/// As `for=` of `Forwarded` has an address (RFC 7239, section 6).
fn node(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() }
}

fn to_custom(headers: &mut HeaderMap) {
    let lines = headers.get_all(header::FORWARDED).iter();
    let read = lines.map(|line| line.to_str().ok().and_then(forwarded::elements)).collect::<Option<Vec<_>>>();
    // What cannot be read names nobody.
    let Some(elements) = read else { return };
    let elements: Vec<Element> = elements.into_iter().flatten().collect();
    let name =
        |element: &Element| element.address().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let names: Vec<String> = elements.iter().map(name).collect();
    let first = elements.into_iter().next().unwrap_or_default();
    for (header, value) in [
        (X_FORWARDED_FOR, Some(names.join(", "))),
        (X_FORWARDED_PROTO, first.proto),
        (X_FORWARDED_HOST, first.host),
    ] {
        let value = value.filter(|value| !value.is_empty() && !headers.contains_key(&header));
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(header, value);
        }
    }
}

fn to_standard(headers: &mut HeaderMap) {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let more = [("host", text(X_FORWARDED_HOST)), ("proto", text(X_FORWARDED_PROTO))];
    let mut more: String = more
        .into_iter()
        .filter_map(|(name, value)| Some(format!(";{name}=\"{}\"", escaped(value?))))
        .collect();
    let lines = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
    let elements: Vec<String> = lines
        .flat_map(|line| line.split(','))
        .map(|name| address_in(name.trim()).map_or_else(|| "unknown".to_owned(), node))
        .map(|node| format!("for={node}{}", std::mem::take(&mut more)))
        .collect();
    if let Ok(value) = HeaderValue::try_from(elements.join(", ")) {
        headers.insert(header::FORWARDED, value);
    }
}

/// Names the page of an error's code, for forms without a link in them, as the contract's layer does
/// (draft-ietf-httpapi-idempotency-key-header-07, section 2.7).
pub(super) fn link(headers: &mut HeaderMap, code: ErrorCode, docs_base: &str) {
    let page = format!("<{}>; rel=\"describedby\"; type=\"text/html\"", code.page(docs_base));
    if let Ok(page) = HeaderValue::try_from(page) {
        headers.insert(header::LINK, page);
    }
}

/// Finishes an answer's head: the client is told who passed it on, and nothing of what an upstream says about the
/// outcome, which is no business of a client's.
pub(super) fn to_client(headers: &mut HeaderMap, version: Version) {
    headers.append(header::VIA, via(version));
    headers.remove(semel_tower::steer::OUTCOME);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::gateway::Network;

    fn peer(address: &str, trusted: bool) -> Peer {
        let node = address.parse::<IpAddr>().unwrap();
        let node = if node.is_ipv6() { format!("\"[{address}]\"") } else { address.to_owned() };
        Peer { address: address.parse().unwrap(), node, is_trusted: trusted, is_tls: true }
    }

    fn passed(given: &[(&str, &str)], trusted: bool) -> Vec<String> {
        let mut request = Request::builder().uri("/a");
        for (name, value) in given {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let host = HeaderValue::from_static("api.example.com");
        to_upstream(&mut request, &peer("192.0.2.7", trusted), &host, ForwardedStyle::Both, true).unwrap();
        let line =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<_> = request.headers().iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there_and_a_client_takes_nothing_else_away() {
        let lines = passed(
            &[
                ("connection", "close, x-private, Idempotency-Key"),
                ("x-private", "1"),
                ("idempotency-key", "k"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("upgrade", "websocket"),
                ("proxy-authorization", "Basic eDp5"),
                ("expect", "100-continue"),
                ("semel-fence", "99"),
                ("x-other", "2"),
            ],
            false,
        );
        assert_eq!(
            lines,
            [
                "forwarded: for=192.0.2.7;host=\"api.example.com\";proto=https",
                "idempotency-key: k",
                "via: 1.1 semel",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: api.example.com",
                "x-forwarded-proto: https",
                "x-other: 2",
            ]
        );
    }

    #[test]
    fn who_is_not_trusted_says_nothing_about_others() {
        let given = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=203.0.113.9"),
        ];
        let lines = passed(&given, false);
        assert!(!lines.iter().any(|line| line.contains("203.0.113.9") || line.contains("evil")), "{lines:?}");
        let lines = passed(&given, true);
        for line in [
            "x-forwarded-for: 203.0.113.9, 192.0.2.7",
            "x-forwarded-proto: http",
            "x-forwarded-host: evil.example",
            "forwarded: for=203.0.113.9",
            "forwarded: for=192.0.2.7;host=\"api.example.com\";proto=https",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:?}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_in_one_way_an_upstream_reads_in_either() {
        let own = "forwarded: for=192.0.2.7;host=\"api.example.com\";proto=https";
        let check = |given: &[(&str, &str)], expected: &[&str]| {
            let lines = passed(given, true);
            for line in expected {
                assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:?}");
            }
        };
        check(
            &[("forwarded", "for=\"[2001:db8::1]:4711\";proto=http;host=\"a.example:80\", for=_hidden")],
            &[
                "x-forwarded-for: 2001:db8::1, unknown, 192.0.2.7",
                "x-forwarded-proto: http",
                "x-forwarded-host: a.example:80",
                own,
            ],
        );
        check(
            &[("x-forwarded-for", "2001:db8::1, nobody"), ("x-forwarded-host", "a.example")],
            &["forwarded: for=\"[2001:db8::1]\";host=\"a.example\", for=unknown", own],
        );
        check(
            &[("forwarded", "for=\"broken")],
            &["x-forwarded-for: 192.0.2.7", "forwarded: for=\"broken", own],
        );
        let untrusted = passed(&[("forwarded", "for=203.0.113.9")], false);
        assert!(untrusted.contains(&"x-forwarded-for: 192.0.2.7".to_owned()), "{untrusted:?}");
    }

    #[test]
    fn an_upgrade_and_trailers_are_asked_for_again_and_nothing_else_can_be_expected() {
        let lines = passed(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], false);
        assert!(lines.contains(&"connection: upgrade".to_owned()), "{lines:?}");
        assert!(lines.contains(&"upgrade: websocket".to_owned()), "{lines:?}");
        let lines = passed(&[("connection", "te"), ("te", "trailers, deflate")], false);
        assert!(lines.contains(&"te: trailers".to_owned()), "{lines:?}");
        let mut request = Request::builder().uri("/").header("expect", "miracles").body(()).unwrap();
        let host = HeaderValue::from_static("a");
        let error =
            to_upstream(&mut request, &peer("::1", false), &host, ForwardedStyle::None, true).unwrap_err();
        assert_eq!(error.status(), 417);
    }

    #[test]
    fn a_request_is_for_one_host() {
        let settled = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            let mut request = request.body(()).unwrap();
            let host = settle_host(&mut request);
            host.map(|host| format!("{} {}", host.to_str().unwrap(), request.uri())).map_err(|e| e.status())
        };
        assert_eq!(settled("/a?b", &["x:80"]), Ok("x:80 /a?b".to_owned()));
        assert_eq!(settled("http://y/a", &["x"]), Ok("y /a".to_owned()), "the absolute form counts");
        assert_eq!(settled("/a", &["x", "x"]), Err(400));
        assert_eq!(settled("/a", &[]), Err(400));
        assert_eq!(without_port("x:80"), "x");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }

    #[test]
    fn a_transfer_coding_other_than_chunked_would_pass_for_the_content_and_is_refused() {
        let status = |codings: &[&str]| {
            let mut request = Request::builder().uri("/a");
            for coding in codings {
                request = request.header("transfer-encoding", *coding);
            }
            check(&request.body(()).unwrap()).map_err(|error| error.status())
        };
        for right in [&[][..], &["chunked"], &["Chunked "]] {
            assert_eq!(status(right), Ok(()), "{right:?}");
        }
        for wrong in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["gzip"], &[""]]
        {
            assert_eq!(status(wrong), Err(501), "{wrong:?}");
        }
    }

    #[test]
    fn a_path_that_means_another_one_is_refused() {
        for wrong in ["/a/../b", "/..", "/a/./b", "/a/%2e%2E/b", "/a/.%2e"] {
            assert!(has_dot_segment(wrong), "{wrong}");
        }
        for right in ["/", "/a", "/.well-known/x", "/a..b/c", "/a/...", "/%2e%2e%2e"] {
            assert!(!has_dot_segment(right), "{right}");
        }
    }

    #[test]
    fn trust_is_by_address() {
        let mut config = crate::gateway::testing::config("http://127.0.0.1:9");
        config.trusted_proxies = vec![Network::parse("10.0.0.0/8").unwrap()];
        let is_trusted = |address: &str| Peer::new(&config, address.parse().unwrap(), false).is_trusted;
        assert!(is_trusted("10.1.2.3:4") && is_trusted("[::ffff:10.1.2.3]:4"));
        assert!(!is_trusted("11.1.2.3:4"));
        assert_eq!(Peer::new(&config, "[2001:db8::1]:4".parse().unwrap(), false).node, "\"[2001:db8::1]\"");
    }
}

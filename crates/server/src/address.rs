//! Which addresses no target may have, and which are this process's own: asked of what the configuration says, and of what a
//! name turns out to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;

use crate::limits;

/// Addresses that no target has any business at: link-local ones, where clouds keep their metadata and credentials,
/// however they are spelt.
pub(crate) fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_forbidden_v4(ip),
        IpAddr::V6(ip) => {
            embedded(ip).is_some_and(is_forbidden_v4)
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || limits::METADATA_V6.contains(&ip)
        }
    }
}

/// Whether a host is such an address written out, or a name under which clouds keep their metadata.
pub(crate) fn is_forbidden_host(host: &str) -> bool {
    let name = host.trim_end_matches('.');
    literal(host).is_some_and(is_forbidden)
        || limits::METADATA_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// What is said of such a host.
pub(crate) fn forbidden(host: &str, what: &str) -> String {
    format!(
        "{host} is a link-local, metadata or unspecified address, where no {what} has any business; \
         targets.allow_link_local = true lets it be reached"
    )
}

/// The address that a host stands for without asking anybody, however it is spelt; `None` for a name.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    // An interface may stand behind an address (RFC 6874).
    let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
    bare.parse().ok().or_else(|| numeric(bare).map(IpAddr::V4))
}

/// The spellings that resolvers take beside the usual one (`inet_aton`): up to four parts, each decimal, octal or
/// hexadecimal, the last of which fills what is left.
fn numeric(text: &str) -> Option<Ipv4Addr> {
    let part = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
    };
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, firsts) = parts.split_last()?;
    let room = 32_u32.checked_sub(8 * u32::try_from(firsts.len()).ok()?).filter(|room| *room > 0)?;
    if firsts.iter().any(|part| *part > 0xff) || u64::from(*last) >= 1_u64 << room {
        return None;
    }
    let high = firsts.iter().fold(0_u64, |high, part| (high << 8) | u64::from(*part));
    u32::try_from((high << room) | u64::from(*last)).ok().map(Ipv4Addr::from)
}

/// Whether an address is that of a listener of this process, as far as that can be told without asking anybody.
pub(crate) fn leads_to(uri: &Uri, listener: SocketAddr) -> bool {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    if listener.port() == 0 || uri.port_u16().unwrap_or(usual) != listener.port() {
        return false;
    }
    let host = uri.host().unwrap_or_default();
    let on = listener.ip();
    match literal(host) {
        Some(ip) => ip == on || on.is_unspecified() && ip.is_loopback(),
        None => host.eq_ignore_ascii_case("localhost") && (on.is_loopback() || on.is_unspecified()),
    }
}

fn is_forbidden_v4(ip: Ipv4Addr) -> bool {
    ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast() || limits::METADATA_V4.contains(&ip)
}

/// The address that an IPv6 address stands for: mapped or compatible (RFC 4291), behind NAT64 (RFC 6052), or 6to4
/// (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        // The loopback address is none of them.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_refused_however_they_are_spelt() {
        let refused = [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "fe80::1",
            "::",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ];
        for address in refused {
            assert!(is_forbidden(address.parse().unwrap()), "{address}");
        }
        for address in
            ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "93.184.215.14", "2001:db8::1", "fd00::1"]
        {
            assert!(!is_forbidden(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_names_of_metadata_services_are_refused_as_their_addresses_are() {
        for host in ["metadata.google.internal", "Metadata.Google.Internal.", "169.254.169.254", "[fe80::1]"]
        {
            assert!(is_forbidden_host(host), "{host}");
        }
        for host in ["metadata.example", "google.internal", "127.0.0.1", "localhost", ""] {
            assert!(!is_forbidden_host(host), "{host}");
        }
    }

    #[test]
    fn a_literal_address_is_known_in_every_spelling_and_a_name_is_none() {
        let metadata = "169.254.169.254".parse().unwrap();
        for spelt in ["169.254.169.254", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518"] {
            assert_eq!(literal(spelt), Some(IpAddr::V4(metadata)), "{spelt}");
        }
        for spelt in ["[fe80::1]", "fe80::1", "[fe80::1%25eth0]"] {
            assert_eq!(literal(spelt), Some("fe80::1".parse().unwrap()), "{spelt}");
        }
        for name in
            ["localhost", "a.example", "1.2.3.4.5", "256.1.1.1", "", "1..2", "+1", "0x", "4294967296", "09"]
        {
            assert_eq!(literal(name), None, "{name}");
        }
        assert_eq!(literal("0"), Some("0.0.0.0".parse().unwrap()));
    }

    #[test]
    fn an_address_that_is_a_listener_of_this_process_is_known_as_such() {
        let check = |uri: &str, listener: &str| leads_to(&uri.parse().unwrap(), listener.parse().unwrap());
        for (uri, listener) in [
            ("http://127.0.0.1:8082", "127.0.0.1:8082"),
            ("http://LOCALHOST:8082", "127.0.0.1:8082"),
            ("http://localhost:8082", "[::1]:8082"),
            ("http://[::1]:8082", "[::]:8082"),
            ("http://127.0.0.1:8082", "0.0.0.0:8082"),
            ("https://10.0.0.1", "10.0.0.1:443"),
            ("http://127.0.0.1", "127.0.0.1:80"),
        ] {
            assert!(check(uri, listener), "{uri} {listener}");
        }
        for (uri, listener) in [
            ("http://127.0.0.1:8083", "127.0.0.1:8082"),
            ("http://127.0.0.2:8082", "127.0.0.1:8082"),
            ("http://10.0.0.2:8082", "0.0.0.0:8082"),
            ("http://a.example:8082", "127.0.0.1:8082"),
            ("http://localhost:8082", "10.0.0.1:8082"),
            ("http://127.0.0.1:9000", "127.0.0.1:0"),
        ] {
            assert!(!check(uri, listener), "{uri} {listener}");
        }
    }
}

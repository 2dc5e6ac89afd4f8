//! Which addresses no target may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits;

/// Addresses that no target has any business at: link-local ones, where clouds keep their metadata and credentials,
/// however they are spelt.
pub(super) fn is_forbidden(ip: IpAddr) -> bool {
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
}

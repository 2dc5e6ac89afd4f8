//! Ranges of addresses that deliveries may come from.

use std::net::IpAddr;

use crate::error::{ConfigError, Problem};

/// An address, or all that share its first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    network: IpAddr,
    bits: u8,
}

impl AddressRange {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::new(format!("{text:?}"), Problem::NotAnAddress);
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let network: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // `parse` alone would take a sign.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if bits > most { Err(wrong()) } else { Ok(Self { network, bits }) }
    }

    /// An IPv4 address is the same one when it comes mapped into IPv6.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let masked = |value: u128, width: u32| value.checked_shr(width - u32::from(self.bits)).unwrap_or(0);
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                masked(network.to_bits().into(), 32) == masked(address.to_bits().into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                masked(network.to_bits(), 128) == masked(address.to_bits(), 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, address: &str, expected: bool) {
        let range = AddressRange::parse(range).unwrap();
        assert_eq!(range.contains(address.parse().unwrap()), expected, "{range:?} {address}");
    }

    #[test]
    fn a_range_holds_what_shares_its_first_bits() {
        check("203.0.113.7", "203.0.113.7", true);
        check("203.0.113.7", "203.0.113.8", false);
        check("203.0.113.7", "::ffff:203.0.113.7", true);
        check("203.0.113.0/24", "203.0.113.255", true);
        check("203.0.113.0/24", "203.0.114.0", false);
        check("203.0.113.0/24", "2001:db8::1", false);
        check("0.0.0.0/0", "8.8.8.8", true);
        check("::/0", "2001:db8::1", true);
        check("2001:db8::/33", "2001:db8:7fff::1", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in
            ["", "a", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/+1", "1.2.3.4/-1", "::/129", "1.2.3.4/8/8"]
        {
            assert!(AddressRange::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! IPv4 and IPv6 prefixes such as `192.168.10.0/24`. Host bits are never set, so that equal prefixes are equal values.

use crate::text_serde;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use thiserror::Error;

/// IPv4 or IPv6 prefix: an address range such as `192.168.10.0/24`. Ordered IPv4 first, then by address, then shortest
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Reason why a text, or an address with a length, is no [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// Text that is not of the form `address/length`.
    #[error("“{0}” is no prefix: write it as 192.168.1.0/24 or fd00:1::/64")]
    Syntax(String),
    /// Length beyond the bits of the address.
    #[error("a prefix can't have length {0}: at most 32 for IPv4, 128 for IPv6")]
    Length(u8),
    /// Address with bits set beyond the length, and the prefix that was probably meant.
    #[error("bits are set beyond the prefix length: did you mean {0}?")]
    HostBits(Prefix),
}

impl Prefix {
    /// Prefix from an address and a length in bits; an error when a host bit is set or the length is too large.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let prefix = Self::containing(addr, len)?;
        if prefix.addr == addr { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }

    /// Prefix of this length that contains `addr`; host bits are cleared.
    pub fn containing(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        if len > bits(addr) {
            return Err(PrefixError::Length(len));
        }
        Ok(Self { addr: from_bits(addr, to_bits(addr) & mask(bits(addr), len)), len })
    }

    /// Prefix that holds this address alone: a /32 or a /128.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: bits(addr) }
    }

    /// First address of the prefix.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length of the prefix in bits: 0-32 for IPv4, 0-128 for IPv6.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// True for an IPv4 prefix, false for an IPv6 prefix.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// True for the prefix of a default route (`0.0.0.0/0` or `::/0`).
    pub fn is_default(&self) -> bool {
        self.len == 0
    }

    /// True for the prefix of a default route and for the short prefixes that other programs split it into (0.0.0.0/1
    /// and 128.0.0.0/1, 2000::/3): a route to one of them leads to the Internet.
    pub fn is_wide(&self) -> bool {
        self.len() < if self.is_ipv4() { 8 } else { 7 }
    }

    /// True if the address `addr` is in the prefix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.covers(&Self::host(addr))
    }

    /// True if all of the prefix `other` is in this one; a prefix covers itself.
    pub fn covers(&self, other: &Self) -> bool {
        let same_family = self.is_ipv4() == other.is_ipv4();
        same_family && self.len <= other.len && Self::containing(other.addr, self.len).as_ref() == Ok(self)
    }

    /// True if the two prefixes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Address of the prefix, `index` places after its first; `None` beyond the end of the prefix.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let host_bits = u32::from(bits(self.addr) - self.len);
        let fits = host_bits == 128 || index < 1u128 << host_bits;
        fits.then(|| from_bits(self.addr, to_bits(self.addr) | index))
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Address made of these bits, in the family of `like`; IPv4 takes the low 32.
fn from_bits(like: IpAddr, value: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(value as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(value).into(),
    }
}

fn mask(bits: u8, len: u8) -> u128 {
    let host = bits - len;
    if host == 128 { 0 } else { u128::MAX << host }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax(text.chars().take(60).collect());
        let (addr, len) = text.split_once('/').ok_or_else(syntax)?;
        let addr = addr.parse().map_err(|_| syntax())?;
        let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let len = len.parse().ok().filter(|_| digits).ok_or_else(syntax)?;
        Self::new(addr, len)
    }
}

text_serde!(Prefix);

/// True for an address that can be reached from outside its site: global, and in no special range (RFC 6890).
pub fn is_public(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared;
            !(local || v4.is_unspecified() || v4.is_multicast())
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn prefix_covers_and_overlaps_within_its_family() {
        assert!(p("10.0.0.0/8").covers(&p("10.1.0.0/16")));
        assert!(!p("10.1.0.0/16").covers(&p("10.0.0.0/8")));
        assert!(p("10.1.0.0/16").overlaps(&p("10.0.0.0/8")));
        assert!(!p("10.1.0.0/16").overlaps(&p("10.2.0.0/16")));
        assert!(!p("0.0.0.0/0").overlaps(&p("::/0")));
        assert!(p("::/0").contains("fd00::1".parse().expect("valid")));
    }

    #[test]
    fn prefix_with_host_bits_is_refused_with_the_one_meant() {
        assert_eq!("192.168.1.5/24".parse::<Prefix>(), Err(PrefixError::HostBits(p("192.168.1.0/24"))));
        for text in
            ["", "/", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/+8", "::/129", "a/8"]
        {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn nth_beyond_the_prefix_is_none() {
        assert_eq!(p("10.0.0.0/30").nth(3), Some("10.0.0.3".parse().expect("valid")));
        assert_eq!(p("10.0.0.0/30").nth(4), None);
        assert_eq!(p("::/0").nth(u128::MAX).map(|a| a.is_ipv6()), Some(true));
    }

    proptest! {
        #[test]
        fn prefix_survives_its_text(addr: IpAddr, len in 0u8..=128) {
            if let Ok(prefix) = Prefix::containing(addr, len) {
                prop_assert!(prefix.contains(addr));
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }

        #[test]
        fn arbitrary_text_is_a_prefix_or_an_error(text in ".*") {
            let _ = text.parse::<Prefix>();
        }
    }
}

//! An IPv4 or IPv6 prefix such as `192.168.10.0/24`: never with host bits set, so that two equal prefixes
//! are equal values.

use crate::text_serde;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses. Ordered IPv4 first, then by address, then shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text or a pair is no prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefixError {
    /// Not of the form `address/length`.
    Syntax(String),
    /// Longer than the address has bits.
    Length(u8),
    /// The address has bits set beyond the length; the prefix that was probably meant is named.
    HostBits(Prefix),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => {
                write!(f, "“{text}” is no prefix: write it as 192.168.1.0/24 or fd00:1::/64")
            }
            Self::Length(len) => {
                write!(f, "a prefix can't have length {len}: at most 32 for IPv4, 128 for IPv6")
            }
            Self::HostBits(meant) => {
                write!(f, "bits are set beyond the prefix length: did you mean {meant}?")
            }
        }
    }
}
impl std::error::Error for PrefixError {}

impl Prefix {
    /// A prefix whose host bits are all zero.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let prefix = Self::containing(addr, len)?;
        if prefix.addr == addr { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }

    /// The prefix of this length that contains `addr`; host bits are cleared.
    pub fn containing(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        if len > bits(addr) {
            return Err(PrefixError::Length(len));
        }
        Ok(Self { addr: from_bits(addr, to_bits(addr) & mask(bits(addr), len)), len })
    }

    /// The prefix that holds just this address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: bits(addr) }
    }

    /// The first address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits: 0-32 for IPv4, 0-128 for IPv6.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether it is a default route (`0.0.0.0/0` or `::/0`).
    pub fn is_default(&self) -> bool {
        self.len == 0
    }

    /// Whether `addr` lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.covers(&Self::host(addr))
    }

    /// Whether all of `other` lies in it (a prefix covers itself).
    pub fn covers(&self, other: &Self) -> bool {
        let same_family = self.is_ipv4() == other.is_ipv4();
        same_family && self.len <= other.len && Self::containing(other.addr, self.len).as_ref() == Ok(self)
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address `index` places after the first; `None` beyond the end of the prefix.
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

/// Back from bits, in the family of `like`; IPv4 takes the low 32.
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

text_serde!(Prefix, Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 });

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn containment_and_overlap() {
        assert!(p("10.0.0.0/8").covers(&p("10.1.0.0/16")));
        assert!(!p("10.1.0.0/16").covers(&p("10.0.0.0/8")));
        assert!(p("10.1.0.0/16").overlaps(&p("10.0.0.0/8")));
        assert!(!p("10.1.0.0/16").overlaps(&p("10.2.0.0/16")));
        assert!(!p("0.0.0.0/0").overlaps(&p("::/0")));
        assert!(p("::/0").contains("fd00::1".parse().expect("valid")));
    }

    #[test]
    fn host_bits_are_refused_with_what_was_meant() {
        assert_eq!("192.168.1.5/24".parse::<Prefix>(), Err(PrefixError::HostBits(p("192.168.1.0/24"))));
        for text in
            ["", "/", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/+8", "::/129", "a/8"]
        {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn nth_ends_with_the_prefix() {
        assert_eq!(p("10.0.0.0/30").nth(3), Some("10.0.0.3".parse().expect("valid")));
        assert_eq!(p("10.0.0.0/30").nth(4), None);
        assert_eq!(p("::/0").nth(u128::MAX).map(|a| a.is_ipv6()), Some(true));
    }

    proptest! {
        #[test]
        fn text_and_back(addr: IpAddr, len in 0u8..=128) {
            if let Ok(prefix) = Prefix::containing(addr, len) {
                prop_assert!(prefix.contains(addr));
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }

        #[test]
        fn any_text_is_a_prefix_or_an_error(text in ".*") {
            let _ = text.parse::<Prefix>();
        }
    }
}

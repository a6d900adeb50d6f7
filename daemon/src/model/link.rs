//! Interfaces and their addresses.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{fmt, net::IpAddr};

/// Name of a network interface: 1 to 15 bytes, no `/`, no `:`, no white space (`dev_valid_name` in the kernel).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Checks the name of a network interface; `None` when the kernel would refuse it.
    pub fn new(name: &str) -> Option<Self> {
        let is_valid = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace() && byte != 0;
        let is_name = (1..=15).contains(&name.len()) && name != "." && name != "..";
        (is_name && name.bytes().all(is_valid)).then(|| Self(name.to_owned()))
    }

    /// Name of the network interface as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&gatewrt_protocol::NetworkName> for IfName {
    fn from(network: &gatewrt_protocol::NetworkName) -> Self {
        Self(network.interface())
    }
}

impl Serialize for IfName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for IfName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).ok_or_else(|| Error::custom("no interface name"))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Kind of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// WireGuard of the kernel.
    WireGuard,
    /// TUN device: WireGuard in userspace, or another program's.
    Tun,
    /// Anything else.
    Other,
}

/// Network interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `ifindex`. It changes when the interface is deleted and created again.
    pub index: u32,
    /// Kind.
    pub kind: LinkKind,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
}

/// IP address on a network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Interface.
    pub link: IfName,
    /// Address.
    pub addr: IpAddr,
    /// Prefix length; ours are 32 or 128.
    pub len: u8,
}

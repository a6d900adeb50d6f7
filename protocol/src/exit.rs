//! Exits: nodes that forward others' Internet traffic, and the scopes of traffic that use them.

use crate::{NodeId, Prefix, Tag, text_serde};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};
use thiserror::Error;

/// Offer of a node to forward others' Internet traffic, by address family. In a member record: what other nodes may
/// use. In a report: what the router could serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitOffer {
    /// Access to the IPv4 Internet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v4: bool,
    /// Access to the IPv6 Internet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v6: bool,
    /// Resolvers that are asked through the exit: those named by the admin, else those of its uplink. Public addresses
    /// only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
}

/// Selector of the traffic of a router that an exit scope covers: `router` (sent by the router itself), `all` (that and
/// everything forwarded for its LANs), an address or prefix of a LAN, or `dev:<interface>` (received on that
/// interface).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Traffic of these LAN hosts.
    Prefix(Prefix),
    /// Traffic received on this interface, such as a bridge or a VLAN. The name has 1 to 15 bytes.
    Device(String),
    /// Traffic that the router sends itself, except that of its tunnels and its control link.
    Router,
    /// Traffic that the router sends, or forwards for any LAN.
    All,
}

/// Error for a text that is no [`Traffic`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "“{0}” names no traffic: router, all, dev:<interface>, an address or a prefix of a LAN (not the whole Internet)"
)]
pub struct TrafficError(String);

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Device(name) => write!(f, "dev:{name}"),
            Self::Router => f.write_str("router"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Traffic {
    type Err = TrafficError;
    fn from_str(text: &str) -> Result<Self, TrafficError> {
        let refused = || TrafficError(text.chars().take(60).collect());
        let sound = |name: &str| {
            let bytes = name.as_bytes();
            let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'"' | b'\\');
            (1..=15).contains(&bytes.len()) && bytes.iter().all(plain) && !name.starts_with('.')
        };
        match text {
            "router" => Ok(Self::Router),
            "all" => Ok(Self::All),
            _ => match text.strip_prefix("dev:") {
                Some(name) => sound(name).then(|| Self::Device(name.to_owned())).ok_or_else(refused),
                None => {
                    let host = text.parse().map(Prefix::host).ok();
                    let prefix =
                        host.or_else(|| text.parse().ok()).filter(|prefix: &Prefix| !prefix.is_default());
                    prefix.map(Self::Prefix).ok_or_else(refused)
                }
            },
        }
    }
}
text_serde!(Traffic);

/// Exit policy of a router for a part of its Internet traffic. By default the kill switch is on, and LANs and the
/// network stay reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitScope {
    /// Name, unique on its router.
    pub name: Tag,
    /// Traffic in the scope. A packet belongs to the most precise of a router's scopes: prefixes (the longest first),
    /// then devices, then `router`, then `all`.
    pub of: Vec<Traffic>,
    /// Exits in order of preference; the first that works is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<NodeId>,
    /// Fallback to the nearest of the network's other exits that works.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto: bool,
    /// Kill switch off: while no exit works, the traffic leaves over the WAN instead of being dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// Strict mode: LANs and prefixes of the network are out of reach too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forbid_lan: bool,
    /// IPv6 leaves over the WAN while the exit in use has IPv4 only, instead of being dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v6_wan: bool,
    /// Destinations that are reached without the exit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Prefix>,
    /// Resolvers in place of those that the exit in use offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// DNS queries keep their destination instead of going to the exit's resolver.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_dns: bool,
}

impl ExitScope {
    /// Most scopes that one router can have.
    pub const MOST: usize = 16;

    /// Exit scope that sends traffic through the nearest exit, with defaults for all else.
    pub fn auto(name: Tag, of: Vec<Traffic>) -> Self {
        Self {
            name,
            of,
            exits: Vec::new(),
            auto: true,
            open: false,
            forbid_lan: false,
            v6_wan: false,
            exclude: Vec::new(),
            dns: Vec::new(),
            keep_dns: false,
        }
    }
}

/// Way that the traffic of an exit scope takes now: through an exit, nowhere, or over the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeState {
    /// Through an exit.
    Exit,
    /// Dropped, as no exit works.
    Blocked,
    /// Over the WAN, as no exit works and the kill switch is off.
    Wan,
    /// State of a later version.
    #[serde(other)]
    Other,
}

/// State of an exit scope, as its router reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeReport {
    /// Name of the scope.
    pub name: Tag,
    /// Way of its traffic.
    pub state: ScopeState,
    /// Exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<NodeId>,
    /// Round trip to the exit in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Reason why a preferred exit is not in use; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Assignment that its node put into effect and rolled back, because the control link did not survive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Revision of the assignment. The node tries only a higher one.
    pub assignment: u64,
    /// Change and observation that led to the rollback, in words.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_text_is_parsed_and_written_back() {
        for text in ["router", "all", "dev:br-lan", "dev:eth0.3", "192.168.7.0/24", "fd00:7::/64"] {
            assert_eq!(text.parse::<Traffic>().unwrap().to_string(), text);
        }
        let host: Traffic = "192.168.7.9".parse().unwrap();
        assert_eq!(host, Traffic::Prefix("192.168.7.9/32".parse().unwrap()));
    }

    #[test]
    fn text_that_is_no_traffic_is_refused() {
        for text in [
            "",
            "lan",
            "dev:",
            "dev:a-name-too-long-for-it",
            "dev:a b",
            "dev:a/b",
            "0.0.0.0/0",
            "::/0",
            "dev:a\"b",
        ] {
            assert!(text.parse::<Traffic>().is_err(), "{text}");
        }
    }
}

//! Exits: who takes others' Internet traffic, and whose traffic goes through which.

use crate::{NodeId, Prefix, Tag, json_fields, json_words, text_serde};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// What an exit has to offer: in a member record what others may use, in a report what the router could serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitOffer {
    /// It leads to the IPv4 Internet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v4: bool,
    /// It leads to the IPv6 Internet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v6: bool,
    /// Resolvers to ask through it: those that its admin names, else those of its uplink. Global addresses only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
}
json_fields!(ExitOffer: ; v4, v6, dns);

/// What traffic of a router: `router` (what it sends itself), `all` (that, and what it forwards for its LANs), an
/// address or prefix of a LAN, or `dev:<interface>` (what comes in there).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Of these LAN hosts.
    Prefix(Prefix),
    /// What comes in over this interface: a bridge, a VLAN. 1 to 15 bytes.
    Device(String),
    /// What the router sends itself, but for its tunnels and its control link.
    Router,
    /// What the router sends and what it forwards for any LAN.
    All,
}

/// Why a text is no [`Traffic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficError(String);

impl fmt::Display for TrafficError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "“{}” names no traffic: router, all, dev:<interface>, an address or a prefix of a LAN (not the whole Internet)",
            self.0
        )
    }
}
impl std::error::Error for TrafficError {}

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

/// Internet traffic of a router that goes through an exit. What nothing is said of keeps its default: closed, and
/// the LAN as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitScope {
    /// Unique on its router.
    pub name: Tag,
    /// Which traffic. One packet belongs to the most precise of a router's scopes: prefixes (the longest first), then
    /// devices, then `router`, then `all`.
    pub of: Vec<Traffic>,
    /// Exits in the order in which they are taken; of those that work the first is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<NodeId>,
    /// After those, any other exit of the network: the nearest that works.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto: bool,
    /// While no exit works the traffic goes out over the WAN instead of nowhere: the kill switch is off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// LANs and prefixes of the network are out of reach too: not even they are let past the exit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forbid_lan: bool,
    /// IPv6 stays on the WAN while the exit in use leads to IPv4 alone, instead of nowhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v6_wan: bool,
    /// Destinations that are reached as if there were no exit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Prefix>,
    /// Resolvers instead of those that the exit in use offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// DNS queries go where their hosts send them instead of to the exit's resolver.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_dns: bool,
}
json_fields!(ExitScope: name, of; exits, auto, open, forbid_lan, v6_wan, exclude, dns, keep_dns);

impl ExitScope {
    /// How many one router can have.
    pub const MOST: usize = 16;

    /// This traffic through the nearest exit, all else at its default.
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

/// What becomes of a scope's traffic now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeState {
    /// It goes through an exit.
    Exit,
    /// No exit works: it goes nowhere.
    Blocked,
    /// No exit works, and the kill switch is off: it goes out over the WAN.
    Wan,
    /// Of a later version.
    #[serde(other)]
    Other,
}
json_words!(ScopeState: "exit" Exit, "blocked" Blocked, "wan" Wan; Other);

/// A scope as its router says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeReport {
    /// Its name.
    pub name: Tag,
    /// What becomes of its traffic.
    pub state: ScopeState,
    /// The exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<NodeId>,
    /// Round trip to it in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Why no other, or none, in words; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}
json_fields!(ScopeReport: name, state; exit, rtt_ms, why);

/// An assignment that its node put into effect and took back, because the control link did not outlive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// Its revision. The node does not try it again; a higher one it does.
    pub assignment: u64,
    /// What was changed by it and what was seen, in words.
    pub why: String,
}
json_fields!(TakenBack: assignment, why);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_read_as_it_is_written() {
        for text in ["router", "all", "dev:br-lan", "dev:eth0.3", "192.168.7.0/24", "fd00:7::/64"] {
            assert_eq!(text.parse::<Traffic>().unwrap().to_string(), text);
        }
        let host: Traffic = "192.168.7.9".parse().unwrap();
        assert_eq!(host, Traffic::Prefix("192.168.7.9/32".parse().unwrap()));
    }

    #[test]
    fn what_names_no_traffic_is_refused() {
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

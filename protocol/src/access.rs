//! Access rules for one node: prefixes instead of names, and only rules that concern that node.
//!
//! Rules match new connections that enter or leave the network at a node, by source, destination and service. Deny wins
//! over allow; where no rule matches, the network's default applies. Established connections are not matched again: when
//! rules change, the node cuts those that are denied now.

use crate::{Prefix, text_serde};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Decision of the access rules on a new connection: to allow or to deny it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The connection passes.
    #[default]
    Allow,
    /// The connection is refused.
    Deny,
}

/// Transport protocol of a network service in an access rule: TCP, UDP or ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4 and ICMPv6 over IPv6, without ports.
    Icmp,
}

/// Network service that an access rule matches, a protocol with a range of ports: `tcp/443`, `udp/5000-5010`, `tcp`,
/// `icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Protocol.
    pub proto: Proto,
    /// First port; 0 for every port.
    pub first: u16,
    /// Last port, not below the first; 65535 for every port.
    pub last: u16,
}

/// Error for a text that is no [`Service`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("“{0}” is no service: write it as tcp/443, udp/5000-5010, tcp, udp or icmp")]
pub struct ServiceError(String);

impl Service {
    /// Service that covers every port of a protocol.
    pub const fn every(proto: Proto) -> Self {
        Self { proto, first: 0, last: u16::MAX }
    }

    /// True if a connection with this protocol and destination port belongs to the service; ICMP matches any port.
    pub fn fits(&self, proto: Proto, port: u16) -> bool {
        self.proto == proto && (proto == Proto::Icmp || (self.first..=self.last).contains(&port))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.proto {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Icmp => "icmp",
        })?;
        match (self.first, self.last) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, "/{first}"),
            (first, last) => write!(f, "/{first}-{last}"),
        }
    }
}

impl FromStr for Service {
    type Err = ServiceError;
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        parse(text).ok_or_else(|| ServiceError(text.chars().take(40).collect()))
    }
}
text_serde!(Service);

fn parse(text: &str) -> Option<Service> {
    let (proto, ports) = match text.split_once('/') {
        Some((proto, ports)) => (proto, Some(ports)),
        None => (text, None),
    };
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "icmp" => Proto::Icmp,
        _ => return None,
    };
    let Some(ports) = ports else { return Some(Service::every(proto)) };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    (proto != Proto::Icmp && first <= last).then_some(Service { proto, first, last })
}

/// Parses a port from 1 to 65535, in digits without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

/// Access rules that a node enforces for one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Verdict where no rule matches.
    #[serde(default, skip_serializing_if = "is_allow")]
    pub default: Verdict,
    /// Sets of prefixes; rules refer to them by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Vec<Prefix>>,
    /// Rules; their order has no meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AccessRule>,
}

/// Access rule of a node: a verdict on new connections from one set of prefixes to another, for some services. An index
/// beyond [`Access::sets`] stands for an empty set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessRule {
    /// Verdict on connections that match.
    #[serde(default, skip_serializing_if = "is_allow")]
    pub verdict: Verdict,
    /// Sources, as an index into [`Access::sets`].
    pub from: u32,
    /// Destinations, as an index into [`Access::sets`].
    pub to: u32,
    /// Services; empty for every one of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

impl Access {
    /// True if the access rules allow everything, so that there is nothing to enforce.
    pub fn is_open(&self) -> bool {
        self.default == Verdict::Allow && self.rules.iter().all(|rule| rule.verdict == Verdict::Allow)
    }
}

fn is_allow(verdict: &Verdict) -> bool {
    *verdict == Verdict::Allow
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn service_text_is_parsed_and_written_back() {
        for text in ["tcp", "udp", "icmp", "tcp/443", "udp/5000-5010", "tcp/1-65535"] {
            assert_eq!(text.parse::<Service>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/9-8",
            "icmp/8",
            "sctp/1",
            "tcp/+1",
            "tcp/ 1",
            "TCP/1",
            "tcp/01",
        ] {
            assert!(text.parse::<Service>().is_err(), "{text}");
        }
    }

    #[test]
    fn service_with_port_range_matches_only_its_ports() {
        let service: Service = "tcp/80-90".parse().expect("service");
        assert!(service.fits(Proto::Tcp, 80) && service.fits(Proto::Tcp, 90));
        assert!(!service.fits(Proto::Tcp, 91) && !service.fits(Proto::Udp, 85));
        assert!(Service::every(Proto::Icmp).fits(Proto::Icmp, 0));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_a_service_or_an_error(text in ".*") {
            if let Ok(service) = text.parse::<Service>() {
                prop_assert_eq!(service.to_string(), text);
            }
        }
    }
}

//! Access rules as one node needs them: prefixes instead of names, and only what concerns that node.
//!
//! A new connection that enters or leaves the network at a node is judged by its source, its destination and its
//! service. A rule that denies wins over one that allows; where no rule fits, the network's default decides.
//! Packets of a connection that stands are not judged anew: when rules change, the node cuts what they forbid.

use crate::{Prefix, json_fields, json_words, text_serde};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passes.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}
json_words!(Verdict: "allow" Allow, "deny" Deny);

/// A protocol that a service is named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP, and ICMPv6 over IPv6; has no ports.
    Icmp,
}

/// What is reached on a host: `tcp/443`, `udp/5000-5010`, `tcp`, `icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Protocol.
    pub proto: Proto,
    /// First port; 0 where every port is meant.
    pub first: u16,
    /// Last port, not below the first; 65535 where every port is meant.
    pub last: u16,
}

/// Why a text is no service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError(String);

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "“{}” is no service: write it as tcp/443, udp/5000-5010, tcp, udp or icmp", self.0)
    }
}
impl std::error::Error for ServiceError {}

impl Service {
    /// Every port of a protocol.
    pub const fn every(proto: Proto) -> Self {
        Self { proto, first: 0, last: u16::MAX }
    }

    /// Whether a connection with this protocol and destination port is meant; for ICMP any port.
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

/// 1 to 65535, in digits alone.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

/// What a node enforces for one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Where no rule fits.
    #[serde(default, skip_serializing_if = "is_allow")]
    pub default: Verdict,
    /// Sets of prefixes that the rules name by their place in this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Vec<Prefix>>,
    /// In no order that matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AccessRule>,
}
json_fields!(Access: ; default, sets, rules);

/// One rule. A set that is not in the list is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessRule {
    /// What becomes of the connections that it fits.
    #[serde(default, skip_serializing_if = "is_allow")]
    pub verdict: Verdict,
    /// Sources: a place in [`Access::sets`].
    pub from: u32,
    /// Destinations: a place in [`Access::sets`].
    pub to: u32,
    /// Services; empty is every one, of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}
json_fields!(AccessRule: from, to; verdict, services);

impl Access {
    /// Whether everything is allowed: there is nothing to enforce.
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
    fn services_are_read_and_written() {
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
    fn a_service_fits_its_ports_alone() {
        let service: Service = "tcp/80-90".parse().expect("service");
        assert!(service.fits(Proto::Tcp, 80) && service.fits(Proto::Tcp, 90));
        assert!(!service.fits(Proto::Tcp, 91) && !service.fits(Proto::Udp, 85));
        assert!(Service::every(Proto::Icmp).fits(Proto::Icmp, 0));
    }

    proptest! {
        #[test]
        fn any_text_is_a_service_or_an_error(text in ".*") {
            if let Ok(service) = text.parse::<Service>() {
                prop_assert_eq!(service.to_string(), text);
            }
        }
    }
}

//! Facts that a node reports about itself, in its join request and its reports. They are bounded and sorted,
//! so that a report without news gives an equal value and changes nothing.

use super::network::is_special;
use gatewrt_protocol::{
    Endpoint, EndpointKind, ExitOffer, InterfaceKind, InterfaceReport, JoinRequest, Prefix, Report,
    RolledBack,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Largest number of endpoints of a node in its member record.
pub const ENDPOINTS: usize = 12;
const INTERFACES: usize = 32;
const PREFIXES: usize = 16;
const TEXT: usize = 100;
const WHY: usize = 500;
const RESOLVERS: usize = 4;

/// Facts that a node has reported about itself, and the address that it was seen from. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Board name of the router.
    pub board: String,
    /// Version of the daemon.
    pub version: String,
    /// WireGuard's UDP port; 0 while unknown.
    pub port: u16,
    /// Endpoints as the node reported them.
    pub endpoints: Vec<Endpoint>,
    /// Interfaces as the node reported them.
    pub interfaces: Vec<InterfaceReport>,
    /// Offer as an exit; none if the owner forbids it or nothing was reported yet.
    #[serde(default)]
    pub exit: Option<ExitOffer>,
    /// Last change that the node rolled back.
    #[serde(default)]
    pub rolled_back: Option<RolledBack>,
    /// Source address of its IPv4 connection to the coordinator.
    #[serde(default)]
    pub seen4: Option<Ipv4Addr>,
    /// Source address of its IPv6 connection to the coordinator.
    #[serde(default)]
    pub seen6: Option<Ipv6Addr>,
}

impl Facts {
    /// Creates the facts about a node from its join request.
    pub fn of_request(request: &JoinRequest, seen: Option<IpAddr>) -> Self {
        let facts = Self {
            board: text(&request.board),
            version: text(&request.version),
            port: request.port,
            endpoints: endpoints(&request.endpoints),
            interfaces: interfaces(&request.interfaces),
            exit: None,
            rolled_back: None,
            seen4: None,
            seen6: None,
        };
        facts.seen_from(seen)
    }

    /// Facts about the node, updated from its report.
    pub fn updated(&self, report: &Report, seen: Option<IpAddr>) -> Self {
        let facts = Self {
            board: text(&report.board),
            version: text(&report.version),
            port: report.port,
            endpoints: endpoints(&report.endpoints),
            interfaces: interfaces(&report.interfaces),
            exit: report.exit.as_ref().map(exit),
            rolled_back: report.rolled_back.as_ref().map(rolled_back),
            ..self.clone()
        };
        facts.seen_from(seen)
    }

    /// Sets the source address that the node was seen from. A private one is a neighbour of the coordinator: others
    /// could not reach it.
    fn seen_from(mut self, seen: Option<IpAddr>) -> Self {
        match seen.map(|addr| addr.to_canonical()) {
            None => {}
            Some(IpAddr::V4(v4)) => self.seen4 = Some(v4).filter(|&v4| !is_private(v4.into())),
            Some(IpAddr::V6(v6)) => self.seen6 = Some(v6).filter(|&v6| !is_private(v6.into())),
        }
        self
    }

    /// Endpoints at which others may reach the node, best first. Addresses inside `overlay` are left out:
    /// packets to them would go into the tunnel that they carry.
    pub fn candidates(&self, overlay: &[Prefix]) -> Vec<Endpoint> {
        let observed = self.observed().filter(|observed| !self.states(observed.ip()));
        let observed = observed.map(|addr| Endpoint { addr, kind: EndpointKind::Observed });
        let mut all: Vec<_> = self.endpoints.iter().cloned().chain(observed).collect();
        all.retain(|endpoint| !overlay.iter().any(|prefix| prefix.contains(endpoint.addr.ip())));
        sorted(all)
    }

    /// Prefixes of the node's LANs, each with the name of the interface.
    pub fn lans(&self) -> impl Iterator<Item = (&str, Prefix)> {
        let lans = self.interfaces.iter().filter(|interface| interface.kind == InterfaceKind::Lan);
        lans.flat_map(|lan| lan.prefixes.iter().map(|prefix| (lan.name.as_str(), *prefix)))
    }

    fn observed(&self) -> impl Iterator<Item = SocketAddr> {
        let seen = [self.seen4.map(IpAddr::V4), self.seen6.map(IpAddr::V6)].into_iter().flatten();
        seen.filter(|_| self.port != 0).map(|addr| SocketAddr::new(addr, self.port))
    }

    fn states(&self, addr: IpAddr) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.addr.ip() == addr)
    }
}

/// True for an address that only neighbours can reach: RFC 1918, RFC 6598 (carrier NAT), RFC 4193, loopback,
/// link-local.
pub fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && second & 0xc0 == 64) || is_special(addr)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || is_special(addr),
    }
}

fn endpoints(stated: &[Endpoint]) -> Vec<Endpoint> {
    let usable = |endpoint: &&Endpoint| endpoint.addr.port() != 0 && !is_special(endpoint.addr.ip());
    sorted(stated.iter().filter(usable).cloned().collect())
}

/// Sorts endpoints by kind, best first, then by address. Of duplicates the best kind stays.
fn sorted(endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut best = BTreeMap::new();
    for Endpoint { addr, kind } in endpoints {
        let known = best.entry(addr).or_insert(kind);
        *known = kind.min(*known);
    }
    let mut endpoints: Vec<_> = best.into_iter().map(|(addr, kind)| Endpoint { addr, kind }).collect();
    endpoints.sort_by_key(|endpoint| (endpoint.kind, endpoint.addr));
    endpoints.truncate(ENDPOINTS);
    endpoints
}

fn interfaces(stated: &[InterfaceReport]) -> Vec<InterfaceReport> {
    let mut interfaces: Vec<_> = stated.iter().take(INTERFACES).cloned().collect();
    for interface in &mut interfaces {
        interface.name = text(&interface.name);
        interface.prefixes.sort();
        interface.prefixes.truncate(PREFIXES);
    }
    interfaces.sort();
    interfaces
}

fn exit(stated: &ExitOffer) -> ExitOffer {
    let usable = stated.dns.iter().filter(|addr| !is_special(**addr));
    ExitOffer { dns: usable.take(RESOLVERS).copied().collect(), ..*stated }
}

fn rolled_back(stated: &RolledBack) -> RolledBack {
    let why = stated.why.chars().filter(|c| !c.is_control()).take(WHY).collect();
    RolledBack { assignment: stated.assignment, why }
}

fn text(stated: &str) -> String {
    stated.chars().filter(|c| !c.is_control()).take(TEXT).collect()
}

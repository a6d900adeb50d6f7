//! The place a router is in, read off its interfaces: what is WAN, what is LAN, and where it may be reached.

use super::desired::is_public;
use crate::{
    model::{IfName, LinkKind, Observed},
    ownership::INTERFACE_PREFIX,
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Endpoint, EndpointKind, InterfaceKind, InterfaceReport, Prefix};
use std::net::{IpAddr, SocketAddr};

/// What a joining or reporting node knows of the place it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Where it may be reached.
    pub endpoints: Vec<Endpoint>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceReport>,
}

/// Reads off the place a router is in: its WAN and LAN interfaces, and where its port `port` may be reached.
/// `configured` are endpoints that the owner states.
pub fn place(observed: &Observed, configured: &[SocketAddr], port: u16) -> Place {
    let wan = wan_links(observed);
    let stated = configured.iter().map(|addr| Endpoint { addr: *addr, kind: EndpointKind::Configured });
    let mut endpoints: SortedSet<Endpoint> = stated.collect();
    let own =
        observed.addresses.iter().filter(|address| wan.contains(&address.link) && is_public(address.addr));
    for address in own {
        let addr = SocketAddr::new(address.addr, port);
        if !endpoints.iter().any(|endpoint| endpoint.addr == addr) {
            endpoints.insert(Endpoint { addr, kind: EndpointKind::Wan });
        }
    }
    let mut endpoints: Vec<Endpoint> = endpoints.into_iter().collect();
    endpoints.sort_by_key(|endpoint| (endpoint.kind, endpoint.addr));
    Place { endpoints, interfaces: interfaces(observed, &wan) }
}

/// The links with a default route in the main table.
pub fn wan_links(observed: &Observed) -> SortedSet<IfName> {
    let defaults = observed.main_routes.iter().filter(|route| route.prefix.is_default());
    defaults.filter_map(|route| route.link.clone()).collect()
}

/// The links of the router's LANs: with an address that is not only the link's, not ours, no tunnel of someone else's, and
/// not the WAN.
pub fn lan_links(observed: &Observed) -> SortedSet<IfName> {
    let wan = wan_links(observed);
    let is_lan = |link: &IfName| {
        let other = observed.links.get(link).is_some_and(|it| it.kind == LinkKind::Other);
        other && !wan.contains(link) && !link.as_str().starts_with(INTERFACE_PREFIX)
    };
    let addressed = observed.addresses.iter().filter(|address| !is_of_link(address.addr));
    addressed.map(|address| &address.link).filter(|link| is_lan(link)).cloned().collect()
}

fn is_of_link(addr: IpAddr) -> bool {
    addr.is_loopback() || matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn interfaces(observed: &Observed, wan: &SortedSet<IfName>) -> Vec<InterfaceReport> {
    let mut by_link: SortedMap<&IfName, SortedSet<Prefix>> = SortedMap::new();
    for address in &observed.addresses {
        let ours = observed.devices.contains_key(&address.link);
        if ours || is_of_link(address.addr) {
            continue;
        }
        if let Ok(prefix) = Prefix::containing(address.addr, address.len) {
            by_link.entry(&address.link).or_default().insert(prefix);
        }
    }
    let kind = |link: &IfName| if wan.contains(link) { InterfaceKind::Wan } else { InterfaceKind::Lan };
    let report = |(link, prefixes): (&IfName, SortedSet<Prefix>)| InterfaceReport {
        name: link.to_string(),
        kind: kind(link),
        prefixes: prefixes.into_iter().take(8).collect(),
    };
    by_link.into_iter().take(32).map(report).collect()
}

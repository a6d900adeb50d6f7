//! Interfaces of the router by their role: WAN or LAN, and the endpoints at which the router can be reached.

use crate::{
    model::{IfName, LinkKind, Observed},
    ownership::INTERFACE_PREFIX,
};
use gatewrt_protocol::{Endpoint, EndpointKind, InterfaceKind, InterfaceReport, Prefix, is_public};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::{IpAddr, SocketAddr};

/// Interfaces and endpoints of the router, as it reports them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Endpoints at which it may be reached.
    pub endpoints: Vec<Endpoint>,
    /// Interfaces.
    pub interfaces: Vec<InterfaceReport>,
}

/// Interfaces and endpoints of the router, whose WireGuard port is `port`. `configured` are endpoints that the owner
/// states.
pub fn place(observed: &Observed, configured: &[SocketAddr], port: u16) -> Place {
    let wan = wan_links(observed);
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut add = |addr, kind| {
        if !endpoints.iter().any(|known| known.addr == addr) {
            endpoints.push(Endpoint { addr, kind });
        }
    };
    configured.iter().for_each(|addr| add(*addr, EndpointKind::Configured));
    for address in observed.addresses.iter().filter(|address| wan.contains(&address.link)) {
        if is_public(address.addr) {
            add(SocketAddr::new(address.addr, port), EndpointKind::Wan);
        }
    }
    endpoints.sort_by_key(|endpoint| (endpoint.kind, endpoint.addr));
    Place { endpoints, interfaces: interfaces(observed, &wan) }
}

/// Links of the WAN, which have a default route in the main table.
pub fn wan_links(observed: &Observed) -> SortedSet<IfName> {
    let defaults = observed.main_routes.iter().filter(|route| route.prefix.is_default());
    defaults.filter_map(|route| route.link.clone()).collect()
}

/// Links of the WAN, which have a default route or, while there is none, had the last one: a WAN that is down is no
/// LAN.
pub fn outer_links(observed: &Observed) -> SortedSet<IfName> {
    let mut links = wan_links(observed);
    links.extend(observed.uplinks.iter().cloned());
    links
}

/// Limit on links that are no longer a LAN's but still count as one.
const PAST_LANS: usize = 16;

/// Links of the router's LANs: those with an address beyond link-local, that are neither ours, nor another program's
/// tunnel, nor the WAN. A former LAN link counts even without its address or when it is gone: its network is being
/// restarted, and the first packet that comes in again belongs to the LAN.
pub fn lan_links(observed: &Observed) -> SortedSet<IfName> {
    let wan = outer_links(observed);
    let kind = |link: &IfName| observed.links.get(link).map(|it| it.kind);
    let foreign = |link: &IfName| !wan.contains(link) && !link.as_str().starts_with(INTERFACE_PREFIX);
    let addressed = observed.addresses.iter().filter(|address| !is_of_link(address.addr));
    let now = addressed.map(|address| &address.link).filter(|link| kind(link) == Some(LinkKind::Other));
    let past =
        observed.lans_before.iter().filter(|link| kind(link).is_none_or(|kind| kind == LinkKind::Other));
    let mut lans: SortedSet<IfName> = now.cloned().collect();
    lans.extend(past.take(PAST_LANS).cloned());
    lans.retain(foreign);
    lans
}

fn is_of_link(addr: IpAddr) -> bool {
    addr.is_loopback() || matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn interfaces(observed: &Observed, wan: &SortedSet<IfName>) -> Vec<InterfaceReport> {
    let mut by_link: LiteMap<&IfName, SortedSet<Prefix>> = LiteMap::new();
    for address in &observed.addresses {
        let ours = observed.devices.contains_key(&address.link);
        if ours || is_of_link(address.addr) {
            continue;
        }
        if let Ok(prefix) = Prefix::containing(address.addr, address.len) {
            by_link.entry(&address.link).or_default().push(prefix);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, ForeignRoute, Link};

    fn link(name: &str) -> IfName {
        IfName::new(name).expect("a name")
    }

    fn observed(addressed: &[&str], wan: &str) -> Observed {
        let mut observed = Observed::default();
        for (index, name) in (1..).zip(addressed) {
            observed.links.insert(link(name), Link { index, kind: LinkKind::Other, up: true, mtu: 1500 });
            let addr = [192, 168, index as u8, 1].into();
            observed.addresses.push(Address { link: link(name), addr, len: 24 });
        }
        let prefix = "0.0.0.0/0".parse().expect("a prefix");
        observed.main_routes.push(ForeignRoute { prefix, link: Some(link(wan)), on_link: false });
        observed
    }

    #[test]
    fn lan_being_restarted_stays_a_lan() {
        let before = observed(&["br-lan", "br-guest", "gw-home", "wan"], "wan");
        let lans: SortedSet<IfName> = ["br-lan", "br-guest"].map(link).into_iter().collect();
        assert_eq!(lan_links(&before), lans);
        let without = Observed { lans_before: lans.clone(), ..observed(&["wan"], "wan") };
        assert_eq!(lan_links(&without), lans);
        // Unless it is the WAN now.
        let moved = Observed { lans_before: lans, ..observed(&["br-guest"], "br-guest") };
        assert_eq!(lan_links(&moved), ["br-lan"].map(link).into_iter().collect());
    }
}

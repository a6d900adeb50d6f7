//! The place a router is in, read off its interfaces: what is WAN, what is LAN, and where it may be reached.

use super::desired::is_public;
use crate::{
    gather::Gather,
    model::{IfName, LinkKind, Observed},
    ownership::INTERFACE_PREFIX,
    sorted::{SortedMap, SortedSet, sort_by_key},
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
    sort_by_key(&mut endpoints, |endpoint| (endpoint.kind, endpoint.addr));
    Place { endpoints, interfaces: interfaces(observed, &wan) }
}

/// The links with a default route in the main table.
pub fn wan_links(observed: &Observed) -> SortedSet<IfName> {
    let defaults = observed.main_routes.iter().filter(|route| route.prefix.is_default());
    defaults.filter_map(|route| route.link.clone()).collect()
}

/// Those, and while there is no default route at all, the last that had one: a WAN that is down is no LAN.
pub fn outer_links(observed: &Observed) -> SortedSet<IfName> {
    let mut links = wan_links(observed);
    links.extend(observed.uplinks.iter().cloned());
    links
}

/// So many links that are a LAN's no more are still taken for one's.
const PAST_LANS: usize = 16;

/// The links of the router's LANs: with an address that is not only the link's, not ours, no tunnel of someone else's, and
/// not the WAN. One that was a LAN's stays so, though it lost its address or is gone: its network is being restarted, and
/// with the first packet that comes in there again it is one.
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
        prefixes: prefixes.into_iter().take(8).gather(),
    };
    by_link.into_iter().take(32).map(report).gather()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Link, MainRoute};

    fn link(name: &str) -> IfName {
        IfName::new(name).expect("a name")
    }

    fn observed(addressed: &[&str], wan: &str) -> Observed {
        let mut observed = Observed::default();
        for (index, name) in (1..).zip(addressed) {
            observed.links.insert(link(name), Link { index, kind: LinkKind::Other, up: true, mtu: 1500 });
            let addr = [192, 168, index as u8, 1].into();
            observed.addresses.insert(Address { link: link(name), addr, len: 24 });
        }
        let prefix = "0.0.0.0/0".parse().expect("a prefix");
        observed.main_routes.insert(MainRoute { prefix, link: Some(link(wan)), on_link: false });
        observed
    }

    #[test]
    fn a_lan_stays_one_while_its_network_is_restarted() {
        let before = observed(&["br-lan", "br-guest", "gw-home", "wan"], "wan");
        let lans: SortedSet<IfName> = ["br-lan", "br-guest"].map(link).into();
        assert_eq!(lan_links(&before), lans);
        let without = Observed { lans_before: lans.clone(), ..observed(&["wan"], "wan") };
        assert_eq!(lan_links(&without), lans);
        // Unless it is the WAN now.
        let moved = Observed { lans_before: lans, ..observed(&["br-guest"], "br-guest") };
        assert_eq!(lan_links(&moved), ["br-lan"].map(link).into());
    }
}

//! Interfaces of the router by their role: WAN or LAN, and the endpoints at which the router can be reached.

use crate::{
    model::{Address, Family, IfName, LinkKind, Observed},
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

/// Limit on links that are remembered after their default route is gone.
const PAST_UPLINKS: usize = 16;

/// Uplinks, which have or had a default route, in any table that is asked: a WAN that is down is no LAN. Another program's
/// tunnel is none by a table of that program. One of them may be a LAN as well, see [`lan_links`].
pub fn outer_links(observed: &Observed) -> SortedSet<IfName> {
    let mut links = wan_links(observed);
    let is_tunnel = |link: &IfName| observed.links.get(link).is_none_or(|it| it.kind != LinkKind::Other);
    let others = observed.foreign_routes.values().flatten().filter(|route| route.prefix.is_default());
    links.extend(others.filter_map(|route| route.link.clone()).filter(|link| !is_tunnel(link)));
    links.retain(|link| !link.as_str().starts_with(INTERFACE_PREFIX));
    links.extend(observed.uplinks.iter().take(PAST_UPLINKS).cloned());
    links
}

/// Limit on links that are no longer a LAN's but still count as one.
const PAST_LANS: usize = 16;

/// Links of the router's LANs: those with an address beyond link-local, that are neither ours, nor another program's
/// tunnel, nor an uplink. A former LAN link counts even without its address or when it is gone: its network is being
/// restarted, and the first packet that comes in again belongs to the LAN. It counts also when it has a default route,
/// while there is another uplink: its hosts have a second gateway.
pub fn lan_links(observed: &Observed) -> SortedSet<IfName> {
    let (uplinks, before) = (outer_links(observed), &observed.lans_before);
    let kind = |link: &IfName| observed.links.get(link).map(|it| it.kind);
    let foreign = |link: &&IfName| !link.as_str().starts_with(INTERFACE_PREFIX);
    let addressed = observed.addresses.iter().filter(|address| !is_of_link(address.addr));
    let now = addressed.map(|address| &address.link).filter(|link| kind(link) == Some(LinkKind::Other));
    let other_uplink = |link: &IfName| uplinks.iter().any(|other| other != link && !before.contains(other));
    let stays = |link: &&IfName| {
        let is_lan = kind(link).is_none_or(|kind| kind == LinkKind::Other);
        is_lan && (!uplinks.contains(link) || other_uplink(link))
    };
    let mut lans: SortedSet<IfName> =
        now.filter(foreign).filter(|link| !uplinks.contains(link)).cloned().collect();
    lans.extend(before.iter().filter(foreign).filter(stays).take(PAST_LANS).cloned());
    lans
}

/// Prefixes of each link that is not ours, or those that it had last in a family without one now.
pub fn link_prefixes(observed: &Observed) -> LiteMap<IfName, SortedSet<Prefix>> {
    let mut all: LiteMap<IfName, SortedSet<Prefix>> = LiteMap::new();
    for Address { link, addr, len } in observed.addresses.iter().filter(|it| !is_of_link(it.addr)) {
        if !link.as_str().starts_with(INTERFACE_PREFIX) {
            let prefixes = all.entry(link.clone()).or_default();
            prefixes.extend(Prefix::containing(*addr, *len));
        }
    }
    for (link, prefixes) in observed.prefixes_before.iter().take(2 * PAST_LANS) {
        for family in Family::ALL {
            let now = all.entry(link.clone()).or_default();
            if !now.iter().any(|prefix| Family::of(prefix) == family) {
                now.extend(prefixes.iter().filter(|prefix| Family::of(prefix) == family).copied());
            }
        }
    }
    all
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
    use crate::model::{ForeignRoute, Link};

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

    #[test]
    fn lan_with_a_default_route_stays_a_lan_beside_another_uplink() {
        let lans: SortedSet<IfName> = [link("br-lan")].into_iter().collect();
        let mut both = observed(&["br-lan", "wan"], "wan");
        let default = both.main_routes.first().expect("a default route").clone();
        both.main_routes.push(ForeignRoute { link: Some(link("br-lan")), ..default.clone() });
        // At first sight nothing tells the two apart.
        assert_eq!(lan_links(&both), SortedSet::new());
        both.lans_before = lans.clone();
        assert_eq!(lan_links(&both), lans);
        // The WAN is down, or its route is in another table.
        both.main_routes.retain(|route| route.link == Some(link("br-lan")));
        both.uplinks = [link("wan")].into_iter().collect();
        assert_eq!(lan_links(&both), lans);
        both.uplinks = SortedSet::new();
        both.foreign_routes.insert(100, [default].into_iter().collect());
        assert_eq!(lan_links(&both), lans);
        assert_eq!(outer_links(&both), ["br-lan", "wan"].map(link).into_iter().collect());
    }

    #[test]
    fn prefix_of_a_link_is_remembered_while_it_has_none() {
        let before = observed(&["br-lan", "wan"], "wan");
        let mut now = Observed { prefixes_before: link_prefixes(&before), ..observed(&["wan"], "wan") };
        let of =
            |observed: &Observed| link_prefixes(observed).get(&link("br-lan")).cloned().unwrap_or_default();
        assert_eq!(of(&now), of(&before));
        assert_eq!(of(&now).len(), 1);
        let addr = "10.1.1.1".parse().expect("v4");
        now.addresses.push(Address { link: link("br-lan"), addr, len: 24 });
        assert_eq!(of(&now), ["10.1.1.0/24".parse().expect("a prefix")].into_iter().collect());
    }
}

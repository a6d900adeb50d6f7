//! Local prefixes, which scopes leave alone: read off the main table and the tables of other programs.

use super::{lan_links, outer_links};
use crate::model::{ForeignRoute, IfName, Observed};
use gatewrt_protocol::{Prefix, is_public};
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Destinations that never leave their link: link-local addresses, multicast, broadcast.
const LINK_LOCAL: [&str; 4] = ["fe80::/10", "ff00::/8", "224.0.0.0/4", "255.255.255.255/32"];

/// Local prefixes, which the router reaches without the Internet.
pub(in crate::core) struct LocalRoutes {
    /// LANs, and other prefixes that are not reached by an uplink. A part of the Internet is among them only where it is
    /// connected to a LAN: a route by a gateway there, or by another program's tunnel, leads to the Internet.
    pub(in crate::core) inside: LiteMap<Prefix, IfName>,
    /// Prefixes connected to the uplinks.
    pub(in crate::core) beside: SortedSet<Prefix>,
}

impl LocalRoutes {
    pub(in crate::core) fn new(observed: &Observed) -> Self {
        let (uplinks, lans) = (outer_links(observed), lan_links(observed));
        let (mut inside, mut beside) = (LiteMap::new(), SortedSet::new());
        for routes in observed.foreign_routes.values().chain([&observed.main_routes]) {
            for ForeignRoute { prefix, link, on_link } in routes.iter().filter(|it| !it.prefix.is_wide()) {
                let Some(link) = link else { continue };
                let is_lan = lans.contains(link);
                let within = observed.addresses.iter().any(|it| it.link == *link && prefix.contains(it.addr));
                let connected = *on_link && (within || Prefix::host(prefix.addr()) == *prefix);
                if uplinks.contains(link) && !is_lan {
                    beside.extend(Some(*prefix).filter(|_| connected));
                } else if !is_public(prefix.addr()) || (is_lan && connected) {
                    inside.insert(*prefix, link.clone());
                }
            }
        }
        Self { inside, beside }
    }

    /// Destinations that never leave their link.
    pub(in crate::core) fn of_links() -> impl Iterator<Item = Prefix> {
        LINK_LOCAL.iter().filter_map(|text| text.parse().ok())
    }

    /// Destinations by each link that leads to local ones, and those that never leave it.
    pub(in crate::core) fn by_link(&self) -> LiteMap<IfName, SortedSet<Prefix>> {
        let mut all: LiteMap<IfName, SortedSet<Prefix>> = LiteMap::new();
        for (prefix, link) in &self.inside {
            all.entry(link.clone()).or_insert_with(|| Self::of_links().collect()).push(*prefix);
        }
        all
    }
}

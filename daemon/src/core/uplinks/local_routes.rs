//! Local prefixes, which scopes leave alone: read off the main table and the tables of other programs.

use super::outer_links;
use crate::model::{ForeignRoute, IfName, Observed};
use gatewrt_protocol::Prefix;
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Destinations that never leave their link: link-local addresses, multicast, broadcast.
const LINK_LOCAL: [&str; 4] = ["fe80::/10", "ff00::/8", "224.0.0.0/4", "255.255.255.255/32"];

/// Local prefixes, which the router reaches without the Internet.
pub(in crate::core) struct LocalRoutes {
    /// LANs, and other prefixes that are not reached by a WAN link.
    pub(in crate::core) inside: LiteMap<Prefix, IfName>,
    /// Prefixes connected to the WAN links, and those that never leave a link.
    pub(in crate::core) uplinks: SortedSet<Prefix>,
}

impl LocalRoutes {
    pub(in crate::core) fn new(observed: &Observed) -> Self {
        let wans = outer_links(observed);
        let (mut inside, mut uplinks) = (LiteMap::new(), SortedSet::new());
        uplinks.extend(LINK_LOCAL.iter().filter_map(|text| text.parse::<Prefix>().ok()));
        for routes in observed.foreign_routes.values().chain([&observed.main_routes]) {
            for ForeignRoute { prefix, link, on_link } in routes.iter().filter(|it| !it.prefix.is_wide()) {
                match link {
                    Some(link) if !wans.contains(link) => drop(inside.insert(*prefix, link.clone())),
                    Some(_) if *on_link => drop(uplinks.push(*prefix)),
                    _ => {}
                }
            }
        }
        Self { inside, uplinks }
    }
}

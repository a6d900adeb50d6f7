//! What routes of others tell a scope: which prefixes are near, and where the Internet begins.

use super::super::place::outer_links;
use crate::{
    model::{IfName, MainRoute, Observed},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::Prefix;

/// What the router itself never sends through an exit: link-local addresses, multicast, broadcast.
const OF_LINKS: [&str; 4] = ["fe80::/10", "ff00::/8", "224.0.0.0/4", "255.255.255.255/32"];

/// What the main table, and the tables of others, know besides the way to the Internet.
pub(super) struct Known {
    /// LANs, and what else leads over no WAN link.
    pub(super) inside: SortedMap<Prefix, IfName>,
    /// What the WAN links are connected to, and what never leaves a link.
    pub(super) uplinks: SortedSet<Prefix>,
}

impl Known {
    pub(super) fn new(observed: &Observed) -> Self {
        let wans = outer_links(observed);
        let (mut inside, mut uplinks) = (SortedMap::new(), SortedSet::new());
        uplinks.extend(OF_LINKS.iter().filter_map(|text| text.parse::<Prefix>().ok()));
        for routes in observed.foreign_routes.values().chain([&observed.main_routes]) {
            for MainRoute { prefix, link, on_link } in routes.iter().filter(|it| !is_wide(&it.prefix)) {
                match link {
                    Some(link) if !wans.contains(link) => drop(inside.insert(*prefix, link.clone())),
                    Some(_) if *on_link => drop(uplinks.insert(*prefix)),
                    _ => {}
                }
            }
        }
        Self { inside, uplinks }
    }
}

/// A default route, or one of the few that others split it into (0.0.0.0/1 and 128.0.0.0/1, 2000::/3): the Internet.
pub(crate) fn is_wide(prefix: &Prefix) -> bool {
    prefix.len() < if prefix.is_ipv4() { 8 } else { 7 }
}

//! Routes and rules that lead into the networks.

use crate::{
    config::Config,
    core::Network,
    model::{Family, IfName, Observed, Route, RouteKind, Rule},
};
use gatewrt_protocol::{NetworkName, Prefix};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Routes of our table into the networks: every prefix into its tunnel, except prefixes that the main table has as
/// specific or more so (a connected LAN, a static route), and the coordinators' addresses. For those the lookup goes on
/// in the main table.
pub(super) fn routes(
    config: &Config,
    leads: &LiteMap<Prefix, IfName>,
    control: SortedSet<Prefix>,
    observed: &Observed,
) -> SortedSet<Route> {
    let ours: SortedSet<&IfName> = leads.values().collect();
    let known = observed.main_routes.iter().filter(|route| !route.prefix.is_default());
    let known = known.filter(|route| route.link.as_ref().is_none_or(|link| !ours.contains(&link)));
    let mut throws = control;
    throws.extend(known.map(|route| route.prefix));
    throws.retain(|prefix| leads.keys().any(|lead| lead.covers(prefix)));
    let route = |prefix: &Prefix, kind| Route {
        table: config.numbers.table,
        prefix: *prefix,
        metric: config.numbers.metric,
        kind,
    };
    let into = leads.iter().filter(|(prefix, _)| throws.binary_search(prefix).is_err());
    let mut routes: SortedSet<Route> =
        into.map(|(prefix, link)| route(prefix, RouteKind::Device(link.clone()))).collect();
    routes.extend(throws.iter().map(|prefix| route(prefix, RouteKind::Throw)));
    routes
}

/// True if the firewall has to remember which connections bypass the networks: a strict reverse-path check drops an answer
/// that comes by the WAN from an address which our routes, for packets without a mark, lead into a network. It need not
/// where our routes lead to addresses of the networks alone, and nobody outside has one of these.
///
/// `own` are the prefixes of the networks themselves, `endpoints` the addresses that their tunnels' packets go to.
pub(super) fn bypass_is_remembered(routes: &SortedSet<Route>, own: &[Prefix], endpoints: &[IpAddr]) -> bool {
    // A route that is thrown is one whose addresses are in use outside.
    let is_own = |route: &Route| matches!(route.kind, RouteKind::Device(_)) && own.contains(&route.prefix);
    let is_within = |addr: &IpAddr| own.iter().any(|prefix| prefix.contains(*addr));
    !routes.iter().all(is_own) || endpoints.iter().any(is_within)
}

/// Addresses of the coordinators of all networks, as prefixes of one host each. They are never reached through a
/// tunnel, whatever prefix a node serves.
pub(super) fn control(networks: &LiteMap<&NetworkName, &Network>) -> SortedSet<Prefix> {
    let mut all = SortedSet::new();
    for assignment in networks.values().filter_map(|network| network.directory.assignment()) {
        all.extend(assignment.control.iter().map(|addr| Prefix::host(addr.ip())));
    }
    all
}

/// Policy rules, one for each family, that lead packets without the bypass mark into our table.
pub(super) fn rules(config: &Config) -> SortedSet<Rule> {
    let numbers = &config.numbers;
    let rule = |family| Rule {
        family,
        priority: numbers.priority,
        mark: numbers.bypass,
        mask: numbers.mask,
        invert: true,
        table: numbers.table,
        iif: None,
        from: None,
    };
    Family::ALL.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, kind: RouteKind) -> Route {
        Route { table: 26487, prefix: prefix.parse().expect("a prefix"), metric: 512, kind }
    }

    fn into_network(prefix: &str) -> Route {
        route(prefix, RouteKind::Device(IfName::new("gw-home").expect("a name")))
    }

    #[test]
    fn bypass_is_remembered_unless_our_routes_lead_to_the_networks_own_addresses_alone() {
        let own: [Prefix; 2] = ["10.9.0.0/16", "fd09::/64"].map(|prefix| prefix.parse().expect("a prefix"));
        let is_remembered = |more: Option<Route>, endpoint: &str| {
            let routes = own.iter().map(|prefix| into_network(&prefix.to_string())).chain(more).collect();
            bypass_is_remembered(&routes, &own, &[endpoint.parse().expect("an address")])
        };
        assert!(!is_remembered(None, "203.0.113.5"));
        assert!(!is_remembered(None, "2001:db8::5"));
        // An underlay with addresses of the network's.
        assert!(is_remembered(None, "10.9.77.1"));
        assert!(is_remembered(None, "fd09::77"));
        // A site serves prefixes, in which a resolver or another endpoint may be.
        assert!(is_remembered(Some(into_network("192.168.20.0/24")), "203.0.113.5"));
        assert!(is_remembered(Some(into_network("10.9.7.0/24")), "203.0.113.5"));
        // The coordinator, or a LAN, has an address of the network's.
        assert!(is_remembered(Some(route("10.9.0.77/32", RouteKind::Throw)), "203.0.113.5"));
    }
}

//! Settings of the kernel that the tunnels need: forwarding, marks, reverse-path checks.

use super::exits::Usage;
use crate::{
    gather::Gather,
    model::{Family, IfName, Observed, SysctlPath},
    plan::Realm,
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::Prefix;

/// Settings to read before the next decision, beyond those that are desired.
pub(super) fn reads(observed: &Observed) -> SortedSet<SysctlPath> {
    router_links(Family::V6, observed).iter().map(accept_ra).collect()
}

/// Forwarding where a prefix is served or clients are let in, and marks that count in reverse-path checks.
pub(super) fn settings(
    realms: &SortedMap<IfName, Realm>,
    usages: &[Usage],
    observed: &Observed,
) -> SortedMap<SysctlPath, String> {
    let mut all = SortedMap::new();
    let mut set = |path: String, value: &str| drop(all.insert(SysctlPath(path), value.to_owned()));
    set("net/ipv4/conf/all/src_valid_mark".to_owned(), "1");
    for (tunnel, Realm { guard, clients, .. }) in realms {
        let (mut v4, mut v6) = (false, false);
        let mut note = |prefix: &Prefix| if prefix.is_ipv4() { v4 = true } else { v6 = true };
        let mut links = SortedSet::new();
        for prefix in guard.egress.keys() {
            note(prefix);
            links.extend(links_towards(prefix, observed));
        }
        clients.iter().for_each(&mut note);
        guard.internet.iter().for_each(&mut note);
        if v4 {
            set(format!("net/ipv4/conf/{tunnel}/forwarding"), "1");
        }
        if guard.internet.iter().any(Prefix::is_ipv4) {
            links.extend(router_links(Family::V4, observed));
        }
        for link in &links {
            set(format!("net/ipv4/conf/{link}/forwarding"), "1");
        }
        if v6 {
            set("net/ipv6/conf/all/forwarding".to_owned(), "1");
            for link in accepting_routers(observed) {
                set(accept_ra(&link).0, "2");
            }
        }
    }
    if usages.iter().any(|usage| !usage.scopes.is_empty()) {
        // The router answers what came in from outside there, also where it has no way out itself: the way is looked for
        // with the mark that came.
        for name in ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"] {
            set(format!("net/{name}"), "1");
        }
    }
    for usage in usages {
        for link in usage.links() {
            // What comes back from the Internet comes from where the main table would never send it.
            set(format!("net/ipv4/conf/{link}/rp_filter"), "2");
            let serves = realms.get(&usage.link).is_some_and(|realm| !realm.guard.egress.is_empty());
            if usage.forwards() || serves {
                set(format!("net/ipv4/conf/{link}/forwarding"), "1");
            }
        }
    }
    all
}

/// The links over which an IPv4 prefix is reached: of the routes within it, or else the longest that covers it.
fn links_towards(prefix: &Prefix, observed: &Observed) -> SortedSet<IfName> {
    let routes =
        || observed.main_routes.iter().filter(|route| prefix.is_ipv4() && !route.prefix.is_default());
    let within = routes().filter(|route| prefix.covers(&route.prefix));
    let within: SortedSet<IfName> = within.filter_map(|route| route.link.clone()).collect();
    if !within.is_empty() {
        return within;
    }
    let covering =
        routes().filter(|route| route.prefix.covers(prefix)).max_by_key(|route| route.prefix.len());
    covering.and_then(|route| route.link.clone()).into_iter().collect()
}

/// Links with an IPv6 default route that would stop listening to router advertisements once the router
/// forwards: `accept_ra` 1 means “only while not forwarding” (`ip-sysctl.rst` of the kernel).
fn accepting_routers(observed: &Observed) -> Vec<IfName> {
    let forwarding = SysctlPath("net/ipv6/conf/all/forwarding".to_owned());
    let was_forwarding = observed.sysctls.get(&forwarding).is_some_and(|value| value != "0")
        && !observed.saved_sysctls.contains_key(&forwarding);
    if was_forwarding {
        return Vec::new();
    }
    let accepts = |link: &IfName| {
        let path = accept_ra(link);
        observed.saved_sysctls.contains_key(&path)
            || observed.sysctls.get(&path).is_some_and(|value| value == "1")
    };
    router_links(Family::V6, observed).into_iter().filter(accepts).gather()
}

/// The links with a default route of a family.
fn router_links(family: Family, observed: &Observed) -> SortedSet<IfName> {
    let defaults = observed
        .main_routes
        .iter()
        .filter(|route| route.prefix.is_default() && Family::of(&route.prefix) == family);
    defaults.filter_map(|route| route.link.clone()).collect()
}

fn accept_ra(link: &IfName) -> SysctlPath {
    SysctlPath(format!("net/ipv6/conf/{link}/accept_ra"))
}

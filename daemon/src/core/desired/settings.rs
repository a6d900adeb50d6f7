//! Kernel settings that the tunnels need: forwarding, marks, reverse-path checks.

use super::exits::Usage;
use crate::model::{Family, IfName, NetworkPolicy, Observed, SysctlPath};
use gatewrt_protocol::Prefix;
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Paths of kernel settings to read before the next decision, beyond those that are desired.
pub(super) fn reads(observed: &Observed) -> SortedSet<SysctlPath> {
    router_links(Family::V6, observed).iter().map(accept_ra).collect()
}

/// Desired kernel settings below `/proc/sys`: forwarding where a prefix is served or clients are let in, and marks in
/// reverse-path checks.
pub(super) fn settings(
    policies: &LiteMap<IfName, NetworkPolicy>,
    usages: &[Usage],
    observed: &Observed,
) -> LiteMap<SysctlPath, String> {
    let mut all = LiteMap::new();
    let mut set = |path: String, value: &str| drop(all.insert(SysctlPath(path), value.to_owned()));
    set("net/ipv4/conf/all/src_valid_mark".to_owned(), "1");
    for (tunnel, NetworkPolicy { guard, clients, .. }) in policies {
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
        // The router answers outside connections by the WAN, also where its own traffic may not leave: answers are routed
        // with the mark of the request.
        for name in ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"] {
            set(format!("net/{name}"), "1");
        }
    }
    for usage in usages {
        for link in usage.links() {
            // Answers from the Internet come in by an interface to which the main table has no route.
            set(format!("net/ipv4/conf/{link}/rp_filter"), "2");
            let serves = policies.get(&usage.link).is_some_and(|policy| !policy.guard.egress.is_empty());
            if usage.forwards() || serves {
                set(format!("net/ipv4/conf/{link}/forwarding"), "1");
            }
        }
    }
    all
}

/// Links by which the main table leads to an IPv4 prefix: those of the routes within it, or else of the longest route
/// that covers it.
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
    router_links(Family::V6, observed).into_iter().filter(accepts).collect()
}

/// Links with a default route of a family in the main table.
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

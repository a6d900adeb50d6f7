//! Flows that another program's flowtable takes over when an answer comes.

use super::{Layout, default};
use crate::{
    core::uplinks::LocalRoutes,
    model::{Family, Observed, Route, RouteKind, Rule},
    ownership::ReservedNumbers,
};
use gatewrt_protocol::{ExitScope, Prefix};
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Distance of the table of answered flows from that of the first scope.
pub(super) const ANSWERED_TABLE: u32 = 4 * ExitScope::MOST as u32;

/// Adds the routes and rules by which no flow that leaves as one of these addresses is offloaded onto the WAN. When an
/// answer triggers the offload (`nft_flow_route` in `net/netfilter/nft_flow_offload.c`), the kernel looks up the way of
/// what it answers as if the router itself had sent that, as from the translated address: the rules of its scope don't
/// match. For IPv4 the look-up keeps to the interface of the answer, for IPv6 it does not. Without a route the flow is
/// offloaded later, by a packet of its own.
pub(in crate::core::desired) fn answered_flows(
    layout: &mut Layout,
    own: &SortedSet<IpAddr>,
    numbers: &ReservedNumbers,
    observed: &Observed,
) {
    let (family, table) = (Family::V6, numbers.exit_table + ANSWERED_TABLE);
    let known = LocalRoutes::new(observed);
    let apart = known.inside.keys().chain(&known.beside).copied().chain(LocalRoutes::of_links());
    let route = |prefix, kind| Route { table, prefix, metric: numbers.metric, kind };
    let throws = apart.filter(|prefix| Family::of(prefix) == family);
    let mut routes: Vec<Route> = throws.map(|prefix| route(prefix, RouteKind::Throw)).collect();
    routes.push(route(default(family), RouteKind::Blackhole));
    for addr in own.iter().filter(|addr| addr.is_ipv6()) {
        let (priority, mask) = (layout.answered, numbers.mask);
        let from = Some(Prefix::host(*addr));
        layout.rules.push(Rule { family, priority, mark: 0, mask, invert: false, table, iif: None, from });
        layout.routes.append(&mut routes);
    }
}

//! Flows that another program's flowtable takes over when an answer comes.

use super::{Layout, default};
use crate::{
    core::uplinks::LocalRoutes,
    model::{Family, IfName, Observed, Route, RouteKind, Rule},
    ownership::ReservedNumbers,
};
use gatewrt_protocol::{ExitScope, Prefix};
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Distance of the table of answered flows from that of the first scope.
pub(super) const ANSWERED_TABLE: u32 = 4 * ExitScope::MOST as u32;
/// `RT_TABLE_MAIN`
const MAIN: u32 = 254;

/// Adds the routes and rules by which no flow of a scope's hosts is offloaded onto the WAN. When an answer triggers the
/// offload (`nft_flow_route` in `net/netfilter/nft_flow_offload.c`), the kernel looks up the way of what it answers as if
/// the router itself had sent that: the rules of its scope don't match. The source is that of the host in some kernels, and
/// the translated one in others, which is among `own`. For IPv4 the look-up keeps to the interface of the answer, for IPv6
/// it does not. Without a route the flow is offloaded later, by a packet of its own.
///
/// The router has addresses among those of the hosts, and keeps its way with them.
pub(in crate::core::desired) fn answered_flows(
    layout: &mut Layout,
    own: &SortedSet<IpAddr>,
    numbers: &ReservedNumbers,
    observed: &Observed,
) {
    let (family, mask) = (Family::V6, numbers.mask);
    let answered = numbers.exit_table + ANSWERED_TABLE;
    let is_v6 = |prefix: &Prefix| Family::of(prefix) == family;
    let known = LocalRoutes::new(observed);
    let apart = known.inside.keys().chain(&known.beside).copied().chain(LocalRoutes::of_links());
    let route = |prefix, kind| Route { table: answered, prefix, metric: numbers.metric, kind };
    layout.routes.extend(apart.filter(is_v6).map(|prefix| route(prefix, RouteKind::Throw)));
    layout.routes.push(route(default(family), RouteKind::Blackhole));
    let rule = |priority, table, from| {
        let (iif, from) = (IfName::new("lo"), Some(from));
        Rule { family, priority, mark: 0, mask, invert: false, table, iif, from }
    };
    let sources: SortedSet<Prefix> = layout.near.iter().copied().filter(is_v6).collect();
    let is_host = |addr: &IpAddr| sources.iter().any(|prefix| prefix.contains(*addr));
    let routers = observed.addresses.iter().map(|address| address.addr).filter(is_host);
    let first = layout.answered;
    layout.rules.extend(routers.map(|addr| rule(first, MAIN, Prefix::host(addr))));
    let own = own.iter().map(|addr| Prefix::host(*addr)).filter(is_v6);
    let all: SortedSet<Prefix> = sources.iter().copied().chain(own).collect();
    layout.rules.extend(all.into_iter().map(|from| rule(first + 1, answered, from)));
}

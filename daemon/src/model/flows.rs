//! Policy for established connections: which may stay when roles, access rules or exits change. The verdict on each
//! connection is for `plan`.

use super::{Family, Guard, IfName, Route, RouteKind};
use gatewrt_protocol::{Prefix, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Tracked connection, as its first packet was before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Address that opened it.
    pub src: IpAddr,
    /// Address it was opened to.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// Source of the answers: differs from `dst` where that was translated.
    pub answers: IpAddr,
    /// Destination of the answers: differs from `src` where that is masqueraded.
    pub seen: IpAddr,
    /// Connection mark; 0 where the kernel keeps none.
    pub mark: u32,
}

impl Flow {
    /// Tracked connection without translation and mark.
    pub fn plain(src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> Self {
        Self { src, dst, proto, port, answers: dst, seen: src, mark: 0 }
    }
}

/// Policy of one network for connections through this router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Destinations that may be reached.
    pub guard: Guard,
    /// This node's own addresses in the network.
    pub own: SortedSet<Prefix>,
    /// Prefixes from which clients get their addresses.
    pub blocks: Vec<Prefix>,
    /// Addresses of the clients that are let in.
    pub clients: SortedSet<Prefix>,
}

/// Policy of one scope for its connections: those that take another way than the right one are cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeFlows {
    /// Source addresses of the scope's connections: for a link the prefixes of its addresses, for the router its
    /// addresses.
    pub sources: SortedSet<Prefix>,
    /// Connections of the router itself belong to it, also those from its addresses in the networks.
    pub router: bool,
    /// Destinations outside the scope: LANs, the networks' prefixes, excluded prefixes.
    pub apart: SortedSet<Prefix>,
    /// Interface and key of the exit in use for IPv4; `None` when there is none, or it is the WAN.
    pub v4: Option<(IfName, WgPublicKey)>,
    /// Interface and key of the exit in use for IPv6; `None` when there is none, or it is the WAN.
    pub v6: Option<(IfName, WgPublicKey)>,
    /// Families that are dropped while there is no exit for them; others use the WAN then.
    pub closed: SortedSet<Family>,
    /// Resolvers that queries to port 53 go to; empty: queries go where they are sent. A query to another is cut.
    pub resolvers: Vec<IpAddr>,
}

/// Policy for all established connections of the router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Policies by the networks' interfaces.
    pub policies: LiteMap<IfName, NetworkPolicy>,
    /// Interface of ours that leads to each prefix; `None` where another leads there.
    pub routes: LiteMap<Prefix, Option<IfName>>,
    /// Prefix lengths of `routes`.
    pub lengths: SortedSet<u8>,
    /// Scopes, the most specific first: the first that a connection belongs to decides.
    pub scopes: Vec<ScopeFlows>,
    /// Bits of our marks. A connection of the router itself that has one of them belongs to no scope: it must never
    /// enter a network. (Connections from outside are told apart by their source.)
    pub bypass: u32,
}

impl Flows {
    /// Policy for all established connections of the router, without scopes. `routes` are those of the networks'
    /// prefixes.
    pub fn new(policies: LiteMap<IfName, NetworkPolicy>, routes: &SortedSet<Route>) -> Self {
        let link = |route: &Route| match &route.kind {
            RouteKind::Device(link) => Some(link.clone()),
            RouteKind::Throw | RouteKind::Blackhole => None,
        };
        Self {
            policies,
            routes: routes.iter().map(|route| (route.prefix, link(route))).collect(),
            lengths: routes.iter().map(|route| route.prefix.len()).collect(),
            ..Self::default()
        }
    }

    /// Adds the policies of scopes to the policy for established connections. `bypass` are the bits of our marks.
    pub fn with_scopes(self, scopes: Vec<ScopeFlows>, bypass: u32) -> Self {
        Self { scopes, bypass, ..self }
    }
}

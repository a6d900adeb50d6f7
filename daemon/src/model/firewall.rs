//! Firewall: what each network may reach, which traffic must leave by exits only, and the typed table made from both.

pub mod table;

use super::{Family, IfName};
use gatewrt_protocol::{Access, Prefix, Tag};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Destinations that a network may reach through this router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Prefixes served to the network, and whether connections to them are masqueraded. The longest prefix that contains
    /// an address decides.
    pub egress: LiteMap<Prefix, bool>,
    /// Addresses of external clients here that accept no connections.
    pub closed: SortedSet<Prefix>,
    /// Addresses of external clients here whose Internet traffic leaves here.
    pub internet: SortedSet<Prefix>,
    /// Links with a default route, by which that Internet traffic leaves.
    pub uplinks: SortedSet<IfName>,
    /// Access rules of the network.
    pub access: Access,
}

/// Source of a scope's packets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Packets from these addresses, by whatever interface they come in.
    Prefix(Prefix),
    /// Packets that come in by this interface.
    Link(IfName),
    /// Packets of one family that come in by this interface: the scope names its hosts by their other family.
    Half(IfName, Family),
    /// Packets that come in by any interface which leads into no tunnel: they are of some LAN, and no other scope's. The
    /// firewall alone asks for them.
    Anyone,
    /// Packets of the router itself.
    Router,
}

/// Scope as the firewall enforces it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeGuard {
    /// Sources of its packets. For the scope `all` they are the router, every LAN link, and anyone else.
    pub sources: SortedSet<Source>,
    /// Prefixes that its links have, or had last. Hosts in them belong to it by whatever interface they come in, such as
    /// a port that is outside its bridge for a moment.
    pub near: SortedSet<Prefix>,
    /// Kill switch: packets leave by no interface except [`Exits::ours`], and to [`Exits::local`].
    pub closed: bool,
    /// The networks' prefixes are out of reach too. (Routes keep LANs out of reach.)
    pub forbids: bool,
    /// IPv6 may leave by any interface: the exit in use carries IPv4 only, and the admin allows it.
    pub v6_wan: bool,
    /// Destinations that are reached as if there were no exit.
    pub exclude: SortedSet<Prefix>,
    /// Resolvers that queries to port 53 are redirected to, whomever they are for (the router too): the first of the
    /// packet's family. Empty: queries are left as they are. With the kill switch on, queries to the router in a family
    /// without a resolver are refused, since the router would ask over the WAN.
    pub resolvers: Vec<IpAddr>,
    /// DNS is to be redirected at all.
    pub redirects: bool,
    /// The router answers queries to itself, such as names of its LANs: the queries it sends on belong to the scope
    /// too, and go to the same resolvers.
    pub router_answers: bool,
}

/// Scopes of a router as the firewall enforces them, and the interfaces they may leave by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// Scopes in the order in which they are matched: the first that a packet belongs to decides. The number is the
    /// distance of its rules' priority from that of the first scope.
    pub scopes: LiteMap<(u32, Tag), ScopeGuard>,
    /// Interfaces of ours, which scopes may leave by.
    pub ours: SortedSet<IfName>,
    /// Tunnels of other programs: what comes in by them is of no LAN.
    pub strangers: SortedSet<IfName>,
    /// Local destinations by the interface that leads there, and to which no other may lead.
    pub local: LiteMap<IfName, SortedSet<Prefix>>,
    /// Interfaces that have or had a default route: connections from outside come in by them alone.
    pub uplinks: SortedSet<IfName>,
    /// Prefixes connected to uplinks that are no LANs. One of them may be a LAN all the same, whose hosts' queries are
    /// no calls from outside.
    pub beside: SortedSet<Prefix>,
    /// Prefixes of the network itself, by each interface of ours that scopes leave by: the network's own and those that
    /// other nodes serve. Everything else that leaves there is masqueraded, except what comes from the network's own
    /// addresses. New connections that come in there from any other address are dropped: an exit may send us answers
    /// from the whole Internet, but lets nobody of it in.
    pub meshes: LiteMap<IfName, SortedSet<Prefix>>,
    /// Overlay addresses of this router on those interfaces, to masquerade as: other addresses may be on them too, which
    /// the exit does not know. A family without one is dropped there.
    pub own: LiteMap<IfName, SortedSet<IpAddr>>,
    /// MTU of those interfaces, in bytes.
    pub mtus: LiteMap<IfName, u32>,
    /// Secondary exit interfaces, each with the main interface of its network, whose rules hold for it too.
    pub secondary: LiteMap<IfName, IfName>,
}

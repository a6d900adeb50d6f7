//! What the firewall knows of exits: whose traffic must leave by which interfaces and by no other.

use crate::{
    model::{Family, IfName},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Prefix, Tag};
use std::net::IpAddr;

/// Where a scope's packets come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// From these addresses, whatever interface they come in over.
    Prefix(Prefix),
    /// In over this interface.
    Link(IfName),
    /// The router itself.
    Router,
}

/// A scope, as the firewall guards it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeGuard {
    /// Whose packets. Those of `all` are the router's and every LAN link's.
    pub sources: SortedSet<Source>,
    /// The kill switch: over no other interface than [`Exits::inside`] do they leave.
    pub closed: bool,
    /// What the network has is out of reach too. (LANs are by their routes.)
    pub forbids: bool,
    /// But IPv6 may, over any: the exit in use leads to IPv4 alone, and the admin wants it so.
    pub v6_wan: bool,
    /// What is reached as if there were no exit.
    pub exclude: SortedSet<Prefix>,
    /// Queries for port 53, whomever they are for (the router too), go here, the first of the packet's family. Empty:
    /// they are left as they are. With the kill switch on, a family without a resolver has its queries to the router
    /// itself refused, which would ask over the WAN.
    pub resolvers: Vec<IpAddr>,
    /// Whether DNS is to be redirected at all.
    pub redirects: bool,
    /// But what the router itself is asked it answers, names of its LANs among it: what it asks onward is of the scope
    /// too, and goes to the same resolvers.
    pub router_answers: bool,
}

/// All scopes of a router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// In the order in which they are looked at: the first that a packet belongs to decides. The number is how far the
    /// priority of its rules is from that of the first.
    pub scopes: SortedMap<(u32, Tag), ScopeGuard>,
    /// Interfaces over which scopes may leave: the LAN links, and all of ours. Anything else is the outside.
    pub inside: SortedSet<IfName>,
    /// By each interface of ours over which scopes leave: what the network itself has. Everything else that leaves
    /// there is masqueraded, but for what comes from the network's own addresses.
    /// What the network has are the prefixes that lead into the interface: its own, and those that others serve. What
    /// comes in there newly from anywhere else is dropped: an exit may send us answers from the whole Internet, but
    /// lets no one of it in.
    pub meshes: SortedMap<IfName, SortedSet<Prefix>>,
    /// The network's addresses of this router on those interfaces: as them it is masqueraded, since others may lie there
    /// too, which the exit does not know. A family without one is dropped there.
    pub own: SortedMap<IfName, SortedSet<IpAddr>>,
    /// Of the same interfaces, the MTU in bytes.
    pub mtus: SortedMap<IfName, u32>,
    /// Interfaces of exits beside that of their network, each with the network's interface: what holds for this one
    /// holds for them.
    pub beside: SortedMap<IfName, IfName>,
}

/// What decides when connections of a scope are cut: those that went one way when another is right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeFlows {
    /// Addresses that connections of the scope are opened from. For a link, the prefixes of its addresses; for the
    /// router, its addresses.
    pub sources: SortedSet<Prefix>,
    /// What the router itself opens belongs to it: from its addresses in the networks too.
    pub router: bool,
    /// Destinations that the scope does not concern: LANs, the networks' prefixes, what is excluded.
    pub apart: SortedSet<Prefix>,
    /// Where IPv4 goes: the interface and key of the exit in use; `None` nowhere, or over the WAN.
    pub v4: Option<(IfName, gatewrt_protocol::WgPublicKey)>,
    /// The same for IPv6.
    pub v6: Option<(IfName, gatewrt_protocol::WgPublicKey)>,
    /// Families that go nowhere while there is no exit for them; others then go over the WAN.
    pub closed: SortedSet<Family>,
    /// Where queries for port 53 go; empty: where they are sent. One that goes elsewhere is cut.
    pub resolvers: Vec<IpAddr>,
}

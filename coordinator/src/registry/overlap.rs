//! Which prefixes can't stand side by side, and whose they are.

use super::{Client, Node, Registry};
use gatewrt_protocol::{
    ClientId, ClientName, Endpoint, EndpointKind, NetworkId, NetworkName, NodeName, Prefix,
};
use std::{fmt, net::SocketAddr};

/// Whose a prefix or an address is, in an admin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Overlay addresses of a network.
    Network(NetworkName),
    /// Served by a node of a network.
    Site(NetworkName, NodeName),
    /// Behind an external client of a network.
    Client(NetworkName, ClientName),
    /// Where a node's WireGuard is reached.
    Endpoint(NodeName, SocketAddr),
    /// Where the coordinator is reached.
    Coordinator(SocketAddr),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "the addresses of network {name}"),
            Self::Site(network, node) => write!(f, "served by node {node} of network {network}"),
            Self::Client(network, client) => write!(f, "behind client {client} of network {network}"),
            Self::Endpoint(node, addr) => write!(f, "holds {addr}, where node {node} is reached"),
            Self::Coordinator(addr) => write!(f, "holds {addr}, where this coordinator is reached"),
        }
    }
}

/// Whose prefix is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A node's: that it, or another that can stand in for it, serves just this prefix is no conflict.
    Node,
    /// A client's: what is behind it now is no conflict.
    Client(ClientId),
}

impl Registry {
    /// What `prefix` can't stand beside. For a network's own prefix (`net` is `None`) every network, site,
    /// endpoint and the coordinator count; for a prefix served in `net` the sites, clients and endpoints of
    /// that network, as networks are isolated from each other. Blocks of clients lie in their network's prefix.
    pub(super) fn conflict(
        &self,
        prefix: Prefix,
        net: Option<NetworkId>,
        except: Option<Holder>,
    ) -> Option<(Prefix, Owner)> {
        let stands_in = |served: &Prefix| except == Some(Holder::Node) && *served == prefix;
        let nodes =
            || self.nodes().filter(move |node| node.is_live() && net.is_none_or(|net| node.net == net));
        let networks = self.networks().flat_map(|network| {
            network.prefixes().map(|prefix| (prefix, Owner::Network(network.name.clone())))
        });
        let sites = nodes().flat_map(|node| node.egress.keys().map(move |served| (node, *served)));
        let sites = sites.filter(|(_, served)| !stands_in(served));
        let sites = sites.map(|(node, served)| (served, self.site(node)));
        let clients =
            self.clients().filter(|client| client.is_live() && net.is_none_or(|net| client.net == net));
        let clients = clients.filter(|client| Some(Holder::Client(client.id)) != except);
        let behind = clients.flat_map(|client| client.prefixes.iter().map(move |prefix| (client, *prefix)));
        let behind = behind.map(|(client, prefix)| (prefix, self.behind(client)));
        let endpoints = nodes().flat_map(reached_at);
        let control = self.control().iter().map(|addr| (Prefix::host(addr.ip()), Owner::Coordinator(*addr)));
        let mut all = networks.chain(sites).chain(behind).chain(endpoints).chain(control);
        all.find(|(taken, _)| taken.overlaps(&prefix))
    }

    /// How an error names what a node serves.
    pub(super) fn site(&self, node: &Node) -> Owner {
        let network = self.network(node.net).expect("a live node's network exists");
        Owner::Site(network.name.clone(), node.name.clone())
    }

    /// How an error names what is behind a client.
    pub(super) fn behind(&self, client: &Client) -> Owner {
        let network = self.network(client.net).expect("a live client's network exists");
        Owner::Client(network.name.clone(), client.name.clone())
    }

    /// What does not stop anything but will surprise: in words, for one network.
    pub fn warnings(&self, net: NetworkId) -> Vec<String> {
        let nodes: Vec<_> = self.live_nodes(net).collect();
        let served: Vec<_> =
            nodes.iter().flat_map(|node| node.egress.keys().map(move |prefix| (*node, *prefix))).collect();
        let own = nodes.iter().flat_map(|node| self.overlay_warnings(net, node));
        let lans = nodes.iter().flat_map(|node| lan_warnings(node, &served));
        let endpoints = nodes.iter().flat_map(|node| endpoint_warnings(node, &served));
        own.chain(lans).chain(endpoints).collect()
    }

    fn overlay_warnings(&self, net: NetworkId, node: &Node) -> Vec<String> {
        let overlay = self.network(net).map(|network| network.prefixes()).into_iter().flatten();
        let clash = |prefix: Prefix| node.facts.lans().filter(move |(_, lan)| lan.overlaps(&prefix));
        let say = |prefix: Prefix, name: &str, lan: Prefix| {
            format!(
                "{lan} on {name} of {} overlaps the network's own {prefix}: hosts there can't reach the network",
                node.name
            )
        };
        overlay.flat_map(|prefix| clash(prefix).map(move |(name, lan)| say(prefix, name, lan))).collect()
    }
}

/// Prefixes served by others that are also a LAN of `node`, whose hosts will not reach them.
fn lan_warnings(node: &Node, served: &[(&Node, Prefix)]) -> Vec<String> {
    let served = served.iter().filter(|(by, _)| by.id != node.id);
    let pairs =
        served.flat_map(|(by, prefix)| node.facts.lans().map(move |(name, lan)| (by, prefix, name, lan)));
    // Where it serves the same, it is one of several that stand in for each other.
    let clashes =
        pairs.filter(|(_, prefix, _, lan)| prefix.overlaps(lan) && !node.egress.contains_key(prefix));
    let say = |(by, prefix, name, lan): (&&Node, &Prefix, &str, Prefix)| {
        format!(
            "{prefix} served by {} overlaps {lan} on {name} of {}: hosts there will not reach it",
            by.name, node.name
        )
    };
    clashes.map(say).collect()
}

/// Endpoints of `node` that turned up inside what is served.
fn endpoint_warnings(node: &Node, served: &[(&Node, Prefix)]) -> Vec<String> {
    let clash = |at: &Prefix| served.iter().filter(move |(_, prefix)| prefix.covers(at)).collect::<Vec<_>>();
    let say = |owner: &Owner, by: &Node, prefix: &Prefix| format!("{prefix} served by {} {owner}", by.name);
    let reached = reached_at(node);
    reached
        .flat_map(|(at, owner)| clash(&at).into_iter().map(move |(by, prefix)| say(&owner, by, prefix)))
        .collect()
}

/// A LAN address is no reason to refuse: it lies in what its own node serves.
fn reached_at(node: &Node) -> impl Iterator<Item = (Prefix, Owner)> {
    let endpoints =
        node.facts.candidates(&[]).into_iter().filter(|endpoint| endpoint.kind != EndpointKind::Lan);
    let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.as_ref()?.parse().ok());
    let name = node.name.clone();
    let addrs = endpoints.into_iter().map(|Endpoint { addr, .. }| addr).chain(stated);
    addrs.map(move |addr| (Prefix::host(addr.ip()), Owner::Endpoint(name.clone(), addr)))
}

//! Overlaps of prefixes, and the owners of both.

use super::{Client, Node, Registry};
use gatewrt_protocol::{
    ClientId, ClientName, Endpoint, EndpointKind, NetworkId, NetworkName, NodeName, Prefix,
};
use std::{fmt, net::SocketAddr};

/// Owner of a prefix or an address, in an admin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Overlay addresses of a network.
    Network(NetworkName),
    /// Prefix served by a node of a network.
    Site(NetworkName, NodeName),
    /// Prefix behind an external client of a network.
    Client(NetworkName, ClientName),
    /// Endpoint of a node's WireGuard.
    Endpoint(NodeName, SocketAddr),
    /// Address of the coordinator.
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

/// Owner whose prefix is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changing {
    /// A node: it is no conflict if it, or a stand-in, serves exactly this prefix already.
    Node,
    /// A client: it is no conflict if the prefix is behind it already.
    Client(ClientId),
}

impl Registry {
    /// Finds the first conflict of `prefix` with another prefix or address, and its owner. A network's own prefix
    /// (`net` is `None`) is compared with every network, site, endpoint and the coordinator. A prefix served in `net`
    /// is compared with the sites, clients and endpoints of that network only, as networks are isolated from each
    /// other. Blocks of clients lie in their network's prefix.
    pub(super) fn conflict(
        &self,
        prefix: Prefix,
        net: Option<NetworkId>,
        except: Option<Changing>,
    ) -> Option<(Prefix, Owner)> {
        let stands_in = |served: &Prefix| except == Some(Changing::Node) && *served == prefix;
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
        let clients = clients.filter(|client| Some(Changing::Client(client.id)) != except);
        let behind = clients.flat_map(|client| client.prefixes.iter().map(move |prefix| (client, *prefix)));
        let behind = behind.map(|(client, prefix)| (prefix, self.behind(client)));
        let endpoints = nodes().flat_map(reached_at);
        let control = self.control().iter().map(|addr| (Prefix::host(addr.ip()), Owner::Coordinator(*addr)));
        let mut all = networks.chain(sites).chain(behind).chain(endpoints).chain(control);
        all.find(|(taken, _)| taken.overlaps(&prefix))
    }

    /// Owner of the prefixes that a node serves, for errors.
    pub(super) fn site(&self, node: &Node) -> Owner {
        let network = self.network(node.net).expect("a live node's network exists");
        Owner::Site(network.name.clone(), node.name.clone())
    }

    /// Owner of the prefixes behind a client, for errors.
    pub(super) fn behind(&self, client: &Client) -> Owner {
        let network = self.network(client.net).expect("a live client's network exists");
        Owner::Client(network.name.clone(), client.name.clone())
    }

    /// Warnings about a network: allowed, but probably not intended.
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

/// Warnings about prefixes served by others that are also a LAN of `node`, whose hosts will not reach them.
fn lan_warnings(node: &Node, served: &[(&Node, Prefix)]) -> Vec<String> {
    let served = served.iter().filter(|(by, _)| by.id != node.id);
    let pairs =
        served.flat_map(|(by, prefix)| node.facts.lans().map(move |(name, lan)| (by, prefix, name, lan)));
    // A node that serves the same prefix is a stand-in.
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

/// Warnings about endpoints of `node` that lie inside served prefixes.
fn endpoint_warnings(node: &Node, served: &[(&Node, Prefix)]) -> Vec<String> {
    let clash = |at: &Prefix| served.iter().filter(move |(_, prefix)| prefix.covers(at)).collect::<Vec<_>>();
    let say = |owner: &Owner, by: &Node, prefix: &Prefix| format!("{prefix} served by {} {owner}", by.name);
    let reached = reached_at(node);
    reached
        .flat_map(|(at, owner)| clash(&at).into_iter().map(move |(by, prefix)| say(&owner, by, prefix)))
        .collect()
}

/// Addresses at which a node is reached. LAN addresses are left out: they lie in prefixes that the node
/// itself serves.
fn reached_at(node: &Node) -> impl Iterator<Item = (Prefix, Owner)> {
    let endpoints =
        node.facts.candidates(&[]).into_iter().filter(|endpoint| endpoint.kind != EndpointKind::Lan);
    let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.as_ref()?.parse().ok());
    let name = node.name.clone();
    let addrs = endpoints.into_iter().map(|Endpoint { addr, .. }| addr).chain(stated);
    addrs.map(move |addr| (Prefix::host(addr.ip()), Owner::Endpoint(name.clone(), addr)))
}

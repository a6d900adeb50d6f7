//! Overlaps of prefixes, and the owners of both.

use super::{Client, Node, Registry};
use gatewrt_protocol::{ClientId, ClientName, NetworkId, NetworkName, NodeName, Prefix};
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
    /// Endpoint for clients of a node.
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
            Self::Endpoint(node, addr) => write!(f, "holds {addr}, where clients reach node {node}"),
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
    /// Finds the first conflict of `prefix` with another prefix or address that an admin has set, and its owner. A
    /// network's own prefix (`net` is `None`) is compared with every network, site, endpoint and the coordinator. A prefix served in `net`
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
        let endpoints = nodes().filter_map(stated_at);
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
}

/// Endpoint for clients that an admin has set for a node, if it is an address. What a node reports of itself is a
/// [claim](super::claim), and no reason to refuse anything.
fn stated_at(node: &Node) -> Option<(Prefix, Owner)> {
    let addr: SocketAddr = node.ingress.as_ref()?.endpoint.as_ref()?.parse().ok()?;
    Some((Prefix::host(addr.ip()), Owner::Endpoint(node.name.clone(), addr)))
}

//! Claims: addresses at which nodes report to be reached, and LANs that they report to have. A claim may be out of
//! date or invented, so it warns of what an admin does and never refuses it.

use super::{Client, Network, Node, Registry};
use gatewrt_protocol::{Endpoint, EndpointKind, NetworkId, NodeId, Prefix};

/// Largest number of warnings about the claims of one node: it may claim anything, and must not drown the others.
const WARNINGS: usize = 8;
/// Largest number of warnings about a new network.
const OF_NETWORK: usize = 20;

/// Prefix behind a node or a client, in an admin's words.
struct Behind {
    prefix: Prefix,
    /// `served by NODE`, or `behind client CLIENT`.
    owner: String,
    /// Node that serves it; none if it is behind a client.
    node: Option<NodeId>,
}

impl Registry {
    /// Warnings about a network: allowed, but probably not intended.
    pub fn warnings(&self, net: NetworkId) -> Vec<String> {
        let behind = self.all_behind(net);
        self.live_nodes(net).flat_map(|node| self.claims_of(node, &behind)).collect()
    }

    /// Those warnings about a network that concern a node: what it claims, and what others claim of its prefixes.
    pub fn node_warnings(&self, node: &Node) -> Vec<String> {
        let (own, others): (Vec<_>, Vec<_>) =
            self.all_behind(node.net).into_iter().partition(|behind| behind.node == Some(node.id));
        let claimed = self.live_nodes(node.net).flat_map(|other| claims_on(other, &own));
        self.claims_of(node, &others).into_iter().chain(claimed).collect()
    }

    /// Warnings about the prefixes behind a client.
    pub fn client_warnings(&self, client: &Client) -> Vec<String> {
        let behind: Vec<_> = behind_client(client).collect();
        self.live_nodes(client.net).flat_map(|node| claims_on(node, &behind)).collect()
    }

    /// Warnings about the prefixes of a new network, of what nodes of the other networks claim.
    pub fn network_warnings(&self, network: &Network) -> Vec<String> {
        let others = self.nodes().filter(|node| node.is_live() && node.net != network.id);
        let said = others.flat_map(|node| self.claims_on_network(network, node).take(WARNINGS));
        said.take(OF_NETWORK).collect()
    }

    /// True if any node claims an address of a prefix.
    pub(super) fn is_claimed(&self, prefix: &Prefix) -> bool {
        let mut nodes = self.nodes().filter(|node| node.is_live());
        nodes.any(|node| {
            node.facts.lans().any(|(_, lan)| lan.overlaps(prefix))
                || reached_at(node).any(|endpoint| prefix.contains(endpoint.addr.ip()))
        })
    }

    /// Prefixes behind the nodes and the clients of a network.
    fn all_behind(&self, net: NetworkId) -> Vec<Behind> {
        let served = |node: &Node, prefix| Behind {
            prefix,
            owner: format!("served by {}", node.name),
            node: Some(node.id),
        };
        let nodes =
            self.live_nodes(net).flat_map(|node| node.egress.keys().map(move |prefix| served(node, *prefix)));
        nodes.chain(self.live_clients(net).flat_map(behind_client)).collect()
    }

    fn claims_of(&self, node: &Node, behind: &[Behind]) -> Vec<String> {
        let overlay = self.network(node.net).map(Network::prefixes).into_iter().flatten();
        let clash = |prefix: Prefix| node.facts.lans().filter(move |(_, lan)| lan.overlaps(&prefix));
        let say = |prefix: Prefix, name: &str, lan: Prefix| {
            format!(
                "{lan} on {name} of {} overlaps the network's own {prefix}: hosts there can't reach the network",
                node.name
            )
        };
        let overlay = overlay.flat_map(|prefix| clash(prefix).map(move |(name, lan)| say(prefix, name, lan)));
        overlay.take(WARNINGS).chain(claims_on(node, behind)).take(WARNINGS).collect()
    }

    fn claims_on_network<'a>(
        &'a self,
        network: &'a Network,
        node: &'a Node,
    ) -> impl Iterator<Item = String> + 'a {
        let home = self.network(node.net).map(|home| home.name.to_string()).unwrap_or_default();
        let whose = format!("{} of network {home}", node.name);
        let on = move |prefix: Prefix| {
            let (lan_of, reached) = (whose.clone(), whose.clone());
            let lans = node.facts.lans().filter(move |(_, lan)| lan.overlaps(&prefix));
            let lans = lans.map(move |(name, lan)| {
                format!("{prefix} overlaps {lan} on {name} of {lan_of}: hosts there can't reach this network")
            });
            let at = reached_at(node).filter(move |endpoint| prefix.contains(endpoint.addr.ip()));
            let at = at.map(move |endpoint| format!("{prefix} holds {}", in_words(&endpoint, &reached)));
            lans.chain(at)
        };
        network.prefixes().into_iter().flat_map(on)
    }
}

fn behind_client(client: &Client) -> impl Iterator<Item = Behind> {
    let owner = format!("behind client {}", client.name);
    client.prefixes.iter().map(move |prefix| Behind { prefix: *prefix, owner: owner.clone(), node: None })
}

/// Warnings about prefixes of others that a node claims an address of: its own LAN, or one that it is reached at.
fn claims_on(node: &Node, behind: &[Behind]) -> Vec<String> {
    let others = || behind.iter().filter(move |behind| behind.node != Some(node.id));
    let pairs = others().flat_map(|behind| node.facts.lans().map(move |lan| (behind, lan)));
    // A node that serves the same prefix is a stand-in.
    let lans = pairs.filter(|(Behind { prefix, .. }, (_, lan))| {
        prefix.overlaps(lan) && !node.egress.contains_key(prefix)
    });
    let lans = lans.map(|(Behind { prefix, owner, .. }, (name, lan))| {
        format!("{prefix} {owner} overlaps {lan} on {name} of {}: hosts there will not reach it", node.name)
    });
    let pairs = reached_at(node).flat_map(|endpoint| others().map(move |behind| (behind, endpoint.clone())));
    let reached = pairs.filter(|(behind, endpoint)| behind.prefix.contains(endpoint.addr.ip()));
    let reached = reached.map(|(Behind { prefix, owner, .. }, endpoint)| {
        format!("{prefix} {owner} holds {}", in_words(&endpoint, node.name.as_str()))
    });
    lans.take(WARNINGS).chain(reached.take(WARNINGS)).collect()
}

fn in_words(Endpoint { addr, kind }: &Endpoint, node: &str) -> String {
    match kind {
        EndpointKind::Observed => format!("{addr}, where this coordinator saw {node}"),
        _ => format!("{addr}, where {node} says that it is reached"),
    }
}

/// Endpoints of a node as far as it or its connection says. LAN addresses are left out: they lie in prefixes that the
/// node itself serves.
fn reached_at(node: &Node) -> impl Iterator<Item = Endpoint> {
    node.facts.candidates(&[]).into_iter().filter(|endpoint| endpoint.kind != EndpointKind::Lan)
}

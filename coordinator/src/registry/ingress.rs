//! Nodes that let external clients in, and the blocks that these have their addresses from.

use super::{
    ClientError, Network, Node, Outcome, Registry, RegistryError, Row, facts::is_private, network::is_special,
};
use gatewrt_protocol::{Endpoint, EndpointKind, Prefix, Role};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// That a node lets external clients in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressSetting {
    /// Where clients reach the node, as `host:port`; nothing stated is what the node itself says.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Blocks of the network, IPv4 first: its clients' addresses.
    pub blocks: Vec<Prefix>,
}

/// What an admin asks of an ingress; what is left out is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IngressWish {
    /// Where clients reach the node, as `host:port`. Default: a public address that the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Default: a free /24 of the network's IPv4 prefix, or less in a small one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub block4: Option<Prefix>,
    /// Default: a free /112 of the network's IPv6 prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub block6: Option<Prefix>,
}

impl Registry {
    /// Has a node let external clients in, or changes how it does. A node that does again has its blocks of then,
    /// and with them the clients whose files name it.
    pub fn set_ingress(&self, net: &str, node: &str, wish: &IngressWish) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let network = self.network(node.net).expect("a live node's network exists");
        if !node.roles.contains(&Role::Ingress) {
            let (code, role) = (node.code.clone(), Role::Ingress);
            return Err(RegistryError::RoleMissing { node: node.name.clone(), role, code });
        }
        let endpoint =
            wish.endpoint.as_deref().map(|text| self.checked_endpoint(network, text)).transpose()?;
        if endpoint.is_none() {
            self.own_endpoint(node).ok_or_else(|| self.unreachable(node))?;
        }
        let mut given = network.clone();
        let block4 = self.block(node, &given, wish.block4, true)?;
        given.blocks.insert(block4);
        let block6 = self.block(node, &given, wish.block6, false)?;
        given.blocks.insert(block6);
        let blocks = vec![block4, block6];
        let setting = IngressSetting { endpoint, blocks: blocks.clone() };
        let changed = Node { ingress: Some(setting), blocks, ..node.clone() };
        let mut rows = changed.row_if_changed(node);
        if given != *network {
            rows.push(Row::Network(network.id, Some(given)));
        }
        Ok((rows, changed))
    }

    /// Has a node let no clients in any more. Those whose files name it are refused first; with `force` they stay,
    /// cut off, until they are reissued elsewhere or the node lets clients in again.
    pub fn unset_ingress(&self, net: &str, node: &str, force: bool) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        if node.ingress.is_none() {
            return Err(ClientError::NoIngress { node: node.name.clone() }.into());
        }
        self.check_clients_of(node, force)?;
        let changed = Node { ingress: None, ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Refuses what would cut off clients, unless that is wanted.
    pub(super) fn check_clients_of(&self, node: &Node, force: bool) -> Result<(), RegistryError> {
        let clients: Vec<_> = self.clients_at(node).map(|client| client.name.clone()).collect();
        if clients.is_empty() || force {
            return Ok(());
        }
        Err(ClientError::IngressInUse { node: node.name.clone(), clients }.into())
    }

    /// Where clients reach a node: as stated, else at a public address that it has.
    pub fn client_endpoint(&self, node: &Node) -> Option<String> {
        let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.clone());
        stated.or_else(|| self.own_endpoint(node))
    }

    /// An address that a node was configured with, or a public one of its WAN interface. What a STUN server or the
    /// coordinator saw is no such: a NAT router in front lets in only who was called first.
    fn own_endpoint(&self, node: &Node) -> Option<String> {
        let overlay = self.network(node.net)?.prefixes();
        let mut candidates = node.facts.candidates(&overlay).into_iter();
        let serves = |endpoint: &Endpoint| match endpoint.kind {
            EndpointKind::Configured => true,
            EndpointKind::Wan => !is_private(endpoint.addr.ip()),
            _ => false,
        };
        candidates.find(serves).map(|endpoint| endpoint.addr.to_string())
    }

    /// Why clients can't reach a node.
    pub fn unreachable(&self, node: &Node) -> RegistryError {
        let port = if node.facts.port == 0 { 51820 } else { node.facts.port };
        ClientError::NotReachable { node: node.name.clone(), port }.into()
    }

    /// What will surprise about an ingress.
    pub fn ingress_warnings(&self, node: &Node) -> Vec<String> {
        let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.as_ref());
        let private =
            stated.and_then(|text| text.parse::<SocketAddr>().ok()).filter(|at| is_private(at.ip()));
        let say = |at: SocketAddr| {
            format!("{at} is a private address: clients of {} reach it from near there only", node.name)
        };
        private.map(say).into_iter().collect()
    }

    /// The block that was asked for, else the one that the node has or had, else a free one.
    fn block(
        &self,
        node: &Node,
        network: &Network,
        wish: Option<Prefix>,
        ipv4: bool,
    ) -> Result<Prefix, RegistryError> {
        let last = node.blocks.iter().copied().find(|block| block.is_ipv4() == ipv4);
        match (wish, last) {
            (None, Some(last)) => Ok(last),
            (Some(wish), Some(last)) if wish == last => Ok(last),
            (None, None) => network.free_block(ipv4),
            (Some(wish), last) => {
                network.check_block(wish, ipv4)?;
                last.map_or(Ok(()), |last| self.check_unused(node, last))?;
                Ok(wish)
            }
        }
    }

    /// Refuses to take a block away from clients that have addresses in it.
    fn check_unused(&self, node: &Node, block: Prefix) -> Result<(), RegistryError> {
        let seated = |addresses: &Vec<IpAddr>| addresses.iter().any(|addr| block.contains(*addr));
        let clients = self.live_clients(node.net);
        let clients = clients.filter(|client| client.seats.get(&node.id).is_some_and(seated));
        let clients: Vec<_> = clients.map(|client| client.name.clone()).collect();
        if clients.is_empty() {
            return Ok(());
        }
        Err(ClientError::BlockInUse { node: node.name.clone(), block, clients }.into())
    }
}

impl Registry {
    /// `host:port` in one form, or why it can't be where clients reach a node.
    fn checked_endpoint(&self, network: &Network, text: &str) -> Result<String, RegistryError> {
        let bad = |why| {
            RegistryError::from(ClientError::BadEndpoint { text: text.chars().take(80).collect(), why })
        };
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let inside = self
                .all_served(network.id)
                .chain(network.prefixes())
                .any(|prefix| prefix.contains(addr.ip()));
            return match addr {
                _ if addr.port() == 0 => Err(bad("port 0 is none")),
                _ if is_special(addr.ip()) => Err(bad("no client can reach this address")),
                _ if inside => Err(bad(
                    "this address is inside the network or what it serves: packets to it would go into the tunnel they carry",
                )),
                addr => Ok(addr.to_string()),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
        let port = port.ok_or_else(|| bad("the port is no number from 1 to 65535"))?;
        if !is_host_name(host) {
            return Err(bad("the host is neither a name nor an address; IPv6 stands in brackets"));
        }
        Ok(format!("{}:{port}", host.to_ascii_lowercase()))
    }
}

/// RFC 1123; a name of digits alone would be read as an address.
fn is_host_name(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.chars().all(|c| c.is_ascii_digit());
    host.len() <= 253 && !number && host.split('.').all(sound)
}

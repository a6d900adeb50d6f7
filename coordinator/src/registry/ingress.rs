//! Ingress: nodes that let external clients in, and the blocks of their clients' addresses.

use super::{
    ClientError, Network, Node, Outcome, Registry, RegistryError, Row, facts::is_private, network::is_special,
};
use gatewrt_protocol::{Endpoint, EndpointKind, Prefix, Role};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Ingress settings of a node as the registry stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressSetting {
    /// Endpoint for clients, as `host:port`; none means what the node itself reports.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Blocks of the network for its clients' addresses, IPv4 first.
    pub blocks: Vec<Prefix>,
}

/// Spec of an ingress; defaults are chosen for fields that are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IngressSpec {
    /// Endpoint for clients, as `host:port`. Default: a public address of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// IPv4 block for clients. Default: a free /24 of the network's prefix, or less in a small one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub block4: Option<Prefix>,
    /// IPv6 block for clients. Default: a free /112 of the network's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub block6: Option<Prefix>,
}

impl Registry {
    /// Makes a node an ingress, or changes its settings. A node that was an ingress before gets its former
    /// blocks, and with them the clients whose files name it.
    pub fn set_ingress(&self, net: &str, node: &str, spec: &IngressSpec) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let network = self.network(node.net).expect("a live node's network exists");
        if !node.roles.contains(&Role::Ingress) {
            let (code, role) = (node.code.clone(), Role::Ingress);
            return Err(RegistryError::RoleMissing { node: node.name.clone(), role, code });
        }
        let endpoint =
            spec.endpoint.as_deref().map(|text| self.checked_endpoint(network, text)).transpose()?;
        if endpoint.is_none() {
            self.own_endpoint(node).ok_or_else(|| self.unreachable(node))?;
        }
        let mut given = network.clone();
        let block4 = self.block(node, &given, spec.block4, true)?;
        given.blocks.insert(block4);
        let block6 = self.block(node, &given, spec.block6, false)?;
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

    /// Stops a node from being an ingress. Refused while clients' files name it. With `force` these clients
    /// stay, cut off, until they are reissued elsewhere or the node is an ingress again.
    pub fn unset_ingress(&self, net: &str, node: &str, force: bool) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        if node.ingress.is_none() {
            return Err(ClientError::NoIngress { node: node.name.clone() }.into());
        }
        self.check_clients_of(node, force)?;
        let changed = Node { ingress: None, ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Refuses a change that would cut off clients, unless it is forced.
    pub(super) fn check_clients_of(&self, node: &Node, force: bool) -> Result<(), RegistryError> {
        let clients: Vec<_> = self.clients_at(node).map(|client| client.name.clone()).collect();
        if clients.is_empty() || force {
            return Ok(());
        }
        Err(ClientError::IngressInUse { node: node.name.clone(), clients }.into())
    }

    /// Endpoint at which clients reach an ingress node: as configured, else a public address of it.
    pub fn client_endpoint(&self, node: &Node) -> Option<String> {
        let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.clone());
        stated.or_else(|| self.own_endpoint(node))
    }

    /// Endpoint that a node was configured with, or a public address of its WAN interface. An address that a STUN
    /// server or the coordinator saw does not count: a NAT router in front lets only replies in.
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

    /// Error for an ingress node that clients can't reach.
    pub fn unreachable(&self, node: &Node) -> RegistryError {
        let port = if node.facts.port == 0 { 51820 } else { node.facts.port };
        ClientError::NotReachable { node: node.name.clone(), port }.into()
    }

    /// Warnings about an ingress.
    pub fn ingress_warnings(&self, node: &Node) -> Vec<String> {
        let stated = node.ingress.as_ref().and_then(|ingress| ingress.endpoint.as_ref());
        let private =
            stated.and_then(|text| text.parse::<SocketAddr>().ok()).filter(|at| is_private(at.ip()));
        let say = |at: SocketAddr| {
            format!("{at} is a private address: clients of {} reach it from near there only", node.name)
        };
        private.map(say).into_iter().collect()
    }

    /// Block of clients' addresses for a node: the requested one, else the one that the node has or had, else a free
    /// one.
    fn block(
        &self,
        node: &Node,
        network: &Network,
        spec: Option<Prefix>,
        ipv4: bool,
    ) -> Result<Prefix, RegistryError> {
        let last = node.blocks.iter().copied().find(|block| block.is_ipv4() == ipv4);
        match (spec, last) {
            (None, Some(last)) => Ok(last),
            (Some(spec), Some(last)) if spec == last => Ok(last),
            (None, None) => network.free_block(ipv4),
            (Some(spec), last) => {
                network.check_block(spec, ipv4)?;
                last.map_or(Ok(()), |last| self.check_unused(node, last))?;
                Ok(spec)
            }
        }
    }

    /// Refuses to replace a block in which clients of the node have addresses.
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
    /// Checks and normalizes an endpoint for clients (`host:port`); an error says why clients could not reach it.
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

/// True for a host name (RFC 1123). A name of digits alone would be read as an address.
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

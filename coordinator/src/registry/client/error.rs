//! Errors of operations on ingress nodes and external clients.

use gatewrt_protocol::{ClientName, NetworkName, NodeName, Prefix};
use std::net::IpAddr;

/// Refusal of an operation on clients. `Display` says what is wrong and where, [`ClientError::advice`] how to
/// fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The network has no client of this name or id.
    #[error("there is no client “{text}” in network {network}")]
    NoSuchClient {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
        /// Clients of the network.
        known: Vec<ClientName>,
    },
    /// The network has no free block for clients.
    #[error("{prefix} of network {network} has no free block for external clients left")]
    NoBlock {
        /// Name of the network.
        network: NetworkName,
        /// Prefix that is used up.
        prefix: Prefix,
    },
    /// The block is not valid or not free.
    #[error("{block} can't be a block for clients of network {network}: {why}")]
    BadBlock {
        /// Name of the network.
        network: NetworkName,
        /// Block as it was entered.
        block: Prefix,
        /// Reason why the block can't be used.
        why: &'static str,
    },
    /// The block can't be replaced: clients have addresses in it.
    #[error("clients of {node} have addresses in its block {block}: {}", list(clients))]
    BlockInUse {
        /// Name of the node.
        node: NodeName,
        /// Block of the node.
        block: Prefix,
        /// Clients with addresses in it.
        clients: Vec<ClientName>,
    },
    /// The endpoint is not `host:port`, or clients could not reach it.
    #[error("“{text}” can't be where clients reach a node: {why}")]
    BadEndpoint {
        /// Value as it was entered.
        text: String,
        /// Reason why the endpoint can't be used.
        why: &'static str,
    },
    /// The node has no address that clients could reach.
    #[error("node {node} can't be reached from outside: it has no public address that it knows of")]
    NotReachable {
        /// Name of the node.
        node: NodeName,
        /// UDP port of WireGuard on the node.
        port: u16,
    },
    /// The node is no ingress.
    #[error("node {node} lets no external clients in")]
    NoIngress {
        /// Name of the node.
        node: NodeName,
    },
    /// The change would cut off clients.
    #[error("the files of {} client(s) name {node}: {}", clients.len(), list(clients))]
    IngressInUse {
        /// Name of the node.
        node: NodeName,
        /// Clients that would be cut off.
        clients: Vec<ClientName>,
    },
    /// The client has no gateway.
    #[error("client {client} has no gateway")]
    NoGateway {
        /// Name of the client.
        client: ClientName,
        /// Ingress nodes of the network.
        known: Vec<NodeName>,
    },
    /// All addresses of a block were allocated once.
    #[error(
        "block {block} of {node} has no address left: each is given only once, also when its client is gone"
    )]
    BlockFull {
        /// Name of the node.
        node: NodeName,
        /// Block that is used up.
        block: Prefix,
    },
    /// The address can't be allocated to the client.
    #[error("address {address} can't be given to client {client}: {why}")]
    BadAddress {
        /// Address as it was entered.
        address: IpAddr,
        /// Name of the client.
        client: ClientName,
        /// Reason why the address can't be allocated.
        why: String,
    },
    /// The key is or was that of a client.
    #[error("the WireGuard key {} client {client}", if *.dead { "was that of" } else { "is that of" })]
    KeyOfClient {
        /// Name of that client.
        client: ClientName,
        /// Set if that client was deleted or has another key now.
        dead: bool,
    },
    /// The key is or was that of a node.
    #[error("the WireGuard key is that of node {node}")]
    KeyOfNode {
        /// Name of that node.
        node: NodeName,
    },
    /// The text is not valid as a label.
    #[error("a label has at most 64 characters, and no control characters")]
    BadLabel,
    /// There are more items than allowed.
    #[error("too many {what}: {count}")]
    TooMany {
        /// Kind of the items.
        what: &'static str,
        /// Number of items that there would be.
        count: usize,
        /// Largest number that is allowed.
        limit: usize,
    },
    /// The expiry time is in the past.
    #[error("the expiry date {at} (seconds since 1970) is in the past")]
    ExpiryOver {
        /// Time as it was entered.
        at: u64,
    },
    /// The key is not usable.
    #[error("the WireGuard key is no usable key")]
    BadKey,
}

impl ClientError {
    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchClient { .. } => "not-found",
            Self::NoBlock { .. } | Self::BlockFull { .. } => "exhausted",
            Self::BadBlock { .. } => "bad-prefix",
            Self::BlockInUse { .. } | Self::IngressInUse { .. } => "in-use",
            Self::BadEndpoint { .. } => "bad-endpoint",
            Self::NotReachable { .. } => "not-reachable",
            Self::NoIngress { .. } | Self::NoGateway { .. } => "no-ingress",
            Self::BadAddress { .. } => "bad-address",
            Self::KeyOfClient { .. } | Self::KeyOfNode { .. } => "key-known",
            Self::BadLabel => "bad-label",
            Self::TooMany { .. } => "too-many",
            Self::ExpiryOver { .. } => "out-of-range",
            Self::BadKey => "bad-key",
        }
    }

    /// Advice how to fix the error.
    pub fn advice(&self) -> String {
        match self {
            Self::NoSuchClient { known, network, .. } if known.is_empty() => {
                format!("create one with “gatewrt-coordinator client add {network} NAME --gateway NODE”")
            }
            Self::NoSuchClient { known, .. } => format!("clients of this network: {}", list(known)),
            Self::NoBlock { .. } => {
                "name one with --block4 or --block6, or make a network with a larger prefix".into()
            }
            Self::BadBlock { .. } => {
                "name a part of the network's prefix that holds no node and was no block before, for example a /24; or none, and one is chosen".into()
            }
            Self::BlockInUse { .. } => "delete these clients first, or keep the block".into(),
            Self::BadEndpoint { .. } => {
                "for example vpn.example.org:51820, 203.0.113.7:51820 or [2001:db8::7]:51820".into()
            }
            Self::NotReachable { node, port } => format!(
                "state where clients reach it: “ingress set … {node} --endpoint HOST:PORT”, with UDP port {port} of {node} forwarded there by the router in front of it; or choose a node with a public address"
            ),
            Self::NoIngress { node } => format!("let it: “gatewrt-coordinator ingress set … {node}”"),
            Self::IngressInUse { .. } => {
                "move them first (client reissue … --gateway OTHER) or delete them; with --force they stay, cut off until one of these is done or the node lets clients in again".into()
            }
            Self::NoGateway { known, .. } if known.is_empty() => {
                "no node of this network lets clients in yet: “gatewrt-coordinator ingress set … NODE”".into()
            }
            Self::NoGateway { known, .. } => format!("name one that lets clients in: {}", list(known)),
            Self::BlockFull { node, .. } => {
                format!("let another node take clients in, or give {node} a larger block when it has none")
            }
            Self::BadAddress { .. } => "leave it out, and a free one is chosen".into(),
            Self::KeyOfClient { .. } | Self::KeyOfNode { .. } => {
                "a key is used once and never again: make a new pair (wg genkey | tee private.key | wg pubkey)".into()
            }
            Self::BadLabel => "shorten it".into(),
            Self::TooMany { limit, .. } => format!("at most {limit}"),
            Self::ExpiryOver { .. } => "choose a time in the future".into(),
            Self::BadKey => "give the public key: wg pubkey < private.key".into(),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

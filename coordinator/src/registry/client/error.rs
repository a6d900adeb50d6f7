//! Why an operation on ingress nodes or external clients is refused.

use gatewrt_protocol::{ClientName, NetworkName, NodeName, Prefix};
use std::net::IpAddr;

/// See the module. `Display` says what is wrong and where; [`ClientError::advice`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No client of this name or id in the network.
    #[error("there is no client “{text}” in network {network}")]
    NoSuchClient {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
        /// The clients there are.
        known: Vec<ClientName>,
    },
    /// No block for clients is free.
    #[error("{prefix} of network {network} has no free block for external clients left")]
    NoBlock {
        /// The network.
        network: NetworkName,
        /// The prefix that is used up.
        prefix: Prefix,
    },
    /// A block that can't be one.
    #[error("{block} can't be a block for clients of network {network}: {why}")]
    BadBlock {
        /// The network.
        network: NetworkName,
        /// As given.
        block: Prefix,
        /// Why.
        why: &'static str,
    },
    /// A block that clients have addresses in is not taken away.
    #[error("clients of {node} have addresses in its block {block}: {}", list(clients))]
    BlockInUse {
        /// The node.
        node: NodeName,
        /// Its block.
        block: Prefix,
        /// Who has.
        clients: Vec<ClientName>,
    },
    /// Not `host:port`, or nowhere clients could reach.
    #[error("“{text}” can't be where clients reach a node: {why}")]
    BadEndpoint {
        /// As given.
        text: String,
        /// Why.
        why: &'static str,
    },
    /// Clients would not reach the node.
    #[error("node {node} can't be reached from outside: it has no public address that it knows of")]
    NotReachable {
        /// The node.
        node: NodeName,
        /// WireGuard's UDP port there.
        port: u16,
    },
    /// The node lets no clients in.
    #[error("node {node} lets no external clients in")]
    NoIngress {
        /// The node.
        node: NodeName,
    },
    /// Clients would be cut off.
    #[error("the files of {} client(s) name {node}: {}", clients.len(), list(clients))]
    IngressInUse {
        /// The node.
        node: NodeName,
        /// Who would be cut off.
        clients: Vec<ClientName>,
    },
    /// A new client has to come in somewhere.
    #[error("client {client} has no gateway")]
    NoGateway {
        /// The client.
        client: ClientName,
        /// Nodes that let clients in.
        known: Vec<NodeName>,
    },
    /// Every address of a block was given out once.
    #[error(
        "block {block} of {node} has no address left: each is given only once, also when its client is gone"
    )]
    BlockFull {
        /// The node.
        node: NodeName,
        /// Its block.
        block: Prefix,
    },
    /// An address that no client can get.
    #[error("address {address} can't be given to client {client}: {why}")]
    BadAddress {
        /// As given.
        address: IpAddr,
        /// For whom.
        client: ClientName,
        /// Why.
        why: String,
    },
    /// The key is or was a client's.
    #[error("the WireGuard key {} client {client}", if *.dead { "was that of" } else { "is that of" })]
    KeyOfClient {
        /// Whose it is.
        client: ClientName,
        /// Whether that client was deleted or has another key now.
        dead: bool,
    },
    /// The key is or was a node's.
    #[error("the WireGuard key is that of node {node}")]
    KeyOfNode {
        /// Whose it is.
        node: NodeName,
    },
    /// A text that is no label.
    #[error("a label has at most 64 characters, and no control characters")]
    BadLabel,
    /// More than is sensible.
    #[error("too many {what}: {count}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A time that is over.
    #[error("the expiry date {at} (seconds since 1970) is over")]
    ExpiryOver {
        /// As given.
        at: u64,
    },
    /// A key that is none.
    #[error("the WireGuard key is no usable key")]
    BadKey,
}

impl ClientError {
    /// The stable short name, as in [`gatewrt_protocol::Problem::kind`].
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

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::NoSuchClient { known, network, .. } if known.is_empty() => {
                format!("make one with “gatewrt-coordinator client add {network} NAME --gateway NODE”")
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
            Self::ExpiryOver { .. } => "choose a time to come".into(),
            Self::BadKey => "give the public key: wg pubkey < private.key".into(),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

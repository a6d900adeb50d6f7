//! Why an operation is refused: what, where, and what to do about it.

use super::{AccessError, ClientError, CodeId, ExitError, Owner};
use gatewrt_protocol::{NetworkName, NodeName, Prefix, Role};

/// Two prefixes that share addresses, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// What was to be set.
    pub prefix: Prefix,
    /// For whom.
    pub owner: Owner,
    /// What is there.
    pub with: Prefix,
    /// Whose it is.
    pub with_owner: Owner,
}

/// A refused operation. `Display` says what is wrong and where; [`RegistryError::advice`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Of rules and groups.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No network of this name or id.
    #[error("there is no network “{text}”")]
    NoSuchNetwork {
        /// As given.
        text: String,
        /// The networks there are.
        known: Vec<NetworkName>,
    },
    /// No node of this name or id in the network.
    #[error("there is no node “{text}” in network {network}")]
    NoSuchNode {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
        /// The nodes there are.
        known: Vec<NodeName>,
    },
    /// No join code of this id in the network.
    #[error("network {network} has no join code {text}")]
    NoSuchCode {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
    },
    /// No token of this id or name.
    #[error("there is no token “{text}”")]
    NoSuchToken {
        /// As given.
        text: String,
    },
    /// A name that no token may have.
    #[error("this is no name for a token")]
    BadTokenName,
    /// More tokens than there may be.
    #[error("there are {limit} tokens already")]
    TooManyTokens {
        /// The limit.
        limit: usize,
    },
    /// The node does not serve this prefix.
    #[error("node {node} does not serve {prefix}")]
    NotServed {
        /// The node.
        node: NodeName,
        /// The prefix.
        prefix: Prefix,
        /// What it serves.
        served: Vec<Prefix>,
    },
    /// The name is in use.
    #[error("{what} “{name}” exists already")]
    NameTaken {
        /// `a network`, `a node`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two prefixes share addresses.
    #[error("{} ({}) overlaps {} ({})", .0.prefix, .0.owner, .0.with, .0.with_owner)]
    Overlap(Box<Overlap>),
    /// A default route is not an egress.
    #[error("{prefix} is a default route")]
    DefaultRoute {
        /// The prefix.
        prefix: Prefix,
    },
    /// A prefix that can't be used here.
    #[error("{prefix} can't be used here: {why}")]
    BadPrefix {
        /// The prefix.
        prefix: Prefix,
        /// Why.
        why: &'static str,
    },
    /// A value out of range.
    #[error("{what} {value} is out of range")]
    OutOfRange {
        /// Which value.
        what: &'static str,
        /// As given.
        value: u64,
        /// The range.
        range: &'static str,
    },
    /// A network with nodes is not deleted.
    #[error("network {network} still has {} node(s): {}", nodes.len(), list(nodes))]
    NetworkInUse {
        /// The network.
        network: NetworkName,
        /// Its nodes.
        nodes: Vec<NodeName>,
    },
    /// Every address was given out once.
    #[error(
        "{prefix} of network {network} has no address left: each is given only once, also when its node is gone"
    )]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// The prefix that is used up.
        prefix: Prefix,
    },
    /// About clients or their gateways.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// About exits or what goes through them.
    #[error(transparent)]
    Exit(#[from] ExitError),
    /// No default prefix is free.
    #[error("no 10.x.0.0/16 is free for a new network")]
    NoFreePrefix,
    /// No such code was made, or its network is gone.
    #[error("this join code is not known here")]
    CodeUnknown,
    /// The code was used as often as it allows.
    #[error("this join code was used up ({uses} of {uses} uses)")]
    CodeUsed {
        /// Uses allowed.
        uses: u32,
    },
    /// The code's time is over.
    #[error("this join code has expired")]
    CodeExpired,
    /// The admin took the code back.
    #[error("this join code was revoked")]
    CodeRevoked,
    /// A key belongs to another node.
    #[error("the {which} belongs to {} {node} already", if *.removed { "the removed node" } else { "node" })]
    KeyKnown {
        /// `WireGuard key`, `identity key`.
        which: &'static str,
        /// Whose it is.
        node: NodeName,
        /// Whether that node was removed.
        removed: bool,
    },
    /// The keys of a request are no usable keys.
    #[error("the {which} is no usable key")]
    BadKey {
        /// `WireGuard key`, `identity key`.
        which: &'static str,
    },
    /// The node may not take this role.
    #[error("node {node} may not be an {role:?}: the join code {code} it joined with does not allow it")]
    RoleMissing {
        /// The node.
        node: NodeName,
        /// The role.
        role: Role,
        /// The code.
        code: CodeId,
    },
    /// More than one node can carry.
    #[error("node {node} serves {limit} prefixes already")]
    TooManyPrefixes {
        /// The node.
        node: NodeName,
        /// The limit.
        limit: usize,
    },
}

impl RegistryError {
    /// The stable short name, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Access(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Exit(error) => error.kind(),
            Self::NoSuchNetwork { .. } | Self::NoSuchNode { .. } | Self::NoSuchCode { .. } => "not-found",
            Self::NotServed { .. } | Self::NoSuchToken { .. } => "not-found",
            Self::BadTokenName => "bad-name",
            Self::NameTaken { .. } => "name-taken",
            Self::Overlap(_) => "overlap",
            Self::DefaultRoute { .. } => "default-route",
            Self::BadPrefix { .. } => "bad-prefix",
            Self::OutOfRange { .. } => "out-of-range",
            Self::NetworkInUse { .. } => "in-use",
            Self::Exhausted { .. } | Self::NoFreePrefix => "exhausted",
            Self::CodeUnknown => "code-unknown",
            Self::CodeUsed { .. } => "code-used",
            Self::CodeExpired => "code-expired",
            Self::CodeRevoked => "code-revoked",
            Self::KeyKnown { .. } => "key-known",
            Self::BadKey { .. } => "bad-key",
            Self::RoleMissing { .. } => "role-missing",
            Self::TooManyPrefixes { .. } | Self::TooManyTokens { .. } => "too-many",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::Access(error) => error.advice(),
            Self::Client(error) => error.advice(),
            Self::Exit(error) => error.advice(),
            Self::NoSuchNetwork { known, .. } if known.is_empty() => {
                "make one with “gatewrt-coordinator network create NAME”".into()
            }
            Self::NoSuchNetwork { known, .. } => format!("networks here: {}", list(known)),
            Self::NoSuchNode { known, .. } if known.is_empty() => {
                "no router has joined this network yet".into()
            }
            Self::NoSuchNode { known, .. } => format!("nodes of this network: {}", list(known)),
            Self::NoSuchCode { network, .. } => format!("see “gatewrt-coordinator code list {network}”"),
            Self::NoSuchToken { .. } => "see “gatewrt-coordinator token list”".into(),
            Self::BadTokenName => "1 to 64 characters, none of them a control character".into(),
            Self::TooManyTokens { .. } => "revoke those that no one uses".into(),
            Self::NotServed { served, .. } if served.is_empty() => "it serves no prefix".into(),
            Self::NotServed { served, .. } => format!("it serves: {}", list(served)),
            Self::NameTaken { .. } => "choose another name".into(),
            Self::Overlap(_) => {
                "choose a prefix that shares no address with it, or take the other one away first".into()
            }
            Self::DefaultRoute { .. } => {
                "Internet traffic goes through an exit, not an egress: name the prefixes behind the node"
                    .into()
            }
            Self::BadPrefix { .. } => {
                "for example 10.77.0.0/16 or 192.168.10.0/24, fd12:3456:789a::/64".into()
            }
            Self::OutOfRange { range, .. } => format!("allowed: {range}"),
            Self::NetworkInUse { .. } => {
                "remove the nodes first, or use --force to remove them with it".into()
            }
            Self::Exhausted { .. } => {
                "make a network with a larger prefix and have the routers join that".into()
            }
            Self::NoFreePrefix => "name a prefix with --prefix4".into(),
            Self::CodeUnknown => {
                "check that it was copied whole and is of this coordinator, or have a new one made".into()
            }
            Self::CodeUsed { .. } | Self::CodeExpired | Self::CodeRevoked => {
                "have a new one made: gatewrt-coordinator code create NETWORK".into()
            }
            Self::KeyKnown { .. } => {
                "run “gatewrt leave” on the router, which makes new keys, then join again".into()
            }
            Self::BadKey { .. } => "make new keys on the router: “gatewrt leave”, then join again".into(),
            Self::RoleMissing { .. } => {
                "have it join again with a code that does: code create --roles".into()
            }
            Self::TooManyPrefixes { .. } => "join neighbouring prefixes into a shorter one".into(),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

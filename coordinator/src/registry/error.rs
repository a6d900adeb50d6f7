//! Errors of all operations on the registry.

use super::{AccessError, ClientError, CodeId, ExitError, Owner, RecoveryError};
use gatewrt_protocol::{NetworkName, NodeName, Prefix, Role};

/// Overlap: two prefixes that share addresses, and their owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// New prefix.
    pub prefix: Prefix,
    /// Owner of the new prefix.
    pub owner: Owner,
    /// Existing prefix.
    pub with: Prefix,
    /// Owner of the existing prefix.
    pub with_owner: Owner,
}

/// Refusal of an operation on the registry. `Display` says what is wrong and where, [`RegistryError::advice`] how to
/// fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Refused by the checks of rules and groups.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Refused by the checks of strays.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// No network has this name or id.
    #[error("there is no network “{text}”")]
    NoSuchNetwork {
        /// Value as it was entered.
        text: String,
        /// All networks.
        known: Vec<NetworkName>,
    },
    /// No node of the network has this name or id.
    #[error("there is no node “{text}” in network {network}")]
    NoSuchNode {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
        /// Nodes of the network.
        known: Vec<NodeName>,
    },
    /// No join code of the network has this id.
    #[error("network {network} has no join code {text}")]
    NoSuchCode {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
    },
    /// No token has this id or name.
    #[error("there is no token “{text}”")]
    NoSuchToken {
        /// Value as it was entered.
        text: String,
    },
    /// The text is not valid as a token's name.
    #[error("this is not a valid name for a token")]
    BadTokenName,
    /// There are as many tokens as allowed.
    #[error("there are {limit} tokens already")]
    TooManyTokens {
        /// Largest number of tokens.
        limit: usize,
    },
    /// The node does not serve this prefix.
    #[error("node {node} does not serve {prefix}")]
    NotServed {
        /// Name of the node.
        node: NodeName,
        /// Prefix that was named.
        prefix: Prefix,
        /// Prefixes that it serves.
        served: Vec<Prefix>,
    },
    /// The name is in use.
    #[error("{what} “{name}” exists already")]
    NameTaken {
        /// Kind of the object: `a network`, `a node`, `a client`, `a token`.
        what: &'static str,
        /// Name that is in use.
        name: String,
    },
    /// Two prefixes share addresses.
    #[error("{} ({}) overlaps {} ({})", .0.prefix, .0.owner, .0.with, .0.with_owner)]
    Overlap(Box<Overlap>),
    /// The prefix is a default route, which no egress can serve.
    #[error("{prefix} is a default route")]
    DefaultRoute {
        /// Prefix as it was entered.
        prefix: Prefix,
    },
    /// The prefix can't be used here.
    #[error("{prefix} can't be used here: {why}")]
    BadPrefix {
        /// Prefix as it was entered.
        prefix: Prefix,
        /// Reason why the prefix can't be used.
        why: &'static str,
    },
    /// The value is out of range.
    #[error("{what} {value} is out of range")]
    OutOfRange {
        /// Name of the value.
        what: &'static str,
        /// Value as it was entered.
        value: u64,
        /// Allowed range.
        range: &'static str,
    },
    /// The network still has nodes.
    #[error("network {network} still has {} node(s): {}", nodes.len(), list(nodes))]
    NetworkInUse {
        /// Name of the network.
        network: NetworkName,
        /// Nodes of the network.
        nodes: Vec<NodeName>,
    },
    /// All addresses of the network were allocated once.
    #[error(
        "{prefix} of network {network} has no address left: each is given only once, also when its node is gone"
    )]
    Exhausted {
        /// Name of the network.
        network: NetworkName,
        /// Prefix that is used up.
        prefix: Prefix,
    },
    /// Refused by the checks of clients and their gateways.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Refused by the checks of exits and scopes.
    #[error(transparent)]
    Exit(#[from] ExitError),
    /// No default prefix is free.
    #[error("no 10.x.0.0/16 is free for a new network")]
    NoFreePrefix,
    /// The join code is unknown, or its network was deleted.
    #[error("this join code is unknown here")]
    CodeUnknown,
    /// The join code is used up.
    #[error("this join code was used up ({uses} of {uses} uses)")]
    CodeUsed {
        /// Number of uses that it allows.
        uses: u32,
    },
    /// The join code has expired.
    #[error("this join code has expired")]
    CodeExpired,
    /// An admin revoked the join code.
    #[error("this join code was revoked")]
    CodeRevoked,
    /// The key belongs to another node.
    #[error("the {which} belongs to {} {node} already", if *.removed { "the removed node" } else { "node" })]
    KeyKnown {
        /// Kind of the key: `WireGuard key` or `identity key`.
        which: &'static str,
        /// Name of that node.
        node: NodeName,
        /// Set if that node was removed.
        removed: bool,
    },
    /// A key in the request is not usable.
    #[error("the {which} is no usable key")]
    BadKey {
        /// Kind of the key: `WireGuard key` or `identity key`.
        which: &'static str,
    },
    /// The node's join code does not allow this role.
    #[error("node {node} may not be an {role:?}: the join code {code} it joined with does not allow it")]
    RoleMissing {
        /// Name of the node.
        node: NodeName,
        /// Role that is missing.
        role: Role,
        /// Join code that the node joined with.
        code: CodeId,
    },
    /// The node serves as many prefixes as allowed.
    #[error("node {node} serves {limit} prefixes already")]
    TooManyPrefixes {
        /// Name of the node.
        node: NodeName,
        /// Largest number of prefixes.
        limit: usize,
    },
}

impl RegistryError {
    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Access(error) => error.kind(),
            Self::Recovery(error) => error.kind(),
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

    /// Advice how to fix the error.
    pub fn advice(&self) -> String {
        match self {
            Self::Access(error) => error.advice(),
            Self::Recovery(error) => error.advice(),
            Self::Client(error) => error.advice(),
            Self::Exit(error) => error.advice(),
            Self::NoSuchNetwork { known, .. } if known.is_empty() => {
                "create one with “gatewrt-coordinator network create NAME”".into()
            }
            Self::NoSuchNetwork { known, .. } => format!("networks here: {}", list(known)),
            Self::NoSuchNode { known, .. } if known.is_empty() => {
                "no router has joined this network yet".into()
            }
            Self::NoSuchNode { known, .. } => format!("nodes of this network: {}", list(known)),
            Self::NoSuchCode { network, .. } => format!("see “gatewrt-coordinator code list {network}”"),
            Self::NoSuchToken { .. } => "see “gatewrt-coordinator token list”".into(),
            Self::BadTokenName => "1 to 64 characters, none of them a control character".into(),
            Self::TooManyTokens { .. } => "revoke unused ones".into(),
            Self::NotServed { served, .. } if served.is_empty() => "it serves no prefix".into(),
            Self::NotServed { served, .. } => format!("it serves: {}", list(served)),
            Self::NameTaken { .. } => "choose another name".into(),
            Self::Overlap(_) => {
                "choose a prefix that shares no address with it, or remove the other one first".into()
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
                "check that it was copied completely and is of this coordinator, or create a new one".into()
            }
            Self::CodeUsed { .. } | Self::CodeExpired | Self::CodeRevoked => {
                "create a new one: gatewrt-coordinator code create NETWORK".into()
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

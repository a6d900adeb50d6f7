//! Errors of operations on exits and scopes.

use gatewrt_protocol::{NodeName, Prefix, Tag, Traffic, exit::TrafficError, name::NameError};
use std::fmt;

/// Scope that uses an exit, with its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Node of the scope.
    pub node: NodeName,
    /// Name of the scope.
    pub scope: Tag,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.scope, self.node)
    }
}

/// Refusal of an operation on exits or scopes. `Display` says what is wrong and where, [`ExitError::advice`]
/// how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitError {
    /// The node is no exit.
    #[error("node {node} is no exit")]
    NotAnExit {
        /// Name of the node.
        node: NodeName,
        /// Exits of the network.
        known: Vec<NodeName>,
    },
    /// A node can't be its own exit.
    #[error("node {node} can't be its own exit")]
    Itself {
        /// Name of the node.
        node: NodeName,
    },
    /// The spec asks for neither IPv4 nor IPv6.
    #[error("an exit needs IPv4 or IPv6")]
    NothingWanted {
        /// Name of the node.
        node: NodeName,
    },
    /// The change would leave scopes without an exit.
    #[error("{} scope(s) send their traffic through {node}: {}", users.len(), list(users))]
    ExitInUse {
        /// Name of the exit.
        node: NodeName,
        /// Scopes that use it.
        users: Vec<User>,
    },
    /// The node has no scope of this name.
    #[error("node {node} has no scope “{text}”")]
    NoSuchScope {
        /// Value as it was entered.
        text: String,
        /// Name of the node.
        node: NodeName,
        /// Scopes of the node.
        known: Vec<Tag>,
    },
    /// The text is not valid as a scope's name.
    #[error("this is not a valid name for a scope: {0}")]
    BadName(NameError),
    /// The text is not valid as traffic.
    #[error(transparent)]
    BadTraffic(#[from] TrafficError),
    /// The scope names no traffic.
    #[error("scope {scope} names no traffic")]
    NoTraffic {
        /// Name of the scope.
        scope: Tag,
    },
    /// The scope names no exit, and `auto` is off.
    #[error("scope {scope} names no exit")]
    NoExit {
        /// Name of the scope.
        scope: Tag,
    },
    /// Another scope has the same traffic.
    #[error("{traffic} of {node} is in scope {other} already")]
    Twice {
        /// Name of the node.
        node: NodeName,
        /// Traffic that both name.
        traffic: Traffic,
        /// The other scope.
        other: Tag,
    },
    /// The excluded prefix covers all traffic.
    #[error("{prefix} can't be excluded: that is all traffic")]
    AllExcluded {
        /// Prefix as it was entered.
        prefix: Prefix,
    },
}

impl ExitError {
    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAnExit { .. } => "not-an-exit",
            Self::Itself { .. } => "exit-itself",
            Self::NothingWanted { .. } | Self::NoExit { .. } => "no-exit",
            Self::ExitInUse { .. } => "in-use",
            Self::NoSuchScope { .. } => "not-found",
            Self::BadName(_) => "bad-name",
            Self::BadTraffic(_) | Self::NoTraffic { .. } => "bad-traffic",
            Self::Twice { .. } => "overlap",
            Self::AllExcluded { .. } => "default-route",
        }
    }

    /// Advice how to fix the error.
    pub fn advice(&self) -> String {
        match self {
            Self::NotAnExit { node, known } if known.is_empty() => {
                format!("no node of this network is one yet: “gatewrt-coordinator exit set … {node}”")
            }
            Self::NotAnExit { node, known } => format!(
                "name one that is: {}; or make it one: “gatewrt-coordinator exit set … {node}”",
                list(known)
            ),
            Self::Itself { .. } => "name another node".into(),
            Self::NothingWanted { .. } => "leave one of them on, or switch the exit off".into(),
            Self::ExitInUse { .. } => {
                "give them another exit first (exit-client set … --exit OTHER) or delete them; with --force their traffic is dropped, or goes out over the WAN where the kill switch is off, until one of these is done".into()
            }
            Self::NoSuchScope { node, known, .. } if known.is_empty() => format!(
                "all Internet traffic of {node} goes out over its WAN; make a scope with “gatewrt-coordinator exit-client set … {node} NAME --of TRAFFIC”"
            ),
            Self::NoSuchScope { known, .. } => format!("its scopes: {}", list(known)),
            Self::BadName(_) => "for example guests or tv".into(),
            Self::BadTraffic(_) | Self::NoTraffic { .. } => {
                "for example 192.168.7.0/24, 192.168.7.9, dev:br-guest, router or all".into()
            }
            Self::NoExit { .. } => "name exits with --exit, or have the nearest chosen with --auto".into(),
            Self::Twice { .. } => {
                "remove it there first, or name less here: a longer prefix takes precedence over a shorter one"
                    .into()
            }
            Self::AllExcluded { .. } => "delete the scope instead: “exit-client unset”".into(),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

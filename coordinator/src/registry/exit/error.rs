//! Why an operation on exits or on what goes through them is refused.

use gatewrt_protocol::{NodeName, Prefix, Tag, Traffic, exit::TrafficError, name::NameError};
use std::fmt;

/// A scope of a node, as one that uses an exit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Whose traffic.
    pub node: NodeName,
    /// Which of it.
    pub scope: Tag,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.scope, self.node)
    }
}

/// See the module. `Display` says what is wrong and where; [`ExitError::advice`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitError {
    /// The node takes no one's Internet traffic.
    #[error("node {node} is no exit")]
    NotAnExit {
        /// The node.
        node: NodeName,
        /// Nodes that are.
        known: Vec<NodeName>,
    },
    /// A router's traffic does not go through itself.
    #[error("node {node} can't be its own exit")]
    Itself {
        /// The node.
        node: NodeName,
    },
    /// Neither IPv4 nor IPv6.
    #[error("an exit for neither IPv4 nor IPv6 is none")]
    NothingWanted {
        /// The node.
        node: NodeName,
    },
    /// Traffic would have no exit any more.
    #[error("{} scope(s) send their traffic through {node}: {}", users.len(), list(users))]
    ExitInUse {
        /// The exit.
        node: NodeName,
        /// Who would be cut off.
        users: Vec<User>,
    },
    /// No scope of this name.
    #[error("node {node} has no scope “{text}”")]
    NoSuchScope {
        /// As given.
        text: String,
        /// The node.
        node: NodeName,
        /// The scopes it has.
        known: Vec<Tag>,
    },
    /// A name that no scope can have.
    #[error("this is no name for a scope: {0}")]
    BadName(NameError),
    /// A text that names no traffic.
    #[error(transparent)]
    BadTraffic(#[from] TrafficError),
    /// Nothing that would go through an exit.
    #[error("scope {scope} names no traffic")]
    NoTraffic {
        /// The scope.
        scope: Tag,
    },
    /// A scope that no exit is named for, and none is to be chosen for.
    #[error("scope {scope} names no exit")]
    NoExit {
        /// The scope.
        scope: Tag,
    },
    /// Two scopes want the same traffic.
    #[error("{traffic} of {node} is in scope {other} already")]
    Twice {
        /// The node.
        node: NodeName,
        /// What both name.
        traffic: Traffic,
        /// The other one.
        other: Tag,
    },
    /// A prefix that is not at the node.
    #[error("{prefix} is no LAN of {node}")]
    NoLan {
        /// The node.
        node: NodeName,
        /// As given.
        prefix: Prefix,
        /// What it has.
        lans: Vec<Prefix>,
    },
    /// Excluding everything.
    #[error("{prefix} can't be excluded: that is all traffic")]
    AllExcluded {
        /// As given.
        prefix: Prefix,
    },
}

impl ExitError {
    /// The stable short name, as in [`gatewrt_protocol::Problem::kind`].
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
            Self::NoLan { .. } => "not-its-lan",
            Self::AllExcluded { .. } => "default-route",
        }
    }

    /// What to do about it.
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
                "give them another exit first (exit-client set … --exit OTHER) or take them away; with --force their traffic goes nowhere, or out over the WAN where the kill switch is off, until one of these is done".into()
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
                "take it out there first, or name less here: of a prefix and a longer one in it, the longer wins"
                    .into()
            }
            Self::NoLan { lans, .. } if lans.is_empty() => "it has none that it knows of".into(),
            Self::NoLan { lans, .. } => format!("what it has: {}", list(lans)),
            Self::AllExcluded { .. } => "take the scope away instead: “exit-client unset”".into(),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

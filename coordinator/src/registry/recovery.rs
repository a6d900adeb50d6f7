//! Recovery of a coordinator that was set back, as by restoring a backup. Its nodes refuse what is older than what they
//! have, and tell it of records that it signed itself since. From these it learns who was removed or disabled meanwhile,
//! and of whom it does not know any more: these are [`super::Stray`]s, until an admin adopts them or cuts them off.

use super::{Changes, Network, Node, Outcome, Registry, Row};
use gatewrt_protocol::{Access, NetworkId, NodeId, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Largest number of findings that are kept.
const FINDINGS: usize = 500;
/// Number of node addresses that are not given out after a restore: nodes that joined after the backup may have them, and
/// sleep. A small network leaves out a 16th of its addresses.
const SKIPPED: u64 = 512;

/// Recovery of the coordinator after it was set back, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Time at which the backup was restored, or the first node told of something newer, in seconds since 1970.
    pub at: u64,
    /// Time of the backup, in seconds since 1970; none if no backup was restored by command.
    #[serde(default)]
    pub backup_at: Option<u64>,
    /// Nodes whose state since the backup is not known yet: what is assigned to them waits until they have reported. None
    /// before the first start after a restore.
    #[serde(default)]
    pub waiting: Option<BTreeSet<NodeId>>,
    /// Nodes that told of records newer than the coordinator's.
    #[serde(default)]
    pub helped: BTreeSet<NodeId>,
    /// Findings, in words for an admin.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Access rules that nodes had, and that are stricter than those of the coordinator: they keep to both until an admin
    /// accepts the latter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<NodeId, Access>,
}

impl Recovery {
    fn handle_heard(&mut self, node: NodeId) {
        if let Some(waiting) = &mut self.waiting {
            waiting.remove(&node);
        }
    }

    /// Adds findings, unless there are too many.
    pub(super) fn find(&mut self, findings: impl Iterator<Item = Finding>) {
        self.findings.extend(findings.take(FINDINGS.saturating_sub(self.findings.len())));
    }

    /// Lets a node keep to access rules that it had, or not any more.
    pub(super) fn keep_rules(&mut self, node: NodeId, access: Option<&Access>) {
        match access {
            Some(access) => _ = self.rules.insert(node, access.clone()),
            None => _ = self.rules.remove(&node),
        }
    }
}

/// Finding of a recovery: what had happened after the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// Time of the finding, in seconds since 1970.
    pub at: u64,
    /// Finding in words for an admin.
    pub what: String,
}

/// Refusal of an operation of the recovery, or on a stray.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// No stray has this id.
    #[error("there is no stray “{id}”")]
    NoSuchStray {
        /// Value as it was entered.
        id: String,
        /// Ids of all strays.
        known: Vec<String>,
    },
    /// The stray node has not connected yet, so that its identity key is not known.
    #[error("{name} has not connected since the backup was restored")]
    Unheard {
        /// Name of the node.
        name: NodeName,
    },
    /// The network of the stray is not known either.
    #[error("its network {net} is not known either")]
    NoNetwork {
        /// Id of the network.
        net: NetworkId,
    },
    /// The keys of the stray are another's by now.
    #[error("its keys are those of {by} by now")]
    KeysTaken {
        /// Name of the node or client that has them.
        by: String,
    },
    /// The keys are those of a stray.
    #[error(
        "these keys are those of {id}, which came after the backup that this coordinator was restored from"
    )]
    KeyOfStray {
        /// Id of the stray.
        id: String,
    },
    /// The node does not keep to earlier access rules.
    #[error("“{node}” keeps to no access rules from before the coordinator was set back")]
    NoRules {
        /// Value as it was entered.
        node: String,
        /// Nodes that do.
        known: Vec<String>,
    },
    /// A client is to be adopted without a name: its gateway does not know any.
    #[error("a client needs a name to be adopted")]
    Unnamed,
    /// The name is not valid.
    #[error("“{name}” is not a valid name: {why}")]
    BadName {
        /// Value as it was entered.
        name: String,
        /// Reason why it is not valid.
        why: String,
    },
}

impl RecoveryError {
    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchStray { .. } => "not-found",
            Self::Unheard { .. } => "not-reachable",
            Self::NoNetwork { .. } | Self::NoRules { .. } => "not-found",
            Self::KeysTaken { .. } | Self::KeyOfStray { .. } => "key-known",
            Self::Unnamed | Self::BadName { .. } => "bad-name",
        }
    }

    /// Advice how to fix the error.
    pub fn advice(&self) -> String {
        match self {
            Self::NoSuchStray { known, .. } if known.is_empty() => "every node and client is known".into(),
            Self::NoSuchStray { known, .. } => format!("strays: {}", known.join(", ")),
            Self::Unheard { .. } => "adopt it when it is online, or cut it off".into(),
            Self::NoNetwork { .. } => {
                "it was created after the backup, or deleted: cut the stray off; to have it back, create it anew, and have its routers join again"
                    .into()
            }
            Self::KeysTaken { .. } => {
                "it has joined or was added anew: cut the stray off, which leaves that alone".into()
            }
            Self::KeyOfStray { id } => {
                format!("adopt it: gatewrt-coordinator recovery adopt {id}; or make new keys, on a router by “gatewrt leave”")
            }
            Self::NoRules { known, .. } if known.is_empty() => "no node does".into(),
            Self::NoRules { known, .. } => format!("nodes that do, by name or id: {}", known.join(", ")),
            Self::Unnamed => "add --name NAME".into(),
            Self::BadName { .. } => "1 to 63 characters of a-z, 0-9 and “-”".into(),
        }
    }
}

impl Registry {
    /// Recovery of the coordinator, if it was ever set back.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// True if the assignment of a node has to wait until the node has reported.
    pub fn is_awaited(&self, node: NodeId) -> bool {
        let waiting = self.recovery().and_then(|recovery| recovery.waiting.as_ref());
        waiting.is_some_and(|all| all.contains(&node)) && self.live_node(node).is_some()
    }

    /// Begins the recovery at the first start after a backup was restored: all nodes are awaited, and addresses that were
    /// given out since are skipped.
    pub fn begin_recovery(&self) -> Changes {
        let Some(recovery) = self.recovery().filter(|recovery| recovery.waiting.is_none()) else {
            return Vec::new();
        };
        let waiting = self.nodes().filter(|node| node.is_live()).map(|node| node.id).collect();
        let skipped = |network: &Network| {
            let next = network.next + SKIPPED.min(Self::node_addresses(network) / 16);
            Row::Network(network.id, Some(Network { next, ..network.clone() }))
        };
        let mut rows: Vec<Row> = self.networks().map(skipped).collect();
        rows.push(Row::Recovery(Some(Recovery { waiting: Some(waiting), ..recovery.clone() })));
        rows
    }

    /// Notes that a node has nothing newer than this registry: what is assigned to it need not wait any more.
    pub fn handle_heard(&self, node: NodeId) -> Changes {
        let Some(recovery) = self.recovery().filter(|_| self.is_awaited(node)) else { return Vec::new() };
        let mut recovery = recovery.clone();
        recovery.handle_heard(node);
        vec![Row::Recovery(Some(recovery))]
    }

    /// Notes that a node told of something newer, and what was found by it. Once it told of its own assignment, that need
    /// not wait any more, and it keeps to the access rules of it that are stated.
    pub(crate) fn handle_told(
        &self,
        from: NodeId,
        own: Option<Option<&Access>>,
        findings: Vec<String>,
        now: u64,
    ) -> Changes {
        let before = self.recovery();
        let mut recovery = before.cloned().unwrap_or_else(|| Recovery {
            at: now,
            waiting: Some(BTreeSet::new()),
            ..Recovery::default()
        });
        recovery.helped.insert(from);
        if let Some(rules) = own {
            recovery.handle_heard(from);
            recovery.keep_rules(from, rules);
        }
        recovery.find(findings.into_iter().map(|what| Finding { at: now, what }));
        if before == Some(&recovery) { Vec::new() } else { vec![Row::Recovery(Some(recovery))] }
    }

    /// Lets a node go by the rules of this registry alone, not by those as well that it had before the coordinator was set
    /// back.
    pub fn accept_rules(&self, node: &str) -> Outcome<NodeId> {
        let kept: Vec<&Node> = self.kept_rules().map(|(node, _)| node).collect();
        let by_id = kept.iter().find(|kept| kept.id.to_string() == node);
        let by_name = || {
            let mut named = kept.iter().filter(|kept| kept.name.as_str() == node);
            named.next().filter(|_| named.next().is_none())
        };
        let missing = || RecoveryError::NoRules {
            node: node.chars().take(80).collect(),
            known: kept.iter().map(|node| format!("{} ({})", node.name, node.id)).collect(),
        };
        let id = by_id.or_else(by_name).ok_or_else(missing)?.id;
        let mut recovery = self.recovery().cloned().unwrap_or_default();
        recovery.keep_rules(id, None);
        Ok((vec![Row::Recovery(Some(recovery))], id))
    }

    /// Nodes that keep to access rules that they had before the coordinator was set back, beside those of this registry.
    pub fn kept_rules(&self) -> impl Iterator<Item = (&Node, &Access)> {
        let rules = self.recovery().into_iter().flat_map(|recovery| &recovery.rules);
        rules.filter_map(|(node, access)| Some((self.live_node(*node)?, access)))
    }

    /// Access rules that a node had before the coordinator was set back, and keeps to.
    pub fn rules_kept_by(&self, node: NodeId) -> Option<&Access> {
        self.recovery()?.rules.get(&node)
    }

    /// Number of addresses that nodes of a network can have.
    fn node_addresses(network: &Network) -> u64 {
        1u64 << (32 - network.prefix4.len()).min(32)
    }
}

//! Values of the HTTP API, and their conversion from the state. Pure.

mod clients;
mod egress;
mod exits;
mod recovery;
mod removed;
mod rules;
mod tokens;

pub use clients::*;
pub use egress::*;
pub use exits::*;
pub use recovery::*;
pub use removed::*;
pub use rules::*;
pub use tokens::*;

use crate::{
    broker::{ByKind, Sessions},
    controller::ControllerState,
    registry::{CONFIRM_S, Code, CodeState, Network, Node},
};
use gatewrt_protocol::{
    Endpoint, NetworkId, NetworkName, NodeId, NodeName, Prefix, Report, Role, Tag, Topic, Verdict,
    WgPublicKey,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use utoipa::ToSchema;

/// Network as the API shows it: its settings and the number of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Id of the network.
    #[schema(value_type = String)]
    pub id: NetworkId,
    /// Name of the network.
    #[schema(value_type = String)]
    pub name: NetworkName,
    /// IPv4 prefix of the overlay.
    #[schema(value_type = String)]
    pub prefix4: Prefix,
    /// IPv6 prefix of the overlay.
    #[schema(value_type = String)]
    pub prefix6: Prefix,
    /// MTU in bytes.
    pub mtu: u16,
    /// Keepalive interval in seconds; 0 for none.
    pub keepalive: u16,
    /// DNS domain.
    pub domain: String,
    /// Verdict on connections that match no rule.
    #[schema(value_type = String)]
    pub access: Verdict,
    /// Resolvers for external clients.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Number of its nodes.
    pub nodes: usize,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Warnings about the network that was created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl NetworkView {
    /// Creates the view of a network.
    pub fn of(state: &ControllerState, network: &Network) -> Self {
        Self {
            id: network.id,
            name: network.name.clone(),
            prefix4: network.prefix4,
            prefix6: network.prefix6,
            mtu: network.mtu,
            keepalive: network.keepalive,
            domain: network.domain.clone(),
            access: network.access,
            dns: network.dns.clone(),
            nodes: state.registry.live_nodes(network.id).count(),
            created: network.created,
            warnings: Vec::new(),
        }
    }

    /// Creates the view of a network, with warnings about its prefixes.
    pub fn with_warnings(state: &ControllerState, network: &Network) -> Self {
        Self { warnings: state.registry.network_warnings(network), ..Self::of(state, network) }
    }
}

/// Join code as the API shows it, with its state and its uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeView {
    /// Id that an admin refers to it by.
    pub id: String,
    /// Number of routers that may join with it.
    pub uses: u32,
    /// Number of routers that have joined with it.
    pub used: u32,
    /// Seconds until it expires; 0 when it has.
    pub expires_in: u64,
    /// Roles of nodes that join with it.
    #[schema(value_type = BTreeSet<String>)]
    pub roles: BTreeSet<Role>,
    /// State: `usable`, `used`, `expired` or `revoked`.
    pub state: CodeState,
    /// The code itself, only in the answer that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl CodeView {
    /// Creates the view of a join code at `now`, in seconds since 1970.
    pub fn of(code: &Code, now: u64) -> Self {
        Self {
            id: code.id.to_string(),
            uses: code.uses,
            used: code.used,
            expires_in: if code.expired.is_some() { 0 } else { code.expires.saturating_sub(now) },
            roles: code.roles.clone(),
            state: code.state(now),
            code: None,
        }
    }
}

/// Node as the API shows it: its settings, its roles and the facts that it reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Id of the node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Network it belongs to.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// Name of the node.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// Label for people: any text.
    pub label: String,
    /// Tags that rules can select it by.
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
    /// WireGuard public key.
    #[schema(value_type = String)]
    pub key: WgPublicKey,
    /// Overlay addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Endpoints at which others try to reach it, best first.
    #[schema(value_type = Vec<Object>)]
    pub endpoints: Vec<Endpoint>,
    /// Prefixes that it serves.
    pub egress: Vec<EgressView>,
    /// Ingress settings, if it lets external clients in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressView>,
    /// Exit settings, if it forwards Internet traffic of other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
    /// Scopes: Internet traffic of its own that goes through other nodes.
    #[serde(default)]
    pub scopes: Vec<ScopeView>,
    /// Scopes that the router's owner has configured on the router itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_scopes: Vec<OwnScopeView>,
    /// Change that the node rolled back, because its control link was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBackView>,
    /// Seconds to confirm a change, until the node rolls it back.
    #[serde(default)]
    pub confirm_s: u16,
    /// Roles that it may take.
    #[schema(value_type = BTreeSet<String>)]
    pub roles: BTreeSet<Role>,
    /// Board name of the router.
    pub board: String,
    /// Version of the daemon.
    pub version: String,
    /// Time when it joined, in seconds since 1970.
    pub joined: u64,
    /// Revision of its member record.
    pub rev: u64,
    /// Warnings about the change that was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl NodeView {
    /// Creates the view of a node that was not removed.
    pub fn of(state: &ControllerState, node: &Node) -> Self {
        let network = state.registry.network(node.net).expect("a live node's network exists");
        Self {
            id: node.id,
            network: network.name.clone(),
            name: node.name.clone(),
            label: node.label.clone(),
            tags: node.tags.clone(),
            key: node.key,
            addresses: node.addresses.clone(),
            endpoints: node.facts.candidates(&network.prefixes()),
            egress: egress_of(node).collect(),
            ingress: node.ingress.as_ref().map(|_| IngressView::of(state, node)),
            exit: node.exit.as_ref().map(|_| ExitView::of(state, node)),
            scopes: ScopeView::all_of(state, node).collect(),
            own_scopes: OwnScopeView::all_of(state, node),
            rolled_back: RolledBackView::of(node),
            confirm_s: node.confirm_s.unwrap_or(CONFIRM_S),
            roles: node.roles.clone(),
            board: node.facts.board.clone(),
            version: node.facts.version.clone(),
            joined: node.joined,
            rev: rev(state, Topic::Member(node.net, node.id)),
            warnings: Vec::new(),
        }
    }

    /// Creates the view of a node, with the warnings that concern it.
    pub fn with_warnings(state: &ControllerState, node: &Node) -> Self {
        let warnings = state.registry.node_warnings(node).into_iter();
        let warnings = warnings.chain(state.registry.ingress_warnings(node));
        let warnings = warnings.chain(state.registry.exit_warnings(node)).collect();
        Self { warnings, ..Self::of(state, node) }
    }
}

/// Current revisions of the policy, the assignment and the roster of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revisions {
    /// Revision of the policy.
    pub policy: u64,
    /// Revision of the assignment.
    pub assignment: u64,
    /// Revision of the roster.
    pub roster: u64,
}

/// Current state of a node: its view, its session, its last report, and how far it has applied its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Spec and facts.
    #[serde(flatten)]
    pub node: NodeView,
    /// Set if it has an MQTT session and reports that it is online.
    pub online: bool,
    /// Source address of its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<SocketAddr>,
    /// Seconds since it went online or offline, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// Current revisions of its records.
    pub current: Revisions,
    /// Set if the node has applied its current policy and assignment without failures, as it reported last.
    pub up_to_date: bool,
    /// Last report since the coordinator's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub report: Option<Report>,
    /// Age of the report in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_age_s: Option<u64>,
    /// Number of its messages that were refused, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Messages delivered to it since the coordinator's start; only while it is connected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub delivered: ByKind,
}

impl NodeStatus {
    /// State of a node that was not removed, at `at`; `sessions` are the nodes with an MQTT session.
    pub fn of(state: &ControllerState, node: &Node, sessions: &Sessions, at: u64) -> Self {
        let now = state.live.now(node.id).cloned().unwrap_or_default();
        let id = node.id.to_string();
        let current = Revisions {
            policy: rev(state, Topic::Policy(node.net)),
            assignment: rev(state, Topic::Assignment(node.id)),
            roster: rev(state, Topic::Roster(node.net)),
        };
        Self {
            node: NodeView::of(state, node),
            online: sessions.contains_key(&id) && now.says_online(),
            from: now.from,
            for_s: (now.since != 0).then(|| at.saturating_sub(now.since)),
            up_to_date: now.report.as_ref().is_some_and(|report| has_applied(report, &current)),
            current,
            report_age_s: now.report.as_ref().map(|_| at.saturating_sub(now.reported)),
            report: now.report,
            refused: now.refused.into_iter().map(|(why, count)| (why.to_owned(), count)).collect(),
            delivered: sessions.get(&id).cloned().unwrap_or_default(),
        }
    }
}

/// True if a report names the current policy and assignment, and no failures: a node does not report a newer roster at
/// once, and missing records are reported as failures.
fn has_applied(report: &Report, current: &Revisions) -> bool {
    let applied = &report.applied;
    let same = applied.policy == current.policy && applied.assignment == current.assignment;
    same && report.failures.is_empty()
}

fn rev(state: &ControllerState, topic: Topic) -> u64 {
    state.published.content(&topic).map_or(0, crate::records::Content::rev)
}

/// Current state of a network: its view, the state of each node, and warnings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// Spec of the network.
    pub network: NetworkView,
    /// Nodes by name.
    pub nodes: Vec<NodeStatus>,
    /// Warnings: allowed, but probably not intended.
    pub warnings: Vec<String>,
}

impl NetworkStatus {
    /// State of a network at `at`; `sessions` are the nodes with an MQTT session.
    pub fn of(state: &ControllerState, network: &Network, sessions: &Sessions, at: u64) -> Self {
        let nodes = state.registry.live_nodes(network.id);
        let mut nodes: Vec<_> = nodes.map(|node| NodeStatus::of(state, node, sessions, at)).collect();
        nodes.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        Self {
            network: NetworkView::of(state, network),
            nodes,
            warnings: state.registry.warnings(network.id),
        }
    }
}

/// Current state of the coordinator and of all its networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the coordinator.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Reason why no change is made, where it is not known what is on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsure: Option<String>,
    /// Recovery in one sentence, if the coordinator was set back; with a token for all networks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// Seconds by which the clock of the coordinator's machine is behind the latest time that it has shown; none while it
    /// is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_behind_s: Option<u64>,
    /// Networks, by name.
    pub networks: Vec<NetworkStatus>,
    /// Removed nodes that have not read yet that they are, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<UntoldView>,
}

/// Answer of the coordinator's health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Status: `ok`, or `storage-unsure` while no change is made, as it is not known what is on the disk.
    pub status: String,
    /// Version of the coordinator.
    pub version: String,
    /// Seconds by which the clock of the coordinator's machine is behind the latest time that it has shown; none while it
    /// is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_behind_s: Option<u64>,
}

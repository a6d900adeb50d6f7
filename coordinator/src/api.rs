//! What the HTTP API and its clients say to each other, and how state becomes answers. Pure.

mod clients;
mod egress;
mod exits;
mod rules;

pub use clients::*;
pub use egress::*;
pub use exits::*;
pub use rules::*;
mod tokens;

pub use tokens::*;

use crate::{
    broker::{ByKind, Sessions},
    desk::State,
    registry::{CONFIRM_S, Code, Network, Node},
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

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: NetworkId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: NetworkName,
    /// IPv4 overlay.
    #[schema(value_type = String)]
    pub prefix4: Prefix,
    /// IPv6 overlay.
    #[schema(value_type = String)]
    pub prefix6: Prefix,
    /// In bytes.
    pub mtu: u16,
    /// In seconds; 0 for none.
    pub keepalive: u16,
    /// DNS domain.
    pub domain: String,
    /// What becomes of connections that no rule fits.
    #[schema(value_type = String)]
    pub access: Verdict,
    /// Resolvers that external clients are told of.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// How many nodes it has.
    pub nodes: usize,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl NetworkView {
    /// The view of a network.
    pub fn of(state: &State, network: &Network) -> Self {
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
        }
    }
}

/// A join code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeView {
    /// Names it.
    pub id: String,
    /// How many routers may join with it.
    pub uses: u32,
    /// How many did.
    pub used: u32,
    /// Seconds until it expires; 0 when it has.
    pub expires_in: u64,
    /// What those that join may do.
    #[schema(value_type = BTreeSet<String>)]
    pub roles: BTreeSet<Role>,
    /// `usable`, `used`, `expired`, `revoked`.
    pub state: String,
    /// The code itself; only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl CodeView {
    /// The view of a code.
    pub fn of(code: &Code, now: u64) -> Self {
        Self {
            id: code.id.to_string(),
            uses: code.uses,
            used: code.used,
            expires_in: code.expires.saturating_sub(now),
            roles: code.roles.clone(),
            state: code_state(code, now).to_owned(),
            code: None,
        }
    }
}

fn code_state(code: &Code, now: u64) -> &'static str {
    if code.revoked.is_some() {
        "revoked"
    } else if code.used >= code.uses {
        "used"
    } else if now >= code.expires {
        "expired"
    } else {
        "usable"
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its network.
    #[schema(value_type = String)]
    pub network: NetworkName,
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// What people call it: any text.
    pub label: String,
    /// What rules may speak of it by.
    #[schema(value_type = BTreeSet<String>)]
    pub tags: BTreeSet<Tag>,
    /// WireGuard public key.
    #[schema(value_type = String)]
    pub key: WgPublicKey,
    /// Overlay addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Where others try to reach it, best first.
    #[schema(value_type = Vec<Object>)]
    pub endpoints: Vec<Endpoint>,
    /// What it serves.
    pub egress: Vec<EgressView>,
    /// That it lets external clients in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressView>,
    /// That it takes others' Internet traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitView>,
    /// Which of its own Internet traffic goes through others.
    #[serde(default)]
    pub scopes: Vec<ScopeView>,
    /// Which of it goes through others because it was said on the router itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_scopes: Vec<OwnScopeView>,
    /// What it put into effect and took back, because its control link did not outlive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBackView>,
    /// How long its control link may take to show that it outlived a change, in seconds.
    #[serde(default)]
    pub confirm_s: u16,
    /// What it may do for others.
    #[schema(value_type = BTreeSet<String>)]
    pub roles: BTreeSet<Role>,
    /// What the router is.
    pub board: String,
    /// Of the daemon.
    pub version: String,
    /// When it joined, in seconds since 1970.
    pub joined: u64,
    /// Of its member record.
    pub rev: u64,
    /// What will surprise about a change that was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl NodeView {
    /// The view of a live node.
    pub fn of(state: &State, node: &Node) -> Self {
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
            taken_back: TakenBackView::of(node),
            confirm_s: node.confirm_s.unwrap_or(CONFIRM_S),
            roles: node.roles.clone(),
            board: node.facts.board.clone(),
            version: node.facts.version.clone(),
            joined: node.joined,
            rev: rev(state, Topic::Member(node.net, node.id)),
            warnings: Vec::new(),
        }
    }

    /// The same with the warnings about its network that name it.
    pub fn with_warnings(state: &State, node: &Node) -> Self {
        let name = node.name.as_str();
        let names_it = |warning: &String| warning.split([' ', ':']).any(|word| word == name);
        let warnings = state.registry.warnings(node.net).into_iter().filter(names_it);
        let warnings = warnings.chain(state.registry.ingress_warnings(node));
        let warnings = warnings.chain(state.registry.exit_warnings(node)).collect();
        Self { warnings, ..Self::of(state, node) }
    }
}

/// Revisions of the records that concern one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revisions {
    /// Of the policy.
    pub policy: u64,
    /// Of the node's assignment.
    pub assignment: u64,
    /// Of the roster.
    pub roster: u64,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// What is wanted of it and known of it.
    #[serde(flatten)]
    pub node: NodeView,
    /// Whether it has an MQTT session and said that it is there.
    pub online: bool,
    /// Where its session comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<SocketAddr>,
    /// For how many seconds it has been online or offline, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// What it is to have applied.
    pub current: Revisions,
    /// Whether its last report says that it has.
    pub up_to_date: bool,
    /// Its last report since the coordinator's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub report: Option<Report>,
    /// How old that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_age_s: Option<u64>,
    /// Messages of it that were refused, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// What the broker delivered to it, since the coordinator's start; only while it is connected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub delivered: ByKind,
}

impl NodeStatus {
    /// The status of a live node; `sessions` are the nodes with an MQTT session.
    pub fn of(state: &State, node: &Node, sessions: &Sessions, at: u64) -> Self {
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

/// A newer roster is no news that a node would report at once; one that records are missing for is a failure.
fn has_applied(report: &Report, current: &Revisions) -> bool {
    let applied = &report.applied;
    let same = applied.policy == current.policy && applied.assignment == current.assignment;
    same && report.failures.is_empty()
}

fn rev(state: &State, topic: Topic) -> u64 {
    state.ledger.content(&topic).map_or(0, crate::records::Content::rev)
}

/// How a network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// The network.
    pub network: NetworkView,
    /// Its nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// What will surprise.
    pub warnings: Vec<String>,
}

impl NetworkStatus {
    /// The status of a network; `sessions` are the nodes with an MQTT session.
    pub fn of(state: &State, network: &Network, sessions: &Sessions, at: u64) -> Self {
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

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the coordinator.
    pub version: String,
    /// Since its start, in seconds.
    pub uptime_s: u64,
    /// Networks, by name.
    pub networks: Vec<NetworkStatus>,
}

/// That the coordinator is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Of the coordinator.
    pub version: String,
}

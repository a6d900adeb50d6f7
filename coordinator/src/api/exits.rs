//! API values of exits and scopes.

pub use crate::registry::{ExitSpec, Ipv6, ScopeSpec};

use crate::{
    controller::ControllerState,
    records::Content,
    registry::{Node, Registry, ScopeSetting},
};
use gatewrt_protocol::{
    ExitOffer, NodeId, NodeName, PeerReport, Prefix, Report, ScopeReport, ScopeState, Tag, Topic,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use utoipa::ToSchema;

/// Exit as the API shows it: a node that forwards Internet traffic of others, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Set if an admin has made it an exit.
    pub enabled: bool,
    /// Set if it forwards to the IPv4 Internet now, or would.
    pub v4: bool,
    /// Set if it forwards to the IPv6 Internet now, or would.
    pub v6: bool,
    /// Resolvers to ask through it.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Set if IPv4 is requested.
    pub v4_wanted: bool,
    /// Set if IPv6 is requested.
    pub v6_wanted: bool,
    /// Resolvers that an admin named; empty means those that it offers.
    #[schema(value_type = Vec<String>)]
    pub dns_wanted: Vec<IpAddr>,
    /// Set if its owner allows it, as it reported last; none if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// Reason why it is no exit, or less of one than requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Scopes that go through it now or name it.
    pub used_by: Vec<ExitUser>,
}

/// Scope that names an exit or goes through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitUser {
    /// Node whose traffic it is.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Name of the scope.
    #[schema(value_type = String)]
    pub scope: Tag,
    /// Set if it goes through this exit now, as its node reported last.
    pub now: bool,
}

/// Scope as the API shows it: Internet traffic of a node that goes through exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeView {
    /// Name, unique on its node.
    #[schema(value_type = String)]
    pub name: Tag,
    /// Node whose traffic it is.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Traffic: `router`, `all`, an address or prefix of a LAN, `dev:<interface>`.
    pub of: Vec<String>,
    /// Exits in order of preference; the first that works is used.
    #[schema(value_type = Vec<String>)]
    pub exits: Vec<NodeName>,
    /// Set to use any other exit of the network after those: the nearest that works.
    pub auto: bool,
    /// Kill switch: while no exit works, the traffic is dropped. Off: it goes out over the WAN.
    pub kill_switch: bool,
    /// Set if LANs and prefixes of the network stay reachable.
    pub allow_lan: bool,
    /// Handling of IPv6 while the exit in use has IPv4 only.
    pub ipv6: Ipv6,
    /// Destinations that are reached directly, without the exit.
    #[schema(value_type = BTreeSet<String>)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers; empty means those that the exit in use offers.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Set to redirect all DNS queries to these resolvers.
    pub redirect_dns: bool,
    /// Current state, as its node reported it last; none if it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<ScopeLive>,
    /// Exits that it may use, in order, as its node sees them.
    #[serde(default)]
    pub candidates: Vec<CandidateView>,
    /// Warnings: allowed, but probably not intended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Scope that the router's owner has configured on the router itself. It takes precedence over those of the
/// admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnScopeView {
    /// Name on the router.
    #[schema(value_type = String)]
    pub name: Tag,
    /// Current state.
    pub live: ScopeLive,
}

/// Current state of a scope: the exit in use, or the reason for none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeLive {
    /// State: `exit`, `blocked` or `wan`.
    #[schema(value_type = String)]
    pub state: ScopeState,
    /// Exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub exit: Option<NodeName>,
    /// Round-trip time in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Reason for this state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Exit that a scope may use, as the scope's node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// Name of the exit.
    #[schema(value_type = String)]
    pub exit: NodeName,
    /// Set if it forwards to the IPv4 Internet.
    pub v4: bool,
    /// Set if it forwards to the IPv6 Internet.
    pub v6: bool,
    /// Path of the node to it: `direct` or `down`; none if not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub path: Option<gatewrt_protocol::Path>,
    /// Round-trip time in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}

/// Change of its assignment that a node rolled back, because its control link was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledBackView {
    /// Revision of the assignment that it rolled back.
    pub assignment: u64,
    /// Reason: the change, and what the node observed.
    pub why: String,
}

impl ExitView {
    /// Creates the exit view of a node that was not removed and may be an exit.
    pub fn of(state: &ControllerState, node: &Node) -> Self {
        let (setting, offer) = (node.exit.as_ref(), node.facts.exit.as_ref());
        let (v4_wanted, v6_wanted) = setting.map_or((true, true), |setting| (setting.v4, setting.v6));
        let dns_wanted = setting.map_or_else(Vec::new, |setting| setting.dns.clone());
        let offered = offer.cloned().unwrap_or_default();
        let has_said = offer.is_some() || report_of(state, node.id).is_some();
        Self {
            node: node.name.clone(),
            enabled: setting.is_some(),
            v4: v4_wanted && offered.v4,
            v6: v6_wanted && offered.v6,
            dns: if dns_wanted.is_empty() { offered.dns } else { dns_wanted.clone() },
            v4_wanted,
            v6_wanted,
            dns_wanted,
            allowed: has_said.then_some(offer.is_some()),
            why: state.registry.exit_limits(node),
            used_by: users(state, node),
        }
    }
}

impl ScopeView {
    /// Creates the view of a scope of a node that was not removed.
    pub fn of(state: &ControllerState, node: &Node, name: &Tag, scope: &ScopeSetting) -> Self {
        let registry = &state.registry;
        let candidates = registry.candidates(node, scope).map(|exit| candidate(state, node, exit));
        Self {
            name: name.clone(),
            node: node.name.clone(),
            of: scope.of.iter().map(ToString::to_string).collect(),
            exits: scope.exits.iter().filter_map(|exit| registry.name_of(*exit).cloned()).collect(),
            auto: scope.auto,
            kill_switch: !scope.open,
            allow_lan: !scope.forbid_lan,
            ipv6: if scope.v6_wan { Ipv6::Wan } else { Ipv6::Block },
            exclude: scope.exclude.clone(),
            dns: scope.dns.clone(),
            redirect_dns: !scope.keep_dns,
            live: scope_report(state, node.id, name).map(|report| live(registry, report)),
            candidates: candidates.collect(),
            warnings: registry
                .scope_warnings(node, scope)
                .into_iter()
                .chain(ignored(state, node, name))
                .collect(),
        }
    }

    /// Creates the views of all scopes of a node that was not removed, by name.
    pub fn all_of<'a>(state: &'a ControllerState, node: &'a Node) -> impl Iterator<Item = Self> + 'a {
        node.scopes.iter().map(|(name, scope)| Self::of(state, node, name, scope))
    }
}

impl OwnScopeView {
    /// Scopes that a node reports and no admin has made: those of the router's owner. Empty until the node has applied
    /// its current assignment.
    pub fn all_of(state: &ControllerState, node: &Node) -> Vec<Self> {
        let Some(report) = in_effect(state, node) else { return Vec::new() };
        let own = report.scopes.iter().filter(|scope| !node.scopes.contains_key(&scope.name));
        let view =
            |scope: &ScopeReport| Self { name: scope.name.clone(), live: live(&state.registry, scope) };
        own.map(view).collect()
    }
}

impl RolledBackView {
    /// Creates the view of the node's last rollback; none if it has applied another assignment since.
    pub fn of(node: &Node) -> Option<Self> {
        let rollback = node.facts.rolled_back.as_ref()?;
        Some(Self { assignment: rollback.assignment, why: rollback.why.clone() })
    }
}

fn report_of(state: &ControllerState, node: NodeId) -> Option<&Report> {
    state.live.now(node)?.report.as_ref()
}

/// Last report of a node, if it has applied its current assignment.
fn in_effect<'a>(state: &'a ControllerState, node: &Node) -> Option<&'a Report> {
    let current = state.published.content(&Topic::Assignment(node.id)).map(Content::rev)?;
    report_of(state, node.id).filter(|report| report.applied.assignment == current)
}

/// Warning that a node does not apply a scope that it knows. A scope of a dry run is unknown to it.
fn ignored(state: &ControllerState, node: &Node, name: &Tag) -> Option<String> {
    let report = in_effect(state, node)?;
    let Some(Content::Assignment(published)) = state.published.content(&Topic::Assignment(node.id)) else {
        return None;
    };
    let is_published = published.scopes.iter().any(|scope| scope.name == *name);
    let missing = report.scopes.iter().all(|scope| scope.name != *name);
    (is_published && missing).then(|| {
        let node = &node.name;
        format!("{node} does not apply this: settings of its owner take precedence (gatewrt exit status, /etc/config/gatewrt)")
    })
}

fn scope_report<'a>(state: &'a ControllerState, node: NodeId, name: &Tag) -> Option<&'a ScopeReport> {
    report_of(state, node)?.scopes.iter().find(|scope| scope.name == *name)
}

fn live(registry: &Registry, report: &ScopeReport) -> ScopeLive {
    ScopeLive {
        state: report.state,
        exit: report.exit.and_then(|exit| registry.name_of(exit).cloned()),
        rtt_ms: report.rtt_ms,
        why: report.why.clone(),
    }
}

fn candidate(state: &ControllerState, node: &Node, exit: &Node) -> CandidateView {
    let peers = report_of(state, node.id).into_iter().flat_map(|report| &report.peers);
    let peer = peers.into_iter().find(|peer: &&PeerReport| peer.node == exit.id);
    let ExitOffer { v4, v6, .. } = exit.exit_offer().unwrap_or_default();
    let (path, rtt_ms) = (peer.map(|peer| peer.path), peer.and_then(|peer| peer.rtt_ms));
    CandidateView { exit: exit.name.clone(), v4, v6, path, rtt_ms }
}

/// Scopes that name an exit or go through it now.
fn users(state: &ControllerState, exit: &Node) -> Vec<ExitUser> {
    let nodes = state.registry.live_nodes(exit.net);
    let scopes = nodes.flat_map(|node| node.scopes.iter().map(move |(name, scope)| (node, name, scope)));
    let user = |(node, name, scope): (&Node, &Tag, &ScopeSetting)| {
        let now = scope_report(state, node.id, name).is_some_and(|report| report.exit == Some(exit.id));
        let uses = now || scope.exits.contains(&exit.id);
        uses.then(|| ExitUser { node: node.name.clone(), scope: name.clone(), now })
    };
    let mut users: Vec<_> = scopes.filter_map(user).collect();
    users.sort_by(|one, other| (&one.node, &one.scope).cmp(&(&other.node, &other.scope)));
    users
}

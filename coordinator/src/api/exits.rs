//! Exits and what goes through them, as the API speaks of them.

pub use crate::registry::{ExitWish, Ipv6, ScopeWish};

use crate::{
    desk::State,
    records::Content,
    registry::{Node, Registry, ScopeSetting},
};
use gatewrt_protocol::{
    ExitOffer, NodeId, NodeName, PeerReport, Prefix, Report, ScopeReport, ScopeState, Tag, Topic,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use utoipa::ToSchema;

/// A node that takes others' Internet traffic, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// Which node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Whether an admin wants it to be one.
    pub enabled: bool,
    /// Whether it leads to the IPv4 Internet now, or would.
    pub v4: bool,
    /// Whether it leads to the IPv6 Internet now, or would.
    pub v6: bool,
    /// Resolvers that are asked through it.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Whether IPv4 is wanted of it.
    pub v4_wanted: bool,
    /// Whether IPv6 is wanted of it.
    pub v6_wanted: bool,
    /// Resolvers that an admin named; none are those that it offers.
    #[schema(value_type = Vec<String>)]
    pub dns_wanted: Vec<IpAddr>,
    /// Whether its owner allows it, as it reported last; nothing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// Why it is no exit, or less of one than is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What goes through it now, and what names it.
    pub used_by: Vec<ExitUser>,
}

/// What goes through an exit, or is to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitUser {
    /// Whose traffic.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Which of it.
    #[schema(value_type = String)]
    pub scope: Tag,
    /// Whether it goes through this exit now, as its node reported last.
    pub now: bool,
}

/// Internet traffic of a node that goes through others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeView {
    /// Unique on its node.
    #[schema(value_type = String)]
    pub name: Tag,
    /// Whose traffic.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Which of it: `router`, `all`, an address or prefix of a LAN, `dev:<interface>`.
    pub of: Vec<String>,
    /// Exits in the order in which they are taken; of those that work the first is used.
    #[schema(value_type = Vec<String>)]
    pub exits: Vec<NodeName>,
    /// After those, any other exit of the network: the nearest that works.
    pub auto: bool,
    /// While no exit works the traffic goes nowhere; off, it goes out over the WAN.
    pub kill_switch: bool,
    /// LANs and prefixes of the network are reached as they were.
    pub allow_lan: bool,
    /// What becomes of IPv6 while the exit in use leads to IPv4 alone.
    pub ipv6: Ipv6,
    /// Destinations that are reached as if there were no exit.
    #[schema(value_type = BTreeSet<String>)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers; none are those that the exit in use offers.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// DNS queries go to these, whomever their hosts ask.
    pub redirect_dns: bool,
    /// What becomes of it now, as its node reported last; nothing where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<ScopeLive>,
    /// The exits that it may use, in order, as its node sees them.
    #[serde(default)]
    pub candidates: Vec<CandidateView>,
    /// What will surprise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Internet traffic of a node that goes through others because it was said on the router, where the owner's word goes
/// before the admin's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnScopeView {
    /// As it is called there.
    #[schema(value_type = String)]
    pub name: Tag,
    /// What becomes of it now.
    pub live: ScopeLive,
}

/// What becomes of a scope's traffic now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeLive {
    /// `exit`, `blocked` or `wan`.
    #[schema(value_type = String)]
    pub state: ScopeState,
    /// The exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub exit: Option<NodeName>,
    /// Round trip to it in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Why no other, or none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// An exit as a node that may use it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// The exit.
    #[schema(value_type = String)]
    pub exit: NodeName,
    /// Whether it leads to the IPv4 Internet.
    pub v4: bool,
    /// Whether it leads to the IPv6 Internet.
    pub v6: bool,
    /// `direct` or `down`: how the node reaches it; nothing where it has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub path: Option<gatewrt_protocol::Path>,
    /// Round trip in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}

/// A change that a node put into effect and took back, because its control link did not outlive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TakenBackView {
    /// The revision of the assignment that it took back.
    pub assignment: u64,
    /// What was changed, and what the node saw.
    pub why: String,
}

impl ExitView {
    /// The view of a live node that may be an exit.
    pub fn of(state: &State, node: &Node) -> Self {
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
    /// The view of a scope of a live node.
    pub fn of(state: &State, node: &Node, name: &Tag, scope: &ScopeSetting) -> Self {
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

    /// The scopes of a live node, by name.
    pub fn all_of<'a>(state: &'a State, node: &'a Node) -> impl Iterator<Item = Self> + 'a {
        node.scopes.iter().map(|(name, scope)| Self::of(state, node, name, scope))
    }
}

impl OwnScopeView {
    /// What a live node said last of scopes that no admin made, once it has put into effect what they did.
    pub fn all_of(state: &State, node: &Node) -> Vec<Self> {
        let Some(report) = in_effect(state, node) else { return Vec::new() };
        let own = report.scopes.iter().filter(|scope| !node.scopes.contains_key(&scope.name));
        let view =
            |scope: &ScopeReport| Self { name: scope.name.clone(), live: live(&state.registry, scope) };
        own.map(view).collect()
    }
}

impl TakenBackView {
    /// Where a node took something back and has not put anything else into effect since.
    pub fn of(node: &Node) -> Option<Self> {
        let taken_back = node.facts.taken_back.as_ref()?;
        Some(Self { assignment: taken_back.assignment, why: taken_back.why.clone() })
    }
}

fn report_of(state: &State, node: NodeId) -> Option<&Report> {
    state.live.now(node)?.report.as_ref()
}

/// The last report of a node that has put its assignment into effect.
fn in_effect<'a>(state: &'a State, node: &Node) -> Option<&'a Report> {
    let wanted = state.ledger.content(&Topic::Assignment(node.id)).map(Content::rev)?;
    report_of(state, node.id).filter(|report| report.applied.assignment == wanted)
}

/// That a node does not do what is wanted, though it knows of it. Of what is only tried no node knows.
fn ignored(state: &State, node: &Node, name: &Tag) -> Option<String> {
    let report = in_effect(state, node)?;
    let Some(Content::Assignment(told)) = state.ledger.content(&Topic::Assignment(node.id)) else {
        return None;
    };
    let is_told = told.scopes.iter().any(|scope| scope.name == *name);
    let missing = report.scopes.iter().all(|scope| scope.name != *name);
    (is_told && missing).then(|| {
        let node = &node.name;
        format!("{node} does not do this: what its owner says there goes before it (gatewrt exit status, /etc/config/gatewrt)")
    })
}

fn scope_report<'a>(state: &'a State, node: NodeId, name: &Tag) -> Option<&'a ScopeReport> {
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

fn candidate(state: &State, node: &Node, exit: &Node) -> CandidateView {
    let peers = report_of(state, node.id).into_iter().flat_map(|report| &report.peers);
    let peer = peers.into_iter().find(|peer: &&PeerReport| peer.node == exit.id);
    let ExitOffer { v4, v6, .. } = exit.exit_offer().unwrap_or_default();
    let (path, rtt_ms) = (peer.map(|peer| peer.path), peer.and_then(|peer| peer.rtt_ms));
    CandidateView { exit: exit.name.clone(), v4, v6, path, rtt_ms }
}

/// Scopes that name an exit or go through it now.
fn users(state: &State, exit: &Node) -> Vec<ExitUser> {
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

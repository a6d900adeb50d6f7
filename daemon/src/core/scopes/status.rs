//! Status of scopes and exits, for reports and on the router.

use super::{Scope, asked, member, scopes, unfit_node};
use crate::core::{
    Core, Network,
    gateways::{Service, Trouble},
};
use gatewrt_protocol::{
    ExitOffer, Member, NetworkName, NodeId, NodeName, ScopeReport, ScopeState, Tag, Traffic,
};
use serde::{Deserialize, Serialize};
use std::{fmt::Write, net::IpAddr};

/// Status of one scope of Internet traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// Name.
    pub name: Tag,
    /// Traffic.
    pub of: Vec<Traffic>,
    /// State.
    pub state: ScopeState,
    /// Exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<NodeName>,
    /// Round trip to the exit in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Configured exits, in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<NodeName>,
    /// Any other exit may be used after those.
    pub auto: bool,
    /// The traffic is blocked while no exit works.
    pub kill_switch: bool,
    /// Resolvers for its DNS queries; empty when queries are left alone, or there is no resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Reason why no other exit, or none, is in use; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Status of one other node that is an exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Name.
    pub name: NodeName,
    /// Offer.
    pub offer: ExitOffer,
    /// True if the exit answers; absent while it is not probed, because nothing here could use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
    /// Round trip to the exit in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// Scopes that use it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<Tag>,
}

impl Core {
    /// Scopes of one network for its report, without round trips.
    pub(in crate::core) fn scope_reports(&self, name: &NetworkName, network: &Network) -> Vec<ScopeReport> {
        let report = |scope: Scope| ScopeReport {
            rtt_ms: None,
            why: why(&scope, network),
            name: scope.asked.name,
            state: scope.state,
            exit: scope.exit,
        };
        self.scopes_of(name, network).into_iter().map(report).collect()
    }

    /// Scopes of a network with their current exits. A scope all of whose devices are missing has none.
    pub(in crate::core) fn scopes_of(&self, name: &NetworkName, network: &Network) -> Vec<Scope> {
        let asked = asked(&self.config, name, network, &mut Vec::new());
        let mut all = scopes(asked, &self.config, name, network);
        for scope in &mut all {
            let is_missing = |of: &Traffic| match of {
                Traffic::Device(name) => {
                    !self.observed.links.keys().any(|link| link.as_str() == name.as_str())
                }
                _ => false,
            };
            scope.missing =
                scope.asked.of.iter().filter(|of| is_missing(of)).map(ToString::to_string).collect();
            if !scope.all_lans && scope.missing.len() == scope.asked.of.len() {
                scope.exit = None;
                scope.state = if scope.asked.open { ScopeState::Wan } else { ScopeState::Blocked };
            }
        }
        all
    }
}

/// Status of a scope of Internet traffic with its current exit.
pub fn scope_status(scope: Scope, network: &Network) -> ScopeStatus {
    let name = |node: NodeId| Some(member(node, network)?.name.clone());
    ScopeStatus {
        exit: scope.exit.and_then(name),
        rtt_ms: scope.exit.and_then(|exit| network.gateways.health(exit)?.rtt_ms),
        why: why(&scope, network),
        exits: scope.asked.exits.iter().copied().filter_map(name).collect(),
        name: scope.asked.name,
        of: scope.asked.of,
        state: scope.state,
        auto: scope.asked.auto,
        kill_switch: !scope.asked.open,
        dns: scope.resolvers,
    }
}

/// Status of the other nodes of a network that are exits.
pub fn exit_statuses(scopes: &[Scope], network: &Network) -> Vec<ExitStatus> {
    network.directory.peers().filter_map(|member| exit_status(member, scopes, network)).collect()
}

fn exit_status(member: &Member, scopes: &[Scope], network: &Network) -> Option<ExitStatus> {
    let health = network.gateways.health(member.node);
    let uses = scopes.iter().filter(|scope| scope.exit == Some(member.node));
    Some(ExitStatus {
        name: member.name.clone(),
        offer: member.exit.clone()?,
        alive: health.map(|health| health.alive),
        rtt_ms: health.and_then(|health| health.rtt_ms),
        used_by: uses.map(|scope| scope.asked.name.clone()).collect(),
    })
}

/// Reasons why preferred exits of a scope are not in use, and what the exit in use lacks.
fn why(scope: &Scope, network: &Network) -> String {
    let mut why = String::new();
    let mut say = |text: std::fmt::Arguments<'_>| {
        let comma = if why.is_empty() { "" } else { "; " };
        let _ = write!(why, "{comma}{text}");
    };
    for device in &scope.missing {
        say(format_args!("there is no interface {device}"));
    }
    if !scope.missing.is_empty() && scope.exit.is_none() {
        return why;
    }
    let name = |node| member(node, network).map(|member| member.name.as_str()).unwrap_or_default();
    // Only a configured exit is missed while another one serves.
    let missed = |node: &NodeId| scope.exit.is_none() || scope.asked.exits.contains(node);
    let troubles = network.gateways.troubles(&Service::Scope(scope.asked.name.clone()));
    for (node, trouble) in troubles.iter().filter(|(node, _)| missed(node)) {
        let name = name(*node);
        match trouble {
            Trouble::Silent(_) => say(format_args!("{name} does not answer")),
            Trouble::Recovers(_) => say(format_args!("{name} answers again, and is watched for a while")),
            Trouble::NoUplink => say(format_args!("{name} has no Internet itself")),
        }
    }
    let fit = |member: &Member| unfit_node(member.node, network).is_none();
    match scope.exit {
        None if scope.asked.exits.is_empty() && !scope.asked.auto => {
            say(format_args!("no exit is named that could be one"));
        }
        None if troubles.is_empty() && !network.directory.peers().any(fit) => {
            say(format_args!("no node of the network is an exit"));
        }
        None => {}
        Some(exit) => {
            if !scope.v6 && !scope.asked.v6_wan {
                say(format_args!("{} leads to IPv4 alone: IPv6 goes nowhere", name(exit)));
            }
            if scope.resolvers.is_empty() && !scope.asked.keep_dns {
                say(format_args!("{} names no resolver, and the scope none: name one (--dns)", name(exit)));
            }
        }
    }
    why
}

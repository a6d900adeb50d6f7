//! What is told of scopes and exits: to the coordinator, and on the router.

use super::{Scope, asked, member, scopes, unfit_node};
use crate::{
    core::{
        Core, Network,
        gateways::{Service, Trouble},
    },
    gather::Gather,
};
use gatewrt_protocol::{
    ExitOffer, Member, NetworkName, NodeId, NodeName, ScopeReport, ScopeState, Tag, Traffic,
};
use serde::{Deserialize, Serialize};
use std::{fmt::Write, net::IpAddr};

/// One scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// Its name.
    pub name: Tag,
    /// Which traffic.
    pub of: Vec<Traffic>,
    /// What becomes of it now.
    pub state: ScopeState,
    /// The exit in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<NodeName>,
    /// Round trip to it in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// The exits that are asked for, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<NodeName>,
    /// After those any other.
    pub auto: bool,
    /// While none works the traffic goes nowhere.
    pub kill_switch: bool,
    /// Where its DNS queries go; empty when they are left alone, or there is nowhere for them to go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Why no other exit, or none, in words; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Its name.
    pub name: NodeName,
    /// What it offers.
    pub offer: ExitOffer,
    /// Whether it answers; absent while nothing here could use it, and it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
    /// Round trip to it in the tunnel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
    /// The scopes that use it now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<Tag>,
}

impl Core {
    /// The scopes of one network for its report, without how near the exits are.
    pub(in crate::core) fn scope_reports(&self, name: &NetworkName, network: &Network) -> Vec<ScopeReport> {
        let report = |scope: Scope| ScopeReport {
            rtt_ms: None,
            why: why(&scope, network),
            name: scope.asked.name,
            state: scope.state,
            exit: scope.exit,
        };
        self.scopes_of(name, network).into_iter().map(report).gather()
    }

    /// What becomes of each scope of a network.
    pub(in crate::core) fn scopes_of(&self, name: &NetworkName, network: &Network) -> Vec<Scope> {
        scopes(asked(&self.config, name, network, &mut Vec::new()), network)
    }
}

/// One scope, for the status.
pub fn scope_status(scope: Scope, network: &Network) -> ScopeStatus {
    let name = |node: NodeId| Some(member(node, network)?.name.clone());
    ScopeStatus {
        exit: scope.exit.and_then(name),
        rtt_ms: scope.exit.and_then(|exit| network.gateways.health(exit)?.rtt_ms),
        why: why(&scope, network),
        exits: scope.asked.exits.iter().copied().filter_map(name).gather(),
        name: scope.asked.name,
        of: scope.asked.of,
        state: scope.state,
        auto: scope.asked.auto,
        kill_switch: !scope.asked.open,
        dns: scope.resolvers,
    }
}

/// The other nodes that are exits.
pub fn exit_statuses(scopes: &[Scope], network: &Network) -> Vec<ExitStatus> {
    network.directory.peers().filter_map(|member| exit_status(member, scopes, network)).gather()
}

fn exit_status(member: &Member, scopes: &[Scope], network: &Network) -> Option<ExitStatus> {
    let health = network.gateways.health(member.node);
    let uses = scopes.iter().filter(|scope| scope.exit == Some(member.node));
    Some(ExitStatus {
        name: member.name.clone(),
        offer: member.exit.clone()?,
        alive: health.map(|health| health.alive),
        rtt_ms: health.and_then(|health| health.rtt_ms),
        used_by: uses.map(|scope| scope.asked.name.clone()).gather(),
    })
}

/// Why those that go before the exit in use don't serve, and what the one in use can't do.
fn why(scope: &Scope, network: &Network) -> String {
    let mut why = String::new();
    let mut say = |text: std::fmt::Arguments<'_>| {
        let comma = if why.is_empty() { "" } else { "; " };
        let _ = write!(why, "{comma}{text}");
    };
    let name = |node| member(node, network).map(|member| member.name.as_str()).unwrap_or_default();
    // Any other is no one's wish: only what is named is missed while another serves.
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

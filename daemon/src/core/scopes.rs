//! Scopes of the router: which Internet traffic goes through which exit, decided from the configuration and the exits' health.
//! Their routes and rules are [`desired`](super::desired)'s matter.

pub mod choice;
pub mod status;

use super::{Network, gateways::Service};
use crate::config::{Config, OwnScope};
use gatewrt_protocol::{
    ExitOffer, ExitScope, Failure, Member, NetworkName, NodeId, NodeName, ScopeState, Traffic,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Scope of Internet traffic with its current exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Configuration.
    pub asked: ExitScope,
    /// It has every LAN that no other scope names, also one that is not known to be one.
    pub all_lans: bool,
    /// Devices that are missing, for its status alone: its routes and rules are there before they are.
    pub missing: Vec<String>,
    /// State.
    pub state: ScopeState,
    /// Exit in use.
    pub exit: Option<NodeId>,
    /// The exit in use carries IPv6.
    pub v6: bool,
    /// Resolvers for its DNS queries: those of the configuration, or else those of the exit in use. Empty when queries are
    /// to be left alone, and while there is no exit to reach a resolver by.
    pub resolvers: Vec<IpAddr>,
}

/// Source of the configuration of a network's scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigSource {
    /// Router's owner, in UCI.
    Owner,
    /// `gatewrt exit` on the router.
    Router,
    /// Coordinator.
    Coordinator,
}

/// Source of the configuration that applies to a network's scopes: the first of owner, router and coordinator that
/// configured scopes.
pub fn config_source(config: &Config, name: &NetworkName, network: &Network) -> ConfigSource {
    match (own(config, name), &network.membership.chosen) {
        (Some(_), _) => ConfigSource::Owner,
        (None, Some(_)) => ConfigSource::Router,
        (None, None) => ConfigSource::Coordinator,
    }
}

/// Configured scopes of one network, with the names of exits resolved. A node that can't be an exit is a failure, and is
/// never replaced by another that was not configured.
pub fn asked(
    config: &Config,
    name: &NetworkName,
    network: &Network,
    failures: &mut Vec<Failure>,
) -> Vec<ExitScope> {
    let said = said(config, name, network);
    let has_lans =
        |scope: &ExitScope| said.into_iter().flatten().any(|own| own.lan && own.scope.name == scope.name);
    let mut asked = match said {
        Some(all) => all.iter().map(|own| resolved(own, all, network, failures)).collect(),
        None => network.directory.assignment().map(|it| it.scopes.clone()).unwrap_or_default(),
    };
    asked.truncate(ExitScope::MOST);
    asked.iter_mut().for_each(|scope| keep_exits(scope, network, failures));
    // A LAN that is not known yet is closed all the same.
    asked.retain(|scope| has_traffic(scope, failures) || has_lans(scope));
    asked
}

/// Scopes of one network, each with the exit that [`Gateways`](super::gateways::Gateways) chose.
pub fn scopes(asked: Vec<ExitScope>, config: &Config, name: &NetworkName, network: &Network) -> Vec<Scope> {
    let own =
        |asked: &ExitScope| said(config, name, network)?.iter().find(|own| own.scope.name == asked.name);
    let all_lans =
        |asked: &ExitScope| asked.of.contains(&Traffic::All) || own(asked).is_some_and(|own| own.lan);
    asked.into_iter().map(|asked| Scope { all_lans: all_lans(&asked), ..scope(asked, network) }).collect()
}

/// Reason why a node can't be the exit of this router; `None` when it can.
pub fn unfit(name: &NodeName, network: &Network) -> Option<&'static str> {
    match node_called(name, network) {
        Some(node) => unfit_node(node, network),
        None => Some("there is no node of this name in the network"),
    }
}

/// Scopes as the owner or the router states them.
fn said<'a>(config: &'a Config, name: &NetworkName, network: &'a Network) -> Option<&'a [OwnScope]> {
    own(config, name).or(network.membership.chosen.as_deref())
}

fn own<'a>(config: &'a Config, name: &NetworkName) -> Option<&'a [OwnScope]> {
    config.networks.get(name)?.scopes.as_deref()
}

/// Scope as the owner states it, with its LANs and exits resolved. Its LANs are all except those that another scope
/// names.
fn resolved(own: &OwnScope, all: &[OwnScope], network: &Network, failures: &mut Vec<Failure>) -> ExitScope {
    let mut scope = own.scope.clone();
    if own.lan {
        let lans = network.lans.iter().map(|link| Traffic::Device(link.to_string()));
        let named = |traffic: &Traffic| all.iter().any(|own| own.scope.of.contains(traffic));
        scope.of.extend(lans.filter(|traffic| !named(traffic)));
    }
    for name in &own.exits {
        match node_called(name, network) {
            Some(node) => scope.exits.push(node),
            None => failures.push(no_exit(&scope, name, "there is no node of this name in the network")),
        }
    }
    scope
}

fn node_called(name: &NodeName, network: &Network) -> Option<NodeId> {
    let own = network.directory.assignment().filter(|own| own.name == *name).map(|own| own.node);
    own.or_else(|| network.directory.peers().find(|member| member.name == *name).map(|member| member.node))
}

/// Removes nodes that can't be exits from a scope; each is a failure.
fn keep_exits(scope: &mut ExitScope, network: &Network, failures: &mut Vec<Failure>) {
    for node in std::mem::take(&mut scope.exits) {
        match unfit_node(node, network) {
            None => scope.exits.push(node),
            Some(why) => failures.push(match member(node, network) {
                Some(member) => no_exit(scope, &member.name, why),
                None => no_exit(scope, &node, why),
            }),
        }
    }
}

fn unfit_node(node: NodeId, network: &Network) -> Option<&'static str> {
    if node == network.membership.node {
        return Some("it is this router itself");
    }
    match member(node, network) {
        None => Some("the network has no such node"),
        Some(member) => member.exit.is_none().then_some("it offers no exit"),
    }
}

fn no_exit(scope: &ExitScope, exit: &dyn std::fmt::Display, why: &str) -> Failure {
    Failure { what: format!("use {exit} as the exit of {}", scope.name), why: why.to_owned() }
}

fn has_traffic(scope: &ExitScope, failures: &mut Vec<Failure>) -> bool {
    if scope.of.is_empty() {
        let why = "this router has no LAN: no interface with an address but the WAN".to_owned();
        failures.push(Failure { what: format!("take {} through an exit", scope.name), why });
    }
    !scope.of.is_empty()
}

fn member(node: NodeId, network: &Network) -> Option<&Member> {
    network.directory.peers().find(|member| member.node == node)
}

fn scope(asked: ExitScope, network: &Network) -> Scope {
    let exit = network.gateways.choice(&Service::Scope(asked.name.clone()));
    let offer = exit.and_then(|node| member(node, network)).and_then(|member| member.exit.as_ref());
    let state = match (exit, asked.open) {
        (Some(_), _) => ScopeState::Exit,
        (None, false) => ScopeState::Blocked,
        (None, true) => ScopeState::Wan,
    };
    let leads = exit.and_then(|node| network.gateways.health(node)).and_then(|health| health.v6);
    let v6 = offer.is_some_and(|offer| offer.v6) && leads != Some(false);
    let resolvers = offer.map(|offer| resolvers(&asked, offer)).unwrap_or_default();
    Scope { asked, all_lans: false, missing: Vec::new(), state, exit, v6, resolvers }
}

/// Resolvers that a scope names, or else those of its exit in the families that it carries; none where DNS is left
/// alone.
fn resolvers(asked: &ExitScope, offer: &ExitOffer) -> Vec<IpAddr> {
    match (asked.keep_dns, asked.dns.as_slice()) {
        (true, _) => Vec::new(),
        (false, []) => {
            let reached = |addr: &&IpAddr| if addr.is_ipv4() { offer.v4 } else { offer.v6 };
            offer.dns.iter().filter(reached).copied().collect()
        }
        (false, named) => named.to_vec(),
    }
}

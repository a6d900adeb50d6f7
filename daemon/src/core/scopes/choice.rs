//! Scopes set by `gatewrt exit` on the router. A request that can't work is refused before anything changes.

use super::{ConfigSource, config_source, unfit};
use crate::config::{Config, OwnScope};
use gatewrt_protocol::{Assignment, ExitScope, NetworkName, NodeId, NodeName, Tag};

/// Scopes of a network with `spec` added, replacing one of the same name, and a hint for the admin.
pub fn enable(
    spec: OwnScope,
    config: &Config,
    name: &NetworkName,
    network: &super::Network,
) -> Result<(Vec<OwnScope>, String), String> {
    refuse_against_owner(config, name, network)?;
    refuse_unfit(&spec, name, network)?;
    let hint = hint(&spec, network);
    let mut scopes = in_effect(network);
    scopes.retain(|scope| scope.scope.name != spec.scope.name);
    if scopes.len() >= ExitScope::MOST {
        return Err(format!("this router has {} scopes, which is the most there can be", ExitScope::MOST));
    }
    for other in &scopes {
        let twice = other.scope.of.iter().find(|traffic| spec.scope.of.contains(traffic));
        let twice = twice.map(ToString::to_string).or((other.lan && spec.lan).then(|| "lan".to_owned()));
        if let Some(traffic) = twice {
            let other = &other.scope.name;
            return Err(format!(
                "{traffic} belongs to the scope {other}: “gatewrt exit disable {other}” first, or say “--as {other}” to change it"
            ));
        }
    }
    scopes.push(spec);
    Ok((scopes, hint))
}

/// Scopes of a network without the one named `scope`, or none at all.
pub fn disable(
    scope: Option<&Tag>,
    config: &Config,
    name: &NetworkName,
    network: &super::Network,
) -> Result<Vec<OwnScope>, String> {
    refuse_against_owner(config, name, network)?;
    let Some(gone) = scope else { return Ok(Vec::new()) };
    let mut rest = in_effect(network);
    let before = rest.len();
    rest.retain(|own| own.scope.name != *gone);
    if rest.len() == before {
        let names: Vec<_> = rest.iter().map(|own| own.scope.name.to_string()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(format!("{name} has no scope {gone} here (there is: {names})"));
    }
    Ok(rest)
}

/// Refuses a change of a network's scopes on the router where UCI configures them.
pub fn refuse_against_owner(
    config: &Config,
    name: &NetworkName,
    network: &super::Network,
) -> Result<(), String> {
    match config_source(config, name, network) {
        ConfigSource::Owner => Err(format!(
            "/etc/config/gatewrt decides for {name}: change its option exit_client or its sections config exit there, \
             then “gatewrt reload”"
        )),
        ConfigSource::Router | ConfigSource::Coordinator => Ok(()),
    }
}

fn refuse_unfit(spec: &OwnScope, name: &NetworkName, network: &super::Network) -> Result<(), String> {
    let exits = network.directory.peers().filter(|member| member.exit.is_some());
    let exits: Vec<_> = exits.map(|member| member.name.to_string()).collect();
    if exits.is_empty() {
        return Err(format!(
            "no node of {name} is an exit: its owner allows it (option allow_exit '1'), then \
             “gatewrt-coordinator exit set {name} NODE”"
        ));
    }
    match spec.exits.iter().find_map(|exit| Some((exit, unfit(exit, network)?))) {
        Some((exit, why)) => {
            Err(format!("{exit} can't be the exit: {why} (exits of {name}: {})", exits.join(", ")))
        }
        None => Ok(()),
    }
}

/// Hint for a scope that works, but perhaps not as the admin expects; empty where there is none.
fn hint(spec: &OwnScope, network: &super::Network) -> String {
    let named = |name: &NodeName| spec.exits.contains(name) || spec.scope.auto;
    let v4_alone = network.directory.peers().filter(|member| {
        named(&member.name) && member.exit.as_ref().is_some_and(|offer| !offer.v6) && !spec.scope.v6_wan
    });
    let names: Vec<_> = v4_alone.map(|member| member.name.to_string()).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!(
            "IPv6 goes nowhere while it goes through {}: IPv4 alone is offered there (--ipv6 wan lets it out past the exit).",
            names.join(" or ")
        ),
    }
}

/// Scopes of a network in effect, as they would be set on the router.
fn in_effect(network: &super::Network) -> Vec<OwnScope> {
    let assignment = || network.directory.assignment().map(|it| as_own(it, network));
    network.membership.chosen.clone().or_else(assignment).unwrap_or_default()
}

fn as_own(assignment: &Assignment, network: &super::Network) -> Vec<OwnScope> {
    let name = |node: &NodeId| super::member(*node, network).map(|member| member.name.clone());
    let own = |scope: &ExitScope| OwnScope {
        exits: scope.exits.iter().filter_map(name).collect(),
        lan: false,
        scope: ExitScope { exits: Vec::new(), ..scope.clone() },
    };
    assignment.scopes.iter().map(own).collect()
}

//! What is said with `gatewrt exit` on the router: which scopes there are from then on. What can't work is refused before
//! anything changes.

use super::{Voice, unfit, voice};
use crate::{
    config::{Config, OwnScope},
    gather::Gather,
};
use gatewrt_protocol::{Assignment, ExitScope, NetworkName, NodeId, NodeName, Tag};

/// The scopes with `wish` among them, in the place of one of its name, and what is to be known of it.
pub fn enable(
    wish: OwnScope,
    config: &Config,
    name: &NetworkName,
    network: &super::Network,
) -> Result<(Vec<OwnScope>, String), String> {
    refuse_against_owner(config, name, network)?;
    refuse_unfit(&wish, name, network)?;
    let hint = hint(&wish, network);
    let mut scopes = in_effect(network);
    scopes.retain(|scope| scope.scope.name != wish.scope.name);
    if scopes.len() >= ExitScope::MOST {
        return Err(format!("this router has {} scopes, which is the most there can be", ExitScope::MOST));
    }
    for other in &scopes {
        let twice = other.scope.of.iter().find(|traffic| wish.scope.of.contains(traffic));
        let twice = twice.map(ToString::to_string).or((other.lan && wish.lan).then(|| "lan".to_owned()));
        if let Some(traffic) = twice {
            let other = &other.scope.name;
            return Err(format!(
                "{traffic} belongs to the scope {other}: “gatewrt exit disable {other}” first, or say “--as {other}” to change it"
            ));
        }
    }
    scopes.push(wish);
    Ok((scopes, hint))
}

/// The scopes without one, or none at all.
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
        let names: Vec<_> = rest.iter().map(|own| own.scope.name.to_string()).gather();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(format!("{name} has no scope {gone} here (there is: {names})"));
    }
    Ok(rest)
}

/// Where UCI says something, nothing else counts.
pub fn refuse_against_owner(
    config: &Config,
    name: &NetworkName,
    network: &super::Network,
) -> Result<(), String> {
    match voice(config, name, network) {
        Voice::Owner => Err(format!(
            "/etc/config/gatewrt decides for {name}: change its option exit_client or its sections config exit there, \
             then “gatewrt reload”"
        )),
        Voice::Router | Voice::Coordinator => Ok(()),
    }
}

fn refuse_unfit(wish: &OwnScope, name: &NetworkName, network: &super::Network) -> Result<(), String> {
    let exits = network.directory.peers().filter(|member| member.exit.is_some());
    let exits: Vec<_> = exits.map(|member| member.name.to_string()).gather();
    if exits.is_empty() {
        return Err(format!(
            "no node of {name} is an exit: its owner allows it (option allow_exit '1'), then \
             “gatewrt-coordinator exit set {name} NODE”"
        ));
    }
    match wish.exits.iter().find_map(|exit| Some((exit, unfit(exit, network)?))) {
        Some((exit, why)) => {
            Err(format!("{exit} can't be the exit: {why} (exits of {name}: {})", exits.join(", ")))
        }
        None => Ok(()),
    }
}

/// What is to be known of what was asked, though it can be done.
fn hint(wish: &OwnScope, network: &super::Network) -> String {
    let named = |name: &NodeName| wish.exits.contains(name) || wish.scope.auto;
    let v4_alone = network.directory.peers().filter(|member| {
        named(&member.name) && member.exit.as_ref().is_some_and(|offer| !offer.v6) && !wish.scope.v6_wan
    });
    let names: Vec<_> = v4_alone.map(|member| member.name.to_string()).gather();
    match names.as_slice() {
        [] => String::new(),
        names => format!(
            "IPv6 goes nowhere while it goes through {}: IPv4 alone is offered there (--ipv6 wan lets it out past the exit).",
            names.join(" or ")
        ),
    }
}

/// What is in effect now, as it would be said on the router.
fn in_effect(network: &super::Network) -> Vec<OwnScope> {
    let assignment = || network.directory.assignment().map(|it| as_own(it, network));
    network.membership.chosen.clone().or_else(assignment).unwrap_or_default()
}

fn as_own(assignment: &Assignment, network: &super::Network) -> Vec<OwnScope> {
    let name = |node: &NodeId| super::member(*node, network).map(|member| member.name.clone());
    let own = |scope: &ExitScope| OwnScope {
        exits: scope.exits.iter().filter_map(name).gather(),
        lan: false,
        scope: ExitScope { exits: Vec::new(), ..scope.clone() },
    };
    assignment.scopes.iter().map(own).gather()
}

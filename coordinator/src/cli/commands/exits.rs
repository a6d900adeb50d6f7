//! `exit …` and `exit-client …`, and what `status` says of them.

use super::{Done, enc, line, list, node_path, print, stack, stacked_table, warn, word};
use crate::{
    api::{
        CandidateView, ExitUser, ExitView, ExitWish, Ipv6, NodeStatus, NodeView, ScopeLive, ScopeView,
        ScopeWish,
    },
    cli::{
        args::{Exit, ExitClient, SetScope},
        client::Client,
        output::harmless,
    },
};
use gatewrt_protocol::{Path, ScopeState};
use std::io;

pub(super) fn run(client: &Client, command: Exit, as_json: bool) -> Done {
    match command {
        Exit::Set { network, node, dns, no_ipv4, no_ipv6 } => {
            let wish = ExitWish { dns, v4: Some(!no_ipv4), v6: Some(!no_ipv6) };
            let node: NodeView = client.put(&format!("{}/exit", node_path(&network, &node)), &wish)?;
            print(&node, as_json, |node| {
                let offer = node.exit.as_ref().map(families).unwrap_or_default();
                line(&format!("{} takes others' Internet traffic: {offer}", node.name))?;
                warn(&node.warnings);
                Ok(())
            })
        }
        Exit::Unset { network, node, force } => {
            let path = format!("{}/exit?force={force}", node_path(&network, &node));
            let node: NodeView = client.delete(&path)?;
            print(&node, as_json, |node| {
                line(&format!("{} takes no one's Internet traffic any more", node.name))
            })
        }
        Exit::List { network } => {
            let all: Vec<ExitView> = client.list(&format!("networks/{}/exits", enc(&network)))?;
            print(&all, as_json, |all| {
                exit_table(all)?;
                let enabled = all.iter().filter(|exit| exit.enabled);
                enabled.flat_map(|exit| &exit.why).for_each(|why| eprintln!("note: {}", harmless(why)));
                Ok(())
            })
        }
    }
}

pub(super) fn run_client(client: &Client, command: ExitClient, as_json: bool) -> Done {
    match command {
        ExitClient::Set(set) => {
            let path = scope_path(&set.network, &set.node, set.scope.as_str());
            let set: ScopeView = client.put(&path, &wish(&set))?;
            print(&set, as_json, |set| {
                let of = list(&set.of);
                line(&format!(
                    "{}: {of} goes out through {}; {}",
                    set.node,
                    ways(set).join(", then "),
                    otherwise(set)
                ))?;
                warn(&set.warnings);
                Ok(())
            })
        }
        ExitClient::Unset { network, node, scope } => {
            let gone: ScopeView = client.delete(&scope_path(&network, &node, scope.as_str()))?;
            print(&gone, as_json, |gone| {
                line(&format!("{}: {} goes out over its WAN again", gone.node, list(&gone.of)))
            })
        }
        ExitClient::List { network, node: Some(node) } => {
            let all: Vec<ScopeView> = client.list(&format!("{}/scopes", node_path(&network, &node)))?;
            print(&all, as_json, |all| told_table(all))
        }
        ExitClient::List { network, node: None } => {
            let nodes: Vec<NodeStatus> = client.list(&format!("networks/{}/nodes", enc(&network)))?;
            let all: Vec<ScopeView> = nodes.into_iter().flat_map(|node| node.node.scopes).collect();
            print(&all, as_json, |all| told_table(all))
        }
    }
}

fn scope_path(network: &str, node: &str, scope: &str) -> String {
    format!("{}/scopes/{}", node_path(network, node), enc(scope))
}

fn wish(set: &SetScope) -> ScopeWish {
    ScopeWish {
        of: set.of.iter().map(ToString::to_string).collect(),
        exits: set.exit.iter().map(ToString::to_string).collect(),
        auto: set.auto.then_some(true),
        kill_switch: !set.no_kill_switch,
        allow_lan: !set.forbid_lan,
        ipv6: set.ipv6.into(),
        exclude: set.exclude.iter().copied().collect(),
        dns: set.dns.clone(),
        redirect_dns: !set.keep_dns,
    }
}

/// What of `status` is about exits; nothing where there are none.
pub(super) fn show(nodes: &[NodeStatus]) -> io::Result<()> {
    let exits: Vec<_> = nodes.iter().filter_map(|node| node.node.exit.clone()).collect();
    let scopes: Vec<_> = nodes.iter().flat_map(|node| node.node.scopes.clone()).collect();
    if !exits.is_empty() {
        exit_table(&exits)?;
    }
    if !scopes.is_empty() {
        scope_table(&scopes)?;
    }
    exits.iter().flat_map(|exit| &exit.why).try_for_each(|why| line(why))?;
    scopes.iter().try_for_each(|scope| scope_lines(scope, &exits))?;
    nodes.iter().try_for_each(|node| own_lines(&node.node))?;
    nodes.iter().try_for_each(|node| taken_back(&node.node))
}

/// What will surprise about a scope, but for what was said of its exits.
fn scope_lines(scope: &ScopeView, exits: &[ExitView]) -> io::Result<()> {
    let is_new = |why: &&String| exits.iter().all(|exit| exit.why.as_ref() != Some(why));
    let mut warnings = scope.warnings.iter().filter(is_new);
    warnings.try_for_each(|why| line(&format!("{} of {}: {why}", scope.name, scope.node)))
}

/// What the router's owner sends through exits.
fn own_lines(node: &NodeView) -> io::Result<()> {
    for own in &node.own_scopes {
        let (name, now) = (&own.name, became(&own.live).join("; "));
        line(&format!("{}: its owner has a scope {name} of his own: {now}", node.name))?;
    }
    Ok(())
}

/// That a node took a change back, why, and what to do.
pub(super) fn taken_back(node: &NodeView) -> io::Result<()> {
    let Some(taken_back) = &node.taken_back else { return Ok(()) };
    line(&format!("{}: took back assignment {}: {}", node.name, taken_back.assignment, taken_back.why))?;
    line(&format!(
        "  it goes on with what it had; change it, or have it tried again: gatewrt-coordinator node retry {} {}",
        node.network, node.name
    ))
}

fn exit_table(all: &[ExitView]) -> io::Result<()> {
    let row = |exit: &ExitView| {
        let allowed = match exit.allowed {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        vec![
            stack([&exit.node]),
            stack([if exit.enabled { "on" } else { "off" }]),
            stack([allowed]),
            stack([families(exit)]),
            stack(&exit.dns),
            stack(exit.used_by.iter().map(user)),
        ]
    };
    let heading = ["EXIT", "STATE", "ALLOWED", "OFFERS", "DNS", "USED BY"];
    stacked_table(&heading, &all.iter().map(row).collect::<Vec<_>>())
}

fn families(exit: &ExitView) -> String {
    match (exit.v4, exit.v6) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4 alone",
        (false, true) => "IPv6 alone",
        (false, false) => "nothing",
    }
    .to_owned()
}

fn user(user: &ExitUser) -> String {
    let now = if user.now { "now" } else { "not now" };
    format!("{} of {} ({now})", user.scope, user.node)
}

fn told_table(all: &[ScopeView]) -> io::Result<()> {
    scope_table(all)?;
    for scope in all {
        let told = |warning: &String| format!("{} of {}: {warning}", scope.name, scope.node);
        warn(&scope.warnings.iter().map(told).collect::<Vec<_>>());
    }
    Ok(())
}

fn scope_table(all: &[ScopeView]) -> io::Result<()> {
    let row = |scope: &ScopeView| {
        vec![
            stack([&scope.node]),
            stack([&scope.name]),
            stack(&scope.of),
            stack(ways(scope)),
            stack(settings(scope)),
            stack(now(scope)),
            stack(scope.candidates.iter().map(candidate)),
        ]
    };
    let heading = ["NODE", "SCOPE", "TRAFFIC", "THROUGH", "SETTINGS", "NOW", "EXITS AS IT SEES THEM"];
    stacked_table(&heading, &all.iter().map(row).collect::<Vec<_>>())
}

fn ways(scope: &ScopeView) -> Vec<String> {
    let named = scope.exits.iter().map(ToString::to_string);
    let auto = scope.auto.then(|| "the nearest".to_owned());
    named.chain(auto).collect()
}

fn otherwise(scope: &ScopeView) -> &'static str {
    if scope.kill_switch { "nowhere while none works" } else { "over the WAN while none works" }
}

/// What differs from the defaults, and whether it is closed.
fn settings(scope: &ScopeView) -> Vec<String> {
    let kill_switch = if scope.kill_switch { "kill switch" } else { "no kill switch" };
    let others = [
        (!scope.allow_lan).then(|| "no LAN".to_owned()),
        (scope.ipv6 == Ipv6::Wan).then(|| "IPv6 to the WAN".to_owned()),
        (!scope.exclude.is_empty()).then(|| format!("not to {}", list(&scope.exclude))),
        (!scope.dns.is_empty()).then(|| format!("DNS {}", list(&scope.dns))),
        (!scope.redirect_dns).then(|| "DNS as asked".to_owned()),
    ];
    std::iter::once(kill_switch.to_owned()).chain(others.into_iter().flatten()).collect()
}

/// What becomes of it, and why.
fn now(scope: &ScopeView) -> Vec<String> {
    scope.live.as_ref().map_or_else(|| vec!["no report of it".to_owned()], became)
}

fn became(live: &ScopeLive) -> Vec<String> {
    let state = match (live.state, &live.exit) {
        (ScopeState::Exit, Some(exit)) => format!("through {exit}{}", ms(live.rtt_ms)),
        (ScopeState::Wan, _) => "over the WAN".to_owned(),
        (state, _) => word(&state),
    };
    let why = (!live.why.is_empty()).then(|| live.why.clone());
    std::iter::once(state).chain(why).collect()
}

fn candidate(candidate: &CandidateView) -> String {
    let path = match (candidate.v4 || candidate.v6, candidate.path) {
        (false, _) => "offers nothing".to_owned(),
        (true, Some(Path::Direct)) => "up".to_owned(),
        (true, Some(path)) => word(&path),
        (true, None) => "not known".to_owned(),
    };
    format!("{} {path}{}", candidate.exit, ms(candidate.rtt_ms))
}

pub(super) fn ms(rtt_ms: Option<u32>) -> String {
    rtt_ms.map(|rtt| format!(", {rtt} ms")).unwrap_or_default()
}

//! Commands `exit …` and `exit-client …`, and their part of `status`.

use super::{CommandResult, enc, line, list, node_path, print, stack, stacked_table, warn, word};
use crate::{
    api::{
        CandidateView, ExitSpec, ExitUser, ExitView, Ipv6, NodeStatus, NodeView, ScopeLive, ScopeSpec,
        ScopeView,
    },
    cli::{
        args::{ExitClientCommand, ExitCommand, SetScope},
        client::ApiClient,
        output::harmless,
    },
    obeyed::Changed,
};
use gatewrt_protocol::{Path, ScopeState};
use std::io;

pub(super) fn run(client: &ApiClient, command: ExitCommand, as_json: bool) -> CommandResult {
    match command {
        ExitCommand::Set { network, node, dns, no_ipv4, no_ipv6 } => {
            let spec = ExitSpec { dns, v4: Some(!no_ipv4), v6: Some(!no_ipv6) };
            let node: Changed<NodeView> =
                client.put(&format!("{}/exit", node_path(&network, &node)), &spec)?;
            print(&node, as_json, |node| {
                let offer = node.exit.as_ref().map(families).unwrap_or_default();
                line(&format!("{} is an exit: {offer}", node.name))?;
                warn(&node.warnings);
                Ok(())
            })
        }
        ExitCommand::Unset { network, node, force } => {
            let path = format!("{}/exit?force={force}", node_path(&network, &node));
            let node: Changed<NodeView> = client.delete(&path)?;
            print(&node, as_json, |node| line(&format!("{} is no longer an exit", node.name)))
        }
        ExitCommand::List { network } => {
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

pub(super) fn run_client(client: &ApiClient, command: ExitClientCommand, as_json: bool) -> CommandResult {
    match command {
        ExitClientCommand::Set(set) => {
            let path = scope_path(&set.network, &set.node, set.scope.as_str());
            let set: Changed<ScopeView> = client.put(&path, &spec(&set))?;
            print(&set, as_json, |set| {
                let of = list(&set.of);
                line(&format!(
                    "{}: {of} goes out through {}; {}",
                    set.node,
                    exits_in_order(set).join(", then "),
                    fallback(set)
                ))?;
                warn(&set.warnings);
                Ok(())
            })
        }
        ExitClientCommand::Unset { network, node, scope } => {
            let gone: Changed<ScopeView> = client.delete(&scope_path(&network, &node, scope.as_str()))?;
            print(&gone, as_json, |gone| {
                line(&format!("{}: {} goes out over its WAN again", gone.node, list(&gone.of)))
            })
        }
        ExitClientCommand::List { network, node: Some(node) } => {
            let all: Vec<ScopeView> = client.list(&format!("{}/scopes", node_path(&network, &node)))?;
            print(&all, as_json, |all| scope_table_with_warnings(all))
        }
        ExitClientCommand::List { network, node: None } => {
            let nodes: Vec<NodeStatus> = client.list(&format!("networks/{}/nodes", enc(&network)))?;
            let all: Vec<ScopeView> = nodes.into_iter().flat_map(|node| node.node.scopes).collect();
            print(&all, as_json, |all| scope_table_with_warnings(all))
        }
    }
}

fn scope_path(network: &str, node: &str, scope: &str) -> String {
    format!("{}/scopes/{}", node_path(network, node), enc(scope))
}

fn spec(set: &SetScope) -> ScopeSpec {
    ScopeSpec {
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

/// Prints the exits and scopes in an answer of `status`, if there are any.
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
    nodes.iter().try_for_each(|node| print_rollback(&node.node))
}

/// Prints the warnings about a scope, without those already printed for its exits.
fn scope_lines(scope: &ScopeView, exits: &[ExitView]) -> io::Result<()> {
    let is_new = |why: &&String| exits.iter().all(|exit| exit.why.as_ref() != Some(why));
    let mut warnings = scope.warnings.iter().filter(is_new);
    warnings.try_for_each(|why| line(&format!("{} of {}: {why}", scope.name, scope.node)))
}

/// Prints the scopes that the router's owner has configured on the router itself.
fn own_lines(node: &NodeView) -> io::Result<()> {
    for own in &node.own_scopes {
        let (name, now) = (&own.name, state_lines(&own.live).join("; "));
        line(&format!("{}: its owner has configured scope {name} on the router: {now}", node.name))?;
    }
    Ok(())
}

/// Prints the change that a node rolled back, the reason, and what to do.
pub(super) fn print_rollback(node: &NodeView) -> io::Result<()> {
    let Some(rollback) = &node.rolled_back else { return Ok(()) };
    line(&format!("{}: rolled back assignment {}: {}", node.name, rollback.assignment, rollback.why))?;
    line(&format!(
        "  it keeps its former settings; change them, or try again: gatewrt-coordinator node retry {} {}",
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

fn scope_table_with_warnings(all: &[ScopeView]) -> io::Result<()> {
    scope_table(all)?;
    for scope in all {
        let text = |warning: &String| format!("{} of {}: {warning}", scope.name, scope.node);
        warn(&scope.warnings.iter().map(text).collect::<Vec<_>>());
    }
    Ok(())
}

fn scope_table(all: &[ScopeView]) -> io::Result<()> {
    let row = |scope: &ScopeView| {
        vec![
            stack([&scope.node]),
            stack([&scope.name]),
            stack(&scope.of),
            stack(exits_in_order(scope)),
            stack(settings(scope)),
            stack(now(scope)),
            stack(scope.candidates.iter().map(candidate)),
        ]
    };
    let heading = ["NODE", "SCOPE", "TRAFFIC", "THROUGH", "SETTINGS", "NOW", "CANDIDATES"];
    stacked_table(&heading, &all.iter().map(row).collect::<Vec<_>>())
}

fn exits_in_order(scope: &ScopeView) -> Vec<String> {
    let named = scope.exits.iter().map(ToString::to_string);
    let auto = scope.auto.then(|| "the nearest".to_owned());
    named.chain(auto).collect()
}

fn fallback(scope: &ScopeView) -> &'static str {
    if scope.kill_switch { "dropped while none works" } else { "over the WAN while none works" }
}

/// Settings of a scope that differ from the defaults, and its kill switch, as cells for a table.
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

/// Current state of a scope, and the reason.
fn now(scope: &ScopeView) -> Vec<String> {
    scope.live.as_ref().map_or_else(|| vec!["not reported yet".to_owned()], state_lines)
}

fn state_lines(live: &ScopeLive) -> Vec<String> {
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

//! Commands `status`, `node list` and `node show`.

use super::{
    ApiClient, CommandResult, enc, exits, line, list, print, span, stack, stacked_table, table, word,
};
use crate::api::{NetworkStatus, NodeStatus, Status, UntoldView};
use gatewrt_protocol::PeerReport;
use std::{collections::BTreeMap, io};

pub(super) fn run(client: &ApiClient, network: Option<&str>, as_json: bool) -> CommandResult {
    let query = network.map(|network| format!("?network={}", enc(network))).unwrap_or_default();
    print(&client.get::<Status>(&format!("status{query}"))?, as_json, show)
}

fn show(status: &Status) -> io::Result<()> {
    line(&format!("coordinator {}, up {}", status.version, span(status.uptime_s)))?;
    if let Some(why) = &status.unsure {
        line(&format!("no change is made: it is not known what is on the disk: {why}"))?;
    }
    if let Some(recovery) = &status.recovery {
        line(&format!("{recovery}: see “gatewrt-coordinator recovery show”"))?;
    }
    if let Some(behind) = status.clock_behind_s {
        line(&format!(
            "the clock of this coordinator is {} behind the latest time that it has shown: set it, if it is wrong; what has expired stays so",
            span(behind)
        ))?;
    }
    if status.networks.is_empty() {
        line("no network yet: gatewrt-coordinator network create home")?;
    }
    status.networks.iter().try_for_each(show_network)?;
    show_untold(&status.untold)
}

/// Lists removed nodes that do not know it yet.
fn show_untold(untold: &[UntoldView]) -> io::Result<()> {
    if untold.is_empty() {
        return Ok(());
    }
    line("")?;
    line(
        "removed, and not told yet; each reads it when it reaches this coordinator, and goes on till then with others that have not heard of it either:",
    )?;
    let row = |node: &UntoldView| {
        let days = node.ends_in.div_ceil(86_400);
        vec![node.name.to_string(), node.network.clone(), format!("{days} days")]
    };
    table(&["NODE", "NETWORK", "CAN READ IT FOR"], &untold.iter().map(row).collect::<Vec<_>>())
}

fn show_network(status: &NetworkStatus) -> io::Result<()> {
    let online = status.nodes.iter().filter(|node| node.online).count();
    let network = &status.network;
    line("")?;
    line(&format!(
        "network {}  {}  {}  {online} of {} nodes online",
        network.name,
        network.prefix4,
        network.prefix6,
        status.nodes.len()
    ))?;
    if !status.nodes.is_empty() {
        node_table(&status.nodes)?;
        let names = status.nodes.iter().map(|node| (node.node.id, node.node.name.to_string())).collect();
        peer_table(&status.nodes, &names)?;
        exits::show(&status.nodes)?;
    }
    // What an offline node reported last may be over.
    status.nodes.iter().filter(|node| node.online).try_for_each(failure_lines)?;
    status.warnings.iter().try_for_each(|warning| line(&format!("warning: {warning}")))
}

pub(super) fn node_table(nodes: &[NodeStatus]) -> io::Result<()> {
    let row = |status: &NodeStatus| {
        let node = &status.node;
        vec![
            stack([&node.name]),
            stack([presence(status)]),
            stack(node.addresses.iter().take(1)),
            stack(node.egress.iter().map(|egress| egress.prefix)),
            stack(node.endpoints.iter().map(|endpoint| endpoint.addr).take(2)),
            stack([applied(status)]),
            stack([format!("{} {}", node.board, node.version).trim()]),
        ]
    };
    let heading = ["NODE", "STATE", "ADDRESS", "SERVES", "ENDPOINTS", "APPLIED", "ROUTER"];
    stacked_table(&heading, &nodes.iter().map(row).collect::<Vec<_>>())
}

fn presence(status: &NodeStatus) -> String {
    let state = if status.online { "online" } else { "offline" };
    status.for_s.map_or_else(|| state.to_owned(), |seconds| format!("{state} {}", span(seconds)))
}

/// Cell that says if a node has applied its current settings; if it is behind, with both revisions.
fn applied(status: &NodeStatus) -> String {
    let Some(report) = &status.report else { return "no report yet".to_owned() };
    let (has, current) = (&report.applied, &status.current);
    let parts = [("policy", has.policy, current.policy), ("assignment", has.assignment, current.assignment)];
    let behind: Vec<_> = parts
        .iter()
        .filter(|(_, has, current)| has != current)
        .map(|(what, has, current)| format!("{what} {has}/{current}"))
        .collect();
    let rolled_back =
        status.node.rolled_back.as_ref().is_some_and(|rollback| rollback.assignment == current.assignment);
    match (behind.is_empty(), report.failures.len()) {
        _ if rolled_back => format!("rolled back {}", current.assignment),
        (true, 0) => "all".to_owned(),
        (true, failures) if status.online => format!("{failures} failed"),
        (true, failures) => format!("{failures} had failed"),
        (false, _) => list(behind),
    }
}

fn peer_table(nodes: &[NodeStatus], names: &BTreeMap<gatewrt_protocol::NodeId, String>) -> io::Result<()> {
    let peers = nodes.iter().flat_map(|node| {
        let peers = node.report.iter().flat_map(|report| &report.peers);
        peers.map(move |peer| peer_row(&node.node.name.to_string(), peer, names))
    });
    let mut rows: Vec<_> = peers.collect();
    rows.sort_unstable();
    if rows.is_empty() {
        Ok(())
    } else {
        table(&["FROM", "TO", "PATH", "VIA", "HANDSHAKE", "RTT", "RX", "TX"], &rows)
    }
}

fn peer_row(
    from: &str,
    peer: &PeerReport,
    names: &BTreeMap<gatewrt_protocol::NodeId, String>,
) -> Vec<String> {
    vec![
        from.to_owned(),
        names.get(&peer.node).cloned().unwrap_or_else(|| peer.node.to_string()),
        word(&peer.path),
        list(peer.endpoint),
        peer.handshake_s.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", span(seconds))),
        peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt} ms")),
        peer.rx.to_string(),
        peer.tx.to_string(),
    ]
}

/// Prints the failures that a node reported last. Those of an offline node are as they were then.
fn failure_lines(status: &NodeStatus) -> io::Result<()> {
    let could_not = if status.online { "could not" } else { "before it went offline, could not" };
    let failures = status.report.iter().flat_map(|report| &report.failures);
    failures.into_iter().try_for_each(|failure| {
        line(&format!("{}: {could_not} {}: {}", status.node.name, failure.what, failure.why))
    })
}

/// Cell with the numbers of messages that were refused, by reason.
fn refusals(refused: &BTreeMap<String, u64>) -> String {
    list(refused.iter().map(|(why, count)| format!("{why} ({count})")))
}

pub(super) fn node_details(status: &NodeStatus) -> io::Result<()> {
    let node = &status.node;
    let endpoint =
        |endpoint: &gatewrt_protocol::Endpoint| format!("{} ({})", endpoint.addr, word(&endpoint.kind));
    let egress = |egress: &crate::api::EgressView| {
        let nat = if egress.nat { "on" } else { "off" };
        format!("{} (NAT {nat}, metric {})", egress.prefix, egress.metric)
    };
    let refused = status.report.as_ref().map(|report| report.refused.clone()).unwrap_or_default();
    let rows = [
        ("name", node.name.to_string()),
        ("id", node.id.to_string()),
        ("network", node.network.to_string()),
        ("state", presence(status)),
        ("connects from", list(status.from)),
        ("WireGuard key", node.key.to_string()),
        ("addresses", list(&node.addresses)),
        ("endpoints", list(node.endpoints.iter().map(endpoint))),
        ("serves", list(node.egress.iter().map(egress))),
        ("control link", format!("a change that cuts it off for {} s is rolled back", node.confirm_s)),
        ("may be", list(node.roles.iter().map(word))),
        ("router", format!("{} {}", node.board, node.version).trim().to_owned()),
        ("applied", applied(status)),
        ("records it refused since its start", refusals(&refused)),
        ("messages of it that were refused", refusals(&status.refused)),
        (
            "last report",
            status.report_age_s.map_or_else(|| "-".to_owned(), |age| format!("{} ago", span(age))),
        ),
    ];
    table(&["NODE", ""], &rows.map(|(what, value)| vec![what.to_owned(), value]))?;
    exits::show(std::slice::from_ref(status))?;
    peer_table(std::slice::from_ref(status), &BTreeMap::new())?;
    failure_lines(status)
}

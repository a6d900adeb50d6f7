//! What a coordinator that was set back learns from a record that it signed itself before, and that a node still has: see
//! [`crate::registry::Recovery`]. Pure.
//!
//! Nothing here opens anything: a node or client that was removed or disabled after the backup stays so, one that came after
//! it stays out until an admin adopts it. A record tells of the past only, so it never makes a setting.

use crate::{
    records::Content,
    registry::{Changes, Client, Registry, Row},
};
use gatewrt_protocol::{Assignment, Member, MemberUpdate, NodeId, PublicKey, Tombstone, WgPublicKey};
use std::collections::BTreeSet;

/// Node that tells of a record.
#[derive(Debug, Clone, Copy)]
pub struct Teller {
    /// Node, as its certificate names it.
    pub node: NodeId,
    /// Identity key of its certificate.
    pub identity: Option<PublicKey>,
}

/// Rows that follow from a newer record that a node told of. An error is the reason why it tells nothing: a node may speak
/// of its own network, and one that is not known of itself.
pub fn learn(registry: &Registry, teller: Teller, told: &Content, now: u64) -> Result<Changes, &'static str> {
    match registry.node(teller.node) {
        Some(node) if !node.is_live() => return Err("told by a removed node"),
        Some(node) if node.net != told.net() => return Err("told of another network"),
        Some(_) => {}
        None if is_about(told, teller.node) => {}
        None => return Err("told of others by a node that is not known"),
    }
    let mut findings = Vec::new();
    let mut rows = match told {
        Content::Member(MemberUpdate::Member(member)) => {
            of_member(registry, teller, member, now, &mut findings)
        }
        Content::Member(MemberUpdate::Tombstone(tombstone)) => {
            of_tombstone(registry, tombstone, now, &mut findings)
        }
        Content::Assignment(assignment) => of_assignment(registry, teller, assignment, now, &mut findings),
        Content::Roster(_) | Content::Policy(_) => Vec::new(),
    };
    let own = matches!(told, Content::Assignment(assignment) if assignment.node == teller.node);
    rows.extend(registry.handle_told(teller.node, own, findings, now));
    Ok(rows)
}

fn is_about(told: &Content, node: NodeId) -> bool {
    match told {
        Content::Member(update) => update.about().1 == node,
        Content::Assignment(assignment) => assignment.node == node,
        Content::Roster(_) | Content::Policy(_) => false,
    }
}

fn of_member(
    registry: &Registry,
    teller: Teller,
    member: &Member,
    now: u64,
    findings: &mut Vec<String>,
) -> Changes {
    if registry.node(member.node).is_some() {
        return Vec::new();
    }
    let identity = teller.identity.filter(|_| teller.node == member.node);
    if registry.stray_member(member.node).is_none() {
        findings.push(format!("node {} joined after the backup: adopt it or cut it off", member.name));
    }
    registry.stray_node(member, None, identity, now)
}

fn of_tombstone(registry: &Registry, tombstone: &Tombstone, now: u64, findings: &mut Vec<String>) -> Changes {
    let Some(node) = registry.live_node(tombstone.node) else { return Vec::new() };
    findings.push(format!("node {} was removed after the backup: it stays removed", node.name));
    let network = registry.network(node.net).map(|network| network.name.clone());
    network.map_or_else(Vec::new, |network| vec![node.removed_row(&network, now)])
}

fn of_assignment(
    registry: &Registry,
    teller: Teller,
    assignment: &Assignment,
    now: u64,
    findings: &mut Vec<String>,
) -> Changes {
    let Some(node) = registry.live_node(assignment.node) else {
        let member =
            registry.stray_member(assignment.node).filter(|_| registry.node(assignment.node).is_none());
        return member.map_or_else(Vec::new, |member| {
            registry.stray_node(member, Some(assignment), teller.identity, now)
        });
    };
    let let_in = assignment.ingress.as_ref().map_or(&[][..], |ingress| &ingress.clients);
    let keys: BTreeSet<WgPublicKey> = let_in.iter().map(|client| client.key).collect();
    let mut rows = Vec::new();
    for client in registry.admitted(node, now).filter(|client| !keys.contains(&client.key)) {
        findings.push(format!(
            "client {} was disabled, moved, reissued or deleted after the backup: it is disabled",
            client.name
        ));
        rows.push(Row::Client(client.id, Some(Box::new(Client { enabled: false, ..client.clone() }))));
    }
    let is_unknown = |key: WgPublicKey| !registry.clients().any(|client| client.had_key(key));
    for client in let_in.iter().filter(|client| is_unknown(client.key)) {
        let Some(row) = registry.stray_client(node.net, node.id, client, now) else { continue };
        let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
        findings.push(format!(
            "a client of {} with address {} came after the backup: adopt it or cut it off",
            node.name,
            addresses.join(", ")
        ));
        rows.push(row);
    }
    rows
}

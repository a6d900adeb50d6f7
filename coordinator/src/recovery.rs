//! What a coordinator that was set back learns from a record that it signed itself before, and that a node still has: see
//! [`crate::registry::Recovery`]. Pure.
//!
//! Nothing here opens anything: a node or client that was removed or disabled after the backup stays so, one that came after
//! it stays out until an admin adopts it, and a connection that access rules denied is denied until an admin accepts the rules
//! of the backup. A record tells of the past only, so it never makes a setting.

use crate::{
    records::{self, Compared, Content},
    registry::{Changes, Client, Node, Registry, Row},
};
use gatewrt_protocol::{Access, Assignment, Member, MemberUpdate, NodeId, PublicKey, Tombstone, WgPublicKey};
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
    let own = match told {
        Content::Assignment(assignment) if assignment.node == teller.node => {
            let node = registry.live_node(teller.node);
            Some(node.and_then(|node| of_rules(registry, node, &assignment.access, &mut findings)))
        }
        _ => None,
    };
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
    if let Some(node) = registry.node(member.node) {
        return registry.keep_blocks(node, member);
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
    vec![node.removed_row(network.as_ref(), now)]
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
    for client in let_in {
        if let Some((row, found)) = registry.stray_client(node, client, now) {
            findings.push(found);
            rows.push(row);
        }
    }
    rows
}

/// Access rules that a node showed and has to keep to, as they are stricter than those that follow from the registry, and what is
/// found by them.
fn of_rules<'a>(
    registry: &Registry,
    node: &Node,
    told: &'a Access,
    findings: &mut Vec<String>,
) -> Option<&'a Access> {
    let name = &node.name;
    match records::compared_rules(registry, node, told) {
        Compared::Same => None,
        Compared::Looser => {
            findings.push(format!(
                "node {name} had other access rules than the backup has, which allowed more: make them again"
            ));
            None
        }
        Compared::Stricter => {
            findings.push(format!(
                "node {name} had other access rules than the backup has, which denied more: it keeps to both until you have made them again, and “recovery accept-rules {name}”"
            ));
            Some(told)
        }
    }
}

#[cfg(test)]
mod tests;

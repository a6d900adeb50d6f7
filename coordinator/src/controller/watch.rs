//! Events for watchers, with decoded records.

use crate::{
    records::{Change, Content},
    registry::Registry,
};
use gatewrt_protocol::{
    Assignment, MemberUpdate, NetworkId, NetworkName, NodeId, NodeName, Presence, Report, Topic,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Event for watchers: one change of a record, a session, a report or a presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// Time of the change, in seconds since 1970.
    pub at: u64,
    /// Kind of the change: `member`, `tombstone`, `roster`, `policy`, `assignment`, `withdrawn`, `report`,
    /// `presence`, `connected`, `disconnected`, `told` (a removed node has read its tombstone).
    pub what: String,
    /// Name of the network that the change belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
    /// Name of the node that the change belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Topic of the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Content of the record.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub record: Value,
}

impl WatchEvent {
    /// Creates the event of a record that was published or withdrawn.
    pub fn of_change(registry: &Registry, at: u64, (topic, content): &Change) -> Self {
        let event = about_topic(registry, at, topic);
        let Some(content) = content else { return Self { what: "withdrawn".into(), ..event } };
        let (what, record) = match content {
            Content::Member(MemberUpdate::Member(member)) => ("member", json(member)),
            Content::Member(MemberUpdate::Tombstone(tombstone)) => ("tombstone", json(tombstone)),
            Content::Roster(roster) => ("roster", json(roster)),
            Content::Policy(policy) => ("policy", json(policy)),
            Content::Assignment(assignment) => ("assignment", json(&without_secrets(assignment))),
        };
        Self { what: what.into(), record, ..event }
    }

    /// Creates the event of a node that has connected or disconnected.
    pub fn of_session(registry: &Registry, at: u64, node: NodeId, connected: bool) -> Self {
        let what = if connected { "connected" } else { "disconnected" };
        about(registry, at, what, registry.node(node).map(|node| node.net), Some(node))
    }

    /// Creates the event of a removed node that has read its tombstone.
    pub fn of_told(registry: &Registry, at: u64, node: NodeId) -> Self {
        about(registry, at, "told", registry.node(node).map(|node| node.net), Some(node))
    }

    /// Creates the event of a node's report.
    pub fn of_report(registry: &Registry, at: u64, report: &Report) -> Self {
        let event = about(registry, at, "report", Some(report.net), Some(report.node));
        Self { topic: Topic::Report(report.node).to_string(), record: json(report), ..event }
    }

    /// Creates the event of a node's presence message.
    pub fn of_presence(registry: &Registry, at: u64, presence: &Presence) -> Self {
        let event = about(registry, at, "presence", Some(presence.net), Some(presence.node));
        Self { topic: Topic::Presence(presence.node).to_string(), record: json(presence), ..event }
    }
}

fn about_topic(registry: &Registry, at: u64, topic: &Topic) -> WatchEvent {
    let (net, node) = match *topic {
        Topic::Member(net, node) => (Some(net), Some(node)),
        Topic::Roster(net) | Topic::Policy(net) => (Some(net), None),
        Topic::Assignment(node)
        | Topic::Command(node)
        | Topic::Report(node)
        | Topic::Reply(node)
        | Topic::Presence(node) => (registry.node(node).map(|node| node.net), Some(node)),
    };
    WatchEvent { topic: topic.to_string(), ..about(registry, at, "", net, node) }
}

fn about(
    registry: &Registry,
    at: u64,
    what: &str,
    net: Option<NetworkId>,
    node: Option<NodeId>,
) -> WatchEvent {
    let node = node.and_then(|node| registry.node(node));
    let network = net.and_then(|net| registry.network(net)).map(|network| network.name.clone());
    // The network may have been deleted with its nodes.
    let network = network.or_else(|| node.and_then(|node| node.removed_from.clone()));
    let node = node.map(|node| node.name.clone());
    WatchEvent { at, what: what.into(), network, node, topic: String::new(), record: Value::Null }
}

/// Copy of an assignment without preshared keys: they are shown once, to the admin who issues them.
fn without_secrets(assignment: &Assignment) -> Assignment {
    let mut shown = assignment.clone();
    shown.ingress.iter_mut().flat_map(|ingress| &mut ingress.clients).for_each(|client| client.psk = None);
    shown
}

fn json<T: Serialize>(record: &T) -> Value {
    serde_json::to_value(record).expect("records are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewrt_protocol::{Access, Ingress, IngressClient, PresharedKey, WgPublicKey};

    #[test]
    fn watch_event_contains_no_preshared_key() {
        let node = NodeId::from_entropy([1; 10]);
        let client = IngressClient {
            key: WgPublicKey([2; 32]),
            addresses: Vec::new(),
            psk: Some(PresharedKey([3; 32])),
            prefixes: Vec::new(),
            internet: false,
            reachable: false,
        };
        let assignment = Assignment {
            net: NetworkId::from_entropy([1; 10]),
            node,
            rev: 1,
            name: "office".parse().unwrap(),
            addresses: Vec::new(),
            egress: Vec::new(),
            ingress: Some(Ingress { clients: vec![client] }),
            exit: None,
            scopes: Vec::new(),
            confirm_s: None,
            attempt: 0,
            access: Access::default(),
            control: Vec::new(),
        };
        let change = (Topic::Assignment(node), Some(Content::Assignment(assignment)));
        let said = json(&WatchEvent::of_change(&Registry::default(), 1, &change)).to_string();
        assert!(said.contains(&WgPublicKey([2; 32]).to_string()), "{said}");
        assert!(!said.contains(&PresharedKey([3; 32]).to_string()), "{said}");
    }
}

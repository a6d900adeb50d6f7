//! Counters of the broker by kind of topic. They count from the start and are never reset.

use crate::access;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kind of an MQTT message, by the last fixed word of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// Topic `net/{net}/member/{node}`.
    Member,
    /// Topic `net/{net}/roster`.
    Roster,
    /// Topic `net/{net}/policy`.
    Policy,
    /// Topic `node/{node}/assignment`.
    Assignment,
    /// Topic `node/{node}/command`.
    Command,
    /// Topic `node/{node}/report`.
    Report,
    /// Topic `node/{node}/reply`.
    Reply,
    /// Topic `node/{node}/presence`.
    Presence,
    /// Any other topic.
    Other,
}

impl MessageKind {
    /// Kind of the messages on this topic.
    pub fn of(topic: &str) -> Self {
        let Some(below) = topic.strip_prefix(access::PREFIX) else { return Self::Other };
        match *below.split('/').collect::<Vec<_>>() {
            ["", "net", _, "member", _] => Self::Member,
            ["", "net", _, "roster"] => Self::Roster,
            ["", "net", _, "policy"] => Self::Policy,
            ["", "node", _, "assignment"] => Self::Assignment,
            ["", "node", _, "command"] => Self::Command,
            ["", "node", _, "report"] => Self::Report,
            ["", "node", _, "reply"] => Self::Reply,
            ["", "node", _, "presence"] => Self::Presence,
            _ => Self::Other,
        }
    }
}

/// Number of messages, and of the bytes of their topics and payloads (without MQTT, TLS and TCP headers).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of messages.
    pub messages: u64,
    /// Bytes of topics and payloads.
    pub bytes: u64,
}

/// Tallies of messages by the kind of their topics.
pub type ByKind = BTreeMap<MessageKind, Tally>;

/// Nodes with an MQTT session, and the messages that were delivered to each.
pub type Sessions = BTreeMap<String, ByKind>;

/// All counters of the broker, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages published by the coordinator.
    pub published: ByKind,
    /// Messages delivered to nodes, counted once for each node.
    pub delivered: ByKind,
    /// Messages published by nodes and accepted, wills included.
    pub received: ByKind,
    /// Connections refused: no or a foreign certificate, another's client id, unknown node, foreign will.
    pub refused_connects: u64,
    /// Messages of nodes refused by the access check, wills included.
    pub refused_publishes: u64,
    /// Subscriptions refused by the access check.
    pub refused_subscribes: u64,
    /// Deliveries withheld because the node may no longer read a topic that it has subscribed to.
    pub withheld: u64,
    /// Deliveries lost because a node's queue was full or its session ended first.
    pub dropped: u64,
    /// Events lost because nobody received them in time.
    pub events_lost: u64,
}

pub(super) fn count(tallies: &mut ByKind, topic: &str, payload: &[u8]) {
    let tally = tallies.entry(MessageKind::of(topic)).or_default();
    tally.messages += 1;
    tally.bytes += (topic.len() + payload.len()) as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_of_every_form_has_its_kind() {
        for (topic, kind) in [
            ("gatewrt/v1/net/a/member/b", MessageKind::Member),
            ("gatewrt/v1/net/a/roster", MessageKind::Roster),
            ("gatewrt/v1/net/a/policy", MessageKind::Policy),
            ("gatewrt/v1/node/a/assignment", MessageKind::Assignment),
            ("gatewrt/v1/node/a/command", MessageKind::Command),
            ("gatewrt/v1/node/a/report", MessageKind::Report),
            ("gatewrt/v1/node/a/reply", MessageKind::Reply),
            ("gatewrt/v1/node/a/presence", MessageKind::Presence),
            ("gatewrt/v1/node/a/report/b", MessageKind::Other),
            ("gatewrt/v1x/net/a/roster", MessageKind::Other),
            ("", MessageKind::Other),
        ] {
            assert_eq!(MessageKind::of(topic), kind, "{topic}");
        }
    }
}

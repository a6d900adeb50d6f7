//! What went through the broker, by kind of topic. Counted since the start, never reset.

use crate::access;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of a topic: its last fixed word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `net/{net}/member/{node}`
    Member,
    /// `net/{net}/roster`
    Roster,
    /// `net/{net}/policy`
    Policy,
    /// `node/{node}/assignment`
    Assignment,
    /// `node/{node}/command`
    Command,
    /// `node/{node}/report`
    Report,
    /// `node/{node}/reply`
    Reply,
    /// `node/{node}/presence`
    Presence,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind of this topic.
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

/// Messages, and the bytes of their topics and payloads (MQTT, TLS and TCP come on top).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub messages: u64,
    /// Bytes of topic and payload.
    pub bytes: u64,
}

/// Tallies by kind of topic.
pub type ByKind = BTreeMap<Kind, Tally>;

/// The nodes that have a session, and what was delivered to each.
pub type Sessions = BTreeMap<String, ByKind>;

/// Everything the broker counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Published by the coordinator.
    pub published: ByKind,
    /// Delivered to nodes, one for each node that got it.
    pub delivered: ByKind,
    /// Published by nodes and accepted, wills included.
    pub received: ByKind,
    /// Connections refused: no or a foreign certificate, another's client id, unknown node, foreign will.
    pub refused_connects: u64,
    /// Messages of nodes refused by the access check, wills included.
    pub refused_publishes: u64,
    /// Subscriptions refused by the access check.
    pub refused_subscribes: u64,
    /// Deliveries withheld because the node may no longer read what it once subscribed to.
    pub withheld: u64,
    /// Deliveries lost because a node's queue was full or its session ended first.
    pub dropped: u64,
    /// Events lost because nobody took them in time.
    pub events_lost: u64,
}

pub(super) fn count(tallies: &mut ByKind, topic: &str, payload: &[u8]) {
    let tally = tallies.entry(Kind::of(topic)).or_default();
    tally.messages += 1;
    tally.bytes += (topic.len() + payload.len()) as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_kind() {
        for (topic, kind) in [
            ("gatewrt/v1/net/a/member/b", Kind::Member),
            ("gatewrt/v1/net/a/roster", Kind::Roster),
            ("gatewrt/v1/net/a/policy", Kind::Policy),
            ("gatewrt/v1/node/a/assignment", Kind::Assignment),
            ("gatewrt/v1/node/a/command", Kind::Command),
            ("gatewrt/v1/node/a/report", Kind::Report),
            ("gatewrt/v1/node/a/reply", Kind::Reply),
            ("gatewrt/v1/node/a/presence", Kind::Presence),
            ("gatewrt/v1/node/a/report/b", Kind::Other),
            ("gatewrt/v1x/net/a/roster", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(Kind::of(topic), kind, "{topic}");
        }
    }
}

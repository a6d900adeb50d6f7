//! MQTT topics: one table for publishing, subscribing and access control.

use crate::{NetworkId, NodeId};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// First levels of every topic of ours, with the version of the topic layout.
pub const ROOT: &str = "gatewrt/v1";

/// MQTT topic of GateWRT, one kind of record or message each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Member record of a node for its network; written by the coordinator, retained.
    Member(NetworkId, NodeId),
    /// Digest of a network's member records; written by the coordinator, retained.
    Roster(NetworkId),
    /// Policy of a network; written by the coordinator, retained.
    Policy(NetworkId),
    /// Assignment of a node; written by the coordinator, retained.
    Assignment(NodeId),
    /// One-shot request to a node; written by the coordinator, not retained.
    Command(NodeId),
    /// Report of a node on itself; written by the node, retained.
    Report(NodeId),
    /// Record of the coordinator that a node has and the coordinator does not seem to know any more, as it was signed;
    /// written by the node, not retained.
    Reply(NodeId),
    /// Presence of a node, online or offline; written by the node and as its will, retained.
    Presence(NodeId),
}

impl Topic {
    /// Only node that may write to the topic; `None` where only the coordinator may.
    pub fn writer(&self) -> Option<NodeId> {
        match *self {
            Self::Report(node) | Self::Reply(node) | Self::Presence(node) => Some(node),
            _ => None,
        }
    }

    /// True if the broker retains the topic's last message.
    pub fn is_retained(&self) -> bool {
        !matches!(self, Self::Command(_) | Self::Reply(_))
    }

    /// Topic filters that a node subscribes to, and the only ones that it may: everything of its network, and its own
    /// assignment and commands.
    pub fn filters_of(net: NetworkId, node: NodeId) -> [String; 3] {
        [format!("{ROOT}/net/{net}/#"), Self::Assignment(node).to_string(), Self::Command(node).to_string()]
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(net, node) => write!(f, "{ROOT}/net/{net}/member/{node}"),
            Self::Roster(net) => write!(f, "{ROOT}/net/{net}/roster"),
            Self::Policy(net) => write!(f, "{ROOT}/net/{net}/policy"),
            Self::Assignment(node) => write!(f, "{ROOT}/node/{node}/assignment"),
            Self::Command(node) => write!(f, "{ROOT}/node/{node}/command"),
            Self::Report(node) => write!(f, "{ROOT}/node/{node}/report"),
            Self::Reply(node) => write!(f, "{ROOT}/node/{node}/reply"),
            Self::Presence(node) => write!(f, "{ROOT}/node/{node}/presence"),
        }
    }
}

/// Error for a topic that is none of GateWRT's. It is skipped, as a later version may know it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown topic")]
pub struct UnknownTopic;

impl FromStr for Topic {
    type Err = UnknownTopic;
    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        let rest = text.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).ok_or(UnknownTopic)?;
        let mut levels = rest.split('/');
        let mut next = || levels.next();
        let topic = match (next(), next(), next(), next()) {
            (Some("net"), Some(net), Some("member"), Some(node)) => Self::Member(id(net)?, id(node)?),
            (Some("net"), Some(net), Some("roster"), None) => Self::Roster(id(net)?),
            (Some("net"), Some(net), Some("policy"), None) => Self::Policy(id(net)?),
            (Some("node"), Some(node), Some("assignment"), None) => Self::Assignment(id(node)?),
            (Some("node"), Some(node), Some("command"), None) => Self::Command(id(node)?),
            (Some("node"), Some(node), Some("report"), None) => Self::Report(id(node)?),
            (Some("node"), Some(node), Some("reply"), None) => Self::Reply(id(node)?),
            (Some("node"), Some(node), Some("presence"), None) => Self::Presence(id(node)?),
            _ => return Err(UnknownTopic),
        };
        if next().is_some() { Err(UnknownTopic) } else { Ok(topic) }
    }
}

fn id<T: FromStr>(text: &str) -> Result<T, UnknownTopic> {
    text.parse().map_err(|_| UnknownTopic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_topic() -> impl Strategy<Value = Topic> {
        (any::<[u8; 10]>(), any::<[u8; 10]>(), 0..8usize).prop_map(|(net, node, which)| {
            let (net, node) = (NetworkId::from_entropy(net), NodeId::from_entropy(node));
            [
                Topic::Member(net, node),
                Topic::Roster(net),
                Topic::Policy(net),
                Topic::Assignment(node),
                Topic::Command(node),
                Topic::Report(node),
                Topic::Reply(node),
                Topic::Presence(node),
            ][which]
        })
    }

    proptest! {
        #[test]
        fn topic_survives_its_text(topic in any_topic()) {
            prop_assert_eq!(topic.to_string().parse(), Ok(topic));
        }

        #[test]
        fn arbitrary_text_is_a_topic_or_an_error(text in "gatewrt/v1/(net|node|x)/[a-z2-7+#/]{0,40}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }

    #[test]
    fn topic_layout_is_pinned() {
        let (net, node) = (NetworkId::from_entropy([0; 10]), NodeId::from_entropy([255; 10]));
        assert_eq!(
            Topic::Member(net, node).to_string(),
            "gatewrt/v1/net/aaaaaaaaaaaaaaaa/member/7777777777777777"
        );
        for text in [
            "",
            "gatewrt/v1",
            "gatewrt/v1/net/aaaaaaaaaaaaaaaa/roster/",
            "gatewrt/v1/net/+/roster",
            "gatewrt/v2/net/aaaaaaaaaaaaaaaa/roster",
        ] {
            assert_eq!(text.parse::<Topic>(), Err(UnknownTopic), "{text}");
        }
    }
}

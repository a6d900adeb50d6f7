//! MQTT topics, one table for everyone who publishes, subscribes or checks access.

use crate::{NetworkId, NodeId};
use std::{fmt, str::FromStr};

/// The first levels of every topic of ours; the number is that of the topic layout.
pub const ROOT: &str = "gatewrt/v1";

/// A topic of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What a network's nodes may know of one node; written by the coordinator, retained.
    Member(NetworkId, NodeId),
    /// Digest of a network's member records; written by the coordinator, retained.
    Roster(NetworkId),
    /// Settings of a network; written by the coordinator, retained.
    Policy(NetworkId),
    /// What only one node needs; written by the coordinator, retained.
    Assignment(NodeId),
    /// A one-shot request; written by the coordinator, not retained.
    Command(NodeId),
    /// What a node says of itself; written by the node, retained.
    Report(NodeId),
    /// Answer to a command; written by the node, not retained.
    Reply(NodeId),
    /// Online or offline; written by the node and as its will, retained.
    Presence(NodeId),
}

impl Topic {
    /// The node that alone may write it; `None` for what only the coordinator writes.
    pub fn writer(&self) -> Option<NodeId> {
        match *self {
            Self::Report(node) | Self::Reply(node) | Self::Presence(node) => Some(node),
            _ => None,
        }
    }

    /// Whether the broker keeps the last message on it.
    pub fn is_retained(&self) -> bool {
        !matches!(self, Self::Command(_) | Self::Reply(_))
    }

    /// The filters a node subscribes to, and the only ones it may: everything of its network, and its own
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

/// A topic that is none of ours: to be skipped, a later version may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTopic;

impl fmt::Display for UnknownTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown topic")
    }
}
impl std::error::Error for UnknownTopic {}

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
        fn text_and_back(topic in any_topic()) {
            prop_assert_eq!(topic.to_string().parse(), Ok(topic));
        }

        #[test]
        fn any_text_is_a_topic_or_an_error(text in "gatewrt/v1/(net|node|x)/[a-z2-7+#/]{0,40}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }

    #[test]
    fn the_layout_is_pinned() {
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

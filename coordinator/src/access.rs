//! Rights of nodes on MQTT topics: the one table that all checks of the broker use. Pure: the caller knows if
//! a node exists and which networks it is in.
//!
//! | topic below `gatewrt/v1` | a node |
//! | --- | --- |
//! | `net/{its network}/…` | reads, wildcards only below its own network's id |
//! | `node/{itself}/assignment`, `…/command` | reads |
//! | `node/{itself}/report`, `…/reply`, `…/presence` | writes |
//! | everything else | neither |
//!
//! A node that was removed reads `net/{its network}/member/{itself}` alone, its tombstone, and writes nothing.
//! It may subscribe as it did before and have a will, as it does not know yet: what it subscribes to in its
//! network is narrowed to its tombstone, and its will is never published.
//!
//! A node that is not known, but has a certificate, is a stranger: a coordinator that was restored from a backup lets it
//! connect and write `node/{itself}/reply` alone, to tell of itself. It reads nothing.

use std::collections::BTreeSet;

/// Prefix of all topics.
pub const PREFIX: &str = "gatewrt/v1";

const READ_OF_OWN: [&str; 2] = ["assignment", "command"];
const WRITE_OF_OWN: [&str; 3] = ["report", "reply", "presence"];
const MAX_ID: usize = 64;

/// Standing of a node that the broker lets connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is a member of the networks with these ids.
    Member(BTreeSet<String>),
    /// It was removed from the network with this id.
    Removed(String),
    /// It is not known, and may tell of itself.
    Stranger,
}

/// Rights of one node on MQTT topics, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    node: &'a str,
    standing: Option<&'a Standing>,
}

impl<'a> Access<'a> {
    /// Creates the rights of `node`, which is the MQTT client id and the common name of its certificate. Without a
    /// standing, as an unknown node, it has no rights at all.
    pub fn new(node: &'a str, standing: Option<&'a Standing>) -> Self {
        Self { node, standing: standing.filter(|_| is_id(node)) }
    }

    /// True if the node may connect to the broker.
    pub fn may_connect(self) -> bool {
        self.standing.is_some()
    }

    /// True if the node was removed, and may read its tombstone.
    pub fn is_removed(self) -> bool {
        matches!(self.standing, Some(Standing::Removed(_)))
    }

    /// True if the node may publish to this topic. A last will counts as a publish.
    pub fn may_publish(self, topic: &str) -> bool {
        let may = match self.standing {
            Some(Standing::Member(_)) => true,
            Some(Standing::Stranger) => topic.ends_with("/reply"),
            Some(Standing::Removed(_)) | None => false,
        };
        may && self.may_have_will(topic)
    }

    /// True if the node may connect with a last will for this topic.
    pub fn may_have_will(self, topic: &str) -> bool {
        match levels(topic) {
            Some(["node", node, what]) => self.is_itself(node) && WRITE_OF_OWN.contains(&what),
            _ => false,
        }
    }

    /// True if the node may subscribe to this topic filter, which is narrowed if it was removed.
    pub fn may_subscribe(self, filter: &str) -> bool {
        if let Some(["node", node, what]) = levels(filter) {
            return self.is_itself(node) && READ_OF_OWN.contains(&what);
        }
        match self.standing {
            Some(Standing::Member(_)) => self.is_below_network(filter),
            Some(Standing::Removed(_)) => self.is_tombstone(filter),
            Some(Standing::Stranger) => self.narrowed(filter).is_some_and(|narrowed| narrowed == filter),
            None => false,
        }
    }

    /// Filter that a removed node or a stranger gets in place of one in its network: its tombstone alone.
    pub fn narrowed(self, filter: &str) -> Option<String> {
        match self.standing {
            Some(Standing::Removed(_)) => self.tombstone().filter(|_| self.is_below_network(filter)),
            Some(Standing::Stranger) => {
                let (network, below) = below_network(filter)?;
                let sound = is_id(network) && is_filter(below);
                sound.then(|| format!("{PREFIX}/net/{network}/member/{}", self.node))
            }
            Some(Standing::Member(_)) | None => None,
        }
    }

    /// True if the broker may deliver this topic, which has no wildcards, to the node.
    pub fn may_read(self, topic: &str) -> bool {
        match self.standing {
            Some(Standing::Removed(_)) => return self.is_tombstone(topic),
            Some(Standing::Stranger) => return false,
            Some(Standing::Member(_)) | None => {}
        }
        !topic.contains(['+', '#']) && self.may_subscribe(topic)
    }

    /// True for the topic of the node's own tombstone, if it was removed.
    pub fn is_tombstone(self, topic: &str) -> bool {
        self.tombstone().is_some_and(|tombstone| tombstone == topic)
    }

    fn tombstone(self) -> Option<String> {
        match self.standing {
            Some(Standing::Removed(network)) => Some(format!("{PREFIX}/net/{network}/member/{}", self.node)),
            _ => None,
        }
    }

    fn is_below_network(self, filter: &str) -> bool {
        below_network(filter).is_some_and(|(network, below)| self.is_in(network) && is_filter(below))
    }

    fn is_itself(self, node: &str) -> bool {
        self.may_connect() && node == self.node
    }

    fn is_in(self, network: &str) -> bool {
        is_id(network)
            && match self.standing {
                Some(Standing::Member(networks)) => networks.contains(network),
                Some(Standing::Removed(from)) => from == network,
                Some(Standing::Stranger) | None => false,
            }
    }
}

/// Network of a topic filter, and the rest behind it.
fn below_network(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix(PREFIX)?.strip_prefix("/net/")?.split_once('/')
}

/// Splits a topic that has exactly three levels below [`PREFIX`] into these levels.
fn levels(topic: &str) -> Option<[&str; 3]> {
    let mut levels = topic.strip_prefix(PREFIX)?.strip_prefix('/')?.split('/');
    let three = [levels.next()?, levels.next()?, levels.next()?];
    levels.next().is_none().then_some(three)
}

/// True for a valid topic filter: no empty levels, `+` alone in its level, `#` alone and last.
fn is_filter(filter: &str) -> bool {
    let (before, last) =
        filter.rsplit_once('/').map_or((None, filter), |(before, last)| (Some(before), last));
    let plain = |level: &str| level == "+" || is_id(level);
    (last == "#" || plain(last)) && before.is_none_or(|before| before.split('/').all(plain))
}

/// True for a text that can be an id or a fixed word in a topic: no separator, wildcard, `$`, blank or control
/// character.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "aaaa2222bbbb3333";
    const OTHER: &str = "cccc4444dddd5555";
    const MINE: &str = "nnnn2222nnnn3333";
    const ALSO_MINE: &str = "nnnn4444nnnn5555";
    const FOREIGN: &str = "ffff2222ffff3333";

    fn fill(template: &str) -> String {
        template
            .replace("{p}", PREFIX)
            .replace("{me}", ME)
            .replace("{other}", OTHER)
            .replace("{mine}", MINE)
            .replace("{also}", ALSO_MINE)
            .replace("{foreign}", FOREIGN)
    }

    fn mine() -> Standing {
        Standing::Member([MINE, ALSO_MINE].map(String::from).into())
    }

    const SUBSCRIBED: [&str; 10] = [
        "{p}/net/{mine}/member/+",
        "{p}/net/{mine}/member/{other}",
        "{p}/net/{mine}/roster",
        "{p}/net/{mine}/policy",
        "{p}/net/{mine}/#",
        "{p}/net/{mine}/+",
        "{p}/net/{mine}/member/#",
        "{p}/net/{also}/#",
        "{p}/node/{me}/assignment",
        "{p}/node/{me}/command",
    ];

    const NEVER_SUBSCRIBED: [&str; 46] = [
        "",
        "#",
        "+",
        "/",
        "/#",
        "+/#",
        "+/+/+/+/+",
        "$SYS/#",
        "$SYS/broker/clients",
        "$share/g/{p}/net/{mine}/#",
        "$share/g/#",
        "$limit/1/{p}/net/{mine}/#",
        "$exclusive/{p}/net/{mine}/#",
        "$delayed/1/{p}/net/{mine}/#",
        "{p}",
        "{p}/",
        "{p}/#",
        "{p}/+",
        "/{p}/net/{mine}/#",
        "{p}/net",
        "{p}/net/#",
        "{p}/net/+",
        "{p}/net/+/#",
        "{p}/net/+/roster",
        "{p}/net/{mine}",
        "{p}/net/{mine}/",
        "{p}/net/{mine}//",
        "{p}/net/{mine}//roster",
        "{p}/net/{mine}/#/member",
        "{p}/net/{mine}/member/a+",
        "{p}/net/{mine}/member/a#",
        "{p}/net/{mine}/../{foreign}/roster",
        "{p}/net/{mine}#",
        "{p}/net/{foreign}/#",
        "{p}/net/{foreign}/roster",
        "{p}/net/{foreign}/member/{me}",
        "{p}/+/{mine}/roster",
        "gatewrt/+/net/{mine}/#",
        "{p}/node/{me}/+",
        "{p}/node/{me}/#",
        "{p}/node/{me}/report",
        "{p}/node/{me}",
        "{p}/node/+/assignment",
        "{p}/node/{other}/assignment",
        "{p}/node/{other}/command",
        "{p}/net/{mine}/roster\0",
    ];

    const PUBLISHED: [&str; 3] = ["{p}/node/{me}/report", "{p}/node/{me}/reply", "{p}/node/{me}/presence"];

    const NEVER_PUBLISHED: [&str; 18] = [
        "",
        "#",
        "$SYS/report",
        "$delayed/1/{p}/node/{me}/report",
        "{p}/net/{mine}/roster",
        "{p}/net/{mine}/policy",
        "{p}/net/{mine}/member/{me}",
        "{p}/net/{foreign}/roster",
        "{p}/node/{me}/assignment",
        "{p}/node/{me}/command",
        "{p}/node/{me}/report/",
        "{p}/node/{me}/report/more",
        "{p}/node/{me}/+",
        "{p}/node/+/report",
        "{p}/node/{other}/report",
        "{p}/node/{other}/presence",
        "{p}//{me}/report",
        "/{p}/node/{me}/report",
    ];

    #[test]
    fn node_may_read_only_its_networks_and_itself() {
        let standing = mine();
        let access = Access::new(ME, Some(&standing));
        for filter in SUBSCRIBED.map(fill) {
            assert!(access.may_subscribe(&filter), "{filter}");
        }
        for filter in NEVER_SUBSCRIBED.map(fill) {
            assert!(!access.may_subscribe(&filter), "{filter}");
            assert!(!access.may_read(&filter), "{filter}");
        }
    }

    #[test]
    fn node_may_write_only_its_own_three_topics() {
        let standing = mine();
        let access = Access::new(ME, Some(&standing));
        for topic in PUBLISHED.map(fill) {
            assert!(access.may_publish(&topic), "{topic}");
        }
        for topic in NEVER_PUBLISHED.map(fill) {
            assert!(!access.may_publish(&topic), "{topic}");
        }
    }

    #[test]
    fn topic_with_wildcard_is_never_delivered() {
        let standing = mine();
        let access = Access::new(ME, Some(&standing));
        for topic in
            ["{p}/net/{mine}/roster", "{p}/net/{mine}/member/{other}", "{p}/node/{me}/command"].map(fill)
        {
            assert!(access.may_read(&topic), "{topic}");
        }
        assert!(!access.may_read(&fill("{p}/net/{mine}/#")));
    }

    #[test]
    fn unknown_node_has_no_rights_and_one_without_networks_only_its_own() {
        let (unknown, none) = (Access::new(ME, None), Standing::Member(BTreeSet::new()));
        let lonely = Access::new(ME, Some(&none));
        for filter in SUBSCRIBED.map(fill) {
            assert!(!unknown.may_subscribe(&filter), "{filter}");
            assert_eq!(lonely.may_subscribe(&filter), filter.contains("/node/"), "{filter}");
        }
        for topic in PUBLISHED.map(fill) {
            assert!(!unknown.may_publish(&topic), "{topic}");
            assert!(lonely.may_publish(&topic), "{topic}");
        }
        assert!(!unknown.may_connect());
    }

    #[test]
    fn removed_node_reads_its_tombstone_alone_and_writes_nothing() {
        let standing = Standing::Removed(MINE.into());
        let access = Access::new(ME, Some(&standing));
        let tombstone = fill("{p}/net/{mine}/member/{me}");
        assert!(access.may_connect() && access.is_removed() && !Access::new(ME, Some(&mine())).is_removed());
        assert!(
            access.may_subscribe(&tombstone)
                && access.may_read(&tombstone)
                && access.is_tombstone(&tombstone)
        );
        for filter in SUBSCRIBED.map(fill) {
            let in_network = filter.contains(MINE);
            assert_eq!(access.narrowed(&filter), in_network.then(|| tombstone.clone()), "{filter}");
            // Its own topics are granted, as a daemon takes a refusal for a fault, and nothing comes there.
            assert_eq!(access.may_subscribe(&filter), filter.contains("/node/"), "{filter}");
            assert!(!access.may_read(&filter), "{filter}");
        }
        for filter in NEVER_SUBSCRIBED.map(fill) {
            assert_eq!(access.narrowed(&filter), None, "{filter}");
            assert!(!access.may_subscribe(&filter) && !access.may_read(&filter), "{filter}");
        }
        for topic in PUBLISHED.map(fill) {
            assert!(!access.may_publish(&topic) && access.may_have_will(&topic), "{topic}");
        }
        for topic in NEVER_PUBLISHED.map(fill) {
            assert!(!access.may_publish(&topic) && !access.may_have_will(&topic), "{topic}");
        }
    }

    #[test]
    fn stranger_writes_its_replies_alone_and_reads_nothing() {
        let access = Access::new(ME, Some(&Standing::Stranger));
        assert!(access.may_connect() && !access.is_removed());
        for filter in SUBSCRIBED.map(fill) {
            // Granted, as a daemon takes a refusal for a fault, but for its own end alone.
            match access.narrowed(&filter) {
                Some(narrowed) => {
                    assert!(narrowed.ends_with(&format!("/member/{ME}")), "{filter}: {narrowed}");
                    assert!(access.may_subscribe(&narrowed) && !access.may_read(&narrowed), "{filter}");
                }
                None => assert!(filter.contains("/node/") && access.may_subscribe(&filter), "{filter}"),
            }
            assert!(!access.may_read(&filter), "{filter}");
        }
        for filter in NEVER_SUBSCRIBED.map(fill).iter().filter(|filter| !filter.contains(FOREIGN)) {
            assert!(!access.may_subscribe(filter) && !access.may_read(filter), "{filter}");
        }
        for topic in PUBLISHED.map(fill) {
            assert_eq!(access.may_publish(&topic), topic.ends_with("/reply"), "{topic}");
        }
        for topic in NEVER_PUBLISHED.map(fill) {
            assert!(!access.may_publish(&topic) && !access.may_have_will(&topic), "{topic}");
        }
    }

    #[test]
    fn node_name_that_is_no_id_has_no_rights() {
        let networks = Standing::Member(["+", "#", "", MINE].map(String::from).into());
        for name in ["", "+", "#", "a/b", "A", "$sys", "a b", &"a".repeat(65)] {
            let access = Access::new(name, Some(&networks));
            assert!(!access.may_connect(), "{name}");
            assert!(!access.may_publish(&format!("{PREFIX}/node/{name}/report")), "{name}");
        }
        for network in ["+", "#", ""] {
            assert!(
                !Access::new(ME, Some(&networks)).may_subscribe(&format!("{PREFIX}/net/{network}/roster"))
            );
        }
    }
}

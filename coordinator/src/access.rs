//! Rights of nodes on MQTT topics: the one table that all checks of the broker use. Pure: the caller knows if
//! a node exists and which networks it is in.
//!
//! | topic below `gatewrt/v1` | a node |
//! | --- | --- |
//! | `net/{its network}/…` | reads, wildcards only below its own network's id |
//! | `node/{itself}/assignment`, `…/command` | reads |
//! | `node/{itself}/report`, `…/reply`, `…/presence` | writes |
//! | everything else | neither |

use std::collections::BTreeSet;

/// Prefix of all topics.
pub const PREFIX: &str = "gatewrt/v1";

const READ_OF_OWN: [&str; 2] = ["assignment", "command"];
const WRITE_OF_OWN: [&str; 3] = ["report", "reply", "presence"];
const MAX_ID: usize = 64;

/// Rights of one node on MQTT topics, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    node: &'a str,
    networks: Option<&'a BTreeSet<String>>,
}

impl<'a> Access<'a> {
    /// Creates the rights of `node`, which is the MQTT client id and the common name of its certificate. `networks` are
    /// the ids of its networks; `None` for a node that is unknown or removed, which has no rights at all.
    pub fn new(node: &'a str, networks: Option<&'a BTreeSet<String>>) -> Self {
        Self { node, networks: networks.filter(|_| is_id(node)) }
    }

    /// True if the node may connect to the broker.
    pub fn may_connect(self) -> bool {
        self.networks.is_some()
    }

    /// True if the node may publish to this topic. A last will counts as a publish.
    pub fn may_publish(self, topic: &str) -> bool {
        match levels(topic) {
            Some(["node", node, what]) => self.is_itself(node) && WRITE_OF_OWN.contains(&what),
            _ => false,
        }
    }

    /// True if the node may subscribe to this topic filter.
    pub fn may_subscribe(self, filter: &str) -> bool {
        if let Some(["node", node, what]) = levels(filter) {
            return self.is_itself(node) && READ_OF_OWN.contains(&what);
        }
        let below_network = filter.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("/net/"));
        let Some((network, below)) = below_network.and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        self.is_in(network) && is_filter(below)
    }

    /// True if the broker may deliver this topic, which has no wildcards, to the node.
    pub fn may_read(self, topic: &str) -> bool {
        !topic.contains(['+', '#']) && self.may_subscribe(topic)
    }

    fn is_itself(self, node: &str) -> bool {
        self.may_connect() && node == self.node
    }

    fn is_in(self, network: &str) -> bool {
        is_id(network) && self.networks.is_some_and(|networks| networks.contains(network))
    }
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

    fn mine() -> BTreeSet<String> {
        [MINE, ALSO_MINE].map(String::from).into()
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
        let networks = mine();
        let access = Access::new(ME, Some(&networks));
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
        let networks = mine();
        let access = Access::new(ME, Some(&networks));
        for topic in PUBLISHED.map(fill) {
            assert!(access.may_publish(&topic), "{topic}");
        }
        for topic in NEVER_PUBLISHED.map(fill) {
            assert!(!access.may_publish(&topic), "{topic}");
        }
    }

    #[test]
    fn topic_with_wildcard_is_never_delivered() {
        let networks = mine();
        let access = Access::new(ME, Some(&networks));
        for topic in
            ["{p}/net/{mine}/roster", "{p}/net/{mine}/member/{other}", "{p}/node/{me}/command"].map(fill)
        {
            assert!(access.may_read(&topic), "{topic}");
        }
        assert!(!access.may_read(&fill("{p}/net/{mine}/#")));
    }

    #[test]
    fn unknown_node_has_no_rights_and_one_without_networks_only_its_own() {
        let (unknown, none) = (Access::new(ME, None), BTreeSet::new());
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
    fn node_name_that_is_no_id_has_no_rights() {
        let networks: BTreeSet<String> = ["+", "#", "", MINE].map(String::from).into();
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

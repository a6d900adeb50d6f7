//! Obedience of nodes to a change: which have it in effect, and which have not yet, with the reason. Pure. A node shows it
//! by a signed report, which names the revisions in effect there; a later one of this coordinator counts too. Of member records nothing
//! has to be known: the roster lists their revisions, and a node has a roster in effect only with all of them.
//!
//! A node that was removed reports no more. It obeys once it has read its tombstone.

use crate::{
    live::{Live, Now},
    records::{Content, PublishedRecords},
    registry::{Node, Registry},
};
use gatewrt_protocol::{Applied, Failure, NetworkId, NodeId, NodeName, Topic};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Deref};
use utoipa::ToSchema;

/// Topics of the records that a change is about, each with the revision that was published; none for one that is held back
/// until its node has reported (see [`Registry::is_awaited`]).
pub type Ordered = Vec<(Topic, Option<u64>)>;

/// Nodes that obey a change of records, and nodes that have not confirmed it yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Obeyed {
    /// Nodes that have the change in effect, by name.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub applied: Vec<NodeName>,
    /// Nodes that have not confirmed the change yet, by name. It is stored, and they obey it when they can.
    #[serde(default)]
    pub pending: Vec<PendingNode>,
}

/// Node that has not confirmed a change yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingNode {
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Reason, in words for an admin.
    pub why: String,
}

/// Answer to a change: the resource, and who obeys; nothing about that if no record of a node has changed.
#[derive(Debug, Clone, Serialize)]
pub struct Changed<T> {
    /// Resource as it is now.
    #[serde(flatten)]
    pub view: T,
    /// Nodes that obey the change, and those that have not confirmed it.
    #[serde(flatten)]
    pub obeyed: Option<Obeyed>,
}

impl<T> Deref for Changed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.view
    }
}

/// Revisions that the nodes of a network have to have in effect after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected(BTreeMap<NodeId, Wanted>);

/// Revisions that one node has to have in effect; 0 where the change asks for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    policy: u64,
    assignment: u64,
    roster: u64,
    /// Set if its assignment is held back until it has reported.
    is_held_back: bool,
    /// Set if it was removed, and has to read its tombstone.
    is_removed: bool,
    /// Failures that it had reported before the change.
    before: Vec<Failure>,
}

/// State of a change at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes that obey the change, and nodes that have not confirmed it.
    pub obeyed: Obeyed,
    /// True if a node that has not confirmed may do so any moment: it is online, and has not given up.
    pub is_open: bool,
}

/// Reason why a node does not obey a change, and if that may be over any moment.
struct Obstacle {
    why: String,
    is_open: bool,
}

impl Expected {
    /// Revisions that the nodes have to have in effect once `ordered` is published.
    pub fn of(registry: &Registry, live: &Live, ordered: &Ordered) -> Self {
        let mut all: BTreeMap<NodeId, Wanted> = BTreeMap::new();
        let nodes_of = |net: NetworkId| registry.live_nodes(net).map(|node| node.id);
        for (topic, rev) in ordered {
            match (*topic, *rev) {
                (Topic::Policy(net), Some(rev)) => {
                    nodes_of(net).for_each(|node| all.entry(node).or_default().policy = rev);
                }
                (Topic::Roster(net), Some(rev)) => {
                    nodes_of(net).for_each(|node| all.entry(node).or_default().roster = rev);
                }
                (Topic::Assignment(node), rev) if registry.live_node(node).is_some() => {
                    let wanted = all.entry(node).or_default();
                    (wanted.assignment, wanted.is_held_back) = (rev.unwrap_or_default(), rev.is_none());
                }
                (Topic::Member(_, node), Some(_)) if is_removed(registry, node) => {
                    all.entry(node).or_default().is_removed = true;
                }
                _ => {}
            }
        }
        for (node, wanted) in &mut all {
            let report = live.now(*node).and_then(|now| now.report.as_ref());
            wanted.before = report.map(|report| report.failures.clone()).unwrap_or_default();
        }
        Self(all)
    }

    /// True if no node has to do anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// State of the change at `at`, in seconds since 1970. Nodes that another change removed meanwhile are left out.
    pub fn progress(
        &self,
        registry: &Registry,
        published: &PublishedRecords,
        live: &Live,
        at: u64,
    ) -> Progress {
        let mut progress = Progress::default();
        let nodes = self.0.iter().filter_map(|(id, wanted)| Some((registry.node(*id)?, wanted)));
        let nodes = nodes.filter(|(node, wanted)| node.is_live() != wanted.is_removed);
        let mut nodes: Vec<(&Node, &Wanted)> = nodes.collect();
        nodes.sort_unstable_by_key(|(node, _)| &node.name);
        for (node, wanted) in nodes {
            match wanted.obstacle(node, registry, published, live.now(node.id), at) {
                None => progress.obeyed.applied.push(node.name.clone()),
                Some(Obstacle { why, is_open }) => {
                    progress.is_open |= is_open;
                    progress.obeyed.pending.push(PendingNode { node: node.name.clone(), why });
                }
            }
        }
        progress
    }
}

impl Wanted {
    fn obstacle(
        &self,
        node: &Node,
        registry: &Registry,
        published: &PublishedRecords,
        now: Option<&Now>,
        at: u64,
    ) -> Option<Obstacle> {
        let closed = |why: String| Some(Obstacle { why, is_open: false });
        if self.is_removed {
            return removal_obstacle(node, now, at);
        }
        if self.is_held_back && registry.is_awaited(node.id) {
            return closed("waits for its first report since the coordinator was set back".into());
        }
        let current = |topic| published.content(&topic).map_or(0, Content::rev);
        let current_assignment = current(Topic::Assignment(node.id));
        let assignment = if self.is_held_back { current_assignment } else { self.assignment };
        let revisions = |applied: &Applied| {
            [
                (applied.policy, self.policy, current(Topic::Policy(node.net))),
                (applied.assignment, assignment, current_assignment),
                (applied.roster, self.roster, current(Topic::Roster(node.net))),
            ]
        };
        let report = now.and_then(|now| now.report.as_ref());
        if let Some(report) = report {
            let rolled_back = report.rolled_back.as_ref();
            let rolled_back = rolled_back.filter(|back| assignment != 0 && back.assignment >= assignment);
            if let Some(back) = rolled_back {
                return closed(format!("rolled it back: {}", back.why));
            }
            let mut revisions = revisions(&report.applied).into_iter();
            if revisions.all(|(has, wanted, current)| is_in_effect(has, wanted, current)) {
                let new = report.failures.iter().filter(|failure| !self.before.contains(failure));
                return could_not(new).map(|why| Obstacle { why, is_open: false });
            }
        }
        let Some(now) = now.filter(|now| now.is_online()) else {
            return closed(format!("{}; it obeys when it is back", offline(now, at)));
        };
        let Some(report) = &now.report else { return closed("has not reported yet".into()) };
        let is_ahead = revisions(&report.applied).iter().any(|(has, wanted, now)| *wanted != 0 && has > now);
        let why = could_not(report.failures.iter()).unwrap_or_else(|| match is_ahead {
            true => "has newer settings than the coordinator, which was set back".into(),
            false => "has not confirmed it yet".into(),
        });
        Some(Obstacle { why, is_open: true })
    }
}

fn is_removed(registry: &Registry, node: NodeId) -> bool {
    registry.node(node).is_some_and(|node| !node.is_live())
}

/// Obstacle of a removed node: none once it has read its tombstone.
fn removal_obstacle(node: &Node, now: Option<&Now>, at: u64) -> Option<Obstacle> {
    if node.told.is_some() {
        return None;
    }
    let is_open = now.is_some_and(|now| now.from.is_some());
    let why = match is_open {
        true => "has not read yet that it is removed".to_owned(),
        false => format!(
            "{}; it goes on with others that have not heard of its removal, until it reads of it when it is back",
            offline(now, at)
        ),
    };
    Some(Obstacle { why, is_open })
}

/// Time for which a node is offline, in words.
fn offline(now: Option<&Now>, at: u64) -> String {
    let since = now.map(|now| now.since).filter(|since| *since != 0);
    since.map_or("not connected".to_owned(), |since| {
        format!("offline since {}", span(at.saturating_sub(since)))
    })
}

/// True if a node that `has` a revision in effect obeys the one that is `wanted`, if any is. One that is not published yet
/// is from before the coordinator was set back: its node refuses all up to there.
fn is_in_effect(has: u64, wanted: u64, current: u64) -> bool {
    wanted == 0 || (wanted..=current).contains(&has)
}

/// Failures of a node in one sentence; none if there are none.
fn could_not<'a>(failures: impl Iterator<Item = &'a Failure>) -> Option<String> {
    let all: Vec<_> =
        failures.map(|failure| format!("could not {}: {}", failure.what, failure.why)).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Time span in words, in the largest unit that says enough.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..5400 => format!("{} min", seconds / 60),
        5400..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;

//! Recovery after the coordinator was set back: what nodes tell of is verified, learned from, and made up for.

use super::Controller;
use crate::{
    records::Content,
    recovery::{Teller, learn},
    registry::Stray,
};
use gatewrt_protocol::{NodeId, PublicKey, Report, Topic};
use std::collections::BTreeMap;

/// Largest number of nodes that are not known and whose identity keys are kept.
const STRANGERS: usize = 1024;

/// Identity keys of connected nodes that the registry does not know.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeMap<NodeId, PublicKey>);

impl Strangers {
    pub(super) fn insert(&mut self, node: NodeId, identity: PublicKey) {
        if self.0.len() < STRANGERS {
            self.0.insert(node, identity);
        }
    }

    /// Forgets a node; true if it was there.
    pub(super) fn remove(&mut self, node: NodeId) -> bool {
        self.0.remove(&node).is_some()
    }
}

/// Time for which a node that can't say which settings it knows is given to tell of newer ones: connected, and telling
/// nothing. It tells one after the other, and a slow router takes most of a minute to read all records before.
const TELLING_S: u64 = 60;

impl Controller {
    /// Takes in a record that a node has and this coordinator may not know any more.
    pub(super) async fn handle_known(&mut self, node: NodeId, payload: &[u8]) -> Result<(), &'static str> {
        let key = self.state.signer.public();
        let (topic, told) = Content::open_any(payload, &key).ok_or("no record of this coordinator")?;
        if !self.state.published.is_behind(&topic, &told) || self.is_past(&topic) {
            return Ok(());
        }
        let identity = self.strangers.0.get(&node).copied();
        let at = self.time;
        let rows = learn(&self.state.registry, Teller { node, identity }, &told, at)?;
        self.told.insert(node, at);
        let before = self.state.published.raise(topic, told.rev());
        // A node that tells the same again and again must not fill the log: that of a stray is never published.
        if !rows.is_empty() || before.is_none_or(|before| before < told.rev()) {
            tracing::warn!(%node, %topic, rev = told.rev(), "a node has a newer record: this coordinator was set back");
        }
        if let Err(error) = self.commit(rows).await {
            tracing::error!(%node, "what a node has from before was not stored: {error}");
            // What it was to be learned from is not overtaken. When the node is back, it tells again.
            self.state.published.lower(&topic, before);
            self.end_session(node).await;
            return Ok(());
        }
        self.admit_strangers();
        let topics = [topic, Topic::Roster(told.net())].into();
        if let Err(error) = self.commit_records(&topics).await {
            tracing::error!(%topic, "a newer revision was not published: {error}");
        }
        Ok(())
    }

    /// True for a node that was removed and whose tombstone was withdrawn: that is told by what is known here.
    fn is_past(&self, topic: &Topic) -> bool {
        let Topic::Member(_, node) = topic else { return false };
        self.state.published.content(topic).is_none()
            && self.state.registry.node(*node).is_some_and(|node| !node.is_live())
    }

    /// Lets what is assigned to a node wait no longer, if its report shows that it has nothing newer.
    pub(super) async fn handle_revisions(&mut self, node: NodeId, report: &Report) {
        if !self.state.registry.is_awaited(node) {
            return;
        }
        let rolled_back = report.rolled_back.as_ref().map_or(0, |rolled_back| rolled_back.assignment);
        let known = report.applied.assignment.max(rolled_back);
        let ours = self.state.published.content(&Topic::Assignment(node)).map_or(0, Content::rev);
        // It may know newer settings, and not have them in effect: as it has just started (0), or as something fails. Then it
        // is heard once it had the time to tell of them.
        let says_all = known != 0 && report.failures.is_empty();
        if known > ours || !(says_all || self.had_time_to_tell(node)) {
            return;
        }
        let rows = self.state.registry.handle_heard(node);
        if let Err(error) = self.commit(rows).await {
            tracing::error!(%node, "that a node was heard was not stored: {error}");
        }
    }

    /// True if a node was connected for some time and told of nothing newer.
    fn had_time_to_tell(&self, node: NodeId) -> bool {
        let now = self.state.live.now(node).filter(|now| now.from.is_some());
        let since = now.map(|now| now.since.max(self.told.get(&node).copied().unwrap_or_default()));
        since.is_some_and(|since| self.time >= since.saturating_add(TELLING_S))
    }

    /// Keeps the revisions that nodes have of strays: what is published of them later has to be higher.
    pub(super) fn raise_strays(&mut self) {
        for member in self.state.registry.strays().filter_map(Stray::member) {
            self.state.published.raise(Topic::Member(member.net, member.node), member.rev);
        }
    }

    /// Lets nodes that are not known connect, once this coordinator was set back: they may have joined since, and can tell
    /// of themselves.
    pub(super) fn admit_strangers(&self) {
        self.admitted.admit_strangers(self.state.registry.recovery().is_some());
    }
}

#[cfg(test)]
mod tests;

//! Messages of nodes: sessions, presence, reports. All are verified with the node's own key. Invalid ones are
//! counted and change nothing.

use super::{Controller, WatchEvent};
use crate::{broker::Event, records::Content};
use gatewrt_protocol::{
    MemberUpdate, NetworkId, NodeId, Presence, PublicKey, Record, RecordError, Report, Topic, jws,
};
use std::net::SocketAddr;

impl Controller {
    pub(super) async fn handle_event(&mut self, event: Event) {
        self.keep_time().await;
        match event {
            Event::Connected { node, from, identity } => {
                self.handle_stranger(&node, identity);
                self.handle_session(&node, true, from);
            }
            Event::Disconnected { node } => {
                self.handle_stranger(&node, None);
                node.parse().ok().and_then(|id: NodeId| self.told.remove(&id));
                self.handle_session(&node, false, None);
            }
            Event::Published { node, topic, payload, .. } => {
                self.handle_published(&node, &topic, &payload).await
            }
            Event::Told { node, record } => self.handle_told(&node, &record).await,
        }
    }

    fn handle_session(&mut self, node: &str, connected: bool, from: Option<SocketAddr>) {
        let Some(id) = self.live_id(node) else { return self.handle_removed_session(node, from, connected) };
        if connected {
            self.state.live.handle_connected(id, from, self.time);
        } else {
            self.state.live.handle_disconnected(id, self.time);
        }
        self.notify_watchers(WatchEvent::of_session(&self.state.registry, self.time, id, connected));
    }

    /// Notes the session of a removed node, in which it reads its end.
    fn handle_removed_session(&mut self, node: &str, from: Option<SocketAddr>, connected: bool) {
        let Some(node) = node.parse().ok().and_then(|id| self.state.registry.node(id)) else { return };
        let (id, is_told) = (node.id, node.told.is_some());
        match (connected, is_told) {
            (true, _) => return self.state.live.handle_connected(id, from, self.time),
            (false, true) => self.state.live.forget(id),
            (false, false) => self.state.live.handle_disconnected(id, self.time),
        }
        self.notify_watchers(WatchEvent::of_session(&self.state.registry, self.time, id, false));
    }

    /// Notes the identity key of a connected node that is not known, or that the node is gone.
    fn handle_stranger(&mut self, node: &str, identity: Option<PublicKey>) {
        let Ok(id) = node.parse::<NodeId>() else { return };
        match identity.filter(|_| self.state.registry.node(id).is_none()) {
            Some(identity) => self.strangers.insert(id, identity),
            None => _ = self.strangers.remove(id),
        }
    }

    fn live_id(&self, node: &str) -> Option<NodeId> {
        let id = node.parse().ok()?;
        self.state.registry.live_node(id).map(|node| node.id)
    }

    /// Records that a removed node has read its tombstone.
    async fn handle_told(&mut self, node: &str, record: &[u8]) {
        let Some(node) = node.parse().ok().and_then(|id| self.state.registry.node(id)) else { return };
        let (id, topic) = (node.id, Topic::Member(node.net, node.id));
        // It may have acknowledged its last member record, which was on its way when it was removed.
        let read = Content::open(topic, record, &self.state.signer.public());
        if !matches!(read, Some(Content::Member(MemberUpdate::Tombstone(_)))) {
            return;
        }
        let rows = self.state.registry.note_told(id, self.time);
        if rows.is_empty() {
            return;
        }
        match self.commit(rows).await {
            Ok(()) => {
                tracing::info!(node = %id, "a removed node has read its tombstone");
                self.notify_watchers(WatchEvent::of_told(&self.state.registry, self.time, id));
            }
            Err(error) => tracing::error!(node = %id, "that a removed node knows was not stored: {error}"),
        }
    }

    async fn handle_published(&mut self, node: &str, topic: &str, payload: &[u8]) {
        let Ok(id) = node.parse::<NodeId>() else { return };
        let outcome = match topic.parse() {
            // Also of a node that this coordinator does not know: the record is one of its own.
            Ok(Topic::Reply(of)) if of == id => self.handle_known(id, payload).await,
            _ if self.live_id(node).is_none() => return,
            Ok(Topic::Report(of)) if of == id => self.handle_report(id, payload).await,
            Ok(Topic::Presence(of)) if of == id => self.handle_presence(id, payload),
            _ => Err("not its topic"),
        };
        if let Err(why) = outcome {
            let count = self.state.live.refuse(id, why);
            // Logged at powers of two only: a node that floods must not flood the log.
            if count.is_power_of_two() {
                tracing::warn!(node, topic, count, "a message was refused: {why}");
            }
        }
    }

    fn handle_presence(&mut self, id: NodeId, payload: &[u8]) -> Result<(), &'static str> {
        let presence: Presence =
            self.verified(id, payload, |presence: &Presence| (presence.net, presence.node))?;
        self.state
            .live
            .handle_presence(id, presence.clone())
            .map_err(|_| "presence of an earlier session")?;
        self.notify_watchers(WatchEvent::of_presence(&self.state.registry, self.time, &presence));
        Ok(())
    }

    async fn handle_report(&mut self, id: NodeId, payload: &[u8]) -> Result<(), &'static str> {
        let report: Report = self.verified(id, payload, |report: &Report| (report.net, report.node))?;
        self.state.live.handle_report(id, report.clone(), self.time).map_err(|_| "seen before")?;
        self.notify_watchers(WatchEvent::of_report(&self.state.registry, self.time, &report));
        self.handle_revisions(id, &report).await;
        match self.recent.get_mut(&id) {
            Some(more) => *more = true,
            None => self.update_facts(id).await,
        }
        Ok(())
    }

    /// Updates the facts of nodes whose newer reports have waited for the end of the interval.
    pub(super) async fn update_waiting_facts(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        for (id, _) in recent.into_iter().filter(|(_, more)| *more) {
            self.update_facts(id).await;
        }
    }

    /// Updates the facts of a node in the registry from its last report.
    async fn update_facts(&mut self, id: NodeId) {
        let Some(now) = self.state.live.now(id) else { return };
        let Some(report) = &now.report else { return };
        let rows = self.state.registry.update_facts(id, report, now.from.map(|from| from.ip()));
        if rows.is_empty() {
            return;
        }
        self.recent.insert(id, false);
        if let Err(error) = self.commit(rows).await {
            // The next report brings the same facts again.
            tracing::error!(node = %id, "the facts of a node were not stored: {error}");
        }
    }

    fn verified<T: Record>(
        &self,
        id: NodeId,
        payload: &[u8],
        about: impl Fn(&T) -> (NetworkId, NodeId),
    ) -> Result<T, &'static str> {
        let node = self.state.registry.live_node(id).expect("asked for live nodes only");
        let record: T = jws::open(payload, &node.identity).map_err(|error| label(&error))?;
        if about(&record) == (node.net, node.id) { Ok(record) } else { Err("about another node") }
    }
}

/// Name of the reason why a node's message was refused, one of a fixed set: what a node sends must not grow the map of
/// counters.
fn label(error: &RecordError) -> &'static str {
    match error {
        RecordError::TooLong(..) => "too long",
        RecordError::Malformed => "not a signed record",
        RecordError::ForeignKey => "signed with a foreign key",
        RecordError::BadSignature => "forged or altered",
        RecordError::WrongKind => "of another kind",
        RecordError::TooNew(_) => "of a later protocol version",
        RecordError::Content(_) => "unreadable",
    }
}

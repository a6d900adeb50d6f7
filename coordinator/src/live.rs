//! Live state of nodes: session, presence, last report. In memory only: after a restart of the coordinator,
//! the nodes reconnect and report again. Pure.

use gatewrt_protocol::{ClientReport, NodeId, Presence, Report, WgPublicKey};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

/// Number of earlier boots of a node that are remembered, so that reports of them are recognized as old.
const BOOTS: usize = 8;

/// Largest number of external clients remembered for one node: more than one assignment can list.
const CLIENTS: usize = 1024;

/// Live state of one node: its session, presence, last report and refused messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Now {
    /// Source address of its MQTT session; `None` without one.
    pub from: Option<SocketAddr>,
    /// Time of the last change of `from`, in seconds since 1970.
    pub since: u64,
    /// Last presence message, of the node or its will.
    pub presence: Option<Presence>,
    /// Last report.
    pub report: Option<Report>,
    /// Time of the last report, in seconds since 1970.
    pub reported: u64,
    /// Number of refused messages, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Last report of each external client, and its time: a report lists only some of many clients.
    clients: BTreeMap<WgPublicKey, (u64, ClientReport)>,
    past_boots: VecDeque<String>,
}

/// Error for a valid message of a node that is older than one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// Live state of all nodes: sessions, presence and reports, in memory only. See the module.
#[derive(Debug, Default)]
pub struct Live {
    nodes: BTreeMap<NodeId, Now>,
}

impl Live {
    /// Live state of a node.
    pub fn now(&self, node: NodeId) -> Option<&Now> {
        self.nodes.get(&node)
    }

    /// Records that the MQTT session of a node has begun.
    pub fn handle_connected(&mut self, node: NodeId, from: Option<SocketAddr>, at: u64) {
        let now = self.nodes.entry(node).or_default();
        (now.from, now.since) = (from, at);
    }

    /// Records that a node has no MQTT session any more.
    pub fn handle_disconnected(&mut self, node: NodeId, at: u64) {
        let now = self.nodes.entry(node).or_default();
        (now.from, now.since) = (None, at);
    }

    /// Records a verified presence message of a node. One of an earlier session, such as a late will, is stale.
    pub fn handle_presence(&mut self, node: NodeId, presence: Presence) -> Result<(), Stale> {
        let now = self.nodes.entry(node).or_default();
        let late = now
            .presence
            .as_ref()
            .is_some_and(|last| last.boot == presence.boot && presence.session < last.session);
        if late || now.past_boots.contains(&presence.boot) {
            return Err(Stale);
        }
        now.enter_boot(&presence.boot);
        now.presence = Some(presence);
        Ok(())
    }

    /// Records a verified report of a node. One that was seen, or is older than one seen, is stale.
    pub fn handle_report(&mut self, node: NodeId, report: Report, at: u64) -> Result<(), Stale> {
        let now = self.nodes.entry(node).or_default();
        let seen = now.report.as_ref().is_some_and(|last| last.boot == report.boot && report.seq <= last.seq);
        if seen || now.past_boots.contains(&report.boot) {
            return Err(Stale);
        }
        now.enter_boot(&report.boot);
        now.remember(&report.clients, at);
        (now.report, now.reported) = (Some(report), at);
        Ok(())
    }

    /// Counts a refused message of a node. Returns the number of messages refused for that reason.
    pub fn refuse(&mut self, node: NodeId, why: &'static str) -> u64 {
        let count = self.nodes.entry(node).or_default().refused.entry(why).or_default();
        *count += 1;
        *count
    }

    /// Forgets all of a node that was removed but its session.
    pub fn handle_removed(&mut self, node: NodeId) {
        if let Some(now) = self.nodes.get_mut(&node) {
            *now = Now { from: now.from, since: now.since, ..Now::default() };
        }
    }

    /// Forgets the live state of a node.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

impl Now {
    /// True if the last presence message of the node says that it is online.
    pub fn says_online(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.online)
    }

    /// True if the node has a session and says that it is online.
    pub fn is_online(&self) -> bool {
        self.from.is_some() && self.says_online()
    }

    /// Last report about an external client of the node, with its time in seconds since 1970.
    pub fn client(&self, key: WgPublicKey) -> Option<&(u64, ClientReport)> {
        self.clients.get(&key)
    }

    fn remember(&mut self, clients: &[ClientReport], at: u64) {
        self.clients.extend(clients.iter().map(|client| (client.key, (at, client.clone()))));
        while self.clients.len() > CLIENTS {
            let oldest = self.clients.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.clients.remove(&oldest));
        }
    }

    fn enter_boot(&mut self, boot: &str) {
        let report = self.report.as_ref().map(|report| report.boot.clone());
        let presence = self.presence.as_ref().map(|presence| presence.boot.clone());
        for earlier in [report, presence].into_iter().flatten().filter(|earlier| earlier != boot) {
            if !self.past_boots.contains(&earlier) {
                self.past_boots.push_back(earlier);
            }
        }
        while self.past_boots.len() > BOOTS {
            self.past_boots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewrt_protocol::NetworkId;

    const NODE: NodeId = NodeId::from_entropy([1; 10]);

    fn presence(boot: &str, session: u64, online: bool) -> Presence {
        Presence { net: NetworkId::from_entropy([2; 10]), node: NODE, boot: boot.into(), session, online }
    }

    #[test]
    fn will_of_an_older_session_is_stale() {
        let mut live = Live::default();
        assert_eq!(live.handle_presence(NODE, presence("a", 1, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 2, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 1, false)), Err(Stale));
        assert!(live.now(NODE).expect("known").says_online());
        assert_eq!(live.handle_presence(NODE, presence("a", 2, false)), Ok(()));
        assert!(!live.now(NODE).expect("known").says_online());
    }

    #[test]
    fn unlisted_client_is_remembered_until_too_many_are_known() {
        let client = |number: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&number.to_be_bytes());
            ClientReport { key: WgPublicKey(key), endpoint: None, handshake_s: Some(1), rx: 0, tx: 0 }
        };
        let mut now = Now::default();
        for at in 0..1100u16 {
            now.remember(&[client(at)], at.into());
        }
        assert_eq!(now.client(client(1000).key).unwrap().0, 1000);
        assert_eq!((now.clients.len(), now.client(client(75).key)), (CLIENTS, None));
    }

    #[test]
    fn report_of_an_earlier_boot_is_stale() {
        let mut live = Live::default();
        assert_eq!(live.handle_presence(NODE, presence("a", 9, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("b", 1, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 9, false)), Err(Stale));
    }
}

//! What nodes say and do now: who is connected, their presence, their last report. In memory only; after a
//! restart of the coordinator the nodes come back and say it again. Pure.

use gatewrt_protocol::{ClientReport, NodeId, Presence, Report, WgPublicKey};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

/// How many earlier boots of a node are remembered, so that none of their reports passes for news.
const BOOTS: usize = 8;

/// How many external clients of a node are remembered: more than one assignment can list.
const CLIENTS: usize = 1024;

/// What one node says and does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Now {
    /// Where its MQTT session comes from; `None` without one.
    pub from: Option<SocketAddr>,
    /// When `from` changed last, in seconds since 1970.
    pub since: u64,
    /// What it, or its will, said last.
    pub presence: Option<Presence>,
    /// Its last report.
    pub report: Option<Report>,
    /// When that came, in seconds since 1970.
    pub reported: u64,
    /// Its messages that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// What it said last of each external client, and when: a report lists only some of many.
    clients: BTreeMap<WgPublicKey, (u64, ClientReport)>,
    past_boots: VecDeque<String>,
}

/// Why a sound message of a node does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// See the module.
#[derive(Debug, Default)]
pub struct Live {
    nodes: BTreeMap<NodeId, Now>,
}

impl Live {
    /// What is known of a node.
    pub fn now(&self, node: NodeId) -> Option<&Now> {
        self.nodes.get(&node)
    }

    /// Takes in that a session began.
    pub fn handle_connected(&mut self, node: NodeId, from: Option<SocketAddr>, at: u64) {
        let now = self.nodes.entry(node).or_default();
        (now.from, now.since) = (from, at);
    }

    /// Takes in that there is no session any more.
    pub fn handle_disconnected(&mut self, node: NodeId, at: u64) {
        let now = self.nodes.entry(node).or_default();
        (now.from, now.since) = (None, at);
    }

    /// Takes in a verified presence. One of an earlier session, as a will that comes late, does not count.
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

    /// Takes in a verified report. One that was seen, or is older than one that was, does not count.
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

    /// Counts a message that was refused, and answers how many there were for that reason.
    pub fn refuse(&mut self, node: NodeId, why: &'static str) -> u64 {
        let count = self.nodes.entry(node).or_default().refused.entry(why).or_default();
        *count += 1;
        *count
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

impl Now {
    /// Whether it said that it is there, and not since that it is gone.
    pub fn says_online(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.online)
    }

    /// What it said last of a client, and when, in seconds since 1970.
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
    fn a_will_of_an_older_session_does_not_count() {
        let mut live = Live::default();
        assert_eq!(live.handle_presence(NODE, presence("a", 1, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 2, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 1, false)), Err(Stale));
        assert!(live.now(NODE).expect("known").says_online());
        assert_eq!(live.handle_presence(NODE, presence("a", 2, false)), Ok(()));
        assert!(!live.now(NODE).expect("known").says_online());
    }

    #[test]
    fn a_client_that_is_no_longer_listed_is_remembered_and_the_oldest_forgotten() {
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
    fn a_boot_that_is_over_does_not_come_back() {
        let mut live = Live::default();
        assert_eq!(live.handle_presence(NODE, presence("a", 9, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("b", 1, true)), Ok(()));
        assert_eq!(live.handle_presence(NODE, presence("a", 9, false)), Err(Stale));
    }
}

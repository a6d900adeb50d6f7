//! State of one network in the core.

use super::{
    Membership, Now,
    directory::{Directory, Refusal},
    gateways::Gateways,
    paths::Paths,
    reporter::Reporter,
    rollback::Trial,
    session::Session,
};
use crate::model::{IfName, MAX_ADDRESSES, split_host_port};
use gatewrt_protocol::{Applied, Failure, Policy, Presence, Topic};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::{net::SocketAddr, time::Duration};

/// Time for which the roster may disagree with the records before they count as withheld.
pub(super) const WITHHELD: Duration = Duration::from_secs(5);

/// State of one network in the core.
#[derive(Debug)]
pub struct Network {
    /// Identity and keys.
    pub membership: Membership,
    /// Records.
    pub directory: Directory,
    /// Endpoints.
    pub paths: Paths,
    /// Choice of the nodes that serve.
    pub gateways: Gateways,
    /// The nodes that served before this daemon's start were read off its interface.
    pub(super) adopted: bool,
    /// LAN links of the router.
    pub lans: SortedSet<IfName>,
    pub(super) session: Session,
    pub(super) trial: Trial,
    /// Revisions of the policy and the assignment that the trial is about.
    pub(super) trial_revisions: (u64, u64),
    /// Broker of the last connection.
    pub(super) broker: String,
    pub(super) applied: Applied,
    pub(super) refused: LiteMap<&'static str, u64>,
    pub(super) last_refusal: Option<Failure>,
    pub(super) disagrees_since: Option<Now>,
    pub(super) resync_at: Option<Now>,
    pub(super) reporter: Reporter,
    pub(super) leaving: bool,
    /// Newest policy that a peer told, for its brokers.
    pub(super) told: Option<Policy>,
}

impl Network {
    pub(super) fn new(membership: Membership, seed: u32, now: Now) -> Self {
        let mut directory = Directory::new(membership.net, membership.node, membership.record_key);
        let is_record = |topic: &str| topic.contains('/');
        for (topic, token) in membership.stored.iter().filter(|(topic, _)| is_record(topic)) {
            if let Err(refusal) = directory.restore(topic, token) {
                log::warn!("{}: a stored record on {topic} is of no use: {refusal}", membership.network);
            }
        }
        let session = Session::new(1, seed ^ u32::from(membership.port), now);
        let mut network = Self {
            membership,
            directory,
            paths: Paths::default(),
            gateways: Gateways::default(),
            adopted: false,
            lans: SortedSet::new(),
            session,
            trial: Trial::default(),
            trial_revisions: (0, 0),
            broker: String::new(),
            applied: Applied::default(),
            refused: LiteMap::new(),
            last_refusal: None,
            disagrees_since: None,
            resync_at: None,
            reporter: Reporter::default(),
            leaving: false,
            told: None,
        };
        network.session.set_brokers(network.brokers().len());
        let stored = std::mem::take(&mut network.membership.stored);
        network.resume_trial(&stored);
        network
    }

    /// Counts and logs a refused message from the broker.
    pub(super) fn refuse(&mut self, topic: &str, refusal: &Refusal) {
        let count = self.refused.entry(refusal.reason()).or_default();
        *count += 1;
        // Each doubling is a line: a broker that floods does not flood the log.
        if count.is_power_of_two() {
            let network = &self.membership.network;
            log::warn!("{network}: refused a message on {topic}: {refusal} ({count} so far)");
        }
        self.last_refusal = Some(Failure { what: take_in(topic), why: refusal.to_string() });
    }

    /// Forgets the last refusal if it was of a message like this one, which was taken in.
    pub(super) fn forget_refusal(&mut self, topic: &str) {
        if self.last_refusal.as_ref().is_some_and(|last| last.what == take_in(topic)) {
            self.last_refusal = None;
        }
    }

    /// True if the network is to be in the kernel: neither left nor removed.
    pub(super) fn is_active(&self) -> bool {
        !self.leaving && !self.directory.is_removed()
    }

    /// Brokers of the network: those that the coordinator names now, best first, then those of the join.
    pub(super) fn brokers(&self) -> Vec<String> {
        let mut all = Vec::new();
        let newest = self.directory.newest().map(|(policy, _)| policy);
        let told = self.told.as_ref().filter(|told| newest.is_none_or(|newest| newest.rev < told.rev));
        let named = told.or(newest).map(|policy| policy.brokers.as_slice());
        for broker in named.unwrap_or_default().iter().chain(&self.membership.brokers) {
            if !all.contains(broker) {
                all.push(broker.clone());
            }
        }
        all
    }

    /// Known addresses of a network's brokers according to the coordinator, where the port is that of `broker`.
    pub(super) fn known_at(&self, broker: &str) -> Vec<SocketAddr> {
        let port = split_host_port(broker).map(|(_, port)| port);
        let control = self.directory.assignment().map(|assignment| assignment.control.as_slice());
        let there = control.unwrap_or_default().iter().filter(|addr| Some(addr.port()) == port);
        there.copied().take(MAX_ADDRESSES).collect()
    }

    pub(super) fn presence(&self, boot: &str, online: bool) -> Presence {
        let Membership { net, node, .. } = self.membership;
        Presence { net, node, boot: boot.to_owned(), session: self.session.number(), online }
    }

    /// Time at which the network's next report is due; `None` while the network is not connected.
    pub(super) fn report_due(&self, heartbeat: Duration) -> Option<Now> {
        Some(self.reporter.due(self.session.connected_since()?, heartbeat))
    }

    /// Time at which records that the roster names, but that did not come, are requested again.
    pub(super) fn resync_due(&self) -> Option<Now> {
        self.session.connected_since()?;
        let doubt = self.disagrees_since? + WITHHELD;
        Some(self.resync_at.map_or(doubt, |at| at.max(doubt)))
    }

    /// Compares the network's member records with its roster, and notes since when they disagree.
    pub(super) fn check_roster(&mut self, now: Now) {
        match self.directory.agrees() {
            Some(false) => drop(self.disagrees_since.get_or_insert(now)),
            _ => (self.disagrees_since, self.resync_at) = (None, None),
        }
    }

    /// Records that the revisions of policy, assignment and roster known now are in effect.
    pub(super) fn note_applied(&mut self) {
        let rev = |policy: Option<u64>| policy.unwrap_or_default();
        self.applied.policy = rev(self.directory.policy().map(|policy| policy.rev));
        self.applied.assignment = rev(self.directory.assignment().map(|assignment| assignment.rev));
        if self.directory.agrees() == Some(true) {
            self.applied.roster = rev(self.directory.roster().map(|roster| roster.rev));
        }
    }
}

/// What a message on a topic is for, in an admin's words.
fn take_in(topic: &str) -> String {
    let what = match topic.parse() {
        Ok(Topic::Member(..)) => "the record of a node",
        Ok(Topic::Roster(_)) => "the list of nodes",
        Ok(Topic::Policy(_)) => "the settings of the network",
        Ok(Topic::Assignment(_)) => "the settings of this node",
        _ => "a message",
    };
    format!("take in {what}")
}

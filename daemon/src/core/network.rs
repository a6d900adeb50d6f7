//! One network as the core knows it.

use super::{
    Membership, Now,
    confirm::Trial,
    directory::{Directory, Refusal},
    gateways::Gateways,
    paths::Paths,
    session::Session,
};
use crate::socket;
use crate::{
    gather::Gather,
    log,
    model::IfName,
    sorted::{SortedMap, SortedSet},
    store::Bucket,
};
use gatewrt_protocol::{Applied, Failure, Presence, WgPublicKey};
use std::{net::SocketAddr, time::Duration};

/// Two reports are at least this far apart.
const REPORT_GAP: Duration = Duration::from_secs(2);
/// What reports may cost when nothing changes: 1.1 MB a day at the usual heartbeat.
const BYTES_A_HEARTBEAT: u32 = 750;
/// So many reports may say soon that a client came or went,
const COMINGS: u32 = 8;
/// and one more after each such time; what came and went meanwhile is said with the next.
const COMING_AGAIN: Duration = Duration::from_secs(60);
/// How long the roster may disagree with the records before that counts as withheld.
const WITHHELD: Duration = Duration::from_secs(5);

/// One network as the core knows it.
#[derive(Debug)]
pub struct Network {
    /// Identity.
    pub membership: Membership,
    /// Records.
    pub directory: Directory,
    /// Endpoints.
    pub paths: Paths,
    /// Who serves what several could.
    pub gateways: Gateways,
    /// Whether its interface was looked at, for who serves since before this daemon's start.
    pub(super) found: bool,
    /// The router's LAN links.
    pub lans: SortedSet<IfName>,
    pub(super) session: Session,
    pub(super) trial: Trial,
    /// Revisions of the policy and the assignment that the trial is about.
    pub(super) judged: (u64, u64),
    pub(super) broker: usize,
    pub(super) applied: Applied,
    pub(super) refused: SortedMap<&'static str, u64>,
    pub(super) last_refusal: Option<Failure>,
    pub(super) disagrees_since: Option<Now>,
    pub(super) resync_at: Option<Now>,
    /// The facts that were reported last, as text.
    pub(super) said: Option<String>,
    pub(super) said_at: Option<Now>,
    /// The clients that were there then.
    pub(super) present: SortedSet<WgPublicKey>,
    pub(super) comings: Bucket,
    /// Bytes that the last report took.
    pub(super) said_bytes: u32,
    /// Whether what was said may no longer be so.
    pub(super) stale: bool,
    pub(super) seq: u64,
    pub(super) leaving: bool,
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
        let session = Session::new(membership.brokers.len(), seed ^ u32::from(membership.port), now);
        let mut network = Self {
            membership,
            directory,
            paths: Paths::default(),
            gateways: Gateways::default(),
            found: false,
            lans: SortedSet::new(),
            session,
            trial: Trial::default(),
            judged: (0, 0),
            broker: 0,
            applied: Applied::default(),
            refused: SortedMap::new(),
            last_refusal: None,
            disagrees_since: None,
            resync_at: None,
            said: None,
            said_at: None,
            present: SortedSet::new(),
            comings: Bucket::new(COMINGS, COMING_AGAIN),
            said_bytes: 0,
            stale: true,
            seq: 0,
            leaving: false,
        };
        let stored = std::mem::take(&mut network.membership.stored);
        network.resume_trial(&stored);
        network
    }

    pub(super) fn refuse(&mut self, topic: &str, refusal: &Refusal) {
        let count = self.refused.entry(refusal.reason()).or_default();
        *count += 1;
        // Each doubling is a line: a broker that floods does not flood the log.
        if count.is_power_of_two() {
            let network = &self.membership.network;
            log::warn!("{network}: refused a message on {topic}: {refusal} ({count} so far)");
        }
        let what = format!("take in a message on {}", topic.chars().take(80).collect::<String>());
        self.last_refusal = Some(Failure { what, why: refusal.to_string() });
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.leaving && !self.directory.is_removed()
    }

    /// Where the coordinator says that its brokers are: those with the port of this one.
    pub(super) fn known_at(&self, broker: &str) -> Vec<SocketAddr> {
        let port = socket::split_host_port(broker).map(|(_, port)| port);
        let control = self.directory.assignment().map(|assignment| assignment.control.as_slice());
        let there = control.unwrap_or_default().iter().filter(|addr| Some(addr.port()) == port);
        there.copied().take(socket::MAX_ADDRESSES).gather()
    }

    pub(super) fn presence(&self, boot: &str, online: bool) -> Presence {
        let Membership { net, node, .. } = self.membership;
        Presence { net, node, boot: boot.to_owned(), session: self.session.number(), online }
    }

    /// When a report is due: at once after connecting, soon when something may have changed, else at the
    /// next heartbeat.
    pub(super) fn report_due(&self, heartbeat: Duration) -> Option<Now> {
        let since = self.session.connected_since()?;
        let rest = self.rest(heartbeat);
        let wait = if self.stale { REPORT_GAP.min(rest) } else { rest };
        Some(self.said_at.map_or(since, |at| at + wait))
    }

    /// How long there is no report when there is no news: the heartbeat, and longer after a long report.
    pub(super) fn rest(&self, heartbeat: Duration) -> Duration {
        heartbeat.max(heartbeat * self.said_bytes / BYTES_A_HEARTBEAT)
    }

    /// When records that the roster names, but that did not come, are asked for again.
    pub(super) fn resync_due(&self) -> Option<Now> {
        self.session.connected_since()?;
        let doubt = self.disagrees_since? + WITHHELD;
        Some(self.resync_at.map_or(doubt, |at| at.max(doubt)))
    }

    pub(super) fn check_roster(&mut self, now: Now) {
        match self.directory.agrees() {
            Some(false) => drop(self.disagrees_since.get_or_insert(now)),
            _ => (self.disagrees_since, self.resync_at) = (None, None),
        }
    }

    pub(super) fn note_applied(&mut self) {
        let rev = |policy: Option<u64>| policy.unwrap_or_default();
        self.applied.policy = rev(self.directory.policy().map(|policy| policy.rev));
        self.applied.assignment = rev(self.directory.assignment().map(|assignment| assignment.rev));
        if self.directory.agrees() == Some(true) {
            self.applied.roster = rev(self.directory.roster().map(|roster| roster.rev));
        }
    }
}

//! What the daemon says of itself: reports to the coordinator, and the status shown on the router.

use super::{
    Core, Network, Now, Output, Uplink,
    clients::{ClientStatus, present},
    desired::is_beside,
    offer::offer,
    owner,
    paths::Seen,
    place::place,
    scopes::{
        Voice,
        status::{ExitStatus, ScopeStatus, exit_statuses, scope_status},
        voice,
    },
    serving::device_of,
};
use crate::{
    gather::{Gather, append},
    model::IfName,
    sorted::SortedMap,
};
use gatewrt_protocol::{
    Applied, Assignment, Egress, ExitOffer, Failure, MAX_RECORD, Member, NetworkId, NetworkName, NodeId,
    NodeName, Pairs, Path, PeerReport, Prefix, Report, TakenBack, json,
};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The daemon's state, as `gatewrt status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Since the daemon's start, in seconds.
    pub uptime_s: u64,
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// The firewall in use: `nft` or `iptables`; empty before the kernel was looked at.
    #[serde(default)]
    pub firewall: String,
    /// Networks joined.
    pub networks: Vec<NetworkStatus>,
    /// Networks on disk that can't be read, with the reason. What runs of them is left as it is.
    #[serde(default, skip_serializing_if = "SortedMap::is_empty")]
    pub unreadable: SortedMap<NetworkName, String>,
    /// Whether the kernel is as it shall be.
    pub settled: bool,
}

/// One network's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Name.
    pub name: NetworkName,
    /// Id.
    pub net: NetworkId,
    /// This node's id.
    pub node: NodeId,
    /// This node's name.
    pub node_name: NodeName,
    /// Its interface.
    pub interface: String,
    /// `kernel`, or the userspace implementation; empty while there is no device.
    pub wireguard: String,
    /// UDP port.
    pub port: u16,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// `connected`, `connecting` or `removed`.
    pub control: String,
    /// The broker in use.
    pub broker: String,
    /// Why the control link is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_error: Option<String>,
    /// What this router serves.
    pub egress: Vec<Egress>,
    /// Whether external clients are to be let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// Those that are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientStatus>,
    /// Whose word counts for `scopes`.
    pub scopes_by: Voice,
    /// What of this router's Internet traffic goes through an exit.
    pub scopes: Vec<ScopeStatus>,
    /// The other nodes that are exits.
    pub exits: Vec<ExitStatus>,
    /// What this router could serve as an exit; absent where its owner forbids it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<ExitOffer>,
    /// Whether it is one: the coordinator has switched it on, and its owner allows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_exit: bool,
    /// Peers.
    pub peers: Vec<PeerStatus>,
    /// Revisions in effect.
    pub applied: Applied,
    /// What was in effect and is no more: the control link did not outlive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<TakenBack>,
    /// Seconds left for the control link to show that it outlives a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_s: Option<u64>,
    /// What does not work, and why.
    pub failures: Vec<Failure>,
    /// Messages refused, by reason.
    pub refused: SortedMap<String, u64>,
}

/// One peer's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Name.
    pub name: NodeName,
    /// Public key.
    pub key: gatewrt_protocol::WgPublicKey,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// What it serves.
    pub prefixes: Vec<Prefix>,
    /// Id.
    pub node: NodeId,
    /// Where packets to it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
    /// How it is reached.
    pub path: Path,
    /// Round trip to it in the tunnel, in milliseconds; only what serves this router is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u32>,
}

impl Core {
    /// The parts of a network's report whose change is news; the rest waits for the next heartbeat.
    fn facts(&self, name: &NetworkName, network: &Network) -> Report {
        let membership = &network.membership;
        let place = place(&self.observed, &owner(&self.config, name).endpoints, membership.port);
        Report {
            net: membership.net,
            node: membership.node,
            boot: self.about.boot.clone(),
            seq: 0,
            version: self.about.version.clone(),
            board: self.about.board.clone(),
            uptime_s: 0,
            memory_kib: 0,
            wireguard: self.backend_of(name),
            port: membership.port,
            interfaces: place.interfaces,
            endpoints: place.endpoints,
            peers: Vec::new(),
            peer_count: 0,
            clients: Vec::new(),
            exit: offer(&self.config, name, &self.observed),
            scopes: self.scope_reports(name, network),
            gateways: Pairs(network.gateways.serving().gather()),
            applied: Applied { roster: 0, ..network.applied },
            taken_back: network.taken_back().cloned(),
            failures: self.failures_of(name, network),
            refused: Pairs(
                network.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).gather(),
            ),
        }
    }

    /// The rest of a report as of now, without its sequence number and with all clients.
    fn complete(&self, report: &mut Report, name: &NetworkName, network: &Network, now: Now) {
        report.uptime_s = now.as_secs();
        report.memory_kib = self.memory_kib;
        report.peers = self.peer_reports(network);
        report.peer_count = report.peers.len() as u32;
        freshest(&mut report.peers, Report::PEERS, |peer| peer.handshake_s);
        report.clients = self.client_reports(name, network);
        report.applied.roster = network.applied.roster;
        for scope in &mut report.scopes {
            scope.rtt_ms = scope.exit.and_then(|exit| network.gateways.health(exit)?.rtt_ms);
        }
    }

    pub(super) fn poll_report(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get(name).filter(|_| self.has_observed) else { return };
        let Some(due) = network.report_due(self.config.heartbeat).filter(|due| *due <= now) else { return };
        let beat = network.said_at.is_none_or(|at| at + network.rest(self.config.heartbeat) <= due);
        let mut report = self.facts(name, network);
        let facts = json::write(&report).unwrap_or_default();
        self.complete(&mut report, name, network, now);
        let present = present(&report.clients);
        freshest(&mut report.clients, Report::CLIENTS, |client| client.handshake_s);
        let Some(network) = self.networks.get_mut(name) else { return };
        network.stale = false;
        let is_news = beat || network.said.as_ref() != Some(&facts);
        if !is_news && (present == network.present || network.comings.take(now).is_err()) {
            return;
        }
        network.present = present;
        network.seq += 1;
        report.seq = network.seq;
        network.said = Some(facts);
        network.said_at = Some(now);
        network.session.handle_sent(now);
        network.said_bytes = fit(&mut report);
        self.outputs.push(Output::Publish(name.clone(), Uplink::Report(Box::new(report))));
    }

    /// What was said last may no longer be so.
    pub(super) fn refresh_reports(&mut self) {
        self.networks.values_mut().for_each(|network| network.stale = true);
    }

    fn failures_of(&self, name: &NetworkName, network: &Network) -> Vec<Failure> {
        let mut all: Vec<Failure> = self.observe_failure.iter().cloned().gather();
        append(&mut all, self.rhythm.tries.failures().cloned());
        if let Some(failures) = self.view_failures.get(name) {
            all.extend_from_slice(failures);
        }
        all.extend(network.last_refusal.clone());
        if network.directory.is_removed() {
            all.push(Failure {
                what: format!("be part of {name}"),
                why: format!(
                    "the coordinator removed this node: “gatewrt leave {name}”, then join with a new code"
                ),
            });
        }
        if network.is_wanted() && !network.directory.is_whole() {
            all.push(Failure {
                what: "know what this node is to do".to_owned(),
                why: "the records on this router's disk are missing or damaged; what runs stays as it is until the \
                      coordinator has sent all of them again"
                    .to_owned(),
            });
        }
        if network.resync_at.is_some() {
            all.push(Failure {
                what: "know all nodes".to_owned(),
                why: "the roster names records that did not come: withheld or rolled back by the broker"
                    .to_owned(),
            });
        }
        all.truncate(16);
        all
    }

    /// All there is to know, for people and programs on the router.
    pub fn status(&self, now: Now) -> Status {
        Status {
            firewall: self.observed.firewall.to_owned(),
            version: self.about.version.clone(),
            uptime_s: now.as_secs(),
            memory_kib: self.memory_kib,
            networks: self
                .networks
                .iter()
                .map(|(name, network)| self.network_status(name, network, now))
                .gather(),
            unreadable: self
                .unreadable
                .iter()
                .map(|(name, network)| (name.clone(), network.why.clone()))
                .collect(),
            settled: self.is_settled(),
        }
    }

    fn network_status(&self, name: &NetworkName, network: &Network, now: Now) -> NetworkStatus {
        let membership = &network.membership;
        let assignment = network.directory.assignment();
        let peers = network.directory.peers().zip(self.peer_reports(network));
        let scopes = self.scopes_of(name, network);
        let offer = offer(&self.config, name, &self.observed);
        let control = match (network.directory.is_removed(), network.session.is_connected()) {
            (true, _) => "removed",
            (false, true) => "connected",
            (false, false) => "connecting",
        };
        NetworkStatus {
            name: name.clone(),
            net: membership.net,
            node: membership.node,
            node_name: assignment
                .map_or_else(|| membership.name.clone(), |assignment| assignment.name.clone()),
            interface: name.interface(),
            wireguard: self.backend_of(name),
            port: membership.port,
            addresses: assignment.map(|assignment| assignment.addresses.clone()).unwrap_or_default(),
            control: control.to_owned(),
            broker: membership.brokers.get(network.broker).cloned().unwrap_or_default(),
            control_error: network.session.last_error().map(str::to_owned),
            egress: assignment.map(|assignment: &Assignment| assignment.egress.clone()).unwrap_or_default(),
            ingress: assignment.is_some_and(|assignment| assignment.ingress.is_some()),
            clients: self.client_statuses(name, network),
            scopes_by: voice(&self.config, name, network),
            exits: exit_statuses(&scopes, network),
            scopes: scopes.into_iter().map(|scope| scope_status(scope, network)).gather(),
            is_exit: offer.is_some() && assignment.is_some_and(|assignment| assignment.exit.is_some()),
            offer,
            peers: peers.map(peer_status).gather(),
            applied: network.applied.clone(),
            taken_back: network.taken_back().cloned(),
            trial_s: network.trial_deadline().map(|at| at.saturating_sub(now).as_secs()),
            failures: self.failures_of(name, network),
            refused: network.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }

    fn backend_of(&self, name: &NetworkName) -> String {
        let device = self.observed.devices.get(&IfName::from(name));
        device.map(|device| device.backend.clone()).unwrap_or_default()
    }

    fn peer_reports(&self, network: &Network) -> Vec<PeerReport> {
        let report = |member: &Member| {
            let device = device_of(&self.observed, &member.key).map(|(_, device)| device);
            let seen = device.and_then(|device| device.peers.get(&member.key));
            let counters =
                device.and_then(|device| device.counters.get(&member.key)).copied().unwrap_or_default();
            PeerReport {
                node: member.node,
                endpoint: seen.and_then(|peer| peer.endpoint),
                handshake_s: age(self.wall, counters.handshake).map(|age| age.as_secs()),
                rx: counters.rx,
                tx: counters.tx,
                path: if seen.is_some() { network.paths.path(&member.key) } else { Path::Down },
                rtt_ms: network.gateways.health(member.node).and_then(|health| health.rtt_ms),
            }
        };
        network.directory.peers().map(report).gather()
    }

    /// What the kernel shows of every peer goes to the paths.
    pub(super) fn feed_paths(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let own = IfName::from(name);
            let mut seen = SortedMap::new();
            for (_, device) in
                self.observed.devices.iter().filter(|(link, _)| **link == own || is_beside(link))
            {
                for (key, peer) in &device.peers {
                    let handshake = device.counters.get(key).and_then(|counters| counters.handshake);
                    let handshake_age = age(self.wall, handshake);
                    seen.insert(*key, Seen { endpoint: peer.endpoint, handshake_age });
                }
            }
            network.paths.handle_device(&seen, now);
        }
    }
}

/// Age of a handshake by the router's clock. A clock that was set back makes it zero.
pub(super) fn age(wall: Duration, handshake: Option<Duration>) -> Option<Duration> {
    Some(wall.saturating_sub(handshake?))
}

fn peer_status((member, seen): (&Member, PeerReport)) -> PeerStatus {
    PeerStatus {
        name: member.name.clone(),
        key: member.key,
        addresses: member.addresses.clone(),
        prefixes: member.prefixes.iter().map(|served| served.prefix).gather(),
        node: seen.node,
        endpoint: seen.endpoint,
        handshake_s: seen.handshake_s,
        rx: seen.rx,
        tx: seen.tx,
        path: seen.path,
        rtt_ms: seen.rtt_ms,
    }
}

/// Leaves so many, those with the freshest handshake, in that order. There are few: to sort them all takes more
/// program than this is worth.
fn freshest<T>(list: &mut Vec<T>, most: usize, handshake_s: fn(&T) -> Option<u64>) {
    for place in 0..most.min(list.len()) {
        let rest = place..list.len();
        let best = rest.min_by_key(|at| handshake_s(&list[*at]).unwrap_or(u64::MAX)).unwrap_or(place);
        list.swap(place, best);
    }
    list.truncate(most);
}

/// A report that is too long for a record leaves out those that were heard of longest ago. Gives what it takes.
fn fit(report: &mut Report) -> u32 {
    loop {
        let bytes = bytes_of(report);
        let (peers, clients) = (report.peers.len(), report.clients.len());
        if bytes as usize <= MAX_RECORD || peers + clients == 0 {
            return bytes;
        }
        report.peers.truncate(peers * 7 / 8);
        report.clients.truncate(clients * 7 / 8);
    }
}

/// What a report takes on the wire, about: base64 of its JSON; signature, topic and headers come on top.
fn bytes_of(report: &Report) -> u32 {
    let json = json::write(report).map_or(0, |json| json.len());
    u32::try_from(json * 4 / 3 + 300).unwrap_or(u32::MAX)
}

//! Content of reports to the coordinator.

use super::{
    Core, Network, Now, Output, Uplink,
    clients::present,
    desired::is_secondary,
    network::WITHHELD,
    owner,
    paths::Seen,
    serving::device_of,
    uplinks::{offer, place},
};
use crate::{config::Warning, model::IfName};
use gatewrt_protocol::{Applied, Failure, MAX_RECORD, Member, NetworkName, Path, PeerReport, Report};
use litemap::LiteMap;

/// Largest number of peers of a network whose nodes report a new roster at once, as an admin waits for them. In a larger one
/// each change would set off too many reports: it is told with the next.
const PROMPT_PEERS: usize = 32;

/// Largest number of faults in the router's configuration that are failures of a network, so that they leave room for
/// others.
const CONFIG_FAULTS: usize = 6;

impl Core {
    /// Facts of a network's report: the parts whose change is sent at once. The rest waits for the next heartbeat.
    fn facts(&self, name: &NetworkName, network: &Network) -> Report {
        let membership = &network.membership;
        let place = place(&self.observed, &owner(&self.config, name).endpoints, membership.port);
        let is_prompt = network.directory.peers().count() <= PROMPT_PEERS;
        let roster = if is_prompt { network.applied.roster } else { 0 };
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
            gateways: network.gateways.serving().collect(),
            applied: Applied { roster, ..network.applied },
            rolled_back: network.rolled_back().cloned(),
            failures: self.failures_of(name, network),
            refused: network.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }

    /// Adds to a network's report what its facts lack, as of now, without its sequence number and with all clients.
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

    /// Sends a network's report if one is due and has anything new to say.
    pub(super) fn poll_report(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get(name).filter(|_| self.has_observed) else { return };
        let Some(due) = network.report_due(self.config.heartbeat).filter(|due| *due <= now) else { return };
        let mut report = self.facts(name, network);
        let facts = serde_json::to_string(&report).unwrap_or_default();
        self.complete(&mut report, name, network, now);
        let present = present(&report.clients);
        freshest(&mut report.clients, Report::CLIENTS, |client| client.handshake_s);
        let Some(network) = self.networks.get_mut(name) else { return };
        if !network.reporter.poll(due, self.config.heartbeat, &facts, &present, now) {
            return;
        }
        if network.session.connected_since().is_some_and(|since| since + WITHHELD <= now) {
            network.directory.handle_settled();
        }
        report.seq = network.reporter.handle_sent(facts, present, now);
        network.session.handle_sent(now);
        network.reporter.set_bytes(fit(&mut report));
        self.outputs.push(Output::Publish(name.clone(), Uplink::Report(Box::new(report))));
    }

    /// Makes reports of all networks due soon, since something reported may have changed.
    pub(super) fn refresh_reports(&mut self) {
        self.networks.iter_mut().for_each(|(_, network)| network.reporter.refresh());
    }

    pub(super) fn failures_of(&self, name: &NetworkName, network: &Network) -> Vec<Failure> {
        let mut all: Vec<Failure> = self.observe_failure.iter().cloned().collect();
        all.extend(self.backoff.failures().cloned());
        if let Some(failures) = self.config_failures.get(name) {
            all.extend_from_slice(failures);
        }
        all.extend(network.last_refusal.clone());
        let of_network = |warning: &&Warning| warning.network.as_ref().is_none_or(|it| it == name);
        all.extend(self.config.warnings.iter().filter(of_network).take(CONFIG_FAULTS).map(config_failure));
        if network.directory.is_removed() {
            all.push(Failure {
                what: format!("be part of {name}"),
                why: format!(
                    "the coordinator removed this node: “gatewrt leave {name}”, then join with a new code"
                ),
            });
        }
        if network.is_active() && !network.directory.is_whole() {
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

    pub(super) fn backend_of(&self, name: &NetworkName) -> String {
        let device = self.observed.devices.get(&IfName::from(name));
        device.map(|device| device.backend.clone()).unwrap_or_default()
    }

    pub(super) fn peer_reports(&self, network: &Network) -> Vec<PeerReport> {
        let report = |member: &Member| {
            let device = device_of(&self.observed, &member.key).map(|(_, device)| device);
            let seen = device.and_then(|device| device.peers.get(&member.key));
            let counters =
                device.and_then(|device| device.counters.get(&member.key)).copied().unwrap_or_default();
            PeerReport {
                node: member.node,
                endpoint: seen.and_then(|peer| peer.endpoint),
                handshake_s: counters.handshake_age(self.wall).map(|age| age.as_secs()),
                rx: counters.rx,
                tx: counters.tx,
                path: if seen.is_some() { network.paths.path(&member.key) } else { Path::Down },
                rtt_ms: network.gateways.health(member.node).and_then(|health| health.rtt_ms),
            }
        };
        network.directory.peers().map(report).collect()
    }

    /// Feeds the observed state of every WireGuard peer to the paths of the networks.
    pub(super) fn feed_paths(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let own = IfName::from(name);
            let mut seen = LiteMap::new();
            for (_, device) in
                self.observed.devices.iter().filter(|(link, _)| **link == own || is_secondary(link))
            {
                for (key, peer) in &device.peers {
                    let counters = device.counters.get(key);
                    let handshake_age = counters.and_then(|counters| counters.handshake_age(self.wall));
                    seen.insert(*key, Seen { endpoint: peer.endpoint, handshake_age });
                }
            }
            network.paths.handle_device(&seen, now);
        }
    }
}

fn config_failure(warning: &Warning) -> Failure {
    Failure { what: format!("use {}", warning.place()), why: warning.what.clone() }
}

/// Keeps the `most` peers or clients of a report with the freshest handshake, in that order. They are few: sorting them
/// all would take more code than it is worth.
fn freshest<T>(list: &mut Vec<T>, most: usize, handshake_s: fn(&T) -> Option<u64>) {
    for place in 0..most.min(list.len()) {
        let rest = place..list.len();
        let best = rest.min_by_key(|at| handshake_s(&list[*at]).unwrap_or(u64::MAX)).unwrap_or(place);
        list.swap(place, best);
    }
    list.truncate(most);
}

/// Shortens a report that is too long for a record, by the peers and clients with the oldest handshakes; returns its
/// length in bytes.
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

/// Length of a report on the wire in bytes, about: base64 of its JSON, plus signature, topic and headers.
fn bytes_of(report: &Report) -> u32 {
    let json = serde_json::to_vec(report).map_or(0, |json| json.len());
    u32::try_from(json * 4 / 3 + 300).unwrap_or(u32::MAX)
}

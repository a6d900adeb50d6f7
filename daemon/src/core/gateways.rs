//! Choice of the node that serves, where several could: a prefix that more than one node has, or a scope's Internet
//! traffic. Among the nodes that are alive the one with the lowest rank is chosen; among equals the nearest, with
//! hysteresis. Pure: probe replies come in, due probes come out; the driver sends them.
//!
//! While packets come in from a node it is well, and is not probed. When packets go out to it and none come back, it is
//! probed, and when it does not answer at once, so is every node that could take its place. Four probes in a row without an
//! answer, over at least 1.2 s, and the node is dead. A dead node that has answered for ten seconds is alive again.
//!
//! Cost: a probe takes 108 bytes on the wire over IPv4 (16 of content, 28 of headers, padded to 48, 32 of WireGuard, 28 of
//! its packet), its answer as many, and 20 more each where the outer packet is IPv6. Each candidate is probed every 30 s:
//! 0.6 MB a day. From the ninth candidate on the interval grows with their number: never more than 5.1 MB a day while all
//! is well. A node in doubt takes at most four more probes. While no candidate is alive each is probed every 5 s, which with
//! WireGuard's own handshake attempts is 4.9 MB a day for each of the first eight, and no more for all beyond them. Traffic
//! without answers has its node probed once per observation.

#[cfg(test)]
mod tests;

use super::{
    Now,
    health::{Answer, Health, HealthTracker},
};
use gatewrt_protocol::{NodeId, Prefix, Tag};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::{fmt, time::Duration};

/// Interval of probes to a node whose state does not change.
const REST: Duration = Duration::from_secs(30);
/// Interval of probes to a node while no candidate is alive.
const SEARCH: Duration = Duration::from_secs(5);
/// Number of candidates above which the interval grows.
const MANY: u32 = 8;
/// Milliseconds by which a node's round trip must be shorter, besides by a fifth, to replace a node of equal rank.
const NEARER_MS: u32 = 10;
/// Number of times in a row that a node must be nearer to replace a node of equal rank.
const NEARER_TIMES: u32 = 3;

/// Service of a network that several nodes could provide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Prefix that several nodes serve.
    Prefix(Prefix),
    /// Internet traffic of a scope.
    Scope(Tag),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Scope(scope) => write!(f, "the Internet traffic of {scope}"),
        }
    }
}

/// Node that could provide a service, with its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Rank: the lowest is chosen. Equals compete by round trip.
    pub rank: u32,
    /// Node.
    pub node: NodeId,
}

/// Health probe to be sent to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Destination.
    pub node: NodeId,
    /// Number, which comes back with the answer; greater than those of all earlier probes.
    pub id: u32,
}

/// Reason why a candidate for a service is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No sign of life since then.
    Silent(Now),
    /// Answers again since then, but not yet for long enough.
    Recovers(Now),
    /// No uplink to the IPv4 Internet.
    NoUplink,
}

/// Services of one network, their candidates, and the node chosen for each.
#[derive(Debug, Clone, Default)]
pub struct Gateways {
    services: LiteMap<Service, Served>,
    nodes: LiteMap<NodeId, HealthTracker>,
    probes: u32,
    /// A node gained or lost its way to the Internet.
    changed: bool,
    /// Services whose node changed.
    moved: Vec<Service>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Served {
    /// Candidates in order of rank.
    candidates: Vec<Candidate>,
    chosen: Option<NodeId>,
    /// Node that was nearer than the chosen one, and how many times in a row.
    nearer: Option<(NodeId, u32)>,
}

impl Gateways {
    /// Replaces the services of the network and their candidates. A chosen node stays chosen while it can.
    pub fn handle_services(&mut self, wanted: LiteMap<Service, Vec<Candidate>>, now: Now) {
        let mut services = LiteMap::new();
        for (service, mut candidates) in wanted {
            candidates.sort();
            let before = self.services.get_mut(&service).map(std::mem::take).unwrap_or_default();
            services.insert(service, Served { candidates, ..before });
        }
        self.services = services;
        let mut nodes = SortedSet::new();
        for served in self.services.values() {
            nodes.extend(served.candidates.iter().map(|candidate| candidate.node));
        }
        self.nodes.retain(|node, _| nodes.binary_search(node).is_ok());
        for node in &nodes {
            self.nodes.entry(*node).or_insert_with(|| HealthTracker::new(now));
        }
        self.choose();
    }

    /// Takes over the node that provides a service since before this daemon's start, until a better one has answered.
    pub fn handle_found(&mut self, service: &Service, serving: &[NodeId]) {
        let nodes = &self.nodes;
        let is_known =
            |candidate: &Candidate| nodes.get(&candidate.node).is_some_and(HealthTracker::is_known);
        let Some(served) = self.services.get_mut(service) else { return };
        let first = served.candidates.iter().find(|candidate| serving.contains(&candidate.node));
        if let Some(first) = first.filter(|_| !served.candidates.iter().any(is_known)) {
            served.chosen = Some(first.node);
        }
    }

    /// Takes in the WireGuard byte counters of a node.
    pub fn handle_counters(&mut self, node: NodeId, received: u64, sent: u64, now: Now) {
        if let Some(tracker) = self.nodes.get_mut(&node) {
            tracker.handle_counters((received, sent), now);
        }
    }

    /// Takes in the answer of a node to a health probe.
    pub fn handle_answer(&mut self, probe: Probe, answer: Answer, now: Now) {
        let Some(tracker) = self.nodes.get_mut(&probe.node) else { return };
        let before = tracker.health();
        if !tracker.handle_answer(probe.id, answer, now) {
            return;
        }
        let Health { v4, v6, .. } = tracker.health();
        self.changed |= (before.v4, before.v6) != (v4, v6);
        self.choose();
        self.compare(probe.node);
    }

    /// Makes a health probe of every node due at once, because this router's way to the Internet changed.
    pub fn handle_wan_changed(&mut self) {
        self.nodes.iter_mut().for_each(|(_, tracker)| tracker.doubt());
    }

    /// Declares silent nodes dead, fails over from them, and returns the health probes that are due.
    pub fn poll(&mut self, now: Now) -> Vec<Probe> {
        self.nodes.iter_mut().for_each(|(_, tracker)| tracker.poll_death(now));
        self.choose();
        let mut probes = Vec::new();
        // A node that is probed again puts others in doubt.
        loop {
            let mut dues = self.dues();
            dues.retain(|(_, at)| *at <= now);
            if dues.is_empty() {
                return probes;
            }
            for (node, _) in dues {
                probes.extend(self.probe(node, now));
            }
        }
    }

    /// Time at which [`Self::poll`] is due for the next health probe, and the reason in words.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        self.dues().into_iter().map(|(_, at)| at).min().map(|at| (at, "probe a gateway"))
    }

    /// Takes the services whose chosen node changed since the last call. `None` when none did, and no node gained or
    /// lost its way to the Internet either.
    pub fn take_changes(&mut self) -> Option<Vec<Service>> {
        let is_news = std::mem::take(&mut self.changed) || !self.moved.is_empty();
        is_news.then(|| std::mem::take(&mut self.moved))
    }

    /// True if the network has no services that several nodes could provide.
    pub fn is_idle(&self) -> bool {
        self.services.is_empty()
    }

    /// Services of the network that several nodes could provide.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.keys()
    }

    /// Node chosen to serve each prefix that several nodes could serve.
    pub fn serving(&self) -> impl Iterator<Item = (Prefix, NodeId)> {
        self.services.iter().filter_map(|(service, served)| match service {
            Service::Prefix(prefix) => Some((*prefix, served.chosen?)),
            Service::Scope(_) => None,
        })
    }

    /// Node chosen for a service; `None` when no candidate is alive.
    pub fn choice(&self, service: &Service) -> Option<NodeId> {
        self.services.get(service)?.chosen
    }

    /// Health of a node that is a candidate; `None` when it is none.
    pub fn health(&self, node: NodeId) -> Option<Health> {
        self.nodes.get(&node).map(HealthTracker::health)
    }

    /// Candidates for a service before the chosen one, or all where none is, and the reason why each is not chosen.
    pub fn troubles(&self, service: &Service) -> Vec<(NodeId, Trouble)> {
        let Some(served) = self.services.get(service) else { return Vec::new() };
        let before = served.candidates.iter().take_while(|candidate| Some(candidate.node) != served.chosen);
        before.filter_map(|candidate| Some((candidate.node, self.trouble(candidate.node)?))).collect()
    }

    fn trouble(&self, node: NodeId) -> Option<Trouble> {
        let tracker = self.nodes.get(&node)?;
        match tracker.recovering_since() {
            Some(since) => Some(Trouble::Recovers(since)),
            None if !tracker.is_alive() => Some(Trouble::Silent(tracker.heard)),
            None => (tracker.health().v4 == Some(false)).then_some(Trouble::NoUplink),
        }
    }

    fn probe(&mut self, node: NodeId, now: Now) -> Option<Probe> {
        self.probes = self.probes.wrapping_add(1);
        let id = self.probes;
        self.nodes.get_mut(&node)?.handle_probe(id, now);
        Some(Probe { node, id })
    }

    /// Time of the next health probe of each node.
    fn dues(&self) -> Vec<(NodeId, Now)> {
        let (mut doubted, mut sought) = (SortedSet::new(), SortedSet::new());
        for served in self.services.values() {
            let nodes = || served.candidates.iter().map(|candidate| candidate.node);
            let chosen = served.chosen.and_then(|node| self.nodes.get(&node));
            if chosen.is_some_and(HealthTracker::is_in_doubt) {
                doubted.extend(nodes());
            }
            if chosen.is_none_or(|tracker| !tracker.is_alive()) {
                sought.extend(nodes());
            }
        }
        let many = (self.nodes.len() as u32).div_ceil(MANY);
        let due = |(node, tracker): (&NodeId, &HealthTracker)| {
            let rest = if sought.binary_search(node).is_ok() { SEARCH } else { REST };
            (*node, tracker.due(doubted.binary_search(node).is_ok(), rest * many))
        };
        self.nodes.iter().map(due).collect()
    }

    /// Fails over each service whose chosen node is dead or has a higher rank than another one.
    fn choose(&mut self) {
        for (service, served) in &mut self.services {
            if !served.candidates.iter().any(|candidate| is_alive(&self.nodes, candidate.node)) {
                let alone = served.candidates.iter().map(|candidate| candidate.node);
                alone.for_each(|node| self.nodes.entry(node).or_default().handle_alone());
            }
            let chosen = choose(service, served, &self.nodes);
            if chosen != served.chosen {
                (served.chosen, served.nearer) = (chosen, None);
                self.moved.push(service.clone());
            }
        }
    }

    /// Replaces the chosen node of a service by an equal one, just measured, that is nearer.
    fn compare(&mut self, node: NodeId) {
        for (service, served) in &mut self.services {
            let place = |node| {
                let candidate = served.candidates.iter().find(|candidate| candidate.node == node);
                candidate.and_then(|candidate| place(service, candidate, &self.nodes))
            };
            let Some(chosen) = served.chosen.filter(|chosen| *chosen != node) else { continue };
            let rtt =
                |node| self.nodes.get(&node).and_then(|tracker: &HealthTracker| tracker.health().rtt_ms);
            let is_equal = |other| place(other).is_some() && place(other) == place(chosen);
            let equals =
                served.candidates.iter().map(|candidate| candidate.node).filter(|node| is_equal(*node));
            let nearest = equals.filter_map(|node| Some((rtt(node)?, node))).min();
            let is_nearer = match (nearest, rtt(chosen)) {
                (Some((near, nearest)), Some(far)) if nearest == node => {
                    near.saturating_add(NEARER_MS) <= far && near <= far - far / 5
                }
                _ => false,
            };
            let before = served.nearer.filter(|(nearer, _)| *nearer == node).map_or(0, |(_, times)| times);
            match (is_nearer, before + 1) {
                (true, NEARER_TIMES) => {
                    (served.chosen, served.nearer) = (Some(node), None);
                    self.moved.push(service.clone());
                }
                (true, times) => served.nearer = Some((node, times)),
                (false, _) => served.nearer = served.nearer.filter(|(nearer, _)| *nearer != node),
            }
        }
    }
}

fn is_alive(nodes: &LiteMap<NodeId, HealthTracker>, node: NodeId) -> bool {
    nodes.get(&node).is_some_and(|tracker| tracker.is_alive())
}

/// Place of a candidate for a service in the order of choice: those that report no IPv4 Internet come last. `None` when
/// it is dead.
fn place(service: &Service, candidate: &Candidate, nodes: &LiteMap<NodeId, HealthTracker>) -> Option<u64> {
    let health = nodes.get(&candidate.node).map(HealthTracker::health).filter(|health| health.alive)?;
    let has_no_v4 = matches!(service, Service::Scope(_)) && health.v4 == Some(false);
    let works = !has_no_v4 || health.v6 == Some(true);
    works.then_some(u64::from(has_no_v4) << 32 | u64::from(candidate.rank))
}

fn choose(service: &Service, served: &Served, nodes: &LiteMap<NodeId, HealthTracker>) -> Option<NodeId> {
    let is_chosen = |candidate: &&Candidate| Some(candidate.node) == served.chosen;
    let now = served.candidates.iter().find(is_chosen).and_then(|candidate| place(service, candidate, nodes));
    // A node that never answered replaces none that works.
    let line = served.candidates.iter().filter_map(|candidate| {
        let (place, tracker) = (place(service, candidate, nodes)?, nodes.get(&candidate.node)?);
        let rtt = tracker.health().rtt_ms.unwrap_or(u32::MAX);
        Some((!tracker.is_known(), place, rtt, candidate.node))
    });
    match (line.min(), now, service) {
        (Some((is_unknown, first, _, _)), Some(now), _) if is_unknown || first >= now => served.chosen,
        (Some((_, _, _, first)), _, _) => Some(first),
        // No candidate is alive: a prefix stays where it was, which is as good as anywhere.
        (None, _, Service::Prefix(_)) if served.candidates.iter().any(|one| is_chosen(&one)) => served.chosen,
        (None, _, Service::Prefix(_)) => served.candidates.first().map(|candidate| candidate.node),
        (None, _, Service::Scope(_)) => None,
    }
}

//! Which of several nodes serves: a prefix that more than one of them has, a scope's Internet traffic. Of those that
//! work the one that goes first by its rank; among equals the nearest, with hysteresis. Pure: what probes found comes in,
//! which probes are due comes out. How a probe is sent is the driver's matter.
//!
//! While packets come in from a node it is well, and nothing is asked. When packets go out to it and none come back, it
//! is probed, and when it does not answer at once, everyone who could take its place is too: four probes in a row without
//! an answer, at least 1.2 s, and it is dead. One that was dead is taken again when it answered for ten seconds.
//!
//! What it costs: a probe takes 108 bytes on the wire over IPv4 (16 of content, 28 of headers, padded to 48, 32 of
//! WireGuard, 28 of its packet), its answer as many, and 20 more each where the outer packet is IPv6. Every node that could
//! serve is probed each 30 s: 0.6 MB a day. From the ninth on that time grows with their number: never more than 5.1 MB a
//! day, while all is well. A node in doubt takes at most four probes more. While nobody works each is probed every 5 s,
//! which with WireGuard's own attempts at a handshake is 4.9 MB a day for each of the first eight, and no more for all
//! beyond them; traffic that only goes out has its node probed once a look.

mod pulse;
#[cfg(test)]
mod tests;

use super::Now;
use crate::{
    gather::Gather,
    sorted::{SortedMap, SortedSet, sort_by},
};
use gatewrt_protocol::{NodeId, Prefix, Tag};
use pulse::Pulse;
use std::{fmt, time::Duration};

/// Between two probes to one that is as it was.
const REST: Duration = Duration::from_secs(30);
/// The same while nobody works.
const SEARCH: Duration = Duration::from_secs(5);
/// From so many nodes on, the time between probes grows.
const MANY: u32 = 8;
/// A nearer one must be nearer by so much, in milliseconds, and by a fifth,
const NEARER_MS: u32 = 10;
/// so often in a row.
const NEARER_TIMES: u32 = 3;

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// A prefix that several nodes have.
    Prefix(Prefix),
    /// The Internet traffic of a scope.
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

/// One who could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The least goes first. Equals compete by latency.
    pub rank: u32,
    /// The node.
    pub node: NodeId,
}

/// What is known of a node by probes in the tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// It answers. Counts as so until the first probes went unanswered.
    pub alive: bool,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<u32>,
    /// It says that it leads to the IPv4 Internet; `None` before it said anything.
    pub v4: Option<bool>,
    /// The same for IPv6.
    pub v6: Option<bool>,
}

/// A probe that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// To this node.
    pub node: NodeId,
    /// Comes back with its answer; greater than that of every probe before.
    pub id: u32,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its daemon says whether it leads to the Internet of each family.
    Says {
        /// IPv4
        v4: bool,
        /// IPv6
        v6: bool,
    },
    /// No daemon is there to answer; the tunnel works.
    Refused,
}

/// Why a candidate does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No sign of life since then.
    Silent(Now),
    /// It answers again since then.
    Recovers(Now),
    /// It does not lead to the IPv4 Internet.
    NoUplink,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Gateways {
    services: SortedMap<Service, Served>,
    nodes: SortedMap<NodeId, Pulse>,
    probes: u32,
    /// Whether an uplink came or went.
    changed: bool,
    /// What someone else serves than before.
    moved: Vec<Service>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Served {
    /// In order of rank.
    candidates: Vec<Candidate>,
    chosen: Option<NodeId>,
    /// Who was nearer than the chosen one of late, and how often in a row.
    nearer: Option<(NodeId, u32)>,
}

impl Gateways {
    /// These are to be served, each by one of these, from now on. What was chosen stays chosen while it can.
    pub fn handle_wanted(&mut self, wanted: SortedMap<Service, Vec<Candidate>>, now: Now) {
        let mut services = Vec::new();
        for (service, mut candidates) in wanted {
            sort_by(&mut candidates, Ord::cmp);
            let before = self.services.get_mut(&service).map(std::mem::take).unwrap_or_default();
            services.push((service, Served { candidates, ..before }));
        }
        self.services = services.into();
        let mut nodes = SortedSet::new();
        for served in self.services.values() {
            nodes.extend(served.candidates.iter().map(|candidate| candidate.node));
        }
        self.nodes.retain(|node, _| nodes.contains(node));
        for node in &nodes {
            self.nodes.entry(*node).or_insert_with(|| Pulse::new(now));
        }
        self.choose();
    }

    /// One of these serves already, from before this daemon's start: that stays so until a better one has answered.
    pub fn handle_found(&mut self, service: &Service, serving: &[NodeId]) {
        let nodes = &self.nodes;
        let is_known = |candidate: &Candidate| nodes.get(&candidate.node).is_some_and(Pulse::is_known);
        let Some(served) = self.services.get_mut(service) else { return };
        let first = served.candidates.iter().find(|candidate| serving.contains(&candidate.node));
        if let Some(first) = first.filter(|_| !served.candidates.iter().any(is_known)) {
            served.chosen = Some(first.node);
        }
    }

    /// Bytes that were received from a node and sent to it, in all.
    pub fn handle_counters(&mut self, node: NodeId, received: u64, sent: u64, now: Now) {
        if let Some(pulse) = self.nodes.get_mut(&node) {
            pulse.handle_counters((received, sent), now);
        }
    }

    /// The answer to a probe.
    pub fn handle_answer(&mut self, probe: Probe, answer: Answer, now: Now) {
        let Some(pulse) = self.nodes.get_mut(&probe.node) else { return };
        let before = pulse.health;
        if !pulse.handle_answer(probe.id, answer, now) {
            return;
        }
        let Health { v4, v6, .. } = pulse.health;
        self.changed |= (before.v4, before.v6) != (v4, v6);
        self.choose();
        self.compare(probe.node);
    }

    /// The way to the Internet changed: what was known of everyone may be so no more.
    pub fn handle_moved(&mut self) {
        self.nodes.values_mut().for_each(Pulse::doubt);
    }

    /// The probes that are due.
    pub fn poll(&mut self, now: Now) -> Vec<Probe> {
        self.nodes.values_mut().for_each(|pulse| pulse.poll_death(now));
        self.choose();
        let mut probes = Vec::new();
        // One that is asked again puts others in doubt.
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

    /// When [`Self::poll`] has something to say next.
    pub fn poll_timeout(&self) -> Option<(Now, &'static str)> {
        self.dues().into_iter().map(|(_, at)| at).min().map(|at| (at, "probe a gateway"))
    }

    /// What is served by someone else since this was last asked. `None` when nothing is, and nobody leads anywhere else
    /// either.
    pub fn take_news(&mut self) -> Option<Vec<Service>> {
        let is_news = std::mem::take(&mut self.changed) || !self.moved.is_empty();
        is_news.then(|| std::mem::take(&mut self.moved))
    }

    /// Whether there is nothing to choose.
    pub fn is_idle(&self) -> bool {
        self.services.is_empty()
    }

    /// What is served.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.keys()
    }

    /// Who serves each prefix.
    pub fn serving(&self) -> impl Iterator<Item = (Prefix, NodeId)> {
        self.services.iter().filter_map(|(service, served)| match service {
            Service::Prefix(prefix) => Some((*prefix, served.chosen?)),
            Service::Scope(_) => None,
        })
    }

    /// Who serves now; `None` when nobody works.
    pub fn choice(&self, service: &Service) -> Option<NodeId> {
        self.services.get(service)?.chosen
    }

    /// Whether a node works, as far as is known; `None` of one that serves nothing that is wanted.
    pub fn health(&self, node: NodeId) -> Option<Health> {
        self.nodes.get(&node).map(|pulse| pulse.health)
    }

    /// Those that would go before the one in use, or all where there is none, and why they don't serve.
    pub fn troubles(&self, service: &Service) -> Vec<(NodeId, Trouble)> {
        let Some(served) = self.services.get(service) else { return Vec::new() };
        let before = served.candidates.iter().take_while(|candidate| Some(candidate.node) != served.chosen);
        before.filter_map(|candidate| Some((candidate.node, self.trouble(candidate.node)?))).gather()
    }

    fn trouble(&self, node: NodeId) -> Option<Trouble> {
        let pulse = self.nodes.get(&node)?;
        match (pulse.health.alive, pulse.recovers) {
            (false, Some(since)) => Some(Trouble::Recovers(since)),
            (false, None) => Some(Trouble::Silent(pulse.heard)),
            (true, _) => (pulse.health.v4 == Some(false)).then_some(Trouble::NoUplink),
        }
    }

    fn probe(&mut self, node: NodeId, now: Now) -> Option<Probe> {
        self.probes = self.probes.wrapping_add(1);
        let id = self.probes;
        self.nodes.get_mut(&node)?.handle_probe(id, now);
        Some(Probe { node, id })
    }

    /// When each node is to be probed next.
    fn dues(&self) -> Vec<(NodeId, Now)> {
        let (mut doubted, mut sought) = (SortedSet::new(), SortedSet::new());
        for served in self.services.values() {
            let nodes = || served.candidates.iter().map(|candidate| candidate.node);
            let chosen = served.chosen.and_then(|node| self.nodes.get(&node));
            if chosen.is_some_and(Pulse::is_in_doubt) {
                doubted.extend(nodes());
            }
            if chosen.is_none_or(|pulse| !pulse.health.alive) {
                sought.extend(nodes());
            }
        }
        let many = (self.nodes.len() as u32).div_ceil(MANY);
        let due = |(node, pulse): (&NodeId, &Pulse)| {
            let rest = if sought.contains(node) { SEARCH } else { REST };
            (*node, pulse.due(doubted.contains(node), rest * many))
        };
        self.nodes.iter().map(due).gather()
    }

    /// Chooses anew where the one in use works no more or another goes before it.
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

    /// A node's distance was measured: whether it takes the place of an equal that is farther.
    fn compare(&mut self, node: NodeId) {
        for (service, served) in &mut self.services {
            let place = |node| {
                let candidate = served.candidates.iter().find(|candidate| candidate.node == node);
                candidate.and_then(|candidate| place(service, candidate, &self.nodes))
            };
            let Some(chosen) = served.chosen.filter(|chosen| *chosen != node) else { continue };
            let rtt = |node| self.nodes.get(&node).and_then(|pulse: &Pulse| pulse.health.rtt_ms);
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

fn is_alive(nodes: &SortedMap<NodeId, Pulse>, node: NodeId) -> bool {
    nodes.get(&node).is_some_and(|pulse| pulse.health.alive)
}

/// Where a candidate stands in line: those that say that they lead nowhere come last. `None` when it does not work.
fn place(service: &Service, candidate: &Candidate, nodes: &SortedMap<NodeId, Pulse>) -> Option<u64> {
    let health = nodes.get(&candidate.node).map(|pulse| pulse.health).filter(|health| health.alive)?;
    let leads_nowhere = matches!(service, Service::Scope(_)) && health.v4 == Some(false);
    let works = !leads_nowhere || health.v6 == Some(true);
    works.then_some(u64::from(leads_nowhere) << 32 | u64::from(candidate.rank))
}

fn choose(service: &Service, served: &Served, nodes: &SortedMap<NodeId, Pulse>) -> Option<NodeId> {
    let is_chosen = |candidate: &&Candidate| Some(candidate.node) == served.chosen;
    let now = served.candidates.iter().find(is_chosen).and_then(|candidate| place(service, candidate, nodes));
    // Who was never heard of displaces nobody.
    let line = served.candidates.iter().filter_map(|candidate| {
        let (place, pulse) = (place(service, candidate, nodes)?, nodes.get(&candidate.node)?);
        let rtt = pulse.health.rtt_ms.unwrap_or(u32::MAX);
        Some((!pulse.is_known(), place, rtt, candidate.node))
    });
    match (line.min(), now, service) {
        (Some((is_unknown, first, _, _)), Some(now), _) if is_unknown || first >= now => served.chosen,
        (Some((_, _, _, first)), _, _) => Some(first),
        // Nobody works: a prefix stays where it was, which is as good as anywhere.
        (None, _, Service::Prefix(_)) if served.candidates.iter().any(|one| is_chosen(&one)) => served.chosen,
        (None, _, Service::Prefix(_)) => served.candidates.first().map(|candidate| candidate.node),
        (None, _, Service::Scope(_)) => None,
    }
}

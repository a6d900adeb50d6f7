//! Which of several nodes serves: a prefix that more than one of them has, a scope's Internet traffic. Of those that
//! work the one that goes first by its rank; among equals the nearest, with hysteresis. Pure: what probes found comes in,
//! which probes are due comes out.

use super::Now;
use crate::sorted::SortedMap;
use gatewrt_protocol::{NodeId, Prefix, Tag};

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// A prefix that several nodes have.
    Prefix(Prefix),
    /// The Internet traffic of a scope.
    Scope(Tag),
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

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Gateways {
    services: SortedMap<Service, Vec<Candidate>>,
}

impl Gateways {
    /// These are to be served, each by one of these, from now on. What was chosen stays chosen while it can.
    pub fn handle_wanted(&mut self, wanted: SortedMap<Service, Vec<Candidate>>, _now: Now) {
        self.services = wanted;
    }

    /// Who serves now; `None` when nobody works.
    pub fn choice(&self, service: &Service) -> Option<NodeId> {
        self.services.get(service)?.iter().min().map(|candidate| candidate.node)
    }

    /// Whether a node works, as far as is known; `None` of one that serves nothing that is wanted.
    pub fn health(&self, node: NodeId) -> Option<Health> {
        let mut all = self.services.values().flatten();
        all.any(|candidate| candidate.node == node).then_some(Health { alive: true, ..Health::default() })
    }
}

//! Connection of [`Gateways`](super::gateways::Gateways) to the rest of the core: candidates from the records, counters
//! from the observation, probes to the driver, and replies to the probes of other nodes.

use super::{
    Core, Network, Now, Output,
    gateways::{Candidate, Probe, Service},
    health::Answer,
    scopes,
    uplinks::has_internet,
};
use crate::{
    config::Config,
    model::{Family, IfName, Observed, WgDevice},
};
use gatewrt_protocol::{Member, NetworkName, NodeId, Prefix, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::IpAddr;

/// Target of a health probe through a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Interface by which it leaves.
    pub link: IfName,
    /// Source: an overlay address of this router.
    pub from: IpAddr,
    /// Destination: an overlay address of the node.
    pub to: IpAddr,
}

/// Reply of a router to a health probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeReply {
    /// The router has an uplink to the IPv4 Internet.
    pub v4: bool,
    /// The router has an uplink to the IPv6 Internet.
    pub v6: bool,
    /// The router's control link is up.
    pub control: bool,
}

impl Core {
    /// Feeds an observation of the kernel to the gateways of all networks.
    pub(super) fn feed_gateways(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let services = services(&self.config, name, network);
            network.gateways.handle_services(services, now);
            for member in network.directory.peers() {
                let Some((_, device)) = device_of(&self.observed, &member.key) else { continue };
                if let Some(counters) = device.counters.get(&member.key) {
                    network.gateways.handle_counters(member.node, counters.rx, counters.tx, now);
                }
            }
            if !network.adopted && self.observed.devices.contains_key(&IfName::from(name)) {
                network.adopted = true;
                adopt(network, &self.observed);
            }
        }
        self.listen();
    }

    /// True if a network chooses among nodes, so that WireGuard counters are to be observed often.
    pub(super) fn has_gateways(&self) -> bool {
        self.active_networks().values().any(|network| !network.gateways.is_idle())
    }

    pub(super) fn handle_probed(&mut self, name: &NetworkName, probe: Probe, answer: Answer, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.gateways.handle_answer(probe, answer, now);
        }
    }

    pub(super) fn poll_gateways(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        for probe in network.gateways.poll(now) {
            if let Some(target) = probe_target(network, probe.node, &self.observed) {
                self.outputs.push(Output::Probe(name.clone(), probe, target));
            }
        }
        let changes = network.gateways.take_changes();
        for service in changes.iter().flatten() {
            let node = network.gateways.choice(service);
            let member = network.directory.peers().find(|member| Some(member.node) == node);
            match member {
                Some(member) => log::info!("{name}: {service} goes through {}", member.name),
                None => log::warn!("{name}: {service} goes through nobody: none that could serve works"),
            }
        }
        if changes.is_some() {
            self.backoff.reset();
            self.schedule.request_by(now);
        }
    }

    /// Reply to a probe from `from` to this router's address `to`, and the signed policy of the network there; none to a
    /// stranger, nor before the first observation.
    pub fn probe_reply(&self, to: IpAddr, from: IpAddr) -> Option<(ProbeReply, &str)> {
        let (_, network) =
            self.active_networks().into_iter().find(|(_, network)| answers(network).contains(&to))?;
        let is_member = network.directory.peers().any(|member| member.addresses.contains(&from));
        let leads = |family| has_internet(&self.observed, family);
        let control = network.session.is_connected();
        let reply = ProbeReply { v4: leads(Family::V4), v6: leads(Family::V6), control };
        (is_member && self.has_observed).then_some((reply, network.directory.policy_token()))
    }

    /// Tells the driver at which addresses to answer probes.
    fn listen(&mut self) {
        let mut listening = SortedSet::new();
        self.active_networks()
            .values()
            .for_each(|network| listening.extend(answers(network).iter().copied()));
        if listening != self.listening {
            self.outputs.push(Output::Listen(listening.clone()));
            self.listening = listening;
        }
    }
}

/// Addresses in a network at which this node is probed: its own.
fn answers(network: &Network) -> &[IpAddr] {
    network.directory.assignment().map(|own| own.addresses.as_slice()).unwrap_or_default()
}

/// Services of a network and their candidates: prefixes that several nodes serve and this one does not, and scopes.
fn services(config: &Config, name: &NetworkName, network: &Network) -> LiteMap<Service, Vec<Candidate>> {
    let mut all: LiteMap<Service, Vec<Candidate>> = LiteMap::new();
    let is_own = |prefix: &Prefix| {
        let own = network.directory.assignment();
        own.is_some_and(|own| own.egress.iter().any(|egress| egress.prefix == *prefix))
    };
    for member in network.directory.peers() {
        for served in member.prefixes.iter().filter(|served| !is_own(&served.prefix)) {
            let candidate = Candidate { rank: served.metric, node: member.node };
            all.entry(Service::Prefix(served.prefix)).or_default().push(candidate);
        }
    }
    all.retain(|_, candidates| candidates.len() > 1);
    for scope in scopes::asked(config, name, network, &mut Vec::new()) {
        let mut exits = scope.exits;
        let named = exits.len() as u32;
        let offers = network.directory.peers().filter(|member| scope.auto && member.exit.is_some());
        let others: Vec<NodeId> =
            offers.map(|member| member.node).filter(|node| !exits.contains(node)).collect();
        exits.extend(others);
        let candidate = |(at, node)| Candidate { rank: named.min(at as u32), node };
        let candidates = exits.into_iter().enumerate().map(candidate).collect();
        all.insert(Service::Scope(scope.name), candidates);
    }
    all
}

/// Adopts the nodes that provide services since before this daemon's start: those whose allowed IPs have the prefix.
fn adopt(network: &mut Network, observed: &Observed) {
    let holders = |wanted: &dyn Fn(&Prefix) -> bool| -> Vec<NodeId> {
        let holds = |member: &&Member| {
            let peer = device_of(observed, &member.key).and_then(|(_, device)| device.peers.get(&member.key));
            peer.is_some_and(|peer| peer.allowed.iter().any(wanted))
        };
        network.directory.peers().filter(holds).map(|member| member.node).collect()
    };
    let services: Vec<Service> = network.gateways.services().cloned().collect();
    for service in services {
        let found = match &service {
            Service::Prefix(prefix) => holders(&|allowed| allowed == prefix),
            Service::Scope(_) => holders(&Prefix::is_default),
        };
        network.gateways.handle_found(&service, &found);
    }
}

/// WireGuard interface that has a peer of this key, with its device.
pub(super) fn device_of<'a>(observed: &'a Observed, key: &WgPublicKey) -> Option<(&'a IfName, &'a WgDevice)> {
    observed.devices.iter().find(|(_, device)| device.peers.contains_key(key))
}

pub(super) fn probe_target(network: &Network, node: NodeId, observed: &Observed) -> Option<ProbeTarget> {
    let member = network.directory.peers().find(|member| member.node == node)?;
    let to = *member.addresses.first()?;
    let own = network.directory.assignment()?.addresses.iter();
    let from = *own.clone().find(|own| own.is_ipv4() == to.is_ipv4())?;
    let (link, _) = device_of(observed, &member.key)?;
    Some(ProbeTarget { link: link.clone(), from, to })
}

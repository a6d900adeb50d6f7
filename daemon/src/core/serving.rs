//! [`Gateways`](super::gateways::Gateways) and what is around them: who could serve what is read off the records, what
//! goes to and fro off the kernel; probes go out by way of the driver; and what others ask of this router by theirs is
//! answered.

use super::{
    Core, Network, Now, Output,
    gateways::{Answer, Candidate, Probe, Service},
    offer, scopes,
};
use crate::{
    config::Config,
    gather::Gather,
    log,
    model::{Family, IfName, Observed, WgDevice},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Member, NetworkName, NodeId, Prefix, WgPublicKey};
use std::net::IpAddr;

/// Where a probe goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// Out over this interface.
    pub link: IfName,
    /// From this overlay address.
    pub from: IpAddr,
    /// To this one.
    pub to: IpAddr,
}

/// What a router says of itself to those that probe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Says {
    /// It has a way to the IPv4 Internet.
    pub v4: bool,
    /// The same for IPv6.
    pub v6: bool,
    /// Its control link delivers.
    pub control: bool,
}

impl Core {
    /// The kernel was looked at.
    pub(super) fn feed_gateways(&mut self, now: Now) {
        for (name, network) in &mut self.networks {
            let wanted = services(&self.config, name, network);
            network.gateways.handle_wanted(wanted, now);
            for member in network.directory.peers() {
                let Some((_, device)) = device_of(&self.observed, &member.key) else { continue };
                if let Some(counters) = device.counters.get(&member.key) {
                    network.gateways.handle_counters(member.node, counters.rx, counters.tx, now);
                }
            }
            if !network.found && self.observed.devices.contains_key(&IfName::from(name)) {
                network.found = true;
                found(network, &self.observed);
            }
        }
        self.listen();
    }

    /// Whether anyone's counters are to be looked at often.
    pub(super) fn has_gateways(&self) -> bool {
        self.wanted().values().any(|network| !network.gateways.is_idle())
    }

    pub(super) fn handle_probed(&mut self, name: &NetworkName, probe: Probe, answer: Answer, now: Now) {
        if let Some(network) = self.networks.get_mut(name) {
            network.gateways.handle_answer(probe, answer, now);
        }
    }

    pub(super) fn poll_gateways(&mut self, name: &NetworkName, now: Now) {
        let Some(network) = self.networks.get_mut(name) else { return };
        for probe in network.gateways.poll(now) {
            if let Some(aim) = aim(network, probe.node, &self.observed) {
                self.outputs.push(Output::Probe(name.clone(), probe, aim));
            }
        }
        let news = network.gateways.take_news();
        for service in news.iter().flatten() {
            let node = network.gateways.choice(service);
            let member = network.directory.peers().find(|member| Some(member.node) == node);
            match member {
                Some(member) => log::info!("{name}: {service} goes through {}", member.name),
                None => log::warn!("{name}: {service} goes through nobody: none that could serve works"),
            }
        }
        if news.is_some() {
            self.rhythm.tries.forget();
            self.look_by(now);
        }
    }

    /// What `from` is told that probes one of this router's addresses; nothing to a stranger, nor before the kernel was
    /// looked at.
    pub fn says(&self, to: IpAddr, from: IpAddr) -> Option<Says> {
        let (_, network) = self.wanted().into_iter().find(|(_, network)| answers(network).contains(&to))?;
        let is_member = network.directory.peers().any(|member| member.addresses.contains(&from));
        let leads = |family| offer::leads(&self.observed, family);
        let control = network.session.is_connected();
        let says = Says { v4: leads(Family::V4), v6: leads(Family::V6), control };
        (is_member && self.has_observed).then_some(says)
    }

    fn listen(&mut self) {
        let mut listening = SortedSet::new();
        self.wanted().values().for_each(|network| listening.extend(answers(network).iter().copied()));
        if listening != self.listening {
            self.outputs.push(Output::Listen(listening.clone()));
            self.listening = listening;
        }
    }
}

/// The addresses at which a node is probed that serves something.
fn answers(network: &Network) -> &[IpAddr] {
    let serves = network.directory.assignment().filter(|own| own.exit.is_some() || !own.egress.is_empty());
    serves.map(|own| own.addresses.as_slice()).unwrap_or_default()
}

/// What is served in a network by one of several nodes: prefixes that are not served here too, and scopes.
fn services(config: &Config, name: &NetworkName, network: &Network) -> SortedMap<Service, Vec<Candidate>> {
    let mut all: SortedMap<Service, Vec<Candidate>> = SortedMap::new();
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
            offers.map(|member| member.node).filter(|node| !exits.contains(node)).gather();
        exits.extend(others);
        let candidate = |(at, node)| Candidate { rank: named.min(at as u32), node };
        let candidates = exits.into_iter().enumerate().map(candidate).gather();
        all.insert(Service::Scope(scope.name), candidates);
    }
    all
}

/// Who serves in the kernel since before this daemon's start: whose allowed IPs have it.
fn found(network: &mut Network, observed: &Observed) {
    let holders = |wanted: &dyn Fn(&Prefix) -> bool| -> Vec<NodeId> {
        let holds = |member: &&Member| {
            let peer = device_of(observed, &member.key).and_then(|(_, device)| device.peers.get(&member.key));
            peer.is_some_and(|peer| peer.allowed.iter().any(wanted))
        };
        network.directory.peers().filter(holds).map(|member| member.node).gather()
    };
    let services: Vec<Service> = network.gateways.services().cloned().gather();
    for service in services {
        let found = match &service {
            Service::Prefix(prefix) => holders(&|allowed| allowed == prefix),
            Service::Scope(_) => holders(&Prefix::is_default),
        };
        network.gateways.handle_found(&service, &found);
    }
}

/// The interface on which a peer is.
pub(super) fn device_of<'a>(observed: &'a Observed, key: &WgPublicKey) -> Option<(&'a IfName, &'a WgDevice)> {
    observed.devices.iter().find(|(_, device)| device.peers.contains_key(key))
}

fn aim(network: &Network, node: NodeId, observed: &Observed) -> Option<Aim> {
    let member = network.directory.peers().find(|member| member.node == node)?;
    let to = *member.addresses.first()?;
    let own = network.directory.assignment()?.addresses.iter();
    let from = *own.clone().find(|own| own.is_ipv4() == to.is_ipv4())?;
    let (link, _) = device_of(observed, &member.key)?;
    Some(Aim { link: link.clone(), from, to })
}

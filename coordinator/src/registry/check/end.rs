//! One end of a question: whose addresses it is about, and whether they are there to be used.

use super::outside::Sender;
use crate::{
    registry::{Client, ClientState, Node, Registry, Scope, Selector, Tunnel},
    space::Addresses,
};
use gatewrt_protocol::{NetworkId, Prefix};
use std::collections::BTreeSet;

/// Parts that are told of one by one.
const TOLD: usize = 6;

/// See the module.
pub(super) struct End<'a> {
    registry: &'a Registry,
    net: NetworkId,
    pub(super) selector: Selector,
    pub(super) text: String,
    parts: Vec<Part<'a>>,
    /// What it stands for, also what no one has.
    all: Addresses,
}

/// What one holder has of it.
struct Part<'a> {
    holder: Holder<'a>,
    addresses: Addresses,
}

enum Holder<'a> {
    /// A node's own addresses.
    Node(&'a Node),
    /// What a node serves.
    Site(&'a Node),
    /// A client's own addresses.
    Client(&'a Client),
    /// What is behind a client.
    Behind(&'a Client),
}

impl<'a> End<'a> {
    pub(super) fn new(registry: &'a Registry, scope: &Scope<'a>, selector: Selector) -> Self {
        let all = scope.addresses([&selector]);
        let held = |holder, addresses: Addresses| Part { holder, addresses: addresses.intersection(&all) };
        let nodes = registry.live_nodes(scope.network()).flat_map(|node| {
            let served = node.egress.keys().copied().collect();
            [
                held(Holder::Node(node), node.addresses.iter().copied().collect()),
                held(Holder::Site(node), served),
            ]
        });
        let clients = registry.live_clients(scope.network()).flat_map(|client| {
            let behind = client.prefixes.iter().copied().collect();
            let own = client.addresses().iter().copied().collect();
            [held(Holder::Client(client), own), held(Holder::Behind(client), behind)]
        });
        let parts = nodes.chain(clients).filter(|part| !part.addresses.is_empty()).collect();
        Self { registry, net: scope.network(), text: registry.selector_text(&selector), selector, parts, all }
    }

    /// Whether it is no part of the network.
    pub(super) fn is_outside(&self) -> bool {
        self.all.is_empty()
    }

    /// Who it is.
    pub(super) fn steps(&self) -> impl Iterator<Item = String> {
        let told = self.parts.iter().take(TOLD).map(|part| self.describe(part));
        let more = self.parts.len().saturating_sub(TOLD);
        told.chain((more > 0).then(|| format!("{} has {more} more parts", self.text)))
    }

    fn describe(&self, part: &Part<'_>) -> String {
        let addresses = short(&part.addresses);
        let at = |client: &Client| {
            self.registry.name_of(client.gateway).map(ToString::to_string).unwrap_or_default()
        };
        match part.holder {
            Holder::Node(node) => format!("{addresses} is node {}", node.name),
            Holder::Site(node) => format!("{addresses} is served by node {}", node.name),
            Holder::Client(client) => {
                format!("{addresses} is client {}, at node {}", client.name, at(client))
            }
            Holder::Behind(client) => {
                format!("{addresses} is behind client {}, at node {}", client.name, at(client))
            }
        }
    }

    /// What keeps parts of it from opening connections, or from having any opened to them; or that it has no part.
    pub(super) fn barred(&self, now: u64, as_target: bool) -> impl Iterator<Item = String> {
        let nothing = match self.selector {
            _ if !self.parts.is_empty() => None,
            _ if self.all.is_empty() => Some(format!("{} stands for nothing now", self.text)),
            _ => Some(format!("{}: no node and no client has such an address now", self.text)),
        };
        let reasons = self.parts.iter().filter_map(move |part| self.bar(part, now, as_target));
        // A client that is not let in is told of once, also where something is behind it.
        nothing.into_iter().chain(reasons.collect::<BTreeSet<_>>())
    }

    fn bar(&self, part: &Part<'_>, now: u64, as_target: bool) -> Option<String> {
        let (Holder::Client(client) | Holder::Behind(client)) = part.holder else { return None };
        let own = matches!(part.holder, Holder::Client(_));
        let why = match self.registry.client_state(client, now) {
            ClientState::Disabled => "is disabled",
            ClientState::Expired => "has expired",
            ClientState::NoGateway => "has no gateway: the node of its file lets no clients in",
            ClientState::Enabled if as_target && own && !client.reachable => {
                "is not reachable: it opens connections, and no one opens any to it"
            }
            ClientState::Enabled => return None,
        };
        Some(format!("client {} {why}", client.name))
    }

    /// The addresses that nothing bars.
    pub(super) fn usable(&self, now: u64, as_target: bool) -> Addresses {
        let usable = self.parts.iter().filter(|part| self.bar(part, now, as_target).is_none());
        Addresses::default().joined(usable.map(|part| &part.addresses))
    }

    /// Where both are, if what goes between them never enters the network.
    pub(super) fn shares_place_with(&self, other: &Self) -> Option<String> {
        let parts = || self.parts.iter().chain(&other.parts);
        let first = self.place(parts().next()?);
        parts().all(|part| self.place(part) == first).then_some(first)
    }

    /// Where several nodes serve the same, that is one place.
    fn place(&self, part: &Part<'_>) -> String {
        match part.holder {
            Holder::Node(node) => format!("node {}", node.name),
            Holder::Site(node) => {
                let serves = |other: &&Node| {
                    other.egress.keys().copied().collect::<Addresses>().covers(&part.addresses)
                };
                let first = self.registry.live_nodes(node.net).find(serves).unwrap_or(node);
                format!("node {}", first.name)
            }
            Holder::Client(client) | Holder::Behind(client) => format!("client {}", client.name),
        }
    }

    /// Whose Internet traffic it is about, if only of routers and of hosts at them, also of LANs that are not served.
    pub(super) fn senders(&self) -> Vec<Sender<'a>> {
        let Selector::Prefix(prefix) = self.selector else { return self.held_senders() };
        if !self.parts.is_empty() {
            return self.held_senders();
        }
        let at = |node: &&Node| node.facts.lans().any(|(_, lan)| lan.covers(&prefix));
        let nodes = self.registry.live_nodes(self.net).filter(at);
        nodes.map(|node| Sender { node, hosts: Some(prefix) }).collect()
    }

    fn held_senders(&self) -> Vec<Sender<'a>> {
        let mut senders = Vec::new();
        for part in &self.parts {
            match part.holder {
                Holder::Node(node) => senders.push(Sender { node, hosts: None }),
                Holder::Site(node) => {
                    let hosts = part.addresses.prefixes().into_iter();
                    senders.extend(hosts.map(|hosts| Sender { node, hosts: Some(hosts) }));
                }
                Holder::Client(_) | Holder::Behind(_) => return Vec::new(),
            }
        }
        senders
    }

    /// The clients it is, if it is nothing else and the tunnel of each is full.
    pub(super) fn full_tunnels(&self) -> Option<String> {
        let full = |part: &Part<'_>| match part.holder {
            Holder::Client(client) if client.tunnel == Tunnel::Full => {
                Some(format!("client {}", client.name))
            }
            Holder::Behind(client) if client.tunnel == Tunnel::Full => Some(String::new()),
            _ => None,
        };
        let clients: Vec<_> = self.parts.iter().map(full).collect::<Option<_>>()?;
        let clients: Vec<_> = clients.into_iter().filter(|text| !text.is_empty()).collect();
        (!clients.is_empty()).then(|| clients.join(", "))
    }
}

/// The first few, hosts without a length.
fn short(addresses: &Addresses) -> String {
    let prefixes = addresses.prefixes();
    let text = |prefix: &Prefix| Selector::Prefix(*prefix).to_string();
    let more = if prefixes.len() > TOLD { ", …" } else { "" };
    format!("{}{more}", prefixes.iter().take(TOLD).map(text).collect::<Vec<_>>().join(", "))
}

//! One end of a check: the nodes and clients that its addresses belong to, and if they can be used.

use super::outside::Sender;
use crate::{
    registry::{Client, ClientState, Node, Registry, Selector, SelectorContext, Tunnel},
    sets::AddressSet,
};
use gatewrt_protocol::{NetworkId, Prefix};
use std::collections::BTreeSet;

/// Largest number of parts of an end that are listed one by one.
const MAX_LISTED: usize = 6;

/// One end of an access check: the addresses that its selector covers, by holder. See the module.
pub(super) struct End<'a> {
    registry: &'a Registry,
    net: NetworkId,
    pub(super) selector: Selector,
    pub(super) text: String,
    parts: Vec<Part<'a>>,
    /// All addresses that the selector covers, also unassigned ones.
    all: AddressSet,
}

/// Part of an end of an access check: the addresses that one node, site or client holds.
struct Part<'a> {
    holder: Holder<'a>,
    addresses: AddressSet,
}

enum Holder<'a> {
    /// Overlay addresses of a node.
    Node(&'a Node),
    /// Prefixes that a node serves.
    Site(&'a Node),
    /// Overlay addresses of a client.
    Client(&'a Client),
    /// Prefixes behind a client.
    Behind(&'a Client),
}

impl<'a> End<'a> {
    pub(super) fn new(registry: &'a Registry, context: &SelectorContext<'a>, selector: Selector) -> Self {
        let all = context.addresses([&selector]);
        let held = |holder, addresses: AddressSet| Part { holder, addresses: addresses.intersection(&all) };
        let nodes = registry.live_nodes(context.network()).flat_map(|node| {
            let served = node.egress.keys().copied().collect();
            [
                held(Holder::Node(node), node.addresses.iter().copied().collect()),
                held(Holder::Site(node), served),
            ]
        });
        let clients = registry.live_clients(context.network()).flat_map(|client| {
            let behind = client.prefixes.iter().copied().collect();
            let own = client.addresses().iter().copied().collect();
            [held(Holder::Client(client), own), held(Holder::Behind(client), behind)]
        });
        let parts = nodes.chain(clients).filter(|part| !part.addresses.is_empty()).collect();
        Self {
            registry,
            net: context.network(),
            text: registry.selector_text(&selector),
            selector,
            parts,
            all,
        }
    }

    /// True if no address of the end is part of the network.
    pub(super) fn is_outside(&self) -> bool {
        self.all.is_empty()
    }

    /// Descriptions of the end's parts, for the steps of the answer.
    pub(super) fn steps(&self) -> impl Iterator<Item = String> {
        let listed = self.parts.iter().take(MAX_LISTED).map(|part| self.describe(part));
        let more = self.parts.len().saturating_sub(MAX_LISTED);
        listed.chain((more > 0).then(|| format!("{} has {more} more parts", self.text)))
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

    /// Reasons why parts of the end can't open connections, or can't have any opened to them; or that there is no part.
    pub(super) fn obstacles(&self, now: u64, as_target: bool) -> impl Iterator<Item = String> {
        let nothing = match self.selector {
            _ if !self.parts.is_empty() => None,
            _ if self.all.is_empty() => Some(format!("{} matches nothing now", self.text)),
            _ => Some(format!("{}: no node and no client has such an address now", self.text)),
        };
        let reasons = self.parts.iter().filter_map(move |part| self.obstacle(part, now, as_target));
        // A set: a client that is not let in is reported once, also if there are prefixes behind it.
        nothing.into_iter().chain(reasons.collect::<BTreeSet<_>>())
    }

    fn obstacle(&self, part: &Part<'_>, now: u64, as_target: bool) -> Option<String> {
        let (Holder::Client(client) | Holder::Behind(client)) = part.holder else { return None };
        let own = matches!(part.holder, Holder::Client(_));
        let why = match self.registry.client_state(client, now) {
            ClientState::Disabled => "is disabled",
            ClientState::Expired => "has expired",
            ClientState::NoGateway => "has no gateway: the node of its file lets no clients in",
            ClientState::Enabled if as_target && own && !client.reachable => {
                "is not reachable: it opens connections, and nobody can open any to it"
            }
            ClientState::Enabled => return None,
        };
        Some(format!("client {} {why}", client.name))
    }

    /// Addresses of the end's parts that are without an obstacle.
    pub(super) fn usable(&self, now: u64, as_target: bool) -> AddressSet {
        let usable = self.parts.iter().filter(|part| self.obstacle(part, now, as_target).is_none());
        AddressSet::default().joined(usable.map(|part| &part.addresses))
    }

    /// Common location of both ends, if traffic between them never enters the network.
    pub(super) fn shared_location(&self, other: &Self) -> Option<String> {
        let parts = || self.parts.iter().chain(&other.parts);
        let first = self.location(parts().next()?);
        parts().all(|part| self.location(part) == first).then_some(first)
    }

    /// Location of a part of an end, as text. Several nodes that serve the same prefix count as one location.
    fn location(&self, part: &Part<'_>) -> String {
        match part.holder {
            Holder::Node(node) => format!("node {}", node.name),
            Holder::Site(node) => {
                let serves = |other: &&Node| {
                    other.egress.keys().copied().collect::<AddressSet>().covers(&part.addresses)
                };
                let first = self.registry.live_nodes(node.net).find(serves).unwrap_or(node);
                format!("node {}", first.name)
            }
            Holder::Client(client) | Holder::Behind(client) => format!("client {}", client.name),
        }
    }

    /// Senders of Internet traffic that the end covers: routers and hosts in their LANs, also in LANs that are not
    /// served. Empty if the end covers anything else.
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

    /// Names of the end's clients, if it covers only clients with a full tunnel.
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

/// Text of the first few prefixes of a set of addresses; hosts are written without a length.
fn short(addresses: &AddressSet) -> String {
    let prefixes = addresses.prefixes();
    let text = |prefix: &Prefix| Selector::Prefix(*prefix).to_string();
    let more = if prefixes.len() > MAX_LISTED { ", …" } else { "" };
    format!("{}{more}", prefixes.iter().take(MAX_LISTED).map(text).collect::<Vec<_>>().join(", "))
}

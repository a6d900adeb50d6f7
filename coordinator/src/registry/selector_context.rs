//! Resolution of selectors: names of a network → addresses.

use super::{Client, Registry, Selector};
use crate::sets::AddressSet;
use gatewrt_protocol::{GroupName, NetworkId, Prefix, Tag};
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of a network by tag and in all, computed once to resolve many selectors.
pub struct SelectorContext<'a> {
    registry: &'a Registry,
    net: NetworkId,
    all: AddressSet,
    tags: BTreeMap<&'a Tag, Vec<Prefix>>,
}

impl<'a> SelectorContext<'a> {
    /// Computes the context of a network as it is now.
    pub fn new(registry: &'a Registry, net: NetworkId) -> Self {
        let overlay = registry.network(net).into_iter().flat_map(|network| network.prefixes());
        let served = registry.live_nodes(net).flat_map(|node| node.egress.keys().copied());
        let behind = registry.live_clients(net).flat_map(|client| client.prefixes.iter().copied());
        let all = overlay.chain(served).chain(behind).collect();
        Self { registry, net, all, tags: tags(registry, net) }
    }

    /// Id of the context's network.
    pub fn network(&self) -> NetworkId {
        self.net
    }

    /// All addresses of the context's network.
    pub fn all(&self) -> &AddressSet {
        &self.all
    }

    /// Addresses of the network that any of the selectors matches.
    pub fn addresses<'s>(&self, selectors: impl IntoIterator<Item = &'s Selector>) -> AddressSet {
        let mut found = Found::default();
        selectors.into_iter().for_each(|selector| self.add(selector, &mut found));
        let prefixes: AddressSet = found.prefixes.into_iter().collect();
        if found.all { self.all.union(&prefixes) } else { prefixes }
    }

    fn add(&self, selector: &Selector, found: &mut Found) {
        let node = |id| self.registry.live_node(id).filter(|node| node.net == self.net);
        match selector {
            Selector::All => found.all = true,
            Selector::Tag(tag) => found.prefixes.extend(self.tags.get(tag).into_iter().flatten()),
            Selector::Node(id) => {
                let addresses = node(*id).into_iter().flat_map(|node| node.addresses.iter().copied());
                found.prefixes.extend(addresses.map(Prefix::host));
            }
            Selector::Site(id) => {
                found.prefixes.extend(node(*id).into_iter().flat_map(|node| node.egress.keys()));
            }
            Selector::Client(id) => {
                let live = |client: &&Client| client.is_live() && client.net == self.net;
                found.prefixes.extend(self.registry.client(*id).filter(live).into_iter().flat_map(of_client));
            }
            Selector::Group(name) => self.add_group(name, found),
            Selector::Prefix(prefix) => {
                let inside = self.all.intersection(&[*prefix].into_iter().collect());
                found.prefixes.extend(inside.prefixes());
            }
        }
    }

    fn add_group(&self, name: &GroupName, found: &mut Found) {
        // Each group is visited once, so that groups that contain each other end too.
        if found.groups.insert(name.clone()) {
            let group = self.registry.group(self.net, name);
            group.into_iter().flat_map(|group| &group.members).for_each(|member| self.add(member, found));
        }
    }
}

#[derive(Default)]
struct Found {
    all: bool,
    prefixes: Vec<Prefix>,
    groups: BTreeSet<GroupName>,
}

/// Addresses of a client on every node that it can be moved to, and the prefixes behind it. A disabled client
/// counts too: switching one off must not change the records of others.
pub fn of_client(client: &Client) -> impl Iterator<Item = Prefix> {
    let addresses = client.seats.values().flatten().copied().map(Prefix::host);
    addresses.chain(client.prefixes.iter().copied())
}

fn tags(registry: &Registry, net: NetworkId) -> BTreeMap<&Tag, Vec<Prefix>> {
    let mut tags: BTreeMap<&Tag, Vec<Prefix>> = BTreeMap::new();
    for node in registry.live_nodes(net) {
        for tag in &node.tags {
            tags.entry(tag).or_default().extend(node.addresses.iter().copied().map(Prefix::host));
        }
    }
    for client in registry.live_clients(net) {
        for tag in &client.tags {
            tags.entry(tag).or_default().extend(of_client(client));
        }
    }
    tags
}

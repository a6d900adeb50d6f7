//! Access rules for nodes: the rules of a network → the rules that each node enforces. Names become prefixes,
//! rules that do not concern a node are left out, and equal rules are merged.

mod former;
#[cfg(test)]
mod tests;

pub use former::Compared;

use crate::{
    registry::{Client, Network, Node, Registry, Row, Selector, SelectorContext, of_client},
    sets::{AddressSet, ServiceSet},
};
use gatewrt_protocol::{Access, AccessRule, NetworkId, NodeId, Prefix, Topic, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Access rules of networks, each computed when it is first needed.
#[derive(Default)]
pub(super) struct RulesCache(BTreeMap<NetworkId, Rules>);

impl RulesCache {
    /// Access rules that `node` enforces: those of its network, and those that it keeps to from before the coordinator was
    /// set back.
    pub(super) fn at(&mut self, registry: &Registry, node: &Node) -> Access {
        let access = self.of_network(registry, node);
        match registry.rules_kept_by(node.id) {
            Some(kept) => former::with_kept(access, kept),
            None => access,
        }
    }

    /// Difference between the access rules that a node has shown and those of its network.
    pub(super) fn compared(&mut self, registry: &Registry, node: &Node, told: &Access) -> Compared {
        former::compared(&self.of_network(registry, node), told)
    }

    fn of_network(&mut self, registry: &Registry, node: &Node) -> Access {
        self.0.entry(node.net).or_insert_with(|| Rules::of(registry, node.net)).at(node)
    }
}

/// Access rules of one network, with prefixes instead of names.
pub(super) struct Rules {
    default: Verdict,
    rules: Vec<PrefixRule>,
    /// Prefixes behind the clients of each gateway.
    behind: BTreeMap<NodeId, Vec<Prefix>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PrefixRule {
    verdict: Verdict,
    from: AddressSet,
    to: AddressSet,
    services: ServiceSet,
}

impl Rules {
    pub(super) fn of(registry: &Registry, net: NetworkId) -> Self {
        let default = registry.network(net).map(|network| network.access).unwrap_or_default();
        let context = SelectorContext::new(registry, net);
        let mut known = BTreeMap::new();
        let mut addresses = |selectors: &'_ [Selector]| -> AddressSet {
            known.entry(selectors.to_vec()).or_insert_with(|| context.addresses(selectors)).clone()
        };
        // If the default is to allow, rules that allow have no effect.
        let counts = |verdict| verdict == Verdict::Deny || default == Verdict::Deny;
        let rules = registry.rules(net).into_iter().filter(|rule| rule.enabled && counts(rule.verdict));
        let rules = rules.map(|rule| PrefixRule {
            verdict: rule.verdict,
            from: addresses(&rule.from),
            to: addresses(&rule.to),
            services: ServiceSet::of(&rule.services),
        });
        let rules = rules.filter(|rule| !rule.from.is_empty() && !rule.to.is_empty());
        Self { default, rules: rules.collect(), behind: behind(registry, net) }
    }

    /// Access rules that `node` enforces.
    pub(super) fn at(&self, node: &Node) -> Access {
        let own = self.own(node);
        let rules = self.rules.iter().filter_map(|rule| concerning(rule, &own)).flat_map(by_family);
        record(self.default, joined(rules.collect()))
    }

    /// Addresses on the node's side of the network: its own, those that it serves, and those of its clients.
    fn own(&self, node: &Node) -> AddressSet {
        let blocks = node.ingress.iter().flat_map(|ingress| ingress.blocks.iter().copied());
        let behind = self.behind.get(&node.id).into_iter().flatten().copied();
        let addresses = node.addresses.iter().copied().map(Prefix::host);
        addresses.chain(node.egress.keys().copied()).chain(blocks).chain(behind).collect()
    }
}

/// Form of access rules in a record: each set of prefixes once.
fn record(default: Verdict, rules: Vec<PrefixRule>) -> Access {
    let mut sets: Vec<_> = rules.iter().flat_map(|rule| [&rule.from, &rule.to]).collect();
    sets.sort_unstable();
    sets.dedup();
    let index = |set: &AddressSet| sets.partition_point(|other| *other < set) as u32;
    let rule = |rule: &PrefixRule| AccessRule {
        verdict: rule.verdict,
        from: index(&rule.from),
        to: index(&rule.to),
        services: rule.services.list(),
    };
    let rules = rules.iter().map(rule).collect();
    Access { default, sets: sets.iter().map(|set| set.prefixes()).collect(), rules }
}

fn behind(registry: &Registry, net: NetworkId) -> BTreeMap<NodeId, Vec<Prefix>> {
    let mut behind: BTreeMap<NodeId, Vec<Prefix>> = BTreeMap::new();
    for client in registry.live_clients(net) {
        behind.entry(client.gateway).or_default().extend(&client.prefixes);
    }
    behind
}

/// Part of a rule that concerns connections which can occur at a node with the addresses `own`.
fn concerning(rule: &PrefixRule, own: &AddressSet) -> Option<PrefixRule> {
    if !rule.from.meets(own) && !rule.to.meets(own) {
        return None;
    }
    let (from, to) = (rule.from.intersection(own), rule.to.intersection(own));
    match (from.is_empty(), to.is_empty()) {
        (true, true) => None,
        (false, true) => Some(PrefixRule { from, ..rule.clone() }),
        (true, false) => Some(PrefixRule { to, ..rule.clone() }),
        (false, false) => Some(rule.clone()),
    }
}

/// Rule without the addresses that have no counterpart of the same family on the other side.
fn by_family(rule: PrefixRule) -> Option<PrefixRule> {
    let [from4, from6] = rule.from.families();
    let [to4, to6] = rule.to.families();
    let (v4, v6) = (!from4.is_empty() && !to4.is_empty(), !from6.is_empty() && !to6.is_empty());
    match (v4, v6) {
        (true, true) => Some(rule),
        (true, false) => Some(PrefixRule { from: from4, to: to4, ..rule }),
        (false, true) => Some(PrefixRule { from: from6, to: to6, ..rule }),
        (false, false) => None,
    }
}

/// Joins access rules into fewer equivalent ones: rules that differ in one side or in the services only become one.
fn joined(rules: Vec<PrefixRule>) -> Vec<PrefixRule> {
    let rules = grouped(
        rules,
        |rule| (rule.verdict, rule.to.clone(), rule.services.clone()),
        |one, others| {
            one.from = one.from.joined(others.iter().map(|rule| &rule.from));
        },
    );
    let rules = grouped(
        rules,
        |rule| (rule.verdict, rule.from.clone(), rule.services.clone()),
        |one, others| {
            one.to = one.to.joined(others.iter().map(|rule| &rule.to));
        },
    );
    let mut rules = grouped(
        rules,
        |rule| (rule.verdict, rule.from.clone(), rule.to.clone()),
        |one, others| {
            one.services = others.iter().fold(one.services.clone(), |all, rule| all.union(&rule.services));
        },
    );
    rules.sort_unstable();
    rules
}

/// Joins all rules with the same `key` into one by `join`.
fn grouped<K: Ord>(
    rules: Vec<PrefixRule>,
    key: impl Fn(&PrefixRule) -> K,
    join: impl Fn(&mut PrefixRule, &[PrefixRule]),
) -> Vec<PrefixRule> {
    let mut groups: BTreeMap<K, Vec<PrefixRule>> = BTreeMap::new();
    for rule in rules {
        groups.entry(key(&rule)).or_default().push(rule);
    }
    let one = |mut group: Vec<PrefixRule>| {
        let mut one = group.pop()?;
        join(&mut one, &group);
        Some(one)
    };
    groups.into_values().filter_map(one).collect()
}

/// Topics of the assignments whose access rules may have changed with `rows`; `undo` are the rows that undo them.
pub(super) fn touched(registry: &Registry, rows: &[Row], undo: &[Row]) -> BTreeSet<Topic> {
    // The undo rows are in reverse order.
    let nets = rows.iter().zip(undo.iter().rev()).filter_map(|(row, before)| changed(registry, row, before));
    let nets: BTreeSet<_> = nets.collect();
    let nodes = nets.into_iter().flat_map(|net| registry.live_nodes(net));
    nodes.map(|node| Topic::Assignment(node.id)).collect()
}

/// Network whose access rules may have changed with a row, in place of the row `before`.
fn changed(registry: &Registry, row: &Row, before: &Row) -> Option<NetworkId> {
    match (row, before) {
        (Row::Rule(_, now), Row::Rule(_, then)) => now.as_ref().or(then.as_ref()).map(|rule| rule.net),
        (Row::Group(net, ..), _) => Some(*net),
        (Row::Network(net, now), Row::Network(_, then)) => {
            let access = |network: &Option<Network>| network.as_ref().map(|network| network.access);
            (access(now) != access(then)).then_some(*net)
        }
        (Row::Node(_, now), Row::Node(_, then)) => {
            let net = now.as_ref().or(then.as_ref()).map(|node| node.net)?;
            let same = now.as_deref().and_then(node_part) == then.as_deref().and_then(node_part);
            (!same && has_rules(registry, net)).then_some(net)
        }
        (Row::Client(_, now), Row::Client(_, then)) => {
            let net = now.as_ref().or(then.as_ref()).map(|client| client.net)?;
            let same = now.as_deref().and_then(client_part) == then.as_deref().and_then(client_part);
            (!same && has_rules(registry, net)).then_some(net)
        }
        _ => None,
    }
}

/// True if a network has rules that deny, or denies by default.
fn has_rules(registry: &Registry, net: NetworkId) -> bool {
    let denies = registry.network(net).is_some_and(|network| network.access == Verdict::Deny);
    denies || registry.rules(net).iter().any(|rule| rule.enabled && rule.verdict == Verdict::Deny)
}

/// Fields of a node that access rules depend on. Most updates of a node change its facts, which are not among them.
fn node_part(node: &Node) -> Option<impl PartialEq> {
    let egress: Vec<_> = node.egress.keys().copied().collect();
    let blocks = node.ingress.as_ref().map(|ingress| ingress.blocks.clone());
    node.is_live().then(|| (node.addresses.clone(), egress, blocks, node.tags.clone()))
}

/// Fields of a client that access rules depend on.
fn client_part(client: &Client) -> Option<impl PartialEq> {
    let prefixes: Vec<_> = of_client(client).collect();
    client.is_live().then(|| (prefixes, client.gateway, client.prefixes.clone(), client.tags.clone()))
}

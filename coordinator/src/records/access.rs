//! Access rules as nodes need them: a network's rules → what each node enforces. Names become prefixes, what does not
//! concern a node is left out, what says the same of several things is said once.

#[cfg(test)]
mod tests;

use crate::{
    registry::{Client, Network, Node, Registry, Row, Scope, Selector, of_client},
    space::{Addresses, Services},
};
use gatewrt_protocol::{Access, AccessRule, NetworkId, NodeId, Prefix, Topic, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// The rules of networks, each worked out when it is first needed.
#[derive(Default)]
pub(super) struct Known(BTreeMap<NetworkId, Rules>);

impl Known {
    /// What `node` enforces.
    pub(super) fn at(&mut self, registry: &Registry, node: &Node) -> Access {
        self.0.entry(node.net).or_insert_with(|| Rules::of(registry, node.net)).at(node)
    }
}

/// A network's rules, with prefixes instead of names.
pub(super) struct Rules {
    default: Verdict,
    rules: Vec<Sides>,
    /// Prefixes behind the clients that are let in at a node.
    behind: BTreeMap<NodeId, Vec<Prefix>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sides {
    verdict: Verdict,
    from: Addresses,
    to: Addresses,
    services: Services,
}

impl Rules {
    pub(super) fn of(registry: &Registry, net: NetworkId) -> Self {
        let default = registry.network(net).map(|network| network.access).unwrap_or_default();
        let scope = Scope::new(registry, net);
        let mut known = BTreeMap::new();
        let mut addresses = |selectors: &'_ [Selector]| -> Addresses {
            known.entry(selectors.to_vec()).or_insert_with(|| scope.addresses(selectors)).clone()
        };
        // Where everything is allowed that no rule denies, a rule that allows says nothing.
        let counts = |verdict| verdict == Verdict::Deny || default == Verdict::Deny;
        let rules = registry.rules(net).into_iter().filter(|rule| rule.enabled && counts(rule.verdict));
        let rules = rules.map(|rule| Sides {
            verdict: rule.verdict,
            from: addresses(&rule.from),
            to: addresses(&rule.to),
            services: Services::of(&rule.services),
        });
        let rules = rules.filter(|rule| !rule.from.is_empty() && !rule.to.is_empty());
        Self { default, rules: rules.collect(), behind: behind(registry, net) }
    }

    /// What `node` enforces.
    pub(super) fn at(&self, node: &Node) -> Access {
        let own = self.own(node);
        let rules = self.rules.iter().filter_map(|rule| concerning(rule, &own)).flat_map(by_family);
        let rules = joined(rules.collect());
        let mut sets: Vec<_> = rules.iter().flat_map(|rule| [&rule.from, &rule.to]).collect();
        sets.sort_unstable();
        sets.dedup();
        let place = |set: &Addresses| sets.partition_point(|other| *other < set) as u32;
        let rule = |rule: &Sides| AccessRule {
            verdict: rule.verdict,
            from: place(&rule.from),
            to: place(&rule.to),
            services: rule.services.list(),
        };
        let rules = rules.iter().map(rule).collect();
        Access { default: self.default, sets: sets.iter().map(|set| set.prefixes()).collect(), rules }
    }

    /// What connections at this node can come from or go to on its side of the network.
    fn own(&self, node: &Node) -> Addresses {
        let blocks = node.ingress.iter().flat_map(|ingress| ingress.blocks.iter().copied());
        let behind = self.behind.get(&node.id).into_iter().flatten().copied();
        let addresses = node.addresses.iter().copied().map(Prefix::host);
        addresses.chain(node.egress.keys().copied()).chain(blocks).chain(behind).collect()
    }
}

fn behind(registry: &Registry, net: NetworkId) -> BTreeMap<NodeId, Vec<Prefix>> {
    let mut behind: BTreeMap<NodeId, Vec<Prefix>> = BTreeMap::new();
    for client in registry.live_clients(net) {
        behind.entry(client.gateway).or_default().extend(&client.prefixes);
    }
    behind
}

/// A rule as far as one of its sides is `own`. Where only one is, no more than that of it can occur here.
fn concerning(rule: &Sides, own: &Addresses) -> Option<Sides> {
    if !rule.from.meets(own) && !rule.to.meets(own) {
        return None;
    }
    let (from, to) = (rule.from.intersection(own), rule.to.intersection(own));
    match (from.is_empty(), to.is_empty()) {
        (true, true) => None,
        (false, true) => Some(Sides { from, ..rule.clone() }),
        (true, false) => Some(Sides { to, ..rule.clone() }),
        (false, false) => Some(rule.clone()),
    }
}

/// Without what has no one of its address family on the other side.
fn by_family(rule: Sides) -> Option<Sides> {
    let [from4, from6] = rule.from.families();
    let [to4, to6] = rule.to.families();
    let (v4, v6) = (!from4.is_empty() && !to4.is_empty(), !from6.is_empty() && !to6.is_empty());
    match (v4, v6) {
        (true, true) => Some(rule),
        (true, false) => Some(Sides { from: from4, to: to4, ..rule }),
        (false, true) => Some(Sides { from: from6, to: to6, ..rule }),
        (false, false) => None,
    }
}

/// The same in fewer rules: those that differ in one thing become one.
fn joined(rules: Vec<Sides>) -> Vec<Sides> {
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

/// One rule for all that have a key in common.
fn grouped<K: Ord>(
    rules: Vec<Sides>,
    key: impl Fn(&Sides) -> K,
    join: impl Fn(&mut Sides, &[Sides]),
) -> Vec<Sides> {
    let mut groups: BTreeMap<K, Vec<Sides>> = BTreeMap::new();
    for rule in rules {
        groups.entry(key(&rule)).or_default().push(rule);
    }
    let one = |mut group: Vec<Sides>| {
        let mut one = group.pop()?;
        join(&mut one, &group);
        Some(one)
    };
    groups.into_values().filter_map(one).collect()
}

/// Assignments whose access may differ after `rows`, which `undo` takes back, have changed.
pub(super) fn touched(registry: &Registry, rows: &[Row], undo: &[Row]) -> BTreeSet<Topic> {
    // Each row has the one that undoes it, in reverse order.
    let nets = rows.iter().zip(undo.iter().rev()).filter_map(|(row, before)| changed(registry, row, before));
    let nets: BTreeSet<_> = nets.collect();
    let nodes = nets.into_iter().flat_map(|net| registry.live_nodes(net));
    nodes.map(|node| Topic::Assignment(node.id)).collect()
}

/// The network in which a row changes what rules stand for.
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

/// Whether anything in a network depends on what rules stand for.
fn has_rules(registry: &Registry, net: NetworkId) -> bool {
    let denies = registry.network(net).is_some_and(|network| network.access == Verdict::Deny);
    denies || registry.rules(net).iter().any(|rule| rule.enabled && rule.verdict == Verdict::Deny)
}

/// All of a node that rules see. What it reports of itself is most of its news, and none of this.
fn node_part(node: &Node) -> Option<impl PartialEq> {
    let egress: Vec<_> = node.egress.keys().copied().collect();
    let blocks = node.ingress.as_ref().map(|ingress| ingress.blocks.clone());
    node.is_live().then(|| (node.addresses.clone(), egress, blocks, node.tags.clone()))
}

/// All of a client that rules see.
fn client_part(client: &Client) -> Option<impl PartialEq> {
    let prefixes: Vec<_> = of_client(client).collect();
    client.is_live().then(|| (prefixes, client.gateway, client.prefixes.clone(), client.tags.clone()))
}

mod sizes;

use super::*;
use crate::registry::ClientState;
use crate::{
    records::Content,
    testing::{AccessOp, World, any_ruled},
};
use gatewrt_protocol::{Proto, Service};
use proptest::prelude::*;
use std::net::IpAddr;

const PROBES: [(Proto, u16); 7] = [
    (Proto::Tcp, 80),
    (Proto::Tcp, 443),
    (Proto::Tcp, 444),
    (Proto::Udp, 53),
    (Proto::Udp, 80),
    (Proto::Icmp, 0),
    (Proto::Icmp, 8),
];

/// Decision of a node on a connection, from the wire form only.
pub(crate) fn decision(access: &Access, from: IpAddr, to: IpAddr, proto: Proto, port: u16) -> Verdict {
    let holds = |set: u32, addr| access.sets[set as usize].iter().any(|prefix| prefix.contains(addr));
    let fits = |rule: &&AccessRule| {
        let service =
            rule.services.is_empty() || rule.services.iter().any(|service| service.fits(proto, port));
        service && holds(rule.from, from) && holds(rule.to, to)
    };
    let mut verdicts: Vec<_> = access.rules.iter().filter(fits).map(|rule| rule.verdict).collect();
    verdicts.sort_unstable();
    verdicts.last().copied().unwrap_or(access.default)
}

/// Decision of a network's rules on a connection, each taken as an admin wrote it.
fn meant(registry: &Registry, net: NetworkId, from: IpAddr, to: IpAddr, proto: Proto, port: u16) -> Verdict {
    let scope = SelectorContext::new(registry, net);
    let holds = |selectors: &[Selector], addr: IpAddr| {
        scope.addresses(selectors).covers(&[addr].into_iter().collect())
    };
    let fits = |verdict: Verdict| {
        registry.rules(net).into_iter().any(|rule| {
            let service =
                rule.services.is_empty() || rule.services.iter().any(|service| service.fits(proto, port));
            rule.enabled
                && rule.verdict == verdict
                && service
                && holds(&rule.from, from)
                && holds(&rule.to, to)
        })
    };
    if fits(Verdict::Deny) {
        Verdict::Deny
    } else if fits(Verdict::Allow) {
        Verdict::Allow
    } else {
        registry.network(net).unwrap().access
    }
}

/// Addresses that something of the network has, and some that nothing has, of one family.
fn addresses(registry: &Registry, net: NetworkId, ipv4: bool) -> Vec<IpAddr> {
    let scope = SelectorContext::new(registry, net);
    let nodes = registry.live_nodes(net).flat_map(|node| {
        node.addresses.iter().copied().chain(node.egress.keys().filter_map(|prefix| prefix.nth(5)))
    });
    let clients = registry.live_clients(net).flat_map(|client| of_client(client).map(|prefix| prefix.addr()));
    let ends = scope.all().prefixes().into_iter().filter_map(|prefix| prefix.nth(3));
    nodes.chain(clients).chain(ends).filter(|addr| addr.is_ipv4() == ipv4).collect()
}

pub(crate) fn stands(world: &World, node: &Node) -> Access {
    match world.published.content(&Topic::Assignment(node.id)) {
        Some(Content::Assignment(assignment)) => assignment.access.clone(),
        _ => panic!("a live node has an assignment"),
    }
}

/// Holder of an address: its node, and the client if it is one's.
fn holder(registry: &Registry, net: NetworkId, addr: IpAddr) -> Option<(&Node, Option<(&Client, bool)>)> {
    let on_node = registry.live_nodes(net).find(|node| {
        node.addresses.contains(&addr) || node.egress.keys().any(|prefix| prefix.contains(addr))
    });
    let on_client = registry.live_clients(net).find_map(|client| {
        let behind = client.prefixes.iter().any(|prefix| prefix.contains(addr));
        let own = client.addresses().contains(&addr);
        Some((registry.node(client.gateway)?, Some((client, own)))).filter(|_| own || behind)
    });
    on_node.map(|node| (node, None)).or(on_client)
}

/// Returns true if both nodes allow a connection.
fn happens(world: &World, net: NetworkId, from: IpAddr, to: IpAddr, probe: (Proto, u16)) -> bool {
    let registry = &world.registry;
    let (Some(one), Some(other)) = (holder(registry, net, from), holder(registry, net, to)) else {
        return false;
    };
    let let_in = |client: &Client| registry.client_state(client, world.now) == ClientState::Enabled;
    let sends = one.1.is_none_or(|(client, _)| let_in(client));
    let takes = other.1.is_none_or(|(client, own)| let_in(client) && (client.reachable || !own));
    let alone = match (one.1, other.1) {
        (None, None) => one.0.id == other.0.id,
        (Some((one, _)), Some((other, _))) => one.id == other.id,
        _ => false,
    };
    let passes = |node| decision(&stands(world, node), from, to, probe.0, probe.1) == Verdict::Allow;
    sends && takes && (alone || (passes(one.0) && passes(other.0)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_rules_are_enforced_by_both_ends(
        ops in any_ruled(),
        picks in proptest::collection::vec((any::<usize>(), any::<usize>(), 0..PROBES.len()), 24)
    ) {
        let mut world = World::default();
        ops.iter().for_each(|op| drop(world.step(op)));
        for network in world.registry.networks() {
            let rules = Rules::of(&world.registry, network.id);
            for (from, to, probe) in &picks {
                let known = addresses(&world.registry, network.id, from % 3 != 0);
                let Some(from) = known.get(from % known.len().max(1)).copied() else { continue };
                let to = known[to % known.len()];
                let (proto, port) = PROBES[*probe];
                let meant = meant(&world.registry, network.id, from, to, proto, port);
                for node in world.registry.live_nodes(network.id) {
                    let own = rules.own(node);
                    let here = [from, to].iter().any(|addr| own.covers(&[*addr].into_iter().collect()));
                    if here {
                        let decision = decision(&stands(&world, node), from, to, proto, port);
                        prop_assert_eq!(decision, meant, "{} to {} at {}", from, to, node.name);
                    }
                }
            }
        }
    }

    #[test]
    fn check_answer_agrees_with_the_nodes(
        ops in any_ruled(),
        picks in proptest::collection::vec((any::<usize>(), any::<usize>(), 0..PROBES.len()), 24)
    ) {
        let mut world = World::default();
        ops.iter().for_each(|op| drop(world.step(op)));
        for network in world.registry.networks() {
            for (from, to, probe) in &picks {
                let known = addresses(&world.registry, network.id, from % 3 != 0);
                let Some(from) = known.get(from % known.len().max(1)).copied() else { continue };
                let to = known[to % known.len()];
                let (proto, port) = PROBES[*probe];
                let (first, last) = if proto == Proto::Icmp { (0, u16::MAX) } else { (port, port) };
                let service = Some(Service { proto, first, last });
                let name = network.name.as_str();
                let answer = world.registry.check(name, &from.to_string(), &to.to_string(), service, world.now).unwrap();
                let done = happens(&world, network.id, from, to, (proto, port));
                prop_assert_eq!(answer.allowed, done, "{} to {}: {:?}", from, to, answer);
                prop_assert!(!answer.why.is_empty());
            }
        }
    }

    #[test]
    fn node_with_changed_access_is_among_the_touched(ops in any_ruled()) {
        let mut world = World::default();
        for op in &ops {
            world.step(op);
            let assignments = world.registry.nodes().filter(|node| node.is_live()).map(|node| Topic::Assignment(node.id));
            let left = world.published.plan(&world.registry, world.now, &assignments.collect());
            prop_assert_eq!(left, [], "after {:?}", op);
        }
    }

    #[test]
    fn access_without_effect_is_absent_and_sets_are_distinct(ops in any_ruled()) {
        let mut world = World::default();
        ops.iter().for_each(|op| drop(world.step(op)));
        for node in world.registry.nodes().filter(|node| node.is_live()) {
            let access = stands(&world, node);
            let network = world.registry.network(node.net).unwrap();
            let denies = world.registry.rules(node.net).into_iter().any(|rule| rule.enabled && rule.verdict == Verdict::Deny);
            if network.access == Verdict::Allow && !denies {
                prop_assert_eq!(&access, &Access::default());
            }
            prop_assert!(access.default == Verdict::Deny || access.rules.iter().all(|rule| rule.verdict == Verdict::Deny));
            for (index, set) in access.sets.iter().enumerate() {
                let used = access.rules.iter().any(|rule| [rule.from, rule.to].contains(&(index as u32)));
                prop_assert!(used && !set.is_empty(), "no set without a use");
                prop_assert!(!access.sets[..index].contains(set), "each set once");
                for (one, prefix) in set.iter().enumerate() {
                    prop_assert!(set[..one].iter().all(|other| !other.overlaps(prefix)));
                }
            }
        }
    }
}

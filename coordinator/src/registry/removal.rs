//! Removed nodes: until when they have a tombstone, which of them have read it, and when their rows go.

use super::{Changes, Node, Registry, Row};
use gatewrt_protocol::{NetworkName, NodeId};
use std::collections::BTreeMap;

/// Lifetime of a tombstone, in seconds. A router that was off for longer is missing in the roster, and drops
/// whatever is not in it.
pub const TOMBSTONE_S: u64 = 30 * 86_400;

impl Node {
    /// True for a removed node whose tombstone is still to be read, by itself and the others.
    pub fn has_tombstone(&self, now: u64) -> bool {
        self.removed.is_some_and(|removed| now < removed + TOMBSTONE_S)
    }

    /// Row of the node once it is removed. Its keys and addresses stay known, its roles end.
    pub(crate) fn removed_row(&self, from: Option<&NetworkName>, now: u64) -> Row {
        let removed = Node {
            removed: Some(now),
            removed_from: from.cloned(),
            egress: BTreeMap::new(),
            ingress: None,
            exit: None,
            scopes: BTreeMap::new(),
            ..self.clone()
        };
        Row::Node(self.id, Some(Box::new(removed)))
    }
}

impl Registry {
    /// Records that a removed node has read its tombstone; no rows if that is known, or it was not removed.
    pub fn note_told(&self, id: NodeId, now: u64) -> Changes {
        let untold = self.node(id).filter(|node| !node.is_live() && node.told.is_none());
        let told = untold.map(|node| Node { told: Some(now), ..node.clone() });
        told.map(|node| Row::Node(id, Some(Box::new(node)))).into_iter().collect()
    }

    /// Removed nodes that have a tombstone and have not read it yet: they, and others that are as far away, may go on
    /// as before.
    pub fn untold(&self, now: u64) -> impl Iterator<Item = &Node> {
        self.nodes().filter(move |node| node.has_tombstone(now) && node.told.is_none())
    }

    /// Deletes the rows of removed nodes whose network is gone too, once their tombstones are. In a network that
    /// goes on they stay, so that no key comes back to it.
    pub fn purge(&self, now: u64) -> Changes {
        let gone =
            |node: &&Node| !node.is_live() && self.network(node.net).is_none() && !node.has_tombstone(now);
        self.nodes().filter(gone).map(|node| Row::Node(node.id, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        records::Content,
        testing::{Op, World},
    };
    use gatewrt_protocol::{MemberUpdate, NetworkId, Topic};

    /// Two networks with two nodes each, in the order of joining.
    fn two_networks() -> (World, Vec<NodeId>) {
        let (mut world, mut nodes) = (World::default(), Vec::new());
        for net in 0..2 {
            world.step(&Op::CreateNetwork(net, None));
        }
        for (place, network) in
            world.registry.networks().map(|network| network.id).enumerate().collect::<Vec<_>>()
        {
            let net = place as u8;
            world.step(&Op::CreateCode(net, 3));
            let codes = world.registry.codes(network).map(|code| code.id.to_string()).collect::<Vec<_>>();
            let code = world.code(&codes[0]);
            for key in [2 * net, 2 * net + 1] {
                nodes.push(world.step(&Op::Join { code, key, name: 0, endpoint: key }).joined.unwrap());
            }
        }
        (world, nodes)
    }

    fn net_of(world: &World, node: NodeId) -> NetworkId {
        world.registry.node(node).unwrap().net
    }

    /// Revision of the tombstone that is published for a node.
    fn tombstone(world: &World, node: NodeId, net: NetworkId) -> Option<u64> {
        match world.published.content(&Topic::Member(net, node))? {
            Content::Member(MemberUpdate::Tombstone(tombstone)) => Some(tombstone.rev),
            other => panic!("{other:?}"),
        }
    }

    /// Brings all records up to date and purges, as the controller does each hour.
    fn refresh(world: &mut World) {
        let topics = crate::records::all_topics(&world.registry, &world.published);
        let changes = world.published.plan(&world.registry, world.now, &topics);
        world.published.apply(changes);
        world.step(&Op::Purge);
    }

    #[test]
    fn tombstones_outlive_their_network_by_their_thirty_days() {
        let (mut world, nodes) = two_networks();
        // One was removed ten days before its network.
        world.step(&Op::Remove(0, true));
        let first = world.registry.nodes().find(|node| !node.is_live()).unwrap();
        let (first, net) = (first.id, first.net);
        let both: Vec<NodeId> = nodes.iter().copied().filter(|node| net_of(&world, *node) == net).collect();
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| net_of(&world, *node) != net).collect();
        let second = both.iter().copied().find(|node| *node != first).unwrap();
        world.now += 10 * 86_400;
        let place = world.registry.networks().position(|network| network.id == net).unwrap();
        assert!(world.step(&Op::DeleteNetwork(place as u8, false)).refused.is_some(), "it has a node");
        let step = world.step(&Op::DeleteNetwork(place as u8, true));
        let told: Vec<_> = step.records.iter().filter(|(_, content)| content.is_some()).collect();
        assert!(matches!(told[..], [(Topic::Member(_, node), _)] if *node == second), "{told:?}");
        assert_eq!((tombstone(&world, first, net), tombstone(&world, second, net)), (Some(2), Some(2)));
        let left = world.published.iter().filter(|(topic, _)| match topic {
            Topic::Roster(of) | Topic::Policy(of) => *of == net,
            Topic::Assignment(node) => both.contains(node),
            _ => false,
        });
        assert_eq!(left.count(), 0, "nothing else of the network is left");
        let stranger = Topic::Roster(net_of(&world, others[0]));
        assert!(world.published.content(&stranger).is_some(), "the other network goes on");

        world.now += 20 * 86_400 - 1;
        refresh(&mut world);
        assert_eq!((tombstone(&world, first, net), tombstone(&world, second, net)), (Some(2), Some(2)));
        world.now += 1;
        refresh(&mut world);
        assert_eq!((tombstone(&world, first, net), tombstone(&world, second, net)), (None, Some(2)));
        assert!(world.registry.node(first).is_none() && world.registry.node(second).is_some());
        world.now += 10 * 86_400;
        refresh(&mut world);
        assert!(world.registry.node(second).is_none());
        assert!(others.iter().all(|node| world.registry.live_node(*node).is_some()));
        assert!(
            world.published.iter().all(|(topic, _)| !matches!(topic, Topic::Member(of, _) if *of == net))
        );
    }

    #[test]
    fn removed_node_of_a_network_that_goes_on_stays_known() {
        let (mut world, nodes) = two_networks();
        world.step(&Op::Remove(0, true));
        world.now += 2 * TOMBSTONE_S;
        refresh(&mut world);
        assert_eq!(world.registry.nodes().count(), nodes.len(), "its key is not taken again");
        let removed = world.registry.nodes().find(|node| !node.is_live()).unwrap();
        assert!(!removed.has_tombstone(world.now));
        assert!(world.published.content(&Topic::Member(removed.net, removed.id)).is_none());
    }

    #[test]
    fn node_is_untold_from_its_removal_until_it_has_read_it() {
        let (mut world, nodes) = two_networks();
        let untold = |world: &World| world.registry.untold(world.now).map(|node| node.id).collect::<Vec<_>>();
        assert_eq!(world.registry.note_told(nodes[0], 7), [], "it was not removed");
        assert_eq!(untold(&world), []);
        let net = world.registry.networks().next().unwrap();
        let (net, name) = (net.id, net.name.clone());
        world.step(&Op::DeleteNetwork(0, true));
        let of_it: Vec<_> = world.registry.nodes().filter(|node| node.net == net).cloned().collect();
        assert_eq!(untold(&world), of_it.iter().map(|node| node.id).collect::<Vec<_>>());
        assert!(of_it.iter().all(|node| node.removed_from.as_ref() == Some(&name)));
        world.registry.apply(world.registry.note_told(of_it[0].id, 7));
        assert_eq!(world.registry.note_told(of_it[0].id, 8), [], "the first time counts");
        assert_eq!(untold(&world), [of_it[1].id]);
        world.now += TOMBSTONE_S;
        assert_eq!(untold(&world), [], "nothing tells it any more");
    }

    #[test]
    fn name_of_a_removed_node_is_free_at_once_and_its_address_is_not() {
        let (mut world, _) = two_networks();
        let network = world.registry.networks().next().unwrap().id;
        let codes = world.registry.codes(network).map(|code| code.id.to_string()).collect::<Vec<_>>();
        let code = world.code(&codes[0]);
        let old =
            world.registry.live_nodes(network).find(|node| node.name.as_str() == "node-0").unwrap().clone();
        let moment = crate::registry::Moment { now: world.now, entropy: [9; 32] };
        let (rows, _) =
            world.registry.remove_node(&network.to_string(), &old.id.to_string(), true, &moment).unwrap();
        world.registry.apply(rows);
        let new = world.step(&Op::Join { code, key: 20, name: 0, endpoint: 1 }).joined.unwrap();
        let new = world.registry.node(new).unwrap();
        assert_eq!(new.name, old.name);
        assert!(new.addresses.iter().all(|addr| !old.addresses.contains(addr)));
        assert_ne!(new.id, old.id);
    }
}

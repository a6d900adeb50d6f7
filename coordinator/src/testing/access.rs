//! Operations on rules, groups and tags.

use super::{Op, World, any_op, choose, prefix_of, quiet};
use crate::registry::{
    ClientPatch, GroupSpec, Moment, NetworkPatch, NodePatch, Outcome, RulePatch, RuleSpec,
};
use gatewrt_protocol::{NetworkId, Tag, Verdict};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Operation on access rules in a property test; numbers choose among the objects that exist.
#[derive(Debug, Clone)]
pub(crate) enum AccessOp {
    Default { net: u8, deny: bool },
    Rule { net: u8, deny: bool, from: Vec<u16>, to: Vec<u16>, services: Vec<u8> },
    Change { rule: u8, enabled: bool, to: Option<Vec<u16>> },
    DeleteRule(u8),
    Group { net: u8, name: u8, members: Vec<u16> },
    DeleteGroup { net: u8, name: u8 },
    Tags { node: u8, tags: u8 },
    Client { client: u8, tags: u8, reachable: bool },
}

pub(crate) fn any_access() -> impl Strategy<Value = AccessOp> {
    let some = || proptest::collection::vec(any::<u16>(), 1..3);
    let services = proptest::collection::vec(0u8..6, 0..3);
    prop_oneof![
        2 => (any::<u8>(), any::<bool>()).prop_map(|(net, deny)| AccessOp::Default { net, deny }),
        8 => (any::<u8>(), any::<bool>(), some(), some(), services)
            .prop_map(|(net, deny, from, to, services)| AccessOp::Rule { net, deny, from, to, services }),
        2 => (any::<u8>(), any::<bool>(), proptest::option::of(some()))
            .prop_map(|(rule, enabled, to)| AccessOp::Change { rule, enabled, to }),
        1 => any::<u8>().prop_map(AccessOp::DeleteRule),
        3 => (any::<u8>(), 0u8..3, proptest::collection::vec(any::<u16>(), 0..4))
            .prop_map(|(net, name, members)| AccessOp::Group { net, name, members }),
        1 => (any::<u8>(), 0u8..3).prop_map(|(net, name)| AccessOp::DeleteGroup { net, name }),
        4 => (any::<u8>(), 0u8..8).prop_map(|(node, tags)| AccessOp::Tags { node, tags }),
        4 => (any::<u8>(), 0u8..8, any::<bool>())
            .prop_map(|(client, tags, reachable)| AccessOp::Client { client, tags, reachable }),
    ]
}

/// Strategy for operations on one network with some nodes, mostly on what rules depend on.
pub(crate) fn any_ruled() -> impl Strategy<Value = Vec<Op>> {
    let next = prop_oneof![3 => any_access().prop_map(Op::Access), 2 => any_op()];
    let start = [Op::CreateNetwork(0, None), Op::CreateCode(0, 200)];
    let join = |key| Op::Join { code: 0, key, name: 0, endpoint: key };
    let ingress = (0..2).map(|node| Op::SetIngress { node, endpoint: true });
    let start: Vec<_> = start.into_iter().chain((0..4).map(join)).chain(ingress).collect();
    proptest::collection::vec(next, 1..50).prop_map(move |ops| [start.clone(), ops].concat())
}

impl World {
    pub(super) fn plan_access(&self, op: &AccessOp, moment: &Moment) -> Outcome<()> {
        let registry = &self.registry;
        match op {
            AccessOp::Default { net, deny } => {
                let patch = NetworkPatch { access: Some(verdict(*deny)), dns: None };
                registry.change_network(&self.net(*net), &patch).map(quiet)
            }
            AccessOp::Rule { net, deny, from, to, services } => {
                let net = self.net(*net);
                let spec = RuleSpec {
                    verdict: verdict(*deny),
                    from: self.selectors(&net, from),
                    to: self.selectors(&net, to),
                    services: services.iter().map(|which| service(*which).parse().unwrap()).collect(),
                    enabled: true,
                    note: String::new(),
                };
                registry.create_rule(&net, &spec, moment).map(quiet)
            }
            AccessOp::Change { rule, enabled, to } => {
                let (net, rule) = self.rule(*rule);
                let to = to.as_ref().map(|to| self.selectors(&net, to));
                let patch = RulePatch { enabled: Some(*enabled), to, ..RulePatch::default() };
                registry.change_rule(&net, &rule, &patch).map(quiet)
            }
            AccessOp::DeleteRule(rule) => {
                let (net, rule) = self.rule(*rule);
                registry.delete_rule(&net, &rule).map(quiet)
            }
            AccessOp::Group { net, name, members } => {
                let net = self.net(*net);
                let spec = GroupSpec { members: self.selectors(&net, members) };
                registry.set_group(&net, &format!("g{name}").parse().unwrap(), &spec).map(quiet)
            }
            AccessOp::DeleteGroup { net, name } => {
                registry.delete_group(&self.net(*net), &format!("g{name}")).map(quiet)
            }
            AccessOp::Tags { node, tags } => {
                let (net, node) = self.node(*node);
                let patch = NodePatch { tags: Some(some_tags(*tags)), ..NodePatch::default() };
                registry.change_node(&net, &node, &patch).map(quiet)
            }
            AccessOp::Client { client, tags, reachable } => {
                let (net, client) = self.client(*client);
                let tags = Some(some_tags(*tags));
                let patch = ClientPatch { tags, reachable: Some(*reachable), ..ClientPatch::default() };
                registry.change_client(&net, &client, &patch, moment).map(quiet)
            }
        }
    }

    fn rule(&self, which: u8) -> (String, String) {
        let nets = self.registry.networks();
        let rules = nets.flat_map(|network| self.registry.rules(network.id));
        let ids: Vec<_> = rules.map(|rule| (rule.net.to_string(), rule.id.to_string())).collect();
        choose(&ids, which)
    }

    fn selectors(&self, net: &str, which: &[u16]) -> Vec<String> {
        which.iter().map(|which| self.selector(net, *which)).collect()
    }

    /// Text of a selector for property tests, mostly of an object that exists.
    fn selector(&self, net: &str, which: u16) -> String {
        let [kind, which] = which.to_be_bytes();
        let net: NetworkId = net.parse().unwrap_or(NetworkId::from_entropy([0; 10]));
        let nodes: Vec<_> = self.registry.live_nodes(net).map(|node| node.name.to_string()).collect();
        let clients: Vec<_> = self.registry.live_clients(net).map(|client| client.name.to_string()).collect();
        match kind % 12 {
            0 => "all".to_owned(),
            1 | 2 => format!("tag:t{}", which % 3),
            3 | 4 => format!("node:{}", choose(&nodes, which)),
            5..=7 => format!("site:{}", choose(&nodes, which)),
            8 | 9 => format!("client:{}", choose(&clients, which)),
            10 => format!("group:g{}", which % 3),
            _ => prefix_of(which).to_string(),
        }
    }
}

fn some_tags(bits: u8) -> BTreeSet<Tag> {
    (0..3).filter(|bit| bits >> bit & 1 == 1).map(|bit| format!("t{bit}").parse().unwrap()).collect()
}

fn verdict(deny: bool) -> Verdict {
    if deny { Verdict::Deny } else { Verdict::Allow }
}

fn service(which: u8) -> &'static str {
    ["tcp/80", "tcp/80-443", "tcp", "udp/53", "udp", "icmp"][usize::from(which) % 6]
}

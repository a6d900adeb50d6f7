//! Operations on exits and scopes.

use super::{World, choose, prefix_of, quiet, report};
use crate::registry::{ExitSpec, Outcome, ScopeSpec};
use gatewrt_protocol::{ExitOffer, NodeId, Report};
use proptest::prelude::*;

/// Operation on exits and scopes in a property test; numbers choose among the objects that exist.
#[derive(Debug, Clone)]
pub(crate) enum ExitOp {
    Set { node: u8, v6: bool },
    Unset(u8, bool),
    Offer { node: u8, v4: bool, v6: bool },
    Scope { node: u8, name: u8, of: u8, exits: Vec<u8> },
    DropScope { node: u8, name: u8 },
    Retry(u8),
}

pub(crate) fn any_exit() -> impl Strategy<Value = ExitOp> {
    prop_oneof![
        4 => (any::<u8>(), any::<bool>()).prop_map(|(node, v6)| ExitOp::Set { node, v6 }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(node, force)| ExitOp::Unset(node, force)),
        4 => (any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(node, v4, v6)| ExitOp::Offer { node, v4, v6 }),
        8 => (any::<u8>(), 0u8..4, 0u8..6, proptest::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(node, name, of, exits)| ExitOp::Scope { node, name, of, exits }),
        2 => (any::<u8>(), 0u8..4).prop_map(|(node, name)| ExitOp::DropScope { node, name }),
        1 => any::<u8>().prop_map(ExitOp::Retry),
    ]
}

impl World {
    pub(super) fn plan_exit(&self, op: &ExitOp) -> Outcome<()> {
        let registry = &self.registry;
        match op {
            ExitOp::Set { node, v6 } => {
                let (net, node) = self.node(*node);
                let spec = ExitSpec { v6: Some(*v6), ..ExitSpec::default() };
                registry.set_exit(&net, &node, &spec).map(quiet)
            }
            ExitOp::Unset(node, force) => {
                let (net, node) = self.node(*node);
                registry.unset_exit(&net, &node, *force).map(quiet)
            }
            ExitOp::Offer { node, v4, v6 } => {
                let node = self.node(*node).1.parse().unwrap_or(NodeId::from_entropy([0; 10]));
                let exit = Some(ExitOffer { v4: *v4, v6: *v6, dns: Vec::new() });
                Ok((registry.update_facts(node, &Report { exit, ..report(node, 1, 1) }, None), ()))
            }
            ExitOp::Scope { node, name, of, exits } => {
                let (net, node) = self.node(*node);
                let prefix = prefix_of(*of).to_string();
                let of = ["all", "router", "dev:br-lan", &prefix][usize::from(of % 4)].to_owned();
                let spec = ScopeSpec { exits: self.exits(&net, exits), ..scope_spec(&of) };
                registry.set_scope(&net, &node, &format!("s{name}"), &spec).map(quiet)
            }
            ExitOp::DropScope { node, name } => {
                let (net, node) = self.node(*node);
                registry.unset_scope(&net, &node, &format!("s{name}")).map(quiet)
            }
            ExitOp::Retry(node) => {
                let (net, node) = self.node(*node);
                registry.retry_node(&net, &node).map(quiet)
            }
        }
    }

    fn exits(&self, net: &str, which: &[u8]) -> Vec<String> {
        let net = net.parse().ok();
        let exits = net.into_iter().flat_map(|net| self.registry.exits(net));
        let exits: Vec<_> = exits.map(|exit| exit.id.to_string()).collect();
        which.iter().filter(|_| !exits.is_empty()).map(|which| choose(&exits, *which)).collect()
    }
}

/// Spec of a scope with defaults only.
pub(crate) fn scope_spec(of: &str) -> ScopeSpec {
    serde_json::from_value(serde_json::json!({ "of": [of] })).unwrap()
}

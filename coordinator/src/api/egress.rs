//! API values of prefixes behind nodes.

use crate::{
    controller::ControllerState,
    registry::{EgressSetting, Node},
};
use gatewrt_protocol::{NetworkId, NodeId, NodeName, Prefix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Served prefix as the API shows it: a prefix that a node lets its network reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressView {
    /// Name of the node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// Prefix behind the node.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Set if hosts behind the node see the node's address (NAT).
    pub nat: bool,
    /// Metric: the lowest is preferred.
    pub metric: u32,
    /// If several nodes serve the prefix: nodes that use this one now, as they reported last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<NodeName>,
}

/// Spec of a prefix that a node is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressSpec {
    /// Prefix behind the node.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Set for NAT: hosts behind the node see the node's address. Off, they see the true source.
    #[serde(default = "on")]
    pub nat: bool,
    /// Metric: the lowest is preferred.
    #[serde(default)]
    pub metric: u32,
}

fn on() -> bool {
    true
}

/// Prefixes that a node serves.
pub fn egress_of(node: &Node) -> impl Iterator<Item = EgressView> {
    let view = |(prefix, setting): (&Prefix, &EgressSetting)| EgressView {
        node: node.name.clone(),
        prefix: *prefix,
        nat: setting.nat,
        metric: setting.metric,
        used_by: Vec::new(),
    };
    node.egress.iter().map(view)
}

/// Prefixes that nodes of a network serve, with the users of each.
pub fn egress_in_use(state: &ControllerState, net: NetworkId) -> Vec<EgressView> {
    let mut used: BTreeMap<(Prefix, NodeId), Vec<NodeName>> = BTreeMap::new();
    for by in state.registry.live_nodes(net) {
        let report = state.live.now(by.id).and_then(|now| now.report.as_ref());
        for (prefix, through) in report.into_iter().flat_map(|report| &report.gateways) {
            used.entry((*prefix, *through)).or_default().push(by.name.clone());
        }
    }
    let of_node = |node| egress_of(node).map(move |view| (node.id, view));
    let all = state.registry.live_nodes(net).flat_map(of_node);
    let view = |(node, view): (NodeId, EgressView)| EgressView {
        used_by: used.get(&(view.prefix, node)).cloned().unwrap_or_default(),
        ..view
    };
    all.map(view).collect()
}

//! Prefixes behind nodes, as the API speaks of them.

use crate::{
    desk::State,
    registry::{EgressSetting, Node},
};
use gatewrt_protocol::{NetworkId, NodeId, NodeName, Prefix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A prefix that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressView {
    /// By which node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// What the network reaches behind it.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Whether hosts behind the node see the node's address.
    pub nat: bool,
    /// The least goes first.
    pub metric: u32,
    /// Where several nodes serve it: those that reach it through this one now, as they reported last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<NodeName>,
}

/// What an admin asks of a prefix to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressWish {
    /// What the network is to reach.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Whether hosts behind the node see the node's address; off shows them the true source.
    #[serde(default = "on")]
    pub nat: bool,
    /// The least goes first.
    #[serde(default)]
    pub metric: u32,
}

fn on() -> bool {
    true
}

/// What a node serves.
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

/// All that nodes of a network serve, with who reaches what through whom.
pub fn egress_in_use(state: &State, net: NetworkId) -> Vec<EgressView> {
    let mut used: BTreeMap<(Prefix, NodeId), Vec<NodeName>> = BTreeMap::new();
    for by in state.registry.live_nodes(net) {
        let report = state.live.now(by.id).and_then(|now| now.report.as_ref());
        for (prefix, through) in report.into_iter().flat_map(|report| &report.gateways.0) {
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

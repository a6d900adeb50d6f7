//! API values of removed nodes.

use crate::{
    controller::ControllerState,
    registry::{Node, TOMBSTONE_S},
};
use gatewrt_protocol::{NetworkId, NodeId, NodeName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Removed node that has not read yet that it is. It goes on with others that are as far away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UntoldView {
    /// Id of the node.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Name of the node.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// Name of the network that it was removed from, which may be deleted.
    pub network: String,
    /// Time when it was removed, in seconds since 1970.
    pub removed: u64,
    /// Seconds for which it can still read it.
    pub ends_in: u64,
}

impl UntoldView {
    /// Creates the views of all such nodes, of one network or of all, at `at`, in seconds since 1970.
    pub fn all_of(state: &ControllerState, net: Option<NetworkId>, at: u64) -> Vec<Self> {
        let untold = state.registry.untold(at).filter(|node| net.is_none_or(|net| net == node.net));
        let mut all: Vec<_> = untold.filter_map(|node| Self::of(node, at)).collect();
        all.sort_by(|one, other| other.removed.cmp(&one.removed).then_with(|| one.name.cmp(&other.name)));
        all
    }

    fn of(node: &Node, at: u64) -> Option<Self> {
        let removed = node.removed?;
        Some(Self {
            id: node.id,
            name: node.name.clone(),
            network: node.removed_from.as_ref().map_or_else(|| node.net.to_string(), ToString::to_string),
            removed,
            ends_in: (removed + TOMBSTONE_S).saturating_sub(at),
        })
    }
}

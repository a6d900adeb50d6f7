//! Egress: prefixes that nodes serve to their network.

use super::{
    EgressSetting, Node, Outcome, Overlap, Registry, RegistryError, network::is_special, overlap::Changing,
};
use gatewrt_protocol::{Prefix, Role};

/// Largest number of prefixes that one node may serve: its member record stays far below the largest that is
/// accepted.
pub const LIMIT: usize = 64;

impl Registry {
    /// Lets a node serve a prefix, or changes its settings. Several nodes can serve the same prefix: the one
    /// with the lowest metric is preferred, and among equals the nearest that works.
    pub fn set_egress(&self, net: &str, node: &str, prefix: Prefix, setting: EgressSetting) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        self.check_egress(node, prefix)?;
        let mut changed = node.clone();
        changed.egress.insert(prefix, setting);
        Ok((changed.row_if_changed(node), changed))
    }

    /// Stops a node from serving a prefix.
    pub fn unset_egress(&self, net: &str, node: &str, prefix: Prefix) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        let mut changed = node.clone();
        if changed.egress.remove(&prefix).is_none() {
            let served = node.egress.keys().copied().collect();
            return Err(RegistryError::NotServed { node: node.name.clone(), prefix, served });
        }
        Ok((changed.row_if_changed(node), changed))
    }

    /// Number of prefixes in the node's member record: its own and those behind its clients.
    pub(super) fn served_by(&self, node: &Node) -> usize {
        node.egress.len() + self.clients_at(node).map(|client| client.prefixes.len()).sum::<usize>()
    }

    pub(super) fn check_egress(&self, node: &Node, prefix: Prefix) -> Result<(), RegistryError> {
        check_routed(prefix)?;
        if !node.roles.contains(&Role::Egress) {
            let (code, role) = (node.code.clone(), Role::Egress);
            return Err(RegistryError::RoleMissing { node: node.name.clone(), role, code });
        }
        if self.served_by(node) >= LIMIT && !node.egress.contains_key(&prefix) {
            return Err(RegistryError::TooManyPrefixes { node: node.name.clone(), limit: LIMIT });
        }
        match self.conflict(prefix, Some(node.net), Some(Changing::Node)) {
            None => Ok(()),
            Some((with, with_owner)) => {
                let owner = self.site(node);
                Err(RegistryError::Overlap(Box::new(Overlap { prefix, owner, with, with_owner })))
            }
        }
    }
}

/// Refuses prefixes that can't be behind a site.
pub(super) fn check_routed(prefix: Prefix) -> Result<(), RegistryError> {
    if prefix.is_default() {
        return Err(RegistryError::DefaultRoute { prefix });
    }
    if is_special(prefix.addr()) {
        let why = "its addresses are not for hosts of a routed network";
        return Err(RegistryError::BadPrefix { prefix, why });
    }
    Ok(())
}

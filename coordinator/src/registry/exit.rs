//! Exits: nodes that forward Internet traffic of others, and the scopes of traffic that go through them. A
//! scope names an exit by its node's id: the exit can be renamed, and a scope whose exit is gone is closed,
//! not open.

mod error;
mod scope;
#[cfg(test)]
mod tests;

pub use error::{ExitError, User};
pub use scope::{Ipv6, ScopeSetting, ScopeSpec};

use super::{Node, Outcome, Registry, RegistryError, network::is_special, range::check_count};
use gatewrt_protocol::{ExitOffer, NetworkId, Prefix, Role, Tag};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Largest number of resolvers of an exit or a scope.
const RESOLVERS: usize = 8;

/// Exit settings of a node as the registry stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitSetting {
    /// Set if the exit is to forward IPv4.
    pub v4: bool,
    /// Set if the exit is to forward IPv6.
    pub v6: bool,
    /// Resolvers to ask through it; empty means those that the node offers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// Spec of an exit, as an admin requests it. Fields that are left out are on, or chosen by the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExitSpec {
    /// Resolvers to ask through it. Default: those of its uplink.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Set to forward IPv4. Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<bool>,
    /// Set to forward IPv6. Default: yes, if its uplink has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<bool>,
}

impl ExitSetting {
    /// Part of a node's offer that the exit settings use; `None` if nothing is left.
    pub fn of(&self, offer: &ExitOffer) -> Option<ExitOffer> {
        let dns = if self.dns.is_empty() { &offer.dns } else { &self.dns };
        let left = ExitOffer { v4: self.v4 && offer.v4, v6: self.v6 && offer.v6, dns: dns.clone() };
        (left.v4 || left.v6).then_some(left)
    }

    /// Exit settings as the node's assignment states them.
    pub fn requested(&self) -> ExitOffer {
        ExitOffer { v4: self.v4, v6: self.v6, dns: self.dns.clone() }
    }
}

impl Node {
    /// Offer of the node as an exit: the settings, limited to what it reported last.
    pub fn exit_offer(&self) -> Option<ExitOffer> {
        self.exit.as_ref()?.of(self.facts.exit.as_ref()?)
    }
}

impl Registry {
    /// Makes a node an exit, or changes its settings.
    pub fn set_exit(&self, net: &str, node: &str, spec: &ExitSpec) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        if !node.roles.contains(&Role::Exit) {
            let (code, role) = (node.code.clone(), Role::Exit);
            return Err(RegistryError::RoleMissing { node: node.name.clone(), role, code });
        }
        let setting = ExitSetting {
            v4: spec.v4.unwrap_or(true),
            v6: spec.v6.unwrap_or(true),
            dns: resolvers(&spec.dns)?,
        };
        if !setting.v4 && !setting.v6 {
            return Err(ExitError::NothingWanted { node: node.name.clone() }.into());
        }
        let changed = Node { exit: Some(setting), ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Stops a node from being an exit. Refused while scopes depend on it. With `force` their traffic is
    /// dropped, or goes out over the WAN where the kill switch is off.
    pub fn unset_exit(&self, net: &str, node: &str, force: bool) -> Outcome<Node> {
        let node = self.find_node(net, node)?;
        if node.exit.is_none() {
            return Err(self.not_an_exit(node).into());
        }
        self.check_users_of(node, force)?;
        let changed = Node { exit: None, ..node.clone() };
        Ok((changed.row_if_changed(node), changed))
    }

    /// Nodes of a network that are exits.
    pub fn exits(&self, net: NetworkId) -> impl Iterator<Item = &Node> {
        self.live_nodes(net).filter(|node| node.exit.is_some())
    }

    /// Scopes that name an exit, or would choose it as the only one of the network.
    pub fn users_of(&self, exit: &Node) -> Vec<User> {
        let is_last = exit.exit.is_some() && self.exits(exit.net).all(|other| other.id == exit.id);
        let uses = |scope: &ScopeSetting| scope.exits.contains(&exit.id) || (is_last && scope.auto);
        let others = self.live_nodes(exit.net).filter(|node| node.id != exit.id);
        let scopes = others.flat_map(|node| node.scopes.iter().map(move |(name, scope)| (node, name, scope)));
        let users = scopes.filter(|(.., scope)| uses(scope));
        users.map(|(node, name, _)| User { node: node.name.clone(), scope: name.clone() }).collect()
    }

    /// Refuses a change that leaves scopes without an exit that they name, unless it is forced.
    pub(super) fn check_users_of(&self, node: &Node, force: bool) -> Result<(), RegistryError> {
        let users = if node.exit.is_some() && !force { self.users_of(node) } else { Vec::new() };
        if users.is_empty() {
            return Ok(());
        }
        Err(ExitError::ExitInUse { node: node.name.clone(), users }.into())
    }

    fn not_an_exit(&self, node: &Node) -> ExitError {
        let known = self.exits(node.net).map(|exit| exit.name.clone()).collect();
        ExitError::NotAnExit { node: node.name.clone(), known }
    }

    /// Reason why a node is no exit, or less of one than the settings ask for; `None` if there is none.
    pub fn exit_limits(&self, node: &Node) -> Option<String> {
        let name = &node.name;
        let Some(offer) = &node.facts.exit else {
            return Some(format!(
                "{name} has not said that it may be an exit: its owner allows it with option allow_exit '1' in /etc/config/gatewrt"
            ));
        };
        let setting = node.exit.as_ref();
        let (v4, v6) = setting.map_or((true, true), |setting| (setting.v4, setting.v6));
        match (v4 && !offer.v4, v6 && !offer.v6) {
            (true, true) => Some(format!("the uplink of {name} has no Internet now")),
            (true, false) if !v6 => Some(format!("the uplink of {name} has no IPv4 now")),
            (true, false) => Some(format!("the uplink of {name} has no IPv4: it is an exit for IPv6 alone")),
            (false, true) if !v4 => Some(format!("the uplink of {name} has no IPv6 now")),
            (false, true) => Some(format!("the uplink of {name} has no IPv6: it is an exit for IPv4 alone")),
            (false, false) => None,
        }
    }

    /// Warnings about an exit: its limits, resolvers that are missing or may not be reached.
    pub fn exit_warnings(&self, node: &Node) -> Vec<String> {
        let Some(setting) = &node.exit else { return Vec::new() };
        let private = setting.dns.iter().filter(|addr| super::is_private(**addr));
        let private = private.map(|addr| {
            format!("{addr} is a private address: a resolver there is reached through {} only if the network reaches it", node.name)
        });
        self.exit_limits(node).into_iter().chain(no_resolver(node)).chain(private).collect()
    }

    /// Finds a scope of a node by its name.
    pub fn find_scope(
        &self,
        net: &str,
        node: &str,
        text: &str,
    ) -> Result<(&Node, &Tag, &ScopeSetting), RegistryError> {
        let node = self.find_node(net, node)?;
        let found = node.scopes.iter().find(|(name, _)| name.as_str() == text);
        let missing = || ExitError::NoSuchScope {
            text: text.chars().take(80).collect(),
            node: node.name.clone(),
            known: node.scopes.keys().cloned().collect(),
        };
        let (name, scope) = found.ok_or_else(missing)?;
        Ok((node, name, scope))
    }
}

/// Warning that an exit has no resolver for DNS queries.
fn no_resolver(exit: &Node) -> Option<String> {
    let name = &exit.name;
    exit.exit_offer()?.dns.is_empty().then(|| {
        format!("{name} knows no resolver that others could ask through it: name one with “exit set … {name} --dns IP”")
    })
}

/// Checked resolvers in the order given, without duplicates.
fn resolvers(spec: &[IpAddr]) -> Result<Vec<IpAddr>, RegistryError> {
    check_count("the number of resolvers", spec.len(), RESOLVERS, "0 to 8")?;
    let mut resolvers = Vec::new();
    for &addr in spec {
        if is_special(addr) {
            let why = "a resolver has an address that can be reached from elsewhere";
            return Err(RegistryError::BadPrefix { prefix: Prefix::host(addr), why });
        }
        if !resolvers.contains(&addr) {
            resolvers.push(addr);
        }
    }
    Ok(resolvers)
}

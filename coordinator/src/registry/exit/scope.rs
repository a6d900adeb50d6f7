//! Scopes: Internet traffic of a node that goes through exits.

use super::{ExitError, no_resolver, resolvers};
use crate::registry::{Node, Outcome, Registry, RegistryError, egress::check_routed, range::check_count};
use gatewrt_protocol::{ExitScope, NodeId, Prefix, Tag, Traffic};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Largest number of traffic parts, and of exits, in one scope.
const PARTS: usize = 32;
/// Largest number of excluded destinations of one scope.
const EXCLUDED: usize = 64;
/// Largest number of LANs that a warning lists.
const LANS: usize = 8;

/// Scope as the registry stores it; see [`ExitScope`]. Its name is its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeSetting {
    /// Traffic of the scope.
    pub of: BTreeSet<Traffic>,
    /// Exits in order of preference.
    #[serde(default)]
    pub exits: Vec<NodeId>,
    /// Set to use any other exit after those.
    #[serde(default)]
    pub auto: bool,
    /// Set if the kill switch is off.
    #[serde(default)]
    pub open: bool,
    /// Set if the LAN is not reachable either.
    #[serde(default)]
    pub forbid_lan: bool,
    /// Set if IPv6 stays on the WAN while the exit in use has none.
    #[serde(default)]
    pub v6_wan: bool,
    /// Destinations that are reached directly, without the exit.
    #[serde(default)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers; empty means those of the exit in use.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Set if DNS queries are not redirected.
    #[serde(default)]
    pub keep_dns: bool,
}

/// Handling of IPv6 while the exit in use has IPv4 only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// IPv6 is dropped.
    #[default]
    Block,
    /// IPv6 stays on the WAN.
    Wan,
}

/// Spec of a scope, as an admin requests it. Defaults: kill switch on, LAN reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScopeSpec {
    /// Traffic: `router` (sent by the router itself), `all` (that, and what it forwards for its LANs), an
    /// address or prefix of a LAN, or `dev:<interface>` (received on that interface).
    pub of: Vec<String>,
    /// Names of exits in order of preference; the first that works is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<String>,
    /// Set to use any other exit of the network after those, the nearest that works. Default: on if no exit
    /// is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
    /// Kill switch: while no exit works, the traffic is dropped. Off: it goes out over the WAN.
    #[serde(default = "on")]
    pub kill_switch: bool,
    /// Set if LANs and prefixes of the network stay reachable.
    #[serde(default = "on")]
    pub allow_lan: bool,
    /// Handling of IPv6 while the exit in use has IPv4 only.
    #[serde(default)]
    pub ipv6: Ipv6,
    /// Destinations that are reached directly, without the exit.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers to ask through the exit. Default: those that the exit in use offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Set to redirect all DNS queries to these resolvers; off, they go where hosts send them.
    #[serde(default = "on")]
    pub redirect_dns: bool,
}

fn on() -> bool {
    true
}

impl ScopeSetting {
    /// Scope as the node's assignment states it.
    pub fn record(&self, name: &Tag) -> ExitScope {
        ExitScope {
            name: name.clone(),
            of: self.of.iter().cloned().collect(),
            exits: self.exits.clone(),
            auto: self.auto,
            open: self.open,
            forbid_lan: self.forbid_lan,
            v6_wan: self.v6_wan,
            exclude: self.exclude.iter().copied().collect(),
            dns: self.dns.clone(),
            keep_dns: self.keep_dns,
        }
    }
}

impl Registry {
    /// Sends Internet traffic of a node through an exit, as the scope's spec says.
    pub fn set_scope(&self, net: &str, node: &str, name: &str, spec: &ScopeSpec) -> Outcome<(Node, Tag)> {
        let node = self.find_node(net, node)?;
        let name: Tag = name.parse().map_err(ExitError::BadName)?;
        let count = node.scopes.len() + usize::from(!node.scopes.contains_key(&name));
        check_count("the number of scopes", count, ExitScope::MOST, "0 to 16")?;
        let setting = ScopeSetting {
            of: self.traffic(node, &name, &spec.of)?,
            exits: self.chosen_exits(net, node, &name, &spec.exits)?,
            auto: spec.auto.unwrap_or(spec.exits.is_empty()),
            open: !spec.kill_switch,
            forbid_lan: !spec.allow_lan,
            v6_wan: spec.ipv6 == Ipv6::Wan,
            exclude: excluded(&spec.exclude)?,
            dns: resolvers(&spec.dns)?,
            keep_dns: !spec.redirect_dns,
        };
        if setting.exits.is_empty() && !setting.auto {
            return Err(ExitError::NoExit { scope: name }.into());
        }
        let mut changed = node.clone();
        changed.scopes.insert(name.clone(), setting);
        Ok((changed.row_if_changed(node), (changed, name)))
    }

    /// Deletes a scope: its traffic goes out over the node's WAN again.
    pub fn unset_scope(&self, net: &str, node: &str, name: &str) -> Outcome<Node> {
        let (node, name, _) = self.find_scope(net, node, name)?;
        let mut changed = node.clone();
        changed.scopes.remove(name);
        Ok((changed.row_if_changed(node), changed))
    }

    fn traffic(&self, node: &Node, name: &Tag, texts: &[String]) -> Result<BTreeSet<Traffic>, RegistryError> {
        check_count("the number of parts", texts.len(), PARTS, "1 to 32")?;
        let mut all = BTreeSet::new();
        for text in texts {
            let traffic: Traffic = text.parse().map_err(ExitError::BadTraffic)?;
            let mut others = node.scopes.iter().filter(|(other, _)| *other != name);
            if let Some((other, _)) = others.find(|(_, scope)| scope.of.contains(&traffic)) {
                let (node, other) = (node.name.clone(), other.clone());
                return Err(ExitError::Twice { node, traffic, other }.into());
            }
            all.insert(traffic);
        }
        if all.is_empty() {
            return Err(ExitError::NoTraffic { scope: name.clone() }.into());
        }
        Ok(all)
    }

    /// Ids of the exits that a scope's spec names. An exit that the scope names already is accepted even if it is
    /// switched off by now: the scope is closed then, but other changes to it must not be refused.
    fn chosen_exits(
        &self,
        net: &str,
        node: &Node,
        scope: &Tag,
        names: &[String],
    ) -> Result<Vec<NodeId>, RegistryError> {
        check_count("the number of exits", names.len(), PARTS, "0 to 32")?;
        let mut exits = Vec::new();
        for name in names {
            let exit = self.find_node(net, name)?;
            if exit.id == node.id {
                return Err(ExitError::Itself { node: node.name.clone() }.into());
            }
            let named = node.scopes.get(scope).is_some_and(|scope| scope.exits.contains(&exit.id));
            if exit.exit.is_none() && !named {
                return Err(self.not_an_exit(exit).into());
            }
            if !exits.contains(&exit.id) {
                exits.push(exit.id);
            }
        }
        Ok(exits)
    }

    /// Warnings about a scope: exits that are missing or limited, IPv6 without an exit, unknown traffic.
    pub fn scope_warnings(&self, node: &Node, scope: &ScopeSetting) -> Vec<String> {
        let candidates: Vec<_> = self.candidates(node, scope).collect();
        let none = || {
            let effect = if scope.open { "goes out over the WAN" } else { "is dropped" };
            format!("no other node of this network is an exit yet: this traffic {effect}")
        };
        let none = candidates.is_empty().then(none);
        let gone =
            scope.exits.iter().filter(|exit| self.live_node(**exit).is_none_or(|it| it.exit.is_none()));
        let gone = gone.filter_map(|exit| self.name_of(*exit));
        let gone = gone.map(|name| format!("{name} is no exit any more"));
        let asks = !scope.keep_dns && scope.dns.is_empty();
        let mute = candidates.iter().filter(|_| asks).filter_map(|exit| no_resolver(exit));
        let limits = candidates.iter().filter_map(|exit| self.exit_limits(exit));
        let v6 = candidates.iter().all(|exit| exit.exit_offer().is_some_and(|offer| offer.v4 && !offer.v6));
        let v6 = v6 && !candidates.is_empty();
        let v6 = v6.then(|| {
            let effect = if scope.v6_wan { "goes out over the WAN" } else { "is dropped" };
            format!("IPv6 of this traffic {effect}: none of its exits has IPv6")
        });
        let unknown = scope.of.iter().filter_map(|traffic| unknown(node, traffic));
        none.into_iter().chain(gone).chain(limits).chain(mute).chain(v6).chain(unknown).collect()
    }

    /// Exits that a scope may use now: those it names, in order, then all others if `auto` is on.
    pub fn candidates<'a>(
        &'a self,
        node: &'a Node,
        scope: &'a ScopeSetting,
    ) -> impl Iterator<Item = &'a Node> {
        let named = scope.exits.iter().filter_map(|exit| self.live_node(*exit));
        let named = named.filter(|exit| exit.exit.is_some());
        let others = self.exits(node.net).filter(|_| scope.auto);
        let others = others.filter(|exit| exit.id != node.id && !scope.exits.contains(&exit.id));
        named.chain(others)
    }
}

fn excluded(spec: &BTreeSet<Prefix>) -> Result<BTreeSet<Prefix>, RegistryError> {
    check_count("the number of excluded prefixes", spec.len(), EXCLUDED, "0 to 64")?;
    for &prefix in spec {
        if prefix.is_default() {
            return Err(ExitError::AllExcluded { prefix }.into());
        }
        check_routed(prefix)?;
    }
    Ok(spec.clone())
}

/// LANs and served prefixes of a node, in the family of `prefix`.
fn attached(node: &Node, prefix: Prefix) -> Vec<Prefix> {
    let interfaces = node.facts.interfaces.iter().flat_map(|interface| &interface.prefixes);
    let all: BTreeSet<Prefix> = interfaces.chain(node.egress.keys()).copied().collect();
    all.into_iter().filter(|lan| lan.is_ipv4() == prefix.is_ipv4()).collect()
}

/// Warning about traffic of a scope that the node has not reported to have.
fn unknown(node: &Node, traffic: &Traffic) -> Option<String> {
    let name = &node.name;
    match traffic {
        Traffic::Prefix(prefix) => match &attached(node, *prefix)[..] {
            [] => Some(format!("{name} has not said yet what LANs it has: make sure that {prefix} is one")),
            lans if lans.iter().any(|lan| lan.overlaps(prefix)) => None,
            lans => {
                let lans = lans.iter().take(LANS).map(Prefix::to_string).collect::<Vec<_>>().join(", ");
                Some(format!("{prefix} is no LAN of {name}, as far as it says: what it has: {lans}"))
            }
        },
        Traffic::Device(device) => {
            let known = node.facts.interfaces.iter().any(|interface| interface.name == *device);
            (!known).then(|| format!("{name} has not said that it has an interface {device}"))
        }
        Traffic::Router | Traffic::All => None,
    }
}

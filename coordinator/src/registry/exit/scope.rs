//! Scopes: which of a node's Internet traffic goes through others, and through whom.

use super::{super::rule::check, ExitError, no_resolver, resolvers};
use crate::registry::{Node, Outcome, Registry, RegistryError, egress::check_routed};
use gatewrt_protocol::{ExitScope, NodeId, Prefix, Tag, Traffic};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Parts of a node's traffic in one scope, and exits that it can name.
const PARTS: usize = 32;
/// Destinations that one scope leaves out.
const EXCLUDED: usize = 64;

/// A scope as it is kept: see [`ExitScope`], whose name is its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeSetting {
    /// Which traffic.
    pub of: BTreeSet<Traffic>,
    /// Exits in the order in which they are taken.
    #[serde(default)]
    pub exits: Vec<NodeId>,
    /// After those, any other.
    #[serde(default)]
    pub auto: bool,
    /// The kill switch is off.
    #[serde(default)]
    pub open: bool,
    /// The LAN is out of reach too.
    #[serde(default)]
    pub forbid_lan: bool,
    /// IPv6 stays on the WAN while the exit in use has none.
    #[serde(default)]
    pub v6_wan: bool,
    /// Destinations that are reached as if there were no exit.
    #[serde(default)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers; none are those of the exit in use.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// DNS queries go where their hosts send them.
    #[serde(default)]
    pub keep_dns: bool,
}

/// What becomes of IPv6 while the exit in use leads to IPv4 alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// It goes nowhere.
    #[default]
    Block,
    /// It stays on the WAN.
    Wan,
}

/// What an admin asks of a scope; what is left out has its default: closed, and the LAN as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScopeWish {
    /// Which traffic: `router` (what the router sends itself), `all` (that, and what it forwards for its LANs), an
    /// address or a prefix of a LAN, or `dev:<interface>` (what comes in there).
    pub of: Vec<String>,
    /// Names of exits in the order in which they are taken; of those that work the first is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exits: Vec<String>,
    /// After those, any other exit of the network: the nearest that works. Default: where no exit is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
    /// While no exit works the traffic goes nowhere; off, it goes out over the WAN.
    #[serde(default = "on")]
    pub kill_switch: bool,
    /// LANs and prefixes of the network are reached as they were.
    #[serde(default = "on")]
    pub allow_lan: bool,
    /// What becomes of IPv6 while the exit in use leads to IPv4 alone.
    #[serde(default)]
    pub ipv6: Ipv6,
    /// Destinations that are reached as if there were no exit.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = BTreeSet<String>)]
    pub exclude: BTreeSet<Prefix>,
    /// Resolvers to ask through the exit. Default: those that the exit in use offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// DNS queries go to these, whomever their hosts ask; off, they go where their hosts send them.
    #[serde(default = "on")]
    pub redirect_dns: bool,
}

fn on() -> bool {
    true
}

impl ScopeSetting {
    /// As its node is told of it.
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
    /// Sends traffic of a node through an exit, or changes how.
    pub fn set_scope(&self, net: &str, node: &str, name: &str, wish: &ScopeWish) -> Outcome<(Node, Tag)> {
        let node = self.find_node(net, node)?;
        let name: Tag = name.parse().map_err(ExitError::BadName)?;
        let count = node.scopes.len() + usize::from(!node.scopes.contains_key(&name));
        check("the number of scopes", count, ExitScope::MOST, "0 to 16")?;
        let setting = ScopeSetting {
            of: self.traffic(node, &name, &wish.of)?,
            exits: self.chosen_exits(net, node, &name, &wish.exits)?,
            auto: wish.auto.unwrap_or(wish.exits.is_empty()),
            open: !wish.kill_switch,
            forbid_lan: !wish.allow_lan,
            v6_wan: wish.ipv6 == Ipv6::Wan,
            exclude: excluded(&wish.exclude)?,
            dns: resolvers(&wish.dns)?,
            keep_dns: !wish.redirect_dns,
        };
        if setting.exits.is_empty() && !setting.auto {
            return Err(ExitError::NoExit { scope: name }.into());
        }
        let mut changed = node.clone();
        changed.scopes.insert(name.clone(), setting);
        Ok((changed.row_if_changed(node), (changed, name)))
    }

    /// Lets traffic of a node go out over its WAN again.
    pub fn unset_scope(&self, net: &str, node: &str, name: &str) -> Outcome<Node> {
        let (node, name, _) = self.find_scope(net, node, name)?;
        let mut changed = node.clone();
        changed.scopes.remove(name);
        Ok((changed.row_if_changed(node), changed))
    }

    fn traffic(&self, node: &Node, name: &Tag, texts: &[String]) -> Result<BTreeSet<Traffic>, RegistryError> {
        check("the number of parts", texts.len(), PARTS, "1 to 32")?;
        let mut all = BTreeSet::new();
        for text in texts {
            let traffic: Traffic = text.parse().map_err(ExitError::BadTraffic)?;
            let mut others = node.scopes.iter().filter(|(other, _)| *other != name);
            if let Some((other, _)) = others.find(|(_, scope)| scope.of.contains(&traffic)) {
                let (node, other) = (node.name.clone(), other.clone());
                return Err(ExitError::Twice { node, traffic, other }.into());
            }
            if let Traffic::Prefix(prefix) = traffic {
                check_lan(node, prefix)?;
            }
            all.insert(traffic);
        }
        if all.is_empty() {
            return Err(ExitError::NoTraffic { scope: name.clone() }.into());
        }
        Ok(all)
    }

    /// One that the scope has named all along may be switched off by now: that closes it, and is no reason to refuse what
    /// else is to be changed.
    fn chosen_exits(
        &self,
        net: &str,
        node: &Node,
        scope: &Tag,
        names: &[String],
    ) -> Result<Vec<NodeId>, RegistryError> {
        check("the number of exits", names.len(), PARTS, "0 to 32")?;
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

    /// What will surprise about a scope.
    pub fn scope_warnings(&self, node: &Node, scope: &ScopeSetting) -> Vec<String> {
        let candidates: Vec<_> = self.candidates(node, scope).collect();
        let none = || {
            let fate = if scope.open { "goes out over the WAN" } else { "goes nowhere" };
            format!("no other node of this network is an exit yet: this traffic {fate}")
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
            let fate = if scope.v6_wan { "goes out over the WAN" } else { "goes nowhere" };
            format!("IPv6 of this traffic {fate}: none of its exits has IPv6")
        });
        let unknown = scope.of.iter().filter_map(|traffic| unknown(node, traffic));
        none.into_iter().chain(gone).chain(limits).chain(mute).chain(v6).chain(unknown).collect()
    }

    /// The exits that a scope may use now: those it names, in order, then all others where it takes any.
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

fn excluded(wish: &BTreeSet<Prefix>) -> Result<BTreeSet<Prefix>, RegistryError> {
    check("the number of excluded prefixes", wish.len(), EXCLUDED, "0 to 64")?;
    for &prefix in wish {
        if prefix.is_default() {
            return Err(ExitError::AllExcluded { prefix }.into());
        }
        check_routed(prefix)?;
    }
    Ok(wish.clone())
}

/// Refuses hosts that are not at this node, as far as it has said what is.
fn check_lan(node: &Node, prefix: Prefix) -> Result<(), RegistryError> {
    let lans = attached(node, prefix);
    if lans.is_empty() || lans.iter().any(|lan| lan.overlaps(&prefix)) {
        return Ok(());
    }
    Err(ExitError::NoLan { node: node.name.clone(), prefix, lans }.into())
}

/// What is at a node, in the family of `prefix`.
fn attached(node: &Node, prefix: Prefix) -> Vec<Prefix> {
    let interfaces = node.facts.interfaces.iter().flat_map(|interface| &interface.prefixes);
    let all: BTreeSet<Prefix> = interfaces.chain(node.egress.keys()).copied().collect();
    all.into_iter().filter(|lan| lan.is_ipv4() == prefix.is_ipv4()).collect()
}

/// Traffic that its node has not said it has.
fn unknown(node: &Node, traffic: &Traffic) -> Option<String> {
    let name = &node.name;
    match traffic {
        Traffic::Prefix(prefix) => attached(node, *prefix)
            .is_empty()
            .then(|| format!("{name} has not said yet what LANs it has: make sure that {prefix} is one")),
        Traffic::Device(device) => {
            let known = node.facts.interfaces.iter().any(|interface| interface.name == *device);
            (!known).then(|| format!("{name} has not said that it has an interface {device}"))
        }
        Traffic::Router | Traffic::All => None,
    }
}

//! Scopes in the desired state: the interface to each exit, and each scope's rules and routing table. The exit of a scope
//! was decided [before](super::super::scopes).
//!
//! A scope of the router and its LANs has two parts with a table each: the router itself reaches hosts on its WAN link (the
//! provider's DHCP server, the gateway), a LAN host does not (the provider's resolver).
//!
//! A destination that a part's table throws is not for the less specific parts after it either: a second rule skips them,
//! and the lookup goes on with the router's other rules.

mod answered;
mod sources;
mod tables;

use super::super::{
    Network,
    scopes::Scope,
    uplinks::{LocalRoutes, lan_links, outer_links},
};
use crate::{
    model::{
        Desired, Exits, Family, IfName, LinkKind, Observed, Route, RouteKind, Rule, ScopeFlows, ScopeGuard,
        Source, WgDevice,
    },
    ownership::{EXIT_ID, EXIT_PREFIX, INTERFACE_PREFIX, ReservedNumbers},
};
use gatewrt_protocol::{ExitScope, Member, NodeId, Prefix, ScopeState, Traffic, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use sources::device;
use std::{cmp::Reverse, net::IpAddr};
use tables::{selector, tables};

pub(super) use answered::answered_flows;
pub(super) use sources::{devices, unfit_sources};

/// Number of parts that fit before the rule that is skipped to.
const ROOM: usize = 2 * ExitScope::MOST;
/// Metric after all others in a table.
const LAST: u32 = u32::MAX;

/// Scopes of one network, and the interfaces of the exits they use.
pub(super) struct Usage {
    pub(super) scopes: Vec<Scope>,
    /// Main interface of the network.
    pub(super) link: IfName,
    /// Exit whose default routes are on the main interface.
    pub(super) main: Option<NodeId>,
    /// Other exits in use, each on a secondary interface of its own.
    pub(super) secondary: LiteMap<NodeId, IfName>,
    /// Exits in use by node: key, and whether it carries IPv4.
    ways: LiteMap<NodeId, (WgPublicKey, bool)>,
}

impl Usage {
    /// Usage of exits by the scopes of one network. The exit that has the default routes keeps them while it is in use,
    /// so that connections go on.
    pub(super) fn new(scopes: Vec<Scope>, network: &Network, link: IfName, observed: &Observed) -> Self {
        let in_use = |member: &&Member| scopes.iter().any(|scope| scope.uses() == Some(member.node));
        let members = network.directory.peers().filter(in_use);
        let v4 = |member: &Member| member.exit.as_ref().is_none_or(|offer| offer.v4);
        let ways: LiteMap<_, _> = members.map(|member| (member.node, (member.key, v4(member)))).collect();
        let device = observed.devices.get(&link);
        let stays = |(_, (key, _)): &(&NodeId, &(WgPublicKey, bool))| has_default(device, key);
        let main = ways.iter().find(stays).or(ways.iter().next()).map(|(node, _)| *node);
        let others = ways.keys().filter(|node| Some(**node) != main);
        let secondary = others.filter_map(|node| Some((*node, secondary_link(*node)?))).collect();
        Self { scopes, link, main, secondary, ways }
    }

    /// Default routes to an exit, in the families that it carries for a scope of this router.
    pub(super) fn defaults(&self, node: NodeId) -> impl Iterator<Item = Prefix> {
        let wanted = move |family: &Family| {
            self.scopes.iter().any(|scope| scope.uses() == Some(node) && self.leads(scope, *family))
        };
        Family::ALL.into_iter().filter(wanted).map(default)
    }

    /// Interfaces by which the scopes of a network leave.
    pub(super) fn links(&self) -> impl Iterator<Item = &IfName> {
        self.secondary.values().chain(self.main.map(|_| &self.link))
    }

    /// True if Internet traffic of LANs leaves by an exit too, not only the router's own.
    pub(super) fn forwards(&self) -> bool {
        self.scopes.iter().any(|scope| scope.asked.of.iter().any(|of| *of != Traffic::Router))
    }

    fn leads(&self, scope: &Scope, family: Family) -> bool {
        let way = scope.uses().and_then(|node| self.ways.get(&node));
        way.is_some_and(|(_, v4)| if family == Family::V4 { *v4 } else { scope.v6 })
    }

    /// Interface and WireGuard key of the exit that carries a scope's traffic of a family.
    fn way(&self, scope: &Scope, family: Family) -> Option<(IfName, WgPublicKey)> {
        let node = scope.uses().filter(|_| self.leads(scope, family))?;
        let link = self.secondary.get(&node).unwrap_or(&self.link);
        Some((link.clone(), self.ways.get(&node)?.0))
    }
}

impl Scope {
    /// Exit that carries the scope's traffic now; `None` while none does.
    fn uses(&self) -> Option<NodeId> {
        self.exit.filter(|_| self.state == ScopeState::Exit)
    }
}

fn has_default(device: Option<&WgDevice>, key: &WgPublicKey) -> bool {
    let peer = device.and_then(|device| device.peers.get(key));
    peer.is_some_and(|peer| peer.allowed.iter().any(Prefix::is_default))
}

fn secondary_link(node: NodeId) -> Option<IfName> {
    IfName::new(&format!("{EXIT_PREFIX}{:.EXIT_ID$}", node.to_string()))
}

/// Secondary exit interfaces among the observed interfaces. Every interface with such a name is ours.
pub(super) fn secondary_links(observed: &Observed) -> impl Iterator<Item = &IfName> {
    observed.links.keys().filter(|link| is_secondary(link))
}

/// True if an interface is a secondary exit interface, by its name.
pub fn is_secondary(link: &IfName) -> bool {
    link.as_str().starts_with(EXIT_PREFIX)
}

/// Part of a scope, which has either the router's own traffic or that of LANs: one table, two priorities of rules.
struct Part<'a> {
    usage: &'a Usage,
    scope: &'a Scope,
    router: bool,
    sources: SortedSet<Source>,
    /// Prefixes of the links among the sources.
    near: SortedSet<Prefix>,
    rank: (u8, Reverse<u8>),
}

/// Context from which the routes and rules of scopes are built.
pub(super) struct Context<'a> {
    pub(super) numbers: &'a ReservedNumbers,
    pub(super) observed: &'a Observed,
    pub(super) before: &'a Desired,
    pub(super) lans: &'a SortedSet<IfName>,
    /// Prefixes of each link, or those that it had last.
    pub(super) prefixes: &'a LiteMap<IfName, SortedSet<Prefix>>,
    /// Uplinks, some of which may be LANs too.
    pub(super) uplinks: &'a SortedSet<IfName>,
    /// Links that scopes name.
    pub(super) devices: &'a SortedSet<IfName>,
    /// Prefixes of our networks, each with its interface.
    pub(super) leads: &'a LiteMap<Prefix, IfName>,
}

/// Routes, rules and firewall policy by which all scopes are laid out in the kernel.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    pub(super) exits: Exits,
    pub(super) flows: Vec<ScopeFlows>,
    /// Priority of the rules of answered flows: after those of all scopes.
    answered: u32,
    /// Prefixes of the links of scopes.
    near: SortedSet<Prefix>,
}

/// Links of LANs that exist, and those that the scopes' rules name: a link comes up before the next observation, and what
/// comes in by it must not leave by the WAN meanwhile.
pub(super) fn lans(observed: &Observed, before: &Desired, numbers: &ReservedNumbers) -> SortedSet<IfName> {
    let wans = outer_links(observed);
    let mut lans = lan_links(observed);
    for rules in [&observed.rules, &before.rules] {
        lans.extend(ruled_links(rules, numbers).filter(|link| !wans.contains(link)).cloned());
    }
    lans
}

/// Links of LANs that the rules of scopes name.
pub fn ruled_links<'a>(
    rules: &'a SortedSet<Rule>,
    numbers: &ReservedNumbers,
) -> impl Iterator<Item = &'a IfName> + use<'a> {
    let first = numbers.exit_table;
    let ours = rules.iter().filter(move |rule| rule.table >= first);
    ours.filter_map(|rule| rule.iif.as_ref()).filter(|link| link.as_str() != "lo")
}

/// Builds the layout of all networks' scopes in the kernel.
pub(super) fn build(usages: &[Usage], context: &Context<'_>) -> Layout {
    let mut parts = Vec::new();
    usages.iter().for_each(|usage| add_parts(usage, context, &mut parts));
    parts.sort_by_key(|part| part.rank);
    let known = LocalRoutes::new(context.observed);
    let mut layout = Layout::default();
    let end = context.numbers.exit_priority + 2 * (parts.len().max(ROOM) as u32);
    for (at, (part, table)) in (0..).zip(parts.iter().zip(tables(&parts, context))) {
        let throws = part.apart(&known);
        layout.routes.extend(part.routes(table, &throws, &known, context.numbers));
        // Every second priority: the one after it skips.
        let place = 2 * at as u32;
        let priority = context.numbers.exit_priority + place;
        layout.rules.extend(part.rules(table, priority, context.numbers));
        if parts.iter().skip(at).any(|other| other.scope.asked.name != part.scope.asked.name) {
            layout.rules.extend(part.rules(Rule::SKIP | end, priority + 1, context.numbers));
        }
        layout.exits.scopes.insert((place, part.scope.asked.name.clone()), part.guard(&known));
        layout.flows.push(part.flows(throws, context));
    }
    layout.answered = end + 1;
    layout.near = parts.iter().flat_map(|part| part.near.iter().copied()).collect();
    if layout.rules.iter().any(|rule| rule.skips_to().is_some()) {
        layout.rules.extend(Family::ALL.map(|family| landing(family, end, context.numbers)));
    }
    for usage in usages {
        layout
            .exits
            .secondary
            .extend(usage.secondary.values().map(|link| (link.clone(), usage.link.clone())));
    }
    if !parts.is_empty() {
        let is_stranger = |link: &IfName| !link.as_str().starts_with(INTERFACE_PREFIX);
        let tunnels = context.observed.links.iter().filter(|(_, link)| link.kind != LinkKind::Other);
        layout.exits.strangers = tunnels.map(|(name, _)| name.clone()).filter(is_stranger).collect();
        layout.exits.uplinks = context.uplinks.clone();
        layout.exits.local = known.by_link();
        layout.exits.beside = known.beside;
    }
    layout
}

/// Policy rule that the skipping rules of scopes jump to, since a goto needs one. Its lookup finds nothing that was not
/// found before.
fn landing(family: Family, priority: u32, numbers: &ReservedNumbers) -> Rule {
    let (mask, table) = (numbers.mask, numbers.table);
    Rule { family, priority, mark: 0, mask, invert: false, table, iif: None, from: None }
}

fn add_parts<'a>(usage: &'a Usage, context: &Context<'_>, parts: &mut Vec<Part<'a>>) {
    let rank = (4, Reverse(0));
    for scope in &usage.scopes {
        let part =
            |router| Part { usage, scope, router, sources: SortedSet::new(), near: SortedSet::new(), rank };
        let (mut own, mut lan) = (part(true), part(false));
        for of in &scope.asked.of {
            match of {
                Traffic::Prefix(prefix) => {
                    lan.take((0, prefix.len()), Some(Source::Prefix(*prefix)));
                    lan.sources.extend(context.other_halves(prefix));
                }
                Traffic::Device(name) => lan.take((1, 0), device(name).map(Source::Link)),
                Traffic::Router => own.take((2, 0), Some(Source::Router)),
                Traffic::All => {
                    own.take((3, 0), Some(Source::Router));
                    lan.take((3, 0), None);
                    lan.sources.extend(context.lans.iter().cloned().map(Source::Link));
                }
            }
        }
        if scope.all_lans {
            lan.sources.push(Source::Anyone);
        }
        for source in &lan.sources {
            lan.near.extend(context.near(source).copied());
        }
        for part in [lan, own] {
            if !part.sources.is_empty() {
                parts.push(part);
            }
        }
    }
}

impl Part<'_> {
    fn take(&mut self, (class, len): (u8, u8), source: Option<Source>) {
        self.sources.extend(source);
        self.rank = self.rank.min((class, Reverse(len)));
    }

    /// Destinations that a part of a scope leaves alone, since they are local or excluded. The router has to answer its
    /// LANs whatever they are forbidden.
    fn apart(&self, known: &LocalRoutes) -> SortedSet<Prefix> {
        let mut apart: SortedSet<Prefix> = self.scope.asked.exclude.iter().copied().collect();
        if self.router || !self.scope.asked.forbid_lan {
            apart.extend(known.inside.keys().copied());
        }
        if self.router {
            apart.extend(known.beside.iter().copied().chain(LocalRoutes::of_links()));
        }
        apart
    }

    fn routes(
        &self,
        table: u32,
        apart: &SortedSet<Prefix>,
        known: &LocalRoutes,
        numbers: &ReservedNumbers,
    ) -> Vec<Route> {
        let route = |prefix, metric, kind| Route { table, prefix, metric, kind };
        let forbidden = known.inside.keys().filter(|prefix| !apart.contains(*prefix));
        let mut routes: Vec<_> =
            forbidden.map(|to| route(*to, numbers.metric, RouteKind::Blackhole)).collect();
        routes.extend(apart.iter().map(|to| route(*to, numbers.metric, RouteKind::Throw)));
        for family in Family::ALL {
            let way = self.default(family);
            if way.is_none() || !self.scope.asked.open {
                routes.push(route(default(family), LAST, RouteKind::Blackhole));
            }
            routes.extend(way.map(|kind| route(default(family), numbers.metric, kind)));
        }
        routes
    }

    /// Kind of the default route in the table of a scope's part; `None` where nothing may leave.
    fn default(&self, family: Family) -> Option<RouteKind> {
        match self.scope.state {
            ScopeState::Exit => match self.usage.way(self.scope, family) {
                Some((link, _)) => Some(RouteKind::Device(link)),
                None => self.is_on_wan(family).then_some(RouteKind::Throw),
            },
            ScopeState::Wan => Some(RouteKind::Throw),
            ScopeState::Blocked | ScopeState::Other => None,
        }
    }

    fn is_on_wan(&self, family: Family) -> bool {
        let through = self.scope.state == ScopeState::Exit && !self.usage.leads(self.scope, family);
        through && family == Family::V6 && self.scope.asked.v6_wan
    }

    fn rules(&self, table: u32, priority: u32, numbers: &ReservedNumbers) -> Vec<Rule> {
        let (mask, mut rules) = (numbers.mask, Vec::new());
        for source in &self.sources {
            let Some((iif, from, only)) = selector(source) else { continue };
            for family in Family::ALL {
                if only.is_none_or(|only| only == family) {
                    let iif = iif.clone();
                    rules.push(Rule { family, priority, mark: 0, mask, invert: false, table, iif, from });
                }
            }
        }
        rules
    }

    fn guard(&self, known: &LocalRoutes) -> ScopeGuard {
        let asked = &self.scope.asked;
        let of_router = known.beside.iter().copied().chain(LocalRoutes::of_links()).filter(|_| self.router);
        ScopeGuard {
            sources: self.sources.clone(),
            near: self.near.clone(),
            closed: !asked.open,
            forbids: asked.forbid_lan,
            v6_wan: self.is_on_wan(Family::V6),
            exclude: asked.exclude.iter().copied().chain(of_router).collect(),
            resolvers: self.resolvers(),
            redirects: !asked.keep_dns,
            router_answers: self.router_answers(),
        }
    }

    fn flows(&self, mut apart: SortedSet<Prefix>, context: &Context<'_>) -> ScopeFlows {
        apart.extend(context.leads.keys().copied());
        let mut sources = SortedSet::new();
        for source in &self.sources {
            match source {
                Source::Prefix(prefix) => drop(sources.push(*prefix)),
                Source::Link(_) | Source::Half(..) => sources.extend(self.near.iter().copied()),
                Source::Router => {
                    let own = context.observed.addresses.iter().filter(|own| !own.addr.is_loopback());
                    sources.extend(own.map(|own| Prefix::host(own.addr)));
                }
                Source::Anyone => {}
            }
        }
        let goes_out = |family: &Family| self.default(*family) == Some(RouteKind::Throw);
        // An exit is the same way on whichever interface it is.
        let way = |family| {
            let (_, key) = self.usage.way(self.scope, family)?;
            Some((self.usage.link.clone(), key))
        };
        ScopeFlows {
            sources,
            router: self.router,
            apart,
            v4: way(Family::V4),
            v6: way(Family::V6),
            closed: Family::ALL.into_iter().filter(|family| !goes_out(family)).collect(),
            // A query that the router answers took no wrong way.
            resolvers: if self.router_answers() { Vec::new() } else { self.resolvers() },
        }
    }

    /// True if the router itself is in the same scope as its LANs: its own queries go to the same resolvers.
    fn router_answers(&self) -> bool {
        let of_router = |of: &Traffic| matches!(of, Traffic::Router | Traffic::All);
        !self.router && self.scope.asked.of.iter().any(of_router)
    }

    fn resolvers(&self) -> Vec<IpAddr> {
        let asked = &self.scope.asked;
        if asked.keep_dns { Vec::new() } else { self.scope.resolvers.clone() }
    }
}

fn default(family: Family) -> Prefix {
    let text = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("a default route")
}

#[cfg(test)]
mod tests;

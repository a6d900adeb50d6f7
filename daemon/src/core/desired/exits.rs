//! Scopes in a kernel: which interface leads to which exit, and each scope's rules and routing table. What becomes of a
//! scope is decided [before](super::super::scopes).
//!
//! A scope of the router and its LANs is two parts with a table each: the router itself reaches what its WAN is
//! connected to (the provider's DHCP server, the gateway), a LAN host does not (the provider's resolver).
//!
//! What a part's table throws is not for the parts after it either, which are less precise: a second rule skips them,
//! and the search goes on with whatever else the router has.

use super::super::{
    Network,
    place::{lan_links, outer_links},
    scopes::Scope,
};
use super::known::Known;
use crate::{
    gather::Gather,
    model::{Address, Desired, Family, IfName, Observed, Route, RouteKind, Rule, WgDevice},
    ownership::{EXIT_ID, EXIT_PREFIX, INTERFACE_PREFIX, Numbers},
    plan::{Exits, ScopeFlows, ScopeGuard, Source},
    sorted::{SortedMap, SortedSet, sort_by_key},
};
use gatewrt_protocol::{ExitScope, Failure, Member, NodeId, Prefix, ScopeState, Traffic, WgPublicKey};
use std::{cmp::Reverse, net::IpAddr};

/// So many parts have room before the rule that is skipped to.
const USUAL: usize = 2 * ExitScope::MOST;
/// After everything else in a table.
const LAST: u32 = u32::MAX;

/// The scopes of one network, and where the exits that they use are reached.
pub(super) struct Usage {
    pub(super) scopes: Vec<Scope>,
    /// The network's own interface.
    pub(super) link: IfName,
    /// The exit that has the default routes there.
    pub(super) main: Option<NodeId>,
    /// Those that are used at the same time, each on an interface of its own.
    pub(super) beside: SortedMap<NodeId, IfName>,
    /// Exits by node: key, and the families that they lead to.
    ways: SortedMap<NodeId, (WgPublicKey, bool)>,
}

impl Usage {
    /// Who has the default routes now keeps them while it is used: connections go on.
    pub(super) fn new(scopes: Vec<Scope>, network: &Network, link: IfName, observed: &Observed) -> Self {
        let in_use = |member: &&Member| scopes.iter().any(|scope| scope.uses() == Some(member.node));
        let members = network.directory.peers().filter(in_use);
        let v4 = |member: &Member| member.exit.as_ref().is_none_or(|offer| offer.v4);
        let ways: SortedMap<_, _> = members.map(|member| (member.node, (member.key, v4(member)))).collect();
        let device = observed.devices.get(&link);
        let stays = |(_, (key, _)): &(&NodeId, &(WgPublicKey, bool))| has_default(device, key);
        let main = ways.iter().find(stays).or(ways.iter().next()).map(|(node, _)| *node);
        let others = ways.keys().filter(|node| Some(**node) != main);
        let beside = others.filter_map(|node| Some((*node, link_beside(*node)?))).collect();
        Self { scopes, link, main, beside, ways }
    }

    /// Default routes, as far as a peer leads to the Internet for a scope of ours.
    pub(super) fn defaults(&self, node: NodeId) -> impl Iterator<Item = Prefix> {
        let wanted = move |family: &Family| {
            self.scopes.iter().any(|scope| scope.uses() == Some(node) && self.leads(scope, *family))
        };
        Family::ALL.into_iter().filter(wanted).map(default)
    }

    /// Interfaces over which scopes leave.
    pub(super) fn links(&self) -> impl Iterator<Item = &IfName> {
        self.beside.values().chain(self.main.map(|_| &self.link))
    }

    /// Whether a LAN's traffic leaves, beside the router's own.
    pub(super) fn forwards(&self) -> bool {
        self.scopes.iter().any(|scope| scope.asked.of.iter().any(|of| *of != Traffic::Router))
    }

    fn leads(&self, scope: &Scope, family: Family) -> bool {
        let way = scope.uses().and_then(|node| self.ways.get(&node));
        way.is_some_and(|(_, v4)| if family == Family::V4 { *v4 } else { scope.v6 })
    }

    /// The interface and key of the exit that takes a scope's traffic of a family.
    fn way(&self, scope: &Scope, family: Family) -> Option<(IfName, WgPublicKey)> {
        let node = scope.uses().filter(|_| self.leads(scope, family))?;
        let link = self.beside.get(&node).unwrap_or(&self.link);
        Some((link.clone(), self.ways.get(&node)?.0))
    }
}

impl Scope {
    /// The exit that its traffic goes to now.
    fn uses(&self) -> Option<NodeId> {
        self.exit.filter(|_| self.state == ScopeState::Exit)
    }
}

fn has_default(device: Option<&WgDevice>, key: &WgPublicKey) -> bool {
    let peer = device.and_then(|device| device.peers.get(key));
    peer.is_some_and(|peer| peer.allowed.iter().any(Prefix::is_default))
}

fn link_beside(node: NodeId) -> Option<IfName> {
    IfName::new(&format!("{EXIT_PREFIX}{:.EXIT_ID$}", node.to_string()))
}

/// Interfaces of exits used beside others. Whatever is called so is ours.
pub(super) fn links_beside(observed: &Observed) -> impl Iterator<Item = &IfName> {
    observed.links.keys().filter(|link| is_beside(link))
}

/// Whether an interface is called as those of exits used beside others.
pub fn is_beside(link: &IfName) -> bool {
    link.as_str().starts_with(EXIT_PREFIX)
}

/// A scope's share of the rules: one table, two priorities.
struct Part<'a> {
    usage: &'a Usage,
    scope: &'a Scope,
    router: bool,
    sources: SortedSet<Source>,
    rank: (u8, Reverse<u8>),
}

/// What of the surroundings a scope must know.
pub(super) struct Around<'a> {
    pub(super) numbers: &'a Numbers,
    pub(super) observed: &'a Observed,
    pub(super) before: &'a Desired,
    pub(super) lans: &'a SortedSet<IfName>,
    /// Prefixes of our networks, and which interface leads there.
    pub(super) leads: &'a SortedMap<Prefix, IfName>,
}

/// What all scopes come to.
#[derive(Default)]
pub(super) struct Laid {
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    pub(super) exits: Exits,
    pub(super) flows: Vec<ScopeFlows>,
}

/// The links of LANs that are there, and those that scopes knew last, which the rules tell: a link comes up before
/// anyone has looked, and what comes in over it must not leave by the WAN meanwhile.
pub(super) fn lans(observed: &Observed, before: &Desired, numbers: &Numbers) -> SortedSet<IfName> {
    let wans = outer_links(observed);
    let mut lans = lan_links(observed);
    for rules in [&observed.rules, &before.rules] {
        let ours = rules.iter().filter(|rule| rule.table >= numbers.exit_table);
        let known = ours.filter_map(|rule| rule.iif.as_ref());
        lans.extend(known.filter(|link| link.as_str() != "lo" && !wans.contains(link)).cloned());
    }
    lans
}

/// Lays out the scopes of all networks.
pub(super) fn lay(usages: &[Usage], around: &Around<'_>) -> Laid {
    let mut parts = Vec::new();
    usages.iter().for_each(|usage| add_parts(usage, around, &mut parts));
    sort_by_key(&mut parts, |part| part.rank);
    let known = Known::new(around.observed);
    let mut laid = Laid::default();
    let end = around.numbers.exit_priority + 2 * (parts.len().max(USUAL) as u32);
    for (at, (part, table)) in (0..).zip(parts.iter().zip(tables(&parts, around))) {
        let throws = part.apart(&known);
        laid.routes.extend(part.routes(table, &throws, &known, around.numbers));
        // Every other: the one after it skips.
        let place = 2 * at as u32;
        let priority = around.numbers.exit_priority + place;
        laid.rules.extend(part.rules(table, priority, around.numbers));
        if parts.iter().skip(at).any(|other| other.scope.asked.name != part.scope.asked.name) {
            laid.rules.extend(part.rules(Rule::SKIP | end, priority + 1, around.numbers));
        }
        laid.exits.scopes.insert((place, part.scope.asked.name.clone()), part.guard(&known));
        laid.flows.push(part.flows(throws, around));
    }
    if laid.rules.iter().any(|rule| rule.skips_to().is_some()) {
        laid.rules.extend(Family::ALL.map(|family| landing(family, end, around.numbers)));
    }
    for usage in usages {
        laid.exits.beside.extend(usage.beside.values().map(|link| (link.clone(), usage.link.clone())));
    }
    if !parts.is_empty() {
        laid.exits.inside = around.lans.clone();
        laid.exits.inside.extend(known.inside.values().cloned());
    }
    laid
}

/// What is skipped to has to be a rule: this one finds nothing that was not found before.
fn landing(family: Family, priority: u32, numbers: &Numbers) -> Rule {
    let (mask, table) = (numbers.mask, numbers.table);
    Rule { family, priority, mark: 0, mask, invert: false, table, iif: None, from: None }
}

fn add_parts<'a>(usage: &'a Usage, around: &Around<'_>, parts: &mut Vec<Part<'a>>) {
    let wans = outer_links(around.observed);
    for scope in &usage.scopes {
        let part = |router| Part { usage, scope, router, sources: SortedSet::new(), rank: (4, Reverse(0)) };
        let (mut own, mut lan) = (part(true), part(false));
        for of in &scope.asked.of {
            match of {
                Traffic::Prefix(prefix) => lan.take((0, prefix.len()), Some(Source::Prefix(*prefix))),
                Traffic::Device(name) => lan.take((1, 0), of_lan(name, &wans).map(Source::Link)),
                Traffic::Router => own.take((2, 0), Some(Source::Router)),
                Traffic::All => {
                    own.take((3, 0), Some(Source::Router));
                    lan.take((3, 0), None);
                    lan.sources.extend(around.lans.iter().cloned().map(Source::Link));
                }
            }
        }
        for part in [lan, own] {
            if !part.sources.is_empty() {
                parts.push(part);
            }
        }
    }
}

fn of_lan(name: &str, wans: &SortedSet<IfName>) -> Option<IfName> {
    let is_lan = |link: &IfName| !wans.contains(link) && !link.as_str().starts_with(INTERFACE_PREFIX);
    IfName::new(name).filter(is_lan)
}

/// What of the scopes can't be taken through an exit.
pub(super) fn strangers(scopes: &[Scope], observed: &Observed) -> Vec<Failure> {
    let wans = outer_links(observed);
    let mut failures = Vec::new();
    for scope in scopes {
        for of in &scope.asked.of {
            let Traffic::Device(name) = of else { continue };
            if of_lan(name, &wans).is_none() {
                failures.push(Failure {
                    what: format!("take the Internet traffic of dev:{name} through an exit"),
                    why: "it is no interface of a LAN: it leads to the Internet, or is a network's"
                        .to_owned(),
                });
            }
        }
    }
    failures
}

impl Part<'_> {
    fn take(&mut self, (class, len): (u8, u8), source: Option<Source>) {
        self.sources.extend(source);
        self.rank = self.rank.min((class, Reverse(len)));
    }

    /// Destinations that it does not concern. The router has to answer its LANs whatever they are forbidden.
    fn apart(&self, known: &Known) -> SortedSet<Prefix> {
        let mut apart: SortedSet<Prefix> = self.scope.asked.exclude.iter().copied().collect();
        if self.router || !self.scope.asked.forbid_lan {
            apart.extend(known.inside.keys().copied());
        }
        if self.router {
            apart.extend(known.uplinks.iter().copied());
        }
        apart
    }

    fn routes(&self, table: u32, apart: &SortedSet<Prefix>, known: &Known, numbers: &Numbers) -> Vec<Route> {
        let route = |prefix, metric, kind| Route { table, prefix, metric, kind };
        let forbidden = known.inside.keys().filter(|prefix| !apart.contains(*prefix));
        let mut routes: Vec<_> =
            forbidden.map(|to| route(*to, numbers.metric, RouteKind::Blackhole)).gather();
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

    /// What the default route does; `None` where nothing is let out.
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

    fn rules(&self, table: u32, priority: u32, numbers: &Numbers) -> Vec<Rule> {
        let (mask, mut rules) = (numbers.mask, Vec::new());
        for source in &self.sources {
            for family in Family::ALL {
                let (iif, from) = selector(source);
                if from.is_none_or(|from| Family::of(&from) == family) {
                    rules.push(Rule { family, priority, mark: 0, mask, invert: false, table, iif, from });
                }
            }
        }
        rules
    }

    fn guard(&self, known: &Known) -> ScopeGuard {
        let asked = &self.scope.asked;
        let uplinks = known.uplinks.iter().filter(|_| self.router);
        ScopeGuard {
            sources: self.sources.clone(),
            closed: !asked.open,
            forbids: asked.forbid_lan,
            v6_wan: self.is_on_wan(Family::V6),
            exclude: asked.exclude.iter().chain(uplinks).copied().collect(),
            resolvers: self.resolvers(),
            redirects: !asked.keep_dns,
            router_answers: self.router_answers(),
        }
    }

    fn flows(&self, mut apart: SortedSet<Prefix>, around: &Around<'_>) -> ScopeFlows {
        apart.extend(around.leads.keys().copied());
        let mut sources = SortedSet::new();
        for source in &self.sources {
            let link = match source {
                Source::Prefix(prefix) => {
                    sources.insert(*prefix);
                    continue;
                }
                Source::Router => None,
                Source::Link(link) => Some(link),
            };
            for Address { link: on, addr, len } in &around.observed.addresses {
                let within = match link {
                    None => Some(Prefix::host(*addr)),
                    Some(link) if link == on => Prefix::containing(*addr, *len).ok(),
                    Some(_) => None,
                };
                sources.extend(within.filter(|_| !addr.is_loopback()));
            }
        }
        let goes_out = |family: &Family| self.default(*family) == Some(RouteKind::Throw);
        // On whichever interface an exit is, what goes through it goes the same way.
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
            // A query that the router answers went astray nowhere.
            resolvers: if self.router_answers() { Vec::new() } else { self.resolvers() },
        }
    }

    /// The router itself is of the same scope, and its own queries are led to the same resolvers.
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

fn selector(source: &Source) -> (Option<IfName>, Option<Prefix>) {
    match source {
        Source::Prefix(prefix) => (None, Some(*prefix)),
        Source::Link(link) => (Some(link.clone()), None),
        Source::Router => (IfName::new("lo"), None),
    }
}

/// The tables of the parts. A part keeps one that none but packets of its own are led into now: another's packets never
/// meet its routes, not even before its rules are there or after they changed their place.
fn tables(parts: &[Part<'_>], around: &Around<'_>) -> Vec<u32> {
    let first = around.numbers.exit_table;
    let is_ours = |table| (first..Rule::SKIP).contains(&table);
    let mut now: Vec<&Rule> = Vec::new();
    for rules in [&around.observed.rules, &around.before.rules] {
        now.extend(rules.iter().filter(|rule| is_ours(rule.table)));
    }
    let mut taken = SortedSet::new();
    let keep = |part: &Part<'_>| {
        let selectors: Vec<_> = part.sources.iter().map(selector).gather();
        let is_its =
            |rule: &&Rule| selectors.iter().any(|(iif, from)| (iif, from) == (&rule.iif, &rule.from));
        let is_only_its = |table: &u32| now.iter().filter(|rule| rule.table == *table).all(is_its);
        let mut known = now.iter().filter(|rule| is_its(rule)).map(|rule| rule.table);
        let kept = known.find(|table| !taken.contains(table) && is_only_its(table));
        taken.extend(kept);
        kept
    };
    let kept: Vec<Option<u32>> = parts.iter().map(keep).gather();
    taken.extend(now.iter().map(|rule| rule.table));
    taken.extend(around.observed.routes.iter().map(|route| route.table));
    let fresh = |kept: Option<u32>| {
        let table = kept.or_else(|| (first..).find(|table| !taken.contains(table))).unwrap_or(first);
        taken.insert(table);
        table
    };
    kept.into_iter().map(fresh).gather()
}

#[cfg(test)]
mod tests;

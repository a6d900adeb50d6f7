//! Kill switch: Internet traffic of scopes leaves by their exits alone. Routing leads it there; these chains hold also
//! while another program has taken our routing rules away.
//!
//! A scope's packets are known by their sources, asked in the order of the scopes: the first that matches decides.

use super::{
    marks::Marks,
    masquerade::exit_chains,
    rules::{
        Place, about, base_chain, chain, destinations, iif, jump, oif, prefix_sets, queries, rule, sources,
    },
};
use crate::{
    model::{
        Chain, ChainName, ChainType, Exits, Family, FirewallRule, FirewallSet, Hook, IfName, Interfaces,
        Match, Op, Priority, ScopeGuard, SetElement, SetKind, SetName, Source, Statement,
    },
    ownership::INTERFACE_PREFIX,
};
use gatewrt_protocol::Prefix;
use sorted_vec::SortedSet;

const LEAVING: Place = (ChainType::Filter, Hook::Postrouting, Priority::Filter);

/// Most interfaces that a rule asks for one after the other: each packet is asked, and a set takes five times as long as
/// the first few names do. A rule holds 128 expressions (`NFT_RULE_MAXEXPRS` in `net/netfilter/nf_tables_api.c`), a name
/// takes two.
const MOST_NAMED: usize = 8;

/// Scopes of a router in the firewall table, with what names their sets and chains.
pub(super) struct Scopes<'a> {
    pub(super) exits: &'a Exits,
    pub(super) marks: Marks,
    /// Scopes in order, each with its label.
    pub(super) labelled: Vec<(String, &'a ScopeGuard)>,
    /// Interfaces by which scopes may leave.
    inside: Vec<IfName>,
}

/// Kind of sender of the packets that a scope's chain sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Hosts,
    Router,
}

impl<'a> Scopes<'a> {
    pub(super) fn new(exits: &'a Exits, marks: Marks) -> Self {
        Self { exits, marks, labelled: labelled(exits), inside: inside(exits) }
    }

    /// Firewall sets that the chains of the scopes look up.
    pub(super) fn sets(&self) -> Vec<FirewallSet> {
        let mut sets = Vec::new();
        if !self.labelled.is_empty() && self.inside.len() > MOST_NAMED {
            let elements = self.inside.iter().cloned().map(SetElement::Interface).collect();
            sets.push(FirewallSet { name: inside_set(), kind: SetKind::Interfaces, elements });
        }
        for (link, mesh) in &self.exits.meshes {
            sets.extend(prefix_sets("mesh", &plain(link), mesh));
        }
        for (label, scope) in &self.labelled {
            sets.extend(prefix_sets("from", label, &prefixes(scope)));
            if scope.closed {
                sets.extend(prefix_sets("except", label, &scope.exclude));
            }
        }
        sets
    }

    /// Firewall chains of the scopes, beyond those that every table has.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        if self.labelled.is_empty() {
            return chains;
        }
        // All that the router sends meets these: only where some of it may belong to a scope.
        let is_link = |source: &Source| matches!(source, Source::Link(_));
        if !self.labelled.iter().flat_map(|(_, scope)| &scope.sources).all(is_link) {
            chains.extend([self.leaving(), self.answering()]);
        }
        chains.extend(self.resolving());
        chains.push(chain("scopes", self.each(Sender::Hosts, &keep_in)));
        chains.extend(self.outside());
        chains.extend(self.closed().map(|(label, scope)| shut(label, scope)));
        for (link, mesh) in &self.exits.meshes {
            chains.extend(exit_chains(link, mesh, self.exits.own.get(link)));
        }
        if self.forbids() {
            chains.push(self.forbidden());
        }
        chains.extend(self.refusing());
        chains
    }

    /// Rules about scopes that the forward chain begins with. `interfaces` lead into our networks.
    pub(super) fn forward<'b>(&self, interfaces: impl Iterator<Item = &'b IfName>) -> Vec<FirewallRule> {
        let mut rules = Vec::new();
        if self.labelled.is_empty() {
            return rules;
        }
        let mut leaves = self.outside_of(&Match::Oif);
        leaves.push(self.marks.unmarked());
        rules.push(rule(leaves, jump("scopes")));
        for link in interfaces.filter(|_| self.forbids()) {
            match self.exits.meshes.get(link) {
                Some(mesh) => {
                    let own = destinations("mesh", &plain(link), mesh).into_iter();
                    rules.extend(own.map(|own| rule(vec![oif(link), own], jump("forbidden"))));
                }
                // All that leaves there is for the network.
                None => rules.push(rule(vec![oif(link)], jump("forbidden"))),
            }
        }
        rules
    }

    /// Rules for the packets of each scope: matches that tell them are added to what `decide` gives for the scope.
    pub(super) fn each(
        &self,
        sender: Sender,
        decide: &dyn Fn(&str, &ScopeGuard) -> FirewallRule,
    ) -> Vec<FirewallRule> {
        let mut rules = Vec::new();
        for (label, scope) in &self.labelled {
            for matches in sent_by(label, scope, sender) {
                rules.push(FirewallRule { matches, ..decide(label, scope) });
            }
        }
        rules
    }

    /// Matches for packets that come in, or leave, by none of the interfaces by which scopes may leave.
    pub(super) fn outside_of(&self, side: &dyn Fn(Op, Interfaces) -> Match) -> Vec<Match> {
        if self.inside.len() > MOST_NAMED {
            return vec![side(Op::IsNot, Interfaces::Set(inside_set()))];
        }
        self.inside.iter().map(|link| side(Op::IsNot, Interfaces::One(link.clone()))).collect()
    }

    /// Matches for packets that come in by none of the interfaces by which scopes may leave: the LANs stand first,
    /// since most packets are theirs.
    pub(super) fn matches_from_outside(&self) -> Vec<Match> {
        let mut matches = self.outside_of(&Match::Iif);
        matches.reverse();
        // The last interface is `lo`.
        matches.rotate_left(1);
        matches
    }

    fn closed(&self) -> impl Iterator<Item = (&str, &ScopeGuard)> {
        self.labelled.iter().filter(|(_, scope)| scope.closed).map(|(label, scope)| (label.as_str(), *scope))
    }

    fn forbids(&self) -> bool {
        self.labelled.iter().any(|(_, scope)| scope.forbids)
    }

    /// Chain for what goes into a network from hosts that may use nothing but their exit. Its resolver may be there.
    fn forbidden(&self) -> Chain {
        let mut rules = vec![rule(vec![Match::CtDnat], Statement::Return)];
        rules.extend(self.each(Sender::Hosts, &|_, scope| match scope.forbids {
            true => rule(vec![], Statement::Drop).comment("nothing but its exit"),
            false => pass(),
        }));
        chain("forbidden", rules)
    }

    /// Base chain for what the router sends, after routing: the mark of some packets changed since they were made, and
    /// they leave elsewhere than they were to.
    fn leaving(&self) -> Chain {
        let mut rules = vec![rule(vec![Match::CameIn], Statement::Return), self.marks.pass_marked()];
        match self.inside.len() > MOST_NAMED {
            true => {
                let inside = Match::Oif(Op::Is, Interfaces::Set(inside_set()));
                rules.push(rule(vec![inside], Statement::Return));
            }
            false => rules.extend(self.inside.iter().map(|link| rule(vec![oif(link)], Statement::Return))),
        }
        rules.extend(of_the_link());
        rules.extend(self.each(Sender::Router, &keep_in));
        base_chain("leaving", LEAVING, rules)
    }
}

/// Rules for what a scope may send on its own link whatever its kill switch says: DHCP, neighbour and router discovery
/// and listener reports (RFC 4861, RFC 2710, RFC 3810) do not go to the Internet.
fn of_the_link() -> [FirewallRule; 4] {
    let pass = |matched| rule(vec![matched], Statement::Return);
    [
        pass(Match::UdpPorts(68, 67)).comment("DHCP"),
        pass(Match::UdpPorts(546, 547)).comment("DHCPv6"),
        pass(Match::Icmpv6(130, 137)).comment("neighbours"),
        pass(Match::Icmpv6(143, 143)),
    ]
}

/// Rule that lets packets of a scope go on, where its kill switch is off.
pub(super) fn pass() -> FirewallRule {
    rule(vec![], Statement::Return)
}

fn keep_in(label: &str, scope: &ScopeGuard) -> FirewallRule {
    if scope.closed { rule(vec![], Statement::Goto(shut_chain(label))) } else { pass() }
}

fn shut_chain(label: &str) -> ChainName {
    about("shut", label)
}

/// Chain for packets of a closed scope that would leave by another interface than its exit's.
fn shut(label: &str, scope: &ScopeGuard) -> Chain {
    let mut rules = Vec::new();
    if scope.v6_wan {
        rules.push(rule(vec![Match::Family(Family::V6)], Statement::Return));
    }
    if scope.redirects {
        // Before the excluded prefixes: a query comes here only when there is no resolver to redirect it to.
        rules.extend(queries(&Statement::Drop).map(|rule| rule.comment("DNS")));
    }
    let except = destinations("except", label, &scope.exclude).into_iter();
    rules.extend(except.map(|except| rule(vec![except], Statement::Return)));
    rules.push(rule(vec![], Statement::Drop).comment("only through its exit"));
    chain(shut_chain(label), rules)
}

/// Matches for the packets that a kind of sender sends in a scope, one rule's each.
fn sent_by(label: &str, scope: &ScopeGuard, sender: Sender) -> Vec<Vec<Match>> {
    let mut all: Vec<Vec<Match>> = from(label, scope).into_iter().map(|from| vec![from]).collect();
    for source in &scope.sources {
        match (source, sender) {
            (Source::Link(link), Sender::Hosts) if is_literal(link) => all.push(vec![iif(link)]),
            // All of it.
            (Source::Router, Sender::Router) => all.push(vec![]),
            (Source::Link(_) | Source::Router | Source::Prefix(_), _) => (),
        }
    }
    all
}

/// Matches for a scope's source addresses, one for each family.
pub(super) fn from(label: &str, scope: &ScopeGuard) -> Vec<Match> {
    sources("from", label, &prefixes(scope))
}

fn prefixes(scope: &ScopeGuard) -> SortedSet<Prefix> {
    let prefix = |source: &Source| match source {
        Source::Prefix(prefix) => Some(*prefix),
        Source::Link(_) | Source::Router => None,
    };
    scope.sources.iter().filter_map(prefix).collect()
}

/// Scopes with labels that are unique on the router: two networks may use the same tag.
fn labelled(exits: &Exits) -> Vec<(String, &ScopeGuard)> {
    let mut labelled: Vec<(String, &ScopeGuard)> = Vec::new();
    for ((number, tag), scope) in &exits.scopes {
        let is_taken = labelled.iter().any(|(label, _)| label == tag.as_str());
        labelled.push((if is_taken { format!("{tag}.{number}") } else { tag.to_string() }, scope));
    }
    labelled
}

/// Interfaces by which scopes may leave. Ours stand first, since most packets leave there.
fn inside(exits: &Exits) -> Vec<IfName> {
    let mut links: SortedSet<&IfName> = exits.inside.iter().collect();
    for source in exits.scopes.values().flat_map(|scope| &scope.sources) {
        if let Source::Link(link) = source {
            links.push(link);
        }
    }
    links.retain(|link| is_literal(link) && link.as_str() != LOOPBACK);
    let (ours, others): (Vec<&IfName>, Vec<&IfName>) =
        links.into_iter().partition(|link| link.as_str().starts_with(INTERFACE_PREFIX));
    let inside = ours.into_iter().chain(others).cloned();
    inside.chain(IfName::new(LOOPBACK)).collect()
}

pub(super) const LOOPBACK: &str = "lo";

fn inside_set() -> SetName {
    SetName("inside".to_owned())
}

/// True if nft takes an interface name literally, as almost all: no quoting, no wildcard.
fn is_literal(link: &IfName) -> bool {
    !link.as_str().contains(['"', '\\', '*'])
}

/// Interface name as part of the name of a set or chain, where nft takes no “~”.
pub(super) fn plain(link: &IfName) -> String {
    link.as_str().replace('~', ".")
}

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
use crate::model::{
    Chain, ChainName, ChainType, Exits, Family, FirewallRule, FirewallSet, Hook, IfName, Interfaces, Match,
    Op, Priority, ScopeGuard, SetElement, SetKind, SetName, Source, Statement,
};
use gatewrt_protocol::Prefix;
use sorted_vec::SortedSet;

const LEAVING: Place = (ChainType::Filter, Hook::Postrouting, Priority::Filter);

/// Most interfaces that a rule asks for one after the other: each packet is asked, and a set takes five times as long as
/// the first few names do. A rule holds 128 expressions (`NFT_RULE_MAXEXPRS` in `net/netfilter/nf_tables_api.c`), a name
/// takes two.
const MOST_NAMED: usize = 8;
/// Most tunnels of other programs that are told from LANs.
const MOST_STRANGERS: usize = 16;

/// Scopes of a router in the firewall table, with what names their sets and chains.
pub(super) struct Scopes<'a> {
    pub(super) exits: &'a Exits,
    pub(super) marks: Marks,
    /// Scopes in order, each with its label.
    pub(super) labelled: Vec<(String, &'a ScopeGuard)>,
    /// Interfaces of ours, by which scopes may leave; the last is `lo`.
    ours: Vec<IfName>,
}

/// Kind of sender of the packets that a scope's chain sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Hosts,
    Router,
}

impl<'a> Scopes<'a> {
    pub(super) fn new(exits: &'a Exits, marks: Marks) -> Self {
        Self { exits, marks, labelled: labelled(exits), ours: ours(exits) }
    }

    /// Firewall sets that the chains of the scopes look up.
    pub(super) fn sets(&self) -> Vec<FirewallSet> {
        let mut sets = Vec::new();
        if self.labelled.is_empty() {
            return sets;
        }
        if self.ours.len() > MOST_NAMED {
            let elements = self.ours.iter().cloned().map(SetElement::Interface).collect();
            sets.push(FirewallSet { name: ours_set(), kind: SetKind::Interfaces, elements });
        }
        for (link, prefixes) in self.local() {
            sets.extend(prefix_sets("local", &plain(link), prefixes));
        }
        sets.extend(prefix_sets("beside", "uplinks", &self.exits.beside));
        for (link, mesh) in &self.exits.meshes {
            sets.extend(prefix_sets("mesh", &plain(link), mesh));
        }
        for (label, scope) in &self.labelled {
            sets.extend(prefix_sets("from", label, &prefixes(scope)));
            sets.extend(prefix_sets("near", label, &scope.near));
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
        if self.has(|source| matches!(source, Source::Prefix(_) | Source::Router)) {
            chains.extend([self.leaving(), self.answering()]);
        }
        chains.extend(self.resolving());
        let mut scopes = self.each(Sender::Hosts, &keep_in);
        let anyone = self.anyones().map(|(label, scope)| keep_in(label, scope));
        scopes.extend(anyone.map(|rule| FirewallRule { matches: self.of_anyone(), ..rule }));
        chains.push(chain("scopes", scopes));
        chains.extend(self.outside());
        let closed = self.labelled.iter().filter(|(_, scope)| scope.closed);
        chains.extend(closed.map(|(label, scope)| self.shut(label, scope)));
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
        let mut leaves = self.none_of_ours(&Match::Oif);
        if !self.has(|source| matches!(source, Source::Prefix(_))) {
            leaves.extend(self.none_of_ours(&Match::Iif));
        }
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

    /// Scope that packets of anyone belong to, if they belong to no other.
    pub(super) fn anyones(&self) -> Option<(&str, &ScopeGuard)> {
        let mut takes = self.labelled.iter().filter(|(_, scope)| scope.sources.contains(&Source::Anyone));
        takes.next().map(|(label, scope)| (label.as_str(), *scope))
    }

    /// Matches for packets that come in by no tunnel.
    pub(super) fn of_anyone(&self) -> Vec<Match> {
        let mut matches = self.none_of_ours(&Match::Iif);
        let strangers = self.exits.strangers.iter().filter(|link| is_literal(link)).take(MOST_STRANGERS);
        matches.extend(strangers.map(|link| Match::Iif(Op::IsNot, Interfaces::One(link.clone()))));
        matches
    }

    /// Matches for packets that come in, or leave, by no interface of ours.
    fn none_of_ours(&self, side: &dyn Fn(Op, Interfaces) -> Match) -> Vec<Match> {
        if self.ours.len() > MOST_NAMED {
            return vec![side(Op::IsNot, Interfaces::Set(ours_set()))];
        }
        self.ours.iter().map(|link| side(Op::IsNot, Interfaces::One(link.clone()))).collect()
    }

    /// Local destinations by the interface that leads there, whose name becomes part of a set's.
    pub(super) fn local(&self) -> impl Iterator<Item = (&IfName, &SortedSet<Prefix>)> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        self.exits.local.iter().filter(move |(link, _)| link.as_str().bytes().all(is_plain))
    }

    fn has(&self, is_meant: fn(&Source) -> bool) -> bool {
        self.labelled.iter().flat_map(|(_, scope)| &scope.sources).any(is_meant)
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
        match self.ours.len() > MOST_NAMED {
            true => {
                let ours = Match::Oif(Op::Is, Interfaces::Set(ours_set()));
                rules.push(rule(vec![ours], Statement::Return));
            }
            false => rules.extend(self.ours.iter().map(|link| rule(vec![oif(link)], Statement::Return))),
        }
        rules.extend(of_the_link());
        rules.extend(self.each(Sender::Router, &keep_in));
        base_chain("leaving", LEAVING, rules)
    }

    /// Chain for packets of a closed scope that would leave by another interface than its exit's. Local destinations are
    /// asked by interface: without the right one, a packet for them would leave by the default route.
    fn shut(&self, label: &str, scope: &ScopeGuard) -> Chain {
        let pass = |matches| rule(matches, Statement::Return);
        let mut rules = Vec::new();
        if scope.v6_wan {
            rules.push(pass(vec![Match::Family(Family::V6)]));
        }
        if !scope.forbids || scope.sources.contains(&Source::Router) {
            for (link, prefixes) in self.local() {
                let to = destinations("local", &plain(link), prefixes).into_iter();
                rules.extend(to.map(|to| pass(vec![oif(link), to])));
            }
        }
        if scope.redirects {
            // Before the excluded prefixes: a query comes here only when there is no resolver to redirect it to.
            rules.extend(queries(&Statement::Drop).map(|rule| rule.comment("DNS")));
        }
        rules.extend(destinations("except", label, &scope.exclude).into_iter().map(|to| pass(vec![to])));
        rules.push(rule(vec![], Statement::Drop).comment("only through its exit"));
        chain(shut_chain(label), rules)
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

/// Matches for the packets that a kind of sender sends in a scope, one rule's each.
fn sent_by(label: &str, scope: &ScopeGuard, sender: Sender) -> Vec<Vec<Match>> {
    let mut all: Vec<Vec<Match>> =
        sources("from", label, &prefixes(scope)).into_iter().map(|from| vec![from]).collect();
    for source in &scope.sources {
        match (source, sender) {
            (Source::Link(link), Sender::Hosts) if is_literal(link) => all.push(vec![iif(link)]),
            (Source::Half(link, family), Sender::Hosts) if is_literal(link) => {
                all.push(vec![Match::Family(*family), iif(link)]);
            }
            // All of it.
            (Source::Router, Sender::Router) => all.push(vec![]),
            _ => (),
        }
    }
    if sender == Sender::Hosts {
        all.extend(near(label, scope).map(|from| vec![from]));
    }
    all
}

/// Matches for a scope's hosts by their addresses, whatever interface they come in by.
pub(super) fn from(label: &str, scope: &ScopeGuard) -> impl Iterator<Item = Match> {
    sources("from", label, &prefixes(scope)).into_iter().chain(near(label, scope))
}

fn near(label: &str, scope: &ScopeGuard) -> impl Iterator<Item = Match> {
    sources("near", label, &scope.near).into_iter()
}

fn prefixes(scope: &ScopeGuard) -> SortedSet<Prefix> {
    let prefix = |source: &Source| match source {
        Source::Prefix(prefix) => Some(*prefix),
        _ => None,
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

/// Interfaces by which scopes may leave, whatever the destination.
fn ours(exits: &Exits) -> Vec<IfName> {
    exits.ours.iter().cloned().chain(IfName::new(LOOPBACK)).collect()
}

pub(super) const LOOPBACK: &str = "lo";

fn ours_set() -> SetName {
    SetName("ours".to_owned())
}

/// True if nft takes an interface name literally, as almost all: no quoting, no wildcard.
pub(super) fn is_literal(link: &IfName) -> bool {
    !link.as_str().contains(['"', '\\', '*'])
}

/// Interface name as part of the name of a set or chain, where nft takes no “~”.
pub(super) fn plain(link: &IfName) -> String {
    link.as_str().replace('~', ".")
}

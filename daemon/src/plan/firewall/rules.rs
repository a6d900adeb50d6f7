//! Short ways to build rules, chains and sets that several concerns need.

use super::access::ranges;
use crate::model::{
    Addresses, BaseChain, Chain, ChainName, ChainPolicy, ChainType, CtState, Family, FirewallRule,
    FirewallSet, Hook, IfName, Interfaces, Match, Op, Priority, SetElement, SetKind, SetName, Statement,
    Transport,
};
use gatewrt_protocol::Prefix;
use sorted_vec::SortedSet;

pub(super) fn rule(matches: Vec<Match>, statement: Statement) -> FirewallRule {
    FirewallRule::new(matches, statement)
}

/// Rule that accepts packets of connections that were allowed when they began.
pub(super) fn established() -> FirewallRule {
    rule(vec![Match::CtState(CtState::Established)], Statement::Accept)
}

pub(super) fn iif(link: &IfName) -> Match {
    Match::Iif(Op::Is, Interfaces::One(link.clone()))
}

pub(super) fn oif(link: &IfName) -> Match {
    Match::Oif(Op::Is, Interfaces::One(link.clone()))
}

pub(super) fn daddr(prefix: &Prefix) -> Match {
    Match::Daddr(Addresses::Prefix(*prefix))
}

pub(super) fn jump(chain: impl Into<ChainName>) -> Statement {
    Statement::Jump(chain.into())
}

/// Name of a firewall chain about one network, scope or interface.
pub(super) fn about(what: &str, label: &str) -> ChainName {
    ChainName(format!("{what}-{label}"))
}

/// Rules that apply a statement to DNS queries, over UDP and TCP.
pub(super) fn queries(statement: &Statement) -> [FirewallRule; 2] {
    [Transport::Udp, Transport::Tcp].map(|proto| rule(vec![Match::Dport(proto, 53)], statement.clone()))
}

pub(super) fn chain(name: impl Into<ChainName>, rules: Vec<FirewallRule>) -> Chain {
    Chain { name: name.into(), base: None, rules }
}

/// Base chain of our firewall table with these rules. Packets that no rule decides on go on to the chains of others.
pub(super) fn base_chain(name: &str, (kind, hook, priority): Place, rules: Vec<FirewallRule>) -> Chain {
    let base = BaseChain { kind, hook, priority, policy: ChainPolicy::Accept };
    Chain { base: Some(base), ..chain(name, rules) }
}

/// Place of a base chain in the kernel's packet path, as type, hook and priority.
pub(super) type Place = (ChainType, Hook, Priority);

/// Firewall sets of prefixes, one for each family that they have. [`sources`] and [`destinations`] match them.
pub(super) fn prefix_sets(what: &str, label: &str, prefixes: &SortedSet<Prefix>) -> Vec<FirewallSet> {
    let set = |family| FirewallSet {
        name: set_name(what, family, label),
        kind: SetKind::Addresses(family),
        elements: ranges(prefixes, family).into_iter().map(SetElement::Range).collect(),
    };
    families(prefixes).into_iter().map(set).collect()
}

/// Matches for sources in the sets of these prefixes, one for each family: a rule matches one family alone.
pub(super) fn sources(what: &str, label: &str, prefixes: &SortedSet<Prefix>) -> Vec<Match> {
    sets(what, label, prefixes).into_iter().map(Match::Saddr).collect()
}

/// Matches for destinations in the sets of these prefixes, one for each family.
pub(super) fn destinations(what: &str, label: &str, prefixes: &SortedSet<Prefix>) -> Vec<Match> {
    sets(what, label, prefixes).into_iter().map(Match::Daddr).collect()
}

fn sets(what: &str, label: &str, prefixes: &SortedSet<Prefix>) -> Vec<Addresses> {
    let set = |family| Addresses::Set(family, set_name(what, family, label));
    families(prefixes).into_iter().map(set).collect()
}

fn set_name(what: &str, family: Family, label: &str) -> SetName {
    SetName(format!("{what}-{}-{label}", digit(family)))
}

fn families(prefixes: &SortedSet<Prefix>) -> SortedSet<Family> {
    prefixes.iter().map(Family::of).collect()
}

pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

//! DNS of scopes: queries are redirected to the exit's resolver, or refused where they would be asked over the WAN.

use super::{
    rules::{Place, about, base_chain, chain, jump, oif, queries, rule},
    scopes::{LOOPBACK, Scopes, Sender, pass},
};
use crate::model::{
    Chain, ChainType, Family, FirewallRule, Hook, IfName, Match, Op, Priority, ScopeGuard, Source, Statement,
};
use std::net::IpAddr;

/// Before other programs redirect: the first redirection counts.
const RESOLVING: Place = (ChainType::Nat, Hook::Prerouting, Priority::BeforeDstNat);
const OWN_RESOLVING: Place = (ChainType::Nat, Hook::Output, Priority::BeforeDstNat);

impl ScopeGuard {
    fn has_router(&self) -> bool {
        self.sources.contains(&Source::Router)
    }

    fn resolver(&self, family: Family) -> Option<IpAddr> {
        self.resolvers.iter().copied().find(|resolver| Family::of_addr(*resolver) == family)
    }

    fn has_resolver(&self) -> bool {
        self.redirects && !self.resolvers.is_empty()
    }
}

impl Scopes<'_> {
    /// Chains that redirect DNS queries to the resolvers of scopes: of hosts, and of the router where it belongs to a
    /// scope.
    pub(super) fn resolving(&self) -> Vec<Chain> {
        let redirected = self.labelled.iter().filter(|(_, scope)| scope.has_resolver());
        let mut chains: Vec<Chain> = redirected.map(|(label, scope)| resolver(label, scope)).collect();
        if chains.is_empty() {
            return chains;
        }
        let mut rules = vec![self.marks.pass_marked()];
        rules.extend(queries(&jump("queries")));
        chains.push(base_chain("resolving", RESOLVING, rules));
        chains.push(chain("queries", self.each(Sender::Hosts, &redirect)));
        if self.labelled.iter().any(|(_, scope)| scope.has_router() && scope.has_resolver()) {
            chains.extend(self.own_resolving());
        }
        chains
    }

    fn own_resolving(&self) -> [Chain; 2] {
        let mut rules = vec![self.marks.pass_marked()];
        // Programs on the router ask its own resolver, and that one asks onward.
        rules.extend(IfName::new(LOOPBACK).map(|lo| rule(vec![oif(&lo)], Statement::Return)));
        rules.extend(queries(&jump("own-queries")));
        [
            base_chain("own-resolving", OWN_RESOLVING, rules),
            chain("own-queries", self.each(Sender::Router, &redirect)),
        ]
    }

    /// Rule that the input chain begins with, where DNS queries to the router are refused. Packets that carry tunnels
    /// come there too.
    pub(super) fn input(&self) -> Option<FirewallRule> {
        self.refuses().then(|| rule(vec![self.marks.unmarked()], jump("asked")))
    }

    /// Chains that refuse DNS queries of scopes to the router.
    pub(super) fn refusing(&self) -> Vec<Chain> {
        if !self.refuses() {
            return Vec::new();
        }
        let refuse = |_: &str, scope: &ScopeGuard| match self.refuses_queries(scope) {
            true => rule(vec![], Statement::Reject).comment("would be asked over the WAN"),
            false => pass(),
        };
        let mut refused = self.each(Sender::Hosts, &refuse);
        if self.refuses_anyone() {
            refused.push(rule(self.of_anyone(), Statement::Reject).comment("of no known LAN"));
        }
        vec![chain("asked", queries(&jump("refused")).into()), chain("refused", refused)]
    }

    fn refuses(&self) -> bool {
        self.labelled.iter().any(|(_, scope)| self.refuses_queries(scope)) || self.refuses_anyone()
    }

    /// True if DNS queries of anyone to the router are refused: they are not redirected, since they may come from an
    /// uplink.
    fn refuses_anyone(&self) -> bool {
        self.anyones().is_some_and(|(_, scope)| self.keeps_queries(scope))
    }

    /// True if DNS queries of a scope to the router itself are refused: those of a closed scope that has no resolver in
    /// one of the families. The router would ask over the WAN, unless its own traffic may not leave there either.
    fn refuses_queries(&self, scope: &ScopeGuard) -> bool {
        let lacks = Family::ALL.into_iter().any(|family| scope.resolver(family).is_none());
        lacks && self.keeps_queries(scope)
    }

    fn keeps_queries(&self, scope: &ScopeGuard) -> bool {
        let guards = |scope: &ScopeGuard| scope.closed && scope.redirects;
        let router = || self.labelled.iter().any(|(_, scope)| guards(scope) && scope.has_router());
        guards(scope) && !router()
    }
}

fn redirect(label: &str, scope: &ScopeGuard) -> FirewallRule {
    match scope.has_resolver() {
        true => rule(vec![], Statement::Goto(about("resolver", label))),
        false => pass(),
    }
}

fn resolver(label: &str, scope: &ScopeGuard) -> Chain {
    let mut rules = Vec::new();
    if scope.router_answers {
        rules.push(rule(vec![Match::ToRouter(Op::Is)], Statement::Return));
    }
    for family in Family::ALL {
        let to = scope.resolver(family).map(Statement::Dnat);
        rules.extend(to.map(|to| rule(vec![Match::Family(family)], to)));
    }
    chain(about("resolver", label), rules)
}

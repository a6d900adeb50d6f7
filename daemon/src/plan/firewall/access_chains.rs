//! Chains that enforce the access rules of one network on new connections, with the sets they look up: denied and allowed
//! connections, and clients whose Internet traffic goes out here.

use super::{
    access::{INTERNET6, NOT_INTERNET, PairSet},
    rules::{about, chain, daddr, digit, established, jump, oif, prefix_sets, rule, sources},
};
use crate::model::{
    Chain, CtState, Family, FirewallRule, FirewallSet, Guard, IfName, Match, SetElement, SetKind, SetName,
    Statement,
};
use gatewrt_protocol::{Prefix, Verdict};

/// True if a network needs access chains: not where everything is allowed and no client goes out to the Internet.
pub(super) fn is_needed(guard: &Guard) -> bool {
    !guard.is_open() || guard.lets_out()
}

/// Access rules of one network, as firewall sets and chains.
pub(super) struct AccessChains<'a> {
    link: &'a IfName,
    guard: &'a Guard,
    /// Uplinks to the Internet, none of them an interface of ours.
    uplinks: Vec<&'a IfName>,
    pairs: Vec<PairSet>,
}

impl<'a> AccessChains<'a> {
    pub(super) fn new(link: &'a IfName, guard: &'a Guard, uplinks: Vec<&'a IfName>) -> Self {
        Self { link, guard, uplinks, pairs: PairSet::of(guard) }
    }

    pub(super) fn sets(&self) -> Vec<FirewallSet> {
        let set = |pairs: &PairSet| FirewallSet {
            name: self.name(pairs),
            kind: if pairs.services { SetKind::Services(pairs.family) } else { SetKind::Pairs(pairs.family) },
            elements: pairs.blocks.iter().copied().map(SetElement::Pair).collect(),
        };
        let mut sets: Vec<FirewallSet> = self.pairs.iter().map(set).collect();
        if self.guard.lets_out() {
            sets.extend(prefix_sets(INTERNET, self.link.as_str(), &self.guard.internet));
        }
        sets
    }

    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains = vec![self.access()];
        if self.guard.lets_out() {
            chains.push(self.internet());
        }
        chains
    }

    fn access(&self) -> Chain {
        let mut rules = vec![established()];
        if !self.guard.is_open() {
            // A connection is judged by its first packet. When the kernel forgot one that is forbidden meanwhile, the
            // next answer would open it again, the other way round.
            rules.push(rule(vec![Match::TcpNotFirst], Statement::RejectReset).comment("begun before"));
        }
        rules.extend(self.of(Verdict::Deny, &|rule| rule.comment("denied"), Statement::Reject));
        for source in internet_sources(self.link, self.guard) {
            let internet = || jump(about(INTERNET, self.link.as_str()));
            rules.extend(
                self.uplinks.iter().map(|uplink| rule(vec![source.clone(), oif(uplink)], internet())),
            );
        }
        if self.guard.access.default == Verdict::Deny {
            rules.extend(self.of(Verdict::Allow, &|rule| rule, Statement::Return));
            rules.push(rule(vec![], Statement::Reject).comment("not allowed"));
        }
        chain(about("access", self.link.as_str()), rules)
    }

    /// Rules for the sets of connections that have one verdict.
    fn of(
        &self,
        verdict: Verdict,
        finish: &dyn Fn(FirewallRule) -> FirewallRule,
        statement: Statement,
    ) -> Vec<FirewallRule> {
        let one = |pairs: &PairSet| {
            let set = self.name(pairs);
            let matched = if pairs.services {
                Match::Service(pairs.family, set)
            } else {
                Match::Pair(pairs.family, set)
            };
            finish(rule(vec![matched], statement.clone()))
        };
        self.pairs.iter().filter(|pairs| pairs.verdict == verdict).map(one).collect()
    }

    /// Chain for what goes out from a network to the Internet. Served prefixes belong to the network, even where the
    /// main table knows them too. Packets of no connection, as after a change of exits, would not be masqueraded.
    fn internet(&self) -> Chain {
        let mut rules = vec![rule(vec![Match::CtState(CtState::Invalid)], Statement::Drop)];
        let pass = |prefix: &Prefix| rule(vec![daddr(prefix)], Statement::Return);
        rules.extend(self.guard.served().map(pass));
        rules.extend(NOT_INTERNET.iter().filter_map(|text| text.parse().ok()).map(|prefix| pass(&prefix)));
        rules.push(rule(vec![Match::Family(Family::V4)], Statement::Accept));
        rules.extend(INTERNET6.parse().ok().map(|prefix| rule(vec![daddr(&prefix)], Statement::Accept)));
        chain(about(INTERNET, self.link.as_str()), rules)
    }

    fn name(&self, pairs: &PairSet) -> SetName {
        let verdict = match pairs.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let side = if pairs.by_source { "from" } else { "to" };
        let services = if pairs.services { "services-" } else { "" };
        SetName(format!("{verdict}-{side}-{}-{services}{}", digit(pairs.family), self.link))
    }
}

/// Begins the names of the sets and the chain about clients' Internet traffic.
const INTERNET: &str = "internet";

/// Matches for clients of a network that may go out to the Internet, one for each family.
pub(super) fn internet_sources(link: &IfName, guard: &Guard) -> Vec<Match> {
    if guard.lets_out() { sources(INTERNET, link.as_str(), &guard.internet) } else { Vec::new() }
}

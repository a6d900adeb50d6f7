//! Marks of ours on packets and connections: what bypasses the networks, and what is masqueraded. Bits outside the mask
//! belong to other programs and stay.

use super::{
    access_chains::internet_sources,
    rules::{Place, about, base_chain, chain, daddr, jump, rule},
};
use crate::{
    model::{Chain, ChainType, FirewallRule, Guard, Hook, IfName, Mark, Match, Op, Priority, Statement},
    ownership::ReservedNumbers,
};
use std::cmp::Reverse;

const OUTPUT: Place = (ChainType::Filter, Hook::Output, Priority::Mangle);

/// Values of our bits in packet and connection marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Packets that must never enter a network: the tunnels' own and the control plane's.
    pub(super) bypass: Mark,
    /// Connections from a network that are masqueraded when they leave.
    pub(super) masquerade: Mark,
    /// Connections that began outside.
    pub(super) outside: Mark,
    /// Connections of none of these kinds.
    none: Mark,
}

impl Marks {
    pub(super) fn new(numbers: &ReservedNumbers) -> Self {
        let mark = |value| Mark { value, mask: numbers.mask };
        Self {
            bypass: mark(numbers.bypass),
            masquerade: mark(numbers.masquerade),
            outside: mark(numbers.outside()),
            none: mark(0),
        }
    }

    /// Match for packets without a mark of ours.
    pub(super) fn unmarked(&self) -> Match {
        Match::Mark(Op::Is, self.none)
    }

    /// Match for connections without a mark of ours.
    pub(super) fn unmarked_connection(&self) -> Match {
        Match::CtMark(Op::Is, self.none)
    }

    /// Rule by which packets with a mark of ours leave a chain: they belong to no scope.
    pub(super) fn pass_marked(&self) -> FirewallRule {
        rule(vec![Match::Mark(Op::IsNot, self.none)], Statement::Return)
    }

    /// Rule before routing that sets the bypass mark on answers to what bypasses the networks, so that a strict reverse
    /// path check sees the mark too (`src_valid_mark`). It stands first: most of what comes in carries tunnels, and
    /// passes no other rule.
    pub(super) fn restore_bypass(&self) -> FirewallRule {
        rule(vec![Match::CtMark(Op::Is, self.bypass)], Statement::SetMark(self.bypass)).and(Statement::Return)
    }

    /// Chains for what the router sends, which mark connections that bypass the networks: the connection of a packet
    /// that bypasses the networks is remembered, also of one that came in from outside, but not of one that is
    /// masqueraded. Most packets pass the first rule alone.
    pub(super) fn output(&self) -> [Chain; 2] {
        let is_news = vec![Match::CtMark(Op::IsNot, self.bypass), Match::Mark(Op::Is, self.bypass)];
        let others = vec![Match::CtMark(Op::IsNot, self.masquerade)];
        [
            base_chain("output", OUTPUT, vec![rule(is_news, jump("bypassing"))]),
            chain("bypassing", vec![rule(others, Statement::SetCtMark(self.bypass))]),
        ]
    }

    /// Chain that marks a network's new connections to be masqueraded, while they are forwarded. The longest prefix
    /// decides, so it comes first; what goes out to the Internet is always masqueraded.
    pub(super) fn network(&self, link: &IfName, guard: &Guard) -> Chain {
        let mark = Statement::SetCtMark(self.masquerade);
        let mut prefixes: Vec<_> = guard.egress.iter().collect();
        prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        let egress = |(prefix, &nat)| match nat {
            true => rule(vec![daddr(prefix)], mark.clone()).and(Statement::Return),
            false => rule(vec![daddr(prefix)], Statement::Return),
        };
        let mut rules: Vec<FirewallRule> = prefixes.into_iter().map(egress).collect();
        let sources = internet_sources(link, guard).into_iter();
        rules.extend(sources.map(|source| rule(vec![source], mark.clone())));
        chain(about("mark", link.as_str()), rules)
    }
}

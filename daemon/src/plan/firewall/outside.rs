//! Connections that begin outside: they are remembered by a mark on the connection and on all its packets, which tells
//! them from what scopes open. Their answers leave by the way they came in, and belong to no scope.
//!
//! A connection is one from outside only if it comes in by an uplink, from no host of a scope, to the router or a local
//! destination. An interface that nothing is known of makes none: it may be a port of a LAN.

use super::{
    rules::{Place, about, base_chain, chain, destinations, iif, jump, queries, rule, sources},
    scopes::{Scopes, from, is_literal, plain},
};
use crate::model::{Chain, ChainType, CtState, FirewallRule, Hook, Match, Op, Priority, Statement};

/// Type `route`: the mark of an answer leads it.
const ANSWERING: Place = (ChainType::Route, Hook::Output, Priority::Mangle);

/// Destinations of late answers: addresses that nobody has (`kernel/conntrack.rs` expects them there).
const NOWHERE: [&str; 2] = ["0.0.0.0/8", "100::/64"];

impl Scopes<'_> {
    /// Rules before routing that tell connections which begin outside from those of scopes. A connection may have begun
    /// before there were scopes, so its answers are not asked.
    pub(super) fn prerouting(&self) -> Vec<FirewallRule> {
        let mut rules = Vec::new();
        let outside = self.marks.outside;
        if !self.labelled.is_empty() {
            for uplink in self.exits.uplinks.iter().filter(|link| is_literal(link)) {
                let matches = vec![Match::CtOriginal, iif(uplink), self.marks.unmarked()];
                rules.push(rule(matches, jump("outside")));
            }
            rules.push(rule(vec![Match::CtMark(Op::Is, outside)], Statement::SetMark(outside)));
        }
        for link in self.exits.meshes.keys() {
            let opens = vec![Match::CtState(CtState::NotEstablished), iif(link)];
            rules.push(rule(opens, jump(about("enter", &plain(link)))));
        }
        rules
    }

    /// Chains for packets from outside that open a connection, or look as if they did. Few packets come here: each that
    /// is forwarded pays for a rule.
    pub(super) fn outside(&self) -> [Chain; 2] {
        // An uplink may be a LAN too: packets from a scope's address belong to it all the same.
        let from = self.labelled.iter().flat_map(|(label, scope)| from(label, scope));
        let mut rules: Vec<FirewallRule> = from.map(|from| rule(vec![from], Statement::Return)).collect();
        rules.extend(late_answers().into_iter().map(dropped));
        rules.push(rule(vec![self.marks.unmarked_connection()], jump("called")));
        [chain("outside", rules), self.called()]
    }

    /// Chain that marks a connection as one that began outside.
    fn called(&self) -> Chain {
        let mut rules = Vec::new();
        for beside in sources("beside", "uplinks", &self.exits.beside) {
            let query = |one: FirewallRule| FirewallRule {
                matches: [vec![beside.clone()], one.matches.clone()].concat(),
                ..one
            };
            rules.extend(queries(&Statement::Return).map(query));
        }
        let called = |to| rule(vec![to], Statement::AddCtMark(self.marks.outside.value));
        rules.push(called(Match::ToRouter(Op::Is)));
        for (link, prefixes) in self.local() {
            rules.extend(destinations("local", &plain(link), prefixes).into_iter().map(called));
        }
        chain("called", rules)
    }

    /// Base chain for the router's own answers to what came in from outside. Packets that bypass the networks keep their
    /// mark.
    pub(super) fn answering(&self) -> Chain {
        let outside = self.marks.outside;
        let matches = vec![Match::CtMark(Op::Is, outside), self.marks.unmarked()];
        base_chain("answering", ANSWERING, vec![rule(matches, Statement::SetMark(outside))])
    }
}

fn dropped(matches: Vec<Match>) -> FirewallRule {
    rule(matches, Statement::Drop).comment("a late answer")
}

/// Matches for answers to a connection that was cut because it takes another way now: packets of an expected entry, or
/// of a host's TCP connection that the kernel does not know. Taken for a new connection, such an answer would pull the
/// old one back to the old way.
fn late_answers() -> Vec<Vec<Match>> {
    let unknown = vec![Match::CtState(CtState::New), Match::ToRouter(Op::IsNot), Match::TcpNotFirst];
    let expected = NOWHERE.iter().filter_map(|text| text.parse().ok());
    [unknown].into_iter().chain(expected.map(|prefix| vec![Match::CtReplyDaddr(prefix)])).collect()
}

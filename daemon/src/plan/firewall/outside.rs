//! Connections that begin outside: they are remembered by a mark on the connection and on all its packets, which tells
//! them from what scopes open. Their answers leave by the way they came in, and belong to no scope.

use super::{
    rules::{Place, about, base_chain, chain, iif, jump, rule},
    scopes::{Scopes, from, plain},
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
            let mut matches = vec![Match::CtOriginal];
            matches.extend(self.matches_from_outside());
            matches.push(self.marks.unmarked());
            rules.push(rule(matches, jump("outside")));
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
        let mut rules: Vec<FirewallRule> = late_answers().into_iter().map(dropped).collect();
        rules.push(rule(vec![self.marks.unmarked_connection()], jump("called")));
        [chain("outside", rules), self.called()]
    }

    /// Chain that marks a connection as one that began outside. A link of a scope may be new: packets from a scope's
    /// address belong to it all the same.
    fn called(&self) -> Chain {
        let from = self.labelled.iter().flat_map(|(label, scope)| from(label, scope));
        let mut rules: Vec<FirewallRule> = from.map(|from| rule(vec![from], Statement::Return)).collect();
        rules.push(rule(vec![], Statement::AddCtMark(self.marks.outside.value)));
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

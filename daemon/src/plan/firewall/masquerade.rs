//! Source addresses of connections that leave the router, and the two chains of each interface that leads to an exit.

use super::{
    Firewall,
    rules::{Place, about, base_chain, chain, destinations, jump, oif, rule, sources},
    scopes::{Scopes, plain},
};
use crate::model::{
    Chain, ChainType, Family, FirewallRule, Guard, Hook, IfName, Interfaces, Match, Op, Priority, Statement,
};
use gatewrt_protocol::Prefix;
use sorted_vec::SortedSet;
use std::net::IpAddr;

const POSTROUTING: Place = (ChainType::Nat, Hook::Postrouting, Priority::SrcNat);

impl Guard {
    pub(super) fn masquerades(&self) -> bool {
        self.lets_out() || self.egress.values().any(|&nat| nat)
    }
}

impl Firewall {
    /// Base chain after routing, which masquerades what leaves the networks or goes to an exit. It stays also when
    /// nothing is masqueraded: without a chain of type `nat` the kernel stops to translate connections that go on.
    pub(super) fn postrouting(&self, scopes: &Scopes<'_>) -> Chain {
        let mut rules = Vec::new();
        if self.tunnels.values().any(Guard::masquerades) {
            let mut matches = vec![Match::CtMark(Op::Is, scopes.marks.masquerade)];
            let leaves_else = |link: &IfName| Match::Oif(Op::IsNot, Interfaces::One(link.clone()));
            matches.extend(self.interfaces().map(leaves_else));
            rules.push(rule(matches, Statement::Masquerade));
        }
        let exits = self.exits.meshes.keys();
        rules.extend(exits.map(|link| rule(vec![oif(link)], jump(about("leave", &plain(link))))));
        base_chain("postrouting", POSTROUTING, rules)
    }
}

/// Chains of an interface that leads to an exit, `mesh` being the prefixes of its network: only the network opens
/// connections from there (`enter`), and only the rest is masqueraded there (`leave`), as the router's own addresses in
/// the network.
pub(super) fn exit_chains(
    link: &IfName,
    mesh: &SortedSet<Prefix>,
    own: Option<&SortedSet<IpAddr>>,
) -> [Chain; 2] {
    let name = plain(link);
    let pass = |matches: Vec<Match>| matches.into_iter().map(|known| rule(vec![known], Statement::Return));
    let mut enter: Vec<FirewallRule> = pass(sources("mesh", &name, mesh)).collect();
    enter.push(rule(vec![], Statement::Drop).comment("not the network's"));
    let mut leave: Vec<FirewallRule> = pass(sources("mesh", &name, mesh)).collect();
    leave.extend(pass(destinations("mesh", &name, mesh)));
    for &address in own.into_iter().flatten() {
        leave.push(rule(vec![Match::Family(Family::of_addr(address))], Statement::Snat(address)));
    }
    // A family without an address of ours: the exit would not know its packets.
    leave.push(rule(vec![], Statement::Drop));
    [chain(about("enter", &name), enter), chain(about("leave", &name), leave)]
}

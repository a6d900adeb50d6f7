//! Traffic that comes from a network: it is for the network, for the router itself or for what is served, and we are
//! nobody's open relay.

use super::{
    Firewall, access_chains,
    rules::{Place, about, base_chain, chain, daddr, destinations, established, iif, jump, oif, rule},
    scopes::{Scopes, plain},
};
use crate::{
    model::{Chain, ChainType, FirewallRule, Guard, Hook, IfName, Match, Priority, Statement, Transport},
    ownership::PROBE_PORT,
};

const FORWARD: Place = (ChainType::Filter, Hook::Forward, Priority::Filter);
const INPUT: Place = (ChainType::Filter, Hook::Input, Priority::Filter);
const PREROUTING: Place = (ChainType::Filter, Hook::Prerouting, Priority::Mangle);

impl Firewall {
    /// Base chain of our firewall table for forwarded packets. TCP segments are clamped from here too: a base chain of
    /// its own would cost each packet as much as a rule.
    pub(super) fn forward(&self, scopes: &Scopes<'_>) -> Chain {
        let mut rules = vec![rule(vec![Match::TcpSyn], jump("clamp"))];
        rules.extend(scopes.forward(self.interfaces()));
        for link in self.tunnels.keys() {
            let network = |way| rule(vec![iif(way)], jump(about("forward", link.as_str())));
            rules.extend(self.interfaces_of(link).map(network));
        }
        rules.extend(self.rules_into_networks());
        base_chain("forward", FORWARD, rules)
    }

    /// Base chain for packets to the router itself, where not everyone may reach it.
    pub(super) fn input(&self, scopes: &Scopes<'_>) -> Option<Chain> {
        let mut rules: Vec<FirewallRule> = scopes.input().into_iter().collect();
        // Health checks of this node come also from nodes that may reach nothing else of it.
        let probes = self.judged().map(|link| {
            let probe = vec![iif(link), Match::Dport(Transport::Udp, PROBE_PORT)];
            rule(probe, Statement::Accept).comment("probe")
        });
        rules.extend(probes);
        for link in self.judged() {
            rules.extend(self.interfaces_of(link).map(|way| rule(vec![iif(way)], access(link))));
        }
        (!rules.is_empty()).then(|| base_chain("input", INPUT, rules))
    }

    /// Base chain of our firewall table for packets before routing, where their marks decide.
    pub(super) fn prerouting(&self, scopes: &Scopes<'_>) -> Option<Chain> {
        let mut rules: Vec<FirewallRule> =
            self.bypass.then(|| scopes.marks.restore_bypass()).into_iter().collect();
        rules.extend(scopes.prerouting());
        (!rules.is_empty()).then(|| base_chain("prerouting", PREROUTING, rules))
    }

    /// Chain for what is forwarded from a network.
    pub(super) fn network(&self, link: &IfName, guard: &Guard) -> Chain {
        let mut rules = vec![established()];
        if guard.masquerades() {
            rules.push(rule(vec![], jump(about("mark", link.as_str()))));
        }
        if access_chains::is_needed(guard) {
            rules.push(rule(vec![], access(link)));
        }
        let relay = |way| rule(vec![oif(way)], Statement::Accept).comment("relay");
        rules.extend(self.interfaces_of(link).map(relay));
        let others = self.tunnels.keys().filter(|other| *other != link);
        let refuse = |way| rule(vec![oif(way)], Statement::Reject).comment("another network");
        rules.extend(others.flat_map(|other| self.interfaces_of(other)).map(refuse));
        rules.extend(guard.served().map(|prefix| rule(vec![daddr(prefix)], Statement::Accept)));
        rules.push(rule(vec![], Statement::Reject).comment("not served"));
        chain(about("forward", link.as_str()), rules)
    }

    /// Interfaces of the networks that have access rules.
    fn judged(&self) -> impl Iterator<Item = &IfName> {
        self.tunnels.iter().filter(|(_, guard)| !guard.is_open()).map(|(link, _)| link)
    }

    /// Rules for what is forwarded into a network. Behind an exit is also the Internet, which the access rules of the
    /// network do not concern.
    fn rules_into_networks(&self) -> Vec<FirewallRule> {
        let mut rules = Vec::new();
        for link in self.judged() {
            for way in self.interfaces_of(link) {
                match self.exits.meshes.get(way) {
                    Some(mesh) => {
                        let own = destinations("mesh", &plain(way), mesh).into_iter();
                        rules.extend(own.map(|own| rule(vec![oif(way), own], access(link))));
                    }
                    None => rules.push(rule(vec![oif(way)], access(link))),
                }
            }
        }
        rules
    }
}

fn access(link: &IfName) -> Statement {
    jump(about("access", link.as_str()))
}

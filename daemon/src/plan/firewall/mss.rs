//! TCP segment sizes: packets of a connection through a tunnel must fit its MTU.

use super::{
    Firewall,
    rules::{chain, iif, oif, rule},
};
use crate::model::{Chain, Exits, Family, FirewallRule, IfName, Match, Statement};

impl Firewall {
    /// Chain that clamps the segment size in the packets that open a TCP connection. `rt mtu` is the lesser of the
    /// route's MTU and the way back's.
    pub(super) fn mss(&self) -> Chain {
        let clamp = |interface| rule(vec![interface, Match::TcpSyn], Statement::ClampMss);
        let both = |link: &IfName| [iif(link), oif(link)].map(clamp);
        let mut rules: Vec<FirewallRule> = self.interfaces().flat_map(both).collect();
        rules.extend(by_exit(&self.exits));
        chain("clamp", rules)
    }
}

/// Rules that set the TCP segment size of what comes in by an exit. The main table would send it back over the WAN, so
/// `rt mtu` is the WAN's: the size must be a number.
fn by_exit(exits: &Exits) -> Vec<FirewallRule> {
    let mut rules = Vec::new();
    for (link, mtu) in &exits.mtus {
        // Headers of IP and TCP without options.
        for (family, headers) in [(Family::V4, 40), (Family::V6, 60)] {
            let matches = vec![iif(link), Match::Family(family), Match::TcpSyn];
            rules.push(rule(matches, Statement::SetMss(mtu.saturating_sub(headers))));
        }
    }
    rules
}

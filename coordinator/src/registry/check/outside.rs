//! Check of access to the Internet: which exit takes the traffic of the sender.

use super::{End, Findings};
use crate::registry::{Node, Registry, ScopeSetting, Selector, is_private};
use gatewrt_protocol::{Prefix, Tag, Traffic};

/// Sender of Internet traffic: a router itself, or hosts in its LANs.
pub(super) struct Sender<'a> {
    pub(super) node: &'a Node,
    /// Hosts in a LAN of the node; none means the router itself.
    pub(super) hosts: Option<Prefix>,
}

impl Registry {
    /// Checks access to a target outside the network: on the Internet, or unknown.
    pub(super) fn evaluate_outside(
        &self,
        source: &End<'_>,
        target: &End<'_>,
        now: u64,
        found: &mut Findings,
    ) {
        let Selector::Prefix(prefix) = target.selector else {
            return found.no(format!("{} matches nothing now", target.text), None);
        };
        if is_private(prefix.addr()) {
            let why = format!(
                "{} is no part of this network: no node serves it, and no client has it",
                target.text
            );
            return found.no(why, None);
        }
        let senders = source.senders();
        if !senders.is_empty() {
            return senders.iter().for_each(|sender| self.evaluate_sender(sender, prefix, found));
        }
        source.obstacles(now, false).for_each(|why| found.no(why, None));
        match source.full_tunnels() {
            Some(clients) => found.yes(
                format!("rules do not apply to the Internet, and {clients} sends its Internet traffic through the network"),
                None,
            ),
            None => found.no(
                format!("{} is the Internet: only a client with a full tunnel, and what a scope sends through an exit, reaches that through the network", target.text),
                None,
            ),
        }
    }

    fn evaluate_sender(&self, sender: &Sender<'_>, target: Prefix, found: &mut Findings) {
        let (node, who) = (sender.node, sender.text());
        let Some((name, scope)) = sender.scope() else {
            let why = format!(
                "no scope of {} takes the Internet traffic of {who}: it goes out over the WAN there",
                node.name
            );
            return found.no(why, None);
        };
        let named = format!("scope {name} of {} takes the Internet traffic of {who}", node.name);
        if scope.exclude.iter().any(|excluded| excluded.covers(&target)) {
            let target = Selector::Prefix(target);
            return found
                .no(format!("{named}, but {target} is excluded: it is reached over the WAN there"), None);
        }
        let leads = |exit: &&Node| {
            exit.exit_offer().is_some_and(|offer| if target.is_ipv4() { offer.v4 } else { offer.v6 })
        };
        let exits: Vec<_> =
            self.candidates(node, scope).filter(leads).map(|exit| exit.name.to_string()).collect();
        if exits.is_empty() {
            let to_wan = scope.open || (!target.is_ipv4() && scope.v6_wan);
            let effect = if to_wan { "goes out over the WAN" } else { "is dropped" };
            let family = if target.is_ipv4() { "IPv4" } else { "IPv6" };
            return found.no(format!("{named}, but no exit of it has {family} now: it {effect}"), None);
        }
        found.yes(
            format!("rules do not apply to the Internet, and {named}: through {}", exits.join(", else ")),
            None,
        );
    }
}

impl<'a> Sender<'a> {
    fn text(&self) -> String {
        match self.hosts {
            Some(hosts) => Selector::Prefix(hosts).to_string(),
            None => format!("the router {}", self.node.name),
        }
    }

    /// Most specific scope that covers the whole sender: prefixes (longest first), then devices, then `all`.
    fn scope(&self) -> Option<(&'a Tag, &'a ScopeSetting)> {
        let scopes = || self.node.scopes.iter();
        let parts =
            scopes().flat_map(|(name, scope)| scope.of.iter().map(move |of| (self.rank(of), name, scope)));
        let best = parts.filter_map(|(rank, name, scope)| Some((rank?, name, scope)));
        best.max_by_key(|(rank, ..)| *rank).map(|(_, name, scope)| (name, scope))
    }

    /// Specificity with which a scope's traffic covers the sender, higher for longer prefixes; none if it does not.
    fn rank(&self, of: &Traffic) -> Option<u16> {
        match (of, self.hosts) {
            (Traffic::All, _) => Some(0),
            (Traffic::Router, None) => Some(1),
            (Traffic::Device(device), Some(hosts)) => {
                let mut interfaces = self.node.facts.interfaces.iter();
                let there = interfaces.find(|interface| interface.name == *device);
                there?.prefixes.iter().any(|lan| lan.covers(&hosts)).then_some(2)
            }
            (Traffic::Prefix(prefix), Some(hosts)) => {
                prefix.covers(&hosts).then_some(3 + u16::from(prefix.len()))
            }
            _ => None,
        }
    }
}

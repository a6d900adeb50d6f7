//! Established connections that a change of roles, access rules or exits forbids: they are cut. Our table accepts packets
//! of an established connection unchecked, and does not even see those of an offloaded one.

use super::{Step, link::View};
use crate::model::{Family, Flow, Flows, IfName, NetworkPolicy, ScopeFlows};
use gatewrt_protocol::{Prefix, WgPublicKey};
use litemap::LiteMap;
use std::{net::IpAddr, sync::Arc};

/// Verdict on an established connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowVerdict {
    /// The connection goes on.
    Keep,
    /// The connection leaves by the WAN and must take another way: it is cut, and its host opens it again. The other end
    /// does not know, and goes on answering.
    Rerouted,
    /// The connection is cut.
    Forbidden,
}

/// Way out of the router for a connection.
#[derive(PartialEq, Eq)]
enum Way<'a> {
    /// By the main table, as without exits.
    Wan,
    /// None: the kill switch holds.
    Nowhere,
    /// This interface, and this peer behind it.
    Exit(&'a IfName, &'a WgPublicKey),
}

pub(super) fn cut(view: View<'_>, steps: &mut Vec<Step>) {
    let (observed, desired) = (view.observed, view.desired);
    let is_news = observed.flows != desired.flows || observed.ruleset != desired.ruleset;
    if let Some(flows) = &desired.flows
        && is_news
        && !flows.is_open(observed.flows.as_deref())
    {
        steps.push(Step::CutFlows(flows.clone()));
    }
}

impl Flows {
    /// True if no connection can be forbidden, neither by this policy nor by the policy `before`.
    fn is_open(&self, before: Option<&Self>) -> bool {
        let allows_all = |policy: &NetworkPolicy| {
            let guard = &policy.guard;
            let clients = !(policy.blocks.is_empty() && policy.clients.is_empty());
            !clients && guard.internet.is_empty() && guard.is_open()
        };
        let open = |flows: &Self| flows.scopes.is_empty() && flows.policies.values().all(allows_all);
        open(self) && before.is_none_or(open)
    }

    /// Starts a check of established connections against this policy. `before` is the policy of the last check: a
    /// client that it let in, and this one does not, is cut off.
    pub fn check<'a>(&'a self, before: Option<&'a Self>) -> FlowCheck<'a> {
        FlowCheck { flows: self, before, known: LiteMap::new() }
    }

    /// Interface of ours that leads to a host: that of the longest prefix.
    fn link_to(&self, host: &Prefix) -> Option<&IfName> {
        let within = |len: &u8| Prefix::containing(host.addr(), *len).ok();
        let mut links = self.lengths.iter().rev().filter_map(|len| self.routes.get(&within(len)?));
        links.next()?.as_ref()
    }

    /// Scope that a connection belongs to, by the address that opened it.
    fn scope(&self, src: &Prefix) -> Option<&ScopeFlows> {
        let is_own = || self.policies.values().any(|policy| policy.own.binary_search(src).is_ok());
        let has = |scope: &&ScopeFlows| {
            scope.sources.iter().any(|prefix| prefix.covers(src)) || (scope.router && is_own())
        };
        self.scopes.iter().find(has)
    }

    /// Way out of the router that a connection must take.
    fn right_way(&self, flow: &Flow) -> Way<'_> {
        let (src, to) = (Prefix::host(flow.src), Prefix::host(flow.answers));
        let Some(scope) = self.scope(&src) else { return Way::Wan };
        if scope.apart.iter().any(|prefix| prefix.covers(&to)) {
            return Way::Wan;
        }
        let exit = if src.is_ipv4() { &scope.v4 } else { &scope.v6 };
        match exit {
            Some((link, key)) => Way::Exit(link, key),
            None if scope.closed.contains(&Family::of(&src)) => Way::Nowhere,
            None => Way::Wan,
        }
    }

    /// True if a connection takes another way out than it must. Its translated source shows that also for a connection
    /// that is older than this program.
    fn is_astray(&self, flow: &Flow, before: Option<&Self>) -> bool {
        let bypasses = |flows: &Self| {
            let scope = || flows.scope(&Prefix::host(flow.src));
            flow.mark & flows.bypass != 0 && scope().is_some_and(|scope| scope.router)
        };
        if bypasses(self) || before.is_some_and(bypasses) {
            return false;
        }
        let way = self.right_way(flow);
        let has_wrong_source = match way {
            Way::Wan => false,
            Way::Nowhere => true,
            Way::Exit(..) => self.link_to(&Prefix::host(flow.seen)).is_none(),
        };
        let had_other_way = before.is_some_and(|before| before.right_way(flow) != way);
        has_wrong_source || had_other_way || self.asks_wrong_resolver(flow)
    }

    /// True if a connection is a DNS query to another resolver than its scope's.
    fn asks_wrong_resolver(&self, flow: &Flow) -> bool {
        let is_query = flow.port == 53 && [6, 17].contains(&flow.proto);
        let resolvers = |scope: &ScopeFlows| {
            let mut known =
                scope.resolvers.iter().filter(|resolver| resolver.is_ipv4() == flow.src.is_ipv4()).peekable();
            known.peek().is_some() && !known.any(|resolver| *resolver == flow.answers)
        };
        is_query && self.scope(&Prefix::host(flow.src)).is_some_and(resolvers)
    }
}

/// Check of established connections against a policy, one after the other.
pub struct FlowCheck<'a> {
    flows: &'a Flows,
    before: Option<&'a Flows>,
    /// Membership of an address in each set of a network's access rules. A cache: many connections share addresses.
    known: LiteMap<(&'a IfName, IpAddr), Arc<[bool]>>,
}

/// Most addresses in the cache, which bounds its memory.
const MOST_KNOWN: usize = 1024;

impl<'a> FlowCheck<'a> {
    /// Verdict on one established connection.
    pub fn verdict(&mut self, flow: &Flow) -> FlowVerdict {
        let (src, dst) = (Prefix::host(flow.src), Prefix::host(flow.dst));
        let (from, to) = (self.flows.link_to(&src), self.flows.link_to(&dst));
        let mut policies = self.flows.policies.iter();
        let is_refused = policies.any(|(link, policy)| {
            let was = self.before.and_then(|before| before.policies.get(link));
            let is_cut_off = |host: &Prefix| {
                let had = policy.blocks.iter().any(|block| block.covers(host))
                    || was.is_some_and(|was| was.clients.binary_search(host).is_ok());
                had && policy.clients.binary_search(host).is_err() && policy.own.binary_search(host).is_err()
            };
            // Access rules do not concern connections that this router opened itself.
            let concerns = [from, to].contains(&Some(link)) && policy.own.binary_search(&src).is_err();
            let leaves = from == Some(link) && to.is_none();
            is_cut_off(&src)
                || is_cut_off(&dst)
                || (leaves && policy.took_internet(&src, &dst, was))
                || (concerns && self.is_refused(link, policy, flow))
        });
        if is_refused {
            return FlowVerdict::Forbidden;
        }
        if !self.flows.is_astray(flow, self.before) {
            return FlowVerdict::Keep;
        }
        // Late answers come only to a connection that left by the WAN. One by a tunnel had another source address.
        let leaves_by_tunnel = self.flows.link_to(&Prefix::host(flow.seen)).is_some();
        let must_leave_by_wan = self.flows.right_way(flow) == Way::Wan;
        if leaves_by_tunnel || must_leave_by_wan { FlowVerdict::Forbidden } else { FlowVerdict::Rerouted }
    }

    fn is_refused(&mut self, link: &'a IfName, policy: &NetworkPolicy, flow: &Flow) -> bool {
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let mut sets = |addr| {
            let known = self.known.entry((link, addr));
            known.or_insert_with(|| policy.guard.sets_with(addr).into()).clone()
        };
        let (sources, destinations) = (sets(flow.src), sets(flow.dst));
        let ends = (flow.src, flow.dst);
        policy.guard.forbids_from_sets(&sources, &destinations, ends, flow.proto, flow.port)
    }
}

impl NetworkPolicy {
    /// True if a connection is Internet traffic of a client that may not go out here any more.
    fn took_internet(&self, src: &Prefix, dst: &Prefix, was: Option<&Self>) -> bool {
        let lets_out = |policy: &Self| policy.guard.internet.iter().any(|prefix| prefix.covers(src));
        let had = was.map_or_else(|| self.clients.binary_search(src).is_ok(), lets_out);
        let served = self.guard.egress.keys().any(|prefix| prefix.covers(dst));
        had && !served && !lets_out(self)
    }
}

#[cfg(test)]
mod tests;

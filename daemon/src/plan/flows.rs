//! Which of the connections that stand may not any more. A packet of a connection that stands passes our table
//! without being judged, and no packet of an offloaded one is even seen: what was forbidden since is cut.

use super::{Guard, ScopeFlows, Step, link::View};
use crate::{
    model::{Family, IfName, Route, RouteKind},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Prefix, WgPublicKey};
use std::{net::IpAddr, sync::Arc};

/// A connection, as its first packet was before any translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who opened it.
    pub src: IpAddr,
    /// With whom.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// Who answers: another than `dst` where that was translated.
    pub answers: IpAddr,
    /// Who is answered: another than `src` where that is masqueraded.
    pub seen: IpAddr,
    /// Connection mark; 0 where the kernel keeps none.
    pub mark: u32,
}

impl Flow {
    /// One that nothing is translated or marked of.
    pub fn plain(src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> Self {
        Self { src, dst, proto, port, answers: dst, seen: src, mark: 0 }
    }
}

/// What the connections of one network are judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Realm {
    /// What may reach what.
    pub guard: Guard,
    /// This node's own addresses in the network.
    pub own: SortedSet<Prefix>,
    /// Where addresses of clients come from.
    pub blocks: Vec<Prefix>,
    /// Addresses of the clients that are let in.
    pub clients: SortedSet<Prefix>,
}

/// What decides which connections may stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    realms: SortedMap<IfName, Realm>,
    /// Which of our interfaces leads to each prefix; `None` where another does.
    ways: SortedMap<Prefix, Option<IfName>>,
    /// The lengths that they have, the longest last.
    lengths: SortedSet<u8>,
    /// Whose Internet traffic goes which way, the most precise first: the first that a connection belongs to decides.
    pub scopes: Vec<ScopeFlows>,
    /// Connections of the router itself that have one of these bits in their mark are no scope's: they must never enter a
    /// network. (What came in from outside is known by who opened it.)
    pub aside: u32,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Stands,
    /// It leaves by the WAN, and is not to: cut, it is opened again another way. The other side does not know, and
    /// answers on.
    Elsewhere,
    /// It may not be.
    Forbidden,
}

/// Where a connection goes.
#[derive(PartialEq, Eq)]
enum Way<'a> {
    /// As if there were no exits.
    Own,
    Nowhere,
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
    /// `routes` are those of the networks' prefixes.
    pub fn new(realms: SortedMap<IfName, Realm>, routes: &SortedSet<Route>) -> Self {
        let mut flows = Self { realms, ..Self::default() };
        for route in routes {
            let way = match &route.kind {
                RouteKind::Device(link) => Some(link.clone()),
                RouteKind::Throw | RouteKind::Blackhole => None,
            };
            flows.ways.insert(route.prefix, way);
            flows.lengths.insert(route.prefix.len());
        }
        flows
    }

    /// With these scopes. `aside` are the bits of our marks.
    pub fn with_scopes(self, scopes: Vec<ScopeFlows>, aside: u32) -> Self {
        Self { scopes, aside, ..self }
    }

    /// By interface.
    pub fn realms(&self) -> &SortedMap<IfName, Realm> {
        &self.realms
    }

    /// Whether no connection can be forbidden, with `before` judged by last.
    fn is_open(&self, before: Option<&Self>) -> bool {
        let lets_all = |realm: &Realm| {
            let guard = &realm.guard;
            let clients = !(realm.blocks.is_empty() && realm.clients.is_empty());
            !clients && guard.internet.is_empty() && guard.is_open()
        };
        let open = |flows: &Self| flows.scopes.is_empty() && flows.realms.values().all(lets_all);
        open(self) && before.is_none_or(open)
    }

    /// The judge of connections, one after the other. `before` is what was judged by last: who was let in by it, and
    /// no more, is cut off.
    pub fn judge<'a>(&'a self, before: Option<&'a Self>) -> Judge<'a> {
        Judge { flows: self, before, known: SortedMap::new() }
    }

    /// The interface of ours that leads to an address.
    fn way(&self, host: &Prefix) -> Option<&IfName> {
        let within = |len: &u8| Prefix::containing(host.addr(), *len).ok();
        let mut ways = self.lengths.iter().rev().filter_map(|len| self.ways.get(&within(len)?));
        ways.next()?.as_ref()
    }

    /// The scope of who opened a connection.
    fn scope(&self, src: &Prefix) -> Option<&ScopeFlows> {
        let is_own = || self.realms.values().any(|realm| realm.own.contains(src));
        let has = |scope: &&ScopeFlows| {
            scope.sources.iter().any(|prefix| prefix.covers(src)) || (scope.router && is_own())
        };
        self.scopes.iter().find(has)
    }

    fn scope_way(&self, flow: &Flow) -> Way<'_> {
        let (src, to) = (Prefix::host(flow.src), Prefix::host(flow.answers));
        let Some(scope) = self.scope(&src) else { return Way::Own };
        if scope.apart.iter().any(|prefix| prefix.covers(&to)) {
            return Way::Own;
        }
        let exit = if src.is_ipv4() { &scope.v4 } else { &scope.v6 };
        match exit {
            Some((link, key)) => Way::Exit(link, key),
            None if scope.closed.contains(&Family::of(&src)) => Way::Nowhere,
            None => Way::Own,
        }
    }

    /// Whether it goes another way than is right. What it is translated to tells that also of what was opened before
    /// we began to look.
    fn is_astray(&self, flow: &Flow, before: Option<&Self>) -> bool {
        let bypasses = |flows: &Self| {
            let scope = || flows.scope(&Prefix::host(flow.src));
            flow.mark & flows.aside != 0 && scope().is_some_and(|scope| scope.router)
        };
        if bypasses(self) || before.is_some_and(bypasses) {
            return false;
        }
        let way = self.scope_way(flow);
        let leaves_as_other = match way {
            Way::Own => false,
            Way::Nowhere => true,
            Way::Exit(..) => self.way(&Prefix::host(flow.seen)).is_none(),
        };
        leaves_as_other || before.is_some_and(|before| before.scope_way(flow) != way) || self.asks_other(flow)
    }

    /// A query that goes to another resolver than is right.
    fn asks_other(&self, flow: &Flow) -> bool {
        let is_query = flow.port == 53 && [6, 17].contains(&flow.proto);
        let resolvers = |scope: &ScopeFlows| {
            let mut known =
                scope.resolvers.iter().filter(|resolver| resolver.is_ipv4() == flow.src.is_ipv4()).peekable();
            known.peek().is_some() && !known.any(|resolver| *resolver == flow.answers)
        };
        is_query && self.scope(&Prefix::host(flow.src)).is_some_and(resolvers)
    }
}

/// Judges connections.
pub struct Judge<'a> {
    flows: &'a Flows,
    before: Option<&'a Flows>,
    /// Which of a network's sets an address is in: many connections have the same.
    known: SortedMap<(&'a IfName, IpAddr), Arc<[bool]>>,
}

/// So many addresses are remembered.
const MOST_KNOWN: usize = 1024;

impl<'a> Judge<'a> {
    /// What becomes of a connection.
    pub fn fate(&mut self, flow: &Flow) -> Fate {
        let (src, dst) = (Prefix::host(flow.src), Prefix::host(flow.dst));
        let (from, to) = (self.flows.way(&src), self.flows.way(&dst));
        let mut realms = self.flows.realms.iter();
        let is_refused = realms.any(|(link, realm)| {
            let was = self.before.and_then(|before| before.realms.get(link));
            let is_cut_off = |host: &Prefix| {
                let had = realm.blocks.iter().any(|block| block.covers(host))
                    || was.is_some_and(|was| was.clients.contains(host));
                had && !realm.clients.contains(host) && !realm.own.contains(host)
            };
            // What this router opens itself is no matter of the rules.
            let concerns = [from, to].contains(&Some(link)) && !realm.own.contains(&src);
            let leaves = from == Some(link) && to.is_none();
            is_cut_off(&src)
                || is_cut_off(&dst)
                || (leaves && realm.took_internet(&src, &dst, was))
                || (concerns && self.is_refused(link, realm, flow))
        });
        if is_refused {
            return Fate::Forbidden;
        }
        if !self.flows.is_astray(flow, self.before) {
            return Fate::Stands;
        }
        // Over a tunnel it has another address than over the WAN, and answers come in from there.
        let leaves_by_tunnel = self.flows.way(&Prefix::host(flow.seen)).is_some();
        let is_to_leave_by_wan = self.flows.scope_way(flow) == Way::Own;
        if leaves_by_tunnel || is_to_leave_by_wan { Fate::Forbidden } else { Fate::Elsewhere }
    }

    fn is_refused(&mut self, link: &'a IfName, realm: &Realm, flow: &Flow) -> bool {
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let mut sets = |addr| {
            let known = self.known.entry((link, addr));
            known.or_insert_with(|| realm.guard.sets_with(addr).into()).clone()
        };
        let (sources, destinations) = (sets(flow.src), sets(flow.dst));
        let ends = (flow.src, flow.dst);
        realm.guard.forbids_from_sets(&sources, &destinations, ends, flow.proto, flow.port)
    }
}

impl Realm {
    /// Its way out to the Internet was taken from it.
    fn took_internet(&self, src: &Prefix, dst: &Prefix, was: Option<&Self>) -> bool {
        let lets_out = |realm: &Self| realm.guard.internet.iter().any(|prefix| prefix.covers(src));
        let had = was.map_or_else(|| self.clients.contains(src), lets_out);
        let served = self.guard.egress.keys().any(|prefix| prefix.covers(dst));
        had && !served && !lets_out(self)
    }
}

#[cfg(test)]
mod tests;

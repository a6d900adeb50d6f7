//! Which of the connections that stand may not any more. A packet of a connection that stands passes our table
//! without being judged, and no packet of an offloaded one is even seen: what was forbidden since is cut.

use super::{Guard, ScopeFlows, Step, link::View};
use crate::{
    model::{IfName, Route, RouteKind},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::Prefix;
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
    /// Whose Internet traffic goes which way, the most precise first.
    pub scopes: Vec<ScopeFlows>,
    /// Which of our interfaces leads to each prefix; `None` where another does.
    ways: SortedMap<Prefix, Option<IfName>>,
    /// The lengths that they have, the longest last.
    lengths: SortedSet<u8>,
}

pub(super) fn cut(view: View<'_>) -> Vec<Step> {
    let (observed, desired) = (view.observed, view.desired);
    let is_news = observed.flows != desired.flows || observed.ruleset != desired.ruleset;
    let due = desired.flows.iter().filter(|flows| is_news && !flows.is_open(observed.flows.as_deref()));
    due.cloned().map(Step::CutFlows).collect()
}

impl Flows {
    /// `routes` are ours.
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

    /// By interface.
    pub fn realms(&self) -> &SortedMap<IfName, Realm> {
        &self.realms
    }

    /// Whether no connection can be forbidden, with `before` judged by last.
    fn is_open(&self, before: Option<&Self>) -> bool {
        let open =
            |realm: &Realm| realm.blocks.is_empty() && realm.clients.is_empty() && realm.guard.is_open();
        self.realms.values().chain(before.into_iter().flat_map(|before| before.realms.values())).all(open)
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
    /// Whether a connection may not stand.
    pub fn forbids(&mut self, flow: &Flow) -> bool {
        let (src, dst) = (Prefix::host(flow.src), Prefix::host(flow.dst));
        let (from, to) = (self.flows.way(&src), self.flows.way(&dst));
        let mut realms = self.flows.realms.iter();
        realms.any(|(link, realm)| {
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
        })
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
    /// A client's full tunnel was taken from it.
    fn took_internet(&self, src: &Prefix, dst: &Prefix, was: Option<&Self>) -> bool {
        let had = was.is_none_or(|was| was.guard.internet.contains(src));
        let served = self.guard.egress.keys().any(|prefix| prefix.covers(dst));
        had && !served && self.clients.contains(src) && !self.guard.internet.contains(src)
    }
}

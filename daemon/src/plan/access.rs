//! Access rules as sets of nft: pairs of source and destination, with or without a service, that are denied or
//! allowed. Pure; how the sets are asked is [`ruleset`](super::ruleset)'s matter.
//!
//! nft refuses overlapping elements in one set, so what the rules say together is cut into blocks that share nothing.
//! Few may be reached by many, or many by few: cutting both along the same side would cut each wide block at the ends
//! of every narrow one, so that they multiply. Each way therefore has sets of its own, cut along its narrow side.

use super::Guard;
use crate::{gather::Gather, model::Family, sorted::sort_by};
use gatewrt_protocol::{AccessRule, Prefix, Proto, Service, Verdict};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First and last address, as numbers.
type Range = (u128, u128);
/// In order, apart from each other.
type Ranges = Vec<Range>;

/// A set of nft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairSet {
    /// What becomes of connections that are in it.
    pub verdict: Verdict,
    /// Family of its addresses.
    pub family: Family,
    /// Whether its elements name services.
    pub services: bool,
    /// Whether it is cut along the sources, not along the destinations.
    pub by_source: bool,
    /// Its elements: no two overlap.
    pub blocks: Vec<Block>,
}

/// Connections from some addresses to some addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Sources, the first and the last.
    pub from: (IpAddr, IpAddr),
    /// Destinations, the first and the last.
    pub to: (IpAddr, IpAddr),
    /// What is reached there; `None` is everything.
    pub service: Option<Service>,
}

/// What is no part of the Internet, whoever routes it there (RFC 6890; the range for benchmarks is let through: where
/// it is used it stands for the Internet).
pub(super) const NOT_INTERNET: [&str; 9] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/3",
];
/// All of IPv6 that is given out for the Internet (RFC 4291).
pub(super) const INTERNET6: &str = "2000::/3";

impl Guard {
    /// Whether a new connection is refused. Asked about what passes between this network and elsewhere, or between
    /// two of its members: what never meets its interface is no matter of its rules, and looks refused where the
    /// default is to deny. `proto` is the IP protocol's number; protocols without ports have any.
    pub fn forbids(&self, src: IpAddr, dst: IpAddr, proto: u8, dport: u16) -> bool {
        self.forbids_from_sets(&self.sets_with(src), &self.sets_with(dst), (src, dst), proto, dport)
    }

    /// Of each set that the rules name, whether an address is in it.
    pub(super) fn sets_with(&self, addr: IpAddr) -> Vec<bool> {
        self.access.sets.iter().map(|set| set.iter().any(|prefix| prefix.contains(addr))).gather()
    }

    /// As [`Self::forbids`], for who knows already which sets the two are in.
    pub(super) fn forbids_from_sets(
        &self,
        sources: &[bool],
        destinations: &[bool],
        (src, dst): (IpAddr, IpAddr),
        proto: u8,
        dport: u16,
    ) -> bool {
        if self.closed.iter().any(|prefix| prefix.contains(dst)) {
            return true;
        }
        let access = &self.access;
        let is_in = |sets: &[bool], set: u32| sets.get(set as usize).copied().unwrap_or_default();
        let is_said = |verdict| {
            access.rules.iter().any(|rule| {
                rule.verdict == verdict
                    && is_in(sources, rule.from)
                    && is_in(destinations, rule.to)
                    && serves(rule, dst.is_ipv4(), proto, dport)
            })
        };
        let allowed = || match access.default {
            Verdict::Allow => true,
            Verdict::Deny => is_said(Verdict::Allow) || self.is_let_out(src, dst),
        };
        is_said(Verdict::Deny) || !allowed()
    }

    /// Whether there is anything to enforce but what is served.
    pub(super) fn is_open(&self) -> bool {
        self.closed.is_empty() && self.access.is_open()
    }

    /// Whether it is a full tunnel's traffic to the Internet.
    fn is_let_out(&self, src: IpAddr, dst: IpAddr) -> bool {
        let is_in = |text: &str| text.parse::<Prefix>().is_ok_and(|prefix| prefix.contains(dst));
        let public = match dst {
            IpAddr::V4(_) => !NOT_INTERNET.iter().any(|text| is_in(text)),
            IpAddr::V6(_) => is_in(INTERNET6),
        };
        let granted = self.internet.iter().any(|prefix| prefix.contains(src));
        granted && public && !self.egress.keys().any(|prefix| prefix.contains(dst))
    }
}

impl PairSet {
    /// All that are not empty.
    pub fn of(guard: &Guard) -> Vec<Self> {
        let mut sets = Vec::new();
        for verdict in [Verdict::Deny, Verdict::Allow] {
            if verdict == Verdict::Allow && guard.access.default == Verdict::Allow {
                continue;
            }
            for family in Family::ALL {
                let pairs = pairs(guard, verdict, family);
                for (services, by_source) in [(false, false), (false, true), (true, false), (true, true)] {
                    let pairs: Vec<&Pair<'_>> =
                        pairs.iter().filter(|pair| pair.by_source == by_source).gather();
                    let mut set = Self { verdict, family, services, by_source, blocks: Vec::new() };
                    for (parts, service) in if services { by_service(&pairs) } else { everything(&pairs) } {
                        set.add(parts, service);
                    }
                    if !set.blocks.is_empty() {
                        sets.push(set);
                    }
                }
            }
        }
        sets
    }

    fn add(&mut self, parts: Parts, service: Option<Service>) {
        let family = self.family;
        let range = |(first, last)| (address(first, family), address(last, family));
        for (narrow, wides) in parts {
            for wide in wides {
                let (from, to) = if self.by_source { (narrow, wide) } else { (wide, narrow) };
                self.blocks.push(Block { from: range(from), to: range(to), service });
            }
        }
    }
}

/// A rule, as far as one family goes. It is cut along its narrow side, and holds whole what is on the other one.
struct Pair<'a> {
    by_source: bool,
    narrow: Ranges,
    wide: Ranges,
    services: &'a [Service],
}

fn pairs(guard: &Guard, verdict: Verdict, family: Family) -> Vec<Pair<'_>> {
    let access = &guard.access;
    let sets: Vec<Ranges> = access.sets.iter().map(|set| ranges(&mut set.iter(), family)).gather();
    let set = |index: u32| sets.get(index as usize).cloned().unwrap_or_default();
    let rules = access.rules.iter().filter(|rule| rule.verdict == verdict);
    let mut pairs: Vec<Pair<'_>> =
        rules.map(|rule| pair(set(rule.from), set(rule.to), &rule.services)).gather();
    if verdict == Verdict::Deny {
        pairs.push(pair(vec![(0, most(family))], ranges(&mut guard.closed.iter(), family), &[]));
    }
    pairs.retain(|pair| !pair.narrow.is_empty() && !pair.wide.is_empty());
    pairs
}

fn pair(from: Ranges, to: Ranges, services: &[Service]) -> Pair<'_> {
    let size =
        |ranges: &Ranges| ranges.iter().fold(0u128, |sum, (first, last)| sum.saturating_add(last - first));
    let by_source = size(&from) < size(&to);
    let (narrow, wide) = if by_source { (from, to) } else { (to, from) };
    Pair { by_source, narrow, wide, services }
}

/// Ranges that do not overlap, in order, each with all that stands across from it.
type Parts = Vec<(Range, Ranges)>;

fn everything(pairs: &[&Pair<'_>]) -> Vec<(Parts, Option<Service>)> {
    vec![(parts(pairs, &|pair| pair.services.is_empty()), None)]
}

/// Ports are cut where a service begins or ends; what has the same on both sides is put together again.
fn by_service(pairs: &[&Pair<'_>]) -> Vec<(Parts, Option<Service>)> {
    let mut all: Vec<(Parts, Option<Service>)> = Vec::new();
    for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
        let services = pairs.iter().flat_map(|pair| pair.services).filter(|service| service.proto == proto);
        let ports: Ranges = services.map(|service| (service.first.into(), service.last.into())).gather();
        for (first, last) in segments(&ports, u16::MAX.into()) {
            let service = Service { proto, first: first as u16, last: last as u16 };
            let here =
                parts(pairs, &|pair| pair.services.iter().any(|meant| meant.fits(proto, service.first)));
            match all.last_mut() {
                Some((there, Some(whole))) if whole.proto == proto && *there == here => {
                    whole.last = service.last;
                }
                _ => all.push((here, Some(service))),
            }
        }
    }
    all
}

fn parts(pairs: &[&Pair<'_>], are_meant: &dyn Fn(&Pair<'_>) -> bool) -> Parts {
    let pairs: Vec<&Pair<'_>> = pairs.iter().copied().filter(|pair| are_meant(pair)).gather();
    let mut parts = Parts::new();
    let narrow: Ranges = pairs.iter().flat_map(|pair| &pair.narrow).copied().gather();
    for narrow in segments(&narrow, u128::MAX) {
        let mut wide = Ranges::new();
        for pair in pairs.iter().filter(|pair| holds(&pair.narrow, narrow.0)) {
            wide.extend_from_slice(&pair.wide);
        }
        let wide = merged(wide);
        match parts.last_mut() {
            Some((before, there)) if *there == wide => before.1 = narrow.1,
            _ => parts.push((narrow, wide)),
        }
    }
    parts
}

/// What lies between the ends of these ranges, from the first one's beginning to `most`.
fn segments(ranges: &[Range], most: u128) -> Ranges {
    let mut starts = Vec::new();
    for (first, last) in ranges {
        starts.push(*first);
        starts.extend(last.checked_add(1).filter(|next| *next <= most));
    }
    sort_by(&mut starts, Ord::cmp);
    starts.dedup();
    let end = |index: usize| starts.get(index + 1).map_or(most, |next| next - 1);
    starts.iter().enumerate().map(|(index, start)| (*start, end(index))).gather()
}

/// What these prefixes hold of a family: first and last addresses.
pub(super) fn spans(prefixes: &mut dyn Iterator<Item = &Prefix>, family: Family) -> Vec<(IpAddr, IpAddr)> {
    let span = |(first, last)| (address(first, family), address(last, family));
    ranges(prefixes, family).into_iter().map(span).gather()
}

fn holds(ranges: &Ranges, addr: u128) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= addr);
    after.checked_sub(1).is_some_and(|at| addr <= ranges[at].1)
}

fn ranges(prefixes: &mut dyn Iterator<Item = &Prefix>, family: Family) -> Ranges {
    let prefixes = prefixes.filter(|prefix| Family::of(prefix) == family);
    merged(prefixes.map(|prefix| range(prefix, family)).gather())
}

fn range(prefix: &Prefix, family: Family) -> Range {
    let first = match prefix.addr() {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (first, first | most(family).checked_shr(prefix.len().into()).unwrap_or_default())
}

fn merged(mut ranges: Ranges) -> Ranges {
    sort_by(&mut ranges, Ord::cmp);
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    ranges
}

/// The last address of all.
fn most(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

fn address(bits: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

fn serves(rule: &AccessRule, ipv4: bool, proto: u8, port: u16) -> bool {
    let is_meant =
        |service: &Service| number(service.proto, ipv4) == proto && service.fits(service.proto, port);
    rule.services.is_empty() || rule.services.iter().any(is_meant)
}

/// The IP protocol's number.
pub(super) fn number(proto: Proto, ipv4: bool) -> u8 {
    match (proto, ipv4) {
        (Proto::Tcp, _) => 6,
        (Proto::Udp, _) => 17,
        (Proto::Icmp, true) => 1,
        (Proto::Icmp, false) => 58,
    }
}

#[cfg(test)]
mod tests;

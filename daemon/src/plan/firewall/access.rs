//! Access rules of a network: verdicts on single connections, and the same rules as sets of denied and allowed
//! connections. The chains that look the sets up are in [`access_chains`](super::access_chains).
//!
//! nft refuses overlapping elements in one set, so the rules together are cut into blocks that share nothing. Few
//! destinations may be reached by many sources, or many by few: cut along the same side, each wide block would be cut at
//! the ends of every narrow one, and blocks would multiply. Each way therefore has sets of its own, cut along its narrow
//! side.

use crate::model::{AddressPair, AddressRange, Family, Guard, protocol_number};
use gatewrt_protocol::{AccessRule, Prefix, Proto, Service, Verdict};
use sorted_vec::SortedSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Range of addresses or ports as numbers, the first and the last.
type Range = (u128, u128);
/// Ranges of addresses or ports in order, apart from each other.
type Ranges = Vec<Range>;

/// Firewall set of denied or allowed connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairSet {
    /// Verdict on its connections.
    pub verdict: Verdict,
    /// Family of its addresses.
    pub family: Family,
    /// True if the set's elements have services.
    pub services: bool,
    /// True if the set is split by sources, false if by destinations.
    pub by_source: bool,
    /// Elements; no two overlap.
    pub blocks: Vec<AddressPair>,
}

/// IPv4 prefixes that are no part of the Internet (RFC 6890). The range for benchmarks is not among them: where it is used
/// it stands for the Internet.
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
/// IPv6 prefix of the Internet, all that is allocated (RFC 4291).
pub(super) const INTERNET6: &str = "2000::/3";

impl Guard {
    /// True if a new connection is refused by the rules of the network: one between this network and elsewhere, or
    /// between two of its members. Connections that never meet its interface are no matter of its rules, and count as
    /// refused where the default is to deny. `proto` is the IP protocol's number; a protocol without ports has any
    /// `dport`.
    pub fn forbids(&self, src: IpAddr, dst: IpAddr, proto: u8, dport: u16) -> bool {
        self.forbids_from_sets(&self.sets_with(src), &self.sets_with(dst), (src, dst), proto, dport)
    }

    /// Membership of an address in each set that the access rules of the network name.
    pub(in crate::plan) fn sets_with(&self, addr: IpAddr) -> Vec<bool> {
        self.access.sets.iter().map(|set| set.iter().any(|prefix| prefix.contains(addr))).collect()
    }

    /// True if a new connection is refused as by [`Self::forbids`], with the membership of both ends in sets known
    /// already.
    pub(in crate::plan) fn forbids_from_sets(
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
                    && serves(rule, Family::of_addr(dst), proto, dport)
            })
        };
        let allowed = || match access.default {
            Verdict::Allow => true,
            Verdict::Deny => is_said(Verdict::Allow) || self.is_let_out(src, dst),
        };
        is_said(Verdict::Deny) || !allowed()
    }

    /// True if the network has nothing to enforce beyond its served prefixes.
    pub(in crate::plan) fn is_open(&self) -> bool {
        self.closed.is_empty() && self.access.is_open()
    }

    /// Prefixes that this router serves to the network, without those that lie in others.
    pub(super) fn served(&self) -> impl Iterator<Item = &Prefix> {
        let is_within_other =
            |prefix: &Prefix| self.egress.keys().any(|other| other != prefix && other.covers(prefix));
        self.egress.keys().filter(move |prefix| !is_within_other(prefix))
    }

    /// True if Internet traffic of the network goes out by an uplink of this router.
    pub(super) fn lets_out(&self) -> bool {
        !self.internet.is_empty() && !self.uplinks.is_empty()
    }

    /// True if a connection is Internet traffic that the network's policy lets out here.
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
    /// Sets of denied and of allowed connections of a network, without empty ones.
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
                        pairs.iter().filter(|pair| pair.by_source == by_source).collect();
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
        for (narrow, wides) in parts {
            for wide in wides {
                let (from, to) = if self.by_source { (narrow, wide) } else { (wide, narrow) };
                let (from, to) = (addresses(from, family), addresses(to, family));
                self.blocks.push(AddressPair { from, to, service });
            }
        }
    }
}

/// Access rule of a network in one family, cut along its narrow side; the other side stays whole.
struct Pair<'a> {
    by_source: bool,
    narrow: Ranges,
    wide: Ranges,
    services: &'a [Service],
}

fn pairs(guard: &Guard, verdict: Verdict, family: Family) -> Vec<Pair<'_>> {
    let access = &guard.access;
    let sets: Vec<Ranges> = access.sets.iter().map(|set| number_ranges(&mut set.iter(), family)).collect();
    let set = |index: u32| sets.get(index as usize).cloned().unwrap_or_default();
    let rules = access.rules.iter().filter(|rule| rule.verdict == verdict);
    let mut pairs: Vec<Pair<'_>> =
        rules.map(|rule| pair(set(rule.from), set(rule.to), &rule.services)).collect();
    if verdict == Verdict::Deny {
        pairs.push(pair(vec![(0, most(family))], number_ranges(&mut guard.closed.iter(), family), &[]));
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

/// Ranges on one side of access rules that do not overlap, in order, each with all ranges on the other side.
type Parts = Vec<(Range, Ranges)>;

fn everything(pairs: &[&Pair<'_>]) -> Vec<(Parts, Option<Service>)> {
    vec![(parts(pairs, &|pair| pair.services.is_empty()), None)]
}

/// Parts of access rules by service. Ports are cut where a service begins or ends; neighbours with the same parts are
/// joined again.
fn by_service(pairs: &[&Pair<'_>]) -> Vec<(Parts, Option<Service>)> {
    let mut all: Vec<(Parts, Option<Service>)> = Vec::new();
    for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
        let services = pairs.iter().flat_map(|pair| pair.services).filter(|service| service.proto == proto);
        let ports: Ranges = services.map(|service| (service.first.into(), service.last.into())).collect();
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
    let pairs: Vec<&Pair<'_>> = pairs.iter().copied().filter(|pair| are_meant(pair)).collect();
    let mut parts = Parts::new();
    let narrow: Ranges = pairs.iter().flat_map(|pair| &pair.narrow).copied().collect();
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

/// Segments between the ends of ranges, from the first beginning to `most`.
fn segments(ranges: &[Range], most: u128) -> Ranges {
    let mut starts = Vec::new();
    for (first, last) in ranges {
        starts.push(*first);
        starts.extend(last.checked_add(1).filter(|next| *next <= most));
    }
    starts.sort();
    starts.dedup();
    let end = |index: usize| starts.get(index + 1).map_or(most, |next| next - 1);
    starts.iter().enumerate().map(|(index, start)| (*start, end(index))).collect()
}

/// Ranges of the addresses of one family that prefixes hold, as few as can be.
pub(super) fn ranges(prefixes: &SortedSet<Prefix>, family: Family) -> Vec<AddressRange> {
    number_ranges(&mut prefixes.iter(), family).into_iter().map(|range| addresses(range, family)).collect()
}

fn holds(ranges: &Ranges, addr: u128) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= addr);
    after.checked_sub(1).is_some_and(|at| addr <= ranges[at].1)
}

fn number_ranges(prefixes: &mut dyn Iterator<Item = &Prefix>, family: Family) -> Ranges {
    let prefixes = prefixes.filter(|prefix| Family::of(prefix) == family);
    merged(prefixes.map(|prefix| range(prefix, family)).collect())
}

fn range(prefix: &Prefix, family: Family) -> Range {
    let first = match prefix.addr() {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (first, first | most(family).checked_shr(prefix.len().into()).unwrap_or_default())
}

fn merged(mut ranges: Ranges) -> Ranges {
    ranges.sort();
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    ranges
}

/// Last address of an address family, as a number.
fn most(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

fn addresses((first, last): Range, family: Family) -> AddressRange {
    AddressRange { first: address(first, family), last: address(last, family) }
}

fn address(bits: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

fn serves(rule: &AccessRule, family: Family, proto: u8, port: u16) -> bool {
    let is_meant = |service: &Service| {
        protocol_number(service.proto, family) == proto && service.fits(service.proto, port)
    };
    rule.services.is_empty() || rule.services.iter().any(is_meant)
}

#[cfg(test)]
mod tests;

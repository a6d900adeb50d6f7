//! Sets of addresses and of services, as ranges. Pure arithmetic; names are resolved in [`crate::registry`].

mod ranges;

use gatewrt_protocol::{Prefix, Proto, Service};
use ranges::Ranges;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Set of IPv4 and IPv6 addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressSet {
    v4: Ranges,
    v6: Ranges,
}

impl AddressSet {
    /// True if the set of addresses is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Number of ranges in the set of addresses: the cost of working with it.
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Union of two sets of addresses.
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// Union of this set of addresses and all others.
    pub fn joined<'a>(&'a self, others: impl Iterator<Item = &'a Self>) -> Self {
        let all: Vec<_> = std::iter::once(self).chain(others).collect();
        let v4 = all.iter().flat_map(|set| set.v4.iter()).collect();
        Self { v4, v6: all.iter().flat_map(|set| set.v6.iter()).collect() }
    }

    /// Intersection of two sets of addresses.
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// Difference of two sets: the addresses of this one that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        Self { v4: self.v4.difference(&other.v4), v6: self.v6.difference(&other.v6) }
    }

    /// True if the set contains all addresses of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.difference(self).is_empty()
    }

    /// True if two sets share an address.
    pub fn meets(&self, other: &Self) -> bool {
        self.v4.meets(&other.v4) || self.v6.meets(&other.v6)
    }

    /// Subsets of the IPv4 and the IPv6 addresses: those of different families never talk to each other.
    pub fn families(&self) -> [Self; 2] {
        let (v4, v6) = (self.v4.clone(), self.v6.clone());
        [Self { v4, v6: Ranges::default() }, Self { v4: Ranges::default(), v6 }]
    }

    /// Fewest prefixes that cover exactly the addresses of the set, in order.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let v4 = self.v4.blocks(32).into_iter();
        let v4 = v4.map(|(first, len)| prefix(Ipv4Addr::from_bits(first as u32).into(), len));
        let v6 = self.v6.blocks(128).into_iter();
        v4.chain(v6.map(|(first, len)| prefix(Ipv6Addr::from_bits(first).into(), len))).collect()
    }
}

impl FromIterator<Prefix> for AddressSet {
    fn from_iter<T: IntoIterator<Item = Prefix>>(prefixes: T) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = prefixes.into_iter().partition(Prefix::is_ipv4);
        Self { v4: v4.iter().map(range).collect(), v6: v6.iter().map(range).collect() }
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addrs: T) -> Self {
        addrs.into_iter().map(Prefix::host).collect()
    }
}

fn range(prefix: &Prefix) -> (u128, u128) {
    let (first, width) = match prefix.addr() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let last = u128::MAX.checked_shr(u32::from(128 - width + prefix.len())).unwrap_or(0);
    (first, first | last)
}

fn prefix(addr: IpAddr, len: u8) -> Prefix {
    Prefix::new(addr, len).expect("a block starts at a multiple of its size")
}

/// Set of services: protocols and ports of connections. The full set includes protocols that have no name here, as a
/// rule without services does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceSet(Ranges);

/// Slot numbers that stand for TCP's ports, UDP's ports, ICMP, and all else in a set of services.
const TCP: (u128, u128) = (0, 0xffff);
const UDP: (u128, u128) = (0x1_0000, 0x1_ffff);
const ICMP: (u128, u128) = (0x2_0000, 0x2_0000);
const OTHER: u128 = 0x2_0001;

impl ServiceSet {
    /// Set of the services that are named; of every one if none is.
    pub fn of(services: &[Service]) -> Self {
        if services.is_empty() { Self::every() } else { Self(services.iter().map(slots).collect()) }
    }

    /// Set of all services of all protocols.
    pub fn every() -> Self {
        Self([(0, OTHER)].into_iter().collect())
    }

    /// True if the set of services is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Union of two sets of services.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0))
    }

    /// Intersection of two sets of services.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0))
    }

    /// True if two sets share a service.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.meets(&other.0)
    }

    /// Difference of two sets: the services of this one that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0))
    }

    /// Fewest services that cover the set, in order; empty for the full set.
    pub fn list(&self) -> Vec<Service> {
        if *self == Self::every() {
            return Vec::new();
        }
        let part = |proto, space: (u128, u128)| {
            let within = self.0.intersection(&[space].into_iter().collect());
            let service = move |(first, last): (u128, u128)| Service {
                proto,
                first: (first - space.0) as u16,
                last: (last - space.0) as u16,
            };
            within.iter().map(service).collect::<Vec<_>>()
        };
        let icmp = part(Proto::Icmp, ICMP).into_iter().map(|_| Service::every(Proto::Icmp));
        part(Proto::Tcp, TCP).into_iter().chain(part(Proto::Udp, UDP)).chain(icmp).collect()
    }
}

fn slots(service: &Service) -> (u128, u128) {
    let (first, last) = (u128::from(service.first), u128::from(service.last));
    match service.proto {
        Proto::Tcp => (TCP.0 + first, TCP.0 + last),
        Proto::Udp => (UDP.0 + first, UDP.0 + last),
        Proto::Icmp => ICMP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(texts: &[&str]) -> AddressSet {
        texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect()
    }

    fn texts(addresses: &AddressSet) -> Vec<String> {
        addresses.prefixes().iter().map(Prefix::to_string).collect()
    }

    #[test]
    fn adjacent_and_covered_prefixes_are_merged() {
        let merged = set(&["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "fd00::/64", "fd00::1/128"]);
        assert_eq!(texts(&merged), ["10.0.0.0/24", "fd00::/64"]);
        assert_eq!(texts(&set(&["10.0.0.1/32", "10.0.0.2/32"])), ["10.0.0.1/32", "10.0.0.2/32"]);
        assert_eq!(texts(&set(&["0.0.0.0/1", "128.0.0.0/1", "::/0"])), ["0.0.0.0/0", "::/0"]);
        assert_eq!(texts(&set(&["255.255.255.255/32", "0.0.0.0/32"])), ["0.0.0.0/32", "255.255.255.255/32"]);
    }

    #[test]
    fn addresses_of_both_families_stay_separate() {
        let all = set(&["0.0.0.0/0", "::/0"]);
        let [v4, v6] = all.families();
        assert_eq!((texts(&v4), texts(&v6)), (vec!["0.0.0.0/0".to_owned()], vec!["::/0".to_owned()]));
        assert!(!v4.meets(&v6) && all.covers(&v4) && !v4.covers(&all));
        assert_eq!(texts(&all.difference(&v4)), ["::/0"]);
    }

    #[test]
    fn adjacent_services_are_merged() {
        let services = |texts: &[&str]| -> ServiceSet {
            ServiceSet::of(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
        };
        let list = |services: &ServiceSet| -> Vec<String> {
            services.list().iter().map(Service::to_string).collect()
        };
        assert_eq!(list(&services(&["tcp/80", "tcp/81-90", "icmp", "udp"])), ["tcp/80-90", "udp", "icmp"]);
        assert_eq!(list(&services(&[])), [""; 0]);
        let named = services(&["tcp", "udp", "icmp"]);
        assert_eq!(list(&named), ["tcp", "udp", "icmp"], "which is not every protocol");
        assert!(!ServiceSet::every().difference(&named).is_empty());
        assert!(services(&["tcp/80"]).intersection(&services(&["udp/80"])).is_empty());
    }

    fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
        let narrow = (any::<u8>(), 24u8..=32)
            .prop_map(|(host, len)| Prefix::containing([10, 0, 0, host].into(), len).unwrap());
        let any_prefix = (any::<IpAddr>(), 0u8..=128).prop_map(|(addr, len)| {
            Prefix::containing(addr, if addr.is_ipv4() { len % 33 } else { len }).unwrap()
        });
        proptest::collection::vec(prop_oneof![4 => narrow, 1 => any_prefix], 0..12)
    }

    proptest! {
        #[test]
        fn any_set_contains_exactly_its_prefixes(
            one in prefixes(), other in prefixes(), addr in prop_oneof![any::<u8>().prop_map(|host| IpAddr::from([10, 0, 0, host])), any::<IpAddr>()]
        ) {
            let holds = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.contains(addr));
            let (a, b): (AddressSet, AddressSet) = (one.iter().copied().collect(), other.iter().copied().collect());
            let point: AddressSet = [addr].into_iter().collect();
            prop_assert_eq!(holds(&a.prefixes()), holds(&one));
            prop_assert_eq!(a.covers(&point), holds(&one));
            prop_assert_eq!(a.union(&b).covers(&point), holds(&one) || holds(&other));
            prop_assert_eq!(a.intersection(&b).covers(&point), holds(&one) && holds(&other));
            prop_assert_eq!(a.meets(&b), !a.intersection(&b).is_empty());
            prop_assert_eq!(a.difference(&b).covers(&point), holds(&one) && !holds(&other));
            prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a, "one form a set");
            prop_assert_eq!(&a.prefixes().into_iter().collect::<AddressSet>(), &a);
            prop_assert!(a.prefixes().is_sorted());
        }
    }
}

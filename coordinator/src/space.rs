//! Sets of addresses and sets of services, as ranges: what selectors stand for, and how they meet. Pure
//! arithmetic; it ends where names come in ([`crate::registry`]).

mod ranges;

use gatewrt_protocol::{Prefix, Proto, Service};
use ranges::Ranges;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addresses {
    v4: Ranges,
    v6: Ranges,
}

impl Addresses {
    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// How many ranges it takes to say it: what work with it costs.
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// What is in one or the other.
    pub fn union(&self, other: &Self) -> Self {
        Self { v4: self.v4.union(&other.v4), v6: self.v6.union(&other.v6) }
    }

    /// What is in this one or any other.
    pub fn joined<'a>(&'a self, others: impl Iterator<Item = &'a Self>) -> Self {
        let all: Vec<_> = std::iter::once(self).chain(others).collect();
        let v4 = all.iter().flat_map(|set| set.v4.iter()).collect();
        Self { v4, v6: all.iter().flat_map(|set| set.v6.iter()).collect() }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// What is in this one alone.
    pub fn difference(&self, other: &Self) -> Self {
        Self { v4: self.v4.difference(&other.v4), v6: self.v6.difference(&other.v6) }
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        other.difference(self).is_empty()
    }

    /// Whether the two share an address.
    pub fn meets(&self, other: &Self) -> bool {
        self.v4.meets(&other.v4) || self.v6.meets(&other.v6)
    }

    /// The addresses of each family for themselves: what is of different families never talks to each other.
    pub fn families(&self) -> [Self; 2] {
        let (v4, v6) = (self.v4.clone(), self.v6.clone());
        [Self { v4, v6: Ranges::default() }, Self { v4: Ranges::default(), v6 }]
    }

    /// The fewest prefixes that hold just these addresses, in order.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let v4 = self.v4.blocks(32).into_iter();
        let v4 = v4.map(|(first, len)| prefix(Ipv4Addr::from_bits(first as u32).into(), len));
        let v6 = self.v6.blocks(128).into_iter();
        v4.chain(v6.map(|(first, len)| prefix(Ipv6Addr::from_bits(first).into(), len))).collect()
    }
}

impl FromIterator<Prefix> for Addresses {
    fn from_iter<T: IntoIterator<Item = Prefix>>(prefixes: T) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = prefixes.into_iter().partition(Prefix::is_ipv4);
        Self { v4: v4.iter().map(range).collect(), v6: v6.iter().map(range).collect() }
    }
}

impl FromIterator<IpAddr> for Addresses {
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

/// A set of services. Everything is in it that a rule without services means: also protocols without a name
/// here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Services(Ranges);

/// TCP's ports, UDP's ports, ICMP, all else.
const TCP: (u128, u128) = (0, 0xffff);
const UDP: (u128, u128) = (0x1_0000, 0x1_ffff);
const ICMP: (u128, u128) = (0x2_0000, 0x2_0000);
const OTHER: u128 = 0x2_0001;

impl Services {
    /// These; every one where none is named.
    pub fn of(services: &[Service]) -> Self {
        if services.is_empty() { Self::every() } else { Self(services.iter().map(slots).collect()) }
    }

    /// Every service of every protocol.
    pub fn every() -> Self {
        Self([(0, OTHER)].into_iter().collect())
    }

    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in one or the other.
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0))
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0))
    }

    /// Whether the two share a service.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.meets(&other.0)
    }

    /// What is in this one alone.
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0))
    }

    /// As rules name them: the fewest, in order, and none for every one.
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

    fn set(texts: &[&str]) -> Addresses {
        texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect()
    }

    fn texts(addresses: &Addresses) -> Vec<String> {
        addresses.prefixes().iter().map(Prefix::to_string).collect()
    }

    #[test]
    fn neighbours_and_what_is_covered_are_one_prefix() {
        let merged = set(&["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32", "fd00::/64", "fd00::1/128"]);
        assert_eq!(texts(&merged), ["10.0.0.0/24", "fd00::/64"]);
        assert_eq!(texts(&set(&["10.0.0.1/32", "10.0.0.2/32"])), ["10.0.0.1/32", "10.0.0.2/32"]);
        assert_eq!(texts(&set(&["0.0.0.0/1", "128.0.0.0/1", "::/0"])), ["0.0.0.0/0", "::/0"]);
        assert_eq!(texts(&set(&["255.255.255.255/32", "0.0.0.0/32"])), ["0.0.0.0/32", "255.255.255.255/32"]);
    }

    #[test]
    fn families_are_apart() {
        let all = set(&["0.0.0.0/0", "::/0"]);
        let [v4, v6] = all.families();
        assert_eq!((texts(&v4), texts(&v6)), (vec!["0.0.0.0/0".to_owned()], vec!["::/0".to_owned()]));
        assert!(!v4.meets(&v6) && all.covers(&v4) && !v4.covers(&all));
        assert_eq!(texts(&all.difference(&v4)), ["::/0"]);
    }

    #[test]
    fn services_are_joined_where_they_touch() {
        let services = |texts: &[&str]| -> Services {
            Services::of(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
        };
        let list =
            |services: &Services| -> Vec<String> { services.list().iter().map(Service::to_string).collect() };
        assert_eq!(list(&services(&["tcp/80", "tcp/81-90", "icmp", "udp"])), ["tcp/80-90", "udp", "icmp"]);
        assert_eq!(list(&services(&[])), [""; 0]);
        let named = services(&["tcp", "udp", "icmp"]);
        assert_eq!(list(&named), ["tcp", "udp", "icmp"], "which is not every protocol");
        assert!(!Services::every().difference(&named).is_empty());
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
        fn sets_hold_what_their_prefixes_hold(
            one in prefixes(), other in prefixes(), addr in prop_oneof![any::<u8>().prop_map(|host| IpAddr::from([10, 0, 0, host])), any::<IpAddr>()]
        ) {
            let holds = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| prefix.contains(addr));
            let (a, b): (Addresses, Addresses) = (one.iter().copied().collect(), other.iter().copied().collect());
            let point: Addresses = [addr].into_iter().collect();
            prop_assert_eq!(holds(&a.prefixes()), holds(&one));
            prop_assert_eq!(a.covers(&point), holds(&one));
            prop_assert_eq!(a.union(&b).covers(&point), holds(&one) || holds(&other));
            prop_assert_eq!(a.intersection(&b).covers(&point), holds(&one) && holds(&other));
            prop_assert_eq!(a.meets(&b), !a.intersection(&b).is_empty());
            prop_assert_eq!(a.difference(&b).covers(&point), holds(&one) && !holds(&other));
            prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a, "one form a set");
            prop_assert_eq!(&a.prefixes().into_iter().collect::<Addresses>(), &a);
            prop_assert!(a.prefixes().is_sorted());
        }
    }
}

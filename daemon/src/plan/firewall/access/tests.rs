use super::*;
use gatewrt_protocol::Access;
use proptest::{collection::vec, prelude::*, sample::select};

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn rule(verdict: Verdict, from: u32, to: u32, services: &[&str]) -> AccessRule {
    AccessRule { verdict, from, to, services: services.iter().map(|text| text.parse().unwrap()).collect() }
}

fn guard(access: Access) -> Guard {
    Guard { access, ..Guard::default() }
}

fn count(guard: &Guard) -> usize {
    PairSet::of(guard).iter().map(|set| set.blocks.len()).sum()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holds_pair(block: &AddressPair, src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> bool {
    let is_in = |range: AddressRange, addr| range.first <= addr && addr <= range.last;
    let is_meant = |service: Service| {
        protocol_number(service.proto, Family::of_addr(dst)) == proto
            && (service.first..=service.last).contains(&port)
    };
    is_in(block.from, src) && is_in(block.to, dst) && block.service.is_none_or(is_meant)
}

/// Verdict of the chains, by the sets that they look up.
fn sets_forbid(guard: &Guard, src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> bool {
    let sets = PairSet::of(guard);
    let in_any = |verdict| {
        let sets = sets.iter().filter(|set| set.verdict == verdict);
        sets.flat_map(|set| &set.blocks).any(|block| holds_pair(block, src, dst, proto, port))
    };
    let internet = guard.is_let_out(src, dst);
    in_any(Verdict::Deny) || guard.access.default == Verdict::Deny && !internet && !in_any(Verdict::Allow)
}

fn overlaps(a: &AddressPair, b: &AddressPair) -> bool {
    let meet = |a: AddressRange, b: AddressRange| a.first <= b.last && b.first <= a.last;
    let services = match (a.service, b.service) {
        (Some(a), Some(b)) => a.proto == b.proto && a.first <= b.last && b.first <= a.last,
        _ => true,
    };
    meet(a.from, b.from) && meet(a.to, b.to) && services
}

/// Addresses, few enough to meet often.
fn some_address() -> impl Strategy<Value = IpAddr> {
    let low = prop_oneof![0u32..20, select(vec![u32::MAX, u32::MAX - 1, u32::MAX / 2])];
    prop_oneof![
        low.prop_map(|low| IpAddr::V4(Ipv4Addr::from_bits(low))),
        (0u128..20).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits(low))),
        (0u128..20).prop_map(|low| IpAddr::V6(Ipv6Addr::from_bits(u128::MAX - low))),
    ]
}

fn some_prefix() -> impl Strategy<Value = Prefix> {
    (some_address(), 0u8..6).prop_map(|(addr, host)| {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        Prefix::containing(addr, if host == 5 { 0 } else { bits - host }).unwrap()
    })
}

fn some_service() -> impl Strategy<Value = Service> {
    let ports = || select(vec![0u16, 1, 2, 5, 6, 7, 65534, 65535]);
    (select(vec![Proto::Tcp, Proto::Udp]), ports(), ports(), any::<bool>()).prop_map(|(proto, a, b, icmp)| {
        if icmp { Service::every(Proto::Icmp) } else { Service { proto, first: a.min(b), last: a.max(b) } }
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![Verdict::Allow, Verdict::Deny])
}

fn some_rule() -> impl Strategy<Value = AccessRule> {
    let parts = (verdict(), 0u32..5, 0u32..5, vec(some_service(), 0..3));
    parts.prop_map(|(verdict, from, to, services)| AccessRule { verdict, from, to, services })
}

fn some_guard() -> impl Strategy<Value = Guard> {
    // The rules may name one more set than there is.
    let sets = vec(vec(some_prefix(), 0..4), 4);
    let access = (verdict(), sets, vec(some_rule(), 0..8)).prop_map(|(default, sets, rules)| Access {
        default,
        sets,
        rules,
    });
    let few = || vec(some_prefix(), 0..2);
    (access, few(), few(), few()).prop_map(|(access, closed, internet, egress)| Guard {
        access,
        closed: closed.into_iter().collect(),
        internet: internet.into_iter().collect(),
        egress: egress.into_iter().map(|prefix| (prefix, true)).collect(),
        ..Guard::default()
    })
}

proptest! {
    #[test]
    fn sets_of_any_rules_give_the_same_verdicts(
        guard in some_guard(),
        tries in vec((some_address(), some_address(), select(vec![1u8, 6, 17, 47, 58]), select(vec![0u16, 2, 3, 6, 65535])), 60),
    ) {
        for (src, dst, proto, port) in tries {
            // Neither a packet nor a pair has two families.
            if src.is_ipv4() == dst.is_ipv4() {
                let (rules, sets) = (guard.forbids(src, dst, proto, port), sets_forbid(&guard, src, dst, proto, port));
                prop_assert_eq!(rules, sets, "{} → {} {}/{}", src, dst, proto, port);
            }
        }
    }

    #[test]
    fn elements_of_a_set_never_overlap(guard in some_guard()) {
        for set in PairSet::of(&guard) {
            for (index, one) in set.blocks.iter().enumerate() {
                prop_assert!(one.from.first <= one.from.last && one.to.first <= one.to.last);
                prop_assert_eq!(one.service.is_some(), set.services);
                for other in &set.blocks[index + 1..] {
                    prop_assert!(!overlaps(one, other), "{:?} and {:?}", one, other);
                }
            }
        }
    }
}

#[test]
fn connection_without_rule_gets_the_default() {
    let access = |default| guard(Access { default, ..Access::default() });
    let asked = |guard: &Guard| guard.forbids(ip("10.9.0.2"), ip("10.9.0.3"), 6, 80);
    assert!(!asked(&access(Verdict::Allow)) && asked(&access(Verdict::Deny)));
    assert!(access(Verdict::Allow).is_open() && !access(Verdict::Deny).is_open());
    assert_eq!(count(&access(Verdict::Deny)), 0);
}

#[test]
fn closed_client_with_allow_rule_stays_unreachable() {
    let sets = vec![prefixes(&["10.9.0.0/24"])];
    let access = Access { sets, rules: vec![rule(Verdict::Allow, 0, 0, &[])], default: Verdict::Deny };
    let closed =
        ["10.9.0.5/32", "10.9.0.6/32", "fd09::5/128"].map(|text| text.parse().unwrap()).into_iter().collect();
    let guard = Guard { closed, ..guard(access) };
    assert!(guard.forbids(ip("10.9.0.2"), ip("10.9.0.5"), 6, 80));
    assert!(guard.forbids(ip("10.9.0.6"), ip("10.9.0.5"), 6, 80), "another client");
    assert!(!guard.forbids(ip("10.9.0.5"), ip("10.9.0.2"), 6, 80));
    let denied: Vec<_> = PairSet::of(&guard).into_iter().filter(|set| set.verdict == Verdict::Deny).collect();
    assert_eq!(denied.iter().map(|set| set.blocks.len()).collect::<Vec<_>>(), [1, 1], "neighbours are one");
}

#[test]
fn full_tunnel_internet_traffic_passes_without_rule() {
    let access = Access { default: Verdict::Deny, ..Access::default() };
    let internet = ["10.9.0.5/32", "fd09::5/128"].map(|text| text.parse().unwrap()).into_iter().collect();
    let egress = [("203.0.113.0/24".parse().unwrap(), true)].into_iter().collect();
    let guard = Guard { internet, egress, ..guard(access) };
    let passes = |src: &str, dst: &str| !guard.forbids(ip(src), ip(dst), 17, 53);
    assert!(passes("10.9.0.5", "198.51.100.7") && passes("fd09::5", "2001:db8::7"));
    assert!(!passes("10.9.0.6", "198.51.100.7") && !passes("fd09::6", "2001:db8::7"), "split tunnels");
    assert!(!passes("10.9.0.5", "203.0.113.2"), "what is served is the network's");
    for private in ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "239.1.1.1"] {
        assert!(!passes("10.9.0.5", private), "{private}");
    }
    for private in ["fd20::1", "fe80::1", "ff05::1", "::1", "64:ff9b::1"] {
        assert!(!passes("fd09::5", private), "{private}");
    }
}

#[test]
fn rule_is_cut_along_its_narrow_side() {
    // Each of many into the whole network, and the whole network to each of many: one element a rule.
    let mut sets = vec![prefixes(&["10.0.0.0/8"])];
    sets.extend((0..200).map(|n| prefixes(&[&format!("10.9.{n}.7/32")])));
    let rules = (1..=100).map(|n| rule(Verdict::Deny, n, 0, &[]));
    let rules = rules.chain((101..=200).map(|n| rule(Verdict::Deny, 0, n, &[]))).collect();
    assert_eq!(count(&guard(Access { sets, rules, ..Access::default() })), 200);
}

#[test]
fn neighbouring_addresses_and_ports_become_one_element() {
    let clients: Vec<String> = (0..256).map(|n| format!("10.9.1.{n}/32")).collect();
    let clients = prefixes(&clients.iter().map(String::as_str).collect::<Vec<_>>());
    let sets = vec![clients, prefixes(&["192.168.20.5/32"])];
    let rules = ["tcp/80", "tcp/81", "tcp/82-90"].map(|service| rule(Verdict::Deny, 0, 1, &[service])).into();
    let found = PairSet::of(&guard(Access { sets, rules, ..Access::default() }));
    let range = |first, last| AddressRange { first: ip(first), last: ip(last) };
    let block = AddressPair {
        from: range("10.9.1.0", "10.9.1.255"),
        to: range("192.168.20.5", "192.168.20.5"),
        service: "tcp/80-90".parse().ok(),
    };
    let set = PairSet {
        verdict: Verdict::Deny,
        family: Family::V4,
        services: true,
        by_source: false,
        blocks: vec![block],
    };
    assert_eq!(found, [set]);
}

//! Tracked connections in the kernel: those that are denied are cut, and no others.

use crate::bed::{Bed, eventually, in_namespace, link, sh};
use gatewrt::{
    model::{Family, Flows, Guard, NetworkPolicy, Route, RouteKind, ScopeFlows},
    plan::Step,
};
use gatewrt_protocol::{Prefix, WgPublicKey};
use sorted_vec::SortedSet;
use std::{
    fs,
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Instant,
};

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// A policy that admits these clients; the first of each family may not be reached. Clients have addresses from
/// 10.90.1.0/24 and fd90::1:0/112.
fn flows(clients: &[&str]) -> Arc<Flows> {
    let clients: SortedSet<Prefix> = clients.iter().map(|text| prefix(text)).collect();
    let closed = [prefix("10.90.1.1/32"), prefix("fd90::1:1/128")].into_iter().collect();
    let guard = Guard { closed, internet: clients.clone(), ..Guard::default() };
    let blocks = vec![prefix("10.90.1.0/24"), prefix("fd90::1:0/112")];
    let realm = NetworkPolicy { guard, blocks, clients, own: SortedSet::new() };
    let route = |prefix| Route { table: 26487, prefix, metric: 512, kind: RouteKind::Device(link()) };
    let served = (0..200).map(|n| prefix(&format!("10.7.{n}.0/24")));
    let routes = [prefix("10.90.0.0/16"), prefix("fd90::/64")].into_iter().chain(served).map(route).collect();
    Arc::new(Flows::new([(link(), realm)].into_iter().collect(), &routes))
}

/// Sets this namespace up: it tracks connections, and has all addresses of the tests.
fn track() {
    sh("nft 'table inet t { chain o { type filter hook output priority 0; ct state new accept; }; }'");
    for addr in ["10.90.1.1", "10.90.1.2", "10.90.1.9", "192.168.1.5"] {
        sh(&format!("ip addr add {addr}/32 dev lo"));
    }
    for addr in ["fd90::1:1", "fd90::1:2", "fd90::1:9", "fd99::5"] {
        sh(&format!("ip addr add {addr}/128 dev lo nodad"));
    }
}

/// Opens connections to so many ports, until the kernel tracks each: the first packets over a new IPv6 address may be
/// lost on their way.
fn open(src: &str, dst: &str, ports: std::ops::Range<u16>) {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("valid"), dst.parse().expect("valid"));
    let socket = UdpSocket::bind((src, 0)).expect("bound");
    let wanted = tracked() + ports.len();
    eventually("tracked", || {
        for port in ports.clone() {
            // The error for a port without a listener is returned by a later send.
            eventually("sent", || socket.send_to(b"x", (dst, port)).is_ok());
        }
        tracked() >= wanted
    });
}

/// Connections that have passed all hooks, as the kernel shows them; [`count`] counts those on their way too. Neither
/// counts the entries that wait for late packets of cut connections.
fn tracked() -> usize {
    entries().filter(|entry| !is_expected(entry)).count()
}

fn expected() -> usize {
    entries().filter(|entry| is_expected(entry)).count()
}

fn entries() -> impl Iterator<Item = String> {
    let all = fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("tracked");
    all.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Returns true for an entry that waits for late packets of a cut connection: the destination of its replies does not
/// exist.
fn is_expected(entry: &str) -> bool {
    let replies_to = entry.rsplit(" dst=").next().expect("a part");
    replies_to.starts_with("0.") || replies_to.starts_with("0100:")
}

fn count() -> usize {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").expect("tracked");
    count.trim().parse::<usize>().expect("a number") - expected()
}

fn cut(bed: &mut Bed, flows: &Arc<Flows>) -> usize {
    let before = count();
    bed.run(Step::CutFlows(flows.clone()));
    assert_eq!(bed.observe().flows.as_ref(), Some(flows));
    before - count()
}

#[test]
fn forbidden_connections_alone_are_cut() {
    in_namespace(|bed| {
        track();
        let all = ["10.90.1.1/32", "10.90.1.2/32", "fd90::1:1/128", "fd90::1:2/128"];
        open("10.90.1.1", "192.168.1.5", 1..4);
        open("10.90.1.2", "192.168.1.5", 1..4);
        open("fd90::1:2", "fd99::5", 1..4);
        open("192.168.1.5", "10.90.1.2", 1..4);
        assert_eq!((count(), cut(bed, &flows(&all))), (12, 0));
        // Connections to a client that may not be reached, and from an address that is no client's.
        open("192.168.1.5", "10.90.1.1", 1..3);
        open("fd99::5", "fd90::1:1", 1..3);
        open("10.90.1.9", "192.168.1.5", 1..3);
        open("fd90::1:9", "fd99::5", 1..3);
        assert_eq!(cut(bed, &flows(&all)), 8);
        // One client of each family is removed: its connections in both directions are cut.
        assert_eq!(cut(bed, &flows(&["10.90.1.1/32", "fd90::1:1/128"])), 9);
        assert_eq!(count(), 3);
    });
}

#[test]
fn removed_client_is_cut_off_after_its_block_is_gone() {
    in_namespace(|bed| {
        track();
        open("10.90.1.2", "192.168.1.5", 1..4);
        assert_eq!(cut(bed, &Arc::default()), 0);
        assert_eq!(cut(bed, &flows(&["10.90.1.2/32"])), 0);
        let routes = SortedSet::new();
        let without = Flows::new([(link(), NetworkPolicy::default())].into_iter().collect(), &routes);
        assert_eq!(cut(bed, &Arc::new(without)), 3);
    });
}

#[test]
fn ten_thousand_connections_are_read_within_a_second() {
    in_namespace(|bed| {
        track();
        open("10.90.1.1", "192.168.1.5", 1..5001);
        open("fd90::1:2", "fd99::5", 1..5001);
        open("10.90.1.9", "192.168.1.5", 1..6);
        assert_eq!(count(), 10_005);
        let judge = flows(&["10.90.1.1/32", "fd90::1:2/128"]);
        let start = Instant::now();
        bed.run(Step::CutFlows(judge.clone()));
        let took = start.elapsed();
        println!("10,005 connections looked through and 5 cut in {took:?}");
        assert_eq!(count(), 10_000);
        assert!(took.as_millis() < 2000, "{took:?}");
    });
}

/// Flows of a LAN and of the router itself through an exit, if any.
fn scopes(exit: Option<u8>) -> Arc<Flows> {
    let way = exit.map(|key| (link(), WgPublicKey([key; 32])));
    let lan = ScopeFlows {
        sources: [prefix("192.168.1.0/24"), prefix("fd99::/64")].into_iter().collect(),
        apart: [prefix("192.168.0.0/16"), prefix("10.90.0.0/16"), prefix("fd90::/64")].into_iter().collect(),
        v4: way.clone(),
        v6: way,
        closed: Family::ALL.into_iter().collect(),
        ..ScopeFlows::default()
    };
    let router =
        ScopeFlows { sources: [prefix("203.0.113.1/32")].into_iter().collect(), router: true, ..lan.clone() };
    let realm = NetworkPolicy {
        own: [prefix("10.90.0.1/32"), prefix("fd90::1/128")].into_iter().collect(),
        ..NetworkPolicy::default()
    };
    let route =
        |text| Route { table: 26487, prefix: prefix(text), metric: 512, kind: RouteKind::Device(link()) };
    let routes = ["10.90.0.0/16", "fd90::/64"].map(route).into_iter().collect();
    Arc::new(
        Flows::new([(link(), realm)].into_iter().collect(), &routes)
            .with_scopes(vec![lan, router], 0x0300_0000),
    )
}

/// Translates the source of packets to the far ends into these addresses.
fn translate(v4: &str, v6: &str) {
    sh(&format!(
        "nft 'table inet n; delete table inet n; table inet n {{ chain p {{ \
         type nat hook postrouting priority 100; \
         ip saddr 192.168.1.5 ip daddr 198.51.100.7 snat ip to {v4}; \
         ip6 saddr fd99::5 ip6 daddr 2001:db8:7::7 snat ip6 to {v6}; }}; chain m {{ \
         type filter hook output priority 1; udp dport 700-799 ct mark set 0x01000001; }}; }}'"
    ));
}

#[test]
fn rerouted_connections_are_cut_in_both_families() {
    in_namespace(|bed| {
        track();
        for addr in ["10.90.0.1", "198.51.100.7", "203.0.113.1"] {
            sh(&format!("ip addr add {addr}/32 dev lo"));
        }
        for addr in ["fd90::1", "2001:db8:7::7", "2001:db8::1"] {
            sh(&format!("ip addr add {addr}/128 dev lo nodad"));
        }
        let far = |ports: std::ops::Range<u16>| {
            open("192.168.1.5", "198.51.100.7", ports.clone());
            open("fd99::5", "2001:db8:7::7", ports);
        };
        // Connections outside all scopes: in the LAN, to the network, from outside, and marked ones that bypass.
        translate("203.0.113.1", "2001:db8::1");
        open("192.168.1.5", "10.90.1.2", 1..3);
        open("fd99::5", "fd90::1:2", 1..3);
        open("198.51.100.7", "192.168.1.5", 1..3);
        open("203.0.113.1", "198.51.100.7", 700..703);
        let others = count();
        // Connections leave over the WAN before there are scopes; then through one exit, another, and none.
        far(1..4);
        assert_eq!((count(), cut(bed, &scopes(Some(1)))), (others + 6, 6));
        assert_eq!(expected(), 6, "the other side of each does not know");
        translate("10.90.0.1", "fd90::1");
        far(1..4);
        open("203.0.113.1", "198.51.100.7", 1..3);
        assert_eq!(cut(bed, &scopes(Some(1))), 2, "the router's own, not seen as the network's");
        assert_eq!(cut(bed, &scopes(Some(1))), 0, "what goes the right way");
        assert_eq!(cut(bed, &scopes(Some(2))), 6);
        far(1..4);
        assert_eq!(cut(bed, &scopes(None)), 6);
        far(1..4);
        bed.restart();
        assert_eq!(cut(bed, &scopes(Some(2))), 0, "a daemon that starts anew");
        // Without scopes, connections over the WAN are right again.
        assert_eq!(cut(bed, &Arc::default()), 6);
        assert_eq!((count(), expected()), (others, 0));
    });
}

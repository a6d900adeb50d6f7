//! Connections that the kernel tracks: those that are forbidden are cut, and no others.

use crate::bed::{Bed, eventually, in_namespace, link, sh};
use gatewrt::{
    model::{Family, Route, RouteKind},
    plan::{Flows, Guard, Realm, ScopeFlows, Step},
    sorted::SortedSet,
};
use gatewrt_protocol::{Prefix, WgPublicKey};
use std::{
    fs,
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Instant,
};

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// Clients have their addresses from 10.90.1.0/24 and fd90::1:0/112. These are let in; the first of each family may
/// not be reached.
fn flows(clients: &[&str]) -> Arc<Flows> {
    let clients: SortedSet<Prefix> = clients.iter().map(|text| prefix(text)).collect();
    let closed = [prefix("10.90.1.1/32"), prefix("fd90::1:1/128")].into();
    let guard = Guard { closed, internet: clients.clone(), ..Guard::default() };
    let blocks = vec![prefix("10.90.1.0/24"), prefix("fd90::1:0/112")];
    let realm = Realm { guard, blocks, clients, own: SortedSet::new() };
    let route = |prefix| Route { table: 26487, prefix, metric: 512, kind: RouteKind::Device(link()) };
    let served = (0..200).map(|n| prefix(&format!("10.7.{n}.0/24")));
    let routes = [prefix("10.90.0.0/16"), prefix("fd90::/64")].into_iter().chain(served).map(route).collect();
    Arc::new(Flows::new([(link(), realm)].into(), &routes))
}

/// Has this namespace track connections, and every address of the tests on it.
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
            // That nobody listens there is told with a later packet.
            eventually("sent", || socket.send_to(b"x", (dst, port)).is_ok());
        }
        tracked() >= wanted
    });
}

/// Connections that have passed all hooks, as the kernel shows them; [`count`] counts those on their way too. Neither
/// counts what is expected of the other sides of those that were cut.
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

/// Its replies would go nowhere.
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
fn what_is_forbidden_is_cut_and_nothing_else() {
    in_namespace(|bed| {
        track();
        let all = ["10.90.1.1/32", "10.90.1.2/32", "fd90::1:1/128", "fd90::1:2/128"];
        open("10.90.1.1", "192.168.1.5", 1..4);
        open("10.90.1.2", "192.168.1.5", 1..4);
        open("fd90::1:2", "fd99::5", 1..4);
        open("192.168.1.5", "10.90.1.2", 1..4);
        assert_eq!((count(), cut(bed, &flows(&all))), (12, 0));
        // To who may not be reached, and from who is no client.
        open("192.168.1.5", "10.90.1.1", 1..3);
        open("fd99::5", "fd90::1:1", 1..3);
        open("10.90.1.9", "192.168.1.5", 1..3);
        open("fd90::1:9", "fd99::5", 1..3);
        assert_eq!(cut(bed, &flows(&all)), 8);
        // A client of each family goes: both directions.
        assert_eq!(cut(bed, &flows(&["10.90.1.1/32", "fd90::1:1/128"])), 9);
        assert_eq!(count(), 3);
    });
}

#[test]
fn who_was_let_in_is_cut_off_also_when_there_is_no_block_any_more() {
    in_namespace(|bed| {
        track();
        open("10.90.1.2", "192.168.1.5", 1..4);
        assert_eq!(cut(bed, &Arc::default()), 0);
        assert_eq!(cut(bed, &flows(&["10.90.1.2/32"])), 0);
        let routes = SortedSet::new();
        let without = Flows::new([(link(), Realm::default())].into(), &routes);
        assert_eq!(cut(bed, &Arc::new(without)), 3);
    });
}

#[test]
fn ten_thousand_connections_are_looked_through_in_a_moment() {
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

/// A LAN through an exit, if any; and the router itself.
fn scopes(exit: Option<u8>) -> Arc<Flows> {
    let way = exit.map(|key| (link(), WgPublicKey([key; 32])));
    let lan = ScopeFlows {
        sources: [prefix("192.168.1.0/24"), prefix("fd99::/64")].into(),
        apart: [prefix("192.168.0.0/16"), prefix("10.90.0.0/16"), prefix("fd90::/64")].into(),
        v4: way.clone(),
        v6: way,
        closed: Family::ALL.into(),
        ..ScopeFlows::default()
    };
    let router = ScopeFlows { sources: [prefix("203.0.113.1/32")].into(), router: true, ..lan.clone() };
    let realm = Realm { own: [prefix("10.90.0.1/32"), prefix("fd90::1/128")].into(), ..Realm::default() };
    let route =
        |text| Route { table: 26487, prefix: prefix(text), metric: 512, kind: RouteKind::Device(link()) };
    let routes = ["10.90.0.0/16", "fd90::/64"].map(route).into();
    Arc::new(Flows::new([(link(), realm)].into(), &routes).with_scopes(vec![lan, router], 0x0300_0000))
}

/// What goes to the far ends is seen there as these.
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
fn what_goes_another_way_than_its_scope_is_cut_in_both_families() {
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
        // Those that no scope concerns: in the LAN, to the network, from outside, and what bypasses.
        translate("203.0.113.1", "2001:db8::1");
        open("192.168.1.5", "10.90.1.2", 1..3);
        open("fd99::5", "fd90::1:2", 1..3);
        open("198.51.100.7", "192.168.1.5", 1..3);
        open("203.0.113.1", "198.51.100.7", 700..703);
        let others = count();
        // Out over the WAN before there were scopes; then through one exit, another, and none.
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
        // No scope any more: the WAN is right.
        assert_eq!(cut(bed, &Arc::default()), 6);
        assert_eq!((count(), expected()), (others, 0));
    });
}

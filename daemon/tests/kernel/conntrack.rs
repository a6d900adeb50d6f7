//! Connections that the kernel tracks: those that are forbidden are cut, and no others.

use crate::bed::{Bed, eventually, in_namespace, link, sh};
use gatewrt::{
    model::{Route, RouteKind},
    plan::{Flows, Guard, Realm, Step},
    sorted::SortedSet,
};
use gatewrt_protocol::Prefix;
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

/// Opens connections to so many ports.
fn open(src: &str, dst: &str, ports: std::ops::Range<u16>) {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("valid"), dst.parse().expect("valid"));
    let socket = UdpSocket::bind((src, 0)).expect("bound");
    for port in ports {
        // That nobody listens there is told with a later packet.
        eventually("sent", || socket.send_to(b"x", (dst, port)).is_ok());
    }
}

fn count() -> u32 {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").expect("tracked");
    count.trim().parse().expect("a number")
}

fn cut(bed: &mut Bed, flows: &Arc<Flows>) -> u32 {
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

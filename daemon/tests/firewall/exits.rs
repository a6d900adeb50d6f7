//! Internet traffic of scopes, and of a router that is an exit, with real packets. The same far address exists on the
//! WAN and behind the exit, so the host that is reached shows the way.

use super::{
    access::bed,
    bed::{Bed, Host, both},
};
use gatewrt::{
    model::{Exits, Guard, IfName, ScopeGuard, Source},
    ownership::ReservedNumbers,
    plan::Firewall,
};
use gatewrt_protocol::{Access, Prefix, Verdict};
use socket2::SockRef;
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

pub const FAR: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
const RESOLVER: [&str; 2] = ["9.9.9.9", "2620:fe::fe"];
/// Addresses of the router in the network and on the WAN.
const OURS: [&str; 2] = ["10.9.0.1", "fd09::1"];
const ROUTER: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

pub fn link(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

fn prefixes<const N: usize>(texts: [&str; N]) -> impl Iterator<Item = Prefix> {
    texts.into_iter().map(|text| text.parse().unwrap())
}

/// A bed in which `home` is the exit; the far addresses exist there and on the WAN.
fn client() -> Bed {
    let bed = bed();
    for host in [&bed.home, &bed.wan] {
        for far in FAR.into_iter().chain(RESOLVER) {
            add(host, far);
        }
    }
    for (family, next, exit) in [("-4", "203.0.113.2", "10.9.0.2"), ("-6", "2001:db8::2", "fd09::2")] {
        let ip = |what: &str| bed.router.ip(&format!("{family} {what}"));
        ip(&format!("route add default via {next}"));
        ip(&format!("route add default via {exit} dev gw-home table 26500 metric 512 onlink"));
        ip("route add blackhole default table 26500 metric 4000000000");
    }
    acquaint(&bed);
    bed
}

/// Resolves all neighbours first: a packet that waits for its next hop could leave later, when the table permits it.
pub fn acquaint(bed: &Bed) {
    let pairs = [(&bed.lan, Bed::LAN_ROUTER), (&bed.router, Bed::WAN), (&bed.router, Bed::LAN)];
    for (from, to) in pairs.into_iter().flat_map(|(from, addresses)| addresses.map(|to| (from, to))) {
        from.command("ping", &["-c1", "-W20", to], "");
    }
}

pub fn add(host: &Host, address: &str) {
    host.ip(&format!("addr add {address} dev lo{}", if address.contains(':') { " nodad" } else { "" }));
}

/// Rules and routes that lead a scope's packets to the exit, except to what the main table knows.
fn lead(bed: &Bed, selector: &str) {
    for family in ["-4", "-6"] {
        bed.router.ip(&format!("{family} rule add pref 909 lookup main suppress_prefixlength 0"));
        bed.router.ip(&format!("{family} rule add pref 910 fwmark 0/0x0f000000 {selector} lookup 26500"));
    }
}

pub fn lan() -> ScopeGuard {
    ScopeGuard {
        sources: [Source::Link(link("lan0"))].into_iter().collect(),
        closed: true,
        ..ScopeGuard::default()
    }
}

fn router() -> ScopeGuard {
    ScopeGuard { sources: [Source::Router].into_iter().collect(), ..lan() }
}

pub fn exits(scopes: &[ScopeGuard]) -> Exits {
    let key = |at: u32| (at, format!("s{at}").parse().unwrap());
    Exits {
        scopes: (0..).zip(scopes).map(|(at, scope)| (key(at), scope.clone())).collect(),
        ours: ["gw-home", "gw-office"].map(link).into_iter().collect(),
        local: [(link("lan0"), prefixes(["192.168.20.0/24", "fd20::/64"]).collect())].into_iter().collect(),
        uplinks: [link("wan0")].into_iter().collect(),
        meshes: [(link("gw-home"), prefixes(["10.9.0.0/24", "fd09::/64"]).collect())].into_iter().collect(),
        own: [(link("gw-home"), both(OURS).into_iter().collect())].into_iter().collect(),
        ..Exits::default()
    }
}

fn guarded(home: Guard, exits: Exits) -> Firewall {
    let tunnels = [(link("gw-home"), home), (link("gw-office"), Guard::default())].into_iter().collect();
    Firewall { tunnels, exits, bypass: true, ..Firewall::default() }
}

fn load(bed: &Bed, scopes: &[ScopeGuard]) {
    bed.router.table(&guarded(Guard::default(), exits(scopes)));
}

fn unload(bed: &Bed) {
    bed.router.without_table();
}

pub fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 16];
    loop {
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => {
                let (len, from) = received.expect("nothing came");
                return (String::from_utf8_lossy(&buffer[..len]).into_owned(), from);
            }
        }
    }
}

/// Asserts that the first packet does not arrive and the second, after `then`, does.
#[track_caller]
fn assert_kept_in(from: &Host, to: &Host, at: IpAddr, then: impl FnOnce()) {
    let (server, client) = (to.udp(at), from.udp(any(at)));
    let to = server.local_addr().unwrap();
    let _ = client.send_to(b"kept in", to);
    then();
    // An error for the first packet is returned by the next send.
    while client.send_to(b"let out", to).is_err() {}
    assert_eq!(receive(&server).0, "let out", "{at}");
}

#[track_caller]
fn assert_let_out(from: &Host, to: &Host, at: IpAddr) {
    let (server, client) = (to.udp(at), from.udp(any(at)));
    client.send_to(b"let out", server.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&server).0, "let out", "{at}");
}

#[test]
fn lan_of_a_scope_leaves_by_the_exit_as_its_router() {
    let bed = client();
    lead(&bed, "iif lan0");
    let access = Access { default: Verdict::Deny, ..Access::default() };
    let home = Guard { access, ..Guard::default() };
    bed.router.table(&guarded(home, exits(&[lan()])));
    for ((far, ours), member) in both(FAR).into_iter().zip(both(OURS)).zip(both(Bed::HOME)) {
        assert_eq!(bed.lan.seen(&bed.home, far), ours);
        bed.lan.reach(&bed.home, member).expect_err("the network's rules hold for the network");
        assert_eq!(bed.router.seen(&bed.wan, far), both(ROUTER)[usize::from(far.is_ipv6())]);
    }
}

#[test]
fn family_without_an_address_of_ours_is_dropped_at_the_exit() {
    let bed = client();
    lead(&bed, "iif lan0");
    for far in both(FAR) {
        let mut exits = exits(&[lan()]);
        let own = both(OURS).into_iter().filter(|own| own.is_ipv4() != far.is_ipv4());
        exits.own = [(link("gw-home"), own.collect())].into_iter().collect();
        bed.router.table(&guarded(Guard::default(), exits));
        assert_kept_in(&bed.lan, &bed.home, far, || load(&bed, &[lan()]));
    }
}

#[test]
fn closed_scope_without_routing_rules_leaves_nowhere() {
    let bed = client();
    for (from, scope) in [(&bed.lan, lan()), (&bed.router, router())] {
        for far in both(FAR) {
            load(&bed, std::slice::from_ref(&scope));
            assert_kept_in(from, &bed.wan, far, || unload(&bed));
            load(&bed, std::slice::from_ref(&scope));
            // Packets leave over the WAN once the scope's kill switch is off.
            assert_kept_in(from, &bed.wan, far, || {
                load(&bed, &[ScopeGuard { closed: false, ..scope.clone() }])
            });
        }
    }
    let hosts = prefixes(["192.168.20.10/32", "fd20::10/128"]).map(Source::Prefix);
    load(&bed, &[ScopeGuard { sources: hosts.collect(), ..lan() }]);
    for far in both(FAR) {
        assert_kept_in(&bed.lan, &bed.wan, far, || unload(&bed));
        load(&bed, &[lan()]);
    }
}

#[test]
fn excluded_destination_of_a_closed_scope_is_reached() {
    let bed = client();
    let [far, far6] = both(FAR);
    load(&bed, &[ScopeGuard { v6_wan: true, ..lan() }]);
    assert_let_out(&bed.lan, &bed.wan, far6);
    load(&bed, &[ScopeGuard { exclude: prefixes(["198.51.100.0/24"]).collect(), ..lan() }]);
    assert_let_out(&bed.lan, &bed.wan, far);
    assert_kept_in(&bed.lan, &bed.wan, far6, || unload(&bed));
    // The first matching scope decides.
    let host = ScopeGuard {
        sources: prefixes(["192.168.20.10/32"]).map(Source::Prefix).collect(),
        closed: false,
        ..lan()
    };
    load(&bed, &[host, lan()]);
    assert_let_out(&bed.lan, &bed.wan, far);
    // The router's own traffic still leaves, and so do marked packets.
    assert_let_out(&bed.router, &bed.wan, far);
    load(&bed, &[router()]);
    let (server, client) = (bed.wan.udp(far), bed.router.udp(any(far)));
    SockRef::from(&client).set_mark(ReservedNumbers::default().bypass).unwrap();
    client.send_to(b"bypass", server.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&server).0, "bypass");
    assert_let_out(&bed.lan, &bed.wan, far);
}

/// Connections from outside with a strict reverse path check. The table comes last, so that no connection is marked
/// yet.
#[test]
fn connection_from_outside_is_answered_the_way_it_came() {
    const FORWARD: &str = "table inet theirs { chain in { type nat hook prerouting priority dstnat; \
        iifname wan0 tcp dport 8080 dnat ip to 192.168.20.10; }; }";
    let bed = client();
    bed.router.nft(FORWARD);
    bed.router.sysctl("ipv4/conf/all/src_valid_mark", "1");
    bed.router.sysctl("ipv4/conf/wan0/rp_filter", "1");
    // Connections come from a far address, not from the WAN's own link.
    for (far, [router, lan]) in
        FAR.into_iter().zip([["203.0.113.1", "192.168.20.0/24"], ["2001:db8::1", "fd20::/64"]])
    {
        bed.wan.ip(&format!("route replace {router} dev eth0 src {far}"));
        bed.wan.ip(&format!("route replace {lan} via {router} src {far}"));
    }
    let old = both(ROUTER).map(|at| bed.wan.reach(&bed.router, at).unwrap());
    lead(&bed, "iif lan0");
    lead_router(&bed);
    load(&bed, &[lan(), router()]);
    for (mut theirs, mut ours) in old {
        super::super::say(&mut theirs, &mut ours);
        super::super::say(&mut ours, &mut theirs);
    }
    // Without these settings the router looks up the route back before it knows the mark, and finds none.
    for path in ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"] {
        bed.router.sysctl(path, "1");
    }
    let come_in = || {
        for (router, lan) in both(ROUTER).into_iter().zip(both(Bed::LAN)) {
            bed.wan.reach(&bed.router, router).expect("the router itself");
            bed.wan.reach(&bed.lan, lan).expect("a host of the LAN");
        }
    };
    come_in();
    // No exit works: only answers to connections from outside have a route.
    for family in ["-4", "-6"] {
        bed.router.ip(&format!("{family} route del default table 26500 metric 512"));
    }
    come_in();
    let listener = bed.lan.run(|| std::net::TcpListener::bind("192.168.20.10:8080").unwrap());
    bed.wan.connect("203.0.113.1:8080".parse().unwrap()).expect("a port that is forwarded");
    drop(listener);
}

fn lead_router(bed: &Bed) {
    for family in ["-4", "-6"] {
        bed.router.ip(&format!("{family} rule add pref 911 fwmark 0/0x0f000000 iif lo lookup 26500"));
    }
}

fn asks(bed: &Bed) -> [ScopeGuard; 2] {
    lead(bed, "iif lan0");
    lead_router(bed);
    let resolvers: Vec<IpAddr> = both(RESOLVER).into();
    [lan(), router()].map(|scope| ScopeGuard { redirects: true, resolvers: resolvers.clone(), ..scope })
}

/// Asserts that a query from one host to `whom` is redirected to another resolver.
#[track_caller]
fn assert_asked(from: &Host, whom: IpAddr, to: &Host, instead: IpAddr) {
    let server = to.run(move || UdpSocket::bind((instead, 53)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let client = from.udp(any(whom));
    client.send_to(b"who?", (whom, 53)).unwrap();
    let (text, client_seen) = receive(&server);
    assert_eq!(text, "who?", "{whom}");
    server.send_to(b"me", client_seen).unwrap();
    assert_eq!(receive(&client), ("me".to_owned(), (whom, 53).into()), "{whom}");
    let listener = to.run(move || std::net::TcpListener::bind((instead, 53)).unwrap());
    from.connect((whom, 53).into()).expect("over TCP");
    listener.accept().unwrap();
}

#[test]
fn query_of_a_scope_goes_to_the_exits_resolver() {
    let bed = client();
    let scopes = asks(&bed);
    load(&bed, &scopes);
    for (family, resolver) in both(RESOLVER).into_iter().enumerate() {
        for whom in [Bed::LAN_ROUTER, Bed::WAN, FAR] {
            assert_asked(&bed.lan, both(whom)[family], &bed.home, resolver);
        }
        for whom in [Bed::WAN, FAR] {
            assert_asked(&bed.router, both(whom)[family], &bed.home, resolver);
        }
        // Queries to the router's own resolver are not redirected.
        let own = both(Bed::LAN_ROUTER)[family];
        assert_asked(&bed.router, own, &bed.router, own);
        let server = bed.wan.run(move || UdpSocket::bind((both(FAR)[family], 53)).unwrap());
        let client = bed.router.udp(any(resolver));
        SockRef::from(&client).set_mark(ReservedNumbers::default().bypass).unwrap();
        client.send_to(b"bypass", (both(FAR)[family], 53)).unwrap();
        assert_eq!(receive(&server).0, "bypass");
    }
}

#[test]
fn query_that_the_router_would_ask_over_the_wan_is_refused() {
    let bed = client();
    let [scope, _] = asks(&bed);
    let only_v4 = ScopeGuard { resolvers: vec![both(RESOLVER)[0]], ..scope };
    load(&bed, std::slice::from_ref(&only_v4));
    let [v4, v6] = both(Bed::LAN_ROUTER);
    assert_asked(&bed.lan, v4, &bed.home, both(RESOLVER)[0]);
    let listener = bed.router.run(move || std::net::TcpListener::bind((v6, 53)).unwrap());
    bed.lan.connect((v6, 53).into()).expect_err("it would ask over the WAN");
    // The router's resolver may be asked with the kill switch off, or where the router's own traffic uses the exit.
    for scopes in [
        vec![ScopeGuard { closed: false, ..only_v4.clone() }],
        vec![
            only_v4.clone(),
            ScopeGuard { sources: [Source::Router].into_iter().collect(), ..only_v4.clone() },
        ],
    ] {
        load(&bed, &scopes);
        bed.lan.connect((v6, 53).into()).expect("it is asked");
        listener.accept().unwrap();
    }
    // An excluded resolver does not count as the exit's.
    load(&bed, &[ScopeGuard { resolvers: vec![], exclude: prefixes(["0.0.0.0/0"]).collect(), ..only_v4 }]);
    for family in ["-4", "-6"] {
        bed.router.ip(&format!("{family} rule del pref 910"));
    }
    let server = bed.wan.run(|| UdpSocket::bind((both(FAR)[0], 53)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let client = bed.lan.udp(any(v4));
    let _ = client.send_to(b"kept in", (both(FAR)[0], 53));
    unload(&bed);
    client.send_to(b"let out", (both(FAR)[0], 53)).unwrap();
    assert_eq!(receive(&server).0, "let out");
}

/// WireGuard accepts packets of every source address from an exit's peer, so the table has to drop new connections from
/// there.
#[test]
fn connection_from_the_internet_through_the_exit_is_dropped() {
    let bed = client();
    lead(&bed, "iif lan0");
    let lan_served = prefixes(["192.168.20.0/24", "fd20::/64"]).map(|prefix| (prefix, false));
    let home = Guard { egress: lan_served.collect(), ..Guard::default() };
    bed.router.table(&guarded(home.clone(), exits(&[lan()])));
    for (at, [member, far]) in both(Bed::LAN)
        .into_iter()
        .zip([[both(Bed::HOME)[0], both(FAR)[0]], [both(Bed::HOME)[1], both(FAR)[1]]])
    {
        let server = bed.lan.udp(at);
        let to = server.local_addr().unwrap();
        let _ = bed.home.udp(far).send_to(b"far", to);
        bed.home.udp(member).send_to(b"member", to).unwrap();
        assert_eq!(receive(&server).0, "member");
        // Without this rule the packet arrives.
        bed.router.table(&guarded(home.clone(), Exits::default()));
        bed.home.udp(far).send_to(b"far", to).unwrap();
        assert_eq!(receive(&server).0, "far");
        bed.router.table(&guarded(home.clone(), exits(&[lan()])));
    }
}

#[test]
fn exit_lets_its_network_out_to_the_internet_alone() {
    const PRIVATE: [&str; 2] = ["10.77.0.1", "fd77::1"];
    const STRANGER: [&str; 2] = ["10.99.0.1", "fd99::1"];
    for default in [Verdict::Allow, Verdict::Deny] {
        let bed = bed();
        for (address, next) in PRIVATE.into_iter().zip(Bed::WAN) {
            add(&bed.wan, address);
            bed.router.ip(&format!("route add {address} via {next}"));
        }
        for (address, next) in STRANGER.into_iter().zip(Bed::HOME) {
            add(&bed.home, address);
            bed.router.ip(&format!("route add {address} via {next}"));
        }
        let home = Guard {
            internet: prefixes(["10.9.0.0/24", "fd09::/64"]).collect(),
            uplinks: [link("wan0")].into_iter().collect(),
            access: Access { default, ..Access::default() },
            ..Guard::default()
        };
        bed.router.table(&guarded(home, Exits::default()));
        for family in [0, 1] {
            let (wan, seen) = (both(Bed::WAN)[family], both(ROUTER)[family]);
            for member in [&bed.home, &bed.home2] {
                assert_eq!(member.seen(&bed.wan, wan), seen);
            }
            bed.home.reach(&bed.lan, both(Bed::LAN)[family]).expect_err("the LAN behind it");
            bed.home.reach(&bed.office, both(Bed::OFFICE)[family]).expect_err("another network");
            bed.office.reach(&bed.wan, wan).expect_err("another network's member");
            bed.home.reach(&bed.wan, both(PRIVATE)[family]).expect_err("what else the uplink knows");
            let (server, stranger) = (bed.wan.udp(wan), bed.home.udp(both(STRANGER)[family]));
            let _ = stranger.send_to(b"stranger", server.local_addr().unwrap());
            assert_let_out_to(&bed.home, &server);
        }
    }
}

#[track_caller]
fn assert_let_out_to(from: &Host, server: &UdpSocket) {
    let to = server.local_addr().unwrap();
    from.udp(any(to.ip())).send_to(b"member", to).unwrap();
    assert_eq!(receive(server).0, "member");
}

#[test]
fn tcp_segments_fit_an_exits_tunnel() {
    let bed = client();
    lead(&bed, "iif lan0");
    let exits = Exits { mtus: [(link("gw-home"), 1300)].into_iter().collect(), ..exits(&[lan()]) };
    bed.router.table(&guarded(Guard::default(), exits));
    bed.router.ip("link set gw-home mtu 1300");
    for (far, headers) in both(FAR).into_iter().zip([40, 60]) {
        let (client, server) = bed.lan.reach(&bed.home, far).unwrap();
        for end in [client, server] {
            let mss = SockRef::from(&end).tcp_mss().unwrap();
            assert!((1300 - headers - 12..=1300 - headers).contains(&mss), "{mss}");
        }
    }
}

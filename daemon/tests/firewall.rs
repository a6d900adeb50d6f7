//! The firewall table with real packets, between network namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod firewall {
    pub mod access;
    pub mod bed;
    pub mod exits;
    pub mod guard;
}

use firewall::bed::{Bed, CHANGES, Host, both};
use gatewrt::{
    model::{Guard, IfName},
    ownership::ReservedNumbers,
    plan::Firewall,
};
use socket2::SockRef;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// Table of both networks, with what `gw-home` serves.
fn serving(served: &[(&str, bool)]) -> Firewall {
    let egress = served.iter().map(|(prefix, nat)| (prefix.parse().unwrap(), *nat)).collect();
    let tunnels = [("gw-home", Guard { egress, ..Guard::default() }), ("gw-office", Guard::default())];
    let tunnels = tunnels.map(|(name, guard)| (IfName::new(name).unwrap(), guard)).into_iter().collect();
    Firewall { tunnels, bypass: true, ..Firewall::default() }
}

fn lan(nat: bool) -> Firewall {
    serving(&[("192.168.20.0/24", nat), ("fd20::/64", nat)])
}

fn with(firewall: &Firewall) -> Bed {
    let bed = Bed::new();
    bed.router.table(firewall);
    bed
}

/// Asserts that the router refuses the connection, rather than drops it.
fn assert_refused(from: &Host, to: &Host, at: IpAddr) {
    let error = from.reach(to, at).expect_err("it went through");
    let said = [Some(libc_errno::EHOSTUNREACH), Some(libc_errno::EACCES)];
    assert!(said.contains(&error.raw_os_error()), "{at}: {error}");
}

/// `asm-generic/errno.h`.
mod libc_errno {
    pub const EACCES: i32 = 13;
    pub const EHOSTUNREACH: i32 = 113;
}

#[test]
fn lan_without_nat_sees_the_hosts_own_address() {
    let bed = with(&lan(false));
    for (at, source) in both(Bed::LAN).into_iter().zip(both(Bed::HOME)) {
        assert_eq!(bed.home.seen(&bed.lan, at), source);
    }
}

#[test]
fn lan_with_nat_sees_the_router() {
    let bed = with(&lan(true));
    for (at, source) in both(Bed::LAN).into_iter().zip(both(Bed::LAN_ROUTER)) {
        assert_eq!(bed.home.seen(&bed.lan, at), source);
    }
}

#[test]
fn longest_prefix_decides_on_nat() {
    let bed = with(&serving(&[("192.168.20.0/24", true), ("192.168.20.10/32", false), ("fd20::/64", true)]));
    assert_eq!(bed.home.seen(&bed.lan, both(Bed::LAN)[0]), both(Bed::HOME)[0]);
    assert_eq!(bed.home.seen(&bed.lan, both(Bed::LAN)[1]), both(Bed::LAN_ROUTER)[1]);
}

#[test]
fn connection_from_the_lan_keeps_its_source() {
    for nat in [false, true] {
        let bed = with(&lan(nat));
        for (at, source) in both(Bed::HOME).into_iter().zip(both(Bed::LAN)) {
            assert_eq!(bed.lan.seen(&bed.home, at), source);
        }
    }
}

#[test]
fn traffic_between_lan_and_wan_is_left_alone() {
    let bed = with(&lan(true));
    for (at_lan, at_wan) in both(Bed::LAN).into_iter().zip(both(Bed::WAN)) {
        assert_eq!(bed.wan.seen(&bed.lan, at_lan), at_wan);
        assert_eq!(bed.lan.seen(&bed.wan, at_wan), at_lan);
    }
}

#[test]
fn destination_that_is_not_served_is_refused() {
    let bed = with(&lan(true));
    for at in both(Bed::WAN) {
        assert_refused(&bed.home, &bed.wan, at);
    }
    for at in both(Bed::LAN) {
        assert_refused(&bed.office, &bed.lan, at);
    }
}

#[test]
fn other_network_is_refused_when_everything_is_served() {
    let bed = with(&serving(&[("0.0.0.0/0", true), ("::/0", true)]));
    for at in both(Bed::OFFICE) {
        assert_refused(&bed.home, &bed.office, at);
    }
    for at in both(Bed::HOME) {
        assert_refused(&bed.office, &bed.home, at);
    }
    for at in both(Bed::WAN) {
        bed.home.seen(&bed.wan, at);
    }
}

#[test]
fn members_relayed_by_the_router_keep_their_sources() {
    let bed = with(&serving(&[("0.0.0.0/0", true), ("::/0", true)]));
    for (at, source) in both(Bed::HOME2).into_iter().zip(both(Bed::HOME)) {
        assert_eq!(bed.home.seen(&bed.home2, at), source);
    }
}

#[test]
fn tcp_segments_fit_the_tunnel_in_both_directions() {
    let bed = with(&lan(false));
    bed.router.ip("link set gw-home mtu 1300");
    for (at_home, (at_lan, headers)) in
        both(Bed::HOME).into_iter().zip(both(Bed::LAN).into_iter().zip([40, 60]))
    {
        // Each end's limit is the one that the other sent, in the SYN or in the SYN-ACK.
        for (client, server) in
            [bed.home.reach(&bed.lan, at_lan).unwrap(), bed.lan.reach(&bed.home, at_home).unwrap()]
        {
            let limits = [client, server].map(|end| SockRef::from(&end).tcp_mss().unwrap());
            // 12 bytes go to timestamps in each segment.
            assert!(
                limits.iter().all(|mss| (1300 - headers - 12..=1300 - headers).contains(mss)),
                "{limits:?}"
            );
        }
    }
}

/// Rules of another program that uses marks, before and after ours.
const THEIRS: &str = "table inet theirs {
    counter ours { }
    counter spoilt { }
    chain early {
        type filter hook prerouting priority -155;
        ct state new ct mark set 0x00aa00bb
        meta mark set 0x00550066
    }
    chain late {
        type filter hook forward priority 10;
        ct mark & 0x0f000000 == 0x02000000 counter name ours
        ct mark & 0x0f000000 == 0x02000000 ct mark != 0x02aa00bb counter name spoilt
        ct mark & 0x0f000000 == 0x02000000 meta mark != 0x00550066 counter name spoilt
    }
}";

fn counted(host: &Host, counter: &str) -> u64 {
    let text = host.command("nft", &["list", "counter", "inet", "theirs", counter], "");
    let number = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn mark_bits_of_other_programs_stay() {
    let bed = with(&lan(true));
    bed.router.nft(THEIRS);
    let seen = both(Bed::LAN).map(|at| bed.home.seen(&bed.lan, at));
    assert_eq!(seen, both(Bed::LAN_ROUTER));
    let [ours, spoilt] = ["ours", "spoilt"].map(|counter| counted(&bed.router, counter));
    assert!(ours >= 6, "two handshakes have six packets, not {ours}");
    assert_eq!(spoilt, 0);
}

/// A packet that our rules accept can still be refused by the owner's own rules.
#[test]
fn destination_refused_by_the_owner_stays_refused() {
    let bed = with(&lan(false));
    for (at, home) in both(Bed::LAN).into_iter().zip(both(Bed::HOME)) {
        assert_eq!(bed.home.seen(&bed.lan, at), home);
        bed.router.refuse(at);
        assert_refused(&bed.home, &bed.lan, at);
    }
}

/// Sender of the next packet. A receive with a time limit also ends when the machine was paused.
fn receive(socket: &UdpSocket) -> io::Result<SocketAddr> {
    loop {
        match socket.recv_from(&mut [0; 8]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(|(_, from)| from),
        }
    }
}

/// Host beyond the WAN.
const FAR: [u8; 4] = [198, 51, 100, 7];

/// Network with a prefix that holds the tunnels' own endpoints, on a router with a strict reverse path check.
fn with_a_network_in_the_way() -> Bed {
    let bed = Bed::new();
    bed.wan.ip("addr add 198.51.100.7/32 dev lo");
    // Otherwise the WAN host sends its ARP request from the far host's address, and that fails the same check.
    bed.wan.sysctl("ipv4/conf/all/arp_announce", "2");
    bed.router.ip("route add 198.51.100.0/24 via 203.0.113.2");
    bed.router.ip("route add 198.51.100.0/24 dev gw-home table 26487");
    bed.router.ip("rule add not fwmark 0x1000000/0xf000000 lookup 26487 pref 900");
    bed.router.sysctl("ipv4/conf/all/src_valid_mark", "1");
    bed.router.sysctl("ipv4/conf/all/rp_filter", "1");
    bed
}

/// Sends a marked packet to the far host, and returns the sender of the answer.
fn ask(bed: &Bed, patience: Duration) -> io::Result<SocketAddr> {
    let (server, client) = (bed.wan.udp(FAR.into()), bed.router.udp(Ipv4Addr::UNSPECIFIED.into()));
    SockRef::from(&client).set_mark(ReservedNumbers::default().bypass)?;
    client.send_to(b"?", server.local_addr()?)?;
    let from = receive(&server)?;
    server.send_to(b"!", from)?;
    client.set_read_timeout(Some(patience))?;
    receive(&client)
}

#[test]
fn answer_to_bypassing_packet_passes_a_strict_reverse_path_check() {
    let bed = with_a_network_in_the_way();
    let error =
        ask(&bed, Duration::from_secs(1)).expect_err("the check is not in force: this test shows nothing");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    bed.router.table(&serving(&[]));
    bed.router.nft(THEIRS);
    assert_eq!(ask(&bed, Duration::from_secs(20)).unwrap().ip(), IpAddr::from(FAR));
}

fn say(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"still there?").unwrap();
    to.read_exact(&mut [0; 12]).unwrap();
}

#[test]
fn open_connections_outlive_every_change_of_the_table() {
    let bed = with(&lan(true));
    let inward = both(Bed::LAN).map(|at| bed.home.reach(&bed.lan, at).unwrap());
    let outward = both(Bed::HOME).map(|at| bed.lan.reach(&bed.home, at).unwrap());
    let sources: Vec<IpAddr> = inward.iter().map(|(_, server)| server.peer_addr().unwrap().ip()).collect();
    assert_eq!(sources, both(Bed::LAN_ROUTER));
    let mut open: Vec<_> = inward.into_iter().chain(outward).collect();
    for table in [lan(false), lan(true), serving(&[]), serving(&[("192.168.0.0/16", true)])] {
        bed.router.table(&table);
        for (client, server) in &mut open {
            say(client, server);
            say(server, client);
        }
    }
}

/// Sends one packet at a time, there and back, until enough tables were met, so that each loss is noticed.
fn ping_pong(client: &UdpSocket, server: &UdpSocket, turns: &AtomicU32, tables: &AtomicU32) {
    while tables.load(Ordering::Relaxed) < CHANGES / 2 {
        let turn = turns.fetch_add(1, Ordering::Relaxed);
        client.send(b"?").unwrap();
        let from = receive(server).unwrap_or_else(|error| panic!("lost after {turn}: {error}"));
        server.send_to(b"!", from).unwrap();
        receive(client).unwrap_or_else(|error| panic!("answer lost after {turn}: {error}"));
    }
}

#[test]
fn stream_loses_no_packet_while_nat_is_switched() {
    let bed = with(&lan(true));
    for at in both(Bed::LAN) {
        let (server, client) = (bed.lan.udp(at), bed.home.udp(unspecified(at)));
        client.connect(server.local_addr().unwrap()).unwrap();
        let (turns, tables) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            let stream = scope.spawn(|| ping_pong(&client, &server, &turns, &tables));
            while !stream.is_finished() {
                let before = turns.load(Ordering::Relaxed);
                bed.router.table(&lan(before % 2 == 0));
                // A table counts once packets have passed it.
                tables.fetch_add(u32::from(turns.load(Ordering::Relaxed) > before), Ordering::Relaxed);
            }
        });
    }
}

/// New connections open while the table changes: a packet may meet the old table in one hook and the new one in the
/// next, or both within one.
#[test]
fn new_connections_open_while_the_table_changes() {
    let bed = with(&lan(true));
    for at in both(Bed::LAN) {
        let server = bed.lan.udp(at);
        let to = server.local_addr().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let opening = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    bed.home.udp(unspecified(at)).send_to(b"?", to).unwrap();
                    receive(&server).expect("a first packet got lost");
                }
            });
            for turn in 0..CHANGES {
                bed.router.table(&lan(turn % 2 == 0));
            }
            done.store(true, Ordering::Relaxed);
            opening.join().unwrap();
        });
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

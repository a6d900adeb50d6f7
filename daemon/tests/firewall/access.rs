//! Access rules with real packets: the connections that each host may open.

use super::bed::{self, Bed, Host, both, options};
use gatewrt::{
    kernel::{
        Kernel,
        linux::{LinuxKernel, Options},
    },
    model::{Flows, Guard, IfName, NetworkPolicy, ObserveQuery, Route, RouteKind},
    plan::{Firewall, Step, TableUpdate},
};
use gatewrt_protocol::{Access, AccessRule, Prefix, Service, Verdict};
use litemap::LiteMap;
use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Number of table changes while connections are opened.
const CHANGES: u32 = bed::CHANGES * 5 / 2;
const HOME: [&str; 2] = ["10.9.0.0/24", "fd09::/64"];
const LAN: [&str; 2] = ["192.168.20.0/24", "fd20::/64"];
const OFFICE: [&str; 2] = ["10.8.0.0/24", "fd08::/64"];
const LAN2: [&str; 2] = ["192.168.21.0/24", "fd21::/64"];
/// Other range of the LAN's host.
const LAN2_HOST: [&str; 2] = ["192.168.21.10", "fd21::10"];
/// Address of the router in the network.
const ROUTER: [&str; 2] = ["10.9.0.1", "fd09::1"];

fn prefixes<const N: usize>(texts: [&str; N]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Single addresses, one of each family.
fn hosts(addresses: [&str; 2]) -> Vec<Prefix> {
    both(addresses).map(Prefix::host).into()
}

fn allow(from: u32, to: u32, services: &[&str]) -> AccessRule {
    let services = services.iter().map(|service| service.parse().unwrap()).collect();
    AccessRule { verdict: Verdict::Allow, from, to, services }
}

fn deny(from: u32, to: u32, services: &[&str]) -> AccessRule {
    AccessRule { verdict: Verdict::Deny, ..allow(from, to, services) }
}

fn serving(ranges: [&str; 2], nat: bool) -> Guard {
    Guard { egress: prefixes(ranges).into_iter().map(|prefix| (prefix, nat)).collect(), ..Guard::default() }
}

fn with_access(access: Access) -> Guard {
    Guard { access, ..serving(LAN, false) }
}

fn firewall(home: Guard, office: Guard) -> Firewall {
    let tunnels = [("gw-home", home), ("gw-office", office)];
    let tunnels = tunnels.map(|(link, guard)| (IfName::new(link).unwrap(), guard)).into_iter().collect();
    Firewall { tunnels, bypass: true, ..Firewall::default() }
}

/// A bed with static neighbours: WireGuard has no neighbour discovery, and the rules would drop it.
pub fn bed() -> Bed {
    let bed = Bed::new();
    // The router answers every refused packet, without a rate limit.
    bed.router.sysctl("ipv4/icmp_ratelimit", "0");
    bed.router.sysctl("ipv6/icmp/ratelimit", "0");
    let mac = |host: &Host, link: &str| {
        let shown = host.ip(&format!("-br link show {link}"));
        shown.split_whitespace().nth(2).unwrap().to_owned()
    };
    let members = [(&bed.home, "gw-home", Bed::HOME, ROUTER), (&bed.home2, "gw-home", Bed::HOME2, ROUTER)];
    let office = (&bed.office, "gw-office", Bed::OFFICE, ["10.8.0.1", "fd08::1"]);
    for (host, link, addresses, router) in members.into_iter().chain([office]) {
        for (address, router_address) in addresses.into_iter().zip(router) {
            let (theirs, ours) = (mac(host, "eth0"), mac(&bed.router, link));
            bed.router.ip(&format!("neigh replace {address} lladdr {theirs} dev {link} nud permanent"));
            host.ip(&format!("neigh replace {router_address} lladdr {ours} dev eth0 nud permanent"));
        }
    }
    bed
}

fn with(home: Guard) -> Bed {
    let bed = bed();
    bed.router.table(&firewall(home, Guard::default()));
    bed
}

/// Reports if a connection opens. The router's refusal ends the wait.
fn opens(from: &Host, to: &Host, at: IpAddr, port: u16) -> bool {
    let listener = bound(to, (at, port).into(), TcpListener::bind);
    match from.connect(listener.local_addr().unwrap()) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => panic!("{at}: nobody says no"),
        Err(_) => false,
    }
}

/// Binds a socket, with retries: a program that another test starts holds all our sockets between fork and exec.
fn bound<T: Send + 'static>(host: &Host, at: SocketAddr, bind: fn(SocketAddr) -> io::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match host.run(move || bind(at)) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "{at}: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reports if a connection opens, and asserts that IPv4 and IPv6 agree.
#[track_caller]
fn open(from: &Host, to: &Host, at: [&str; 2], port: u16) -> bool {
    let [v4, v6] = both(at).map(|at| opens(from, to, at, port));
    assert_eq!(v4, v6, "{at:?}: IPv4 and IPv6 differ");
    v4
}

#[test]
fn two_networks_on_one_router_reach_their_own_range_alone() {
    let bed = bed();
    for (lan, router) in LAN2_HOST.into_iter().zip(["192.168.21.1", "fd21::1"]) {
        let (len, nodad) = if lan.contains(':') { (64, " nodad") } else { (24, "") };
        bed.lan.ip(&format!("addr add {lan}/{len} dev eth0{nodad}"));
        bed.router.ip(&format!("addr add {router}/{len} dev lan0{nodad}"));
    }
    // Both ranges are served to both networks; only the rules keep them apart.
    let guard = |members, range| {
        let both_ways = vec![allow(0, 1, &[]), allow(1, 0, &[])];
        let sets = vec![prefixes(members), prefixes(range)];
        let egress = prefixes(LAN).into_iter().chain(prefixes(LAN2)).map(|prefix| (prefix, false)).collect();
        let access = Access { default: Verdict::Deny, sets, rules: both_ways };
        Guard { egress, access, ..Guard::default() }
    };
    bed.router.table(&firewall(guard(HOME, LAN), guard(OFFICE, LAN2)));
    // Sets the source addresses of the LAN's host.
    let speak_as = |[v4, v6]: [&str; 2]| {
        bed.lan.ip(&format!("route replace default via 192.168.20.1 dev eth0 src {v4}"));
        bed.lan.ip(&format!("route replace default via fd20::1 dev eth0 src {v6}"));
    };
    for (member, at, range, may) in [
        (&bed.home, Bed::HOME, Bed::LAN, true),
        (&bed.home, Bed::HOME, LAN2_HOST, false),
        (&bed.office, Bed::OFFICE, Bed::LAN, false),
        (&bed.office, Bed::OFFICE, LAN2_HOST, true),
    ] {
        assert_eq!(open(member, &bed.lan, range, 80), may, "{at:?} → {range:?}");
        speak_as(range);
        assert_eq!(open(&bed.lan, member, at, 80), may, "{range:?} → {at:?}");
    }
    assert!(!open(&bed.home, &bed.office, Bed::OFFICE, 80));
    assert!(!open(&bed.office, &bed.home, Bed::HOME, 80));
}

#[test]
fn closed_client_accepts_no_connection_and_reaches_all() {
    let closed = hosts(Bed::HOME2).into_iter().collect();
    let bed = with(Guard { closed, ..serving(LAN, false) });
    assert!(!open(&bed.lan, &bed.home2, Bed::HOME2, 80), "from a site");
    assert!(!open(&bed.home, &bed.home2, Bed::HOME2, 80), "from a member");
    assert!(open(&bed.home2, &bed.lan, Bed::LAN, 80));
    assert!(open(&bed.home2, &bed.home, Bed::HOME, 80));
    assert!(open(&bed.home2, &bed.router, ROUTER, 80));
    bed.home2.seen(&bed.lan, both(Bed::LAN)[0]);
    bed.router.table(&firewall(serving(LAN, false), Guard::default()));
    assert!(open(&bed.lan, &bed.home2, Bed::HOME2, 80), "with the switch on");
}

#[test]
fn full_tunnel_leaves_as_the_router_to_the_internet_alone() {
    // Private addresses beyond the uplink, which a client must not reach.
    const PRIVATE: [&str; 2] = ["10.77.0.1", "fd77::1"];
    for default in [Verdict::Allow, Verdict::Deny] {
        let bed = bed();
        for (address, next) in PRIVATE.into_iter().zip(Bed::WAN) {
            bed.wan.ip(&format!("addr add {address} dev lo"));
            bed.router.ip(&format!("route add {address} via {next}"));
        }
        let guard = Guard {
            internet: hosts(Bed::HOME).into_iter().collect(),
            uplinks: [IfName::new("wan0").unwrap()].into_iter().collect(),
            access: Access { default, ..Access::default() },
            ..serving(LAN, false)
        };
        bed.router.table(&firewall(guard, Guard::default()));
        for (at, router) in both(Bed::WAN).into_iter().zip(["203.0.113.1", "2001:db8::1"]) {
            assert_eq!(bed.home.seen(&bed.wan, at).to_string(), router);
        }
        assert!(!open(&bed.home2, &bed.wan, Bed::WAN, 80), "a split tunnel");
        assert!(!open(&bed.home, &bed.wan, PRIVATE, 80));
        assert!(!open(&bed.home, &bed.office, Bed::OFFICE, 80), "another network");
        assert!(open(&bed.lan, &bed.wan, Bed::WAN, 80), "no matter of ours");
        assert_eq!(open(&bed.home, &bed.lan, Bed::LAN, 80), default == Verdict::Allow);
    }
}

#[test]
fn rule_with_services_allows_these_alone() {
    let sets = vec![prefixes(HOME), hosts(Bed::LAN), hosts(ROUTER)];
    let rules = vec![allow(0, 1, &["tcp/80-90", "icmp"]), allow(0, 2, &["tcp/53"]), deny(0, 1, &["tcp/85"])];
    let bed = with(with_access(Access { default: Verdict::Deny, sets, rules }));
    for (port, may) in [(79, false), (80, true), (84, true), (85, false), (90, true), (91, false)] {
        assert_eq!(open(&bed.home, &bed.lan, Bed::LAN, port), may, "{port}");
    }
    assert!(open(&bed.home, &bed.router, ROUTER, 53) && !open(&bed.home, &bed.router, ROUTER, 80));
    assert!(!open(&bed.lan, &bed.home, Bed::HOME, 80));
    assert!(Bed::LAN.into_iter().all(|at| pings(&bed.home, at)));
    assert!(!Bed::HOME.into_iter().any(|at| pings(&bed.lan, at)));
}

fn pings(from: &Host, at: &str) -> bool {
    let script = format!("ping -c1 -W20 {at} >/dev/null && echo yes || true");
    !from.command("sh", &["-c", &script], "").is_empty()
}

/// Access rules among the hosts of the bed.
fn some_access() -> impl Strategy<Value = Access> {
    let known = [HOME, LAN, OFFICE].map(prefixes).concat();
    let alone = [Bed::HOME, Bed::HOME2, Bed::LAN, ROUTER].map(hosts).concat();
    let set = || vec(select([known.clone(), alone.clone()].concat()), 1..4);
    let service = select(vec!["udp/80", "udp/80-443", "udp/443", "udp", "tcp", "icmp"]);
    let services = vec(service.prop_map(|text| text.parse::<Service>().unwrap()), 0..3);
    let verdict = || select(vec![Verdict::Allow, Verdict::Deny]);
    let rule = (verdict(), 0u32..4, 0u32..4, services);
    let rule = rule.prop_map(|(verdict, from, to, services)| AccessRule { verdict, from, to, services });
    (verdict(), vec(set(), 4), vec(rule, 0..6)).prop_map(|(default, sets, rules)| Access {
        default,
        sets,
        rules,
    })
}

/// Reports if a packet arrives, rather than that the router refuses.
fn arrives(from: &Host, to: &Host, (src, dst): (IpAddr, IpAddr), port: u16) -> bool {
    let server = bound(to, (dst, port).into(), UdpSocket::bind);
    let client = from.udp(src);
    client.connect((dst, port)).unwrap();
    server.set_nonblocking(true).unwrap();
    let question = client.local_addr().unwrap().port().to_be_bytes();
    let (start, mut sent, mut heard) = (Instant::now(), 0, [0; 8]);
    loop {
        // The first packet over a new IPv6 link may be lost on its way.
        if start.elapsed() >= sent * Duration::from_millis(500) {
            let _ = client.send(&question);
            sent += 1;
        }
        match (server.recv(&mut heard), client.take_error().unwrap()) {
            (Ok(length), _) if heard[..length] == question => return true,
            (_, Some(_)) => return false,
            _ => assert!(sent < 40, "{dst}: neither it nor an answer came"),
        }
        thread::yield_now();
    }
}

#[test]
fn kernel_decides_as_any_rules_do() {
    let bed = bed();
    let mut runner = TestRunner::deterministic();
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..40 {
        let access = some_access().new_tree(&mut runner).unwrap().current();
        let guard = with_access(access);
        bed.router.table(&firewall(guard.clone(), Guard::default()));
        let pairs = [
            (&bed.home, Bed::HOME, &bed.home2, Bed::HOME2),
            (&bed.home2, Bed::HOME2, &bed.lan, Bed::LAN),
            (&bed.lan, Bed::LAN, &bed.home, Bed::HOME),
            (&bed.home, Bed::HOME, &bed.router, ROUTER),
        ];
        for (from, sources, to, destinations) in pairs {
            for (src, dst) in both(sources).into_iter().zip(both(destinations)) {
                for port in [80, 443, 8080] {
                    let may = !guard.forbids(src, dst, 17, port);
                    let does = arrives(from, to, (src, dst), port);
                    assert_eq!(does, may, "{src} → {dst} udp/{port}: {:#?}", guard.access);
                    *(if may { &mut passed } else { &mut refused }) += 1;
                }
            }
        }
    }
    assert!(passed > 100 && refused > 100, "{passed} passed, {refused} refused: this shows nothing");
}

/// Driver of the firewall as the daemon uses it, in the router's namespace.
struct Driver {
    kernel: LinuxKernel,
    _folder: tempfile::TempDir,
}

impl Driver {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { run_dir: folder.path().into(), ..options() };
        Self { kernel: LinuxKernel::new(options).unwrap(), _folder: folder }
    }

    fn execute(&mut self, step: &Step) {
        self.kernel.execute(step).unwrap_or_else(|error| panic!("{step}: {error}"));
    }

    fn write(&mut self, guard: &Guard) {
        let observed = self.kernel.observe(&ObserveQuery::default()).unwrap().ruleset;
        let table = firewall(guard.clone(), Guard::default()).table();
        self.execute(&Step::WriteRuleset(TableUpdate::new(observed.as_ref(), Arc::new(table))));
    }
}

/// A connection is cut whichever end sends next.
#[test]
fn download_ends_when_a_rule_forbids_it() {
    let bed = bed();
    let guard =
        |rules| with_access(Access { sets: vec![prefixes(HOME), prefixes(LAN)], rules, ..Access::default() });
    let (before, after) = (guard(vec![]), guard(vec![deny(0, 1, &["tcp"])]));
    bed.router.run(move || Driver::new().write(&before));
    let mut downloads = both(Bed::LAN).map(|at| bed.home.reach(&bed.lan, at).unwrap());
    let mut unasked = both(Bed::HOME).map(|at| bed.lan.reach(&bed.home, at).unwrap());
    bed.router.run(move || {
        let mut driver = Driver::new();
        driver.write(&after);
        driver.execute(&Step::CutFlows(Arc::new(flows(after))));
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    for (client, server) in &mut downloads {
        // The server gets an error for its next packets; the client gets nothing more.
        while server.write_all(b"more").is_ok() {
            assert!(Instant::now() < deadline, "the download goes on");
            thread::sleep(Duration::from_millis(10));
        }
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0; 4]).expect_err("something came").kind(), ErrorKind::WouldBlock);
    }
    for (client, server) in &mut unasked {
        server.write_all(b"more").unwrap();
        client.read_exact(&mut [0; 4]).expect("what the LAN opened stands");
    }
}

fn flows(guard: Guard) -> Flows {
    let home = IfName::new("gw-home").unwrap();
    let route = |prefix| Route { table: 26487, prefix, metric: 512, kind: RouteKind::Device(home.clone()) };
    let realm = NetworkPolicy { guard, ..NetworkPolicy::default() };
    let realms: LiteMap<IfName, NetworkPolicy> = [(home.clone(), realm)].into_iter().collect();
    Flows::new(realms, &prefixes(HOME).into_iter().map(route).collect())
}

/// A connection that every table allows opens while elements are split and merged, sets come and go, and chains are
/// written.
#[test]
fn allowed_connection_opens_while_elements_and_chains_change() {
    let bed = bed();
    let mut driver = bed.router.run(|| {
        let mut driver = Driver::new();
        driver.write(&table(0));
        driver
    });
    let tables = AtomicU32::new(0);
    let done = AtomicBool::new(false);
    let opened = thread::scope(|scope| {
        let opening: Vec<_> = both(Bed::LAN)
            .into_iter()
            .map(|at| {
                let (bed, tables, done) = (&bed, &tables, &done);
                scope.spawn(move || open_until(bed, at, tables, done))
            })
            .collect();
        for turn in 1..=CHANGES {
            driver = bed.router.run(move || {
                driver.write(&table(turn));
                driver
            });
            tables.store(turn, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        opening.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<u32>>()
    });
    println!("{CHANGES} changes, connections opened meanwhile: {opened:?}");
    assert!(opened.iter().all(|count| *count > CHANGES), "{opened:?} are too few to show anything");
}

/// Table of one turn: home may reach the same hosts in each, and all else differs.
fn table(turn: u32) -> Guard {
    let bit = |n: u32| turn >> n & 1 == 1;
    let mut sets = vec![prefixes(HOME), prefixes(LAN)];
    let mut rules = vec![allow(0, 1, &[]), allow(1, 0, &["tcp/1-1000"])];
    let ranges = [
        ["192.168.20.64/26", "fd20::40/122"],
        ["192.168.20.8/32", "fd20::8/128"],
        ["192.168.0.0/18", "fd20::/60"],
    ];
    for (_, range) in (0..).zip(ranges).filter(|(n, _)| bit(*n)) {
        // The sources include home's, so the element is split at home's.
        let at = sets.len() as u32;
        sets.extend([prefixes(range), prefixes(["10.0.0.0/8", "fd00::/12"])]);
        rules.extend([allow(at + 1, at, &[]), deny(1, at, &["udp/1-10"])]);
    }
    let closed = if bit(3) { hosts(Bed::HOME2) } else { vec![] }.into_iter().collect();
    Guard { closed, ..with_access(Access { default: Verdict::Deny, sets, rules }) }
}

/// Opens connections with one packet each; returns their number.
fn open_until(bed: &Bed, at: IpAddr, tables: &AtomicU32, done: &AtomicBool) -> u32 {
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let server = bed.lan.udp(at);
    let to = server.local_addr().unwrap();
    let mut opened = 0;
    while !done.load(Ordering::Relaxed) {
        bed.home.udp(any).send_to(b"?", to).unwrap();
        let turn = tables.load(Ordering::Relaxed);
        server.recv_from(&mut [0; 8]).unwrap_or_else(|error| panic!("refused at table {turn}: {error}"));
        opened += 1;
    }
    opened
}

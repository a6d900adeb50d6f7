//! Named cases, in the words of `gatewrt plan`. Properties of all cases are in `tests/plan.rs`.

use super::{FlowVerdict, Plan, Step};
use crate::model::{
    Address, Desired, Family, FirewallTable, Flow, Flows, Guard, IfName, Link, LinkKind, NetworkPolicy,
    Observed, Route, RouteKind, Rule, SavedSysctl, SysctlPath, Tunnel, WgDevice, WgPeer, WgSecret,
    WgSettings,
};
use gatewrt_protocol::{Access, AccessRule, Prefix, PresharedKey, Verdict, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::sync::Arc;

const A: WgPublicKey = WgPublicKey([0; 32]);
const B: WgPublicKey = WgPublicKey([4; 32]);

fn home() -> IfName {
    IfName::new("gw-home").unwrap()
}

fn peer(allowed: &[&str]) -> WgPeer {
    let allowed = allowed.iter().map(|prefix| prefix.parse().unwrap()).collect();
    WgPeer { endpoint: Some("198.51.100.7:51820".parse().unwrap()), allowed, keepalive: 25, psk: None }
}

fn route(prefix: &str, kind: RouteKind) -> Route {
    Route { table: 26487, prefix: prefix.parse().unwrap(), metric: 512, kind }
}

fn sysctl(path: &str) -> SysctlPath {
    SysctlPath(path.to_owned())
}

/// A router that serves its LAN to a network of two others.
fn wish(peers: &[(WgPublicKey, WgPeer)]) -> Desired {
    let settings = WgSettings { secret: WgSecret([1; 32]), port: 51820, mark: 0x0100_0000 };
    let addresses = SortedSet::from_iter(["10.9.0.1".parse().unwrap()]);
    let tunnel = Tunnel { mtu: 1420, settings, addresses, peers: peers.iter().cloned().collect() };
    let rule = Rule {
        family: Family::V4,
        priority: 900,
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
        invert: true,
        table: 26487,
        iif: None,
        from: None,
    };
    let routes = [
        route("10.0.0.0/8", RouteKind::Device(home())),
        route("10.9.0.0/24", RouteKind::Device(home())),
        route("10.1.0.0/16", RouteKind::Throw),
    ];
    let sysctls =
        ["net/ipv6/conf/all/forwarding", "net/ipv4/conf/gw-home/forwarding", "net/ipv6/conf/wan/accept_ra"];
    Desired {
        bypass: true,
        exits: Default::default(),
        tunnels: LiteMap::from_iter([(home(), tunnel)]),
        gone: SortedSet::new(),
        routes: routes.into_iter().collect(),
        rules: [rule].into_iter().collect(),
        ruleset: Some(FirewallTable::default().into()),
        flows: Some(Arc::default()),
        sysctls: sysctls.map(|path| (sysctl(path), "1".to_owned())).into_iter().collect(),
    }
}

/// A kernel that is as desired.
fn fulfilled(wish: &Desired) -> Observed {
    let mut observed = Observed {
        routes: wish.routes.clone(),
        rules: wish.rules.clone(),
        ruleset: wish.ruleset.clone(),
        flows: wish.flows.clone(),
        sysctls: wish.sysctls.clone(),
        ..Observed::default()
    };
    let saved =
        |path: &SysctlPath| (path.clone(), SavedSysctl { before: "0".to_owned(), ours: "1".to_owned() });
    observed.saved_sysctls = wish.sysctls.keys().map(saved).collect();
    for (name, tunnel) in &wish.tunnels {
        let link = Link { index: 9, kind: LinkKind::WireGuard, up: true, mtu: tunnel.mtu };
        observed.links.insert(name.clone(), link);
        let address = |addr| Address { link: name.clone(), addr, len: 32 };
        observed.our_addresses.extend(tunnel.addresses.iter().copied().map(address));
        observed.addresses.clone_from(&observed.our_addresses);
        let device = WgDevice {
            settings: Some(tunnel.settings.clone()),
            peers: tunnel.peers.clone(),
            counters: LiteMap::new(),
            backend: "kernel".to_owned(),
        };
        observed.devices.insert(name.clone(), device);
    }
    observed
}

fn steps(observed: &Observed, desired: &Desired) -> Vec<String> {
    Plan::new(observed, desired).steps.iter().map(Step::to_string).collect()
}

/// Steps from a kernel with the peers `old` to one with `new`.
fn peers(old: &[(WgPublicKey, WgPeer)], new: &[(WgPublicKey, WgPeer)]) -> Vec<String> {
    steps(&fulfilled(&wish(old)), &wish(new))
}

#[test]
fn from_nothing() {
    let wish = wish(&[(A, peer(&["10.9.0.2/32"])), (B, peer(&["10.9.0.3/32"]))]);
    let expected = "\
write firewall table
add interface gw-home, MTU 1420
set net/ipv6/conf/wan/accept_ra = 1
set net/ipv6/conf/all/forwarding = 1
set net/ipv4/conf/gw-home/forwarding = 1
gw-home: set private key, port 51820, mark 0x1000000
gw-home: add address 10.9.0.1/32
gw-home: add peer AAAAAAAA… 10.9.0.2/32 via 198.51.100.7:51820, keepalive 25 s
gw-home: add peer BAQEBAQE… 10.9.0.3/32 via 198.51.100.7:51820, keepalive 25 s
gw-home: set up
add route throw 10.1.0.0/16 table 26487 metric 512
add route 10.9.0.0/24 dev gw-home table 26487 metric 512
add route 10.0.0.0/8 dev gw-home table 26487 metric 512
add rule 900 IPv4 not fwmark 0x1000000/0xf000000 lookup 26487
";
    assert_eq!(Plan::new(&Observed::default(), &wish).to_string(), expected);
}

#[test]
fn to_nothing() {
    let observed = fulfilled(&wish(&[(A, peer(&["10.9.0.2/32"]))]));
    let nothing = Desired { gone: [home()].into_iter().collect(), ..Desired::default() };
    let expected = "\
delete rule 900 IPv4 not fwmark 0x1000000/0xf000000 lookup 26487
delete route 10.0.0.0/8 dev gw-home table 26487 metric 512
delete route 10.9.0.0/24 dev gw-home table 26487 metric 512
delete route throw 10.1.0.0/16 table 26487 metric 512
delete interface gw-home
delete firewall table
put back net/ipv6/conf/all/forwarding
put back net/ipv4/conf/gw-home/forwarding
put back net/ipv6/conf/wan/accept_ra
";
    assert_eq!(Plan::new(&observed, &nothing).to_string(), expected);
}

#[test]
fn one_more_of_five_hundred_peers() {
    let all = |count: u16| -> Vec<_> {
        let one = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let mut key = [9; 32];
            (key[0], key[1]) = (high, low);
            (WgPublicKey(key), peer(&[&format!("10.9.{high}.{low}/32")]))
        };
        (0..count).map(one).collect()
    };
    assert_eq!(peers(&all(499), &all(500)).len(), 1);
    assert_eq!(peers(&all(500), &all(499)).len(), 1);
    assert!(peers(&all(500), &all(500)).is_empty());
}

#[test]
fn a_prefix_moves_by_naming_who_gains_it() {
    let moved = peers(
        &[(A, peer(&["10.9.0.2/32", "10.2.0.0/16"])), (B, peer(&["10.9.0.3/32"]))],
        &[(A, peer(&["10.9.0.2/32"])), (B, peer(&["10.9.0.3/32", "10.2.0.0/16"]))],
    );
    assert_eq!(moved, ["gw-home: set peer BAQEBAQE… also 10.2.0.0/16"]);
}

#[test]
fn prefixes_change_hands_both_ways() {
    let swapped = peers(
        &[(A, peer(&["10.2.0.0/16"])), (B, peer(&["10.3.0.0/16"]))],
        &[(A, peer(&["10.3.0.0/16"])), (B, peer(&["10.2.0.0/16"]))],
    );
    let expected =
        ["gw-home: set peer AAAAAAAA… also 10.3.0.0/16", "gw-home: set peer BAQEBAQE… also 10.2.0.0/16"];
    assert_eq!(swapped, expected);
}

#[test]
fn who_gains_stands_before_who_loses_on_its_own_account() {
    let shrinks = peers(
        &[(A, peer(&["10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"])), (B, peer(&[]))],
        &[(A, peer(&["10.4.0.0/16"])), (B, peer(&["10.2.0.0/16"]))],
    );
    assert_eq!(shrinks, ["gw-home: set peer BAQEBAQE… also 10.2.0.0/16; set peer AAAAAAAA… now 10.4.0.0/16"]);
    let rekeyed = peers(&[(A, peer(&["10.2.0.0/16"]))], &[(B, peer(&["10.2.0.0/16"]))]);
    let expected = "gw-home: add peer BAQEBAQE… 10.2.0.0/16 via 198.51.100.7:51820, keepalive 25 s; \
                    remove peer AAAAAAAA…";
    assert_eq!(rekeyed, [expected]);
}

#[test]
fn a_peer_that_roamed_is_left_where_it_is() {
    let old = [(A, peer(&["10.9.0.2/32"]))];
    let anywhere = [(A, WgPeer { endpoint: None, ..peer(&["10.9.0.2/32"]) })];
    let elsewhere = [(A, WgPeer { endpoint: "[2001:db8::1]:7".parse().ok(), ..peer(&["10.9.0.2/32"]) })];
    assert!(peers(&old, &anywhere).is_empty());
    assert_eq!(peers(&old, &elsewhere), ["gw-home: set peer AAAAAAAA… via [2001:db8::1]:7"]);
}

#[test]
fn a_name_that_someone_else_took_asks_for_help_and_for_nothing_else() {
    let desired = wish(&[(A, peer(&["10.9.0.2/32"]))]);
    let mut observed = fulfilled(&Desired { tunnels: LiteMap::new(), ..desired.clone() });
    observed.routes.retain(|route| route.kind == RouteKind::Throw);
    observed.sysctls.remove(&sysctl("net/ipv4/conf/gw-home/forwarding"));
    observed.links.insert(home(), Link { index: 3, kind: LinkKind::Other, up: false, mtu: 1500 });
    assert_eq!(steps(&observed, &desired), ["add interface gw-home, MTU 1420"]);
    let gone = Desired { tunnels: LiteMap::new(), gone: [home()].into_iter().collect(), ..desired };
    assert!(!steps(&observed, &gone).iter().any(|step| step.contains("interface")));
}

#[test]
fn a_dead_userspace_interface_is_made_anew_before_anything_is_done_on_it() {
    let desired = wish(&[(A, peer(&["10.9.0.2/32"]))]);
    let mut observed = fulfilled(&desired);
    observed.links.insert(home(), Link { index: 9, kind: LinkKind::Tun, up: true, mtu: 1420 });
    assert!(steps(&observed, &desired).is_empty(), "it lives");
    observed.devices.clear();
    observed.addresses.clear();
    observed.routes.clear();
    let expected = ["add interface gw-home, MTU 1420", "add route throw 10.1.0.0/16 table 26487 metric 512"];
    assert_eq!(steps(&observed, &desired), expected);
}

#[test]
fn a_route_changes_in_place() {
    let old = wish(&[]);
    let mut new = old.clone();
    new.routes = old.routes.iter().map(|route| Route { kind: RouteKind::Throw, ..route.clone() }).collect();
    let expected = [
        "change route to throw 10.9.0.0/24 table 26487 metric 512",
        "change route to throw 10.0.0.0/8 table 26487 metric 512",
    ];
    assert_eq!(steps(&fulfilled(&old), &new), expected);
}

#[test]
fn of_several_routes_in_one_place_one_is_left_before_it_changes() {
    let desired = Desired {
        routes: [route("10.9.0.0/24", RouteKind::Throw)].into_iter().collect(),
        ..Desired::default()
    };
    let device = |name| route("10.9.0.0/24", RouteKind::Device(IfName::new(name).unwrap()));
    let observed =
        Observed { routes: [device("gw-a"), device("gw-b")].into_iter().collect(), ..Observed::default() };
    let expected = [
        "delete route 10.9.0.0/24 dev gw-b table 26487 metric 512",
        "change route to throw 10.9.0.0/24 table 26487 metric 512",
    ];
    assert_eq!(steps(&observed, &desired), expected);
}

#[test]
fn what_others_put_on_our_interface_stays() {
    let desired = wish(&[]);
    let mut observed = fulfilled(&desired);
    let address = |addr: &str, len| Address { link: home(), addr: addr.parse().unwrap(), len };
    observed.addresses.extend([address("10.77.0.1", 24), address("fe80::1", 64)]);
    assert!(steps(&observed, &desired).is_empty());
    // Our address was deleted, and another program has set it with another prefix length: it counts as present.
    (observed.addresses, observed.our_addresses) =
        ([address("10.9.0.1", 24)].into_iter().collect(), SortedSet::new());
    assert!(steps(&observed, &desired).is_empty());
}

#[test]
fn only_what_is_ours_by_name_and_kind_is_deleted() {
    let link = |kind| Link { index: 1, kind, up: true, mtu: 1420 };
    let names = ["gw-home", "gw-tun", "gw-bridge", "wg0"].map(|name| IfName::new(name).unwrap());
    let kinds = [LinkKind::WireGuard, LinkKind::Tun, LinkKind::Other, LinkKind::WireGuard];
    let links = names.iter().cloned().zip(kinds.map(link)).collect();
    let observed = Observed { links, ..Observed::default() };
    let desired = Desired { gone: names.into_iter().collect(), ..Desired::default() };
    assert_eq!(steps(&observed, &desired), ["delete interface gw-home", "delete interface gw-tun"]);
}

#[test]
fn a_preshared_key_is_one_message_and_never_told() {
    let with = |psk: Option<u8>| {
        let psk = psk.map(|n| PresharedKey([n; 32]));
        [(A, WgPeer { psk, endpoint: None, keepalive: 0, ..peer(&["10.9.0.2/32"]) })]
    };
    assert_eq!(peers(&[], &with(Some(0xab))), ["gw-home: add peer AAAAAAAA… 10.9.0.2/32, preshared key"]);
    for (old, new) in [(None, Some(1)), (Some(1), Some(2))] {
        assert_eq!(peers(&with(old), &with(new)), ["gw-home: set peer AAAAAAAA… another preshared key"]);
    }
    assert_eq!(peers(&with(Some(1)), &with(None)), ["gw-home: set peer AAAAAAAA… no preshared key"]);
    assert!(peers(&with(Some(1)), &with(Some(1))).is_empty());
    let debug = format!("{:?}", Plan::new(&fulfilled(&wish(&[])), &wish(&with(Some(0xab)))));
    assert!(!debug.contains("171"), "{debug}");
}

fn prefixes(texts: &[&str]) -> SortedSet<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// One network with clients at .10 (open to others, Internet) and .11, which leads to 192.168.2.0/24 elsewhere and
/// serves 192.168.1.0/24 here.
fn gateway() -> NetworkPolicy {
    let guard = Guard {
        egress: [("192.168.1.0/24".parse().unwrap(), true)].into_iter().collect(),
        closed: prefixes(&["10.9.1.11/32"]),
        internet: prefixes(&["10.9.1.10/32"]),
        ..Guard::default()
    };
    NetworkPolicy {
        guard,
        own: prefixes(&["10.9.0.1/32"]),
        blocks: vec!["10.9.1.0/24".parse().unwrap()],
        clients: prefixes(&["10.9.1.10/32", "10.9.1.11/32"]),
    }
}

fn flows(policy: NetworkPolicy) -> Flows {
    let route = |prefix: &str, kind| Route { table: 1, prefix: prefix.parse().unwrap(), metric: 1, kind };
    let into = |prefix| route(prefix, RouteKind::Device(home()));
    let throw = route("192.168.2.128/25", RouteKind::Throw);
    Flows::new(
        [(home(), policy)].into_iter().collect(),
        &[into("10.9.0.0/16"), into("192.168.2.0/24"), throw].into_iter().collect(),
    )
}

/// True if the connection between two hosts is cut.
fn cut(now: &Flows, before: Option<&Flows>, src: &str, dst: &str) -> bool {
    let flow = Flow::plain(src.parse().unwrap(), dst.parse().unwrap(), 6, 80);
    now.check(before).verdict(&flow) != FlowVerdict::Keep
}

#[test]
fn connection_of_a_removed_client_is_cut_and_no_other() {
    let now = flows(gateway());
    let cases = [
        ("10.9.1.10", "10.9.0.7", false),
        ("10.9.1.10", "192.0.2.1", false),
        ("10.9.1.11", "192.168.1.5", false),
        ("10.9.1.11", "192.168.2.5", false),
        ("10.9.0.7", "10.9.1.10", false),
        // No client has this address any more.
        ("10.9.1.99", "192.0.2.1", true),
        ("192.168.1.5", "10.9.1.99", true),
        // A closed client; this router itself may reach it.
        ("10.9.0.7", "10.9.1.11", true),
        ("10.9.1.10", "10.9.1.11", true),
        ("10.9.0.1", "10.9.1.11", false),
        // A client without a full tunnel.
        ("10.9.1.11", "192.0.2.1", true),
        // Traffic of no network.
        ("192.168.1.5", "192.0.2.1", false),
        ("192.168.2.200", "192.0.2.1", false),
    ];
    for (src, dst, expected) in cases {
        assert_eq!(cut(&now, None, src, dst), expected, "{src} → {dst}");
    }
}

#[test]
fn ten_thousand_connections_are_checked_in_a_moment() {
    let set = |n: u32| (0..4).map(|i| format!("10.9.{}.{}/32", n % 250, i).parse().unwrap()).collect();
    let rule = |n: u32| AccessRule {
        verdict: if n.is_multiple_of(2) { Verdict::Deny } else { Verdict::Allow },
        from: n % 300,
        to: n * 7 % 300,
        services: vec!["tcp/443".parse().unwrap()],
    };
    let access = Access {
        default: Verdict::Deny,
        sets: (0..300).map(set).collect(),
        rules: (0..1000).map(rule).collect(),
    };
    let guard = Guard { access, ..Guard::default() };
    let now = flows(NetworkPolicy { guard, ..NetworkPolicy::default() });
    let flow = |n: u32| {
        let src = [10, 9, (n % 7) as u8, (n % 5) as u8].into();
        let dst = [10, 9, (n / 7 % 200) as u8, (n % 3) as u8].into();
        Flow::plain(src, dst, 6, if n.is_multiple_of(2) { 443 } else { 80 })
    };
    let start = std::time::Instant::now();
    let mut check = now.check(None);
    let count = (0..10_000).filter(|n| check.verdict(&flow(*n)) != FlowVerdict::Keep).count();
    println!("10,000 connections checked against 1,000 rules in {:?}: {count} forbidden", start.elapsed());
    assert!((5_000..10_000).contains(&count));
}

#[test]
fn removed_client_outside_the_blocks_is_known_from_the_policy_before() {
    let before = flows(gateway());
    let mut policy = gateway();
    policy.clients.remove_item(&"10.9.1.10/32".parse::<Prefix>().unwrap());
    policy.blocks.clear();
    let now = flows(policy);
    assert!(cut(&now, Some(&before), "10.9.1.10", "192.0.2.1"));
    assert!(!cut(&now, None, "10.9.1.10", "192.0.2.1"));
    // The client never had a full tunnel, so its connections to this router's other addresses are not affected.
    assert!(!cut(&now, Some(&before), "10.9.1.11", "192.168.7.1"));
}

#[test]
fn connections_are_checked_only_after_a_change_that_can_forbid_some() {
    let mut wish = wish(&[]);
    let mut observed = fulfilled(&wish);
    observed.flows = None;
    assert!(steps(&observed, &wish).is_empty(), "nothing is forbidden");
    wish.flows = Some(Arc::new(flows(gateway())));
    let end = "end the connections that are forbidden now";
    assert_eq!(steps(&observed, &wish), [end]);
    observed.flows = wish.flows.clone();
    assert!(steps(&observed, &wish).is_empty());
    // Another program deleted our table: connections that began meanwhile met no rule.
    observed.ruleset = None;
    assert_eq!(steps(&observed, &wish), ["write firewall table", end]);
    let mut open = fulfilled(&wish);
    wish.flows = Some(Arc::default());
    assert_eq!(steps(&open, &wish), [end], "who was let in may be gone");
    open.flows = wish.flows.clone();
    assert!(steps(&open, &wish).is_empty());
}

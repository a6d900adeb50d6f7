//! Every kind of step, executed once and twice, and then all reverted.

use crate::bed::{LINK, assert_same, base_chain, dump, in_namespace, key, link, peer, settings};
use gatewrt::{
    model::{
        Address, ChainType, Family, FirewallRule, FirewallTable, ForeignRoute, Hook, Interfaces, Match,
        NO_PSK, Observed, Op, Route, RouteKind, Rule, Statement, SysctlPath,
    },
    plan::{PeerChange, PeerUpdate, Step, TableUpdate},
};
use gatewrt_protocol::PresharedKey;
use std::sync::Arc;

const FORWARDING: &str = "net/ipv4/conf/v0/forwarding";

/// Table that clamps TCP segments.
fn clamping() -> FirewallTable {
    let from_tunnel = Match::Iif(Op::Is, Interfaces::One(link()));
    let clamp = FirewallRule::new(vec![from_tunnel, Match::TcpSyn], Statement::ClampMss);
    let forward = base_chain("forward", ChainType::Filter, Hook::Forward, vec![clamp]);
    FirewallTable { sets: Vec::new(), chains: vec![forward] }
}

type Check = fn(&Observed) -> bool;

#[test]
fn every_step_is_effective_and_idempotent() {
    in_namespace(|bed| {
        crate::bed::sh("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up");
        crate::bed::sh("ip addr add 192.168.7.1/24 dev v0; ip route add default via 192.168.7.2");
        // The kernel adds link-local addresses by itself, a moment later.
        crate::bed::eventually("link-local addresses", || {
            crate::bed::sh("ip -6 addr show scope link").matches("fe80").count() == 2
                && !crate::bed::sh("ip -6 addr").contains("tentative")
        });
        let before = dump();
        for (step, check) in forth() {
            do_and_check(bed, step, check);
        }
        // A new daemon observes the same.
        let seen = without_counters(bed.observe_with(&[FORWARDING]));
        bed.restart();
        assert_eq!(without_counters(bed.observe_with(&[FORWARDING])), seen);
        for (step, check) in back() {
            do_and_check(bed, step, check);
        }
        assert_same(&before, &dump());
        crate::bed::eventually("all processes end", || crate::bed::inhabitants().is_empty());
    });
}

fn do_and_check(bed: &mut crate::bed::Bed, step: Step, check: Check) {
    assert!(!check(&bed.observe_with(&[FORWARDING])), "already so before {step:?}");
    bed.run(step.clone());
    let once = without_counters(bed.observe_with(&[FORWARDING]));
    assert!(check(&once), "after {step:?}: {once:#?}");
    bed.run(step.clone());
    let twice = without_counters(bed.observe_with(&[FORWARDING]));
    assert_eq!(once, twice, "twice {step:?}");
}

fn without_counters(mut observed: Observed) -> Observed {
    observed.devices.iter_mut().for_each(|(_, device)| device.counters.clear());
    observed
}

fn forth() -> Vec<(Step, Check)> {
    let mut list: Vec<(Step, Check)> = vec![
        (Step::AddTunnel { link: link(), mtu: 1400 }, |o| {
            o.links.get(&link()).is_some_and(|l| l.mtu == 1400)
        }),
        (Step::SetDevice(link(), settings()), |o| {
            o.devices.get(&link()).is_some_and(|d| d.settings == Some(settings()))
        }),
        (Step::SetMtu(link(), 1380), |o| o.links.get(&link()).is_some_and(|l| l.mtu == 1380)),
        (Step::SetUp(link()), |o| o.links.get(&link()).is_some_and(|l| l.up)),
    ];
    list.extend(peers());
    list.extend(addresses_and_routes());
    let write = Step::WriteRuleset(TableUpdate::new(None, Arc::new(clamping())));
    list.push((write, |o| o.ruleset == Some(clamping().into())));
    let path = SysctlPath(FORWARDING.into());
    list.push((Step::SetSysctl(path, "1".into()), |o| {
        o.sysctls.values().eq(["1"]) && o.saved_sysctls.len() == 1
    }));
    list
}

fn peers() -> Vec<(Step, Check)> {
    let set = |changes: Vec<(u32, PeerChange)>| {
        Step::SetPeers(link(), changes.into_iter().map(|(k, change)| (key(k), change)).collect())
    };
    let update = |update| PeerChange::Update(update);
    let prefixes = |list: &[&str]| peer(None, list, 0).allowed;
    vec![
        (set(vec![(1, PeerChange::Add(first()))]), |o| peers_are(o, &[(1, first())])),
        (set(vec![(2, PeerChange::Add(second()))]), |o| peers_are(o, &[(1, first()), (2, second())])),
        (
            set(vec![(
                1,
                update(PeerUpdate { endpoint: "192.168.7.9:9".parse().ok(), ..Default::default() }),
            )]),
            |o| {
                peers_are(
                    o,
                    &[(1, peer(Some("192.168.7.9:9"), &["10.1.0.0/16", "10.9.0.0/16"], 25)), (2, second())],
                )
            },
        ),
        (set(vec![(1, update(PeerUpdate { keepalive: Some(0), ..Default::default() }))]), |o| {
            peers_are(
                o,
                &[(1, peer(Some("192.168.7.9:9"), &["10.1.0.0/16", "10.9.0.0/16"], 0)), (2, second())],
            )
        }),
        // A preshared key is set, changed and removed.
        (set(vec![(2, update(PeerUpdate { psk: psk(1), ..Default::default() }))]), |o| {
            psk_of(o, 2) == psk(1)
        }),
        (set(vec![(2, update(PeerUpdate { psk: psk(2), ..Default::default() }))]), |o| {
            psk_of(o, 2) == psk(2)
        }),
        (set(vec![(2, update(PeerUpdate { psk: Some(NO_PSK), ..Default::default() }))]), |o| {
            psk_of(o, 2).is_none()
        }),
        // A prefix moves to a peer from another, which the step does not name.
        (
            set(vec![(2, update(PeerUpdate { gains: prefixes(&["10.9.0.0/16"]), ..Default::default() }))]),
            |o| {
                let two = peer(Some("[fd00::2]:9"), &["10.2.0.0/16", "10.9.0.0/16", "fd00:2::/32"], 0);
                peers_are(o, &[(1, peer(Some("192.168.7.9:9"), &["10.1.0.0/16"], 0)), (2, two)])
            },
        ),
        (
            set(vec![(
                2,
                update(PeerUpdate { allowed: Some(prefixes(&["fd00:2::/32"])), ..Default::default() }),
            )]),
            |o| {
                let two = peer(Some("[fd00::2]:9"), &["fd00:2::/32"], 0);
                peers_are(o, &[(1, peer(Some("192.168.7.9:9"), &["10.1.0.0/16"], 0)), (2, two)])
            },
        ),
        // One message removes a peer, gives its prefix to a new peer, and has two changes of a third.
        (
            set(vec![
                (3, PeerChange::Add(peer(None, &["10.1.0.0/16"], 0))),
                (2, update(PeerUpdate { gains: prefixes(&["10.3.0.0/16"]), ..Default::default() })),
                (1, PeerChange::Remove),
                (2, update(PeerUpdate { allowed: Some(prefixes(&["10.3.0.0/16"])), ..Default::default() })),
            ]),
            |o| {
                let two = peer(Some("[fd00::2]:9"), &["10.3.0.0/16"], 0);
                peers_are(o, &[(2, two), (3, peer(None, &["10.1.0.0/16"], 0))])
            },
        ),
    ]
}

fn first() -> gatewrt::model::WgPeer {
    peer(Some("192.168.7.2:51820"), &["10.1.0.0/16", "10.9.0.0/16"], 25)
}

fn second() -> gatewrt::model::WgPeer {
    peer(Some("[fd00::2]:9"), &["10.2.0.0/16", "fd00:2::/32"], 0)
}

fn psk(number: u8) -> Option<PresharedKey> {
    Some(PresharedKey([number; 32]))
}

fn psk_of(observed: &Observed, number: u32) -> Option<PresharedKey> {
    observed.devices[&link()].peers[&key(number)].psk
}

fn peers_are(observed: &Observed, expected: &[(u32, gatewrt::model::WgPeer)]) -> bool {
    let expected = expected.iter().map(|(number, peer)| (key(*number), peer.clone())).collect();
    observed.devices.get(&link()).is_some_and(|device| device.peers == expected)
}

fn address(addr: &str) -> Address {
    let addr: std::net::IpAddr = addr.parse().expect("valid");
    Address { link: link(), addr, len: if addr.is_ipv4() { 32 } else { 128 } }
}

fn route(prefix: &str, kind: RouteKind) -> Route {
    Route { table: 26487, prefix: prefix.parse().expect("valid"), metric: 512, kind }
}

fn device() -> RouteKind {
    RouteKind::Device(link())
}

fn rule(family: Family) -> Rule {
    Rule {
        family,
        priority: 900,
        mark: 0x0100_0000,
        mask: 0x0f00_0000,
        invert: true,
        table: 26487,
        iif: None,
        from: None,
    }
}

fn addresses_and_routes() -> Vec<(Step, Check)> {
    vec![
        (Step::AddAddress(address("100.64.0.1")), |o| o.our_addresses.contains(&address("100.64.0.1"))),
        (Step::AddAddress(address("fd77::1")), |o| o.our_addresses.contains(&address("fd77::1"))),
        (Step::AddRoute(route("10.1.0.0/16", device())), |o| {
            o.routes.contains(&route("10.1.0.0/16", device()))
        }),
        (Step::AddRoute(route("fd00:2::/32", device())), |o| {
            o.routes.contains(&route("fd00:2::/32", device()))
        }),
        (Step::AddRoute(route("0.0.0.0/0", device())), |o| o.routes.contains(&route("0.0.0.0/0", device()))),
        (Step::AddRoute(route("::/0", device())), |o| o.routes.contains(&route("::/0", device()))),
        (Step::AddRoute(route("10.1.2.0/24", RouteKind::Throw)), |o| {
            o.routes.contains(&route("10.1.2.0/24", RouteKind::Throw))
        }),
        (Step::AddRoute(route("fd00:2:3::/48", RouteKind::Throw)), |o| {
            o.routes.contains(&route("fd00:2:3::/48", RouteKind::Throw))
        }),
        (Step::ReplaceRoute(route("10.1.0.0/16", RouteKind::Throw)), |o| {
            o.routes.contains(&route("10.1.0.0/16", RouteKind::Throw)) && o.routes.len() == 6
        }),
        (Step::ReplaceRoute(route("fd00:2::/32", RouteKind::Throw)), |o| {
            o.routes.contains(&route("fd00:2::/32", RouteKind::Throw)) && o.routes.len() == 6
        }),
        (Step::ReplaceRoute(route("fd00:2::/32", device())), |o| {
            o.routes.contains(&route("fd00:2::/32", device())) && o.routes.len() == 6
        }),
        (Step::AddRule(rule(Family::V4)), |o| o.rules.contains(&rule(Family::V4))),
        (Step::AddRule(rule(Family::V6)), |o| {
            // The main table has foreign routes alone, and none that the kernel added for our interface.
            let lan: ForeignRoute = ForeignRoute {
                prefix: "192.168.7.0/24".parse().expect("valid"),
                link: gatewrt::model::IfName::new("v0"),
                on_link: true,
            };
            let v4 = o.main_routes.iter().filter(|r| r.prefix.is_ipv4()).count();
            let ours = o.main_routes.iter().any(|r| r.link.as_ref().is_some_and(|l| l.as_str() == LINK));
            o.rules.len() == 2 && o.main_routes.contains(&lan) && v4 == 2 && !ours
        }),
    ]
}

fn back() -> Vec<(Step, Check)> {
    let mut list: Vec<(Step, Check)> = vec![
        (Step::RestoreSysctl(SysctlPath(FORWARDING.into())), |o| {
            o.sysctls.values().eq(["0"]) && o.saved_sysctls.is_empty()
        }),
        (Step::DeleteRuleset, |o| o.ruleset.is_none()),
        (Step::DeleteRule(rule(Family::V4)), |o| o.rules.len() == 1),
        (Step::DeleteRule(rule(Family::V6)), |o| o.rules.is_empty()),
        (Step::DeleteRoute(route("10.1.0.0/16", RouteKind::Throw)), |o| o.routes.len() == 5),
        (Step::DeleteRoute(route("fd00:2::/32", device())), |o| o.routes.len() == 4),
        (Step::DeleteRoute(route("fd00:2:3::/48", RouteKind::Throw)), |o| o.routes.len() == 3),
        (Step::DeleteRoute(route("10.1.2.0/24", RouteKind::Throw)), |o| o.routes.len() == 2),
        (Step::DeleteRoute(route("0.0.0.0/0", device())), |o| o.routes.len() == 1),
        (Step::DeleteRoute(route("::/0", device())), |o| o.routes.is_empty()),
        (Step::DeleteAddress(address("100.64.0.1")), |o| o.our_addresses.len() == 1),
        (Step::DeleteAddress(address("fd77::1")), |o| o.our_addresses.is_empty()),
    ];
    list.push((Step::DeleteTunnel(link()), |o| !o.links.contains_key(&link()) && o.devices.is_empty()));
    list
}

use super::*;
use crate::model::{Route, RouteKind};
use sorted_vec::SortedSet;

const LAN: &str = "192.168.1.5";
const LAN6: &str = "fd20::5";
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8::7";
/// Addresses of this router on the WAN and in the network.
const WAN: &str = "203.0.113.1";
const OURS: &str = "10.9.0.1";
const ASIDE: u32 = 0x0f00_0000;

fn prefixes(texts: &[&str]) -> SortedSet<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn exit(key: u8) -> Option<(IfName, WgPublicKey)> {
    Some((home(), WgPublicKey([key; 32])))
}

fn home() -> IfName {
    IfName::new("gw-home").unwrap()
}

/// Scope of a LAN whose traffic leaves by these exits.
fn lan(v4: Option<(IfName, WgPublicKey)>, v6: Option<(IfName, WgPublicKey)>) -> ScopeFlows {
    ScopeFlows {
        sources: prefixes(&["192.168.1.0/24", "fd20::/64"]),
        apart: prefixes(&["192.168.0.0/16", "fd20::/16", "10.9.0.0/16", "198.51.100.128/25"]),
        v4,
        v6,
        closed: Family::ALL.into_iter().collect(),
        ..ScopeFlows::default()
    }
}

fn flows(scopes: Vec<ScopeFlows>) -> Flows {
    let route = Route {
        table: 1,
        prefix: "10.9.0.0/16".parse().unwrap(),
        metric: 1,
        kind: RouteKind::Device(home()),
    };
    let policy = NetworkPolicy { own: prefixes(&["10.9.0.1/32"]), ..NetworkPolicy::default() };
    Flows::new([(home(), policy)].into_iter().collect(), &[route].into_iter().collect())
        .with_scopes(scopes, ASIDE)
}

/// Connection that the other end sees from another address.
fn flow(src: &str, dst: &str, seen: &str) -> Flow {
    Flow { seen: seen.parse().unwrap(), ..Flow::plain(src.parse().unwrap(), dst.parse().unwrap(), 17, 443) }
}

#[track_caller]
fn assert_cut(now: &Flows, before: Option<&Flows>, flow: &Flow, expected: bool) {
    assert_eq!(now.check(before).verdict(flow) != FlowVerdict::Keep, expected, "{flow:?}");
}

#[test]
fn connection_with_another_way_now_is_cut_and_no_other() {
    let (none, first, second) =
        (flows(vec![]), flows(vec![lan(exit(1), None)]), flows(vec![lan(exit(2), None)]));
    let dead = flows(vec![lan(None, None)]);
    let through = flow(LAN, FAR, OURS);
    for (before, now, cut) in [
        (&first, &first, false),
        (&first, &second, true),
        (&first, &dead, true),
        (&first, &none, true),
        (&none, &none, false),
    ] {
        assert_cut(now, Some(before), &through, cut);
    }
    for now in [&none, &first, &second, &dead] {
        for (src, dst, seen) in [
            (LAN, "192.168.7.1", LAN),
            (LAN, "10.9.0.7", LAN),
            (LAN, "198.51.100.200", WAN),
            ("192.168.2.5", FAR, WAN),
            (FAR, LAN, FAR),
            ("10.9.0.7", LAN, "10.9.0.7"),
        ] {
            assert_cut(now, Some(&first), &flow(src, dst, seen), false);
        }
    }
}

#[test]
fn connection_over_the_wan_is_cut_when_its_scope_begins() {
    let now = flows(vec![lan(exit(1), None)]);
    for before in [None, Some(&flows(vec![])), Some(&now)] {
        assert_cut(&now, before, &flow(LAN, FAR, WAN), true);
    }
    // A restarted daemon keeps a connection that takes the right way.
    assert_cut(&now, None, &flow(LAN, FAR, OURS), false);
}

/// Only a connection that left by the WAN gets late answers there.
#[test]
fn connection_over_the_wan_is_rerouted_and_one_by_a_tunnel_forbidden() {
    let (none, first) = (flows(vec![]), flows(vec![lan(exit(1), None)]));
    let (second, dead) = (flows(vec![lan(exit(2), None)]), flows(vec![lan(None, None)]));
    for (before, now, seen, verdict) in [
        (&none, &first, WAN, FlowVerdict::Rerouted),
        (&none, &dead, WAN, FlowVerdict::Rerouted),
        (&first, &second, OURS, FlowVerdict::Forbidden),
        (&first, &dead, OURS, FlowVerdict::Forbidden),
        (&first, &none, OURS, FlowVerdict::Forbidden),
    ] {
        assert_eq!(now.check(Some(before)).verdict(&flow(LAN, FAR, seen)), verdict);
    }
}

#[test]
fn connection_from_outside_or_with_bypass_mark_is_kept() {
    let router = ScopeFlows { sources: prefixes(&["203.0.113.1/32"]), router: true, ..lan(None, None) };
    let now = flows(vec![lan(None, None), router]);
    for mark in [0x0100_0000, 0x0300_0000, 0x0300_00ff] {
        assert_cut(&now, None, &Flow { mark, ..flow(WAN, FAR, WAN) }, false);
        assert_cut(&now, None, &Flow { mark, ..flow(FAR, WAN, FAR) }, false);
        // A LAN host is never outside, even if its link was taken for an uplink at first.
        assert_cut(&now, None, &Flow { mark, ..flow(LAN, FAR, WAN) }, true);
    }
    assert_cut(&now, None, &Flow { mark: 0xff, ..flow(WAN, FAR, WAN) }, true);
}

#[test]
fn connection_of_the_other_family_is_kept() {
    let (before, now) = (flows(vec![lan(exit(1), exit(1))]), flows(vec![lan(exit(1), None)]));
    assert_cut(&now, Some(&before), &flow(LAN, FAR, OURS), false);
    assert_cut(&now, Some(&before), &flow(LAN6, FAR6, "fd09::1"), true);
    let kept = ScopeFlows { closed: [Family::V4].into_iter().collect(), ..lan(exit(1), None) };
    assert_cut(&flows(vec![kept]), None, &flow(LAN6, FAR6, LAN6), false);
}

#[test]
fn connection_of_two_scopes_follows_the_first() {
    let host = ScopeFlows { sources: prefixes(&["192.168.1.5/32"]), ..lan(exit(1), None) };
    let both = |other| flows(vec![host.clone(), lan(exit(other), None)]);
    assert_cut(&both(3), Some(&both(2)), &flow(LAN, FAR, OURS), false);
    assert_cut(&both(3), Some(&both(2)), &flow("192.168.1.6", FAR, OURS), true);
}

#[test]
fn connection_from_any_router_address_is_of_the_routers_scope() {
    let router =
        |key| ScopeFlows { sources: prefixes(&["203.0.113.1/32"]), router: true, ..lan(exit(key), None) };
    let (before, now) = (flows(vec![router(1)]), flows(vec![router(2)]));
    assert_cut(&now, Some(&before), &flow(OURS, FAR, OURS), true);
    assert_cut(&now, Some(&before), &flow(WAN, FAR, WAN), true);
    assert_cut(&now, Some(&now), &flow(OURS, FAR, OURS), false);
}

#[test]
fn query_to_another_resolver_is_cut() {
    let resolvers = vec!["9.9.9.9".parse().unwrap()];
    let now = flows(vec![ScopeFlows { resolvers, ..lan(exit(1), None) }]);
    let query = |answers: &str| Flow {
        port: 53,
        answers: answers.parse().unwrap(),
        ..flow(LAN, "192.168.1.1", OURS)
    };
    assert_cut(&now, None, &query("9.9.9.9"), false);
    assert_cut(&now, None, &query("192.168.1.1"), true);
    assert_cut(&now, None, &query("1.1.1.1"), true);
    assert_cut(&now, None, &Flow { proto: 6, ..query("1.1.1.1") }, true);
    assert_cut(&now, None, &Flow { port: 80, ..query("192.168.1.1") }, false);
}

#[test]
fn internet_connection_is_cut_when_the_exit_role_ends() {
    let exit = |internet: &[&str]| {
        let mut flows = flows(vec![]);
        for (_, policy) in flows.policies.iter_mut() {
            policy.guard.internet = prefixes(internet);
        }
        flows
    };
    let (on, off) = (exit(&["10.9.0.0/16"]), exit(&[]));
    assert!(!off.is_open(Some(&on)) && !on.is_open(None) && off.is_open(Some(&off)));
    assert_cut(&on, Some(&on), &flow("10.9.0.7", FAR, WAN), false);
    assert_cut(&off, Some(&on), &flow("10.9.0.7", FAR, WAN), true);
    assert_cut(&off, Some(&on), &flow("10.9.0.7", "10.9.0.8", "10.9.0.7"), false);
}

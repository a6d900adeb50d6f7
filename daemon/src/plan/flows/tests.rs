use super::*;

const LAN: &str = "192.168.1.5";
const LAN6: &str = "fd20::5";
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8::7";
/// What the WAN and the network know this router as.
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

/// A LAN whose traffic leaves through these exits, with one host that has a scope of its own.
fn lan(v4: Option<(IfName, WgPublicKey)>, v6: Option<(IfName, WgPublicKey)>) -> ScopeFlows {
    ScopeFlows {
        sources: prefixes(&["192.168.1.0/24", "fd20::/64"]),
        apart: prefixes(&["192.168.0.0/16", "fd20::/16", "10.9.0.0/16", "198.51.100.128/25"]),
        v4,
        v6,
        closed: Family::ALL.into(),
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
    let realm = Realm { own: prefixes(&["10.9.0.1/32"]), ..Realm::default() };
    Flows::new([(home(), realm)].into(), &[route].into()).with_scopes(scopes, ASIDE)
}

/// A connection that is seen over there as another.
fn flow(src: &str, dst: &str, seen: &str) -> Flow {
    Flow { seen: seen.parse().unwrap(), ..Flow::plain(src.parse().unwrap(), dst.parse().unwrap(), 17, 443) }
}

#[track_caller]
fn assert_cut(now: &Flows, before: Option<&Flows>, flow: &Flow, expected: bool) {
    assert_eq!(now.judge(before).fate(flow) != Fate::Stands, expected, "{flow:?}");
}

#[test]
fn what_goes_another_way_now_is_cut_and_nothing_else() {
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
fn what_left_over_the_wan_is_cut_when_its_scope_begins_whatever_is_known_of_before() {
    let now = flows(vec![lan(exit(1), None)]);
    for before in [None, Some(&flows(vec![])), Some(&now)] {
        assert_cut(&now, before, &flow(LAN, FAR, WAN), true);
    }
    // A daemon that starts anew leaves alone what goes the right way.
    assert_cut(&now, None, &flow(LAN, FAR, OURS), false);
}

/// Only who leaves by the WAN is answered there.
#[test]
fn late_answers_are_expected_of_what_left_over_the_wan() {
    let (none, first) = (flows(vec![]), flows(vec![lan(exit(1), None)]));
    let (second, dead) = (flows(vec![lan(exit(2), None)]), flows(vec![lan(None, None)]));
    for (before, now, seen, fate) in [
        (&none, &first, WAN, Fate::Elsewhere),
        (&none, &dead, WAN, Fate::Elsewhere),
        (&first, &second, OURS, Fate::Forbidden),
        (&first, &dead, OURS, Fate::Forbidden),
        (&first, &none, OURS, Fate::Forbidden),
    ] {
        assert_eq!(now.judge(Some(before)).fate(&flow(LAN, FAR, seen)), fate);
    }
}

#[test]
fn what_came_in_from_outside_or_bypasses_stays() {
    let router = ScopeFlows { sources: prefixes(&["203.0.113.1/32"]), router: true, ..lan(None, None) };
    let now = flows(vec![lan(None, None), router]);
    for mark in [0x0100_0000, 0x0300_0000, 0x0300_00ff] {
        assert_cut(&now, None, &Flow { mark, ..flow(WAN, FAR, WAN) }, false);
        assert_cut(&now, None, &Flow { mark, ..flow(FAR, WAN, FAR) }, false);
        // No LAN host comes from outside, whatever its link was taken for at first.
        assert_cut(&now, None, &Flow { mark, ..flow(LAN, FAR, WAN) }, true);
    }
    assert_cut(&now, None, &Flow { mark: 0xff, ..flow(WAN, FAR, WAN) }, true);
}

#[test]
fn families_are_apart() {
    let (before, now) = (flows(vec![lan(exit(1), exit(1))]), flows(vec![lan(exit(1), None)]));
    assert_cut(&now, Some(&before), &flow(LAN, FAR, OURS), false);
    assert_cut(&now, Some(&before), &flow(LAN6, FAR6, "fd09::1"), true);
    let kept = ScopeFlows { closed: [Family::V4].into(), ..lan(exit(1), None) };
    assert_cut(&flows(vec![kept]), None, &flow(LAN6, FAR6, LAN6), false);
}

#[test]
fn the_first_scope_decides() {
    let host = ScopeFlows { sources: prefixes(&["192.168.1.5/32"]), ..lan(exit(1), None) };
    let both = |other| flows(vec![host.clone(), lan(exit(other), None)]);
    assert_cut(&both(3), Some(&both(2)), &flow(LAN, FAR, OURS), false);
    assert_cut(&both(3), Some(&both(2)), &flow("192.168.1.6", FAR, OURS), true);
}

#[test]
fn the_routers_own_are_known_by_its_addresses() {
    let router =
        |key| ScopeFlows { sources: prefixes(&["203.0.113.1/32"]), router: true, ..lan(exit(key), None) };
    let (before, now) = (flows(vec![router(1)]), flows(vec![router(2)]));
    assert_cut(&now, Some(&before), &flow(OURS, FAR, OURS), true);
    assert_cut(&now, Some(&before), &flow(WAN, FAR, WAN), true);
    assert_cut(&now, Some(&now), &flow(OURS, FAR, OURS), false);
}

#[test]
fn queries_to_another_resolver_are_cut() {
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
fn when_no_one_is_let_out_any_more_what_left_is_cut() {
    let exit = |internet: &[&str]| {
        let mut flows = flows(vec![]);
        for realm in flows.realms.values_mut() {
            realm.guard.internet = prefixes(internet);
        }
        flows
    };
    let (on, off) = (exit(&["10.9.0.0/16"]), exit(&[]));
    assert!(!off.is_open(Some(&on)) && !on.is_open(None) && off.is_open(Some(&off)));
    assert_cut(&on, Some(&on), &flow("10.9.0.7", FAR, WAN), false);
    assert_cut(&off, Some(&on), &flow("10.9.0.7", FAR, WAN), true);
    assert_cut(&off, Some(&on), &flow("10.9.0.7", "10.9.0.8", "10.9.0.7"), false);
}

//! Addresses, routes and rules among foreign ones.

use crate::bed::{in_namespace, sh};
use gatewrt::{
    kernel::{Kernel, KernelError},
    model::{Address, Family, ForeignRoute, ForeignRule, IfName, Route, RouteKind, Rule},
    plan::Step,
};

fn setup() {
    sh("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
        ip addr add 192.168.7.1/24 dev v0; ip -6 addr add fd01::1/64 dev v0 nodad");
}

fn on_v0() -> RouteKind {
    RouteKind::Device(IfName::new("v0").expect("valid"))
}

fn route(prefix: &str, metric: u32, kind: RouteKind) -> Route {
    Route { table: 26487, prefix: prefix.parse().expect("valid"), metric, kind }
}

fn both(metric: u32, kind: RouteKind) -> [Route; 2] {
    ["10.1.0.0/16", "fd00:1::/32"].map(|prefix| route(prefix, metric, kind.clone()))
}

fn table() -> String {
    sh(
        "ip -N route show table 26487 2>/dev/null || true; ip -N -6 route show table 26487 2>/dev/null || true",
    )
}

fn conflict(error: KernelError, says: &str) {
    assert!(matches!(&error, KernelError::Conflict(what) if what.contains(says)), "{error:?}");
}

#[test]
fn foreign_routes_that_look_alike_are_never_touched() {
    in_namespace(|bed| {
        setup();
        sh("for d in v0; do
            ip route add 10.1.0.0/16 dev $d table 26487 metric 512 proto 4
            ip -6 route add fd00:1::/32 dev $d table 26487 metric 512 proto 4
            ip route add throw 10.2.0.0/16 table 26487 metric 512 proto 4
            ip -6 route add throw fd00:2::/32 table 26487 metric 512 proto 4
            ip route add 10.1.0.0/16 dev $d table 26487 metric 7 proto 4
            ip -6 route add fd00:1::/32 dev $d table 26487 metric 7 proto 4
        done");
        let before = table();
        for route in both(512, on_v0()) {
            conflict(bed.fail(Step::AddRoute(route.clone())), "protocol 4");
            conflict(bed.fail(Step::ReplaceRoute(route.clone())), "protocol 4");
            conflict(
                bed.fail(Step::ReplaceRoute(Route { kind: RouteKind::Throw, ..route.clone() })),
                "protocol 4",
            );
            bed.run(Step::DeleteRoute(route));
        }
        for prefix in ["10.2.0.0/16", "fd00:2::/32"] {
            bed.run(Step::DeleteRoute(route(prefix, 512, RouteKind::Throw)));
        }
        // A deletion with metric 0 matches every metric in the kernel.
        both(0, on_v0()).into_iter().for_each(|route| bed.run(Step::DeleteRoute(route)));
        assert!(bed.observe().routes.is_empty());
        assert_eq!(table(), before);
        // A route of ours with another metric is added and deleted beside them, and they stay.
        both(600, on_v0()).into_iter().for_each(|route| bed.run(Step::AddRoute(route)));
        assert_eq!(bed.observe().routes, both(600, on_v0()).into_iter().collect());
        both(600, on_v0()).into_iter().for_each(|route| bed.run(Step::DeleteRoute(route)));
        assert_eq!(table(), before);
    });
}

#[test]
fn own_route_with_metric_0_is_deleted_and_its_neighbour_stays() {
    in_namespace(|bed| {
        setup();
        bed.run(Step::AddRoute(route("10.1.0.0/16", 0, on_v0())));
        bed.run(Step::AddRoute(route("10.1.0.0/16", 5, on_v0())));
        bed.run(Step::DeleteRoute(route("10.1.0.0/16", 0, on_v0())));
        bed.run(Step::DeleteRoute(route("10.1.0.0/16", 0, on_v0())));
        assert_eq!(bed.observe().routes, [route("10.1.0.0/16", 5, on_v0())].into_iter().collect());
    });
}

#[test]
fn foreign_rules_that_look_alike_are_never_touched() {
    in_namespace(|bed| {
        sh("for f in -4 -6; do
            ip $f rule add pref 900 not fwmark 0x1000000/0xf000000 table 26487 proto 4
            ip $f rule add pref 900 fwmark 0x2000000/0xf000000 table 26487 proto 4
            ip $f rule add pref 900 from all oif lo table 26487 proto 103
        done");
        let rules = || sh("ip -N rule; ip -N -6 rule");
        let before = rules();
        let rule = |family| Rule {
            family,
            priority: 900,
            mark: 0x0100_0000,
            mask: 0x0f00_0000,
            invert: true,
            table: 26487,
            iif: None,
            from: None,
        };
        for family in Family::ALL {
            bed.run(Step::DeleteRule(rule(family)));
            bed.run(Step::DeleteRule(Rule { mark: 0, mask: 0, invert: false, ..rule(family) }));
        }
        assert_eq!(rules(), before);
        // A rule at our priority that the daemon can't have created is not ours.
        assert!(bed.observe().rules.is_empty());
        for family in Family::ALL {
            match bed.kernel.execute(&Step::AddRule(rule(family))) {
                Ok(()) => bed.run(Step::DeleteRule(rule(family))),
                // Some kernels do not distinguish rules by their protocol.
                Err(error) => conflict(error, "900"),
            }
        }
        assert_eq!(rules(), before);
    });
}

fn rule_of_a_scope(family: Family, iif: Option<&str>, from: Option<&str>) -> Rule {
    Rule {
        family,
        priority: 910,
        mark: 0,
        mask: 0x0f00_0000,
        invert: false,
        table: 26500,
        iif: iif.and_then(IfName::new),
        from: from.map(|prefix| prefix.parse().expect("valid")),
    }
}

#[test]
fn rules_of_one_priority_are_deleted_one_by_one() {
    in_namespace(|bed| {
        let rules = [
            rule_of_a_scope(Family::V4, Some("lo"), None),
            // An interface that does not exist yet.
            rule_of_a_scope(Family::V4, Some("br-lan"), None),
            rule_of_a_scope(Family::V4, None, Some("192.168.7.0/24")),
            rule_of_a_scope(Family::V4, None, Some("192.168.7.9/32")),
            rule_of_a_scope(Family::V6, Some("lo"), None),
            rule_of_a_scope(Family::V6, Some("br-lan"), None),
            rule_of_a_scope(Family::V6, None, Some("fd00:7::/64")),
            Rule {
                priority: 911,
                table: Rule::SKIP | 974,
                ..rule_of_a_scope(Family::V4, Some("br-lan"), None)
            },
            Rule { priority: 974, ..rule_of_a_scope(Family::V4, None, None) },
        ];
        for rule in rules.iter().chain(&rules) {
            bed.run(Step::AddRule(rule.clone()));
        }
        let shown = sh("ip -N rule show pref 910");
        assert!(shown.contains("from all fwmark 0/0xf000000 iif br-lan [detached] lookup 26500"), "{shown}");
        assert!(shown.contains("from 192.168.7.0/24 fwmark 0/0xf000000 lookup 26500"), "{shown}");
        let shown = sh("ip -N rule show pref 911");
        assert!(shown.contains("iif br-lan [detached] goto 974"), "{shown}");
        for gone in 0..rules.len() {
            let observed = bed.observe();
            assert_eq!(observed.rules, rules[gone..].iter().cloned().collect());
            assert!(observed.foreign_rules.is_empty(), "{:?}", observed.foreign_rules);
            bed.run(Step::DeleteRule(rules[gone].clone()));
            bed.run(Step::DeleteRule(rules[gone].clone()));
        }
        assert!(bed.observe().rules.is_empty());
    });
}

#[test]
fn foreign_rules_are_read_without_the_kernels_own() {
    in_namespace(|bed| {
        assert!(bed.observe().foreign_rules.is_empty());
        sh("ip rule add pref 2001 fwmark 0x100/0x3f00 lookup 1 proto 7
            ip rule add pref 2061 fwmark 0x3d00/0x3f00 blackhole proto 7
            ip rule add pref 32764 lookup main suppress_prefixlength 0 proto 7
            ip -6 rule add pref 5270 from fd00::/8 iif lo lookup 52 proto 7
            ip link add v0 type veth peer name v1; ip link set v0 up; ip route add 100.64.0.0/10 dev v0 table 52
            ip rule add pref 32766 lookup main uidrange 7-7 proto 7");
        let rule = Rule { priority: 2001, mark: 0x100, mask: 0x3f00, table: 1, ..plain(Family::V4) };
        let from = Some("fd00::/8".parse().expect("valid"));
        let six = Rule { priority: 5270, table: 52, iif: IfName::new("lo"), from, ..plain(Family::V6) };
        let main = |priority| Rule { priority, table: 254, ..plain(Family::V4) };
        let blackhole = Rule { priority: 2061, mark: 0x3d00, table: 0, ..rule.clone() };
        let foreign = |rule, more, suppress| ForeignRule { rule, more, suppress, protocol: 7 };
        let expected = [
            foreign(rule, false, None),
            foreign(blackhole, true, None),
            foreign(main(32764), false, Some(0)),
            foreign(main(32766), true, None),
            foreign(six, false, None),
        ];
        let observed = bed.observe();
        assert_eq!(observed.foreign_rules, expected.into_iter().collect());
        let route = ForeignRoute {
            prefix: "100.64.0.0/10".parse().expect("valid"),
            link: IfName::new("v0"),
            on_link: true,
        };
        assert_eq!(observed.foreign_routes, [(52, [route].into_iter().collect())].into_iter().collect());
    });
}

fn plain(family: Family) -> Rule {
    Rule { family, priority: 0, mark: 0, mask: 0, invert: false, table: 0, iif: None, from: None }
}

#[test]
fn blackhole_is_added_and_removed_beside_a_default() {
    in_namespace(|bed| {
        setup();
        let each =
            |metric, kind: RouteKind| ["0.0.0.0/0", "::/0"].map(|prefix| route(prefix, metric, kind.clone()));
        let run = |bed: &mut crate::bed::Bed, routes: [Route; 2], step: fn(Route) -> Step| {
            routes.into_iter().for_each(|route| bed.run(step(route)));
        };
        run(bed, each(u32::MAX, RouteKind::Blackhole), Step::AddRoute);
        run(bed, each(512, on_v0()), Step::AddRoute);
        let both: Vec<_> = [each(u32::MAX, RouteKind::Blackhole), each(512, on_v0())].concat();
        assert_eq!(bed.observe().routes, both.into_iter().collect());
        run(bed, each(512, RouteKind::Blackhole), Step::ReplaceRoute);
        run(bed, each(512, RouteKind::Throw), Step::ReplaceRoute);
        run(bed, each(512, on_v0()), Step::ReplaceRoute);
        // A deletion of an absent route deletes no other.
        run(bed, each(512, RouteKind::Blackhole), Step::DeleteRoute);
        run(bed, each(u32::MAX, RouteKind::Throw), Step::DeleteRoute);
        run(bed, each(512, on_v0()), Step::DeleteRoute);
        assert_eq!(bed.observe().routes, each(u32::MAX, RouteKind::Blackhole).into_iter().collect());
        sh("ip link del v0");
        assert_eq!(bed.observe().routes, each(u32::MAX, RouteKind::Blackhole).into_iter().collect());
        run(bed, each(u32::MAX, RouteKind::Blackhole), Step::DeleteRoute);
        assert!(bed.observe().routes.is_empty());
    });
}

#[test]
fn rule_that_differs_in_ignored_fields_is_a_conflict() {
    in_namespace(|bed| {
        let rule = Rule {
            family: Family::V4,
            priority: 900,
            mark: 1,
            mask: 0xff,
            invert: false,
            table: 26487,
            iif: None,
            from: None,
        };
        bed.run(Step::AddRule(rule.clone()));
        conflict(bed.fail(Step::AddRule(Rule { invert: true, ..rule.clone() })), "900");
        bed.run(Step::DeleteRule(Rule { invert: true, ..rule.clone() }));
        assert_eq!(bed.observe().rules, [rule].into_iter().collect());
    });
}

#[test]
fn foreign_addresses_stay_and_are_told_from_ours() {
    in_namespace(|bed| {
        setup();
        let v0 = IfName::new("v0").expect("valid");
        sh("ip addr add 10.5.0.1/32 dev v0; ip -6 addr add fd05::1/128 dev v0 nodad");
        let before = sh("ip -o addr show v0 | grep -v fe80");
        for addr in ["10.5.0.1", "fd05::1"] {
            let addr: std::net::IpAddr = addr.parse().expect("valid");
            let foreign = Address { link: v0.clone(), addr, len: if addr.is_ipv4() { 32 } else { 128 } };
            conflict(bed.fail(Step::AddAddress(foreign.clone())), "not ours");
            bed.run(Step::DeleteAddress(foreign));
        }
        let ours = ["10.5.0.2", "fd05::2"].map(|addr| {
            let addr: std::net::IpAddr = addr.parse().expect("valid");
            Address { link: v0.clone(), addr, len: if addr.is_ipv4() { 32 } else { 128 } }
        });
        ours.clone().into_iter().for_each(|address| bed.run(Step::AddAddress(address)));
        let observed = bed.observe();
        assert_eq!(observed.our_addresses, ours.clone().into_iter().collect());
        assert!(observed.addresses.len() > ours.len());
        // Our address is usable at once, and the kernel adds no route for it.
        assert!(!sh("ip -6 addr show v0 | grep -A1 fd05::2").contains("tentative"));
        assert!(!sh("ip -6 route").contains("fd05::2"));
        ours.into_iter().for_each(|address| bed.run(Step::DeleteAddress(address)));
        assert_eq!(sh("ip -o addr show v0 | grep -v fe80"), before);
    });
}

#[test]
fn main_table_is_read_as_it_is() {
    in_namespace(|bed| {
        setup();
        sh("ip route add default via 192.168.7.2
            ip route add 10.3.0.0/16 nexthop via 192.168.7.3 nexthop via 192.168.7.4
            ip route add unreachable 10.4.0.0/16
            ip -6 route add fd03::/16 nexthop via fd01::3 nexthop via fd01::4
            ip -6 route add default via fd01::2
            ip route add 10.5.0.0/16 dev v0 table 99
            ip route add 10.6.0.0/16 dev v0 tos 0x10
            ip route add throw 10.7.0.0/16");
        let main = |prefix: &str, link: Option<&str>, on_link| ForeignRoute {
            prefix: prefix.parse().expect("valid"),
            link: link.and_then(IfName::new),
            on_link,
        };
        let mut found = bed.observe().main_routes;
        found.retain(|r| r.prefix != "fe80::/64".parse().expect("valid"));
        let expected = [
            main("0.0.0.0/0", Some("v0"), false),
            main("10.3.0.0/16", None, false),
            main("10.4.0.0/16", None, false),
            main("192.168.7.0/24", Some("v0"), true),
            main("::/0", Some("v0"), false),
            main("fd01::/64", Some("v0"), true),
            main("fd03::/16", None, false),
        ];
        assert_eq!(found, expected.into_iter().collect());
    });
}

#[test]
fn delete_after_the_interface_is_gone_succeeds() {
    in_namespace(|bed| {
        setup();
        let v0 = IfName::new("v0").expect("valid");
        let [four, six] = both(512, on_v0());
        let address = Address { link: v0, addr: "10.9.9.9".parse().expect("valid"), len: 32 };
        sh("ip link del v0");
        bed.run(Step::DeleteRoute(four.clone()));
        bed.run(Step::DeleteRoute(six));
        bed.run(Step::DeleteAddress(address.clone()));
        assert!(bed.fail(Step::AddRoute(four)).to_string().contains("there is no interface v0"));
        assert!(bed.fail(Step::AddAddress(address)).to_string().contains("there is no interface v0"));
    });
}

#[test]
fn many_routes_are_read_whole() {
    in_namespace(|bed| {
        setup();
        let batch: String =
            (0..4000).map(|i| format!("route add 10.{}.{}.0/24 dev v0\n", i / 250, i % 250)).collect();
        std::fs::write("/run/batch", batch).expect("written");
        sh("ip -batch /run/batch");
        for i in 0..500u32 {
            bed.run(Step::AddRoute(route(&format!("172.16.{}.{}/32", i / 250, i % 250), 512, on_v0())));
        }
        let observed = bed.observe();
        assert_eq!(observed.routes.len(), 500);
        assert_eq!(observed.main_routes.iter().filter(|r| r.prefix.is_ipv4()).count(), 4001);
    });
}

#[test]
fn changing_interfaces_do_not_spoil_a_read() {
    in_namespace(|bed| {
        // So many links that they don't fit into one datagram.
        sh("for i in $(seq 100); do echo link add a$i type veth peer name b$i; done > /run/batch
            ip -batch /run/batch");
        let links = bed.observe().links.len();
        assert!(links >= 201, "{links}");
        let mut restless = std::process::Command::new("sh")
            .args(["-c", "while ip link add c type veth peer name d; do ip link del c; done"])
            .spawn()
            .expect("sh");
        for _ in 0..200 {
            let observed = bed.observe();
            let came = ["c", "d"].iter().filter_map(|n| observed.links.get(&IfName::new(n)?)).count();
            assert_eq!(observed.links.len(), links + came);
        }
        restless.kill().and_then(|()| restless.wait()).expect("ended");
    });
}

#[test]
fn missing_privilege_is_reported() {
    in_namespace(|bed| {
        setup();
        as_nobody(|| {
            let route = both(512, on_v0())[0].clone();
            for step in [Step::AddRoute(route), Step::AddTunnel { link: crate::bed::link(), mtu: 1420 }] {
                let error = bed.fail(step);
                assert!(matches!(error, KernelError::Permission(_)), "{error:?}");
                assert!(error.to_string().contains("run it as root"));
            }
            let path = gatewrt::model::SysctlPath("net/ipv4/ip_forward".into());
            let error = bed.fail(Step::SetSysctl(path, "1".into()));
            assert!(matches!(error, KernelError::Permission(_) | KernelError::Refused(_)), "{error:?}");
        });
    });
}

/// Runs a test as user nobody, in this thread alone: the C library's function would change every thread.
fn as_nobody(test: impl FnOnce()) {
    let become_user = |user: u32| {
        // SAFETY: takes three numbers, and changes the credentials of this thread.
        let done = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, u32::MAX, user, u32::MAX) };
        assert_eq!(done, 0);
    };
    become_user(65534);
    test();
    become_user(0);
}

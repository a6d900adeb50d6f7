//! Scripts for nft and iptables of named configurations, in `tests/golden/` for people to read. To accept a change, run
//! `UPDATE_GOLDEN=1 cargo test -p gatewrt --test golden` and read the difference.
#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use gatewrt::{
    kernel::firewall::{iptables, nft::script},
    model::{Exits, Family, FirewallTable, Guard, IfName, ScopeGuard, Source},
    ownership::ReservedNumbers,
    plan::{Firewall, TableChange},
};
use gatewrt_protocol::{Access, AccessRule, Prefix, Verdict};
use nix::sched::{CloneFlags, unshare};
use sorted_vec::SortedSet;
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

const OFF: bool = false;
const ON: bool = true;

fn guard(egress: &[(&str, bool)]) -> Guard {
    Guard {
        egress: egress.iter().map(|(prefix, nat)| (prefix.parse().unwrap(), *nat)).collect(),
        ..Guard::default()
    }
}

fn set(prefixes: &[&str]) -> Vec<Prefix> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

fn rule(verdict: Verdict, from: u32, to: u32, services: &[&str]) -> AccessRule {
    AccessRule { verdict, from, to, services: services.iter().map(|text| text.parse().unwrap()).collect() }
}

/// Two phones: one can be reached, and both are let out to the Internet.
fn phones() -> Guard {
    Guard {
        closed: set(&["10.9.1.2/32", "fd09::1:2/128"]).into_iter().collect(),
        internet: set(&["10.9.1.2/32", "10.9.1.3/32", "fd09::1:2/128"]).into_iter().collect(),
        uplinks: [IfName::new("wan").unwrap(), IfName::new("wan6").unwrap()].into_iter().collect(),
        ..guard(&[("192.168.20.0/24", OFF), ("203.0.113.0/24", ON)])
    }
}

/// Access rules: phones reach a web server alone, the rest of the network reaches the site except one host.
fn ruled(default: Verdict) -> Access {
    let sets = [
        set(&["10.9.1.0/24", "fd09::1:0/112"]),
        set(&["10.9.0.0/24", "fd09::/112"]),
        set(&["192.168.20.5/32", "fd20::5/128"]),
        set(&["192.168.20.0/24", "fd20::/64"]),
    ];
    let rules = [
        rule(Verdict::Allow, 0, 2, &["tcp/443", "icmp"]),
        rule(Verdict::Allow, 1, 3, &[]),
        rule(Verdict::Deny, 1, 2, &["tcp/22", "udp/5000-5010"]),
        rule(Verdict::Deny, 0, 1, &[]),
    ];
    Access { default, sets: sets.into(), rules: rules.into() }
}

fn only(source: &str, range: &str) -> Access {
    let sets = vec![set(&[source]), set(&[range])];
    Access { default: Verdict::Deny, sets, rules: vec![rule(Verdict::Allow, 0, 1, &[])] }
}

fn firewall(tunnels: &[(&str, Guard)]) -> Firewall {
    let tunnels = tunnels.iter().map(|(link, guard)| (IfName::new(link).unwrap(), guard.clone())).collect();
    Firewall { tunnels, bypass: true, ..Firewall::default() }
}

fn link(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

fn scope(sources: impl IntoIterator<Item = Source>) -> ScopeGuard {
    ScopeGuard {
        sources: sources.into_iter().collect(),
        closed: true,
        redirects: true,
        ..ScopeGuard::default()
    }
}

fn own() -> SortedSet<IpAddr> {
    ["10.9.0.1", "fd09::1"].map(|address| address.parse().unwrap()).into_iter().collect()
}

fn exits(scopes: &[(&str, ScopeGuard)]) -> Exits {
    let scopes = scopes.iter().zip(0..);
    Exits {
        scopes: scopes.map(|((tag, scope), at)| ((at, tag.parse().unwrap()), scope.clone())).collect(),
        ours: [link("gw-home")].into_iter().collect(),
        strangers: [link("tailscale0")].into_iter().collect(),
        local: [("br-lan", "192.168.1.0/24"), ("br-guest", "192.168.2.0/24")]
            .map(|(name, prefix)| (link(name), set(&[prefix, "fe80::/10"]).into_iter().collect()))
            .into_iter()
            .collect(),
        uplinks: [link("wan")].into_iter().collect(),
        beside: set(&["198.51.100.0/24"]).into_iter().collect(),
        meshes: [(link("gw-home"), set(&["10.9.0.0/16", "fd09::/64"]).into_iter().collect())]
            .into_iter()
            .collect(),
        own: [(link("gw-home"), own())].into_iter().collect(),
        mtus: [(link("gw-home"), 1420)].into_iter().collect(),
        ..Exits::default()
    }
}

/// Two scopes, each through another exit of a network with access rules.
fn two_scopes() -> Firewall {
    let guests = ScopeGuard {
        resolvers: ["9.9.9.9", "149.112.112.112", "2620:fe::fe"].map(|addr| addr.parse().unwrap()).into(),
        exclude: set(&["198.51.100.0/24"]).into_iter().collect(),
        ..scope([Source::Link(link("br-guest"))])
    };
    let hosts = set(&["192.168.1.64/26", "192.168.1.5/32", "fd20::5/128"]);
    let kids = ScopeGuard {
        resolvers: vec!["1.1.1.3".parse().unwrap()],
        v6_wan: true,
        forbids: true,
        ..scope(hosts.into_iter().map(Source::Prefix))
    };
    let mut exits = exits(&[("kids", kids), ("guests", guests)]);
    exits.ours.push(link("gw-~abcdefghijk"));
    exits.meshes.insert(link("gw-~abcdefghijk"), set(&["10.9.0.0/16", "fd09::/64"]).into_iter().collect());
    exits.own.insert(link("gw-~abcdefghijk"), own());
    exits.secondary.insert(link("gw-~abcdefghijk"), link("gw-home"));
    let home = Guard { access: ruled(Verdict::Deny), ..guard(&[("192.168.20.0/24", ON)]) };
    Firewall { exits, ..firewall(&[("gw-home", home), ("gw-office-2", Guard::default())]) }
}

/// Scope of the router and all its LANs, with one host that stays on the WAN.
fn everything() -> Firewall {
    let lans = [link("br-lan"), link("br-guest")].map(Source::Link);
    let all = ScopeGuard {
        near: set(&["192.168.1.0/24", "192.168.2.0/24"]).into_iter().collect(),
        resolvers: vec!["9.9.9.9".parse().unwrap()],
        router_answers: true,
        ..scope(lans.into_iter().chain([Source::Router, Source::Anyone]))
    };
    let host = Source::Prefix("192.168.1.9/32".parse().unwrap());
    let aside = ScopeGuard { closed: false, redirects: false, ..scope([host]) };
    Firewall { exits: exits(&[("tv", aside), ("all", all)]), ..firewall(&[("gw-home", Guard::default())]) }
}

/// Exit for a whole network.
fn exit() -> Guard {
    Guard {
        internet: set(&["10.9.0.0/16", "fd09::/64"]).into_iter().collect(),
        uplinks: [IfName::new("wan").unwrap()].into_iter().collect(),
        ..guard(&[("192.168.20.0/24", OFF)])
    }
}

fn configurations() -> BTreeMap<&'static str, Firewall> {
    let site = &[("192.168.20.0/24", OFF), ("fd20::/64", OFF)];
    let masqueraded = &[("192.168.20.0/24", ON), ("fd20::/64", ON)];
    let marks = ReservedNumbers { mask: 0xf0, bypass: 0x10, masquerade: 0x20, ..ReservedNumbers::default() };
    let exceptions =
        &[("10.0.0.0/8", ON), ("10.128.0.0/16", OFF), ("10.128.7.0/24", ON), ("10.9.9.0/24", ON)];
    BTreeMap::from([
        ("nothing-served", firewall(&[("gw-home", Guard::default())])),
        ("site-to-site", firewall(&[("gw-home", guard(site))])),
        ("masquerade", firewall(&[("gw-home", guard(masqueraded))])),
        (
            "two-networks",
            firewall(&[
                ("gw-home", guard(&[("192.168.20.0/24", ON), ("192.168.21.0/24", OFF)])),
                ("gw-office-2", guard(&[("172.16.0.0/12", OFF), ("fd20::/64", ON)])),
            ]),
        ),
        ("prefixes-within-prefixes", firewall(&[("gw-home", guard(exceptions))])),
        ("phones", firewall(&[("gw-home", phones())])),
        ("default-deny", firewall(&[("gw-home", Guard { access: ruled(Verdict::Deny), ..phones() })])),
        ("default-allow", firewall(&[("gw-home", Guard { access: ruled(Verdict::Allow), ..guard(site) })])),
        (
            "two-networks-each-its-range",
            firewall(&[
                (
                    "gw-home",
                    Guard {
                        access: only("10.9.0.0/24", "192.168.20.0/24"),
                        ..guard(&[("192.168.20.0/24", ON)])
                    },
                ),
                (
                    "gw-office-2",
                    Guard {
                        access: only("10.8.0.0/24", "192.168.21.0/24"),
                        ..guard(&[("192.168.21.0/24", OFF)])
                    },
                ),
            ]),
        ),
        (
            "scope-of-a-lan",
            Firewall {
                exits: exits(&[("lan", scope([Source::Link(link("br-lan"))]))]),
                ..firewall(&[("gw-home", Guard::default())])
            },
        ),
        ("scope-of-everything", everything()),
        ("scope-of-everything-with-many-networks", {
            let mut firewall = everything();
            firewall.exits.ours.extend((1..=9).map(|at| link(&format!("gw-net{at}"))));
            firewall
        }),
        ("scopes-with-resolvers", two_scopes()),
        (
            "scope-that-falls-back-to-the-wan",
            Firewall {
                exits: exits(&[(
                    "lan",
                    ScopeGuard { closed: false, ..scope([Source::Link(link("br-lan"))]) },
                )]),
                ..firewall(&[("gw-home", Guard::default())])
            },
        ),
        ("exit", firewall(&[("gw-home", exit())])),
        ("exit-without-marks", Firewall { bypass: false, ..firewall(&[("gw-home", exit())]) }),
        (
            "everything-and-other-marks",
            Firewall {
                numbers: marks,
                ..firewall(&[("gw-home", guard(&[("0.0.0.0/0", ON), ("::/0", ON)]))])
            },
        ),
    ])
}

#[test]
fn script_for_nft_of_each_configuration_is_golden() {
    for (name, firewall) in configurations() {
        assert_golden(name, "nft", &script::replacement(&firewall.table()));
    }
    let extension = |file: &fs::DirEntry| file.path().extension().is_some_and(|nft| nft == "nft");
    let files = fs::read_dir(golden()).unwrap().flatten().filter(extension).count();
    assert_eq!(files, configurations().len(), "a file without a configuration");
}

/// Golden texts for iptables: three configurations contain all that it has to express.
#[test]
fn script_for_iptables_of_three_configurations_is_golden() {
    for name in ["masquerade", "phones", "scope-of-everything"] {
        let table = configurations()[name].table();
        for (family, extension) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
            assert_golden(name, extension, &iptables::script("", &table, family));
        }
    }
}

/// iptables loads each script over an empty table and over every other, and an empty one over each.
#[test]
fn script_for_iptables_loads_over_any_table() {
    let check = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        for family in [Family::V4, Family::V6] {
            let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
            let save = || run(&format!("{program}-legacy-save"), &[], "").unwrap();
            let restore = |name: &str, table: &FirewallTable| {
                let change = iptables::script(&save(), table, family);
                run(&format!("{program}-legacy-restore"), &["--noflush", "-w"], &change)
                    .unwrap_or_else(|error| panic!("{name}: {error}\n{change}"));
            };
            for (name, firewall) in configurations() {
                let table = firewall.table();
                restore(name, &table);
                let once = iptables::ours(&save());
                restore(name, &table);
                assert_eq!(iptables::ours(&save()), once, "{name}");
            }
            restore("nothing", &FirewallTable::default());
            assert!(!save().contains("gwrt-"), "{}", save());
        }
    };
    thread::spawn(check).join().unwrap();
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn assert_golden(name: &str, extension: &str, text: &str) {
    let path = golden().join(name).with_extension(extension);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    assert!(before == text, "{name}.{extension} would change:\n{}", difference(&before, text));
}

/// Lines that are only in the old or only in the new text.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(come).collect()
}

/// nft loads each script in a namespace of its own, also over an existing table.
#[test]
fn script_for_nft_loads() {
    let check = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        for (name, firewall) in configurations() {
            let text = script::replacement(&firewall.table());
            nft(&["-c", "-f", "-"], &text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            nft(&["-f", "-"], &text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        }
    };
    thread::spawn(check).join().unwrap();
}

/// An update in place has the same result as the whole script.
#[test]
fn any_table_changes_into_any_other_in_place() {
    let check = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        let tables: Vec<FirewallTable> = configurations().values().map(Firewall::table).collect();
        let list = || nft(&["list", "table", "inet", "gatewrt"], "").unwrap();
        for to in &tables {
            nft(&["-f", "-"], &script::replacement(to)).unwrap();
            let expected = parts(&list());
            for from in &tables {
                nft(&["-f", "-"], &script::replacement(from)).unwrap();
                let change = script::change(&TableChange::between(from, to).unwrap());
                nft(&["-f", "-"], &change).unwrap_or_else(|error| panic!("{error}\n{change}"));
                assert_eq!(parts(&list()), expected, "{change}");
                assert_eq!(from == to, change.is_empty());
            }
        }
    };
    thread::spawn(check).join().unwrap();
}

/// Sets, chains and elements of a listing, sorted: nft lists them in the order in which they came.
fn parts(listing: &str) -> Vec<Vec<String>> {
    let body = listing.split_once("{\n").unwrap().1;
    let lines = |part: &str| -> Vec<String> {
        let mut lines: Vec<String> = part
            .split([',', '\n'])
            .map(|line| line.replace("elements = {", "").trim_end_matches('}').trim().to_owned())
            .collect();
        if part.trim().starts_with("set ") {
            lines.sort();
        }
        lines
    };
    let mut parts: Vec<Vec<String>> = body.split("\n\t}\n").map(|part| lines(part.trim())).collect();
    parts.sort();
    parts
}

fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    run("nft", arguments, input)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("needs the packages nftables and iptables");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    output.status.success().then(|| text(&output.stdout)).ok_or_else(|| text(&output.stderr))
}

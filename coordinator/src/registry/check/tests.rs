use super::*;
use crate::{
    registry::{ClientPatch, NetworkPatch, NodePatch, RuleSpec, Tunnel},
    testing::{Op, World},
};

/// Two sites; a phone and a laptop come in at the first. All names as in [`World`].
fn world() -> World {
    let mut world = World::default();
    let client = |key, name| Op::AddClient { node: 0, other: 0, key, name, expires: None, prefix: None };
    for op in [
        Op::CreateNetwork(0, None),
        Op::CreateCode(0, 9),
        Op::Join { code: 0, key: 0, name: 0, endpoint: 0 },
        Op::SetIngress { node: 0, endpoint: true },
        client(20, 4),
        client(21, 5),
        Op::Join { code: 0, key: 1, name: 1, endpoint: 1 },
    ] {
        assert_eq!(world.step(&op).refused, None, "{op:?}");
    }
    for (client, name) in [("node-4", "phone"), ("node-5", "laptop")] {
        change(
            &mut world,
            client,
            ClientPatch { name: Some(name.parse().unwrap()), ..ClientPatch::default() },
        );
    }
    for (node, name, serves) in [("node-0", "home", "192.168.10.0/24"), ("node-1", "cabin", "fd00:20::/64")] {
        let patch = NodePatch { name: Some(name.parse().unwrap()), ..NodePatch::default() };
        let rows = world.registry.change_node("net0", node, &patch).unwrap().0;
        world.registry.apply(rows);
        let setting = crate::registry::EgressSetting { nat: false, metric: 0 };
        let rows = world.registry.set_egress("net0", name, serves.parse().unwrap(), setting).unwrap().0;
        world.registry.apply(rows);
    }
    world
}

fn change(world: &mut World, client: &str, patch: ClientPatch) {
    let moment = crate::registry::Moment { now: world.now, entropy: [3; 32] };
    let rows = world.registry.change_client("net0", client, &patch, &moment).unwrap().0;
    world.registry.apply(rows);
}

fn rule(world: &mut World, number: u8, verdict: Verdict, from: &str, to: &str, services: &[&str]) -> RuleId {
    let spec = RuleSpec {
        verdict,
        from: vec![from.to_owned()],
        to: vec![to.to_owned()],
        services: services.iter().map(|service| service.parse().unwrap()).collect(),
        enabled: true,
        note: String::new(),
    };
    let moment = crate::registry::Moment { now: world.now, entropy: [number; 32] };
    let (rows, rule) = world.registry.create_rule("net0", &spec, &moment).unwrap();
    world.registry.apply(rows);
    rule.id
}

fn deny_all(world: &mut World) {
    let patch = NetworkPatch { access: Some(Verdict::Deny), dns: None };
    let rows = world.registry.change_network("net0", &patch).unwrap().0;
    world.registry.apply(rows);
}

fn ask(world: &World, from: &str, to: &str, service: &str) -> CheckAnswer {
    let service = (!service.is_empty()).then(|| service.parse().unwrap());
    world.registry.check("net0", from, to, service, world.now).unwrap()
}

/// Checks the answer, and that the reason contains a text.
fn expect(world: &World, from: &str, to: &str, service: &str, allowed: bool, why: &str) -> CheckAnswer {
    let answer = ask(world, from, to, service);
    assert_eq!(answer.allowed, allowed, "{from} to {to} {service}: {answer:?}");
    assert!(answer.why.contains(why), "“{why}” in {answer:?}");
    assert!(answer.steps.iter().any(|step| answer.why.ends_with(step.as_str())), "{answer:?}");
    answer
}

#[test]
fn network_that_allows_by_default_protects_unreachable_clients() {
    let world = world();
    expect(&world, "phone", "site:home", "", true, "allows what no rule denies");
    let answer = expect(&world, "192.168.10.7", "cabin", "tcp/22", true, "no rule matches");
    assert!(answer.steps[0].contains("192.168.10.7 is served by node home"), "{answer:?}");
    expect(&world, "home", "phone", "", false, "client phone is not reachable");
    expect(&world, "laptop", "phone", "", false, "client phone is not reachable");
    expect(&world, "192.168.10.7", "fd00:20::7", "", false, "IPv4 addresses only");
    expect(&world, "home", "192.168.10.7", "", true, "both are at node home");
}

#[test]
fn check_of_excluded_client_names_the_reason() {
    let mut world = world();
    let patch = |enabled, expires| ClientPatch {
        enabled: Some(enabled),
        expires: Some(expires),
        ..ClientPatch::default()
    };
    change(&mut world, "phone", patch(false, None));
    expect(&world, "phone", "cabin", "", false, "client phone is disabled");
    let soon = world.now + 10;
    change(&mut world, "phone", patch(true, Some(soon)));
    expect(&world, "phone", "cabin", "", true, "");
    world.now += 10;
    expect(&world, "phone", "cabin", "", false, "client phone has expired");
    let reachable = ClientPatch { reachable: Some(true), ..ClientPatch::default() };
    change(&mut world, "laptop", reachable);
    expect(&world, "cabin", "laptop", "udp/53", true, "");
    world.step(&Op::UnsetIngress(0, true));
    world.step(&Op::UnsetIngress(1, true));
    expect(&world, "laptop", "cabin", "", false, "no gateway");
}

#[test]
fn check_with_matching_rule_names_it() {
    let mut world = world();
    deny_all(&mut world);
    expect(&world, "phone", "cabin", "", false, "denies what no rule allows");
    let web = rule(&mut world, 1, Verdict::Allow, "client:phone", "site:home", &["tcp/80-443"]);
    let answer =
        expect(&world, "phone", "192.168.10.9", "tcp/80", true, "allow client:phone → site:home tcp/80-443");
    assert_eq!(answer.rule, Some(web));
    expect(&world, "phone", "site:home", "", false, "not all of it: no rule matches the rest");
    expect(&world, "laptop", "site:home", "tcp/80", false, "this network denies what no rule allows");
    let no = rule(&mut world, 2, Verdict::Deny, "all", "192.168.10.9", &[]);
    let answer = expect(&world, "phone", "192.168.10.9", "tcp/80", false, "deny all → 192.168.10.9");
    assert_eq!(answer.rule, Some(no));
    expect(&world, "phone", "192.168.10.8", "tcp/80", true, "allows it");
    let answer = expect(&world, "phone", "192.168.10.8/31", "tcp/80", false, "not all of it");
    assert_eq!(answer.rule, Some(no));
}

#[test]
fn rules_together_allow_what_none_allows_alone() {
    let mut world = world();
    deny_all(&mut world);
    for (number, to) in [(1, "192.168.10.0/25"), (2, "192.168.10.128/25")] {
        rule(&mut world, number, Verdict::Allow, "client:phone", to, &["tcp"]);
    }
    rule(&mut world, 3, Verdict::Allow, "all", "site:home", &["udp"]);
    expect(&world, "phone", "site:home", "tcp", true, "allows it");
    expect(&world, "phone", "site:home", "udp/53", true, "→ site:home udp");
    expect(&world, "phone", "site:home", "icmp", false, "denies");
}

#[test]
fn internet_is_reached_through_full_tunnels_only() {
    let mut world = world();
    expect(&world, "phone", "1.1.1.1", "tcp/443", false, "only a client with a full tunnel");
    change(&mut world, "phone", ClientPatch { tunnel: Some(Tunnel::Full), ..ClientPatch::default() });
    deny_all(&mut world);
    expect(&world, "phone", "1.1.1.1", "tcp/443", true, "client phone sends its Internet traffic");
    expect(&world, "phone", "2606:4700::1111", "", true, "rules do not apply");
    expect(&world, "phone", "172.16.9.9", "", false, "no node serves it");
    expect(&world, "laptop", "1.1.1.1", "", false, "full tunnel");
    change(&mut world, "phone", ClientPatch { enabled: Some(false), ..ClientPatch::default() });
    expect(&world, "phone", "1.1.1.1", "", false, "is disabled");
}

/// Changes exits or scopes of a node of [`world`].
fn set(world: &mut World, rows: impl FnOnce(&Registry) -> crate::registry::Changes) {
    let rows = rows(&world.registry);
    world.registry.apply(rows);
}

#[test]
fn internet_is_reached_by_scopes_through_an_exit() {
    let mut world = world();
    expect(
        &world,
        "cabin",
        "1.1.1.1",
        "",
        false,
        "no scope of cabin takes the Internet traffic of the router cabin",
    );
    let home = world.registry.find_node("net0", "home").unwrap().id;
    let offer = Some(gatewrt_protocol::ExitOffer { v4: true, v6: false, dns: Vec::new() });
    let said = gatewrt_protocol::Report { exit: offer, ..crate::testing::report(home, 1, 1) };
    set(&mut world, |registry| registry.update_facts(home, &said, None));
    let cabin = world.registry.find_node("net0", "cabin").unwrap().id;
    // br-lan there has 192.168.1.0/24.
    set(&mut world, |registry| registry.update_facts(cabin, &crate::testing::report(cabin, 1, 2), None));
    set(&mut world, |registry| registry.set_exit("net0", "home", &Default::default()).unwrap().0);
    let scope = |world: &mut World, name: &str, spec: crate::registry::ScopeSpec| {
        set(world, |registry| registry.set_scope("net0", "cabin", name, &spec).unwrap().0);
    };
    let spec = crate::testing::scope_spec;
    scope(&mut world, "lan", spec("dev:br-lan"));
    expect(
        &world,
        "192.168.1.7",
        "1.1.1.1",
        "",
        true,
        "scope lan of cabin takes the Internet traffic of 192.168.1.7: through home",
    );
    expect(&world, "192.168.1.7", "2606:4700::1111", "", false, "no exit of it has IPv6 now: it is dropped");
    expect(&world, "cabin", "1.1.1.1", "", false, "the router cabin: it goes out over the WAN");
    expect(&world, "192.168.9.7", "1.1.1.1", "", false, "matches nothing");
    let exclude = ["1.1.1.0/24".parse().unwrap()].into();
    scope(&mut world, "tv", crate::registry::ScopeSpec { exclude, ..spec("192.168.1.7") });
    expect(
        &world,
        "192.168.1.7",
        "1.1.1.1",
        "",
        false,
        "scope tv of cabin takes the Internet traffic of 192.168.1.7, but 1.1.1.1 is excluded",
    );
    expect(&world, "192.168.1.7", "9.9.9.9", "", true, "scope tv of cabin");
    expect(&world, "192.168.1.8", "1.1.1.1", "", true, "scope lan of cabin");
    scope(&mut world, "rest", spec("all"));
    expect(&world, "cabin", "1.1.1.1", "", true, "scope rest of cabin");
    set(&mut world, |registry| registry.unset_exit("net0", "home", true).unwrap().0);
    expect(&world, "cabin", "1.1.1.1", "", false, "no exit of it has IPv4 now: it is dropped");
}

#[test]
fn unassigned_address_is_not_reached() {
    let world = world();
    let free = world.registry.find_network("net0").unwrap().prefix4.nth(60_000).unwrap().to_string();
    expect(&world, "phone", &free, "", false, "no node and no client has such an address");
    expect(&world, "tag:none", "cabin", "", false, "tag:none matches nothing");
    expect(&world, "phone", "tag:none", "", false, "tag:none matches nothing");
    let error = world.registry.check("net0", "nas", "cabin", None, 0).unwrap_err();
    assert!(error.to_string().contains("no node, client or group “nas”"), "{error}");
    let error = world.registry.check("net0", "node:nas", "cabin", None, 0).unwrap_err();
    assert!(error.advice().contains("home"), "{}", error.advice());
}

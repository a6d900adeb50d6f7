use super::*;
use crate::testing::{Op, World, any_op, report, request};
use gatewrt_protocol::{Endpoint, EndpointKind, InterfaceKind, InterfaceReport, Prefix};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const MOMENT: Moment = Moment { now: 1000, entropy: [7; 32] };

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn moment(number: u8) -> Moment {
    Moment { now: 1000, entropy: [number; 32] }
}

fn spec(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.parse().unwrap(), prefix4: None, prefix6: None, mtu: None, keepalive: None }
}

/// A network `home` with a code for many.
fn home() -> (Registry, [u8; 16]) {
    let mut registry = Registry::default();
    let home = NetworkSpec { prefix4: Some(p("10.80.0.0/29")), ..spec("home") };
    registry.apply(registry.create_network(&home, &MOMENT).unwrap().0);
    let code = CodeSpec { uses: 50, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (_, secret)) = registry.create_code("home", &code, &MOMENT).unwrap();
    registry.apply(rows);
    (registry, secret)
}

fn join(registry: &mut Registry, secret: [u8; 16], key: u8) -> Result<NodeId, RegistryError> {
    let (rows, id) = registry.join(&request(secret, key, 0, key), None, &moment(key))?;
    registry.apply(rows);
    Ok(id)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_operations_keep_the_invariants(ops in proptest::collection::vec(any_op(), 1..80)) {
        let mut world = World::default();
        let (mut given, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for op in &ops {
            let before = world.registry.clone();
            let step = world.step(op);
            let mut undone = world.registry.clone();
            undone.apply(step.undo.clone());
            prop_assert_eq!(&undone, &before, "undo takes back {:?}", op);
            if step.refused.is_some() {
                prop_assert_eq!(&world.registry, &before, "what is refused changes nothing");
            }
            for row in &step.rows {
                let Row::Client(_, Some(client)) = row else { continue };
                for (node, addr) in client.seats.iter().flat_map(|(node, seat)| seat.iter().map(move |addr| (node, addr))) {
                    let known = before.client(client.id).is_some_and(|then| then.seats.contains_key(node));
                    prop_assert!(known || given.insert((client.net, *addr)), "{} again", addr);
                }
                let key = client.key;
                prop_assert!(
                    before.client(client.id).is_some_and(|then| then.key == key) || keys.insert(key),
                    "a key comes back"
                );
            }
            for row in &step.rows {
                if let Row::Node(id, None) = row {
                    // Its network is gone, so that nobody knows the key any more.
                    prop_assert!(keys.remove(&before.node(*id).unwrap().key));
                }
            }
            if let Some(id) = step.joined {
                prop_assert!(keys.insert(world.registry.node(id).unwrap().key), "a key comes back");
                for addr in &world.registry.node(id).unwrap().addresses {
                    prop_assert!(given.insert((world.registry.node(id).unwrap().net, *addr)), "{} again", addr);
                }
            }
            check(&world.registry)?;
        }
    }
}

fn check(registry: &Registry) -> Result<(), TestCaseError> {
    let mut prefixes: Vec<(Option<NetworkId>, Prefix)> =
        registry.networks().flat_map(Network::prefixes).map(|prefix| (None, prefix)).collect();
    let live: Vec<_> = registry.nodes().filter(|node| node.is_live()).collect();
    // Several nodes may serve the same.
    let served = live.iter().flat_map(|node| node.egress.keys().map(|prefix| (Some(node.net), *prefix)));
    prefixes.extend(served.collect::<BTreeSet<_>>());
    let clients: Vec<_> = registry.clients().filter(|client| client.is_live()).collect();
    prefixes.extend(clients.iter().flat_map(|it| it.prefixes.iter().map(|prefix| (Some(it.net), *prefix))));
    for (place, (net, one)) in prefixes.iter().enumerate() {
        for (other_net, other) in &prefixes[place + 1..] {
            let together = net.is_none() || other_net.is_none() || net == other_net;
            prop_assert!(!together || !one.overlaps(other), "{one} beside {other}");
        }
    }
    let mut names: BTreeSet<_> = live.iter().map(|node| (node.net, node.name.to_string())).collect();
    names.extend(clients.iter().map(|client| (client.net, client.name.to_string())));
    prop_assert_eq!(names.len(), live.len() + clients.len(), "names are unique in a network");
    check_blocks(registry)?;
    check_scopes(registry)?;
    let networks: BTreeSet<_> = registry.networks().map(|network| &network.name).collect();
    prop_assert_eq!(networks.len(), registry.networks().count());
    let keys: BTreeSet<_> = registry.nodes().map(|node| node.key).collect();
    prop_assert_eq!(keys.len(), registry.nodes().count(), "keys are unique for ever");
    for node in live {
        let network = registry.network(node.net).expect("a live node's network exists");
        for (addr, prefix) in node.addresses.iter().zip(network.prefixes()) {
            prop_assert!(prefix.contains(*addr));
        }
    }
    for code in registry.codes.values() {
        prop_assert!(code.used <= code.uses);
    }
    Ok(())
}

/// Blocks are parts of their network, apart from each other and from every node; seats lie in blocks.
fn check_blocks(registry: &Registry) -> Result<(), TestCaseError> {
    for network in registry.networks() {
        for block in &network.blocks {
            prop_assert!(network.prefixes().iter().any(|prefix| prefix.covers(block)));
            prop_assert!(network.blocks.iter().all(|other| other == block || !other.overlaps(block)));
            let mut nodes = registry.nodes().filter(|node| node.net == network.id);
            prop_assert!(!nodes.any(|node| node.addresses.iter().any(|addr| block.contains(*addr))));
        }
        for client in registry.live_clients(network.id) {
            for (node, seat) in &client.seats {
                let blocks = &registry.node(*node).expect("a seat is on a node").blocks;
                prop_assert!(seat.iter().zip(blocks).all(|(addr, block)| block.contains(*addr)));
            }
            prop_assert!(client.seats.contains_key(&client.gateway));
        }
    }
    Ok(())
}

/// No traffic is in two scopes of a node, no node is its own exit, and every scope has a way or takes any.
fn check_scopes(registry: &Registry) -> Result<(), TestCaseError> {
    for node in registry.nodes() {
        prop_assert!(node.is_live() || (node.exit.is_none() && node.scopes.is_empty()));
        let all: Vec<_> = node.scopes.values().flat_map(|scope| &scope.of).collect();
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "traffic in two scopes");
        for scope in node.scopes.values() {
            prop_assert!(scope.auto || !scope.exits.is_empty());
            prop_assert!(!scope.exits.contains(&node.id));
            let of_its_network =
                |exit: &NodeId| registry.node(*exit).is_some_and(|exit| exit.net == node.net);
            prop_assert!(scope.exits.iter().all(of_its_network));
        }
    }
    Ok(())
}

#[test]
fn addresses_of_removed_nodes_are_never_reused() {
    let (mut registry, secret) = home();
    for key in 1..=6 {
        let id = join(&mut registry, secret, key).unwrap();
        let addr: IpAddr = format!("10.80.0.{key}").parse().unwrap();
        assert_eq!(registry.node(id).unwrap().addresses[0], addr);
        registry.apply(registry.remove_node("home", &id.to_string(), false, &MOMENT).unwrap().0);
    }
    let error = join(&mut registry, secret, 7).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Exhausted { prefix, .. } if *prefix == p("10.80.0.0/29")),
        "{error}"
    );
}

#[test]
fn default_prefix_avoids_known_prefixes() {
    let mut registry = Registry::default();
    registry.apply(registry.set_control(["10.71.0.1:8883".parse::<SocketAddr>().unwrap()].into()));
    for number in 0..8 {
        let name = format!("net{number}");
        let mut moment = MOMENT;
        moment.entropy[0] = number;
        let (rows, network) = registry.create_network(&spec(&name), &moment).unwrap();
        assert!(!network.prefix4.overlaps(&p("10.71.0.0/16")), "the coordinator is there");
        assert!(network.prefix6.overlaps(&p("fd00::/8")) && network.prefix6.len() == 64);
        registry.apply(rows);
    }
    let prefixes: BTreeSet<_> = registry.networks().flat_map(Network::prefixes).collect();
    assert_eq!(prefixes.len(), 16, "alike in all that prefixes are made of, and yet each has its own");
}

#[test]
fn overlay_prefix_out_of_range_is_refused() {
    let registry = Registry::default();
    for (text, ipv4) in [
        ("10.0.0.0/30", true),
        ("10.0.0.0/7", true),
        ("0.0.0.0/8", true),
        ("127.0.0.0/8", true),
        ("169.254.0.0/16", true),
        ("224.0.0.0/8", true),
        ("240.0.0.0/8", true),
        ("fd00::/64", true),
        ("fe80::/64", false),
        ("ff00::/64", false),
        ("fd00::/121", false),
        ("10.0.0.0/16", false),
    ] {
        let Ok(prefix) = text.parse() else { continue };
        let (prefix4, prefix6) = if ipv4 { (Some(prefix), None) } else { (None, Some(prefix)) };
        let error =
            registry.create_network(&NetworkSpec { prefix4, prefix6, ..spec("x") }, &MOMENT).unwrap_err();
        assert_eq!(error.kind(), "bad-prefix", "{text}");
    }
}

#[test]
fn join_with_invalid_code_is_refused_with_the_reason() {
    let (mut registry, _) = home();
    let once = CodeSpec { uses: 1, expires_in: 60, roles: BTreeSet::new() };
    let (rows, (code, secret)) = registry.create_code("home", &once, &moment(9)).unwrap();
    registry.apply(rows);
    let late = Moment { now: 1060, ..moment(1) };
    let refused = |registry: &Registry, moment: &Moment| {
        registry.join(&request(secret, 20, 0, 0), None, moment).unwrap_err().kind()
    };
    assert_eq!(refused(&registry, &late), "code-expired");
    join(&mut registry, secret, 1).unwrap();
    assert_eq!(refused(&registry, &late), "code-used");
    registry.apply(registry.revoke_code("home", &code.id.to_string(), &MOMENT).unwrap().0);
    assert_eq!(refused(&registry, &late), "code-revoked");
    assert_eq!(registry.join(&request([0; 16], 20, 0, 0), None, &MOMENT).unwrap_err().kind(), "code-unknown");
}

#[test]
fn taken_node_name_gets_a_number_that_fits() {
    let (mut registry, secret) = home();
    let long = "a".repeat(63);
    let mut names = Vec::new();
    for key in 1..=3 {
        let request =
            gatewrt_protocol::JoinRequest { name: long.parse().unwrap(), ..request(secret, key, 0, key) };
        let (rows, id) = registry.join(&request, None, &moment(key)).unwrap();
        registry.apply(rows);
        names.push(registry.node(id).unwrap().name.to_string());
    }
    assert_eq!(names, [long.clone(), format!("{}-2", &long[..61]), format!("{}-3", &long[..61])]);
}

#[test]
fn first_report_with_equal_facts_changes_nothing() {
    let (mut registry, secret) = home();
    let seen: IpAddr = "198.51.100.4".parse().unwrap();
    let (rows, id) = registry.join(&request(secret, 1, 0, 1), Some(seen), &MOMENT).unwrap();
    registry.apply(rows);
    let mut same = report(id, 1, 2);
    same.interfaces.clear();
    assert_eq!(registry.update_facts(id, &same, Some(seen)), Vec::new());
    assert_eq!(registry.update_facts(id, &same, None), Vec::new());
    let kinds: Vec<_> = registry.node(id).unwrap().facts.candidates(&[]).iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EndpointKind::Wan, EndpointKind::Observed]);
}

#[test]
fn candidate_endpoints_are_sorted_unique_and_usable() {
    let at = |text: &str, kind| Endpoint { addr: text.parse().unwrap(), kind };
    let facts = Facts {
        port: 51820,
        endpoints: vec![
            at("192.168.1.1:51820", EndpointKind::Lan),
            at("203.0.113.9:51820", EndpointKind::Wan),
        ],
        seen4: Some("203.0.113.9".parse().unwrap()),
        ..Facts::default()
    };
    assert_eq!(
        facts.candidates(&[]),
        [facts.endpoints[1].clone(), facts.endpoints[0].clone()],
        "seen there already"
    );
    assert_eq!(
        facts.candidates(&[p("203.0.113.0/24")]),
        [facts.endpoints[0].clone()],
        "not through the tunnel itself"
    );

    let mut stated = report(NodeId::from_entropy([1; 10]), 1, 1);
    stated.endpoints = vec![
        at("203.0.113.1:1", EndpointKind::Stun),
        at("203.0.113.1:1", EndpointKind::Configured),
        at("203.0.113.1:0", EndpointKind::Wan),
        at("127.0.0.1:1", EndpointKind::Wan),
        at("[fe80::1]:1", EndpointKind::Lan),
        at("[ff02::1]:1", EndpointKind::Lan),
        at("0.0.0.0:1", EndpointKind::Wan),
    ];
    stated.endpoints.extend((0..100).map(|n| at(&format!("192.0.2.{n}:9"), EndpointKind::Lan)));
    let facts = Facts::default().updated(&stated, Some("192.168.7.7".parse().unwrap()));
    let candidates = facts.candidates(&[]);
    assert_eq!(candidates[0], at("203.0.113.1:1", EndpointKind::Configured));
    assert_eq!(candidates.len(), 12);
    assert!(
        candidates[1..].iter().all(|endpoint| endpoint.kind == EndpointKind::Lan),
        "a private source is no endpoint"
    );
}

#[test]
fn overlapping_lans_are_warned_of() {
    let (mut registry, secret) = home();
    let (one, two) = (join(&mut registry, secret, 1).unwrap(), join(&mut registry, secret, 2).unwrap());
    let cabin = NodePatch { name: Some("cabin".parse().unwrap()), ..NodePatch::default() };
    registry.apply(registry.change_node("home", &two.to_string(), &cabin).unwrap().0);
    let setting = EgressSetting { nat: true, metric: 0 };
    registry.apply(registry.set_egress("home", &one.to_string(), p("192.168.0.0/16"), setting).unwrap().0);
    registry.apply(registry.update_facts(two, &report(two, 2, 2), None));
    let net = registry.find_network("home").unwrap().id;
    let warnings = registry.warnings(net).join("\n");
    assert!(warnings.contains("192.168.1.0/24 on br-lan of cabin"), "{warnings}");
    registry.apply(registry.update_facts(two, &report(two, 2, 1), None));
    let warnings = registry.warnings(net).join("\n");
    assert!(warnings.contains("overlaps the network's own 10.80.0.0/29"), "{warnings}");
}

#[test]
fn egress_covering_what_an_admin_has_set_is_refused() {
    let (mut registry, secret) = home();
    registry.apply(registry.set_control(["198.18.5.1:8883".parse::<SocketAddr>().unwrap()].into()));
    let (one, two) = (join(&mut registry, secret, 1).unwrap(), join(&mut registry, secret, 2).unwrap());
    let stated = IngressSpec { endpoint: Some("198.51.100.7:51820".into()), ..IngressSpec::default() };
    registry.apply(registry.set_ingress("home", &two.to_string(), &stated).unwrap().0);
    let set = |node: NodeId, prefix: &str| {
        let setting = EgressSetting { nat: false, metric: 0 };
        registry
            .set_egress("home", &node.to_string(), p(prefix), setting)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(set(one, "192.168.1.0/24"), Ok(()));
    for (prefix, parts) in [
        ("198.51.100.0/24", ["node node-0 of network home", "198.51.100.7:51820, where clients reach node"]),
        (
            "198.18.0.0/16",
            ["node node-0 of network home", "198.18.5.1:8883, where this coordinator is reached"],
        ),
        ("10.80.0.0/16", ["node node-0 of network home", "the addresses of network home"]),
    ] {
        let said = set(one, prefix).unwrap_err();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    assert!(set(two, "0.0.0.0/0").unwrap_err().contains("default route"));
}

/// Reports any endpoints and LANs.
fn claims(registry: &mut Registry, node: NodeId, endpoints: &[&str], lans: &[&str]) {
    let endpoint = |text: &&str| Endpoint { addr: text.parse().unwrap(), kind: EndpointKind::Wan };
    let mut said = report(node, 1, 1);
    said.endpoints = endpoints.iter().map(endpoint).collect();
    let interface = |(number, prefixes): (usize, &[&str])| InterfaceReport {
        name: format!("lan{number}"),
        kind: InterfaceKind::Lan,
        prefixes: prefixes.iter().map(|lan| p(lan)).collect(),
    };
    said.interfaces = lans.chunks(16).enumerate().map(interface).collect();
    registry.apply(registry.update_facts(node, &said, None));
}

#[test]
fn invented_endpoints_and_lans_refuse_nothing_and_are_warned_of() {
    let (mut registry, secret) = home();
    let (one, liar) = (join(&mut registry, secret, 1).unwrap(), join(&mut registry, secret, 2).unwrap());
    let patch = NodePatch { name: Some("liar".parse().unwrap()), ..NodePatch::default() };
    registry.apply(registry.change_node("home", &liar.to_string(), &patch).unwrap().0);
    claims(
        &mut registry,
        liar,
        &["192.168.5.1:51820", "10.90.0.1:1", "[fd90::1]:1"],
        &["192.168.5.0/24", "10.91.0.0/16"],
    );
    let setting = EgressSetting { nat: true, metric: 0 };
    let (rows, node) = registry.set_egress("home", &one.to_string(), p("192.168.5.0/24"), setting).unwrap();
    registry.apply(rows);
    let said = registry.node_warnings(&node);
    assert_eq!(
        said,
        [
            "192.168.5.0/24 served by node-0 overlaps 192.168.5.0/24 on lan0 of liar: hosts there will not reach it",
            "192.168.5.0/24 served by node-0 holds 192.168.5.1:51820, where liar says that it is reached",
        ]
    );
    assert_eq!(registry.warnings(node.net), said);
    let liar = registry.node(liar).unwrap();
    assert_eq!(registry.node_warnings(liar), said, "and at the node that says so");

    let (prefix4, prefix6) = (Some(p("10.90.0.0/15")), Some(p("fd90::/64")));
    let spec = NetworkSpec { prefix4, prefix6, ..spec("other") };
    let (rows, network) = registry.create_network(&spec, &moment(9)).unwrap();
    registry.apply(rows);
    assert_eq!(
        registry.network_warnings(&network),
        [
            "10.90.0.0/15 overlaps 10.91.0.0/16 on lan0 of liar of network home: hosts there can't reach this network",
            "10.90.0.0/15 holds 10.90.0.1:1, where liar of network home says that it is reached",
            "fd90::/64 holds [fd90::1]:1, where liar of network home says that it is reached",
        ]
    );
    assert!(registry.warnings(network.id).is_empty(), "they are another network's affairs");
}

#[test]
fn own_address_inside_its_own_prefix_is_no_warning() {
    let (mut registry, secret) = home();
    let node = join(&mut registry, secret, 1).unwrap();
    // Behind a provider's box, whose LAN it serves.
    claims(&mut registry, node, &["192.168.0.2:51820"], &["192.168.0.0/24"]);
    let setting = EgressSetting { nat: true, metric: 0 };
    let (rows, node) = registry.set_egress("home", &node.to_string(), p("192.168.0.0/24"), setting).unwrap();
    registry.apply(rows);
    assert!(registry.node_warnings(&node).is_empty());
}

#[test]
fn claims_of_one_node_drown_no_others() {
    let (mut registry, secret) = home();
    let ids: Vec<_> = (1..=3).map(|key| join(&mut registry, secret, key).unwrap()).collect();
    let lans: Vec<String> = (0..=255).map(|number| format!("192.168.{number}.0/24")).collect();
    claims(&mut registry, ids[1], &["192.168.7.1:1"], &lans.iter().map(String::as_str).collect::<Vec<_>>());
    claims(&mut registry, ids[2], &["192.168.7.2:2"], &[]);
    let setting = EgressSetting { nat: true, metric: 0 };
    let (rows, node) =
        registry.set_egress("home", &ids[0].to_string(), p("192.168.0.0/16"), setting).unwrap();
    registry.apply(rows);
    for warnings in [registry.node_warnings(&node), registry.warnings(node.net)] {
        assert!(warnings.len() < 20, "{} warnings", warnings.len());
        assert!(warnings.iter().any(|warning| warning.contains("192.168.7.2:2")), "{warnings:?}");
    }
}

#[test]
fn default_prefix_is_found_though_all_are_claimed() {
    let (mut registry, secret) = home();
    let liar = join(&mut registry, secret, 1).unwrap();
    let create = |registry: &Registry| registry.create_network(&spec("other"), &moment(3)).unwrap().1;
    let first = create(&registry).prefix4;
    claims(&mut registry, liar, &[], &[&first.to_string()]);
    let second = create(&registry).prefix4;
    assert!(!second.overlaps(&first), "{second} is free of claims");
    claims(&mut registry, liar, &[&format!("{}:1", second.nth(1).unwrap())], &[&first.to_string()]);
    let third = create(&registry).prefix4;
    assert!(!third.overlaps(&first) && !third.overlaps(&second), "{third} is free of claims");
    claims(&mut registry, liar, &[], &["10.0.0.0/8", "fd00::/8"]);
    let network = create(&registry);
    assert_eq!(network.prefix4, first, "as if nobody had said anything");
    assert!(!registry.network_warnings(&network).is_empty());
}

#[test]
fn generated_operations_join_nodes() {
    let mut world = World::default();
    world.step(&Op::CreateNetwork(0, None));
    world.step(&Op::CreateCode(0, 3));
    let step = world.step(&Op::Join { code: 0, key: 1, name: 0, endpoint: 0 });
    assert!(step.joined.is_some() && step.records.len() == 3, "{step:?}");
}

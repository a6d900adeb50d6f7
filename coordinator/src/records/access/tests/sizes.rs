//! Size of many rules on the wire, and the time to compute them.

use super::*;
use crate::{
    registry::{EgressSetting, Rule},
    testing::Op,
};
use gatewrt_protocol::{ClientId, MAX_ASSIGNMENT, RuleId, Signer};
use std::time::Instant;

const RULES: u16 = 1000;
const SITE: &str = "192.168.0.0/16";

/// A node that lets in as many clients as there are rules, and one that serves a prefix.
fn world() -> World {
    let mut world = World::default();
    for op in [
        Op::CreateNetwork(0, None),
        Op::CreateCode(0, 9),
        Op::Join { code: 0, key: 0, name: 0, endpoint: 0 },
        Op::SetIngress { node: 0, endpoint: true },
        Op::AddClient { node: 0, other: 0, key: 20, name: 5, expires: None, prefix: None },
        Op::Join { code: 0, key: 1, name: 1, endpoint: 1 },
        Op::Access(AccessOp::Default { net: 0, deny: true }),
    ] {
        assert_eq!(world.step(&op).refused, None, "{op:?}");
    }
    let one = world.registry.clients().next().unwrap().clone();
    for (node, served) in [("node-0", "172.20.0.0/16"), ("node-1", SITE)] {
        let mut node = node_of(&world, node);
        node.egress = [(served.parse().unwrap(), EgressSetting { nat: false, metric: 0 })].into();
        world.registry.apply(vec![Row::Node(node.id, Some(Box::new(node)))]);
    }
    for number in 0..RULES {
        let id = client(number);
        let seat = |addr: &IpAddr| Prefix::containing(*addr, if addr.is_ipv4() { 16 } else { 112 }).unwrap();
        let seats = one.addresses().iter().map(|addr| seat(addr).nth(2000 + 2 * u128::from(number)).unwrap());
        let seats = BTreeMap::from([(one.gateway, seats.collect())]);
        let name = format!("phone-{number}").parse().unwrap();
        let tags = [format!("t{}", number % 10).parse().unwrap()].into();
        let client = Client { id, name, tags, seats, ..one.clone() };
        world.registry.apply(vec![Row::Client(id, Some(Box::new(client)))]);
    }
    world
}

fn node_of(world: &World, name: &str) -> Node {
    world.registry.nodes().find(|node| node.name.as_str() == name).unwrap().clone()
}

fn client(number: u16) -> ClientId {
    let [high, low] = number.to_be_bytes();
    ClientId::from_entropy([9, 9, high, low, 0, 0, 0, 0, 0, 0])
}

/// The signed assignment, with these rules, of the node that serves the prefix, in bytes.
fn size(
    what: &str,
    count: u16,
    verdict: Verdict,
    rule: impl Fn(u16) -> (Selector, Selector, Service),
) -> usize {
    let mut world = world();
    let node = node_of(&world, "node-1");
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let (from, to, service) = rule(number);
        let rule = Rule {
            id: RuleId::from_entropy([high, low, 0, 0, 0, 0, 0, 0, 0, 0]),
            net: node.net,
            verdict,
            from: vec![from],
            to: vec![to],
            services: vec![service],
            enabled: true,
            note: String::new(),
            created: 0,
        };
        world.registry.apply(vec![Row::Rule(rule.id, Some(rule))]);
    }
    let start = Instant::now();
    let access = Rules::of(&world.registry, node.net).at(&node);
    let took = start.elapsed();
    let Some(Content::Assignment(assignment)) = world.published.content(&Topic::Assignment(node.id)) else {
        panic!("a live node has an assignment");
    };
    let assignment = gatewrt_protocol::Assignment { access, ..assignment.clone() };
    let signer = Signer::from_seed(&[1; 32]);
    let signed =
        signer.sign_bytes(gatewrt_protocol::Kind::Assignment, &serde_json::to_vec(&assignment).unwrap());
    let access = &assignment.access;
    println!(
        "{what}: {count} rules are {} on the wire, {} sets, {} prefixes, {} bytes signed, worked out in {took:?}",
        access.rules.len(),
        access.sets.len(),
        access.sets.iter().map(Vec::len).sum::<usize>(),
        signed.len()
    );
    signed.len()
}

fn host(text: &str, number: u16) -> Selector {
    Selector::Prefix(Prefix::host(text.parse::<Prefix>().unwrap().nth(u128::from(number) * 2).unwrap()))
}

#[test]
fn assignment_with_a_thousand_rules_fits_the_size_limit() {
    let port = |port| Service { proto: Proto::Tcp, first: port, last: port };
    let tag = |number: u16| Selector::Tag(format!("t{}", number % 10).parse().unwrap());
    let (allow, deny) = (Verdict::Allow, Verdict::Deny);
    let each = |number| (Selector::Client(client(number)), host(SITE, 3), port(443));
    let tags = |number| (tag(number), host(SITE, number / 10), port(443));
    let hosts = |number| (Selector::Client(client(number)), host(SITE, number), port(443));
    let pairs = |number| (host("172.20.0.0/16", number), host(SITE, number), port(number + 1000));
    for bytes in [
        size("each client to one service", RULES, allow, each),
        size("ten tags to a hundred hosts", RULES, allow, tags),
        size("each client to a host of its own", RULES, allow, hosts),
        size("hosts to hosts, each by a port of its own", RULES, allow, pairs),
        // No more of these: a rule that denies is longer, and nothing of them can be joined.
        size("hosts from hosts, each by a port of its own", 900, deny, pairs),
    ] {
        assert!(bytes < MAX_ASSIGNMENT, "{bytes} bytes");
    }
}

#[test]
fn check_of_one_client_with_a_thousand_rules_is_answered() {
    let mut world = world();
    let site = node_of(&world, "node-1");
    for number in 0..RULES {
        let [high, low] = number.to_be_bytes();
        let rule = Rule {
            id: RuleId::from_entropy([high, low, 0, 0, 0, 0, 0, 0, 0, 0]),
            net: site.net,
            verdict: Verdict::Allow,
            from: vec![Selector::Client(client(7))],
            to: vec![host(SITE, number)],
            services: vec![Service { proto: Proto::Tcp, first: number + 1, last: number + 1 }],
            enabled: true,
            note: String::new(),
            created: 0,
        };
        world.registry.apply(vec![Row::Rule(rule.id, Some(rule))]);
    }
    let start = Instant::now();
    let ask = |to, service| world.registry.check("net0", "phone-7", to, service, world.now).unwrap();
    let all = ask("site:node-1", None);
    println!("{RULES} rules: answered in {:?}", start.elapsed());
    assert!(!all.allowed && all.why.contains("matches the rest"), "{}", all.why);
    assert!(ask("192.168.0.10", "tcp/6".parse().ok()).allowed);
    assert!(!ask("192.168.0.10", "tcp/7".parse().ok()).allowed);
}

use super::*;
use crate::{
    apply::apply,
    config::Config,
    core::{
        Membership, Now,
        desired::decide,
        gateways::{Candidate, Service},
    },
    kernel::{Kernel, fake::FakeKernel},
    model::{Address, ForeignRoute, Link, LinkKind, ObserveQuery, SysctlPath, WgSecret},
    plan::{Plan, Step},
};
use gatewrt_protocol::{
    Access, Assignment, ExitOffer, ExitScope, Failure, Member, MemberUpdate, NetworkId, NetworkName, Policy,
    Role, ServedPrefix, Signer, Topic,
};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use sorted_vec::SortedSet;

const NET: NetworkId = NetworkId::from_entropy([1; 10]);

fn node(number: u8) -> NodeId {
    NodeId::from_entropy([number; 10])
}

fn key(number: u8) -> WgPublicKey {
    WgPublicKey([number; 32])
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn link(text: &str) -> IfName {
    IfName::new(text).expect("a name")
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32])
}

/// A scope and the exit that the gateways choose for it.
#[derive(Debug, Clone)]
struct Wish {
    scope: ExitScope,
    exit: Option<u8>,
}

fn wish(name: &str, of: &[&str], exit: Option<u8>) -> Wish {
    let of = of.iter().map(|text| text.parse().expect("traffic")).collect();
    Wish { scope: ExitScope::auto(name.parse().expect("a tag"), of), exit }
}

/// A router with two LANs, a WAN with IPv4 and IPv6, and the nodes 2 to 4: 2 and 3 are exits of both families, 4 of
/// IPv4 alone.
struct Router {
    config: Config,
    network: Network,
    kernel: FakeKernel,
    before: Desired,
    rev: u64,
    exit: Option<ExitOffer>,
}

impl Router {
    fn new() -> Self {
        let mut kernel = FakeKernel::default();
        for (at, name) in (1..).zip(["wan", "br-lan", "br-guest"]) {
            let it = Link { index: at, kind: LinkKind::Other, up: true, mtu: 1500 };
            kernel.state.links.insert(link(name), it);
        }
        for (text, name) in [("192.168.7.1", "br-lan"), ("192.168.8.1", "br-guest"), ("198.51.100.2", "wan")]
        {
            let address = Address { link: link(name), addr: text.parse().expect("v4"), len: 24 };
            kernel.state.addresses.push(address);
        }
        for (text, name) in [("2001:db8:7::1", "br-lan"), ("2001:db8:f::2", "wan")] {
            let address = Address { link: link(name), addr: text.parse().expect("v6"), len: 64 };
            kernel.state.addresses.push(address);
        }
        for (text, name, on_link) in [
            ("0.0.0.0/0", "wan", false),
            ("::/0", "wan", false),
            ("198.51.100.0/24", "wan", true),
            ("203.0.113.0/24", "wan", false),
            ("2001:db8:f::/64", "wan", true),
            ("192.168.7.0/24", "br-lan", true),
            ("2001:db8:7::/64", "br-lan", true),
            ("192.168.8.0/24", "br-guest", true),
            ("10.0.0.0/8", "br-lan", false),
            // A route to half of the Internet is no route of a LAN.
            ("128.0.0.0/1", "tun0", true),
        ] {
            let route = ForeignRoute { prefix: prefix(text), link: Some(link(name)), on_link };
            kernel.state.main_routes.push(route);
        }
        for setting in ["rp_filter", "forwarding"] {
            kernel.link_sysctls.insert(format!("net/ipv4/conf/*/{setting}"), "0".into());
        }
        for path in [
            "net/ipv4/conf/all/src_valid_mark",
            "net/ipv4/fwmark_reflect",
            "net/ipv4/tcp_fwmark_accept",
            "net/ipv6/fwmark_reflect",
            "net/ipv4/conf/wan/forwarding",
            "net/ipv6/conf/all/forwarding",
        ] {
            kernel.state.sysctls.insert(SysctlPath(path.into()), "0".into());
        }
        let network = Network::new(membership(), 3, Now::ZERO);
        let before = Desired::default();
        Self { config: Config::default(), network, kernel, before, rev: 0, exit: None }
    }

    /// Assigns these scopes, and sets the exits that are chosen for them.
    fn want(&mut self, wishes: &[Wish]) {
        self.rev += 1;
        let assignment = Assignment {
            net: NET,
            node: node(1),
            rev: self.rev,
            name: "one".parse().expect("a name"),
            addresses: vec!["10.90.0.1".parse().expect("v4"), "fd90::1".parse().expect("v6")],
            egress: Vec::new(),
            ingress: None,
            exit: self.exit.clone(),
            scopes: wishes.iter().map(|wish| wish.scope.clone()).collect(),
            confirm_s: None,
            attempt: 0,
            access: Access::default(),
            control: Vec::new(),
        };
        let token = signer().sign(&assignment).expect("short");
        let topic = Topic::Assignment(node(1)).to_string();
        self.network.directory.accept(&topic, token.as_bytes()).expect("taken");
        let service = |wish: &Wish| {
            let candidate = wish.exit.map(|number| Candidate { rank: 0, node: node(number) });
            (Service::Scope(wish.scope.name.clone()), candidate.into_iter().collect())
        };
        self.network.gateways.handle_services(wishes.iter().map(service).collect(), Now::ZERO);
    }

    fn observe(&mut self) -> Observed {
        let sysctls = self.kernel.state.sysctls.keys().cloned().collect();
        let tunnels = self.kernel.state.links.keys().cloned().collect();
        self.kernel
            .observe(&ObserveQuery { sysctls, tunnels, tables: [52].into_iter().collect() })
            .expect("a kernel")
    }

    fn decide(&mut self) -> (Plan, Vec<Failure>) {
        let observed = self.observe();
        let name: NetworkName = "home".parse().expect("a name");
        let networks = [(&name, &self.network)].into_iter().collect();
        let wanted = decide(&self.config, &networks, SortedSet::new(), &observed, &self.before);
        self.before = wanted.desired;
        (
            Plan::new(&observed, &self.before),
            wanted.failures.into_iter().flat_map(|(_, failures)| failures).collect(),
        )
    }

    /// Applies plans until nothing is left to do, and calls `look` after each step.
    fn settle(&mut self, mut look: impl FnMut(&FakeKernel, &Step)) {
        for _ in 0..4 {
            let (plan, _) = self.decide();
            if plan.is_empty() {
                return;
            }
            for step in plan.steps {
                let failed = apply(&mut self.kernel, &Plan { steps: vec![step.clone()] });
                assert!(failed.is_empty(), "{failed:?}");
                look(&self.kernel, &step);
            }
        }
        panic!("no end: {}", self.decide().0);
    }

    fn with(wishes: &[Wish]) -> Self {
        let mut router = Self::new();
        router.want(wishes);
        router.settle(|_, _| {});
        router
    }

    fn way(&self, from: From, dst: &str) -> Way {
        way(&self.kernel.state, from, dst.parse().expect("an address"), 0)
    }
}

fn membership() -> Membership {
    let policy = Policy {
        net: NET,
        rev: 1,
        name: "home".parse().expect("a name"),
        prefixes: vec![prefix("10.90.0.0/16"), prefix("fd90::/64")],
        mtu: 1420,
        keepalive: 25,
        domain: String::new(),
        brokers: Vec::new(),
    };
    let member = |number: u8| {
        let member = MemberUpdate::Member(Member {
            net: NET,
            node: node(number),
            rev: 1,
            name: format!("n{number}").parse().expect("a name"),
            key: key(number),
            addresses: vec![format!("10.90.0.{number}").parse().expect("v4")],
            endpoints: Vec::new(),
            prefixes: vec![ServedPrefix { prefix: prefix(&format!("172.16.{number}.0/24")), metric: 0 }],
            clients: if number == 1 { vec![prefix("10.90.1.0/24")] } else { Vec::new() },
            exit: Some(ExitOffer { v4: true, v6: number < 4, dns: vec!["9.9.9.9".parse().expect("v4")] }),
        });
        (Topic::Member(NET, node(number)).to_string(), signer().sign(&member).expect("short"))
    };
    let policy = (Topic::Policy(NET).to_string(), signer().sign(&policy).expect("short"));
    Membership {
        network: "home".parse().expect("a name"),
        net: NET,
        node: node(1),
        name: "one".parse().expect("a name"),
        record_key: signer().public(),
        secret: WgSecret([1; 32]),
        public: key(1),
        port: 51820,
        brokers: Vec::new(),
        stored: [policy, member(1), member(2), member(3), member(4)].into_iter().collect(),
        chosen: None,
    }
}

/// Sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Router,
    /// Host on this interface, with this last number in its IPv4 or IPv6 address.
    Lan(&'static str, u8),
}

/// Way that a packet takes.
#[derive(Debug, Clone, PartialEq)]
enum Way {
    Nowhere,
    Peer(u8),
    Link(String),
}

/// Way of a packet as the kernel looks it up: rule by rule, in each table the longest prefix and the least metric, and
/// in WireGuard the peer with the longest prefix.
fn way(state: &Observed, from: From, dst: IpAddr, mark: u32) -> Way {
    let family = if dst.is_ipv4() { Family::V4 } else { Family::V6 };
    let (iif, src): (&str, Option<IpAddr>) = match from {
        From::Router => ("lo", None),
        From::Lan(iif, host) if dst.is_ipv4() => {
            let lan = if iif == "br-lan" { 7 } else { 8 };
            (iif, format!("192.168.{lan}.{host}").parse().ok())
        }
        From::Lan(iif, host) => (iif, format!("2001:db8:7::{host}").parse().ok()),
    };
    let mut rules: Vec<&Rule> = state.rules.iter().filter(|rule| rule.family == family).collect();
    rules.sort_by_key(|rule| rule.priority);
    let mut from_priority = 0;
    for rule in rules
        .iter()
        .filter(|rule| rule.table < Rule::SKIP || rules.iter().any(|it| Some(it.priority) == rule.skips_to()))
    {
        let matches = (mark & rule.mask == rule.mark)
            && rule.iif.as_ref().is_none_or(|it| it.as_str() == iif)
            && rule.from.is_none_or(|from| src.is_some_and(|src| from.contains(src)));
        if matches == rule.invert || rule.priority < from_priority {
            continue;
        }
        if let Some(priority) = rule.skips_to() {
            from_priority = priority;
            continue;
        }
        let routes = state.routes.iter().filter(|it| it.table == rule.table && it.prefix.contains(dst));
        match routes.min_by_key(|it| (Reverse(it.prefix.len()), it.metric)).map(|route| &route.kind) {
            None | Some(RouteKind::Throw) => {}
            Some(RouteKind::Blackhole) => return Way::Nowhere,
            Some(RouteKind::Device(link)) => return through(&state.devices[link], dst),
        }
    }
    let main = state.main_routes.iter().filter(|it| it.prefix.contains(dst));
    let main = main.max_by_key(|it| it.prefix.len()).and_then(|it| it.link.clone());
    main.map_or(Way::Nowhere, |link| Way::Link(link.to_string()))
}

fn through(device: &WgDevice, dst: IpAddr) -> Way {
    let prefixes = device.peers.iter().flat_map(|(key, peer)| peer.allowed.iter().map(move |it| (it, key)));
    let held = prefixes.filter(|(prefix, _)| prefix.contains(dst)).max_by_key(|(prefix, _)| prefix.len());
    held.map_or(Way::Nowhere, |(_, key)| Way::Peer(key.0[0]))
}

const HOST: From = From::Lan("br-lan", 9);
const OTHER: From = From::Lan("br-lan", 77);
const GUEST: From = From::Lan("br-guest", 9);
const WAN: &str = "8.8.8.8";
const WAN6: &str = "2606:4700::1111";

fn out() -> Way {
    Way::Link("wan".into())
}

#[test]
fn traffic_goes_through_the_exit_except_local_destinations() {
    let router = Router::with(&[wish("all", &["all"], Some(2))]);
    for from in [From::Router, HOST, GUEST] {
        for dst in [WAN, WAN6, "203.0.113.9", "129.0.0.1"] {
            assert_eq!(router.way(from, dst), Way::Peer(2), "{from:?} {dst}");
        }
        for (dst, link) in [("192.168.7.5", "br-lan"), ("10.1.1.1", "br-lan"), ("2001:db8:7::5", "br-lan")] {
            assert_eq!(router.way(from, dst), Way::Link(link.into()), "{from:?} {dst}");
        }
        assert_eq!(router.way(from, "10.90.0.3"), Way::Peer(3));
        assert_eq!(router.way(from, "172.16.4.4"), Way::Peer(4));
    }
    // The provider's gateway and resolver: the router itself reaches them over the WAN, a scope through its exit.
    for dst in ["198.51.100.1", "2001:db8:f::1"] {
        assert_eq!(router.way(From::Router, dst), out());
        assert_eq!(router.way(HOST, dst), Way::Peer(2));
    }
    for dst in [WAN, WAN6] {
        let marked = router.config.numbers.bypass;
        assert_eq!(way(&router.kernel.state, From::Router, dst.parse().expect("valid"), marked), out());
    }
    let home = &router.kernel.state.devices[&link("gw-home")];
    assert!(home.peers[&key(2)].allowed.contains(&prefix("::/0")));
    let value = |path: &str| router.kernel.state.sysctls[&SysctlPath(path.into())].as_str();
    assert_eq!(value("net/ipv4/conf/gw-home/rp_filter"), "2");
    assert_eq!(value("net/ipv4/conf/gw-home/forwarding"), "1");
}

#[test]
fn scope_without_exit_is_blocked_or_on_the_wan() {
    let mut router = Router::with(&[wish("all", &["all"], None)]);
    for from in [From::Router, HOST, GUEST] {
        assert_eq!((router.way(from, WAN), router.way(from, WAN6)), (Way::Nowhere, Way::Nowhere));
        assert_eq!(router.way(from, "192.168.7.5"), Way::Link("br-lan".into()));
    }
    let mut open = wish("all", &["all"], None);
    open.scope.open = true;
    router.want(&[open]);
    router.settle(|_, _| {});
    for from in [From::Router, HOST, GUEST] {
        assert_eq!((router.way(from, WAN), router.way(from, WAN6)), (out(), out()));
    }
    assert!(router.kernel.state.routes.iter().all(|route| route.kind != RouteKind::Blackhole));
}

#[test]
fn ipv6_without_exit_is_blocked_or_on_the_wan() {
    for (open, v6_wan, expected) in
        [(false, false, Way::Nowhere), (true, false, Way::Nowhere), (false, true, out()), (true, true, out())]
    {
        let mut all = wish("all", &["all"], Some(4));
        (all.scope.open, all.scope.v6_wan) = (open, v6_wan);
        let router = Router::with(&[all]);
        assert_eq!((router.way(HOST, WAN), router.way(HOST, WAN6)), (Way::Peer(4), expected));
    }
}

#[test]
fn most_specific_scope_takes_a_packet() {
    let router = Router::with(&[
        wish("all", &["all"], Some(2)),
        wish("own", &["router"], Some(3)),
        wish("lan", &["dev:br-lan"], None),
        wish("net", &["192.168.7.64/26", "192.168.9.0/24"], Some(3)),
        wish("tv", &["192.168.7.9"], Some(4)),
    ]);
    for (from, expected) in [
        (HOST, Way::Peer(4)),
        (OTHER, Way::Peer(3)),
        (From::Lan("br-lan", 5), Way::Nowhere),
        (GUEST, Way::Peer(2)),
        (From::Router, Way::Peer(3)),
    ] {
        assert_eq!(router.way(from, WAN), expected, "{from:?}");
    }
    let others: Vec<_> = secondary_links(&router.kernel.state).collect();
    assert_eq!(others.len(), 2, "one exit stays on the network's interface: {others:?}");
    // Nodes and the prefixes that they serve are reached at the node itself.
    for number in [2, 3, 4] {
        assert_eq!(router.way(GUEST, &format!("10.90.0.{number}")), Way::Peer(number));
        assert_eq!(router.way(GUEST, &format!("172.16.{number}.1")), Way::Peer(number));
    }
    let exits = &router.before.exits;
    let of = |name: &str| exits.scopes.keys().filter(|(_, tag)| tag.to_string() == name).count();
    assert_eq!((of("all"), of("own"), of("lan")), (2, 1, 1));
    let order: Vec<_> = exits.scopes.keys().map(|(_, tag)| tag.to_string()).collect();
    assert_eq!(order, ["tv", "net", "lan", "own", "all", "all"]);
    assert_eq!(exits.secondary.values().collect::<Vec<_>>(), [&link("gw-home"); 2]);
    assert_eq!(exits.meshes.len(), 3);
    let first = router.config.numbers.exit_priority;
    for (place, _) in exits.scopes.keys() {
        assert!(router.before.rules.iter().any(|rule| rule.priority == first + place));
    }
    let guard = exits.scopes.values().next().expect("one");
    assert!(guard.closed && guard.redirects && guard.resolvers == ["9.9.9.9".parse::<IpAddr>().expect("v4")]);
}

#[test]
fn exit_with_the_default_routes_keeps_them() {
    let one = |exit| wish("own", &["router"], exit);
    let other = wish("lan", &["dev:br-lan"], Some(2));
    let mut router = Router::with(&[one(Some(3))]);
    router.want(&[one(Some(3)), other]);
    router.settle(|_, _| {});
    let names: Vec<_> = secondary_links(&router.kernel.state).cloned().collect();
    assert_eq!(names, [link(&format!("gw-~{:.11}", node(2).to_string()))]);
    assert_eq!(router.way(From::Router, WAN), Way::Peer(3));
    assert_eq!(router.way(HOST, WAN), Way::Peer(2));
    // The secondary interface is deleted with its scope, and the prefixes of its peer return to the network's
    // interface.
    router.want(&[one(Some(3))]);
    router.settle(|_, _| {});
    assert_eq!(secondary_links(&router.kernel.state).count(), 0);
    assert_eq!(router.way(HOST, "10.90.0.2"), Way::Peer(2));
}

#[test]
fn exit_change_is_one_step_and_new_scope_moves_no_table() {
    let mut router = Router::with(&[wish("all", &["all"], Some(2))]);
    let mut steps = Vec::new();
    router.want(&[wish("all", &["all"], Some(3))]);
    router.settle(|_, step| steps.push(step.clone()));
    let of_peers = steps.iter().filter(|step| matches!(step, Step::SetPeers(..))).count();
    let of_routes = |step: &Step| matches!(step, Step::AddRoute(_) | Step::AddRule(_) | Step::DeleteRule(_));
    assert_eq!((of_peers, steps.iter().filter(|step| of_routes(step)).count()), (1, 0), "{steps:?}");
    let before = router.kernel.state.routes.clone();
    router.want(&[wish("all", &["all"], Some(3)), wish("tv", &["192.168.7.9"], None)]);
    router.settle(|_, _| {});
    assert!(before.iter().all(|route| router.kernel.state.routes.contains(route)));
}

#[test]
fn excluded_and_forbidden_prefixes_are_respected() {
    let mut lan = wish("lan", &["dev:br-lan"], Some(2));
    lan.scope.exclude = vec![prefix("203.0.113.0/24")];
    lan.scope.forbid_lan = true;
    let router = Router::with(&[lan]);
    assert_eq!(router.way(HOST, "203.0.113.9"), out());
    assert_eq!(router.way(HOST, "192.168.8.9"), Way::Nowhere);
    assert_eq!(router.way(From::Router, "192.168.7.9"), Way::Link("br-lan".into()));
    let flows = router.before.flows.as_ref().expect("judged");
    assert!(flows.scopes[0].apart.contains(&prefix("203.0.113.0/24")));
    assert!(!flows.scopes[0].apart.contains(&prefix("192.168.8.0/24")));
    assert!(flows.scopes[0].sources.contains(&prefix("192.168.7.0/24")));
}

#[test]
fn destinations_of_foreign_tables_go_the_way_they_want() {
    let mut router = Router::with(&[wish("all", &["all"], Some(2))]);
    for (text, name) in
        [("100.64.0.0/10", "tailscale0"), ("0.0.0.0/0", "tailscale0"), ("192.168.99.0/24", "wan")]
    {
        let route = ForeignRoute { prefix: prefix(text), link: Some(link(name)), on_link: true };
        router.kernel.state.foreign_routes.entry(52).or_default().push(route);
    }
    router.settle(|_, _| {});
    // A throw route: the other program's rules come after ours.
    assert_eq!(router.way(HOST, "100.99.1.1"), out());
    assert_eq!((router.way(HOST, WAN), router.way(HOST, "192.168.99.1")), (Way::Peer(2), Way::Peer(2)));
    assert!(router.before.exits.local[&link("tailscale0")].contains(&prefix("100.64.0.0/10")));
}

#[test]
fn device_that_is_no_lan_is_a_failure() {
    let mut router = Router::new();
    router.want(&[wish("odd", &["dev:wan", "dev:gw-home", "dev:br-lan"], Some(2))]);
    let (_, failures) = router.decide();
    let told: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "take the Internet traffic of dev:wan through an exit",
            "take the Internet traffic of dev:gw-home through an exit"
        ]
    );
}

#[test]
fn lan_with_a_default_route_stays_in_its_scope() {
    for of in ["all", "dev:br-lan"] {
        let mut router = Router::with(&[wish("some", &[of], Some(2))]);
        let fallback =
            ForeignRoute { prefix: prefix("0.0.0.0/0"), link: Some(link("br-lan")), on_link: false };
        router.kernel.state.main_routes.push(fallback);
        router.kernel.state.lans_before.push(link("br-lan"));
        router.settle(|_, _| {});
        assert_eq!(router.way(HOST, WAN), Way::Peer(2), "{of}");
        let exits = &router.before.exits;
        assert!(exits.local[&link("br-lan")].contains(&prefix("192.168.7.0/24")));
        assert_eq!(exits.uplinks, ["br-lan", "wan"].map(link).into_iter().collect());
        // A part of the Internet behind a gateway on the LAN is no local destination.
        let route = ForeignRoute { prefix: prefix("8.8.0.0/16"), link: Some(link("br-lan")), on_link: false };
        router.kernel.state.main_routes.push(route);
        router.settle(|_, _| {});
        assert_eq!(router.way(HOST, WAN), Way::Peer(2), "{of}");
        assert!(!router.before.exits.local[&link("br-lan")].contains(&prefix("8.8.0.0/16")));
    }
}

#[test]
fn prefix_of_a_lan_takes_its_other_family_along() {
    let router = Router::with(&[wish("lan", &["192.168.7.0/24"], Some(2))]);
    assert_eq!((router.way(HOST, WAN), router.way(HOST, WAN6)), (Way::Peer(2), Way::Peer(2)));
    let guard = router.before.exits.scopes.values().next().expect("one");
    assert_eq!(guard.near, [prefix("2001:db8:7::/64")].into_iter().collect());
    // A part of a LAN has no link of its own, and a device that another scope names is that one's.
    let router = Router::with(&[wish("tv", &["192.168.7.64/26"], Some(2))]);
    assert_eq!(router.way(OTHER, WAN6), out());
    let router =
        Router::with(&[wish("lan", &["192.168.7.0/24"], Some(2)), wish("rest", &["dev:br-lan"], Some(3))]);
    assert_eq!((router.way(HOST, WAN), router.way(HOST, WAN6)), (Way::Peer(2), Way::Peer(3)));
}

#[test]
fn exit_lets_the_network_out_but_not_its_own_clients() {
    let mut router = Router::new();
    router.exit = Some(ExitOffer { v4: true, v6: true, dns: Vec::new() });
    router.want(&[]);
    let (_, failures) = router.decide();
    assert!(failures[0].why.contains("allow_exit"), "{failures:?}");
    let guard = |router: &Router| {
        let flows = router.before.flows.clone().expect("judged");
        flows.policies[&link("gw-home")].guard.clone()
    };
    assert!(guard(&router).internet.is_empty());
    let owner = router.config.networks.entry("home".parse().expect("a name")).or_default();
    owner.allowed.push(Role::Exit);
    router.settle(|_, _| {});
    let out = guard(&router);
    let lets = |text: &str| out.internet.iter().any(|net| net.contains(text.parse().expect("an address")));
    assert!(lets("10.90.0.2") && lets("fd90::2") && !lets("10.90.1.5"));
    assert_eq!(out.uplinks, [link("wan")].into_iter().collect());
    let value = |path: &str| router.kernel.state.sysctls[&SysctlPath(path.into())].as_str();
    assert_eq!(value("net/ipv4/conf/gw-home/forwarding"), "1");
    assert_eq!(value("net/ipv6/conf/all/forwarding"), "1");
}

#[test]
fn known_lan_counts_before_its_link_is_up() {
    let numbers = ReservedNumbers::default();
    let rule = |table, iif| Rule {
        family: Family::V4,
        priority: 910,
        mark: 0,
        mask: numbers.mask,
        invert: false,
        table,
        iif: Some(link(iif)),
        from: None,
    };
    let default = |iif| ForeignRoute { prefix: default(Family::V4), link: Some(link(iif)), on_link: false };
    let rules = [rule(26500, "br-lan"), rule(26500, "lo"), rule(26501, "eth1"), rule(900, "theirs")];
    let observed = Observed {
        rules: rules.into_iter().collect(),
        main_routes: [default("eth1")].into_iter().collect(),
        ..Observed::default()
    };
    let before = Desired { rules: [rule(26502, "br-guest")].into_iter().collect(), ..Desired::default() };
    let lans = lans(&observed, &before, &numbers);
    assert_eq!(lans, [link("br-guest"), link("br-lan")].into_iter().collect());
}

fn any_wish(name: &'static str, of: &'static str) -> impl Strategy<Value = Wish> {
    (option::weighted(0.7, 2..5u8), any::<[bool; 3]>()).prop_map(move |(exit, [open, forbid_lan, v6_wan])| {
        let mut wish = wish(name, &[of], exit);
        (wish.scope.open, wish.scope.forbid_lan, wish.scope.v6_wan) = (open, forbid_lan, v6_wan);
        wish
    })
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let all = (
        any_wish("all", "all"),
        any_wish("own", "router"),
        any_wish("lan", "dev:br-lan"),
        any_wish("net", "192.168.7.64/26"),
        any_wish("tv", "192.168.7.9"),
    );
    let all = all.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e]);
    (all, subsequence(vec![0, 1, 2, 3, 4], 0..=5))
        .prop_map(|(all, chosen)| chosen.into_iter().map(|at| all[at].clone()).collect())
}

/// Packets of every kind of sender to every kind of destination.
fn packets() -> Vec<(From, IpAddr)> {
    let to = [WAN, WAN6, "203.0.113.9", "198.51.100.1", "192.168.7.5", "10.90.0.2", "172.16.3.3"];
    let to = to.map(|text| text.parse::<IpAddr>().expect("an address"));
    let from = [From::Router, HOST, OTHER, GUEST];
    from.into_iter().flat_map(|from| to.map(|to| (from, to))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Arbitrary scopes follow each other: between two steps no packet leaves over the WAN that neither did before nor
    /// will afterwards, and marked packets go as if there were no scopes.
    #[test]
    fn no_packet_strays_between_any_two_steps(all in vec(wishes(), 1..4)) {
        let mut router = Router::new();
        router.want(&[]);
        router.settle(|_, _| {});
        let marked = router.config.numbers.bypass;
        for wishes in all {
            let mut ways: Vec<Vec<Way>> = Vec::new();
            let look = |state: &Observed| packets().into_iter().map(|(from, to)| way(state, from, to, 0)).collect();
            ways.push(look(&router.kernel.state));
            router.want(&wishes);
            let mut steps = vec!["(before)".to_owned()];
            router.settle(|kernel, step| {
                for (from, to) in packets() {
                    let free = way(&Observed { rules: SortedSet::new(), ..kernel.state.clone() }, from, to, 0);
                    assert_eq!(way(&kernel.state, from, to, marked), free, "{from:?} {to} after {step}");
                }
                steps.push(step.to_string());
                ways.push(look(&kernel.state));
            });
            let last = ways.len() - 1;
            for (at, now) in ways.iter().enumerate() {
                for (which, packet) in packets().into_iter().enumerate() {
                    let (old, new, now) = (&ways[0][which], &ways[last][which], &now[which]);
                    let strays = *now == out() && now != old && now != new;
                    prop_assert!(
                        !strays,
                        "{packet:?} goes to {now:?}, from {old:?} to {new:?}, after {:#?}", &steps[..=at]
                    );
                }
            }
        }
    }
}

//! Generators of kernels and desired states, so small that they collide.

use gatewrt::{
    kernel::fake::FakeKernel,
    model::{
        Address, Chain, Desired, Family, FirewallTable, Flows, ForeignRoute, ForeignRule, IfName, Link,
        LinkKind, NetworkPolicy, Route, RouteKind, Rule, Ruleset, SavedSysctl, SysctlPath, Tunnel, WgDevice,
        WgPeer, WgSecret, WgSettings,
    },
};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use litemap::LiteMap;
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};
use sorted_vec::SortedSet;
use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

const TABLE: u32 = 26487;
const GLOBAL: [&str; 2] = ["net/ipv4/conf/all/src_valid_mark", "net/ipv6/conf/all/forwarding"];
const PER_LINK: &str = "net/ipv4/conf/*/forwarding";

pub fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub fn eth0() -> IfName {
    name("eth0")
}

/// Tunnels that a desired state may have.
pub fn tunnels() -> Vec<IfName> {
    ["gw-a", "gw-b", "gw-c"].map(name).to_vec()
}

pub fn device(route: &Route) -> Option<&IfName> {
    match &route.kind {
        RouteKind::Device(link) => Some(link),
        RouteKind::Throw | RouteKind::Blackhole => None,
    }
}

pub fn key() -> impl Strategy<Value = WgPublicKey> {
    (1..6u8).prop_map(|n| WgPublicKey([n; 32]))
}

fn prefix() -> impl Strategy<Value = Prefix> {
    select(vec![
        "10.0.0.0/8",
        "10.9.0.1/32",
        "10.9.0.2/32",
        "192.168.1.0/24",
        "192.168.2.0/24",
        "fd00::/8",
        "fd09::1/128",
        "fd09:2::/64",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    select(vec!["198.51.100.1:51820", "[2001:db8::1]:51820"]).prop_map(|text| text.parse().unwrap())
}

fn set<T: Ord + Debug>(
    value: impl Strategy<Value = T>,
    size: Range<usize>,
) -> impl Strategy<Value = SortedSet<T>> {
    btree_set(value, size).prop_map(|set| set.into_iter().collect())
}

fn map<K: Ord + Debug, V: Debug>(
    key: impl Strategy<Value = K>,
    value: impl Strategy<Value = V>,
    size: Range<usize>,
) -> impl Strategy<Value = LiteMap<K, V>> {
    btree_map(key, value, size).prop_map(|map| map.into_iter().collect())
}

pub fn peer() -> impl Strategy<Value = WgPeer> {
    let psk = option::of((1..3u8).prop_map(|n| PresharedKey([n; 32])));
    (option::of(endpoint()), set(prefix(), 0..4), select(vec![0, 25]), psk)
        .prop_map(|(endpoint, allowed, keepalive, psk)| WgPeer { endpoint, allowed, keepalive, psk })
}

/// Peers of which no two have the same prefix.
fn peers() -> impl Strategy<Value = LiteMap<WgPublicKey, WgPeer>> {
    map(key(), peer(), 0..6).prop_map(|mut peers| {
        let mut taken = SortedSet::new();
        peers.iter_mut().for_each(|(_, peer)| {
            peer.allowed.retain(|prefix| taken.find_or_insert(*prefix).is_inserted());
        });
        peers
    })
}

fn settings() -> impl Strategy<Value = WgSettings> {
    (0..3u8, 51820..51822u16).prop_map(|(n, port)| WgSettings {
        secret: WgSecret([n; 32]),
        port,
        mark: 1 << 24,
    })
}

fn addr() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.9.0.1", "10.9.0.2", "fd09::1", "fd09::2"]).prop_map(|text| text.parse().unwrap())
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    (select(vec![1280, 1420]), settings(), set(addr(), 0..3), peers())
        .prop_map(|(mtu, settings, addresses, peers)| Tunnel { mtu, settings, addresses, peers })
}

fn rules() -> impl Strategy<Value = SortedSet<Rule>> {
    let rule = |(family, priority, iif)| Rule {
        family,
        priority,
        mark: 1 << 24,
        mask: 15 << 24,
        invert: true,
        table: TABLE,
        iif,
        from: None,
    };
    let all = Family::ALL.into_iter().flat_map(|family| {
        let on_link = (family, 901, Some(eth0()));
        [(family, 900, None), (family, 901, None), on_link]
    });
    subsequence(all.map(rule).collect::<Vec<_>>(), 0..=6).prop_map(|rules| rules.into_iter().collect())
}

fn ruleset() -> impl Strategy<Value = Option<Ruleset>> {
    let table = |name: &str| {
        let chain = Chain { name: name.into(), base: None, rules: Vec::new() };
        Ruleset::from(FirewallTable { sets: Vec::new(), chains: vec![chain] })
    };
    option::of(select(vec!["one", "other"]).prop_map(table))
}

fn flows() -> impl Strategy<Value = Option<Arc<Flows>>> {
    let realm =
        |client| NetworkPolicy { clients: [client].into_iter().collect(), ..NetworkPolicy::default() };
    let flows = move |client| {
        Arc::new(Flows::new([(eth0(), realm(client))].into_iter().collect(), &SortedSet::new()))
    };
    option::of(prefix().prop_map(flows))
}

fn routes(links: Vec<IfName>, metrics: Vec<u32>) -> impl Strategy<Value = SortedSet<Route>> {
    let kinds = links
        .into_iter()
        .map(RouteKind::Device)
        .chain([RouteKind::Throw, RouteKind::Blackhole])
        .collect::<Vec<_>>();
    let route = (select(vec![TABLE, 100]), prefix(), select(metrics), select(kinds))
        .prop_map(|(table, prefix, metric, kind)| Route { table, prefix, metric, kind });
    set(route, 0..8)
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["0", "1"]).prop_map(str::to_owned)
}

fn forwarding(link: &IfName) -> SysctlPath {
    SysctlPath(PER_LINK.replace('*', link.as_str()))
}

/// Any desired state.
pub fn desired() -> impl Strategy<Value = Desired> {
    let tunnels = subsequence(tunnels(), 0..=3).prop_flat_map(|names| {
        let count = names.len();
        vec(tunnel(), count)
            .prop_map(move |tunnels| names.iter().cloned().zip(tunnels).collect::<LiteMap<_, _>>())
    });
    let wish = tunnels.prop_flat_map(|tunnels| {
        let links: Vec<_> = tunnels.keys().cloned().chain([eth0()]).collect();
        let mut paths: Vec<_> = links.iter().map(forwarding).collect();
        paths.extend(GLOBAL.map(|path| SysctlPath(path.to_owned())));
        let gone = subsequence(self::tunnels(), 0..=3);
        (
            Just(tunnels),
            gone,
            routes(links, vec![512, 513]),
            rules(),
            ruleset(),
            map(select(paths), value(), 0..4),
            flows(),
        )
    });
    wish.prop_map(|(tunnels, gone, routes, rules, ruleset, sysctls, flows)| Desired {
        tunnels,
        gone: gone.into_iter().collect(),
        routes: one_a_place(routes),
        rules,
        ruleset,
        flows,
        sysctls,
        ..Desired::default()
    })
}

/// One interface with peers.
pub fn desired_tunnel() -> impl Strategy<Value = Desired> {
    tunnel().prop_map(|tunnel| Desired {
        tunnels: [(name("gw-a"), tunnel)].into_iter().collect(),
        ..Desired::default()
    })
}

fn one_a_place(routes: SortedSet<Route>) -> SortedSet<Route> {
    let places: LiteMap<_, _> = routes.into_iter().map(|r| ((r.table, r.prefix, r.metric), r)).collect();
    places.into_iter().map(|(_, route)| route).collect()
}

/// A kernel without objects of ours.
pub fn foreign_kernel() -> impl Strategy<Value = FakeKernel> {
    let foreign = |rule| ForeignRule { rule, more: false, suppress: None, protocol: 4 };
    let foreign = move |rule| foreign(Rule { priority: 902, ..rule });
    let rules = rules().prop_map(move |rules| rules.into_iter().map(foreign).collect());
    // Foreign routes are not in the places of ours, where the kernel would always refuse ours.
    let routes = routes(vec![eth0()], vec![7]);
    (routes, rules, vec(value(), GLOBAL.len()), any::<bool>(), any::<bool>()).prop_map(
        |(foreign_routes, foreign_rules, values, userspace, look_alike)| {
            let mut kernel = FakeKernel { foreign_routes, userspace, ..FakeKernel::default() };
            kernel.state.foreign_rules = foreign_rules;
            kernel.link_sysctls.insert(PER_LINK.to_owned(), "0".to_owned());
            kernel
                .state
                .sysctls
                .extend(GLOBAL.map(|path| SysctlPath(path.to_owned())).into_iter().zip(values));
            kernel.add_foreign_link(&eth0());
            if look_alike {
                kernel.add_foreign_link(&name("gw-c"));
            }
            for link in kernel.state.links.keys() {
                let addr = "10.9.0.2".parse().unwrap();
                kernel.state.addresses.push(Address { link: link.clone(), addr, len: 32 });
            }
            let prefix = "192.168.2.0/24".parse().unwrap();
            kernel.state.main_routes.push(ForeignRoute { prefix, link: Some(eth0()), on_link: true });
            kernel
        },
    )
}

#[derive(Debug, Clone)]
enum Past {
    Absent,
    Dead,
    Usable {
        kind: LinkKind,
        up: bool,
        mtu: u32,
        settings: Option<WgSettings>,
        peers: LiteMap<WgPublicKey, WgPeer>,
    },
}

fn past() -> impl Strategy<Value = Past> {
    let usable = (
        select(vec![LinkKind::WireGuard, LinkKind::Tun]),
        any::<bool>(),
        select(vec![1280, 1420]),
        option::of(settings()),
        peers(),
    );
    prop_oneof![
        1 => Just(Past::Absent),
        1 => Just(Past::Dead),
        4 => usable.prop_map(|(kind, up, mtu, settings, peers)| {
            Past::Usable { kind, up, mtu, settings, peers }
        }),
    ]
}

impl Past {
    fn put(self, kernel: &mut FakeKernel, name: &IfName) {
        let (kind, up, mtu) = match self {
            Self::Absent => return,
            Self::Dead => (LinkKind::Tun, true, 1420),
            Self::Usable { kind, up, mtu, .. } => (kind, up, mtu),
        };
        let index = 100 + kernel.state.links.len() as u32;
        kernel.state.links.insert(name.clone(), Link { index, kind, up, mtu });
        kernel.state.sysctls.insert(forwarding(name), "1".to_owned());
        if let Self::Usable { settings, peers, .. } = self {
            let device = WgDevice { settings, peers, counters: LiteMap::new(), backend: "kernel".to_owned() };
            kernel.state.devices.insert(name.clone(), device);
        }
    }
}

/// A kernel in any state: our objects are correct, stale or incomplete, with foreign objects on and beside them.
pub fn kernel() -> impl Strategy<Value = FakeKernel> {
    let addresses = || btree_set((select(tunnels()), addr()), 0..4);
    let all_links = tunnels().into_iter().chain([eth0()]).collect::<Vec<_>>();
    let mut paths: Vec<_> = all_links.iter().map(forwarding).collect();
    paths.extend(GLOBAL.map(|path| SysctlPath(path.to_owned())));
    let saved = btree_map(select(paths), (value(), value()), 0..3);
    let ours = (
        vec(past(), tunnels().len()),
        addresses(),
        routes(all_links.clone(), vec![512, 513, 514]),
        rules(),
        ruleset(),
        saved,
        flows(),
    );
    let foreign = (foreign_kernel(), addresses(), routes(all_links, vec![7]));
    (foreign, ours).prop_map(|((mut kernel, their_addresses, their_routes), ours)| {
        let (pasts, addresses, routes, rules, ruleset, saved, flows) = ours;
        for (name, past) in tunnels().iter().zip(pasts) {
            if !kernel.state.links.contains_key(name) {
                past.put(&mut kernel, name);
            }
        }
        let links = kernel.state.links.clone();
        let on_ours = |link: &IfName| links.get(link).is_some_and(|link| link.kind != LinkKind::Other);
        let address = |(link, addr): (IfName, IpAddr), len: Option<u8>| {
            let host = if addr.is_ipv4() { 32 } else { 128 };
            Address { link, addr, len: len.unwrap_or(host) }
        };
        let ours = addresses.into_iter().filter(|(link, _)| on_ours(link)).map(|pair| address(pair, None));
        kernel.state.our_addresses = ours.collect();
        kernel.state.addresses.extend(kernel.state.our_addresses.clone());
        for pair in their_addresses.into_iter().filter(|(link, _)| links.contains_key(link)) {
            let same = |other: &Address| (&other.link, other.addr) == (&pair.0, pair.1);
            if !kernel.state.addresses.iter().any(same) {
                kernel.state.addresses.push(address(pair, Some(24)));
            }
        }
        let can_be =
            |route: &Route| device(route).is_none_or(|link| links.get(link).is_some_and(|link| link.up));
        kernel.state.routes = routes.into_iter().filter(can_be).collect();
        kernel.foreign_routes.extend(their_routes.into_iter().filter(can_be));
        kernel.state.rules = rules;
        kernel.state.ruleset = ruleset;
        kernel.state.flows = flows;
        let saved = saved.into_iter().map(|(path, (before, ours))| (path, SavedSysctl { before, ours }));
        kernel.state.saved_sysctls = saved.collect();
        kernel
    })
}

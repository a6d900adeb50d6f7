//! Desired state of the kernel, from the coordinator's records, the owner's permissions and the observed routes.

mod exits;
mod routes;
mod settings;

pub use exits::{is_secondary, ruled_links};

use super::{
    Network,
    gateways::Service,
    ingress::{IngressContext, admitted},
    owner,
    rule_conflicts::rule_conflicts,
    scopes::{asked, scopes},
    uplinks::{internet_sources, link_prefixes, offer, outer_links, wan_links},
};
use crate::{
    config::Config,
    model::{
        Desired, Exits, Family, Flows, Guard, IfName, NetworkPolicy, Observed, Route, RouteKind, Ruleset,
        SysctlPath, Tunnel, WgDevice, WgPeer, WgSettings,
    },
    plan::Firewall,
};
use exits::{Context, Usage, answered_flows, build, devices, lans, secondary_links, unfit_sources};
use gatewrt_protocol::{
    Assignment, Egress, Failure, IngressClient, NetworkName, NodeId, Policy, Prefix, Role, ServedPrefix,
    WgPublicKey,
};
use litemap::LiteMap;
use routes::{bypass_is_remembered, control, routes, rules};
use sorted_vec::SortedSet;
use std::{mem, net::IpAddr, sync::Arc};

/// Decision on the desired state of the kernel, with its failures.
pub struct Decision {
    /// Desired state, for the plan.
    pub desired: Desired,
    /// Failures by network, for the report: what the owner or the surroundings do not allow.
    pub failures: LiteMap<NetworkName, Vec<Failure>>,
    /// Settings to read before the next decision, beyond those that are desired.
    pub reads: SortedSet<SysctlPath>,
}

/// Contribution of one network to the desired state of the kernel.
struct Share {
    link: IfName,
    /// The network's own interface and its secondary exit interfaces.
    tunnels: Vec<(IfName, Tunnel)>,
    policy: NetworkPolicy,
    /// Prefixes that are routed into the network, each with its interface.
    routes: LiteMap<Prefix, IfName>,
    usage: Usage,
    failures: Vec<Failure>,
}

/// Decides on the desired state of the kernel, from the configuration, the networks and the observed state. `gone`
/// names interfaces to delete; `before` is the last desired state, with the same configuration.
pub fn decide(
    config: &Config,
    networks: &LiteMap<&NetworkName, &Network>,
    gone: SortedSet<IfName>,
    observed: &Observed,
    before: &Desired,
) -> Decision {
    let mut decision =
        Decision { desired: Desired::default(), failures: LiteMap::new(), reads: SortedSet::new() };
    let mut leads: LiteMap<Prefix, IfName> = LiteMap::new();
    let mut policies = LiteMap::new();
    let mut meshes = LiteMap::new();
    let mut usages = Vec::new();
    for (name, network) in networks {
        let Some(mut share) = share(config, name, network, observed) else { continue };
        for (prefix, link) in &share.routes {
            match leads.get(prefix) {
                Some(other) => share.failures.push(claimed_twice(prefix, other)),
                None => drop(leads.insert(*prefix, link.clone())),
            }
        }
        let mesh: SortedSet<Prefix> = share.routes.keys().copied().collect();
        meshes.extend(share.usage.links().map(|link| (link.clone(), mesh.clone())));
        decision.failures.insert((*name).clone(), share.failures);
        policies.insert(share.link, share.policy);
        usages.push(share.usage);
        decision.desired.tunnels.extend(share.tunnels);
    }
    decision.desired.gone = gone;
    decision.desired.gone.extend(secondary_links(observed).cloned());
    if !decision.desired.tunnels.is_empty() {
        let numbers = &config.numbers;
        let lans = lans(observed, before, numbers);
        let prefixes = link_prefixes(observed);
        let (uplinks, devices) = (outer_links(observed), devices(&usages));
        let context = Context {
            numbers,
            observed,
            before,
            lans: &lans,
            prefixes: &prefixes,
            uplinks: &uplinks,
            devices: &devices,
            leads: &leads,
        };
        let mut layout = build(&usages, &context);
        layout.exits.ours.extend(decision.desired.tunnels.keys().cloned());
        for (link, tunnel) in decision.desired.tunnels.iter().filter(|(link, _)| meshes.contains_key(link)) {
            answered_flows(&mut layout, &tunnel.addresses, numbers, observed);
            layout.exits.own.insert(link.clone(), tunnel.addresses.clone());
            layout.exits.mtus.insert(link.clone(), tunnel.mtu);
        }
        layout.exits.meshes = meshes;
        let conflicts = rule_conflicts(numbers, observed, !layout.exits.scopes.is_empty());
        decision.failures.iter_mut().for_each(|(_, failures)| failures.extend(conflicts.iter().cloned()));
        let mut exits = if layout.exits.scopes.is_empty() { Exits::default() } else { layout.exits };
        decision.desired.routes = routes(config, &leads, control(networks), observed);
        decision.desired.sysctls = settings::settings(&policies, &usages, observed);
        decision.reads = settings::reads(observed);
        let flows = Flows::new(policies, &of_networks(&decision.desired.routes, &exits));
        let flows = flows.with_scopes(layout.flows, numbers.bypass | numbers.masquerade);
        decision.desired.routes.extend(layout.routes);
        decision.desired.rules = rules(config);
        decision.desired.rules.extend(layout.rules);
        let policies = networks.values().filter_map(|network| network.directory.policy());
        let own: Vec<Prefix> = policies.flat_map(|policy| policy.prefixes.iter().copied()).collect();
        let bypass = !exits.scopes.is_empty()
            || bypass_is_remembered(&decision.desired.routes, &own, &endpoints(&decision.desired, observed));
        decision.desired.ruleset = Some(ruleset(config, &flows, &mut exits, bypass, before));
        decision.desired.exits = exits;
        decision.desired.bypass = bypass;
        let same = before.flows.clone().filter(|before| **before == flows);
        decision.desired.flows = Some(same.unwrap_or_else(|| Arc::new(flows)));
    }
    decision
}

/// Leaves out what the kernel refuses where IPv6 is off: addresses of an interface and routes into it, or all of IPv6.
pub fn leave_out_v6(desired: &mut Desired, observed: &Observed) {
    let is_off = |link: &IfName| observed.without_v6.contains(link);
    for (_, tunnel) in desired.tunnels.iter_mut().filter(|(link, _)| is_off(link)) {
        tunnel.addresses.retain(|addr| addr.is_ipv4());
    }
    desired.routes.retain(|route| {
        let is_refused = observed.has_no_v6 || matches!(&route.kind, RouteKind::Device(link) if is_off(link));
        route.prefix.is_ipv4() || !is_refused
    });
    if observed.has_no_v6 {
        desired.rules.retain(|rule| rule.family == Family::V4);
        desired.sysctls.retain(|path, _| !path.0.starts_with("net/ipv6/"));
    }
}

/// Routes by network, where one into a secondary exit interface leads into the main interface of its network.
fn of_networks(routes: &SortedSet<Route>, exits: &Exits) -> SortedSet<Route> {
    let of_network = |route: &Route| {
        let main = match &route.kind {
            RouteKind::Device(link) => exits.secondary.get(link).cloned(),
            RouteKind::Throw | RouteKind::Blackhole => None,
        };
        Route { kind: main.map_or(route.kind.clone(), RouteKind::Device), ..route.clone() }
    };
    routes.iter().map(of_network).collect()
}

/// Addresses that the tunnels' own packets go to: where peers are wanted, and where they are.
fn endpoints(desired: &Desired, observed: &Observed) -> Vec<IpAddr> {
    let wanted = desired.tunnels.values().flat_map(|tunnel| tunnel.peers.values());
    let found = observed.devices.values().flat_map(|device| device.peers.values());
    wanted.chain(found).filter_map(|peer| peer.endpoint).map(|endpoint| endpoint.ip()).collect()
}

/// Desired firewall table, which is the last one while its sources are the same: rules can be many. `exits` are
/// unchanged afterwards.
fn ruleset(config: &Config, flows: &Flows, exits: &mut Exits, bypass: bool, before: &Desired) -> Ruleset {
    let same = before.flows.as_ref().is_some_and(|before| before.policies == flows.policies);
    let same = same && before.exits == *exits && before.bypass == bypass;
    before.ruleset.clone().filter(|_| same).unwrap_or_else(|| {
        let guard = |(link, policy): (&IfName, &NetworkPolicy)| (link.clone(), policy.guard.clone());
        let tunnels = flows.policies.iter().map(guard).collect();
        let firewall = Firewall { tunnels, numbers: config.numbers.clone(), exits: mem::take(exits), bypass };
        let ruleset = firewall.ruleset();
        *exits = firewall.exits;
        ruleset
    })
}

/// Adds all existing objects of ours to the desired state, while the records of an interface are incomplete: its
/// objects can't be told from leftovers. Desired objects are added and changed all the same, except the firewall table,
/// of which there is one for all.
pub fn keep(desired: &mut Desired, observed: &Observed) {
    let place = |route: &Route| (route.table, route.prefix, route.metric);
    let taken: SortedSet<_> = desired.routes.iter().map(place).collect();
    desired
        .routes
        .extend(observed.routes.iter().filter(|route| taken.binary_search(&place(route)).is_err()).cloned());
    desired.rules.extend(observed.rules.iter().cloned());
    desired.ruleset = observed.ruleset.clone().or(desired.ruleset.take());
    desired.flows = None;
    desired.gone.retain(|link| !is_secondary(link));
    for (path, saved) in &observed.saved_sysctls {
        desired.sysctls.entry(path.clone()).or_insert_with(|| saved.ours.clone());
    }
}

fn share(config: &Config, name: &NetworkName, network: &Network, observed: &Observed) -> Option<Share> {
    let policy = network.directory.policy()?;
    let assignment = network.directory.assignment()?;
    let owner = owner(config, name);
    let mut failures = Vec::new();
    let egress = allowed_egress(&assignment.egress, owner.allowed.contains(&Role::Egress), &mut failures);
    let context = IngressContext { network, policy, egress: &egress, observed };
    let clients = admitted(&context, owner.allowed.contains(&Role::Ingress), &mut failures);
    let link = IfName::from(name);
    let asked = asked(config, name, network, &mut failures);
    let scopes = scopes(asked, config, name, network);
    let usage = Usage::new(scopes, network, link.clone(), observed);
    failures.extend(unfit_sources(&usage.scopes, observed));
    let mut peers = peers(network, policy, &egress, &clients);
    let mut routes: LiteMap<Prefix, IfName> =
        policy.prefixes.iter().map(|prefix| (*prefix, link.clone())).collect();
    for peer in peers.values() {
        let outside = peer.allowed.iter().filter(|prefix| !is_host_of(prefix, policy));
        outside.for_each(|prefix| drop(routes.insert(*prefix, link.clone())));
    }
    let membership = &network.membership;
    let settings = |port| WgSettings { secret: membership.secret.clone(), port, mark: config.numbers.bypass };
    let tunnel = |port, peers| Tunnel {
        mtu: u32::from(owner.mtu.unwrap_or(policy.mtu)).clamp(1280, 1420),
        settings: settings(port),
        addresses: assignment.addresses.iter().copied().collect(),
        peers,
    };
    let mut tunnels = Vec::new();
    for member in network.directory.peers() {
        let secondary = usage.secondary.get(&member.node);
        if secondary.is_none() && usage.main != Some(member.node) {
            continue;
        }
        let Some(mut peer) = peers.remove(&member.key) else { continue };
        let served = peer.allowed.clone();
        peer.allowed.extend(usage.defaults(member.node));
        match secondary {
            Some(secondary) => {
                routes.extend(served.iter().map(|prefix| (*prefix, secondary.clone())));
                tunnels.push((secondary.clone(), tunnel(0, LiteMap::from_iter([(member.key, peer)]))));
            }
            None => drop(peers.insert(member.key, peer)),
        }
    }
    tunnels.push((link.clone(), tunnel(membership.port, peers)));
    tunnels.iter_mut().for_each(|(link, tunnel)| set_endpoints(network, observed.devices.get(link), tunnel));
    let offer = offer(config, name, observed);
    let blocks = network.directory.own().map(|own| own.clients.as_slice()).unwrap_or_default();
    let internet = internet_sources(policy, assignment, offer.as_ref(), blocks, &mut failures);
    let policy = network_policy(network, assignment, &egress, &clients, internet, observed);
    Some(Share { link, tunnels, policy, routes, usage, failures })
}

/// Gives a peer that moves to another interface its last endpoint, so that it is reached from the first packet: WireGuard
/// retries a handshake after five seconds only. A peer that WireGuard is to forget is left out, but its routes stay.
fn set_endpoints(network: &Network, device: Option<&WgDevice>, tunnel: &mut Tunnel) {
    let is_there = |key: &WgPublicKey| device.is_some_and(|device| device.peers.contains_key(key));
    for (key, peer) in &mut tunnel.peers {
        if peer.endpoint.is_none() && !is_there(key) {
            peer.endpoint = network.paths.last(key);
        }
    }
    tunnel.peers.retain(|key, _| !network.paths.is_to_forget(key));
}

/// Policy of a network for connections through this router.
fn network_policy(
    network: &Network,
    assignment: &Assignment,
    egress: &[&Egress],
    clients: &[IngressClient],
    through: Vec<Prefix>,
    observed: &Observed,
) -> NetworkPolicy {
    let of = |counts: fn(&IngressClient) -> bool| -> SortedSet<Prefix> {
        let mut all = SortedSet::new();
        clients
            .iter()
            .filter(|client| counts(client))
            .for_each(|client| all.extend(hosts(&client.addresses)));
        all
    };
    let mut internet = of(|client| client.internet);
    internet.extend(through);
    let uplinks = if internet.is_empty() { SortedSet::new() } else { wan_links(observed) };
    let guard = Guard {
        egress: egress.iter().map(|egress| (egress.prefix, egress.nat)).collect(),
        closed: of(|client| !client.reachable),
        internet,
        uplinks,
        access: assignment.access.clone(),
    };
    let blocks = network.directory.own().map(|member| member.clients.clone()).unwrap_or_default();
    let own = hosts(&assignment.addresses).collect();
    NetworkPolicy { guard, own, blocks, clients: of(|_| true) }
}

fn hosts(addresses: &[IpAddr]) -> impl Iterator<Item = Prefix> {
    addresses.iter().map(|addr| Prefix::host(*addr))
}

/// Egress prefixes that the coordinator assigned to this node, as far as the router's owner allows them.
fn allowed_egress<'a>(asked: &'a [Egress], allowed: bool, failures: &mut Vec<Failure>) -> Vec<&'a Egress> {
    let mut serve = Vec::new();
    for egress in asked {
        let why = match allowed {
            true if !egress.prefix.is_default() => {
                serve.push(egress);
                continue;
            }
            true => "a default route is no egress prefix",
            false => "the router's owner forbids it: option allow_egress is 0 in /etc/config/gatewrt",
        };
        failures.push(Failure { what: format!("serve {}", egress.prefix), why: why.to_owned() });
    }
    serve
}

fn peers(
    network: &Network,
    policy: &Policy,
    egress: &[&Egress],
    clients: &[IngressClient],
) -> LiteMap<WgPublicKey, WgPeer> {
    let serving = serving(network, policy, egress, clients);
    let own = network.membership.public;
    let mut blocks = SortedSet::new();
    let mut all = LiteMap::new();
    for member in network.directory.peers().filter(|member| member.key != own) {
        let is_own = |addr: &Prefix| policy.prefixes.iter().any(|prefix| prefix.contains(addr.addr()));
        let mut allowed: SortedSet<Prefix> = hosts(&member.addresses).filter(is_own).collect();
        for block in member.clients.iter().filter(|block| is_host_of(block, policy)) {
            if blocks.find_or_insert(*block).is_inserted() {
                allowed.push(*block);
            }
        }
        for ServedPrefix { prefix, .. } in &member.prefixes {
            if serving.get(prefix).is_some_and(|(_, _, node)| *node == member.node) {
                allowed.push(*prefix);
            }
        }
        let endpoint = network.paths.desired(&member.key);
        all.insert(member.key, WgPeer { endpoint, allowed, keepalive: policy.keepalive, psk: None });
    }
    for client in clients {
        // Clients connect to us: their endpoints are unknown, and keepalives would only drain their batteries.
        let mut allowed: SortedSet<Prefix> = hosts(&client.addresses).collect();
        allowed.extend(client.prefixes.iter().copied());
        all.insert(client.key, WgPeer { endpoint: None, allowed, keepalive: 0, psk: client.psk });
    }
    all
}

/// Node that serves each prefix behind a node of the network: the one that [`Gateways`](super::gateways::Gateways)
/// chose, else the one with the lowest metric, then the lowest id. Prefixes that this node or a client of it serves,
/// default routes, and prefixes that overlap the network's own are left out.
fn serving(
    network: &Network,
    policy: &Policy,
    egress: &[&Egress],
    clients: &[IngressClient],
) -> LiteMap<Prefix, (bool, u32, NodeId)> {
    let mut best: LiteMap<Prefix, (bool, u32, NodeId)> = LiteMap::new();
    for member in network.directory.peers() {
        for ServedPrefix { prefix, metric, .. } in &member.prefixes {
            let behind_clients = clients.iter().any(|client| client.prefixes.contains(prefix));
            let own = behind_clients || egress.iter().any(|egress| egress.prefix == *prefix);
            let inside = policy.prefixes.iter().any(|net| net.overlaps(prefix));
            if own || inside || prefix.is_default() {
                continue;
            }
            let is_chosen = network.gateways.choice(&Service::Prefix(*prefix)) == Some(member.node);
            let offer = (!is_chosen, *metric, member.node);
            if best.get(prefix).is_none_or(|before| offer < *before) {
                best.insert(*prefix, offer);
            }
        }
    }
    best
}

/// True if a prefix lies within the network's own prefixes: it needs no route of its own.
fn is_host_of(prefix: &Prefix, policy: &Policy) -> bool {
    policy.prefixes.iter().any(|net| net.covers(prefix))
}

fn claimed_twice(prefix: &Prefix, other: &IfName) -> Failure {
    Failure {
        what: format!("reach {prefix}"),
        why: format!("{other} leads there already: two networks can't serve the same prefix to one router"),
    }
}

//! What shall be in the kernel, out of what the coordinator asks, the owner allows and the main table knows.

mod exits;
mod known;
mod server;
mod settings;

pub use exits::is_beside;
pub(super) use known::is_wide;

use super::{
    Network,
    clashes::clashes,
    gateways::Service,
    ingress::{Surroundings, admitted},
    offer::offer,
    owner,
    place::wan_links,
    scopes::{asked, scopes},
};
use crate::{
    config::Config,
    model::{
        Desired, Family, IfName, Observed, Route, RouteKind, Rule, Ruleset, SysctlPath, Tunnel, WgDevice,
        WgPeer, WgSettings,
    },
    plan::{Exits, Firewall, Flows, Guard, Realm},
    sorted::{SortedMap, SortedSet},
};
use exits::{Around, Usage, lans, lay, links_beside, strangers};
use gatewrt_protocol::{
    Assignment, Egress, Failure, IngressClient, NetworkName, NodeId, Policy, Prefix, Role, ServedPrefix,
    WgPublicKey,
};
use std::{mem, net::IpAddr, sync::Arc};

/// Everything wanted, and what the owner or the place does not allow, by network.
pub struct Wanted {
    /// For the plan.
    pub desired: Desired,
    /// For the report.
    pub failures: SortedMap<NetworkName, Vec<Failure>>,
    /// Settings to read before the next decision, beyond those that are desired.
    pub reads: SortedSet<SysctlPath>,
}

/// One network's share.
struct Share {
    link: IfName,
    /// The network's own, and those of exits used beside the one there.
    tunnels: Vec<(IfName, Tunnel)>,
    realm: Realm,
    /// Prefixes that lead into the network, and into which tunnel.
    routes: SortedMap<Prefix, IfName>,
    usage: Usage,
    failures: Vec<Failure>,
}

/// What shall be, given what is known now. `gone` names interfaces that are to be removed; `before` is what was
/// desired last, with the same configuration.
pub fn desired(
    config: &Config,
    networks: &SortedMap<&NetworkName, &Network>,
    gone: SortedSet<IfName>,
    observed: &Observed,
    before: &Desired,
) -> Wanted {
    let mut wanted =
        Wanted { desired: Desired::default(), failures: SortedMap::new(), reads: SortedSet::new() };
    let mut leads: SortedMap<Prefix, IfName> = SortedMap::new();
    let mut realms = SortedMap::new();
    let mut meshes = SortedMap::new();
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
        wanted.failures.insert((*name).clone(), share.failures);
        realms.insert(share.link, share.realm);
        usages.push(share.usage);
        wanted.desired.tunnels.extend(share.tunnels);
    }
    wanted.desired.gone = gone;
    wanted.desired.gone.extend(links_beside(observed).cloned());
    if !wanted.desired.tunnels.is_empty() {
        let numbers = &config.numbers;
        let lans = lans(observed, before, numbers);
        let around = Around { numbers, observed, before, lans: &lans, leads: &leads };
        let mut laid = lay(&usages, &around);
        laid.exits.inside.extend(wanted.desired.tunnels.keys().cloned());
        for (link, tunnel) in wanted.desired.tunnels.iter().filter(|(link, _)| meshes.contains_key(link)) {
            laid.exits.own.insert(link.clone(), tunnel.addresses.clone());
            laid.exits.mtus.insert(link.clone(), tunnel.mtu);
        }
        laid.exits.meshes = meshes;
        let clashes = clashes(numbers, observed, !laid.exits.scopes.is_empty());
        wanted.failures.values_mut().for_each(|failures| failures.extend(clashes.iter().cloned()));
        let mut exits = if laid.exits.scopes.is_empty() { Exits::default() } else { laid.exits };
        wanted.desired.routes = routes(config, &leads, control(networks), observed);
        wanted.desired.sysctls = settings::settings(&realms, &usages, observed);
        wanted.reads = settings::reads(observed);
        let flows = Flows::new(realms, &of_networks(&wanted.desired.routes, &exits));
        let flows = flows.with_scopes(laid.flows, numbers.bypass | numbers.masquerade);
        wanted.desired.routes.extend(laid.routes);
        wanted.desired.rules = rules(config);
        wanted.desired.rules.extend(laid.rules);
        wanted.desired.ruleset = Some(ruleset(config, &flows, &mut exits, before));
        wanted.desired.exits = exits;
        let same = before.flows.clone().filter(|before| **before == flows);
        wanted.desired.flows = Some(same.unwrap_or_else(|| Arc::new(flows)));
    }
    wanted
}

/// What leads to an exit beside its network's interface leads into that network.
fn of_networks(routes: &SortedSet<Route>, exits: &Exits) -> SortedSet<Route> {
    let of_network = |route: &Route| {
        let main = match &route.kind {
            RouteKind::Device(link) => exits.beside.get(link).cloned(),
            RouteKind::Throw | RouteKind::Blackhole => None,
        };
        Route { kind: main.map_or(route.kind.clone(), RouteKind::Device), ..route.clone() }
    };
    routes.iter().map(of_network).collect()
}

/// Rules can be many: the text is made anew only when what it is made from changed. `exits` are as before afterwards.
fn ruleset(config: &Config, flows: &Flows, exits: &mut Exits, before: &Desired) -> Ruleset {
    let same = before.flows.as_ref().is_some_and(|before| before.realms() == flows.realms());
    let same = same && before.exits == *exits;
    before.ruleset.clone().filter(|_| same).unwrap_or_else(|| {
        let guard = |(link, realm): (&IfName, &Realm)| (link.clone(), realm.guard.clone());
        let tunnels = flows.realms().iter().map(guard).collect();
        let firewall = Firewall { tunnels, numbers: config.numbers.clone(), exits: mem::take(exits) };
        let ruleset = firewall.ruleset();
        *exits = firewall.exits;
        ruleset
    })
}

/// Beside an interface of which too little is known, all of ours that is there stays: what belongs to it could not be
/// told from what is left over. What is wanted comes and changes all the same, but for the firewall table, which is
/// one for all.
pub fn keep(desired: &mut Desired, observed: &Observed) {
    let place = |route: &Route| (route.table, route.prefix, route.metric);
    let taken: SortedSet<_> = desired.routes.iter().map(place).collect();
    desired.routes.extend(observed.routes.iter().filter(|route| !taken.contains(&place(route))).cloned());
    desired.rules.extend(observed.rules.iter().cloned());
    desired.ruleset = observed.ruleset.clone().or(desired.ruleset.take());
    desired.flows = None;
    desired.gone.retain(|link| !is_beside(link));
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
    let around = Surroundings { network, policy, egress: &egress, observed };
    let clients = admitted(&around, owner.allowed.contains(&Role::Ingress), &mut failures);
    let link = IfName::from(name);
    let asked = asked(config, name, network, &mut failures);
    let usage = Usage::new(scopes(asked, network), network, link.clone(), observed);
    failures.extend(strangers(&usage.scopes, observed));
    let mut peers = peers(network, policy, &egress, &clients);
    let mut routes: SortedMap<Prefix, IfName> =
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
        let beside = usage.beside.get(&member.node);
        if beside.is_none() && usage.main != Some(member.node) {
            continue;
        }
        let Some(mut peer) = peers.remove(&member.key) else { continue };
        let served = peer.allowed.clone();
        peer.allowed.extend(usage.defaults(member.node));
        match beside {
            Some(beside) => {
                routes.extend(served.iter().map(|prefix| (*prefix, beside.clone())));
                tunnels.push((beside.clone(), tunnel(0, [(member.key, peer)].into())));
            }
            None => drop(peers.insert(member.key, peer)),
        }
    }
    tunnels.push((link.clone(), tunnel(membership.port, peers)));
    tunnels.iter_mut().for_each(|(link, tunnel)| know_where(network, observed.devices.get(link), tunnel));
    let offer = offer(config, name, observed);
    let asked = server::Asked { assignment, policy, network, offer };
    let internet = server::internet(&asked, &mut failures);
    let realm = realm(network, assignment, &egress, &clients, internet, observed);
    Some(Share { link, tunnels, realm, routes, usage, failures })
}

/// A peer that comes to an interface is reached where it was on the other, from the first packet: WireGuard tries a
/// handshake again after five seconds only. One that WireGuard is to forget is not there, but what leads to it is.
fn know_where(network: &Network, device: Option<&WgDevice>, tunnel: &mut Tunnel) {
    let is_there = |key: &WgPublicKey| device.is_some_and(|device| device.peers.contains_key(key));
    for (key, peer) in &mut tunnel.peers {
        if peer.endpoint.is_none() && !is_there(key) {
            peer.endpoint = network.paths.last(key);
        }
    }
    tunnel.peers.retain(|key, _| !network.paths.is_to_forget(key));
}

/// What connections of the network are judged by.
fn realm(
    network: &Network,
    assignment: &Assignment,
    egress: &[&Egress],
    clients: &[IngressClient],
    through: Vec<Prefix>,
    observed: &Observed,
) -> Realm {
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
    Realm { guard, own, blocks, clients: of(|_| true) }
}

fn hosts(addresses: &[IpAddr]) -> impl Iterator<Item = Prefix> {
    addresses.iter().map(|addr| Prefix::host(*addr))
}

/// What the coordinator asks this node to serve, as far as the router's owner allows it.
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
) -> SortedMap<WgPublicKey, WgPeer> {
    let serving = serving(network, policy, egress, clients);
    let own = network.membership.public;
    let mut blocks = SortedSet::new();
    let mut all = Vec::new();
    for member in network.directory.peers().filter(|member| member.key != own) {
        let is_own = |addr: &Prefix| policy.prefixes.iter().any(|prefix| prefix.contains(addr.addr()));
        let mut allowed: SortedSet<Prefix> = hosts(&member.addresses).filter(is_own).collect();
        for block in member.clients.iter().filter(|block| is_host_of(block, policy)) {
            if blocks.insert(*block) {
                allowed.insert(*block);
            }
        }
        for ServedPrefix { prefix, .. } in &member.prefixes {
            if serving.get(prefix).is_some_and(|(_, _, node)| *node == member.node) {
                allowed.insert(*prefix);
            }
        }
        let endpoint = network.paths.wanted(&member.key);
        all.push((member.key, WgPeer { endpoint, allowed, keepalive: policy.keepalive, psk: None }));
    }
    for client in clients {
        // It comes to us: we know no endpoint of it, and wake it from no sleep.
        let mut allowed: SortedSet<Prefix> = hosts(&client.addresses).collect();
        allowed.extend(client.prefixes.iter().copied());
        all.push((client.key, WgPeer { endpoint: None, allowed, keepalive: 0, psk: client.psk }));
    }
    all.into()
}

/// Which node serves each prefix: of several the one that [`Gateways`](super::gateways::Gateways) chose, else the least
/// metric, then the least id. What this node or a client of it serves,
/// default routes, and what overlaps the network's own addresses is left out.
fn serving(
    network: &Network,
    policy: &Policy,
    egress: &[&Egress],
    clients: &[IngressClient],
) -> SortedMap<Prefix, (bool, u32, NodeId)> {
    let mut best: SortedMap<Prefix, (bool, u32, NodeId)> = SortedMap::new();
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

/// Of the network itself: covered by the network's own route.
fn is_host_of(prefix: &Prefix, policy: &Policy) -> bool {
    policy.prefixes.iter().any(|net| net.covers(prefix))
}

fn claimed_twice(prefix: &Prefix, other: &IfName) -> Failure {
    Failure {
        what: format!("reach {prefix}"),
        why: format!("{other} leads there already: two networks can't serve the same prefix to one router"),
    }
}

/// Our table: every prefix into its tunnel, but for what the main table knows as precisely or more so (a
/// connected LAN, a static route), and for where the coordinators are: there the search goes on.
fn routes(
    config: &Config,
    leads: &SortedMap<Prefix, IfName>,
    control: SortedSet<Prefix>,
    observed: &Observed,
) -> SortedSet<Route> {
    let ours: SortedSet<&IfName> = leads.values().collect();
    let known = observed.main_routes.iter().filter(|route| !route.prefix.is_default());
    let known = known.filter(|route| route.link.as_ref().is_none_or(|link| !ours.contains(link)));
    let mut throws = control;
    throws.extend(known.map(|route| route.prefix));
    throws.retain(|prefix| leads.keys().any(|lead| lead.covers(prefix)));
    let route = |prefix: &Prefix, kind| Route {
        table: config.numbers.table,
        prefix: *prefix,
        metric: config.numbers.metric,
        kind,
    };
    let into = leads.iter().filter(|(prefix, _)| !throws.contains(prefix));
    let mut routes: SortedSet<Route> =
        into.map(|(prefix, link)| route(prefix, RouteKind::Device(link.clone()))).collect();
    routes.extend(throws.iter().map(|prefix| route(prefix, RouteKind::Throw)));
    routes
}

/// Where the control plane of any network is: in no tunnel, whatever prefix someone serves.
fn control(networks: &SortedMap<&NetworkName, &Network>) -> SortedSet<Prefix> {
    let mut all = SortedSet::new();
    for assignment in networks.values().filter_map(|network| network.directory.assignment()) {
        all.extend(assignment.control.iter().map(|addr| Prefix::host(addr.ip())));
    }
    all
}

fn rules(config: &Config) -> SortedSet<Rule> {
    let numbers = &config.numbers;
    let rule = |family| Rule {
        family,
        priority: numbers.priority,
        mark: numbers.bypass,
        mask: numbers.mask,
        invert: true,
        table: numbers.table,
        iif: None,
        from: None,
    };
    Family::ALL.into_iter().map(rule).collect()
}

/// Whether an address is of use to someone outside the site: global, and not of a range that never is.
pub fn is_public(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared;
            !(local || v4.is_unspecified() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let global = (v6.segments()[0] & 0xe000) == 0x2000;
            global && !v6.is_loopback()
        }
    }
}

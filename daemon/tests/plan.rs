//! Plans against a kernel in memory, from any starting state to any desired state, also when steps fail on the way.
#![allow(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod plan {
    pub mod given;
}

use gatewrt::{
    kernel::{
        Kernel, KernelError,
        fake::{FakeKernel, Faults},
    },
    model::{Desired, IfName, LinkKind, NO_PSK, ObserveQuery, Observed, Route, SysctlPath, WgPeer},
    plan::{PeerChange, PeerUpdate, Plan, Step},
};
use gatewrt_protocol::{Prefix, WgPublicKey};
use litemap::LiteMap;
use plan::given;
use proptest::prelude::*;
use sorted_vec::SortedSet;
use std::fmt::Debug;

fn observe(kernel: &mut FakeKernel, desired: &Desired) -> Observed {
    let tunnels = desired.tunnels.keys().chain(&desired.gone).cloned().collect();
    let interest = ObserveQuery {
        sysctls: desired.sysctls.keys().cloned().collect(),
        tunnels,
        tables: SortedSet::new(),
    };
    kernel.observe(&interest).unwrap()
}

fn plan(kernel: &mut FakeKernel, desired: &Desired) -> Plan {
    Plan::new(&observe(kernel, desired), desired)
}

/// Applies a plan once, and returns the steps that failed.
fn apply(kernel: &mut FakeKernel, plan: &Plan) -> Vec<(Step, KernelError)> {
    let execute = |step: &Step| kernel.execute(step).err().map(|error| (step.clone(), error));
    plan.steps.iter().filter_map(execute).collect()
}

/// Plans and applies until only conflicts are left. The limit of rounds is far above what random faults can need.
fn converge(kernel: &mut FakeKernel, desired: &Desired) -> Plan {
    for _ in 0..200 {
        let plan = plan(kernel, desired);
        if plan.steps.iter().all(|step| asks_for_help(kernel, step)) {
            return plan;
        }
        apply(kernel, &plan);
    }
    plan(kernel, desired)
}

/// Returns true for a step that needs the owner's help: a foreign interface has the desired name.
fn asks_for_help(kernel: &FakeKernel, step: &Step) -> bool {
    let is_foreign = |name| kernel.state.links.get(name).is_some_and(|link| link.kind == LinkKind::Other);
    matches!(step, Step::AddTunnel { link, .. } if is_foreign(link))
}

fn is_dead(kernel: &FakeKernel, name: &IfName) -> bool {
    let is_tun = kernel.state.links.get(name).is_some_and(|link| link.kind == LinkKind::Tun);
    is_tun && !kernel.state.devices.contains_key(name)
}

/// Interfaces that are to be deleted or created anew; foreign objects on them are lost.
fn doomed(kernel: &FakeKernel, desired: &Desired) -> SortedSet<IfName> {
    let gone = desired.gone.iter().filter(|name| !desired.tunnels.contains_key(name)).cloned();
    let dead = desired.tunnels.keys().filter(|name| is_dead(kernel, name)).cloned();
    let is_ours =
        |name: &IfName| kernel.state.links.get(name).is_some_and(|link| link.kind != LinkKind::Other);
    gone.chain(dead).filter(is_ours).collect()
}

/// All state that no plan for `desired` may change, as `kernel` has it now; `start` is the kernel at the beginning.
fn foreign(kernel: &FakeKernel, desired: &Desired, start: &FakeKernel) -> impl PartialEq + Debug + use<> {
    let doomed = doomed(start, desired);
    let is_ours = |name: &IfName| doomed.contains(name) || desired.tunnels.contains_key(name);
    let mut state = kernel.state.clone();
    state.links.retain(|name, link| link.kind == LinkKind::Other || !is_ours(name));
    state.devices.retain(|name, _| !is_ours(name));
    let ours = std::mem::take(&mut state.our_addresses);
    state.addresses.retain(|address| !ours.contains(address) && !doomed.contains(&address.link));
    state.main_routes.retain(|route| !route.link.as_ref().is_some_and(|link| doomed.contains(link)));
    let of_ours = |path: &SysctlPath| path.0.split('/').filter_map(IfName::new).any(|name| is_ours(&name));
    let saved = &start.state.saved_sysctls;
    state
        .sysctls
        .retain(|path, _| !saved.contains_key(path) && !desired.sysctls.contains_key(path) && !of_ours(path));
    (state.routes, state.rules, state.ruleset, state.saved_sysctls, state.flows) = Default::default();
    let mut routes = kernel.foreign_routes.clone();
    routes.retain(|route| given::device(route).is_none_or(|link| !doomed.contains(link)));
    (state, routes)
}

/// Prefixes that had a peer and are to have one, by interface.
fn kept_prefixes(kernel: &FakeKernel, desired: &Desired) -> Vec<(IfName, Prefix)> {
    let doomed = doomed(kernel, desired);
    let devices = kernel.state.devices.iter().filter(|(name, _)| !doomed.contains(name));
    let both = devices.filter_map(|(name, device)| Some((name, device, desired.tunnels.get(name)?)));
    let kept = both.flat_map(|(name, device, tunnel)| {
        let wanted = allowed(&tunnel.peers);
        let both = allowed(&device.peers).into_iter().filter(move |prefix| wanted.contains(prefix));
        both.map(|prefix| (name.clone(), prefix))
    });
    kept.collect()
}

fn allowed(peers: &LiteMap<WgPublicKey, WgPeer>) -> SortedSet<Prefix> {
    peers.values().flat_map(|peer| peer.allowed.clone()).collect()
}

/// Returns true if the observed `old` satisfies the desired `new`.
fn same(old: &WgPeer, new: &WgPeer) -> bool {
    let endpoint = new.endpoint.is_none() || new.endpoint == old.endpoint;
    endpoint && old.allowed == new.allowed && old.keepalive == new.keepalive && old.psk == new.psk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plan_is_empty_after_one_round((mut kernel, desired) in (given::kernel(), given::desired())) {
        // A dead interface takes one round to be created and one to be configured.
        if desired.tunnels.keys().any(|name| is_dead(&kernel, name)) {
            let making = plan(&mut kernel, &desired);
            apply(&mut kernel, &making);
        }
        let first = plan(&mut kernel, &desired);
        let refused = apply(&mut kernel, &first);
        prop_assert!(refused.iter().all(|(step, _)| asks_for_help(&kernel, step)), "{refused:#?}");
        let second = plan(&mut kernel, &desired);
        let done = second.steps.iter().all(|step| asks_for_help(&kernel, step));
        prop_assert!(done, "first:\n{first}second:\n{second}");
    }

    #[test]
    fn converged_kernel_is_as_desired((mut kernel, desired) in (given::kernel(), given::desired())) {
        converge(&mut kernel, &desired);
        let is_foreign = |name: &IfName| kernel.state.links[name].kind == LinkKind::Other;
        for (name, tunnel) in desired.tunnels.iter().filter(|(name, _)| !is_foreign(name)) {
            let (link, device) = (&kernel.state.links[name], &kernel.state.devices[name]);
            prop_assert_eq!((link.up, link.mtu), (true, tunnel.mtu));
            prop_assert_eq!(device.settings.as_ref(), Some(&tunnel.settings));
            prop_assert_eq!(device.peers.keys().collect::<Vec<_>>(), tunnel.peers.keys().collect::<Vec<_>>());
            prop_assert!(tunnel.peers.iter().all(|(key, peer)| same(&device.peers[key], peer)));
            let on_it = kernel.state.addresses.iter().filter(|address| address.link == *name);
            let on_it: SortedSet<_> = on_it.map(|address| address.addr).collect();
            prop_assert!(tunnel.addresses.iter().all(|addr| on_it.contains(addr)));
        }
        let mut gone = desired.gone.iter().filter(|name| !desired.tunnels.contains_key(name));
        prop_assert!(gone.all(|name| !kernel.state.links.contains_key(name) || is_foreign(name)));
        let leads = |route: &&Route| match given::device(route) {
            Some(link) => *link == given::eth0() || !is_foreign(link),
            None => true,
        };
        prop_assert!(desired.routes.iter().filter(leads).all(|route| kernel.state.routes.contains(route)));
        prop_assert_eq!(&kernel.state.rules, &desired.rules);
        prop_assert_eq!(&kernel.state.ruleset, &desired.ruleset);
        let on_foreign = |path: &SysctlPath| {
            let mut links = path.0.split('/').filter_map(IfName::new);
            links.any(|link| desired.tunnels.contains_key(&link) && is_foreign(&link))
        };
        for (path, value) in desired.sysctls.iter().filter(|(path, _)| !on_foreign(path)) {
            prop_assert_eq!(&kernel.state.sysctls[path], value, "{}", path);
        }
    }

    #[test]
    fn failing_steps_are_repaired_and_harm_nothing(
        (mut kernel, desired) in (given::kernel(), given::desired()),
        seed: u64,
    ) {
        let doomed = doomed(&kernel, &desired);
        let start = kernel.clone();
        let kept = kept_prefixes(&kernel, &desired);
        let usable: Vec<_> = desired.tunnels.keys().filter(|name| !doomed.contains(name)).collect();
        let index = |kernel: &FakeKernel| -> Vec<_> {
            usable.iter().map(|name| kernel.state.links.get(name).map(|link| link.index)).collect()
        };
        let indices = index(&kernel);
        kernel.faults = Faults::Chance { of_256: 80, seed };
        let mut rounds = 0;
        loop {
            let plan = plan(&mut kernel, &desired);
            if plan.steps.iter().all(|step| asks_for_help(&kernel, step)) { break }
            for step in &plan.steps {
                let _ = kernel.execute(step);
                for (link, prefix) in &kept {
                    let owned = allowed(&kernel.state.devices[link].peers).contains(prefix);
                    prop_assert!(owned, "{prefix} is nobody's after “{step}” in\n{plan}");
                }
                for (now, then) in index(&kernel).iter().zip(&indices) {
                    prop_assert!(then.is_none() || now == then, "a usable interface was lost by “{step}”");
                }
            }
            rounds += 1;
            prop_assert!(rounds < 200, "no end: {plan}");
        }
        prop_assert_eq!(foreign(&kernel, &desired, &start), foreign(&start, &desired, &start));
    }

    #[test]
    fn plan_names_only_differences((mut kernel, desired) in (given::kernel(), given::desired())) {
        let observed = observe(&mut kernel, &desired);
        for step in Plan::new(&observed, &desired).steps {
            let Step::SetPeers(link, changes) = &step else { continue };
            prop_assert!(!changes.is_empty());
            let old = observed.devices.get(link).map(|device| device.peers.clone()).unwrap_or_default();
            for (key, change) in changes {
                match (change, old.get(key), desired.tunnels[link].peers.get(key)) {
                    (PeerChange::Add(peer), _, Some(new)) => prop_assert_eq!(peer, new),
                    (PeerChange::Remove, Some(_), None) => {}
                    (PeerChange::Update(update), Some(old), Some(new)) => {
                        prop_assert!(!same(old, new), "{step} names a peer that stays as it is");
                        prop_assert!(*update != PeerUpdate::default());
                        prop_assert!(update.endpoint.is_none_or(|endpoint| Some(endpoint) != old.endpoint));
                        prop_assert!(update.keepalive.is_none_or(|keepalive| keepalive != old.keepalive));
                        prop_assert!(update.psk.is_none_or(|psk| psk != old.psk.unwrap_or(NO_PSK)));
                        prop_assert!(!update.gains.iter().any(|prefix| old.allowed.contains(prefix)));
                        prop_assert!(update.allowed.as_ref().is_none_or(|all| old.allowed.iter().any(|prefix| !all.contains(prefix))));
                    }
                    wrong => prop_assert!(false, "{step}: {wrong:?}"),
                }
            }
        }
    }

    #[test]
    fn change_of_one_peer_is_one_step_about_it(
        desired in given::desired_tunnel(),
        key in given::key(),
        changed in proptest::option::of(given::peer()),
    ) {
        let mut kernel = FakeKernel::default();
        converge(&mut kernel, &desired);
        let mut wish = desired.clone();
        let tunnel = wish.tunnels.iter_mut().next().unwrap().1;
        let old = tunnel.peers.remove(&key);
        let gains = changed.as_ref().map(|peer| peer.allowed.clone()).unwrap_or_default();
        tunnel
            .peers
            .iter_mut()
            .for_each(|(_, peer)| peer.allowed.retain(|prefix| !gains.contains(prefix)));
        changed.iter().for_each(|peer| drop(tunnel.peers.insert(key, peer.clone())));
        let steps = plan(&mut kernel, &wish).steps;
        let unchanged = match (&old, &changed) {
            (None, None) => true,
            (Some(old), Some(new)) => same(old, new),
            _ => false,
        };
        prop_assert_eq!(steps.len(), usize::from(!unchanged), "{:?}", steps);
        if let Some(step) = steps.first() {
            let Step::SetPeers(_, changes) = step else { return Err(TestCaseError::fail(step.to_string())) };
            prop_assert_eq!(changes.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key]);
        }
    }

    #[test]
    fn teardown_leaves_what_was_there_before(
        mut kernel in given::foreign_kernel(),
        wishes in prop::collection::vec(given::desired(), 1..4),
        seed: u64,
    ) {
        let before = kernel.clone();
        kernel.faults = Faults::Chance { of_256: 40, seed };
        for wish in &wishes {
            converge(&mut kernel, wish);
        }
        let nothing = Desired { gone: given::tunnels().into_iter().collect(), ..Desired::default() };
        prop_assert!(converge(&mut kernel, &nothing).is_empty());
        // The policy that connections were checked against is no part of the kernel's state.
        kernel.state.flows = None;
        prop_assert_eq!(kernel.state, before.state);
        prop_assert_eq!(kernel.foreign_routes, before.foreign_routes);
    }
}

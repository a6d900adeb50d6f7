//! Kernel in memory, for tests: it behaves like the real one where a plan depends on it. An interface takes
//! its addresses and routes along when it goes, routes need theirs up, what exists can't be added, an allowed
//! IP belongs to one peer. It can be told to fail.

use super::{Kernel, KernelError};
use crate::{
    model::{
        Address, ForeignRule, IfName, Link, LinkKind, NO_PSK, ObserveQuery, Observed, Route, RouteKind, Rule,
        Ruleset, SavedSysctl, SysctlPath, WgDevice, WgPeer, WgSettings,
    },
    plan::{PeerChange, Step},
};
use gatewrt_protocol::{Prefix, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Kernel in memory, for tests. A test sets its fields as it likes; [`Kernel::execute`] changes them as a kernel does.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    /// Objects in the kernel, as a query for everything reads them. Foreign addresses are those in `addresses` and not
    /// in `our_addresses`.
    pub state: Observed,
    /// Routes without our protocol number.
    pub foreign_routes: SortedSet<Route>,
    /// Settings that each new interface gets, by path with `*` for its name.
    pub link_sysctls: LiteMap<String, String>,
    /// Interfaces are made in userspace: they are TUN devices.
    pub userspace: bool,
    /// Faults to inject.
    pub faults: Faults,
    /// Steps that were executed, in order, with their outcomes.
    pub journal: Vec<(Step, Result<(), KernelError>)>,
}

/// Faults that a [`FakeKernel`] injects into the steps that it executes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Faults {
    /// No faults beyond refusals of a real kernel.
    #[default]
    None,
    /// Numbers of steps that fail, counted from 0 at the start; they change nothing.
    At(SortedSet<usize>),
    /// Random faults: a step fails with this chance of 256, and changes nothing, a part of what it should, or all of
    /// it.
    Chance {
        /// Chance of 256.
        of_256: u8,
        /// Seed of the faults: the same seed gives the same faults.
        seed: u64,
    },
}

enum Fault {
    Before,
    Partway,
    After,
}

impl Kernel for FakeKernel {
    fn observe(&mut self, interest: &ObserveQuery) -> Result<Observed, KernelError> {
        let mut observed = self.state.clone();
        observed.sysctls.retain(|path, _| interest.sysctls.contains(path));
        observed.foreign_routes.retain(|table, _| interest.tables.contains(table));
        observed.devices.retain(|link, _| interest.tunnels.contains(link));
        Ok(observed)
    }

    fn execute(&mut self, step: &Step) -> Result<(), KernelError> {
        let result = match self.faults.next(self.journal.len()) {
            None => self.apply(step),
            Some(Fault::Before) => refused("injected"),
            Some(Fault::Partway) => self.partly(step).and(refused("injected partway")),
            Some(Fault::After) => self.apply(step).and(refused("injected afterwards")),
        };
        self.journal.push((step.clone(), result.clone()));
        result
    }
}

impl Faults {
    fn next(&mut self, number: usize) -> Option<Fault> {
        match self {
            Self::None => None,
            Self::At(steps) => steps.contains(&number).then_some(Fault::Before),
            Self::Chance { of_256, seed } => {
                *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let [.., kind, chance] = seed.to_be_bytes()[..4] else { return None };
                let kinds = [Fault::Before, Fault::Partway, Fault::After];
                (chance < *of_256).then_some(kinds.into_iter().nth(usize::from(kind % 3))).flatten()
            }
        }
    }
}

fn refused(why: &str) -> Result<(), KernelError> {
    Err(KernelError::Refused(why.to_owned()))
}

fn conflict(with: impl std::fmt::Debug) -> Result<(), KernelError> {
    Err(KernelError::Conflict(format!("{with:?} is there")))
}

impl FakeKernel {
    /// Adds a network interface that is not ours and is up.
    pub fn add_foreign_link(&mut self, name: &IfName) {
        self.insert_link(name, LinkKind::Other, 1500);
        self.state.links.entry(name.clone()).and_modify(|link| link.up = true);
    }

    /// Ends the process behind a userspace WireGuard interface; the interface stays.
    pub fn kill_userspace(&mut self, name: &IfName) {
        self.state.devices.remove(name);
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::AddTunnel { link, mtu } => self.add_tunnel(link, *mtu),
            Step::DeleteTunnel(link) => self.delete_tunnel(link),
            Step::SetMtu(link, mtu) => self.link(link).map(|link| link.mtu = *mtu),
            Step::SetUp(link) => self.link(link).map(|link| link.up = true),
            Step::SetDevice(link, settings) => {
                let port = if settings.port == 0 { 40000 } else { settings.port };
                let settings = WgSettings { port, ..settings.clone() };
                self.device(link).map(|device| device.settings = Some(settings))
            }
            Step::SetPeers(link, changes) => self.set_peers(link, changes),
            Step::AddAddress(address) => self.add_address(address),
            Step::DeleteAddress(address) => self.delete_address(address),
            Step::AddRoute(route) => self.add_route(route),
            Step::ReplaceRoute(route) => self.replace_route(route),
            Step::DeleteRoute(route) => {
                self.state.routes.remove_item(route);
                Ok(())
            }
            Step::AddRule(rule) => self.add_rule(rule),
            Step::DeleteRule(rule) => {
                self.state.rules.remove_item(rule);
                Ok(())
            }
            Step::WriteRuleset(update) => {
                self.state.ruleset = Some(Ruleset::Known(update.table.clone()));
                Ok(())
            }
            Step::DeleteRuleset => {
                self.state.ruleset = None;
                Ok(())
            }
            Step::CutFlows(flows) => {
                self.state.flows = Some(flows.clone());
                Ok(())
            }
            Step::SetSysctl(path, value) => self.set_sysctl(path, value),
            Step::RestoreSysctl(path) => {
                self.restore_sysctl(path);
                Ok(())
            }
        }
    }

    /// Executes a part of a step, as the kernel does when it refuses one of a message's peers: those before it are
    /// changed.
    fn partly(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::SetPeers(link, changes) => self.set_peers(link, &changes[..changes.len() / 2]),
            _ => Ok(()),
        }
    }

    fn link(&mut self, name: &IfName) -> Result<&mut Link, KernelError> {
        let refused = || KernelError::Refused(format!("no interface {name} of ours"));
        self.state.links.get_mut(name).filter(|link| link.kind != LinkKind::Other).ok_or_else(refused)
    }

    fn device(&mut self, name: &IfName) -> Result<&mut WgDevice, KernelError> {
        self.link(name)?;
        let refused = || KernelError::Refused(format!("no WireGuard answers for {name}"));
        self.state.devices.get_mut(name).ok_or_else(refused)
    }

    fn add_tunnel(&mut self, name: &IfName, mtu: u32) -> Result<(), KernelError> {
        match self.state.links.get(name).map(|link| link.kind) {
            Some(LinkKind::Tun) if !self.state.devices.contains_key(name) => self.remove_link(name),
            Some(_) => return conflict(name),
            None => {}
        }
        let kind = if self.userspace { LinkKind::Tun } else { LinkKind::WireGuard };
        self.insert_link(name, kind, mtu);
        let backend = if self.userspace { "wireguard-go" } else { "kernel" }.to_owned();
        let device = WgDevice { settings: None, peers: LiteMap::new(), counters: LiteMap::new(), backend };
        self.state.devices.insert(name.clone(), device);
        Ok(())
    }

    fn insert_link(&mut self, name: &IfName, kind: LinkKind, mtu: u32) {
        let index = 1 + self.state.links.values().map(|link| link.index).max().unwrap_or_default();
        self.state.links.insert(name.clone(), Link { index, kind, up: false, mtu });
        let settings = self
            .link_sysctls
            .iter()
            .map(|(path, value)| (SysctlPath(path.replace('*', name.as_str())), value.clone()));
        self.state.sysctls.extend(settings);
    }

    fn delete_tunnel(&mut self, name: &IfName) -> Result<(), KernelError> {
        match self.state.links.get(name).map(|link| link.kind) {
            Some(LinkKind::Other) => return conflict(name),
            Some(_) => self.remove_link(name),
            None => {}
        }
        Ok(())
    }

    fn remove_link(&mut self, name: &IfName) {
        let over = |route: &Route| matches!(&route.kind, RouteKind::Device(link) if link == name);
        self.state.links.remove(name);
        self.state.devices.remove(name);
        self.state.addresses.retain(|address| address.link != *name);
        self.state.our_addresses.retain(|address| address.link != *name);
        self.state.routes.retain(|route| !over(route));
        self.foreign_routes.retain(|route| !over(route));
        self.state.main_routes.retain(|route| route.link.as_ref() != Some(name));
        self.state.sysctls.retain(|path, _| !path.0.split('/').any(|part| part == name.as_str()));
    }

    fn set_peers(&mut self, link: &IfName, changes: &[(WgPublicKey, PeerChange)]) -> Result<(), KernelError> {
        let peers = &mut self.device(link)?.peers;
        changes.iter().for_each(|(key, change)| set_peer(peers, *key, change));
        Ok(())
    }

    fn add_address(&mut self, address: &Address) -> Result<(), KernelError> {
        if !self.state.links.contains_key(&address.link) {
            return refused("no such device");
        }
        let same = |other: &Address| (&other.link, other.addr) == (&address.link, address.addr);
        let taken = |other: &&Address| same(other) && (other.len == address.len || !other.addr.is_ipv4());
        if let Some(other) = self.state.addresses.iter().find(taken) {
            return conflict(other);
        }
        self.state.addresses.push(address.clone());
        self.state.our_addresses.push(address.clone());
        Ok(())
    }

    fn delete_address(&mut self, address: &Address) -> Result<(), KernelError> {
        if self.state.addresses.contains(address) && !self.state.our_addresses.contains(address) {
            return conflict(address);
        }
        self.state.addresses.remove_item(address);
        self.state.our_addresses.remove_item(address);
        Ok(())
    }

    fn add_route(&mut self, route: &Route) -> Result<(), KernelError> {
        self.check_nexthop(route)?;
        let all = self.state.routes.iter().chain(&self.foreign_routes);
        if let Some(other) = all.into_iter().find(|other| place(other) == place(route)) {
            return conflict(other);
        }
        self.state.routes.push(route.clone());
        Ok(())
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), KernelError> {
        self.check_nexthop(route)?;
        let old = self.state.routes.iter().find(|other| place(other) == place(route)).cloned();
        let Some(old) = old else { return self.add_route(route) };
        self.state.routes.remove_item(&old);
        self.state.routes.push(route.clone());
        Ok(())
    }

    fn check_nexthop(&self, route: &Route) -> Result<(), KernelError> {
        match &route.kind {
            RouteKind::Device(link) if !self.state.links.get(link).is_some_and(|link| link.up) => {
                refused("network is down")
            }
            RouteKind::Device(_) | RouteKind::Throw | RouteKind::Blackhole => Ok(()),
        }
    }

    fn add_rule(&mut self, rule: &Rule) -> Result<(), KernelError> {
        let alike = |foreign: &ForeignRule| !foreign.more && foreign.rule == *rule;
        if self.state.rules.contains(rule) || self.state.foreign_rules.iter().any(alike) {
            return conflict(rule);
        }
        self.state.rules.push(rule.clone());
        Ok(())
    }

    fn set_sysctl(&mut self, path: &SysctlPath, value: &str) -> Result<(), KernelError> {
        let Some(now) = self.state.sysctls.get_mut(path) else { return refused("no such setting") };
        let before = std::mem::replace(now, value.to_owned());
        let saved = SavedSysctl { before, ours: value.to_owned() };
        self.state.saved_sysctls.entry(path.clone()).or_insert(saved).ours = value.to_owned();
        Ok(())
    }

    fn restore_sysctl(&mut self, path: &SysctlPath) {
        let Some(saved) = self.state.saved_sysctls.remove(path) else { return };
        let now = self.state.sysctls.get_mut(path).filter(|now| **now == saved.ours);
        now.into_iter().for_each(|now| now.clone_from(&saved.before));
    }
}

fn place(route: &Route) -> (u32, Prefix, u32) {
    (route.table, route.prefix, route.metric)
}

/// Changes a WireGuard peer as `set_peer` in the kernel's `drivers/net/wireguard/netlink.c`.
fn set_peer(peers: &mut LiteMap<WgPublicKey, WgPeer>, key: WgPublicKey, change: &PeerChange) {
    match change {
        PeerChange::Add(peer) => {
            take(peers, &peer.allowed);
            peers.insert(key, peer.clone());
        }
        PeerChange::Update(update) => {
            let gains = update.allowed.as_ref().unwrap_or(&update.gains);
            let Some(peer) = peers.get_mut(&key) else { return };
            peer.endpoint = update.endpoint.or(peer.endpoint);
            peer.keepalive = update.keepalive.unwrap_or(peer.keepalive);
            peer.psk = update.psk.or(peer.psk).filter(|psk| *psk != NO_PSK);
            if update.allowed.is_some() {
                peer.allowed.clear();
            }
            let mut allowed = std::mem::take(&mut peer.allowed);
            allowed.extend(gains.iter().copied());
            take(peers, gains);
            peers.entry(key).and_modify(|peer| peer.allowed = allowed);
        }
        PeerChange::Remove => drop(peers.remove(&key)),
    }
}

/// Takes allowed IPs from the peers that have them, as each belongs to the peer that it was given to last.
fn take(peers: &mut LiteMap<WgPublicKey, WgPeer>, prefixes: &SortedSet<Prefix>) {
    peers.iter_mut().for_each(|(_, peer)| peer.allowed.retain(|prefix| !prefixes.contains(prefix)));
}

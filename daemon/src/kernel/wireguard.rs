//! WireGuard interfaces, of the kernel or in userspace. Unless the admin names one, the kernel's goes first; where it
//! has none, an implementation in userspace is started that outlives us.

pub mod genl;
pub mod uapi;

pub mod userspace;

use super::{
    KernelError,
    netlink::{FoundLink, Network},
};
use crate::{
    model::{IfName, LinkKind, Observed, WgSettings},
    plan::PeerChange,
};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use genl::Genl;
use sorted_vec::SortedSet;
use std::net::SocketAddr;
use userspace::Userspace;

/// Change of one WireGuard peer, as an implementation is told of it. `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOrder {
    /// Public key of the peer.
    pub key: WgPublicKey,
    /// Action on the peer.
    pub action: Action,
    /// Endpoint to send to.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 is none.
    pub keepalive: Option<u16>,
    /// Preshared key; zeros are none.
    pub psk: Option<PresharedKey>,
    /// True to remove its allowed IPs first. While they are gone, packets for them are lost.
    pub replace: bool,
    /// Allowed IPs to add; a peer that had them loses them at that moment.
    pub allowed: SortedSet<Prefix>,
}

/// Action on a WireGuard peer: to make, update or remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Make it, if it is not there.
    Make,
    /// Change it, if it is there.
    Update,
    /// Remove it.
    Remove,
}

/// WireGuard interfaces of a network namespace, of the kernel or in userspace.
pub struct WireGuard {
    genl: Option<Genl>,
    userspace: Userspace,
    choice: Choice,
}

enum Choice {
    KernelFirst,
    KernelOnly,
    Userspace,
}

impl WireGuard {
    /// Driver of WireGuard interfaces: `program` makes them, if one is named; else the kernel, and unless `kernel_only`
    /// what is found.
    pub fn new(program: Option<String>, kernel_only: bool) -> Self {
        let choice = match (&program, kernel_only) {
            (Some(_), _) => Choice::Userspace,
            (None, true) => Choice::KernelOnly,
            (None, false) => Choice::KernelFirst,
        };
        Self { genl: None, userspace: Userspace::new(program), choice }
    }

    /// Reads the WireGuard interfaces in `tunnels` that exist. One in userspace that does not answer counts as none.
    pub fn observe(
        &mut self,
        tunnels: &SortedSet<IfName>,
        observed: &mut Observed,
    ) -> Result<(), KernelError> {
        for name in tunnels {
            let device = match observed.links.get(name).map(|link| link.kind) {
                Some(LinkKind::WireGuard) => self.genl()?.read(name)?,
                Some(LinkKind::Tun) => self.userspace.read(name),
                Some(LinkKind::Other) | None => None,
            };
            observed.devices.extend(device.map(|device| (name.clone(), device)));
        }
        Ok(())
    }

    /// Makes a WireGuard interface, or takes the one that is there.
    pub fn add(&mut self, network: &mut Network, name: &IfName, mtu: u32) -> Result<(), KernelError> {
        if let Some(found) = network.link(name)?
            && self.adopt(network, &found)?
        {
            return if found.link.mtu == mtu { Ok(()) } else { network.set_mtu(name, mtu) };
        }
        if !matches!(self.choice, Choice::Userspace) && network.add_wireguard(name, mtu)? {
            return Ok(());
        }
        if matches!(self.choice, Choice::KernelOnly) {
            let hint = "and the configuration wants no other: install kmod-wireguard";
            return Err(KernelError::Missing(format!("this kernel has no WireGuard, {hint}")));
        }
        self.userspace.start(name)?;
        network.set_mtu(name, mtu)
    }

    /// True if the interface found can be adopted; the rest of a dead one of ours is removed.
    fn adopt(&mut self, network: &mut Network, found: &FoundLink) -> Result<bool, KernelError> {
        match found.link.kind {
            LinkKind::WireGuard => Ok(true),
            LinkKind::Tun if self.userspace.answers(&found.name) => Ok(true),
            LinkKind::Tun if !found.carrier => {
                self.userspace.delete(network, found)?;
                Ok(false)
            }
            LinkKind::Tun | LinkKind::Other => Err(foreign(&found.name)),
        }
    }

    /// Removes a WireGuard interface and the process that serves it, if one does.
    pub fn delete(&mut self, network: &mut Network, name: &IfName) -> Result<(), KernelError> {
        let Some(found) = network.link(name)? else {
            self.userspace.sweep(name);
            return Ok(());
        };
        match found.link.kind {
            LinkKind::WireGuard => network.delete_link(&found),
            LinkKind::Tun if !found.carrier || self.userspace.answers(name) => {
                self.userspace.delete(network, &found)
            }
            LinkKind::Tun | LinkKind::Other => Err(foreign(name)),
        }
    }

    /// Sets private key, port and mark of a WireGuard interface.
    pub fn set_device(
        &mut self,
        network: &mut Network,
        name: &IfName,
        settings: &WgSettings,
    ) -> Result<(), KernelError> {
        match self.kind(network, name)? {
            LinkKind::WireGuard => self.genl()?.set_device(name, settings),
            _ => self.userspace.set_device(name, settings),
        }
    }

    /// Changes peers of a WireGuard interface, all together.
    pub fn set_peers(
        &mut self,
        network: &mut Network,
        name: &IfName,
        changes: &[(WgPublicKey, PeerChange)],
    ) -> Result<(), KernelError> {
        let orders: Vec<_> = changes.iter().map(|(key, change)| order(*key, change)).collect();
        match self.kind(network, name)? {
            LinkKind::WireGuard => self.genl()?.set_peers(name, &orders),
            _ => self.userspace.set_peers(name, &orders),
        }
    }

    /// Makes a WireGuard interface send from the addresses that are present now. The kernel's WireGuard does so by
    /// itself.
    pub fn renew_endpoints(&mut self, network: &mut Network, name: &IfName) -> Result<(), KernelError> {
        match network.link(name)?.map(|found| found.link.kind) {
            Some(LinkKind::Tun) => self.userspace.renew_endpoints(name),
            Some(LinkKind::WireGuard | LinkKind::Other) | None => Ok(()),
        }
    }

    fn kind(&mut self, network: &mut Network, name: &IfName) -> Result<LinkKind, KernelError> {
        match network.link(name)?.map(|found| found.link.kind) {
            Some(LinkKind::Other) => Err(foreign(name)),
            Some(kind) => Ok(kind),
            None => Err(KernelError::Refused(format!("there is no interface {name}"))),
        }
    }

    /// Connection to the kernel's WireGuard, opened when the first interface of the kernel's own is met: the module may
    /// be loaded late.
    fn genl(&mut self) -> Result<&mut Genl, KernelError> {
        let genl = match self.genl.take() {
            Some(genl) => genl,
            None => Genl::open()?,
        };
        Ok(self.genl.insert(genl))
    }
}

fn order(key: WgPublicKey, change: &PeerChange) -> PeerOrder {
    let action = Action::Update;
    let allowed = SortedSet::new();
    let order =
        PeerOrder { key, action, endpoint: None, keepalive: None, psk: None, replace: false, allowed };
    match change {
        PeerChange::Remove => PeerOrder { action: Action::Remove, ..order },
        PeerChange::Add(peer) => PeerOrder {
            action: Action::Make,
            endpoint: peer.endpoint,
            keepalive: Some(peer.keepalive),
            psk: peer.psk,
            replace: true,
            allowed: peer.allowed.clone(),
            ..order
        },
        PeerChange::Update(update) => PeerOrder {
            endpoint: update.endpoint,
            keepalive: update.keepalive,
            psk: update.psk,
            replace: update.allowed.is_some(),
            allowed: update.allowed.as_ref().unwrap_or(&update.gains).clone(),
            ..order
        },
    }
}

fn foreign(name: &IfName) -> KernelError {
    let hint = "rename or remove it, or give the network another name";
    KernelError::Conflict(format!("an interface {name} is there that is not WireGuard: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PeerUpdate;

    const KEY: WgPublicKey = WgPublicKey([1; 32]);

    fn prefixes(list: &[&str]) -> SortedSet<Prefix> {
        list.iter().map(|p| p.parse().expect("valid")).collect()
    }

    #[test]
    fn unnamed_parts_of_a_peer_stay() {
        let endpoint = "192.0.2.1:51820".parse().ok();
        let order = order(KEY, &PeerChange::Update(PeerUpdate { endpoint, ..Default::default() }));
        assert_eq!((order.action, order.endpoint, order.keepalive), (Action::Update, endpoint, None));
        assert_eq!((order.replace, order.allowed), (false, prefixes(&[])));
    }

    #[test]
    fn gained_prefixes_add_and_lost_ones_replace() {
        let (gains, all) = (prefixes(&["10.1.0.0/16"]), prefixes(&["10.0.0.0/16", "10.1.0.0/16"]));
        let mut update = PeerUpdate { gains: gains.clone(), ..Default::default() };
        let gaining = order(KEY, &PeerChange::Update(update.clone()));
        assert_eq!((gaining.replace, gaining.allowed), (false, gains));
        update.allowed = Some(all.clone());
        let losing = order(KEY, &PeerChange::Update(update));
        assert_eq!((losing.replace, losing.allowed), (true, all));
    }
}

//! Interfaces: created where one is missing, set up, given the right MTU, and deleted when no longer desired. A desired
//! interface that works is never created again.

use super::Step;
use crate::{
    model::{Desired, IfName, Link, LinkKind, Observed, Tunnel, WgDevice},
    ownership::INTERFACE_PREFIX,
};

/// View of both sides of a plan's comparison: the observed state and the desired one.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) observed: &'a Observed,
    pub(super) desired: &'a Desired,
}

/// State of the interface that has the name of a desired one.
pub(super) enum State<'a> {
    /// The interface is to be created.
    Missing,
    /// The interface works.
    Usable(&'a Link),
    /// The interface is another program's, or a TUN device without a WireGuard process, which may be dead or another
    /// program's. The driver finds out when it is to create the interface; until then no other step concerns it.
    Taken,
}

impl<'a> View<'a> {
    pub(super) fn state(self, name: &IfName) -> State<'a> {
        match self.observed.links.get(name) {
            None => State::Missing,
            Some(link) => match link.kind {
                LinkKind::WireGuard => State::Usable(link),
                LinkKind::Tun if self.observed.devices.contains_key(name) => State::Usable(link),
                LinkKind::Tun | LinkKind::Other => State::Taken,
            },
        }
    }

    /// Desired interfaces that exist or will: all but those that are taken.
    pub(super) fn tunnels(self) -> Vec<(&'a IfName, &'a Tunnel)> {
        self.desired.tunnels.iter().filter(|(name, _)| !self.is_taken(name)).collect()
    }

    /// True if the name of a desired interface is taken by another program's.
    pub(super) fn is_taken(self, name: &IfName) -> bool {
        self.desired.tunnels.contains_key(name) && matches!(self.state(name), State::Taken)
    }

    /// WireGuard device of a usable interface, as observed; `None` for others.
    pub(super) fn device(self, name: &IfName) -> Option<&'a WgDevice> {
        self.observed.devices.get(name).filter(|_| matches!(self.state(name), State::Usable(_)))
    }
}

pub(super) fn additions(view: View<'_>, steps: &mut Vec<Step>) {
    for (name, tunnel) in &view.desired.tunnels {
        let (link, mtu) = (name.clone(), tunnel.mtu);
        match view.state(name) {
            State::Missing | State::Taken => steps.push(Step::AddTunnel { link, mtu }),
            State::Usable(there) if there.mtu != mtu => steps.push(Step::SetMtu(link, mtu)),
            State::Usable(_) => (),
        }
    }
}

pub(super) fn ups(view: View<'_>, steps: &mut Vec<Step>) {
    for (name, _) in view.tunnels() {
        if !matches!(view.state(name), State::Usable(link) if link.up) {
            steps.push(Step::SetUp(name.clone()));
        }
    }
}

pub(super) fn deletions(view: View<'_>, steps: &mut Vec<Step>) {
    for name in &view.desired.gone {
        if !view.desired.tunnels.contains_key(name) && is_ours(view.observed, name) {
            steps.push(Step::DeleteTunnel(name.clone()));
        }
    }
}

fn is_ours(observed: &Observed, name: &IfName) -> bool {
    let tunnel = |link: &Link| matches!(link.kind, LinkKind::WireGuard | LinkKind::Tun);
    name.as_str().starts_with(INTERFACE_PREFIX) && observed.links.get(name).is_some_and(tunnel)
}

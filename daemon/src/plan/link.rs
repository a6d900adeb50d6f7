//! Interfaces: made where one is missing, set up, given the right MTU; those no longer wanted go. An interface
//! that is wanted and works is never made anew.

use super::Step;
use crate::{
    gather::Gather,
    model::{Desired, IfName, Link, LinkKind, Observed, Tunnel, WgDevice},
    ownership::INTERFACE_PREFIX,
};

/// Both sides of the comparison, and what all parts of it need to know of an interface.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) observed: &'a Observed,
    pub(super) desired: &'a Desired,
}

/// An interface of a wanted name.
pub(super) enum State<'a> {
    /// To be made.
    Missing,
    /// Works.
    Usable(&'a Link),
    /// Someone else's, or a TUN device for which no WireGuard answers: it may be dead, and may be anyone's. The
    /// driver finds out when it is told to make it; nothing else is done on it before.
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

    /// Wanted interfaces that are there or will be: those that are taken left out.
    pub(super) fn tunnels(self) -> Vec<(&'a IfName, &'a Tunnel)> {
        self.desired.tunnels.iter().filter(|(name, _)| !self.is_taken(name)).gather()
    }

    /// Whether it is a wanted interface on which nothing can be done now.
    pub(super) fn is_taken(self, name: &IfName) -> bool {
        self.desired.tunnels.contains_key(name) && matches!(self.state(name), State::Taken)
    }

    /// WireGuard's state of a usable interface.
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

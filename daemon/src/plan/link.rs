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
    pub(super) fn tunnels(self) -> impl Iterator<Item = (&'a IfName, &'a Tunnel)> {
        self.desired.tunnels.iter().filter(move |(name, _)| !self.is_taken(name))
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

pub(super) fn additions(view: View<'_>) -> Vec<Step> {
    view.desired
        .tunnels
        .iter()
        .filter_map(|(name, tunnel)| addition(view.state(name), name, tunnel.mtu))
        .gather()
}

fn addition(state: State<'_>, name: &IfName, mtu: u32) -> Option<Step> {
    match state {
        State::Missing | State::Taken => Some(Step::AddTunnel { link: name.clone(), mtu }),
        State::Usable(link) => (link.mtu != mtu).then(|| Step::SetMtu(name.clone(), mtu)),
    }
}

pub(super) fn ups(view: View<'_>) -> Vec<Step> {
    let is_up = |name| matches!(view.state(name), State::Usable(link) if link.up);
    view.tunnels().filter(|(name, _)| !is_up(name)).map(|(name, _)| Step::SetUp(name.clone())).gather()
}

pub(super) fn deletions(view: View<'_>) -> Vec<Step> {
    let unwanted = view.desired.gone.iter().filter(|name| !view.desired.tunnels.contains_key(name));
    unwanted.filter(|name| is_ours(view.observed, name)).cloned().map(Step::DeleteTunnel).gather()
}

fn is_ours(observed: &Observed, name: &IfName) -> bool {
    let tunnel = |link: &Link| matches!(link.kind, LinkKind::WireGuard | LinkKind::Tun);
    name.as_str().starts_with(INTERFACE_PREFIX) && observed.links.get(name).is_some_and(tunnel)
}

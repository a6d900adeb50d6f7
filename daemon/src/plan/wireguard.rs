//! WireGuard devices and peers. A peer's change is one step about that peer. WireGuard keeps each allowed IP
//! with one peer at most and hands it over in one move when another is given it: therefore who gains a prefix
//! is told, and who loses it to another peer is not even named.
//!
//! Where the loser has to be named for another reason (it goes, or it also loses a prefix to nobody), both
//! stand in one step, the gaining first: whatever fails, no prefix is without a peer that had one and shall have
//! one.

use super::{NO_PSK, PeerChange, PeerUpdate, Step, link::View};
use crate::{
    gather::Gather,
    model::{IfName, WgPeer, WgSettings},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Prefix, WgPublicKey};

type Peers = SortedMap<WgPublicKey, WgPeer>;
type Changes = Vec<(WgPublicKey, PeerChange)>;

pub(super) fn devices(view: View<'_>) -> Vec<Step> {
    let settings = |name: &IfName| view.device(name).and_then(|device| device.settings.as_ref());
    let is_so = |there: &WgSettings, wanted: &WgSettings| {
        let port = if wanted.port == 0 { there.port } else { wanted.port };
        *there == WgSettings { port, ..wanted.clone() }
    };
    let differing = view
        .tunnels()
        .filter(|(name, tunnel)| !settings(name).is_some_and(|there| is_so(there, &tunnel.settings)));
    differing.map(|(name, tunnel)| Step::SetDevice(name.clone(), tunnel.settings.clone())).gather()
}

/// Steps in which a peer is added or changed; also those that go or shrink in exchange.
pub(super) fn gains(view: View<'_>) -> Vec<Step> {
    steps(view, |changes| !only_loses(changes))
}

/// Steps in which peers only go or shrink.
pub(super) fn losses(view: View<'_>) -> Vec<Step> {
    steps(view, only_loses)
}

fn steps(view: View<'_>, filter: fn(&Changes) -> bool) -> Vec<Step> {
    let none = Peers::new();
    let step = |(name, changes): (&IfName, Changes)| Step::SetPeers(name.clone(), changes);
    let messages = view.tunnels().flat_map(|(name, tunnel)| {
        let old = view.device(name).map_or(&none, |device| &device.peers);
        messages(old, &tunnel.peers).into_iter().map(move |changes| (name, changes))
    });
    messages.filter(|(_, changes)| filter(changes)).map(step).gather()
}

fn only_loses(changes: &Changes) -> bool {
    changes.iter().all(|(_, change)| match change {
        PeerChange::Add(_) => false,
        PeerChange::Update(update) => {
            let PeerUpdate { endpoint, gains, allowed: _, keepalive, psk } = update;
            endpoint.is_none() && gains.is_empty() && keepalive.is_none() && psk.is_none()
        }
        PeerChange::Remove => true,
    })
}

/// The messages to one device, in the order of the least key that each names.
fn messages(old: &Peers, new: &Peers) -> Vec<Changes> {
    let changes = changes(old, new);
    let labels = labels(&changes, old);
    let mut groups = SortedMap::<_, Changes>::new();
    for (key, change) in changes {
        groups.entry(labels[&key]).or_default().push((key, change));
    }
    groups.into_values().map(in_order).gather()
}

fn changes(old: &Peers, new: &Peers) -> SortedMap<WgPublicKey, PeerChange> {
    let held: SortedSet<_> = new.values().flat_map(|peer| &peer.allowed).collect();
    let kept = new.iter().filter_map(|(key, peer)| match old.get(key) {
        None => Some((*key, PeerChange::Add(peer.clone()))),
        Some(before) => update(before, peer, &held).map(|update| (*key, PeerChange::Update(update))),
    });
    let removed = old.keys().filter(|key| !new.contains_key(key)).map(|key| (*key, PeerChange::Remove));
    kept.chain(removed).collect()
}

fn update(old: &WgPeer, new: &WgPeer, held: &SortedSet<&Prefix>) -> Option<PeerUpdate> {
    let loses_to_nobody = old.allowed.iter().any(|prefix| !held.contains(prefix));
    let update = PeerUpdate {
        endpoint: new.endpoint.filter(|_| new.endpoint != old.endpoint),
        gains: new.allowed.difference(&old.allowed).copied().collect(),
        allowed: loses_to_nobody.then(|| new.allowed.clone()),
        keepalive: (new.keepalive != old.keepalive).then_some(new.keepalive),
        psk: (new.psk != old.psk).then_some(new.psk.unwrap_or(NO_PSK)),
    };
    (update != PeerUpdate::default()).then_some(update)
}

/// Which message each changed peer stands in: the same for two if one gains a prefix from the other and the
/// other takes it from itself.
fn labels(changes: &SortedMap<WgPublicKey, PeerChange>, old: &Peers) -> SortedMap<WgPublicKey, usize> {
    let mut labels: SortedMap<_, _> = changes.keys().copied().zip(0..).collect();
    let gained = changes.iter().flat_map(|(key, change)| gains_of(change).map(move |prefix| (prefix, key)));
    let gainers: SortedMap<_, _> = gained.collect();
    for (loser, _) in changes.iter().filter(|(_, change)| takes_from_itself(change)) {
        for gainer in old[loser].allowed.iter().filter_map(|prefix| gainers.get(prefix)) {
            let (a, b) = (labels[*gainer], labels[loser]);
            labels.values_mut().filter(|label| **label == a.max(b)).for_each(|label| *label = a.min(b));
        }
    }
    labels
}

fn gains_of(change: &PeerChange) -> impl Iterator<Item = &Prefix> {
    let gains = match change {
        PeerChange::Add(peer) => Some(&peer.allowed),
        PeerChange::Update(update) => Some(&update.gains),
        PeerChange::Remove => None,
    };
    gains.into_iter().flatten()
}

fn takes_from_itself(change: &PeerChange) -> bool {
    match change {
        PeerChange::Add(_) => false,
        PeerChange::Update(update) => update.allowed.is_some(),
        PeerChange::Remove => true,
    }
}

/// A lone peer needs one entry. Among several, all giving is done before any taking.
fn in_order(group: Changes) -> Changes {
    if group.len() == 1 {
        return group;
    }
    let (gives, takes): (Vec<_>, Vec<_>) = group.into_iter().map(split).unzip();
    gives.into_iter().chain(takes).flatten().gather()
}

type Entry = Option<(WgPublicKey, PeerChange)>;

/// In two: what gives, what takes.
fn split((key, change): (WgPublicKey, PeerChange)) -> (Entry, Entry) {
    match change {
        PeerChange::Add(_) => (Some((key, change)), None),
        PeerChange::Remove => (None, Some((key, change))),
        PeerChange::Update(mut update) => {
            let allowed = update.allowed.take();
            let takes = allowed.map(|allowed| PeerUpdate { allowed: Some(allowed), ..Default::default() });
            let gives = (update != PeerUpdate::default()).then_some(update);
            let entry = |update| (key, PeerChange::Update(update));
            (gives.map(entry), takes.map(entry))
        }
    }
}

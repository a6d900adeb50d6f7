//! WireGuard devices and peers. A peer's change is one step about that peer. WireGuard keeps each allowed IP
//! with one peer at most and hands it over in one move when another is given it: therefore who gains a prefix
//! is told, and who loses it to another peer is not even named.
//!
//! If the loser has to be named for another reason (it goes, or it also loses a prefix to nobody), both stand in one
//! step, the gaining first: whatever fails, no prefix is without a peer that had one and shall have one.

use super::{PeerChange, PeerUpdate, Step, link::View};
use crate::model::{NO_PSK, WgPeer};
use gatewrt_protocol::{Prefix, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::mem;

type Peers = LiteMap<WgPublicKey, WgPeer>;
type Changes = Vec<(WgPublicKey, PeerChange)>;

pub(super) fn devices(view: View<'_>, steps: &mut Vec<Step>) {
    for (name, tunnel) in view.tunnels() {
        let mut there = view.device(name).and_then(|device| device.settings.clone());
        // Any port was asked for, and it has one.
        there.iter_mut().filter(|_| tunnel.settings.port == 0).for_each(|there| there.port = 0);
        if there.as_ref() != Some(&tunnel.settings) {
            steps.push(Step::SetDevice(name.clone(), tunnel.settings.clone()));
        }
    }
}

/// Steps in which a WireGuard peer is added or changed; also those that go or shrink in exchange.
pub(super) fn gains(view: View<'_>, steps: &mut Vec<Step>) {
    set_peers(view, true, steps);
}

/// Steps in which WireGuard peers only go or shrink.
pub(super) fn losses(view: View<'_>, steps: &mut Vec<Step>) {
    set_peers(view, false, steps);
}

fn set_peers(view: View<'_>, gaining: bool, steps: &mut Vec<Step>) {
    let none = Peers::new();
    for (name, tunnel) in view.tunnels() {
        let old = view.device(name).map_or(&none, |device| &device.peers);
        for changes in messages(old, &tunnel.peers) {
            if changes.iter().any(|(_, change)| gives(change)) == gaining {
                steps.push(Step::SetPeers(name.clone(), changes));
            }
        }
    }
}

/// True if a change adds a WireGuard peer, or sets anything of it but fewer allowed IPs.
fn gives(change: &PeerChange) -> bool {
    match change {
        PeerChange::Add(_) => true,
        PeerChange::Update(update) => {
            let PeerUpdate { endpoint, gains, allowed: _, keepalive, psk } = update;
            endpoint.is_some() || !gains.is_empty() || keepalive.is_some() || psk.is_some()
        }
        PeerChange::Remove => false,
    }
}

/// True if a change takes a prefix from a WireGuard peer by naming that peer.
fn takes(change: &PeerChange) -> bool {
    match change {
        PeerChange::Add(_) => false,
        PeerChange::Update(update) => update.allowed.is_some(),
        PeerChange::Remove => true,
    }
}

/// Messages to one WireGuard device, in the order of the least key that each names.
fn messages(old: &Peers, new: &Peers) -> Vec<Changes> {
    let changes = changes(old, new);
    let labels = labels(&changes, old);
    let mut groups: Vec<Changes> = labels.iter().map(|_| Changes::new()).collect();
    for (change, label) in changes.into_iter().zip(labels) {
        groups[label].push(change);
    }
    groups.retain(|group| !group.is_empty());
    groups.iter_mut().for_each(in_order);
    groups
}

/// Changes from the old to the new peers of a WireGuard device, in the order of their keys.
fn changes(old: &Peers, new: &Peers) -> Changes {
    let held: SortedSet<_> = new.values().flat_map(|peer| &peer.allowed).collect();
    let mut changes = Changes::new();
    for (key, peer) in new {
        let change = match old.get(key) {
            None => PeerChange::Add(peer.clone()),
            Some(before) => PeerChange::Update(update(before, peer, &held)),
        };
        if gives(&change) || takes(&change) {
            changes.push((*key, change));
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        changes.push((*key, PeerChange::Remove));
    }
    changes.sort_by_key(|(key, _)| *key);
    changes
}

fn update(old: &WgPeer, new: &WgPeer, held: &SortedSet<&Prefix>) -> PeerUpdate {
    let loses_to_nobody = old.allowed.iter().any(|prefix| held.binary_search(&prefix).is_err());
    PeerUpdate {
        endpoint: new.endpoint.filter(|_| new.endpoint != old.endpoint),
        gains: new
            .allowed
            .iter()
            .filter(|prefix| old.allowed.binary_search(prefix).is_err())
            .copied()
            .collect(),
        allowed: loses_to_nobody.then(|| new.allowed.clone()),
        keepalive: (new.keepalive != old.keepalive).then_some(new.keepalive),
        psk: (new.psk != old.psk).then_some(new.psk.unwrap_or(NO_PSK)),
    }
}

/// Label of the message to WireGuard that each change stands in: two changes share one if one peer gains a prefix from
/// the other and the other's change removes it.
fn labels(changes: &Changes, old: &Peers) -> Vec<usize> {
    let mut labels: Vec<usize> = (0..changes.len()).collect();
    let mut gained = Vec::new();
    for (at, (_, change)) in changes.iter().enumerate() {
        let gains = match change {
            PeerChange::Add(peer) => &peer.allowed,
            PeerChange::Update(update) => &update.gains,
            PeerChange::Remove => continue,
        };
        gained.extend(gains.iter().map(|prefix| (prefix, at)));
    }
    let gainers: LiteMap<&Prefix, usize> = gained.into_iter().collect();
    for (at, (loser, _)) in changes.iter().enumerate().filter(|(_, (_, change))| takes(change)) {
        for gainer in old[loser].allowed.iter().filter_map(|prefix| gainers.get(prefix)) {
            let (a, b) = (labels[*gainer], labels[at]);
            labels.iter_mut().filter(|label| **label == a.max(b)).for_each(|label| *label = a.min(b));
        }
    }
    labels
}

/// Puts the changes in one message to WireGuard in order: all giving is done before any taking. A lone peer needs one
/// entry.
fn in_order(group: &mut Changes) {
    if group.len() == 1 {
        return;
    }
    let (mut giving, mut taking) = (Changes::new(), Changes::new());
    for (key, mut change) in mem::take(group) {
        if let PeerChange::Update(update) = &mut change
            && let Some(allowed) = update.allowed.take()
        {
            let rest = PeerUpdate { allowed: Some(allowed), ..Default::default() };
            taking.push((key, PeerChange::Update(rest)));
        }
        if gives(&change) {
            giving.push((key, change));
        } else if takes(&change) {
            taking.push((key, change));
        }
    }
    giving.append(&mut taking);
    *group = giving;
}

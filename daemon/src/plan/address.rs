//! Addresses on interfaces of ours. Additions come first: a change of address never leaves an interface with
//! none. Foreign addresses on our interfaces stay.

use super::{Step, link::View};
use crate::model::Address;

pub(super) fn additions(view: View<'_>, steps: &mut Vec<Step>) {
    for address in wanted(view) {
        if !is_there(view, &address) {
            steps.push(Step::AddAddress(address));
        }
    }
}

pub(super) fn deletions(view: View<'_>, steps: &mut Vec<Step>) {
    let wanted = wanted(view);
    for address in &view.observed.our_addresses {
        let is_usable = view.device(&address.link).is_some();
        let is_on_wanted = view.desired.tunnels.contains_key(&address.link);
        if is_usable && is_on_wanted && !wanted.contains(address) {
            steps.push(Step::DeleteAddress(address.clone()));
        }
    }
}

fn wanted(view: View<'_>) -> Vec<Address> {
    let mut all = Vec::new();
    for (link, tunnel) in view.tunnels() {
        for &addr in &tunnel.addresses {
            all.push(Address { link: link.clone(), addr, len: if addr.is_ipv4() { 32 } else { 128 } });
        }
    }
    all
}

/// True if an address exists on its interface, with any prefix length: the kernel refuses a second IPv6 one, and one
/// suffices.
fn is_there(view: View<'_>, wanted: &Address) -> bool {
    let same = |address: &Address| (&address.link, address.addr) == (&wanted.link, wanted.addr);
    let stays = |address: &Address| address == wanted || !view.observed.our_addresses.contains(address);
    view.observed.addresses.iter().any(|address| same(address) && stays(address))
}

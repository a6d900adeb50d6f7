//! Addresses on interfaces of ours. Additions come first: a change of address never leaves an interface with
//! none. Foreign addresses on our interfaces stay.

use super::{Step, link::View};
use crate::{
    gather::Gather,
    model::{Address, IfName, Tunnel},
    sorted::SortedSet,
};

pub(super) fn additions(view: View<'_>) -> Vec<Step> {
    let wanted = view.tunnels().flat_map(|(name, tunnel)| addresses(name, tunnel));
    wanted.filter(|address| !is_there(view, address)).map(Step::AddAddress).gather()
}

pub(super) fn deletions(view: View<'_>) -> Vec<Step> {
    let wanted: SortedSet<_> = view.tunnels().flat_map(|(name, tunnel)| addresses(name, tunnel)).collect();
    let on_usable = view.observed.our_addresses.iter().filter(|address| view.device(&address.link).is_some());
    let on_wanted = on_usable.filter(|address| view.desired.tunnels.contains_key(&address.link));
    on_wanted.filter(|address| !wanted.contains(address)).cloned().map(Step::DeleteAddress).gather()
}

fn addresses<'a>(link: &'a IfName, tunnel: &'a Tunnel) -> impl Iterator<Item = Address> + 'a {
    tunnel.addresses.iter().map(|&addr| Address {
        link: link.clone(),
        addr,
        len: if addr.is_ipv4() { 32 } else { 128 },
    })
}

/// With whatever length someone else gave it: the kernel refuses a second IPv6 one, and one does.
fn is_there(view: View<'_>, wanted: &Address) -> bool {
    let same = |address: &Address| (&address.link, address.addr) == (&wanted.link, wanted.addr);
    let stays = |address: &Address| address == wanted || !view.observed.our_addresses.contains(address);
    view.observed.addresses.iter().any(|address| same(address) && stays(address))
}

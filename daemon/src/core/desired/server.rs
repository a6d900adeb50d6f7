//! A router that takes others' Internet traffic: whose.

use super::super::Network;
use gatewrt_protocol::{Assignment, ExitOffer, Failure, Policy, Prefix};

/// What is asked of the router, and where it stands.
pub(super) struct Asked<'a> {
    pub(super) assignment: &'a Assignment,
    pub(super) policy: &'a Policy,
    pub(super) network: &'a Network,
    /// What it could serve; `None` where its owner forbids it.
    pub(super) offer: Option<ExitOffer>,
}

/// Whose Internet traffic goes out here, of the families that are wanted and that there is a way for: all of the
/// network's. External clients of this node are no part of it: each is let out, or not, by itself.
pub(super) fn internet(asked: &Asked<'_>, failures: &mut Vec<Failure>) -> Vec<Prefix> {
    let Some(wish) = &asked.assignment.exit else { return Vec::new() };
    let refused = |why: &str| Failure { what: "be an exit".to_owned(), why: why.to_owned() };
    let Some(offer) = &asked.offer else {
        failures.push(refused(
            "the router's owner forbids it: option allow_exit is not 1 in /etc/config/gatewrt",
        ));
        return Vec::new();
    };
    let (v4, v6) = (wish.v4 && offer.v4, wish.v6 && offer.v6);
    if !(v4 || v6) {
        failures
            .push(refused("this router has no default route of a wanted family: it leads nowhere itself"));
    }
    let blocks = asked.network.directory.own().map(|own| own.clients.as_slice()).unwrap_or_default();
    let nets = asked.policy.prefixes.iter().filter(|net| if net.is_ipv4() { v4 } else { v6 });
    let mut all = Vec::new();
    nets.for_each(|net| without(*net, blocks, &mut all));
    all
}

/// A prefix without what lies in any of `blocks`: halved as often as it must be.
fn without(prefix: Prefix, blocks: &[Prefix], into: &mut Vec<Prefix>) {
    if !blocks.iter().any(|block| block.overlaps(&prefix)) {
        return into.push(prefix);
    }
    if blocks.iter().any(|block| block.covers(&prefix)) {
        return;
    }
    let len = prefix.len() + 1;
    let width = if prefix.is_ipv4() { 32 } else { 128 };
    let upper = prefix.nth(1 << (width - u32::from(len)));
    let halves = [Some(prefix.addr()), upper].into_iter().flatten();
    halves.filter_map(|addr| Prefix::new(addr, len).ok()).for_each(|half| without(half, blocks, into));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_cut_out_of_a_prefix() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("valid");
        let cut = |net: &str, blocks: &[&str]| {
            let blocks: Vec<_> = blocks.iter().map(|text| prefix(text)).collect();
            let mut all = Vec::new();
            without(prefix(net), &blocks, &mut all);
            all.iter().map(Prefix::to_string).collect::<Vec<_>>()
        };
        assert_eq!(cut("10.90.0.0/16", &[]), ["10.90.0.0/16"]);
        assert_eq!(cut("10.90.0.0/22", &["10.90.1.0/24"]), ["10.90.0.0/24", "10.90.2.0/23"]);
        assert_eq!(cut("10.90.0.0/31", &["10.90.0.1/32", "fd00::/8"]), ["10.90.0.0/32"]);
        assert_eq!(cut("fd90::/64", &["fd90::/16"]), [""; 0]);
        assert_eq!(cut("fd90::/64", &["fd90::1:0/112"]).len(), 48);
    }
}

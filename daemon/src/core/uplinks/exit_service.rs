//! Exit service of this router: whose Internet traffic leaves here.

use gatewrt_protocol::{Assignment, ExitOffer, Failure, Policy, Prefix};

/// Prefixes whose Internet traffic leaves by this router as an exit: those of the network, in the families that are
/// requested and available. `clients` are prefixes of this node's external clients: they are let out, or not, one by
/// one.
pub(in crate::core) fn internet_sources(
    policy: &Policy,
    assignment: &Assignment,
    offer: Option<&ExitOffer>,
    clients: &[Prefix],
    failures: &mut Vec<Failure>,
) -> Vec<Prefix> {
    let Some(spec) = &assignment.exit else { return Vec::new() };
    let refused = |why: &str| Failure { what: "be an exit".to_owned(), why: why.to_owned() };
    let Some(offer) = offer else {
        failures.push(refused(
            "the router's owner forbids it: option allow_exit is not 1 in /etc/config/gatewrt",
        ));
        return Vec::new();
    };
    let (v4, v6) = (spec.v4 && offer.v4, spec.v6 && offer.v6);
    if !(v4 || v6) {
        failures
            .push(refused("this router has no default route of a wanted family: it leads nowhere itself"));
    }
    let nets = policy.prefixes.iter().filter(|net| if net.is_ipv4() { v4 } else { v6 });
    let mut all = Vec::new();
    nets.for_each(|net| without(*net, clients, &mut all));
    all
}

/// Adds to `into` the parts of a prefix that are in none of `blocks`, by halving it as often as needed.
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
    fn blocks_are_cut_out_of_a_prefix() {
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

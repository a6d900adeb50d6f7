//! Sources of scopes: their devices, the prefixes of those, and both families of their hosts.

use super::{Context, Usage};
use crate::{
    core::{
        scopes::Scope,
        uplinks::{lan_links, link_prefixes, outer_links},
    },
    model::{Family, IfName, Observed, Source},
    ownership::INTERFACE_PREFIX,
};
use gatewrt_protocol::{Failure, Prefix, Traffic};
use litemap::LiteMap;
use sorted_vec::SortedSet;

/// Device of a scope, which may be missing, or have a default route, but is not ours.
pub(super) fn device(name: &str) -> Option<IfName> {
    IfName::new(name).filter(|link| !link.as_str().starts_with(INTERFACE_PREFIX))
}

/// Devices that the scopes of all networks name.
pub(in crate::core::desired) fn devices(usages: &[Usage]) -> SortedSet<IfName> {
    let traffic = usages.iter().flat_map(|usage| &usage.scopes).flat_map(|scope| &scope.asked.of);
    let named = traffic.filter_map(|of| match of {
        Traffic::Device(name) => device(name),
        _ => None,
    });
    named.collect()
}

/// Failures for devices of the scopes that are missing, or may be no LAN's, and for hosts one family of which goes past.
pub(in crate::core::desired) fn unfit_sources(scopes: &[Scope], observed: &Observed) -> Vec<Failure> {
    if scopes.is_empty() {
        return Vec::new();
    }
    let (wans, lans) = (outer_links(observed), lan_links(observed));
    let prefixes = link_prefixes(observed);
    let mut failures = Vec::new();
    for scope in scopes {
        for of in &scope.asked.of {
            let name = match of {
                Traffic::Device(name) => name,
                Traffic::Prefix(hosts) if goes_past(hosts, scope, &prefixes) => {
                    failures.push(past(hosts));
                    continue;
                }
                _ => continue,
            };
            let why = match device(name) {
                None => "it is a network's own",
                Some(link) if !observed.links.contains_key(&link) => NO_INTERFACE,
                Some(link) if wans.contains(&link) && !lans.contains(&link) => {
                    "it leads to the Internet itself: what comes in by it is kept from there all the same"
                }
                Some(_) => continue,
            };
            let what = format!("take the Internet traffic of dev:{name} through an exit");
            failures.push(Failure { what, why: why.to_owned() });
        }
    }
    failures
}

/// Reason why a device of a scope has no traffic.
const NO_INTERFACE: &str = "there is no interface of this name";

/// True if hosts that a scope names by one family have another too, which the scope does not name: they are a part of
/// their LAN, so that their link does not tell them.
fn goes_past(hosts: &Prefix, scope: &Scope, prefixes: &LiteMap<IfName, SortedSet<Prefix>>) -> bool {
    let is_other = |prefix: &Prefix| Family::of(prefix) != Family::of(hosts);
    let is_named = |of: &Traffic| !matches!(of, Traffic::Prefix(prefix) if !is_other(prefix));
    let accepted = scope.asked.v6_wan && hosts.is_ipv4();
    let has_both = |lan: &SortedSet<Prefix>| {
        lan.iter().any(is_other) && lan.iter().any(|prefix| prefix != hosts && prefix.covers(hosts))
    };
    !accepted && !scope.asked.of.iter().any(is_named) && prefixes.values().any(has_both)
}

fn past(hosts: &Prefix) -> Failure {
    let other = if hosts.is_ipv4() { 6 } else { 4 };
    let accept = if hosts.is_ipv4() { ", or accept it with --ipv6 wan" } else { "" };
    Failure {
        what: format!("take the IPv{other} traffic of {hosts} through an exit"),
        why: format!("it goes past, since nothing names its addresses: name them too{accept}"),
    }
}

impl Context<'_> {
    /// Prefixes of the hosts on a source's link. On an uplink the router itself is one of them.
    pub(super) fn near(&self, source: &Source) -> impl Iterator<Item = &Prefix> {
        let (link, family) = match source {
            Source::Link(link) => (Some(link), None),
            Source::Half(link, family) => (Some(link), Some(*family)),
            _ => (None, None),
        };
        let is_host = |link: &&IfName| self.lans.contains(link) || !self.uplinks.contains(link);
        let prefixes = link.filter(is_host).and_then(|link| self.prefixes.get(link));
        let is_of = move |prefix: &&Prefix| family.is_none_or(|family| Family::of(prefix) == family);
        prefixes.into_iter().flatten().filter(is_of)
    }

    /// Sources of the other family for a LAN whose prefix of one family is a scope's: its hosts have both. A LAN that is
    /// named by its device is left to that.
    pub(super) fn other_halves(&self, named: &Prefix) -> impl Iterator<Item = Source> {
        let family = if named.is_ipv4() { Family::V6 } else { Family::V4 };
        let is_of = |link: &IfName| {
            let prefixes = self.prefixes.get(link);
            prefixes.into_iter().flatten().any(|prefix| named.covers(prefix)) && !self.devices.contains(link)
        };
        let links: Vec<Source> = self
            .lans
            .iter()
            .filter(|link| is_of(link))
            .map(|link| Source::Half(link.clone(), family))
            .collect();
        links.into_iter()
    }
}

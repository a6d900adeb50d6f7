//! The text of our firewall table, from what each network's interface may reach. The same input gives the same
//! bytes. Nothing of anyone else's is in it: an accept here ends only our chain, foreign chains decide after.
//!
//! The text first deletes the table that is there, in the same transaction: `nft -f` replaces it whole.

use crate::{
    model::{Family, IfName, Ruleset},
    ownership::{NFT_TABLE, Numbers},
};
use gatewrt_protocol::Prefix;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What our table is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Marks and their mask.
    pub numbers: Numbers,
    /// Interfaces of ours, by names that come from a [`NetworkName`](gatewrt_protocol::NetworkName): they
    /// become names of chains and sets.
    pub tunnels: BTreeMap<IfName, Guard>,
}

/// What an interface's network may reach through this router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Prefixes served to the network, and whether connections to them are masqueraded. Of several that
    /// contain an address the longest counts.
    pub egress: BTreeMap<Prefix, bool>,
}

impl Firewall {
    /// The table as `nft -f` takes it.
    pub fn ruleset(&self) -> Ruleset {
        Ruleset(self.to_string())
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\ntable inet {NFT_TABLE} {{")?;
        for (link, guard) in &self.tunnels {
            guard.sets(f, link)?;
        }
        let chains = [self.forward(), self.prerouting(), self.output(), self.postrouting(), self.mss()];
        let guards = self.tunnels.iter().map(|(link, guard)| self.guard(link, guard));
        let chains: Vec<String> = chains.into_iter().chain(guards).collect();
        writeln!(f, "{}}}", chains.join("\n"))
    }
}

impl Firewall {
    /// What comes from a network is for it, its own router or what is served; we are nobody's open relay.
    fn forward(&self) -> String {
        let jumps = self.tunnels.keys().map(|link| format!("iifname \"{link}\" jump {link}"));
        chain("forward", "filter hook forward priority filter", jumps)
    }

    fn guard(&self, link: &IfName, guard: &Guard) -> String {
        let mut rules = vec![
            "ct state established,related accept".to_owned(),
            format!("oifname \"{link}\" accept comment \"relay\""),
        ];
        let others: Vec<_> = self.tunnels.keys().filter(|other| *other != link).collect();
        if !others.is_empty() {
            rules.push(format!("oifname {} {REJECT} comment \"another network\"", names(&others)));
        }
        rules.extend(guard.served().map(|set| format!("{} accept", set.matches(link))));
        rules.push(format!("{REJECT} comment \"not served\""));
        format!("\tchain {link} {{\n{}\t}}\n", lines(rules))
    }

    /// Before routing, so that strict reverse path filtering sees the mark (`src_valid_mark`).
    fn prerouting(&self) -> String {
        let Numbers { mask, bypass, masquerade, .. } = self.numbers;
        let keep = !mask;
        let restore = format!(
            "ct mark & {mask:#010x} == {bypass:#010x} meta mark set meta mark & {keep:#010x} | {bypass:#010x}"
        );
        let mark = format!("ct mark set ct mark & {keep:#010x} | {masquerade:#010x}");
        let masquerades = self.tunnels.iter().flat_map(|(link, guard)| {
            let mark = mark.clone();
            guard
                .masqueraded()
                .map(move |set| format!("ct state new iifname \"{link}\" {} {mark}", set.matches(link)))
        });
        chain(
            "prerouting",
            "filter hook prerouting priority mangle",
            [restore].into_iter().chain(masquerades),
        )
    }

    /// Connections of packets that must never enter a network are remembered, unless they carry a mark of ours.
    fn output(&self) -> String {
        let Numbers { mask, bypass, .. } = self.numbers;
        let save = format!(
            "meta mark & {mask:#010x} == {bypass:#010x} ct mark & {mask:#010x} == 0x00000000 \
             ct mark set ct mark | {bypass:#010x}"
        );
        chain("output", "filter hook output priority mangle", [save])
    }

    /// Stays also when nothing is masqueraded: without a nat chain the kernel stops to translate connections
    /// that go on.
    fn postrouting(&self) -> String {
        let Numbers { mask, masquerade, .. } = self.numbers;
        let links: Vec<_> = self.tunnels.keys().collect();
        let some = self.tunnels.values().any(|guard| guard.egress.values().any(|&nat| nat));
        let rule = some.then(|| {
            let names = names(&links);
            format!("ct mark & {mask:#010x} == {masquerade:#010x} oifname != {names} masquerade")
        });
        chain("postrouting", "nat hook postrouting priority srcnat", rule)
    }

    /// `rt mtu` is the lesser of the route's and the way back's.
    fn mss(&self) -> String {
        let links: Vec<_> = self.tunnels.keys().collect();
        let sides = ["iifname", "oifname"].into_iter().filter(|_| !links.is_empty());
        let rules = sides
            .map(|side| format!("{side} {} tcp flags syn tcp option maxseg size set rt mtu", names(&links)));
        chain("mss", "filter hook forward priority mangle", rules)
    }
}

const REJECT: &str = "reject with icmpx type admin-prohibited";

fn chain(name: &str, hook: &str, rules: impl IntoIterator<Item = String>) -> String {
    format!("\tchain {name} {{\n\t\ttype {hook}; policy accept;\n{}\t}}\n", lines(rules))
}

fn lines(rules: impl IntoIterator<Item = String>) -> String {
    rules.into_iter().fold(String::new(), |text, rule| text + "\t\t" + &rule + "\n")
}

/// One name, or a set of them.
fn names(links: &[&IfName]) -> String {
    let quoted: Vec<String> = links.iter().map(|link| format!("\"{link}\"")).collect();
    if let [one] = &quoted[..] { one.clone() } else { format!("{{ {} }}", quoted.join(", ")) }
}

/// One of an interface's sets: destinations of one family.
struct Set {
    purpose: &'static str,
    family: Family,
    prefixes: BTreeSet<Prefix>,
}

impl Set {
    fn name(&self, link: &IfName) -> String {
        let number = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        format!("{link}-{}{number}", self.purpose)
    }

    fn matches(&self, link: &IfName) -> String {
        let header = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        format!("{header} daddr @{}", self.name(link))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, link: &IfName) -> fmt::Result {
        let kind = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let prefixes: Vec<String> = self.prefixes.iter().map(Prefix::to_string).collect();
        writeln!(f, "\tset {} {{\n\t\ttype {kind}; flags interval;", self.name(link))?;
        writeln!(f, "\t\telements = {{ {} }}\n\t}}\n", prefixes.join(", "))
    }
}

impl Guard {
    fn sets(&self, f: &mut fmt::Formatter<'_>, link: &IfName) -> fmt::Result {
        self.served().chain(self.masqueraded()).try_for_each(|set| set.write(f, link))
    }

    /// Sets that are not empty.
    fn served(&self) -> impl Iterator<Item = Set> {
        by_family("serves", self.egress.keys().copied().collect())
    }

    /// Sets that are not empty: what is masqueraded, without the longer prefixes in it that are not.
    fn masqueraded(&self) -> impl Iterator<Item = Set> {
        let of =
            |wanted| self.egress.iter().filter(move |(_, nat)| **nat == wanted).map(|(prefix, _)| *prefix);
        let without_exceptions = |prefix: Prefix| {
            let exceptions = of(false).filter(move |other| prefix.covers(other));
            exceptions
                .fold(vec![prefix], |rest, hole| rest.into_iter().flat_map(|p| minus(p, hole)).collect())
        };
        by_family("masquerades", of(true).flat_map(without_exceptions).collect())
    }
}

fn by_family(purpose: &'static str, prefixes: BTreeSet<Prefix>) -> impl Iterator<Item = Set> {
    let set = move |family| {
        let of_family = prefixes.iter().filter(|prefix| Family::of(prefix) == family);
        let widest =
            of_family.filter(|prefix| !prefixes.iter().any(|wider| wider != *prefix && wider.covers(prefix)));
        Set { purpose, family, prefixes: widest.copied().collect() }
    };
    Family::ALL.into_iter().map(set).filter(|set| !set.prefixes.is_empty())
}

/// What of `prefix` lies outside of `hole`, as prefixes.
fn minus(prefix: Prefix, hole: Prefix) -> Vec<Prefix> {
    if hole.covers(&prefix) {
        return Vec::new();
    }
    if !prefix.covers(&hole) {
        return vec![prefix];
    }
    halves(prefix).into_iter().flatten().flat_map(|half| minus(half, hole)).collect()
}

/// `None` for a single address.
fn halves(prefix: Prefix) -> Option<[Prefix; 2]> {
    let len = prefix.len() + 1;
    let low = Prefix::new(prefix.addr(), len).ok()?;
    let bits = if prefix.is_ipv4() { 32 } else { 128 };
    let high = prefix.nth(1 << (bits - len)).and_then(|addr| Prefix::new(addr, len).ok())?;
    Some([low, high])
}

//! The text of our firewall table, from what each network's interface may reach. The same input gives the same
//! bytes. Nothing of anyone else's is in it: an accept here ends only our chain, foreign chains decide after.
//!
//! The text first deletes the table that is there, in the same transaction: `nft -f` replaces it whole. That is for the
//! first time only; later, what differs is changed [in place](super::rewrite).
//!
//! A packet that is on its way through the old rules while new ones come into force finds the sets of a deleted table
//! empty already (the kernel looks at the generation of elements anew at each lookup), and a new connection would be
//! refused. Therefore every set has a name and stays.

use super::judge;
use crate::{
    model::{IfName, Ruleset},
    ownership::{NFT_TABLE, Numbers},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Access, Prefix};
use std::{cmp::Reverse, fmt};

/// What our table is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Marks and their mask.
    pub numbers: Numbers,
    /// Interfaces of ours, by names that come from a [`NetworkName`](gatewrt_protocol::NetworkName): they
    /// become part of the names of chains.
    pub tunnels: SortedMap<IfName, Guard>,
}

/// What an interface's network may reach through this router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Prefixes served to the network, and whether connections to them are masqueraded. Of several that
    /// contain an address the longest counts.
    pub egress: SortedMap<Prefix, bool>,
    /// External clients here to which no one may open a connection: their addresses.
    pub closed: SortedSet<Prefix>,
    /// External clients here whose Internet traffic goes out here: their addresses.
    pub internet: SortedSet<Prefix>,
    /// Where that goes out: the links with a default route.
    pub uplinks: SortedSet<IfName>,
    /// What may reach what.
    pub access: Access,
}

impl Firewall {
    /// The table as `nft -f` takes it.
    pub fn ruleset(&self) -> Ruleset {
        Ruleset(self.to_string().into())
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guarded = self.tunnels.iter().filter(|(_, guard)| judge::is_needed(guard));
        let parts: Vec<_> =
            guarded.map(|(link, guard)| judge::parts(link, guard, &self.uplinks(guard))).collect();
        let (sets, judging): (Vec<_>, Vec<_>) = parts.into_iter().map(<[_; 2]>::into).unzip();
        let bases = [self.forward()].into_iter().chain(self.input());
        let bases = bases.chain([self.prerouting(), self.output(), self.postrouting(), self.mss()]);
        let chains = bases.chain(self.guards()).chain(judging.into_iter().flatten()).chain(self.marks());
        let all: Vec<String> = sets.into_iter().flatten().chain(chains).collect();
        writeln!(f, "{}{}}}", head(), all.join("\n"))
    }
}

/// What stands before the sets and chains.
pub(super) fn head() -> String {
    format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\ntable inet {NFT_TABLE} {{\n")
}

pub(super) const REJECT: &str = "reject with icmpx type admin-prohibited";
pub(super) const STANDS: &str = "ct state established,related accept";

impl Firewall {
    /// What comes from a network is for it, its own router or what is served; we are nobody's open relay.
    fn forward(&self) -> String {
        let jumps = self.tunnels.keys().map(|link| format!("iifname \"{link}\" jump forward-{link}"));
        let inward = self.judged("oifname");
        base("forward", "filter hook forward priority filter", jumps.chain(inward))
    }

    /// The router itself is reached by those who may.
    fn input(&self) -> Option<String> {
        let jumps = self.judged("iifname");
        (!jumps.is_empty()).then(|| base("input", "filter hook input priority filter", jumps))
    }

    fn judged(&self, side: &str) -> Vec<String> {
        let guarded = self.tunnels.iter().filter(|(_, guard)| !guard.is_open());
        guarded.map(|(link, _)| format!("{side} \"{link}\" jump access-{link}")).collect()
    }

    fn uplinks(&self, guard: &Guard) -> SortedSet<IfName> {
        guard.uplinks.iter().filter(|uplink| !self.tunnels.contains_key(*uplink)).cloned().collect()
    }

    fn guards(&self) -> impl Iterator<Item = String> {
        self.tunnels.iter().map(|(link, guard)| {
            let judged = judge::is_needed(guard).then(|| format!("jump access-{link}"));
            let relay = format!("oifname \"{link}\" accept comment \"relay\"");
            let own = [STANDS.to_owned()].into_iter().chain(judged).chain([relay]);
            let others = self.tunnels.keys().filter(|other| *other != link);
            let apart =
                others.map(|other| format!("oifname \"{other}\" {REJECT} comment \"another network\""));
            let served = guard.served().map(|prefix| format!("{} accept", to(prefix)));
            let rest = format!("{REJECT} comment \"not served\"");
            chain(&format!("forward-{link}"), own.chain(apart).chain(served).chain([rest]))
        })
    }

    /// Before routing, so that strict reverse path filtering sees the mark (`src_valid_mark`).
    fn prerouting(&self) -> String {
        let Numbers { mask, bypass, .. } = self.numbers;
        let keep = !mask;
        let restore = format!(
            "ct mark & {mask:#010x} == {bypass:#010x} meta mark set meta mark & {keep:#010x} | {bypass:#010x}"
        );
        let masquerading = self.tunnels.iter().filter(|(_, guard)| guard.masquerades());
        let jumps = masquerading.map(|(link, _)| format!("ct state new iifname \"{link}\" jump mark-{link}"));
        base("prerouting", "filter hook prerouting priority mangle", [restore].into_iter().chain(jumps))
    }

    /// Which new connections are to be masqueraded: the longest prefix decides, and what goes out to the Internet is.
    fn marks(&self) -> impl Iterator<Item = String> {
        let Numbers { mask, masquerade, .. } = self.numbers;
        let mark = format!("ct mark set ct mark & {:#010x} | {masquerade:#010x} ", !mask);
        let masquerading = self.tunnels.iter().filter(|(_, guard)| guard.masquerades());
        masquerading.map(move |(link, guard)| {
            let mut prefixes: Vec<_> = guard.egress.iter().collect();
            prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
            let rule = |(prefix, nat): (&Prefix, &bool)| {
                format!("{} {}return", to(prefix), if *nat { &mark } else { "" })
            };
            let out = judge::sources(link, guard).map(|source| format!("{source} {}", mark.trim_end()));
            chain(&format!("mark-{link}"), prefixes.into_iter().map(rule).chain(out))
        })
    }

    /// Connections of packets that must never enter a network are remembered, unless they carry a mark of ours.
    fn output(&self) -> String {
        let Numbers { mask, bypass, .. } = self.numbers;
        let save = format!(
            "meta mark & {mask:#010x} == {bypass:#010x} ct mark & {mask:#010x} == 0x00000000 \
             ct mark set ct mark | {bypass:#010x}"
        );
        base("output", "filter hook output priority mangle", [save])
    }

    /// Stays also when nothing is masqueraded: without a nat chain the kernel stops to translate connections
    /// that go on.
    fn postrouting(&self) -> String {
        let Numbers { mask, masquerade, .. } = self.numbers;
        let rule = self.tunnels.values().any(Guard::masquerades).then(|| {
            let elsewhere: String =
                self.tunnels.keys().map(|link| format!("oifname != \"{link}\" ")).collect();
            format!("ct mark & {mask:#010x} == {masquerade:#010x} {elsewhere}masquerade")
        });
        base("postrouting", "nat hook postrouting priority srcnat", rule)
    }

    /// `rt mtu` is the lesser of the route's and the way back's.
    fn mss(&self) -> String {
        let sides = self.tunnels.keys().flat_map(|link| [("iifname", link), ("oifname", link)]);
        let rules = sides
            .map(|(side, link)| format!("{side} \"{link}\" tcp flags syn tcp option maxseg size set rt mtu"));
        base("mss", "filter hook forward priority mangle", rules)
    }
}

impl Guard {
    /// Without prefixes that lie in others.
    pub(super) fn served(&self) -> impl Iterator<Item = &Prefix> {
        let is_within_other =
            |prefix: &Prefix| self.egress.keys().any(|other| other != prefix && other.covers(prefix));
        self.egress.keys().filter(move |prefix| !is_within_other(prefix))
    }

    /// Whether it lets someone out to the Internet.
    pub(super) fn lets_out(&self) -> bool {
        !self.internet.is_empty() && !self.uplinks.is_empty()
    }

    fn masquerades(&self) -> bool {
        self.lets_out() || self.egress.values().any(|&nat| nat)
    }
}

pub(super) fn to(prefix: &Prefix) -> String {
    format!("{} daddr {prefix}", if prefix.is_ipv4() { "ip" } else { "ip6" })
}

fn base(name: &str, hook: &str, rules: impl IntoIterator<Item = String>) -> String {
    chain(name, [format!("type {hook}; policy accept;")].into_iter().chain(rules))
}

pub(super) fn chain(name: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: String = lines.into_iter().map(|line| format!("\t\t{line}\n")).collect();
    format!("\tchain {name} {{\n{lines}\t}}\n")
}

//! The text of our firewall table, from what each network's interface may reach. The same input gives the same
//! bytes. Nothing of anyone else's is in it: an accept here ends only our chain, foreign chains decide after.
//!
//! The text first deletes the table that is there, in the same transaction: `nft -f` replaces it whole. That is for the
//! first time only; later, what differs is changed [in place](super::rewrite).
//!
//! A packet that is on its way through the old rules while new ones come into force finds the sets of a deleted table
//! empty already (the kernel looks at the generation of elements anew at each lookup), and a new connection would be
//! refused. Therefore every set has a name and stays.

use super::{Exits, judge, scope};
use crate::{
    gather::Gather,
    model::{IfName, Ruleset},
    ownership::{NFT_TABLE, Numbers, PROBE_PORT},
    sorted::{SortedMap, SortedSet, sort_by_key},
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
    /// Whose Internet traffic leaves through exits only.
    pub exits: Exits,
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
        let mut chains = vec![self.forward()];
        chains.extend(self.input());
        chains.extend([self.prerouting(), self.output(), self.postrouting()]);
        chains.extend(self.mss());
        chains.extend(self.tunnels.iter().map(|(link, guard)| self.guard(link, guard)));
        chains.extend(self.exits.chains(&self.numbers));
        let mut all = self.exits.sets();
        for (link, guard) in self.tunnels.iter().filter(|(_, guard)| judge::is_needed(guard)) {
            let [sets, judging] = judge::parts(link, guard, &self.uplinks(guard));
            all.extend(sets);
            chains.extend(judging);
        }
        let masquerading = self.tunnels.iter().filter(|(_, guard)| guard.masquerades());
        chains.extend(masquerading.map(|(link, guard)| self.marks(link, guard)));
        all.extend(chains);
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
        let mut rules = self.exits.forward(&self.numbers, self.all_ways());
        for link in self.tunnels.keys() {
            rules.extend(self.ways(link).map(|way| format!("iifname \"{way}\" jump forward-{link}")));
        }
        rules.extend(self.judged("oifname"));
        base("forward", "filter hook forward priority filter", rules)
    }

    /// The router itself is reached by those who may.
    fn input(&self) -> Option<String> {
        let mut jumps = self.exits.input();
        // Whether this node works is asked by those who may reach nothing of it themselves.
        let guarded = self.tunnels.iter().filter(|(_, guard)| !guard.is_open());
        jumps.extend(
            guarded.map(|(link, _)| {
                format!("iifname \"{link}\" udp dport {PROBE_PORT} accept comment \"probe\"")
            }),
        );
        jumps.extend(self.judged("iifname"));
        (!jumps.is_empty()).then(|| base("input", "filter hook input priority filter", jumps))
    }

    fn judged(&self, side: &str) -> Vec<String> {
        let mut rules = Vec::new();
        for link in self.tunnels.iter().filter(|(_, guard)| !guard.is_open()).map(|(link, _)| link) {
            for way in self.ways(link) {
                let judge = |what: String| format!("{side} \"{way}\" {what}jump access-{link}");
                match self.exits.meshes.get(way).filter(|_| side == "oifname") {
                    // The Internet behind it is no matter of the network's rules.
                    Some(mesh) => {
                        let asked = scope::meshes("daddr", way, mesh).into_iter();
                        rules.extend(asked.map(|asked| judge(format!("{asked} "))));
                    }
                    None => rules.push(judge(String::new())),
                }
            }
        }
        rules
    }

    /// The interfaces that lead into a network: its own, and those of exits beside it.
    fn ways<'a>(&'a self, link: &'a IfName) -> impl Iterator<Item = &'a IfName> {
        let beside = self.exits.beside.iter().filter(move |(_, main)| *main == link).map(|(way, _)| way);
        std::iter::once(link).chain(beside)
    }

    fn all_ways(&self) -> impl Iterator<Item = &IfName> {
        self.tunnels.keys().flat_map(|link| self.ways(link))
    }

    fn uplinks(&self, guard: &Guard) -> SortedSet<IfName> {
        let is_ours = |uplink: &IfName| self.all_ways().any(|way| way == uplink);
        guard.uplinks.iter().filter(|uplink| !is_ours(uplink)).cloned().collect()
    }

    fn guard(&self, link: &IfName, guard: &Guard) -> String {
        let mut rules = vec![STANDS.to_owned()];
        rules.extend(judge::is_needed(guard).then(|| format!("jump access-{link}")));
        rules.extend(self.ways(link).map(|way| format!("oifname \"{way}\" accept comment \"relay\"")));
        let others = self.tunnels.keys().filter(|other| *other != link).flat_map(|other| self.ways(other));
        rules.extend(others.map(|other| format!("oifname \"{other}\" {REJECT} comment \"another network\"")));
        rules.extend(guard.served().map(|prefix| format!("{} accept", to(prefix))));
        rules.push(format!("{REJECT} comment \"not served\""));
        chain(&format!("forward-{link}"), rules)
    }

    /// Before routing, so that strict reverse path filtering sees the mark (`src_valid_mark`).
    fn prerouting(&self) -> String {
        let Numbers { mask, bypass, .. } = self.numbers;
        let keep = !mask;
        let mut rules = vec![format!(
            "ct mark & {mask:#010x} == {bypass:#010x} meta mark set meta mark & {keep:#010x} | {bypass:#010x}"
        )];
        rules.extend(self.exits.outside(&self.numbers));
        for (link, _) in self.tunnels.iter().filter(|(_, guard)| guard.masquerades()) {
            let mark = |way| format!("ct state new iifname \"{way}\" jump mark-{link}");
            rules.extend(self.ways(link).map(mark));
        }
        base("prerouting", "filter hook prerouting priority mangle", rules)
    }

    /// Which new connections are to be masqueraded: the longest prefix decides, and what goes out to the Internet is.
    fn marks(&self, link: &IfName, guard: &Guard) -> String {
        let Numbers { mask, masquerade, .. } = self.numbers;
        let mark = format!("ct mark set ct mark & {:#010x} | {masquerade:#010x}", !mask);
        let mut prefixes: Vec<_> = guard.egress.iter().gather();
        sort_by_key(&mut prefixes, |(prefix, _)| Reverse(prefix.len()));
        let rule = |(prefix, nat): (&Prefix, &bool)| match nat {
            true => format!("{} {mark} return", to(prefix)),
            false => format!("{} return", to(prefix)),
        };
        let mut rules: Vec<String> = prefixes.into_iter().map(rule).gather();
        rules.extend(judge::sources(link, guard).map(|source| format!("{source} {mark}")));
        chain(&format!("mark-{link}"), rules)
    }

    /// Connections of packets that must never enter a network are remembered, unless they carry a mark of ours.
    fn output(&self) -> String {
        let Numbers { mask, bypass, .. } = self.numbers;
        let save = format!(
            "meta mark & {mask:#010x} == {bypass:#010x} ct mark & {mask:#010x} == 0x00000000 \
             ct mark set ct mark | {bypass:#010x}"
        );
        let mut rules = vec![save];
        if !self.exits.scopes.is_empty() {
            let outside = self.numbers.outside();
            rules.push(format!(
                "meta mark & {mask:#010x} == {bypass:#010x} ct mark & {mask:#010x} == {outside:#010x} \
                 ct mark set ct mark & {:#010x} | {bypass:#010x}",
                !mask
            ));
        }
        base("output", "filter hook output priority mangle", rules)
    }

    /// Stays also when nothing is masqueraded: without a nat chain the kernel stops to translate connections
    /// that go on.
    fn postrouting(&self) -> String {
        let Numbers { mask, masquerade, .. } = self.numbers;
        let rule = self.tunnels.values().any(Guard::masquerades).then(|| {
            let elsewhere: String = self.all_ways().map(|way| format!("oifname != \"{way}\" ")).collect();
            format!("ct mark & {mask:#010x} == {masquerade:#010x} {elsewhere}masquerade")
        });
        let rules = rule.into_iter().chain(self.exits.masquerades()).gather();
        base("postrouting", "nat hook postrouting priority srcnat", rules)
    }

    /// `rt mtu` is the lesser of the route's and the way back's.
    fn mss(&self) -> [String; 2] {
        let sides = self.all_ways().flat_map(|way| [("iifname", way), ("oifname", way)]);
        let rules = sides
            .map(|(side, link)| format!("{side} \"{link}\" tcp flags syn tcp option maxseg size set rt mtu"));
        let rules = rules.chain(self.exits.mss()).gather();
        let syns = vec!["tcp flags syn jump clamp".to_owned()];
        [base("mss", "filter hook forward priority mangle", syns), chain("clamp", rules)]
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

pub(super) fn base(name: &str, hook: &str, mut rules: Vec<String>) -> String {
    rules.insert(0, format!("type {hook}; policy accept;"));
    chain(name, rules)
}

pub(super) fn chain(name: &str, lines: Vec<String>) -> String {
    let lines: String = lines.into_iter().map(|line| format!("\t\t{line}\n")).collect();
    format!("\tchain {name} {{\n{lines}\t}}\n")
}

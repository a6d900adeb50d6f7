//! The text of our firewall table, from what each network's interface may reach. The same input gives the same
//! bytes. Nothing of anyone else's is in it: an accept here ends only our chain, foreign chains decide after.
//!
//! The text first deletes the table that is there, in the same transaction: `nft -f` replaces it whole. That is for the
//! first time only; later, what differs is changed [in place](super::rewrite).
//!
//! A packet that is on its way through the old rules while new ones come into force finds the sets of a deleted table
//! empty already (the kernel looks at the generation of elements anew at each lookup), and a new connection would be
//! refused. Therefore every set has a name and stays.

use super::{
    Exits,
    judge::{self, Judged},
    scope,
    text::{Text, to},
};
use crate::{
    gather::{Gather, append},
    model::{IfName, Ruleset},
    ownership::{Numbers, PROBE_PORT},
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
        Ruleset(self.text().into())
    }

    /// The same.
    pub fn text(&self) -> String {
        let mut text = Text::new(&self.numbers);
        let judged = self.tunnels.iter().filter(|(_, guard)| judge::is_needed(guard));
        let judged: Vec<Judged<'_>> =
            judged.map(|(link, guard)| Judged::new(link, guard, self.uplinks(guard))).gather();
        self.exits.sets(&mut text);
        judged.iter().for_each(|judged| judged.sets(&mut text));
        self.forward(&mut text);
        self.input(&mut text);
        self.prerouting(&mut text);
        self.output(&mut text);
        self.postrouting(&mut text);
        self.clamp(&mut text);
        for (link, guard) in &self.tunnels {
            self.guard(&mut text, link, guard);
        }
        self.exits.chains(&mut text);
        judged.iter().for_each(|judged| judged.chains(&mut text));
        for (link, guard) in self.tunnels.iter().filter(|(_, guard)| guard.masquerades()) {
            marks(&mut text, link.as_str(), guard);
        }
        text.finish()
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

pub(super) const STANDS: &str = "ct state established,related accept";

impl Firewall {
    /// What comes from a network is for it, its own router or what is served; we are nobody's open relay. Segments are
    /// clamped here too: a chain of its own would cost each packet as much as a rule.
    fn forward(&self, text: &mut Text<'_>) {
        text.base("forward", "filter hook forward priority filter");
        text.rule("tcp flags syn jump clamp", &[]);
        self.exits.forward(text, &self.all_ways());
        for link in self.tunnels.keys() {
            for way in self.ways(link) {
                text.rule("iifname \"$1\" jump forward-$2", &[way.as_str(), link.as_str()]);
            }
        }
        self.judged(text, "oifname");
    }

    /// The router itself is reached by those who may.
    fn input(&self, text: &mut Text<'_>) {
        if !self.exits.refuses() && self.tunnels.values().all(Guard::is_open) {
            return;
        }
        text.base("input", "filter hook input priority filter");
        self.exits.input(text);
        // Whether this node works is asked by those who may reach nothing of it themselves.
        for (link, _) in self.tunnels.iter().filter(|(_, guard)| !guard.is_open()) {
            let port = PROBE_PORT.to_string();
            text.rule("iifname \"$1\" udp dport $2 accept comment \"probe\"", &[link.as_str(), &port]);
        }
        self.judged(text, "iifname");
    }

    fn judged(&self, text: &mut Text<'_>, side: &str) {
        for (link, _) in self.tunnels.iter().filter(|(_, guard)| !guard.is_open()) {
            for way in self.ways(link) {
                let asked = match self.exits.meshes.get(way).filter(|_| side == "oifname") {
                    // The Internet behind it is no matter of the network's rules.
                    Some(mesh) => scope::meshes("daddr", way, mesh),
                    None => vec![String::new()],
                };
                for asked in asked {
                    let space = if asked.is_empty() { "" } else { " " };
                    let words = [side, way.as_str(), &asked, space, link.as_str()];
                    text.rule("$1 \"$2\" $3$4jump access-$5", &words);
                }
            }
        }
    }

    /// The interfaces that lead into a network: its own, and those of exits beside it.
    fn ways<'a>(&'a self, link: &'a IfName) -> Vec<&'a IfName> {
        let mut ways = vec![link];
        append(&mut ways, self.exits.beside.iter().filter(|(_, main)| *main == link).map(|(way, _)| way));
        ways
    }

    fn all_ways(&self) -> Vec<&IfName> {
        let mut all = Vec::new();
        self.tunnels.keys().for_each(|link| append(&mut all, self.ways(link)));
        all
    }

    fn uplinks<'a>(&self, guard: &'a Guard) -> Vec<&'a IfName> {
        let ours = self.all_ways();
        guard.uplinks.iter().filter(|uplink| !ours.contains(uplink)).gather()
    }

    fn guard(&self, text: &mut Text<'_>, link: &IfName, guard: &Guard) {
        text.chain("forward-$1", &[link.as_str()]);
        text.rule(STANDS, &[]);
        if guard.masquerades() {
            text.rule("jump mark-$1", &[link.as_str()]);
        }
        if judge::is_needed(guard) {
            text.rule("jump access-$1", &[link.as_str()]);
        }
        for way in self.ways(link) {
            text.rule("oifname \"$1\" accept comment \"relay\"", &[way.as_str()]);
        }
        for other in self.tunnels.keys().filter(|other| *other != link) {
            for other in self.ways(other) {
                text.rule("oifname \"$1\" $r comment \"another network\"", &[other.as_str()]);
            }
        }
        for prefix in guard.served() {
            text.rule("$1 accept", &[&to(prefix)]);
        }
        text.rule("$r comment \"not served\"", &[]);
    }

    /// Before routing, so that strict reverse path filtering sees the mark (`src_valid_mark`). Most of what comes in carries
    /// tunnels, and pays for no rule but the first.
    fn prerouting(&self, text: &mut Text<'_>) {
        text.base("prerouting", "filter hook prerouting priority mangle");
        text.rule("ct mark & $m == $b meta mark set meta mark & $k | $b return", &[]);
        self.exits.outside(text);
    }

    /// Connections of packets that must never enter a network are remembered, also those that came in from outside, but not
    /// what is masqueraded. Most of what goes out pays for no question but the first.
    fn output(&self, text: &mut Text<'_>) {
        text.base("output", "filter hook output priority mangle");
        text.rule("ct mark & $m != $b meta mark & $m == $b jump bypassing", &[]);
        text.chain("bypassing", &[]);
        text.rule("ct mark & $m != $q ct mark set ct mark & $k | $b", &[]);
    }

    /// Stays also when nothing is masqueraded: without a nat chain the kernel stops to translate connections
    /// that go on.
    fn postrouting(&self, text: &mut Text<'_>) {
        text.base("postrouting", "nat hook postrouting priority srcnat");
        if self.tunnels.values().any(Guard::masquerades) {
            let mut elsewhere = String::new();
            for way in self.all_ways() {
                elsewhere += &format!("oifname != \"{way}\" ");
            }
            text.rule("ct mark & $m == $q $1masquerade", &[&elsewhere]);
        }
        self.exits.masquerades(text);
    }

    /// `rt mtu` is the lesser of the route's and the way back's.
    fn clamp(&self, text: &mut Text<'_>) {
        text.chain("clamp", &[]);
        for way in self.all_ways() {
            for side in ["iifname", "oifname"] {
                let words = [side, way.as_str()];
                text.rule("$1 \"$2\" tcp flags syn tcp option maxseg size set rt mtu", &words);
            }
        }
        self.exits.clamp(text);
    }
}

/// Which new connections are to be masqueraded, asked where they are forwarded: the longest prefix decides, and what goes
/// out to the Internet is.
fn marks(text: &mut Text<'_>, link: &str, guard: &Guard) {
    text.chain("mark-$1", &[link]);
    let mut prefixes: Vec<_> = guard.egress.iter().gather();
    sort_by_key(&mut prefixes, |(prefix, _)| Reverse(prefix.len()));
    for (prefix, nat) in prefixes {
        let rule = if *nat { "$1 ct mark set ct mark & $k | $q return" } else { "$1 return" };
        text.rule(rule, &[&to(prefix)]);
    }
    for source in judge::sources(link, guard) {
        text.rule("$1 ct mark set ct mark & $k | $q", &[&source]);
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

//! The part of our firewall table that keeps the Internet traffic of scopes to their exits. Routing leads it there
//! alone; what is here holds also while someone has taken our rules away, and sends queries to the exit's resolver.
//!
//! What tells a scope's packets are its sources, asked in the order of the scopes: the first that fits decides.

use super::{
    Exits, ScopeGuard, Source,
    text::{Text, asked, digit, ip},
};
use crate::{
    gather::append,
    model::{Family, IfName},
    ownership::INTERFACE_PREFIX,
    sorted::SortedSet,
};
use gatewrt_protocol::Prefix;
use std::net::IpAddr;

/// Neighbour and router discovery, listener reports (RFC 4861, RFC 2710, RFC 3810): of the link, not of the Internet.
const OF_THE_LINK: [&str; 4] = [
    "udp sport 68 udp dport 67 return comment \"DHCP\"",
    "udp sport 546 udp dport 547 return comment \"DHCPv6\"",
    "icmpv6 type 130-137 return comment \"neighbours\"",
    "icmpv6 type 143 return",
];

/// What answers a connection that was cut because it goes another way now: expected (`kernel/conntrack.rs`), or
/// of a host's TCP connection that nobody knows. Taken for a call from outside, it would pull the connection back.
const LATE: [&str; 3] = [
    "ct state new fib daddr type != local tcp flags & (fin | syn | rst | ack) != syn",
    "ct reply ip daddr 0.0.0.0/8",
    "ct reply ip6 daddr 100::/64",
];

/// Whose packets a chain meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Others,
    TheRouter,
}

/// Names of interfaces that a rule asks one after the other. A rule holds 128 expressions (`NFT_RULE_MAXEXPRS` in
/// `net/netfilter/nf_tables_api.c`), a name takes two.
const FEW: usize = 8;

/// Packets with a mark of ours are no scope's.
const MARKED: &str = "meta mark & $m != 0x00000000 return";

/// In the name of a set or chain.
fn plain(link: &IfName) -> String {
    link.as_str().replace('~', ".")
}

/// What the network of an interface has, as a rule asks for it: once a family.
pub(super) fn meshes(side: &str, link: &IfName, mesh: &SortedSet<Prefix>) -> Vec<String> {
    asked(side, "mesh", &plain(link), mesh)
}

impl Exits {
    /// Sets that the chains ask.
    pub(super) fn sets(&self, text: &mut Text<'_>) {
        let inside = self.inside();
        if !self.scopes.is_empty() && inside.len() > FEW {
            text.begin("set", "inside", &[]);
            text.rule("type ifname", &[]);
            text.elements(&mut inside.into_iter().map(|name| format!("\"{name}\"")));
        }
        for (link, mesh) in &self.meshes {
            text.prefix_sets("mesh", &plain(link), mesh);
        }
        for (label, scope) in self.labelled() {
            text.prefix_sets("from", &label, &prefixes(scope));
            if scope.closed {
                text.prefix_sets("except", &label, &scope.exclude);
            }
        }
    }

    /// Chains beyond those that every table has.
    pub(super) fn chains(&self, text: &mut Text<'_>) {
        if self.scopes.is_empty() {
            return;
        }
        // All that the router sends meets these: only where some of it may be a scope's.
        let is_link = |source: &Source| matches!(source, Source::Link(_));
        if !self.scopes.values().flat_map(|scope| &scope.sources).all(is_link) {
            self.leaving(text);
            reroute(text);
        }
        self.resolving(text);
        text.chain("scopes", &[]);
        self.each(text, Of::Others, &verdict);
        from_outside(text);
        self.mark_outside(text);
        for (label, scope) in self.labelled().iter().filter(|(_, scope)| scope.closed) {
            shut_chain(text, label, scope);
        }
        for (link, mesh) in &self.meshes {
            mesh_chains(text, link, mesh, self.own.get(link));
        }
        if self.forbids() {
            self.forbidden(text);
        }
        if self.refuses() {
            self.refused(text);
        }
    }

    /// What the forward chain begins with. `ways` are the interfaces that lead into our networks.
    pub(super) fn forward(&self, text: &mut Text<'_>, ways: &[&IfName]) {
        if self.scopes.is_empty() {
            return;
        }
        text.rule("$1meta mark & $m == 0x00000000 jump scopes", &[&self.elsewhere("oifname")]);
        for link in ways.iter().filter(|_| self.forbids()) {
            match self.meshes.get(link) {
                Some(mesh) => {
                    for asked in meshes("daddr", link, mesh) {
                        text.rule("oifname \"$1\" $2 jump forbidden", &[link.as_str(), &asked]);
                    }
                }
                // Nothing leaves there but for the network.
                None => text.rule("oifname \"$1\" jump forbidden", &[link.as_str()]),
            }
        }
    }

    fn forbids(&self) -> bool {
        self.scopes.values().any(|scope| scope.forbids)
    }

    /// What is not to be reached by hosts that are to have nothing but their exit. Its resolver may be there.
    fn forbidden(&self, text: &mut Text<'_>) {
        text.chain("forbidden", &[]);
        text.rule("ct status dnat return", &[]);
        self.each(text, Of::Others, &|scope| match scope.forbids {
            true => "$1drop comment \"nothing but its exit\"",
            false => RETURN,
        });
    }

    /// What the input chain begins with.
    pub(super) fn input(&self, text: &mut Text<'_>) {
        if self.refuses() {
            // What carries tunnels comes here too.
            text.rule("meta mark & $m == 0x00000000 jump asked", &[]);
        }
    }

    /// What comes in from outside is remembered, and told from what scopes open by a mark on all its packets. It may
    /// have begun before there were scopes.
    pub(super) fn outside(&self, text: &mut Text<'_>) {
        if !self.scopes.is_empty() {
            let rule = "ct direction original $1meta mark & $m == 0x00000000 jump outside";
            text.rule(rule, &[&self.elsewhere("iifname")]);
            text.rule("ct mark & $m == $o meta mark set meta mark & $k | $o", &[]);
        }
        for link in self.meshes.keys() {
            let rule = "ct state new,invalid,untracked iifname \"$1\" jump enter-$2";
            text.rule(rule, &[link.as_str(), &plain(link)]);
        }
    }

    /// A link of a scope may be new: what has a scope's address is none the less of the scope.
    fn mark_outside(&self, text: &mut Text<'_>) {
        text.chain("called", &[]);
        for (label, scope) in self.labelled() {
            for from in from(&label, scope) {
                text.rule("$1 return", &[&from]);
            }
        }
        text.rule("ct mark set ct mark | $o", &[]);
    }

    /// What the chain after routing ends with.
    pub(super) fn masquerades(&self, text: &mut Text<'_>) {
        for link in self.meshes.keys() {
            text.rule("oifname \"$1\" jump leave-$2", &[link.as_str(), &plain(link)]);
        }
    }

    /// What the chain that clamps segments ends with. What comes in through an exit is not what the main table would send
    /// back there: `rt mtu` is that of the WAN.
    pub(super) fn clamp(&self, text: &mut Text<'_>) {
        for (link, mtu) in &self.mtus {
            for (digit, headers) in [("4", 40), ("6", 60)] {
                let most = mtu.saturating_sub(headers).to_string();
                let rule = "iifname \"$1\" meta nfproto ipv$2 tcp flags syn tcp option maxseg size set $3";
                text.rule(rule, &[link.as_str(), digit, &most]);
            }
        }
    }

    /// What the router sends, where it is known over what it leaves: some of it was led elsewhere since it was made.
    fn leaving(&self, text: &mut Text<'_>) {
        text.base("leaving", "filter hook postrouting priority filter");
        text.rule("iif != 0 return", &[]);
        text.rule(MARKED, &[]);
        match self.inside() {
            many if many.len() > FEW => text.rule("oifname @inside return", &[]),
            few => few.iter().for_each(|name| text.rule("oifname \"$1\" return", &[name])),
        }
        OF_THE_LINK.iter().for_each(|rule| text.rule(rule, &[]));
        self.each(text, Of::TheRouter, &verdict);
    }

    fn resolving(&self, text: &mut Text<'_>) {
        let redirects = |scope: &ScopeGuard| scope.redirects && !scope.resolvers.is_empty();
        let resolver = |scope: &ScopeGuard| if redirects(scope) { "$1goto resolver-$2" } else { RETURN };
        let labelled = self.labelled();
        if !labelled.iter().any(|(_, scope)| redirects(scope)) {
            return;
        }
        for (label, scope) in labelled.iter().filter(|(_, scope)| redirects(scope)) {
            resolver_chain(text, label, scope);
        }
        // Before others' redirections: the first one counts.
        text.base("resolving", "nat hook prerouting priority dstnat - 5");
        text.rule(MARKED, &[]);
        queries(text, "queries");
        text.chain("queries", &[]);
        self.each(text, Of::Others, &resolver);
        if self.scopes.values().any(|scope| scope.has_router() && redirects(scope)) {
            text.base("own-resolving", "nat hook output priority -105");
            text.rule(MARKED, &[]);
            // Its own resolver asks onward.
            text.rule("oifname \"lo\" return", &[]);
            queries(text, "own-queries");
            text.chain("own-queries", &[]);
            self.each(text, Of::TheRouter, &resolver);
        }
    }

    pub(super) fn refuses(&self) -> bool {
        self.scopes.values().any(|scope| self.refuses_queries(scope))
    }

    /// Queries to the router itself that reach it because there is no other to ask. It would ask over the WAN, unless its
    /// own traffic may not leave there either.
    fn refuses_queries(&self, scope: &ScopeGuard) -> bool {
        let lacks = Family::ALL.into_iter().any(|family| scope.resolver(family).is_none());
        let guards = |scope: &ScopeGuard| scope.closed && scope.redirects;
        let router = || self.scopes.values().any(|scope| guards(scope) && scope.has_router());
        guards(scope) && lacks && !router()
    }

    fn refused(&self, text: &mut Text<'_>) {
        text.chain("asked", &[]);
        queries(text, "refused");
        text.chain("refused", &[]);
        self.each(text, Of::Others, &|scope| match self.refuses_queries(scope) {
            true => "$1$r comment \"would be asked over the WAN\"",
            false => RETURN,
        });
    }

    /// Names of the interfaces over which scopes may leave, ours first: most goes there.
    fn inside(&self) -> Vec<&str> {
        let mut names: SortedSet<&str> = self.inside.iter().filter_map(sayable).collect();
        for source in self.scopes.values().flat_map(|scope| &scope.sources) {
            if let Source::Link(link) = source {
                names.extend(sayable(link));
            }
        }
        let (mut inside, others): (Vec<&str>, Vec<&str>) = names
            .into_iter()
            .filter(|name| *name != "lo")
            .partition(|name| name.starts_with(INTERFACE_PREFIX));
        append(&mut inside, others);
        append(&mut inside, ["lo"]);
        inside
    }

    /// Matches what is none of these, and ends with a space. `side` is `iifname` or `oifname`. Each packet is asked, and the
    /// set would take five times as long as the first few names do.
    fn elsewhere(&self, side: &str) -> String {
        let mut names = self.inside();
        if names.len() > FEW {
            return format!("{side} != @inside ");
        }
        if side == "iifname" {
            // What LANs send is asked most.
            names.reverse();
            names.rotate_left(1);
        }
        names.iter().map(|name| format!("{side} != \"{name}\" ")).collect()
    }

    /// The scopes, each with what names its sets and chains.
    fn labelled(&self) -> Vec<(String, &ScopeGuard)> {
        let mut labelled: Vec<(String, &ScopeGuard)> = Vec::new();
        for ((number, tag), scope) in &self.scopes {
            // Two networks may name theirs the same.
            let is_taken = labelled.iter().any(|(label, _)| label == tag.as_str());
            labelled.push((if is_taken { format!("{tag}.{number}") } else { tag.to_string() }, scope));
        }
        labelled
    }

    /// What becomes of the packets of each scope: `$1` tells them, `$2` is its name.
    fn each(&self, text: &mut Text<'_>, of: Of, verdict: &dyn Fn(&ScopeGuard) -> &'static str) {
        for (label, scope) in self.labelled() {
            for told in telling(&label, scope, of) {
                text.rule(verdict(scope), &[&told, &label]);
            }
        }
    }
}

const RETURN: &str = "$1return";

impl ScopeGuard {
    fn has_router(&self) -> bool {
        self.sources.contains(&Source::Router)
    }

    fn resolver(&self, family: Family) -> Option<&IpAddr> {
        self.resolvers.iter().find(|resolver| resolver.is_ipv4() == (family == Family::V4))
    }
}

fn queries(text: &mut Text<'_>, to: &str) {
    text.rule("udp dport 53 jump $1", &[to]);
    text.rule("tcp dport 53 jump $1", &[to]);
}

/// What opens a connection, or may look as if it did. Little comes here: each packet that is forwarded pays for a rule.
fn from_outside(text: &mut Text<'_>) {
    text.chain("outside", &[]);
    LATE.iter().for_each(|late| text.rule("$1 drop comment \"a late answer\"", &[late]));
    text.rule("ct mark & $m == 0x00000000 jump called", &[]);
}

fn verdict(scope: &ScopeGuard) -> &'static str {
    if scope.closed { "$1goto shut-$2" } else { RETURN }
}

/// What tells a scope's packets, each followed by a space.
fn telling(label: &str, scope: &ScopeGuard, of: Of) -> Vec<String> {
    let mut told = from(label, scope);
    told.iter_mut().for_each(|told| told.push(' '));
    for source in &scope.sources {
        match (source, of) {
            (Source::Link(link), Of::Others) => {
                append(&mut told, sayable(link).map(|link| format!("iifname \"{link}\" ")));
            }
            (Source::Router, Of::TheRouter) => told.push(String::new()),
            _ => (),
        }
    }
    told
}

fn from(label: &str, scope: &ScopeGuard) -> Vec<String> {
    asked("saddr", "from", label, &prefixes(scope))
}

fn shut_chain(text: &mut Text<'_>, label: &str, scope: &ScopeGuard) {
    text.chain("shut-$1", &[label]);
    if scope.v6_wan {
        text.rule("meta nfproto ipv6 return", &[]);
    }
    if scope.redirects {
        // Wherever they are for: had they a resolver to go to, they would not be here.
        for proto in ["udp", "tcp"] {
            text.rule("$1 dport 53 drop comment \"DNS\"", &[proto]);
        }
    }
    for except in asked("daddr", "except", label, &scope.exclude) {
        text.rule("$1 return", &[&except]);
    }
    text.rule("drop comment \"only through its exit\"", &[]);
}

fn resolver_chain(text: &mut Text<'_>, label: &str, scope: &ScopeGuard) {
    text.chain("resolver-$1", &[label]);
    if scope.router_answers {
        text.rule("fib daddr type local return", &[]);
    }
    for resolver in Family::ALL.iter().filter_map(|family| scope.resolver(*family)) {
        translate(text, "dnat", resolver);
    }
}

fn translate(text: &mut Text<'_>, how: &str, to: &IpAddr) {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    text.rule("meta nfproto ipv$1 $2 $3 to $4", &[digit(family), how, ip(family), &to.to_string()]);
}

/// Only what the network has opens connections from there, and only the rest is masqueraded there.
fn mesh_chains(
    text: &mut Text<'_>,
    link: &IfName,
    mesh: &SortedSet<Prefix>,
    own: Option<&SortedSet<IpAddr>>,
) {
    let name = plain(link);
    let known = |text: &mut Text<'_>, side| {
        meshes(side, link, mesh).iter().for_each(|asked| text.rule("$1 return", &[asked]));
    };
    text.chain("enter-$1", &[&name]);
    known(text, "saddr");
    text.rule("drop comment \"not the network's\"", &[]);
    text.chain("leave-$1", &[&name]);
    known(text, "saddr");
    known(text, "daddr");
    for address in own.into_iter().flatten() {
        translate(text, "snat", address);
    }
    text.rule("drop", &[]);
}

/// What came in from outside is answered there, also by the router: the mark leads it.
fn reroute(text: &mut Text<'_>) {
    text.base("answering", "route hook output priority mangle");
    // What must never enter a network stays what it is.
    text.rule("ct mark & $m == $o meta mark & $m == 0x00000000 meta mark set meta mark & $k | $o", &[]);
}

fn prefixes(scope: &ScopeGuard) -> SortedSet<Prefix> {
    let mut prefixes = SortedSet::new();
    for source in &scope.sources {
        if let Source::Prefix(prefix) = source {
            prefixes.insert(*prefix);
        }
    }
    prefixes
}

/// A name that means itself in nft's language, as almost all do.
fn sayable(link: &IfName) -> Option<&str> {
    Some(link.as_str()).filter(|name| !name.contains(['"', '\\', '*']))
}

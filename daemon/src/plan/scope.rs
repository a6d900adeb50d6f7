//! The part of our firewall table that keeps the Internet traffic of scopes to their exits. Routing leads it there
//! alone; what is here holds also while someone has taken our rules away, and sends queries to the exit's resolver.
//!
//! What tells a scope's packets are its sources, asked in the order of the scopes: the first that fits decides.

use super::{
    Exits, ScopeGuard, Source,
    access::spans,
    judge::{digit, ip, range, set},
    ruleset::{REJECT, base, chain},
};
use crate::{
    gather::Gather,
    model::{Family, IfName},
    ownership::Numbers,
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

/// Packets with a mark of ours are no scope's.
fn marked(numbers: &Numbers) -> String {
    format!("meta mark & {:#010x} != 0x00000000 return", numbers.mask)
}

/// In the name of a set or chain.
fn plain(link: &IfName) -> String {
    link.as_str().replace('~', ".")
}

/// What the network of an interface has, as a rule asks for it: once a family.
pub(super) fn meshes(side: &str, link: &IfName, mesh: &SortedSet<Prefix>) -> Vec<String> {
    let asked = |family| format!("{} {side} @mesh-{}-{}", ip(family), digit(family), plain(link));
    families(mesh.iter()).map(asked).gather()
}

impl Exits {
    /// Sets that the chains ask.
    pub(super) fn sets(&self) -> Vec<String> {
        let mut sets = Vec::new();
        if !self.scopes.is_empty() {
            sets.push(self.inside_set());
        }
        for (link, mesh) in &self.meshes {
            sets.extend(prefix_sets("mesh", &plain(link), mesh.iter()));
        }
        for (label, scope) in self.labelled() {
            sets.extend(prefix_sets("from", &label, prefixes(scope)));
            if scope.closed {
                sets.extend(prefix_sets("except", &label, scope.exclude.iter()));
            }
        }
        sets
    }

    /// Chains beyond those that every table has.
    pub(super) fn chains(&self, numbers: &Numbers) -> Vec<String> {
        if self.scopes.is_empty() {
            return Vec::new();
        }
        let mut chains = vec![self.leaving(numbers), reroute(numbers)];
        chains.extend(self.resolving(numbers));
        chains.push(chain("scopes", self.each(Of::Others, &verdict)));
        chains.push(from_outside(numbers));
        chains.push(chain("called", self.mark_outside(numbers)));
        let shut = self.labelled().into_iter().filter(|(_, scope)| scope.closed);
        chains.extend(shut.map(|(label, scope)| shut_chain(&label, scope)));
        chains
            .extend(self.meshes.iter().flat_map(|(link, mesh)| mesh_chains(link, mesh, self.own.get(link))));
        if self.forbids() {
            chains.push(self.forbidden());
        }
        if self.refuses() {
            chains.push(chain("refused", self.refused(numbers)));
        }
        chains
    }

    /// What the forward chain begins with. `ways` are the interfaces that lead into our networks.
    pub(super) fn forward<'a>(
        &self,
        numbers: &Numbers,
        ways: impl Iterator<Item = &'a IfName>,
    ) -> Vec<String> {
        if self.scopes.is_empty() {
            return Vec::new();
        }
        let unmarked = format!("meta mark & {:#010x} == 0x00000000", numbers.mask);
        let mut rules = vec![format!("{unmarked} oifname != @inside jump scopes")];
        for link in ways.filter(|_| self.forbids()) {
            let rule = |asked: String| format!("oifname \"{link}\" {asked}jump forbidden");
            match self.meshes.get(link) {
                Some(mesh) => {
                    let asked = meshes("daddr", link, mesh).into_iter();
                    rules.extend(asked.map(|asked| rule(format!("{asked} "))));
                }
                // Nothing leaves there but for the network.
                None => rules.push(rule(String::new())),
            }
        }
        rules
    }

    fn forbids(&self) -> bool {
        self.scopes.values().any(|scope| scope.forbids)
    }

    /// What is not to be reached by hosts that are to have nothing but their exit. Its resolver may be there.
    fn forbidden(&self) -> String {
        let verdict = |_: &str, scope: &ScopeGuard| match scope.forbids {
            true => "drop comment \"nothing but its exit\"".to_owned(),
            false => "return".to_owned(),
        };
        let mut rules = vec!["ct status dnat return".to_owned()];
        rules.extend(self.each(Of::Others, &verdict));
        chain("forbidden", rules)
    }

    /// What the input chain begins with.
    pub(super) fn input(&self) -> Vec<String> {
        let rules = ["udp dport 53 jump refused", "tcp dport 53 jump refused"];
        rules.into_iter().filter(|_| self.refuses()).map(str::to_owned).gather()
    }

    /// What comes in from outside is remembered, and told from what scopes open by a mark on all its packets. It may
    /// have begun before there were scopes.
    pub(super) fn outside(&self, numbers: &Numbers) -> Vec<String> {
        let Numbers { mask, .. } = numbers;
        let (outside, keep) = (numbers.outside(), !mask);
        let mut rules = Vec::new();
        if !self.scopes.is_empty() {
            rules.push(format!(
                "meta mark & {mask:#010x} == 0x00000000 iifname != @inside ct direction original jump outside"
            ));
            rules.push(format!(
                "ct mark & {mask:#010x} == {outside:#010x} meta mark set meta mark & {keep:#010x} | {outside:#010x}"
            ));
        }
        rules.extend(self.meshes.keys().map(|link| format!("iifname \"{link}\" jump enter-{}", plain(link))));
        rules
    }

    /// A link of a scope may be new: what has a scope's address is none the less of the scope.
    fn mark_outside(&self, numbers: &Numbers) -> Vec<String> {
        let mut rules = Vec::new();
        for (label, scope) in self.labelled() {
            rules.extend(from(&label, scope).into_iter().map(|from| format!("{from}return")));
        }
        rules.push(format!("ct mark set ct mark | {:#010x}", numbers.outside()));
        rules
    }

    /// What the chain after routing ends with.
    pub(super) fn masquerades(&self) -> Vec<String> {
        let jump = |link: &IfName| format!("oifname \"{link}\" jump leave-{}", plain(link));
        self.meshes.keys().map(jump).gather()
    }

    /// What the chain that clamps segments ends with. What comes in through an exit is not what the main table would send
    /// back there: `rt mtu` is that of the WAN.
    pub(super) fn mss(&self) -> Vec<String> {
        let clamp = |link: &IfName, mtu: u32, (family, headers): (Family, u32)| {
            let (digit, most) = (digit(family), mtu.saturating_sub(headers));
            format!(
                "iifname \"{link}\" meta nfproto ipv{digit} tcp flags syn tcp option maxseg size set {most}"
            )
        };
        let families = [(Family::V4, 40), (Family::V6, 60)];
        self.mtus.iter().flat_map(|(link, mtu)| families.map(|family| clamp(link, *mtu, family))).gather()
    }

    /// What the router sends, where it is known over what it leaves: some of it was led elsewhere since it was made.
    fn leaving(&self, numbers: &Numbers) -> String {
        let mut rules =
            vec!["iif != 0 return".to_owned(), marked(numbers), "oifname @inside return".to_owned()];
        rules.extend(OF_THE_LINK.map(str::to_owned));
        rules.extend(self.each(Of::TheRouter, &verdict));
        base("leaving", "filter hook postrouting priority filter", rules)
    }

    fn resolving(&self, numbers: &Numbers) -> Vec<String> {
        let redirects = self.labelled().into_iter().filter(|(_, scope)| scope.redirects_queries());
        let mut resolvers: Vec<String> =
            redirects.map(|(label, scope)| resolver_chain(&label, scope)).gather();
        if resolvers.is_empty() {
            return resolvers;
        }
        let to = |name| {
            [marked(numbers), format!("udp dport 53 jump {name}"), format!("tcp dport 53 jump {name}")]
        };
        // Before others' redirections: the first one counts.
        resolvers.push(base("resolving", "nat hook prerouting priority dstnat - 5", to("queries").into()));
        resolvers.push(chain("queries", self.each(Of::Others, &resolver)));
        let router = self.scopes.values().any(|scope| scope.has_router() && scope.redirects_queries());
        if router {
            let mut own = to("own-queries").to_vec();
            // Its own resolver asks onward.
            own.insert(1, "oifname \"lo\" return".to_owned());
            resolvers.push(base("own-resolving", "nat hook output priority -105", own));
            resolvers.push(chain("own-queries", self.each(Of::TheRouter, &resolver)));
        }
        resolvers
    }

    fn refuses(&self) -> bool {
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

    fn refused(&self, numbers: &Numbers) -> Vec<String> {
        let verdict = |_: &str, scope: &ScopeGuard| match self.refuses_queries(scope) {
            true => format!("{REJECT} comment \"would be asked over the WAN\""),
            false => "return".to_owned(),
        };
        let mut rules = vec![marked(numbers)];
        rules.extend(self.each(Of::Others, &verdict));
        rules
    }

    fn inside_set(&self) -> String {
        let sources = self.scopes.values().flat_map(|scope| &scope.sources);
        let links = sources.filter_map(|source| match source {
            Source::Link(link) => Some(link),
            Source::Prefix(_) | Source::Router => None,
        });
        let mut names: SortedSet<&str> = self.inside.iter().chain(links).filter_map(sayable).collect();
        names.insert("lo");
        let elements: String = names.iter().map(|name| format!("\t\t\t\"{name}\",\n")).collect();
        format!("\tset inside {{\n\t\ttype ifname\n\t\telements = {{\n{elements}\t\t}}\n\t}}\n")
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

    /// What becomes of the packets of each scope.
    fn each(&self, of: Of, verdict: &dyn Fn(&str, &ScopeGuard) -> String) -> Vec<String> {
        let mut rules = Vec::new();
        for (label, scope) in self.labelled() {
            let verdict = verdict(&label, scope);
            rules.extend(telling(&label, scope, of).into_iter().map(|told| format!("{told}{verdict}")));
        }
        rules
    }
}

impl ScopeGuard {
    fn has_router(&self) -> bool {
        self.sources.contains(&Source::Router)
    }

    fn redirects_queries(&self) -> bool {
        self.redirects && !self.resolvers.is_empty()
    }

    fn resolver(&self, family: Family) -> Option<&IpAddr> {
        self.resolvers.iter().find(|resolver| resolver.is_ipv4() == (family == Family::V4))
    }
}

/// What opens a connection, or may look as if it did. Little comes here: each packet that is forwarded pays for a rule.
fn from_outside(numbers: &Numbers) -> String {
    let mut rules: Vec<String> = LATE.map(|late| format!("{late} drop comment \"a late answer\"")).into();
    rules.push(format!("ct mark & {:#010x} == 0x00000000 jump called", numbers.mask));
    chain("outside", rules)
}

fn verdict(label: &str, scope: &ScopeGuard) -> String {
    if scope.closed { format!("goto shut-{label}") } else { "return".to_owned() }
}

fn resolver(label: &str, scope: &ScopeGuard) -> String {
    if scope.redirects_queries() { format!("goto resolver-{label}") } else { "return".to_owned() }
}

/// What tells a scope's packets, each followed by a space.
fn telling(label: &str, scope: &ScopeGuard, of: Of) -> Vec<String> {
    let mut told = from(label, scope);
    for source in &scope.sources {
        match (source, of) {
            (Source::Link(link), Of::Others) => {
                told.extend(sayable(link).map(|link| format!("iifname \"{link}\" ")));
            }
            (Source::Router, Of::TheRouter) => told.push(String::new()),
            _ => (),
        }
    }
    told
}

fn from(label: &str, scope: &ScopeGuard) -> Vec<String> {
    let from = |family| format!("{} saddr @from-{}-{label} ", ip(family), digit(family));
    families(prefixes(scope)).map(from).gather()
}

fn shut_chain(label: &str, scope: &ScopeGuard) -> String {
    let except = |family| format!("{} daddr @except-{}-{label} return", ip(family), digit(family));
    let mut rules: Vec<String> =
        scope.v6_wan.then(|| "meta nfproto ipv6 return".to_owned()).into_iter().gather();
    if scope.redirects {
        // Wherever they are for: had they a resolver to go to, they would not be here.
        rules.extend(["udp", "tcp"].map(|proto| format!("{proto} dport 53 drop comment \"DNS\"")));
    }
    rules.extend(families(scope.exclude.iter()).map(except));
    rules.push("drop comment \"only through its exit\"".to_owned());
    chain(&format!("shut-{label}"), rules)
}

fn resolver_chain(label: &str, scope: &ScopeGuard) -> String {
    let to = |family| {
        let resolver = scope.resolver(family)?;
        Some(format!("meta nfproto ipv{} dnat {} to {resolver}", digit(family), ip(family)))
    };
    let own = scope.router_answers.then(|| "fib daddr type local return".to_owned());
    let rules = own.into_iter().chain(Family::ALL.into_iter().filter_map(to)).gather();
    chain(&format!("resolver-{label}"), rules)
}

/// Only what the network has opens connections from there, and only the rest is masqueraded there.
fn mesh_chains(link: &IfName, mesh: &SortedSet<Prefix>, own: Option<&SortedSet<IpAddr>>) -> [String; 2] {
    let known = |side| meshes(side, link, mesh).into_iter().map(|asked| format!("{asked} return"));
    let mut enter = vec!["ct state established,related return".to_owned()];
    enter.extend(known("saddr"));
    enter.push("drop comment \"not the network's\"".to_owned());
    let mut leave: Vec<String> = known("saddr").chain(known("daddr")).gather();
    for address in own.into_iter().flatten() {
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        leave.push(format!("meta nfproto ipv{} snat {} to {address}", digit(family), ip(family)));
    }
    leave.push("drop".to_owned());
    let link = plain(link);
    [chain(&format!("enter-{link}"), enter), chain(&format!("leave-{link}"), leave)]
}

/// What came in from outside is answered there, also by the router: the mark leads it.
fn reroute(numbers: &Numbers) -> String {
    let Numbers { mask, .. } = numbers;
    let (outside, keep) = (numbers.outside(), !mask);
    // What must never enter a network stays what it is.
    let rule = format!(
        "ct mark & {mask:#010x} == {outside:#010x} meta mark & {mask:#010x} == 0x00000000 \
         meta mark set meta mark & {keep:#010x} | {outside:#010x}"
    );
    base("answering", "route hook output priority mangle", vec![rule])
}

fn prefixes(scope: &ScopeGuard) -> impl Iterator<Item = &Prefix> {
    scope.sources.iter().filter_map(|source| match source {
        Source::Prefix(prefix) => Some(prefix),
        Source::Link(_) | Source::Router => None,
    })
}

fn families<'a>(prefixes: impl Iterator<Item = &'a Prefix>) -> impl Iterator<Item = Family> {
    let all: SortedSet<Family> = prefixes.map(Family::of).collect();
    Family::ALL.into_iter().filter(move |family| all.contains(family))
}

fn prefix_sets<'a>(what: &str, label: &str, prefixes: impl Iterator<Item = &'a Prefix>) -> Vec<String> {
    let prefixes: Vec<&Prefix> = prefixes.gather();
    let of = |family| {
        let elements = spans(&mut prefixes.iter().copied(), family).into_iter().map(range).gather();
        let digit = digit(family);
        set(&format!("{what}-{digit}-{label}"), &format!("ipv{digit}_addr"), elements)
    };
    families(prefixes.iter().copied()).map(of).gather()
}

/// A name that means itself in nft's language, as almost all do.
fn sayable(link: &IfName) -> Option<&str> {
    Some(link.as_str()).filter(|name| !name.contains(['"', '\\', '*']))
}

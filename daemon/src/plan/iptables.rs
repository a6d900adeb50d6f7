//! Our firewall table where there is no nftables: the same text, put into the words of `iptables-restore`, a family at a
//! time, in chains of our own. Pure; it ends at the text for `--noflush`.
//!
//! What differs: sets become a rule an element. An `accept` of ours ends only our chains, as with nft, where
//! iptables' would overrule the chains of others: a chain that may accept is entered by `-g` and is told where its
//! `return` leads to, so that leaving it leaves all of ours. The table `nat` may not drop: what is to be dropped there is
//! dropped in `mangle`. Whether the router itself sent a packet is told by its source.

use super::rewrite::{Part, parts};
use crate::{
    gather::{Gather, append},
    model::Family,
    sorted::SortedSet,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// What the name of every chain of ours begins with.
const OURS: &str = "gwrt-";
/// Bytes in the name of a chain (`XT_EXTENSION_MAXNAMELEN`).
const LONGEST: usize = 28;

/// In the order in which they come into force: what a kernel is likelier to lack goes first, for nothing is done after what
/// fails.
const TABLES: [&str; 3] = ["nat", "mangle", "filter"];
const NAT: usize = 0;
const MANGLE: usize = 1;
const FILTER: usize = 2;

/// Lets nothing through interfaces of ours: for when what they may let through can't be written.
pub const CLOSED: &str = "table inet gatewrt\ndelete table inet gatewrt\ntable inet gatewrt {\n\tchain forward {\n\t\t\
    type filter hook forward priority filter; policy accept;\n\t\tiifname \"gw-+\" drop\n\t\t\
    oifname \"gw-+\" drop\n\t}\n}\n";

/// What our text says and how iptables says it; the first that fits counts. `$1` and `$2` are words of it, `~1` is a mask
/// turned round. The number is the family for which it means anything, 0 for both.
const PHRASES: &[(u8, &str, &str)] = &[
    (0, "meta mark & $1 == $2", "-m mark --mark $2/$1"),
    (0, "meta mark & $1 != $2", "-m mark ! --mark $2/$1"),
    (0, "meta mark set meta mark & $1 | $2", "-j MARK --set-xmark $2/~1"),
    (0, "ct mark & $1 == $2", "-m connmark --mark $2/$1"),
    (0, "ct mark & $1 != $2", "-m connmark ! --mark $2/$1"),
    (0, "ct mark set ct mark & $1 | $2", "-j CONNMARK --set-xmark $2/~1"),
    (0, "ct mark set ct mark | $1", "-j CONNMARK --set-xmark $1/$1"),
    (0, "ct state established,related", "-m conntrack --ctstate ESTABLISHED,RELATED"),
    (0, "ct state new,invalid,untracked", "-m conntrack ! --ctstate ESTABLISHED,RELATED"),
    (0, "ct state new", "-m conntrack --ctstate NEW"),
    (0, "ct state invalid", "-m conntrack --ctstate INVALID"),
    (0, "ct status dnat", "-m conntrack --ctstate DNAT"),
    (0, "ct direction original", "-m conntrack --ctdir ORIGINAL"),
    (4, "ct reply ip daddr $1", "-m conntrack --ctrepldst $1"),
    (6, "ct reply ip6 daddr $1", "-m conntrack --ctrepldst $1"),
    (0, "iif != 0", "-m addrtype ! --src-type LOCAL"),
    (0, "fib daddr type != local", "-m addrtype ! --dst-type LOCAL"),
    (0, "fib daddr type local", "-m addrtype --dst-type LOCAL"),
    (0, "iifname != $1", "!-i $1"),
    (0, "oifname != $1", "!-o $1"),
    (0, "iifname $1", "-i $1"),
    (0, "oifname $1", "-o $1"),
    (4, "meta nfproto ipv4", ""),
    (6, "meta nfproto ipv6", ""),
    (4, "ip saddr . ip daddr . meta l4proto . th dport $1", "$1"),
    (6, "ip6 saddr . ip6 daddr . meta l4proto . th dport $1", "$1"),
    (4, "ip saddr . ip daddr $1", "$1"),
    (6, "ip6 saddr . ip6 daddr $1", "$1"),
    (4, "ip saddr $1", "-s $1"),
    (6, "ip6 saddr $1", "-s $1"),
    (4, "ip daddr $1", "-d $1"),
    (6, "ip6 daddr $1", "-d $1"),
    (0, "udp sport $1 udp dport $2", "-p udp --sport $1 --dport $2"),
    (0, "udp dport $1", "-p udp --dport $1"),
    (0, "tcp dport $1", "-p tcp --dport $1"),
    (6, "icmpv6 type $1", "-p icmpv6 --icmpv6-type $1"),
    (0, "tcp flags & (fin | syn | rst | ack) != syn", "-p tcp ! --syn"),
    (0, "tcp flags syn", "-p tcp --tcp-flags SYN SYN"),
    (0, "tcp option maxseg size set rt mtu", "-j TCPMSS --clamp-mss-to-pmtu"),
    (0, "tcp option maxseg size set $1", "-j TCPMSS --set-mss $1"),
    (4, "reject with icmpx type admin-prohibited", "-j REJECT --reject-with icmp-admin-prohibited"),
    (6, "reject with icmpx type admin-prohibited", "-j REJECT --reject-with icmp6-adm-prohibited"),
    (0, "reject with tcp reset", "-j REJECT --reject-with tcp-reset"),
    (0, "masquerade", "-j MASQUERADE"),
    (4, "snat ip to $1", "-j SNAT --to-source $1"),
    (6, "snat ip6 to $1", "-j SNAT --to-source $1"),
    (4, "dnat ip to $1", "-j DNAT --to-destination $1"),
    (6, "dnat ip6 to $1", "-j DNAT --to-destination $1"),
    (0, "drop", "-j DROP"),
    (0, "accept", "-j ACCEPT"),
    (0, "return", "-j RETURN"),
    (0, "jump $1", "-j @$1"),
    (0, "goto $1", "-g @$1"),
];

/// The lines of `iptables-save` that are of our making, for comparison; empty where nothing is.
pub fn ours(saved: &str) -> String {
    let mut ours = String::new();
    for line in saved.lines() {
        if line.contains(" gwrt-") || line.starts_with(":gwrt-") {
            add(&mut ours, &[line, "\n"]);
        }
    }
    ours
}

/// What makes that which `iptables-save` shows into the table of this text (empty: into nothing of ours), as
/// `iptables-restore --noflush` takes it; empty where nothing is to be done. The error is what iptables can't say.
pub fn change<'a>(saved: &str, text: &'a str, family: Family) -> Result<String, String> {
    let parts = if text.is_empty() { Some(Vec::new()) } else { parts(text) };
    let parts = parts.ok_or("a table that is not of our making")?;
    let rules = |body: &'a str| body.lines().filter_map(|line| line.strip_prefix("\t\t")).gather();
    let chains = parts.iter().filter(|part| part.kind == "chain");
    let mut script = Script {
        family,
        chains: chains.map(|part| (part.name, rules(part.body))).gather(),
        parts,
        tables: Default::default(),
        made: Vec::new(),
        masquerades: false,
    };
    script.hook_all()?;
    let mut sections = String::new();
    for (table, name) in script.tables.iter().zip(TABLES) {
        section(&mut sections, saved, name, table);
    }
    Ok(sections)
}

/// What is there goes and what shall be comes, at once.
fn section(text: &mut String, saved: &str, name: &str, wanted: &Table) {
    let begin = format!("*{name}\n");
    let there = saved.split_once(&begin).map(|(_, rest)| rest).unwrap_or_default();
    let there = there.split_once("\nCOMMIT").map_or(there, |(there, _)| there);
    let mut chains = wanted.chains.iter().map(String::as_str).gather();
    let mut hooks = String::new();
    for line in there.lines() {
        if let Some(rule) = line.strip_prefix("-A ") {
            if !rule.starts_with(OURS) && rule.contains(" gwrt-") {
                add(&mut hooks, &["-D ", rule, "\n"]);
            }
        } else if let Some(rest) = line.strip_prefix(':') {
            let chain = rest.split_once(' ').map_or(rest, |(chain, _)| chain);
            append(&mut chains, Some(chain).filter(|chain| chain.starts_with(OURS)));
        }
    }
    let chains: SortedSet<&str> = chains.into_iter().collect();
    if chains.is_empty() {
        return;
    }
    *text += &begin;
    // One that is there is emptied.
    for chain in &chains {
        add(text, &[":", chain, " - [0:0]\n"]);
    }
    add(text, &[&hooks, &wanted.rules]);
    // The first shall stand first.
    for (hook, chain) in wanted.hooks.iter().rev() {
        add(text, &["-I ", hook, " -j ", chain, "\n"]);
    }
    for chain in chains.iter().filter(|chain| !wanted.chains.iter().any(|wanted| wanted == *chain)) {
        add(text, &["-X ", chain, "\n"]);
    }
    *text += "COMMIT\n";
}

fn add(text: &mut String, words: &[&str]) {
    words.iter().for_each(|word| *text += word);
}

struct Script<'a> {
    family: Family,
    parts: Vec<Part<'a>>,
    /// Those of the parts that are chains, with their rules.
    chains: Vec<(&'a str, Vec<&'a str>)>,
    /// Whether anything of this family is marked for it: a kernel may well have no `nat` for IPv6.
    masquerades: bool,
    tables: [Table; 3],
    /// What was made from which chain, from which line on.
    made: Vec<(Place<'a>, String)>,
}

/// A table's chains in the making.
#[derive(Default)]
struct Table {
    /// Chains of others, each with ours that is looked at first there.
    hooks: Vec<(String, String)>,
    chains: Vec<String>,
    rules: String,
}

/// Where a rule stands in our text, and what it becomes part of.
#[derive(Clone, PartialEq, Eq)]
struct Place<'a> {
    table: usize,
    chain: &'a str,
    line: usize,
    /// Where `return` leads to; `None` where the kernel knows, or out of all that is ours.
    back: Option<String>,
}

/// One of the matches, on none of the interfaces: each target.
struct Rule {
    matches: Vec<String>,
    but: Vec<String>,
    targets: Vec<String>,
}

impl<'a> Script<'a> {
    fn hook_all(&mut self) -> Result<(), String> {
        let leaves = self.chains.iter().any(|(name, _)| name.starts_with("leave-"));
        let mut masquerades = false;
        for (_, rules) in self.chains.iter().filter(|(name, _)| name.starts_with("mark-")) {
            for line in rules {
                let targets = self.rule(line)?.map(|rule| rule.targets).unwrap_or_default();
                masquerades |= targets.iter().any(|target| target.starts_with("-j CONNMARK"));
            }
        }
        self.masquerades = masquerades;
        for at in 0..self.chains.len() {
            let (chain, ref rules) = self.chains[at];
            let Some(header) = rules.first().and_then(|rule| rule.strip_prefix("type ")) else { continue };
            let hook = header.split(' ').nth(2).unwrap_or_default().to_ascii_uppercase();
            let mangles = hook == "POSTROUTING" || header.contains("priority mangle");
            let table = if header.starts_with("nat") {
                NAT
            } else if mangles {
                MANGLE
            } else {
                FILTER
            };
            if table == NAT && mangles && leaves {
                self.hook(MANGLE, &hook, chain)?;
            }
            self.hook(table, &hook, chain)?;
        }
        Ok(())
    }

    fn hook(&mut self, table: usize, hook: &str, chain: &'a str) -> Result<(), String> {
        let chain = self.chain(Place { table, chain, line: 1, back: None })?;
        let table = &mut self.tables[table];
        match table.rules.contains(&format!("-A {chain} ")) {
            true => table.hooks.push((hook.to_owned(), chain)),
            false => table.chains.retain(|made| *made != chain),
        }
        Ok(())
    }

    /// The chain that does what stands from there on, made if it is not yet.
    fn chain(&mut self, place: Place<'a>) -> Result<String, String> {
        if let Some((_, made)) = self.made.iter().find(|(made, _)| *made == place) {
            return Ok(made.clone());
        }
        let name = self.name(place.table, place.chain);
        self.made.push((place.clone(), name.clone()));
        let mut rules = String::new();
        let mut here = place;
        // Where what falls through goes.
        let mut end = here.back.as_ref().map(|back| format!("-g {back}"));
        while let Some(line) = self.rules(here.chain).get(here.line).copied() {
            here.line += 1;
            let Some(rule) = self.rule(line)? else { continue };
            let (mut targets, mut rest) = (Vec::new(), None);
            for said in &rule.targets {
                append(&mut targets, self.target(said, &here, &mut rest)?);
            }
            let leads_away = |target: &String| target.starts_with("-g") || target == "-j RETURN";
            if !rule.but.is_empty() && targets.iter().any(leads_away) {
                return Err(format!("“{line}” with an interface left out"));
            }
            self.say(&name, here.table, &rule, &targets, &mut rules);
            if let Some(rest) = rest {
                end = Some(format!("-g {rest}"));
                break;
            }
        }
        if self.rules(here.chain).iter().any(|rule| rule.contains("policy drop;")) {
            end = Some("-j DROP".to_owned());
        }
        if let Some(end) = end {
            add(&mut rules, &["-A ", &name, " ", &end, "\n"]);
        }
        self.tables[here.table].rules += &rules;
        Ok(name)
    }

    fn name(&mut self, table: usize, chain: &str) -> String {
        let chains = &mut self.tables[table].chains;
        let whole = format!("{OURS}{chain}");
        let (mut name, mut number) = (whole.clone(), chains.len());
        while name.len() > LONGEST || chains.contains(&name) {
            let end = format!(".{number}");
            name.clone_from(&whole);
            name.truncate(LONGEST - end.len());
            name += &end;
            number += 1;
        }
        chains.push(name.clone());
        name
    }

    fn rules(&self, chain: &str) -> &[&'a str] {
        let found = self.chains.iter().find(|(name, _)| *name == chain);
        found.map_or(&[], |(_, rules)| rules)
    }

    /// Whether something in it ends all that is ours.
    fn accepts(&self, chain: &str) -> bool {
        self.rules(chain).iter().any(|line| {
            let to = || line.split_once("jump ").or_else(|| line.split_once("goto "));
            line.contains("accept") || to().is_some_and(|(_, to)| self.accepts(to))
        })
    }

    /// What iptables says for a target; `None` where it is left out. `rest` becomes the chain of what comes after, where
    /// that must be one of its own.
    fn target(
        &mut self,
        said: &str,
        here: &Place<'a>,
        rest: &mut Option<String>,
    ) -> Result<Option<String>, String> {
        let (jump, to) = said.split_once(" @").unwrap_or((said, ""));
        let to = self.chains.iter().find(|(name, _)| *name == to).map(|(name, _)| *name);
        let enter = |chain, back| Place { chain, line: 0, back, ..here.clone() };
        let target = match (said, to) {
            (_, Some(to)) if jump == "-g" => format!("-g {}", self.chain(enter(to, here.back.clone()))?),
            (_, Some(to)) if !self.accepts(to) => format!("-j {}", self.chain(enter(to, None))?),
            (_, Some(to)) => {
                let returns = self.rules(to).iter().any(|rule| rule.contains("return"));
                let back = if !returns && self.ends(to) {
                    None
                } else if self.rules(here.chain).len() == here.line {
                    here.back.clone()
                } else {
                    *rest = Some(self.chain(here.clone())?);
                    rest.clone()
                };
                format!("-g {}", self.chain(enter(to, back))?)
            }
            // Each of these is said in the other of the two tables.
            ("-j DROP", _) if here.table == NAT => return Ok(None),
            ("-j MASQUERADE", _) if here.table == MANGLE || !self.masquerades => return Ok(None),
            ("-j ACCEPT", _) => "-j RETURN".to_owned(),
            ("-j RETURN", _) => returning(here),
            _ if here.table == MANGLE && said.starts_with("-j SNAT") => returning(here),
            _ if here.table != FILTER && said.starts_with("-j REJECT") => {
                return Err(format!("refuse in the table {}", TABLES[here.table]));
            }
            _ => said.to_owned(),
        };
        Ok(Some(target))
    }

    /// Whether nothing falls through it.
    fn ends(&self, chain: &str) -> bool {
        self.rules(chain).last().is_some_and(|last| last.starts_with("reject ") || last.starts_with("drop"))
    }

    fn say(&mut self, chain: &str, table: usize, rule: &Rule, targets: &[String], rules: &mut String) {
        if targets.is_empty() {
            return;
        }
        if rule.but.is_empty() {
            for asked in &rule.matches {
                targets.iter().for_each(|target| add(rules, &["-A ", chain, asked, " ", target, "\n"]));
            }
            return;
        }
        let other = self.name(table, "other");
        rule.matches.iter().for_each(|asked| add(rules, &["-A ", chain, asked, " -j ", &other, "\n"]));
        rule.but.iter().for_each(|but| add(rules, &["-A ", &other, but, " -j RETURN\n"]));
        targets.iter().for_each(|target| add(rules, &["-A ", &other, " ", target, "\n"]));
    }

    /// `None` where it is no rule for this family.
    fn rule(&self, line: &str) -> Result<Option<Rule>, String> {
        let (said, comment) = line.split_once(" comment ").unwrap_or((line, ""));
        let mut rule = Rule { matches: vec![String::new()], but: Vec::new(), targets: Vec::new() };
        let words = said.split(' ').gather();
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            let unsaid = || format!("“{line}”");
            let (family, other) = if self.family == Family::V4 { (4, 6) } else { (6, 4) };
            let Some((means, words, after)) = find(family, rest) else {
                return find(other, rest).map(|_| None).ok_or_else(unsaid);
            };
            let values = self.values(words[0]).ok_or_else(unsaid)?;
            let means = means.replace("$2", words[1]).replace("~1", &turned(words[0]));
            rule.add(&means, values.iter().map(|value| means.replace("$1", value)).gather());
            rest = after;
        }
        if rule.targets.is_empty() {
            return Err(format!("“{line}”"));
        }
        if !comment.is_empty() {
            rule.matches.iter_mut().for_each(|asked| add(asked, &[" -m comment --comment ", comment]));
        }
        Ok(Some(rule))
    }

    /// What a word stands for: itself, or each element of a set or a range.
    fn values(&self, word: &str) -> Option<Vec<String>> {
        let Some(name) = word.strip_prefix('@') else {
            let range =
                word.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
            let each = |range: RangeInclusive<u8>| range.map(|number| number.to_string()).gather();
            return Some(range.map_or_else(|| vec![word.trim_matches('"').to_owned()], each));
        };
        let set = self.parts.iter().find(|part| part.kind == "set" && part.name == name)?;
        let mut values = Vec::new();
        for element in &set.elements {
            let parts = element.split(" . ").gather();
            match *parts.as_slice() {
                [name] if name.starts_with('"') => values.push(name.trim_matches('"').to_owned()),
                [range] => values.append(&mut prefixes(range)?),
                [from, to, ref service @ ..] => {
                    let (service, to) = (service_of(service), prefixes(to)?);
                    for from in prefixes(from)? {
                        to.iter().for_each(|to| values.push(format!("-s {from} -d {to}{service}")));
                    }
                }
                [] => return None,
            }
        }
        Some(values)
    }
}

impl Rule {
    fn add(&mut self, means: &str, said: Vec<String>) {
        match means.as_bytes() {
            [b'-', b'j' | b'g', ..] => append(&mut self.targets, said),
            [b'!', ..] => append(&mut self.but, said.iter().map(|said| said.replacen('!', " ", 1))),
            [] => {}
            _ => {
                let mut matches = Vec::new();
                for asked in &self.matches {
                    said.iter().for_each(|said| matches.push(format!("{asked} {said}")));
                }
                self.matches = matches;
            }
        }
    }
}

fn returning(here: &Place<'_>) -> String {
    here.back.as_ref().map_or_else(|| "-j RETURN".to_owned(), |back| format!("-g {back}"))
}

/// What iptables says, for a family, of what comes first, the words in it, and what comes after.
fn find<'a, 'b>(family: u8, words: &'b [&'a str]) -> Option<(&'static str, [&'a str; 2], &'b [&'a str])> {
    PHRASES.iter().filter(|(of, ..)| [0, family].contains(of)).find_map(|(_, phrase, means)| {
        let (meant, after) = fit(phrase, words)?;
        Some((*means, meant, after))
    })
}

/// The words that stand for `$1` and `$2`, and what follows.
fn fit<'a, 'b>(phrase: &str, words: &'b [&'a str]) -> Option<([&'a str; 2], &'b [&'a str])> {
    let (mut meant, mut rest) = ([""; 2], words);
    for wanted in phrase.split(' ') {
        let (word, after) = rest.split_first()?;
        match wanted {
            "$1" => meant[0] = word,
            "$2" => meant[1] = word,
            _ if wanted == *word => {}
            _ => return None,
        }
        rest = after;
    }
    Some((meant, rest))
}

fn turned(mask: &str) -> String {
    let bits = mask.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    format!("{:#x}", !bits.unwrap_or_default())
}

/// A protocol's number and a range of ports.
fn service_of(words: &[&str]) -> String {
    match words {
        ["6", ports] => format!(" -p tcp --dport {}", ports.replace('-', ":")),
        ["17", ports] => format!(" -p udp --dport {}", ports.replace('-', ":")),
        [proto, ..] => format!(" -p {proto}"),
        [] => String::new(),
    }
}

/// The prefixes that make up a range: iptables knows ranges only where a module is there.
fn prefixes(range: &str) -> Option<Vec<String>> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    let bits = |addr| match addr {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(v4)),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let (width, mut next, end) = (if first.is_ipv4() { 32 } else { 128 }, bits(first), bits(last));
    let mut all = Vec::new();
    while next <= end {
        let fits = (end - next).checked_add(1).map_or(128, u128::ilog2);
        let size = fits.min(next.trailing_zeros());
        let addr = match first {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(next as u32)),
            IpAddr::V6(_) => Ipv6Addr::from_bits(next).into(),
        };
        all.push(format!("{addr}/{}", width - size));
        match 1u128.checked_shl(size).and_then(|step| next.checked_add(step)) {
            Some(after) => next = after,
            None => break,
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests;

//! Our firewall table as chains of our own for `iptables-restore`, one family at a time. Pure; it ends at the script for
//! `--noflush`. The words for each rule are in [`words`](super::words).
//!
//! An accept of ours ends our chains alone, as with nft, where iptables' `ACCEPT` would overrule the chains of others.
//! Therefore a chain that may accept is entered by `-g`, and knows where its `return` leads: what leaves it leaves all
//! of ours. The table `nat` can't drop: what is to be dropped there is dropped in `mangle`.

use super::words::{Words, condition, set_mark};
use crate::model::{
    BaseChain, ChainName, ChainPolicy, ChainType, Family, FirewallRule, FirewallTable, Hook, Mark, Match, Op,
    Priority, Statement,
};
use sorted_vec::SortedSet;

/// Begins the name of every chain of ours.
const OURS: &str = "gwrt-";
/// Most bytes in the name of a chain (`XT_EXTENSION_MAXNAMELEN`).
pub(super) const LONGEST: usize = 28;

/// Tables of iptables in the order in which they come into force. The one that a kernel is likeliest to lack comes first:
/// nothing is done after one that fails.
const TABLES: [&str; 3] = ["nat", "mangle", "filter"];
const NAT: usize = 0;
const MANGLE: usize = 1;
const FILTER: usize = 2;

/// Lines of `iptables-save` that are ours, to compare; empty where nothing is.
pub fn ours(saved: &str) -> String {
    let mut ours = String::new();
    for line in saved.lines() {
        if line.contains(" gwrt-") || line.starts_with(":gwrt-") {
            add(&mut ours, &[line, "\n"]);
        }
    }
    ours
}

/// Script for `iptables-restore --noflush` that turns what `iptables-save` shows into this table; empty where there is
/// nothing to do. An empty table removes all that is ours.
pub fn script(saved: &str, table: &FirewallTable, family: Family) -> String {
    let mut compiler =
        Compiler { table, family, masquerades: false, tables: Default::default(), made: Vec::new() };
    compiler.masquerades = compiler.masquerades();
    compiler.hook_all();
    let mut script = String::new();
    for (table, name) in compiler.tables.iter().zip(TABLES) {
        section(&mut script, saved, name, table);
    }
    script
}

/// Appends the part of an `iptables-restore` script about one table of iptables, which comes into force at once.
fn section(script: &mut String, saved: &str, name: &str, wanted: &Table) {
    let begin = format!("*{name}\n");
    let there = saved.split_once(&begin).map(|(_, rest)| rest).unwrap_or_default();
    let there = there.split_once("\nCOMMIT").map_or(there, |(there, _)| there);
    let mut chains = wanted.chains.iter().map(String::as_str).collect::<Vec<_>>();
    let mut hooks = String::new();
    for line in there.lines() {
        if let Some(rule) = line.strip_prefix("-A ") {
            if !rule.starts_with(OURS) && rule.contains(" gwrt-") {
                add(&mut hooks, &["-D ", rule, "\n"]);
            }
        } else if let Some(rest) = line.strip_prefix(':') {
            let chain = rest.split_once(' ').map_or(rest, |(chain, _)| chain);
            chains.extend(Some(chain).filter(|chain| chain.starts_with(OURS)));
        }
    }
    let chains: SortedSet<&str> = chains.into_iter().collect();
    if chains.is_empty() {
        return;
    }
    *script += &begin;
    // To declare a chain that is there empties it.
    for chain in &chains {
        add(script, &[":", chain, " - [0:0]\n"]);
    }
    add(script, &[&hooks, &wanted.rules]);
    // Each is inserted before those inserted so far: the first shall stand first.
    for (hook, chain) in wanted.hooks.iter().rev() {
        add(script, &["-I ", hook, " -j ", chain, "\n"]);
    }
    for chain in chains.iter().filter(|chain| !wanted.chains.iter().any(|wanted| wanted == *chain)) {
        add(script, &["-X ", chain, "\n"]);
    }
    *script += "COMMIT\n";
}

fn add(text: &mut String, words: &[&str]) {
    words.iter().for_each(|word| *text += word);
}

struct Compiler<'a> {
    table: &'a FirewallTable,
    family: Family,
    /// Connections of this family are marked to be masqueraded. Else `nat` is not asked for: a kernel may well have none
    /// for IPv6.
    masquerades: bool,
    tables: [Table; 3],
    /// Chains made so far, by their place in our table.
    made: Vec<(Place<'a>, String)>,
}

/// Chains and rules of ours for one table of iptables.
#[derive(Default)]
struct Table {
    /// Chains of others, each with ours that it leads to.
    hooks: Vec<(String, String)>,
    chains: Vec<String>,
    rules: String,
}

/// Place of a rule in our firewall table, from which an iptables chain is compiled.
#[derive(Clone, PartialEq, Eq)]
struct Place<'a> {
    table: usize,
    chain: &'a ChainName,
    /// Number of the rule.
    rule: usize,
    /// Chain that `return` leads to; `None` where the kernel knows, or out of all that is ours.
    back: Option<String>,
}

/// iptables words for the matches of one firewall rule.
struct Conditions {
    /// Alternatives: a packet matches one of these.
    any: Vec<String>,
    /// Exceptions: a packet matches none of these, even if it fits otherwise.
    none: Vec<String>,
}

impl<'a> Compiler<'a> {
    fn masquerades(&self) -> bool {
        let rules = || self.table.chains.iter().flat_map(|chain| &chain.rules);
        let marked = |mark: &Mark| {
            let sets = |rule: &&FirewallRule| rule.statements.contains(&Statement::SetCtMark(*mark));
            rules().filter(sets).any(|rule| self.conditions(rule).is_some())
        };
        let asks = |matched: &Match| matches!(matched, Match::CtMark(Op::Is, mark) if marked(mark));
        let masquerades = |rule: &&FirewallRule| rule.statements.contains(&Statement::Masquerade);
        rules().filter(masquerades).any(|rule| rule.matches.iter().any(asks))
    }

    fn hook_all(&mut self) {
        let table = self.table;
        for chain in &table.chains {
            let Some(base) = &chain.base else { continue };
            let into = table_of(base);
            if into == NAT && self.drops(&chain.name) {
                self.hook(MANGLE, base.hook, &chain.name);
            }
            self.hook(into, base.hook, &chain.name);
        }
    }

    fn hook(&mut self, table: usize, hook: Hook, chain: &'a ChainName) {
        let chain = self.chain(Place { table, chain, rule: 0, back: None });
        let table = &mut self.tables[table];
        match table.rules.contains(&format!("-A {chain} ")) {
            true => table.hooks.push((hook_name(hook).to_owned(), chain)),
            false => table.chains.retain(|made| *made != chain),
        }
    }

    /// Name of the iptables chain with our firewall rules from a place on; the chain is compiled if it is not yet.
    fn chain(&mut self, place: Place<'a>) -> String {
        if let Some((_, made)) = self.made.iter().find(|(made, _)| *made == place) {
            return made.clone();
        }
        let name = self.new_name(place.table, &place.chain.0);
        self.made.push((place.clone(), name.clone()));
        let mut rules = String::new();
        let mut here = place;
        // Target of what falls through.
        let mut end = here.back.as_ref().map(|back| format!("-g {back}"));
        while let Some(rule) = self.rules(here.chain).get(here.rule) {
            here.rule += 1;
            let Some(conditions) = self.conditions(rule) else { continue };
            let (mut targets, mut rest) = (Vec::new(), None);
            for statement in &rule.statements {
                targets.extend(self.target(statement, &here, &mut rest));
            }
            if rest.is_none() && !conditions.none.is_empty() && targets.iter().any(leads_away) {
                rest = Some(self.chain(here.clone()));
            }
            self.write(&name, here.table, &conditions, &targets, rest.as_deref(), &mut rules);
            if let Some(rest) = rest {
                end = Some(format!("-g {rest}"));
                break;
            }
        }
        let base = self.table.chain(here.chain).and_then(|chain| chain.base);
        if base.is_some_and(|base| base.policy == ChainPolicy::Drop) {
            end = Some("-j DROP".to_owned());
        }
        if let Some(end) = end {
            add(&mut rules, &["-A ", &name, " ", &end, "\n"]);
        }
        self.tables[here.table].rules += &rules;
        name
    }

    fn new_name(&mut self, table: usize, chain: &str) -> String {
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

    fn rules(&self, chain: &ChainName) -> &'a [FirewallRule] {
        self.table.chain(chain).map_or(&[], |chain| &chain.rules)
    }

    fn statements(&self, chain: &ChainName) -> impl Iterator<Item = &'a Statement> {
        self.rules(chain).iter().flat_map(|rule| &rule.statements)
    }

    /// True if a chain of our firewall table, or one that it leads to, has a statement of this kind.
    fn has(&self, chain: &ChainName, is_meant: fn(&Statement) -> bool) -> bool {
        self.statements(chain).any(|statement| match statement {
            Statement::Jump(to) | Statement::Goto(to) => self.has(to, is_meant),
            other => is_meant(other),
        })
    }

    /// True if a chain of our firewall table, or one that it leads to, may accept, which ends all that is ours.
    fn accepts(&self, chain: &ChainName) -> bool {
        self.has(chain, |statement| *statement == Statement::Accept)
    }

    fn drops(&self, chain: &ChainName) -> bool {
        self.has(chain, |statement| {
            matches!(statement, Statement::Drop | Statement::Reject | Statement::RejectReset)
        })
    }

    /// True if the last rule of a chain refuses every packet, so that none falls through.
    fn ends(&self, chain: &ChainName) -> bool {
        let refuses = |rule: &FirewallRule| {
            let refuses =
                matches!(rule.statements[..], [Statement::Drop | Statement::Reject | Statement::RejectReset]);
            rule.matches.is_empty() && refuses
        };
        self.rules(chain).last().is_some_and(refuses)
    }

    /// iptables target for a statement of a firewall rule; `None` where it is left out. `rest` becomes the chain of the
    /// rules after it, where that must be one of its own.
    fn target(
        &mut self,
        statement: &'a Statement,
        here: &Place<'a>,
        rest: &mut Option<String>,
    ) -> Option<String> {
        let enter = |chain, back| Place { chain, rule: 0, back, ..here.clone() };
        Some(match statement {
            Statement::Accept => "-j RETURN".to_owned(),
            Statement::Return => returning(here),
            Statement::Goto(to) => format!("-g {}", self.chain(enter(to, here.back.clone()))),
            Statement::Jump(to) if !self.accepts(to) => format!("-j {}", self.chain(enter(to, None))),
            Statement::Jump(to) => {
                let back = self.way_back(to, here, rest);
                format!("-g {}", self.chain(enter(to, back)))
            }
            // `hook_all` hooks a chain of `nat` that drops into `mangle` too. Elsewhere than in `filter`, iptables can't
            // reject.
            Statement::Drop if here.table == NAT => return None,
            Statement::Reject | Statement::RejectReset if here.table == NAT => return None,
            Statement::Drop => "-j DROP".to_owned(),
            Statement::Reject | Statement::RejectReset if here.table == MANGLE => "-j DROP".to_owned(),
            Statement::Reject if self.family == Family::V4 => {
                "-j REJECT --reject-with icmp-admin-prohibited".to_owned()
            }
            Statement::Reject => "-j REJECT --reject-with icmp6-adm-prohibited".to_owned(),
            Statement::RejectReset => "-j REJECT --reject-with tcp-reset".to_owned(),
            Statement::SetMark(mark) => format!("-j MARK --set-xmark {}", set_mark(*mark)),
            Statement::SetCtMark(mark) => format!("-j CONNMARK --set-xmark {}", set_mark(*mark)),
            Statement::AddCtMark(bits) => format!("-j CONNMARK --set-xmark {bits:#010x}/{bits:#010x}"),
            Statement::ClampMss => "-j TCPMSS --clamp-mss-to-pmtu".to_owned(),
            Statement::SetMss(bytes) => format!("-j TCPMSS --set-mss {bytes}"),
            // Addresses are translated in `nat` alone.
            Statement::Masquerade if here.table != NAT || !self.masquerades => return None,
            Statement::Masquerade => "-j MASQUERADE".to_owned(),
            Statement::Snat(_) | Statement::Dnat(_) if here.table != NAT => returning(here),
            Statement::Snat(addr) => format!("-j SNAT --to-source {addr}"),
            Statement::Dnat(addr) => format!("-j DNAT --to-destination {addr}"),
        })
    }

    /// Name of the iptables chain that `return` leads to from the chain `to`, which may accept.
    fn way_back(&mut self, to: &ChainName, here: &Place<'a>, rest: &mut Option<String>) -> Option<String> {
        let returns = self.statements(to).any(|statement| *statement == Statement::Return);
        if !returns && self.ends(to) {
            return None;
        }
        if self.rules(here.chain).len() == here.rule {
            return here.back.clone();
        }
        *rest = Some(self.chain(here.clone()));
        rest.clone()
    }

    /// Appends the iptables rules for one firewall rule. `rest` is the chain of what comes after it, where that is one
    /// of its own.
    fn write(
        &mut self,
        chain: &str,
        table: usize,
        conditions: &Conditions,
        targets: &[String],
        rest: Option<&str>,
        rules: &mut String,
    ) {
        if targets.is_empty() {
            return;
        }
        if conditions.none.is_empty() {
            for asked in &conditions.any {
                targets.iter().for_each(|target| add(rules, &["-A ", chain, asked, " ", target, "\n"]));
            }
            return;
        }
        // A rule can negate one interface: a chain of its own returns for each.
        let other = self.new_name(table, "other");
        let (enter, leave) = match rest {
            Some(rest) => (" -g ", format!("-g {rest}")),
            None => (" -j ", "-j RETURN".to_owned()),
        };
        conditions.any.iter().for_each(|asked| add(rules, &["-A ", chain, asked, enter, &other, "\n"]));
        conditions.none.iter().for_each(|none| add(rules, &["-A ", &other, " ", none, " ", &leave, "\n"]));
        targets.iter().for_each(|target| add(rules, &["-A ", &other, " ", target, "\n"]));
    }

    /// iptables words for the matches and comment of a firewall rule; `None` where the rule is for the other family.
    fn conditions(&self, rule: &FirewallRule) -> Option<Conditions> {
        let translates = |statement: &Statement| match statement {
            Statement::Snat(addr) | Statement::Dnat(addr) => Family::of_addr(*addr) == self.family,
            _ => true,
        };
        if !rule.statements.iter().all(translates) {
            return None;
        }
        let mut conditions = Conditions { any: vec![String::new()], none: Vec::new() };
        for matched in &rule.matches {
            match condition(matched, self.table, self.family) {
                Words::Always => {}
                Words::Never => return None,
                Words::Any(words) => {
                    let with =
                        |asked: &String| words.iter().map(move |each| format!("{asked} {each}")).collect();
                    conditions.any = conditions.any.iter().flat_map::<Vec<String>, _>(with).collect();
                }
                Words::None(words) => conditions.none.extend(words),
            }
        }
        if let Some(comment) = &rule.comment {
            let words = format!(" -m comment --comment \"{comment}\"");
            conditions.any.iter_mut().for_each(|asked| *asked += &words);
        }
        Some(conditions)
    }
}

/// Table of iptables that a base chain belongs in, as an index into `TABLES`.
fn table_of(base: &BaseChain) -> usize {
    match (base.kind, base.hook, base.priority) {
        (ChainType::Nat, ..) => NAT,
        // `filter` has no such hook.
        (_, Hook::Prerouting | Hook::Postrouting, _) | (_, _, Priority::Mangle) => MANGLE,
        _ => FILTER,
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

fn leads_away(target: &String) -> bool {
    target.starts_with("-g") || target == "-j RETURN"
}

fn returning(here: &Place<'_>) -> String {
    here.back.as_ref().map_or_else(|| "-j RETURN".to_owned(), |back| format!("-g {back}"))
}

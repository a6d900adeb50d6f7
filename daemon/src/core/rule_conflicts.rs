//! Conflicts of other programs' policy rules with ours, in words for the admin, and the tables that they lead to. Pure.
//! Foreign rules are never changed.

use crate::{
    model::{Family, ForeignRule, Observed, Rule},
    ownership::ReservedNumbers,
};
use gatewrt_protocol::{ExitScope, Failure};
use sorted_vec::SortedSet;

/// `RT_TABLE_DEFAULT`, `RT_TABLE_MAIN`, `RT_TABLE_LOCAL`
const MAIN: u32 = 254;
const EVERYONES: [u32; 3] = [253, MAIN, 255];
/// Distance of the last of our tables and priorities for scopes from the first.
const SPAN: u32 = 4 * ExitScope::MOST as u32;

/// Limit on the priorities of further rules in one failure.
const MOST_NAMED: usize = 12;

/// Foreign policy rules that conflict with ours, each reason once. Without scopes (`scopes`) only those count that take
/// our own packets.
pub fn rule_conflicts(numbers: &ReservedNumbers, observed: &Observed, scopes: bool) -> Vec<Failure> {
    let mut found: Vec<(String, &Rule, SortedSet<u32>)> = Vec::new();
    for foreign in observed.foreign_rules.iter().filter(|it| scopes || takes_ours(&it.rule, numbers)) {
        let why = by_mark(&foreign.rule, numbers).or_else(|| by_table(&foreign.rule, numbers));
        let why = why.or_else(|| by_order(foreign, numbers, observed));
        let Some(why) = why else { continue };
        match found.iter_mut().find(|(known, ..)| *known == why) {
            Some((.., more)) => drop(more.push(foreign.rule.priority)),
            None => found.push((why, &foreign.rule, SortedSet::new())),
        }
    }
    found.into_iter().map(|(why, rule, more)| failure(why, rule, &more)).collect()
}

fn failure(why: String, rule: &Rule, more: &SortedSet<u32>) -> Failure {
    let mut what = format!("get along with rule {rule}, not ours");
    let others: Vec<String> = more.iter().take(MOST_NAMED).map(u32::to_string).collect();
    if !others.is_empty() {
        let rest = if more.len() > others.len() { ", …" } else { "" };
        what.push_str(&format!(" (those of priority {}{rest} neither)", others.join(", ")));
    }
    Failure { what, why }
}

/// Limit on the routing tables that are read.
const MOST_TABLES: usize = 64;

/// Routing tables of other programs that packets are led into: destinations there are reached the way they want, and a
/// link with a default route there is an uplink.
pub fn tables(numbers: &ReservedNumbers, observed: &Observed) -> SortedSet<u32> {
    let all = observed.foreign_rules.iter().filter(|foreign| foreign.rule.skips_to().is_none());
    let tables = all.map(|foreign| foreign.rule.table).filter(|table| *table != 0);
    let foreign = tables.filter(|table| !EVERYONES.contains(table) && !is_ours(*table, numbers));
    foreign.collect::<SortedSet<u32>>().into_iter().take(MOST_TABLES).collect()
}

fn by_mark(rule: &Rule, numbers: &ReservedNumbers) -> Option<String> {
    let shared = rule.mask & numbers.mask;
    // A whole mark is one that someone gives to packets of his own.
    let whole = rule.mask == u32::MAX && rule.mark & numbers.mask == 0;
    (shared != 0 && !whole).then(|| {
        format!(
            "it reads bits {shared:#x} of packets' marks, which are ours too: give us others, with option mask in \
             /etc/config/gatewrt"
        )
    })
}

fn by_table(rule: &Rule, numbers: &ReservedNumbers) -> Option<String> {
    let option = if rule.table == numbers.table { "table" } else { "exit_table" };
    is_ours(rule.table, numbers).then(|| {
        format!(
            "it looks into table {}, which is ours: give us another, with option {option} in /etc/config/gatewrt",
            rule.table
        )
    })
}

/// Conflict of a foreign rule that comes before the scopes and leads their packets to the Internet; `None` for others.
fn by_order(foreign: &ForeignRule, numbers: &ReservedNumbers, observed: &Observed) -> Option<String> {
    let rule = &foreign.rule;
    let of_table = observed.foreign_routes.get(&rule.table);
    let mut routes = of_table.into_iter().flatten();
    let is_of = |family| rule.family == family;
    let wide = routes.any(|route| route.prefix.is_wide() && is_of(Family::of(&route.prefix)));
    let catches = takes_unmarked(foreign) && foreign.suppress.is_none() && (wide || rule.table == MAIN);
    (catches && rule.priority < numbers.exit_priority).then(|| {
        format!(
            "it comes before the scopes of exits and leads their traffic to the Internet past them, where the kill \
             switch stops it: put it behind {}, or us before it, with option priority and option exit_priority in \
             /etc/config/gatewrt",
            numbers.exit_priority + SPAN
        )
    })
}

/// True if a foreign rule matches the packets of tunnels and of the control link.
fn takes_ours(rule: &Rule, numbers: &ReservedNumbers) -> bool {
    let fits = numbers.bypass & rule.mask == rule.mark & rule.mask;
    rule.mask & numbers.mask != 0 && rule.mark != 0 && fits && !rule.invert
}

/// True if a foreign rule leads packets without any mark of ours or theirs into its table.
fn takes_unmarked(foreign: &ForeignRule) -> bool {
    let Rule { mark, invert, .. } = foreign.rule;
    !foreign.more && foreign.rule.skips_to().is_none() && (mark == 0) != invert
}

fn is_ours(table: u32, numbers: &ReservedNumbers) -> bool {
    table == numbers.table || (numbers.exit_table..=numbers.exit_table + SPAN).contains(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ForeignRoute, IfName};

    fn rule(priority: u32, mark: u32, mask: u32, table: u32) -> ForeignRule {
        let family = Family::V4;
        let rule = Rule { family, priority, mark, mask, invert: false, table, iif: None, from: None };
        ForeignRule { rule, more: false, suppress: None, protocol: 0 }
    }

    fn not(mut foreign: ForeignRule) -> ForeignRule {
        foreign.rule.invert = true;
        foreign
    }

    fn from(link: &str, mut foreign: ForeignRule) -> ForeignRule {
        foreign.rule.iif = IfName::new(link);
        foreign
    }

    fn main_but_default(priority: u32) -> ForeignRule {
        ForeignRule { suppress: Some(0), ..rule(priority, 0, 0, MAIN) }
    }

    fn observed(rules: Vec<ForeignRule>, routes: &[(u32, &str)]) -> Observed {
        let mut observed = Observed { foreign_rules: rules.into_iter().collect(), ..Observed::default() };
        for (table, prefix) in routes {
            let route = ForeignRoute {
                prefix: prefix.parse().expect("a prefix"),
                link: IfName::new("theirs"),
                on_link: true,
            };
            observed.foreign_routes.entry(*table).or_default().push(route);
        }
        observed
    }

    fn told(observed: &Observed) -> Vec<String> {
        let all = rule_conflicts(&ReservedNumbers::default(), observed, true);
        all.into_iter().map(|failure| format!("{}: {}", failure.what, failure.why)).collect()
    }

    fn mwan3() -> Vec<ForeignRule> {
        let blackhole = |priority, mark| ForeignRule { more: true, ..rule(priority, mark, 0x3f00, 0) };
        vec![
            from("eth1", rule(1001, 0, 0, 1)),
            from("eth2", rule(1002, 0, 0, 2)),
            rule(2001, 0x100, 0x3f00, 1),
            rule(2002, 0x200, 0x3f00, 2),
            blackhole(2061, 0x3d00),
            blackhole(2062, 0x3e00),
            ForeignRule { more: true, ..rule(3001, 0x100, 0x3f00, 0) },
        ]
    }

    fn pbr() -> Vec<ForeignRule> {
        let main = ForeignRule { suppress: Some(1), ..rule(29998, 0, 0, MAIN) };
        vec![rule(29999, 0x10000, 0xff0000, 256), rule(30000, 0x20000, 0xff0000, 257), main]
    }

    fn tailscale() -> Vec<ForeignRule> {
        vec![
            rule(5210, 0x80000, 0xff0000, MAIN),
            rule(5230, 0x80000, 0xff0000, 253),
            ForeignRule { more: true, ..rule(5250, 0x80000, 0xff0000, 0) },
            rule(5270, 0, 0, 52),
        ]
    }

    fn netbird() -> Vec<ForeignRule> {
        vec![main_but_default(105), not(rule(110, 0x1bd00, u32::MAX, 7120))]
    }

    fn wg_quick() -> Vec<ForeignRule> {
        vec![main_but_default(32764), not(rule(32765, 0xca6c, u32::MAX, 51820))]
    }

    #[test]
    fn common_router_programs_do_not_conflict() {
        let all = [mwan3(), pbr(), tailscale(), netbird(), wg_quick()].concat();
        let routes = [(1, "0.0.0.0/0"), (52, "100.64.0.0/10"), (7120, "100.90.0.0/16"), (51820, "0.0.0.0/0")];
        assert_eq!(told(&observed(all, &routes)), Vec::<String>::new());
    }

    #[test]
    fn tables_of_other_programs_are_observed() {
        let all = [mwan3(), pbr(), tailscale(), netbird(), wg_quick()].concat();
        let tables = tables(&ReservedNumbers::default(), &observed(all, &[]));
        assert_eq!(tables, [1, 2, 52, 256, 257, 7120, 51820].into_iter().collect());
    }

    #[test]
    fn foreign_exit_before_ours_is_a_conflict() {
        let said = told(&observed(netbird(), &[(7120, "0.0.0.0/0")]));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("rule 110 IPv4 not fwmark 0x1bd00/0xffffffff lookup 7120"), "{said:?}");
        assert!(said[0].contains("option exit_priority"), "{said:?}");
        // Half the Internet is the Internet too; without scopes it is nobody's matter.
        let halves = observed(netbird(), &[(7120, "128.0.0.0/1")]);
        assert_eq!(told(&halves).len(), 1);
        assert!(rule_conflicts(&ReservedNumbers::default(), &halves, false).is_empty());
        // A table without a default route of this family diverts no packets.
        assert!(told(&observed(netbird(), &[(7120, "::/0")])).is_empty());
    }

    #[test]
    fn rules_of_one_kind_are_one_conflict() {
        let said = told(&observed((1..40).map(|n| rule(n, 0x100_0000, 0xf00_0000, 100)).collect(), &[]));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("(those of priority 2, 3, 4") && said[0].contains("13, … neither)"),
            "{said:?}"
        );
    }

    #[test]
    fn without_scopes_only_rules_for_our_packets_conflict() {
        let said =
            |rule| rule_conflicts(&ReservedNumbers::default(), &observed(vec![rule], &[]), false).len();
        assert_eq!(said(rule(20000, 0x100_0000, 0xf00_0000, 100)), 1);
        assert_eq!(said(rule(20000, 0x5a00_0000, 0xff00_0000, 100)), 0);
        assert_eq!(said(not(rule(20000, 0x100_0000, 0xf00_0000, 26487))), 0);
    }

    #[test]
    fn rule_on_our_marks_or_tables_is_a_conflict() {
        let said = told(&observed(vec![rule(20000, 0x100_0000, 0xf00_0000, 100)], &[]));
        assert!(said[0].contains("reads bits 0xf000000") && said[0].contains("option mask"), "{said:?}");
        let said = told(&observed(vec![not(rule(20000, 0x100_0000, u32::MAX, 100))], &[]));
        assert_eq!(said.len(), 1, "{said:?}");
        for (table, option) in [(26487, "option table"), (26500, "option exit_table")] {
            let said = told(&observed(vec![rule(20000, 0, 0, table)], &[]));
            assert!(said[0].contains(option), "{said:?}");
        }
    }
}

//! Routing tables of the scopes' parts.

use super::{Context, Part};
use crate::model::{Family, IfName, Rule, Source};
use gatewrt_protocol::Prefix;
use sorted_vec::SortedSet;

/// Routing table of each part of the scopes. A part keeps a table that only its own packets are led into now: packets
/// of another part never meet its routes, not even before its rules are added or after their priorities changed.
pub(super) fn tables(parts: &[Part<'_>], context: &Context<'_>) -> Vec<u32> {
    let first = context.numbers.exit_table;
    let answered = first + super::answered::ANSWERED_TABLE;
    let is_ours = |table| table != answered && (first..Rule::SKIP).contains(&table);
    let mut now: Vec<&Rule> = Vec::new();
    for rules in [&context.observed.rules, &context.before.rules] {
        now.extend(rules.iter().filter(|rule| is_ours(rule.table)));
    }
    let mut taken = SortedSet::new();
    let keep = |part: &Part<'_>| {
        let selectors: Vec<_> = part.sources.iter().filter_map(selector).collect();
        let is_its =
            |rule: &&Rule| selectors.iter().any(|(iif, from, _)| (iif, from) == (&rule.iif, &rule.from));
        let is_only_its = |table: &u32| now.iter().filter(|rule| rule.table == *table).all(is_its);
        let mut known = now.iter().filter(|rule| is_its(rule)).map(|rule| rule.table);
        let kept = known.find(|table| !taken.contains(table) && is_only_its(table));
        taken.extend(kept);
        kept
    };
    let kept: Vec<Option<u32>> = parts.iter().map(keep).collect();
    taken.extend(now.iter().map(|rule| rule.table));
    taken.extend(context.observed.routes.iter().map(|route| route.table));
    let fresh = |kept: Option<u32>| {
        let is_free = |table: &u32| *table != answered && !taken.contains(table);
        let table = kept.or_else(|| (first..).find(is_free)).unwrap_or(first);
        taken.push(table);
        table
    };
    kept.into_iter().map(fresh).collect()
}

/// Selector of the policy rules for a source of a scope: incoming interface or source prefix, and the family, if it is
/// one alone; `None` for a source that no rule can tell.
pub(super) fn selector(source: &Source) -> Option<(Option<IfName>, Option<Prefix>, Option<Family>)> {
    Some(match source {
        Source::Prefix(prefix) => (None, Some(*prefix), Some(Family::of(prefix))),
        Source::Link(link) => (Some(link.clone()), None, None),
        Source::Half(link, family) => (Some(link.clone()), None, Some(*family)),
        Source::Router => (IfName::new("lo"), None, None),
        Source::Anyone => return None,
    })
}

//! Policy rules of ours. A rule can't be changed, so the new one is added before the old one is deleted. The rule with the
//! lowest priority number is added first and deleted last: no packet falls to a later one in between. Only the rule that
//! others skip to is there before all of them, and after.

use super::{Step, link::View};
use crate::model::Rule;
use sorted_vec::SortedSet;

pub(super) fn additions(view: View<'_>, steps: &mut Vec<Step>) {
    for rule in only_in(&view.desired.rules, &view.observed.rules) {
        steps.push(Step::AddRule(rule.clone()));
    }
}

pub(super) fn deletions(view: View<'_>, steps: &mut Vec<Step>) {
    for rule in only_in(&view.observed.rules, &view.desired.rules).into_iter().rev() {
        steps.push(Step::DeleteRule(rule.clone()));
    }
}

/// Policy rules in the first set that the second lacks, in the order in which they are added.
fn only_in<'a>(these: &'a SortedSet<Rule>, those: &'a SortedSet<Rule>) -> Vec<&'a Rule> {
    let mut rules = these.iter().filter(|rule| those.binary_search(rule).is_err()).collect::<Vec<_>>();
    let targets: SortedSet<u32> = these.iter().filter_map(Rule::skips_to).collect();
    rules.sort_by_key(|rule| (targets.binary_search(&rule.priority).is_err(), rule.priority));
    rules
}

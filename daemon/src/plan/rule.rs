//! Policy rules of ours. A rule has no name to change it by: the new one is added before the old one goes. The first to
//! be asked comes first and goes last: no packet falls to a later one in between. Only what is skipped to is there
//! before all, and after.

use super::{Step, link::View};
use crate::{
    gather::Gather,
    model::Rule,
    sorted::{SortedSet, sort_by_key},
};

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

/// In the order in which they are added.
fn only_in<'a>(these: &'a SortedSet<Rule>, those: &'a SortedSet<Rule>) -> Vec<&'a Rule> {
    let mut rules = these.difference(those).gather();
    let targets: SortedSet<u32> = these.iter().filter_map(Rule::skips_to).collect();
    sort_by_key(&mut rules, |rule| (!targets.contains(&rule.priority), rule.priority));
    rules
}

//! Policy rules of ours. A rule has no name to change it by: the new one is added before the old one goes. The first to
//! be asked comes first and goes last: no packet falls to a later one in between. Only what is skipped to is there
//! before all, and after.

use super::{Step, link::View};
use crate::{
    gather::Gather,
    model::Rule,
    sorted::{SortedSet, sort_by_key},
};

pub(super) fn additions(view: View<'_>) -> Vec<Step> {
    let missing = view.desired.rules.difference(&view.observed.rules);
    in_order(missing.gather(), &view.desired.rules).map(Step::AddRule).gather()
}

pub(super) fn deletions(view: View<'_>) -> Vec<Step> {
    let extra = view.observed.rules.difference(&view.desired.rules);
    in_order(extra.gather(), &view.observed.rules).rev().map(Step::DeleteRule).gather()
}

fn in_order<'a>(
    mut rules: Vec<&'a Rule>,
    all: &SortedSet<Rule>,
) -> impl DoubleEndedIterator<Item = Rule> + use<'a> {
    let targets: SortedSet<u32> = all.iter().filter_map(Rule::skips_to).collect();
    sort_by_key(&mut rules, |rule| (!targets.contains(&rule.priority), rule.priority));
    rules.into_iter().cloned()
}

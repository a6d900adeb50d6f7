//! Policy rules of ours. A rule has no name to change it by: the new one is added before the old one goes.

use super::{Step, link::View};

pub(super) fn additions(view: View<'_>) -> Vec<Step> {
    view.desired.rules.difference(&view.observed.rules).cloned().map(Step::AddRule).collect()
}

pub(super) fn deletions(view: View<'_>) -> Vec<Step> {
    view.observed.rules.difference(&view.desired.rules).cloned().map(Step::DeleteRule).collect()
}

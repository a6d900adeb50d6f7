//! Our firewall table: written when its text differs. What the text says is [`ruleset`](super::ruleset)'s matter.

use super::{Step, link::View};
use crate::gather::Gather;

pub(super) fn write(view: View<'_>) -> Vec<Step> {
    let wanted = view.desired.ruleset.iter();
    wanted
        .filter(|ruleset| view.observed.ruleset.as_ref() != Some(*ruleset))
        .cloned()
        .map(Step::WriteRuleset)
        .gather()
}

pub(super) fn delete(view: View<'_>) -> Vec<Step> {
    let unwanted = view.observed.ruleset.is_some() && view.desired.ruleset.is_none();
    unwanted.then_some(Step::DeleteRuleset).into_iter().gather()
}

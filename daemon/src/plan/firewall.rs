//! Our firewall table: written when its text differs. What the text says is [`ruleset`](super::ruleset)'s matter.

use super::{Step, link::View};

pub(super) fn write(view: View<'_>, steps: &mut Vec<Step>) {
    if let Some(wanted) = &view.desired.ruleset
        && view.observed.ruleset.as_ref() != Some(wanted)
    {
        steps.push(Step::WriteRuleset(wanted.clone()));
    }
}

pub(super) fn delete(view: View<'_>, steps: &mut Vec<Step>) {
    if view.observed.ruleset.is_some() && view.desired.ruleset.is_none() {
        steps.push(Step::DeleteRuleset);
    }
}

//! Carries out a plan, step by step. It chooses nothing: a step that fails is named, and the rest goes on.

use crate::{gather::Gather, kernel::Kernel, log, plan::Plan};
use gatewrt_protocol::Failure;

/// Carries out `plan`; gives the steps that failed, each with its reason.
pub fn apply(kernel: &mut impl Kernel, plan: &Plan) -> Vec<Failure> {
    if !plan.steps.is_empty() {
        log::info!(
            "{} {}: {}",
            plan.steps.len(),
            if plan.steps.len() == 1 { "step" } else { "steps" },
            brief(plan)
        );
    }
    let mut failures = Vec::new();
    for step in &plan.steps {
        log::debug!("{step}");
        if let Err(error) = kernel.execute(step) {
            failures.push(Failure { what: step.to_string(), why: error.to_string() });
        }
    }
    failures
}

/// The first steps of a plan in one line.
fn brief(plan: &Plan) -> String {
    let mut text: Vec<String> = plan.steps.iter().take(3).map(ToString::to_string).gather();
    if plan.steps.len() > 3 {
        text.push("…".to_owned());
    }
    text.join("; ")
}

//! Execution of a plan, step by step. It chooses nothing: a step that fails is reported, and the rest goes on.

use crate::{
    kernel::Kernel,
    plan::{Plan, StepFailure, StepKey},
};
use gatewrt_protocol::Failure;

/// Executes the steps of `plan` on the kernel in order; returns those that failed, each with its reason.
pub fn apply(kernel: &mut impl Kernel, plan: &Plan) -> Vec<StepFailure> {
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
            let failure = Failure { what: step.to_string(), why: error.to_string() };
            failures.push(StepFailure { key: StepKey::from(step), failure });
        }
    }
    failures
}

/// First three steps of a plan in one line, for the log.
fn brief(plan: &Plan) -> String {
    let mut text: Vec<String> = plan.steps.iter().take(3).map(ToString::to_string).collect();
    if plan.steps.len() > 3 {
        text.push("…".to_owned());
    }
    text.join("; ")
}

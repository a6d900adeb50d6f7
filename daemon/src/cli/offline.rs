//! Plan without a running daemon: the same decisions, from the configuration, the stored records and the kernel as it
//! is. Nothing is changed.

use super::CliError;
use crate::{
    config::Config,
    control::{self, ControlError, Request},
    core::{About, Core, Input, Output},
    error_chain::error_chain,
    kernel::Kernel,
    runtime,
    show::{self, Answer, PlanAnswer, View},
};
use std::time::Duration;

/// Plan of the running daemon as text, or one made by this process where no daemon runs.
pub fn plan(config: &Config, view: &View) -> Result<String, CliError> {
    match control::ask(&config.run_dir, &Request::Plan, view, Duration::from_secs(20)) {
        Err(ControlError::NotRunning(_)) => {
            show::render(view, &plan_offline(config)?).map_err(CliError::Other)
        }
        answer => Ok(answer?),
    }
}

fn plan_offline(config: &Config) -> Result<Answer, CliError> {
    let other = |error: &dyn std::fmt::Display| CliError::Other(error.to_string());
    let mut kernel = runtime::kernel(config).map_err(|error| other(&error))?;
    let mut core = Core::new(About::default());
    let (memberships, unreadable) =
        runtime::memberships(config).map_err(|error| CliError::Other(error_chain(&error)))?;
    unreadable.into_iter().for_each(|(network, why)| core.leave_alone(network, why));
    let mut outputs = core.handle(Input::Started(Box::new(config.clone()), memberships), Duration::ZERO);
    // The first observation tells what else to query, the second has it.
    for _ in 0..3 {
        let Some(interest) = outputs.iter().find_map(|output| match output {
            Output::Observe(interest) => Some(interest.clone()),
            _ => None,
        }) else {
            break;
        };
        let observed = kernel.observe(&interest).map_err(|error| other(&error))?;
        let input = Input::Observed { observed: Box::new(observed), wall: Duration::ZERO, memory_kib: 0 };
        outputs = core.handle(input, Duration::ZERO);
    }
    let steps = core.plan().steps.iter().map(ToString::to_string).collect();
    Ok(Answer::Plan(PlanAnswer { steps }))
}

//! `gatewrt guard`: boot lockdown of closed scopes, from the file that the daemon wrote. It needs neither the daemon nor
//! a network, removes nothing, and does nothing where there is no file.

use super::{CliError, print};
use crate::{
    config::Config,
    error_chain::error_chain,
    kernel::Kernel,
    model::{ObserveQuery, Observed},
    plan::BootLockdown,
    runtime,
    store::Store,
};
use std::{path::Path, process::ExitCode};

/// Applies the boot lockdown to the kernel, for `gatewrt guard`, and prints each step. A fault fails the command, but
/// only after everything else was done.
pub fn run(file: &Path) -> Result<ExitCode, CliError> {
    let mut faults: Vec<String> = Vec::new();
    let config = Config::load(file);
    if !config.enabled {
        print("gatewrt is switched off: nothing is kept in\n");
        return Ok(ExitCode::SUCCESS);
    }
    let lockdown = Store::new(&config.state_dir).boot_lockdown().unwrap_or_else(|error| {
        faults.push(error_chain(&error));
        Some(BootLockdown::of_everything())
    });
    match lockdown {
        Some(lockdown) => apply(&lockdown, &config, &mut faults)?,
        None => print("no scope is to be kept in\n"),
    }
    match faults.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CliError::Other(faults.join("; "))),
    }
}

fn apply(lockdown: &BootLockdown, config: &Config, faults: &mut Vec<String>) -> Result<(), CliError> {
    let other = |error: &dyn std::fmt::Display| CliError::Other(error.to_string());
    let mut kernel = runtime::kernel(config).map_err(|error| other(&error))?;
    let observed = kernel.observe(&ObserveQuery::default()).unwrap_or_else(|error| {
        faults.push(error.to_string());
        Observed::default()
    });
    let (steps, damaged) = lockdown.steps(&observed);
    faults.extend(damaged.iter().map(|line| format!("“{line}” in the guard's file is damaged and left out")));
    if steps.is_empty() {
        print("all is there already\n");
    }
    for step in steps {
        match kernel.execute(&step) {
            Ok(()) => print(&format!("{step}\n")),
            Err(error) => faults.push(format!("{step}: {error}")),
        }
    }
    Ok(())
}

//! `gatewrt guard`: puts up what keeps closed scopes in, from the file that the daemon left. It needs neither the daemon
//! nor a network, takes nothing away, and does nothing where there is no file.

use super::{CliError, print};
use crate::{
    config::Config,
    kernel::{Interest, Kernel},
    model::Observed,
    plan::Guardfile,
    runtime,
    store::Store,
    whole::whole,
};
use std::{path::Path, process::ExitCode};

/// Does it, and prints each step. What can't be read or done is told, and fails the command when all else is done.
pub fn run(file: &Path) -> Result<ExitCode, CliError> {
    let mut faults: Vec<String> = Vec::new();
    // An error in the configuration is no reason to let out what must be kept in.
    let config = Config::load(file).unwrap_or_else(|error| {
        faults.push(format!("{}; going by the usual places", whole(&error)));
        Config::default()
    });
    if !config.enabled {
        print("gatewrt is switched off: nothing is kept in\n");
        return Ok(ExitCode::SUCCESS);
    }
    let guard = Store::new(&config.state_dir).guard().unwrap_or_else(|error| {
        faults.push(whole(&error));
        Some(Guardfile::shut())
    });
    match guard {
        Some(guard) => put_up(&guard, &config, &mut faults)?,
        None => print("no scope is to be kept in\n"),
    }
    match faults.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CliError::Other(faults.join("; "))),
    }
}

fn put_up(guard: &Guardfile, config: &Config, faults: &mut Vec<String>) -> Result<(), CliError> {
    let other = |error: &dyn std::fmt::Display| CliError::Other(error.to_string());
    let mut kernel = runtime::kernel(config).map_err(|error| other(&error))?;
    let observed = kernel.observe(&Interest::default()).unwrap_or_else(|error| {
        faults.push(error.to_string());
        Observed::default()
    });
    let (steps, damaged) = guard.steps(&observed);
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

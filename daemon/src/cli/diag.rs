//! `gatewrt diag`: what the daemon needs, checked one by one, each with what to do when it is missing. It
//! works with and without a running daemon, and changes nothing.

use super::{CliError, print, print_json, to_json};
use crate::{
    config::Config,
    control::{self, ControlError, Request},
    error_chain::error_chain,
    kernel,
    show::{
        Part, View,
        checks::{Check, bad, good},
    },
    store::Store,
};
use gatewrt_protocol::NetworkName;
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Runs the health checks of `gatewrt diag` and prints them; the exit status is 1 when one of them failed.
pub fn run(file: &Path, json: bool) -> Result<ExitCode, CliError> {
    let checks = checks(file);
    let sound = checks.iter().all(|check| check.ok);
    if json {
        print_json(&to_json(&checks)?)?;
    } else {
        checks.iter().for_each(|check| print(&line(check)));
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(check: &Check) -> String {
    let mark = if check.ok { "ok  " } else { "FAIL" };
    let advice = if check.ok || check.advice.is_empty() {
        String::new()
    } else {
        format!("\n       {}", check.advice)
    };
    format!("{mark}  {}: {}{advice}\n", check.what, check.found)
}

/// Results of all health checks of `gatewrt diag`, where the configuration is in `file`.
pub fn checks(file: &Path) -> Vec<Check> {
    let config = Config::load(file);
    let mut checks = vec![configuration(file, &config), clock()];
    checks.extend(kernel::diagnose::diagnose(&config).into_iter().map(|found| match found.problem {
        None => good(found.what, found.found),
        Some(advice) => bad(found.what, found.found, &advice),
    }));
    checks.extend(state(&config));
    checks.extend(daemon(&config));
    checks
}

fn configuration(file: &Path, config: &Config) -> Check {
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    match warnings.is_empty() {
        true => good("configuration", file.display().to_string()),
        false => {
            bad("configuration", warnings.join("; "), "remove or mend these lines: they are not in effect")
        }
    }
}

fn clock() -> Check {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // 2024-01-01: an earlier time means that the clock was never set.
    match seconds > 1_704_067_200 {
        true => good("clock", format!("{seconds} s since 1970")),
        false => bad("clock", "not set yet", "it works all the same; NTP sets it once the WAN is up"),
    }
}

fn state(config: &Config) -> Vec<Check> {
    let what = format!("state in {}", config.state_dir.display());
    let store = Store::new(&config.state_dir);
    let networks = match store.networks() {
        Ok(networks) if networks.is_empty() => return vec![good(what, "no network joined yet")],
        Ok(networks) => networks,
        Err(error) => {
            return vec![bad(
                what,
                error_chain(&error),
                "run it as root; see that the disk is mounted and not full",
            )];
        }
    };
    let check = |network: &NetworkName| match store.identity(network) {
        Ok(_) => good(what.clone(), network.to_string()),
        Err(error) => {
            bad(what.clone(), error_chain(&error), "its tunnel stays as it runs, other networks go on")
        }
    };
    networks.iter().map(check).collect()
}

fn daemon(config: &Config) -> Vec<Check> {
    let view = View { part: Part::Checks, network: None, json: true };
    match control::ask(&config.run_dir, &Request::Status, &view, Duration::from_secs(5)) {
        Ok(checks) => serde_json::from_slice(checks.as_bytes())
            .unwrap_or_else(|_| vec![bad("daemon", "answered nonsense", "restart it")]),
        Err(error @ ControlError::NotRunning(_)) => vec![bad("daemon", error.to_string(), "")],
        Err(error) => vec![bad("daemon", error.to_string(), "see its log: “logread -e gatewrt”")],
    }
}

//! `gatewrt diag`: what the daemon needs, checked one by one, each with what to do when it is missing. It
//! works with and without a running daemon, and changes nothing.

use super::{CliError, print, print_json, to_json};
use crate::{
    config::Config,
    control::{self, Answer, ControlError, Request},
    core::report::Status,
    gather::Gather,
    kernel,
    store::Store,
    whole::whole,
};
use gatewrt_protocol::NetworkName;
use serde::Serialize;
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    what: String,
    /// Whether it is as it should be.
    ok: bool,
    /// What was found.
    found: String,
    /// What to do when it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

/// Checks and prints; the exit status is 1 when something is missing.
pub fn run(file: &Path, json: bool) -> Result<ExitCode, CliError> {
    let checks = checks(file);
    let sound = checks.iter().all(|check| check.ok);
    if json {
        print_json(&to_json(&checks)?);
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

/// Looks at everything.
pub fn checks(file: &Path) -> Vec<Check> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return vec![bad("configuration", whole(&error), "mend the line named")],
    };
    let mut checks = vec![configuration(file, &config), clock()];
    checks.extend(kernel::diagnose::diagnose(&config).into_iter().map(|found| match found.problem {
        None => good(found.what, found.found),
        Some(advice) => bad(found.what, found.found, &advice),
    }));
    checks.extend(state(&config));
    checks.extend(daemon(&config));
    checks
}

fn good(what: impl Into<String>, found: impl Into<String>) -> Check {
    Check { what: what.into(), ok: true, found: found.into(), advice: String::new() }
}

fn bad(what: impl Into<String>, found: impl Into<String>, advice: &str) -> Check {
    Check { what: what.into(), ok: false, found: found.into(), advice: advice.to_owned() }
}

fn configuration(file: &Path, config: &Config) -> Check {
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).gather();
    match warnings.is_empty() {
        true => good("configuration", file.display().to_string()),
        false => bad("configuration", warnings.join("; "), "remove or mend these lines: they are skipped"),
    }
}

fn clock() -> Check {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // 2024-01-01: before that it was never set.
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
                whole(&error),
                "run it as root; see that the disk is mounted and not full",
            )];
        }
    };
    let check = |network: &NetworkName| match store.identity(network) {
        Ok(_) => good(what.clone(), network.to_string()),
        Err(error) => bad(what.clone(), whole(&error), "its tunnel stays as it runs, other networks go on"),
    };
    networks.iter().map(check).gather()
}

fn daemon(config: &Config) -> Vec<Check> {
    match control::ask(&config.run_dir, &Request::Status, Duration::from_secs(5)) {
        Ok(Answer::Status(status)) => {
            let mut checks = vec![good("daemon", format!("running, version {}", status.version))];
            checks.extend(networks(&status));
            checks
        }
        Ok(_) => vec![bad("daemon", "answered nonsense", "restart it")],
        Err(error @ ControlError::NotRunning(_)) => vec![bad("daemon", error.to_string(), "")],
        Err(error) => vec![bad("daemon", error.to_string(), "see its log: “logread -e gatewrt”")],
    }
}

fn networks(status: &Status) -> Vec<Check> {
    let mut checks = Vec::new();
    for network in &status.networks {
        let what = format!("network {}", network.name);
        let control = format!("control link to {} is {}", network.broker, network.control);
        let error = network.control_error.clone().unwrap_or_default();
        checks.push(match network.control.as_str() {
            "connected" => good(what.clone(), control),
            _ => bad(
                what.clone(),
                format!("{control} {error}"),
                "tunnels go on without it; see that the coordinator runs and TCP to it passes",
            ),
        });
        let down: Vec<_> =
            network.peers.iter().filter(|peer| peer.path == gatewrt_protocol::Path::Down).gather();
        let names: Vec<_> = down.iter().map(|peer| peer.name.to_string()).gather();
        checks.push(match names.is_empty() {
            true => good(what.clone(), format!("{} peers, none down", network.peers.len())),
            false => bad(
                what.clone(),
                format!("no fresh handshake with {}", names.join(", ")),
                "see that one side's UDP port is open from outside, and that it is the endpoint stated",
            ),
        });
        checks.extend(
            network
                .failures
                .iter()
                .map(|failure| bad(what.clone(), format!("could not {}", failure.what), &failure.why)),
        );
    }
    checks
}

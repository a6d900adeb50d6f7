//! Health checks of the daemon, each with advice where it fails.

use crate::core::status::Status;
use serde::{Deserialize, Serialize};

/// Result of one health check of the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Check {
    /// Subject.
    pub what: String,
    /// Result: everything is as it should be.
    pub ok: bool,
    /// Finding, in words.
    pub found: String,
    /// Advice where the check failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// Health check that passed.
pub fn good(what: impl Into<String>, found: impl Into<String>) -> Check {
    Check { what: what.into(), ok: true, found: found.into(), advice: String::new() }
}

/// Health check that failed, with advice.
pub fn bad(what: impl Into<String>, found: impl Into<String>, advice: &str) -> Check {
    Check { what: what.into(), ok: false, found: found.into(), advice: advice.to_owned() }
}

/// Health checks of a running daemon, from its status.
pub fn checks(status: &Status) -> Vec<Check> {
    let mut checks = vec![good("daemon", format!("running, version {}", status.version))];
    checks.extend(status.config.iter().map(|fault| bad("configuration", fault, "mend /etc/config/gatewrt")));
    checks.extend(networks(status));
    checks
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
            network.peers.iter().filter(|peer| peer.path == gatewrt_protocol::Path::Down).collect();
        let names: Vec<_> = down.iter().map(|peer| peer.name.to_string()).collect();
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

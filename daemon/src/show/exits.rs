//! Exits and scopes as text.

use super::{row, table};
use crate::core::{
    scopes::{
        ConfigSource,
        status::{ExitStatus, ScopeStatus},
    },
    status::NetworkStatus,
};
use gatewrt_protocol::{ExitOffer, ScopeState};
use std::fmt::Write;

/// Table of a network's exits, as text.
pub fn list(network: &NetworkStatus) -> String {
    format!("network {}\n{}", network.name, exits(network))
}

/// List of a network's scopes, as text.
pub fn of_network(network: &NetworkStatus) -> String {
    format!("network {}\n{}", network.name, scopes(network.scopes_by, &network.scopes))
}

fn exits(network: &NetworkStatus) -> String {
    let NetworkStatus { exits, offer, is_exit: serves, .. } = network;
    if exits.is_empty() {
        return format!(
            "  no exit: “gatewrt-coordinator exit set {} NODE” makes a node one\n{}",
            network.name,
            own(offer.as_ref(), *serves)
        );
    }
    let mut rows = vec![row(&["EXIT", "LEADS TO", "ANSWERS", "ROUND TRIP", "RESOLVERS", "USED BY"])];
    rows.extend(exits.iter().map(line_of));
    table(&rows) + &own(offer.as_ref(), *serves)
}

fn line_of(exit: &ExitStatus) -> Vec<String> {
    let answers = match exit.alive {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not asked",
    };
    vec![
        exit.name.to_string(),
        families(&exit.offer).to_owned(),
        answers.to_owned(),
        exit.rtt_ms.map_or_else(dash, |ms| format!("{ms} ms")),
        joined(&exit.offer.dns),
        joined(&exit.used_by),
    ]
}

/// Line of text that says if this router is or could be an exit.
fn own(offer: Option<&ExitOffer>, serves: bool) -> String {
    match (offer, serves) {
        (None, _) => String::new(),
        (Some(offer), true) => format!("  this router is an exit too: {}\n", families(offer)),
        (Some(offer), false) => format!("  this router could be an exit: {}\n", families(offer)),
    }
}

/// Address families that an exit leads to, as text.
pub fn families(offer: &ExitOffer) -> &'static str {
    match (offer.v4, offer.v6) {
        (true, true) => "IPv4 IPv6",
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        (false, false) => "nothing",
    }
}

/// Lines of text about each scope: its state, and the reason of it if there is one.
pub fn scopes(by: ConfigSource, scopes: &[ScopeStatus]) -> String {
    let by = match by {
        ConfigSource::Owner => "as /etc/config/gatewrt says",
        ConfigSource::Router => "as chosen on this router",
        ConfigSource::Coordinator => "as the coordinator says",
    };
    if scopes.is_empty() {
        return format!("  exit       none is used, {by}\n");
    }
    let mut text = String::new();
    for scope in scopes {
        let _ = writeln!(text, "  exit       {}", line(scope));
        if !scope.why.is_empty() {
            let _ = writeln!(text, "             {}", scope.why);
        }
    }
    let _ = writeln!(text, "             {by}");
    text
}

fn line(scope: &ScopeStatus) -> String {
    let goes = match (scope.state, &scope.exit) {
        (ScopeState::Exit, Some(exit)) => format!("goes through {exit}"),
        (ScopeState::Blocked, _) => "is BLOCKED".to_owned(),
        (ScopeState::Wan, _) => "goes out over the WAN".to_owned(),
        (ScopeState::Exit | ScopeState::Other, _) => "goes elsewhere".to_owned(),
    };
    let rtt = scope.rtt_ms.map(|ms| format!(", {ms} ms away")).unwrap_or_default();
    let mut asked = scope.exits.iter().map(ToString::to_string).collect::<Vec<_>>();
    asked.extend(scope.auto.then(|| "auto".to_owned()));
    let asked = if asked.is_empty() { "none".to_owned() } else { asked.join(" ") };
    let switch = if scope.kill_switch { "on" } else { "off" };
    let dns = if scope.dns.is_empty() { String::new() } else { format!(", DNS {}", joined(&scope.dns)) };
    format!("{} ({}) {goes}{rtt}{dns} [asked: {asked}, kill switch {switch}]", scope.name, joined(&scope.of))
}

/// Joins the items of a list with blanks between; “-” for none.
pub fn joined<T: ToString>(list: &[T]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    if list.is_empty() { dash() } else { list.join(" ") }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_shown_with_state_and_source() {
        let scope = ScopeStatus {
            name: "guests".parse().unwrap(),
            of: vec!["dev:br-guest".parse().unwrap()],
            state: ScopeState::Exit,
            exit: Some("oslo".parse().unwrap()),
            rtt_ms: Some(31),
            exits: vec!["berlin".parse().unwrap(), "oslo".parse().unwrap()],
            auto: true,
            kill_switch: true,
            dns: vec!["9.9.9.9".parse().unwrap()],
            why: "berlin does not answer".to_owned(),
        };
        let blocked = ScopeStatus {
            state: ScopeState::Blocked,
            exit: None,
            rtt_ms: None,
            dns: Vec::new(),
            ..scope.clone()
        };
        let text = |list: &[ScopeStatus]| scopes(ConfigSource::Router, list);
        assert_eq!(
            text(&[scope]),
            "  exit       guests (dev:br-guest) goes through oslo, 31 ms away, DNS 9.9.9.9 [asked: berlin oslo auto, kill switch on]\n             \
             berlin does not answer\n             as chosen on this router\n"
        );
        assert!(text(&[blocked]).contains("is BLOCKED [asked"));
        assert!(text(&[]).contains("none is used, as chosen on this router"));
    }
}

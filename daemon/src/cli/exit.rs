//! `gatewrt exit`: whose Internet traffic of this router goes through which exit. It ends at a request; whether that can
//! be done is the daemon's to say.

use super::{CliError, print, show, to_json};
use crate::{
    config::{
        OwnScope,
        exits::{DNS, EXCLUDE, EXIT, IPV6, SCOPE, exclude, exit, in_order, on_wan, resolver, traffic},
    },
    control::Request,
    core::{
        report::{NetworkStatus, Status},
        scopes::{
            Voice,
            status::{ExitStatus, ScopeStatus},
        },
    },
    gather::Gather,
    sorted::SortedMap,
};
use gatewrt_protocol::{ExitOffer, ExitScope, NetworkName, ScopeState, Tag};
use std::fmt::Write;

pub const HELP: &str = "\
Sends Internet traffic of this router, or of hosts behind it, through another node of the network: an exit.

Usage: gatewrt exit list|status|enable|disable|forget [OPTIONS]

Commands:
  list                  the exits of each network: what they lead to, how far they are, which is in use
  status                what of this router's traffic goes through an exit now, and why no other
  enable NAME… [auto]   send traffic through the first of these exits that works; “auto”: after those, or alone,
                        through the nearest that works
  disable [SCOPE]       through none any more (only the traffic of this scope), whatever the coordinator says
  forget                forget what was said here: the coordinator's word counts again

What is said here outlives reboots. What /etc/config/gatewrt says goes before it, the coordinator's word after it.

Options:
  --network NETWORK     which network; needed where there are several
  --scope TRAFFIC       which traffic, may be repeated: lan (every LAN; the default), all (and the router itself),
                        router, dev:INTERFACE, an address or a prefix of a LAN
  --as SCOPE            the scope's name, where there are several [default: the network's name]
  --no-kill-switch      while no exit works the traffic goes out over the WAN, instead of nowhere
  --forbid-lan          not even LANs and the network's other sites are reached past the exit
  --ipv6 block|wan      while the exit leads to IPv4 alone, IPv6 goes nowhere, or out over the WAN [default: block]
  --exclude PREFIX      reached as if there were no exit; may be repeated
  --dns ADDRESS         resolver to ask through the exit, instead of its own; may be repeated
  --keep-dns            DNS queries go where hosts send them
  --json                print JSON

Exit status: 0 done, 1 could not be done, 2 wrong usage, 3 the daemon is not running.

Examples:
  gatewrt exit enable auto
  gatewrt exit enable berlin oslo --scope dev:br-guest --as guests
  gatewrt exit enable berlin auto --scope all --exclude 203.0.113.0/24
  gatewrt exit disable guests
";

/// What the options said, each with its name.
pub type Given = Vec<(&'static str, String)>;

/// What can be said once or more often, and what stands alone.
const VALUES: [&str; 6] = ["network", "scope", "as", "ipv6", "exclude", "dns"];
const FLAGS: [&str; 3] = ["no-kill-switch", "forbid-lan", "keep-dns"];

#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    Help,
    List { given: Given },
    Status { given: Given },
    Enable { exits: Vec<String>, given: Given },
    Disable { only: Option<String>, given: Given },
    Forget { given: Given },
}

/// An option of these commands, and whether it has a value; `None` when it is none.
pub fn option(name: &str) -> Option<(&'static str, bool)> {
    let known = |options: &[&'static str]| options.iter().find(|known| **known == name).copied();
    known(&VALUES).map(|name| (name, true)).or_else(|| known(&FLAGS).map(|name| (name, false)))
}

/// The command after `gatewrt exit`.
pub fn command(values: &mut dyn Iterator<Item = String>, given: Given) -> Result<Exit, CliError> {
    let exit = match values.next().as_deref() {
        None => return Ok(Exit::Help),
        Some("enable") => return Ok(Exit::Enable { exits: values.gather(), given }),
        _ if given.iter().any(|(name, _)| *name != "network") => {
            return Err(usage("of these options only --network goes with this command".to_owned()));
        }
        Some("list") => Exit::List { given },
        Some("status") => Exit::Status { given },
        Some("disable") => Exit::Disable { only: values.next(), given },
        Some("forget") => Exit::Forget { given },
        Some(other) => return Err(usage(format!("“exit {other}” is no command"))),
    };
    Ok(exit)
}

/// What is asked of the daemon.
pub fn request(exit: &Exit) -> Result<Request, CliError> {
    let network = |given: &Given| all(given, "network").last().map(super::value::<NetworkName>).transpose();
    Ok(match exit {
        Exit::Help | Exit::List { .. } | Exit::Status { .. } => Request::Status,
        Exit::Enable { exits, given } => {
            let only = all(given, "as").last().map(super::value::<Tag>).transpose()?;
            Request::ExitEnable { network: network(given)?, only, scope: Box::new(scope(exits, given)?) }
        }
        Exit::Disable { only, given } => {
            let only = only.as_deref().map(super::value::<Tag>).transpose()?;
            Request::ExitDisable { network: network(given)?, only }
        }
        Exit::Forget { given } => Request::ExitForget { network: network(given)? },
    })
}

fn scope(exits: &[String], given: &Given) -> Result<OwnScope, CliError> {
    let listed = each(exits.iter().map(String::as_str), "exit", EXIT, exit)?;
    let (exits, auto) = in_order(listed).ok_or_else(|| usage(format!("which exit? Allowed: {EXIT}")))?;
    let of = each(all(given, "scope"), "--scope", SCOPE, traffic)?;
    let has = |flag: &str| given.iter().any(|(name, _)| *name == flag);
    let lan = of.is_empty() || of.iter().any(Option::is_none);
    // The daemon calls it as was said, or as the network.
    let name = super::value("unnamed")?;
    let scope = ExitScope {
        auto,
        open: has("no-kill-switch"),
        forbid_lan: has("forbid-lan"),
        keep_dns: has("keep-dns"),
        v6_wan: each(all(given, "ipv6"), "--ipv6", IPV6, on_wan)?.pop().unwrap_or_default(),
        exclude: each(all(given, "exclude"), "--exclude", EXCLUDE, exclude)?,
        dns: each(all(given, "dns"), "--dns", DNS, resolver)?,
        ..ExitScope::auto(name, of.into_iter().flatten().gather())
    };
    Ok(OwnScope { exits, lan, scope })
}

/// Every value of an option.
pub fn all<'a>(given: &'a Given, name: &'static str) -> impl Iterator<Item = &'a str> {
    given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
}

fn each<'a, T>(
    texts: impl Iterator<Item = &'a str>,
    what: &str,
    allowed: &str,
    read: fn(&str) -> Option<T>,
) -> Result<Vec<T>, CliError> {
    let unusable = |text: &str| usage(format!("{what} “{text}” can't be used; allowed: {allowed}"));
    texts.map(|text| read(text).ok_or_else(|| unusable(text))).collect()
}

fn usage(what: String) -> CliError {
    CliError::Usage(what)
}

/// The answer to [`Exit::List`] and [`Exit::Status`] as JSON; `None` for any other.
pub fn json(exit: &Exit, status: &Status) -> Result<Option<String>, CliError> {
    let json = match exit {
        Exit::List { given } => to_json(&by_name(&chosen(given, status)?, |network| &network.exits)),
        Exit::Status { given } => to_json(&by_name(&chosen(given, status)?, |network| &network.scopes)),
        _ => return Ok(None),
    };
    json.map(Some)
}

fn chosen<'a>(given: &Given, status: &'a Status) -> Result<Vec<&'a NetworkStatus>, CliError> {
    show::networks(status, all(given, "network").last())
}

/// Shows the answer to [`Exit::List`] and [`Exit::Status`].
pub fn show(exit: &Exit, status: &Status) -> Result<(), CliError> {
    let (Exit::List { given } | Exit::Status { given }) = exit else { return Ok(()) };
    let networks = chosen(given, status)?;
    if networks.is_empty() {
        print("No network joined yet: “gatewrt join CODE”.\n");
    }
    for network in networks {
        print(&format!("network {}\n", network.name));
        print(&if matches!(exit, Exit::List { .. }) {
            list(network)
        } else {
            scopes(network.scopes_by, &network.scopes)
        });
    }
    Ok(())
}

fn by_name<'a, T>(
    networks: &[&'a NetworkStatus],
    part: fn(&NetworkStatus) -> &T,
) -> SortedMap<&'a NetworkName, &'a T> {
    networks.iter().map(|network| (&network.name, part(network))).collect()
}

fn list(network: &NetworkStatus) -> String {
    let NetworkStatus { exits, offer, is_exit: serves, .. } = network;
    if exits.is_empty() {
        return format!(
            "  no exit: “gatewrt-coordinator exit set {} NODE” makes a node one\n{}",
            network.name,
            own(offer.as_ref(), *serves)
        );
    }
    let head = ["EXIT", "LEADS TO", "ANSWERS", "ROUND TRIP", "RESOLVERS", "USED BY"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(exits.iter().map(row)).gather();
    show::table(&rows) + &own(offer.as_ref(), *serves)
}

fn row(exit: &ExitStatus) -> [String; 6] {
    let answers = match exit.alive {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not asked",
    };
    [
        exit.name.to_string(),
        families(&exit.offer).to_owned(),
        answers.to_owned(),
        exit.rtt_ms.map_or_else(dash, |ms| format!("{ms} ms")),
        joined(&exit.offer.dns),
        joined(&exit.used_by),
    ]
}

/// What this router itself does as an exit.
fn own(offer: Option<&ExitOffer>, serves: bool) -> String {
    match (offer, serves) {
        (None, _) => String::new(),
        (Some(offer), true) => format!("  this router is an exit too: {}\n", families(offer)),
        (Some(offer), false) => format!("  this router could be an exit: {}\n", families(offer)),
    }
}

/// What an exit leads to.
pub fn families(offer: &ExitOffer) -> &'static str {
    match (offer.v4, offer.v6) {
        (true, true) => "IPv4 IPv6",
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        (false, false) => "nothing",
    }
}

/// A line for each scope, and one with what there is to say of it.
pub fn scopes(by: Voice, scopes: &[ScopeStatus]) -> String {
    let by = match by {
        Voice::Owner => "as /etc/config/gatewrt says",
        Voice::Router => "as was said on this router",
        Voice::Coordinator => "as the coordinator says",
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
    let auto = scope.auto.then(|| "auto".to_owned());
    let asked: Vec<_> = scope.exits.iter().map(ToString::to_string).chain(auto).gather();
    let asked = if asked.is_empty() { "none".to_owned() } else { asked.join(" ") };
    let switch = if scope.kill_switch { "on" } else { "off" };
    let dns = if scope.dns.is_empty() { String::new() } else { format!(", DNS {}", joined(&scope.dns)) };
    format!("{} ({}) {goes}{rtt}{dns} [asked: {asked}, kill switch {switch}]", scope.name, joined(&scope.of))
}

fn joined<T: ToString>(list: &[T]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).gather();
    if list.is_empty() { dash() } else { list.join(" ") }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests;

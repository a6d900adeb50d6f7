//! `gatewrt exit`: parses the choice of exits for this router's Internet traffic into a request. The daemon decides if
//! it can be done.

use super::CliError;
use crate::{
    config::{
        OwnScope,
        exits::{DNS, EXCLUDE, EXIT, IPV6, SCOPE, exclude, exit, in_order, on_wan, resolver, traffic},
    },
    control::Request,
    show::{Part, View},
};
use gatewrt_protocol::{ExitScope, NetworkName, Tag};

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

/// Options given to `gatewrt exit`, each with its value (empty for a flag), in the order given.
pub type Given = Vec<(&'static str, String)>;

/// Options with a value, and flags without.
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

/// Option of `gatewrt exit` by its name, and `true` if it takes a value; `None` for an unknown name.
pub fn option(name: &str) -> Option<(&'static str, bool)> {
    let known = |options: &[&'static str]| options.iter().find(|known| **known == name).copied();
    known(&VALUES).map(|name| (name, true)).or_else(|| known(&FLAGS).map(|name| (name, false)))
}

/// Parses the words after `gatewrt exit` into a command.
pub fn command(values: &mut dyn Iterator<Item = String>, given: Given) -> Result<Exit, CliError> {
    let exit = match values.next().as_deref() {
        None => return Ok(Exit::Help),
        Some("enable") => return Ok(Exit::Enable { exits: values.collect(), given }),
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

/// Request to the daemon that carries out a `gatewrt exit` command.
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

/// View in which the daemon renders its answer to a `gatewrt exit` command.
pub fn view(exit: &Exit, json: bool) -> View {
    let (part, network) = match exit {
        Exit::List { given } => (Part::Exits, all(given, "network").last()),
        Exit::Status { given } => (Part::Scopes, all(given, "network").last()),
        _ => (Part::All, None),
    };
    View { part, network: network.map(str::to_owned), json }
}

fn scope(exits: &[String], given: &Given) -> Result<OwnScope, CliError> {
    let listed = each(exits.iter().map(String::as_str), "exit", EXIT, exit)?;
    let (exits, auto) = in_order(&listed).ok_or_else(|| usage(format!("which exit? Allowed: {EXIT}")))?;
    let of = each(all(given, "scope"), "--scope", SCOPE, traffic)?;
    let has = |flag: &str| given.iter().any(|(name, _)| *name == flag);
    let lan = of.is_empty() || of.iter().any(Option::is_none);
    // Placeholder: the daemon names the scope by `--as`, or after the network.
    let name = super::value("unnamed")?;
    let scope = ExitScope {
        auto,
        open: has("no-kill-switch"),
        forbid_lan: has("forbid-lan"),
        keep_dns: has("keep-dns"),
        v6_wan: each(all(given, "ipv6"), "--ipv6", IPV6, on_wan)?.pop().unwrap_or_default(),
        exclude: each(all(given, "exclude"), "--exclude", EXCLUDE, exclude)?,
        dns: each(all(given, "dns"), "--dns", DNS, resolver)?,
        ..ExitScope::auto(name, of.into_iter().flatten().collect())
    };
    Ok(OwnScope { exits, lan, scope })
}

/// Values of one option of `gatewrt exit`, which may be repeated.
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

#[cfg(test)]
mod tests;

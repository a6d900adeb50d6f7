//! What the router's owner says of its Internet traffic: `config exit '<name>'` sections, one a scope, and in a network's
//! section the short form `option exit_client`. Whether a node of such a name is an exit shows later.

use super::{BOOL, ConfigError, NetworkConfig, OwnScope, boolean, number, options::Options};
use crate::{
    gather::Gather,
    ownership::Numbers,
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{ExitScope, NetworkName, NodeName, Prefix, Tag, Traffic};
use std::net::IpAddr;

const NETWORK: &str = "the name of the network whose exits are used";
const NAME: &str =
    "config exit '<name>' with 1 to 32 characters of a-z, 0-9 and “_” (which stands for “-”), none twice";
/// What is allowed.
pub const SCOPE: &str =
    "lan, router, all, dev:<interface>, an address or a prefix of a LAN; each in one place only";
/// What is allowed.
pub const EXIT: &str =
    "names of nodes in the order in which they are taken, each once, and “auto” as the last or alone";
const CLIENT: &str = "auto, names of nodes with or without “auto” as the last, or 0";
/// What is allowed.
pub const IPV6: &str = "block, or wan: out over the WAN while the exit in use leads to IPv4 alone";
/// What is allowed.
pub const EXCLUDE: &str = "an address or a prefix, not the whole Internet";
/// What is allowed.
pub const DNS: &str = "a resolver's address, not of this router nor of one link alone";
const TABLE: &str = "1 to 4294967264, so that neither it nor one of the 31 after it is table or the system's";
const PRIORITY: &str = "more than priority, and at most 32701, before the main table's rule";

/// The scopes that were read so far.
#[derive(Debug, Default)]
pub(super) struct Exits {
    scopes: Vec<(NetworkName, OwnScope)>,
    /// Networks whose section says that there is no exit, and where.
    none: SortedMap<NetworkName, u32>,
    /// Traffic that a scope has already.
    taken: SortedSet<String>,
}

impl Exits {
    /// Reads a section of its own.
    pub(super) fn read(&mut self, options: &mut Options<'_>) -> Result<(), ConfigError> {
        let name = options.section.name.as_deref().unwrap_or_default().replace('_', "-");
        let line = options.section.line;
        let name: Result<Tag, _> = name.parse();
        let name =
            name.map_err(|_| options.bad(line, options.place(), "the name is missing or unsound", NAME))?;
        let network = options.one("network", NETWORK, |text| text.replace('_', "-").parse().ok())?;
        let network =
            network.ok_or_else(|| options.bad(line, options.place(), "without option network", NETWORK))?;
        let enabled = options.one("enabled", BOOL, boolean)?.unwrap_or(true);
        let exits_line = options.line_of("exit");
        let listed = options.many("exit", EXIT, exit)?;
        let Some((exits, auto)) = in_order(listed) else {
            return Err(options.bad(
                exits_line,
                "list exit".to_owned(),
                "none, twice the same, or “auto” before a name",
                EXIT,
            ));
        };
        let mut own = self.scope(name, (exits, auto), "scope", options, enabled)?;
        read_details(&mut own.scope, options)?;
        if enabled {
            self.add(network, own, options)?;
        }
        Ok(())
    }

    /// Reads what a network's own section says: `None` when nothing.
    pub(super) fn read_short(
        &mut self,
        network: &NetworkName,
        options: &mut Options<'_>,
    ) -> Result<Option<Vec<OwnScope>>, ConfigError> {
        let (line, scope_line) = (options.line_of("exit_client"), options.line_of("exit_scope"));
        let Some(client) = options.one("exit_client", CLIENT, client)? else {
            let alone = !options.many("exit_scope", SCOPE, |text| Some(text.to_owned()))?.is_empty();
            let bad = || {
                options.bad(scope_line, "list exit_scope".to_owned(), "without option exit_client", CLIENT)
            };
            return if alone { Err(bad()) } else { Ok(None) };
        };
        let name = network.into();
        match client {
            Some(client) => {
                let own = self.scope(name, client, "exit_scope", options, true)?;
                self.add(network.clone(), own, options)?;
            }
            None => drop(self.none.insert(network.clone(), line)),
        }
        Ok(Some(Vec::new()))
    }

    /// Gives each network its scopes. One without a section gets its defaults.
    pub(super) fn hand_over(
        self,
        file: &str,
        networks: &mut SortedMap<NetworkName, NetworkConfig>,
    ) -> Result<(), ConfigError> {
        for (network, own) in self.scopes {
            if let Some(line) = self.none.get(&network) {
                let what = format!("no exit here, but config exit '{}' asks for one", own.scope.name);
                return Err(bad(file, *line, "option exit_client", &what, "one of both"));
            }
            networks.entry(network).or_default().scopes.get_or_insert_default().push(own);
        }
        Ok(())
    }

    fn scope(
        &mut self,
        name: Tag,
        (exits, auto): (Vec<NodeName>, bool),
        key: &str,
        options: &mut Options<'_>,
        enabled: bool,
    ) -> Result<OwnScope, ConfigError> {
        let line = options.line_of(key);
        let mut listed = options.many(key, SCOPE, traffic)?;
        if listed.is_empty() {
            listed.push(None);
        }
        for traffic in listed.iter().filter(|_| enabled) {
            let text = traffic.as_ref().map_or_else(|| LAN.to_owned(), ToString::to_string);
            if !self.taken.insert(text.clone()) {
                let what = format!("“{text}” is there twice");
                return Err(options.bad(line, format!("list {key}"), &what, SCOPE));
            }
        }
        let lan = listed.iter().any(Option::is_none);
        let scope = ExitScope { auto, ..ExitScope::auto(name, listed.into_iter().flatten().gather()) };
        Ok(OwnScope { exits, lan, scope })
    }

    fn add(&mut self, network: NetworkName, own: OwnScope, options: &Options<'_>) -> Result<(), ConfigError> {
        let line = options.section.line;
        let same = self.scopes.iter().any(|(_, other)| other.scope.name == own.scope.name);
        let (what, allowed) = match () {
            () if same => ("a second scope of this name".to_owned(), NAME.to_owned()),
            () if self.scopes.len() >= ExitScope::MOST => {
                ("one scope too many".to_owned(), format!("{} on a router", ExitScope::MOST))
            }
            () => {
                self.scopes.push((network, own));
                return Ok(());
            }
        };
        Err(options.bad(line, options.place(), &what, &allowed))
    }
}

/// Tables and rules of scopes: all of them apart from what else is ours and the system's.
pub(super) fn set_numbers(options: &mut Options<'_>, numbers: &mut Numbers) -> Result<(), ConfigError> {
    // A scope of the router and of LANs takes two.
    const LAST: u32 = 2 * ExitScope::MOST as u32 - 1;
    // Each with two rules, and the one that is skipped to.
    const RULES: u32 = 4 * ExitScope::MOST as u32;
    let (table_line, priority_line) = (options.line_of("exit_table"), options.line_of("exit_priority"));
    options.set("exit_table", TABLE, number, &mut numbers.exit_table)?;
    options.set("exit_priority", PRIORITY, number, &mut numbers.exit_priority)?;
    let (first, last) = (numbers.exit_table, numbers.exit_table.saturating_add(LAST));
    let foreign = [0, 253, 254, 255, numbers.table];
    if last - first < LAST || foreign.iter().any(|table| (first..=last).contains(table)) {
        let what = format!("tables {first} to {last} are not free beside table {}", numbers.table);
        return Err(options.bad(table_line, "option exit_table".to_owned(), &what, TABLE));
    }
    let (first, last) = (numbers.exit_priority, numbers.exit_priority.saturating_add(RULES));
    if first <= numbers.priority || last > 32765 {
        let what = format!("rules {first} to {last} do not fit behind priority {}", numbers.priority);
        return Err(options.bad(priority_line, "option exit_priority".to_owned(), &what, PRIORITY));
    }
    Ok(())
}

/// The word for every LAN.
pub const LAN: &str = "lan";

/// Traffic as it is written for a router: `None` is that of every LAN.
pub fn traffic(text: &str) -> Option<Option<Traffic>> {
    if text == LAN { Some(None) } else { text.parse().ok().map(Some) }
}

/// An exit as it is written: `None` is any.
pub fn exit(text: &str) -> Option<Option<NodeName>> {
    if text == "auto" { Some(None) } else { text.parse().ok().map(Some) }
}

/// Exits in their order, and whether any other is taken after them.
pub fn in_order(mut listed: Vec<Option<NodeName>>) -> Option<(Vec<NodeName>, bool)> {
    let auto = listed.pop_if(|last| last.is_none()).is_some();
    let names: Option<Vec<NodeName>> = listed.into_iter().collect();
    let names = names?;
    let once: SortedSet<&NodeName> = names.iter().collect();
    let sound = once.len() == names.len() && (auto || !names.is_empty());
    sound.then_some((names, auto))
}

/// A prefix, or an address for itself alone.
pub fn exclude(text: &str) -> Option<Prefix> {
    let host = text.parse().ok().map(Prefix::host);
    host.or_else(|| text.parse().ok()).filter(|prefix| !prefix.is_default())
}

/// An address that can be a resolver's.
pub fn resolver(text: &str) -> Option<IpAddr> {
    let link_local = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let addr: IpAddr = text.parse().ok()?;
    let unsound = addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() || link_local(&addr);
    (!unsound).then_some(addr)
}

/// What becomes of IPv6 behind an exit for IPv4 alone: whether it stays on the WAN.
pub fn on_wan(text: &str) -> Option<bool> {
    match text {
        "block" => Some(false),
        "wan" => Some(true),
        _ => None,
    }
}

fn read_details(scope: &mut ExitScope, options: &mut Options<'_>) -> Result<(), ConfigError> {
    for (key, place) in [
        ("kill_switch", &mut scope.open),
        ("allow_lan", &mut scope.forbid_lan),
        ("redirect_dns", &mut scope.keep_dns),
    ] {
        *place = !options.one(key, BOOL, boolean)?.unwrap_or(true);
    }
    options.set("ipv6", IPV6, on_wan, &mut scope.v6_wan)?;
    scope.exclude = options.many("exclude", EXCLUDE, exclude)?;
    scope.dns = options.many("dns", DNS, resolver)?;
    Ok(())
}

/// `Some(None)` is no exit at all.
fn client(text: &str) -> Option<Option<(Vec<NodeName>, bool)>> {
    match boolean(text) {
        Some(false) => Some(None),
        Some(true) => None,
        None => in_order(text.split_whitespace().map(exit).collect::<Option<_>>()?).map(Some),
    }
}

fn bad(file: &str, line: u32, place: &str, what: &str, allowed: &str) -> ConfigError {
    let (what, allowed) = (what.to_owned(), allowed.to_owned());
    ConfigError::Bad { file: file.to_owned(), line, place: Some(place.to_owned()), what, allowed }
}

#[cfg(test)]
mod tests;

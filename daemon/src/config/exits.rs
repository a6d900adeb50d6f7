//! Exits in the router's own configuration: `config exit '<name>'` sections, one for each scope, and in a network's
//! section the short form `option exit_client`. It ends at names: a later stage checks that a node of such a name is an
//! exit.

use super::{
    ConfigError, NetworkConfig, OwnScope, boolean,
    options::{Options, add, bad, put},
};
use crate::ownership::ReservedNumbers;
use gatewrt_protocol::{ExitScope, NetworkName, NodeName, Prefix, Tag, Traffic};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::net::IpAddr;

const NETWORK: &str = "the name of the network whose exits are used";
const NAME: &str =
    "config exit '<name>' with 1 to 32 characters of a-z, 0-9 and “_” (which stands for “-”), none twice";
/// Allowed values for traffic of a scope, as text for errors.
pub const SCOPE: &str =
    "lan, router, all, dev:<interface>, an address or a prefix of a LAN; each in one place only";
/// Allowed values for exits of a scope, as text for errors.
pub const EXIT: &str =
    "names of nodes in the order in which they are taken, each once, and “auto” as the last or alone";
const CLIENT: &str = "auto, names of nodes with or without “auto” as the last, or 0";
/// Allowed values for the choice for IPv6 behind an exit, as text for errors.
pub const IPV6: &str = "block, or wan: out over the WAN while the exit in use leads to IPv4 alone";
/// Allowed values for a prefix that a scope excludes, as text for errors.
pub const EXCLUDE: &str = "an address or a prefix, not the whole Internet";
/// Allowed values for a resolver of a scope, as text for errors.
pub const DNS: &str = "a resolver's address, not of this router nor of one link alone";
const TABLE: &str = "1 to 4294967264, so that neither it nor one of the 31 after it is table or the system's";
const PRIORITY: &str = "more than priority, and at most 32701, before the main table's rule";

/// Scopes that were read so far from the sections of a configuration file.
#[derive(Debug, Default)]
pub(super) struct Exits {
    scopes: Vec<(NetworkName, OwnScope)>,
    /// Networks whose section says that there is no exit, and where.
    none: LiteMap<NetworkName, u32>,
    /// Traffic that a scope has already.
    taken: SortedSet<String>,
}

impl Exits {
    /// Reads one `config exit` section as a scope.
    pub(super) fn read(&mut self, options: &mut Options<'_>) {
        let Some(name) = options.name().parse().ok() else {
            return options.fail_here("the name is missing or unsound", NAME);
        };
        let (mut network, mut enabled, mut listed) = (None, true, Vec::new());
        let named = |text: &str| text.replace('_', "-").parse().ok();
        options.one("network", NETWORK, &mut |text| put(&mut network, named(text).map(Some)));
        let Some(network) = network else { return options.fail_here("without option network", NETWORK) };
        options.flag("enabled", &mut enabled);
        let exits_line = options.line_of("exit");
        options.many("exit", EXIT, &mut |text| add(&mut listed, exit(text)));
        let Some(exits) = in_order(listed) else {
            let what = "none, twice the same, or “auto” before a name";
            return options.fail(exits_line, "list exit".to_owned(), what, EXIT);
        };
        let mut own = self.scope(name, exits, "scope", options, enabled);
        read_details(&mut own.scope, options);
        if enabled {
            self.add(network, own, options);
        }
    }

    /// Reads the short form of a scope (`option exit_client`) in a network's own section; `None` where there is none.
    pub(super) fn read_short(
        &mut self,
        network: &NetworkName,
        options: &mut Options<'_>,
    ) -> Option<Vec<OwnScope>> {
        let (line, scope_line) = (options.line_of("exit_client"), options.line_of("exit_scope"));
        let mut said = None;
        options.one("exit_client", CLIENT, &mut |text| put(&mut said, client(text).map(Some)));
        match said {
            Some(Some(client)) => {
                let own = self.scope(network.into(), client, "exit_scope", options, true);
                self.add(network.clone(), own, options);
            }
            Some(None) => drop(self.none.insert(network.clone(), line)),
            None => {
                let mut alone = false;
                options.many("exit_scope", SCOPE, &mut |_| put(&mut alone, Some(true)));
                if alone {
                    let place = "list exit_scope".to_owned();
                    options.fail(scope_line, place, "without option exit_client", CLIENT);
                }
                return None;
            }
        }
        Some(Vec::new())
    }

    /// Adds the scopes that were read to the settings of their networks. One without a section gets its defaults.
    pub(super) fn hand_over(
        self,
        file: &str,
        networks: &mut LiteMap<NetworkName, NetworkConfig>,
    ) -> Result<(), ConfigError> {
        for (network, own) in self.scopes {
            if let Some(line) = self.none.get(&network) {
                let what = format!("no exit here, but config exit '{}' asks for one", own.scope.name);
                let place = Some("option exit_client".to_owned());
                return Err(bad(file, *line, place, &what, "one of both"));
            }
            networks.entry(network).or_default().scopes.get_or_insert_default().push(own);
        }
        Ok(())
    }

    fn scope(
        &mut self,
        name: Tag,
        (exits, auto): Client,
        key: &str,
        options: &mut Options<'_>,
        enabled: bool,
    ) -> OwnScope {
        let (line, mut listed) = (options.line_of(key), Vec::new());
        options.many(key, SCOPE, &mut |text| add(&mut listed, traffic(text)));
        if listed.is_empty() {
            listed.push(None);
        }
        for traffic in listed.iter().filter(|_| enabled) {
            let text = traffic.as_ref().map_or_else(|| LAN.to_owned(), ToString::to_string);
            let what = format!("“{text}” is there twice");
            if self.taken.find_or_insert(text).is_found() {
                options.fail(line, format!("list {key}"), &what, SCOPE);
            }
        }
        let lan = listed.iter().any(Option::is_none);
        let scope = ExitScope { auto, ..ExitScope::auto(name, listed.into_iter().flatten().collect()) };
        OwnScope { exits, lan, scope }
    }

    fn add(&mut self, network: NetworkName, own: OwnScope, options: &mut Options<'_>) {
        if self.scopes.iter().any(|(_, other)| other.scope.name == own.scope.name) {
            options.fail_here("a second scope of this name", NAME);
        } else if self.scopes.len() >= ExitScope::MOST {
            options.fail_here("one scope too many", &format!("{} on a router", ExitScope::MOST));
        } else {
            self.scopes.push((network, own));
        }
    }
}

/// Reads the first routing table and the first rule priority of scopes (`exit_table`, `exit_priority`): all of them
/// apart from what else is ours and the system's.
pub(super) fn set_numbers(options: &mut Options<'_>, numbers: &mut ReservedNumbers) {
    // A scope of the router and of LANs takes two.
    const LAST: u32 = 2 * ExitScope::MOST as u32 - 1;
    // Each with two rules, and the one that is skipped to.
    const RULES: u32 = 4 * ExitScope::MOST as u32;
    let (table_line, priority_line) = (options.line_of("exit_table"), options.line_of("exit_priority"));
    options.number("exit_table", TABLE, |_| true, &mut numbers.exit_table);
    options.number("exit_priority", PRIORITY, |_| true, &mut numbers.exit_priority);
    let (first, last) = (numbers.exit_table, numbers.exit_table.saturating_add(LAST));
    let foreign = [0, 253, 254, 255, numbers.table];
    if last - first < LAST || foreign.iter().any(|table| (first..=last).contains(table)) {
        let what = format!("tables {first} to {last} are not free beside table {}", numbers.table);
        options.fail(table_line, "option exit_table".to_owned(), &what, TABLE);
    }
    let (first, last) = (numbers.exit_priority, numbers.exit_priority.saturating_add(RULES));
    if first <= numbers.priority || last > 32765 {
        let what = format!("rules {first} to {last} do not fit behind priority {}", numbers.priority);
        options.fail(priority_line, "option exit_priority".to_owned(), &what, PRIORITY);
    }
}

/// Names of exits in order of preference, and whether any other exit is taken after them.
type Client = (Vec<NodeName>, bool);

/// The word for every LAN.
pub const LAN: &str = "lan";

/// Parses traffic of a scope as it is written for a router: `None` is that of every LAN.
pub fn traffic(text: &str) -> Option<Option<Traffic>> {
    if text == LAN { Some(None) } else { text.parse().ok().map(Some) }
}

/// Parses an exit as it is written for a router: `None` is any.
pub fn exit(text: &str) -> Option<Option<NodeName>> {
    if text == "auto" { Some(None) } else { text.parse().ok().map(Some) }
}

/// Splits a list of exits into names and a last “auto”; `None` for an empty list, a name that is there twice, and an
/// “auto” before a name.
pub fn in_order(mut listed: Vec<Option<NodeName>>) -> Option<Client> {
    let auto = listed.pop_if(|last| last.is_none()).is_some();
    let names: Option<Vec<NodeName>> = listed.into_iter().collect();
    let names = names?;
    let once: SortedSet<&NodeName> = names.iter().collect();
    let sound = once.len() == names.len() && (auto || !names.is_empty());
    sound.then_some((names, auto))
}

/// Parses a prefix that a scope excludes, or an address as the prefix of itself alone; the whole Internet is none.
pub fn exclude(text: &str) -> Option<Prefix> {
    let host = text.parse().ok().map(Prefix::host);
    host.or_else(|| text.parse().ok()).filter(|prefix| !prefix.is_default())
}

/// Parses the address of a resolver; a loopback, link-local, multicast or unspecified address is none.
pub fn resolver(text: &str) -> Option<IpAddr> {
    let link_local = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let addr: IpAddr = text.parse().ok()?;
    let unsound = addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() || link_local(&addr);
    (!unsound).then_some(addr)
}

/// Parses the choice for IPv6 behind an exit that carries IPv4 alone: true if it stays on the WAN.
pub fn on_wan(text: &str) -> Option<bool> {
    match text {
        "block" => Some(false),
        "wan" => Some(true),
        _ => None,
    }
}

fn read_details(scope: &mut ExitScope, options: &mut Options<'_>) {
    for (key, place) in [
        ("kill_switch", &mut scope.open),
        ("allow_lan", &mut scope.forbid_lan),
        ("redirect_dns", &mut scope.keep_dns),
    ] {
        let mut is_on = true;
        options.flag(key, &mut is_on);
        *place = !is_on;
    }
    options.one("ipv6", IPV6, &mut |text| put(&mut scope.v6_wan, on_wan(text)));
    options.many("exclude", EXCLUDE, &mut |text| add(&mut scope.exclude, exclude(text)));
    options.many("dns", DNS, &mut |text| add(&mut scope.dns, resolver(text)));
}

/// Parses `option exit_client` of a network; `Some(None)` is no exit at all.
fn client(text: &str) -> Option<Option<Client>> {
    match boolean(text) {
        Some(false) => Some(None),
        Some(true) => None,
        None => in_order(text.split_whitespace().map(exit).collect::<Option<_>>()?).map(Some),
    }
}

#[cfg(test)]
mod tests;

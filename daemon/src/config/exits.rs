//! Exits in the router's own configuration: `config exit '<name>'` sections, one for each scope, and in a network's
//! section the short form `option exit_client`. It ends at names: a later stage checks that a node of such a name is an
//! exit.

use super::{
    NetworkConfig, OwnScope, Warning, boolean,
    options::{Options, add, put},
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
    scopes: Vec<(Option<NetworkName>, OwnScope)>,
    /// Networks whose section says that there is no exit, and where.
    none: LiteMap<NetworkName, u32>,
    /// Traffic that a scope has already.
    taken: SortedSet<String>,
}

impl Exits {
    /// Reads one `config exit` section as a scope. A scope with a fault is not left out: its traffic would go out past
    /// every exit. It is closed instead.
    pub(super) fn read(&mut self, options: &mut Options<'_>) {
        let name = options.name().parse().unwrap_or_else(|_| {
            options.fail_here("the name is missing or unsound", NAME);
            self.spare_name(options)
        });
        let (mut network, mut enabled, mut listed) = (None, true, Vec::new());
        let named = |text: &str| text.replace('_', "-").parse().ok();
        options.one("network", NETWORK, &mut |text| put(&mut network, named(text).map(Some)));
        options.network = network;
        options.flag("enabled", &mut enabled);
        let exits_line = options.line_of("exit");
        options.many("exit", EXIT, &mut |text| add(&mut listed, exit(text)));
        let mut exits = in_order(&listed).unwrap_or_else(|| {
            let what = "none, twice the same, or “auto” before a name";
            options.fail(exits_line, "list exit".to_owned(), what, EXIT);
            let mut names: Vec<NodeName> = Vec::new();
            for name in listed.into_iter().flatten() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            (names, false)
        });
        if options.network.is_none() {
            options.fail_here("without option network", NETWORK);
            exits = Client::default();
        }
        let Some(mut own) = self.scope(name, exits, "scope", options, enabled) else { return };
        read_details(&mut own.scope, options);
        if enabled {
            self.add(options.network.clone(), own, options);
        }
    }

    /// Reads the short form of a scope (`option exit_client`) in a network's own section; `None` where there is none.
    pub(super) fn read_short(
        &mut self,
        network: &NetworkName,
        options: &mut Options<'_>,
    ) -> Option<Vec<OwnScope>> {
        let (line, scope_line) = (options.line_of("exit_client"), options.line_of("exit_scope"));
        let (mut said, is_known) = (None, options.section.entries.iter().any(|it| it.key == "exit_client"));
        let is_told = options.one("exit_client", CLIENT, &mut |text| put(&mut said, client(text).map(Some)));
        if !is_told && is_known {
            said = Some(Some(Client::default()));
        }
        match said {
            Some(Some(client)) => {
                let own = self.scope(network.into(), client, "exit_scope", options, true)?;
                self.add(Some(network.clone()), own, options);
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

    /// Adds the scopes that were read to the settings of their networks, and returns what contradicts them. A network
    /// without a section gets its defaults, and a scope without a network is that of the first one.
    pub(super) fn hand_over(
        self,
        file: &str,
        networks: &mut LiteMap<NetworkName, NetworkConfig>,
    ) -> Vec<Warning> {
        let mut faults = Vec::new();
        for (network, own) in self.scopes {
            let Some(network) = network.or_else(|| networks.keys().next().cloned()) else { continue };
            if let Some(line) = self.none.get(&network) {
                let name = &own.scope.name;
                let what = format!(
                    "option exit_client: no exit here, but config exit '{name}' asks for one; allowed: one of both"
                );
                let (file, network) = (file.to_owned(), Some(network.clone()));
                faults.push(Warning { file, line: *line, what, skipped: false, network });
            }
            networks.entry(network).or_default().scopes.get_or_insert_default().push(own);
        }
        faults
    }

    /// Scope of this traffic; `None` if other scopes have all of it.
    fn scope(
        &mut self,
        name: Tag,
        (exits, auto): Client,
        key: &str,
        options: &mut Options<'_>,
        enabled: bool,
    ) -> Option<OwnScope> {
        let (line, mut listed) = (options.line_of(key), Vec::new());
        if !options.many(key, SCOPE, &mut |text| add(&mut listed, traffic(text))) {
            // Traffic that can't be told is in the scope rather than out of it: that of before, or that of every LAN.
            let mut before = Vec::new();
            options.again(key, &mut |text| add(&mut before, traffic(text)));
            let before = if before.is_empty() { vec![None] } else { before };
            for traffic in before {
                if !listed.contains(&traffic) {
                    listed.push(traffic);
                }
            }
        }
        if listed.is_empty() {
            listed.push(None);
        }
        let count = listed.len();
        listed.retain(|traffic| {
            let text = traffic.as_ref().map_or_else(|| LAN.to_owned(), ToString::to_string);
            let what = format!("“{text}” is there twice");
            let is_twice = enabled && self.taken.find_or_insert(text).is_found();
            if is_twice {
                options.fail(line, format!("list {key}"), &what, SCOPE);
            }
            !is_twice
        });
        if listed.is_empty() && count > 0 {
            return None;
        }
        let lan = listed.iter().any(Option::is_none);
        let scope = ExitScope { auto, ..ExitScope::auto(name, listed.into_iter().flatten().collect()) };
        Some(OwnScope { exits, lan, scope })
    }

    /// Name for a scope that has none of its own.
    fn spare_name(&self, options: &Options<'_>) -> Tag {
        format!("line-{}", options.section.line).parse().expect("a sound name")
    }

    fn add(&mut self, network: Option<NetworkName>, mut own: OwnScope, options: &mut Options<'_>) {
        if self.scopes.iter().any(|(_, other)| other.scope.name == own.scope.name) {
            options.fail_here("a second scope of this name", NAME);
            own.scope.name = self.spare_name(options);
        }
        if self.scopes.len() >= ExitScope::MOST {
            options.fail_here("one scope too many", &format!("{} on a router", ExitScope::MOST));
        } else {
            self.scopes.push((network, own));
        }
    }
}

/// Reads the first routing table and the first rule priority of scopes (`exit_table`, `exit_priority`): all of them
/// apart from what else is ours and the system's. False if they are not.
pub(super) fn set_numbers(options: &mut Options<'_>, numbers: &mut ReservedNumbers) -> bool {
    // A scope of the router and of LANs takes two.
    const LAST: u32 = 2 * ExitScope::MOST as u32 - 1;
    // Each with two rules, and the one that is skipped to.
    const RULES: u32 = 4 * ExitScope::MOST as u32;
    let (table_line, priority_line) = (options.line_of("exit_table"), options.line_of("exit_priority"));
    options.number("exit_table", TABLE, |_| true, &mut numbers.exit_table);
    options.number("exit_priority", PRIORITY, |_| true, &mut numbers.exit_priority);
    let (first, last) = (numbers.exit_table, numbers.exit_table.saturating_add(LAST));
    let foreign = [0, 253, 254, 255, numbers.table];
    let tables_fit = last - first == LAST && !foreign.iter().any(|table| (first..=last).contains(table));
    if !tables_fit {
        let what = format!("tables {first} to {last} are not free beside table {}", numbers.table);
        options.fail(table_line, "option exit_table".to_owned(), &what, TABLE);
    }
    let (first, last) = (numbers.exit_priority, numbers.exit_priority.saturating_add(RULES));
    let rules_fit = first > numbers.priority && last <= 32765;
    if !rules_fit {
        let what = format!("rules {first} to {last} do not fit behind priority {}", numbers.priority);
        options.fail(priority_line, "option exit_priority".to_owned(), &what, PRIORITY);
    }
    tables_fit && rules_fit
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
pub fn in_order(listed: &[Option<NodeName>]) -> Option<Client> {
    let auto = listed.last().is_some_and(Option::is_none);
    let names = &listed[..listed.len() - usize::from(auto)];
    let names: Option<Vec<NodeName>> = names.iter().cloned().collect();
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
    for (key, place) in [("kill_switch", &mut scope.open), ("redirect_dns", &mut scope.keep_dns)] {
        let mut is_on = true;
        options.flag(key, &mut is_on);
        *place = !is_on;
    }
    let mut may_reach_lans = true;
    options.opening("allow_lan", &mut may_reach_lans);
    scope.forbid_lan = !may_reach_lans;
    options.one("ipv6", IPV6, &mut |text| put(&mut scope.v6_wan, on_wan(text)));
    options.many("exclude", EXCLUDE, &mut |text| add(&mut scope.exclude, exclude(text)));
    options.many("dns", DNS, &mut |text| add(&mut scope.dns, resolver(text)));
}

/// Parses `option exit_client` of a network; `Some(None)` is no exit at all.
fn client(text: &str) -> Option<Option<Client>> {
    match boolean(text) {
        Some(false) => Some(None),
        Some(true) => None,
        None => in_order(&text.split_whitespace().map(exit).collect::<Option<Vec<_>>>()?).map(Some),
    }
}

#[cfg(test)]
mod tests;

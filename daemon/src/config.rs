//! Config source of the router's owner: `/etc/config/gatewrt`, UCI text to a [`Config`] whose every value is usable as
//! it is. It ends there: nothing is looked up on the system, and no secret is in this file.
//!
//! What can't be used costs its option, section or line alone: its last usable value takes its place
//! ([`last`]), or else its default, or, where that would open what was closed, nothing.
//!
//! A network's section is called as the network; where its name has a “-”, which UCI allows in no section's
//! name, a “_” stands for it.

pub mod exits;
pub mod last;
mod options;
pub mod uci;

use crate::ownership::ReservedNumbers;
use exits::Exits;
use gatewrt_protocol::{ExitScope, JoinCode, NetworkName, NodeName, Role};
use litemap::LiteMap;
use log::LevelFilter;
use options::{Options, add, put};
use serde::{Deserialize, Serialize};
use sorted_vec::SortedSet;
use std::{fmt, mem, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};
use uci::{Section, UciFile};

/// Path of the file unless another is named.
pub const DEFAULT_FILE: &str = "/etc/config/gatewrt";

/// Settings of the router's owner, as `/etc/config/gatewrt` holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// False: the daemon takes down its own objects and waits.
    pub enabled: bool,
    /// Lowest level that is logged.
    pub log_level: LevelFilter,
    /// Directory of state that must outlive a reboot: keys, last good records.
    pub state_dir: PathBuf,
    /// Directory of state that must not: control socket, lock, saved kernel settings.
    pub run_dir: PathBuf,
    /// Choice of the WireGuard implementation.
    pub wireguard: WireGuard,
    /// Choice of the firewall.
    pub firewall: FirewallChoice,
    /// Tables, priorities and marks.
    pub numbers: ReservedNumbers,
    /// Time between two reports when nothing changes, at the least: long ones are rarer. 10 seconds to 1 hour.
    pub heartbeat: Duration,
    /// The networks that have a section, by name.
    pub networks: LiteMap<NetworkName, NetworkConfig>,
    /// Settings that can't be used or mean nothing to this version.
    pub warnings: Vec<Warning>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            log_level: LevelFilter::Info,
            state_dir: "/etc/gatewrt".into(),
            run_dir: "/var/run/gatewrt".into(),
            wireguard: WireGuard::Auto,
            firewall: FirewallChoice::Auto,
            numbers: ReservedNumbers::default(),
            heartbeat: Duration::from_secs(60),
            networks: LiteMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// Owner's choice of the WireGuard implementation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireGuard {
    /// The kernel's where it has one, else the first userspace implementation found.
    Auto,
    /// The kernel's or none.
    Kernel,
    /// This userspace program, by name or path.
    Program(String),
}

/// Owner's choice of the firewall program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirewallChoice {
    /// nftables where the kernel and a program have it, else iptables.
    Auto,
    /// nftables.
    Nft,
    /// iptables and ip6tables.
    Iptables,
}

/// Owner's settings of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// False: its tunnel is taken down, its state stays.
    pub enabled: bool,
    /// Join code, used when the network is not joined yet.
    pub join_code: Option<JoinCode>,
    /// WireGuard's UDP port; absent for automatic.
    pub listen_port: Option<NonZeroU16>,
    /// Endpoints at which others reach this router, in order of preference.
    pub endpoints: Vec<SocketAddr>,
    /// Roles that the owner allows. The coordinator can turn on no others.
    pub allowed: SortedSet<Role>,
    /// Requested name of the node at joining; absent for the hostname.
    pub name: Option<NodeName>,
    /// MTU of the interface in bytes, 1280 to 1420; absent for the network's.
    pub mtu: Option<u16>,
    /// Scopes that the owner states for the router's Internet traffic; `None` leaves them to the coordinator.
    pub scopes: Option<Vec<OwnScope>>,
}

/// Scope of Internet traffic as the router's owner states it: in UCI, or with `gatewrt exit enable`, in which form it
/// is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnScope {
    /// Exits by their names, in order. They take the place of `scope.exits`, which is empty here.
    #[serde(default)]
    pub exits: Vec<NodeName>,
    /// True if the scope also covers traffic that comes in over any LAN link, besides `scope.of`.
    #[serde(default)]
    pub lan: bool,
    /// Other settings of the scope.
    pub scope: ExitScope,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            join_code: None,
            listen_port: None,
            endpoints: Vec::new(),
            allowed: SortedSet::from_iter([Role::Egress, Role::Ingress]),
            name: None,
            mtu: None,
            scopes: None,
        }
    }
}

/// Setting in the file that is not in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// Description of the setting and of what is wrong with it.
    pub what: String,
    /// True for one that means nothing to this version and was skipped.
    pub skipped: bool,
    /// Network that it is about; absent where it is about all.
    pub network: Option<NetworkName>,
}

impl Warning {
    /// Place of the setting: the file, and its line.
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.what)
    }
}

impl Config {
    /// Parses the text of a configuration file that must have no fault; `file` is its name in messages. The first fault
    /// is the error.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Warning> {
        let mut config = Self::read(file, bytes, &[]).0;
        match config.warnings.iter().position(|warning| !warning.skipped) {
            Some(first) => Err(config.warnings.swap_remove(first)),
            None => Ok(config),
        }
    }

    /// Reads the text of a configuration file, with the settings that were usable `before` for those that are not now.
    /// Returns what is usable in the same form.
    pub fn read(file: &str, bytes: &[u8], before: &[Section]) -> (Self, Vec<Section>) {
        let UciFile { sections, faults, mut lost } = uci::parse(bytes);
        let mut reader =
            Reader { file, before, config: Self::default(), exits: Exits::default(), used: Vec::new() };
        for fault in faults {
            let what = format!("{}; allowed: {}", fault.what, fault.allowed);
            let (file, line) = (file.to_owned(), fault.line);
            reader.config.warnings.push(Warning { file, line, what, skipped: false, network: None });
        }
        let mut there: Vec<(String, Option<String>)> = Vec::new();
        let mut misspelt = Vec::new();
        for section in sections {
            let (kind, name) = (section.kind.clone(), section.name.clone());
            match reader.read(section) {
                Outcome::Read => there.push((kind, name)),
                Outcome::Lost => lost = true,
                Outcome::Unknown => misspelt.push(name),
            }
        }
        // A section that can't be told any more is as it was.
        for section in before.iter().filter(|section| section.kind == MAIN || section.name.is_some()) {
            let name = section.name.as_deref();
            let is_there = there.iter().any(|(kind, it)| {
                *kind == section.kind && (kind == MAIN || uci::is_same(it.as_deref(), name))
            });
            if !is_there && (lost || misspelt.iter().any(|it| uci::is_same(it.as_deref(), name))) {
                reader.read(section.clone());
            }
        }
        let Reader { mut config, exits, used, .. } = reader;
        config.warnings.extend(exits.hand_over(file, &mut config.networks));
        (config, used)
    }

    fn read_main(&mut self, options: &mut Options<'_>, before: &[Section]) {
        const PATH: &str = "an absolute path";
        options.flag("enabled", &mut self.enabled);
        options.one("log_level", LEVELS, &mut |text| put(&mut self.log_level, level(text)));
        options.one("state_dir", PATH, &mut |text| put(&mut self.state_dir, absolute(text)));
        options.one("run_dir", PATH, &mut |text| put(&mut self.run_dir, absolute(text)));
        let programs = "auto, kernel, or a program's name or path";
        options.one("wireguard", programs, &mut |text| put(&mut self.wireguard, wireguard(text)));
        options.one("firewall", "auto, nft or iptables", &mut |text| put(&mut self.firewall, firewall(text)));
        let mut heartbeat = self.heartbeat.as_secs() as u32;
        let is_sound = |seconds| (10..=3600).contains(&seconds);
        options.number("heartbeat", "10 to 3600 seconds", is_sound, &mut heartbeat);
        self.heartbeat = Duration::from_secs(heartbeat.into());
        if !read_numbers(options, &mut self.numbers) {
            // Each may be sound alone: they are those of before together.
            self.numbers = ReservedNumbers::default();
            let old = before.iter().find(|section| section.kind == MAIN).cloned();
            if let Some(old) = old.filter(|_| !options.put_back(&NUMBERS)) {
                let mut old = Options::new("", old, None);
                if !read_numbers(&mut old, &mut self.numbers) {
                    self.numbers = ReservedNumbers::default();
                }
            }
        }
    }

    fn read_network(&mut self, name: NetworkName, exits: &mut Exits, options: &mut Options<'_>) {
        let mut network = read_network(&name, options);
        network.scopes = exits.read_short(&name, options);
        let shares =
            |other: &NetworkConfig| network.listen_port.is_some() && network.listen_port == other.listen_port;
        if let (Some((other, _)), Some(port)) =
            (self.networks.iter().find(|(_, other)| shares(other)), network.listen_port)
        {
            let what = format!("listen_port {port} is that of network {other} too");
            options.fail_here(&what, "a port of its own for each network");
            network.listen_port = None;
        }
        self.networks.insert(name, network);
    }
}

const MAIN: &str = "gatewrt";
/// Options whose values must fit together.
const NUMBERS: [&str; 8] =
    ["table", "priority", "exit_table", "exit_priority", "metric", "mask", "bypass", "masquerade"];

/// Outcome of reading a section.
enum Outcome {
    Read,
    /// It can't be told which section it is.
    Lost,
    /// Its type is unknown.
    Unknown,
}

/// Reader of the sections of a file.
struct Reader<'a> {
    file: &'a str,
    before: &'a [Section],
    config: Config,
    exits: Exits,
    /// Settings that were used.
    used: Vec<Section>,
}

impl Reader<'_> {
    fn read(&mut self, section: Section) -> Outcome {
        let name = section.name.as_deref();
        let same = |it: &&Section| {
            it.kind == section.kind && (it.kind == MAIN || uci::is_same(it.name.as_deref(), name))
        };
        let before = self.before.iter().find(same).map(|it| it.entries.as_slice());
        let mut options = Options::new(self.file, section, before);
        let mut outcome = Outcome::Read;
        match options.section.kind.as_str() {
            MAIN if self.used.iter().any(|it| it.kind == MAIN) => {
                options.section.entries.clear();
                options.fail_here("a second section of this type", "one of them");
            }
            MAIN => self.config.read_main(&mut options, self.before),
            "network" => match options.network_name() {
                Some(name) => self.config.read_network(name, &mut self.exits, &mut options),
                None => {
                    options.section.entries.clear();
                    outcome = Outcome::Lost;
                }
            },
            "exit" => self.exits.read(&mut options),
            _ => {
                options.skip();
                outcome = Outcome::Unknown;
            }
        }
        let (used, warnings) = options.finish();
        self.config.warnings.extend(warnings);
        if matches!(outcome, Outcome::Read) {
            self.used.push(used);
        }
        outcome
    }
}

const BOOL: &str = "1 or 0";
const LEVELS: &str = "error, warn, info, debug or trace";
const PORT: &str = "a port from 1 to 65535, or no such option for an automatic one";
const TABLE: &str = "1 to 4294967295 except 253, 254 and 255, which are the system's";
const PRIORITY: &str = "1 to 32765, before the main table's rule";
const ENDPOINT: &str = "address:port such as 198.51.100.1:51820 or [2001:db8::1]:51820";
const MARK: &str = "two different numbers other than 0 whose bits are all within mask";

/// Reads tables, priorities and marks; false if they do not fit together.
fn read_numbers(options: &mut Options<'_>, numbers: &mut ReservedNumbers) -> bool {
    let is_table = |table| table != 0 && !(253..=255).contains(&table);
    let is_priority = |priority| (1..=32765).contains(&priority);
    let is_some = |number| number != 0;
    options.number("table", TABLE, is_table, &mut numbers.table);
    options.number("priority", PRIORITY, is_priority, &mut numbers.priority);
    numbers.exit_priority = numbers.priority.saturating_add(10);
    let exits_fit = exits::set_numbers(options, numbers);
    options.number("metric", "1 to 4294967295", is_some, &mut numbers.metric);
    let before = mem::take(&mut numbers.mask);
    let bits = "a number with at least two bits set, such as 0x0f000000";
    options.number("mask", bits, |mask| mask.count_ones() >= 2, &mut numbers.mask);
    if numbers.mask == 0 {
        numbers.mask = before;
    } else {
        numbers.bypass = lowest_bit(numbers.mask);
        numbers.masquerade = lowest_bit(numbers.mask & !numbers.bypass);
    }
    options.number("bypass", "a number other than 0", is_some, &mut numbers.bypass);
    options.number("masquerade", "a number other than 0", is_some, &mut numbers.masquerade);
    let ReservedNumbers { mask, bypass, masquerade, .. } = *numbers;
    let marks_fit = bypass != masquerade && (bypass | masquerade) & !mask == 0;
    if !marks_fit {
        let what = format!("bypass {bypass:#x} and masquerade {masquerade:#x} do not fit mask {mask:#x}");
        options.fail_here(&what, MARK);
    }
    marks_fit && exits_fit
}

fn read_network(name: &NetworkName, options: &mut Options<'_>) -> NetworkConfig {
    let mut network = NetworkConfig::default();
    options.flag("enabled", &mut network.enabled);
    network.join_code = options.join_code(name);
    options.one("listen_port", PORT, &mut |text| put(&mut network.listen_port, text.parse().ok().map(Some)));
    options.many("endpoint", ENDPOINT, &mut |text| add(&mut network.endpoints, endpoint(text)));
    for (key, role) in
        [("allow_egress", Role::Egress), ("allow_ingress", Role::Ingress), ("allow_exit", Role::Exit)]
    {
        let mut is_allowed = network.allowed.contains(&role);
        options.opening(key, &mut is_allowed);
        match is_allowed {
            true => network.allowed.extend([role]),
            false => network.allowed.retain(|allowed| *allowed != role),
        };
    }
    let label = "1 to 63 characters of a-z, 0-9 and “-”, with a letter or digit first and last";
    options.one("name", label, &mut |text| put(&mut network.name, text.parse().ok().map(Some)));
    let mtu = |text: &str| text.parse().ok().filter(|mtu| (1280..=1420).contains(mtu));
    options.one("mtu", "1280 to 1420 bytes", &mut |text| put(&mut network.mtu, mtu(text).map(Some)));
    network
}

fn lowest_bit(mask: u32) -> u32 {
    mask & mask.wrapping_neg()
}

/// Parses an option that is on or off, by the words that OpenWrt's own scripts take (`get_bool` in
/// `/lib/functions.sh`).
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "on" | "true" | "yes" | "enabled" => Some(true),
        "0" | "off" | "false" | "no" | "disabled" => Some(false),
        _ => None,
    }
}

fn level(text: &str) -> Option<LevelFilter> {
    text.parse().ok().filter(|level| *level != LevelFilter::Off)
}

fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

fn wireguard(text: &str) -> Option<WireGuard> {
    match text {
        "auto" => Some(WireGuard::Auto),
        "kernel" => Some(WireGuard::Kernel),
        _ if text.chars().any(|c| c.is_whitespace() || c.is_control()) => None,
        program => Some(WireGuard::Program(program.to_owned())),
    }
}

fn firewall(text: &str) -> Option<FirewallChoice> {
    match text {
        "auto" => Some(FirewallChoice::Auto),
        "nft" => Some(FirewallChoice::Nft),
        "iptables" => Some(FirewallChoice::Iptables),
        _ => None,
    }
}

fn endpoint(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|addr: &SocketAddr| addr.port() != 0 && !addr.ip().is_unspecified())
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;

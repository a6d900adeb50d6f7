//! Config source of the router's owner: `/etc/config/gatewrt`, UCI text to a [`Config`] whose every value is usable as
//! it is. It ends there: nothing is looked up on the system, and no secret is in this file.
//!
//! A network's section is called as the network; where its name has a “-”, which UCI allows in no section's
//! name, a “_” stands for it.

pub mod exits;
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
use std::{
    fmt, io, mem,
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};
use uci::SyntaxError;

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
    /// Warnings about skipped settings.
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

/// Warning about a setting that means nothing to this version and was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// Description of what was skipped and why.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Failure to read a [`Config`] from a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// File that exists but can't be read.
    #[error("{file} can't be read")]
    Unreadable {
        /// The file.
        file: String,
        /// Error of the system.
        source: io::Error,
    },
    /// Setting that can't be used.
    #[error("{file}:{line}: {}{what}; allowed: {allowed}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    Bad {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u32,
        /// `option <name>` or `config <type>`; absent where the text itself is broken.
        place: Option<String>,
        /// Description of the fault.
        what: String,
        /// Allowed values.
        allowed: String,
    },
}

impl Config {
    /// Reads the configuration in `file`. A missing file is the default configuration: no network.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        match std::fs::read(file) {
            Ok(bytes) => Self::parse(&name, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { file: name, source }),
        }
    }

    /// Parses the text of a configuration file; `file` is its name in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        let syntax = |error: SyntaxError| options::bad(file, error.line, None, error.what, error.allowed);
        let mut config = Self::default();
        let mut has_main = false;
        let mut exits = Exits::default();
        for section in uci::parse(bytes).map_err(syntax)? {
            let mut options = Options::new(file, section);
            match options.section.kind.as_str() {
                "gatewrt" => {
                    options.only_once(mem::replace(&mut has_main, true));
                    config.read_main(&mut options);
                }
                "network" => config.read_network(&mut exits, &mut options),
                "exit" => exits.read(&mut options),
                _ => config.warnings.push(options.unknown_section()),
            }
            config.warnings.extend(options.finish()?);
        }
        exits.hand_over(file, &mut config.networks)?;
        Ok(config)
    }

    fn read_main(&mut self, options: &mut Options<'_>) {
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
        read_numbers(options, &mut self.numbers);
    }

    fn read_network(&mut self, exits: &mut Exits, options: &mut Options<'_>) {
        let Some(name) = options.network_name() else { return };
        options.only_once(self.networks.contains_key(&name));
        let mut network = read_network(&name, options);
        network.scopes = exits.read_short(&name, options);
        let shares =
            |other: &NetworkConfig| network.listen_port.is_some() && network.listen_port == other.listen_port;
        if let (Some((other, _)), Some(port)) =
            (self.networks.iter().find(|(_, other)| shares(other)), network.listen_port)
        {
            let what = format!("listen_port {port} is that of network {other} too");
            options.fail_here(&what, "a port of its own for each network");
        }
        self.networks.insert(name, network);
    }
}

const BOOL: &str = "1 or 0";
const LEVELS: &str = "error, warn, info, debug or trace";
const PORT: &str = "a port from 1 to 65535, or no such option for an automatic one";
const TABLE: &str = "1 to 4294967295 except 253, 254 and 255, which are the system's";
const PRIORITY: &str = "1 to 32765, before the main table's rule";
const ENDPOINT: &str = "address:port such as 198.51.100.1:51820 or [2001:db8::1]:51820";
const MARK: &str = "two different numbers other than 0 whose bits are all within mask";

fn read_numbers(options: &mut Options<'_>, numbers: &mut ReservedNumbers) {
    let is_table = |table| table != 0 && !(253..=255).contains(&table);
    let is_priority = |priority| (1..=32765).contains(&priority);
    let is_some = |number| number != 0;
    options.number("table", TABLE, is_table, &mut numbers.table);
    options.number("priority", PRIORITY, is_priority, &mut numbers.priority);
    numbers.exit_priority = numbers.priority.saturating_add(10);
    exits::set_numbers(options, numbers);
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
    if bypass == masquerade || (bypass | masquerade) & !mask != 0 {
        let what = format!("bypass {bypass:#x} and masquerade {masquerade:#x} do not fit mask {mask:#x}");
        options.fail_here(&what, MARK);
    }
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
        options.flag(key, &mut is_allowed);
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

//! The router owner's word: `/etc/config/gatewrt`, UCI text to a [`Config`] whose every value is usable as it
//! is. It ends there: nothing is looked up on the system, and secrets do not live in this file.
//!
//! A network's section is called as the network; where its name has a “-”, which UCI allows in no section's
//! name, a “_” stands for it.

pub mod exits;
mod options;
pub mod uci;

use crate::{
    gather::append,
    ownership::Numbers,
    sorted::{SortedMap, SortedSet},
};
use exits::Exits;
use gatewrt_protocol::{ExitScope, JoinCode, NetworkName, NodeName, Role, json_fields};
use log::LevelFilter;
use options::{Options, add, put};
use serde::Serialize;
use std::{
    fmt, io, mem,
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};
use uci::SyntaxError;

/// Where the file is when nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/config/gatewrt";

/// All settings of the router's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Off: the daemon takes down what is its own and waits.
    pub enabled: bool,
    /// Lines of this level and above are logged.
    pub log_level: LevelFilter,
    /// What must outlive a reboot: keys, last good records.
    pub state_dir: PathBuf,
    /// What must not: control socket, lock, saved kernel settings.
    pub run_dir: PathBuf,
    /// Which WireGuard is used.
    pub wireguard: WireGuard,
    /// Which firewall is used.
    pub firewall: FirewallChoice,
    /// Tables, priorities and marks.
    pub numbers: Numbers,
    /// Time between two reports when nothing changes, at the least: long ones are rarer. 10 seconds to 1 hour.
    pub heartbeat: Duration,
    /// The networks that have a section, by name.
    pub networks: SortedMap<NetworkName, NetworkConfig>,
    /// What was skipped.
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
            numbers: Numbers::default(),
            heartbeat: Duration::from_secs(60),
            networks: SortedMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// Which WireGuard is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireGuard {
    /// The kernel's where it has one, else the first userspace implementation found.
    Auto,
    /// The kernel's or none.
    Kernel,
    /// This userspace program, by name or path.
    Program(String),
}

/// Which firewall is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirewallChoice {
    /// nftables where the kernel and a program have it, else iptables.
    Auto,
    /// nftables.
    Nft,
    /// iptables and ip6tables.
    Iptables,
}

/// Settings of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Off: its tunnel is taken down, its state stays.
    pub enabled: bool,
    /// Joins with this when it has not joined yet.
    pub join_code: Option<JoinCode>,
    /// WireGuard's UDP port; absent for automatic.
    pub listen_port: Option<NonZeroU16>,
    /// Where others reach this router, in order of preference.
    pub endpoints: Vec<SocketAddr>,
    /// What the router may do for others. The coordinator cannot turn on anything else.
    pub allowed: SortedSet<Role>,
    /// The name wanted at joining; absent for the hostname.
    pub name: Option<NodeName>,
    /// Of the interface in bytes, 1280 to 1420; absent for the network's.
    pub mtu: Option<u16>,
    /// What the owner says of the router's Internet traffic; `None`: nothing, the coordinator decides.
    pub scopes: Option<Vec<OwnScope>>,
}

/// A scope as the router's owner states it: in UCI, or with `gatewrt exit enable`, in which form it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnScope {
    /// Exits by their names, in order. They take the place of `scope.exits`, which is empty here.
    pub exits: Vec<NodeName>,
    /// Beside `scope.of`, what comes in over any LAN link, whatever it is called.
    pub lan: bool,
    /// All else.
    pub scope: ExitScope,
}
json_fields!(OwnScope: scope; exits, lan);

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            join_code: None,
            listen_port: None,
            endpoints: Vec::new(),
            allowed: [Role::Egress, Role::Ingress].into(),
            name: None,
            mtu: None,
            scopes: None,
        }
    }
}

/// Something in the file that means nothing to this version; it was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What was skipped and why.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Why a file gives no [`Config`].
#[derive(Debug)]
pub enum ConfigError {
    /// It is there but can't be read.
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it can't be used.
    Bad {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u32,
        /// `option <name>` or `config <type>`; absent where the text itself is broken.
        place: Option<String>,
        /// What was wrong.
        what: String,
        /// What is allowed there.
        allowed: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, .. } => write!(f, "{file} can't be read"),
            Self::Bad { file, line, place, what, allowed } => {
                write!(f, "{file}:{line}: ")?;
                if let Some(place) = place {
                    write!(f, "{place}: ")?;
                }
                write!(f, "{what}; allowed: {allowed}")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Bad { .. } => None,
        }
    }
}

impl Config {
    /// Reads `file`. A file that is not there is the default configuration: no network.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        match std::fs::read(file) {
            Ok(bytes) => Self::parse(&name, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { file: name, source }),
        }
    }

    /// Reads a file's content; `file` is only for messages.
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
            append(&mut config.warnings, options.finish()?);
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

fn read_numbers(options: &mut Options<'_>, numbers: &mut Numbers) {
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
    let Numbers { mask, bypass, masquerade, .. } = *numbers;
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
            true => network.allowed.insert(role),
            false => network.allowed.remove(&role),
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

/// The words that OpenWrt's own scripts take (`get_bool` in `/lib/functions.sh`).
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

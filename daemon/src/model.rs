//! The objects of a kernel's network that the daemon deals in, as values: what is observed and what is
//! desired are of the same types, so that a plan is a comparison.

use crate::{
    plan::{Exits, Flows},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{Prefix, PresharedKey, WgPublicKey};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// An interface's name: 1 to 15 bytes, no `/`, no white space (`dev_valid_name` in the kernel).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// `None` when the kernel would refuse it as an interface's name.
    pub fn new(name: &str) -> Option<Self> {
        let sound = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let sound =
            sound && !name.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0);
        sound.then(|| Self(name.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&gatewrt_protocol::NetworkName> for IfName {
    fn from(network: &gatewrt_protocol::NetworkName) -> Self {
        Self(network.interface())
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of a prefix.
    pub fn of(prefix: &Prefix) -> Self {
        if prefix.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Kernel WireGuard.
    WireGuard,
    /// A TUN device: WireGuard in userspace, or something else.
    Tun,
    /// Anything else.
    Other,
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `ifindex`: changes when the interface is made anew.
    pub index: u32,
    /// What it is.
    pub kind: LinkKind,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// In bytes.
    pub mtu: u32,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub link: IfName,
    /// The address.
    pub addr: IpAddr,
    /// Prefix length; ours are 32 or 128.
    pub len: u8,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Packets go out here.
    Device(IfName),
    /// The search goes on with the next rule (`RTN_THROW`): the range is better known to the main table.
    Throw,
    /// Packets go nowhere, and no one is told (`RTN_BLACKHOLE`): what is tried again finds the way once there is one.
    Blackhole,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Routing table.
    pub table: u32,
    /// Destinations.
    pub prefix: Prefix,
    /// The least goes first.
    pub metric: u32,
    /// What becomes of them.
    pub kind: RouteKind,
}

/// A foreign unicast route, of the main table if nothing else is said: what is known there more precisely stays there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MainRoute {
    /// Destinations.
    pub prefix: Prefix,
    /// Where they go out; absent for multipath and unreachable routes.
    pub link: Option<IfName>,
    /// Without a gateway: hosts are on the link itself.
    pub on_link: bool,
}

/// A policy rule of ours: “packets without the bypass mark look here”.
///
/// The rule of a scope matches packets that have none of our marks: `mark` 0, with our `mask`. (`invert` turns the whole
/// rule round, not only the mark: it does not go together with `iif` or `from`.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Family.
    pub family: Family,
    /// Priority (`pref` of `ip rule`), the least first.
    pub priority: u32,
    /// Mark.
    pub mark: u32,
    /// Mask of the mark.
    pub mask: u32,
    /// Applies to packets that do *not* have the mark.
    pub invert: bool,
    /// Table looked up; from [`SKIP`](Self::SKIP) on none: the search goes on with the rule of priority `table - SKIP`,
    /// or with the next one while there is no such rule (`FR_ACT_GOTO`).
    pub table: u32,
    /// Only what comes in over this interface; `lo` is what the router sends itself (`FRA_IIFNAME`).
    pub iif: Option<IfName>,
    /// Only from these sources.
    pub from: Option<Prefix>,
}

impl Rule {
    /// See [`Rule::table`].
    pub const SKIP: u32 = 1 << 31;

    /// Where it skips to, if it looks into no table.
    pub fn skips_to(&self) -> Option<u32> {
        self.table.checked_sub(Self::SKIP)
    }
}

/// A policy rule of someone else's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignRule {
    /// What of it can be said in the terms of ours.
    pub rule: Rule,
    /// It selects by something else besides, or does something else than look into a table.
    pub more: bool,
    /// Longest prefix that is passed over where it leads (`FRA_SUPPRESS_PREFIXLEN`).
    pub suppress: Option<u32>,
    /// Who made it (`FRA_PROTOCOL`).
    pub protocol: u8,
}

/// A WireGuard private key. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
#[repr(align(4))]
pub struct WgSecret(pub [u8; 32]);

impl fmt::Debug for WgSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgSecret(…)")
    }
}

/// A WireGuard device's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgSettings {
    /// Private key.
    pub secret: WgSecret,
    /// UDP port. Desired: 0 is whatever the kernel chose.
    pub port: u16,
    /// Mark on the tunnels' own packets.
    pub mark: u32,
}

/// A WireGuard peer's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgPeer {
    /// Where packets go. Observed: where they go now, which the peer may have changed by roaming. Desired:
    /// `None` leaves it as it is.
    pub endpoint: Option<SocketAddr>,
    /// Addresses behind the peer.
    pub allowed: SortedSet<Prefix>,
    /// Seconds between keepalives; 0 is none.
    pub keepalive: u16,
    /// Preshared key; never one of zeros, which is how WireGuard writes that there is none.
    pub psk: Option<PresharedKey>,
}

/// What a WireGuard device tells of a peer beyond its settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WgCounters {
    /// Of the last handshake, since the Unix epoch of the router's clock; `None` before the first.
    pub handshake: Option<Duration>,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
}

/// A WireGuard device as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgDevice {
    /// Its settings; `None` while it has no private key.
    pub settings: Option<WgSettings>,
    /// Its peers.
    pub peers: SortedMap<WgPublicKey, WgPeer>,
    /// Their counters.
    pub counters: SortedMap<WgPublicKey, WgCounters>,
    /// `kernel`, or the userspace implementation's name as far as it is known.
    pub backend: String,
}

/// The text of our firewall table, as the driver takes it. It can be long, and is the same in many places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ruleset(pub Arc<str>);

/// A setting below `/proc/sys`, by its path with slashes: `net/ipv4/conf/gw-home/forwarding`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlPath(pub String);

/// All that the plan looks at, as read from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every interface.
    pub links: SortedMap<IfName, Link>,
    /// Every address.
    pub addresses: SortedSet<Address>,
    /// Those of `addresses` that carry our protocol number. On kernels that keep none (before 5.18): those on
    /// interfaces of ours of length 32 or 128.
    pub our_addresses: SortedSet<Address>,
    /// Routes that carry our protocol number, of all tables.
    pub routes: SortedSet<Route>,
    /// Unicast routes of the main table that are not ours, nor made by the kernel for an interface of ours.
    pub main_routes: SortedSet<MainRoute>,
    /// The same of those tables of others that are asked for.
    pub foreign_routes: SortedMap<u32, SortedSet<MainRoute>>,
    /// The links that had a default route when there was one last. The kernel does not know: whoever looks at it does.
    pub uplinks: SortedSet<IfName>,
    /// Rules that carry our protocol number.
    pub rules: SortedSet<Rule>,
    /// All others, but for the three that every kernel has (local, main, default).
    pub foreign_rules: SortedSet<ForeignRule>,
    /// WireGuard devices whose name starts with [`crate::ownership::INTERFACE_PREFIX`].
    pub devices: SortedMap<IfName, WgDevice>,
    /// What the connections that stand were judged by last; `None` before the first time.
    pub flows: Option<Arc<Flows>>,
    /// Our table as it was written, if it still reads as it did then; some other text when it was changed
    /// since; `None` when there is none.
    pub ruleset: Option<Ruleset>,
    /// What our table is told to: `nft` or `iptables`.
    pub firewall: &'static str,
    /// Values of the settings asked for.
    pub sysctls: SortedMap<SysctlPath, String>,
    /// What was there before we first changed a setting; kept until it is put back.
    pub saved_sysctls: SortedMap<SysctlPath, SavedSysctl>,
    /// Links that were a LAN's when the kernel was read before.
    pub lans_before: SortedSet<IfName>,
    /// Resolvers that the uplink names: public addresses, at most [`crate::resolvers::MOST`].
    pub resolvers: Vec<IpAddr>,
}

/// A setting that we changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSysctl {
    /// The value before.
    pub before: String,
    /// The value we gave it.
    pub ours: String,
}

/// One interface of ours as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// In bytes.
    pub mtu: u32,
    /// Device settings.
    pub settings: WgSettings,
    /// Overlay addresses.
    pub addresses: SortedSet<IpAddr>,
    /// Peers by key. No prefix stands in two peers' `allowed`.
    pub peers: SortedMap<WgPublicKey, WgPeer>,
}

/// All that shall be. Empty: nothing of ours remains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Interfaces of ours that are wanted.
    pub tunnels: SortedMap<IfName, Tunnel>,
    /// Interfaces of ours that were wanted once: to be removed.
    pub gone: SortedSet<IfName>,
    /// Routes.
    pub routes: SortedSet<Route>,
    /// Rules.
    pub rules: SortedSet<Rule>,
    /// Firewall table.
    pub ruleset: Option<Ruleset>,
    /// What the table says of exits, and what guards the scopes before the daemon runs.
    pub exits: Exits,
    /// What decides which connections may stand; `None` judges none.
    pub flows: Option<Arc<Flows>>,
    /// Settings of the kernel that must have this value.
    pub sysctls: SortedMap<SysctlPath, String>,
}

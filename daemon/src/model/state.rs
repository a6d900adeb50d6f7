//! State of a kernel: as observed, and as desired.

use super::{
    Address, Exits, Flows, ForeignRoute, ForeignRule, IfName, Link, Route, Rule, Ruleset, SavedSysctl,
    SysctlPath, Tunnel, WgDevice,
};
use gatewrt_protocol::Prefix;
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::{net::IpAddr, sync::Arc};

/// Observed state of the kernel: all that a plan looks at, as read from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every interface.
    pub links: LiteMap<IfName, Link>,
    /// Every address.
    pub addresses: SortedSet<Address>,
    /// Those of `addresses` that carry our protocol number. On kernels that keep none (before 5.18): those on
    /// interfaces of ours of length 32 or 128.
    pub our_addresses: SortedSet<Address>,
    /// Routes of all tables that carry our protocol number.
    pub routes: SortedSet<Route>,
    /// Unicast routes of the main table that are neither ours nor made by the kernel for an interface of ours.
    pub main_routes: SortedSet<ForeignRoute>,
    /// Unicast routes of the [queried](super::ObserveQuery::tables) tables of other programs.
    pub foreign_routes: LiteMap<u32, SortedSet<ForeignRoute>>,
    /// Links that had a default route earlier. The kernel has no memory of it; the core fills it in.
    pub uplinks: SortedSet<IfName>,
    /// Rules that carry our protocol number.
    pub rules: SortedSet<Rule>,
    /// All other rules, except the three that every kernel has (local, main, default).
    pub foreign_rules: SortedSet<ForeignRule>,
    /// WireGuard devices whose name starts with [`crate::ownership::INTERFACE_PREFIX`].
    pub devices: LiteMap<IfName, WgDevice>,
    /// Policy that established connections were last checked against; `None` before the first check.
    pub flows: Option<Arc<Flows>>,
    /// Our firewall table; `None` when there is none.
    pub ruleset: Option<Ruleset>,
    /// Program that loads our table: `nft` or `iptables`.
    pub firewall: &'static str,
    /// Values of the [queried](super::ObserveQuery::sysctls) settings.
    pub sysctls: LiteMap<SysctlPath, String>,
    /// Settings that we changed and have not put back.
    pub saved_sysctls: LiteMap<SysctlPath, SavedSysctl>,
    /// Links of LANs at the previous observation.
    pub lans_before: SortedSet<IfName>,
    /// Interfaces of ours, there or not yet, on which IPv6 is off.
    pub without_v6: SortedSet<IfName>,
    /// The kernel has no IPv6.
    pub has_no_v6: bool,
    /// Prefixes of links at the previous observation.
    pub prefixes_before: LiteMap<IfName, SortedSet<Prefix>>,
    /// Resolvers of the uplink: public addresses, at most [`crate::resolvers::MOST`].
    pub resolvers: Vec<IpAddr>,
}

/// Desired state of the kernel. Empty: nothing of ours remains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Interfaces of ours.
    pub tunnels: LiteMap<IfName, Tunnel>,
    /// Interfaces of ours that are no longer needed and are to be deleted.
    pub gone: SortedSet<IfName>,
    /// Routes.
    pub routes: SortedSet<Route>,
    /// Rules.
    pub rules: SortedSet<Rule>,
    /// Firewall table.
    pub ruleset: Option<Ruleset>,
    /// Exits as the firewall table has them; the boot lockdown is made from them.
    pub exits: Exits,
    /// The firewall table remembers which connections bypass the networks.
    pub bypass: bool,
    /// Policy that decides which established connections may stay; `None` checks none.
    pub flows: Option<Arc<Flows>>,
    /// Kernel settings and their values.
    pub sysctls: LiteMap<SysctlPath, String>,
}

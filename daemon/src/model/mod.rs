//! Network objects of a kernel as plain values, for every floor above: core, plan and kernel. Observed and desired
//! state are of the same types, so a plan is a comparison. It ends at data: decisions are made in `core` and `plan`.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]

mod firewall;
mod flows;
mod host;
mod link;
mod query;
mod route;
mod state;
mod sysctl;
mod wireguard;

pub use firewall::table::{
    AddressPair, AddressRange, Addresses, BaseChain, Chain, ChainName, ChainPolicy, ChainType, CtState,
    FirewallRule, FirewallSet, FirewallTable, Hook, Interfaces, Mark, Match, Op, Priority, Ruleset,
    SetElement, SetKind, SetName, Statement, Transport, protocol_number,
};
pub use firewall::{Exits, Guard, ScopeGuard, Source};
pub use flows::{Flow, Flows, NetworkPolicy, ScopeFlows};
pub use host::{MAX_ADDRESSES, split_host_port};
pub use link::{Address, IfName, Link, LinkKind};
pub use query::ObserveQuery;
pub use route::{Family, ForeignRoute, ForeignRule, Route, RouteKind, Rule};
pub use state::{Desired, Observed};
pub use sysctl::{SavedSysctl, SysctlPath};
pub use wireguard::{NO_PSK, Short, Tunnel, WgCounters, WgDevice, WgPeer, WgSecret, WgSettings};
